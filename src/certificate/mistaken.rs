//! What a text that is not what was asked for seems to be: people mistake one wrapping for another.

use super::Brief;
use crate::der;

/// What these bytes are, which are not PEM, and how they become it. `None` if that can't be told.
pub(crate) fn not_pem(bytes: &[u8]) -> Option<&'static str> {
    Some(match Kind::of(bytes)? {
        Kind::Pem => return None,
        Kind::Certificate => {
            "a certificate in DER and not in PEM: `openssl x509 -inform DER` converts it, and Certificate::from_der takes it as it is"
        }
        Kind::Key => "a private key in DER and not in PEM: `openssl pkey -inform DER` converts it",
        Kind::Archive => "a PKCS#12 archive and not PEM: Identity::from_pkcs12 takes it as it is, with its password",
        Kind::Pkcs7 => "PKCS#7 in DER and not PEM: `openssl pkcs7 -inform DER -print_certs` converts it",
        Kind::Cut => "DER and not PEM, and it breaks off",
        Kind::Der => "DER and not PEM",
        Kind::Utf16 => "in UTF-16, as some editors and shells write it: PEM is plain ASCII",
    })
}

/// The same of what is not a certificate in DER.
pub(crate) fn not_certificate(bytes: &[u8]) -> Option<&'static str> {
    Some(match Kind::of(bytes)? {
        Kind::Pem => "PEM and not DER: Certificate::from_pem takes it",
        Kind::Key => "a private key",
        Kind::Archive => "a PKCS#12 archive: Identity::from_pkcs12 takes it, with its password",
        Kind::Pkcs7 => "PKCS#7: `openssl pkcs7 -inform DER -print_certs` takes the certificates out of it",
        Kind::Cut => "DER that breaks off",
        Kind::Certificate | Kind::Der | Kind::Utf16 => return None,
    })
}

/// The same of what is not a PKCS#12 archive.
#[allow(dead_code, reason = "not every build reads archives")]
pub(crate) fn not_archive(bytes: &[u8]) -> Option<&'static str> {
    Some(match Kind::of(bytes)? {
        Kind::Pem => "PEM and not an archive: Identity::from_pem takes it",
        Kind::Certificate => "a certificate in DER, without a key",
        Kind::Key => "a private key in DER, without a certificate",
        Kind::Pkcs7 => "PKCS#7, which has no key",
        Kind::Cut => "DER that breaks off",
        Kind::Archive | Kind::Der | Kind::Utf16 => return None,
    })
}

enum Kind {
    Pem,
    Certificate,
    Key,
    Archive,
    Pkcs7,
    /// It says that it is longer.
    Cut,
    Der,
    Utf16,
}

impl Kind {
    fn of(bytes: &[u8]) -> Option<Kind> {
        match bytes {
            [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => return Some(Kind::Utf16),
            _ if bytes.windows(11).any(|part| part == b"-----BEGIN ") => return Some(Kind::Pem),
            [der::SEQUENCE, ..] => {}
            _ => return None,
        }
        let Some((_, body, _)) = der::element(bytes) else { return Some(Kind::Cut) };
        Some(match der::element(body) {
            // PKCS#8 and PKCS#1 have version 0, SEC 1 has 1, PFX has 3 (RFC 5958, 8017, 5915, 7292).
            Some((der::INTEGER, [3], _)) => Kind::Archive,
            Some((der::INTEGER, [0 | 1], _)) => Kind::Key,
            // 1.2.840.113549.1.7.2
            Some((der::OBJECT_IDENTIFIER, [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 7, 2], _)) => Kind::Pkcs7,
            _ if Brief::of(bytes).is_some() => Kind::Certificate,
            _ => Kind::Der,
        })
    }
}

/// A block of PEM that begins and has no end of its own, by number and name.
pub(crate) fn cut_block(text: &[u8]) -> Option<String> {
    first_block(text, |block| !block.contains("-----END "))
}

/// The first block that can't be read.
pub(crate) fn bad_block(text: &[u8]) -> Option<String> {
    first_block(text, |block| pem::parse(block).is_err())
}

fn first_block(text: &[u8], is_it: impl Fn(&str) -> bool) -> Option<String> {
    const BEGIN: &str = "-----BEGIN ";
    let text = String::from_utf8_lossy(text);
    let starts: Vec<usize> = text.match_indices(BEGIN).map(|(at, _)| at).collect();
    let ends = starts.iter().skip(1).copied().chain([text.len()]);
    let mut blocks = starts.iter().zip(ends).map(|(start, end)| &text[*start..end]).enumerate();
    let (number, block) = blocks.find(|(_, block)| is_it(block))?;
    let name = block[BEGIN.len()..].split("-----").next().filter(|name| name.len() < 40 && !name.contains('\n'));
    Some(format!("block {} ({})", number + 1, name.unwrap_or("?")))
}
