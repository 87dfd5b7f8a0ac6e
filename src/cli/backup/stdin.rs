//! Standard input that can be left: a blocking read would keep an interrupted backup from ending.

use std::io::{self, Read};
use std::os::fd::BorrowedFd;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use crate::base::cancel::{Cancel, Cancelled};

/// How often a wait looks whether the run was cancelled.
const SLICE: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };

/// Room for what comes while the last was worked on; the most that anybody may ask for.
const PIPE_BYTES: usize = 1 << 20;

/// Unbuffered stdin.
pub struct Stdin {
    descriptor: BorrowedFd<'static>,
    cancel: Cancel,
}

impl Stdin {
    pub fn new(cancel: Cancel) -> Self {
        let descriptor = rustix::stdio::stdin();
        // Only a pipe has room to widen; everything else says no and is read as it is.
        let _ = rustix::pipe::fcntl_setpipe_size(descriptor, PIPE_BYTES);
        Self { descriptor, cancel }
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
