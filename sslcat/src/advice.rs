//! What would help, where something can be done about a failure from here.

use std::time::SystemTime;

use sslfile::{ErrorKind, SubjectAltName};

use crate::args::{Args, Library};
use crate::exit::Failure;

/// RFC 8446, section 6.2.
const HANDSHAKE_FAILURE: u8 = 40;
const UNKNOWN_CA: u8 = 48;
const PROTOCOL_VERSION: u8 = 70;
const UNRECOGNIZED_NAME: u8 = 112;
const CERTIFICATE_REQUIRED: u8 = 116;
const NO_APPLICATION_PROTOCOL: u8 = 120;

/// A sentence for each thing to do.
pub fn on(failure: &Failure, args: &Args) -> Vec<String> {
    let has_cert = args.certificates.cert.is_some();
    let advice = match failure.kind {
        Some(ErrorKind::HostnameMismatch) => other_name(failure),
        Some(ErrorKind::Certificate) if !args.connection.listen => refused(failure, args),
        Some(ErrorKind::PeerAlert(CERTIFICATE_REQUIRED)) => {
            Some("the server wants a certificate of ours: --cert FILE, --key FILE".to_string())
        }
        Some(ErrorKind::PeerAlert(HANDSHAKE_FAILURE)) if !has_cert && !args.connection.listen => Some(
            "up to TLS 1.2 a server that wants a certificate of ours says no more: --cert FILE, --key FILE, if it is that"
                .to_string(),
        ),
        Some(ErrorKind::PeerAlert(UNKNOWN_CA)) if has_cert => Some(
            "the peer does not know who signed our --cert: its file has to hold the intermediates as well".to_string(),
        ),
        Some(ErrorKind::PeerAlert(PROTOCOL_VERSION)) if args.tls.version().is_some() => {
            Some("without --tls1.N both TLS 1.2 and 1.3 are offered".to_string())
        }
        Some(ErrorKind::PeerAlert(UNRECOGNIZED_NAME)) => {
            Some("the server does not know the name that it is asked for: --sni NAME asks for another".to_string())
        }
        Some(ErrorKind::PeerAlert(NO_APPLICATION_PROTOCOL)) => {
            Some("the peer speaks none of the protocols in --alpn".to_string())
        }
        Some(ErrorKind::NotTls) if args.connection.starttls.is_none() && !args.connection.listen => {
            Some("a server that begins in plain text is asked for TLS by --starttls PROTOCOL".to_string())
        }
        _ => None,
    };
    advice.into_iter().collect()
}

fn other_name(failure: &Failure) -> Option<String> {
    let info = failure.chain.first()?.info().ok()?;
    let name = info.subject_alt_names.iter().find_map(|name| match name {
        SubjectAltName::Dns(name) if !name.contains(|c: char| c == '*' || c.is_control()) => Some(name.clone()),
        SubjectAltName::Ip(ip) => Some(ip.to_string()),
        _ => None,
    })?;
    Some(format!("--name {name} expects the name it has, if that is whom you mean"))
}

fn refused(failure: &Failure, args: &Args) -> Option<String> {
    let chain: Vec<_> = failure.chain.iter().map_while(|certificate| certificate.info().ok()).collect();
    let Some(leaf) = chain.first() else {
        let is_blind = matches!(args.tls.engine, Some(Library::Native));
        return is_blind.then(|| "another --engine would show what the server sent".to_string());
    };
    let now = SystemTime::now();
    if chain.iter().any(|info| info.not_after < now) {
        return Some("the server needs a new certificate, unless this machine's clock is wrong".to_string());
    }
    if chain.iter().any(|info| info.not_before > now) {
        return Some("unless this machine's clock is wrong, the certificate is for later".to_string());
    }
    // The rest is for whom the issuer is not known.
    if !failure.text.contains("trusted roots") {
        return None;
    }
    let only = if args.certificates.ca.is_some() { " (with --ca the system's roots do not count)" } else { "" };
    Some(match () {
        () if leaf.subject == leaf.issuer => {
            format!(
                "--ca FILE trusts it, with the PEM that --show-certs gives, if its fingerprint is the right one{only}"
            )
        }
        () if chain.len() == 1 => format!(
            "the server sent no intermediate: if {issuer} is one, its configuration should have it behind its own \
             certificate. --ca FILE, with {issuer} in it, trusts the server as it is{only}",
            issuer = printable(&leaf.issuer)
        ),
        () => {
            let top = chain.last().map_or("", |info| info.issuer.as_str());
            format!("--ca FILE, with {} in it, trusts it, if that is an authority of yours{only}", printable(top))
        }
    })
}

fn printable(text: &str) -> String {
    text.replace(char::is_control, "?")
}
