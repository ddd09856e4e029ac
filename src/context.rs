use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::certificate::Certificate;
use crate::engine::{Engine, Library, Session};
use crate::error::Error;
use crate::identity::Identity;
use crate::settings::{ClientAuth, Role, Settings};
use crate::version::{Bounds, Version};

/// TLS settings shared by any number of connections, on any threads. Cheap to clone.
///
/// Building one is not cheap where the system's root certificates are loaded (tens of milliseconds): make one and keep
/// it.
///
/// ```
/// use sslfile::{Context, Version};
/// # fn main() -> std::io::Result<()> {
/// let context = Context::builder().min_version(Version::Tls1_3).alpn(["h2", "http/1.1"]).system_roots(false).build();
/// # drop(context);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Context {
    inner: Arc<Inner>,
}

struct Inner {
    engine: Engine,
    settings: Settings,
    library: Box<dyn Library>,
}

impl Context {
    /// A builder with the defaults: the default engine, system roots, TLS 1.2 up, SNI and verification on.
    pub fn builder() -> ContextBuilder {
        ContextBuilder { engine: None, settings: Settings::default() }
    }

    /// System roots, TLS 1.2 up, SNI and verification on; one per process, made at the first call.
    ///
    /// Errors: those of [`ContextBuilder::build`]. A failure is not remembered.
    pub fn client() -> io::Result<Context> {
        static CLIENT: Mutex<Option<Context>> = Mutex::new(None);
        let mut client = CLIENT.lock();
        if let Some(context) = &*client {
            return Ok(context.clone());
        }
        let context = Context::builder().build()?;
        Ok(client.insert(context).clone())
    }

    /// A server's context with this identity and the defaults.
    ///
    /// Errors: those of [`ContextBuilder::build`].
    pub fn server(identity: Identity) -> io::Result<Context> {
        Context::builder().identity(identity).build()
    }

    /// The library that does the cryptography.
    pub fn engine(&self) -> Engine {
        self.inner.engine
    }

    pub(crate) fn open(&self, role: Role, server_name: &str, versions: Bounds) -> Result<Box<dyn Session>, Error> {
        let all = versions.or(self.inner.settings.versions);
        if all.are_empty() {
            return Err(no_version(all));
        }
        self.inner.library.open(role, server_name, versions)
    }

    pub(crate) fn lenient_eof(&self) -> bool {
        self.inner.settings.lenient_eof
    }
}

// Nothing in it changes while a user's code runs.
impl std::panic::UnwindSafe for Context {}
impl std::panic::RefUnwindSafe for Context {}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let settings = &self.inner.settings;
        f.debug_struct("Context")
            .field("engine", &self.inner.engine)
            .field("identity", &settings.identity)
            .field("versions", &settings.versions)
            .finish_non_exhaustive()
    }
}

/// Collects settings for a [`Context`].
///
/// An option that the engine cannot honour is never ignored: [`build`](ContextBuilder::build) fails with
/// `ErrorKind::Unsupported`, or, where the engine can in one role only, opening a file in the other does.
#[derive(Clone, Debug)]
pub struct ContextBuilder {
    engine: Option<Engine>,
    settings: Settings,
}

impl ContextBuilder {
    /// The TLS library. Without this call: the first of [`Engine::available`].
    pub fn engine(mut self, engine: Engine) -> Self {
        self.engine = Some(engine);
        self
    }

    /// The certificate chain and key to show: a server must have one, a client shows it when asked.
    pub fn identity(mut self, identity: Identity) -> Self {
        self.settings.identity = Some(identity);
        self
    }

    /// Trusts certificates issued by `root`, or `root` itself. May be called several times. With [`Engine::Native`] on
    /// OpenSSL a root must be self-signed.
    pub fn add_root(mut self, root: Certificate) -> Self {
        self.settings.roots.push(root);
        self
    }

    /// Whether to trust the system's roots. Default: clients do; a server with [`client_auth`](Self::client_auth) does
    /// not, and takes certificates issued by those of [`add_root`](Self::add_root) only.
    pub fn system_roots(mut self, yes: bool) -> Self {
        self.settings.system_roots = Some(yes);
        self
    }

    /// The lowest version to speak. Default: TLS 1.2 (RFC 8996).
    ///
    /// Below that, OpenSSL 3 needs its security level 0, which is then set, and which admits weak keys and hashes on
    /// the other versions too.
    pub fn min_version(mut self, version: Version) -> Self {
        self.settings.versions.min = Some(version);
        self
    }

