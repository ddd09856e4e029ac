//! The faults of Pike's sslfile, each as a test that it is not ours: numbers as in section D1 of the seeds' reference.
//! `seeds/README.md` has the table from each row of the reference to the test that shows it, in this file or another.
#![cfg(unix)]

use crate::common;
use crate::rig;

use std::collections::HashSet;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown};
use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use common::bare::is_bad_record_mac;
use common::{
    certs, client_context, kind_of, server_builder, server_context, tcp_pair, tls_pair, until_ready, LONG, NAME,
};
use rig::{
    bare_client, cut, end_well, logged_pair, on_each_engine, on_each_engine_and_role, open, pair, settle, shaking_peer,
    turn_until, wake_ups, Log, Peer, Told,
};
use sslfile::{Backend, Context, Engine, Role, SslFile, SslListener, State, Version};

fn new() -> Backend {
    Backend::new().expect("backend")
}

/// A blocking file and its bare peer, hands shaken.
fn blocking(engine: Engine, role: Role) -> (SslFile, Peer) {
    let (ours, theirs) = tcp_pair();
    let peer = shaking_peer(role, theirs);
    let file = open(engine, role, SslFile::options(), ours);
    file.handshake().expect("handshake");
    (file, peer.join().expect("peer"))
}

fn untrusting(engine: Engine) -> Context {
    Context::builder().engine(engine).system_roots(false).build().expect("context")
}

#[test]
fn d1_01_a_peer_that_we_refuse_is_an_error_and_the_file_is_not_open() {
    on_each_engine(|engine| {
        for nonblocking in [false, true] {
            let (c, s) = tcp_pair();
            let peer = thread::spawn(move || {
                let _ = SslFile::server(s, &server_context(engine));
            });
            let options = SslFile::options().client(NAME).nonblocking(nonblocking);
            let file = options.handshake(sslfile::Handshake::Lazy).open(c, &untrusting(engine)).expect("open");
            let error = until_ready(&file, || file.handshake()).expect_err("success");
            assert_eq!(kind_of(&error), Some(sslfile::ErrorKind::Certificate));
            assert!(!file.is_open());
            assert_eq!(file.state(), State::Failed);
            peer.join().expect("peer");
        }
    });
}

#[test]
fn d1_02_certificates_are_checked_unless_one_says_danger() {
    on_each_engine(|engine| {
        // No roots at all: not even a self-signed certificate of the right name passes.
        let identity = certs().self_signed.identity();
        let server = Context::builder().engine(engine).identity(identity).build().expect("context");
        for client in [untrusting(engine), Context::builder().engine(engine).build().expect("context")] {
            let (c, s) = tcp_pair();
            let server = server.clone();
            let peer = thread::spawn(move || {
                let _ = SslFile::server(s, &server);
            });
            let error = SslFile::client(c, &client, NAME).expect_err("trusted");
            assert_eq!(error.kind(), sslfile::ErrorKind::Certificate);
            drop(error);
            peer.join().expect("peer");
        }
    });
}

#[test]
fn d1_03_truncation_is_seen_by_whoever_reads() {
    on_each_engine_and_role(|engine, role| {
        for inside_a_record in [false, true] {
            let (file, mut peer) = blocking(engine, role);
            peer.write_all(b"data").expect("write");
            if inside_a_record {
                { peer.get_ref() }.write_all(&[23, 3, 3, 0, 80, 1]).expect("half a record");
            }
            // What the file has said is read away first, so that the end is no reset.
            cut(peer);
            let mut got = Vec::new();
            let error = (&file).read_to_end(&mut got).expect_err("a clean end");
            assert_eq!((error.kind(), got.as_slice()), (ErrorKind::BrokenPipe, &b"data"[..]));
            assert_eq!(kind_of(&error), Some(sslfile::ErrorKind::Truncated));
        }
    });
}

