use std::path::PathBuf;

use crate::certificate::Certificate;
use crate::identity::Identity;
use crate::version::Bounds;

/// Which end of the handshake a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// The end that speaks first.
    Client,
    /// The end that must have an [`Identity`].
    Server,
}

/// Whether a server asks its clients for a certificate (RFC 8446, section 4.3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ClientAuth {
    /// It does not.
    None,
    /// It asks; a client without one is welcome, one with a bad one is not.
    Request,
    /// It asks, and refuses a client without an acceptable one.
    Require,
}

/// What a `ContextBuilder` has been told, for the engine to honour or to refuse.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub identity: Option<Identity>,
    pub roots: Vec<Certificate>,
    /// Unless said, clients trust them, and servers do not take them for issuers of their clients' certificates.
    pub system_roots: Option<bool>,
    pub versions: Bounds,
    pub alpn: Vec<Vec<u8>>,
    pub sni: bool,
    pub client_auth: ClientAuth,
    pub cipher_list: Option<String>,
    pub ciphersuites: Option<String>,
    pub session_resumption: Option<bool>,
    pub key_log_file: Option<PathBuf>,
    pub lenient_eof: bool,
    pub accept_invalid_hostnames: bool,
    pub accept_invalid_certs: bool,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            identity: None,
            roots: Vec::new(),
            system_roots: None,
            versions: Bounds::default(),
            alpn: Vec::new(),
            sni: true,
            client_auth: ClientAuth::None,
            cipher_list: None,
            ciphersuites: None,
            session_resumption: None,
            key_log_file: None,
            lenient_eof: false,
            accept_invalid_hostnames: false,
            accept_invalid_certs: false,
        }
    }
}
