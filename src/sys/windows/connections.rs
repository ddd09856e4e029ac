//! Connections that are being made, on either end.

use std::io;
use std::net::{TcpListener, TcpStream};
use std::os::windows::io::AsRawSocket;
use std::time::Duration;

use rustix::event::{poll, PollFd, PollFlags, Timespec};
use rustix::fd::AsFd;
use rustix::io::Errno;
use socket2::SockRef;

use super::super::Passes;

/// Whether `connect` goes on by itself.
pub(crate) fn is_in_progress(e: &io::Error) -> bool {
    errno(e) == Some(Errno::WOULDBLOCK)
}

/// As the documentation of `accept` has it: a connection "was terminated by the remote peer prior to accepting the call".
pub(crate) fn passes(e: &io::Error) -> Passes {
    match errno(e) {
        Some(
            Errno::INTR
            | Errno::CONNRESET
            | Errno::CONNABORTED
            | Errno::NETDOWN
            | Errno::HOSTDOWN
            | Errno::HOSTUNREACH
            | Errno::NETUNREACH,
        ) => Passes::AtOnce,
        Some(Errno::MFILE | Errno::NOBUFS) => Passes::Later,
        _ => Passes::Never,
    }
}

/// Whether another connection comes within this time.
pub(crate) fn arrives(listener: &TcpListener, within: Duration) -> bool {
    is_readable(listener, within)
}

/// Whether the peer has sent something that nobody has received.
pub(crate) fn has_said_something(stream: &TcpStream) -> bool {
    // The stream may be one that blocks.
    is_readable(stream, Duration::ZERO) && stream.peek(&mut [0; 1]).is_ok_and(|n| n > 0)
}

fn is_readable(socket: &impl AsFd, within: Duration) -> bool {
    let within = Timespec { tv_sec: within.as_secs() as _, tv_nsec: within.subsec_nanos() as _ };
    poll(&mut [PollFd::new(socket, PollFlags::IN)], Some(&within)).is_ok_and(|ready| ready > 0)
}

fn errno(e: &io::Error) -> Option<Errno> {
    e.raw_os_error().map(Errno::from_raw_os_error)
}

/// Whoever waits must do so in `wait`, on a socket that does not block.
pub(crate) const SHUTDOWN_WAKES: bool = false;

/// Refuses connections from here on, and resets those in the queue. A listening socket can't be shut down here; one that
/// knows no pause goes on listening until it is closed.
pub(crate) fn stop_listening(listener: &TcpListener) {
    /// As many as a queue may hold.
    const MOST: usize = 4096;
    admit_no_more(listener);
    for (stream, _) in std::iter::from_fn(|| listener.accept().ok()).take(MOST) {
        let _ = SockRef::from(&stream).set_linger(Some(Duration::ZERO));
    }
}

/// Whether no new connection will be begun from here on: the system answers them with a reset.
pub(crate) fn admit_no_more(listener: &TcpListener) -> bool {
    use windows_sys::Win32::Networking::WinSock::{setsockopt, SOL_SOCKET, SO_PAUSE_ACCEPT};
    let yes = 1u32.to_ne_bytes();
    #[allow(unsafe_code, reason = "an option for which socket2 has no function")]
    // SAFETY: it reads the four bytes, and the socket is open, as it is borrowed.
    let result = unsafe {
        setsockopt(listener.as_raw_socket() as _, SOL_SOCKET, SO_PAUSE_ACCEPT as i32, yes.as_ptr(), yes.len() as i32)
    };
    result == 0
}

pub(crate) fn lift(_: &TcpStream) {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_one_connection_of_the_system_and_of_the_listener_are_told_apart() {
        let of = |errno: Errno| passes(&errno.into());
        for errno in [Errno::CONNRESET, Errno::CONNABORTED, Errno::NETUNREACH, Errno::HOSTDOWN] {
            assert_eq!(of(errno), Passes::AtOnce, "{errno}");
        }
        for errno in [Errno::MFILE, Errno::NOBUFS] {
            assert_eq!(of(errno), Passes::Later, "{errno}");
        }
        for errno in [Errno::WOULDBLOCK, Errno::INVAL, Errno::BADF, Errno::NOTSOCK, Errno::OPNOTSUPP] {
            assert_eq!(of(errno), Passes::Never, "{errno}");
        }
        assert_eq!(passes(&io::ErrorKind::ConnectionAborted.into()), Passes::Never, "not the system's");
    }
}