    /// The highest version to speak. Default: the highest the library has.
    pub fn max_version(mut self, version: Version) -> Self {
        self.settings.versions.max = Some(version);
        self
    }

    /// Protocols for ALPN (RFC 7301), best first, each of 1 to 255 bytes. The server's order decides; where the lists
    /// have nothing in common the handshake fails (with [`Engine::Native`]'s servers: no protocol is agreed).
    pub fn alpn<I>(mut self, protocols: I) -> Self
    where
        I: IntoIterator,
        I::Item: AsRef<[u8]>,
    {
        self.settings.alpn = protocols.into_iter().map(|p| p.as_ref().to_vec()).collect();
        self
    }

    /// Whether a client names the server in its first message (RFC 6066, section 3). Default: yes, unless the name is
    /// an IP address.
    pub fn sni(mut self, yes: bool) -> Self {
        self.settings.sni = yes;
        self
    }

    /// Whether a server asks its clients for a certificate; who may issue it is said with
    /// [`add_root`](Self::add_root). Default: it does not ask.
    pub fn client_auth(mut self, policy: ClientAuth) -> Self {
        self.settings.client_auth = policy;
        self
    }

    /// The cipher suites up to TLS 1.2, in OpenSSL's syntax.
    pub fn cipher_list(mut self, list: &str) -> Self {
        self.settings.cipher_list = Some(list.to_string());
        self
    }

    /// The cipher suites of TLS 1.3, separated by colons.
    pub fn ciphersuites(mut self, list: &str) -> Self {
        self.settings.ciphersuites = Some(list.to_string());
        self
    }

    /// Whether clients keep and offer sessions, and servers take them. Default: as the engine does by itself; clients
    /// with an identity do not.
    pub fn session_resumption(mut self, yes: bool) -> Self {
        self.settings.session_resumption = Some(yes);
        self
    }

    /// Appends the secrets of each connection to this file, in the NSS key log format, for Wireshark. Whoever reads the
    /// file can read the connections.
    pub fn key_log_file(mut self, path: impl AsRef<Path>) -> Self {
        self.settings.key_log_file = Some(path.as_ref().to_path_buf());
        self
    }

    /// Take a bare end of stream, between records, for a clean end. For peers that never say close_notify; whoever can
    /// cut the connection can then end your data early unseen.
    pub fn lenient_eof(mut self, yes: bool) -> Self {
        self.settings.lenient_eof = yes;
        self
    }

    /// Accept a good certificate whatever name it is for: anybody who has a certificate can pose as the server.
    pub fn danger_accept_invalid_hostnames(mut self, yes: bool) -> Self {
        self.settings.accept_invalid_hostnames = yes;
        self
    }

    /// Accept any certificate at all: anybody can pose as the peer.
    pub fn danger_accept_invalid_certs(mut self, yes: bool) -> Self {
        self.settings.accept_invalid_certs = yes;
        self
    }

    /// Makes the context. Blocks while the system's root certificates are loaded.
    ///
    /// Errors: `Unsupported` if the engine was not built or can't honour an option, which the text names;
    /// `InvalidInput` for values that can't be right (a minimum above the maximum, a cipher list that selects nothing,
    /// a key that does not fit its certificate); the system's error if the key log can't be opened.
    pub fn build(self) -> io::Result<Context> {
        Ok(self.try_build()?)
    }

    fn try_build(self) -> Result<Context, Error> {
        let ContextBuilder { engine, settings } = self;
        if let Some(bad) = settings.alpn.iter().find(|p| p.is_empty() || p.len() > 255) {
            return Err(Error::invalid_input(format!("ALPN protocols have 1 to 255 bytes, not {}", bad.len())));
        }
        if settings.versions.are_empty() {
            return Err(no_version(settings.versions));
        }
        let engine = match engine.or_else(|| Engine::available().first().copied()) {
            Some(engine) => engine,
            None => return Err(Error::unsupported("no engine was built")),
        };
        let library = engine.build(&settings)?;
        Ok(Context { inner: Arc::new(Inner { engine, settings, library }) })
    }
}

fn no_version(versions: Bounds) -> Error {
    let text = match versions.max {
        Some(max) => format!("no version is left: the minimum is {}, the maximum {max}", versions.lowest()),
        None => "no version is left".to_string(),
    };
    Error::invalid_input(text)
}
