//! a, b, i, n: what must be told, and when.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{mpsc, Arc};
use std::thread;
use std::time::{Duration, Instant};

use sslfile::{Backend, Callbacks, Connection, Engine, Role, SslFile, SslListener, Version};

use crate::common::{client_context, pattern, server_context, tls_pair, tls_pair_with, until_busy, NAME};
use crate::evil::{file_pair, DATA};
use crate::rig::{on_each_engine, on_each_engine_and_role, pair, reset, settle, turn_until, Log, Peer, Told};

/// As the echo server of the guide: a file that reads on only when there is room, and that belongs to its backend. It has
/// paused itself, for its answer to one byte does not fit into what the system takes.
fn paused_by_its_own_answer(engine: Engine, role: Role, backend: &Backend) -> (Peer, Log) {
    const ANSWER: usize = 16 << 20;
    let (file, mut peer) = pair(engine, role, backend);
    let log = Log::new();
    let (reads, writes, closes) = (log.clone(), log.clone(), log.clone());
    let (paused, is_paused) = mpsc::channel();
    file.set_callbacks(
        Callbacks::new()
            .on_read(move |file: &SslFile, data| {
                reads.add(Told::Read(data.to_vec()));
                // Refused when the peer has gone.
                let _ = file.send(&vec![5; ANSWER]);
                file.pause_reading(file.unsent() > 64 << 10);
                let _ = paused.send(file.unsent());
            })
            .on_write(move |file| {
                writes.add(Told::Write);
                file.pause_reading(false);
            })
            .on_close(move |_, end| closes.add(Told::Close(end.map_err(|e| e.kind())))),
    );
    file.keep();
    turn_until(backend, || log.writes() == 1);
    log.clear();
    peer.write_all(b"?").expect("write");
    let mut unsent = None;
    turn_until(backend, || {
        unsent = is_paused.try_recv().ok();
        unsent.is_some()
    });
    assert!(unsent > Some(64 << 10), "the system took the whole answer");
    settle(backend);
    assert_eq!(log.all(), [Told::Read(b"?".to_vec())]);
    log.clear();
    (peer, log)
}

#[test]
fn a_a_paused_file_learns_that_its_peer_has_reset() {
    on_each_engine_and_role(|engine, role| {
        let backend = Backend::new().expect("backend");
        let (peer, log) = paused_by_its_own_answer(engine, role, &backend);
        reset(peer);
        turn_until(&backend, || !log.closes().is_empty());
        settle(&backend);
        // Nothing is unsent any more: it is lost.
        assert_eq!(log.all(), [Told::Write, Told::Close(Err(ErrorKind::ConnectionReset))]);
        assert!(backend.is_empty(), "the backend keeps what has ended");
    });
}

/// With data that nobody has read before the reset: the pause is over with the write callback, so that it is delivered.
#[test]
fn a_a_paused_file_learns_of_a_reset_behind_data() {
    on_each_engine_and_role(|engine, role| {
        let backend = Backend::new().expect("backend");
        let (mut peer, log) = paused_by_its_own_answer(engine, role, &backend);
        peer.write_all(b"unread").expect("write");
        reset(peer);
        turn_until(&backend, || !log.closes().is_empty());
        settle(&backend);
        let end = Told::Close(Err(ErrorKind::ConnectionReset));
        assert_eq!(log.all(), [Told::Write, Told::Read(b"unread".to_vec()), end]);
        assert!(backend.is_empty(), "the backend keeps what has ended");
    });
}

/// Nothing is unsent, nothing has come: paused, or without a read callback.
#[test]
fn a_an_idle_file_that_does_not_read_learns_of_a_reset() {
    on_each_engine_and_role(|engine, role| {
        for pauses in [true, false] {
            let backend = Backend::new().expect("backend");
            let (file, peer) = pair(engine, role, &backend);
            let log = Log::new();
            file.set_callbacks(log.callbacks());
            turn_until(&backend, || log.writes() == 1);
            match pauses {
                true => file.pause_reading(true),
                false => file.clear_read_callback(),
            }
            settle(&backend);
            reset(peer);
            turn_until(&backend, || !log.closes().is_empty());
            assert_eq!(log.closes(), [Err(ErrorKind::ConnectionReset)]);
        }
    });
}

/// Connects, says ClientHello, and resets.
fn hello_and_reset(to: std::net::SocketAddr, engine: Engine) {
    let mut tls = Connection::client(&client_context(engine), NAME).expect("client");
    assert_eq!(tls.handshake().expect_err("nobody answers").kind(), ErrorKind::WouldBlock);
    let mut tcp = TcpStream::connect(to).expect("connect");
    tcp.write_all(tls.output()).expect("write");
    socket2::SockRef::from(&tcp).set_linger(Some(Duration::ZERO)).expect("linger");
}

#[test]
fn b_a_reset_behind_the_client_hello_is_told_at_once() {
    on_each_engine(|engine| {
        let backend = Backend::new().expect("backend");
        let listener = SslListener::bind("127.0.0.1:0", &server_context(engine)).expect("bind");
        let (tell, told) = mpsc::channel();
        listener.set_error_callback(move |_, e| tell.send(e.kind()).expect("told"));
        listener.set_accept_callback(&backend, |_, _| panic!("accepted")).expect("set_accept_callback");
        // All before the backend turns, so that ClientHello and reset are found together.
        for _ in 0..5 {
            hello_and_reset(listener.local_addr().expect("addr"), engine);
        }
        let mut kinds = Vec::new();
        turn_until(&backend, || {
            kinds.extend(told.try_iter());
            kinds.len() == 5
        });
        assert_eq!(kinds, [ErrorKind::ConnectionReset; 5]);
    });
}

