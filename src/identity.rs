mod encrypted;
mod pkcs12;

use std::fmt;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;

use zeroize::{Zeroize, Zeroizing};

use crate::certificate::{blocks, certificates, names, Brief, Certificate};
use crate::der;
use crate::error::Error;

/// A certificate chain and its private key. Cheap to clone; `Debug` shows no key material. What this crate has of the key is
/// wiped when the last clone goes; what the TLS library has of it, that of each context, is the library's affair.
#[derive(Clone)]
pub struct Identity {
    inner: Arc<Material>,
}

pub(crate) struct Material {
    /// Leaf first.
    pub chain: Vec<Certificate>,
    /// The private key, unencrypted PKCS#8 in DER.
    pub key: Zeroizing<Vec<u8>>,
    /// Where it came from, for errors.
    pub origin: String,
}

impl Identity {
    /// `chain`: PEM, leaf first. `key`: PEM with a PKCS#8, PKCS#1 or SEC1 block; may be the same text as `chain`.
    ///
    /// Errors: `InvalidInput` when a block is missing, broken, encrypted, or when the key is not the leaf's. The text
    /// names the block and the reason: which block the key does belong to where the chain is in the wrong order, what the text is
    /// instead where it is not PEM, where it breaks off.
    pub fn from_pem(chain: &[u8], key: &[u8]) -> io::Result<Identity> {
        Ok(Identity::from_texts(chain, "the chain", key, "the key", None)?)
    }

    /// As [`from_pem`](Identity::from_pem), with a key that is encrypted with a password. PKCS#8 (`ENCRYPTED PRIVATE KEY`) with
    /// PBES2 (RFC 8018: PBKDF2 or scrypt, AES or 3DES), which is what `openssl pkcs8 -topk8` and `openssl genpkey -aes256`
    /// write, is read on every engine; OpenSSL's older form (a block with `DEK-Info`) where OpenSSL is. A key that is not
    /// encrypted is taken as it is.
    ///
    /// ```no_run
    /// # fn main() -> std::io::Result<()> {
    /// use std::fs;
    ///
    /// let (chain, key) = (fs::read("chain.pem")?, fs::read("key.pem")?);
    /// let identity = sslfile::Identity::from_pem_encrypted(&chain, &key, &fs::read_to_string("password")?)?;
    /// # drop(identity);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// Errors: those of `from_pem`; `InvalidInput` for a wrong password, which the text says, and for an encryption that the library
    /// does not have; `Unsupported` for the older form without OpenSSL.
    pub fn from_pem_encrypted(chain: &[u8], key: &[u8], password: &str) -> io::Result<Identity> {
        Ok(Identity::from_texts(chain, "the chain", key, "the key", Some(password))?)
    }

    /// As [`from_pem`](Identity::from_pem), from files, which errors name. Both may be the same file.
    ///
    /// Errors: those of reading the files, their kind kept (`NotFound`, …), and those of `from_pem`.
    pub fn from_pem_files(chain: impl AsRef<Path>, key: impl AsRef<Path>) -> io::Result<Identity> {
        let (chain, key) = (chain.as_ref(), key.as_ref());
        let read = |path: &Path| fs::read(path).map_err(|e| Error::of_file("cannot read", path, e));
        let (chain_text, key_text) = (Zeroizing::new(read(chain)?), Zeroizing::new(read(key)?));
        let (chain, key) = (chain.display().to_string(), key.display().to_string());
        Ok(Identity::from_texts(&chain_text, &chain, &key_text, &key, None)?)
    }

    /// A PKCS#12 archive: the key, its certificate, and the rest of the chain.
    ///
    /// Errors: `InvalidInput` for a wrong password, a broken archive, one without key or certificate, or one in an
    /// old encryption (RC2) that the TLS library no longer reads, with the commands that convert it. `Unsupported` without the feature that reads PKCS#12:
    /// `openssl`, and on Windows `native-tls`.
    pub fn from_pkcs12(der: &[u8], password: &str) -> io::Result<Identity> {
        Ok(pkcs12::parse(der, password)?)
    }

