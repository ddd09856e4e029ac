use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// A descriptor that can be read from when somebody has rung. Close-on-exec and non-blocking.
pub(crate) struct Bell {
    read: OwnedFd,
    /// Of a pipe.
    write: Option<OwnedFd>,
}

impl Bell {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    pub fn new() -> io::Result<Bell> {
        use rustix::event::{eventfd, EventfdFlags};
        Ok(Bell { read: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?, write: None })
    }

    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    pub fn new() -> io::Result<Bell> {
        Bell::pipe()
    }

    #[cfg(any(test, not(any(target_os = "linux", target_os = "android"))))]
    pub fn pipe() -> io::Result<Bell> {
        // std's is close-on-exec on every system.
        let (read, write) = io::pipe()?;
        for end in [read.as_fd(), write.as_fd()] {
            super::Flags::of(end)?.set_nonblocking(end)?;
        }
        Ok(Bell { read: read.into(), write: Some(write.into()) })
    }

    /// One that is full already has been rung.
    pub fn ring(&self) {
        let write = self.write.as_ref().unwrap_or(&self.read);
        while let Err(rustix::io::Errno::INTR) = rustix::io::write(write, &1u64.to_ne_bytes()) {}
        #[cfg(all(test, shuttle))]
        crate::schedules::net::touched();
    }

    /// Silent again.
    pub fn drain(&self) {
        let mut buf = [0; 512];
        loop {
            match rustix::io::read(&self.read, &mut buf) {
                Ok(n) if n == buf.len() => {}
                Err(rustix::io::Errno::INTR) => {}
                _ => return,
            }
        }
    }
}

impl AsFd for Bell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.read.as_fd()
    }
}