const CLOSE_TIMEOUT: Duration = Duration::from_millis(100);
/// The close time-out twice, and a machine that is busy.
const BOUND: Duration = Duration::from_secs(1);
/// Made in advance, as no peer makes them faster than they are read.
const AHEAD: usize = 1_200_000;

/// The peer sends records of one byte without end, and reads nothing.
#[test]
fn i_close_keeps_its_bound_while_the_peer_goes_on_sending() {
    on_each_engine_and_role(|engine, role| {
        let version = if role == Role::Client { Version::Tls1_3 } else { Version::Tls1_2 };
        let options = SslFile::options().close_timeout(CLOSE_TIMEOUT);
        let (file, mut evil) = file_pair(engine, role, version, options);
        let ahead: Vec<u8> = (0..AHEAD).flat_map(|_| evil.record(DATA, b"x")).collect();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let sender = thread::spawn(move || {
            let mut next = ahead;
            while !stopped.load(Ordering::SeqCst) && evil.send(&next).is_ok() {
                next = (0..100).flat_map(|_| evil.record(DATA, b"x")).collect();
            }
            evil
        });
        file.set_nonblocking(true).expect("set_nonblocking");
        while { &file }.write(&[0; 65536]).is_ok() {}
        assert!(file.unsent() > 0);
        file.set_nonblocking(false).expect("set_nonblocking");
        let start = Instant::now();
        let end = file.close();
        let lasted = start.elapsed();
        stop.store(true, Ordering::SeqCst);
        drop(file);
        sender.join().expect("sender");
        assert_eq!(end.expect_err("nobody reads").kind(), ErrorKind::TimedOut);
        assert!(lasted < BOUND, "close took {lasted:?}");
    });
}

#[test]
fn n_reads_after_close_clean_give_what_is_left_and_then_the_end() {
    on_each_engine(|engine| {
        let (client, server) = tls_pair(engine);
        let rest = pattern(14, 100_000);
        thread::scope(|t| {
            t.spawn(|| {
                { &server }.write_all(&rest).expect("write");
                server.close_clean().expect("close_clean");
            });
            client.close_clean().expect("close_clean");
        });
        let mut all = Vec::new();
        { &client }.read_to_end(&mut all).expect("read");
        assert!(all == rest, "{} of {} bytes", all.len(), rest.len());
        for file in [&client, &server] {
            assert_eq!({ file }.read(&mut [0]).expect("read again"), 0);
            assert_eq!({ file }.write(b"x").expect_err("written").kind(), ErrorKind::NotConnected);
        }
    });
}

#[test]
fn n_a_reader_beside_close_clean_gets_what_is_left_and_then_the_end() {
    const ROUNDS: usize = 25;
    on_each_engine(|engine| {
        let rest = pattern(15, 30_000);
        for round in 0..ROUNDS {
            let (client, server) = tls_pair(engine);
            thread::scope(|t| {
                let reader = t.spawn(|| {
                    let mut all = Vec::new();
                    { &client }.read_to_end(&mut all).map(|_| all)
                });
                until_busy(&client);
                let closing = t.spawn(|| client.close_clean());
                // Our close_notify is there: the peer answers it.
                assert_eq!({ &server }.read(&mut [0]).expect("close_notify"), 0);
                { &server }.write_all(&rest).expect("write");
                server.close_clean().expect("close_clean");
                closing.join().expect("closing").expect("close_clean");
                let all = reader.join().expect("reader").unwrap_or_else(|e| panic!("round {round}: {e:?}"));
                assert!(all == rest, "{} of {} bytes", all.len(), rest.len());
            });
        }
    });
}

/// The reader is the one that finds the peer's close_notify, in non-blocking mode.
#[test]
fn n_a_non_blocking_read_after_close_clean_gives_what_is_left_and_then_the_end() {
    on_each_engine(|engine| {
        let (client, server) = tls_pair(engine);
        { &server }.write_all(b"the rest").expect("write");
        let other = thread::spawn(move || server.close_clean().map(|()| server));
        client.set_nonblocking(true).expect("set_nonblocking");
        crate::common::until_ready(&client, || client.close_clean()).expect("close_clean");
        let mut buf = [0; 100];
        assert_eq!({ &client }.read(&mut buf).expect("read"), 8);
        assert_eq!(&buf[..8], b"the rest");
        for _ in 0..2 {
            assert_eq!({ &client }.read(&mut buf).expect("the end"), 0);
        }
        other.join().expect("other").expect("close_clean");
    });
}

/// The system tells of room late, when much of it is there; what the peer takes meanwhile counts.
#[test]
fn i_close_waits_for_a_peer_that_reads_slowly_and_never_stops() {
    const ALL: usize = 12 << 20;
    on_each_engine(|engine| {
        let ours = SslFile::options().close_timeout(Duration::from_millis(600));
        let (client, server) =
            tls_pair_with(ours, &client_context(engine), SslFile::options(), &server_context(engine));
        client.send(&vec![7; ALL]).expect("send");
        assert!(client.unsent() > 0, "the system has taken all of it");
        let reader = thread::spawn(move || {
            let (begin, mut got, mut buf) = (Instant::now(), 0, vec![0; 32 << 10]);
            loop {
                match { &server }.read(&mut buf).expect("read") {
                    0 => return got,
                    n => got += n,
                }
                if begin.elapsed() < Duration::from_secs(3) {
                    thread::sleep(Duration::from_millis(40));
                }
            }
        });
        client.close().expect("the peer has never stopped reading");
        drop(client);
        assert_eq!(reader.join().expect("reader"), ALL);
    });
}
