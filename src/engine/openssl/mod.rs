//! OpenSSL through the `openssl` crate.

mod foreign;
mod group;
mod hello;
mod identities;
mod judge;
mod resumption;
mod session;

use std::net::IpAddr;
use std::sync::{Arc, OnceLock};

use openssl::error::ErrorStack;
use openssl::ex_data::Index;
use openssl::ssl::{
    self, AlpnError, Ssl, SslContext, SslContextBuilder, SslMethod, SslMode, SslOptions, SslRef, SslSessionCacheMode,
    SslVerifyMode, SslVersion, StatusType,
};
use openssl::stack::Stack;
use openssl::x509::verify::{X509CheckFlags, X509VerifyFlags};
use openssl::x509::{X509Ref, X509};

use self::identities::{Identities, Parsed};
use self::judge::{listen, Judge, Judgement};
use self::resumption::{Client, Store};
use self::session::OpenSslSession;
use super::key_log::KeyLogger;
use super::{Engine, Library, Resumable, Session};
use crate::certificate::Certificate;
use crate::error::{reasons, Error};
use crate::role::Role;
use crate::settings::{ClientAuth, Settings};
use crate::version::{Bounds, Version};

/// As `SslConnector` has it: what OpenSSL offers, less what is broken.
const CIPHERS: &str = "DEFAULT:!aNULL:!eNULL:!MD5:!3DES:!DES:!RC4:!IDEA:!SEED:!aDSS:!SRP:!PSK";
/// For servers from TLS 1.2 up: forward secrecy and authenticated encryption only (Mozilla's intermediate profile).
const SERVER_CIPHERS: &str = "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:\
    ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-AES256-GCM-SHA384:\
    ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305";

/// One context's settings as OpenSSL's contexts, one for each role.
pub(super) struct OpenSsl {
    settings: Arc<Settings>,
    /// Made at first use where a server context is there already: loading the system's roots takes long.
    client: OnceLock<SslContext>,
    server: Option<SslContext>,
    key_log: Option<Arc<KeyLogger>>,
    store: Option<Store>,
}

