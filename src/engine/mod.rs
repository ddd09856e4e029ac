//! The TLS libraries. Each is one file that implements [`Library`] (contexts made from settings) and [`Session`]
//! (one connection). Above this folder only `context/foreign.rs` names a library: its types are in public signatures there.

mod alert;
mod buffer;
#[cfg(any(all(feature = "openssl", not(any(windows, target_vendor = "apple"))), feature = "rustls"))]
mod key_log;
#[cfg(feature = "native-tls")]
mod native;
#[cfg(all(feature = "openssl", not(any(windows, target_vendor = "apple"))))]
mod openssl;
#[cfg(feature = "native-tls")]
mod overheard;
mod plain_text;
#[cfg(feature = "rustls")]
mod rustls;
#[cfg(any(all(feature = "openssl", not(any(windows, target_vendor = "apple"))), feature = "rustls"))]
mod sessions;
mod verdict;
mod wire;

use std::any::Any;
use std::sync::Arc;

use crate::certificate::Certificate;
use crate::der::EndPointHash;
use crate::error::Error;
use crate::role::Role;
use crate::settings::Settings;
use crate::version::{Bounds, Version};

pub(crate) use buffer::{Buffer, LARGE};
pub(crate) use plain_text::PlainText;
pub(crate) use wire::Wire;

#[cfg(not(any(feature = "native-tls", feature = "openssl", feature = "rustls")))]
compile_error!("sslfile needs a TLS library: turn on one of the features \"native-tls\", \"openssl\" and \"rustls\"");

/// The library that does the cryptography. Every variant exists whatever the features;
/// [`is_available`](Engine::is_available) says what was built, and the [guide](crate::guide::engines) what each can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Engine {
    /// The platform's own library through the `native-tls` crate (feature `native-tls`). On OpenSSL its servers stop at
    /// TLS 1.2, and it has neither ciphers nor groups, client authentication, resumption, several certificates, pins, key log or
    /// negotiated version.
    Native,
    /// OpenSSL through the `openssl` crate (feature `openssl`), on platforms where `native-tls` is OpenSSL too.
    OpenSsl,
    /// rustls (feature `rustls`), with the cryptography of `ring`, or of `aws-lc-rs` (feature `aws-lc-rs`). TLS 1.2 and
    /// up.
    Rustls,
}

impl Engine {
    /// Whether this engine was built.
    pub fn is_available(self) -> bool {
        Engine::available().contains(&self)
    }

    /// The engines that were built, the default first.
    pub fn available() -> Vec<Engine> {
        vec![
            #[cfg(all(feature = "openssl", not(any(windows, target_vendor = "apple"))))]
            Engine::OpenSsl,
            #[cfg(feature = "native-tls")]
            Engine::Native,
            #[cfg(feature = "rustls")]
            Engine::Rustls,
        ]
    }

    /// Whether this certificate is one to the library, too.
    pub(crate) fn reads(self, certificate: &Certificate) -> bool {
        match self {
            #[cfg(all(feature = "openssl", not(any(windows, target_vendor = "apple"))))]
            Engine::OpenSsl => openssl::reads(certificate),
            #[cfg(feature = "native-tls")]
            Engine::Native => native::reads(certificate),
            #[cfg(feature = "rustls")]
            Engine::Rustls => rustls::reads(certificate),
            #[allow(unreachable_patterns, reason = "which engines are left depends on the features")]
            _ => true,
        }
    }

    /// Builds what the library needs for these settings, once for any number of connections.
    pub(crate) fn build(self, settings: &Settings) -> Result<Box<dyn Library>, Error> {
        match self {
            #[cfg(all(feature = "openssl", not(any(windows, target_vendor = "apple"))))]
            Engine::OpenSsl => Ok(Box::new(openssl::OpenSsl::new(settings)?)),
            #[cfg(feature = "native-tls")]
            Engine::Native => Ok(Box::new(native::Native::new(settings)?)),
            #[cfg(feature = "rustls")]
            Engine::Rustls => Ok(Box::new(rustls::Rustls::new(settings)?)),
            #[allow(unreachable_patterns, reason = "which engines are left depends on the features")]
            other => {
                let feature = match other {
                    Engine::Native => "native-tls",
                    Engine::OpenSsl => "openssl",
                    Engine::Rustls => "rustls",
                };
                Err(Error::unsupported(format!("engine {other:?} was not built: it needs the feature \"{feature}\"")))
            }
        }
    }

    /// The error for an option this engine cannot honour.
    pub(crate) fn cannot(self, option: &str) -> Error {
        Error::unsupported(format!("engine {self:?} cannot honour {option}"))
    }
}

/// The channel binding `tls-server-end-point` of a certificate, with whichever functions there are.
fn end_point(certificate: &[u8]) -> Option<Vec<u8>> {
    digest(EndPointHash::of(certificate)?, certificate)
}

