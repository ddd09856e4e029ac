//! e, h: records without data, which a peer can make for nothing.

use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::thread;
use std::time::{Duration, Instant};

use sslfile::{Backend, Engine, ErrorKind as Kind, Role, SslFile, Version};

use crate::common::{kind_of, wait_for};
use crate::evil::{file_pair, on_each, Evil, ALERT, DATA, HANDSHAKE};
use crate::rig::wake_ups;

const TLS13: &[Version] = &[Version::Tls1_3];
const BOTH: &[Version] = &[Version::Tls1_2, Version::Tls1_3];
/// Records without data that may come one after the other.
const IN_A_ROW: usize = 32;
/// More than the system holds for a connection whose buffers are small, and what we may hold.
const HELD: usize = 256 << 10;

/// Sends `count` times what `make` makes, with a byte of data behind each, on a thread. Reads nothing.
fn bother(mut evil: Evil, count: usize, make: fn(&mut Evil) -> Vec<u8>) -> thread::JoinHandle<Evil> {
    let mut all = Vec::new();
    for _ in 0..count {
        all.extend(make(&mut evil));
        all.extend(evil.record(DATA, b"x"));
    }
    thread::spawn(move || {
        // Refused when the file has had enough.
        let _ = evil.send(&all);
        evil
    })
}

/// Reads until `count` bytes have come or the connection has failed; says how much has been made for the peer meanwhile.
fn made_while_reading(file: &SslFile, count: usize) -> u64 {
    file.set_nonblocking(true).expect("set_nonblocking");
    let before = file.traffic().bytes_sent;
    let mut got = 0;
    let mut buf = [0; 4096];
    while got < count {
        match { file }.read(&mut buf) {
            Ok(n) => {
                assert_ne!(n, 0, "an end that nobody said");
                got += n;
            }
            // It may want to write what nobody reads: only what it reads gets it on.
            Err(e) if e.kind() == ErrorKind::WouldBlock => thread::sleep(Duration::from_millis(1)),
            Err(e) => {
                assert_eq!(e.kind(), ErrorKind::InvalidData, "{e}");
                break;
            }
        }
    }
    file.traffic().bytes_sent - before
}

#[test]
fn e_key_updates_of_a_peer_that_reads_nothing_cost_a_bounded_amount() {
    const UPDATES: usize = 30_000;
    on_each(TLS13, |engine, role, version| {
        let (file, evil) = file_pair(engine, role, version, SslFile::options());
        let sender = bother(evil, UPDATES, |evil| evil.key_update(true));
        let made = made_while_reading(&file, UPDATES);
        assert!(made < HELD as u64, "{made} bytes made for {UPDATES} key updates");
        drop(file);
        sender.join().expect("sender");
    });
}

#[test]
fn e_refused_renegotiations_of_a_peer_that_reads_nothing_cost_a_bounded_amount() {
    const REQUESTS: usize = 20_000;
    on_each(&[Version::Tls1_2], |engine, role, version| {
        let (file, evil) = file_pair(engine, role, version, SslFile::options());
        let sender = bother(
            evil,
            REQUESTS,
            match role {
                Role::Client => hello_request,
                Role::Server => client_hello,
            },
        );
        let made = made_while_reading(&file, REQUESTS);
        assert!(made < HELD as u64, "{made} bytes made for {REQUESTS} requests");
        drop(file);
        sender.join().expect("sender");
    });
}

/// Half-closed, asked for its keys three times, with data behind each.
fn half_closed_and_asked(engine: Engine, role: Role) -> (SslFile, Evil) {
    let (file, mut evil) = file_pair(engine, role, Version::Tls1_3, SslFile::options());
    file.shutdown(Shutdown::Write).expect("shutdown");
    for _ in 0..3 {
        let asked = [evil.key_update(true), evil.record(DATA, b"x")].concat();
        evil.send(&asked).expect("send");
        { &file }.read_exact(&mut [0]).expect("read");
    }
    file.set_nonblocking(true).expect("set_nonblocking");
    (file, evil)
}

#[test]
fn e_a_key_update_behind_our_end_leaves_nothing_to_write() {
    on_each(TLS13, |engine, role, _| {
        let (file, mut evil) = half_closed_and_asked(engine, role);
        assert_eq!({ &file }.read(&mut [0]).expect_err("no more").kind(), ErrorKind::WouldBlock);
        assert!(file.interest().readable && !file.interest().writable, "{:?}", file.interest());
        let last = [evil.record(DATA, b"last"), evil.record(ALERT, &[1, 0])].concat();
        evil.send(&last).expect("send");
        let mut all = Vec::new();
        while let Err(e) = { &file }.read_to_end(&mut all) {
            assert_eq!(e.kind(), ErrorKind::WouldBlock, "{e}");
            wait_for(&file);
        }
        assert_eq!(all, b"last");
    });
}

#[test]
fn e_a_key_update_behind_our_end_wakes_no_backend() {
    on_each(TLS13, |engine, role, _| {
        let (file, _evil) = half_closed_and_asked(engine, role);
        let backend = Backend::new().expect("backend");
        file.set_read_callback(|_, _| panic!("nothing was sent"));
        file.set_backend(Some(&backend)).expect("set_backend");
        let turns = wake_ups(&backend);
        assert!(turns <= 10, "{turns} wake-ups of an idle connection");
    });
}

