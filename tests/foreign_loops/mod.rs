//! `interest()`, `pending()` and `AsFd` are enough for an event loop of another make: bare `polling`, and mio. The peer
//! sends in the ways that leave data buffered where the descriptor does not tell of it.
#![cfg(unix)]

use crate::common;
use crate::rig;

use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use common::{pattern, tcp_pair, LONG};
use rig::{end_well, on_each_engine_and_role, open, shaking_peer, Peer};
use sslfile::{Interest, Role, SslFile};

/// Waits for what the file wants. Says false when nothing came for a long time.
trait Loop {
    fn wait(&mut self, file: &SslFile, interest: Interest) -> bool;
    fn waits(&self) -> usize;
}

/// Level triggered, re-armed for each event.
struct Polling {
    poller: polling::Poller,
    added: bool,
    waits: usize,
    limit: Duration,
}

impl Polling {
    fn new() -> Polling {
        Polling { poller: polling::Poller::new().expect("poller"), added: false, waits: 0, limit: LONG / 4 }
    }
}

impl Loop for Polling {
    fn wait(&mut self, file: &SslFile, interest: Interest) -> bool {
        self.waits += 1;
        let event = polling::Event::new(1, interest.readable, interest.writable);
        if !std::mem::replace(&mut self.added, true) {
            add(&self.poller, file);
        }
        self.poller.modify(file.as_fd(), event).expect("modify");
        let mut events = polling::Events::new();
        self.poller.wait(&mut events, Some(self.limit)).expect("wait");
        !events.is_empty()
    }

    fn waits(&self) -> usize {
        self.waits
    }
}

/// The file outlives the poller in every test.
#[allow(unsafe_code)]
fn add(poller: &polling::Poller, file: &SslFile) {
    // SAFETY: `talk` deletes nothing and drops the poller before the file.
    unsafe { poller.add(&file.as_fd(), polling::Event::none(1)) }.expect("add");
}

/// Edge triggered: what is not read to `WouldBlock` is not told again.
struct Mio {
    poll: mio::Poll,
    registered: Option<Interest>,
    waits: usize,
}

impl Mio {
    fn new() -> Mio {
        Mio { poll: mio::Poll::new().expect("poll"), registered: None, waits: 0 }
    }
}

impl Loop for Mio {
    fn wait(&mut self, file: &SslFile, interest: Interest) -> bool {
        self.waits += 1;
        let wanted = match (interest.readable, interest.writable) {
            (true, false) => mio::Interest::READABLE,
            (false, true) => mio::Interest::WRITABLE,
            (true, true) => mio::Interest::READABLE | mio::Interest::WRITABLE,
            (false, false) => panic!("waits for nothing"),
        };
        let fd = file.as_raw_fd();
        let (mut source, registry) = (mio::unix::SourceFd(&fd), self.poll.registry());
        match self.registered.replace(interest) {
            None => registry.register(&mut source, mio::Token(0), wanted).expect("register"),
            Some(old) if old != interest => registry.reregister(&mut source, mio::Token(0), wanted).expect("again"),
            Some(_) => {}
        }
        let mut events = mio::Events::with_capacity(4);
        self.poll.poll(&mut events, Some(LONG / 4)).expect("poll");
        !events.is_empty()
    }

    fn waits(&self) -> usize {
        self.waits
    }
}

const OUT: usize = 3 << 20;

/// Says a lot in records small and large, several in one piece, and reads a lot, at the same time; then ends.
fn talkative(role: Role, tcp: std::net::TcpStream) -> JoinHandle<Vec<u8>> {
    let peer = shaking_peer(role, tcp);
    thread::spawn(move || {
        let mut peer: Peer = peer.join().expect("peer");
        let out = pattern(1, OUT);
        let mut got = Vec::new();
        let mut at = 0;
        for size in [1, 16384, 5, 16384, 16384, 100_000, 3].iter().cycle() {
            let end = (at + size).min(out.len());
            peer.write_all(&out[at..end]).expect("write");
            at = end;
            let mut buf = [0; 50_000];
            // As much as came, half and half.
            if got.len() < OUT {
                let n = peer.read(&mut buf).expect("read");
                got.extend_from_slice(&buf[..n]);
            }
            if at == out.len() {
                break;
            }
        }
        while got.len() < OUT {
            let mut buf = [0; 50_000];
            let n = peer.read(&mut buf).expect("read");
            assert!(n > 0, "ended early");
            got.extend_from_slice(&buf[..n]);
        }
        end_well(peer);
        got
    })
}

