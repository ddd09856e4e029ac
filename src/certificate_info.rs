use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, SystemTime};

use sha2::{Digest, Sha256};
use x509_parser::asn1_rs::{Any, FromDer, Oid};
use x509_parser::certificate::{X509Certificate, X509CertificateParser};
use x509_parser::error::X509Error;
use x509_parser::extensions::{BasicConstraints, GeneralName, SubjectAlternativeName};
use x509_parser::nom::Parser;
use x509_parser::objects::{oid2sn, oid_registry};
use x509_parser::oid_registry as known;
use x509_parser::public_key::RSAPublicKey;
use x509_parser::time::ASN1Time;
use x509_parser::x509::{SubjectPublicKeyInfo, X509Name};

use crate::certificate::{name, name_text, Certificate};
use crate::der;
use crate::error::Error;

/// What a certificate says (RFC 5280, section 4.1), as [`Certificate::info`] reads it. Needs the feature `x509`.
///
/// This is for showing, logging and deciding beyond what the TLS library has checked. It checks nothing itself: no
/// signature, no chain, no name. Texts are as the certificate has them and may hold any character.
///
/// ```no_run
/// use sslfile::SslFile;
/// use std::time::SystemTime;
/// # fn main() -> std::io::Result<()> {
/// let file = SslFile::connect("example.com:443")?;
/// file.handshake()?;
/// if let Some(certificate) = file.peer_certificate() {
///     let info = certificate.info()?;
///     println!("{} issued by {}, serial number {}", info.subject, info.issuer, info.serial_hex());
///     println!("{} of {:?} bits, names {:?}", info.key_type, info.key_bits, info.subject_alt_names);
///     assert!(info.is_valid_at(SystemTime::now()));
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct CertificateInfo {
    /// Whom it is for, in the form of RFC 4514: `CN=localhost,O=Example\, Inc.`, the most specific part first. Empty
    /// where the certificate has only [`subject_alt_names`](CertificateInfo::subject_alt_names).
    pub subject: String,
    /// The common name (CN) in the subject, the most specific if there are several.
    pub common_name: Option<String>,
    /// Who signed it, in the form of RFC 4514.
    pub issuer: String,
    /// The common name (CN) in the issuer.
    pub issuer_common_name: Option<String>,
    /// The serial number as it is encoded, in two's complement, most significant byte first: a number whose first bit
    /// is set has a zero byte before it. Never empty.
    pub serial: Vec<u8>,
    /// The first moment at which it is valid, in whole seconds. May lie before 1970.
    pub not_before: SystemTime,
    /// The last moment at which it is valid, in whole seconds. For ever is 9999-12-31T23:59:59Z.
    pub not_after: SystemTime,
    /// The names it is for, in order; these, not the subject, are what a host's name is compared with (RFC 9525).
    pub subject_alt_names: Vec<SubjectAltName>,
    /// What kind of public key it has.
    pub key_type: KeyType,
    /// The size of the key in bits, as it is usually told: of the modulus for RSA and DSA, of the curve's field for EC,
    /// 256 for Ed25519, 456 for Ed448. `None` for other kinds.
    pub key_bits: Option<usize>,
    /// The public key, a SubjectPublicKeyInfo in DER; its SHA-256 is what pins are made of (RFC 7469, section 2.4).
    pub public_key: Vec<u8>,
    /// What the issuer signed it with, such as `sha256WithRSAEncryption`, `ecdsa-with-SHA256`, `ed25519`; the OID in
    /// dotted form if it has no name here.
    pub signature_algorithm: String,
    /// Whether it may sign other certificates (RFC 5280, section 4.2.1.9).
    pub is_ca: bool,
    /// Each extension's OID in dotted form, in order, and whether it is critical: whether those who don't know it must
    /// refuse the certificate.
    pub extensions: Vec<(String, bool)>,
    /// SHA-256 of the whole certificate in DER.
    pub fingerprint: [u8; 32],
}

/// One of the names a certificate is for (RFC 5280, section 4.2.1.6).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SubjectAltName {
    /// A host's name; the first label may be `*`.
    Dns(String),
    /// An address.
    Ip(IpAddr),
    /// A mailbox.
    Email(String),
    /// An URI.
    Uri(String),
    /// A distinguished name, in the form of RFC 4514.
    Directory(String),
    /// Another kind, by its number in the RFC: 0 otherName, 3 x400Address, 5 ediPartyName, 8 registeredID.
    Other(u8),
}

/// A kind of public key. `Display` gives its usual name: `RSA`, `EC P-256`, `Ed25519`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum KeyType {
    /// RSA for any use (RFC 8017).
    Rsa,
    /// RSA for RSASSA-PSS signatures only (RFC 4055).
    RsaPss,
    /// DSA.
    Dsa,
    /// An elliptic curve, by name: `P-256`, `P-384`, `P-521`; others by their OID in dotted form.
    Ec(String),
    /// Ed25519 (RFC 8032).
    Ed25519,
    /// Ed448 (RFC 8032).
    Ed448,
    /// Another kind, by its OID in dotted form.
    Other(String),
}

