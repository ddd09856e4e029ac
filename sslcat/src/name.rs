//! Whom a certificate is for, where the library is told another name (`--sni`).

use std::net::IpAddr;

use sslfile::{CertificateInfo, SubjectAltName};

/// As RFC 9525, section 6, has it: names of subjectAltName only, "*" for a whole first label, addresses by their bytes.
pub fn check(info: &CertificateInfo, expected: &str) -> Result<(), String> {
    let address = expected.parse::<IpAddr>().ok();
    let fits = info.subject_alt_names.iter().any(|name| match (name, address) {
        (SubjectAltName::Ip(ip), Some(address)) => *ip == address,
        (SubjectAltName::Dns(pattern), None) => is_covered(pattern, expected),
        _ => false,
    });
    if fits {
        return Ok(());
    }
    let names: Vec<String> = info.subject_alt_names.iter().map(|name| crate::chain::name_text(name).1).collect();
    let names = if names.is_empty() { "nobody by name".to_string() } else { names.join(", ") };
    // What the peer writes into its certificate may go to a terminal.
    let names = names.replace(char::is_control, "?");
    Err(format!("it is for {names}, not for {expected} (--name says who is expected)"))
}

fn is_covered(pattern: &str, name: &str) -> bool {
    let (pattern, name) = (pattern.to_ascii_lowercase(), name.to_ascii_lowercase());
    let name = name.strip_suffix('.').unwrap_or(&name);
    match pattern.strip_prefix("*.") {
        // "*.com" is for nobody.
        Some(parent) => {
            let rest = name.split_once('.').filter(|(label, _)| !label.is_empty());
            parent.contains('.') && rest.is_some_and(|(_, rest)| rest == parent)
        }
        None => !name.is_empty() && pattern == name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_is_a_whole_label() {
        for (pattern, name) in
            [("a.example", "A.Example"), ("*.a.example", "b.A.example."), ("a.example", "a.example."), ("a", "a")]
        {
            assert!(is_covered(pattern, name), "{pattern} {name}");
        }
        for (pattern, name) in [
            ("*.a.example", "a.example"),
            ("*.a.example", "c.b.a.example"),
            ("*.a.example", ".a.example"),
            ("*.example", "a.example"),
            ("b*.a.example", "b1.a.example"),
            ("*", "a"),
            ("", ""),
            ("*.", "a."),
            ("a.example", "b.a.example"),
        ] {
            assert!(!is_covered(pattern, name), "{pattern} {name}");
        }
    }
}
