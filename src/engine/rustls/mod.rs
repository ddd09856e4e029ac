//! rustls, through its unbuffered interface.

mod exporter;
mod farewell;
mod names;
mod notes;
mod resumption;
mod server_hello;
mod session;
mod suites;
mod tickets;
mod verifier;
mod words;

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rustls::client::{Resumption, UnbufferedClientConnection};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use rustls::server::{
    ClientHello, NoServerSessionStorage, ProducesTickets, ResolvesServerCert, ServerSessionMemoryCache,
    StoresServerSessions, UnbufferedServerConnection,
};
use rustls::sign::{CertifiedKey, Signer, SigningKey, SingleCertAndKey};
use rustls::{
    ClientConfig, InconsistentKeys, ServerConfig, SignatureAlgorithm, SignatureScheme, SupportedCipherSuite,
    SupportedProtocolVersion,
};

use super::key_log::KeyLogger;
use super::{Engine, Foreign, Library, Resumable, Session};
use crate::certificate::Certificate;
use crate::error::Error;
use crate::identity::{unread_by_rustls, Identity, Material};
use crate::role::Role;
use crate::settings::{Offer, Settings};
use crate::version::{Bounds, Version};
use notes::{note, Secret};
use resumption::{Own, Resuming, Store};
use session::RustlsSession;
use verifier::Verifier;

#[cfg(feature = "aws-lc-rs")]
use rustls::crypto::aws_lc_rs as cryptography;
#[cfg(not(feature = "aws-lc-rs"))]
use rustls::crypto::ring as cryptography;

/// Identities whose keys have been read and are kept.
const IDENTITIES: usize = 1024;
/// Sessions that a server remembers, unless said.
const SERVER_SESSIONS: usize = 1024;
/// It remembers no more, whatever was said: rustls takes the room for all of them at once.
const MOST_SERVER_SESSIONS: usize = 1 << 20;

/// One context's settings as configurations: rustls fixes the versions in them, so there is one for each pair of bounds in
/// use, made once.
pub(super) struct Rustls {
    settings: Settings,
    provider: Arc<CryptoProvider>,
    schemes: Option<Vec<SignatureScheme>>,
    key_log: Arc<KeyLog>,
    /// Made at first use where the context is a server's: loading the system's roots takes time.
    client: Mutex<Option<Client>>,
    server: Option<Server>,
}

/// What the configurations of one role have in common. (A session is only resumed with the same verifier.)
#[derive(Clone)]
struct Client {
    verifier: Arc<Verifier>,
    resumption: Resumption,
    configs: Arc<Mutex<HashMap<Bounds, Arc<ClientConfig>>>>,
}

struct Server {
    verifier: Arc<Verifier>,
    certificates: Arc<Certificates>,
    sessions: Arc<dyn StoresServerSessions>,
    tickets: Option<Arc<dyn ProducesTickets>>,
    configs: Mutex<HashMap<Bounds, Arc<ServerConfig>>>,
}

impl Rustls {
    pub fn new(settings: &Settings) -> Result<Rustls, Error> {
        protocols(settings.versions)?;
        if settings.accept_common_names {
            return Err(Engine::Rustls.cannot("accept_common_names"));
        }
        if settings.post_handshake_auth {
            return Err(Engine::Rustls.cannot("post_handshake_auth"));
        }
        let schemes = settings.signature_algorithms.as_deref().map(signature_schemes).transpose()?;
        let key_log = KeyLog { wanted: KeyLogger::new(settings)?, inner: None };
        let mut library = Rustls {
            settings: settings.clone(),
            provider: Arc::new(provider(settings)?),
            schemes,
            key_log: Arc::new(key_log),
            client: Mutex::new(None),
            server: None,
        };
        // Makes errors show now.
        if settings.can_serve() {
            library.server = Some(library.make_server()?);
            library.server_config(Bounds::default())?;
        } else {
            library.client_config(Bounds::default())?;
        }
        Ok(library)
    }

    fn verifier(&self, role: Role) -> Result<Arc<Verifier>, Error> {
        Ok(Arc::new(Verifier::new(role, &self.settings, &self.provider, self.schemes.as_deref())?))
    }