impl Certificate {
    /// What the certificate says, as a record. Needs the feature `x509`.
    ///
    /// Errors: `InvalidInput` if some part of it cannot be read; the text names the part.
    pub fn info(&self) -> io::Result<CertificateInfo> {
        Ok(read(self.der())?)
    }
}

impl CertificateInfo {
    /// Whether `time` lies within the certificate's validity, both ends included.
    pub fn is_valid_at(&self, time: SystemTime) -> bool {
        self.not_before <= time && time <= self.not_after
    }

    /// The serial number as `openssl x509 -serial` has it: capital hexadecimal digits, two for each byte, after a minus
    /// sign if it is negative (which RFC 5280 forbids).
    pub fn serial_hex(&self) -> String {
        let negative = self.serial[0] & 0x80 != 0;
        let mut magnitude = self.serial.clone();
        if negative {
            let mut carry = true;
            for byte in magnitude.iter_mut().rev() {
                (*byte, carry) = (!*byte).overflowing_add(u8::from(carry));
            }
        }
        let zeros = magnitude[..magnitude.len() - 1].iter().take_while(|b| **b == 0).count();
        format!("{}{}", if negative { "-" } else { "" }, hex(&magnitude[zeros..]))
    }
}

impl fmt::Display for KeyType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            KeyType::Rsa => f.write_str("RSA"),
            KeyType::RsaPss => f.write_str("RSA-PSS"),
            KeyType::Dsa => f.write_str("DSA"),
            KeyType::Ec(curve) => write!(f, "EC {curve}"),
            KeyType::Ed25519 => f.write_str("Ed25519"),
            KeyType::Ed448 => f.write_str("Ed448"),
            KeyType::Other(oid) => f.write_str(oid),
        }
    }
}

fn bad(part: &str) -> Error {
    Error::invalid_input(format!("the certificate's {part} cannot be read"))
}

fn read(der: &[u8]) -> Result<CertificateInfo, Error> {
    // Of the extensions only those are looked into that we tell of.
    let (rest, certificate) =
        X509CertificateParser::new().with_deep_parse_extensions(false).parse(der).map_err(|e| {
            let why = match e {
                x509_parser::nom::Err::Incomplete(_) => X509Error::InvalidCertificate,
                x509_parser::nom::Err::Error(e) | x509_parser::nom::Err::Failure(e) => e,
            };
            Error::invalid_input(format!("the certificate cannot be read: {why}")).with_source(why)
        })?;
    if !rest.is_empty() {
        return Err(Error::invalid_input("the certificate has something behind it"));
    }
    if certificate.raw_serial().is_empty() {
        return Err(bad("serial number"));
    }
    let (key_type, key_bits) = key(certificate.public_key())?;
    let names = extension::<SubjectAlternativeName>(
        &certificate,
        &known::OID_X509_EXT_SUBJECT_ALT_NAME,
        "subject alternative names",
    )?;
    let constraints =
        extension::<BasicConstraints>(&certificate, &known::OID_X509_EXT_BASIC_CONSTRAINTS, "basic constraints")?;
    let algorithm = &certificate.signature_algorithm.algorithm;
    Ok(CertificateInfo {
        subject: name_text(certificate.subject().as_raw()),
        common_name: common_name(certificate.subject()),
        issuer: name_text(certificate.issuer().as_raw()),
        issuer_common_name: common_name(certificate.issuer()),
        serial: certificate.raw_serial().to_vec(),
        not_before: time(certificate.validity().not_before)?,
        not_after: time(certificate.validity().not_after)?,
        subject_alt_names: names.iter().flat_map(|n| &n.general_names).map(alt_name).collect::<Result<_, _>>()?,
        key_type,
        key_bits,
        public_key: certificate.public_key().raw.to_vec(),
        signature_algorithm: oid2sn(algorithm, oid_registry())
            .map_or_else(|_| algorithm.to_id_string(), str::to_string),
        is_ca: constraints.is_some_and(|c| c.ca),
        extensions: certificate.extensions().iter().map(|e| (e.oid.to_id_string(), e.critical)).collect(),
        fingerprint: Sha256::digest(der).into(),
    })
}

/// The extension with this OID, if there is one.
fn extension<'a, T: FromDer<'a, X509Error>>(
    certificate: &X509Certificate<'a>,
    oid: &Oid,
    part: &str,
) -> Result<Option<T>, Error> {
    let Some(found) = certificate.get_extension_unique(oid).map_err(|_| bad(part))? else { return Ok(None) };
    match T::from_der(found.value) {
        Ok(([], value)) => Ok(Some(value)),
        _ => Err(bad(part)),
    }
}

