//! Halves of a stream: only sockets can be polled.

use std::any::Any;
use std::io::{self, Write};

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use socket2::SockRef;

/// How a socket was set before a file made it non-blocking: nobody can ask, so it counts as blocking.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Flags;

impl Flags {
    pub fn of(_: BorrowedFd<'_>) -> io::Result<Flags> {
        Ok(Flags)
    }

    pub fn are_nonblocking(self) -> bool {
        false
    }

    pub fn set_nonblocking(self, fd: BorrowedFd<'_>) -> io::Result<()> {
        SockRef::from(&fd).set_nonblocking(true)
    }

    pub fn restore(self, fd: BorrowedFd<'_>) -> io::Result<()> {
        SockRef::from(&fd).set_nonblocking(false)
    }
}

/// A copy to poll (children do not inherit it), for a half behind a lock that a thread holds while it reads or writes.
pub(crate) fn duplicate(fd: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    fd.try_clone_to_owned()
}

/// The socket of a half, if it is one. Pipes and files can't be polled: they are halves as any other.
pub(crate) fn descriptor_of<T: Any>(half: &T) -> Option<BorrowedFd<'_>> {
    let half: &dyn Any = half;
    let tcp = half.downcast_ref::<std::net::TcpStream>().map(AsFd::as_fd);
    tcp.or_else(|| half.downcast_ref::<socket2::Socket>().map(AsFd::as_fd))
}

/// There are no signals.
pub(crate) fn silence_half<W: Any>(_: &W) -> io::Result<()> {
    Ok(())
}

pub(crate) fn write_half<W: Write + Any>(half: &mut W, buf: &[u8]) -> io::Result<usize> {
    half.write(buf)
}