    fn make_server(&self) -> Result<Server, Error> {
        let settings = &self.settings;
        let certificates =
            Certificates { settings: settings.clone(), schemes: self.schemes.clone(), kept: Mutex::default() };
        for identity in settings.identity.iter().chain(settings.named_identities.iter().map(|(_, identity)| identity)) {
            certificates.get(identity)?;
        }
        let remembered = settings.session_cache_size.unwrap_or(SERVER_SESSIONS).min(MOST_SERVER_SESSIONS);
        let (mut sessions, mut tickets): (Arc<dyn StoresServerSessions>, _) =
            (ServerSessionMemoryCache::new(remembered), None);
        let resumes = settings.session_resumption != Some(false);
        if !resumes || settings.session_cache_size == Some(0) {
            sessions = Arc::new(NoServerSessionStorage {});
        }
        if let Some(lifetime) = settings.session_lifetime {
            sessions = Arc::new(Expiring { lifetime, sessions });
        }
        // The library's own tickets last as long as it says; what we remember lasts as long as we say.
        if resumes && settings.tickets != Some(0) && settings.session_lifetime.is_none() {
            tickets = Some(cryptography::Ticketer::new().map_err(|e| setup_error("tickets", e))?);
        }
        Ok(Server {
            verifier: self.verifier(Role::Server)?,
            certificates: Arc::new(certificates),
            sessions,
            tickets,
            configs: Mutex::default(),
        })
    }

    fn client(&self) -> Result<Client, Error> {
        let mut client = self.client.lock();
        if let Some(client) = &*client {
            return Ok(client.clone());
        }
        let resumption = Resumption::store(Arc::new(Store::new(&self.settings)));
        let verifier = self.verifier(Role::Client)?;
        Ok(client.insert(Client { verifier, resumption, configs: Arc::default() }).clone())
    }

    fn client_config(&self, versions: Bounds) -> Result<(Arc<ClientConfig>, Arc<Verifier>), Error> {
        let versions = versions.or(self.settings.versions);
        let client = self.client()?;
        if let Some(config) = client.configs.lock().get(&versions) {
            return Ok((config.clone(), client.verifier));
        }
        let settings = &self.settings;
        let protocols = protocols(versions)?;
        // rustls would offer the suites of all versions.
        let mut provider = CryptoProvider::clone(&self.provider);
        provider.cipher_suites.retain(|suite| protocols.contains(&suite.version()));
        let wants_certificate = ClientConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(&protocols)
            .map_err(|e| setup_error("the client settings", e))?
            .dangerous()
            .with_custom_certificate_verifier(client.verifier.clone());
        let mut config = match &settings.identity {
            None => wants_certificate.with_no_client_auth(),
            Some(identity) => {
                let certified = certified_key(identity.material(), self.schemes.as_deref())?;
                wants_certificate.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(certified)))
            }
        };
        config.alpn_protocols.clone_from(&settings.alpn);
        config.enable_sni = settings.sni;
        config.resumption = client.resumption;
        config.key_log = self.key_log.clone();
        let config = Arc::new(config);
        client.configs.lock().insert(versions, config.clone());
        Ok((config, client.verifier))
    }

    fn server_config(&self, versions: Bounds) -> Result<(Arc<ServerConfig>, Arc<Verifier>), Error> {
        let Some(server) = &self.server else {
            return Err(Error::invalid_input("a server needs a context with an identity"));
        };
        let versions = versions.or(self.settings.versions);
        if let Some(config) = server.configs.lock().get(&versions) {
            return Ok((config.clone(), server.verifier.clone()));
        }
        let settings = &self.settings;
        let mut config = ServerConfig::builder_with_provider(self.provider.clone())
            .with_protocol_versions(&protocols(versions)?)
            .map_err(|e| setup_error("the server settings", e))?
            .with_client_cert_verifier(server.verifier.clone())
            .with_cert_resolver(server.certificates.clone());
        config.alpn_protocols.clone_from(&settings.alpn);
        config.ignore_client_order = settings.prefer_server_order.unwrap_or(true);
        config.session_storage = server.sessions.clone();
        if let Some(tickets) = &server.tickets {
            config.ticketer = tickets.clone();
        }
        if settings.session_resumption == Some(false) {
            config.send_tls13_tickets = 0;
        } else if let Some(number) = settings.tickets {
            config.send_tls13_tickets = number;
        }
        config.key_log = self.key_log.clone();
        let config = Arc::new(config);
        server.configs.lock().insert(versions, config.clone());
        Ok((config, server.verifier.clone()))
    }
}

