//! The fuzz targets of the folder `fuzz` over a short corpus, without a fuzzer: noise, and recorded sessions, keys and certificates
//! with a few bytes changed.

mod common;
#[path = "../fuzz/src/lib.rs"]
mod targets;

use std::time::Duration;

use common::{pattern, within};
use targets::contexts::{pairings, Pairing};
use targets::{loading, one_end, session};

const LIMIT: Duration = Duration::from_secs(120);

/// Runs `target` over what `inputs` makes of each number; says which one failed, or else what each said.
fn over<T: Send + 'static>(
    count: u64,
    inputs: impl Fn(u64) -> Vec<u8> + Send + 'static,
    target: fn(&[u8]) -> T,
) -> Vec<T> {
    within(LIMIT, move || {
        let run = |seed| {
            let input = inputs(seed);
            let result = std::panic::catch_unwind(|| target(&input));
            result.unwrap_or_else(|_| panic!("input {seed}, {} bytes: {}", input.len(), input.escape_ascii()))
        };
        (0..count).map(run).collect()
    })
}

/// Bytes of any length up to `most`, short ones more often.
fn noise(seed: u64, most: usize) -> Vec<u8> {
    let random = number(seed);
    pattern(seed, random % (1 + (most >> ((random >> 24) % 8))))
}

fn number(seed: u64) -> usize {
    u64::from_le_bytes(pattern(seed ^ 0xf0f0, 8).try_into().expect("eight bytes")) as usize
}

/// With one to three changes: a byte, a bit, bytes left out, doubled or added, the rest cut off.
fn changed(mut bytes: Vec<u8>, seed: u64) -> Vec<u8> {
    for change in 0..1 + seed % 3 {
        let random = number(seed * 4 + change);
        let at = (random >> 16) % bytes.len();
        let some = (at + 1 + random % 20).min(bytes.len());
        match (random >> 8) % 7 {
            0 | 1 => bytes[at] = random as u8,
            2 => bytes[at] ^= 1 << (random % 8),
            3 => drop(bytes.drain(at..some)),
            4 => drop(bytes.splice(at..at, bytes[at..some].to_vec())),
            5 => drop(bytes.splice(at..at, noise(seed, 20))),
            _ => bytes.truncate(at + 1),
        }
        bytes.push(random as u8);
    }
    bytes
}

/// All that a client and a server say to each other: handshake, data, close_notify.
fn recorded(pairing: &Pairing) -> [Vec<u8>; 2] {
    let mut ends = [pairing.client(), pairing.server()];
    let mut flows = [Vec::new(), Vec::new()];
    let mut closing = false;
    loop {
        for from in 0..2 {
            let _ = ends[from].handshake();
            let bytes = ends[from].output().to_vec();
            ends[from].consume_output(bytes.len());
            ends[1 - from].feed(&bytes);
            flows[from].extend(bytes);
        }
        if ends.iter().all(|end| end.is_handshake_done()) {
            if closing {
                return flows;
            }
            closing = true;
            for end in &mut ends {
                end.write(&pattern(1, 1_000)).expect("write");
                end.close().expect("close");
            }
        }
    }
}

fn sessions(of: usize) -> impl Fn(u64) -> Vec<u8> {
    let flows: Vec<Vec<u8>> = pairings().iter().map(|pairing| recorded(pairing)[of].clone()).collect();
    move |seed| changed(flows[seed as usize % flows.len()].clone(), seed)
}

#[test]
fn no_bytes_complete_a_servers_handshake() {
    over(500, |seed| noise(seed, 2_000), one_end::server);
    over(500, sessions(0), one_end::server);
}

#[test]
fn no_bytes_complete_a_clients_handshake() {
    over(500, |seed| noise(seed, 2_000), one_end::client);
    over(500, sessions(1), one_end::client);
}

#[test]
fn everything_arrives_however_it_is_split() {
    let arrived: usize = over(600, |seed| noise(seed, 600), session::splits).iter().sum();
    assert!(arrived > 1_000_000, "{arrived}");
}

#[test]
fn nothing_is_forged_however_it_is_tampered_with() {
    let arrived: usize = over(1_000, |seed| noise(seed, 600), session::tampering).iter().sum();
    assert!(arrived > 10_000, "{arrived}");
}

#[test]
fn whatever_is_loaded_is_taken_or_refused() {
    over(500, |seed| noise(seed, 2_000), loading::loading);
    let files: [&[u8]; 8] = [
        include_bytes!("../fuzz/fixtures/server.pem"),
        include_bytes!("../fuzz/fixtures/server.key"),
        include_bytes!("../fuzz/fixtures/sec1.key"),
        include_bytes!("../fuzz/fixtures/pkcs1.key"),
        include_bytes!("../fuzz/fixtures/leaf.der"),
        include_bytes!("../fuzz/fixtures/secret.p12"),
        include_bytes!("../fuzz/fixtures/plain.p12"),
        include_bytes!("../fuzz/fixtures/list.pem"),
    ];
    let inputs = move |seed| changed(files[seed as usize % files.len()].to_vec(), seed);
    let loaded: usize = over(3_000, inputs, loading::loading).iter().sum();
    assert!(loaded > 100, "{loaded}");
}

/// Found by the target `client`: with the header alone given to the library, the rest passed for the header of a record that never
/// came.
#[test]
fn a_record_of_an_unknown_type_is_refused_however_it_is_split() {
    one_end::client(include_bytes!("../fuzz/seeds/client/unknown_type"));
}

/// Found by the target `server`, for the same reason.
#[test]
fn a_first_message_in_the_frame_of_ssl_2_is_judged_however_it_is_split() {
    one_end::server(include_bytes!("../fuzz/seeds/server/ssl2_frame"));
}
