//! What `TcpStream` has and other streams have not.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use socket2::SockRef;

use super::{Handshake, SslFile, ToServer};
use crate::context::Context;

/// On TCP.
///
/// All of std's `TcpStream` is here or above, with its meaning, but for what a TLS connection can't do, as it is more
/// than a descriptor: `FromRawFd`, `From<OwnedFd>` (the other end's keys are not in the descriptor), `IntoRawFd` and
/// `From<SslFile> for OwnedFd` (the connection would be left in mid-air; use [`release`](SslFile::release)).
impl SslFile<TcpStream> {
    /// As `TcpStream::connect`, with the system's roots, unless there is [another default](Context::set_default). The handshake
    /// happens on first use, and checks the certificate against the host in `addr`; a first `write` waits for it. Blocks for the TCP
    /// connect; tries each address of the host.
    ///
    /// Errors: those of `TcpStream::connect`, and of [`Context::client`].
    pub fn connect<A: ToServer>(addr: A) -> io::Result<SslFile> {
        SslFile::options().handshake(Handshake::Lazy).connect(addr, &Context::default_client()?)
    }

    /// As `TcpStream::connect_timeout`, with the same context as [`connect`](SslFile::connect). The handshake happens on first
    /// use, and checks the certificate against the IP address.
    ///
    /// Errors: `InvalidInput` for a zero time-out, `TimedOut`, and those of [`connect`](SslFile::connect).
    pub fn connect_timeout(addr: &SocketAddr, timeout: Duration) -> io::Result<SslFile> {
        let stream = TcpStream::connect_timeout(addr, timeout)?;
        let options = SslFile::options().client(&addr.ip().to_string()).handshake(Handshake::Lazy);
        Ok(options.open(stream, &Context::default_client()?)?)
    }

    /// The peer's address.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.get_ref().peer_addr()
    }

    /// Our own address.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.get_ref().local_addr()
    }

    /// Sets `TCP_NODELAY`: small writes are sent at once. Off by default, as on `TcpStream`. Then a small write waits until what was
    /// written before it is acknowledged (RFC 896), but not for what TLS says by itself: the first answer behind a handshake is
    /// sent at once. For that it is on for the moment of that send.
    pub fn set_nodelay(&self, nodelay: bool) -> io::Result<()> {
        let _locked = self.shared().lock();
        self.get_ref().set_nodelay(nodelay)
    }

    /// Whether `TCP_NODELAY` is set.
    pub fn nodelay(&self) -> io::Result<bool> {
        self.get_ref().nodelay()
    }

    /// Sets `IP_TTL`.
    pub fn set_ttl(&self, ttl: u32) -> io::Result<()> {
        self.get_ref().set_ttl(ttl)
    }

    /// The value of `IP_TTL`.
    pub fn ttl(&self) -> io::Result<u32> {
        self.get_ref().ttl()
    }

    /// Sets `SO_LINGER`: what the system does with unsent data when the descriptor is closed. It says nothing about
    /// close_notify.
    pub fn set_linger(&self, linger: Option<Duration>) -> io::Result<()> {
        SockRef::from(self.get_ref()).set_linger(linger)
    }

    /// The value of `SO_LINGER`.
    pub fn linger(&self) -> io::Result<Option<Duration>> {
        SockRef::from(self.get_ref()).linger()
    }

    /// Sets `TCP_QUICKACK`, as `std::os::linux::net::TcpStreamExt` does: acknowledgements are sent at once.
    #[cfg(any(target_os = "linux", target_os = "android"))]
    pub fn set_quickack(&self, quickack: bool) -> io::Result<()> {
        SockRef::from(self.get_ref()).set_tcp_quickack(quickack)
    }

    /// The value of `TCP_QUICKACK`.
    #[cfg(any(target_os = "linux", target_os = "android"))]
    pub fn quickack(&self) -> io::Result<bool> {
        SockRef::from(self.get_ref()).tcp_quickack()
    }

    /// The value of `SO_ERROR`, which is cleared.
    pub fn take_error(&self) -> io::Result<Option<io::Error>> {
        self.get_ref().take_error()
    }
}