#[test]
fn d1_04_a_bad_record_ends_a_blocking_read_and_the_alert_is_sent() {
    on_each_engine_and_role(|engine, role| {
        let (file, mut peer) = blocking(engine, role);
        let mut record = vec![23, 3, 3, 0, 50];
        record.extend([9; 50]);
        { peer.get_ref() }.write_all(&record).expect("bad record");
        assert_eq!((&file).read(&mut [0; 10]).expect_err("data").kind(), ErrorKind::InvalidData);
        assert!(!file.is_open());
        assert_eq!((&file).write(b"x").expect_err("written").kind(), ErrorKind::InvalidData);
        let alert = peer.read(&mut [0; 10]).expect_err("no alert");
        assert!(is_bad_record_mac(&alert), "{alert}");
        // And in callbacks: tests/callbacks/ends.rs.
        let _ = file.close();
        assert!(!file.is_open());
    });
}

#[test]
fn d1_05_a_nonblocking_read_without_data_would_block_at_once() {
    on_each_engine_and_role(|engine, role| {
        let backend = new();
        let (file, mut peer, log) = logged_pair(engine, role, &backend);
        assert_eq!((&file).read(&mut [0; 10]).expect_err("data").kind(), ErrorKind::WouldBlock);
        // Inside the backend, too.
        let inside = log.clone();
        file.set_read_callback(move |mut file, data| {
            assert_eq!(file.read(&mut [0; 10]).expect_err("data").kind(), ErrorKind::WouldBlock);
            inside.add(Told::Read(data.to_vec()));
        });
        peer.write_all(b"x").expect("write");
        turn_until(&backend, || log.data() == b"x");
    });
}

/// The peer's first data and its close_notify come in one piece with the end of its handshake.
#[test]
fn d1_06_callbacks_set_in_the_handshake_survive_its_end_and_its_failure() {
    on_each_engine(|engine| {
        let backend = new();
        let (ours, theirs) = tcp_pair();
        let file = open(engine, Role::Server, SslFile::options().nonblocking(true).backend(&backend), ours);
        let log = Log::new();
        settle(&backend);
        file.set_callbacks(log.callbacks());
        let peer = thread::spawn(move || {
            let mut peer = bare_client(theirs);
            peer.write_all(b"hello").expect("write");
            end_well(peer);
        });
        // Between two turns the client has the time to say all that it can.
        while log.closes().is_empty() {
            backend.turn(Some(Duration::ZERO)).expect("turn");
            thread::sleep(Duration::from_millis(30));
        }
        peer.join().expect("peer");
        settle(&backend);
        let told = log.all();
        assert_eq!((&told[0], told.last()), (&Told::Accept, Some(&Told::Close(Ok(())))));
        assert_eq!(log.data(), b"hello");
        // A failed one: tests/callbacks/ends.rs, `a_failed_handshake_is_told_to_the_close_callback_alone`.
    });
}

#[test]
fn d1_07_a_client_that_speaks_from_its_write_callback_need_not_wait_after_accept() {
    on_each_engine(|engine| {
        let backend = new();
        let (ours, theirs) = tcp_pair();
        let peer = shaking_peer(Role::Client, theirs);
        let file = open(engine, Role::Client, SslFile::options().nonblocking(true).backend(&backend), ours);
        file.set_accept_callback(|_| ());
        let said = Log::new();
        let say = said.clone();
        file.set_write_callback(move |file| {
            if say.is_empty() {
                file.send(b"first").expect("send");
            }
            say.add(Told::Write);
        });
        turn_until(&backend, || peer.is_finished() && !said.is_empty());
        let mut got = [0; 5];
        peer.join().expect("peer").read_exact(&mut got).expect("read");
        assert_eq!(&got, b"first");
    });
}

