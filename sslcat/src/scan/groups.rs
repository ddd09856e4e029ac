//! Groups for the key exchange: their numbers and names in the registry of IANA.

/// Those that are used first.
#[rustfmt::skip]
pub const ALL: &[(u16, &str)] = &[
    (0x001d, "x25519"), (0x0017, "secp256r1"), (0x0018, "secp384r1"), (0x0019, "secp521r1"), (0x001e, "x448"),
    (0x11ec, "X25519MLKEM768"), (0x11eb, "SecP256r1MLKEM768"), (0x11ed, "SecP384r1MLKEM1024"), (0x0100, "ffdhe2048"),
    (0x0101, "ffdhe3072"), (0x0102, "ffdhe4096"), (0x0103, "ffdhe6144"), (0x0104, "ffdhe8192"), (0x001a, "brainpoolP256r1"),
    (0x001b, "brainpoolP384r1"), (0x001c, "brainpoolP512r1"), (0x001f, "brainpoolP256r1tls13"), (0x0020, "brainpoolP384r1tls13"),
    (0x0021, "brainpoolP512r1tls13"), (0x0016, "secp256k1"), (0x0014, "secp224k1"), (0x0015, "secp224r1"), (0x0012, "secp192k1"),
    (0x0013, "secp192r1"), (0x000f, "secp160k1"), (0x0010, "secp160r1"), (0x0011, "secp160r2"), (0x0001, "sect163k1"),
    (0x0002, "sect163r1"), (0x0003, "sect163r2"), (0x0004, "sect193r1"), (0x0005, "sect193r2"), (0x0006, "sect233k1"),
    (0x0007, "sect233r1"), (0x0008, "sect239k1"), (0x0009, "sect283k1"), (0x000a, "sect283r1"), (0x000b, "sect409k1"),
    (0x000c, "sect409r1"), (0x000d, "sect571k1"), (0x000e, "sect571r1"),
];

use sslfile::{Certificate, KeyType, Version};

use super::attempt::{Answer, Offer};
use super::findings::{Ciphers, Finding, Groups, State};
use super::in_parallel;
use super::panel::Panel;

fn number(name: &str) -> Option<u16> {
    ALL.iter().find(|(_, known)| *known == name).map(|(number, _)| *number)
}

/// The server takes this group, or there is no handshake.
pub fn alone(panel: &Panel, version: Version, name: &'static str, suites: &[&'static str]) -> Finding {
    let offer = offer(version, &[name], suites);
    // A library may know a group, and not for this version.
    let is_offered =
        panel.offered(&offer).is_some_and(|offered| number(name).is_some_and(|n| offered.groups.contains(&n)));
    if !is_offered {
        return Finding::impossible(name, "the library does not offer it");
    }
    Finding::of(name, panel.ask(&offer), |_| Ok(State::Accepted))
}

fn offer(version: Version, groups: &[&'static str], suites: &[&'static str]) -> Offer {
    Offer { version: Some(version), groups: groups.to_vec(), suites: suites.to_vec(), ..Offer::default() }
}

/// Up to TLS 1.2 it takes a suite with such an exchange. With a key on a curve it takes that curve, too (RFC 8422, section 5.1), so
/// that those are asked where there are no others.
pub fn before_tls13(panel: &Panel, ciphers: &Ciphers, limit: usize) -> Option<Groups> {
    let accepted: Vec<&'static str> = super::suites::OLD
        .iter()
        .map(|(_, name)| *name)
        .filter(|name| ciphers.findings.iter().any(|found| found.state == State::Accepted && found.name == *name))
        .collect();
    let exchange = |name: &&&str| name.starts_with("ECDHE-") || name.starts_with("AECDH-");
    let (curved, other): (Vec<_>, Vec<_>) =
        accepted.iter().filter(exchange).copied().partition(|name| name.starts_with("ECDHE-ECDSA-"));
    let version = ciphers.version;
    let names: Vec<&'static str> = ALL.iter().map(|(_, name)| *name).collect();
    let findings = match (other.is_empty(), curved.is_empty()) {
        (false, _) => in_parallel(limit, names, |name| alone(panel, version, name, &other)),
        (true, false) => beside_its_own(panel, version, names, &curved, limit),
        (true, true) => return None,
    };
    Some(Groups { version, findings })
}

fn beside_its_own(
    panel: &Panel,
    version: Version,
    names: Vec<&'static str>,
    suites: &[&'static str],
    limit: usize,
) -> Vec<Finding> {
    let whole = Offer { to_the_end: true, ..offer(version, &[], suites) };
    let own = match panel.ask(&whole) {
        Answer::Accepted(choice) => choice.certificate.and_then(|certificate| curve(&certificate)),
        _ => None,
    };
    let mut findings = in_parallel(limit, names, |name| match own {
        Some(own) if own != name => beside(panel, version, name, own, suites),
        _ => alone(panel, version, name, suites),
    });
    // Who takes ours first whichever it is does not have those that it passed over.
    let other = findings.iter().find(|found| found.state == State::Accepted && Some(found.name.as_str()) != own);
    let other = other.and_then(|found| ALL.iter().find(|(_, name)| *name == found.name)).map(|(_, name)| *name);
    let heeds_ours =
        own.zip(other).is_some_and(|(own, other)| chosen(panel, version, &[own, other], suites) == number(own));
    for found in &mut findings {
        if heeds_ours && found.why.as_deref() == Some(PASSED_OVER) {
            *found = Finding::new(&found.name, State::Refused);
        }
    }
    findings
}

const PASSED_OVER: &str = "the server prefers the curve of its certificate, which has to be offered too";

fn beside(panel: &Panel, version: Version, name: &'static str, own: &'static str, suites: &[&'static str]) -> Finding {
    let both = Offer { to_the_end: true, ..offer(version, &[name, own], suites) };
    let (wanted, curve) = (number(name), number(own));
    let is_offered = panel.offered(&both).is_some_and(|offered| wanted.is_some_and(|n| offered.groups.contains(&n)));
    if !is_offered {
        return Finding::impossible(name, "the library does not offer it");
    }
    match panel.ask(&both) {
        Answer::Accepted(choice) if choice.group == curve => Finding::impossible(name, PASSED_OVER),
        answer => Finding::of(name, answer, |choice| match choice.group == wanted {
            true => Ok(State::Accepted),
            false => Err("the server does not say which it takes".to_string()),
        }),
    }
}

fn chosen(panel: &Panel, version: Version, groups: &[&'static str], suites: &[&'static str]) -> Option<u16> {
    match panel.ask(&Offer { to_the_end: true, ..offer(version, groups, suites) }) {
        Answer::Accepted(choice) => choice.group,
        _ => None,
    }
}

/// That of the certificate's key.
fn curve(certificate: &Certificate) -> Option<&'static str> {
    match certificate.info().ok()?.key_type {
        KeyType::Ec(name) => [("P-256", "secp256r1"), ("P-384", "secp384r1"), ("P-521", "secp521r1")]
            .into_iter()
            .find_map(|(known, group)| (name == known).then_some(group)),
        _ => None,
    }
}
