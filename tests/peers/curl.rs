//! curl, which speaks HTTP and is a client only.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::path::PathBuf;
use std::process::Command;
use std::thread;

use sslfile::{Certificate, ClientAuth, Context, ContextBuilder, Engine, ErrorKind, Role, SslFile, Version};

use super::harness::{accept, find, run, Bench, Credentials, Peer};
use super::ours::{exchange, rest, retry, send, shake_hands, trusting, Mode};
use super::tools::BOTH;
use crate::common::{engines, kind_of, pattern, NAME};

/// curl's exit codes.
const SSL_CONNECT_ERROR: i32 = 35;
const PEER_FAILED_VERIFICATION: i32 = 60;

const NO_APPLICATION_PROTOCOL: u8 = 120;
const UNKNOWN_CA: u8 = 48;

#[test]
fn downloads_and_uploads_intact() {
    run(find(&["curl"]), |bench, curl| {
        let page = pattern(7, 3 << 20);
        let upload = bench.files.folder.path().join("upload");
        std::fs::write(&upload, &page).expect("write the upload");
        for visit in visits() {
            for server in [&bench.files.ecdsa, &bench.files.rsa] {
                let context = visit.context(bench, server).alpn(["http/1.1"]).build().expect("context");
                let (peer, file) = visit.meet(bench, &curl, &context, |command| {
                    command.arg("--data-binary").arg(format!("@{}", upload.display()));
                });
                let file = file.unwrap_or_else(|e| panic!("{visit:?}: {e}"));
                assert_eq!(file.alpn().as_deref(), Some(&b"http/1.1"[..]), "{visit:?}");
                if visit.engine == Engine::OpenSsl {
                    assert_eq!(file.server_name().as_deref(), Some(NAME), "{visit:?}");
                }

                let body = request(&file);
                assert!(body == page, "{visit:?}: {} bytes came up", body.len());
                let (status, got) = answered(peer, || {
                    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", page.len());
                    send(&file, &[head.as_bytes(), &page].concat()).expect("answer");
                    // curl has what it wants, and says close_notify.
                    let (late, end) = rest(&file);
                    assert_eq!(late, b"", "{visit:?}");
                    end.unwrap_or_else(|e| panic!("{visit:?}: {e}"));
                });
                assert_eq!(status, Some(0), "{visit:?}");
                assert!(got == page, "{visit:?}: {} bytes went down", got.len());
            }
        }
    });
}

/// Not that it could tell a cut: curl takes any end of such a page.
#[test]
fn receives_all_of_a_page_that_ends_with_the_connection() {
    run(find(&["curl"]), |bench, curl| {
        let page = pattern(8, 1 << 20);
        for visit in visits() {
            let context = visit.context(bench, &bench.files.ecdsa).build().expect("context");
            for dropped in [false, true] {
                let (peer, file) = visit.meet(bench, &curl, &context, |_| {});
                let file = file.unwrap_or_else(|e| panic!("{visit:?}: {e}"));
                request(&file);
                let (status, got) = answered(peer, || {
                    let head = "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n";
                    send(&file, &[head.as_bytes(), &page].concat()).expect("answer");
                    if !dropped {
                        retry(&file, || file.close()).unwrap_or_else(|e| panic!("{visit:?}: {e}"));
                    }
                    drop(file);
                });
                assert_eq!(status, Some(0), "{visit:?}");
                assert!(got == page, "{visit:?}: {} bytes", got.len());
            }
        }
    });
}

#[test]
fn with_no_common_protocol_alpn_is_settled_as_documented() {
    run(find(&["curl"]), |bench, curl| {
        for visit in visits() {
            let context = visit.context(bench, &bench.files.ecdsa).alpn(["sslfile/1"]).build().expect("context");
            let (peer, file) = visit.meet(bench, &curl, &context, |_| {});
            match file {
                Ok(file) if visit.engine == Engine::Native => assert_eq!(file.alpn(), None),
                Ok(_) => panic!("{visit:?}: a handshake without a protocol"),
                Err(e) => {
                    assert_eq!(kind_of(&e), Some(ErrorKind::LocalAlert(NO_APPLICATION_PROTOCOL)), "{visit:?}: {e}");
                    assert_eq!(peer.exit().code(), Some(SSL_CONNECT_ERROR), "{visit:?}");
                    let said = peer.said.to_the_end();
                    assert!(said.contains("no application protocol"), "{visit:?}: it said: {said}");
                }
            }
        }
    });
}

