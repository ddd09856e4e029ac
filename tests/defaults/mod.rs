//! What is spoken when nothing is said: versions, cipher suites and groups of each engine, as they stand on the wire. A change
//! here is a change of security and belongs in the changelog.

use crate::common;

use common::{certs, client_builder, engines, has_x25519mlkem768, Pair, NAME};
use sslfile::{Connection, Context, Engine};

const TLS12: u16 = 0x0303;
const TLS13: u16 = 0x0304;

const SUPPORTED_GROUPS: u16 = 10;
const SIGNATURE_ALGORITHMS: u16 = 13;
const EXTENDED_MASTER_SECRET: u16 = 23;
const SESSION_TICKET: u16 = 35;
const SUPPORTED_VERSIONS: u16 = 43;
const KEY_SHARE: u16 = 51;
const RENEGOTIATION_INFO: u16 = 0xff01;
/// The same among the suites (RFC 5746, section 3.3).
const RENEGOTIATION: u16 = 0x00ff;

const X25519MLKEM768: u16 = 0x11ec;

/// What OpenSSL offers and takes depends on its version and on how the system has set it up. Those that we know, by their groups.
fn known_openssl() -> Option<&'static [u16]> {
    #[cfg(feature = "openssl")]
    let version = openssl::version::version();
    #[cfg(not(feature = "openssl"))]
    let version = "unknown";
    match version {
        _ if version.starts_with("OpenSSL 3.0.") => Some(&OPENSSL_GROUPS),
        _ if version.starts_with("OpenSSL 3.5.") => Some(&OPENSSL_3_5_GROUPS),
        _ => None,
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// What a client offers
// ---------------------------------------------------------------------------------------------------------------------

struct Offer {
    suites: Vec<u16>,
    extensions: Vec<(u16, Vec<u8>)>,
}

impl Offer {
    fn of(engine: Engine) -> Offer {
        let context = client_builder(engine).build().expect("context");
        let mut client = Connection::client(&context, NAME).expect("client");
        client.handshake().expect_err("the server has not answered");
        // Record and handshake headers, version, random.
        let mut rest = Reader(&client.output()[5 + 4 + 2 + 32..]);
        let session_id = rest.byte().into();
        rest.take(session_id);
        let suites = rest.list16().words();
        let compression = rest.byte().into();
        assert_eq!(rest.take(compression), [0], "no compression");
        let mut list = rest.list16();
        let mut extensions = Vec::new();
        while !list.0.is_empty() {
            let kind = list.word();
            extensions.push((kind, list.list16().0.to_vec()));
        }
        Offer { suites, extensions }
    }

    fn extension(&self, kind: u16) -> Option<&[u8]> {
        self.extensions.iter().find(|(k, _)| *k == kind).map(|(_, body)| body.as_slice())
    }

    fn versions(&self) -> Vec<u16> {
        match self.extension(SUPPORTED_VERSIONS) {
            Some(body) => Reader(&body[1..]).words(),
            None => vec![TLS12],
        }
    }

    fn groups(&self) -> Vec<u16> {
        Reader(self.extension(SUPPORTED_GROUPS).expect("groups")).list16().words()
    }
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, n: usize) -> &'a [u8] {
        let (head, rest) = self.0.split_at(n);
        self.0 = rest;
        head
    }

    fn byte(&mut self) -> u8 {
        self.take(1)[0]
    }

    fn word(&mut self) -> u16 {
        let bytes = self.take(2);
        u16::from_be_bytes([bytes[0], bytes[1]])
    }

    fn list16(&mut self) -> Reader<'a> {
        let n = self.word().into();
        Reader(self.take(n))
    }

    fn words(self) -> Vec<u16> {
        self.0.chunks(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]])).collect()
    }
}

#[test]
fn clients_offer_tls_1_2_and_1_3_and_nothing_older() {
    for engine in engines() {
        let mut versions = Offer::of(engine).versions();
        versions.sort();
        assert_eq!(versions, [TLS12, TLS13], "{engine:?}");
    }
}

