//! c, d: what one connection may cost, and what it does when there is nothing left.

use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::process::{getrlimit, setrlimit, Resource, Rlimit};
use sslfile::{Backend, Engine, Role, SslFile};

use crate::common::{engines, passes_in_child, pattern, tcp_pair, until_busy, within, LONG};
use crate::rig::{on_each_engine_and_role, open, pair, settle, shaking_peer, turn_until, Log, Peer};

/// What `close_clean` keeps for readers, and what the system takes.
const KEPT: usize = (16 << 20) + (2 << 20);
const FLOOD: usize = 40 << 20;
const CHUNK: usize = 64 << 10;

/// Sends `FLOOD` bytes and then close_notify; counts what has gone.
fn flood(mut peer: Peer, sent: &Arc<AtomicUsize>) -> JoinHandle<Peer> {
    let sent = sent.clone();
    thread::spawn(move || {
        let chunk = pattern(3, CHUNK);
        for _ in 0..FLOOD / CHUNK {
            peer.write_all(&chunk).expect("write");
            sent.fetch_add(CHUNK, Ordering::SeqCst);
        }
        peer.shutdown().expect("close_notify");
        peer
    })
}

/// Waits until no more goes, and says how much that was.
fn until_held(sent: &AtomicUsize, mut meanwhile: impl FnMut()) -> usize {
    let mut before = 0;
    loop {
        let pause = Instant::now();
        while pause.elapsed() < Duration::from_millis(300) {
            meanwhile();
        }
        let now = sent.load(Ordering::SeqCst);
        if now == before && now > 0 {
            return now;
        }
        before = now;
    }
}

fn small_buffers(file: &SslFile, peer: &Peer) {
    socket2::SockRef::from(file.get_ref()).set_recv_buffer_size(64 << 10).expect("buffer");
    socket2::SockRef::from(peer.get_ref()).set_send_buffer_size(64 << 10).expect("buffer");
}

/// Reads all of the flood, and then the end.
fn read_flood(mut read: impl FnMut(&mut [u8]) -> io::Result<usize>) {
    let chunk = pattern(3, CHUNK);
    let mut buf = vec![0; 100_000];
    let mut got = 0;
    loop {
        let n = read(&mut buf).expect("read");
        if n == 0 {
            break;
        }
        for byte in &buf[..n] {
            assert!(*byte == chunk[got % CHUNK], "byte {got}");
            got += 1;
        }
    }
    assert_eq!(got, FLOOD);
}

#[test]
fn c_close_clean_in_a_backend_holds_a_peer_that_goes_on_sending() {
    on_each_engine_and_role(|engine, role| {
        let backend = Backend::new().expect("backend");
        let (file, peer) = pair(engine, role, &backend);
        small_buffers(&file, &peer);
        let log = Log::new();
        file.set_callbacks(log.callbacks());
        file.clear_read_callback();
        settle(&backend);
        file.close_clean().expect("close_clean");
        let sent = Arc::new(AtomicUsize::new(0));
        let flooding = flood(peer, &sent);
        let held = until_held(&sent, || {
            backend.turn(Some(Duration::from_millis(10))).expect("turn");
        });
        assert!(held <= KEPT, "{held} of {FLOOD} bytes were taken");
        // What is kept is for readers, and makes room.
        read_flood(|buf| loop {
            match { &file }.read(buf) {
                Err(e) if e.kind() == ErrorKind::WouldBlock => {
                    backend.turn(Some(Duration::from_millis(10))).expect("turn");
                }
                other => return other,
            }
        });
        turn_until(&backend, || !log.closes().is_empty());
        assert_eq!(log.closes(), [Ok(())]);
        flooding.join().expect("flood");
    });
}

#[test]
fn c_a_waiting_close_clean_holds_a_peer_that_goes_on_sending() {
    on_each_engine_and_role(|engine, role| {
        let (ours, theirs) = tcp_pair();
        let peer = shaking_peer(role, theirs);
        let file = open(engine, role, SslFile::options(), ours);
        file.handshake().expect("handshake");
        let peer = peer.join().expect("peer");
        small_buffers(&file, &peer);
        thread::scope(|t| {
            let closing = t.spawn(|| file.close_clean());
            until_busy(&file);
            let sent = Arc::new(AtomicUsize::new(0));
            let flooding = flood(peer, &sent);
            let held = until_held(&sent, || thread::sleep(Duration::from_millis(10)));
            let waits = !closing.is_finished();
            read_flood(|buf| { &file }.read(buf));
            flooding.join().expect("flood");
            closing.join().expect("closing").expect("close_clean");
            assert!(held <= KEPT, "{held} of {FLOOD} bytes were taken");
            assert!(waits, "it did not wait for readers");
        });
    });
}

