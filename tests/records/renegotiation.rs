//! A peer's wish to renegotiate, in TLS 1.2: it is refused, and who ends the connection over that is told apart.

use std::io::ErrorKind as Io;

use sslfile::{Connection, Engine, ErrorKind, Role, Version};

use super::bounds::renegotiation;
use super::common::kind_of;
use crate::evil::{connection_pair, on_each, ALERT};

type Evil = crate::evil::Evil<()>;

const WARNING: u8 = 1;
const FATAL: u8 = 2;
const NO_RENEGOTIATION: u8 = 100;
const HANDSHAKE_FAILURE: u8 = 40;
const TOLD: &str = "it had asked to renegotiate, which is refused";

/// Where it has been refused.
fn each(test: fn(&str, Connection, Evil)) {
    on_each(&[Version::Tls1_2], move |engine, role, version| {
        let (mut ours, mut peer) = connection_pair(engine, role, version);
        ours.feed(&renegotiation(&mut peer, role));
        let what = format!("{engine:?} as {role:?}");
        assert_eq!(ours.read(&mut [0; 9]).expect_err(&what).kind(), Io::WouldBlock, "{what}");
        let sent = peer.open(ours.output());
        ours.consume_output(usize::MAX);
        if engine == Engine::Native && role == Role::Client {
            // It is not refused there, where the library is OpenSSL.
            return;
        }
        assert_eq!(sent, [(ALERT, vec![WARNING, NO_RENEGOTIATION])], "{what}");
        test(&what, ours, peer);
    });
}

#[test]
fn an_alert_behind_it_is_told_with_what_it_is_about() {
    each(|what, mut ours, mut peer| {
        ours.feed(&peer.record(ALERT, &[FATAL, HANDSHAKE_FAILURE]));
        let error = ours.read(&mut [0; 9]).expect_err(what);
        assert_eq!(kind_of(&error), Some(ErrorKind::PeerAlert(HANDSHAKE_FAILURE)), "{what}: {error}");
        assert!(error.to_string().contains("handshake_failure (40)"), "{what}: {error}");
        assert!(error.to_string().contains(TOLD), "{what}: {error}");
        assert_eq!(ours.write(b"x").expect_err(what).to_string(), error.to_string(), "{what}");
    });
}

#[test]
fn a_cut_behind_it_is_told_with_what_it_is_about() {
    each(|what, mut ours, _| {
        ours.feed_eof();
        let error = ours.read(&mut [0; 9]).expect_err(what);
        assert_eq!((error.kind(), kind_of(&error)), (Io::BrokenPipe, Some(ErrorKind::Truncated)), "{what}: {error}");
        assert!(error.to_string().contains(TOLD), "{what}: {error}");
    });
}

#[test]
fn who_asks_without_end_is_told_for_what() {
    each(|what, mut ours, mut peer| {
        let role = match what.ends_with("Client") {
            true => Role::Client,
            false => Role::Server,
        };
        let error = (0..100).find_map(|_| {
            ours.feed(&renegotiation(&mut peer, role));
            ours.read(&mut [0; 9]).err().filter(|e| e.kind() != Io::WouldBlock)
        });
        let error = error.expect(what);
        assert!(error.to_string().contains(TOLD), "{what}: {error}");
    });
}

#[test]
fn who_goes_on_with_data_has_let_it_pass() {
    each(|what, mut ours, mut peer| {
        ours.feed(&[peer.data(b"data"), peer.record(ALERT, &[FATAL, HANDSHAKE_FAILURE])].concat());
        assert_eq!(ours.read(&mut [0; 9]).expect(what), 4, "{what}");
        let error = ours.read(&mut [0; 9]).expect_err(what);
        assert_eq!(kind_of(&error), Some(ErrorKind::PeerAlert(HANDSHAKE_FAILURE)), "{what}: {error}");
        assert!(!error.to_string().contains(TOLD), "{what}: {error}");
    });
}
