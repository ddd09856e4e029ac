//! The platform's library through the `native-tls` crate.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::sync::Arc;

use native_tls::{HandshakeError, MidHandshakeTlsStream, Protocol, TlsAcceptor, TlsConnector, TlsStream};
use parking_lot::Mutex;

use super::alert::{Report, Verdict};
use super::overheard::Overheard;
use super::{end_point, Engine, Foreign, Library, Resumable, Session, Stop, Wire};
use crate::certificate::Certificate;
use crate::error::{reasons, Error};
use crate::identity::native as native_identity;
use crate::role::Role;
use crate::settings::{ClientAuth, Settings};
use crate::version::{Bounds, Version};

/// Where `native-tls` is OpenSSL its acceptor has no TLS 1.3.
const ACCEPTOR_STOPS_AT_1_2: bool = cfg!(not(any(windows, target_vendor = "apple")));

/// Where it is OpenSSL a name in the CN counts, and `native-tls` has no way to say no.
const COUNTS_COMMON_NAMES: bool = cfg!(not(any(windows, target_vendor = "apple")));

/// What `native-tls` makes of SChannel takes its own close_notify for the end of both directions: it decrypts nothing behind
/// it, and calls that the peer's end.
const DEAF_BEHIND_CLOSE: bool = cfg!(windows);

/// One context's settings as connectors and acceptors: `native-tls` fixes the versions in them, so there is one for each
/// pair of bounds in use, made once.
pub(super) struct Native {
    settings: Settings,
    identity: Option<native_tls::Identity>,
    connectors: Mutex<HashMap<Bounds, TlsConnector>>,
    acceptors: Mutex<HashMap<Bounds, TlsAcceptor>>,
}

impl Native {
    pub fn new(settings: &Settings) -> Result<Native, Error> {
        let refused = [
            (settings.client_auth != ClientAuth::None, "client_auth"),
            (settings.post_handshake_auth, "post_handshake_auth"),
            (settings.cipher_list.is_some(), "cipher_list"),
            (settings.ciphersuites.is_some(), "ciphersuites"),
            (settings.groups.is_some(), "groups"),
            (settings.signature_algorithms.is_some(), "signature_algorithms"),
            (settings.prefer_server_order.is_some(), "prefer_server_order"),
            (settings.session_resumption == Some(true), "session_resumption"),
            (settings.session_lifetime.is_some(), "session_lifetime"),
            (settings.session_cache_size.is_some(), "session_cache_size"),
            (settings.tickets.is_some(), "tickets"),
            (settings.key_log_file.is_some(), "key_log_file"),
            (settings.key_log.is_some(), "key_log"),
            (!settings.named_identities.is_empty(), "add_identity"),
            (settings.choose_identity.is_some(), "choose_identity"),
            (!settings.crls.is_empty(), "add_crls"),
            (!settings.pins.is_empty(), "pin"),
            (settings.verify.is_some(), "verify"),
            (settings.ocsp_stapling, "ocsp_stapling"),
            (settings.accept_common_names && !COUNTS_COMMON_NAMES, "accept_common_names"),
            (settings.alpn.iter().any(|p| std::str::from_utf8(p).is_err()), "an ALPN protocol that is not UTF-8"),
        ];
        if let Some((_, option)) = refused.iter().find(|(asked, _)| *asked) {
            return Err(Engine::Native.cannot(option));
        }
        let identity = match &settings.identity {
            None => None,
            Some(identity) => {
                let read = native_identity(identity.material());
                Some(read.map_err(|e| setup_error(&format!("the identity from {}", identity.material().origin), e))?)
            }
        };
        let library =
            Native { settings: settings.clone(), identity, connectors: Mutex::default(), acceptors: Mutex::default() };
        // Makes errors show now, and pays for the system's roots.
        match library.identity {
            Some(_) => library.acceptor(Bounds::default()).map(drop)?,
            None => library.connector(Bounds::default()).map(drop)?,
        }
        Ok(library)
    }

    fn connector(&self, versions: Bounds) -> Result<TlsConnector, Error> {
        let versions = versions.or(self.settings.versions);
        if let Some(connector) = self.connectors.lock().get(&versions) {
            return Ok(connector.clone());
        }
        let settings = &self.settings;
        let mut builder = TlsConnector::builder();
        builder
            .min_protocol_version(Some(protocol(versions.lowest())?))
            .max_protocol_version(versions.max.map(protocol).transpose()?)
            .disable_built_in_roots(settings.system_roots == Some(false))
            .use_sni(settings.sni)
            .danger_accept_invalid_hostnames(settings.accept_invalid_hostnames)
            .danger_accept_invalid_certs(settings.accept_invalid_certs)
            .request_alpns(&alpn(settings));
        for root in &settings.roots {
            let root = native_tls::Certificate::from_der(root.der()).map_err(|e| setup_error("add_root", e))?;
            builder.add_root_certificate(root);
        }
        if let Some(identity) = &self.identity {
            builder.identity(identity.clone());
        }
        let connector = builder.build().map_err(|e| setup_error("the client settings", e))?;
        self.connectors.lock().insert(versions, connector.clone());
        Ok(connector)
    }

