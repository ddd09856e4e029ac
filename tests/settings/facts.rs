//! What is known about a connection: the same at both ends, and as the peer says.

use std::time::{Duration, Instant};

use sslfile::{Certificate, Engine, SslFile, Traffic, Version};

use super::rig::{
    asking, at, flag, records, s_client, s_server, serve, visit, with_openssl, Own, Relay, Server, VERSIONS,
};
use crate::common::{
    ca, certs, client_builder, client_context, engines, server_builder, server_context, servers_know_group_in_tls_1_2,
    tls_pair_with, within, LONG, NAME,
};

#[derive(Clone, Debug, PartialEq)]
struct Facts {
    version: Option<Version>,
    cipher: Option<String>,
    group: Option<String>,
    alpn: Option<Vec<u8>>,
    server_name: Option<String>,
    resumed: Option<bool>,
    end_point: Option<Vec<u8>>,
    exporter: Option<Vec<u8>>,
    tls_exporter: Option<Vec<u8>>,
}

const LABEL: &str = "EXPORTER-sslfile-test";

fn facts(file: &SslFile) -> Facts {
    let mut exported = [0; 32];
    let exporter = file.export_keying_material(&mut exported, LABEL, None);
    Facts {
        version: file.version(),
        cipher: file.cipher(),
        group: file.group(),
        alpn: file.alpn(),
        server_name: file.server_name(),
        resumed: file.is_resumed(),
        end_point: file.tls_server_end_point(),
        exporter: exporter.is_ok().then(|| exported.to_vec()),
        tls_exporter: file.tls_exporter(),
    }
}

#[test]
fn both_ends_know_the_same_and_each_engine_what_it_can() {
    for engine in engines() {
        for version in VERSIONS {
            if engine == Engine::Native && version == Version::Tls1_3 {
                continue;
            }
            within(LONG, move || {
                let client = client_builder(engine).alpn(["one"]).build().expect("context");
                let server = at(version, server_builder(engine)).alpn(["one"]).build().expect("context");
                let (c, s) = tls_pair_with(SslFile::options(), &client, SslFile::options(), &server);
                let (ours, theirs) = (facts(&c), facts(&s));
                let leaf = Certificate::from_pem(certs().ecdsa.chain.as_bytes()).expect("leaf");
                assert_eq!(ours.alpn.as_deref(), Some(&b"one"[..]));
                assert_eq!(theirs.alpn, ours.alpn);
                assert!(ours.end_point.is_some());
                assert_eq!(theirs.end_point, ours.end_point);
                assert_eq!(ours.server_name.as_deref(), Some(NAME));
                assert_eq!(c.peer_certificate(), Some(leaf.clone()));
                assert_eq!((s.peer_certificate(), s.peer_certificates(), s.verified_chain()), (None, None, None));
                if engine == Engine::Native {
                    let unknown = Facts {
                        version: None,
                        cipher: None,
                        group: None,
                        resumed: None,
                        exporter: None,
                        tls_exporter: None,
                        ..ours.clone()
                    };
                    assert_eq!(ours, unknown);
                    assert_eq!(theirs, Facts { server_name: None, ..unknown });
                    assert_eq!((c.peer_certificates(), c.verified_chain()), (None, None));
                    return;
                }
                assert_eq!(ours.version, Some(version), "{engine:?}");
                assert!(ours.cipher.is_some() && ours.group.is_some() && ours.exporter.is_some(), "{ours:?}");
                assert_eq!(ours.resumed, Some(false));
                assert!(ours.tls_exporter.is_some() && ours.tls_exporter != ours.exporter);
                let group = theirs.group.clone();
                let knows = version == Version::Tls1_3 || servers_know_group_in_tls_1_2(engine);
                assert_eq!(group, ours.group.clone().filter(|_| knows), "{engine:?} {version}");
                assert_eq!(Facts { group: ours.group.clone(), ..theirs }, ours, "{engine:?} {version}");
                assert_eq!(c.peer_certificates(), Some(vec![leaf.clone(), ca()]));
                assert_eq!(c.verified_chain(), Some(vec![leaf, ca()]));
            });
        }
    }
}