/// The loop of a user who reads in pieces that fit no record, to `WouldBlock`.
fn talk(mut file: &SslFile, events: &mut impl Loop) -> Vec<u8> {
    let out = pattern(2, OUT);
    let (mut got, mut at) = (Vec::new(), 0);
    let mut buf = [0; 1000];
    loop {
        loop {
            match file.read(&mut buf) {
                Ok(0) => {
                    assert_eq!(at, OUT, "ended before all was written");
                    return got;
                }
                Ok(n) => got.extend_from_slice(&buf[..n]),
                Err(e) if e.kind() == ErrorKind::WouldBlock => break,
                Err(e) => panic!("read: {e}"),
            }
        }
        while at < OUT {
            match file.write(&out[at..]) {
                Ok(n) => at += n,
                Err(e) if e.kind() == ErrorKind::WouldBlock => {
                    if file.is_handshake_done() {
                        assert!(file.interest().writable, "a refused write, and no interest in room");
                    }
                    break;
                }
                Err(e) => panic!("write: {e}"),
            }
        }
        if let Err(e) = file.flush() {
            assert_eq!(e.kind(), ErrorKind::WouldBlock);
        }
        // Writing receives nothing, so this holds.
        if file.pending() > 0 {
            continue;
        }
        let interest = file.interest();
        assert!(events.wait(file, interest), "stalled at {} read, {at} written, {interest:?}", got.len());
    }
}

fn both_ways(mut events: impl Loop, engine: sslfile::Engine, role: Role) {
    let (ours, theirs) = tcp_pair();
    let peer = talkative(role, theirs);
    let file = open(engine, role, SslFile::options().nonblocking(true), ours);
    let got = talk(&file, &mut events);
    assert!(got == pattern(1, OUT));
    assert!(events.waits() < 100_000, "spinning: {} waits", events.waits());
    drop(events);
    drop(file);
    assert!(peer.join().expect("peer") == pattern(2, OUT));
}

#[test]
fn polling_drives_a_file_without_a_stall() {
    on_each_engine_and_role(|engine, role| both_ways(Polling::new(), engine, role));
}

#[test]
fn mio_drives_a_file_without_a_stall() {
    on_each_engine_and_role(|engine, role| both_ways(Mio::new(), engine, role));
}

/// A user who reads once per event and asks `pending` before waiting gets all there is.
#[test]
fn pending_tells_of_what_the_descriptor_does_not() {
    on_each_engine_and_role(|engine, role| {
        let (ours, theirs) = tcp_pair();
        let peer = shaking_peer(role, theirs);
        let file = open(engine, role, SslFile::options().nonblocking(true), ours);
        common::until_ready(&file, || file.handshake()).expect("handshake");
        let mut peer = peer.join().expect("peer");
        for _ in 0..100 {
            peer.write_all(&[7; 100]).expect("write");
        }
        let mut poller = Polling::new();
        let (mut total, mut buf) = (0, [0; 64]);
        while total < 10_000 {
            if file.pending() == 0 {
                assert!(poller.wait(&file, file.interest()), "stalled at {total}");
            }
            match (&file).read(&mut buf) {
                Ok(n) => total += n,
                Err(e) => assert_eq!(e.kind(), ErrorKind::WouldBlock),
            }
        }
        assert_eq!(total, 10_000);
        assert_eq!(file.pending(), 0);
        drop(poller);
    });
}

/// The interest of a file at rest is in reading alone, and nothing is ready.
#[test]
fn an_idle_file_makes_a_foreign_loop_wait() {
    on_each_engine_and_role(|engine, role| {
        let (ours, theirs) = tcp_pair();
        let file = open(engine, role, SslFile::options().nonblocking(true), ours);
        if role == Role::Server {
            assert_eq!(file.handshake().expect_err("done").kind(), ErrorKind::WouldBlock);
            assert_eq!(file.interest(), Interest { readable: true, writable: false }, "before the client speaks");
        }
        let peer = shaking_peer(role, theirs);
        common::until_ready(&file, || file.handshake()).expect("handshake");
        let peer = peer.join().expect("peer");
        assert_eq!((&file).read(&mut [0; 1]).expect_err("data").kind(), ErrorKind::WouldBlock);
        common::until_ready(&file, || (&file).flush()).expect("flush");
        assert_eq!(file.interest(), Interest { readable: true, writable: false });
        // Tickets may still be on their way: after them there is rest.
        let mut idle = Polling::new();
        idle.limit = Duration::from_millis(100);
        let rounds = (0..20).take_while(|_| idle.wait(&file, file.interest())).map(|_| {
            assert_eq!((&file).read(&mut [0; 1]).expect_err("data").kind(), ErrorKind::WouldBlock);
        });
        assert!(rounds.count() < 20, "never at rest");
        drop((idle, peer));
    });
}
