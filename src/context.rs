mod foreign;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use zeroize::Zeroizing;

use crate::alert::Alert;
use crate::certificate::{self, Certificate};
use crate::engine::{Engine, Foreign, Library, Resumable, Session};
use crate::error::Error;
use crate::identity::Identity;
use crate::revocation;
use crate::role::Role;
use crate::settings::{ClientAuth, ClientHello, Hook, OnAlert, PeerCertificates, Settings};
use crate::version::{Bounds, Version};

/// TLS settings shared by any number of connections, on any threads. Cheap to clone.
///
/// Building one is not cheap where the system's root certificates are loaded (tens of milliseconds): make one and keep
/// it. One that was set up with a TLS library itself becomes a `Context` with [`From`]; what holds then stands at each of
/// these.
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
    broken_roots: usize,
}

/// As it was set.
static DEFAULT: Mutex<Option<Context>> = Mutex::new(None);

impl Context {
    /// A builder with the defaults: the default engine, system roots, TLS 1.2 up, SNI and verification on.
    pub fn builder() -> ContextBuilder {
        ContextBuilder { engine: None, settings: Settings::default(), root_paths: Vec::new(), bad_list: None }
    }

    /// System roots, TLS 1.2 up, SNI and verification on; one per process, made at the first call. It stays what it is when
    /// there is another [default](Context::set_default).
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

    /// What [`SslFile::connect`](crate::SslFile::connect) and its like use from now on, in the whole process, in place of
    /// [`client`](Context::client): for programs that change a `use`, and need a root or a setting of their own.
    ///
    /// Errors: `InvalidInput` for a context that only serves; those of opening a client.
    pub fn set_default(context: &Context) -> io::Result<()> {
        context.open(Role::Client, "localhost", Bounds::default(), None)?;
        *DEFAULT.lock() = Some(context.clone());
        Ok(())
    }

    pub(crate) fn default_client() -> io::Result<Context> {
        let default = DEFAULT.lock().clone();
        default.map_or_else(Context::client, Ok)
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

    /// How many certificates of [`ContextBuilder::add_roots_from`] could not be read, and are not trusted.
    pub fn broken_roots(&self) -> usize {
        self.inner.broken_roots
    }

    fn foreign<F: Foreign>(made: F) -> Context {
        let (engine, library) = (F::ENGINE, made.into_library());
        Context { inner: Arc::new(Inner { engine, settings: Settings::default(), library, broken_roots: 0 }) }
    }

    pub(crate) fn open(
        &self,
        role: Role,
        server_name: &str,
        versions: Bounds,
        resume: Option<&Resume>,
    ) -> Result<Box<dyn Session>, Error> {
        let all = versions.or(self.inner.settings.versions);
        if all.are_empty() {
            return Err(no_version(all));
        }
        let resume = resume.map(|resume| resume.check(self, role)).transpose()?;
        self.inner.library.open(role, server_name, versions, resume.as_ref())
    }

    pub(crate) fn lenient_eof(&self) -> bool {
        self.inner.settings.lenient_eof
    }

    pub(crate) fn on_alert(&self) -> Option<OnAlert> {
        self.inner.settings.on_alert.clone()
    }

    /// The most plaintext that one record may hold, if that was said.
    pub(crate) fn max_fragment_size(&self) -> Option<usize> {
        self.inner.settings.max_fragment_size
    }
}

/// A session to resume.
#[derive(Clone)]
pub(crate) enum Resume {
    /// One connection's, as it is when it is resumed. `None`: the engine has none to give.
    Of { context: Context, role: Role, session: Option<Resumable> },
    /// One that was kept as bytes.
    Kept(Zeroizing<Vec<u8>>),
}

// A user's code neither runs in it nor sees it.
impl std::panic::UnwindSafe for Resume {}
impl std::panic::RefUnwindSafe for Resume {}

impl fmt::Debug for Resume {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Resume")
    }
}

