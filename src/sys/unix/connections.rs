//! Connections that are being made, on either end.

use std::io;
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use rustix::event::{poll, PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::net::{recv, RecvFlags};

use super::super::Passes;

/// Whether `connect` goes on by itself.
pub(crate) fn is_in_progress(e: &io::Error) -> bool {
    errno(e) == Some(Errno::INPROGRESS)
}

/// As accept(2) has it: "network errors for the new socket [...] treat them like EAGAIN by retrying".
pub(crate) fn passes(e: &io::Error) -> Passes {
    match errno(e) {
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

/// Whether another connection comes within this time.
pub(crate) fn arrives(listener: &TcpListener, within: Duration) -> bool {
    let within = Timespec { tv_sec: within.as_secs() as _, tv_nsec: within.subsec_nanos() as _ };
    poll(&mut [PollFd::new(listener, PollFlags::IN)], Some(&within)).is_ok_and(|ready| ready > 0)
}

/// Whether the peer has sent something that nobody has received.
pub(crate) fn has_said_something(stream: &TcpStream) -> bool {
    recv(stream, &mut [0; 1], RecvFlags::PEEK | RecvFlags::DONTWAIT).is_ok_and(|(n, _)| n > 0)
}

fn errno(e: &io::Error) -> Option<Errno> {
    e.raw_os_error().map(Errno::from_raw_os_error)
}

/// A `stop_listening` ends an `accept` that another thread waits in.
pub(crate) const SHUTDOWN_WAKES: bool = true;

/// Refuses connections from here on, and resets those in the queue.
pub(crate) fn stop_listening(listener: &TcpListener) {
    let _ = socket2::SockRef::from(listener).shutdown(std::net::Shutdown::Both);
}

/// Whether no new connection will be begun from here on. Where the system does not let us, it goes without.
pub(crate) fn admit_no_more(listener: &TcpListener) -> bool {
    filter::attach(listener)
}

/// For one that was accepted after that, which has inherited it.
pub(crate) fn lift(stream: &TcpStream) {
    filter::detach(stream);
}

#[cfg(any(target_os = "linux", target_os = "android"))]
mod filter {
    use std::net::{TcpListener, TcpStream};

    use socket2::{SockFilter, SockRef};

    /// In the system's language for packet filters (`linux/filter.h`), which sees the TCP header: 0 drops a packet.
    fn no_syn() -> [SockFilter; 5] {
        [
            // The flags: load a byte, keep SYN and ACK of it.
            SockFilter::new(0x30, 0, 0, 13),
            SockFilter::new(0x54, 0, 0, 0x12),
            // SYN alone begins a connection.
            SockFilter::new(0x15, 0, 1, 0x02),
            SockFilter::new(0x06, 0, 0, 0),
            SockFilter::new(0x06, 0, 0, u32::MAX),
        ]
    }

    pub fn attach(listener: &TcpListener) -> bool {
        SockRef::from(listener).attach_filter(&no_syn()).is_ok()
    }

    pub fn detach(stream: &TcpStream) {
        let _ = SockRef::from(stream).detach_filter();
    }
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
mod filter {
    use std::net::{TcpListener, TcpStream};

    pub fn attach(_: &TcpListener) -> bool {
        false
    }

    pub fn detach(_: &TcpStream) {}
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