impl Library for Rustls {
    fn open(
        &self,
        role: Role,
        server_name: &str,
        versions: Bounds,
        resume: Option<&Resumable>,
    ) -> Result<Box<dyn Session>, Error> {
        match role {
            Role::Client => {
                let (config, verifier) = self.client_config(versions)?;
                let from = resume.map(|own| own.clone().downcast::<Own>()).transpose();
                let from = from.map_err(|_| Engine::Rustls.cannot("resume"))?;
                open_client(config, server_name, Some((verifier, Resuming::new(from))))
            }
            Role::Server => {
                let (config, verifier) = self.server_config(versions)?;
                open_server(config, Some(verifier))
            }
        }
    }
}

fn open_client(
    config: Arc<ClientConfig>,
    server_name: &str,
    ours: Option<(Arc<Verifier>, Resuming)>,
) -> Result<Box<dyn Session>, Error> {
    let name = ServerName::try_from(server_name.to_string())
        .map_err(|e| Error::invalid_input(format!("{server_name:?} cannot be a server's name: {e}")).with_source(e))?;
    let (verifier, resuming) = ours.unzip();
    let offered = resuming.as_ref().and_then(Resuming::offered);
    let (conn, _) = notes::during(offered, || UnbufferedClientConnection::new(config, name));
    let conn = conn.map_err(|e| setup_error("rustls", e))?;
    Ok(Box::new(RustlsSession::new(conn, Some(server_name), verifier, resuming)))
}

fn open_server(config: Arc<ServerConfig>, verifier: Option<Arc<Verifier>>) -> Result<Box<dyn Session>, Error> {
    let conn = UnbufferedServerConnection::new(config).map_err(|e| setup_error("rustls", e))?;
    Ok(Box::new(RustlsSession::new(conn, None, verifier, None)))
}

pub(super) fn reads(certificate: &Certificate) -> bool {
    rustls::RootCertStore::empty().add(CertificateDer::from(certificate.der())).is_ok()
}

fn setup_error(what: &str, e: rustls::Error) -> Error {
    Error::invalid_input(format!("{what}: {}", words::text(&e))).with_source(e)
}

/// The versions in these bounds.
fn protocols(versions: Bounds) -> Result<Vec<&'static SupportedProtocolVersion>, Error> {
    let too_old = |version: &Version| *version < Version::Tls1_2;
    if let Some(version) = [versions.min, versions.max].into_iter().flatten().find(too_old) {
        return Err(Engine::Rustls.cannot(&version.to_string()));
    }
    let known = [(Version::Tls1_3, &rustls::version::TLS13), (Version::Tls1_2, &rustls::version::TLS12)];
    let fits = |version| version >= versions.lowest() && versions.max.is_none_or(|max| version <= max);
    Ok(known.into_iter().filter(|(version, _)| fits(*version)).map(|(_, protocol)| protocol).collect())
}

/// The cryptography, with the suites and groups that the settings leave.
fn provider(settings: &Settings) -> Result<CryptoProvider, Error> {
    let mut provider = cryptography::default_provider();
    provider.cipher_suites.clear();
    let all = suites::all();
    let lists = [
        (Version::Tls1_3, "ciphersuites", settings.ciphersuites.as_deref()),
        (Version::Tls1_2, "cipher_list", settings.cipher_list.as_deref()),
    ];
    for (version, option, list) in lists {
        let of_version =
            all.iter().filter(|suite| matches!(suite, SupportedCipherSuite::Tls13(_)) == (version == Version::Tls1_3));
        match list {
            None => provider.cipher_suites.extend(of_version),
            Some(list) if items(list).next().is_none() => {
                return Err(Error::invalid_input(format!("{option}: the list is empty")))
            }
            Some(list) => {
                for name in items(list) {
                    let found = of_version.clone().find(|suite| names::suite(suite.suite()) == name);
                    let suite = found.ok_or_else(|| Engine::Rustls.cannot(&format!("{option} with {name:?}")))?;
                    provider.cipher_suites.push(*suite);
                }
            }
        }
    }
    if let Some(list) = &settings.groups {
        let all = cryptography::ALL_KX_GROUPS;
        let mut groups = Vec::new();
        for name in items(list) {
            let found = all.iter().find(|group| names::is_group(name, group.name()));
            groups.push(*found.ok_or_else(|| Engine::Rustls.cannot(&format!("groups with {name:?}")))?);
        }
        if groups.is_empty() {
            return Err(Error::invalid_input("groups: the list is empty"));
        }
        provider.kx_groups = groups;
    }
    Ok(provider)
}

