//! Standard input that can be left: a blocking read would keep an interrupted backup from ending.

use std::io::{self, Read};
use std::os::fd::BorrowedFd;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use crate::base::cancel::{Cancel, Cancelled};

/// How often a wait looks whether the run was cancelled.
const SLICE: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };

/// Unbuffered stdin.
pub struct Stdin {
    descriptor: BorrowedFd<'static>,
    cancel: Cancel,
}

impl Stdin {
    pub fn new(cancel: Cancel) -> Self {
        Self { descriptor: rustix::stdio::stdin(), cancel }
    }
}

impl Read for Stdin {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            if self.cancel.is_cancelled() {
                return Err(io::Error::other(Cancelled));
            }
            let mut waited = [PollFd::new(&self.descriptor, PollFlags::IN)];
            match poll(&mut waited, Some(&SLICE)) {
                Ok(0) | Err(Errno::INTR) => {}
                Ok(_) => match rustix::io::read(self.descriptor, &mut *buffer) {
                    Err(Errno::INTR | Errno::AGAIN) => {}
                    read => return Ok(read?),
                },
                Err(error) => return Err(error.into()),
            }
        }
    }
}
