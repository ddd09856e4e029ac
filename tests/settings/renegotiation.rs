//! A server that renegotiates (RFC 5246, section 7.4.1.1), which `Native` goes along with, and takes its time over it.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use sslfile::{Engine, SslFile, Version};

use super::rig::{at, flag, s_server, with_openssl, Own};
use crate::common::{certs, client_builder, engines, NAME};
use crate::harness::{connect, free_port, Bench, Peer};

const HANDSHAKE: u8 = 22;
const ALERT: u8 = 21;
/// Long enough for a record of the server's to come, and for nothing else.
const SHORTLY: Duration = Duration::from_millis(200);

/// Between us and the server. Once it is told to, it holds what the server answers to our next hello.
#[derive(Default)]
struct Gate {
    state: Mutex<State>,
    moved: Condvar,
}

#[derive(Clone, Copy, Default, PartialEq)]
enum State {
    #[default]
    Open,
    /// The next handshake record of ours closes it.
    Armed,
    Closed,
}

impl Gate {
    fn set(&self, state: State) {
        *self.state.lock().expect("lock") = state;
        self.moved.notify_all();
    }

    fn on_our_record(&self, kind: u8) {
        let mut state = self.state.lock().expect("lock");
        if kind == HANDSHAKE && *state == State::Armed {
            *state = State::Closed;
            self.moved.notify_all();
        }
    }

    fn wait_until(&self, holds: impl Fn(State) -> bool) {
        drop(self.moved.wait_while(self.state.lock().expect("lock"), |state| !holds(*state)).expect("lock"));
    }
}

/// Our side of it, the gate, and the types of our records once all is over.
fn through_a_gate(port: u16, peer: &Peer) -> (TcpStream, Arc<Gate>, JoinHandle<Vec<u8>>) {
    let mut far = connect(peer, port).expect("it listens");
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("bind");
    let ours = TcpStream::connect(listener.local_addr().expect("address")).expect("connect");
    let (mut near, _) = listener.accept().expect("accept");
    let gate = Arc::new(Gate::default());
    let back = {
        let (gate, mut far, mut near) =
            (gate.clone(), far.try_clone().expect("clone"), near.try_clone().expect("clone"));
        thread::spawn(move || {
            let mut buf = [0; 4096];
            while let Ok(n @ 1..) = far.read(&mut buf) {
                gate.wait_until(|state| state != State::Closed);
                if near.write_all(&buf[..n]).is_err() {
                    break;
                }
            }
            let _ = near.shutdown(Shutdown::Write);
        })
    };
    let there = thread::spawn({
        let gate = gate.clone();
        move || {
            let mut kinds = Vec::new();
            let mut head = [0; 5];
            while near.read_exact(&mut head).is_ok() {
                let mut body = vec![0; usize::from(u16::from_be_bytes([head[3], head[4]]))];
                near.read_exact(&mut body).expect("a whole record");
                gate.on_our_record(head[0]);
                kinds.push(head[0]);
                if far.write_all(&head).and_then(|()| far.write_all(&body)).is_err() {
                    break;
                }
            }
            let _ = far.shutdown(Shutdown::Write);
            back.join().expect("the way back");
            kinds
        }
    });
    (ours, gate, there)
}

/// Among what it says of itself it prints what it gets.
fn hears(peer: &mut Peer, text: &str) {
    let mut heard = String::new();
    while !heard.ends_with(text) {
        heard.push(char::from(peer.hear(1)[0]));
    }
}

/// A server that has asked for a renegotiation, and whose part of it is held; and our file, which has said hello.
fn renegotiating(bench: &Bench) -> (SslFile, Arc<Gate>, JoinHandle<Vec<u8>>, Peer) {
    let own = Own::new(bench, "server", &certs().ecdsa);
    let port = free_port();
    let mut peer = bench.spawn(s_server(port, 1, &own).arg(flag(Version::Tls1_2)));
    let (stream, gate, kinds) = through_a_gate(port, &peer);
    let context = at(Version::Tls1_2, client_builder(Engine::Native)).engine(Engine::Native).build().expect("context");
    let file = SslFile::client(stream, &context, NAME).expect("handshake");
    // Its first command is for a connection that it knows of.
    (&file).write_all(b"hello\n").expect("write");
    hears(&mut peer, "hello\n");
    gate.set(State::Armed);
    peer.feed(b"r\n");
    // Whoever reads meets its wish.
    file.set_read_timeout(Some(SHORTLY)).expect("time-out");
    loop {
        let read = (&file).read(&mut [0; 10]);
        assert_eq!(read.expect_err("nothing to read").kind(), io::ErrorKind::TimedOut);
        if *gate.state.lock().expect("lock") == State::Closed {
            break;
        }
    }
    file.set_read_timeout(None).expect("time-out");
    (file, gate, kinds, peer)
}

