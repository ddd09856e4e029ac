//! The parts of a certificate (RFC 5280, section 4.1) that tell who signed what.

use ring::signature::{self, UnparsedPublicKey, VerificationAlgorithm};

use super::der::{self, Element, Elements};

pub struct Parts<'a> {
    pub serial: &'a [u8],
    pub issuer: &'a [u8],
    pub subject: &'a [u8],
    /// The key's bits, without what kind they are.
    pub key: &'a [u8],
    is_responder: bool,
    key_info: Element<'a>,
    signed: Signed<'a>,
}

/// What is signed, how, and the signature: so begin certificates as well as responses.
pub struct Signed<'a> {
    content: Element<'a>,
    algorithm: &'a [u8],
    signature: &'a [u8],
}

impl<'a> Signed<'a> {
    /// Takes the three from the front.
    pub fn take(parts: &mut Elements<'a>) -> Option<Signed<'a>> {
        let content = parts.tagged(der::SEQUENCE)?;
        let algorithm = parts.tagged(der::SEQUENCE)?.parts().tagged(der::OBJECT_IDENTIFIER)?.body;
        Some(Signed { content, algorithm, signature: parts.tagged(der::BIT_STRING)?.bits()? })
    }

    pub fn content(&self) -> Elements<'a> {
        self.content.parts()
    }

    pub fn is_signed_by(&self, signer: &Parts<'_>) -> bool {
        let Some(algorithm) = algorithm(self.algorithm, signer.key_info) else { return false };
        UnparsedPublicKey::new(algorithm, signer.key).verify(self.content.whole, self.signature).is_ok()
    }
}

/// id-kp-OCSPSigning (RFC 6960, section 4.2.2.2).
const OCSP_SIGNING: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 3, 9];
const EXTENDED_KEY_USAGE: &[u8] = &[0x55, 0x1d, 0x25];
const VERSION: u8 = 0xa0;
const EXTENSIONS: u8 = 0xa3;

impl<'a> Parts<'a> {
    pub fn of(certificate: &'a [u8]) -> Option<Parts<'a>> {
        let signed = Signed::take(&mut Elements(certificate).tagged(der::SEQUENCE)?.parts())?;
        let mut parts = signed.content();
        parts.tagged(VERSION);
        let serial = parts.tagged(der::INTEGER)?.body;
        parts.tagged(der::SEQUENCE)?;
        let issuer = parts.tagged(der::SEQUENCE)?.whole;
        parts.tagged(der::SEQUENCE)?;
        let subject = parts.tagged(der::SEQUENCE)?.whole;
        let key_info = parts.tagged(der::SEQUENCE)?;
        let key = key_info.parts().last()?.bits()?;
        let extensions = parts.find(|part| part.tag == EXTENSIONS).and_then(|part| part.parts().next());
        let is_responder = extensions.is_some_and(|extensions| extensions.parts().any(|one| allows_ocsp(one)));
        Some(Parts { serial, issuer, subject, key, is_responder, key_info, signed })
    }

    /// By its name and its signature.
    pub fn is_issued_by(&self, issuer: &Parts<'_>) -> bool {
        self.issuer == issuer.subject && self.signed.is_signed_by(issuer)
    }

    /// Whether its issuer lets it sign responses in the issuer's place.
    pub fn is_responder_of(&self, issuer: &Parts<'_>) -> bool {
        self.is_responder && self.is_issued_by(issuer)
    }
}

fn allows_ocsp(extension: Element<'_>) -> bool {
    let mut parts = extension.parts();
    if parts.tagged(der::OBJECT_IDENTIFIER).is_none_or(|name| name.body != EXTENDED_KEY_USAGE) {
        return false;
    }
    let value = parts.last().filter(|value| value.tag == der::OCTET_STRING);
    let uses = value.and_then(|value| value.parts().tagged(der::SEQUENCE));
    uses.is_some_and(|uses| uses.parts().any(|one| one.body == OCSP_SIGNING))
}

/// What is safe: nothing with SHA-1.
fn algorithm(oid: &[u8], key: Element<'_>) -> Option<&'static dyn VerificationAlgorithm> {
    const P256: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7];
    const P384: &[u8] = &[0x2b, 0x81, 4, 0, 0x22];
    let curve = key.parts().tagged(der::SEQUENCE)?.parts().nth(1).map(|curve| curve.body);
    Some(match (oid, curve) {
        ([0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 11], _) => &signature::RSA_PKCS1_2048_8192_SHA256,
        ([0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 12], _) => &signature::RSA_PKCS1_2048_8192_SHA384,
        ([0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 13], _) => &signature::RSA_PKCS1_2048_8192_SHA512,
        ([0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 2], Some(P256)) => &signature::ECDSA_P256_SHA256_ASN1,
        ([0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 2], Some(P384)) => &signature::ECDSA_P384_SHA256_ASN1,
        ([0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 3], Some(P256)) => &signature::ECDSA_P256_SHA384_ASN1,
        ([0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 3], Some(P384)) => &signature::ECDSA_P384_SHA384_ASN1,
        ([0x2b, 0x65, 0x70], _) => &signature::ED25519,
        _ => return None,
    })
}
