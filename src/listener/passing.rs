//! Which errors of `accept` pass by themselves.

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};

use rustix::io::Errno;
use socket2::SockRef;

/// What to do about an error of `accept`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Passes {
    /// It was about one connection, which is gone.
    AtOnce,
    /// The system is out of something: try again in a while.
    Later,
    /// It is about the listener.
    Never,
}

/// As accept(2) has it: "network errors for the new socket [...] treat them like EAGAIN by retrying".
pub(super) fn passes(e: &io::Error) -> Passes {
    match e.raw_os_error().map(Errno::from_raw_os_error) {
        Some(
            Errno::INTR
            | Errno::CONNABORTED
            | Errno::PROTO
            | Errno::NETDOWN
            | Errno::NOPROTOOPT
            | Errno::HOSTDOWN
            | Errno::HOSTUNREACH
            | Errno::NETUNREACH,
        ) => Passes::AtOnce,
        #[cfg(any(target_os = "linux", target_os = "android"))]
        Some(Errno::NONET) => Passes::AtOnce,
        // The last one is also what a socket says that can't accept at all: no reason to spin.
        Some(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM | Errno::OPNOTSUPP) => Passes::Later,
        _ => Passes::Never,
    }
}

/// Until a connection has come. A listener that does not block waits for nothing else either.
pub(super) fn accept(
    listener: &TcpListener,
    check_open: impl Fn() -> io::Result<()>,
    rest: impl Fn(),
) -> io::Result<(TcpStream, SocketAddr)> {
    loop {
        check_open()?;
        let e = match listener.accept() {
            Ok(accepted) => return Ok(accepted),
            Err(e) => e,
        };
        check_open()?;
        match passes(&e) {
            Passes::AtOnce => {}
            Passes::Later if !SockRef::from(listener).nonblocking()? => rest(),
            _ => return Err(e),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_one_connection_of_the_system_and_of_the_listener_are_told_apart() {
        let of = |errno: Errno| passes(&errno.into());
        for errno in [Errno::CONNABORTED, Errno::PROTO, Errno::NETUNREACH, Errno::HOSTDOWN] {
            assert_eq!(of(errno), Passes::AtOnce, "{errno}");
        }
        for errno in [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM] {
            assert_eq!(of(errno), Passes::Later, "{errno}");
        }
        for errno in [Errno::WOULDBLOCK, Errno::INVAL, Errno::BADF, Errno::NOTSOCK, Errno::PERM] {
            assert_eq!(of(errno), Passes::Never, "{errno}");
        }
        assert_eq!(passes(&io::ErrorKind::ConnectionAborted.into()), Passes::Never, "not the system's");
    }
}