    fn acceptor(&self, versions: Bounds) -> Result<TlsAcceptor, Error> {
        let Some(identity) = &self.identity else {
            return Err(Error::invalid_input("a server needs a context with an identity"));
        };
        let versions = versions.or(self.settings.versions);
        if ACCEPTOR_STOPS_AT_1_2 && versions.lowest() > Version::Tls1_2 {
            return Err(Engine::Native.cannot("TLSv1.3 as a server"));
        }
        if self.settings.session_resumption == Some(false) {
            return Err(Engine::Native.cannot("session_resumption(false) as a server"));
        }
        if let Some(acceptor) = self.acceptors.lock().get(&versions) {
            return Ok(acceptor.clone());
        }
        let mut builder = TlsAcceptor::builder(identity.clone());
        builder
            .min_protocol_version(Some(protocol(versions.lowest())?))
            .max_protocol_version(versions.max.map(protocol).transpose()?);
        if !self.settings.alpn.is_empty() {
            builder.accept_alpn(&alpn(&self.settings));
        }
        let acceptor = builder.build().map_err(|e| {
            let origin = self.settings.identity.as_ref().map_or("", |i| &i.material().origin);
            setup_error(&format!("the server settings, with the identity from {origin}"), e)
        })?;
        self.acceptors.lock().insert(versions, acceptor.clone());
        Ok(acceptor)
    }
}

pub(super) fn reads(certificate: &Certificate) -> bool {
    native_tls::Certificate::from_der(certificate.der()).is_ok()
}

impl Library for Native {
    fn open(
        &self,
        role: Role,
        server_name: &str,
        versions: Bounds,
        _resume: Option<&Resumable>,
    ) -> Result<Box<dyn Session>, Error> {
        let start = match role {
            Role::Client => Start::Client(self.connector(versions)?, server_name.to_string()),
            Role::Server => Start::Server(self.acceptor(versions)?),
        };
        let own = self.settings.identity.as_ref().filter(|_| role == Role::Server);
        Ok(NativeSession::open(start, own.and_then(|own| own.material().chain.first().cloned())))
    }
}

/// Made elsewhere, for one role.
enum Made {
    Connector(TlsConnector),
    Acceptor(TlsAcceptor),
}

impl Foreign for TlsConnector {
    const ENGINE: Engine = Engine::Native;

    fn into_library(self) -> Box<dyn Library> {
        Box::new(Made::Connector(self))
    }
}

impl Foreign for TlsAcceptor {
    const ENGINE: Engine = Engine::Native;

    fn into_library(self) -> Box<dyn Library> {
        Box::new(Made::Acceptor(self))
    }
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
            return Err(Engine::Native.cannot("version bounds of a file, on a context made elsewhere"));
        }
        let start = match (self, role) {
            (Made::Connector(connector), Role::Client) => Start::Client(connector.clone(), server_name.to_string()),
            (Made::Acceptor(acceptor), Role::Server) => Start::Server(acceptor.clone()),
            (Made::Connector(_), Role::Server) => {
                return Err(Error::invalid_input("a context made from a TlsConnector is for clients only"))
            }
            (Made::Acceptor(_), Role::Client) => {
                return Err(Error::invalid_input("a context made from a TlsAcceptor is for servers only"))
            }
        };
        Ok(NativeSession::open(start, None))
    }
}

fn protocol(version: Version) -> Result<Protocol, Error> {
    match version {
        Version::Ssl3 => Err(Engine::Native.cannot("SSLv3")),
        Version::Tls1_0 => Ok(Protocol::Tlsv10),
        Version::Tls1_1 => Ok(Protocol::Tlsv11),
        Version::Tls1_2 => Ok(Protocol::Tlsv12),
        Version::Tls1_3 => Ok(Protocol::Tlsv13),
    }
}

fn alpn(settings: &Settings) -> Vec<&str> {
    settings.alpn.iter().filter_map(|p| std::str::from_utf8(p).ok()).collect()
}

fn setup_error(what: &str, e: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::invalid_input(format!("{what}: {}", reasons(&e.to_string()))).with_source(e)
}

/// The wire while the library has it. Shared, because a handshake that fails drops its stream, and with it would go the
/// alert for the peer.
#[derive(Clone, Default)]
struct Lent(Arc<Mutex<Wire>>);

impl Read for Lent {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.0.lock().read(buf)
    }
}

