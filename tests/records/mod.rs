//! Records as the rules allow them and few peers send them: handshakes that are cut, or begin, oddly, and records without data.

mod bounds;
mod closed_early;
mod renegotiation;
mod tickets;
mod unsound;

use crate::common;

use common::{client_builder, engines, server_builder, within, LONG, NAME};
use sslfile::{Connection, Context, Engine, Version};

const VERSIONS: [Version; 2] = [Version::Tls1_2, Version::Tls1_3];
const CHANGE_CIPHER_SPEC: u8 = 20;
const HANDSHAKE: u8 = 22;

fn records(mut bytes: &[u8]) -> Vec<&[u8]> {
    let mut records = Vec::new();
    while let [_, _, _, high, low, ..] = *bytes {
        let (record, rest) = bytes.split_at(5 + usize::from(u16::from_be_bytes([high, low])));
        records.push(record);
        bytes = rest;
    }
    assert!(bytes.is_empty(), "half a header");
    records
}

/// Shakes hands. `on_the_way` may change what goes from one end to the other; it gets what is not encrypted, and what is.
fn shake(
    client: &Context,
    server: &Context,
    on_the_way: &mut dyn FnMut(&[u8], bool) -> Vec<u8>,
) -> (Connection, Connection) {
    let mut ends = [Connection::client(client, NAME).expect("client"), Connection::server(server).expect("server")];
    let mut encrypted = [false; 2];
    loop {
        // A failure shows below: it is the end of what is said.
        let done = [0, 1].map(|end| ends[end].handshake());
        let output = [0, 1].map(|end| {
            let output = ends[end].output().to_vec();
            ends[end].consume_output(output.len());
            output
        });
        if output.iter().all(Vec::is_empty) {
            done.into_iter().for_each(|done| done.expect("handshake"));
            break;
        }
        for from in [0, 1] {
            for record in records(&output[from]) {
                encrypted[from] |= record[0] == CHANGE_CIPHER_SPEC;
                ends[1 - from].feed(&on_the_way(record, encrypted[from]));
            }
        }
    }
    let [client, server] = ends;
    (client, server)
}

#[track_caller]
fn assert_same_keys((client, server): &(Connection, Connection)) {
    let keys = [client, server].map(|end| {
        let mut key = [0; 32];
        end.export_keying_material(&mut key, "EXPERIMENTAL", None).expect("export");
        key
    });
    assert_eq!(keys[0], keys[1]);
}

/// Those whose keys can be exported.
fn exporting() -> impl Iterator<Item = Engine> {
    engines().into_iter().filter(|engine| *engine != Engine::Native)
}

#[test]
fn handshakes_come_in_fragments_of_any_size() {
    for engine in exporting() {
        for version in VERSIONS {
            within(LONG, move || {
                let client = client_builder(engine).max_version(version).build().expect("context");
                let server = server_builder(engine).build().expect("context");
                // The first of each message, and the others.
                for (first, others) in [(1, 1), (3, 3), (4, 4), (5, 5), (20, 20), (20, 9999), (38, 38), (100, 100)] {
                    let ends = shake(&client, &server, &mut |record, is_encrypted| {
                        if is_encrypted || record[0] != HANDSHAKE {
                            return record.to_vec();
                        }
                        let (start, rest) = record[5..].split_at(first.min(record.len() - 5));
                        let fragments = std::iter::once(start).chain(rest.chunks(others));
                        let framed = |part: &[u8]| [&record[..3], &(part.len() as u16).to_be_bytes(), part].concat();
                        fragments.flat_map(framed).collect()
                    });
                    assert_eq!(ends.0.version(), Some(version));
                    assert_same_keys(&ends);
                }
            });
        }
    }
}

/// A Finished of TLS 1.2 in AES-GCM begins with a nonce, which may be any number: that of a ServerHello, once in 256 times.
#[test]
fn an_encrypted_message_is_not_taken_for_a_server_hello() {
    const SERVER_HELLO: u8 = 2;
    for client in exporting() {
        for server in exporting() {
            within(LONG, move || {
                let client = client_builder(client).max_version(Version::Tls1_2).session_resumption(false);
                let client = client.cipher_list("ECDHE-ECDSA-AES128-GCM-SHA256").build().expect("context");
                let server = server_builder(server).build().expect("context");
                let mut seen = 0;
                while seen < 2 {
                    let ends = shake(&client, &server, &mut |record, is_encrypted| {
                        let is_alike = is_encrypted && record[0] == HANDSHAKE && record[5] == SERVER_HELLO;
                        seen += usize::from(is_alike);
                        record.to_vec()
                    });
                    assert_same_keys(&ends);
                }
            });
        }
    }
}
