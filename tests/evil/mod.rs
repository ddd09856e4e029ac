//! A TLS peer that puts any protected record on the wire, and reads any: rustls shakes hands, then records are made by hand
//! with its keys. The wire is a socket, or memory.
#![allow(dead_code)]

use std::collections::HashMap;
use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::{Arc, Mutex};

use ring::aead::{Aad, LessSafeKey, Nonce, UnboundKey, AES_128_GCM, NONCE_LEN};
use ring::hkdf::{KeyType, Prk, HKDF_SHA256};
use rustls::crypto::{ring as provider, CryptoProvider};
use rustls::pki_types::ServerName;
use rustls::version::{TLS12, TLS13};
use rustls::CipherSuite::{TLS13_AES_128_GCM_SHA256, TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256};
use rustls::{
    ClientConnection, Connection as Tls, ConnectionTrafficSecrets, KeyLog, ServerConnection, SupportedProtocolVersion,
};
use sslfile::{Connection, Engine, Handshake, Role, SslFile, SslOptions, Version};

use crate::common::{client_context, engines, rustls_configs as configs, server_context, tcp_pair, within, LONG, NAME};

/// Content types of records.
pub const ALERT: u8 = 21;
pub const HANDSHAKE: u8 = 22;
pub const DATA: u8 = 23;

/// The type and the length: what a record begins with.
const HEADER: usize = 5;
/// What comes before and behind the content of a record of TLS 1.2.
const EXPLICIT_NONCE: usize = 8;
const TAG: usize = 16;
/// The first byte of the message.
const KEY_UPDATE: u8 = 24;

pub struct Evil<S = TcpStream> {
    pub stream: S,
    sends: Direction,
    receives: Direction,
}

/// Whether we can speak this version in this role: native-tls on OpenSSL accepts TLS 1.2 at most.
pub fn speaks(engine: Engine, role: Role, version: Version) -> bool {
    version == Version::Tls1_2 || role == Role::Client || engine != Engine::Native
}

/// Runs it for each engine and role that speaks one of these versions.
pub fn on_each(versions: &'static [Version], test: impl Fn(Engine, Role, Version) + Copy + Send + 'static) {
    for engine in engines() {
        for role in [Role::Client, Role::Server] {
            for version in versions.iter().copied().filter(|version| speaks(engine, role, *version)) {
                println!("{engine:?} as {role:?}, {version}");
                within(LONG, move || test(engine, role, version));
            }
        }
    }
}

/// A blocking file of this role and the peer, hands shaken. Both ends' buffers are small, and messages go out at once.
pub fn file_pair(engine: Engine, role: Role, version: Version, options: SslOptions) -> (SslFile, Evil) {
    let (ours, theirs) = tcp_pair();
    socket2::SockRef::from(&ours).set_send_buffer_size(4096).expect("buffer");
    socket2::SockRef::from(&theirs).set_recv_buffer_size(4096).expect("buffer");
    theirs.set_nodelay(true).expect("nodelay");
    let peer = std::thread::spawn(move || Evil::shake(role, version, theirs));
    let options = options.handshake(Handshake::Eager);
    let file = match role {
        Role::Client => options.client(NAME).open(ours, &client_context(engine)),
        Role::Server => options.server().open(ours, &server_context(engine)),
    };
    (file.expect("handshake"), peer.join().expect("evil handshake"))
}

/// A connection of this role and the peer, hands shaken; what came behind the handshake, as tickets do, has been read.
pub fn connection_pair(engine: Engine, role: Role, version: Version) -> (Connection, Evil<()>) {
    let ours = match role {
        Role::Client => Connection::client(&client_context(engine), NAME),
        Role::Server => Connection::server(&server_context(engine)),
    };
    let Evil { stream, sends, receives } = Evil::shake(role, version, Memory(ours.expect("connection")));
    let (mut ours, mut peer) = (stream.0, Evil { stream: (), sends, receives });
    ours.handshake().expect("handshake");
    peer.open(ours.output());
    ours.consume_output(usize::MAX);
    (ours, peer)
}

/// The wire to a connection of ours.
struct Memory(Connection);

impl Read for Memory {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let done = self.0.handshake();
        match self.0.output().read(buf)? {
            0 => Err(io::Error::other(format!("nothing is said: {done:?}"))),
            n => {
                self.0.consume_output(n);
                Ok(n)
            }
        }
    }
}

