//! TCP and TLS, and how long each step and all of them may take.

use std::io;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use sslfile::{Context, ErrorKind, SslFile};
use url::{Position, Url};

use crate::failure::{tell, Failure, CERTIFICATE, CONNECT, HANDSHAKE, TRANSFER, USAGE};
use crate::proxy::Proxy;
use crate::Args;

pub struct Limits {
    /// For one step.
    each: Duration,
    /// For all of them.
    pub end: Option<Instant>,
}

impl Limits {
    pub fn new(args: &Args) -> Limits {
        let end = args.max_time.map(|seconds| Instant::now() + Duration::from_secs(seconds));
        Limits { each: Duration::from_secs(args.timeout), end }
    }

    /// For a step that begins now. Never zero, which the system takes for a mistake.
    pub fn step(&self) -> Duration {
        let left = self.end.map(|end| end.saturating_duration_since(Instant::now()));
        left.map_or(self.each, |left| left.min(self.each)).max(Duration::from_millis(1))
    }

    /// The same as a point in time.
    pub fn by(&self) -> Option<Instant> {
        Some(Instant::now() + self.step())
    }

    /// Whatever step it was that had no more time, it is that of the whole that is over.
    pub fn judge(&self, failure: Failure) -> Failure {
        match failure.code {
            CONNECT | HANDSHAKE | TRANSFER if self.end.is_some_and(|end| Instant::now() >= end) => {
                Failure::new(TRANSFER, format!("{} (the time of --max-time is over)", failure.text))
            }
            _ => failure,
        }
    }
}

/// One for all connections: to load the system's certificates takes its time.
pub fn context(args: &Args) -> Result<Context, Failure> {
    let mut builder = Context::builder().alpn(["http/1.1"]);
    if let Some(path) = &args.ca {
        builder = builder.system_roots(false).add_roots_from(path);
    }
    if args.insecure {
        builder = builder.danger_accept_invalid_certs(true).danger_accept_invalid_hostnames(true);
    }
    builder.build().map_err(|error| Failure::new(USAGE, error))
}

pub fn connect(args: &Args, limits: &Limits, context: &Context, url: &Url) -> Result<SslFile, Failure> {
    let (tcp, already_read) = match Proxy::of(url)? {
        Some(proxy) => proxy.connect(args, limits, url)?,
        None => (dial(url, limits).map_err(|error| unconnected(authority(url), error))?, Vec::new()),
    };
    // The name in the certificate: an IPv6 address has its brackets in the URL only.
    let name = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    let options = SslFile::options().client(name).handshake_timeout(Some(limits.step())).already_read(already_read);
    let file = options.open(tcp, context).map_err(|error| {
        let refused = matches!(error.kind(), ErrorKind::Certificate | ErrorKind::HostnameMismatch);
        Failure::new(if refused { CERTIFICATE } else { HANDSHAKE }, error.error())
    })?;
    // The time-outs are for each call: a server that sends something now and then may take as long as it likes. A deadline is for
    // all of them together; that for reading is set before and behind the answer's head.
    let set = file
        .set_read_timeout(Some(limits.each))
        .and_then(|()| file.set_write_timeout(Some(limits.each)))
        .and_then(|()| file.set_write_deadline(limits.end));
    set.map_err(Failure::transfer)?;
    if args.verbose {
        let version = file.version().map_or("TLS".to_string(), |version| version.to_string());
        let cipher = file.cipher().map_or(String::new(), |cipher| format!(", {cipher}"));
        tell(format!("connected to {}: {version}{cipher}", authority(url)));
    }
    Ok(file)
}

pub fn unconnected(with: &str, error: impl std::fmt::Display) -> Failure {
    Failure::new(CONNECT, format!("cannot connect to {with}: {error}"))
}

pub fn dial(url: &Url, limits: &Limits) -> io::Result<TcpStream> {
    let mut failed = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for addr in url.socket_addrs(|| None)? {
        match TcpStream::connect_timeout(&addr, limits.step()) {
            Ok(tcp) => return Ok(tcp),
            Err(error) => failed = error,
        }
    }
    Err(failed)
}

/// "host" or "host:port", as the Host header has it.
pub fn authority(url: &Url) -> &str {
    &url[Position::BeforeHost..Position::AfterPort]
}