#[test]
fn d1_08_a_cut_with_only_a_read_callback_is_not_lost() {
    on_each_engine_and_role(|engine, role| {
        let backend = new();
        let (file, peer) = pair(engine, role, &backend);
        file.set_read_callback(|_, _| ());
        settle(&backend);
        cut(peer);
        settle(&backend);
        assert!(!file.is_open());
        assert_eq!((&file).read(&mut [0; 1]).expect_err("read").kind(), ErrorKind::BrokenPipe);
        let log = Log::new();
        file.set_callbacks(log.callbacks());
        turn_until(&backend, || !log.closes().is_empty());
        assert_eq!(log.closes(), [Err(ErrorKind::BrokenPipe)]);
    });
}

#[test]
fn d1_09_close_is_called_once_when_a_call_has_drained_the_data() {
    on_each_engine_and_role(|engine, role| {
        let backend = new();
        let (file, mut peer, log) = logged_pair(engine, role, &backend);
        file.clear_read_callback();
        peer.write_all(b"ten bytes.").expect("write");
        end_well(peer);
        settle(&backend);
        for left in [b"ten b", b"ytes."] {
            assert_eq!(log.closes(), [], "before the data");
            let mut got = [0; 5];
            (&file).read_exact(&mut got).expect("read");
            assert_eq!(&got, left);
            settle(&backend);
        }
        settle(&backend);
        assert_eq!(log.closes(), [Ok(())]);
    });
}

#[test]
fn d1_10_a_clean_close_has_a_limit_and_an_event() {
    on_each_engine_and_role(|engine, role| {
        let (file, _silent) = blocking(engine, role);
        let limit = Duration::from_millis(200);
        file.set_read_timeout(Some(limit)).expect("time-out");
        let start = Instant::now();
        assert_eq!(file.close_clean().expect_err("closed").kind(), ErrorKind::TimedOut);
        assert!(start.elapsed() >= limit);

        let backend = new();
        let (file, mut peer, log) = logged_pair(engine, role, &backend);
        file.close_clean().expect("at once");
        assert_eq!(file.state(), State::Closing);
        peer.shutdown().expect("close_notify");
        turn_until(&backend, || !log.closes().is_empty());
        assert_eq!(file.state(), State::Closed);
    });
}

/// Initiator and responder, blocking and not: the stream comes back, open, behind both close_notify.
#[test]
fn d1_11_the_stream_comes_back_after_a_clean_close() {
    on_each_engine(|engine| {
        for nonblocking in [false, true] {
            let (client, server) = tls_pair(engine);
            for file in [&client, &server] {
                file.set_nonblocking(nonblocking).expect("mode");
            }
            let both = thread::spawn(move || {
                until_ready(&server, || server.close_clean()).expect("close_clean");
                server.release().expect("release").0
            });
            until_ready(&client, || client.close_clean()).expect("close_clean");
            let (mut ours, unread) = client.release().expect("release");
            let mut theirs = both.join().expect("server");
            ours.set_nonblocking(false).expect("mode");
            theirs.set_nonblocking(false).expect("mode");
            assert_eq!(unread, b"");
            ours.write_all(b"plain").expect("write");
            let mut got = [0; 5];
            theirs.read_exact(&mut got).expect("read");
            assert_eq!(&got, b"plain");
        }
    });
}

#[test]
fn d1_12_release_drops_neither_accepted_data_nor_our_close_notify() {
    on_each_engine_and_role(|engine, role| {
        let backend = new();
        let (file, mut peer, _) = logged_pair(engine, role, &backend);
        file.send(&vec![1; 8 << 20]).expect("send");
        let (error, file) = file.release().expect_err("released").into_parts();
        assert_eq!(error.kind(), ErrorKind::WouldBlock);
        let reader = thread::spawn(move || {
            peer.read_exact(&mut vec![0; 8 << 20]).expect("read");
            let end = peer.read(&mut [0; 1]).expect("close_notify");
            (end, peer)
        });
        turn_until(&backend, || file.unsent() == 0);
        file.shutdown(Shutdown::Write).expect("shutdown");
        turn_until(&backend, || reader.is_finished());
        assert_eq!(reader.join().expect("reader").0, 0);
        file.release().expect("release");
    });
}

