//! Sockets. Nothing here waits: they are non-blocking while a file has them.

use std::io;
use std::time::Duration;

use rustix::fd::BorrowedFd;
use rustix::io::Errno;
use rustix::net::{recv, send, RecvFlags, SendFlags};
use socket2::SockRef;

use super::super::without_delay;
use crate::machine::Going;

/// `claim` does something.
pub(crate) const MUST_BE_CLAIMED: bool = true;

/// A file has the socket from here on, until `unclaim`. No single call can be told not to wait, so the socket is.
pub(crate) fn claim(fd: BorrowedFd<'_>) -> io::Result<()> {
    SockRef::from(&fd).set_nonblocking(true)
}

/// See `is_nonblocking`.
pub(crate) fn unclaim(fd: BorrowedFd<'_>) {
    let _ = SockRef::from(&fd).set_nonblocking(false);
}

/// `Ok(0)` is the end, be it our own. Errors: `WouldBlock`, and the socket's.
pub(crate) fn try_recv(fd: BorrowedFd<'_>, buf: &mut [u8]) -> io::Result<usize> {
    match recv(fd, buf, RecvFlags::empty()) {
        Ok((n, _)) => Ok(n),
        Err(Errno::SHUTDOWN) => Ok(0),
        Err(e) => Err(as_elsewhere(e)),
    }
}

/// A wait costs little more here than one in `recv`: it is left to `wait`.
pub(crate) fn recv_for_slice(fd: BorrowedFd<'_>, buf: &mut [u8]) -> io::Result<usize> {
    try_recv(fd, buf)
}

pub(crate) fn bound_receives(_: BorrowedFd<'_>) -> io::Result<()> {
    Ok(())
}

/// Errors: `WouldBlock`, and the socket's.
pub(crate) fn try_send(fd: BorrowedFd<'_>, buf: &[u8], going: Going) -> io::Result<usize> {
    let send = || send(fd, buf, SendFlags::empty()).map_err(as_elsewhere);
    match going {
        Going::AsSet | Going::Last => send(),
        Going::Promptly => without_delay(fd, send),
    }
}

/// What other systems call a reset is an abort of our own here if something was being sent; and writing behind the end
/// of our direction has no kind of its own.
fn as_elsewhere(e: Errno) -> io::Error {
    let kind = match e {
        Errno::CONNABORTED => io::ErrorKind::ConnectionReset,
        Errno::SHUTDOWN => io::ErrorKind::BrokenPipe,
        _ => return e.into(),
    };
    io::Error::new(kind, io::Error::from(e))
}

/// Nobody can ask: a socket counts as blocking.
pub(crate) fn is_nonblocking(_: BorrowedFd<'_>) -> io::Result<bool> {
    Ok(false)
}

/// Of receives and of sends.
pub(crate) fn timeouts(fd: BorrowedFd<'_>) -> io::Result<(Option<Duration>, Option<Duration>)> {
    let socket = SockRef::from(&fd);
    Ok((socket.read_timeout()?, socket.write_timeout()?))
}

/// Which nobody has changed.
pub(crate) fn restore_timeout(_: BorrowedFd<'_>, _: Option<Duration>) -> io::Result<()> {
    Ok(())
}

/// The error that the system holds for the socket, which is gone from there then.
pub(crate) fn take_error(fd: BorrowedFd<'_>) -> Option<io::Error> {
    SockRef::from(&fd).take_error().ok().flatten()
}

/// Nobody knows.
pub(crate) fn unacknowledged(_: BorrowedFd<'_>) -> Option<usize> {
    None
}