#[test]
fn a_blocking_write_waits_for_the_end_of_a_renegotiation() {
    with_openssl(|bench| {
        let (file, gate, kinds, mut peer) = renegotiating(bench);
        file.set_write_timeout(Some(SHORTLY)).expect("time-out");
        let late = (&file).write(b"late").expect_err("nobody answers");
        assert_eq!(late.kind(), io::ErrorKind::TimedOut, "{late}");
        file.set_write_timeout(None).expect("time-out");
        let writer = thread::spawn({
            let file = file.clone();
            move || (&file).write_all(b"in time\n")
        });
        gate.set(State::Open);
        writer.join().expect("writer").expect("it waits");
        hears(&mut peer, "in time\n");
        file.close().expect("close");
        assert_eq!(kinds.join().expect("relay").last(), Some(&ALERT), "the last thing we say is close_notify");
    });
}

#[test]
fn what_does_not_wait_is_queued_until_then_and_wakes_nobody_for_room() {
    with_openssl(|bench| {
        let (file, gate, kinds, mut peer) = renegotiating(bench);
        file.set_nonblocking(true).expect("mode");
        assert_eq!((&file).write(b"one\n").expect("queued"), 4);
        file.send(b"two\n").expect("queued");
        assert_eq!(file.unsent(), 8);
        let interest = file.interest();
        assert!(interest.readable && !interest.writable, "{interest:?}");
        file.set_nonblocking(false).expect("mode");
        gate.set(State::Open);
        (&file).flush().expect("flush");
        hears(&mut peer, "one\ntwo\n");
        drop(file);
        assert_eq!(kinds.join().expect("relay").last(), Some(&ALERT));
    });
}

#[test]
fn close_says_close_notify_behind_a_renegotiation() {
    with_openssl(|bench| {
        let (file, gate, kinds, _peer) = renegotiating(bench);
        let closer = thread::spawn({
            let file = file.clone();
            move || file.close()
        });
        gate.set(State::Open);
        closer.join().expect("closer").expect("close");
        assert_eq!(kinds.join().expect("relay").last(), Some(&ALERT), "the last thing we say is close_notify");
    });
}

#[test]
fn a_peer_that_goes_in_the_middle_of_a_renegotiation_ends_the_write() {
    with_openssl(|bench| {
        let (file, gate, kinds, peer) = renegotiating(bench);
        let writer = thread::spawn({
            let file = file.clone();
            move || (&file).write_all(b"to nobody")
        });
        peer.kill();
        gate.set(State::Open);
        // Whether it has answered our hello by then nobody can say; but nobody waits for ever.
        let _ = writer.join().expect("writer");
        let end = (&file).read(&mut [0; 10]).expect_err("it is cut");
        assert!(
            matches!(
                end.kind(),
                io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe
            ),
            "{end}"
        );
        drop(file);
        kinds.join().expect("relay");
    });
}

#[test]
fn our_refusal_is_told_to_the_alert_hook() {
    with_openssl(|bench| {
        let own = Own::new(bench, "server", &certs().ecdsa);
        for engine in engines().into_iter().filter(|engine| *engine != Engine::Native) {
            let port = free_port();
            let mut peer = bench.spawn(s_server(port, 1, &own).arg(flag(Version::Tls1_2)));
            let heard = Arc::new(Mutex::new(Vec::new()));
            let notes = heard.clone();
            let context = at(Version::Tls1_2, client_builder(engine))
                .on_alert(move |alert| notes.lock().expect("lock").push((alert.number(), alert.is_ours())))
                .build()
                .expect("context");
            let file = SslFile::client(connect(&peer, port).expect("it listens"), &context, NAME).expect("handshake");
            (&file).write_all(b"hello\n").expect("write");
            hears(&mut peer, "hello\n");
            peer.feed(b"r\n");
            let end = (&file).read(&mut [0; 10]).expect_err("it ends the connection");
            assert!(end.to_string().contains("handshake_failure (40)"), "{engine:?}: {end}");
            assert_eq!(*heard.lock().expect("lock"), [(100, true), (40, false)], "{engine:?}");
        }
    });
}
