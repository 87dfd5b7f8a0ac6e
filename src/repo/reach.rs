//! The log of every chunk a snapshot reaches, kept while it is made.
//!
//! A writer cannot read back the pages it seals, yet must prove before confirming that everything they name still
//! exists. So it writes the ids down: 17 bytes each in a temporary file, looked at only when a pack went.

use std::io::{BufReader, BufWriter, Read, Seek, Write};
use std::path::Path;

use super::RepoError;
use super::local::error;
use crate::format::header::ObjectKind;
use crate::format::id::ShortId;

/// See the module.
pub struct Reach {
    file: BufWriter<std::fs::File>,
    count: u64,
}

const RECORD_BYTES: usize = 17;

impl Reach {
    /// An empty log in `folder`, or in the system's temporary folder. It has no name and vanishes when dropped.
    pub fn new(folder: Option<&Path>) -> Result<Self, RepoError> {
        let place = folder.map_or_else(|| Path::new("/var/tmp").to_path_buf(), Path::to_path_buf);
        let file = tempfile::tempfile_in(&place).map_err(error("create a temporary file in", &place))?;
        Ok(Self { file: BufWriter::with_capacity(256 << 10, file), count: 0 })
    }

    /// Notes that the snapshot reaches a chunk.
    pub fn add(&mut self, kind: ObjectKind, id: &ShortId) -> Result<(), RepoError> {
        let mut record = [0; RECORD_BYTES];
        record[0] = kind as u8;
        record[1..].copy_from_slice(id.as_bytes());
        self.count += 1;
        self.file.write_all(&record).map_err(error("write", Path::new("the reach log")))
    }

    /// How many were noted, repeats included.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Calls `visit` with every chunk noted.
    pub fn for_each(
        &mut self,
        mut visit: impl FnMut(ObjectKind, ShortId) -> Result<(), RepoError>,
    ) -> Result<(), RepoError> {
        let failed = || error("read", Path::new("the reach log"));
        self.file.flush().map_err(failed())?;
        let mut file = self.file.get_ref().try_clone().map_err(failed())?;
        file.rewind().map_err(failed())?;
        let mut reader = BufReader::with_capacity(256 << 10, file);
        let mut record = [0; RECORD_BYTES];
        for _ in 0..self.count {
            reader.read_exact(&mut record).map_err(failed())?;
            let mut id = [0; 16];
            id.copy_from_slice(&record[1..]);
            let kind = if record[0] == ObjectKind::Data as u8 { ObjectKind::Data } else { ObjectKind::Meta };
            visit(kind, ShortId(id))?;
        }
        self.file.seek(std::io::SeekFrom::End(0)).map_err(failed())?;
        Ok(())
    }
}
