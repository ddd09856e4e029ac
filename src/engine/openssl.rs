//! OpenSSL through the `openssl` crate.

use std::net::IpAddr;
use std::sync::{Arc, OnceLock};

use openssl::error::ErrorStack;
use openssl::ex_data::Index;
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::PKey;
use openssl::ssl::{
    self, AlpnError, NameType, Ssl, SslContext, SslContextBuilder, SslMethod, SslMode, SslOptions, SslRef, SslSession,
    SslSessionCacheMode, SslStream, SslVerifyMode, SslVersion,
};
use openssl::stack::Stack;
use openssl::x509::verify::{X509CheckFlags, X509VerifyFlags};
use openssl::x509::{X509Ref, X509VerifyResult, X509};

use super::alert::{Report, Verdict};
use super::key_log::KeyLogger;
use super::sessions::Sessions;
use super::{Engine, Library, Session, Stop, Wire};
use crate::certificate::Certificate;
use crate::error::Error;
use crate::settings::{ClientAuth, Role, Settings};
use crate::version::{Bounds, Version};

/// As `SslConnector` has it: what OpenSSL offers, less what is broken.
const CIPHERS: &str = "DEFAULT:!aNULL:!eNULL:!MD5:!3DES:!DES:!RC4:!IDEA:!SEED:!aDSS:!SRP:!PSK";
/// For servers from TLS 1.2 up: forward secrecy and authenticated encryption only (Mozilla's intermediate profile).
const SERVER_CIPHERS: &str = "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:\
    ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-AES256-GCM-SHA384:\
    ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305";

/// One context's settings as OpenSSL's contexts, one for each role.
pub(super) struct OpenSsl {
    settings: Settings,
    /// Made at first use where a server context is there already: loading the system's roots takes long.
    client: OnceLock<SslContext>,
    server: Option<SslContext>,
    key_log: Option<Arc<KeyLogger>>,
    sessions: Option<Arc<Sessions<SslSession>>>,
}

impl OpenSsl {
    pub fn new(settings: &Settings) -> Result<OpenSsl, Error> {
        let cannot = |option: &str| Err(Engine::OpenSsl.cannot(option));
        for version in [settings.versions.min, settings.versions.max] {
            if version == Some(Version::Ssl3) {
                return cannot("SSLv3");
            }
        }
        let mut library = OpenSsl {
            settings: settings.clone(),
            client: OnceLock::new(),
            server: None,
            key_log: KeyLogger::new(settings)?.map(Arc::new),
            sessions: settings.client_resumes().then(|| Arc::new(Sessions::new(settings))),
        };
        if settings.can_serve() {
            library.server = Some(library.server_context()?);
        } else {
            library.client_context()?;
        }
        Ok(library)
    }

    fn client_context(&self) -> Result<SslContext, Error> {
        if let Some(context) = self.client.get() {
            return Ok(context.clone());
        }
        let settings = &self.settings;
        let mut context = self.context(Role::Client)?;
        let made = (|| {
            if settings.system_roots != Some(false) {
                context.set_default_verify_paths()?;
            }
            context.set_verify(SslVerifyMode::PEER);
            if !settings.alpn.is_empty() {
                context.set_alpn_protos(&alpn_list(&settings.alpn))?;
            }
            context.set_session_cache_mode(SslSessionCacheMode::OFF);
            if let Some(sessions) = &self.sessions {
                context.set_session_cache_mode(SslSessionCacheMode::CLIENT | SslSessionCacheMode::NO_INTERNAL);
                let sessions = sessions.clone();
                let index = name_index()?;
                context.set_new_session_callback(move |ssl, session| {
                    if let Some(name) = ssl.ex_data(index) {
                        sessions.keep(name, session);
                    }
                });
            }
            Ok(())
        })();
        made.map_err(|e| setup_error("the client settings", e))?;
        Ok(self.client.get_or_init(|| context.build()).clone())
    }