fn signature_schemes(list: &str) -> Result<Vec<SignatureScheme>, Error> {
    let supported = cryptography::default_provider().signature_verification_algorithms.supported_schemes();
    let mut schemes = Vec::new();
    for name in items(list) {
        let known = names::signature_scheme(name).filter(|scheme| supported.contains(scheme));
        schemes.push(known.ok_or_else(|| Engine::Rustls.cannot(&format!("signature_algorithms with {name:?}")))?);
    }
    match schemes.is_empty() {
        true => Err(Error::invalid_input("signature_algorithms: the list is empty")),
        false => Ok(schemes),
    }
}

fn items(list: &str) -> impl Iterator<Item = &str> {
    list.split(':').map(str::trim).filter(|name| !name.is_empty())
}

fn certified_key(material: &Material, schemes: Option<&[SignatureScheme]>) -> Result<CertifiedKey, Error> {
    let chain = material.chain.iter().map(|certificate| CertificateDer::from(certificate.der().to_vec())).collect();
    // In place of what `provider` has for this, which takes a copy of the key and does not wipe it.
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(material.key.as_slice()));
    let what = format!("the identity from {}", material.origin);
    let key = cryptography::sign::any_supported_type(&key)
        .map_err(|e| Error::invalid_input(format!("{what}: {}", unread_by_rustls())).with_source(e))?;
    let mut certified = CertifiedKey::new(chain, key);
    match certified.keys_match() {
        Ok(()) | Err(rustls::Error::InconsistentKeys(InconsistentKeys::Unknown)) => {}
        Err(e) => return Err(setup_error(&what, e)),
    }
    if let Some(schemes) = schemes {
        certified.key = Arc::new(Choosy { key: certified.key, schemes: schemes.to_vec() });
    }
    Ok(certified)
}

/// A key that signs with some of its algorithms only.
#[derive(Debug)]
struct Choosy {
    key: Arc<dyn SigningKey>,
    schemes: Vec<SignatureScheme>,
}

impl SigningKey for Choosy {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        // Ours are in our order of preference; a key takes the first it can.
        let both = self.schemes.iter().filter(|scheme| offered.contains(scheme));
        both.into_iter().find_map(|scheme| self.key.choose_scheme(&[*scheme]))
    }

    fn public_key(&self) -> Option<rustls::pki_types::SubjectPublicKeyInfoDer<'_>> {
        self.key.public_key()
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        self.key.algorithm()
    }
}

/// A server's certificates, by the name the client asks for.
struct Certificates {
    settings: Settings,
    schemes: Option<Vec<SignatureScheme>>,
    /// By the address of the identity, which is kept so that nothing else gets it.
    kept: Mutex<HashMap<usize, (Identity, Arc<CertifiedKey>)>>,
}

impl Certificates {
    fn get(&self, identity: &Identity) -> Result<Arc<CertifiedKey>, Error> {
        let address = std::ptr::from_ref(identity.material()).addr();
        if let Some((_, certified)) = self.kept.lock().get(&address) {
            return Ok(certified.clone());
        }
        let certified = Arc::new(certified_key(identity.material(), self.schemes.as_deref())?);
        let mut kept = self.kept.lock();
        if kept.len() >= IDENTITIES {
            kept.clear();
        }
        kept.insert(address, (identity.clone(), certified.clone()));
        Ok(certified)
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let name = hello.server_name().map(str::to_string);
        let offer = match self.settings.choose_identity {
            Some(_) => offer(&hello),
            None => Offer::default(),
        };
        let chosen = self.settings.identity_for(hello.server_name(), &offer);
        let certified = chosen.and_then(|identity| self.get(&identity).ok());
        note_hello(name, certified)
    }
}

fn offer(hello: &ClientHello<'_>) -> Offer {
    Offer {
        alpn: hello.alpn().into_iter().flatten().map(<[u8]>::to_vec).collect(),
        versions: None,
        cipher_suites: hello.cipher_suites().iter().map(|suite| u16::from(*suite)).collect(),
    }
}

impl fmt::Debug for Certificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Certificates")
    }
}

fn note_hello(server_name: Option<String>, certified: Option<Arc<CertifiedKey>>) -> Option<Arc<CertifiedKey>> {
    note(|notes| {
        notes.server_name = server_name;
        notes.shown = certified.as_ref().and_then(|certified| certified.cert.first().cloned());
    });
    certified
}

/// rustls' key log: what the user wants logged, and what keys are exported from.
#[derive(Debug)]
struct KeyLog {
    wanted: Option<KeyLogger>,
    /// That of a configuration made elsewhere.
    inner: Option<Arc<dyn rustls::KeyLog>>,
}