impl Resume {
    /// The session, for a connection in this role.
    fn check(&self, context: &Context, role: Role) -> Result<Resumable, Error> {
        let is_client = role == Role::Client && matches!(self, Resume::Kept(_) | Resume::Of { role: Role::Client, .. });
        if !is_client {
            return Err(Error::invalid_input("resume is for clients, with the session of a client"));
        }
        match self {
            Resume::Of { context: other, .. } if !Arc::ptr_eq(&other.inner, &context.inner) => {
                Err(Error::invalid_input("resume takes a connection of the same context"))
            }
            Resume::Of { session, .. } => session.clone().ok_or_else(|| context.engine().cannot("resume")),
            Resume::Kept(kept) => {
                let session = context.inner.library.resumable_from(kept);
                session.unwrap_or_else(|| Err(context.engine().cannot("session")))
            }
        }
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
    root_paths: Vec<PathBuf>,
    /// What is wrong with the first of the lists that are none.
    bad_list: Option<Error>,
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

    /// Another certificate and key for servers, for clients that ask for `name` (SNI, in any case of letters; "*" may stand
    /// for the first label). Where no name fits, the one of [`identity`](Self::identity) is shown, and without one the
    /// client is refused. May be called several times; the first that fits counts, exact names before "*".
    pub fn add_identity(mut self, name: &str, identity: Identity) -> Self {
        self.settings.named_identities.push((name.to_ascii_lowercase(), identity));
        self
    }

    /// Asked on a server, in each handshake, which certificate to show to this client, by its name and by what it
    /// [offers](ClientHello); `None` leaves the choice to
    /// [`add_identity`](Self::add_identity) and [`identity`](Self::identity). Called in the thread that shakes hands,
    /// which waits for it; must not use the file in question. A panic in it refuses the client.
    pub fn choose_identity(mut self, f: impl Fn(&ClientHello<'_>) -> Option<Identity> + Send + Sync + 'static) -> Self {
        self.settings.choose_identity = Some(Hook(Arc::new(f)));
        self
    }

    /// Trusts certificates issued by `root`, or `root` itself: a peer's own certificate needs no issuer if it was given here, and
    /// may be that of an authority, as what `openssl req -x509` makes is; its names, dates and uses count as any other's. May be
    /// called several times. With [`Engine::Native`] on OpenSSL a root must be self-signed. With [`Engine::Rustls`] a root that has
    /// expired still counts for what it has issued.
    pub fn add_root(mut self, root: Certificate) -> Self {
        self.settings.roots.push(root);
        self
    }

    /// As [`add_root`](Self::add_root), with each certificate in this file (PEM, or one in DER), or in the files of this
    /// directory. What is no certificate, though it says so, or says that
    /// it is not to be trusted, is counted ([`Context::broken_roots`]) and passed over. Read
    /// by [`build`](Self::build).
    pub fn add_roots_from(mut self, path: impl AsRef<Path>) -> Self {
        self.root_paths.push(path.as_ref().to_path_buf());
        self
    }

    /// Whether to trust the system's roots. Default: clients do; a server with [`client_auth`](Self::client_auth) does
    /// not, and takes certificates issued by those of [`add_root`](Self::add_root) only.
    pub fn system_roots(mut self, yes: bool) -> Self {
        self.settings.system_roots = Some(yes);
        self
    }

    /// Revocation lists (RFC 5280, section 5), PEM or DER, one or several, for both roles: a peer is refused with the alert
    /// certificate_revoked and [`ErrorKind::Certificate`](crate::ErrorKind::Certificate) if one of them lists its certificate, or
    /// another one in the chain that was verified, but for the root. What an issuer without a list here has issued passes. May be
    /// called several times; all lists count.
    ///
    /// A list counts for the issuer whose name it has and who signed it; if none of those with its name is signed by it, or can be
    /// checked, what it has issued is refused. How old a list is does not matter: past its date (nextUpdate) it counts as it
    /// stands, on every engine, so that nothing ends at a date by itself, and what was revoked stays so. To heed a new list make
    /// a new context. Sessions that are resumed are not checked again ([`session_resumption`](Self::session_resumption)).
    ///
    /// ```no_run
    /// use sslfile::{ClientAuth, Context, Identity};
    /// # fn main() -> std::io::Result<()> {
    /// let context = Context::builder()
    ///     .identity(Identity::from_pem_files("chain.pem", "key.pem")?)
    ///     .add_roots_from("our-ca.pem")
    ///     .add_crls(&std::fs::read("our-ca.crl")?)
    ///     .client_auth(ClientAuth::Require)
    ///     .build()?;
    /// # drop(context);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// [`build`](Self::build) fails with `InvalidInput`, and says where and why, for what is no list, for delta and indirect lists, and
    /// with [`Engine::Rustls`] for lists of version 1 or without nextUpdate. [`Engine::Native`] has none (`Unsupported`).
    pub fn add_crls(mut self, lists: &[u8]) -> Self {
        match revocation::lists(lists, "add_crls") {
            Ok(lists) => self.settings.crls.extend(lists),
            Err(e) => drop(self.bad_list.get_or_insert(e)),
        }
        self
    }

    /// The lowest version to speak. Default: TLS 1.2 (RFC 8996).
    ///
    /// Below that, OpenSSL 3 needs its security level 0, which is then set, and which admits weak keys and hashes on
    /// the other versions too. With [`Engine::Rustls`] it is `Unsupported`.
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

    /// Whether clients say that they may be asked for their certificate after the handshake (RFC 8446, section 4.6.2), and then
    /// show that of [`identity`](Self::identity), or none: for servers that ask depending on what is asked of them, as Apache
    /// does where `SSLVerifyClient` stands in a `<Location>`. In TLS 1.3 only; before it they renegotiate for this, which is
    /// refused. The answer goes out when the request is read, by whichever call reads. Default: no. [`Engine::OpenSsl`] only.
    ///
    /// ```no_run
    /// use sslfile::{Context, Engine, Identity};
    /// # fn main() -> std::io::Result<()> {
    /// let identity = Identity::from_pem_files("me.pem", "me.key")?;
    /// let client = Context::builder().engine(Engine::OpenSsl).identity(identity).post_handshake_auth(true).build()?;
    /// # drop(client);
    /// # Ok(())
    /// # }
    /// ```
    pub fn post_handshake_auth(mut self, yes: bool) -> Self {
        self.settings.post_handshake_auth = yes;
        self
    }

    /// The cipher suites up to TLS 1.2, in OpenSSL's syntax, best first. With [`Engine::Rustls`] a plain list of names.
    ///
    /// Suites without certificates, which OpenSSL's `ALL` has in it, are left out where the peer's is to be checked.
    pub fn cipher_list(mut self, list: &str) -> Self {
        self.settings.cipher_list = Some(list.to_string());
        self
    }

    /// The cipher suites of TLS 1.3, separated by colons.
    pub fn ciphersuites(mut self, list: &str) -> Self {
        self.settings.ciphersuites = Some(list.to_string());
        self
    }

    /// The groups for the key exchange, best first, separated by colons, by their names in the registry of IANA, or in OpenSSL,
    /// in any case of letters: "x25519:secp256r1", "X25519MLKEM768:X25519:P-256". Default: the library's, which has
    /// X25519MLKEM768 first if it has that.
    pub fn groups(mut self, list: &str) -> Self {
        self.settings.groups = Some(list.to_string());
        self
    }

    /// The signature algorithms to use and to accept, best first, separated by colons, by their names in TLS 1.3:
    /// "ecdsa_secp256r1_sha256:rsa_pss_rsae_sha256". Default: the library's.
    pub fn signature_algorithms(mut self, list: &str) -> Self {
        self.settings.signature_algorithms = Some(list.to_string());
        self
    }

    /// Whether a server's order of cipher suites decides, or its client's. Default: the server's.
    pub fn prefer_server_order(mut self, yes: bool) -> Self {
        self.settings.prefer_server_order = Some(yes);
        self
    }

    /// Whether clients keep and offer sessions, and servers take them. Default: as the engine does by itself; clients
    /// with an identity do not.
    pub fn session_resumption(mut self, yes: bool) -> Self {
        self.settings.session_resumption = Some(yes);
        self
    }

    /// How long a session may be resumed after it was made. Default: as long as the server said, or the library. With
    /// [`Engine::OpenSsl`] for clients only: the `openssl` crate cannot set it for servers, and opening one is `Unsupported`.
    pub fn session_lifetime(mut self, time: Duration) -> Self {
        self.settings.session_lifetime = Some(time);
        self
    }

    /// How many sessions are kept: by clients, for how many servers (default 256); by servers, for how many clients whose
    /// session they remember themselves (default: the library's; with [`Engine::Rustls`] a million at most).
    pub fn session_cache_size(mut self, sessions: usize) -> Self {
        self.settings.session_cache_size = Some(sessions);
        self
    }

    /// How many tickets a server gives to each client in TLS 1.3 (RFC 8446, section 4.6.1), default 2. With 0 it gives
    /// none in any version (RFC 5077), and what is resumed is what it remembers itself. At most 255 (as in RFC 9149).
    pub fn tickets(mut self, number: usize) -> Self {
        self.settings.tickets = Some(number);
        self
    }

    /// Appends the secrets of each connection to this file, in the NSS key log format, for Wireshark. Whoever reads the
    /// file can read the connections: one that is made new is its owner's alone (mode 0600) on Unix; another keeps the mode it
    /// has.
    pub fn key_log_file(mut self, path: impl AsRef<Path>) -> Self {
        self.settings.key_log_file = Some(path.as_ref().to_path_buf());
        self
    }

    /// As [`key_log_file`](Self::key_log_file), with the file that the environment variable `SSLKEYLOGFILE` names now; without
    /// it there is no key log. Never happens by itself: who can set a program's environment must not be able to have its
    /// secrets unless the program says so.
    pub fn key_log_from_env(self) -> Self {
        match std::env::var_os("SSLKEYLOGFILE") {
            Some(path) if !path.is_empty() => self.key_log_file(PathBuf::from(path)),
            _ => self,
        }
    }

    /// Called with each line of the key log, without its newline. Called in the thread that shakes hands; must not use the
    /// file in question. A panic in it goes no further.
    pub fn key_log(mut self, f: impl Fn(&str) + Send + Sync + 'static) -> Self {
        self.settings.key_log = Some(Hook(Arc::new(f)));
        self
    }

    /// Accepts a peer only if this is the SHA-256 of a public key (the SubjectPublicKeyInfo in DER, as in RFC 7469, section
    /// 2.4) in the chain that was verified: the peer's own, an intermediate's or the root's. This comes on top of the usual
    /// checks, on clients and, for the certificates that clients show, on servers; what else a peer sends along does not count.
    /// May be called several times: one of the pins must fit. With
    /// [`danger_accept_invalid_certs`](Self::danger_accept_invalid_certs) only the peer's own key counts. A peer that is
    /// refused gives [`ErrorKind::Certificate`](crate::ErrorKind::Certificate).
    ///
    /// `openssl x509 -in cert.pem -pubkey -noout | openssl pkey -pubin -outform der | openssl dgst -sha256`
    pub fn pin(mut self, sha256: [u8; 32]) -> Self {
        self.settings.pins.push(sha256);
        self
    }

    /// Asked about each peer that has shown a certificate and passed all other checks (but with [`Engine::OpenSsl`] that of name
    /// constraints, which comes last and may still refuse); an `Err` refuses it with
    /// [`ErrorKind::Certificate`](crate::ErrorKind::Certificate) and this text. Not asked when a session is resumed, whose peer has
    /// been accepted before. Called in the thread that shakes hands; must not use the file in question. A panic in it refuses
    /// the peer.
    pub fn verify(mut self, f: impl Fn(&PeerCertificates<'_>) -> Result<(), String> + Send + Sync + 'static) -> Self {
        self.settings.verify = Some(Hook(Arc::new(f)));
        self
    }

    /// Whether clients ask for a stapled OCSP response (RFC 6066, section 8), for
    /// [`SslFile::ocsp_response`](crate::SslFile::ocsp_response). It is not judged. Default: no; [`Engine::Rustls`] always asks.
    pub fn ocsp_stapling(mut self, yes: bool) -> Self {
        self.settings.ocsp_stapling = yes;
        self
    }

    /// The most plaintext bytes that a record of ours may hold, 64 to 16384 (the default). What the peer sends is not
    /// affected.
    pub fn max_fragment_size(mut self, bytes: usize) -> Self {
        self.settings.max_fragment_size = Some(bytes);
        self
    }

    /// Told of each alert that a file of this context sends or receives, close_notify included, and, on a server, of the
    /// bytes that a client without TLS sent ([`Alert::not_tls`]); such a client is then not sent the alert, so that whoever takes
    /// the stream back ([`OpenError::into_parts`](crate::OpenError::into_parts), [`SslFile::release`](crate::SslFile::release))
    /// may answer it in plain. Called in whichever thread comes upon it, when the call that did has ended: it may use any
    /// file. A panic in it goes no further. Warnings of the peer are not told, nor are alerts of ours of which the library does
    /// not tell us: some of [`Engine::Native`] that went out encrypted, and what [`Engine::Rustls`] says to an alert that is none.
    ///
    /// Pike's `set_alert_callback`.
    pub fn on_alert(mut self, f: impl Fn(&Alert) + Send + Sync + 'static) -> Self {
        self.settings.on_alert = Some(Hook(Arc::new(f)));
        self
    }

    /// Take a bare end of stream, between records, for a clean end. For peers that never say close_notify; whoever can
    /// cut the connection can then end your data early unseen.
    pub fn lenient_eof(mut self, yes: bool) -> Self {
        self.settings.lenient_eof = yes;
        self
    }

    /// Whether a name in the common name (CN) of a certificate's subject counts if it has no DNS name among its alternative names
    /// (subjectAltName). Default: no, as with browsers, and as RFC 9525 has it (section 2): nobody who issues certificates vouches
    /// for what stands there. For old certificates of devices. An address in the CN never counts.
    ///
    /// With [`Engine::Native`] on OpenSSL it always counts, and there is no way to say no; elsewhere, and with
    /// [`Engine::Rustls`], it is `Unsupported`.
    pub fn accept_common_names(mut self, yes: bool) -> Self {
        self.settings.accept_common_names = yes;
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
        let ContextBuilder { engine, mut settings, root_paths, bad_list } = self;
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
        if let Some(bytes) = settings.max_fragment_size.filter(|bytes| !(64..=16384).contains(bytes)) {
            return Err(Error::invalid_input(format!("max_fragment_size is 64 to 16384 bytes, not {bytes}")));
        }
        if let Some(number) = settings.tickets.filter(|number| *number > 255) {
            return Err(Error::invalid_input(format!("tickets is 0 to 255, not {number}")));
        }
        let mut broken_roots = 0;
        for path in root_paths {
            let found = certificate::load(&path)?;
            broken_roots += found.broken;
            settings.roots.extend(found.certificates.into_iter().filter(|root| match engine.reads(root) {
                true => true,
                false => {
                    broken_roots += 1;
                    false
                }
            }));
        }
        if let Some(error) = bad_list {
            return Err(error);
        }
        let library = engine.build(&settings)?;
        Ok(Context { inner: Arc::new(Inner { engine, settings, library, broken_roots }) })
    }
}

fn no_version(versions: Bounds) -> Error {
    let text = match versions.max {
        Some(max) => format!("no version is left: the minimum is {}, the maximum {max}", versions.lowest()),
        None => "no version is left".to_string(),
    };
    Error::invalid_input(text)
}
