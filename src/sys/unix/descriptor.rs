//! Halves of a stream that need not be sockets: a child's pipes, files.

use std::any::Any;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{fcntl_getfl, fcntl_setfl, OFlags};

/// How a descriptor was set before a file made it non-blocking. Two halves may be one and the same: ask both before you
/// change either.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Flags(OFlags);

impl Flags {
    pub fn of(fd: BorrowedFd<'_>) -> io::Result<Flags> {
        Ok(Flags(fcntl_getfl(fd)?))
    }

    pub fn are_nonblocking(self) -> bool {
        self.0.contains(OFlags::NONBLOCK)
    }

    pub fn set_nonblocking(self, fd: BorrowedFd<'_>) -> io::Result<()> {
        Ok(fcntl_setfl(fd, self.0 | OFlags::NONBLOCK)?)
    }

    pub fn restore(self, fd: BorrowedFd<'_>) -> io::Result<()> {
        Ok(fcntl_setfl(fd, self.0)?)
    }
}

/// A copy to poll (close-on-exec), for a half behind a lock that a thread holds while it reads or writes.
pub(crate) fn duplicate(fd: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    fd.try_clone_to_owned()
}

/// The descriptor of a half, if it is one of std's types that have one and hold no buffer of their own.
///
/// `Duplex` takes any `Read` and any `Write`, so this can only be found out at run time. Standard input and output are
/// left out: making them non-blocking would change them for every process on the terminal.
pub(crate) fn descriptor_of<T: Any>(half: &T) -> Option<BorrowedFd<'_>> {
    #[cfg(std_pipe)]
    #[allow(clippy::incompatible_msrv, reason = "as build.rs found out")]
    let pipe = as_fd::<io::PipeReader>(half).or_else(|| as_fd::<io::PipeWriter>(half));
    #[cfg(not(std_pipe))]
    let pipe = None;
    pipe.or_else(|| as_fd::<std::process::ChildStdout>(half))
        .or_else(|| as_fd::<std::process::ChildStdin>(half))
        .or_else(|| as_fd::<std::process::ChildStderr>(half))
        .or_else(|| as_fd::<std::fs::File>(half))
        .or_else(|| socket_of(half))
}

fn socket_of(half: &dyn Any) -> Option<BorrowedFd<'_>> {
    as_fd::<std::net::TcpStream>(half)
        .or_else(|| as_fd::<std::os::unix::net::UnixStream>(half))
        .or_else(|| as_fd::<socket2::Socket>(half))
}

fn as_fd<T: AsFd + Any>(half: &dyn Any) -> Option<BorrowedFd<'_>> {
    half.downcast_ref::<T>().map(AsFd::as_fd)
}

/// As `claim`, of a half that may be a socket.
pub(crate) fn silence_half<W: Any>(half: &W) -> io::Result<()> {
    socket_of(half).map_or(Ok(()), super::claim)
}

/// As `write`, of a half that may be a socket: its own `write` may end the process when the peer has gone.
pub(crate) fn write_half<W: Write + Any>(half: &mut W, buf: &[u8]) -> io::Result<usize> {
    match socket_of(half) {
        Some(socket) => super::send_as_set(socket, buf),
        None => half.write(buf),
    }
}
