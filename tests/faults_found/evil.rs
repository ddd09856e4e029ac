//! A TLS peer that can put any protected record on the wire: rustls shakes hands, and then records are made by hand.

use std::collections::HashMap;
use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::{Arc, Mutex};

use ring::aead::{Aad, LessSafeKey, Nonce, UnboundKey, AES_128_GCM};
use ring::hkdf::{KeyType, Prk, HKDF_SHA256};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{ring as provider, CryptoProvider};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::version::{TLS12, TLS13};
use rustls::{
    CipherSuite, ClientConfig, ClientConnection, Connection, ConnectionTrafficSecrets, DigitallySignedStruct, Error,
    KeyLog, ServerConfig, ServerConnection, SignatureScheme, SupportedProtocolVersion,
};
use sslfile::{Engine, Handshake, Role, SslFile, SslOptions, Version};

use crate::common::{certs, client_context, server_context, tcp_pair, NAME};

/// Content types of records.
pub const ALERT: u8 = 21;
pub const HANDSHAKE: u8 = 22;
pub const DATA: u8 = 23;

/// One direction.
struct Keys {
    /// What the next keys are made from (TLS 1.3).
    secret: Vec<u8>,
    key: LessSafeKey,
    iv: [u8; 12],
    seq: u64,
}

pub struct Evil {
    pub tcp: TcpStream,
    is_tls13: bool,
    write: Keys,
    read: Keys,
}

/// Whether the file can speak this version in this role: native-tls on OpenSSL accepts TLS 1.2 at most.
pub fn speaks(engine: Engine, role: Role, version: Version) -> bool {
    version == Version::Tls1_2 || role == Role::Client || engine != Engine::Native
}

/// A blocking file and the evil end, hands shaken. Both ends' buffers are small, and messages go out at once.
pub fn evil_pair(engine: Engine, role: Role, version: Version, options: SslOptions) -> (SslFile, Evil) {
    let (ours, theirs) = tcp_pair();
    socket2::SockRef::from(&ours).set_send_buffer_size(4096).expect("buffer");
    socket2::SockRef::from(&theirs).set_recv_buffer_size(4096).expect("buffer");
    theirs.set_nodelay(true).expect("nodelay");
    let peer = std::thread::spawn(move || match role {
        Role::Client => Evil::server(theirs, version),
        Role::Server => Evil::client(theirs, version),
    });
    let options = options.handshake(Handshake::Eager);
    let file = match role {
        Role::Client => options.client(NAME).open(ours, &client_context(engine)),
        Role::Server => options.server().open(ours, &server_context(engine)),
    };
    (file.expect("handshake"), peer.join().expect("evil handshake"))
}

/// Those of engine, role and version for which a file and the evil end can be made.
pub fn on_each(versions: &'static [Version], test: fn(Engine, Role, Version)) {
    for engine in crate::common::engines() {
        for role in [Role::Client, Role::Server] {
            for version in versions.iter().copied().filter(|version| speaks(engine, role, *version)) {
                println!("{engine:?} as {role:?}, {version}");
                crate::common::within(crate::common::LONG, move || test(engine, role, version));
            }
        }
    }
}

