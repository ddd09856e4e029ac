//! Megabytes both ways at once, what was negotiated, half-closed connections, and pages from servers that end first.

use std::net::Shutdown;
use std::process::Command;
use std::thread;

use sslfile::{Certificate, Engine, Role, SslFile, State};

use super::harness::{connect, feed, free_port, hear, run, Bench, Peer};
use super::ours::{cases, context, exchange, opened, our_role, rest, retry, send, setup, shake_hands, Case};
use super::tools::{
    debian_python, gnutls_server, openssl_server, python_client, python_server, AfterOurEnd, End, Setup, Talk, Tool,
};
use crate::common::pattern;

const LENGTH: usize = 3 << 20;
pub const PROTOCOL: &str = "sslfile/1";

/// With each certificate: data intact, the same version and protocol at both ends, and an end that the peer starts if it can.
pub fn carries_data_both_ways_at_once(bench: &Bench, tool: Tool) {
    for case in cases(&tool) {
        for server in [&bench.files.ecdsa, &bench.files.rsa] {
            let context =
                context(bench, &tool, case.engine, server).alpn([PROTOCOL, "other"]).build().expect("context");
            let setup = Setup { alpn: Some(PROTOCOL), ..setup(bench, &tool, case, server) };
            let greeting = (tool.greeting)(&setup);
            let (mut peer, file) = opened(bench, &tool, case, setup, &context);

            assert_eq!(file.alpn().as_deref(), Some(PROTOCOL.as_bytes()), "{case:?}");
            if case.engine == Engine::OpenSsl {
                assert_eq!(file.version(), Some(case.version), "{case:?}");
                assert!(file.cipher().is_some(), "{case:?}");
            }
            let leaf = Certificate::from_pem(server.pair.chain.as_bytes()).expect("leaf");
            let theirs = (our_role(&tool) == Role::Client).then_some(leaf);
            assert!(file.peer_certificate() == theirs, "{case:?}: {:?}", file.peer_certificate());

            flood(&tool, case, &mut peer, &file);
            if tool.ends_with_its_input {
                peer.stdin = None;
            } else {
                file.shutdown(Shutdown::Write).expect("shutdown");
            }
            let (late, end) = rest(&file);
            assert_eq!(late, b"", "{case:?}");
            end.unwrap_or_else(|e| panic!("{case:?}: {} ended cleanly, and we say: {e}", tool.name));
            rest(&file).1.expect("the end stays the end");
            if tool.ends_with_its_input {
                assert_eq!(file.state(), State::PeerClosed, "{case:?}");
            }
            assert!(!file.is_open(), "{case:?}");
            retry(&file, || file.close()).unwrap_or_else(|e| panic!("{case:?}: close: {e}"));
            if tool.after_our_end == AfterOurEnd::AnswersAndStays {
                continue;
            }
            let status = peer.exit();
            let said = peer.said.to_the_end();
            assert!(status.success(), "{case:?}: {} ended with {status}; it said: {said}", tool.name);
            assert!(greeting.is_none_or(|g| said.contains(&g)), "{case:?}: {} said: {said}", tool.name);
            if let Some(verdict) = tool.verdict {
                assert_ne!(verdict(&said), Some(End::Cut), "{case:?}: {} said: {said}", tool.name);
            }
        }
    }
}

fn flood(tool: &Tool, case: Case, peer: &mut Peer, file: &SslFile) {
    let said = peer.said.clone();
    let failed = |e| panic!("{case:?}: with {}: {e}; it said: {}", tool.name, said.so_far());
    if tool.talk == Talk::EchoLines {
        let lines = lines(1, LENGTH);
        let back = exchange(file, &lines, lines.len()).unwrap_or_else(failed);
        assert!(back == lines, "{case:?}: the echo differs");
        return;
    }
    let (ours, theirs) = (pattern(1, LENGTH), pattern(2, LENGTH));
    let Peer { stdin, stdout, .. } = peer;
    let (received, heard) = thread::scope(|scope| {
        scope.spawn(|| feed(stdin, &theirs));
        let hearing = scope.spawn(|| hear(stdout, ours.len(), &said));
        let received = exchange(file, &ours, theirs.len()).unwrap_or_else(failed);
        (received, hearing.join().expect("what the peer received"))
    });
    assert!(received == theirs, "{case:?}: we received something else");
    assert!(heard == ours, "{case:?}: {} received something else", tool.name);
}