    fn server_context(&self) -> Result<SslContext, Error> {
        let settings = &self.settings;
        let mut context = self.context(Role::Server)?;
        let made = (|| {
            context.set_options(SslOptions::CIPHER_SERVER_PREFERENCE);
            if settings.session_resumption == Some(false) {
                context.set_options(SslOptions::NO_TICKET);
                context.set_session_cache_mode(SslSessionCacheMode::OFF);
                context.set_num_tickets(0)?;
            }
            if !settings.alpn.is_empty() {
                let ours = alpn_list(&settings.alpn);
                // The server's order decides; no overlap is refused (RFC 7301, section 3.2).
                context.set_alpn_select_callback(move |_, theirs| {
                    let chosen = ssl::select_next_proto(&ours, theirs).ok_or(AlpnError::ALERT_FATAL)?;
                    // The same protocol from the client's list, for its lifetime.
                    theirs.windows(chosen.len()).find(|part| *part == chosen).ok_or(AlpnError::ALERT_FATAL)
                });
            }
            context.set_session_id_context(b"sslfile")?;
            context.set_verify(SslVerifyMode::NONE);
            if settings.client_auth != ClientAuth::None {
                let mut mode = SslVerifyMode::PEER;
                if settings.client_auth == ClientAuth::Require {
                    mode |= SslVerifyMode::FAIL_IF_NO_PEER_CERT;
                }
                if settings.accept_invalid_certs {
                    context.set_verify_callback(mode, |_, _| true);
                } else {
                    context.set_verify(mode);
                }
                if settings.system_roots == Some(true) {
                    context.set_default_verify_paths()?;
                }
                let mut names = Stack::new()?;
                for root in &settings.roots {
                    names.push(X509::from_der(root.der())?.subject_name().to_owned()?)?;
                }
                context.set_client_ca_list(names);
            }
            Ok(())
        })();
        made.map_err(|e| setup_error("the server settings", e))?;
        if settings.client_auth != ClientAuth::None
            && settings.roots.is_empty()
            && settings.system_roots != Some(true)
            && !settings.accept_invalid_certs
        {
            return Err(Error::invalid_input(
                "client_auth needs add_root: whose certificates should the server accept?",
            ));
        }
        Ok(context.build())
    }

    /// What both roles have in common.
    fn context(&self, role: Role) -> Result<SslContextBuilder, Error> {
        let settings = &self.settings;
        let general = |e| setup_error("OpenSSL", e);
        let method = match role {
            Role::Client => SslMethod::tls_client(),
            Role::Server => SslMethod::tls_server(),
        };
        let mut context = SslContextBuilder::new(method).map_err(general)?;
        let options = SslOptions::ALL | SslOptions::NO_COMPRESSION | SslOptions::NO_RENEGOTIATION;
        context.set_options(options & !SslOptions::DONT_INSERT_EMPTY_FRAGMENTS);
        context.set_mode(
            SslMode::AUTO_RETRY
                | SslMode::ACCEPT_MOVING_WRITE_BUFFER
                | SslMode::ENABLE_PARTIAL_WRITE
                | SslMode::RELEASE_BUFFERS,
        );
        set_versions(settings.versions, |v| context.set_min_proto_version(v)).map_err(general)?;
        context.set_max_proto_version(settings.versions.max.and_then(protocol)).map_err(general)?;
        if settings.versions.lowest() < Version::Tls1_2 {
            // OpenSSL 3 has TLS 1.0 and 1.1 only at this level, whatever their range.
            context.set_security_level(0);
        }
        let default = match role {
            Role::Server if settings.versions.lowest() >= Version::Tls1_2 => SERVER_CIPHERS,
            _ => CIPHERS,
        };
        let list = settings.cipher_list.as_deref();
        context.set_cipher_list(list.unwrap_or(default)).map_err(|e| setup_error("cipher_list", e))?;
        if let Some(list) = &settings.ciphersuites {
            context.set_ciphersuites(list).map_err(|e| setup_error("ciphersuites", e))?;
        }
        for root in &settings.roots {
            let root = X509::from_der(root.der()).map_err(|e| setup_error("add_root", e))?;
            context.cert_store_mut().add_cert(root).map_err(|e| setup_error("add_root", e))?;
        }
        // Any certificate given as a root is one, self-signed or not.
        context.verify_param_mut().set_flags(X509VerifyFlags::PARTIAL_CHAIN).map_err(general)?;
        if let Some(identity) = &settings.identity {
            let identity = identity.material();
            let set = (|| {
                let key = PKey::private_key_from_pkcs8(&identity.key)?;
                for (depth, certificate) in identity.chain.iter().enumerate() {
                    let certificate = X509::from_der(certificate.der())?;
                    match depth {
                        0 => context.set_certificate(&certificate)?,
                        _ => context.add_extra_chain_cert(certificate)?,
                    }
                }
                context.set_private_key(&key)?;
                context.check_private_key()
            })();
            set.map_err(|e| setup_error(&format!("the identity from {}", identity.origin), e))?;
        }
        if let Some(key_log) = &self.key_log {
            let key_log = key_log.clone();
            context.set_keylog_callback(move |_, line| key_log.log(line));
        }
        Ok(context)
    }
}

