//! The certificates that the peer has sent, for people.

use std::fmt::Write;
use std::time::SystemTime;

use sslfile::{Certificate, CertificateInfo, SslFile, SubjectAltName};

use crate::{date, pem, pin};

/// As they came, the peer's own first; as many as the library shows.
pub fn of(file: &SslFile) -> Vec<Certificate> {
    file.peer_certificates().or_else(|| Some(vec![file.peer_certificate()?])).unwrap_or_default()
}

/// A paragraph for each; with its PEM beneath it if that is wanted.
pub fn describe(chain: &[Certificate], with_pem: bool) -> String {
    let mut text = String::new();
    for (depth, certificate) in chain.iter().enumerate() {
        match certificate.info() {
            Ok(info) => text += &paragraph(depth, &info),
            Err(error) => _ = writeln!(text, "certificate {depth}: {error}"),
        }
        if with_pem {
            text += &pem(certificate);
        }
    }
    text
}

fn paragraph(depth: usize, info: &CertificateInfo) -> String {
    let subject = if info.subject.is_empty() { "(no subject)" } else { &info.subject };
    let names: Vec<String> = info.subject_alt_names.iter().map(|name| name_text(name).1).collect();
    let key = match info.key_bits {
        Some(bits) => format!("{}, {bits} bits", info.key_type),
        None => info.key_type.to_string(),
    };
    let (from, to) = (date::utc(info.not_before), date::utc(info.not_after));
    let mut lines = vec![format!("certificate {depth}: {subject}")];
    if !names.is_empty() {
        lines.push(format!("  names    {}", names.join(", ")));
    }
    lines.push(format!("  issuer   {}", info.issuer));
    lines.push(format!("  valid    {from} to {to}: {}", days(info)));
    lines.push(format!("  key      {key}; signed with {}", info.signature_algorithm));
    lines.push(format!("  SHA-256  {}", hex(&info.fingerprint)));
    lines.push(format!("  pin      {}", pin::of(info)));
    // What the peer writes into its certificate may go to a terminal.
    lines.iter().map(|line| line.replace(char::is_control, "?") + "\n").collect()
}

fn days(info: &CertificateInfo) -> String {
    let now = SystemTime::now();
    let counted = |days: i64| if days == 1 { "1 day".to_string() } else { format!("{days} days") };
    match days_left(info) {
        _ if info.not_before > now => format!("NOT YET VALID, in {}", counted(date::days(now, info.not_before))),
        left if info.not_after >= now => format!("{} left", counted(left)),
        _ => format!("EXPIRED {} ago", counted(date::days(info.not_after, now))),
    }
}

/// Whole days; below zero when it has expired.
pub fn days_left(info: &CertificateInfo) -> i64 {
    date::days(SystemTime::now(), info.not_after)
}

/// Kind and value of a name.
pub fn name_text(name: &SubjectAltName) -> (&'static str, String) {
    match name {
        SubjectAltName::Dns(name) => ("dns", name.clone()),
        SubjectAltName::Ip(ip) => ("ip", ip.to_string()),
        SubjectAltName::Email(mailbox) => ("email", mailbox.clone()),
        SubjectAltName::Uri(uri) => ("uri", uri.clone()),
        SubjectAltName::Directory(name) => ("directory", name.clone()),
        other => ("other", format!("{other:?}")),
    }
}

/// With colons, as browsers and `openssl x509 -fingerprint` show it.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02X}")).collect::<Vec<_>>().join(":")
}

pub fn pem(certificate: &Certificate) -> String {
    pem::encode("CERTIFICATE", &certificate.to_der())
}
