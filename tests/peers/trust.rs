//! Certificates that must not be trusted: refused by us with an alert that the peer sees, and by the peer with one that we see.

use std::io;

use sslfile::{Certificate, ClientAuth, Engine, ErrorKind, Role, SslFile, Version};

use super::harness::{Bench, Peer};
use super::ours::{cases, context, exchange, open, opened, our_role, rest, send, setup, Case};
use super::tools::{AfterOurEnd, Setup, Talk, Tool};
use crate::common::kind_of;

const CERTIFICATE_REQUIRED: u8 = 116;
const HANDSHAKE_FAILURE: u8 = 40;

/// Whoever is the server: its certificate is from nobody the client knows, then for another name.
pub fn a_bad_server_certificate_is_refused_with_an_alert(bench: &Bench, tool: Tool) {
    let strangers = (&bench.files.self_signed, ErrorKind::Certificate, tool.alerts.unknown_ca);
    let misnamed = (&bench.files.other_name, ErrorKind::HostnameMismatch, tool.alerts.wrong_name);
    for case in cases(&tool) {
        for (server, judgement, alert) in [strangers, misnamed] {
            let context = context(bench, &tool, case.engine, server).build().expect("context");
            let (peer, file) = open(bench, &tool, case, setup(bench, &tool, case, server), &context);
            let said = || peer.said.so_far();
            let error = match file {
                Ok(_) => panic!("{case:?} {judgement:?}: a handshake with {}; it said: {}", tool.name, said()),
                Err(error) => error,
            };
            let expected = match our_role(&tool) {
                Role::Client => judgement,
                Role::Server => ErrorKind::PeerAlert(alert),
            };
            assert_eq!(kind_of(&error), Some(expected), "{case:?}: {error}; {} said: {}", tool.name, said());
            assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{case:?}: {error}");
            if our_role(&tool) == Role::Client {
                saw_an_alert(&tool, case, &peer);
            }
        }
    }
}

fn saw_an_alert(tool: &Tool, case: Case, peer: &Peer) {
    if tool.after_our_end == AfterOurEnd::AnswersAndStays {
        peer.said.waits_for("Error in handshake");
        peer.kill();
    }
    peer.exit();
    let said = peer.said.to_the_end();
    assert!((tool.names_alert)(&said), "{case:?}: {} said: {said}", tool.name);
}

/// No certificate, one from nobody the server knows, and a good one.
pub fn a_client_certificate_is_asked_for_and_judged(bench: &Bench, tool: Tool) {
    match our_role(&tool) {
        Role::Client => we_show_ours(bench, &tool),
        Role::Server => we_judge_theirs(bench, &tool),
    }
}

fn we_show_ours(bench: &Bench, tool: &Tool) {
    for case in cases(tool) {
        let missing = if case.version == Version::Tls1_3 { CERTIFICATE_REQUIRED } else { tool.alerts.no_certificate };
        for (own, alert) in [
            (None, Some(missing)),
            (Some(&bench.files.self_signed), Some(tool.alerts.bad_client)),
            // Not the one for "client.example": Pike wants the name the client asked for in the client's certificate too.
            (Some(&bench.files.ecdsa), None),
        ] {
            let builder = context(bench, tool, case.engine, &bench.files.ecdsa);
            let builder = own.iter().fold(builder, |b, own| b.identity(own.pair.identity()));
            let context = builder.build().expect("context");
            let setup = Setup { demands: true, ..setup(bench, tool, case, &bench.files.ecdsa) };
            let (mut peer, file) = open(bench, tool, case, setup, &context);
            let Some(alert) = alert else {
                let file = file.unwrap_or_else(|e| panic!("{case:?}: {e}; {} said: {}", tool.name, peer.said.so_far()));
                greet(tool, case, &mut peer, &file);
                continue;
            };
            // In TLS 1.3 a client is done before the server has judged.
            let error = match file {
                Ok(file) => rest(&file).1.expect_err("the server refuses us"),
                Err(error) => error,
            };
            assert_eq!(
                kind_of(&error),
                Some(ErrorKind::PeerAlert(alert)),
                "{case:?}: {error}; {} said: {}",
                tool.name,
                peer.said.so_far()
            );
            assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{case:?}: {error}");
        }
    }
}

fn we_judge_theirs(bench: &Bench, tool: &Tool) {
    for case in cases(tool) {
        let server = &bench.files.ecdsa;
        let demanding = context(bench, tool, case.engine, server).client_auth(ClientAuth::Require).build();
        if case.engine == Engine::Native {
            let error = demanding.expect_err("native-tls cannot ask for a certificate");
            assert_eq!(error.kind(), io::ErrorKind::Unsupported, "{error}");
            continue;
        }
        let context = demanding.expect("context");
        let setup = |own| Setup { own, ..setup(bench, tool, case, server) };

        let (peer, file) = open(bench, tool, case, setup(None), &context);
        let error = file.map(|_| ()).expect_err("a client without a certificate");
        let alert = if case.version == Version::Tls1_3 { CERTIFICATE_REQUIRED } else { HANDSHAKE_FAILURE };
        let kind = kind_of(&error);
        let named = [ErrorKind::Certificate, ErrorKind::LocalAlert(alert)].map(Some).contains(&kind);
        assert!(named, "{case:?}: {kind:?}: {error}");
        saw_an_alert(tool, case, &peer);

        if tool.offers_foreign_certificate {
            let (peer, file) = open(bench, tool, case, setup(Some(&bench.files.self_signed)), &context);
            let error = file.map(|_| ()).expect_err("a client nobody knows");
            assert_eq!(kind_of(&error), Some(ErrorKind::Certificate), "{case:?}: {error}");
            saw_an_alert(tool, case, &peer);
        }

        let (mut peer, file) = opened(bench, tool, case, setup(Some(&bench.files.client)), &context);
        let shown = Certificate::from_pem(bench.files.client.pair.chain.as_bytes()).expect("leaf");
        assert!(file.peer_certificate() == Some(shown), "{case:?}: {:?}", file.peer_certificate());
        greet(tool, case, &mut peer, &file);
    }
}

/// A connection that works both ways.
fn greet(tool: &Tool, case: Case, peer: &mut Peer, file: &SslFile) {
    let hello = b"hello\n";
    if tool.talk == Talk::EchoLines {
        assert_eq!(exchange(file, hello, hello.len()).expect("echo"), hello, "{case:?}");
        return;
    }
    send(file, hello).expect("send");
    assert_eq!(peer.hear(hello.len()), hello, "{case:?}");
    peer.feed(hello);
    assert_eq!(exchange(file, b"", hello.len()).expect("receive"), hello, "{case:?}");
}
