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

/// The elements in a row, as [`element`] gives each, as far as they can be read.
pub(crate) fn elements(mut der: &[u8]) -> impl Iterator<Item = (u8, &[u8], &[u8])> {
    std::iter::from_fn(move || {
        let found = element(der)?;
        der = found.2;
        Some(found)
    })
}

/// Splits off the first element, with its tag and length, from what follows it.
pub(crate) fn whole(der: &[u8]) -> Option<(&[u8], &[u8])> {
    let (_, _, rest) = element(der)?;
    der.split_at_checked(der.len() - rest.len())
}

/// The fields of a certificate behind its serial number (RFC 5280, section 4.1): signature, issuer, validity, subject,
/// subjectPublicKeyInfo and what is optional.
pub(crate) fn certificate_fields(certificate: &[u8]) -> Option<&[u8]> {
    const VERSION: u8 = 0xa0;
    let (SEQUENCE, parts, _) = element(certificate)? else { return None };
    let (SEQUENCE, mut fields, _) = element(parts)? else { return None };
    if let (VERSION, _, rest) = element(fields)? {
        fields = rest;
    }
    element(fields).map(|(_, _serial, fields)| fields)
}

/// An element with this tag, its body the parts in a row.
pub(crate) fn encode(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let length: usize = parts.iter().map(|p| p.len()).sum();
    // In one piece, since a vector that grows leaves copies behind, and some of what is encoded is secret.
    let mut out = Vec::with_capacity(2 + size_of::<usize>() + length);
    out.push(tag);
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

/// The hash function that makes the channel binding `tls-server-end-point` of a certificate (RFC 5929, section 4.1): that of its
/// signature, but SHA-256 for the broken ones.
pub(crate) enum EndPointHash {
    Sha256,
    Sha384,
    Sha512,
}

impl EndPointHash {
    /// `None` where the signature has no single one, or one that nobody here has heard of.
    pub fn of(certificate: &[u8]) -> Option<EndPointHash> {
        /// 1.2.840.113549.1.1: md5, sha1, sha256, sha384 and sha512 with RSA are 4, 5, 11, 12 and 13 in it.
        const RSA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01];
        const RSASSA_PSS: u8 = 10;
        /// 1.2.840.10045.4.1: ECDSA with SHA-1.
        const ECDSA_SHA1: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x01];
        /// 1.2.840.10045.4.3: ECDSA with SHA-256, SHA-384 and SHA-512 are 2, 3 and 4 in it.
        const ECDSA: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03];
        let (_, fields, _) = element(certificate)?;
        let (_, _signed, fields) = element(fields)?;
        let (_, algorithm, _) = element(fields)?;
        let (_, oid, parameters) = element(algorithm)?;
        Some(match oid.split_last()? {
            (4 | 5 | 11, RSA) | (2, ECDSA) => EndPointHash::Sha256,
            (12, RSA) | (3, ECDSA) => EndPointHash::Sha384,
            (13, RSA) | (4, ECDSA) => EndPointHash::Sha512,
            (&RSASSA_PSS, RSA) => return EndPointHash::of_pss(parameters),
            _ if oid == ECDSA_SHA1 => EndPointHash::Sha256,
            _ => return None,
        })
    }

    /// RSASSA-PSS has its hash functions among its parameters (RFC 4055, section 3.1): one for the message, and one for the mask,
    /// which must be the same, or there is no single one.
    fn of_pss(parameters: &[u8]) -> Option<EndPointHash> {
        const HASH: u8 = 0xa0;
        const MASK: u8 = 0xa1;
        /// 1.3.14.3.2.26
        const SHA1: &[u8] = &[0x2b, 0x0e, 0x03, 0x02, 0x1a];
        /// 2.16.840.1.101.3.4.2: SHA-256, SHA-384 and SHA-512 are 1, 2 and 3 in it.
        const SHA2: &[u8] = &[0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02];
        let (_, mut fields, _) = element(parameters)?;
        let (mut hash, mut mask) = (SHA1, SHA1);
        while !fields.is_empty() {
            let (tag, field, rest) = element(fields)?;
            let algorithm = || element(element(field)?.1);
            match tag {
                HASH => hash = algorithm()?.1,
                // MGF1, with the hash function for its parameter.
                MASK => mask = element(element(algorithm()?.2)?.1)?.1,
                _ => {}
            }
            fields = rest;
        }
        if hash != mask {
            return None;
        }
        Some(match hash.split_last()? {
            _ if hash == SHA1 => EndPointHash::Sha256,
            (1, SHA2) => EndPointHash::Sha256,
            (2, SHA2) => EndPointHash::Sha384,
            (3, SHA2) => EndPointHash::Sha512,
            _ => return None,
        })
    }
}

