use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// A descriptor that can be read from when somebody has rung. Close-on-exec and non-blocking.
pub(crate) struct Bell {
    read: OwnedFd,
    /// Of a pair.
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
        Bell::pair()
    }

    /// Where there is no eventfd. std makes it close-on-exec on every system, which can't be had of a pipe in one step.
    #[cfg(any(test, not(any(target_os = "linux", target_os = "android"))))]
    pub fn pair() -> io::Result<Bell> {
        let (read, write) = std::os::unix::net::UnixStream::pair()?;
        read.set_nonblocking(true)?;
        write.set_nonblocking(true)?;
        Ok(Bell { read: read.into(), write: Some(write.into()) })
    }

    /// One that is full already has been rung.
    pub fn ring(&self) {
        let write = self.write_end();
        while let Err(rustix::io::Errno::INTR) = rustix::io::write(write, &1u64.to_ne_bytes()) {}
        #[cfg(all(test, shuttle))]
        crate::schedules::net::touched();
    }

    pub(super) fn write_end(&self) -> BorrowedFd<'_> {
        self.write.as_ref().unwrap_or(&self.read).as_fd()
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
