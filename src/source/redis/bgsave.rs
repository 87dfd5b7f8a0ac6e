//! The file a server writes when it is told to save: read from our own file system, if it is there.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::RedisError;
use super::flow::Flow;
use super::info::Info;
use super::reach::Reach;
use super::spool::file;
use super::wire::{Login, Wire};
use crate::base::cancel::Cancel;

const PAUSE: Duration = Duration::from_millis(100);

/// An RDB file that was just written.
pub struct Saved {
    file: File,
    path: PathBuf,
    cancel: Cancel,
}

impl Saved {
    /// Tells the server to save, waits until it has, and opens the file: `None` when that is not here to be read.
    ///
    /// # Errors
    /// It cannot save, refuses, or is lost.
    pub fn start(reach: &Arc<dyn Reach>, login: &Login, cancel: &Cancel) -> Result<Option<Self>, RedisError> {
        let mut wire = Wire::open(reach, login, cancel)?;
        // One under way is older than this call.
        wait(&mut wire)?;
        wire.ask(&["BGSAVE", "SCHEDULE"])?;
        wait(&mut wire)?;
        let info = Info::of(&mut wire)?;
        if info.text("rdb_last_bgsave_status") != "ok" {
            let server = wire.server();
            return Err(RedisError::Unable(format!("{server} could not save; its log says why")));
        }
        let mut setting = |name: &str| -> Result<String, RedisError> {
            let reply = wire.ask(&["CONFIG", "GET", name])?;
            Ok(reply.items().get(1).map(|value| value.text()).unwrap_or_default())
        };
        let path = Path::new(&setting("dir")?).join(setting("dbfilename")?);
        let opened = File::open(&path).ok();
        Ok(opened.map(|file| Self { file, path, cancel: cancel.clone() }))
    }
}

fn wait(wire: &mut Wire) -> Result<(), RedisError> {
    loop {
        let info = Info::of(wire)?;
        let is_idle = |field| info.number(field).unwrap_or(0) == 0;
        if is_idle("rdb_bgsave_in_progress") && is_idle("aof_rewrite_in_progress") {
            return Ok(());
        }
        wire.pause(PAUSE)?;
    }
}

impl Flow for Saved {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, RedisError> {
        self.cancel.check()?;
        self.file.read(buffer).map_err(file("read", &self.path))
    }
}
