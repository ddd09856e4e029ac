use std::fmt;
use std::ops::Deref;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::alert::Alert;
use crate::certificate::Certificate;
use crate::identity::Identity;
use crate::revocation::RevocationList;
use crate::role::Role;
use crate::version::{Bounds, Version};

/// Whether a server asks its clients for a certificate (RFC 8446, section 4.3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ClientAuth {
    /// It does not.
    None,
    /// It asks; a client without one is welcome, one with a bad one is not.
    Request,
    /// It asks, and refuses a client without an acceptable one.
    Require,
}

/// What a client asks for and offers in its first message, for
/// [`ContextBuilder::choose_identity`](crate::ContextBuilder::choose_identity).
///
/// With it a server can prove to an ACME authority that a name is its own (`tls-alpn-01`, RFC 8737): whoever asks for that
/// protocol is shown the certificate with the answer, and everybody else the usual one.
///
/// ```
/// use std::collections::HashMap;
/// use std::io;
/// use std::sync::{Arc, Mutex};
///
/// use sslfile::{Context, Identity};
///
/// /// By name: certificates that an ACME client has made, with the extension acmeIdentifier.
/// type Challenges = Arc<Mutex<HashMap<String, Identity>>>;
///
/// fn server(usual: Identity, challenges: Challenges) -> io::Result<Context> {
///     Context::builder()
///         // The authority's client offers nothing else, so that it may stand last.
///         .alpn(["http/1.1", "acme-tls/1"])
///         .identity(usual)
///         .choose_identity(move |hello| {
///             let is_challenge = hello.alpn().any(|protocol| protocol == b"acme-tls/1");
///             let name = hello.server_name().filter(|_| is_challenge)?;
///             challenges.lock().ok()?.get(name).cloned()
///         })
///         .build()
/// }
/// ```
///
/// A connection with [`alpn`](crate::SslFile::alpn) `acme-tls/1` has served its purpose with the handshake: close it.
#[derive(Clone, Copy, Debug)]
pub struct ClientHello<'a> {
    pub(crate) server_name: Option<&'a str>,
    pub(crate) offer: &'a Offer,
}

/// What a client says it can. Read only if somebody asks.
#[derive(Debug, Default)]
pub(crate) struct Offer {
    pub alpn: Vec<Vec<u8>>,
    /// `None` if the library does not tell.
    pub versions: Option<Vec<Version>>,
    pub cipher_suites: Vec<u16>,
}

impl<'a> ClientHello<'a> {
    /// The name the client wants to speak with (SNI, RFC 6066, section 3), if it gave one.
    pub fn server_name(&self) -> Option<&'a str> {
        self.server_name
    }

    /// The protocols the client offers (ALPN, RFC 7301, section 3.1), in its order; none if it does not take part.
    pub fn alpn(&self) -> impl Iterator<Item = &'a [u8]> {
        self.offer.alpn.iter().map(Vec::as_slice)
    }

    /// The versions the client offers, in its order; of one that lists none (RFC 8446, section 4.2.1), and so has no TLS 1.3, the
    /// highest. `None` with [`Engine::Rustls`](crate::Engine::Rustls), which does not tell.
    pub fn versions(&self) -> Option<&'a [Version]> {
        self.offer.versions.as_deref()
    }

    /// The cipher suites the client offers, by their numbers in the registry of IANA, as they were sent: in its order, with those
    /// that are none (RFC 5746, RFC 8701).
    pub fn cipher_suites(&self) -> &'a [u16] {
        &self.offer.cipher_suites
    }
}

/// The certificates a peer has shown, for [`ContextBuilder::verify`](crate::ContextBuilder).
#[derive(Clone, Copy, Debug)]
pub struct PeerCertificates<'a> {
    pub(crate) chain: &'a [Certificate],
    pub(crate) server_name: Option<&'a str>,
}

impl<'a> PeerCertificates<'a> {
    /// The peer's own certificate.
    pub fn leaf(&self) -> &'a Certificate {
        &self.chain[0]
    }

    /// All it sent, its own first. Beyond the first they are just what the peer sent, and may have nothing to do with it. On
    /// servers of [`Engine::OpenSsl`](crate::Engine::OpenSsl) it is the chain that was verified, up to the root.
    pub fn chain(&self) -> &'a [Certificate] {
        self.chain
    }

    /// On a client the name it expects; `None` on a server.
    pub fn server_name(&self) -> Option<&'a str> {
        self.server_name
    }
}

/// A closure among the settings.
pub(crate) struct Hook<F: ?Sized>(pub Arc<F>);

pub(crate) type KeyLog = Hook<dyn Fn(&str) + Send + Sync>;
pub(crate) type ChooseIdentity = Hook<dyn Fn(&ClientHello<'_>) -> Option<Identity> + Send + Sync>;
pub(crate) type Verify = Hook<dyn Fn(&PeerCertificates<'_>) -> Result<(), String> + Send + Sync>;
pub(crate) type OnAlert = Hook<dyn Fn(&Alert) + Send + Sync>;

impl<F: ?Sized> Clone for Hook<F> {
    fn clone(&self) -> Self {
        Hook(self.0.clone())
    }
}

impl<F: ?Sized> Deref for Hook<F> {
    type Target = F;

    fn deref(&self) -> &F {
        &self.0
    }
}

#[allow(dead_code, reason = "with native-tls alone there is nobody to ask")]
impl<F: ?Sized> Hook<F> {
    /// What the closure says; `None` if it panics, which must not go through the library that calls: C knows no panics.
    pub fn ask<T>(&self, ask: impl FnOnce(&F) -> T) -> Option<T> {
        catch_unwind(AssertUnwindSafe(|| ask(self))).ok()
    }
}

#[allow(dead_code, reason = "with native-tls alone it is refused")]
impl Verify {
    /// One that panics refuses the peer.
    pub fn verdict(&self, peer: &PeerCertificates<'_>) -> Result<(), String> {
        self.ask(|verify| verify(peer)).unwrap_or_else(|| Err("the closure that verifies has panicked".to_string()))
    }
}

impl<F: ?Sized> fmt::Debug for Hook<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a closure")
    }
}