impl Write for Lent {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.0.lock().write(buf)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

enum Start {
    Client(TlsConnector, String),
    Server(TlsAcceptor),
}

/// How far the handshake is: `native-tls` has a type for each.
enum Stage {
    Start(Start),
    Handshaking(MidHandshakeTlsStream<Lent>),
    Done(TlsStream<Lent>),
    Failed,
}

struct NativeSession {
    stage: Stage,
    is_server: bool,
    /// A server's own certificate, if we know it.
    shown: Option<Certificate>,
    lent: Lent,
    /// Whom a client expects.
    expected: String,
    /// What a client's server shows, until the handshake is done: `native-tls` does not tell what it has refused.
    overheard: Overheard,
    /// The last read was filled: its record may have more.
    may_have_more: bool,
    /// Our close_notify has been said.
    closed: bool,
}

impl NativeSession {
    fn open(start: Start, shown: Option<Certificate>) -> Box<dyn Session> {
        let expected = match &start {
            Start::Client(_, name) => name.clone(),
            Start::Server(_) => String::new(),
        };
        Box::new(NativeSession {
            is_server: matches!(start, Start::Server(_)),
            expected,
            overheard: Overheard::default(),
            stage: Stage::Start(start),
            shown,
            lent: Lent::default(),
            may_have_more: false,
            closed: false,
        })
    }

    /// Lends the wire to the library for one call.
    fn call<T>(&mut self, wire: &mut Wire, f: impl FnOnce(&mut Stage, &Lent) -> T) -> T {
        std::mem::swap(&mut *self.lent.0.lock(), wire);
        let result = f(&mut self.stage, &self.lent);
        std::mem::swap(&mut *self.lent.0.lock(), wire);
        result
    }

    fn transfer(
        &mut self,
        wire: &mut Wire,
        f: impl FnOnce(&mut TlsStream<Lent>) -> io::Result<usize>,
    ) -> Result<usize, Stop> {
        let result = self.call(wire, |stage, _| match stage {
            Stage::Done(stream) => f(stream),
            _ => Err(io::ErrorKind::NotConnected.into()),
        });
        result.map_err(|e| self.stop(e, wire))
    }

    fn stop(&self, e: io::Error, wire: &Wire) -> Stop {
        match e.kind() {
            io::ErrorKind::WouldBlock => Stop::NeedsInput,
            // Its renegotiation is to come to an end first.
            _ if reason(&e.to_string()) == Some(SHUTDOWN_WHILE_IN_INIT) => Stop::NeedsInput,
            _ => Stop::Failed(self.failure(e.to_string(), e, wire)),
        }
    }

    fn failure(&self, text: String, e: impl std::error::Error + Send + Sync + 'static, wire: &Wire) -> Error {
        let refused = self.overheard.certificates();
        let verdict = verdict(&text, &refused, &self.expected);
        let reason = reason(&text);
        let (alert_sent, is_mute) = (wire.alert_sent, wire.is_mute());
        let report =
            Report { reason, alert_sent, verdict, refused, is_mute, text: reasons(&text), ..Report::default() };
        report.judge().with_source(e)
    }

    fn done(&self) -> Option<&TlsStream<Lent>> {
        match &self.stage {
            Stage::Done(stream) => Some(stream),
            _ => None,
        }
    }
}

impl Session for NativeSession {
    fn handshake(&mut self, wire: &mut Wire) -> Result<(), Stop> {
        if !self.expected.is_empty() && self.done().is_none() {
            self.overheard.hear(wire.admitted());
        }
        let result = self.call(wire, |stage, lent| {
            let result = match std::mem::replace(stage, Stage::Failed) {
                Stage::Start(Start::Client(connector, name)) => connector.connect(&name, lent.clone()),
                Stage::Start(Start::Server(acceptor)) => acceptor.accept(lent.clone()),
                Stage::Handshaking(stream) => stream.handshake(),
                Stage::Done(stream) => Ok(stream),
                Stage::Failed => return Err(None),
            };
            match result {
                Ok(stream) => {
                    *stage = Stage::Done(stream);
                    Ok(true)
                }
                Err(HandshakeError::WouldBlock(stream)) => {
                    *stage = Stage::Handshaking(stream);
                    Ok(false)
                }
                Err(HandshakeError::Failure(e)) => Err(Some(e)),
            }
        });
        match result {
            Ok(true) => {
                self.overheard = Overheard::default();
                Ok(())
            }
            Ok(false) => Err(Stop::NeedsInput),
            Err(Some(e)) => Err(Stop::Failed(self.failure(e.to_string(), e, wire))),
            Err(None) => Err(Stop::Failed(Error::new(crate::ErrorKind::Protocol, "the handshake has failed"))),
        }
    }