impl OpenSsl {
    pub fn new(settings: &Settings) -> Result<OpenSsl, Error> {
        refuse_ssl3(settings.versions)?;
        let mut library = OpenSsl {
            settings: Arc::new(settings.clone()),
            client: OnceLock::new(),
            server: None,
            key_log: KeyLogger::new(settings)?.map(Arc::new),
            store: settings.client_resumes().then(|| Store::new(settings)),
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
        let judge = Judge::new(settings)?;
        let mut context = self.context(Role::Client)?;
        let made = (|| {
            if settings.system_roots != Some(false) {
                context.set_default_verify_paths()?;
            }
            match judge {
                Some(judge) => judge.sit(&mut context, SslVerifyMode::PEER),
                None if settings.accept_invalid_certs => context.set_verify(SslVerifyMode::NONE),
                None => context.set_verify_callback(SslVerifyMode::PEER, listen),
            }
            if !settings.alpn.is_empty() {
                context.set_alpn_protos(&alpn_list(&settings.alpn))?;
            }
            if settings.post_handshake_auth {
                allow_post_handshake_auth(&mut context);
            }
            context.set_session_cache_mode(SslSessionCacheMode::OFF);
            self.store.iter().try_for_each(|store| store.attend(&mut context))
        })();
        made.map_err(|e| setup_error("the client settings", e))?;
        Ok(self.client.get_or_init(|| context.build()).clone())
    }

    fn server_context(&self) -> Result<SslContext, Error> {
        let settings = &self.settings;
        let judge = Judge::new(settings)?;
        let mut context = self.context(Role::Server)?;
        let made = (|| {
            if settings.prefer_server_order != Some(false) {
                context.set_options(SslOptions::CIPHER_SERVER_PREFERENCE);
            }
            let resumes = settings.session_resumption != Some(false);
            match settings.tickets.filter(|_| resumes) {
                None if resumes => {}
                None | Some(0) => {
                    context.set_options(SslOptions::NO_TICKET);
                    context.set_num_tickets(0)?;
                }
                Some(number) => context.set_num_tickets(number)?,
            }
            match settings.session_cache_size {
                // No limit, to OpenSSL.
                Some(0) => drop(context.set_session_cache_mode(SslSessionCacheMode::OFF)),
                _ if !resumes => drop(context.set_session_cache_mode(SslSessionCacheMode::OFF)),
                // It makes room while the new one is counted already.
                Some(size) => {
                    context.set_session_cache_size(i32::try_from(size).unwrap_or(i32::MAX).saturating_add(1));
                }
                None => {}
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
                match judge {
                    Some(judge) => judge.sit(&mut context, mode),
                    None if settings.accept_invalid_certs => context.set_verify_callback(mode, |_, _| true),
                    None => context.set_verify_callback(mode, listen),
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
        set_security_level(&mut context, settings);
        let default = match role {
            Role::Server if settings.versions.lowest() >= Version::Tls1_2 => SERVER_CIPHERS,
            _ => CIPHERS,
        };
        context.set_cipher_list(default).map_err(general)?;
        set_list("cipher_list", &settings.cipher_list, |list| match settings.checks_peers(role) {
            // Without a certificate nothing would be checked, and nobody asked.
            true => context.set_cipher_list(&format!("{list}:!aNULL")),
            false => context.set_cipher_list(list),
        })?;
        set_list("ciphersuites", &settings.ciphersuites, |list| context.set_ciphersuites(list))?;
        set_list("groups", &settings.groups, |list| context.set_groups_list(&each(list, group_name)))?;
        set_list("signature_algorithms", &settings.signature_algorithms, |list| {
            context.set_sigalgs_list(&each(list, signature_algorithm_name))
        })?;
        for root in &settings.roots {
            let root = X509::from_der(root.der()).map_err(|e| setup_error("add_root", e))?;
            context.cert_store_mut().add_cert(root).map_err(|e| setup_error("add_root", e))?;
        }
        // Any certificate given as a root is one, self-signed or not.
        context.verify_param_mut().set_flags(X509VerifyFlags::PARTIAL_CHAIN).map_err(general)?;
        if role == Role::Server && settings.has_choice() {
            // One of the context's own would stay beside those of the connection.
            Identities::new(&self.settings)?.attend(&mut context);
        } else if let Some(identity) = &settings.identity {
            Parsed::new(identity)?.set(&mut context).map_err(|e| identities::error(identity, e))?;
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
    fn open(
        &self,
        role: Role,
        server_name: &str,
        versions: Bounds,
        resume: Option<&Resumable>,
    ) -> Result<Box<dyn Session>, Error> {
        let context = match (role, &self.server) {
            (Role::Client, _) => self.client_context()?,
            (Role::Server, Some(context)) => context.clone(),
            (Role::Server, None) => return Err(Error::invalid_input("a server needs a context with an identity")),
        };
        refuse_ssl3(versions)?;
        if role == Role::Server && self.settings.session_lifetime.is_some() {
            // The openssl crate has no way to say it.
            return Err(Engine::OpenSsl.cannot("session_lifetime as a server"));
        }
        let made = (|| {
            let mut ssl = Ssl::new(&context)?;
            if versions != Bounds::default() {
                let versions = versions.or(self.settings.versions);
                bound(&mut ssl, versions)?;
                if versions.lowest() < Version::Tls1_2 && role == Role::Server && self.settings.cipher_list.is_none() {
                    ssl.set_cipher_list(CIPHERS)?;
                }
            }
            if self.settings.judges_peers() {
                let name = (role == Role::Client).then_some(server_name);
                ssl.set_ex_data(Judgement::index()?, Judgement::of(name));
            }
            let mut client = Client::default();
            if role == Role::Client {
                self.prepare_client(&mut ssl, server_name)?;
                client = match (resume, &self.store) {
                    (Some(shared), _) => Client::resume(&mut ssl, shared)?,
                    (None, Some(store)) => store.serve(&mut ssl, server_name)?,
                    (None, None) => client,
                };
            }
            Ok((ssl, client))
        })();
        let (ssl, client) = made.map_err(|e| setup_error("OpenSSL", e))?;
        OpenSslSession::open(ssl, role, server_name, !self.settings.accept_invalid_certs, client)
    }

    fn resumable_from(&self, kept: &[u8]) -> Option<Result<Resumable, Error>> {
        Some(Client::resumable_from(kept))
    }
}

impl OpenSsl {
    fn prepare_client(&self, ssl: &mut Ssl, server_name: &str) -> Result<(), ErrorStack> {
        let ip = server_name.parse::<IpAddr>().ok();
        // SNI is for names only (RFC 6066, section 3).
        if self.settings.sni && ip.is_none() {
            ssl.set_hostname(server_name)?;
        }
        if !self.settings.accept_invalid_certs && !self.settings.accept_invalid_hostnames {
            expect_name(ssl, server_name, self.settings.accept_common_names)?;
        }
        if self.settings.ocsp_stapling {
            ssl.set_status_type(StatusType::OCSP)?;
        }
        Ok(())
    }
}

#[allow(unsafe_code, reason = "the openssl crate has no call for it")]
fn allow_post_handshake_auth(context: &mut SslContextBuilder) {
    // SAFETY: the pointer is that of a live `SSL_CTX`, which nobody else has yet, and the call sets a flag in it.
    unsafe { openssl_sys::SSL_CTX_set_post_handshake_auth(context.as_ptr(), 1) }
}

/// Accepts certificates for this name only: one of subjectAltName, or of the CN where that counts.
fn expect_name(ssl: &mut SslRef, name: &str, may_be_common: bool) -> Result<(), ErrorStack> {
    let param = ssl.param_mut();
    let mut flags = X509CheckFlags::NO_PARTIAL_WILDCARDS;
    flags.set(X509CheckFlags::NEVER_CHECK_SUBJECT, !may_be_common);
    param.set_hostflags(flags);
    match name.parse() {
        Ok(ip) => param.set_ip(ip),
        Err(_) => param.set_host(name),
    }
}

/// The index for something of ours in an `Ssl`, made at first use.
fn index<T: Send + Sync + 'static>(made: &OnceLock<Index<Ssl, T>>) -> Result<Index<Ssl, T>, ErrorStack> {
    match made.get() {
        Some(index) => Ok(*index),
        None => {
            let index = Ssl::new_ex_index()?;
            Ok(*made.get_or_init(|| index))
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

/// OpenSSL 3 has TLS 1.0 and 1.1 at the lowest level only, whatever their range.
fn set_security_level(context: &mut SslContextBuilder, settings: &Settings) {
    if settings.versions.lowest() < Version::Tls1_2 {
        context.set_security_level(0);
    }
}

/// The versions of one connection, whatever its context says.
fn bound(ssl: &mut SslRef, versions: Bounds) -> Result<(), ErrorStack> {
    set_versions(versions, |v| ssl.set_min_proto_version(v))?;
    ssl.set_max_proto_version(versions.max.and_then(protocol))?;
    if versions.lowest() < Version::Tls1_2 {
        ssl.set_security_level(0);
    }
    Ok(())
}

/// SSL 3.0 is not to be had.
fn refuse_ssl3(versions: Bounds) -> Result<(), Error> {
    match [versions.min, versions.max].contains(&Some(Version::Ssl3)) {
        true => Err(Engine::OpenSsl.cannot("SSLv3")),
        false => Ok(()),
    }
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

/// Hands a list of names to the library, if there is one.
fn set_list(
    option: &str,
    list: &Option<String>,
    set: impl FnOnce(&str) -> Result<(), ErrorStack>,
) -> Result<(), Error> {
    match list {
        // It would not survive as a string of C.
        Some(list) if list.contains('\0') => Err(Error::invalid_input(format!("{option}: {list:?} has a NUL in it"))),
        Some(list) => set(list).map_err(|e| setup_error(&format!("{option} {list:?}"), e)),
        None => Ok(()),
    }
}

/// The list with each name as OpenSSL spells it.
fn each(list: &str, spell: impl Fn(&str) -> String) -> String {
    list.split(':').map(spell).collect::<Vec<_>>().join(":")
}

/// Groups as OpenSSL spells them and as the registry of IANA does. It knows the hybrids, from 3.5 on, in any case of letters.
const GROUPS: [(&str, &str); 5] =
    [("X25519", "x25519"), ("X448", "x448"), ("P-256", "secp256r1"), ("P-384", "secp384r1"), ("P-521", "secp521r1")];

fn group_name(name: &str) -> String {
    let known = GROUPS.iter().find(|names| name.eq_ignore_ascii_case(names.0) || name.eq_ignore_ascii_case(names.1));
    known.map_or(name, |names| names.0).to_string()
}

/// Those of TLS 1.3 are in lower case; OpenSSL has others, as "RSA+SHA256".
fn signature_algorithm_name(name: &str) -> String {
    match name.contains('+') {
        true => name.to_string(),
        false => name.to_ascii_lowercase(),
    }
}

fn setup_error(what: &str, e: ErrorStack) -> Error {
    Error::invalid_input(format!("{what}: {}", reasons(&e.to_string()))).with_source(e)
}

fn certificate(certificate: &X509Ref) -> Option<Certificate> {
    certificate.to_der().ok().map(Certificate::from_library)
}
