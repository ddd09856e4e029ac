//! What this crate had of keys and data is nowhere in the process's memory when its owner has gone.
//!
//! Each test is its own process, in which nothing else is. What is looked for is kept inverted, and never put together but where a
//! test wipes it itself.
#![cfg(target_os = "linux")]

use std::fs::File;
use std::hint::black_box;
use std::io::{Read, Write};
use std::os::unix::fs::FileExt;
use std::sync::mpsc;
use std::thread;

use sslfile::{Backend, Context, Engine, Identity, SslFile};

use crate::common::{certs, client_context, engines, server_context, tcp_pair, test_in_child, NAME};

const CHILD: &str = "SSLFILE_TEST_WIPED";

/// How often the inverse of this is in what the process can write to.
fn copies(inverted: &[u8]) -> usize {
    let maps = std::fs::read_to_string("/proc/self/maps").expect("maps");
    let memory = File::open("/proc/self/mem").expect("mem");
    let mut window = vec![0; 1 << 20];
    let own = window.as_ptr().addr() as u64..window.as_ptr().addr() as u64 + window.len() as u64;
    let mut found = 0;
    for line in maps.lines().filter(|line| line.contains(" rw-p ")) {
        let (start, rest) = line.split_once('-').expect("a range");
        let hex = |text: &str| u64::from_str_radix(text, 16).expect("an address");
        let (mut at, end) = (hex(start), hex(rest.split_once(' ').expect("an end").0));
        while at < end {
            if own.contains(&at) {
                at = own.end;
                continue;
            }
            let until = if at < own.start { end.min(own.start) } else { end };
            let length = window.len().min((until - at) as usize);
            if memory.read_exact_at(&mut window[..length], at).is_err() {
                break;
            }
            let matches = |piece: &&[u8]| piece.iter().zip(inverted).all(|(byte, inverse)| *byte == !inverse);
            found += window[..length].windows(inverted.len()).filter(matches).count();
            // One that lies across the end is seen next time.
            at += if at + length as u64 == until { length } else { length + 1 - inverted.len() } as u64;
        }
    }
    window.fill(0);
    black_box(&window);
    found
}

/// Runs the test of this name in a process of its own, with this inverted secret, which the test looks for.
fn in_child(name: &str, inverted: &[u8], test: impl FnOnce(&[u8])) {
    if let Ok(hex) = std::env::var(CHILD) {
        let byte = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).expect("hex");
        return test(&(0..hex.len()).step_by(2).map(byte).collect::<Vec<_>>());
    }
    let hex: String = inverted.iter().map(|byte| format!("{byte:02x}")).collect();
    let output = test_in_child(&format!("trust::wiped::{name}"), &[(CHILD, &hex)]).output().expect("child");
    let said = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("1 passed"), "{said}{errors}");
}

/// Calls `f` with the secret itself, which is wiped then.
fn with_secret<T>(inverted: &[u8], f: impl FnOnce(&[u8]) -> T) -> T {
    let mut secret: Vec<u8> = inverted.iter().map(|byte| !byte).collect();
    let result = f(&secret);
    secret.fill(0);
    black_box(&secret);
    result
}

#[test]
fn a_copy_is_found_where_there_is_one() {
    in_child("a_copy_is_found_where_there_is_one", b"what nobody else would write here", |inverted| {
        assert_eq!(copies(inverted), 0);
        with_secret(inverted, |_| assert_eq!(copies(inverted), 1));
        assert_eq!(copies(inverted), 0);
    });
}

