//! A TLS peer in memory that puts any protected record on the wire, and reads any: rustls for the handshake, its keys, then
//! by hand.

use std::sync::{Arc, Mutex};

use ring::aead::{Aad, LessSafeKey, Nonce, UnboundKey, AES_128_GCM};
use ring::hkdf::{KeyType, Prk, HKDF_SHA256};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{ring as provider, CryptoProvider};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::version::{TLS12, TLS13};
use rustls::CipherSuite::{TLS13_AES_128_GCM_SHA256, TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256};
use rustls::{
    ClientConfig, ClientConnection, Connection as Tls, ConnectionTrafficSecrets, DigitallySignedStruct, Error, KeyLog,
    ServerConfig, ServerConnection, SignatureScheme, SupportedProtocolVersion,
};
use sslfile::{Connection, Engine, Role, Version};

use super::common::{certs, client_builder, server_builder, NAME};
use super::records;

pub const ALERT: u8 = 21;
pub const HANDSHAKE: u8 = 22;
pub const DATA: u8 = 23;

/// One direction.
struct Direction {
    is_tls13: bool,
    /// Of TLS 1.3.
    secret: Vec<u8>,
    key: LessSafeKey,
    iv: Vec<u8>,
    sequence: u64,
}

pub struct Evil {
    sends: Direction,
    receives: Direction,
}

/// A connection of ours, with the peer; `role` is ours. `None` where the engine does not speak the version in the role.
pub fn pair(engine: Engine, role: Role, version: Version) -> Option<(Connection, Evil)> {
    if engine == Engine::Native && role == Role::Server && version == Version::Tls1_3 {
        return None;
    }
    let mut ours = match role {
        Role::Client => Connection::client(&client_builder(engine).build().expect("context"), NAME),
        Role::Server => Connection::server(&server_builder(engine).build().expect("context")),
    }
    .expect("connection");
    let log = Arc::new(Log::default());
    let mut theirs = peer(role, version, &log);
    while !ours.is_handshake_done() || theirs.is_handshaking() {
        let before = ours.traffic();
        let _ = ours.handshake();
        let mut output = ours.output();
        while !output.is_empty() {
            theirs.read_tls(&mut output).expect("memory");
        }
        ours.consume_output(usize::MAX);
        theirs.process_new_packets().expect("handshake");
        let mut answer = Vec::new();
        while theirs.wants_write() {
            theirs.write_tls(&mut answer).expect("memory");
        }
        ours.feed(&answer);
        let has_moved = !answer.is_empty() || ours.traffic() != before;
        assert!(has_moved, "{engine:?} {role:?} {version:?}: {:?}", ours.handshake());
    }
    // Of the records behind the handshake, a server's tickets have been read.
    if version == Version::Tls1_3 {
        let direction = |of: &str, sequence| {
            let log = log.0.lock().expect("log");
            let (_, secret) = log.iter().find(|(label, _)| label == of).expect("secret");
            Direction::of_tls13(secret.clone(), sequence)
        };
        let tickets = theirs.dangerous_extract_secrets().expect("secrets").rx.0;
        let (client, server) = ("CLIENT_TRAFFIC_SECRET_0", "SERVER_TRAFFIC_SECRET_0");
        let (sends, receives) = match role {
            Role::Client => (direction(server, 0), direction(client, tickets)),
            Role::Server => (direction(client, 0), direction(server, tickets)),
        };
        return Some((ours, Evil { sends, receives }));
    }
    let secrets = theirs.dangerous_extract_secrets().expect("secrets");
    let direction = |(sequence, secrets)| match secrets {
        ConnectionTrafficSecrets::Aes128Gcm { key, iv } => Direction {
            is_tls13: false,
            secret: Vec::new(),
            key: aead(key.as_ref()),
            iv: iv.as_ref().to_vec(),
            sequence,
        },
        _ => panic!("another cipher"),
    };
    Some((ours, Evil { sends: direction(secrets.tx), receives: direction(secrets.rx) }))
}

fn peer(role: Role, version: Version, log: &Arc<Log>) -> Tls {
    let versions: &[&SupportedProtocolVersion] = if version == Version::Tls1_3 { &[&TLS13] } else { &[&TLS12] };
    let mut suites = provider::default_provider();
    let wanted = [TLS13_AES_128_GCM_SHA256, TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256];
    suites.cipher_suites.retain(|suite| wanted.contains(&suite.suite()));
    let suites: Arc<CryptoProvider> = Arc::new(suites);
    match role {
        Role::Server => {
            let config =
                ClientConfig::builder_with_provider(suites).with_protocol_versions(versions).expect("versions");
            let config = config.dangerous().with_custom_certificate_verifier(Arc::new(Unchecked));
            let mut config = config.with_no_client_auth();
            (config.key_log, config.enable_secret_extraction) = (log.clone(), true);
            let name = ServerName::try_from(NAME).expect("name");
            ClientConnection::new(Arc::new(config), name).expect("client").into()
        }
        Role::Client => {
            let config =
                ServerConfig::builder_with_provider(suites).with_protocol_versions(versions).expect("versions");
            let pair = &certs().ecdsa;
            let chain = CertificateDer::pem_slice_iter(pair.chain.as_bytes()).map(|c| c.expect("PEM")).collect();
            let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).expect("key");
            let mut config = config.with_no_client_auth().with_single_cert(chain, key).expect("identity");
            (config.key_log, config.enable_secret_extraction) = (log.clone(), true);
            config.send_tls13_tickets = 0;
            ServerConnection::new(Arc::new(config)).expect("server").into()
        }
    }
}

