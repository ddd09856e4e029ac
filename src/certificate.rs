mod brief;
pub(crate) mod mistaken;
pub(crate) mod name;
mod trusted;

use std::fmt;
use std::fs;
use std::io;
use std::path::Path;

use crate::error::Error;

#[cfg(feature = "rustls")]
pub(crate) use self::brief::at;
pub(crate) use self::brief::{now, Brief};
#[cfg(feature = "x509")]
pub(crate) use self::name::name_text;

/// An X.509 certificate, as DER.
#[derive(Clone, PartialEq, Eq)]
pub struct Certificate {
    der: Vec<u8>,
}

impl Error {
    /// The chain that the peer sent and that was refused, its own certificate first: for showing to who has to do something
    /// about it. Nothing vouches for any of it.
    ///
    /// Empty with errors of other kinds than `Certificate` and `HostnameMismatch`, where the peer sent none, and where the engine
    /// does not show whom it refuses: `Native` in TLS 1.3, and on servers. What a server refuses is with OpenSSL the chain as far
    /// as that could be built.
    ///
    /// ```no_run
    /// # use sslfile::{Error, SslFile};
    /// # fn main() -> std::io::Result<()> {
    /// let file = SslFile::connect("example.com:443")?;
    /// if let Err(error) = file.handshake() {
    ///     for certificate in Error::of(&error).map(Error::peer_certificates).unwrap_or_default() {
    ///         println!("{} bytes of DER", certificate.to_der().len());
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn peer_certificates(&self) -> Vec<Certificate> {
        self.refused().iter().map(|der| Certificate::from_library(der.clone())).collect()
    }
}

impl Certificate {
    /// The first `CERTIFICATE` block of a PEM text. A `TRUSTED CERTIFICATE`, as OpenSSL writes them, is one, unless it says
    /// that it is rejected or not trusted for TLS.
    ///
    /// Errors: `InvalidInput` when there is none or when it is not a certificate.
    pub fn from_pem(pem: &[u8]) -> io::Result<Certificate> {
        Ok(certificates(pem, "the PEM text")?.swap_remove(0))
    }

    /// A certificate in DER.
    ///
    /// Errors: `InvalidInput` when it is not one.
    pub fn from_der(der: &[u8]) -> io::Result<Certificate> {
        check(der).map_err(|why| {
            Error::invalid_input(match mistaken::not_certificate(der) {
                Some(what) => format!("not a certificate in DER: it is {what}"),
                None => format!("not a certificate in DER: {why}"),
            })
        })?;
        Ok(Certificate { der: der.to_vec() })
    }

    /// Every `CERTIFICATE` block of a PEM text, in order; other blocks are passed over.
    ///
    /// Errors: as [`from_pem`](Certificate::from_pem).
    pub fn stack_from_pem(pem: &[u8]) -> io::Result<Vec<Certificate>> {
        Ok(certificates(pem, "the PEM text")?)
    }

    /// The certificate in DER.
    pub fn to_der(&self) -> Vec<u8> {
        self.der.clone()
    }

    pub(crate) fn der(&self) -> &[u8] {
        &self.der
    }

    /// For certificates a TLS library hands us: they have been parsed already.
    pub(crate) fn from_library(der: Vec<u8>) -> Certificate {
        Certificate { der }
    }
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Certificate({} bytes of DER)", self.der.len())
    }
}

/// Names of PEM blocks with a certificate.
const TAGS: [&str; 3] = ["CERTIFICATE", "X509 CERTIFICATE", "TRUSTED CERTIFICATE"];

/// The certificates in `pem`, at least one; `origin` names the text in errors.
pub(crate) fn certificates(pem: &[u8], origin: &str) -> Result<Vec<Certificate>, Error> {
    let blocks = blocks(pem, origin)?;
    let mut found = Vec::new();
    for (number, block) in blocks.iter().enumerate() {
        if !TAGS.contains(&block.tag()) {
            continue;
        }
        let place = || format!("{origin}, block {} ({})", number + 1, block.tag());
        let der = trusted::certificate(block).map_err(|why| Error::invalid_input(format!("{}: {why}", place())))?;
        check(der).map_err(|why| Error::invalid_input(format!("{}: not a certificate: {why}", place())))?;
        found.push(Certificate { der: der.to_vec() });
    }
    if found.is_empty() {
        return Err(Error::invalid_input(format!("{origin} has no CERTIFICATE block; it has {}", names(&blocks))));
    }
    Ok(found)
}

