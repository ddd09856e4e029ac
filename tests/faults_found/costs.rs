//! What a peer can cost: rows of that table in the guide (src/docs/bounds.md) that have their tests nowhere else.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{getrlimit, setrlimit, Resource, Rlimit};
use sslfile::{Backend, Callbacks, Engine, SslFile};

use crate::common::{
    client_context, engines, passes_in_child, server_context, tcp_pair, until_busy, within, LONG, NAME,
};
use crate::rig::{on_each_engine_and_role, open, pair, settle, shaking_peer, turn_until, Log, Peer};

const AHEAD: u64 = 64 << 10;
const AHEAD_OF_WRITERS: u64 = 1 << 20;
/// With what is kept free in front of it for the rest of a record.
const ONE_RECEIVE: u64 = (256 + 17) << 10;
const TURN: usize = 256 << 10;
const CALLBACKS: usize = 16;
const LINGERERS: usize = 1024;

/// Sends until the file has gone.
fn flood(mut peer: Peer) -> thread::JoinHandle<()> {
    thread::spawn(move || while peer.write_all(&[7; 64 << 10]).is_ok() {})
}

/// Waits until no more is received, and says how much that was.
fn received_at_most(file: &SslFile, mut meanwhile: impl FnMut()) -> u64 {
    let mut before = 0;
    loop {
        let pause = Instant::now();
        while pause.elapsed() < Duration::from_millis(300) {
            meanwhile();
        }
        let now = file.traffic().bytes_received;
        if now == before {
            return now;
        }
        before = now;
    }
}

#[test]
fn a_file_that_does_not_read_takes_in_64_kib_and_one_receive() {
    on_each_engine_and_role(|engine, role| {
        for paused in [false, true] {
            let backend = Backend::new().expect("backend");
            let (file, peer) = pair(engine, role, &backend);
            file.set_callbacks(Log::new().callbacks());
            match paused {
                true => file.pause_reading(true),
                false => file.clear_read_callback(),
            }
            settle(&backend);
            let before = file.traffic().bytes_received;
            let flooding = flood(peer);
            let turn = || {
                backend.turn(Some(Duration::from_millis(10))).expect("turn");
            };
            let taken = received_at_most(&file, turn) - before;
            // A pause need not begin before the first receive.
            let least = if paused { 0 } else { AHEAD };
            assert!((least..=AHEAD + ONE_RECEIVE).contains(&taken), "{taken} bytes");
            drop(file);
            flooding.join().expect("flood");
        }
    });
}

#[test]
fn a_write_that_waits_takes_in_1_mib_and_one_receive() {
    on_each_engine_and_role(|engine, role| {
        let (ours, theirs) = tcp_pair();
        let peer = shaking_peer(role, theirs);
        let file = open(engine, role, SslFile::options(), ours);
        file.handshake().expect("handshake");
        let flooding = flood(peer.join().expect("peer"));
        thread::scope(|t| {
            let writing = t.spawn(|| { &file }.write_all(&vec![1; 32 << 20]));
            until_busy(&file);
            let taken = received_at_most(&file, || thread::sleep(Duration::from_millis(10)));
            assert!((AHEAD_OF_WRITERS..=AHEAD_OF_WRITERS + ONE_RECEIVE).contains(&taken), "{taken} bytes");
            file.abort();
            assert_eq!(writing.join().expect("writing").expect_err("cut").kind(), ErrorKind::NotConnected);
        });
        drop(file);
        flooding.join().expect("flood");
    });
}

#[test]
fn a_turn_hands_on_256_kib_and_16_callbacks_of_each_file() {
    on_each_engine_and_role(|engine, role| {
        let backend = Backend::new().expect("backend");
        let (file, peer) = pair(engine, role, &backend);
        let (bytes, calls) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (more, called, written) = (bytes.clone(), calls.clone(), calls.clone());
        let on_read = move |_: &SslFile, data: &[u8]| {
            more.fetch_add(data.len(), Ordering::SeqCst);
            called.fetch_add(1, Ordering::SeqCst);
        };
        file.set_read_callback(on_read);
        settle(&backend);
        let flooding = flood(peer);
        let mut all = 0;
        while all < 2 << 20 {
            backend.turn(None).expect("turn");
            let (bytes, calls) = (bytes.swap(0, Ordering::SeqCst), calls.swap(0, Ordering::SeqCst));
            assert!(bytes <= TURN && calls <= CALLBACKS, "{bytes} bytes, {calls} callbacks");
            all += bytes;
        }
        // Who always writes when it may is called no more often.
        file.clear_read_callback();
        file.set_write_callback(move |file| {
            file.send(b"x").expect("send");
            written.fetch_add(1, Ordering::SeqCst);
        });
        let mut most = 0;
        for _ in 0..10 {
            backend.turn(None).expect("turn");
            most = most.max(calls.swap(0, Ordering::SeqCst));
        }
        assert_eq!(most, CALLBACKS);
        drop(file);
        // Where the peer's system has yet to acknowledge what was sent, the backend sees to it.
        while !flooding.is_finished() {
            backend.turn(Some(Duration::from_millis(5))).expect("turn");
        }
        flooding.join().expect("flood");
    });
}

