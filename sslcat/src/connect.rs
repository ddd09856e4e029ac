//! The client's side: from a host's name to an open TLS file.

use std::io;
use std::net::TcpStream;
use std::time::Instant;

use sslfile::SslFile;

use crate::address::host_and_port;
use crate::args::Args;
use crate::dial::dial;
use crate::exit::{self, Failure};
use crate::{identity, proxy, session, settings, starttls, tell, unix_socket};

pub fn connect(args: &Args) -> Result<SslFile, Failure> {
    let (host, port) = host_and_port(args)?;
    // A path is nobody's name; with -k any will do.
    let name = match (&args.certificates.name, &args.connection.unix) {
        (Some(name), _) => name,
        (None, None) => &host,
        (None, Some(_)) if args.certificates.insecure => "localhost",
        (None, Some(_)) => {
            let text = "whose certificate has the server at a Unix socket? --name NAME (or --insecure)";
            return Err(Failure::new(exit::USAGE, text));
        }
    };
    let identity = match &args.certificates.cert {
        Some(cert) => Some(identity::from_files(args, cert)?),
        None => None,
    };
    let context = settings::context(args, identity)?;

    let (tcp, already_read) = reach(args, &host, port)?;
    let address = tcp.peer_addr().ok().map(|addr| addr.to_string());
    session::offer(args, &context, SslFile::options())?
        .client(settings::server_name(args, name))
        .handshake_timeout(Some(args.connection.patience()))
        .already_read(already_read)
        // Most proxies take TCP's end of one side for that of both.
        .half_close(proxy::of(args, &host, port)?.is_none())
        .open(tcp, &context)
        .map_err(|error| Failure { address, ..Failure::tls(exit::HANDSHAKE, error.into()) })
}

/// A connection on which the server waits for TLS, and what was read too far for that.
pub fn reach(args: &Args, host: &str, port: u16) -> Result<(TcpStream, Vec<u8>), Failure> {
    let tcp = way(args, host, port)?;
    let already_read = match args.connection.starttls {
        Some(protocol) => starttls::begin(&tcp, protocol, host, args)
            .map_err(|error| Failure::new(exit::HANDSHAKE, format!("STARTTLS with {host} port {port}: {error}")))?,
        None => Vec::new(),
    };
    Ok((tcp, already_read))
}

/// To a Unix socket, or to a host, through a proxy or not.
fn way(args: &Args, host: &str, port: u16) -> Result<TcpStream, Failure> {
    let failed =
        |error: io::Error| Failure::new(exit::CONNECT, format!("cannot connect to {host} port {port}: {error}"));
    let deadline = Instant::now() + args.connection.patience();
    if let Some(path) = &args.connection.unix {
        let stream = unix_socket::connect(path, deadline);
        let stream =
            stream.map_err(|error| Failure::new(exit::CONNECT, format!("cannot connect to {host}: {error}")))?;
        if args.output.verbose {
            tell(format!("connected to {host}"));
        }
        return Ok(stream);
    }
    let proxy = proxy::of(args, host, port)?;
    let tcp = match &proxy {
        Some(proxy) => proxy.connect(host, port, deadline),
        None => dial(host, port, deadline),
    };
    let tcp = tcp.map_err(failed)?;
    if args.output.verbose {
        let address = tcp.peer_addr().map_or(host.to_string(), |addr| addr.to_string());
        match proxy {
            Some(proxy) => tell(format!("connected to {host} port {port} through the proxy {proxy} ({address})")),
            None => tell(format!("connected to {address}")),
        }
    }
    Ok(tcp)
}