impl Evil {
    fn client(tcp: TcpStream, version: Version) -> Evil {
        let secrets = Arc::new(Secrets::default());
        let mut config = ClientConfig::builder_with_provider(one_suite())
            .with_protocol_versions(&[supported(version)])
            .expect("version")
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Unchecked))
            .with_no_client_auth();
        config.key_log = secrets.clone();
        config.enable_secret_extraction = true;
        config.resumption = rustls::client::Resumption::disabled();
        let name = ServerName::try_from(NAME).expect("name");
        let tls = ClientConnection::new(Arc::new(config), name).expect("client");
        Evil::shake(tls.into(), tcp, ["CLIENT_TRAFFIC_SECRET_0", "SERVER_TRAFFIC_SECRET_0"], &secrets)
    }

    fn server(tcp: TcpStream, version: Version) -> Evil {
        let secrets = Arc::new(Secrets::default());
        let pair = &certs().ecdsa;
        let leaf = CertificateDer::from_pem_slice(pair.chain.as_bytes()).expect("leaf");
        let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).expect("key");
        let mut config = ServerConfig::builder_with_provider(one_suite())
            .with_protocol_versions(&[supported(version)])
            .expect("version")
            .with_no_client_auth()
            .with_single_cert(vec![leaf], key)
            .expect("certificate");
        config.key_log = secrets.clone();
        config.enable_secret_extraction = true;
        config.send_tls13_tickets = 0;
        let tls = ServerConnection::new(Arc::new(config)).expect("server");
        Evil::shake(tls.into(), tcp, ["SERVER_TRAFFIC_SECRET_0", "CLIENT_TRAFFIC_SECRET_0"], &secrets)
    }

    fn shake(mut tls: Connection, mut tcp: TcpStream, labels: [&str; 2], secrets: &Secrets) -> Evil {
        while tls.is_handshaking() || tls.wants_write() {
            tls.complete_io(&mut tcp).expect("handshake");
        }
        let is_tls13 = tls.protocol_version() == Some(rustls::ProtocolVersion::TLSv1_3);
        let made = tls.dangerous_extract_secrets().expect("secrets");
        let secrets = secrets.0.lock().expect("secrets");
        let keys = |(seq, keys): (u64, ConnectionTrafficSecrets), label: &str| {
            let ConnectionTrafficSecrets::Aes128Gcm { key, iv } = keys else { panic!("another suite") };
            let mut fixed = [0; 12];
            fixed.copy_from_slice(iv.as_ref());
            Keys { secret: secrets.get(label).cloned().unwrap_or_default(), key: gcm(key.as_ref()), iv: fixed, seq }
        };
        Evil { tcp, is_tls13, write: keys(made.tx, labels[0]), read: keys(made.rx, labels[1]) }
    }

    /// One protected record of this type with this content.
    pub fn record(&mut self, kind: u8, content: &[u8]) -> Vec<u8> {
        let keys = &mut self.write;
        let seq = keys.seq.to_be_bytes();
        keys.seq += 1;
        let mut sealed = content.to_vec();
        let mut nonce = keys.iv;
        let (mut record, aad) = if self.is_tls13 {
            nonce[4..].iter_mut().zip(seq).for_each(|(n, s)| *n ^= s);
            sealed.push(kind);
            let head = header(DATA, sealed.len() + 16);
            (head.to_vec(), head.to_vec())
        } else {
            nonce[4..].copy_from_slice(&seq);
            let head = header(kind, content.len() + 24);
            ([&head[..], &seq].concat(), [&seq[..], &header(kind, content.len())].concat())
        };
        let nonce = Nonce::assume_unique_for_key(nonce);
        keys.key.seal_in_place_append_tag(nonce, Aad::from(aad), &mut sealed).expect("sealed");
        record.extend(sealed);
        record
    }

    /// What changes our keys (TLS 1.3), and may ask the file to change its own.
    pub fn key_update(&mut self, ask: bool) -> Vec<u8> {
        let record = self.record(HANDSHAKE, &[24, 0, 0, 1, ask.into()]);
        let keys = &mut self.write;
        keys.secret = expand(&keys.secret, "traffic upd", 32);
        keys.key = gcm(&expand(&keys.secret, "key", 16));
        keys.iv.copy_from_slice(&expand(&keys.secret, "iv", 12));
        keys.seq = 0;
        record
    }

    pub fn send(&mut self, records: &[u8]) -> io::Result<()> {
        self.tcp.write_all(records)
    }

    /// The next record from the file, which must not have changed its keys: type and content. `None` at the end.
    pub fn receive(&mut self) -> io::Result<Option<(u8, Vec<u8>)>> {
        let mut head = [0; 5];
        match self.tcp.read_exact(&mut head) {
            Err(e) if e.kind() == ErrorKind::UnexpectedEof => return Ok(None),
            done => done?,
        }
        let mut sealed = vec![0; u16::from_be_bytes([head[3], head[4]]).into()];
        self.tcp.read_exact(&mut sealed)?;
        let keys = &mut self.read;
        let seq = keys.seq.to_be_bytes();
        keys.seq += 1;
        let mut nonce = keys.iv;
        let aad = if self.is_tls13 {
            nonce[4..].iter_mut().zip(seq).for_each(|(n, s)| *n ^= s);
            head.to_vec()
        } else {
            nonce[4..].copy_from_slice(&sealed.drain(..8).collect::<Vec<_>>());
            [&seq[..], &header(head[0], sealed.len() - 16)].concat()
        };
        let nonce = Nonce::assume_unique_for_key(nonce);
        let plain =
            keys.key.open_in_place(nonce, Aad::from(aad), &mut sealed).map_err(|e| io::Error::other(e.to_string()))?;
        if !self.is_tls13 {
            return Ok(Some((head[0], plain.to_vec())));
        }
        let end = plain.iter().rposition(|byte| *byte != 0).expect("a type");
        Ok(Some((plain[end], plain[..end].to_vec())))
    }

    /// The next data from the file, whatever comes before it.
    pub fn receive_data(&mut self) -> io::Result<Vec<u8>> {
        loop {
            match self.receive()? {
                Some((DATA, data)) => return Ok(data),
                Some(_) => {}
                None => return Err(ErrorKind::UnexpectedEof.into()),
            }
        }
    }

    /// The number of the first alert from the file, whatever comes before it; `None`: the stream ended without one.
    pub fn alert(&mut self) -> Option<u8> {
        loop {
            match self.receive() {
                Ok(Some((ALERT, alert))) => return alert.get(1).copied(),
                Ok(Some(_)) => {}
                Ok(None) | Err(_) => return None,
            }
        }
    }
}

