//! Revocation lists (RFC 5280, section 5) as bytes, and how they are read from texts.

use crate::certificate::{blocks, names};
use crate::der;
use crate::error::Error;

/// One list. That it has the form of one has been looked at; the TLS library parses the rest.
#[derive(Clone)]
#[allow(dead_code, reason = "with native-tls alone lists are refused")]
pub(crate) struct RevocationList {
    pub der: Vec<u8>,
    /// Where it came from, for errors.
    pub origin: String,
}

impl std::fmt::Debug for RevocationList {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "RevocationList({} bytes of DER)", self.der.len())
    }
}

/// The lists in a text, at least one: PEM, or DER, one behind the other.
pub(crate) fn lists(bytes: &[u8], origin: &str) -> Result<Vec<RevocationList>, Error> {
    let mut found = Vec::new();
    let mut add = |der: &[u8], origin: String| match check(der) {
        Ok(()) => {
            found.push(RevocationList { der: der.to_vec(), origin });
            Ok(())
        }
        Err(why) => Err(Error::invalid_input(format!("{origin}: {why}"))),
    };
    if bytes.first() == Some(&der::SEQUENCE) {
        let mut rest = bytes;
        for number in 1.. {
            let origin = format!("{origin}, list {number}");
            let Some((list, behind)) = der::whole(rest) else {
                return Err(Error::invalid_input(format!("{origin}: not DER, or cut off")));
            };
            add(list, origin)?;
            rest = behind;
            if rest.is_empty() {
                break;
            }
        }
    } else {
        let blocks = blocks(bytes, origin)?;
        for (number, block) in blocks.iter().enumerate().filter(|(_, block)| block.tag() == "X509 CRL") {
            add(block.contents(), format!("{origin}, block {} ({})", number + 1, block.tag()))?;
        }
        if found.is_empty() {
            return Err(Error::invalid_input(format!("{origin} has no X509 CRL block; it has {}", names(&blocks))));
        }
    }
    Ok(found)
}

/// Whether it has the form of a CertificateList (RFC 5280, section 5.1) that says what is revoked, all of it, by whoever
/// signed it. Libraries differ in what they make of others.
fn check(list: &[u8]) -> Result<(), &'static str> {
    const BROKEN: &str = "not a revocation list";
    const TIMES: [u8; 2] = [0x17, 0x18];
    const VERSION_OF_CERTIFICATE: u8 = 0xa0;
    const EXTENSIONS: u8 = 0xa0;
    let Some((der::SEQUENCE, body, [])) = der::element(list) else { return Err(BROKEN) };
    let Some((der::SEQUENCE, mut fields, _)) = der::element(body) else { return Err(BROKEN) };
    let mut next = |is_it: &dyn Fn(u8) -> bool| {
        let (tag, body, rest) = der::element(fields)?;
        is_it(tag).then(|| {
            fields = rest;
            body
        })
    };
    if next(&|tag| tag == VERSION_OF_CERTIFICATE).is_some() {
        return Err("a certificate, not a revocation list");
    }
    next(&|tag| tag == der::INTEGER);
    // signature, issuer, thisUpdate
    next(&|tag| tag == der::SEQUENCE).ok_or(BROKEN)?;
    next(&|tag| tag == der::SEQUENCE).ok_or(BROKEN)?;
    next(&|tag| TIMES.contains(&tag)).ok_or(BROKEN)?;
    // nextUpdate, revokedCertificates
    next(&|tag| TIMES.contains(&tag));
    next(&|tag| tag == der::SEQUENCE);
    match next(&|tag| tag == EXTENSIONS) {
        Some(extensions) => check_extensions(extensions).unwrap_or(Err(BROKEN)),
        None => Ok(()),
    }
}

/// `None` if they can't be read.
fn check_extensions(extensions: &[u8]) -> Option<Result<(), &'static str>> {
    const BOOLEAN: u8 = 0x01;
    /// 2.5.29.27 and 2.5.29.28
    const DELTA_CRL_INDICATOR: &[u8] = &[0x55, 0x1d, 0x1b];
    const ISSUING_DISTRIBUTION_POINT: &[u8] = &[0x55, 0x1d, 0x1c];
    const INDIRECT: u8 = 0x84;
    let (_, mut rest, _) = der::element(extensions)?;
    while !rest.is_empty() {
        let (_, extension, behind) = der::element(rest)?;
        rest = behind;
        let (_, id, fields) = der::element(extension)?;
        let (is_critical, value) = match der::element(fields)? {
            (BOOLEAN, flag, fields) => (flag != [0], der::element(fields)?.1),
            (_, value, _) => (false, value),
        };
        match id {
            DELTA_CRL_INDICATOR => return Some(Err("a delta list, which is of no use alone")),
            ISSUING_DISTRIBUTION_POINT => {
                let (_, mut scope, _) = der::element(value)?;
                while !scope.is_empty() {
                    let (tag, _, behind) = der::element(scope)?;
                    scope = behind;
                    if tag == INDIRECT {
                        return Some(Err("an indirect list, with the certificates of several issuers"));
                    }
                }
            }
            _ if is_critical => return Some(Err("a critical extension that is not known")),
            _ => {}
        }
    }
    Some(Ok(()))
}