/// Bytes of memory that this process has in use.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").expect("status");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS");
    line.trim().trim_end_matches(" kB").parse::<usize>().expect("number") * 1024
}

const VARIABLE: &str = "SSLFILE_TEST_COSTS";

/// In a process of its own.
fn on_each_engine_alone(name: &str, test: fn(Engine)) {
    if let Some(which) = std::env::var_os(VARIABLE) {
        let engine = engines().into_iter().find(|engine| which == *format!("{engine:?}")).expect("engine");
        return within(LONG, move || test(engine));
    }
    for engine in engines() {
        passes_in_child(name, &[(VARIABLE, &format!("{engine:?}"))]);
    }
}

#[test]
fn a_record_that_stays_incomplete_costs_its_own_length() {
    const FILES: usize = 50;
    on_each_engine_alone("faults_found::costs::a_record_that_stays_incomplete_costs_its_own_length", |engine| {
        let backend = Backend::new().expect("backend");
        let role = sslfile::Role::Server;
        let mut files: Vec<_> = (0..FILES).map(|_| pair(engine, role, &backend)).collect();
        for (file, _) in &files {
            file.set_callbacks(Callbacks::new().on_read(|_: &SslFile, _: &[u8]| panic!("there is nothing to read")));
        }
        settle(&backend);
        let before = resident();
        for (_, peer) in &mut files {
            // Of 16 KiB half comes, and never more.
            let mut half = vec![23, 3, 3, 0x40, 0];
            half.resize(8 << 10, 0);
            { peer.get_ref() }.write_all(&half).expect("write");
        }
        turn_until(&backend, || files.iter().all(|(file, _)| file.traffic().bytes_received >= 8 << 10));
        settle(&backend);
        let each = resident().saturating_sub(before) / FILES;
        println!("{engine:?}: {each} bytes for each connection");
        assert!(each <= 24 << 10, "{engine:?}: {each} bytes for each connection");
        files.iter().for_each(|(file, _)| file.abort());
    });
}

/// Each has something to say, and a peer that does not even shake hands.
#[test]
fn at_most_1024_dropped_files_linger_and_the_oldest_goes_first() {
    const MORE: usize = 5;
    on_each_engine_alone(
        "faults_found::costs::at_most_1024_dropped_files_linger_and_the_oldest_goes_first",
        |engine| {
            let limit = Rlimit { current: Some(4096), maximum: getrlimit(Resource::Nofile).maximum };
            setrlimit(Resource::Nofile, limit).expect("as many descriptors");
            let context = client_context(engine);
            let peers: Vec<TcpStream> = (0..LINGERERS + MORE)
                .map(|_| {
                    let (ours, theirs) = tcp_pair();
                    let options = SslFile::options().client(NAME).nonblocking(true).close_timeout(LONG);
                    let file = options.open(ours, &context).expect("open");
                    file.send(b"unsent").expect("send");
                    theirs
                })
                .collect();
            for (n, mut peer) in peers.iter().enumerate() {
                peer.set_nonblocking(n >= MORE).expect("mode");
                // The hello, and then the end, or nothing for a long time.
                let end = peer.read_to_end(&mut Vec::new()).map_err(|e| e.kind());
                assert_eq!(end == Err(ErrorKind::WouldBlock), n >= MORE, "{n}: {end:?}");
            }
        },
    );
}

/// Streams that can only be written to by waiting for them, whose peers take nothing.
#[test]
fn at_most_64_threads_say_the_end_on_streams_that_wait() {
    within(LONG, || {
        let engine = engines()[0];
        let peers: Vec<_> = (0..70)
            .map(|_| {
                let (a, b) = tcp_pair();
                let server = thread::spawn(move || SslFile::server(b, &server_context(engine)).expect("server"));
                let client =
                    SslFile::client(sslfile::ReadWrite::new(a), &client_context(engine), NAME).expect("client");
                client.send(&vec![7; 12 << 20]).expect("queued");
                drop(client);
                server.join().expect("server")
            })
            .collect();
        let tasks = std::fs::read_dir("/proc/self/task").expect("tasks").flatten();
        let names = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("comm")).ok());
        assert_eq!(names.filter(|name| name.trim() == "sslfile-drop").count(), 64);
        drop(peers);
    });
}
