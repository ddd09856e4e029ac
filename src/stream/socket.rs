//! Sockets of the system.

use std::io;
use std::net::{Shutdown, TcpStream};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use rustix::event::PollFlags;
use rustix::fs::{fcntl_getfl, OFlags};
use rustix::net::{recv, send, RecvFlags, SendFlags};
use socket2::{SockRef, Socket};

use super::wait::{retry, wait_ready, wait_writable};
use super::{Inherited, Transport, Wait};

/// Once a file has read from a socket and waited, a blocking read of it returns after this long, so that what nobody bounds can still be
/// broken off: the call is then continued by a poll that can be woken. Data that comes sooner costs one system call.
const SLICE: Duration = Duration::from_millis(20);

/// For what is followed by a half-close at once: both then go in one segment.
#[cfg(any(target_os = "linux", target_os = "android"))]
const MORE: SendFlags = SendFlags::MORE;
#[cfg(not(any(target_os = "linux", target_os = "android")))]
const MORE: SendFlags = SendFlags::empty();

macro_rules! transport_for_socket {
    ($socket:ty, $peer:expr) => {
        impl Transport for $socket {
            fn is_polled(&self) -> bool {
                true
            }

            fn take_over(&self) -> io::Result<Inherited> {
                take_over(self.as_fd())
            }

            fn give_back(&self, inherited: &Inherited, unread: Vec<u8>) -> Vec<u8> {
                restore(self.as_fd(), inherited);
                unread
            }

            fn bound_receives(&self) -> io::Result<()> {
                SockRef::from(self).set_read_timeout(Some(SLICE))
            }

            fn recv(&self, buf: &mut [u8], wait: Wait) -> io::Result<usize> {
                receive(self.as_fd(), buf, wait)
            }

            fn send(&self, buf: &[u8], wait: Wait) -> io::Result<usize> {
                transmit(self.as_fd(), buf, wait, SendFlags::empty())
            }

            fn send_last(&self, buf: &[u8], wait: Wait) -> io::Result<usize> {
                transmit(self.as_fd(), buf, wait, MORE)
            }

            // A socket whose peer has gone is ended already.
            fn half_close(&self) {
                let _ = self.shutdown(Shutdown::Write);
            }

            fn end(&self) {
                let _ = self.shutdown(Shutdown::Both);
            }

            fn wait_writable(&self, or_readable: bool, deadline: Option<Instant>) -> io::Result<()> {
                wait_writable(self.as_fd(), or_readable.then(|| self.as_fd()), deadline)
            }

            fn descriptors(&self) -> Option<(RawFd, RawFd)> {
                let fd = self.as_fd().as_raw_fd();
                Some((fd, fd))
            }

            fn abandon(&self) {}

            fn peer(&self) -> Option<String> {
                let peer: fn(&$socket) -> Option<String> = $peer;
                peer(self)
            }
        }
    };
}

transport_for_socket!(TcpStream, |s| s.peer_addr().ok().map(|a| a.to_string()));
transport_for_socket!(UnixStream, |s| Some(s.peer_addr().ok()?.as_pathname()?.display().to_string()));
transport_for_socket!(Socket, |s| s.peer_addr().ok()?.as_socket().map(|a| a.to_string()));

fn take_over(fd: BorrowedFd<'_>) -> io::Result<Inherited> {
    let nonblocking = fcntl_getfl(fd)?.contains(OFlags::NONBLOCK);
    let socket = SockRef::from(&fd);
    Ok(Inherited {
        nonblocking,
        read_timeout: socket.read_timeout()?,
        write_timeout: socket.write_timeout()?,
        ..Inherited::default()
    })
}

fn restore(fd: BorrowedFd<'_>, inherited: &Inherited) {
    let socket = SockRef::from(&fd);
    let _ = socket.set_read_timeout(inherited.read_timeout);
}

/// Whether there is time for a blocking call, and until when to wait in all.
fn may_block(wait: Wait) -> Option<Option<Instant>> {
    match wait {
        Wait::No => None,
        Wait::Until(None) => Some(None),
        // Twice, as the system counts in ticks.
        Wait::Until(Some(deadline)) => (deadline > Instant::now() + 2 * SLICE).then_some(Some(deadline)),
    }
}

fn receive(fd: BorrowedFd<'_>, buf: &mut [u8], wait: Wait) -> io::Result<usize> {
    if let Some(deadline) = may_block(wait) {
        match recv(fd, &mut *buf, RecvFlags::empty()) {
            Err(rustix::io::Errno::WOULDBLOCK) => wait_ready(fd, PollFlags::IN, deadline)?,
            result => return Ok(result?.0),
        }
    }
    retry(fd, PollFlags::IN, wait, || Ok(recv(fd, &mut *buf, RecvFlags::DONTWAIT)?.0))
}

/// There is mostly room, so a send that does not block costs no more than one that does.
fn transmit(fd: BorrowedFd<'_>, buf: &[u8], wait: Wait, flags: SendFlags) -> io::Result<usize> {
    let flags = flags | SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
    retry(fd, PollFlags::OUT, wait, || Ok(send(fd, buf, flags)?))
}