#[test]
fn clients_offer_these_suites() {
    for engine in engines() {
        let offer = Offer::of(engine);
        let mut suites = offer.suites.clone();
        // Secure renegotiation is told of in one way or the other.
        suites.retain(|suite| *suite != RENEGOTIATION);
        assert!((suites.len() < offer.suites.len()) != offer.extension(RENEGOTIATION_INFO).is_some(), "{engine:?}");
        for suite in &suites {
            assert!(!is_broken(*suite), "{engine:?} offers {}", name(*suite));
        }
        let offered: Vec<String> = suites.iter().map(|suite| name(*suite)).collect();
        let offered: Vec<&str> = offered.iter().map(String::as_str).collect();
        match engine {
            Engine::Rustls => assert_eq!(offered, RUSTLS_CLIENT),
            _ if known_openssl().is_none() => println!("{engine:?} with another OpenSSL: {offered:?}"),
            _ => assert_eq!(offered, OPENSSL_CLIENT, "{engine:?}"),
        }
    }
}

#[test]
fn clients_offer_these_groups() {
    for engine in engines() {
        let groups = Offer::of(engine).groups();
        match groups_of(engine) {
            Some(wanted) => assert_eq!(groups, wanted, "{engine:?}"),
            None => println!("{engine:?} with another OpenSSL: {groups:04x?}"),
        }
    }
}

/// Offering it is not enough: without a key for it, it would cost a round trip. One for x25519 goes with it, for servers that
/// know no better.
#[test]
fn clients_send_keys_for_x25519mlkem768_and_x25519() {
    for engine in engines() {
        let offer = Offer::of(engine);
        let mut shares = Reader(offer.extension(KEY_SHARE).expect("keys")).list16();
        let mut groups = Vec::new();
        while !shares.0.is_empty() {
            groups.push(shares.word());
            shares.list16();
        }
        match has_x25519mlkem768(engine) {
            true => assert_eq!(groups, [X25519MLKEM768, 0x1d], "{engine:?}"),
            false if groups_of(engine).is_some() => assert_eq!(groups, [0x1d], "{engine:?}"),
            false => println!("{engine:?} with another OpenSSL: {groups:04x?}"),
        }
    }
}

/// Best first.
fn groups_of(engine: Engine) -> Option<&'static [u16]> {
    match engine {
        Engine::Rustls if cfg!(feature = "aws-lc-rs") => Some(&AWS_LC_GROUPS),
        Engine::Rustls => Some(&RUSTLS_GROUPS),
        _ => known_openssl(),
    }
}