impl Write for Memory {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.0.feed(buf);
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<S: Read + Write> Evil<S> {
    /// The role is ours.
    fn shake(role: Role, version: Version, mut stream: S) -> Evil<S> {
        const CLIENT: &str = "CLIENT_TRAFFIC_SECRET_0";
        const SERVER: &str = "SERVER_TRAFFIC_SECRET_0";
        let log = Arc::new(Log::default());
        let (mut tls, sends, receives) = match role {
            Role::Client => (server(version, &log), SERVER, CLIENT),
            Role::Server => (client(version, &log), CLIENT, SERVER),
        };
        while tls.is_handshaking() || tls.wants_write() {
            tls.complete_io(&mut stream).expect("handshake");
        }
        let made = tls.dangerous_extract_secrets().expect("secrets");
        let log = log.0.lock().expect("log");
        let direction = |(sequence, keys), label| match (version, keys) {
            (Version::Tls1_3, _) => Direction { sequence, ..Direction::of_secret(log[label].clone()) },
            (_, ConnectionTrafficSecrets::Aes128Gcm { key, iv }) => {
                let iv = iv.as_ref().try_into().expect("nonce");
                Direction { secret: None, key: aead(key.as_ref()), iv, sequence }
            }
            _ => panic!("another cipher"),
        };
        Evil { stream, sends: direction(made.tx, sends), receives: direction(made.rx, receives) }
    }
}

fn client(version: Version, log: &Arc<Log>) -> Tls {
    let mut config = configs::client(one_suite(), &[supported(version)]).expect("client");
    (config.key_log, config.enable_secret_extraction) = (log.clone(), true);
    let name = ServerName::try_from(NAME).expect("name");
    ClientConnection::new(Arc::new(config), name).expect("client").into()
}

fn server(version: Version, log: &Arc<Log>) -> Tls {
    let mut config = configs::server(one_suite(), &[supported(version)]).expect("server");
    (config.key_log, config.enable_secret_extraction) = (log.clone(), true);
    config.send_tls13_tickets = 0;
    ServerConnection::new(Arc::new(config)).expect("server").into()
}

fn supported(version: Version) -> &'static SupportedProtocolVersion {
    match version {
        Version::Tls1_3 => &TLS13,
        _ => &TLS12,
    }
}

/// Of each version the suite that records are made for.
fn one_suite() -> CryptoProvider {
    let mut provider = provider::default_provider();
    let wanted = [TLS13_AES_128_GCM_SHA256, TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256];
    provider.cipher_suites.retain(|suite| wanted.contains(&suite.suite()));
    provider
}

/// Keeps the secrets, which rustls gives out nowhere else: new keys are made from them.
#[derive(Debug, Default)]
struct Log(Mutex<HashMap<String, Vec<u8>>>);

impl KeyLog for Log {
    fn log(&self, label: &str, _: &[u8], secret: &[u8]) {
        self.0.lock().expect("log").insert(label.to_string(), secret.to_vec());
    }
}

impl<S> Evil<S> {
    /// One protected record of this type with this content.
    pub fn record(&mut self, kind: u8, content: &[u8]) -> Vec<u8> {
        self.sends.seal(kind, content)
    }

    pub fn data(&mut self, content: &[u8]) -> Vec<u8> {
        self.record(DATA, content)
    }

    /// What changes the peer's keys (TLS 1.3), and may ask us to change ours.
    pub fn key_update(&mut self, asks_for_one: bool) -> Vec<u8> {
        let record = self.record(HANDSHAKE, &[KEY_UPDATE, 0, 0, 1, asks_for_one.into()]);
        self.sends.update();
        record
    }

    pub fn session_ticket(&mut self, number: u32) -> Vec<u8> {
        let ticket = [&number.to_be_bytes()[..], &[7; 28]].concat();
        let body = [&[0, 0, 1, 0, 0, 0, 0, 9, 1, 5, 0, ticket.len() as u8][..], &ticket, &[0, 0]].concat();
        self.record(HANDSHAKE, &[&[4, 0, 0, body.len() as u8][..], &body].concat())
    }

    /// What our records hold: their true types, and the contents.
    pub fn open(&mut self, mut bytes: &[u8]) -> Vec<(u8, Vec<u8>)> {
        let mut opened = Vec::new();
        while !bytes.is_empty() {
            let (head, rest) = bytes.split_first_chunk().expect("a header");
            let (body, rest) = rest.split_at(body_len(head));
            opened.push(self.open_one(head, body).expect("a record of ours"));
            bytes = rest;
        }
        opened
    }

    fn open_one(&mut self, head: &[u8; HEADER], body: &[u8]) -> io::Result<(u8, Vec<u8>)> {
        let (kind, content) = self.receives.open(head, body)?;
        if (kind, content.first()) == (HANDSHAKE, Some(&KEY_UPDATE)) {
            self.receives.update();
        }
        Ok((kind, content))
    }
}

impl Evil {
    pub fn send(&mut self, records: &[u8]) -> io::Result<()> {
        self.stream.write_all(records)
    }

    /// The next record of ours: type and content. `None` at the end.
    pub fn receive(&mut self) -> io::Result<Option<(u8, Vec<u8>)>> {
        let mut head = [0; HEADER];
        match self.stream.read_exact(&mut head) {
            Err(e) if e.kind() == ErrorKind::UnexpectedEof => return Ok(None),
            done => done?,
        }
        let mut body = vec![0; body_len(&head)];
        self.stream.read_exact(&mut body)?;
        self.open_one(&head, &body).map(Some)
    }