#[test]
fn d1_13_a_time_out_lasts_as_long_as_it_says_and_kills_nothing() {
    on_each_engine_and_role(|engine, role| {
        let (file, mut peer) = blocking(engine, role);
        let limit = Duration::from_millis(400);
        file.set_read_timeout(Some(limit)).expect("time-out");
        // The least of a few is what it takes when nobody disturbs.
        let least = (0..4).map(|_| {
            let start = Instant::now();
            assert_eq!((&file).read(&mut [0; 9]).expect_err("data").kind(), ErrorKind::TimedOut);
            assert!(start.elapsed() >= limit);
            start.elapsed()
        });
        assert!(least.min().expect("one") < limit * 2);
        file.set_write_timeout(Some(limit)).expect("time-out");
        let stuck = loop {
            if let Err(e) = (&file).write(&[0; 1 << 20]) {
                break e;
            }
        };
        assert_eq!(stuck.kind(), ErrorKind::TimedOut);
        peer.write_all(b"late").expect("write");
        let mut got = [0; 4];
        (&file).read_exact(&mut got).expect("alive");
        assert_eq!(&got, b"late");
    });
}

#[test]
fn d1_14_nothing_accepted_and_nothing_there_are_would_block_in_every_phase() {
    on_each_engine_and_role(|engine, role| {
        let would_block = |file: &SslFile| {
            assert_eq!({ file }.read(&mut [0; 1]).expect_err("read").kind(), ErrorKind::WouldBlock);
        };
        let (ours, theirs) = tcp_pair();
        let file = open(engine, role, SslFile::options().nonblocking(true), ours);
        would_block(&file);
        assert_eq!((&file).write(b"x").expect_err("written").kind(), ErrorKind::WouldBlock);
        assert_eq!(file.handshake().expect_err("done").kind(), ErrorKind::WouldBlock);
        let peer = shaking_peer(role, theirs);
        until_ready(&file, || file.handshake()).expect("handshake");
        let peer = peer.join().expect("peer");
        would_block(&file);
        let full = loop {
            if let Err(e) = (&file).write(&[0; 100_000]) {
                break e;
            }
        };
        assert_eq!(full.kind(), ErrorKind::WouldBlock);
        would_block(&file);
        drop(peer);
    });
}

#[test]
fn d1_15_a_nonblocking_write_takes_more_than_one_record() {
    on_each_engine_and_role(|engine, role| {
        let backend = new();
        let (file, _peer, _) = logged_pair(engine, role, &backend);
        assert_eq!((&file).write(&[0; 200_000]).expect("write"), 200_000);
        assert!((&file).write(&[0; 40_000]).expect("again, before any turn") > 16384);
    });
}

#[test]
fn d1_16_queries_are_answered_in_every_state() {
    on_each_engine_and_role(|engine, role| {
        let ask = |file: &SslFile| {
            let _ = (file.is_open(), file.state(), file.last_error(), file.pending(), file.unsent(), file.interest());
            let _ = (file.version(), file.cipher(), file.alpn(), file.peer_certificate(), file.server_name());
            let _ = (file.peer_addr(), file.backend(), format!("{file:?}"));
            assert!(file.as_fd().as_raw_fd() >= 0);
        };
        let (ours, mut theirs) = tcp_pair();
        let file = open(engine, role, SslFile::options().nonblocking(true), ours);
        ask(&file);
        assert!(file.is_open(), "before the start");
        theirs.write_all(b"this is no TLS at all\r\n").expect("write");
        let error = until_ready(&file, || file.handshake()).expect_err("handshake");
        assert_eq!(error.kind(), ErrorKind::InvalidData);
        ask(&file);
        assert!(!file.is_open());
        file.close().expect("close");
        ask(&file);
        let (client, server) = tls_pair(engine);
        let end = thread::spawn(move || server.close());
        client.close().expect("close");
        let _ = end.join().expect("server");
        ask(&client);
        assert!(!client.is_open());
    });
}

