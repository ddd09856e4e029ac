//! HOST and PORT, as they stand on the command line.

use crate::args::Args;
use crate::exit::{self, Failure};
use crate::services;

/// The host is empty for "-l PORT". A Unix socket has its path, and no port: 0.
pub fn host_and_port(args: &Args) -> Result<(String, u16), Failure> {
    if let Some(path) = &args.connection.unix {
        return Ok((path.display().to_string(), 0));
    }
    let address = args.address();
    let (host, port) = match &args.port {
        Some(port) => (address, services::port(port)),
        None => match address.rsplit_once(':') {
            Some((host, port)) => (host, services::port(port)),
            None if args.connection.listen => ("", services::port(address)),
            None => return Err(Failure::new(exit::USAGE, format!("which port of {address}? (sslcat {address} PORT)"))),
        },
    };
    let port = port.ok_or_else(|| {
        let what = args.port.as_deref().unwrap_or(address);
        Failure::new(exit::USAGE, format!("neither a port number nor a service that is known here: {what:?}"))
    })?;
    let host = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(bracketed) => bracketed,
        // "::1:443" may be meant in two ways.
        None if args.port.is_none() && host.contains(':') => {
            return Err(Failure::new(exit::USAGE, format!("write {address:?} as [ADDRESS]:PORT")));
        }
        None => host,
    };
    if host.is_empty() && !args.connection.listen {
        return Err(Failure::new(exit::USAGE, format!("no host in {address:?}")));
    }
    Ok((host.to_string(), port))
}
