//! Sockets. Nothing here waits, but for `recv_for_slice`.

use std::io;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use rustix::fs::{fcntl_getfl, OFlags};
use rustix::net::{recv, send, RecvFlags, SendFlags};
use socket2::SockRef;

use super::super::{without_delay, SLICE};
use crate::machine::Going;

#[cfg(not(target_vendor = "apple"))]
const NOSIGNAL: SendFlags = SendFlags::NOSIGNAL;
/// There `claim` sees to it.
#[cfg(target_vendor = "apple")]
const NOSIGNAL: SendFlags = SendFlags::empty();

/// For what is followed by a half-close at once: both then go in one segment.
#[cfg(any(target_os = "linux", target_os = "android"))]
const MORE: SendFlags = SendFlags::MORE;
#[cfg(not(any(target_os = "linux", target_os = "android")))]
const MORE: SendFlags = SendFlags::empty();

/// `Ok(0)` is the end. Errors: `WouldBlock`, and the socket's.
pub(crate) fn try_recv(fd: BorrowedFd<'_>, buf: &mut [u8]) -> io::Result<usize> {
    Ok(recv(fd, buf, RecvFlags::DONTWAIT)?.0)
}

/// Waits for data, at most for [`SLICE`] if `bound_receives` was called before. Errors: `WouldBlock` when that has passed
/// (or at once, if the socket is non-blocking), `Interrupted` by a signal, and the socket's.
pub(crate) fn recv_for_slice(fd: BorrowedFd<'_>, buf: &mut [u8]) -> io::Result<usize> {
    Ok(recv(fd, buf, RecvFlags::empty())?.0)
}

/// What `recv_for_slice` needs.
pub(crate) fn bound_receives(fd: BorrowedFd<'_>) -> io::Result<()> {
    SockRef::from(&fd).set_read_timeout(Some(SLICE))
}

/// Errors: `WouldBlock`, and the socket's.
pub(crate) fn try_send(fd: BorrowedFd<'_>, buf: &[u8], going: Going) -> io::Result<usize> {
    let send = |more| Ok(send(fd, buf, SendFlags::DONTWAIT | NOSIGNAL | more)?);
    match going {
        Going::AsSet => send(SendFlags::empty()),
        Going::Promptly => without_delay(fd, || send(SendFlags::empty())),
        Going::Last => send(MORE),
    }
}

/// Waits or not, as the socket is set.
pub(super) fn send_as_set(fd: BorrowedFd<'_>, buf: &[u8]) -> io::Result<usize> {
    Ok(send(fd, buf, NOSIGNAL)?)
}

/// `claim` does something: Apple's sockets must be told not to send SIGPIPE.
pub(crate) const MUST_BE_CLAIMED: bool = cfg!(target_vendor = "apple");

/// Before the first `try_send`: a connection that breaks must not end the process.
pub(crate) fn claim(fd: BorrowedFd<'_>) -> io::Result<()> {
    #[cfg(target_vendor = "apple")]
    SockRef::from(&fd).set_nosigpipe(true)?;
    let _ = fd;
    Ok(())
}

/// What a socket was told then is good for whoever has it next, too.
pub(crate) fn unclaim(_: BorrowedFd<'_>) {}

pub(crate) fn is_nonblocking(fd: BorrowedFd<'_>) -> io::Result<bool> {
    Ok(fcntl_getfl(fd)?.contains(OFlags::NONBLOCK))
}

/// Of receives and of sends.
pub(crate) fn timeouts(fd: BorrowedFd<'_>) -> io::Result<(Option<Duration>, Option<Duration>)> {
    let socket = SockRef::from(&fd);
    Ok((socket.read_timeout()?, socket.write_timeout()?))
}

/// That of receives, which `bound_receives` has changed.
pub(crate) fn restore_timeout(fd: BorrowedFd<'_>, time: Option<Duration>) -> io::Result<()> {
    SockRef::from(&fd).set_read_timeout(time)
}

/// The error that the system holds for the socket, which is gone from there then.
pub(crate) fn take_error(fd: BorrowedFd<'_>) -> Option<io::Error> {
    SockRef::from(&fd).take_error().ok().flatten()
}

/// How much the peer's system has not acknowledged, a sent half-close counting as one; of a Unix socket, whether there is
/// something that the peer has not read (the number is that of the system's memory for it). `None`: nobody knows.
pub(crate) fn unacknowledged(fd: BorrowedFd<'_>) -> Option<usize> {
    const SIOCOUTQ: rustix::ioctl::Opcode = 0x5411;
    // Elsewhere it does not exist or has another number.
    const KNOWN: bool = cfg!(all(
        any(target_os = "linux", target_os = "android"),
        any(
            target_arch = "x86_64",
            target_arch = "x86",
            target_arch = "aarch64",
            target_arch = "arm",
            target_arch = "riscv64",
            target_arch = "loongarch64",
            target_arch = "s390x"
        )
    ));
    if !KNOWN {
        return None;
    }
    #[allow(unsafe_code, reason = "an ioctl for which rustix has no function")]
    // SAFETY: where it is known, the request writes one `int` or fails, whatever the descriptor is: sockets know it as
    // SIOCOUTQ, terminals, with the same number and meaning, as TIOCOUTQ. Being borrowed, the descriptor is open.
    let left = unsafe { rustix::ioctl::ioctl(fd, rustix::ioctl::Getter::<SIOCOUTQ, i32>::new()) };
    left.ok()?.try_into().ok()
}
