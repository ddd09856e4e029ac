//! Sockets of the system.

use std::io;
use std::net::{Shutdown, TcpStream};
#[cfg(unix)]
use std::os::unix::net::UnixStream;
use std::time::Instant;

use socket2::Socket;

use super::{Inherited, Transport};
use crate::machine::Going;
use crate::sys::{self, AsFd, AsRawFd, BorrowedFd, Descriptor, Doorbell, Ready, Woken};

macro_rules! transport_for_socket {
    ($socket:ty, $address:expr) => {
        impl Transport for $socket {
            fn is_polled(&self) -> bool {
                true
            }

            fn take_over(&self) -> io::Result<Inherited> {
                take_over(self.as_fd())
            }

            fn give_back(&self, inherited: &Inherited, unread: Vec<u8>) -> Vec<u8> {
                // What can't be set on it any more needs no setting.
                let _ = sys::restore_timeout(self.as_fd(), inherited.read_timeout);
                sys::unclaim(self.as_fd());
                unread
            }

            fn try_recv(&self, buf: &mut [u8]) -> io::Result<usize> {
                sys::try_recv(self.as_fd(), buf)
            }

            fn recv_for_slice(&self, buf: &mut [u8]) -> io::Result<usize> {
                sys::recv_for_slice(self.as_fd(), buf)
            }

            fn bound_receives(&self) -> io::Result<()> {
                sys::bound_receives(self.as_fd())
            }

            fn try_send(&self, buf: &[u8], going: Going) -> io::Result<usize> {
                sys::try_send(self.as_fd(), buf, going)
            }

            fn has_delay(&self) -> bool {
                true
            }

            // A socket whose peer has gone is ended already.
            fn half_close(&self) {
                let _ = self.shutdown(Shutdown::Write);
            }

            fn end(&self) {
                let _ = self.shutdown(Shutdown::Both);
            }

            fn wait(&self, wanted: Ready, bell: &Doorbell, until: Option<Instant>) -> Woken {
                sys::wait(&[(self.as_fd(), wanted)], bell, until)
            }

            fn descriptors(&self) -> Option<(Descriptor, Descriptor)> {
                let fd = self.as_fd().as_raw_fd();
                Some((fd, fd))
            }

            fn unacknowledged(&self) -> usize {
                // Where nobody knows, something may be.
                sys::unacknowledged(self.as_fd()).unwrap_or(1)
            }

            fn take_error(&self) -> Option<io::Error> {
                sys::take_error(self.as_fd())
            }

            fn peer(&self) -> Option<String> {
                $address(self.peer_addr().ok()?)
            }

            fn local(&self) -> Option<String> {
                $address(self.local_addr().ok()?)
            }
        }
    };
}

transport_for_socket!(TcpStream, |addr: std::net::SocketAddr| Some(addr.to_string()));
#[cfg(unix)]
transport_for_socket!(UnixStream, |addr: std::os::unix::net::SocketAddr| {
    // The peer has chosen it: it must not end a line of a log.
    let path = addr.as_pathname()?.display().to_string();
    Some(path.chars().map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect())
});
transport_for_socket!(Socket, |addr: socket2::SockAddr| Some(addr.as_socket()?.to_string()));

fn take_over(fd: BorrowedFd<'_>) -> io::Result<Inherited> {
    sys::claim(fd)?;
    let (read_timeout, write_timeout) = sys::timeouts(fd)?;
    Ok(Inherited { nonblocking: sys::is_nonblocking(fd)?, read_timeout, write_timeout, ..Inherited::default() })
}