fn time(time: ASN1Time) -> Result<SystemTime, Error> {
    let seconds = time.timestamp();
    let distance = Duration::from_secs(seconds.unsigned_abs());
    let time = match seconds {
        0.. => SystemTime::UNIX_EPOCH.checked_add(distance),
        _ => SystemTime::UNIX_EPOCH.checked_sub(distance),
    };
    time.ok_or_else(|| Error::invalid_input("the certificate's validity is beyond what the system's clock can tell"))
}

fn alt_name(name: &GeneralName) -> Result<SubjectAltName, Error> {
    Ok(match name {
        GeneralName::DNSName(name) => SubjectAltName::Dns(name.to_string()),
        GeneralName::RFC822Name(mailbox) => SubjectAltName::Email(mailbox.to_string()),
        GeneralName::URI(uri) => SubjectAltName::Uri(uri.to_string()),
        GeneralName::IPAddress(bytes) => {
            let v4 = <[u8; 4]>::try_from(*bytes).map(|b| IpAddr::V4(Ipv4Addr::from(b)));
            let v6 = <[u8; 16]>::try_from(*bytes).map(|b| IpAddr::V6(Ipv6Addr::from(b)));
            SubjectAltName::Ip(v4.or(v6).map_err(|_| bad("subject alternative names"))?)
        }
        GeneralName::DirectoryName(name) => SubjectAltName::Directory(name_text(name.as_raw())),
        GeneralName::OtherName(..) => SubjectAltName::Other(0),
        GeneralName::X400Address(_) => SubjectAltName::Other(3),
        GeneralName::EDIPartyName(_) => SubjectAltName::Other(5),
        GeneralName::RegisteredID(_) => SubjectAltName::Other(8),
        GeneralName::Invalid(..) => return Err(bad("subject alternative names")),
    })
}

/// The kind of key, and its size in bits.
fn key(info: &SubjectPublicKeyInfo) -> Result<(KeyType, Option<usize>), Error> {
    let oid = info.algorithm.algorithm.to_id_string();
    let key: &[u8] = &info.subject_public_key.data;
    let modulus = || match RSAPublicKey::from_der(key) {
        Ok((_, key)) => Ok(Some(bits(key.modulus))),
        Err(_) => Err(bad("RSA key")),
    };
    // The OIDs of RFC 3279, 4055, 5480 and 8410.
    Ok(match oid.as_str() {
        "1.2.840.113549.1.1.1" => (KeyType::Rsa, modulus()?),
        "1.2.840.113549.1.1.10" => (KeyType::RsaPss, modulus()?),
        "1.2.840.10040.4.1" => {
            // The modulus is the first parameter; a key may leave the parameters to its issuer's.
            let p = info.algorithm.parameters.as_ref().and_then(|p| der::element(p.data));
            (KeyType::Dsa, p.filter(|(tag, _, _)| *tag == der::INTEGER).map(|(_, p, _)| bits(p)))
        }
        "1.2.840.10045.2.1" => {
            let curve =
                info.algorithm.parameters.as_ref().and_then(|p| p.as_oid().ok()).ok_or_else(|| bad("EC key"))?;
            let (name, bits) = match curve.to_id_string().as_str() {
                "1.2.840.10045.3.1.7" => ("P-256".to_string(), Some(256)),
                "1.3.132.0.34" => ("P-384".to_string(), Some(384)),
                "1.3.132.0.35" => ("P-521".to_string(), Some(521)),
                other => (other.to_string(), point_bits(key)),
            };
            (KeyType::Ec(name), bits)
        }
        "1.3.101.112" => (KeyType::Ed25519, Some(256)),
        "1.3.101.113" => (KeyType::Ed448, Some(456)),
        _ => (KeyType::Other(oid), None),
    })
}

/// The length of a positive number.
fn bits(number: &[u8]) -> usize {
    match number.iter().position(|b| *b != 0) {
        Some(first) => (number.len() - first) * 8 - number[first].leading_zeros() as usize,
        None => 0,
    }
}

/// The length of a point's coordinate (SEC 1, section 2.3.3): that of the field in whole bytes.
fn point_bits(point: &[u8]) -> Option<usize> {
    match point {
        [4, both @ ..] => Some(both.len() / 2 * 8),
        [2 | 3, one @ ..] => Some(one.len() * 8),
        _ => None,
    }
}

fn common_name(name: &X509Name) -> Option<String> {
    let text = |value: &Any| name::text(u8::try_from(value.tag().0).ok()?, value.data);
    name.iter_common_name().last().and_then(|cn| text(cn.attr_value()))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02X}")).collect()
}
