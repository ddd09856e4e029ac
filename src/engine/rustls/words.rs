//! What rustls' errors mean, in words. Its own are the names of its constants, for the most part.

use rustls::CertificateError;

use super::verifier::Refusal;
use crate::certificate::at;
use crate::engine::verdict::Fault;

/// What it has against a certificate.
pub(super) fn fault(e: &CertificateError) -> Fault {
    match e {
        CertificateError::NotValidForName => Fault::WrongName(Vec::new()),
        CertificateError::NotValidForNameContext { presented, .. } => {
            // In its own notation: DnsName("localhost").
            let host = |name: &String| Some(name.strip_prefix("DnsName(\"")?.strip_suffix("\")")?.to_string());
            Fault::WrongName(presented.iter().filter_map(host).collect())
        }
        CertificateError::Expired => Fault::Expired(None),
        CertificateError::ExpiredContext { not_after, .. } => Fault::Expired(Some(at(not_after.as_secs()))),
        CertificateError::NotValidYet => Fault::NotYetValid(None),
        CertificateError::NotValidYetContext { not_before, .. } => Fault::NotYetValid(Some(at(not_before.as_secs()))),
        CertificateError::UnknownIssuer => Fault::UnknownIssuer,
        CertificateError::BadSignature => Fault::BadSignature,
        CertificateError::Revoked => Fault::Revoked,
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => Fault::WrongPurpose,
        CertificateError::BadEncoding => Fault::Unreadable,
        CertificateError::Other(other) => match (other.0.downcast_ref::<Refusal>(), other.0.downcast_ref()) {
            (Some(refusal), _) => Fault::Other(refusal.to_string()),
            (_, Some(webpki::Error::CaUsedAsEndEntity)) => Fault::IsAuthority,
            (_, Some(webpki::Error::EndEntityUsedAsCa)) => Fault::IssuerIsNone,
            (_, Some(webpki::Error::NameConstraintViolation | webpki::Error::PathLenConstraintViolated)) => {
                Fault::NotPermitted
            }
            _ => Fault::Other(spaced(&other.to_string())),
        },
        e => {
            let text = format!("{e:?}");
            Fault::Other(spaced(text.split([' ', '{', '(']).next().unwrap_or_default()))
        }
    }
}

/// Its words for any other error.
pub(super) fn text(e: &rustls::Error) -> String {
    match e {
        rustls::Error::General(why) => why.clone(),
        rustls::Error::InvalidCertificate(CertificateError::BadEncoding) => {
            "it cannot be read: its DER is broken, or longer than 64 KiB".to_string()
        }
        e => spaced(&e.to_string()),
    }
}

/// The text with the names of constants in it as words: `NoCipherSuitesInCommon` is "no cipher suites in common".
fn spaced(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 16);
    for run in text.split_inclusive(|c: char| !c.is_alphanumeric()) {
        let word = run.trim_end_matches(|c: char| !c.is_alphanumeric());
        let inner = |(at, c): (usize, char)| {
            at > 0 && c.is_ascii_uppercase() && !word[..at].ends_with(|before: char| before.is_ascii_uppercase())
        };
        if !word.starts_with(|c: char| c.is_ascii_uppercase()) || !word.char_indices().any(inner) {
            out.push_str(run);
            continue;
        }
        for (at, c) in word.char_indices() {
            if inner((at, c)) {
                out.push(' ');
            }
            out.push(c.to_ascii_lowercase());
        }
        out.push_str(&run[word.len()..]);
    }
    out.replace("tls12", "TLS 1.2").replace("tls13", "TLS 1.3").replace(" or13", " or 1.3")
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustls::{AlertDescription, Error, PeerIncompatible, PeerMisbehaved};

    #[test]
    fn constants_are_told_in_words() {
        for (e, words) in [
            (
                Error::PeerIncompatible(PeerIncompatible::NoCipherSuitesInCommon),
                "peer is incompatible: no cipher suites in common",
            ),
            (
                Error::PeerIncompatible(PeerIncompatible::ServerDoesNotSupportTls12Or13),
                "peer is incompatible: server does not support TLS 1.2 or 1.3",
            ),
            (Error::PeerMisbehaved(PeerMisbehaved::TooManyEmptyFragments), "peer misbehaved: too many empty fragments"),
            (Error::AlertReceived(AlertDescription::UnknownCA), "received fatal alert: unknown ca"),
            (Error::General("TheirOwn words".to_string()), "TheirOwn words"),
        ] {
            assert_eq!(text(&e), words);
        }
        assert_eq!(spaced("X25519 and TLSv1_3, (BadDer) in DER"), "X25519 and TLSv1_3, (bad der) in DER");
    }
}
