use std::io;
use std::sync::Arc;

use crate::sys::{self, AsFd, BorrowedFd, Flags, OwnedFd};

/// A descriptor that is non-blocking while a file has it: a copy of our own, so that polling needs no lock of the stream's,
/// and how it was set before.
pub(super) struct Claimed {
    pub fd: Arc<OwnedFd>,
    flags: Flags,
}

impl Claimed {
    /// Changes nothing yet.
    pub fn of(fd: BorrowedFd<'_>) -> io::Result<Claimed> {
        Ok(Claimed { flags: Flags::of(fd)?, fd: Arc::new(sys::duplicate(fd)?) })
    }

    pub fn was_nonblocking(&self) -> bool {
        self.flags.are_nonblocking()
    }

    pub fn set_nonblocking(&self) -> io::Result<()> {
        self.flags.set_nonblocking(self.fd.as_fd())
    }

    /// What can't be set on it any more needs no setting.
    pub fn restore(&self) {
        let _ = self.flags.restore(self.fd.as_fd());
    }
}