pub(super) fn reads(certificate: &Certificate) -> bool {
    X509::from_der(certificate.der()).is_ok()
}

impl Library for OpenSsl {
    fn open(&self, role: Role, server_name: &str, versions: Bounds) -> Result<Box<dyn Session>, Error> {
        let context = match (role, &self.server) {
            (Role::Client, _) => self.client_context()?,
            (Role::Server, Some(context)) => context.clone(),
            (Role::Server, None) => return Err(Error::invalid_input("a server needs a context with an identity")),
        };
        for version in [versions.min, versions.max] {
            if version == Some(Version::Ssl3) {
                return Err(Engine::OpenSsl.cannot("SSLv3"));
            }
        }
        let opened = (|| {
            let mut ssl = Ssl::new(&context)?;
            if versions != Bounds::default() {
                let versions = versions.or(self.settings.versions);
                set_versions(versions, |v| ssl.set_min_proto_version(v))?;
                ssl.set_max_proto_version(versions.max.and_then(protocol))?;
                if versions.lowest() < Version::Tls1_2 {
                    ssl.set_security_level(0);
                    if role == Role::Server && self.settings.cipher_list.is_none() {
                        ssl.set_cipher_list(CIPHERS)?;
                    }
                }
            }
            match role {
                Role::Server => ssl.set_accept_state(),
                Role::Client => self.prepare_client(&mut ssl, server_name)?,
            }
            SslStream::new(ssl, Wire::default())
        })();
        let stream = opened.map_err(|e| setup_error("OpenSSL", e))?;
        Ok(Box::new(OpenSslSession { stream }))
    }
}

impl OpenSsl {
    fn prepare_client(&self, ssl: &mut Ssl, server_name: &str) -> Result<(), ErrorStack> {
        ssl.set_connect_state();
        let ip = server_name.parse::<IpAddr>().ok();
        // SNI is for names only (RFC 6066, section 3).
        if self.settings.sni && ip.is_none() {
            ssl.set_hostname(server_name)?;
        }
        if self.settings.accept_invalid_certs {
            ssl.set_verify(SslVerifyMode::NONE);
        } else if !self.settings.accept_invalid_hostnames {
            let param = ssl.param_mut();
            param.set_hostflags(X509CheckFlags::NO_PARTIAL_WILDCARDS);
            match ip {
                Some(ip) => param.set_ip(ip)?,
                None => param.set_host(server_name)?,
            }
        }
        if let Some(sessions) = &self.sessions {
            ssl.set_ex_data(name_index()?, server_name.to_string());
            // A ticket of TLS 1.3 is used once (RFC 8446, appendix C.4).
            let once = |session: &SslSession| session.protocol_version() == SslVersion::TLS1_3;
            if let Some(session) = sessions.take(server_name, once) {
                resume(ssl, &session)?;
            }
        }
        Ok(())
    }
}