/// What a `ContextBuilder` has been told, for the engine to honour or to refuse.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub identity: Option<Identity>,
    /// For servers, by the name the client asks for: in lower case, perhaps with "*" for its first label.
    pub named_identities: Vec<(String, Identity)>,
    pub choose_identity: Option<ChooseIdentity>,
    pub roots: Vec<Certificate>,
    /// Unless said, clients trust them, and servers do not take them for issuers of their clients' certificates.
    pub system_roots: Option<bool>,
    /// Of what is listed in any of them, nothing is accepted.
    pub crls: Vec<RevocationList>,
    pub versions: Bounds,
    pub alpn: Vec<Vec<u8>>,
    pub sni: bool,
    pub client_auth: ClientAuth,
    pub post_handshake_auth: bool,
    pub cipher_list: Option<String>,
    pub ciphersuites: Option<String>,
    pub groups: Option<String>,
    pub signature_algorithms: Option<String>,
    /// Unless said, the server's order decides.
    pub prefer_server_order: Option<bool>,
    pub session_resumption: Option<bool>,
    pub session_lifetime: Option<Duration>,
    pub session_cache_size: Option<usize>,
    pub tickets: Option<usize>,
    pub key_log_file: Option<PathBuf>,
    pub key_log: Option<KeyLog>,
    /// SHA-256 of public keys, one of which must be in the peer's chain.
    pub pins: Vec<[u8; 32]>,
    pub verify: Option<Verify>,
    pub ocsp_stapling: bool,
    pub max_fragment_size: Option<usize>,
    pub on_alert: Option<OnAlert>,
    pub lenient_eof: bool,
    pub accept_common_names: bool,
    pub accept_invalid_hostnames: bool,
    pub accept_invalid_certs: bool,
}

#[allow(dead_code, reason = "with native-tls alone it is refused")]
impl Settings {
    /// Whether servers can be opened: there is a certificate to show.
    pub fn can_serve(&self) -> bool {
        self.identity.is_some() || self.has_choice()
    }

    /// Whether a server's certificate depends on the client.
    pub fn has_choice(&self) -> bool {
        !self.named_identities.is_empty() || self.choose_identity.is_some()
    }

    /// Whether more is asked of a peer's certificate than what libraries check.
    pub fn judges_peers(&self) -> bool {
        !self.pins.is_empty() || self.verify.is_some() || !self.crls.is_empty()
    }

    /// Whether a peer must be who it should be, or a client anybody in particular.
    pub fn checks_peers(&self, role: Role) -> bool {
        match role {
            Role::Client => !self.accept_invalid_certs || self.judges_peers(),
            Role::Server => self.client_auth != ClientAuth::None,
        }
    }

    /// Whether clients keep and offer sessions. A session proves who the client is: with a client certificate it is only
    /// used when asked for.
    pub fn client_resumes(&self) -> bool {
        self.session_resumption.unwrap_or(self.identity.is_none())
    }

    /// What a server shows to a client that asks for this name, and offers this.
    pub fn identity_for(&self, server_name: Option<&str>, offer: &Offer) -> Option<Identity> {
        let chosen = match &self.choose_identity {
            // One that panics refuses the client.
            Some(choose) => choose.ask(|choose| choose(&ClientHello { server_name, offer }))?,
            None => None,
        };
        let named = || {
            let name = server_name?.to_ascii_lowercase();
            let find = |wanted: &str| self.named_identities.iter().find(|(name, _)| name == wanted);
            let (_, parent) = name.split_once('.').unwrap_or_default();
            find(&name).or_else(|| find(&format!("*.{parent}"))).map(|(_, identity)| identity.clone())
        };
        chosen.or_else(named).or_else(|| self.identity.clone())
    }
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            identity: None,
            named_identities: Vec::new(),
            choose_identity: None,
            roots: Vec::new(),
            system_roots: None,
            crls: Vec::new(),
            versions: Bounds::default(),
            alpn: Vec::new(),
            sni: true,
            client_auth: ClientAuth::None,
            post_handshake_auth: false,
            cipher_list: None,
            ciphersuites: None,
            groups: None,
            signature_algorithms: None,
            prefer_server_order: None,
            session_resumption: None,
            session_lifetime: None,
            session_cache_size: None,
            tickets: None,
            key_log_file: None,
            key_log: None,
            pins: Vec::new(),
            verify: None,
            ocsp_stapling: false,
            max_fragment_size: None,
            on_alert: None,
            lenient_eof: false,
            accept_common_names: false,
            accept_invalid_hostnames: false,
            accept_invalid_certs: false,
        }
    }
}