    pub(crate) fn material(&self) -> &Material {
        &self.inner
    }

    fn from_texts(
        chain_text: &[u8],
        chain_origin: &str,
        key: &[u8],
        key_origin: &str,
        password: Option<&str>,
    ) -> Result<Identity, Error> {
        let chain = certificates(chain_text, chain_origin).map_err(|e| swapped(e, chain_text, chain_origin))?;
        let (key, block) = private_key(key, key_origin, password)?;
        let origin = if chain_origin == key_origin {
            chain_origin.to_string()
        } else {
            format!("{chain_origin} and {key_origin}")
        };
        let material = Material { chain, key, origin };
        library::check_pair(&material).map_err(|why| {
            let whose = Brief::of(material.chain[0].der()).map_or_else(String::new, |leaf| format!(", {}", leaf.subject()));
            Error::invalid_input(match material.fits_later(chain_text) {
                Some(number) => format!(
                    "{key_origin}, {block}: the key belongs to block {number} of {chain_origin} and not to the first certificate \
                     there{whose}: the chain must begin with the key's own, and go on with that of whoever signed the one before"
                ),
                None => format!("{key_origin}, {block}: {why} (certificate: {chain_origin}{whose})"),
            })
        })?;
        Ok(Identity { inner: Arc::new(material) })
    }
}

impl Material {
    /// Which block of the text that the chain was made from is the key's, if it is not the first certificate.
    fn fits_later(&self, chain_text: &[u8]) -> Option<usize> {
        let own = self.chain[1..].iter().find(|certificate| {
            let alone = Material { chain: vec![(*certificate).clone()], key: self.key.clone(), origin: String::new() };
            library::check_pair(&alone).is_ok()
        })?;
        let blocks = blocks(chain_text, "").ok()?;
        blocks.iter().position(|block| block.contents() == own.der()).map(|at| at + 1)
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity")
            .field("certificates", &self.inner.chain.len())
            .field("from", &self.inner.origin)
            .finish_non_exhaustive()
    }
}

/// A chain without certificates is often a key in the wrong place: say so.
fn swapped(error: Error, text: &[u8], origin: &str) -> Error {
    match blocks(text, origin) {
        Ok(found) if found.iter().any(|b| b.tag().ends_with("PRIVATE KEY")) => {
            error.during("chain and key may be swapped")
        }
        _ => error,
    }
}

/// The private key of a PEM text as PKCS#8, and the name of the block it came from.
fn private_key(text: &[u8], origin: &str, password: Option<&str>) -> Result<(Zeroizing<Vec<u8>>, String), Error> {
    let blocks = blocks(text, origin)?;
    let found = find_key(&blocks, origin, password);
    for block in blocks {
        block.into_contents().zeroize();
    }
    found
}

fn find_key(blocks: &[pem::Pem], origin: &str, password: Option<&str>) -> Result<(Zeroizing<Vec<u8>>, String), Error> {
    for (number, block) in blocks.iter().enumerate() {
        let name = format!("block {} ({})", number + 1, block.tag());
        let fail = |why: &str| Err(Error::invalid_input(format!("{origin}, {name}: {why}")));
        let der = block.contents();
        let is_traditional = block.tag().ends_with("PRIVATE KEY") && block.headers().get("Proc-Type").is_some();
        if is_traditional || block.tag() == "ENCRYPTED PRIVATE KEY" {
            let Some(password) = password else {
                return fail(
                    "the key is encrypted: read it with its password (Identity::from_pem_encrypted), or decrypt it \
                     first (openssl pkey)",
                );
            };
            let key = match is_traditional {
                true => encrypted::traditional(block, password),
                false if is_pkcs8_encrypted(der) => encrypted::pkcs8(der, password),
                false => return fail("the key is not valid DER"),
            };
            return Ok((key.map_err(|failure| failure.tell(origin, &name))?, name));
        }
        let key = match block.tag() {
            "PRIVATE KEY" => Some(Zeroizing::new(der.to_vec())).filter(|der| der::element(der).is_some()),
            "RSA PRIVATE KEY" => pkcs8_from_pkcs1(der),
            "EC PRIVATE KEY" => pkcs8_from_sec1(der),
            _ => continue,
        };
        return match key {
            Some(key) => Ok((key, name)),
            None => fail("the key is not valid DER, or names no curve"),
        };
    }
    let hint = if blocks.iter().any(|b| b.tag() == "CERTIFICATE") { "; chain and key may be swapped" } else { "" };
    let found = names(blocks);
    Err(Error::invalid_input(format!("{origin} has no PRIVATE KEY block; it has {found}{hint}")))
}