impl Evil {
    /// One protected record of this type with this content.
    pub fn record(&mut self, kind: u8, content: &[u8]) -> Vec<u8> {
        self.sends.seal(kind, content)
    }

    pub fn data(&mut self, content: &[u8]) -> Vec<u8> {
        self.record(DATA, content)
    }

    pub fn key_update(&mut self, asks_for_one: bool) -> Vec<u8> {
        let record = self.record(HANDSHAKE, &[24, 0, 0, 1, asks_for_one.into()]);
        self.sends.update();
        record
    }

    pub fn session_ticket(&mut self, number: u32) -> Vec<u8> {
        let ticket = [&number.to_be_bytes()[..], &[7; 28]].concat();
        let body = [&[0, 0, 1, 0, 0, 0, 0, 9, 1, 5, 0, ticket.len() as u8][..], &ticket, &[0, 0]].concat();
        self.record(HANDSHAKE, &[&[4, 0, 0, body.len() as u8][..], &body].concat())
    }

    /// What the records hold: their true types, and the contents.
    pub fn open(&mut self, bytes: &[u8]) -> Vec<(u8, Vec<u8>)> {
        let opened = records(bytes).into_iter().map(|record| {
            let (kind, content) = self.receives.open(record);
            if (kind, content.first()) == (HANDSHAKE, Some(&24)) {
                self.receives.update();
            }
            (kind, content)
        });
        opened.collect()
    }
}

impl Direction {
    fn of_tls13(secret: Vec<u8>, sequence: u64) -> Direction {
        let (key, iv) = (expand(&secret, "key", 16), expand(&secret, "iv", 12));
        Direction { is_tls13: true, secret, key: aead(&key), iv, sequence }
    }

    fn update(&mut self) {
        *self = Direction::of_tls13(expand(&self.secret, "traffic upd", 32), 0);
    }

    fn nonce(&self, explicit: &[u8]) -> Nonce {
        let mut nonce = self.iv.clone();
        match self.is_tls13 {
            true => nonce[4..].iter_mut().zip(self.sequence.to_be_bytes()).for_each(|(n, s)| *n ^= s),
            false => nonce.splice(4.., explicit.iter().copied()).for_each(drop),
        }
        Nonce::try_assume_unique_for_key(&nonce).expect("nonce")
    }

    /// What is authenticated with a record of TLS 1.2.
    fn aad12(&self, kind: u8, length: usize) -> Vec<u8> {
        [&self.sequence.to_be_bytes()[..], &[kind, 3, 3], &(length as u16).to_be_bytes()].concat()
    }

    fn seal(&mut self, kind: u8, content: &[u8]) -> Vec<u8> {
        let explicit = self.sequence.to_be_bytes();
        let mut text = content.to_vec();
        let record = if self.is_tls13 {
            text.push(kind);
            let head = [&[DATA, 3, 3][..], &((text.len() + 16) as u16).to_be_bytes()].concat();
            self.key.seal_in_place_append_tag(self.nonce(&[]), Aad::from(&head), &mut text).expect("seal");
            [head, text].concat()
        } else {
            let aad = self.aad12(kind, text.len());
            self.key.seal_in_place_append_tag(self.nonce(&explicit), Aad::from(aad), &mut text).expect("seal");
            [&[kind, 3, 3][..], &((text.len() + 8) as u16).to_be_bytes(), &explicit, &text].concat()
        };
        self.sequence += 1;
        record
    }

    fn open(&mut self, record: &[u8]) -> (u8, Vec<u8>) {
        let (head, body) = record.split_at(5);
        let opened = if self.is_tls13 {
            let mut text = body.to_vec();
            let text = self.key.open_in_place(self.nonce(&[]), Aad::from(head), &mut text).expect("a record of ours");
            let (kind, content) = text.split_last().expect("a type");
            (*kind, content.to_vec())
        } else {
            let (explicit, text) = body.split_at(8);
            let aad = self.aad12(head[0], text.len() - 16);
            let mut text = text.to_vec();
            let nonce = self.nonce(explicit);
            let content = self.key.open_in_place(nonce, Aad::from(aad), &mut text).expect("a record of ours");
            (head[0], content.to_vec())
        };
        self.sequence += 1;
        opened
    }
}

fn aead(key: &[u8]) -> LessSafeKey {
    LessSafeKey::new(UnboundKey::new(&AES_128_GCM, key).expect("key"))
}

struct Length(usize);

impl KeyType for Length {
    fn len(&self) -> usize {
        self.0
    }
}

/// HKDF-Expand-Label (RFC 8446, section 7.1).
fn expand(secret: &[u8], label: &str, length: usize) -> Vec<u8> {
    let label = [b"tls13 ", label.as_bytes()].concat();
    let info = [&(length as u16).to_be_bytes()[..], &[label.len() as u8], &label, &[0]].concat();
    let mut out = vec![0; length];
    let secret = Prk::new_less_safe(HKDF_SHA256, secret);
    secret.expand(&[&info], Length(length)).and_then(|okm| okm.fill(&mut out)).expect("HKDF");
    out
}

#[derive(Debug, Default)]
struct Log(Mutex<Vec<(String, Vec<u8>)>>);

impl KeyLog for Log {
    fn log(&self, label: &str, _: &[u8], secret: &[u8]) {
        self.0.lock().expect("log").push((label.to_string(), secret.to_vec()));
    }
}

#[derive(Debug)]
struct Unchecked;

impl ServerCertVerifier for Unchecked {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider::default_provider().signature_verification_algorithms.supported_schemes()
    }
}
