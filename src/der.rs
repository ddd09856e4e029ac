//! The little DER that key formats need: reading one element, writing one element.

pub(crate) const INTEGER: u8 = 0x02;
pub(crate) const OCTET_STRING: u8 = 0x04;
pub(crate) const OBJECT_IDENTIFIER: u8 = 0x06;
pub(crate) const SEQUENCE: u8 = 0x30;

/// Splits off the first element: its tag, its body, and what follows it. `None` if it is not whole.
pub(crate) fn element(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = der.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        0x81..=0x84 => {
            let (digits, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            (digits.iter().fold(0usize, |n, d| (n << 8) | usize::from(*d)), rest)
        }
        _ => return None,
    };
    let (body, rest) = rest.split_at_checked(length)?;
    Some((tag, body, rest))
}

/// An element with this tag, its body the parts in a row.
pub(crate) fn encode(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let length: usize = parts.iter().map(|p| p.len()).sum();
    let mut out = vec![tag];
    if length < 0x80 {
        out.push(length as u8);
    } else {
        let digits = length.to_be_bytes();
        let zeros = digits.iter().take_while(|d| **d == 0).count();
        out.push(0x80 | (digits.len() - zeros) as u8);
        out.extend_from_slice(&digits[zeros..]);
    }
    parts.iter().for_each(|p| out.extend_from_slice(p));
    out
}

/// The object identifier of a PKCS#8 key's algorithm (RFC 5208, section 5).
#[cfg_attr(feature = "openssl", allow(dead_code, reason = "OpenSSL compares the keys themselves"))]
pub(crate) fn key_algorithm(key: &[u8]) -> Option<&[u8]> {
    let (_, fields, _) = element(key)?;
    let (_, _version, fields) = element(fields)?;
    let (_, algorithm, _) = element(fields)?;
    element(algorithm).map(|(_, oid, _)| oid)
}

/// The object identifier of the algorithm of a certificate's public key (RFC 5280, section 4.1).
#[cfg_attr(feature = "openssl", allow(dead_code, reason = "OpenSSL compares the keys themselves"))]
pub(crate) fn certificate_algorithm(certificate: &[u8]) -> Option<&[u8]> {
    const VERSION: u8 = 0xa0;
    let (_, parts, _) = element(certificate)?;
    let (_, mut fields, _) = element(parts)?;
    if let (VERSION, _, rest) = element(fields)? {
        fields = rest;
    }
    // serialNumber, signature, issuer, validity, subject
    for _ in 0..5 {
        fields = element(fields)?.2;
    }
    let (_, key_info, _) = element(fields)?;
    let (_, algorithm, _) = element(key_info)?;
    element(algorithm).map(|(_, oid, _)| oid)
}
