//! A listener under siege and in need: clients that say nothing, and a system that has no descriptors left.

use crate::common;
use crate::rig;

use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use common::{engines, kind_of, passes_in_child, server_context, within, LONG};
use rig::{bare_client, on_each_engine, settle, turn_until, wake_ups};
use rustix::process::{setrlimit, Resource, Rlimit};
use sslfile::{Backend, Engine, ErrorKind as Kind, SslFile, SslListener};

fn bind(engine: Engine) -> (SslListener, SocketAddr) {
    let listener = SslListener::bind((Ipv4Addr::LOCALHOST, 0), &server_context(engine)).expect("bind");
    let addr = listener.local_addr().expect("addr");
    (listener, addr)
}

struct Port {
    backend: Backend,
    listener: SslListener,
    addr: SocketAddr,
    accepted: Arc<Mutex<Vec<SslFile>>>,
    failed: Arc<Mutex<Vec<(SocketAddr, io::Error)>>>,
}

impl Port {
    fn new(engine: Engine) -> Port {
        let (listener, addr) = bind(engine);
        let backend = Backend::new().expect("backend");
        let (accepted, failed): (Arc<Mutex<Vec<_>>>, Arc<Mutex<Vec<_>>>) = Default::default();
        let (files, errors) = (accepted.clone(), failed.clone());
        let callback = move |file, _| files.lock().expect("files").push(file);
        listener.set_accept_callback(&backend, callback).expect("accept callback");
        listener.set_error_callback(move |addr, e| errors.lock().expect("errors").push((addr, e)));
        Port { backend, listener, addr, accepted, failed }
    }

    /// Clients that say this and no more, accepted one after the other.
    fn clients(&self, count: usize, words: &[u8]) -> Vec<TcpStream> {
        (0..count)
            .map(|_| {
                let before = self.listener.pending();
                let mut client = TcpStream::connect(self.addr).expect("connect");
                client.write_all(words).expect("write");
                turn_until(&self.backend, || self.listener.pending() > before);
                client
            })
            .collect()
    }

    fn accepted(&self) -> usize {
        self.accepted.lock().expect("files").len()
    }

    fn failed(&self) -> usize {
        self.failed.lock().expect("errors").len()
    }

    fn turn_for(&self, time: Duration) {
        let end = Instant::now() + time;
        while let Some(left) = end.checked_duration_since(Instant::now()) {
            self.backend.turn(Some(left)).expect("turn");
        }
    }
}

const SILENCE: Duration = Duration::from_secs(1);

// ------------------------------------------------------------------------------------------------
// Handshakes that say nothing
// ------------------------------------------------------------------------------------------------

#[test]
fn at_the_limit_the_oldest_that_has_said_nothing_for_a_second_gives_way() {
    on_each_engine(|engine| {
        let port = Port::new(engine);
        port.listener.set_pending_limit(4);
        port.listener.set_handshake_timeout(None);
        // Older, but it has said something.
        let spoke = port.clients(1, &[22]);
        let silent = port.clients(3, &[]);
        let begin = Instant::now();
        let peers: Vec<_> = (0..2)
            .map(|_| {
                let tcp = TcpStream::connect(port.addr).expect("connect");
                thread::spawn(move || bare_client(tcp))
            })
            .collect();
        turn_until(&port.backend, || port.accepted() == 2 && peers.iter().all(|peer| peer.is_finished()));
        assert!(begin.elapsed() + Duration::from_millis(500) > SILENCE, "it had not been silent for long");
        // One place was enough, or it took two.
        let gone = std::mem::take(&mut *port.failed.lock().expect("errors"));
        assert!((1..=2).contains(&gone.len()), "{gone:?}");
        for ((addr, e), mut client) in gone.iter().zip(&silent) {
            assert_eq!(*addr, client.local_addr().expect("addr"), "the oldest first");
            assert_eq!((e.kind(), kind_of(e)), (ErrorKind::TimedOut, Some(Kind::TimedOut)), "{e}");
            assert!(e.to_string().contains("4 handshakes"), "{e}");
            assert_eq!(client.read(&mut [0]).expect("the end"), 0);
        }
        assert_eq!(port.listener.pending(), 4 - gone.len());
        drop((spoke, peers));
    });
}

#[test]
fn while_there_is_room_or_nobody_new_comes_silence_is_no_fault_and_nothing_spins() {
    on_each_engine(|engine| {
        let port = Port::new(engine);
        port.listener.set_pending_limit(3);
        let silent = port.clients(3, &[]);
        port.turn_for(SILENCE + Duration::from_millis(200));
        assert_eq!((port.listener.pending(), port.failed()), (3, 0));
        assert!(wake_ups(&port.backend) <= 2, "spinning");
        // At once, as they have been silent for long.
        let mut new = port.clients_beyond(2);
        assert_eq!((port.listener.pending(), port.failed()), (3, 2));
        // A higher limit, and there is room.
        port.listener.set_pending_limit(10);
        new.append(&mut port.clients(2, &[]));
        port.turn_for(SILENCE + Duration::from_millis(200));
        assert_eq!((port.listener.pending(), port.failed()), (5, 2));
        drop((silent, new));
    });
}

impl Port {
    /// Clients for each of whom another is given up.
    fn clients_beyond(&self, count: usize) -> Vec<TcpStream> {
        (0..count)
            .map(|_| {
                let before = self.failed();
                let client = TcpStream::connect(self.addr).expect("connect");
                turn_until(&self.backend, || self.failed() > before);
                client
            })
            .collect()
    }
}