/// Whether it has the form of an `EncryptedPrivateKeyInfo` (RFC 5958, section 3).
fn is_pkcs8_encrypted(der: &[u8]) -> bool {
    let Some((der::SEQUENCE, body, [])) = der::element(der) else { return false };
    let Some((der::SEQUENCE, _, rest)) = der::element(body) else { return false };
    matches!(der::element(rest), Some((der::OCTET_STRING, _, [])))
}

/// Wraps an RSA key (RFC 8017, A.1.2) as PKCS#8 (RFC 5208).
fn pkcs8_from_pkcs1(key: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    const RSA_ENCRYPTION: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01];
    const NULL: &[u8] = &[0x05, 0x00];
    der::element(key).filter(|(tag, _, rest)| *tag == der::SEQUENCE && rest.is_empty())?;
    let algorithm = der::encode(der::SEQUENCE, &[&der::encode(der::OBJECT_IDENTIFIER, &[RSA_ENCRYPTION]), NULL]);
    Some(pkcs8(&algorithm, key))
}

/// Wraps an EC key (RFC 5915) as PKCS#8; the curve stands in the key's `[0]` field.
fn pkcs8_from_sec1(key: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    const EC_PUBLIC_KEY: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];
    const CURVE: u8 = 0xa0;
    let (tag, body, rest) = der::element(key)?;
    if tag != der::SEQUENCE || !rest.is_empty() {
        return None;
    }
    let mut fields = body;
    while !fields.is_empty() {
        let (tag, curve, rest) = der::element(fields)?;
        if tag == CURVE {
            let oid = der::encode(der::OBJECT_IDENTIFIER, &[EC_PUBLIC_KEY]);
            return Some(pkcs8(&der::encode(der::SEQUENCE, &[&oid, curve]), key));
        }
        fields = rest;
    }
    None
}

fn pkcs8(algorithm: &[u8], key: &[u8]) -> Zeroizing<Vec<u8>> {
    let version = der::encode(der::INTEGER, &[&[0]]);
    let key = Zeroizing::new(der::encode(der::OCTET_STRING, &[key]));
    Zeroizing::new(der::encode(der::SEQUENCE, &[&version, algorithm, &key]))
}

/// What needs cryptography is asked of the library that is there.
#[cfg(all(feature = "openssl", not(any(windows, target_vendor = "apple"))))]
mod library {
    use super::Material;
    use crate::error::reasons;
    use openssl::pkey::PKey;
    use openssl::x509::X509;

    pub fn check_pair(material: &Material) -> Result<(), String> {
        let leaf = X509::from_der(material.chain[0].der())
            .map_err(|e| format!("the certificate is broken: {}", reasons(&e.to_string())))?;
        let key = PKey::private_key_from_pkcs8(&material.key)
            .map_err(|e| format!("the key cannot be read: {}", reasons(&e.to_string())))?;
        let public = leaf
            .public_key()
            .map_err(|e| format!("the certificate's public key cannot be read: {}", reasons(&e.to_string())))?;
        match public.public_eq(&key) {
            true => Ok(()),
            false => Err("the key does not belong to the certificate".to_string()),
        }
    }
}