#[allow(unsafe_code, reason = "the openssl crate has no other way to offer a session")]
fn resume(ssl: &mut Ssl, session: &SslSession) -> Result<(), ErrorStack> {
    // SAFETY: the session must come from the context that `ssl` was made from. It does: `Sessions` belongs to one
    // client context, is filled by that context's own callback alone, and `ssl` was made from that context.
    unsafe { ssl.set_session(session) }
}

/// Where a client's `Ssl` keeps the server's name for the callback that stores sessions.
fn name_index() -> Result<Index<Ssl, String>, ErrorStack> {
    static INDEX: OnceLock<Index<Ssl, String>> = OnceLock::new();
    match INDEX.get() {
        Some(index) => Ok(*index),
        None => {
            let index = Ssl::new_ex_index()?;
            Ok(*INDEX.get_or_init(|| index))
        }
    }
}

/// The minimum is set whether given or not: without one OpenSSL's own configuration file would decide.
fn set_versions(
    versions: Bounds,
    set_min: impl FnOnce(Option<SslVersion>) -> Result<(), ErrorStack>,
) -> Result<(), ErrorStack> {
    set_min(protocol(versions.lowest()))
}

fn protocol(version: Version) -> Option<SslVersion> {
    match version {
        Version::Ssl3 => None,
        Version::Tls1_0 => Some(SslVersion::TLS1),
        Version::Tls1_1 => Some(SslVersion::TLS1_1),
        Version::Tls1_2 => Some(SslVersion::TLS1_2),
        Version::Tls1_3 => Some(SslVersion::TLS1_3),
    }
}

/// The list in the form of RFC 7301, section 3.1.
fn alpn_list(protocols: &[Vec<u8>]) -> Vec<u8> {
    protocols.iter().flat_map(|p| std::iter::once(p.len() as u8).chain(p.iter().copied())).collect()
}

fn setup_error(what: &str, e: ErrorStack) -> Error {
    Error::invalid_input(format!("{what}: {}", words(&e))).with_source(e)
}

/// The library's reasons, without its file names and code numbers.
fn words(stack: &ErrorStack) -> String {
    let reasons: Vec<String> = stack
        .errors()
        .iter()
        .filter_map(|e| {
            let reason = e.reason()?;
            Some(e.data().map_or(reason.to_string(), |data| format!("{reason} ({data})")))
        })
        .collect();
    match reasons.is_empty() {
        true => "OpenSSL gave no reason".to_string(),
        false => reasons.join("; "),
    }
}

struct OpenSslSession {
    stream: SslStream<Wire>,
}

impl OpenSslSession {
    /// Lends the wire to the library for one call.
    fn call<T>(
        &mut self,
        wire: &mut Wire,
        f: impl FnOnce(&mut SslStream<Wire>) -> Result<T, ssl::Error>,
    ) -> Result<T, Stop> {
        std::mem::swap(self.stream.get_mut(), wire);
        let result = f(&mut self.stream);
        std::mem::swap(self.stream.get_mut(), wire);
        result.map_err(|e| match e.code() {
            ssl::ErrorCode::WANT_READ => Stop::NeedsInput,
            _ => Stop::Failed(self.failure(e, wire)),
        })
    }

    fn failure(&self, e: ssl::Error, wire: &Wire) -> Error {
        let stack = e.ssl_error();
        let ssl = self.stream.ssl();
        let judged = ssl.verify_mode() != SslVerifyMode::NONE;
        let report = Report {
            reason: stack.and_then(ssl_reason),
            alert_sent: wire.alert_sent,
            is_tls13: self.version().map(|v| v == Version::Tls1_3),
            verdict: Some(ssl.verify_result()).filter(|v| judged && *v != X509VerifyResult::OK).map(verdict),
            text: stack.map_or_else(|| e.to_string(), words),
        };
        let (kind, text) = report.judge();
        Error::new(kind, text).with_source(e)
    }
}

/// The reason of the first error that is the TLS layer's own; the stack may begin with one of the cipher below it.
fn ssl_reason(stack: &ErrorStack) -> Option<u32> {
    const SSL_LIBRARY: i32 = 20;
    stack.errors().iter().find(|e| e.library_code() == SSL_LIBRARY).map(|e| e.reason_code() as u32)
}