#[test]
fn nothing_is_known_before_the_handshake() {
    for engine in engines() {
        let (c, _s) = crate::common::tcp_pair();
        let options = SslFile::options().client(NAME).handshake(sslfile::Handshake::Lazy);
        let file = options.open(c, &client_context(engine)).expect("lazy");
        let known = facts(&file);
        assert_eq!(known.server_name.as_deref(), Some(NAME));
        let nothing = Facts {
            version: None,
            cipher: None,
            group: None,
            alpn: None,
            server_name: known.server_name.clone(),
            resumed: None,
            end_point: None,
            exporter: None,
            tls_exporter: None,
        };
        assert_eq!(known, nothing, "{engine:?}");
        assert_eq!((file.handshake_time(), file.ocsp_response(), file.verified_chain()), (None, None, None));
        assert_eq!(file.traffic(), Traffic::default());
    }
}

/// What a tool printed behind this.
fn printed<'a>(said: &'a str, before: &str) -> &'a str {
    let rest = said.split(before).nth(1).unwrap_or_else(|| panic!("no {before:?} in {said}"));
    rest.lines().next().expect("a line").trim()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02X}")).collect()
}

#[test]
fn version_cipher_and_exporters_are_those_of_the_peer() {
    with_openssl(|bench| {
        let own = Own::new(bench, "server", &certs().ecdsa);
        for engine in engines().into_iter().filter(|engine| *engine != Engine::Native) {
            for version in VERSIONS {
                for label in [LABEL, "EXPORTER-Channel-Binding"] {
                    let exporting = ["-keymatexport", label, "-keymatexportlen", "32"];
                    let client = |port| {
                        let mut command = asking(port, Some("a.example"));
                        command.arg(flag(version)).args(exporting);
                        command
                    };
                    let (ours, said) = serve(bench, &server_context(engine), client, facts).expect();
                    check(&ours, &said, version, label);
                    assert_eq!(ours.server_name.as_deref(), Some("a.example"));
                    assert!(said.contains(&format!("New, {}, Cipher is", ours.version.expect("version"))), "{said}");

                    let server = |port| {
                        let mut command = s_server(port, 1, &own);
                        command.arg(flag(version)).args(exporting);
                        command
                    };
                    let (ours, said) = visit(bench, &client_context(engine), server, facts).expect();
                    check(&ours, &said, version, label);
                }
            }
        }
    });
}

fn check(ours: &Facts, said: &str, version: Version, label: &str) {
    assert_eq!(ours.version, Some(version));
    let material = printed(said, "Keying material: ");
    match label {
        LABEL => assert_eq!(ours.exporter.as_deref().map(hex).as_deref(), Some(material), "{said}"),
        // The tool gives no context, and RFC 9266 wants an empty one: the same in TLS 1.3, and another before.
        _ => assert_eq!(ours.tls_exporter.as_deref().map(hex).as_deref() == Some(material), version == Version::Tls1_3),
    }
    // The cipher by one of its two names.
    let cipher = ours.cipher.as_deref().expect("cipher");
    let iana = cipher.replace("_WITH_", "-").replace(['_', ' '], "-").replace("TLS-", "");
    let known = said.contains(cipher) || said.contains(iana.trim_end_matches("-SHA256"));
    assert!(known, "{cipher} in {said}");
}

#[test]
fn resumed_is_what_the_peer_says() {
    with_openssl(|bench| {
        let own = Own::new(bench, "server", &certs().ecdsa);
        for engine in engines().into_iter().filter(|engine| *engine != Engine::Native) {
            for version in VERSIONS {
                let server = Server::start(bench, |port| {
                    let mut command = s_server(port, 2, &own);
                    command.arg(flag(version));
                    command
                });
                let client = client_builder(engine).session_resumption(true).build().expect("context");
                let look = |file: &SslFile| {
                    (file.is_resumed(), file.peer_certificate().is_some(), file.tls_server_end_point())
                };
                let first = server.visit(&client, NAME, look).expect("first");
                let second = server.visit(&client, NAME, look).expect("second");
                assert_eq!((first.0, second.0), (Some(false), Some(true)), "{engine:?} {version}");
                // The certificate is part of the session.
                assert!(first.1 && second.1, "{engine:?} {version}");
                assert_eq!(first.2, second.2, "{engine:?} {version}");
                assert_eq!(server.said().matches("Reused session-id").count(), 1);
            }
        }
    });
}