#[test]
fn keys_are_wiped_with_the_last_identity() {
    const PKCS8: &str = include_str!("../common/keys/rsa.pkcs8.encrypted.pem");
    // The private exponent is the longest thing that nobody but the owner knows.
    let key = pem::parse(&certs().rsa.key).expect("key");
    let at = key.contents().len() / 2;
    let inverted: Vec<u8> = key.contents()[at..at + 64].iter().map(|byte| !byte).collect();
    in_child("keys_are_wiped_with_the_last_identity", &inverted, |inverted| {
        let folder = tempfile::tempdir().expect("folder");
        let path = |name: &str| folder.path().join(name);
        std::fs::write(path("chain.pem"), &certs().rsa.chain).expect("write");
        std::fs::write(path("key.pem"), &certs().rsa.key).expect("write");
        let before = copies(inverted);
        let read = || {
            [
                Identity::from_pem_files(path("chain.pem"), path("key.pem")),
                Identity::from_pem(certs().rsa.chain.as_bytes(), include_bytes!("../common/keys/rsa.pkcs1.pem")),
                Identity::from_pem_encrypted(certs().rsa.chain.as_bytes(), PKCS8.as_bytes(), "secret"),
            ]
        };
        let identities: Vec<Identity> = (0..10).flat_map(|_| read()).map(|read| read.expect("identity")).collect();
        assert!(copies(inverted) >= before + identities.len(), "what is looked for is not there");
        let again = identities.clone();
        drop(identities);
        assert!(copies(inverted) >= before + again.len(), "the other clone's key is gone");
        drop(again);
        // Of all the times that it has read the key, the library may have left it somewhere once or twice.
        let left = copies(inverted) - before;
        assert!(left <= 3, "{left} copies are left");
    });
}

/// With rustls, which works in our buffers; what OpenSSL has in its own is its affair.
#[test]
fn data_is_wiped_when_it_has_been_read_and_when_it_is_lost() {
    const TEST: &str = "data_is_wiped_when_it_has_been_read_and_when_it_is_lost";
    if !engines().contains(&Engine::Rustls) {
        return;
    }
    let inverted: Vec<u8> = (0..64).map(|n: u8| n.wrapping_mul(37) ^ 0x29).collect();
    in_child(TEST, &inverted, |inverted| {
        let (client, server) = (client_context(Engine::Rustls), server_context(Engine::Rustls));
        let open = || {
            let (c, s) = tcp_pair();
            let server: Context = server.clone();
            let accepting = thread::spawn(move || SslFile::server(s, &server).expect("server"));
            (SslFile::client(c, &client, NAME).expect("client"), accepting.join().expect("server"))
        };
        // Read in pieces, by the thread that sent it.
        let (mut near, mut far) = open();
        with_secret(inverted, |secret| near.write_all(secret)).expect("write");
        let mut heard = [0; 8];
        for expected in inverted.chunks(8) {
            far.read_exact(&mut heard).expect("read");
            assert!(heard.iter().zip(expected).all(|(byte, inverse)| *byte == !inverse));
        }
        heard.fill(0);
        black_box(&heard);
        assert_eq!(copies(inverted), 0, "read");

        // Decrypted, and not read before the end.
        with_secret(inverted, |secret| near.write_all(secret)).expect("write");
        far.peek(&mut [0]).expect("peek");
        assert_ne!(copies(inverted), 0, "what is looked for is not there");
        drop((near, far));
        assert_eq!(copies(inverted), 0, "dropped");

        // Told to a callback; queued, and never sent.
        let (near, far) = open();
        let backend = Backend::new().expect("backend");
        let (done, told) = mpsc::channel();
        far.set_read_callback(move |_, data| done.send(data.len()).expect("send"));
        far.set_nonblocking(true).expect("mode");
        far.set_backend(Some(&backend)).expect("backend");
        with_secret(inverted, |secret| (&near).write_all(secret)).expect("write");
        while told.try_recv().is_err() {
            backend.turn(Some(std::time::Duration::from_secs(10))).expect("turn");
        }
        assert_eq!(copies(inverted), 0, "told");
        near.set_nonblocking(true).expect("mode");
        let filler = vec![0; 64 << 10];
        while near.unsent() == 0 {
            near.send(&filler).expect("send");
        }
        with_secret(inverted, |secret| near.send(secret)).expect("send");
        assert_ne!(copies(inverted), 0, "what is looked for is not there");
        near.abort();
        drop((near, far, backend));
        assert_eq!(copies(inverted), 0, "lost");
    });
}
