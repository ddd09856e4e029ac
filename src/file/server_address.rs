use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6, ToSocketAddrs};

use crate::error::Error;

/// Where to connect, and the name to check the certificate against: `"host:port"`, `(host, port)`, `String`,
/// `SocketAddr`. Its own methods are the crate's affair.
///
/// All that std's `ToSocketAddrs` is implemented for, as far as it names one host: a slice of addresses does not. Where there are
/// only addresses, say whose they are:
///
/// ```no_run
/// # fn main() -> std::io::Result<()> {
/// # let addrs: &[std::net::SocketAddr] = &[];
/// use sslfile::{Context, SslFile};
/// use std::net::TcpStream;
///
/// let file = SslFile::client(TcpStream::connect(addrs)?, &Context::client()?, "example.com")?;
/// # Ok(())
/// # }
/// ```
///
/// A function that is generic has `A: ToServer` in place of `A: ToSocketAddrs`: what else implements that might name many hosts,
/// or none. The compiler says so too.
///
/// ```compile_fail,E0277
/// fn connect<A: std::net::ToSocketAddrs>(addr: A) -> std::io::Result<sslfile::SslFile> {
///     sslfile::SslFile::connect(addr)
/// }
/// ```
///
/// ```
/// fn connect<A: sslfile::ToServer>(addr: A) -> std::io::Result<sslfile::SslFile> {
///     sslfile::SslFile::connect(addr)
/// }
/// # assert!(connect("localhost").is_err());
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not name one server, as whose the certificate could be checked",
    label = "not the address of one server",
    note = "these do: \"host:port\", (\"host\", port), (IpAddr, port), a String, a SocketAddr",
    note = "a slice of addresses has no name: `SslFile::client(TcpStream::connect(addrs)?, &Context::client()?, \"example.com\")`",
    note = "in a generic function write `A: ToServer` in place of `A: ToSocketAddrs`"
)]
pub trait ToServer: ServerAddress {}

/// The methods of [`ToServer`], which users neither call nor implement.
#[diagnostic::on_unimplemented(message = "`{Self}` does not name one server: see `ToServer`")]
pub trait ServerAddress {
    /// The host, and its addresses, at least one. Blocks for the look-up of a name.
    fn to_server(&self) -> io::Result<(String, Vec<SocketAddr>)>;
}

fn look_up(host: &str, addrs: impl ToSocketAddrs) -> io::Result<(String, Vec<SocketAddr>)> {
    let addrs: Vec<_> = addrs.to_socket_addrs()?.collect();
    match addrs.is_empty() {
        true => Err(Error::invalid_input(format!("{host:?} has no address")).into()),
        false => Ok((without_scope(host).to_string(), addrs)),
    }
}

/// What a certificate can name: an address of the link ("fe80::1%eth0") goes without the link.
pub(crate) fn without_scope(host: &str) -> &str {
    match host.split_once('%') {
        Some((address, _)) if address.parse::<Ipv6Addr>().is_ok() => address,
        _ => host,
    }
}

impl ToServer for str {}
impl ServerAddress for str {
    fn to_server(&self) -> io::Result<(String, Vec<SocketAddr>)> {
        // Without a colon std has an error of its own.
        let host = self.rsplit_once(':').map_or(self, |(host, _)| host);
        look_up(host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host), self)
    }
}

impl ToServer for String {}
impl ServerAddress for String {
    fn to_server(&self) -> io::Result<(String, Vec<SocketAddr>)> {
        self.as_str().to_server()
    }
}

impl ToServer for (&str, u16) {}
impl ServerAddress for (&str, u16) {
    fn to_server(&self) -> io::Result<(String, Vec<SocketAddr>)> {
        look_up(self.0, *self)
    }
}

impl ToServer for (String, u16) {}
impl ServerAddress for (String, u16) {
    fn to_server(&self) -> io::Result<(String, Vec<SocketAddr>)> {
        (self.0.as_str(), self.1).to_server()
    }
}

macro_rules! by_ip {
    ($($addr:ty),*) => {$(
        impl ToServer for $addr {}
        impl ServerAddress for $addr {
            fn to_server(&self) -> io::Result<(String, Vec<SocketAddr>)> {
                let addr = SocketAddr::from(*self);
                Ok((addr.ip().to_string(), vec![addr]))
            }
        }
    )*};
}

by_ip!((IpAddr, u16), (Ipv4Addr, u16), (Ipv6Addr, u16), SocketAddr, SocketAddrV4, SocketAddrV6);

impl<T: ToServer + ?Sized> ToServer for &T {}
impl<T: ServerAddress + ?Sized> ServerAddress for &T {
    fn to_server(&self) -> io::Result<(String, Vec<SocketAddr>)> {
        (**self).to_server()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v6(text: &str, port: u16, scope: u32) -> SocketAddr {
        SocketAddrV6::new(text.parse().expect("an address"), port, 0, scope).into()
    }

    #[test]
    fn text_with_a_scope_connects_as_stds_does_and_the_name_goes_without() {
        for text in ["[::1%1]:443", "[fe80::1%7]:443", "[::1]:443"] {
            let (name, addrs) = text.to_server().expect(text);
            assert_eq!(addrs, text.to_socket_addrs().expect("std's").collect::<Vec<_>>(), "{text}");
            assert!(name.parse::<Ipv6Addr>().is_ok(), "{text}: {name}");
        }
        assert_eq!("[fe80::1%7]:443".to_server().expect("to_server"), ("fe80::1".into(), vec![v6("fe80::1", 443, 7)]));
        // What std does not take, as the name of a link there, we don't take either.
        let refused = "[fe80::1%lo]:443";
        assert_eq!(refused.to_server().is_err(), refused.to_socket_addrs().is_err());
        assert_eq!(v6("fe80::1", 443, 7).to_server().expect("to_server").0, "fe80::1");
    }

    #[test]
    fn only_addresses_have_scopes() {
        assert_eq!(without_scope("fe80::1%eth0"), "fe80::1");
        for host in ["localhost", "100%.example", "127.0.0.1%lo", "::1", "%", ""] {
            assert_eq!(without_scope(host), host);
        }
    }
}
