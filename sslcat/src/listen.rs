//! The server's side: one connection, accepted and shaken hands with.

use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use sslfile::{SslFile, SslListener};

use crate::address::host_and_port;
use crate::args::Args;
use crate::exit::{self, Failure};
use crate::{identity, settings, tell};

pub fn serve(args: &Args) -> Result<SslFile, Failure> {
    let (host, port) = host_and_port(args)?;
    let (identity, made) = match &args.certificates.cert {
        Some(cert) => (identity::from_files(args, cert)?, None),
        None => {
            let (identity, made) = identity::made_now(args)?;
            (identity, Some(made))
        }
    };
    let context = settings::context(args, Some(identity))?;

    // Without an address: all of them. An IPv6 socket serves IPv4 as well, where there is IPv6.
    let everywhere = [IpAddr::from(Ipv6Addr::UNSPECIFIED), IpAddr::from(Ipv4Addr::UNSPECIFIED)];
    let bound = match host.as_str() {
        "" => SslListener::bind(&everywhere.map(|ip| SocketAddr::new(ip, port))[..], &context),
        host => SslListener::bind((host, port), &context),
    };
    let place = if host.is_empty() { format!("port {port}") } else { format!("{host} port {port}") };
    let listener = bound.map_err(|error| Failure::new(exit::CONNECT, format!("cannot listen on {place}: {error}")))?;
    if let Some(certificate) = made {
        tell("no --cert: made a certificate, to be trusted by --insecure, or by --ca as -v shows it");
        if args.output.verbose {
            let _ = io::stderr().write_all(certificate.as_bytes());
        }
    }
    listener.set_handshake_timeout(args.connection.timeout.or(Some(Duration::from_secs(30))));
    if let Ok(addr) = listener.local_addr() {
        tell(format!("listening on {addr}"));
    }

    let (file, addr) = listener.accept().map_err(|error| Failure::new(exit::CONNECT, error))?;
    if args.output.verbose {
        tell(format!("connection from {addr}"));
    }
    // `accept` leaves the handshake to the first use of the file.
    file.handshake().map_err(|error| Failure::tls(exit::HANDSHAKE, error))?;
    Ok(file)
}