#[cfg(not(all(feature = "openssl", not(any(windows, target_vendor = "apple")))))]
mod library {
    #[cfg(all(feature = "native-tls", not(windows)))]
    use crate::error::reasons;

    #[cfg(feature = "native-tls")]
    pub fn check_pair(material: &super::Material) -> Result<(), String> {
        if crate::der::pair::fits(&material.key, material.chain[0].der()) != Some(true) {
            return Err("the key does not belong to the certificate".to_string());
        }
        // Windows puts a key that it reads among the user's: once, when a context is built, is enough.
        #[cfg(windows)]
        return Ok(());
        #[cfg(not(windows))]
        let identity = super::native(material)
            .map_err(|e| format!("the key or the certificate cannot be read: {}", reasons(&e.to_string())))?;
        #[cfg(not(windows))]
        native_tls::TlsAcceptor::new(identity)
            .map(drop)
            .map_err(|e| format!("key and certificate do not fit: {}", reasons(&e.to_string())))
    }

    #[cfg(all(feature = "rustls", not(feature = "native-tls")))]
    pub fn check_pair(material: &super::Material) -> Result<(), String> {
        #[cfg(feature = "aws-lc-rs")]
        use rustls::crypto::aws_lc_rs as cryptography;
        #[cfg(not(feature = "aws-lc-rs"))]
        use rustls::crypto::ring as cryptography;
        use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
        use rustls::sign::CertifiedKey;

        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(material.key.as_slice()));
        let key = cryptography::sign::any_supported_type(&key).map_err(|_| super::unread_by_rustls())?;
        let pair = CertifiedKey::new(vec![CertificateDer::from(material.chain[0].der().to_vec())], key);
        pair.keys_match().map_err(|e| match e {
            rustls::Error::InconsistentKeys(_) => "the key does not belong to the certificate".to_string(),
            rustls::Error::InvalidCertificate(_) => "the certificate is broken: its DER cannot be read".to_string(),
            e => format!("the certificate cannot be used: {e}"),
        })
    }
}

/// Of a key that others may take. In rustls' own words it cannot be parsed.
#[cfg(feature = "rustls")]
pub(crate) fn unread_by_rustls() -> String {
    let curves = if cfg!(feature = "aws-lc-rs") { "P-256, P-384, P-521" } else { "P-256, P-384" };
    format!(
        "the key cannot be read by rustls, which takes RSA from 2048 bits on, {curves} and Ed25519 (EC keys by the curve's name and \
         with their public half: `openssl pkey -ec_param_enc named_curve -ec_conv_form uncompressed` writes others so)"
    )
}

/// For the platform's library.
#[cfg(all(feature = "native-tls", not(windows)))]
pub(crate) fn native(material: &Material) -> Result<native_tls::Identity, native_tls::Error> {
    let chain: String = material.chain.iter().map(|c| pem::encode(&pem::Pem::new("CERTIFICATE", c.der()))).collect();
    let config = pem::EncodeConfig::new().set_line_ending(pem::LineEnding::LF);
    let block = pem::Pem::new("PRIVATE KEY", material.key.as_slice());
    let key = Zeroizing::new(pem::encode_config(&block, config));
    block.into_contents().zeroize();
    native_tls::Identity::from_pkcs8(chain.as_bytes(), key.as_bytes())
}

/// The same; what `native-tls` makes of PKCS#8 is for RSA keys only there.
#[cfg(all(feature = "native-tls", windows))]
pub(crate) fn native(material: &Material) -> Result<native_tls::Identity, Error> {
    let archive = pkcs12::make(material, pkcs12::PASSWORD)
        .map(Zeroizing::new)
        .map_err(|e| Error::invalid_input(format!("the key or a certificate is broken: {e}")).with_source(e))?;
    native_tls::Identity::from_pkcs12(&archive, pkcs12::PASSWORD)
        .map_err(|e| Error::invalid_input(e.to_string()).with_source(e))
}