fn header(kind: u8, len: usize) -> [u8; 5] {
    let [high, low] = u16::try_from(len).expect("a record").to_be_bytes();
    [kind, 3, 3, high, low]
}

fn gcm(key: &[u8]) -> LessSafeKey {
    LessSafeKey::new(UnboundKey::new(&AES_128_GCM, key).expect("key"))
}

/// HKDF-Expand-Label without a context (RFC 8446, section 7.1).
fn expand(secret: &[u8], label: &str, len: u8) -> Vec<u8> {
    struct Len(usize);
    impl KeyType for Len {
        fn len(&self) -> usize {
            self.0
        }
    }
    let info = [&[0, len, 6 + label.len() as u8], b"tls13 ".as_slice(), label.as_bytes(), &[0]];
    let mut out = vec![0; len.into()];
    let secret = Prk::new_less_safe(HKDF_SHA256, secret);
    secret.expand(&info, Len(len.into())).and_then(|made| made.fill(&mut out)).expect("expanded");
    out
}

fn supported(version: Version) -> &'static SupportedProtocolVersion {
    match version {
        Version::Tls1_3 => &TLS13,
        _ => &TLS12,
    }
}

/// Of each version the suite that records are made for.
fn one_suite() -> Arc<CryptoProvider> {
    const SUITES: [CipherSuite; 2] =
        [CipherSuite::TLS13_AES_128_GCM_SHA256, CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256];
    let mut provider = provider::default_provider();
    provider.cipher_suites.retain(|suite| SUITES.contains(&suite.suite()));
    Arc::new(provider)
}

#[derive(Debug, Default)]
struct Secrets(Mutex<HashMap<String, Vec<u8>>>);

impl KeyLog for Secrets {
    fn log(&self, label: &str, _: &[u8], secret: &[u8]) {
        self.0.lock().expect("secrets").insert(label.to_string(), secret.to_vec());
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