/// A server with several certificates knows which one it was, on a resumed session too.
#[test]
fn end_points_of_chosen_certificates_are_equal_on_both_ends() {
    for engine in engines().into_iter().filter(|engine| *engine != Engine::Native) {
        for version in VERSIONS {
            within(LONG, move || {
                let server = sslfile::Context::builder().engine(engine).identity(certs().rsa.identity());
                let server = at(version, server.add_identity(NAME, certs().ecdsa.identity())).build().expect("context");
                let client = client_builder(engine).session_resumption(true).build().expect("context");
                let mut seen = Vec::new();
                for _ in 0..2 {
                    let (c, s) = tls_pair_with(SslFile::options(), &client, SslFile::options(), &server);
                    let other = std::thread::spawn(move || {
                        super::rig::converse(&s).expect("server");
                        s
                    });
                    super::rig::converse(&c).expect("client");
                    let s = other.join().expect("server");
                    assert!(c.tls_server_end_point().is_some());
                    assert_eq!(c.tls_server_end_point(), s.tls_server_end_point(), "{engine:?} {version}");
                    assert_eq!(c.is_resumed(), s.is_resumed());
                    seen.push((c.tls_server_end_point(), c.is_resumed()));
                }
                assert_eq!(seen[0].0, seen[1].0, "{engine:?} {version}");
                assert_eq!((seen[0].1, seen[1].1), (Some(false), Some(true)), "{engine:?} {version}");
            });
        }
    }
}

#[test]
fn traffic_is_what_went_over_the_wire() {
    with_openssl(|bench| {
        let own = Own::new(bench, "server", &certs().ecdsa);
        for engine in engines() {
            for version in VERSIONS {
                // As a client: the relay stands before the server.
                let port = crate::harness::free_port();
                let mut command = s_server(port, 2, &own);
                let peer = bench.spawn(command.arg(flag(version)));
                drop(crate::harness::connect(&peer, port).expect("it listens"));
                let relay = Relay::to(port);
                let stream = std::net::TcpStream::connect(("127.0.0.1", relay.port)).expect("connect");
                let file = SslFile::client(stream, &client_context(engine), NAME).expect("handshake");
                super::rig::converse(&file).expect("talk");
                let counted = file.traffic();
                drop(file);
                let [sent, received] = relay.seen();
                let on_the_wire = |sent: &[u8], received: &[u8]| {
                    [sent.len(), received.len(), records(sent).len(), records(received).len()].map(|n| n as u64)
                };
                let ours = |t: Traffic| [t.bytes_sent, t.bytes_received, t.records_sent, t.records_received];
                assert_eq!(ours(counted), on_the_wire(&sent, &received), "{engine:?} {version}");

                if engine == Engine::Native && version == Version::Tls1_3 {
                    continue;
                }
                let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("bind");
                let relay = Relay::to(listener.local_addr().expect("address").port());
                let mut command = s_client(relay.port);
                let peer = bench.spawn(command.arg(flag(version)));
                let stream = crate::harness::accept(&peer, &listener);
                let file = SslFile::server(stream, &server_context(engine)).expect("handshake");
                super::rig::converse(&file).expect("talk");
                let counted = file.traffic();
                drop(file);
                let [received, sent] = relay.seen();
                assert_eq!(ours(counted), on_the_wire(&sent, &received), "{engine:?} {version}");
            }
        }
    });
}

#[test]
fn handshake_time_is_that_of_the_handshake() {
    for engine in engines() {
        within(LONG, move || {
            let begun = Instant::now();
            let options = SslFile::options;
            let (c, s) = tls_pair_with(options(), &client_context(engine), options(), &server_context(engine));
            let all = begun.elapsed();
            for file in [&c, &s] {
                let time = file.handshake_time().expect("it is done");
                assert!(Duration::ZERO < time && time <= all, "{engine:?}: {time:?} of {all:?}");
                std::thread::sleep(Duration::from_millis(2));
                assert_eq!(file.handshake_time(), Some(time), "{engine:?}: it stands still");
            }
        });
    }
}