/// Whether a certificate lets its key be used for this, by the last part of its name under id-kp: 1 for a server, 2 for a
/// client (RFC 5280, section 4.2.1.12). One that says nothing of it does.
#[cfg(feature = "rustls")]
pub(crate) fn allows_use(certificate: &[u8], purpose: u8) -> bool {
    const EXTENDED_KEY_USAGE: &[u8] = &[0x55, 0x1d, 0x25];
    const ID_KP: &[u8] = &[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03];
    let Some(value) = extension(certificate, EXTENDED_KEY_USAGE) else { return true };
    let Some((_, purposes, _)) = element(value) else { return false };
    elements(purposes).any(|(_, oid, _)| oid.split_last() == Some((&purpose, ID_KP)))
}

/// The value of a certificate's extension (RFC 5280, section 4.1).
pub(crate) fn extension<'a>(certificate: &'a [u8], wanted: &[u8]) -> Option<&'a [u8]> {
    const EXTENSIONS: u8 = 0xa3;
    let (_, extensions, _) = elements(certificate_fields(certificate)?).find(|(tag, ..)| *tag == EXTENSIONS)?;
    elements(element(extensions)?.1).find_map(|(_, extension, _)| {
        let (_, oid, fields) = element(extension)?;
        // "critical" may come first.
        let (_, value, _) = elements(fields).find(|(tag, ..)| *tag == OCTET_STRING)?;
        (oid == wanted).then_some(value)
    })
}

/// The name of a certificate's issuer, without the header.
#[cfg(feature = "rustls")]
pub(crate) fn issuer(certificate: &[u8]) -> Option<&[u8]> {
    elements(certificate_fields(certificate)?).nth(1).map(|(_, name, _)| name)
}

/// The SubjectPublicKeyInfo of a certificate (RFC 5280, section 4.1), as it stands there.
#[cfg(any(feature = "native-tls", all(feature = "openssl", not(any(windows, target_vendor = "apple")))))]
pub(crate) fn public_key_info(certificate: &[u8]) -> Option<&[u8]> {
    // signature, issuer, validity, subject
    elements(certificate_fields(certificate)?).nth(3).and_then(|(_, _, rest)| whole(rest)).map(|(info, _)| info)
}

/// What a TLS library that does not compare a key with its certificate leaves to us.
#[cfg(all(feature = "native-tls", not(all(feature = "openssl", not(any(windows, target_vendor = "apple"))))))]
pub(crate) mod pair {
    use super::*;

    const BIT_STRING: u8 = 0x03;

    /// Whether the certificate is for this PKCS#8 key, as far as the key tells: an RSA key and most EC keys have the
    /// public key in them, others can be told apart by their algorithm only.
    pub fn fits(key: &[u8], certificate: &[u8]) -> Option<bool> {
        let (_, fields, _) = element(key)?;
        let (_, _version, fields) = element(fields)?;
        let (_, algorithm, fields) = element(fields)?;
        let (_, private, _) = element(fields)?;
        let (wanted_algorithm, wanted) = public_key(certificate)?;
        let (_, oid, _) = element(algorithm)?;
        let (_, wanted_oid, _) = element(wanted_algorithm)?;
        Some(oid == wanted_oid && public_part(private).is_none_or(|public| public == wanted))
    }

    /// Algorithm and key of a certificate.
    fn public_key(certificate: &[u8]) -> Option<(&[u8], &[u8])> {
        let (_, info, _) = element(public_key_info(certificate)?)?;
        let (_, algorithm, rest) = element(info)?;
        let (_, bits, _) = element(rest)?;
        Some((algorithm, bits.split_first()?.1))
    }

    /// The public key inside an RSA key (RFC 8017, A.1.2) or an EC key (RFC 5915), as a certificate has it.
    fn public_part(private: &[u8]) -> Option<Vec<u8>> {
        const PUBLIC_KEY: u8 = 0xa1;
        let (tag, body, _) = element(private)?;
        if tag != SEQUENCE {
            return None;
        }
        let (_, version, mut fields) = element(body)?;
        if version == [0] {
            let (modulus_tag, modulus, rest) = element(fields)?;
            let (exponent_tag, exponent, _) = element(rest)?;
            return Some(encode(SEQUENCE, &[&encode(modulus_tag, &[modulus]), &encode(exponent_tag, &[exponent])]));
        }
        while !fields.is_empty() {
            let (tag, field, rest) = element(fields)?;
            if tag == PUBLIC_KEY {
                let (BIT_STRING, bits, _) = element(field)? else { return None };
                return Some(bits.split_first()?.1.to_vec());
            }
            fields = rest;
        }
        None
    }
}