#[test]
fn d1_17_records_that_come_call_no_write_callback() {
    on_each_engine_and_role(|engine, role| {
        let backend = new();
        let (_file, mut peer, log) = logged_pair(engine, role, &backend);
        for i in 1..=20 {
            peer.write_all(b"x").expect("write");
            turn_until(&backend, || log.data().len() == i);
        }
        settle(&backend);
        assert_eq!(log.writes(), 0);
    });
}

#[test]
fn d1_18_a_dropped_connection_is_gone_and_the_peer_is_told() {
    on_each_engine_and_role(|engine, role| {
        let backend = new();
        let (file, mut peer, _) = logged_pair(engine, role, &backend);
        let fd = file.as_raw_fd();
        let link = std::fs::read_link(format!("/proc/self/fd/{fd}")).expect("descriptor");
        drop(file);
        let after = std::fs::read_link(format!("/proc/self/fd/{fd}"));
        assert!(after.map_or(true, |after| after != link), "the descriptor is still open");
        assert!(backend.is_empty());
        assert_eq!(peer.read(&mut [0; 1]).expect("close_notify"), 0);
    });
}

#[test]
fn d1_19_data_alone_calls_callbacks_in_blocking_mode() {
    on_each_engine_and_role(|engine, role| {
        let (file, mut peer) = blocking(engine, role);
        let (backend, log) = (new(), Log::new());
        file.set_backend(Some(&backend)).expect("backend");
        file.set_callbacks(log.callbacks());
        assert!(!file.is_nonblocking());
        peer.write_all(b"alone").expect("write");
        turn_until(&backend, || log.data() == b"alone");
    });
}

