//! Standard input as a source: read so that a signal is heeded while nothing comes.

use std::io::{self, ErrorKind, Read};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

/// How long nothing may come before whoever reads looks around.
const LOOK_AFTER: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };

/// Standard input, unbuffered. While nothing comes a read ends with [`ErrorKind::Interrupted`] now and then.
#[derive(Debug)]
pub(crate) struct HeedfulStdin;

impl Read for HeedfulStdin {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let input = io::stdin();
        match poll(&mut [PollFd::new(&input, PollFlags::IN)], Some(&LOOK_AFTER)) {
            Ok(0) | Err(Errno::INTR) => Err(ErrorKind::Interrupted.into()),
            Ok(_) => Ok(rustix::io::read(&input, buffer)?),
            Err(error) => Err(error.into()),
        }
    }
}