/// What a file or a directory has of certificates.
pub(crate) struct Found {
    pub certificates: Vec<Certificate>,
    /// How many more there are that are not what they say.
    pub broken: usize,
}

/// The certificates in this file, or in the files of this directory (links followed, each certificate once).
pub(crate) fn load(path: &Path) -> Result<Found, Error> {
    let fail = |path: &Path, e: io::Error| Error::of_file("cannot read", path, e);
    let mut found = Found { certificates: Vec::new(), broken: 0 };
    if path.is_dir() {
        let entries = fs::read_dir(path).map_err(|e| fail(path, e))?;
        let mut files = entries.map(|entry| entry.map(|e| e.path())).collect::<Result<Vec<_>, _>>();
        files.iter_mut().for_each(|files| files.sort());
        for file in files.map_err(|e| fail(path, e))?.iter().filter(|file| file.is_file()) {
            found.add(&fs::read(file).map_err(|e| fail(file, e))?);
        }
    } else {
        let bytes = fs::read(path).map_err(|e| fail(path, e))?;
        found.add(&bytes);
        if found.certificates.is_empty() {
            // Says more of why.
            certificates(&bytes, &path.display().to_string())?;
        }
    }
    if found.certificates.is_empty() {
        return Err(Error::invalid_input(format!("{} has no certificates", path.display())));
    }
    Ok(found)
}

impl Found {
    fn add(&mut self, bytes: &[u8]) {
        if check(bytes).is_ok() {
            return self.add_der(bytes);
        }
        // Block by block: a broken one must not hide those behind it.
        let text = String::from_utf8_lossy(bytes);
        let blocks = text.split("-----BEGIN ").skip(1);
        for block in blocks.filter(|block| TAGS.iter().any(|tag| block.starts_with(&format!("{tag}-----")))) {
            match pem::parse(format!("-----BEGIN {block}")) {
                Ok(block) => match trusted::certificate(&block) {
                    Ok(der) => self.add_der(der),
                    Err(_) => self.broken += 1,
                },
                Err(_) => self.broken += 1,
            }
        }
    }

    fn add_der(&mut self, der: &[u8]) {
        match check(der) {
            Ok(()) if self.certificates.iter().any(|known| known.der == der) => {}
            Ok(()) => self.certificates.push(Certificate { der: der.to_vec() }),
            Err(_) => self.broken += 1,
        }
    }
}

/// The PEM blocks of a text; an error that says what is there instead when there are none.
pub(crate) fn blocks(text: &[u8], origin: &str) -> Result<Vec<pem::Pem>, Error> {
    if text.is_empty() {
        return Err(Error::invalid_input(format!("{origin} is empty")));
    }
    if let Some(block) = mistaken::cut_block(text) {
        return Err(Error::invalid_input(format!("{origin} breaks off: {block} begins and does not end")));
    }
    let blocks = pem::parse_many(text).map_err(|e| {
        let which = mistaken::bad_block(text).map_or_else(String::new, |block| format!(", {block}:"));
        Error::invalid_input(format!("{origin}{which} is not valid PEM: {e}")).with_source(e)
    })?;
    if blocks.is_empty() {
        return Err(Error::invalid_input(match mistaken::not_pem(text) {
            Some(what) => format!("{origin} has no PEM block: it is {what}"),
            None => format!("{origin} has no PEM block"),
        }));
    }
    Ok(blocks)
}

/// The blocks by name, for errors.
pub(crate) fn names(blocks: &[pem::Pem]) -> String {
    blocks.iter().map(|b| b.tag()).collect::<Vec<_>>().join(", ")
}

/// Whether `der` is one whole SEQUENCE that starts with another, as a certificate does. The TLS library parses the rest.
fn check(der: &[u8]) -> Result<(), &'static str> {
    let (tag, body, rest) = crate::der::element(der).ok_or("not DER")?;
    if tag != crate::der::SEQUENCE || !rest.is_empty() {
        return Err("not a single DER sequence");
    }
    match crate::der::element(body) {
        Some((crate::der::SEQUENCE, _, _)) => Ok(()),
        _ => Err("no certificate inside the sequence"),
    }
}
