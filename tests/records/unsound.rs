//! What no peer in its right mind sends: which alert it gets, who is told of it, and that behind our own end it does no harm.

use std::io::ErrorKind as Io;

use sslfile::{Connection, Engine, ErrorKind, Version};

use super::common::{kind_of, passes_in_child};
use crate::evil::{connection_pair, on_each, ALERT, DATA, HANDSHAKE};

type Evil = crate::evil::Evil<()>;

const VERSIONS: [Version; 2] = [Version::Tls1_2, Version::Tls1_3];
const CHANGE_CIPHER_SPEC: u8 = 20;
const WARNING: u8 = 1;
const NO_RENEGOTIATION: u8 = 100;
const FINISHED: u8 = 20;
const KEY_UPDATE: u8 = 24;
const UNEXPECTED_MESSAGE: u8 = 10;

/// By name: what makes it.
type Unsound = (&'static str, fn(&mut Evil) -> Vec<u8>);

const ALL: [Unsound; 23] = [
    ("forged", |_| [&[DATA, 3, 3, 0, 64][..], &[7; 64]].concat()),
    ("forged, an alert", |_| [&[ALERT, 3, 3, 0, 64][..], &[7; 64]].concat()),
    ("short", |_| [&[DATA, 3, 3, 0, 5][..], &[7; 5]].concat()),
    ("nothing in it", |_| vec![DATA, 3, 3, 0, 0]),
    ("too long", |_| [&[DATA, 3, 3, 0x7f, 0xff][..], &[7; 0x7fff]].concat()),
    ("of an unknown type", |_| [&[99, 3, 3, 0, 64][..], &[7; 64]].concat()),
    ("of an unknown version", |_| [&[DATA, 9, 9, 0, 64][..], &[7; 64]].concat()),
    ("of an old version", |_| [&[DATA, 3, 1, 0, 64][..], &[7; 64]].concat()),
    ("not a record", |_| b"GET / HTTP/1.1\r\n\r\n".to_vec()),
    ("change_cipher_spec", |_| vec![CHANGE_CIPHER_SPEC, 3, 3, 0, 1, 1]),
    ("protected change_cipher_spec", |peer| peer.record(CHANGE_CIPHER_SPEC, &[1])),
    ("of an unknown type, protected", |peer| peer.record(99, b"what?")),
    ("too much data", |peer| peer.record(DATA, &[7; 16 * 1024 + 1])),
    ("half an alert", |peer| peer.record(ALERT, &[WARNING])),
    ("an alert and a half", |peer| peer.record(ALERT, &[WARNING, 90, WARNING])),
    ("an alert of an unknown level", |peer| peer.record(ALERT, &[7, 90])),
    ("no_renegotiation", |peer| peer.record(ALERT, &[WARNING, NO_RENEGOTIATION])),
    ("a message of an unknown type", |peer| peer.record(HANDSHAKE, &[99, 0, 0, 1, 1])),
    ("Finished", |peer| peer.record(HANDSHAKE, &[&[FINISHED, 0, 0, 32][..], &[7; 32]].concat())),
    ("no message", |peer| peer.record(HANDSHAKE, &[])),
    ("a bad KeyUpdate", |peer| peer.record(HANDSHAKE, &[KEY_UPDATE, 0, 0, 1, 7])),
    ("a long KeyUpdate", |peer| peer.record(HANDSHAKE, &[KEY_UPDATE, 0, 0, 2, 0, 0])),
    ("data within a message", |peer| [peer.record(HANDSHAKE, &[KEY_UPDATE, 0, 0, 9, 0]), peer.data(b"x")].concat()),
];

/// Each on a connection of its own.
fn each(test: fn(&str, &'static str, Engine, Connection, Evil, Vec<u8>)) {
    on_each(&VERSIONS, move |engine, role, version| {
        for (name, make) in ALL {
            let (ours, mut peer) = connection_pair(engine, role, version);
            let records = make(&mut peer);
            test(&format!("{engine:?} as {role:?}, {version}, {name}"), name, engine, ours, peer, records);
        }
    });
}

#[track_caller]
fn read(ours: &mut Connection, what: &str) -> std::io::Error {
    ours.read(&mut [0; 20_000]).expect_err(what)
}

#[test]
fn the_alert_that_is_sent_is_the_one_that_is_told() {
    each(|what, name, engine, mut ours, mut peer, records| {
        ours.take_alerts();
        ours.feed(&records);
        let error = read(&mut ours, what);
        let sent: Vec<_> = peer.open(ours.output()).into_iter().map(|(kind, content)| (kind, content[1])).collect();
        let told = ours.take_alerts();
        if error.kind() == Io::WouldBlock {
            assert!(sent.is_empty() && told.is_empty(), "{what}: {sent:?}, {told:?}");
            return;
        }
        assert_eq!(error.kind(), Io::InvalidData, "{what}: {error}");
        if engine == Engine::Native && told.is_empty() {
            // Which alert a wrong version gets depends on the right one, and native-tls does not say which that is.
            assert!(error.to_string().contains("wrong version number"), "{what}: {error}");
            return;
        }
        // rustls answers to warnings that may not be, and gives these for the error: it does not say with what.
        if !matches!(kind_of(&error), Some(ErrorKind::PeerAlert(_))) {
            let told: Vec<_> = told.iter().filter(|a| a.is_ours()).map(|a| (ALERT, a.number())).collect();
            assert_eq!(told, sent, "{what}: {error}");
            assert_eq!(sent.len(), 1, "{what}: {error}");
            assert_eq!(kind_of(&error), Some(ErrorKind::LocalAlert(sent[0].1)), "{what}: {error}");
        }
        // In TLS 1.2 OpenSSL takes it for a record that can't be decrypted.
        if name == "change_cipher_spec" && (engine == Engine::Rustls || what.contains("TLSv1.3")) {
            assert_eq!(sent, [(ALERT, UNEXPECTED_MESSAGE)], "{what}: {error}");
        }
    });
}

/// In a process of its own, which ends with the first panic, caught or not.
#[test]
fn behind_our_end_it_is_an_error_and_no_panic() {
    const CHILD: &str = "SSLFILE_TEST_BEHIND_OUR_END";
    if std::env::var_os(CHILD).is_none() {
        return passes_in_child("records::unsound::behind_our_end_it_is_an_error_and_no_panic", &[(CHILD, "1")]);
    }
    std::panic::set_hook(Box::new(|panic| {
        eprintln!("{panic}");
        std::process::abort();
    }));
    each(|what, _, _, mut ours, mut peer, records| {
        ours.close().expect(what);
        assert_eq!(peer.open(ours.output()), [(ALERT, vec![WARNING, 0])], "{what}");
        ours.consume_output(usize::MAX);
        ours.take_alerts();
        ours.feed(&records);
        // OpenSSL lets data through from within a message that it has no use for any more.
        let Err(error) = ours.read(&mut [0; 20_000]) else { return };
        if error.kind() != Io::WouldBlock {
            assert_eq!(error.kind(), Io::InvalidData, "{what}: {error}");
            let kind = kind_of(&error).expect("ours");
            assert!(matches!(kind, ErrorKind::Protocol | ErrorKind::PeerAlert(_)), "{what}: {kind:?}, {error}");
            assert_eq!(read(&mut ours, what).to_string(), error.to_string(), "{what}");
        }
        assert!(ours.output().is_empty(), "{what}");
        assert!(ours.take_alerts().iter().all(|alert| !alert.is_ours()), "{what}");
    });
}