fn hello_request(evil: &mut Evil) -> Vec<u8> {
    evil.record(HANDSHAKE, &[0, 0, 0, 0])
}

/// Of TLS 1.2, without extensions.
fn client_hello(evil: &mut Evil) -> Vec<u8> {
    let body = [&[3, 3][..], &[7; 32], &[0], &[0, 2, 0xc0, 0x2b], &[1, 0]].concat();
    let head = [1, 0, 0, body.len() as u8];
    evil.record(HANDSHAKE, &[&head[..], &body].concat())
}

fn empty(evil: &mut Evil) -> Vec<u8> {
    evil.record(DATA, b"")
}

/// `user_canceled`, which means nothing by itself.
fn warning(evil: &mut Evil) -> Vec<u8> {
    evil.record(ALERT, &[1, 90])
}

fn key_update(evil: &mut Evil) -> Vec<u8> {
    evil.key_update(false)
}

type Make = (&'static str, fn(&mut Evil) -> Vec<u8>);

/// Records without data that a file of this role may get. Not all engines refuse a renegotiation without ending the
/// connection; those that do must count it.
fn without_data(role: Role, version: Version) -> Vec<Make> {
    let mut all: Vec<Make> = vec![("empty records", empty), ("warnings", warning)];
    match (version, role) {
        (Version::Tls1_3, _) => all.push(("key updates", key_update)),
        (_, Role::Client) => all.push(("HelloRequests", hello_request)),
        (_, Role::Server) => all.push(("ClientHellos", client_hello)),
    }
    all
}

#[test]
fn h_a_read_that_gets_records_without_data_only_fails_soon() {
    const FLOOD: usize = 5_000;
    on_each(BOTH, |engine, role, version| {
        for (name, make) in without_data(role, version) {
            println!("{name}");
            let (file, mut evil) = file_pair(engine, role, version, SslFile::options());
            let flood: Vec<u8> = (0..FLOOD).flat_map(|_| make(&mut evil)).collect();
            let sender = thread::spawn(move || {
                let _ = evil.send(&flood);
                evil
            });
            file.set_nonblocking(true).expect("set_nonblocking");
            let start = Instant::now();
            let error = loop {
                let call = Instant::now();
                let result = { &file }.read(&mut [0]);
                assert!(call.elapsed() < Duration::from_secs(2), "one call lasted {:?}", call.elapsed());
                match result {
                    Err(e) if e.kind() == ErrorKind::WouldBlock && start.elapsed() < Duration::from_secs(10) => {
                        thread::sleep(Duration::from_millis(1));
                    }
                    result => break result.expect_err("nothing was sent"),
                }
            };
            assert_eq!(error.kind(), ErrorKind::InvalidData, "{name}: {error}");
            // The sender may be held by what the file no longer reads.
            drop(file);
            sender.join().expect("sender");
        }
    });
}

/// The file must have read them all, so that its end comes without a reset; so there are few.
#[test]
fn h_too_many_records_without_data_are_answered_with_an_alert() {
    on_each(BOTH, |engine, role, version| {
        for (name, make) in without_data(role, version) {
            println!("{name}");
            let (file, mut evil) = file_pair(engine, role, version, SslFile::options());
            let few: Vec<u8> = (0..IN_A_ROW + 2).flat_map(|_| make(&mut evil)).collect();
            evil.send(&few).expect("send");
            file.set_read_timeout(Some(Duration::from_secs(3))).expect("set_read_timeout");
            let error = { &file }.read(&mut [0]).expect_err("nothing was sent");
            assert_eq!(error.kind(), ErrorKind::InvalidData, "{name}: {error}");
            evil.stream.set_read_timeout(Some(Duration::from_secs(5))).expect("set_read_timeout");
            // A refused renegotiation is answered with a warning, each.
            let heard = std::iter::from_fn(|| evil.alert()).find(|alert| *alert != 100);
            assert!(heard.is_some_and(|alert| alert != 0), "{name}: {error}; heard {heard:?}");
            // Not every engine says which alert it sent.
            if let Some(Kind::LocalAlert(said)) = kind_of(&error) {
                assert_eq!(heard, Some(said), "{name}: {error}");
            }
        }
    });
}

#[test]
fn h_a_few_records_without_data_are_nothing() {
    on_each(TLS13, |engine, role, version| {
        for make in [empty, key_update] {
            let (file, mut evil) = file_pair(engine, role, version, SslFile::options());
            for _ in 0..3 {
                let mut few: Vec<u8> = (0..IN_A_ROW).flat_map(|_| make(&mut evil)).collect();
                few.extend(evil.record(DATA, b"data"));
                evil.send(&few).expect("send");
                let mut data = [0; 4];
                { &file }.read_exact(&mut data).expect("read");
                { &file }.write_all(&data).expect("write");
                assert_eq!(evil.receive_data().expect("receive"), data);
            }
        }
    });
}
