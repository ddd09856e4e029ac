//! OpenSSL's own kind of block: a certificate, and behind it what it is trusted for (`openssl x509 -trustout`).

use crate::der;

/// What each block of a certificate holds, without OpenSSL's words about it. `Err` where these say that it is not to be
/// trusted: to pass them over would be to trust it.
pub(super) fn certificate(block: &pem::Pem) -> Result<&[u8], &'static str> {
    let contents = block.contents();
    if block.tag() != "TRUSTED CERTIFICATE" {
        return Ok(contents);
    }
    let Some((own, words)) = der::whole(contents) else { return Ok(contents) };
    match words.is_empty() {
        true => Ok(own),
        false => check(words).unwrap_or(Err("what it is trusted for cannot be read")).map(|()| own),
    }
}

/// The CertAux (openssl/x509.h): uses it is trusted for, if they are said; those it is rejected for; an alias, a key's number, and
/// more.
fn check(words: &[u8]) -> Option<Result<(), &'static str>> {
    const REJECTED: u8 = 0xa0;
    /// serverAuth, clientAuth, anyExtendedKeyUsage (RFC 5280, section 4.2.1.12)
    const USES: [&[u8]; 3] = [
        &[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, 0x01],
        &[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, 0x02],
        &[0x55, 0x1d, 0x25, 0x00],
    ];
    let (der::SEQUENCE, mut fields, []) = der::element(words)? else { return None };
    while !fields.is_empty() {
        let (tag, mut uses, rest) = der::element(fields)?;
        fields = rest;
        match tag {
            der::SEQUENCE => {
                let mut is_ours = false;
                while !uses.is_empty() {
                    let (_, id, rest) = der::element(uses)?;
                    uses = rest;
                    is_ours |= USES.contains(&id);
                }
                if !is_ours {
                    return Some(Err("it says that it is not trusted for TLS"));
                }
            }
            REJECTED => return Some(Err("it says that it is rejected for some uses")),
            _ => {}
        }
    }
    Some(Ok(()))
}