    /// Our next data, whatever comes before it.
    pub fn receive_data(&mut self) -> io::Result<Vec<u8>> {
        loop {
            match self.receive()? {
                Some((DATA, data)) => return Ok(data),
                Some(_) => {}
                None => return Err(ErrorKind::UnexpectedEof.into()),
            }
        }
    }

    /// The number of our next alert, whatever comes before it; `None`: the stream ended without one.
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

/// What goes one way.
struct Direction {
    /// Of TLS 1.3: what the next keys are made from.
    secret: Option<Vec<u8>>,
    key: LessSafeKey,
    iv: [u8; NONCE_LEN],
    sequence: u64,
}

impl Direction {
    fn of_secret(secret: Vec<u8>) -> Direction {
        let (key, iv) = (aead(&expand::<16>(&secret, "key")), expand(&secret, "iv"));
        Direction { secret: Some(secret), key, iv, sequence: 0 }
    }

    fn update(&mut self) {
        let secret = self.secret.as_ref().expect("TLS 1.3");
        *self = Direction::of_secret(expand::<32>(secret, "traffic upd").to_vec());
    }

    fn is_tls13(&self) -> bool {
        self.secret.is_some()
    }

    /// `explicit` is of TLS 1.2.
    fn nonce(&self, explicit: [u8; EXPLICIT_NONCE]) -> Nonce {
        let mut nonce = self.iv;
        match self.is_tls13() {
            true => nonce[4..].iter_mut().zip(self.sequence.to_be_bytes()).for_each(|(n, s)| *n ^= s),
            false => nonce[4..].copy_from_slice(&explicit),
        }
        Nonce::assume_unique_for_key(nonce)
    }

    /// What is authenticated with a record of TLS 1.2.
    fn aad12(&self, kind: u8, len: usize) -> Vec<u8> {
        [&self.sequence.to_be_bytes()[..], &header(kind, len)].concat()
    }

    fn seal(&mut self, kind: u8, content: &[u8]) -> Vec<u8> {
        let explicit = self.sequence.to_be_bytes();
        let nonce = self.nonce(explicit);
        let mut text = content.to_vec();
        let record = if self.is_tls13() {
            text.push(kind);
            let head = header(DATA, text.len() + TAG);
            self.key.seal_in_place_append_tag(nonce, Aad::from(head), &mut text).expect("seal");
            [&head[..], &text].concat()
        } else {
            let aad = self.aad12(kind, text.len());
            self.key.seal_in_place_append_tag(nonce, Aad::from(aad), &mut text).expect("seal");
            [&header(kind, EXPLICIT_NONCE + text.len())[..], &explicit, &text].concat()
        };
        self.sequence += 1;
        record
    }

    fn open(&mut self, head: &[u8; HEADER], body: &[u8]) -> io::Result<(u8, Vec<u8>)> {
        let failed = |_| io::Error::other("no record of ours");
        let opened = if self.is_tls13() {
            let mut text = body.to_vec();
            let text = self.key.open_in_place(self.nonce([0; 8]), Aad::from(head), &mut text).map_err(failed)?;
            // Behind the type there may be zeros.
            let end = text.iter().rposition(|byte| *byte != 0).expect("a type");
            (text[end], text[..end].to_vec())
        } else {
            let (explicit, text) = body.split_first_chunk().expect("a nonce");
            let aad = self.aad12(head[0], text.len() - TAG);
            let mut text = text.to_vec();
            let content = self.key.open_in_place(self.nonce(*explicit), Aad::from(aad), &mut text).map_err(failed)?;
            (head[0], content.to_vec())
        };
        self.sequence += 1;
        Ok(opened)
    }
}

fn header(kind: u8, len: usize) -> [u8; HEADER] {
    let [high, low] = u16::try_from(len).expect("a record").to_be_bytes();
    [kind, 3, 3, high, low]
}

fn body_len(&[_, _, _, high, low]: &[u8; HEADER]) -> usize {
    u16::from_be_bytes([high, low]).into()
}

fn aead(key: &[u8]) -> LessSafeKey {
    LessSafeKey::new(UnboundKey::new(&AES_128_GCM, key).expect("key"))
}

/// HKDF-Expand-Label without a context (RFC 8446, section 7.1).
fn expand<const N: usize>(secret: &[u8], label: &str) -> [u8; N] {
    struct Len(usize);
    impl KeyType for Len {
        fn len(&self) -> usize {
            self.0
        }
    }
    let info = [&[0, N as u8, 6 + label.len() as u8], b"tls13 ".as_slice(), label.as_bytes(), &[0]];
    let mut out = [0; N];
    let secret = Prk::new_less_safe(HKDF_SHA256, secret);
    secret.expand(&info, Len(N)).and_then(|made| made.fill(&mut out)).expect("HKDF");
    out
}