#[test]
fn clients_offer_no_broken_signature() {
    for engine in engines() {
        let offer = Offer::of(engine);
        let algorithms = Reader(offer.extension(SIGNATURE_ALGORITHMS).expect("algorithms")).list16().words();
        for algorithm in algorithms {
            let hash = algorithm >> 8;
            assert!(hash != 1, "{engine:?} offers MD5: {algorithm:04x}");
            assert!(hash != 2, "{engine:?} offers SHA-1: {algorithm:04x}");
        }
        assert!(offer.extension(EXTENDED_MASTER_SECRET).is_some(), "{engine:?}");
        assert!(offer.extension(SESSION_TICKET).is_some() || engine == Engine::Rustls, "{engine:?}");
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// What a server takes
// ---------------------------------------------------------------------------------------------------------------------

/// A client's first message that leaves no choice.
struct Hello {
    version: u16,
    suite: u16,
    group: u16,
}

impl Hello {
    fn bytes(&self) -> Vec<u8> {
        let mut extensions = Vec::new();
        let mut add = |kind: u16, body: &[u8]| {
            extensions.extend(kind.to_be_bytes());
            extensions.extend((body.len() as u16).to_be_bytes());
            extensions.extend(body);
        };
        let [high, low] = self.group.to_be_bytes();
        add(SUPPORTED_GROUPS, &[0, 2, high, low]);
        // Uncompressed points.
        add(11, &[1, 0]);
        let algorithms: [u16; 9] = [0x403, 0x503, 0x603, 0x804, 0x805, 0x806, 0x401, 0x501, 0x601];
        let algorithms: Vec<u8> = algorithms.iter().flat_map(|a| a.to_be_bytes()).collect();
        add(SIGNATURE_ALGORITHMS, &[&[0, 18], &algorithms[..]].concat());
        add(EXTENDED_MASTER_SECRET, &[]);
        // Secure renegotiation.
        add(RENEGOTIATION_INFO, &[0]);
        if self.version == TLS13 {
            add(SUPPORTED_VERSIONS, &[2, 3, 4]);
            // None: the server asks for one of the group, if it takes it.
            add(KEY_SHARE, &[0, 0]);
        }
        let [high, low] = self.suite.to_be_bytes();
        let mut body = self.version.min(TLS12).to_be_bytes().to_vec();
        body.extend([7; 32]);
        body.extend([0, 0, 2, high, low, 1, 0]);
        body.extend((extensions.len() as u16).to_be_bytes());
        body.extend(extensions);
        let mut message = vec![1];
        message.extend(&(body.len() as u32).to_be_bytes()[1..]);
        message.extend(body);
        let mut record = vec![22, 3, 1];
        record.extend((message.len() as u16).to_be_bytes());
        record.extend(message);
        record
    }

    /// Whether the server goes on with it.
    fn is_taken_by(&self, context: &Context) -> bool {
        let mut server = Connection::server(context).expect("server");
        server.feed(&self.bytes());
        let outcome = server.handshake().expect_err("that was the first message only");
        match *server.output() {
            [22, _, _, _, _, 2, ..] => true,
            [21, _, _, 0, 2, 2, _] => {
                assert_eq!(outcome.kind(), std::io::ErrorKind::InvalidData, "{outcome}");
                false
            }
            ref other => panic!("{:04x} {:04x}: {other:02x?} {outcome}", self.version, self.suite),
        }
    }
}

fn server(engine: Engine, pair: &Pair) -> Context {
    Context::builder().engine(engine).identity(pair.identity()).build().expect("context")
}

const P256: u16 = 0x17;

/// All that are in the registry or may come into it, but for those of TLS 1.3.
fn all_suites() -> impl Iterator<Item = u16> {
    (0x0000..0x0100).chain(0xc000..0xc100).chain(0xcc00..0xcd00)
}

#[test]
fn servers_take_tls_1_2_and_1_3_and_nothing_older() {
    for engine in engines() {
        let context = server(engine, &certs().ecdsa);
        for (version, suite) in [(0x0300, 0xc009), (0x0301, 0xc009), (0x0302, 0xc009)] {
            assert!(!Hello { version, suite, group: P256 }.is_taken_by(&context), "{engine:?} {version:04x}");
        }
        assert!(Hello { version: TLS12, suite: 0xc02b, group: P256 }.is_taken_by(&context), "{engine:?}");
        let stops = engine == Engine::Native;
        assert_eq!(Hello { version: TLS13, suite: 0x1301, group: P256 }.is_taken_by(&context), !stops, "{engine:?}");
    }
}

#[test]
fn servers_take_these_suites() {
    for engine in engines() {
        for (pair, of) in [(&certs().ecdsa, "ECDSA"), (&certs().rsa, "RSA")] {
            let context = server(engine, pair);
            let taken: Vec<String> = all_suites()
                .filter(|suite| Hello { version: TLS12, suite: *suite, group: P256 }.is_taken_by(&context))
                .inspect(|suite| assert!(!is_broken(*suite), "{engine:?} takes {}", name(*suite)))
                .map(name)
                .collect();
            let wanted = SERVER_SUITES.map(|suite| suite.replace("ECDSA", of));
            match engine {
                // Its own choice (openssl's `mozilla_intermediate`), which has some without authenticated encryption.
                Engine::Native => println!("{engine:?}: {taken:?}"),
                _ => assert_eq!(taken, wanted, "{engine:?}"),
            }
        }
    }
}

#[test]
fn servers_take_these_groups() {
    for engine in engines().into_iter().filter(|engine| *engine != Engine::Native) {
        let context = server(engine, &certs().ecdsa);
        let taken: Vec<u16> = (0x0001..0x0300)
            .chain(0x1100..0x1200)
            .filter(|group| Hello { version: TLS13, suite: 0x1301, group: *group }.is_taken_by(&context))
            .collect();
        match groups_of(engine) {
            Some(wanted) => {
                let mut wanted = wanted.to_vec();
                wanted.sort();
                assert_eq!(taken, wanted, "{engine:?}");
            }
            None => println!("{engine:?} with another OpenSSL: {taken:04x?}"),
        }
    }
}

#[test]
fn servers_take_no_compression_and_no_old_frame() {
    for engine in engines() {
        let context = server(engine, &certs().ecdsa);
        let mut hello = Hello { version: TLS12, suite: 0xc02b, group: P256 }.bytes();
        // The only compression method on offer is DEFLATE.
        let at = 5 + 4 + 2 + 32 + 1 + 4 + 1;
        assert_eq!(hello[at], 0);
        hello[at] = 1;
        let mut server = Connection::server(&context).expect("server");
        server.feed(&hello);
        assert_eq!(server.handshake().expect_err("compression").kind(), std::io::ErrorKind::InvalidData, "{engine:?}");
        assert_eq!(server.output()[0], 21, "{engine:?}");
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// Names
// ---------------------------------------------------------------------------------------------------------------------

/// No encryption, no authentication, RC2, RC4, DES, 3DES, IDEA, export, MD5.
fn is_broken(suite: u16) -> bool {
    matches!(suite, 0x0000..=0x002e | 0x003b | 0x0046 | 0x006c | 0x006d | 0x0089 | 0x0096..=0x009b | 0x00a6 | 0x00a7)
        || matches!(suite, 0xc001..=0xc003 | 0xc006..=0xc008 | 0xc00b..=0xc00d | 0xc010..=0xc012 | 0xc015..=0xc019)
        || matches!(suite, 0xc01a..=0xc022 | 0xc033..=0xc03b)
}

fn name(suite: u16) -> String {
    let known = NAMES.iter().find(|(number, _)| *number == suite);
    known.map_or_else(|| format!("{suite:04x}"), |(_, name)| name.to_string())
}

#[rustfmt::skip]
const NAMES: [(u16, &str); 32] = [
    (0x1301, "TLS_AES_128_GCM_SHA256"), (0x1302, "TLS_AES_256_GCM_SHA384"), (0x1303, "TLS_CHACHA20_POLY1305_SHA256"),
    (0xc02b, "ECDHE-ECDSA-AES128-GCM-SHA256"), (0xc02c, "ECDHE-ECDSA-AES256-GCM-SHA384"),
    (0xc02f, "ECDHE-RSA-AES128-GCM-SHA256"), (0xc030, "ECDHE-RSA-AES256-GCM-SHA384"),
    (0xcca8, "ECDHE-RSA-CHACHA20-POLY1305"), (0xcca9, "ECDHE-ECDSA-CHACHA20-POLY1305"), (0xccaa, "DHE-RSA-CHACHA20-POLY1305"),
    (0x009e, "DHE-RSA-AES128-GCM-SHA256"), (0x009f, "DHE-RSA-AES256-GCM-SHA384"),
    (0xc023, "ECDHE-ECDSA-AES128-SHA256"), (0xc024, "ECDHE-ECDSA-AES256-SHA384"),
    (0xc027, "ECDHE-RSA-AES128-SHA256"), (0xc028, "ECDHE-RSA-AES256-SHA384"),
    (0x0067, "DHE-RSA-AES128-SHA256"), (0x006b, "DHE-RSA-AES256-SHA256"),
    (0xc009, "ECDHE-ECDSA-AES128-SHA"), (0xc00a, "ECDHE-ECDSA-AES256-SHA"),
    (0xc013, "ECDHE-RSA-AES128-SHA"), (0xc014, "ECDHE-RSA-AES256-SHA"),
    (0x0033, "DHE-RSA-AES128-SHA"), (0x0039, "DHE-RSA-AES256-SHA"),
    (0x009c, "AES128-GCM-SHA256"), (0x009d, "AES256-GCM-SHA384"),
    (0x003c, "AES128-SHA256"), (0x003d, "AES256-SHA256"), (0x002f, "AES128-SHA"), (0x0035, "AES256-SHA"),
    // Signals, and no suites.
    (0x5600, "FALLBACK_SCSV"), (0x0a0a, "GREASE"),
];

#[rustfmt::skip]
const RUSTLS_CLIENT: [&str; 9] = [
    "TLS_AES_256_GCM_SHA384", "TLS_AES_128_GCM_SHA256", "TLS_CHACHA20_POLY1305_SHA256",
    "ECDHE-ECDSA-AES256-GCM-SHA384", "ECDHE-ECDSA-AES128-GCM-SHA256", "ECDHE-ECDSA-CHACHA20-POLY1305",
    "ECDHE-RSA-AES256-GCM-SHA384", "ECDHE-RSA-AES128-GCM-SHA256", "ECDHE-RSA-CHACHA20-POLY1305",
];
#[rustfmt::skip]
const OPENSSL_CLIENT: [&str; 30] = [
    "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256", "TLS_AES_128_GCM_SHA256",
    "ECDHE-ECDSA-AES256-GCM-SHA384", "ECDHE-RSA-AES256-GCM-SHA384", "DHE-RSA-AES256-GCM-SHA384",
    "ECDHE-ECDSA-CHACHA20-POLY1305", "ECDHE-RSA-CHACHA20-POLY1305", "DHE-RSA-CHACHA20-POLY1305",
    "ECDHE-ECDSA-AES128-GCM-SHA256", "ECDHE-RSA-AES128-GCM-SHA256", "DHE-RSA-AES128-GCM-SHA256",
    "ECDHE-ECDSA-AES256-SHA384", "ECDHE-RSA-AES256-SHA384", "DHE-RSA-AES256-SHA256",
    "ECDHE-ECDSA-AES128-SHA256", "ECDHE-RSA-AES128-SHA256", "DHE-RSA-AES128-SHA256",
    "ECDHE-ECDSA-AES256-SHA", "ECDHE-RSA-AES256-SHA", "DHE-RSA-AES256-SHA",
    "ECDHE-ECDSA-AES128-SHA", "ECDHE-RSA-AES128-SHA", "DHE-RSA-AES128-SHA",
    "AES256-GCM-SHA384", "AES128-GCM-SHA256", "AES256-SHA256",
    "AES128-SHA256", "AES256-SHA", "AES128-SHA",
];
/// A server's up to TLS 1.2, with a certificate for ECDSA: forward secrecy and authenticated encryption only.
const SERVER_SUITES: [&str; 3] =
    ["ECDHE-ECDSA-AES128-GCM-SHA256", "ECDHE-ECDSA-AES256-GCM-SHA384", "ECDHE-ECDSA-CHACHA20-POLY1305"];
/// x25519, secp256r1, x448, secp521r1, secp384r1, ffdhe2048 to ffdhe8192.
const OPENSSL_GROUPS: [u16; 10] = [0x1d, 0x17, 0x1e, 0x19, 0x18, 0x100, 0x101, 0x102, 0x103, 0x104];
/// The same with X25519MLKEM768 before them, another order of the curves, and ffdhe2048 and ffdhe3072.
const OPENSSL_3_5_GROUPS: [u16; 8] = [X25519MLKEM768, 0x1d, 0x17, 0x1e, 0x18, 0x19, 0x100, 0x101];
/// x25519, secp256r1, secp384r1.
const RUSTLS_GROUPS: [u16; 3] = [0x1d, 0x17, 0x18];
const AWS_LC_GROUPS: [u16; 4] = [X25519MLKEM768, 0x1d, 0x17, 0x18];
