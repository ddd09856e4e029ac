//! The size of our records.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::process::Command;

use sslfile::{Engine, SslFile, Version};

use super::rig::{at, flag, records, s_client, s_server, with_openssl, Own, Relay};
use crate::common::{certs, client_builder, engines, pattern, server_builder, NAME};
use crate::harness::{accept, connect, free_port, Bench};

const DATA: usize = 64 << 10;

/// In TLS 1.2, all with the same overhead.
const SUITES: &str = "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384";

/// Sends, and reads to the end.
fn send(file: &SslFile, data: &[u8]) {
    let mut out = file;
    out.write_all(data).expect("write");
    file.shutdown(Shutdown::Write).expect("shutdown");
    let mut rest = Vec::new();
    (&*file).read_to_end(&mut rest).expect("read");
}

/// What our server sends to `s_client`, record by record.
fn from_server(bench: &Bench, context: &sslfile::Context, version: Version) -> Vec<(u8, usize)> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("bind");
    let relay = Relay::to(listener.local_addr().expect("address").port());
    let mut client: Command = s_client(relay.port);
    client.args([flag(version), "-quiet", "-cipher", SUITES]);
    let mut peer = bench.spawn(&mut client);
    let file = SslFile::server(accept(&peer, &listener), context).expect("handshake");
    let data = pattern(1, DATA);
    std::thread::scope(|scope| {
        scope.spawn(|| send(&file, &data));
        assert_eq!(peer.hear(DATA), data);
    });
    drop(file);
    let [_, back] = relay.seen();
    records(&back)
}

/// What our client sends to `s_server`.
fn from_client(bench: &Bench, context: &sslfile::Context, version: Version) -> Vec<(u8, usize)> {
    let own = Own::new(bench, "server", &certs().ecdsa);
    let port = free_port();
    let mut server = s_server(port, 2, &own);
    server.args([flag(version), "-quiet", "-cipher", SUITES]);
    let mut peer = bench.spawn(&mut server);
    // It listens; this one is not for TLS.
    drop(connect(&peer, port).expect("it listens"));
    let relay = Relay::to(port);
    let file = SslFile::client(TcpStream::connect((Ipv4Addr::LOCALHOST, relay.port)).expect("connect"), context, NAME);
    let file = file.expect("handshake");
    let data = pattern(2, DATA);
    std::thread::scope(|scope| {
        scope.spawn(|| send(&file, &data));
        assert_eq!(peer.hear(DATA), data);
    });
    drop(file);
    let [there, _] = relay.seen();
    records(&there)
}

#[test]
fn a_record_of_ours_holds_no_more_than_was_said() {
    const APPLICATION_DATA: u8 = 23;
    with_openssl(|bench| {
        for engine in engines() {
            for (version, overhead) in [(Version::Tls1_2, 8 + 16), (Version::Tls1_3, 1 + 16)] {
                for size in [None, Some(64), Some(1000), Some(16384)] {
                    let case = format!("{engine:?} {version} {size:?}");
                    let most = size.unwrap_or(16384);
                    let check = |records: Vec<(u8, usize)>| {
                        let data =
                            records.iter().filter(|(kind, _)| *kind == APPLICATION_DATA).map(|(_, length)| *length);
                        let full = data.clone().filter(|length| *length == most + overhead).count();
                        assert_eq!(full, DATA / most, "{case}: {records:?}");
                        if version == Version::Tls1_2 {
                            // In TLS 1.3 the handshake looks like data, and is not subject to this.
                            assert!(data.max() <= Some(most + overhead), "{case}: {records:?}");
                        }
                    };
                    let with = |b: sslfile::ContextBuilder| size.iter().fold(b, |b, size| b.max_fragment_size(*size));
                    if !(engine == Engine::Native && version == Version::Tls1_3) {
                        let server = with(at(version, server_builder(engine))).build().expect("context");
                        check(from_server(bench, &server, version));
                    }
                    let client = with(client_builder(engine)).build().expect("context");
                    check(from_client(bench, &client, version));
                }
            }
        }
    });
}

#[test]
fn sizes_that_no_record_has_are_refused() {
    for engine in engines() {
        for bad in [0, 63, 16385, usize::MAX] {
            let error = client_builder(engine).max_fragment_size(bad).build().expect_err("no such size");
            assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput, "{engine:?}: {error}");
            assert!(error.to_string().contains("max_fragment_size"), "{error}");
        }
    }
}