#[test]
fn refuses_our_certificate_with_an_alert() {
    run(find(&["curl"]), |bench, curl| {
        for visit in visits() {
            let context = visit.context(bench, &bench.files.self_signed).build().expect("context");
            let (peer, file) = visit.meet(bench, &curl, &context, |_| {});
            let error = file.map(|_| ()).expect_err("a certificate from nobody it knows");
            assert_eq!(kind_of(&error), Some(ErrorKind::PeerAlert(UNKNOWN_CA)), "{visit:?}: {error}");
            assert_eq!(peer.exit().code(), Some(PEER_FAILED_VERIFICATION), "{visit:?}");
        }
    });
}

#[test]
fn shows_its_certificate_when_asked() {
    run(find(&["curl"]), |bench, curl| {
        for visit in visits().into_iter().filter(|visit| visit.engine == Engine::OpenSsl) {
            let context = visit.context(bench, &bench.files.ecdsa).client_auth(ClientAuth::Require).build();
            let own = &bench.files.client;
            let (peer, file) = visit.meet(bench, &curl, &context.expect("context"), |command| {
                command.arg("--cert").arg(&own.chain).arg("--key").arg(&own.key);
            });
            let file = file.unwrap_or_else(|e| panic!("{visit:?}: {e}"));
            let shown = Certificate::from_pem(own.pair.chain.as_bytes()).expect("leaf");
            assert!(file.peer_certificate() == Some(shown), "{visit:?}: {:?}", file.peer_certificate());
            request(&file);
            let (status, _) = answered(peer, || {
                send(&file, b"HTTP/1.1 204 No Content\r\n\r\n").expect("answer");
                retry(&file, || (&file).flush()).expect("flush");
            });
            assert_eq!(status, Some(0), "{visit:?}");
        }
    });
}

#[derive(Clone, Copy, Debug)]
struct Visit {
    engine: Engine,
    version: Version,
    mode: Mode,
}

fn visits() -> Vec<Visit> {
    let mut visits = Vec::new();
    for engine in engines() {
        // native-tls' acceptor stops at TLS 1.2 on OpenSSL.
        for &version in BOTH.iter().filter(|v| engine != Engine::Native || **v <= Version::Tls1_2) {
            visits.extend([Mode::Blocking, Mode::NonBlocking].map(|mode| Visit { engine, version, mode }));
        }
    }
    visits
}

impl Visit {
    fn context(self, bench: &Bench, server: &Credentials) -> ContextBuilder {
        trusting(bench, self.engine).identity(server.pair.identity())
    }

    /// Starts curl and shakes hands with it.
    fn meet(
        self,
        bench: &Bench,
        curl: &PathBuf,
        context: &Context,
        more: impl FnOnce(&mut Command),
    ) -> (Peer, io::Result<SslFile>) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("bind");
        let port = listener.local_addr().expect("address").port();
        let version = if self.version == Version::Tls1_3 { "1.3" } else { "1.2" };
        let mut command = Command::new(curl);
        // First of all: no settings of the user's.
        command.args(["-q", "--silent", "--show-error", "--http1.1", "--noproxy", "*", "--max-time", "60"]);
        command.arg(format!("--tlsv{version}")).args(["--tls-max", version]);
        command.arg("--resolve").arg(format!("{NAME}:{port}:127.0.0.1"));
        command.arg("--cacert").arg(&bench.files.roots);
        // Without it curl asks whether it may upload, and waits a second.
        command.args(["--header", "Expect:"]);
        more(&mut command);
        command.arg(format!("https://{NAME}:{port}/"));
        let peer = bench.spawn(&mut command);
        let stream = accept(&peer, &listener);
        (peer, shake_hands(Role::Server, self.mode, stream, context))
    }
}

/// Reads a request with all of its body.
fn request(file: &SslFile) -> Vec<u8> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.extend(exchange(file, b"", 1).expect("request"));
    }
    let head = String::from_utf8(head).expect("an HTTP head");
    let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: "));
    exchange(file, b"", length.map_or(0, |l| l.parse().expect("a length"))).expect("body")
}

/// Answers while curl's output is read: its exit code, and what it received.
fn answered(mut peer: Peer, answer: impl FnOnce()) -> (Option<i32>, Vec<u8>) {
    let mut stdout = peer.stdout.take().expect("standard output");
    let reader = thread::spawn(move || {
        let mut got = Vec::new();
        stdout.read_to_end(&mut got).map(|_| got)
    });
    answer();
    let status = peer.exit();
    (status.code(), reader.join().expect("reader").expect("curl's output"))
}
