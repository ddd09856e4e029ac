//! Why we stop: exit codes for scripts, texts for people.

use std::fmt::Display;
use std::io;

use sslfile::{Certificate, Error, ErrorKind};

pub const USAGE: u8 = 1;
pub const CONNECT: u8 = 2;
pub const HANDSHAKE: u8 = 3;
pub const CERTIFICATE: u8 = 4;
pub const TRANSFER: u8 = 5;
pub const LOCAL: u8 = 6;

/// An exit code, and what is told on stderr.
#[derive(Debug)]
pub struct Failure {
    pub code: u8,
    pub text: String,
    /// Of the TLS library's story.
    pub kind: Option<ErrorKind>,
    /// What the peer had sent that was refused, its own certificate first.
    pub chain: Vec<Certificate>,
    /// Whom it was with.
    pub address: Option<String>,
}

impl Failure {
    pub fn new(code: u8, text: impl Display) -> Failure {
        Failure { code, text: text.to_string(), kind: None, chain: Vec::new(), address: None }
    }

    /// An error of the TLS file. A refused certificate has its own code, whenever it is told: in TLS 1.3 a client hears only
    /// after the handshake, with its first read, what the server thinks of its certificate.
    pub fn tls(code: u8, error: io::Error) -> Failure {
        // RFC 8446, section 6.2: bad_certificate (42) to unknown_ca (48), and certificate_required (116).
        const ABOUT_CERTIFICATES: [u8; 7] = [42, 43, 44, 45, 46, 48, 116];
        let ours = Error::of(&error);
        let (kind, chain) = (ours.map(Error::kind), ours.map(Error::peer_certificates).unwrap_or_default());
        let refused = match kind {
            Some(ErrorKind::Certificate | ErrorKind::HostnameMismatch) => true,
            Some(kind) => kind.alert().is_some_and(|alert| ABOUT_CERTIFICATES.contains(&alert)),
            None => false,
        };
        let code = match error.kind() {
            _ if refused => CERTIFICATE,
            // An impossible --name, or a setting that the library has not in this role.
            io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported => USAGE,
            _ => code,
        };
        Failure { kind, chain, ..Failure::new(code, error) }
    }

    /// An error of stdin or stdout. When whoever reads our output has enough, as in `sslcat ... | head`, there is nothing to say.
    pub fn local(name: &str, error: io::Error) -> Failure {
        let text = if error.kind() == io::ErrorKind::BrokenPipe { String::new() } else { format!("{name}: {error}") };
        Failure::new(LOCAL, text)
    }
}