#[test]
fn what_has_come_while_the_backend_was_busy_counts() {
    on_each_engine(|engine| {
        let port = Port::new(engine);
        port.listener.set_pending_limit(1);
        let slow = port.clients(1, &[]);
        // In one turn: the byte, and a new client.
        thread::sleep(SILENCE);
        let new = TcpStream::connect(port.addr).expect("connect");
        (&slow[0]).write_all(&[22]).expect("write");
        settle(&port.backend);
        assert_eq!((port.listener.pending(), port.failed()), (1, 0), "the new one was preferred");
        drop(slow);
        turn_until(&port.backend, || port.failed() == 1);
        let new = thread::spawn(move || bare_client(new));
        turn_until(&port.backend, || port.accepted() == 1 && new.is_finished());
    });
}

// ------------------------------------------------------------------------------------------------
// No descriptors left
// ------------------------------------------------------------------------------------------------

const CHILD: &str = "SSLFILE_TEST_NO_DESCRIPTORS";

/// In a process of its own, which may have no more than a few descriptors.
fn with_few_descriptors(name: &str, test: fn(Engine)) {
    if std::env::var_os(CHILD).is_none() {
        return passes_in_child(name, &[(CHILD, "1")]);
    }
    setrlimit(Resource::Nofile, Rlimit { current: Some(64), maximum: Some(64) }).expect("limit");
    within(LONG, move || engines().into_iter().for_each(test));
}

/// All there are.
fn exhaust() -> Vec<File> {
    std::iter::from_fn(|| File::open("/dev/null").ok()).collect()
}

#[test]
fn accept_and_incoming_wait_until_there_are_descriptors() {
    with_few_descriptors("listener_limits::accept_and_incoming_wait_until_there_are_descriptors", |engine| {
        let (listener, addr) = bind(engine);
        let clients: Vec<_> = (0..3).map(|_| TcpStream::connect(addr).expect("connect")).collect();
        let held = exhaust();
        let (said, heard) = mpsc::channel();
        thread::scope(|t| {
            let server = t.spawn(|| -> io::Result<()> {
                for file in listener.incoming() {
                    said.send(file?).expect("send");
                }
                Ok(())
            });
            let early = heard.recv_timeout(Duration::from_millis(300));
            assert!(early.is_err() && !server.is_finished(), "accepted without descriptors");
            drop(held);
            let files: Vec<_> = clients.iter().map(|_| heard.recv_timeout(LONG / 4).expect("a file")).collect();
            for (file, client) in files.iter().zip(&clients) {
                assert_eq!(file.peer_addr().expect("addr"), client.local_addr().expect("addr"));
            }
            listener.close();
            assert_eq!(server.join().expect("server").expect_err("closed").kind(), ErrorKind::NotConnected);
        });
    });
}

#[test]
fn close_ends_a_wait_for_descriptors() {
    with_few_descriptors("listener_limits::close_ends_a_wait_for_descriptors", |engine| {
        for end in [SslListener::close, SslListener::finish] {
            let (listener, addr) = bind(engine);
            let _client = TcpStream::connect(addr).expect("connect");
            let held = exhaust();
            thread::scope(|t| {
                let waiting = t.spawn(|| listener.accept().map(drop));
                thread::sleep(Duration::from_millis(150));
                assert!(!waiting.is_finished());
                end(&listener);
                assert_eq!(waiting.join().expect("thread").expect_err("closed").kind(), ErrorKind::NotConnected);
            });
            drop(held);
        }
    });
}

#[test]
fn a_nonblocking_accept_waits_for_nothing() {
    with_few_descriptors("listener_limits::a_nonblocking_accept_waits_for_nothing", |engine| {
        let (listener, addr) = bind(engine);
        listener.set_nonblocking(true).expect("set");
        assert_eq!(listener.accept().expect_err("nobody there").kind(), ErrorKind::WouldBlock);
        let _client = TcpStream::connect(addr).expect("connect");
        let held = exhaust();
        let e = listener.accept().expect_err("no descriptors");
        assert_eq!(e.raw_os_error(), Some(rustix::io::Errno::MFILE.raw_os_error()), "{e}");
        drop(held);
        listener.accept().expect("accept");
    });
}

#[test]
fn in_callback_mode_it_tries_again_by_itself() {
    with_few_descriptors("listener_limits::in_callback_mode_it_tries_again_by_itself", |engine| {
        let port = Port::new(engine);
        let tcp = TcpStream::connect(port.addr).expect("connect");
        let held = exhaust();
        port.turn_for(Duration::from_millis(500));
        let told = std::mem::take(&mut *port.failed.lock().expect("errors"));
        assert!((1..=6).contains(&told.len()), "{told:?}");
        assert!(told.iter().all(|(addr, _)| *addr == port.addr), "{told:?}");
        drop(held);
        let peer = thread::spawn(move || bare_client(tcp));
        turn_until(&port.backend, || port.accepted() == 1 && peer.is_finished());
    });
}

#[test]
fn finish_waits_for_descriptors_and_loses_nobody() {
    with_few_descriptors("listener_limits::finish_waits_for_descriptors_and_loses_nobody", |engine| {
        let port = Port::new(engine);
        let clients: Vec<_> = (0..5).map(|_| TcpStream::connect(port.addr).expect("connect")).collect();
        let held = exhaust();
        port.listener.finish();
        port.turn_for(Duration::from_millis(250));
        assert_eq!((port.backend.len(), port.accepted()), (1, 0));
        drop(held);
        let peers: Vec<_> = clients.into_iter().map(|tcp| thread::spawn(move || bare_client(tcp))).collect();
        turn_until(&port.backend, || port.accepted() == 5 && peers.iter().all(|peer| peer.is_finished()));
        assert_eq!(port.backend.len(), 5, "the listener is still there");
        let refused = TcpStream::connect(port.addr).expect_err("connected").kind();
        assert_eq!(refused, ErrorKind::ConnectionRefused);
    });
}
