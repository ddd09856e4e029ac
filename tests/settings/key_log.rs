//! The key log: to a file, a closure, the file of `SSLKEYLOGFILE`; the same secrets as the peer's, and good for tshark.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use sslfile::{Connection, Context};

use super::rig::{
    at, context, flag, honours, s_client, s_server, serve, text, visit, with_openssl, write, Own, Server, VERSIONS,
};
use crate::common::{certs, client_builder, engines, server_builder, server_context, test_in_child, NAME};
use crate::harness::{find, run, STEP};

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

/// Which takes more than the tools: a permission that no installation gives.
fn may_capture() -> bool {
    let listed = Command::new("tcpdump").args(["-i", "lo", "-L"]).stdin(Stdio::null()).output();
    listed.is_ok_and(|output| output.status.success())
}

#[test]
fn tshark_reads_a_capture_with_it() {
    let tools = find(&["openssl"]).and(find(&["tcpdump"])).and(find(&["tshark"]));
    if tools.is_ok() && !may_capture() {
        return println!("skipped: no permission to capture traffic");
    }
    run(tools, |bench, _| {
        let own = Own::new(bench, "server", &certs().ecdsa);
        for engine in engines() {
            for version in VERSIONS {
                let log = write(bench, "keys", "");
                let capture = bench.files.folder.path().join("capture.pcap");
                let builder = client_builder(engine).key_log_file(&log);
                let Some(client) = context(engine, "key_log_file", builder) else { continue };
                let server = Server::start(bench, |port| {
                    let mut command = s_server(port, 1, &own);
                    command.arg(flag(version));
                    command
                });
                let mut tcpdump = Command::new("tcpdump");
                tcpdump.args(["-i", "lo", "-U", "--immediate-mode", "-Z", "root", "-w"]).arg(&capture);
                let tcpdump = bench.spawn(tcpdump.args(["tcp", "port"]).arg(server.port.to_string()));
                assert!(tcpdump.said.waits_for("listening on lo"), "{}", tcpdump.said.so_far());
                server.visit(&client, NAME, |_| ()).expect("visit");
                let port = server.port;
                server.said();

                let decoded = |log: &Path| {
                    let mut tshark = Command::new("tshark");
                    tshark.arg("-r").arg(&capture).arg("-d").arg(format!("tcp.port=={port},tls"));
                    tshark.arg("-o").arg(format!("tls.keylog_file:{}", log.display()));
                    // All bytes of all packets, with what was decrypted.
                    let output = tshark.args(["-Y", "tls", "-x"]).stdin(Stdio::null()).output();
                    String::from_utf8_lossy(&output.expect("tshark").stdout).to_string()
                };
                // The last packets may be under way to the file.
                let deadline = Instant::now() + STEP;
                let mut told = decoded(&log);
                while !told.contains("hello") && Instant::now() < deadline {
                    told = decoded(&log);
                }
                assert!(told.contains("hello"), "{engine:?} {version}: {told}\n{}", text(&log));
                let told = decoded(&write(bench, "nothing", ""));
                assert!(!told.contains("hello"), "{engine:?} {version}: without the secrets: {told}");
            }
        }
    });
}
