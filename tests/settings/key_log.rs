//! The key log: to a file, a closure, the file of `SSLKEYLOGFILE`; the same secrets as the peer's, and good for tshark.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use sslfile::{Connection, Context};

use super::rig::{
    at, context, flag, honours, s_client, s_server, serve, text, visit, with_openssl, write, Own, Relay, Server, Way,
    VERSIONS,
};
use crate::common::{certs, client_builder, engines, server_builder, server_context, test_in_child, NAME};
use crate::harness::{find, run};

fn secrets(log: &str) -> BTreeSet<String> {
    let lines = log.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    // OpenSSL logs what there is for data before the handshake as well, which is of no use to anybody here.
    lines.map(str::to_ascii_lowercase).collect()
}

#[test]
fn file_and_closure_have_the_secrets_that_the_peer_has() {
    with_openssl(|bench| {
        let own = Own::new(bench, "server", &certs().ecdsa);
        for engine in engines() {
            for version in VERSIONS {
                let (ours, theirs) = (write(bench, "ours", ""), write(bench, "theirs", ""));
                let heard: Arc<Mutex<Vec<String>>> = Arc::default();
                let listener = heard.clone();
                let builder = at(version, server_builder(engine)).key_log_file(&ours);
                let builder = match honours(engine, "key_log") {
                    true => builder.key_log(move |line| listener.lock().expect("lock").push(line.to_string())),
                    false => builder,
                };
                let Some(server) = context(engine, "key_log_file", builder) else { continue };
                let client = |port| {
                    let mut command = s_client(port);
                    command.arg("-keylogfile").arg(&theirs);
                    command
                };
                serve(bench, &server, client, |_| ()).expect();
                let heard = heard.lock().expect("lock").join("\n");
                assert_eq!(secrets(&heard), secrets(&text(&ours)), "{engine:?} {version}");
                assert_eq!(secrets(&heard), secrets(&text(&theirs)), "{engine:?} {version}");
                assert!(!secrets(&heard).is_empty(), "{engine:?} {version}");

                // The same as a client.
                let (ours, theirs) = (write(bench, "ours", ""), write(bench, "theirs", ""));
                let client = client_builder(engine).key_log_file(&ours).build().expect("context");
                let server = |port| {
                    let mut command = s_server(port, 1, &own);
                    command.arg(flag(version)).arg("-keylogfile").arg(&theirs);
                    command
                };
                visit(bench, &client, server, |_| ()).expect();
                assert_eq!(secrets(&text(&ours)), secrets(&text(&theirs)), "{engine:?} {version}");
            }
        }
    });
}

#[test]
fn a_closure_that_panics_does_no_harm() {
    with_openssl(|bench| {
        for engine in engines() {
            let builder = server_builder(engine).key_log(|_| panic!("as the test wants"));
            let Some(server) = context(engine, "key_log", builder) else { continue };
            serve(bench, &server, s_client, |_| ()).expect();
        }
    });
}

/// Which may be one of the same engine in the same thread.
#[test]
fn the_closure_may_use_another_connection() {
    for engine in engines() {
        for version in VERSIONS {
            let (inner_client, inner_server) = (client_builder(engine), server_builder(engine));
            let inner = (inner_client.build().expect("context"), inner_server.build().expect("context"));
            let names: Arc<Mutex<Vec<Option<String>>>> = Arc::default();
            let seen = names.clone();
            let builder = at(version, server_builder(engine)).key_log(move |_| {
                // An address is no name to ask for.
                let (_, server) = shake(&inner.0, "127.0.0.1", &inner.1);
                seen.lock().expect("lock").push(server.server_name());
            });
            let Some(server) = context(engine, "key_log", builder) else { continue };
            let (client, server) = shake(&client_builder(engine).build().expect("context"), NAME, &server);
            assert_eq!(server.server_name().as_deref(), Some(NAME), "{engine:?} {version}");
            let keys = [client, server].map(|end| {
                let mut key = [0; 32];
                end.export_keying_material(&mut key, "EXPERIMENTAL", None).expect("export");
                key
            });
            assert_eq!(keys[0], keys[1], "{engine:?} {version}");
            let names = names.lock().expect("lock");
            assert!(!names.is_empty() && names.iter().all(Option::is_none), "{names:?}");
        }
    }
}

fn shake(client: &Context, name: &str, server: &Context) -> (Connection, Connection) {
    let mut client = Connection::client(client, name).expect("client");
    let mut server = Connection::server(server).expect("server");
    while client.handshake().is_err() | server.handshake().is_err() {
        for (from, to) in [(0, 1), (1, 0)] {
            let ends = [&mut client, &mut server];
            let output = ends[from].output().to_vec();
            ends[from].consume_output(output.len());
            ends[to].feed(&output);
        }
    }
    (client, server)
}

/// Only when the program says so; in a process of its own, since it is about the environment.
#[test]
fn sslkeylogfile_counts_when_the_program_says_so() {
    const CHILD: &str = "SSLFILE_TEST_KEY_LOG";
    const TEST: &str = "settings::key_log::sslkeylogfile_counts_when_the_program_says_so";
    if let Ok(folder) = std::env::var(CHILD) {
        return in_the_environment(Path::new(&folder));
    }
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().to_str().expect("path");
    let log = folder.path().join("keys");
    let mut child = test_in_child(TEST, &[(CHILD, path), ("SSLKEYLOGFILE", log.to_str().expect("path"))]);
    let output = child.output().expect("child");
    let told = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && told.contains("1 passed"), "{told}{errors}");
}