/// Text, for tools that work by the line.
pub fn lines(seed: u64, len: usize) -> Vec<u8> {
    let mut text = pattern(seed, len);
    for (i, byte) in text.iter_mut().enumerate() {
        *byte = if i % 64 == 63 || i == len - 1 { b'\n' } else { b'a' + *byte % 26 };
    }
    text
}

#[test]
fn after_our_close_notify_a_python_peer_can_go_on_sending() {
    run(python_client(debian_python()), goes_on_sending);
    run(python_server(debian_python()), goes_on_sending);
}

fn goes_on_sending(bench: &Bench, tool: Tool) {
    assert_eq!(tool.after_our_end, AfterOurEnd::GoesOn);
    for case in cases(&tool) {
        let server = &bench.files.ecdsa;
        let context = context(bench, &tool, case.engine, server).build().expect("context");
        let (mut peer, file) = opened(bench, &tool, case, setup(bench, &tool, case, server), &context);
        send(&file, b"that is all").unwrap_or_else(|e| panic!("{case:?}: {e}"));
        file.shutdown(Shutdown::Write).expect("shutdown");
        assert_eq!(peer.hear(11), b"that is all", "{case:?}");
        assert!(peer.said.waits_for("end close_notify"), "{case:?}: it said: {}", peer.said.so_far());
        let answer = pattern(3, 1 << 20);
        let (received, end) = thread::scope(|scope| {
            scope.spawn(|| {
                peer.feed(&answer);
                peer.stdin = None;
            });
            rest(&file)
        });
        end.unwrap_or_else(|e| panic!("{case:?}: {e}"));
        assert!(received == answer, "{case:?}: {} of {} bytes", received.len(), answer.len());
    }
}

#[test]
fn a_page_from_s_server_ends_with_its_close_notify() {
    run(openssl_server(), |bench, tool| {
        let page = pattern(4, 2 << 20);
        std::fs::write(bench.files.folder.path().join("page"), &page).expect("write the page");
        for case in cases(&tool) {
            let (peer, file) = served(bench, &tool, case, |command, port| {
                command.args(["s_server", "-WWW", "-quiet", "-naccept", "1", "-accept"]);
                command.arg(format!("127.0.0.1:{port}")).current_dir(bench.files.folder.path());
                command.arg("-cert").arg(&bench.files.ecdsa.chain).arg("-key").arg(&bench.files.ecdsa.key);
            });
            let (answer, end) = get(&file, "/page");
            end.unwrap_or_else(|e| panic!("{case:?}: {e}; it said: {}", peer.said.so_far()));
            assert!(answer.starts_with(b"HTTP/1.0 200"), "{case:?}");
            assert!(answer.ends_with(&page), "{case:?}: {} bytes", answer.len());
        }
    });
}

#[test]
fn a_page_from_gnutls_serv_ends_with_its_close_notify() {
    run(gnutls_server(), |bench, tool| {
        for case in cases(&tool) {
            let (peer, file) = served(bench, &tool, case, |command, port| {
                command.args(["--http", "--quiet", "--disable-client-cert", "--port"]).arg(port.to_string());
                command.arg("--x509certfile").arg(&bench.files.ecdsa.chain);
                command.arg("--x509keyfile").arg(&bench.files.ecdsa.key);
            });
            let (answer, end) = get(&file, "/");
            end.unwrap_or_else(|e| panic!("{case:?}: {e}; it said: {}", peer.said.so_far()));
            assert!(answer.starts_with(b"HTTP/1.0 200"), "{case:?}");
        }
    });
}

/// A server started otherwise than for its other tests. The version is ours to limit.
fn served(bench: &Bench, tool: &Tool, case: Case, arguments: impl Fn(&mut Command, u16)) -> (Peer, SslFile) {
    let builder = context(bench, tool, case.engine, &bench.files.ecdsa);
    let context = builder.min_version(case.version).max_version(case.version).build().expect("context");
    let port = free_port();
    let mut command = Command::new(&tool.program);
    arguments(&mut command, port);
    let peer = bench.spawn(&mut command);
    let stream = connect(&peer, port).unwrap_or_else(|| panic!("it said: {}", peer.said.so_far()));
    let file = shake_hands(Role::Client, case.mode, stream, &context).unwrap_or_else(|e| panic!("{case:?}: {e}"));
    (peer, file)
}

fn get(file: &SslFile, path: &str) -> (Vec<u8>, std::io::Result<()>) {
    send(file, format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes()).expect("request");
    rest(file)
}
