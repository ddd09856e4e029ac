//! What is wrong with a peer's certificate, in words for who has to do something about it: the same whatever library has found it.

use super::alert::Verdict;
use crate::certificate::{now, Brief, Certificate};

/// What a library has against a certificate.
#[allow(dead_code, reason = "no library finds all of them")]
pub(super) enum Fault {
    /// With the names it has, where the library tells those and not the certificate.
    WrongName(Vec<String>),
    /// With the moment, likewise.
    Expired(Option<String>),
    NotYetValid(Option<String>),
    UnknownIssuer,
    BadSignature,
    Revoked,
    WrongPurpose,
    /// It is an authority's own.
    IsAuthority,
    /// One above it is not.
    IssuerIsNone,
    /// What an authority above it says about names, or about further authorities, rules it out.
    NotPermitted,
    Unreadable,
    /// In the library's words.
    Other(String),
}

/// Where the library has shown us nothing.
const UNSEEN: &str =
    " (more is not told by this TLS library: `openssl s_client -showcerts -connect HOST:PORT` shows the certificate)";

/// `chain`: what the peer has sent, its own first; empty if that is not known. `expected`: whom a client wanted to speak with.
pub(super) fn verdict(fault: Fault, chain: &[Certificate], expected: &str) -> Verdict {
    let chain: Vec<Brief> = chain.iter().map_while(|certificate| Brief::of(certificate.der())).collect();
    match fault {
        Fault::WrongName(told) => Verdict::WrongName(wrong_name(told, chain.first(), expected)),
        other => Verdict::Refused(refused(other, &chain)),
    }
}

fn wrong_name(told: Vec<String>, leaf: Option<&Brief>, expected: &str) -> String {
    let hosts = match leaf {
        Some(leaf) => &leaf.hosts,
        None => &told,
    };
    match (hosts.as_slice(), leaf) {
        ([], None) => format!("it is not for {expected}{UNSEEN}"),
        ([], Some(leaf)) => format!("it names no host, so none that is {expected}; its subject is {}", leaf.subject()),
        (hosts, _) => format!("it is for {}, not for {expected}", listed(hosts)),
    }
}

/// The names as a sentence has them, or the first of them.
fn listed(names: &[String]) -> String {
    const MOST: usize = 10;
    match names {
        [] => String::new(),
        [name] => name.clone(),
        _ if names.len() > MOST => format!("{} and {} others", names[..MOST].join(", "), names.len() - MOST),
        [first @ .., last] => format!("{} and {last}", first.join(", ")),
    }
}

fn refused(fault: Fault, chain: &[Brief]) -> String {
    let is_self_issued = chain.first().is_some_and(Brief::is_self_issued);
    match fault {
        Fault::WrongName(_) => "it is for another name".to_string(),
        Fault::Expired(told) => out_of_date(chain, told.map(|when| ("expired on", when)), "has expired"),
        Fault::NotYetValid(told) => {
            out_of_date(chain, told.map(|when| ("is not valid before", when)), "is not valid yet")
        }
        Fault::UnknownIssuer => unknown_issuer(chain),
        Fault::IsAuthority if is_self_issued => unknown_issuer(chain),
        Fault::IsAuthority => "it is the certificate of an authority, which may sign others but not speak for a host".to_string(),
        Fault::BadSignature => match chain.first() {
            Some(leaf) => format!(
                "a signature in its chain is not by the issuer of that name that is known here (its own issuer is {}): another key, \
                 as of an authority that was made anew, or a forgery",
                leaf.issuer()
            ),
            None => "a signature in its chain, or the peer's own on the handshake, is not by the key that it should be by".to_string(),
        },
        Fault::Revoked => "it, or one above it, has been revoked by its issuer".to_string(),
        Fault::WrongPurpose => {
            "it, or one above it, is for another purpose (extended key usage: serverAuth and clientAuth are asked for)".to_string()
        }
        Fault::IssuerIsNone => "one that has signed another of its chain is not an authority's (basic constraints)".to_string(),
        Fault::NotPermitted => {
            "an authority above it may not sign for this (name constraints, or the length of the path)".to_string()
        }
        Fault::Unreadable => "it cannot be read: its DER is broken".to_string(),
        Fault::Other(why) => why,
    }
}

/// Of the first certificate of the chain that is not valid now; else of what the library has told.
fn out_of_date(chain: &[Brief], told: Option<(&str, String)>, vague: &str) -> String {
    let now = now();
    let moment = |one: &Brief| match () {
        () if one.not_after < now => Some(("expired on", one.not_after.clone())),
        () if one.not_before > now => Some(("is not valid before", one.not_before.clone())),
        () => None,
    };
    let found = chain.iter().enumerate().find_map(|(depth, one)| Some((depth, moment(one)?)));
    let clock = format!("this machine's clock says {now}");
    match (found, told) {
        (Some((0, (verb, when))), _) => format!("it {verb} {when}; {clock}"),
        (Some((depth, (verb, when))), _) => format!("in its chain {} {verb} {when}; {clock}", chain[depth].subject()),
        (None, Some((verb, when))) => format!("one in its chain {verb} {when}; {clock}"),
        (None, None) => format!("it, or one above it, {vague}; {clock}{UNSEEN}"),
    }
}

fn unknown_issuer(chain: &[Brief]) -> String {
    let Some((leaf, others)) = chain.split_first() else {
        return format!("its issuer is not known{UNSEEN}");
    };
    // As far up as what was sent leads; each is used once, or two that name each other would lead for ever.
    let mut top = leaf;
    let mut rest: Vec<&Brief> = others.iter().collect();
    while !top.is_self_issued() {
        let Some(next) = rest.iter().position(|other| top.is_issued_by(other)) else { break };
        top = rest.swap_remove(next);
    }
    let is_leaf = std::ptr::eq(top, leaf);
    let (subject, issuer) = (top.subject(), top.issuer());
    match (top.is_self_issued(), is_leaf, others.is_empty()) {
        (true, true, _) => format!("it is self-signed ({subject}) and not among the trusted roots"),
        (true, false, _) => format!("its chain ends with the self-signed {subject}, which is not among the trusted roots"),
        (false, true, true) => {
            format!("its issuer is not known: the peer sent no intermediate certificate with it, and {issuer} is not among the trusted roots")
        }
        (false, true, false) => format!(
            "its issuer is not known: {issuer} is neither among the other certificates that the peer sent nor among the trusted roots"
        ),
        (false, false, _) => format!(
            "an issuer above it is not known: what the peer sent leads to {subject}, whose issuer {issuer} is not among the trusted roots"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_names_are_not_all_listed() {
        let names = |n: usize| (0..n).map(|i| i.to_string()).collect::<Vec<_>>();
        assert_eq!(listed(&names(1)), "0");
        assert_eq!(listed(&names(2)), "0 and 1");
        assert_eq!(listed(&names(10)), "0, 1, 2, 3, 4, 5, 6, 7, 8 and 9");
        assert_eq!(listed(&names(5000)), "0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 4990 others");
    }
}