impl rustls::KeyLog for KeyLog {
    fn log(&self, label: &str, client_random: &[u8], secret: &[u8]) {
        if let Some(wanted) = &self.wanted {
            let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
            wanted.log(&format!("{label} {} {}", hex(client_random), hex(secret)));
        }
        if let Some(inner) = self.inner.as_ref().filter(|inner| inner.will_log(label)) {
            inner.log(label, client_random, secret);
        }
        if is_exported_from(label) && secret.len() <= rustls::crypto::tls13::OkmBlock::MAX_LEN {
            if let Ok(client_random) = client_random.try_into() {
                let bytes = rustls::crypto::tls13::OkmBlock::new(secret);
                note(|notes| notes.secret = Some(Secret { bytes, client_random }));
            }
        }
    }

    fn will_log(&self, label: &str) -> bool {
        self.wanted.is_some()
            || is_exported_from(label)
            || self.inner.as_ref().is_some_and(|inner| inner.will_log(label))
    }
}

fn is_exported_from(label: &str) -> bool {
    matches!(label, "EXPORTER_SECRET" | "CLIENT_RANDOM")
}

/// A server's memory of its clients, each for a limited time.
#[derive(Debug)]
struct Expiring {
    lifetime: Duration,
    sessions: Arc<dyn StoresServerSessions>,
}

impl Expiring {
    fn fresh(&self, mut stamped: Vec<u8>) -> Option<Vec<u8>> {
        let (value, stamp) =
            stamped.split_last_chunk().map(|(value, stamp)| (value.len(), u128::from_be_bytes(*stamp)))?;
        stamped.truncate(value);
        (since_start() < stamp).then_some(stamped)
    }
}

/// Nanoseconds on a clock that nobody sets.
fn since_start() -> u128 {
    static START: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    START.get_or_init(Instant::now).elapsed().as_nanos()
}

impl StoresServerSessions for Expiring {
    fn put(&self, key: Vec<u8>, mut value: Vec<u8>) -> bool {
        value.extend_from_slice(&(since_start() + self.lifetime.as_nanos()).to_be_bytes());
        self.sessions.put(key, value)
    }

    fn get(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.fresh(self.sessions.get(key)?)
    }

    fn take(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.fresh(self.sessions.take(key)?)
    }

    fn can_cache(&self) -> bool {
        self.sessions.can_cache()
    }
}

/// A configuration made elsewhere.
struct Made {
    client: Option<Arc<ClientConfig>>,
    server: Option<Arc<ServerConfig>>,
}

impl Library for Made {
    fn open(
        &self,
        role: Role,
        server_name: &str,
        versions: Bounds,
        _resume: Option<&Resumable>,
    ) -> Result<Box<dyn Session>, Error> {
        if versions != Bounds::default() {
            return Err(Engine::Rustls.cannot("version bounds of a file where the context was made elsewhere"));
        }
        match (role, &self.client, &self.server) {
            (Role::Client, Some(config), _) => open_client(config.clone(), server_name, None),
            (Role::Server, _, Some(config)) => open_server(config.clone(), None),
            (Role::Client, ..) => Err(Error::invalid_input("a context made from a ServerConfig is for servers only")),
            (Role::Server, ..) => Err(Error::invalid_input("a context made from a ClientConfig is for clients only")),
        }
    }
}

/// Resolves as a configuration made elsewhere says, and notes what it said.
#[derive(Debug)]
struct Noting(Arc<dyn ResolvesServerCert>);

impl ResolvesServerCert for Noting {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let name = hello.server_name().map(str::to_string);
        note_hello(name, self.0.resolve(hello))
    }

    fn only_raw_public_keys(&self) -> bool {
        self.0.only_raw_public_keys()
    }
}

impl Foreign for Arc<ClientConfig> {
    const ENGINE: Engine = Engine::Rustls;

    fn into_library(self) -> Box<dyn Library> {
        let mut config = ClientConfig::clone(&self);
        config.key_log = Arc::new(KeyLog { wanted: None, inner: Some(config.key_log) });
        Box::new(Made { client: Some(Arc::new(config)), server: None })
    }
}

impl Foreign for Arc<ServerConfig> {
    const ENGINE: Engine = Engine::Rustls;

    fn into_library(self) -> Box<dyn Library> {
        let mut config = ServerConfig::clone(&self);
        config.key_log = Arc::new(KeyLog { wanted: None, inner: Some(config.key_log) });
        config.cert_resolver = Arc::new(Noting(config.cert_resolver));
        Box::new(Made { client: None, server: Some(Arc::new(config)) })
    }
}