#[cfg(any(feature = "rustls", feature = "x509"))]
fn digest(hash: EndPointHash, data: &[u8]) -> Option<Vec<u8>> {
    use sha2::{Digest, Sha256, Sha384, Sha512};
    Some(match hash {
        EndPointHash::Sha256 => Sha256::digest(data).to_vec(),
        EndPointHash::Sha384 => Sha384::digest(data).to_vec(),
        EndPointHash::Sha512 => Sha512::digest(data).to_vec(),
    })
}

#[cfg(all(
    feature = "openssl",
    not(any(windows, target_vendor = "apple")),
    not(any(feature = "rustls", feature = "x509"))
))]
fn digest(hash: EndPointHash, data: &[u8]) -> Option<Vec<u8>> {
    use ::openssl::hash::MessageDigest;
    let function = match hash {
        EndPointHash::Sha256 => MessageDigest::sha256(),
        EndPointHash::Sha384 => MessageDigest::sha384(),
        EndPointHash::Sha512 => MessageDigest::sha512(),
    };
    ::openssl::hash::hash(function, data).ok().map(|hash| hash.to_vec())
}

/// native-tls has none to give.
#[cfg(not(any(
    feature = "rustls",
    feature = "x509",
    all(feature = "openssl", not(any(windows, target_vendor = "apple")))
)))]
fn digest(_: EndPointHash, _: &[u8]) -> Option<Vec<u8>> {
    None
}

/// A TLS library with the settings of one context. Opens sessions; each call is cheap.
pub(crate) trait Library: Send + Sync {
    /// A session in this role. `server_name`: whom a client expects, already checked for form. `resume`: what a client is to
    /// offer, of a session of this library's.
    fn open(
        &self,
        role: Role,
        server_name: &str,
        versions: Bounds,
        resume: Option<&Resumable>,
    ) -> Result<Box<dyn Session>, Error>;

    /// What `Session::kept` has given, for `open`. `None`: the library can't.
    fn resumable_from(&self, _kept: &[u8]) -> Option<Result<Resumable, Error>> {
        None
    }
}

/// What others may resume of one client's connection, as it is when they do: of a type of the library's own.
pub(crate) type Resumable = Arc<dyn Any + Send + Sync>;

/// What a user has set a library up with by the library's own means, for one context.
pub(crate) trait Foreign {
    const ENGINE: Engine;
    fn into_library(self) -> Box<dyn Library>;
}

/// Why an operation of a session did not happen.
pub(crate) enum Stop {
    /// It takes more bytes from the peer.
    NeedsInput,
    /// The session is over; an alert may have been put on the wire.
    Failed(Error),
}

/// One TLS connection in a library, without I/O: its "socket" is the [`Wire`] passed to each call; in a box, so that it can
/// be lent to the library by a change of pointers.
///
/// The wire never ends and never refuses bytes, so a session never sees a half-done write, nor an end of file that it
/// could take for a close_notify.
pub(crate) trait Session: Send {
    /// Goes on with the handshake. `Ok` when it is done, then and ever after.
    fn handshake(&mut self, wire: &mut Wire) -> Result<(), Stop>;
    /// Decrypts into `buf`, at most one record. `Ok(0)`: the peer's close_notify.
    fn read(&mut self, wire: &mut Wire, buf: &mut [u8]) -> Result<usize, Stop>;
    /// Encrypts from `data`; says how much.
    fn write(&mut self, wire: &mut Wire, data: &[u8]) -> Result<usize, Stop>;
    /// Puts our close_notify on the wire.
    fn close(&mut self, wire: &mut Wire) -> Result<(), Stop>;
    /// For others of the same library to resume. `None` on a server, and where the library can't.
    fn resumable(&mut self, _wire: &mut Wire) -> Option<Resumable> {
        None
    }
    /// The same as bytes, for any process. `None` where there is none yet, too.
    fn kept(&self) -> Option<Vec<u8>> {
        None
    }
    /// Bytes of the current record that are decrypted and not yet read.
    fn pending(&self) -> usize;

    fn version(&self) -> Option<Version> {
        None
    }
    fn cipher(&self) -> Option<String> {
        None
    }
    fn alpn(&self) -> Option<Vec<u8>>;
    /// The name the client asked for (SNI), on a server.
    fn server_name(&self) -> Option<String> {
        None
    }
    fn peer_certificate(&self) -> Option<Certificate>;
    /// Leaf first.
    fn peer_certificates(&self) -> Option<Vec<Certificate>> {
        None
    }
    /// From the peer's own certificate to the root it was trusted for.
    fn verified_chain(&self) -> Option<Vec<Certificate>> {
        None
    }
    /// The group of the key exchange, by its name in the registry of IANA.
    fn group(&self) -> Option<String> {
        None
    }
    fn ocsp_response(&self) -> Option<Vec<u8>> {
        None
    }
    fn is_resumed(&self) -> Option<bool> {
        None
    }
    /// Below TLS 1.3: whether keys are bound to the handshake that made them (RFC 7627).
    fn has_extended_master_secret(&self) -> Option<bool> {
        None
    }
    fn tls_server_end_point(&self) -> Option<Vec<u8>>;
    fn export_keying_material(&self, out: &mut [u8], label: &str, context: Option<&[u8]>) -> Result<(), Error>;
}