/// OpenSSL's own client asks for a renegotiation: it gets none, and nobody hangs.
#[test]
fn d1_20_renegotiation_is_not_offered_and_hangs_nobody() {
    on_each_engine(|engine| {
        let context = server_builder(engine).max_version(Version::Tls1_2).build().expect("context");
        let listener = SslListener::bind((Ipv4Addr::LOCALHOST, 0), &context).expect("bind");
        let addr = listener.local_addr().expect("addr").to_string();
        let child = Command::new("openssl")
            .args(["s_client", "-connect", &addr, "-tls1_2"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let Ok(mut child) = child else {
            assert!(std::env::var_os("SSLFILE_NO_SKIP").is_none(), "openssl is missing");
            println!("skipped: no openssl");
            return;
        };
        let (mut file, _) = listener.accept().expect("accept");
        file.set_read_timeout(Some(LONG / 4)).expect("time-out");
        let mut stdin = child.stdin.take().expect("stdin");
        stdin.write_all(b"hello\n").expect("write");
        let mut line = [0; 6];
        file.read_exact(&mut line).expect("read");
        stdin.write_all(b"R\n").expect("write");
        let end = file.read(&mut line).map_err(|e| e.kind());
        assert_ne!(end, Err(ErrorKind::TimedOut), "both wait");
        assert!(!matches!(end, Ok(1..)), "data of a second handshake");
        drop((stdin, file));
        child.wait().expect("wait");
    });
}

/// A callback that does nothing with its file is called once, not for ever; those that fail are told.
#[test]
fn d1_21_a_port_callback_that_takes_nothing_is_called_once_for_each_client() {
    on_each_engine(|engine| {
        let backend = new();
        let listener = SslListener::bind((Ipv4Addr::LOCALHOST, 0), &server_context(engine)).expect("bind");
        let (calls, errors) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (called, failed) = (calls.clone(), errors.clone());
        let count = move |_, _| {
            called.fetch_add(1, Ordering::SeqCst);
        };
        listener.set_accept_callback(&backend, count).expect("accept callback");
        listener.set_error_callback(move |_, _| {
            failed.fetch_add(1, Ordering::SeqCst);
        });
        let addr = listener.local_addr().expect("addr");
        let tcp = std::net::TcpStream::connect(addr).expect("connect");
        let client = thread::spawn(move || bare_client(tcp));
        turn_until(&backend, || client.is_finished() && calls.load(Ordering::SeqCst) == 1);
        let mut http = std::net::TcpStream::connect(addr).expect("connect");
        http.write_all(b"GET / HTTP/1.0\r\n\r\n").expect("write");
        turn_until(&backend, || errors.load(Ordering::SeqCst) == 1);
        assert!(wake_ups(&backend) <= 2, "an endless loop");
        assert_eq!(calls.load(Ordering::SeqCst), 1);
    });
}

#[test]
fn d1_23_the_defaults_are_modern() {
    on_each_engine(|engine| {
        let (client, server) = tls_pair(engine);
        if let Some(cipher) = client.cipher() {
            assert!(cipher.contains("AES") || cipher.contains("CHACHA"), "{cipher}");
        }
        if let Some(version) = client.version() {
            assert!(version >= Version::Tls1_2);
        }
        drop((client, server));
    });
}

/// The quickest of some resumed sessions needs no 40 ms, with Nagle's algorithm as the system has it.
#[test]
fn d1_25_resumed_sessions_stall_for_nothing() {
    on_each_engine(|engine| {
        let (client, server) = (client_context(engine), server_context(engine));
        let mut least = Duration::MAX;
        for _ in 0..10 {
            let (c, s) = tcp_pair();
            let server = server.clone();
            let start = Instant::now();
            let peer = thread::spawn(move || {
                let mut file = SslFile::server(s, &server).expect("server");
                let mut byte = [0];
                file.read_exact(&mut byte).expect("read");
                file.write_all(&byte).expect("write");
                file.close().expect("close");
            });
            let mut file = SslFile::client(c, &client, NAME).expect("client");
            file.write_all(b"x").expect("write");
            file.read_exact(&mut [0]).expect("read");
            least = least.min(start.elapsed());
            file.set_nodelay(true).expect("nodelay");
            assert!(file.nodelay().expect("nodelay"));
            file.close().expect("close");
            peer.join().expect("peer");
        }
        assert!(least < Duration::from_millis(38), "{least:?}");
    });
}

/// What a table names must be there, or it lies.
#[test]
fn every_test_that_a_table_names_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folder = root.join("tests");
    let tables = [("tests/seeds/README.md", 100), ("tests/faults_found/README.md", 40), ("src/docs/bounds.md", 25)];
    let mut missing = Vec::new();
    for (path, least) in tables {
        let table = std::fs::read_to_string(root.join(path)).expect(path);
        let mut named = 0;
        for name in table.split('`').skip(1).step_by(2) {
            let Some((file, test)) = name.split_once("::") else { continue };
            named += 1;
            let mut sources = vec![folder.join(format!("{file}.rs"))];
            if let Ok(rooms) = std::fs::read_dir(folder.join(file)) {
                sources.extend(rooms.map(|room| room.expect("room").path()));
            }
            let has = |path: &std::path::PathBuf| {
                std::fs::read_to_string(path).is_ok_and(|text| text.contains(&format!("fn {test}(")))
            };
            if !sources.iter().any(has) {
                missing.push(name.to_string());
            }
        }
        assert!(named >= least, "{path}: {named} tests named");
    }
    assert_eq!(missing, Vec::<String>::new());
}

/// Every fault of D1 has a line.
#[test]
fn every_fault_has_a_line_in_the_table() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/seeds/README.md");
    let table = std::fs::read_to_string(path).expect("table");
    let lines: HashSet<usize> =
        table.lines().filter_map(|line| line.strip_prefix("| D1.")?.split_whitespace().next()?.parse().ok()).collect();
    assert_eq!((1..=27).filter(|n| !lines.contains(n)).collect::<Vec<_>>(), Vec::<usize>::new());
}
