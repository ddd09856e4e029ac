//! Archives of a key and its certificates.

use super::*;
#[cfg(any(
    all(feature = "openssl", not(any(windows, target_vendor = "apple"))),
    all(feature = "native-tls", windows)
))]
use crate::certificate::mistaken::not_archive;

#[cfg(all(feature = "openssl", not(any(windows, target_vendor = "apple"))))]
pub(super) fn parse(archive: &[u8], password: &str) -> Result<Identity, Error> {
    use crate::error::reasons;
    use openssl::pkcs12::Pkcs12;
    let fail = |what: &str, e: openssl::error::ErrorStack| {
        Error::invalid_input(format!("the PKCS#12 archive {what}: {}", reasons(&e.to_string()))).with_source(e)
    };
    if password.contains('\0') {
        // It would not survive as a string of C.
        return Err(Error::invalid_input("the password of the PKCS#12 archive has a NUL in it"));
    }
    let opened = Pkcs12::from_der(archive).map_err(|e| match not_archive(archive) {
        Some(what) => Error::invalid_input(format!("not a PKCS#12 archive: it is {what}")).with_source(e),
        None => fail("is broken", e),
    })?;
    let parsed = opened.parse2(password).map_err(|e| {
        let told = e.to_string();
        if told.contains("mac verify failure") {
            return Error::invalid_input("the password is not that of the PKCS#12 archive").with_source(e);
        }
        // "…:unsupported:…:Global default library context, Algorithm (RC2-40-CBC : 0), Properties ()"
        let cipher = told.split_once("Algorithm (").and_then(|(_, rest)| rest.split_once(" :"));
        match cipher.filter(|_| told.contains(":unsupported:")) {
            Some((cipher, _)) => Error::invalid_input(format!(
                "the PKCS#12 archive is encrypted in an old way ({cipher}), which the TLS library no longer reads. Convert it: \
                 `openssl pkcs12 -legacy -in OLD.p12 -nodes -out all.pem`, then \
                 `openssl pkcs12 -export -in all.pem -out NEW.p12`"
            ))
            .with_source(e),
            None => fail("cannot be opened with this password", e),
        }
    })?;
    let key = parsed.pkey.ok_or_else(|| missing("private key"))?;
    let leaf = parsed.cert.ok_or_else(|| missing("certificate for its key"))?;
    let mut chain = Vec::new();
    // OpenSSL gives the rest of the chain in reverse.
    for certificate in std::iter::once(leaf).chain(parsed.ca.into_iter().flatten().rev()) {
        chain.push(Certificate::from_library(certificate.to_der().map_err(|e| fail("is broken", e))?));
    }
    let key = key.private_key_to_pkcs8().map_err(|e| fail("has a key that cannot be used", e))?.into();
    identity(chain, key)
}

#[cfg(all(feature = "native-tls", windows))]
pub(super) fn parse(bytes: &[u8], password: &str) -> Result<Identity, Error> {
    use p12_keystore::Pkcs12Archive;
    let archive = Pkcs12Archive::from_pkcs12(bytes, password).map_err(|e| {
        let text = match not_archive(bytes) {
            Some(what) => format!("not a PKCS#12 archive: it is {what}"),
            None => format!("the PKCS#12 archive is broken, or cannot be opened with this password: {e}"),
        };
        Error::invalid_input(text).with_source(e)
    })?;
    let key = archive.keys.first().ok_or_else(|| missing("private key"))?.key.as_der().to_vec();
    let key = Zeroizing::new(key);
    let mut chain: Vec<_> = archive.certs.iter().map(|bag| bag.cert.as_der()).collect();
    let leaf = chain.iter().position(|certificate| der::pair::fits(&key, certificate) == Some(true));
    let leaf = chain.remove(leaf.ok_or_else(|| missing("certificate for its key"))?);
    let chain = std::iter::once(leaf).chain(chain);
    identity(chain.map(|certificate| Certificate::from_library(certificate.to_vec())).collect(), key)
}

#[cfg(not(any(
    all(feature = "openssl", not(any(windows, target_vendor = "apple"))),
    all(feature = "native-tls", windows)
)))]
pub(super) fn parse(_: &[u8], _: &str) -> Result<Identity, Error> {
    let feature = if cfg!(windows) { "native-tls" } else { "openssl" };
    Err(Error::unsupported(format!("PKCS#12 needs the feature {feature:?}")))
}

#[cfg(any(all(feature = "openssl", not(any(windows, target_vendor = "apple"))), all(feature = "native-tls", windows)))]
fn identity(chain: Vec<Certificate>, key: Zeroizing<Vec<u8>>) -> Result<Identity, Error> {
    let material = Material { chain, key, origin: "a PKCS#12 archive".to_string() };
    library::check_pair(&material).map_err(|why| Error::invalid_input(format!("the PKCS#12 archive: {why}")))?;
    Ok(Identity { inner: Arc::new(material) })
}

#[cfg(any(all(feature = "openssl", not(any(windows, target_vendor = "apple"))), all(feature = "native-tls", windows)))]
fn missing(what: &str) -> Error {
    Error::invalid_input(format!("the PKCS#12 archive has no {what}"))
}

/// Of an archive that leaves this process's memory at no time.
#[cfg(all(feature = "native-tls", windows))]
pub(super) const PASSWORD: &str = "sslfile";

/// In the encryption that every Windows reads.
#[cfg(all(feature = "native-tls", windows))]
pub(super) fn make(material: &Material, password: &str) -> Result<Vec<u8>, p12_keystore::error::Error> {
    use p12_keystore::{
        Certificate, EncryptionAlgorithm, KeyStore, KeyStoreEntry, MacAlgorithm, PrivateKey, PrivateKeyChain,
    };
    let chain = material.chain.iter().map(|certificate| Certificate::from_der(certificate.der()));
    let chain = chain.collect::<Result<Vec<_>, _>>()?;
    let key = PrivateKey::from_der(&material.key)?;
    let mut store = KeyStore::new();
    store.add_entry("sslfile", KeyStoreEntry::PrivateKeyChain(PrivateKeyChain::new("1", key, chain)));
    store
        .writer(password)
        .encryption_algorithm(EncryptionAlgorithm::PbeWithShaAnd3KeyTripleDesCbc)
        .encryption_iterations(1)
        .mac_algorithm(MacAlgorithm::HmacSha1)
        .mac_iterations(1)
        .write()
}
