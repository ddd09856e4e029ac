//! The server's side: where it listens, and the first connection.

use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Instant;

use sslfile::{Context, Handshake, SslFile, SslListener};

use crate::address::host_and_port;
use crate::args::Args;
use crate::dial::in_time;
use crate::exit::{self, Failure};
use crate::{identity, leftovers, settings, tell, unix_socket};

pub struct Listener {
    socket: Socket,
    context: Context,
}

enum Socket {
    Tcp(SslListener),
    Unix(unix_socket::Listener),
}

/// One connection, accepted and shaken hands with.
pub fn serve(args: &'static Args) -> Result<SslFile, Failure> {
    let listener = Listener::bind(args)?;
    let accepted = match args.connection.timeout {
        Some(patience) => in_time(Instant::now() + patience, move || listener.accept(args)),
        None => listener.accept(args),
    };
    // Nobody else is served.
    leftovers::remove_socket();
    let (file, peer) = accepted.map_err(|error| {
        let nobody = error.kind() == io::ErrorKind::TimedOut;
        Failure::new(exit::CONNECT, if nobody { "nobody has connected in time".to_string() } else { error.to_string() })
    })?;
    if args.output.verbose {
        tell(format!("connection from {peer}"));
    }
    file.handshake().map_err(|error| Failure::tls(exit::HANDSHAKE, error))?;
    Ok(file)
}

impl Listener {
    pub fn bind(args: &Args) -> Result<Listener, Failure> {
        let (host, port) = host_and_port(args)?;
        let (identity, made) = match &args.certificates.cert {
            Some(cert) => (identity::from_files(args, cert)?, None),
            None => {
                let (identity, made) = identity::made_now(args)?;
                (identity, Some(made))
            }
        };
        let context = settings::context(args, Some(identity))?;

        let (bound, place) = match &args.connection.unix {
            Some(path) => {
                leftovers::clean_up_at_signals().map_err(|error| Failure::new(exit::LOCAL, error))?;
                (unix_socket::Listener::bind(path).map(Socket::Unix), host)
            }
            None => bind_tcp(&host, port, &context),
        };
        let socket =
            bound.map_err(|error| Failure::new(exit::CONNECT, format!("cannot listen on {place}: {error}")))?;
        if let Some(certificate) = made {
            tell("no --cert: made a certificate, to be trusted by --insecure, or by --ca as -v shows it");
            if args.output.verbose {
                let _ = io::stderr().write_all(certificate.as_bytes());
            }
        }
        match &socket {
            Socket::Tcp(listener) => {
                listener.set_handshake_timeout(Some(args.connection.patience()));
                if let Ok(addr) = listener.local_addr() {
                    tell(format!("listening on {addr}"));
                }
            }
            Socket::Unix(_) => tell(format!("listening on {place}")),
        }
        Ok(Listener { socket, context })
    }

    /// The next, which shakes hands when it is first used; and who it is.
    pub fn accept(&self, args: &Args) -> io::Result<(SslFile, String)> {
        match &self.socket {
            Socket::Tcp(listener) => {
                let (file, addr) = listener.accept()?;
                Ok((file, addr.to_string()))
            }
            Socket::Unix(listener) => {
                let options = SslFile::options().server().handshake(Handshake::Lazy);
                let options = options.handshake_timeout(Some(args.connection.patience()));
                let file = options.open(listener.accept(), &self.context)?;
                Ok((file, "the Unix socket".to_string()))
            }
        }
    }
}

/// Without an address: all of them. An IPv6 socket serves IPv4 as well, where there is IPv6.
fn bind_tcp(host: &str, port: u16, context: &Context) -> (io::Result<Socket>, String) {
    let everywhere = [IpAddr::from(Ipv6Addr::UNSPECIFIED), IpAddr::from(Ipv4Addr::UNSPECIFIED)];
    let bound = match host {
        "" => SslListener::bind(&everywhere.map(|ip| SocketAddr::new(ip, port))[..], context),
        host => SslListener::bind((host, port), context),
    };
    let place = if host.is_empty() { format!("port {port}") } else { format!("{host} port {port}") };
    (bound.map(Socket::Tcp), place)
}