fn verdict(result: X509VerifyResult) -> Verdict {
    // X509_V_ERR_HOSTNAME_MISMATCH, X509_V_ERR_IP_ADDRESS_MISMATCH
    match result.as_raw() {
        62 | 64 => Verdict::WrongName(result.error_string().to_string()),
        _ => Verdict::Refused(result.error_string().to_string()),
    }
}

impl Session for OpenSslSession {
    fn handshake(&mut self, wire: &mut Wire) -> Result<(), Stop> {
        self.call(wire, |s| s.do_handshake())
    }

    fn read(&mut self, wire: &mut Wire, buf: &mut [u8]) -> Result<usize, Stop> {
        self.call(wire, |s| match s.ssl_read(buf) {
            Err(e) if e.code() == ssl::ErrorCode::ZERO_RETURN => Ok(0),
            other => other,
        })
    }

    fn write(&mut self, wire: &mut Wire, data: &[u8]) -> Result<usize, Stop> {
        self.call(wire, |s| s.ssl_write(data))
    }

    fn close(&mut self, wire: &mut Wire) -> Result<(), Stop> {
        self.call(wire, |s| s.shutdown().map(drop))
    }

    fn pending(&self) -> usize {
        self.stream.ssl().pending()
    }

    fn version(&self) -> Option<Version> {
        Some(match self.stream.ssl().version2()? {
            SslVersion::TLS1 => Version::Tls1_0,
            SslVersion::TLS1_1 => Version::Tls1_1,
            SslVersion::TLS1_2 => Version::Tls1_2,
            SslVersion::TLS1_3 => Version::Tls1_3,
            _ => return None,
        })
    }

    fn cipher(&self) -> Option<String> {
        Some(self.stream.ssl().current_cipher()?.name().to_string())
    }

    fn alpn(&self) -> Option<Vec<u8>> {
        self.stream.ssl().selected_alpn_protocol().map(<[u8]>::to_vec)
    }

    fn server_name(&self) -> Option<String> {
        self.stream.ssl().servername(NameType::HOST_NAME).map(str::to_string)
    }

    fn peer_certificate(&self) -> Option<Certificate> {
        certificate(&*self.stream.ssl().peer_certificate()?)
    }

    fn peer_certificates(&self) -> Option<Vec<Certificate>> {
        let ssl = self.stream.ssl();
        let leaf = self.peer_certificate()?;
        // On a server OpenSSL leaves the leaf out of the chain.
        let rest = ssl.peer_cert_chain().into_iter().flatten().filter_map(certificate).filter(|c| *c != leaf);
        Some(std::iter::once(leaf.clone()).chain(rest).collect())
    }

    fn is_resumed(&self) -> Option<bool> {
        Some(self.stream.ssl().session_reused())
    }

    fn tls_server_end_point(&self) -> Option<Vec<u8>> {
        let ssl: &SslRef = self.stream.ssl();
        let peer = ssl.peer_certificate();
        let certificate = if ssl.is_server() { ssl.certificate()? } else { peer.as_deref()? };
        // RFC 5929, section 4.1: the signature's hash, but SHA-256 for the broken ones.
        let digest = match certificate.signature_algorithm().object().nid().signature_algorithms()?.digest {
            Nid::MD5 | Nid::SHA1 => MessageDigest::sha256(),
            digest => MessageDigest::from_nid(digest)?,
        };
        certificate.digest(digest).ok().map(|d| d.to_vec())
    }

    fn export_keying_material(&self, out: &mut [u8], label: &str, context: Option<&[u8]>) -> Result<(), Error> {
        let exported = self.stream.ssl().export_keying_material(out, label, context);
        exported.map_err(|e| setup_error("export_keying_material", e))
    }
}

fn certificate(certificate: &X509Ref) -> Option<Certificate> {
    certificate.to_der().ok().map(Certificate::from_library)
}