fn in_the_environment(folder: &Path) {
    let log = folder.join("keys");
    for engine in engines() {
        let shake = |client: &sslfile::Context| {
            let (c, s) = crate::common::tcp_pair();
            let server = server_context(engine);
            std::thread::scope(|scope| {
                scope.spawn(|| sslfile::SslFile::server(s, &server).expect("server").close());
                sslfile::SslFile::client(c, client, NAME).expect("client");
            });
        };
        shake(&client_builder(engine).build().expect("context"));
        assert!(!log.exists(), "{engine:?}: nobody asked");
        let builder = client_builder(engine).key_log_from_env();
        let Some(client) = context(engine, "key_log_file", builder) else { continue };
        shake(&client);
        assert!(!secrets(&text(&log)).is_empty(), "{engine:?}");
        std::fs::remove_file(&log).expect("remove");
    }
    std::env::remove_var("SSLKEYLOGFILE");
    for engine in engines() {
        client_builder(engine).key_log_from_env().build().expect("without the variable it asks for nothing");
    }
}

/// What has passed through a relay, as a capture in libpcap's format: to make one from the network takes a permission that no
/// installation gives.
fn capture(passed: &[(Way, Vec<u8>)], port: u16) -> Vec<u8> {
    // Magic, version 2.4, no time zone, no accuracy, the longest packet, packets of IP.
    let header = [0xa1b2_c3d4, 0x0004_0002, 0, 0, 0xffff, 101_u32];
    let mut file: Vec<u8> = header.into_iter().flat_map(u32::to_le_bytes).collect();
    const CLIENT: u16 = 40_000;
    let mut sent = [1_u32; 2];
    for (way, data) in passed {
        let (from, to, [ours, theirs]) = match way {
            Way::There => (CLIENT, port, [0, 1]),
            Way::Back => (port, CLIENT, [1, 0]),
        };
        let length = 20 + 20 + data.len();
        // When, how much of it is here, how much there was.
        file.extend([0, 0, length as u32, length as u32].into_iter().flat_map(u32::to_le_bytes));
        file.extend([0x45, 0]);
        file.extend((length as u16).to_be_bytes());
        // Not fragmented, 64 hops, TCP, no checksum, from and to.
        file.extend([0, 0, 0x40, 0, 64, 6, 0, 0, 127, 0, 0, 1, 127, 0, 0, 1]);
        file.extend([from, to].into_iter().flat_map(u16::to_be_bytes));
        file.extend([sent[ours], sent[theirs]].into_iter().flat_map(u32::to_be_bytes));
        // No options, PSH and ACK, a window, no checksum.
        file.extend([0x50, 0x18, 0xff, 0xff, 0, 0, 0, 0]);
        file.extend(data);
        sent[ours] += data.len() as u32;
    }
    file
}

/// One that is there already keeps its mode: whoever made it may want others to read it.
#[test]
fn a_new_file_is_its_owners_alone() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().expect("folder");
    let mode = |path: &Path| std::fs::metadata(path).expect("a file").permissions().mode() & 0o777;
    for engine in engines().into_iter().filter(|engine| honours(*engine, "key_log_file")) {
        let log = folder.path().join(format!("{engine:?}.keys"));
        let build = || client_builder(engine).key_log_file(&log).build().expect("context");
        build();
        assert_eq!(mode(&log), 0o600, "{engine:?}");
        std::fs::set_permissions(&log, PermissionsExt::from_mode(0o640)).expect("mode");
        build();
        assert_eq!(mode(&log), 0o640, "{engine:?}");
    }
}

#[test]
fn tshark_reads_a_capture_with_it() {
    let tools = find(&["openssl"]).and(find(&["tshark"]));
    run(tools, |bench, _| {
        let own = Own::new(bench, "server", &certs().ecdsa);
        for engine in engines() {
            for version in VERSIONS {
                let log = write(bench, "keys", "");
                let builder = client_builder(engine).key_log_file(&log);
                let Some(client) = context(engine, "key_log_file", builder) else { continue };
                let server = Server::start(bench, |port| {
                    let mut command = s_server(port, 2, &own);
                    command.arg(flag(version));
                    command
                });
                server.visit(&client, NAME, |_| ()).expect("it listens");
                let relay = Relay::to(server.port);
                let stream = std::net::TcpStream::connect(("127.0.0.1", relay.port)).expect("connect");
                let file = sslfile::SslFile::client(stream, &client, NAME).expect("handshake");
                super::rig::converse(&file).expect("talk");
                drop(file);
                server.said();
                let packets = write(bench, "capture.pcap", capture(&relay.in_order(), 4433));

                let decoded = |log: &Path| {
                    let mut tshark = Command::new("tshark");
                    tshark.arg("-r").arg(&packets).args(["-d", "tcp.port==4433,tls"]);
                    tshark.arg("-o").arg(format!("tls.keylog_file:{}", log.display()));
                    // All bytes of all packets, with what was decrypted.
                    let output = tshark.args(["-Y", "tls", "-x"]).stdin(Stdio::null()).output().expect("tshark");
                    let said = String::from_utf8_lossy(&output.stderr);
                    format!("{}{said}", String::from_utf8_lossy(&output.stdout))
                };
                let told = decoded(&log);
                assert!(told.contains("hello"), "{engine:?} {version}: {told}\n{}", text(&log));
                let told = decoded(&write(bench, "nothing", ""));
                assert!(!told.contains("hello"), "{engine:?} {version}: without the secrets: {told}");
            }
        }
    });
}