    fn read(&mut self, wire: &mut Wire, buf: &mut [u8]) -> Result<usize, Stop> {
        if DEAF_BEHIND_CLOSE && self.closed {
            // Whoever reads learns at the stream's end that something may be missing.
            wire.clear_input();
            return Err(Stop::NeedsInput);
        }
        // `Ok(0)` can only be the close_notify: the wire has no end.
        let n = self.transfer(wire, |s| s.read(buf))?;
        self.may_have_more = n == buf.len();
        Ok(n)
    }

    fn write(&mut self, wire: &mut Wire, data: &[u8]) -> Result<usize, Stop> {
        self.transfer(wire, |s| s.write(data))
    }

    fn close(&mut self, wire: &mut Wire) -> Result<(), Stop> {
        let result = self.transfer(wire, |s| s.shutdown().map(|()| 0)).map(drop);
        self.closed = !matches!(result, Err(Stop::NeedsInput));
        result
    }

    fn pending(&self) -> usize {
        let stream = self.done().filter(|_| self.may_have_more);
        stream.and_then(|s| s.buffered_read_size().ok()).unwrap_or(0)
    }

    fn alpn(&self) -> Option<Vec<u8>> {
        self.done()?.negotiated_alpn().ok()?
    }

    fn peer_certificate(&self) -> Option<Certificate> {
        let certificate = self.done()?.peer_certificate().ok()??;
        certificate.to_der().ok().map(Certificate::from_library)
    }

    fn tls_server_end_point(&self) -> Option<Vec<u8>> {
        // native-tls asks the name of the signature, which for RSASSA-PSS says nothing of its hash.
        let known = self.done()?.tls_server_end_point().ok()?;
        known.or_else(|| match self.is_server {
            true => end_point(self.shown.as_ref()?.der()),
            false => end_point(self.peer_certificate()?.der()),
        })
    }

    fn export_keying_material(&self, _: &mut [u8], _: &str, _: Option<&[u8]>) -> Result<(), Error> {
        Err(Engine::Native.cannot("export_keying_material"))
    }
}

/// What Windows says of a certificate, by the number that ends the text (winerror.h).
#[cfg(windows)]
fn verdict(text: &str, chain: &[Certificate], expected: &str) -> Option<Verdict> {
    let (_, number) = text.rsplit_once("(os error ")?;
    let code: i32 = number.trim_end_matches(')').parse().ok()?;
    use super::verdict::Fault;
    match code as u32 {
        // CERT_E_CN_NO_MATCH, SEC_E_WRONG_PRINCIPAL
        0x800b_010f | 0x8009_0322 => Some(Fault::WrongName(Vec::new())),
        // CERT_E_EXPIRED, SEC_E_CERT_EXPIRED, which stand for what is not valid yet as well
        0x800b_0101 | 0x8009_0328 if !chain.is_empty() => Some(Fault::Expired(None)),
        // CERT_E_*; TRUST_E_CERT_SIGNATURE; SEC_E_UNTRUSTED_ROOT, SEC_E_CERT_UNKNOWN; CRYPT_E_REVOKED and what keeps from asking
        0x800b_0101..=0x800b_0114
        | 0x8009_6004
        | 0x8009_0325
        | 0x8009_0327
        | 0x8009_0328
        | 0x8009_2010..=0x8009_2013 => Some(Fault::Other(text.to_string())),
        _ => None,
    }
    .map(|fault| super::verdict::verdict(fault, chain, expected))
}

/// `native-tls` tells what happened in words only. Where it is OpenSSL these have a fixed form.
#[cfg(not(windows))]
fn verdict(text: &str, chain: &[Certificate], expected: &str) -> Option<Verdict> {
    if !text.contains("certificate verify failed") {
        return None;
    }
    let why = text.rsplit_once(" (")?.1.trim_end_matches(')');
    Some(super::verdict::verdict(super::alert::of_openssl(why), chain, expected))
}

/// SSL_R_SHUTDOWN_WHILE_IN_INIT.
const SHUTDOWN_WHILE_IN_INIT: u32 = 407;

/// The reason in OpenSSL's form "error:0A000086:SSL routines:…": the low bits of the first number that is the TLS
/// layer's own.
fn reason(text: &str) -> Option<u32> {
    const SSL_LIBRARY: u32 = 20;
    // The `openssl` crate's words for it.
    if text == "the SSL session has been shut down" {
        return Some(Report::PEER_CLOSED);
    }
    let codes = text.split("error:").skip(1).filter_map(|e| u32::from_str_radix(e.split(':').next()?, 16).ok());
    // OpenSSL 3 has the library in bits 23 to 30 and the reason below; OpenSSL 1.1 in 24 to 31 and 12 bits of reason.
    codes
        .filter_map(|code| match (code >> 23, code >> 24) {
            (SSL_LIBRARY, _) => Some(code & 0x7f_ffff),
            (_, SSL_LIBRARY) => Some(code & 0xfff),
            _ => None,
        })
        .next()
}
