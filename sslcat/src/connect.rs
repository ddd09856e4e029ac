//! The client's side: from a host's name to an open TLS file.

use std::io;
use std::net::{TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

use sslfile::SslFile;

use crate::address::host_and_port;
use crate::args::Args;
use crate::exit::{self, Failure};
use crate::{identity, settings, starttls, tell};

pub fn connect(args: &Args) -> Result<SslFile, Failure> {
    let (host, port) = host_and_port(args)?;
    let identity = match &args.certificates.cert {
        Some(cert) => Some(identity::from_files(args, cert)?),
        None => None,
    };
    let context = settings::context(args, identity)?;

    let (tcp, already_read) = reach(args, &host, port)?;
    let address = tcp.peer_addr().ok().map(|addr| addr.to_string());
    SslFile::options()
        .client(settings::server_name(args, &host))
        .handshake_timeout(Some(args.connection.patience()))
        .already_read(already_read)
        .open(tcp, &context)
        .map_err(|error| Failure { address, ..Failure::tls(exit::HANDSHAKE, error.into()) })
}

/// A connection on which the server waits for TLS, and what was read too far for that.
pub fn reach(args: &Args, host: &str, port: u16) -> Result<(TcpStream, Vec<u8>), Failure> {
    let tcp = dial(host, port, args.connection.patience())
        .map_err(|error| Failure::new(exit::CONNECT, format!("cannot connect to {host} port {port}: {error}")))?;
    if args.output.verbose {
        tell(format!("connected to {}", tcp.peer_addr().map_or(host.to_string(), |addr| addr.to_string())));
    }
    let already_read = match args.connection.starttls {
        Some(protocol) => starttls::begin(&tcp, protocol, host, args)
            .map_err(|error| Failure::new(exit::HANDSHAKE, format!("STARTTLS with {host} port {port}: {error}")))?,
        None => Vec::new(),
    };
    Ok((tcp, already_read))
}

/// As `TcpStream::connect`, within `timeout` for all addresses of the host together.
fn dial(host: &str, port: u16, timeout: Duration) -> io::Result<TcpStream> {
    let deadline = Instant::now() + timeout;
    let mut failed = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for addr in (host, port).to_socket_addrs()? {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        match TcpStream::connect_timeout(&addr, left) {
            Ok(tcp) => return Ok(tcp),
            Err(error) => failed = error,
        }
    }
    Err(failed)
}
