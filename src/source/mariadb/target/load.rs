//! A dump into the database to work in, through the client, as it comes.

use std::io::{self, Read, Write};

use super::super::dump::Dump;
use super::super::error::{self, MariaError};
use super::MariaTarget;
use super::names::{Names, names};
use crate::base::process::{Process, ProcessOptions};
use crate::source::capture::SourceError;

const BUFFER_BYTES: usize = 256 << 10;

impl MariaTarget {
    /// Loads tables and rows; keeps the rest back.
    pub(super) fn load(&mut self, place: usize, content: &mut dyn Read) -> Result<(), SourceError> {
        let plan = &self.plans[place];
        if plan.was_empty.is_some()
            && names(self.reach()?, &plan.work, &self.world.cancel)? != Names::default()
        {
            return Err(SourceError::Refused(format!(
                "somebody makes something in database {:?}, which was empty\nhint: restore when nobody does, or under \
                 another name",
                plan.name
            )));
        }
        self.plans[place].is_loaded = true;
        let plan = &self.plans[place];
        let subject = format!("restore database {:?}", plan.name);
        let broken = |cause| MariaError::Dump { subject: subject.clone(), cause };
        let failed = |error| error::tool(subject.clone(), error);
        // A sequence that a column takes its default from is named with its database.
        let mut dump = Dump::new(true).renaming(&plan.from, &plan.work);
        let command = self.reach()?.client(Some(&plan.work));
        // Building an index says nothing for hours.
        let options = ProcessOptions { no_progress: None, ..ProcessOptions::default() };
        let (mut process, mut feed) =
            Process::start_fed(command, options, &self.world.cancel).map_err(failed)?;
        let mut buffer = vec![0; BUFFER_BYTES];
        let mut out = Vec::with_capacity(2 * BUFFER_BYTES);
        let mut is_there = true;
        while is_there {
            let length = content
                .read(&mut buffer)
                .map_err(|cause| MariaError::Local { operation: "read the dump", cause })?;
            if length == 0 {
                break;
            }
            dump.push(&buffer[..length], &mut out).map_err(broken)?;
            match feed.write_all(&out) {
                Ok(()) => {}
                // Then the client is gone, and says why below.
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => is_there = false,
                Err(cause) => {
                    self.world.cancel.check()?;
                    return Err(MariaError::Local { operation: "write to the client", cause }.into());
                }
            }
            out.clear();
        }
        drop(feed);
        while process.read_some(&mut buffer).map_err(failed)? > 0 {}
        process.finish().map_err(failed)?;
        self.plans[place].held = dump.finish().map_err(broken)?.held;
        Ok(())
    }
}