/// Takes all descriptors that the process may have.
fn use_up() -> Vec<File> {
    let mut all = Vec::new();
    loop {
        match File::open("/dev/null") {
            Ok(file) => all.push(file),
            Err(e) => {
                assert_eq!(e.raw_os_error(), Some(rustix::io::Errno::MFILE.raw_os_error()), "{e}");
                return all;
            }
        }
    }
}

const VARIABLE: &str = "SSLFILE_TEST_NO_DESCRIPTORS";
const PAUSE: Duration = Duration::from_millis(200);

/// In a process of its own, of which the descriptors are used up.
fn without_descriptors(name: &str, test: fn(SslFile, Peer)) {
    if let Some(what) = std::env::var_os(VARIABLE) {
        let (engine, role) = what.to_str().and_then(|what| what.split_once(' ')).expect("engine and role");
        let engine = engines().into_iter().find(|e| format!("{e:?}") == engine).expect("engine");
        let role = if role == "Client" { Role::Client } else { Role::Server };
        within(LONG / 2, move || in_the_child(engine, role, test));
        return;
    }
    for engine in engines() {
        for role in [Role::Client, Role::Server] {
            println!("{engine:?} as {role:?}");
            let what = format!("{engine:?} {role:?}");
            passes_in_child(name, &[(VARIABLE, &what)]);
        }
    }
}

fn in_the_child(engine: Engine, role: Role, test: fn(SslFile, Peer)) {
    let (ours, theirs): (TcpStream, TcpStream) = tcp_pair();
    let peer = shaking_peer(role, theirs);
    let file = open(engine, role, SslFile::options(), ours);
    file.handshake().expect("handshake");
    let peer = peer.join().expect("peer");
    let limit = Rlimit { current: Some(100), maximum: getrlimit(Resource::Nofile).maximum };
    setrlimit(Resource::Nofile, limit).expect("setrlimit");
    let all = use_up();
    test(file, peer);
    drop(all);
}

#[test]
fn d_a_waiting_read_goes_on_without_descriptors() {
    without_descriptors("faults_found::bounds::d_a_waiting_read_goes_on_without_descriptors", |file, mut peer| {
        for timeout in [None, Some(LONG)] {
            file.set_read_timeout(timeout).expect("set_read_timeout");
            thread::scope(|t| {
                t.spawn(|| {
                    thread::sleep(PAUSE);
                    peer.write_all(b"late").expect("write");
                });
                let mut word = [0; 4];
                { &file }.read_exact(&mut word).expect("read");
                assert_eq!(&word, b"late");
            });
        }
        file.set_read_timeout(Some(PAUSE)).expect("set_read_timeout");
        assert_eq!({ &file }.read(&mut [0]).expect_err("nothing came").kind(), ErrorKind::TimedOut);
    });
}

#[test]
fn d_a_waiting_write_loses_nothing_without_descriptors() {
    without_descriptors(
        "faults_found::bounds::d_a_waiting_write_loses_nothing_without_descriptors",
        |file, mut peer| {
            let data = pattern(4, 12 << 20);
            let slow = thread::spawn(move || {
                thread::sleep(PAUSE);
                let mut all = Vec::new();
                peer.read_to_end(&mut all).map(|_| all)
            });
            { &file }.write_all(&data).expect("write");
            file.close().expect("close");
            assert!(slow.join().expect("slow").expect("read") == data);
        },
    );
}

/// Two threads in one file: each waits for the other as much as for the peer.
#[test]
fn d_threads_wait_for_each_other_without_descriptors() {
    without_descriptors("faults_found::bounds::d_threads_wait_for_each_other_without_descriptors", |file, mut peer| {
        let data = pattern(5, 6 << 20);
        thread::scope(|t| {
            for _ in 0..2 {
                t.spawn(|| { &file }.write_all(&data).expect("write"));
            }
            let reader = t.spawn(|| { &file }.read(&mut [0; 9]));
            thread::sleep(PAUSE);
            let mut all = vec![0; 2 * data.len()];
            peer.read_exact(&mut all).expect("read");
            assert!(all[..data.len()] == data && all[data.len()..] == data);
            peer.write_all(b"x").expect("write");
            assert_eq!(reader.join().expect("reader").expect("read"), 1);
        });
        // And a wait is ended from outside.
        thread::scope(|t| {
            let reader = t.spawn(|| { &file }.read(&mut [0; 9]));
            until_busy(&file);
            while !reader.is_finished() {
                file.interrupt();
                thread::sleep(Duration::from_millis(5));
            }
            assert_eq!(reader.join().expect("reader").expect_err("interrupted").kind(), ErrorKind::Other);
        });
    });
}
