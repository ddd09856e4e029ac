//! `abort`: for programs that must not finish what they began.

use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use sslfile::{Backend, Duplex, Engine, ErrorKind as Kind, Handshake, Role, SslFile, Stream};

use super::drops::{is_held, socket_of};
use crate::common::{kind_of, server_context, tcp_pair, tls_pair, until_busy};
use crate::rig::{on_each_engine, on_each_engine_and_role, pair, settle, turn_until, wake_ups, Log, Peer, Told};

/// What never waits takes no longer.
const AT_ONCE: Duration = Duration::from_secs(1);
/// More than the system takes for a connection.
const BIG: usize = 12 << 20;

#[track_caller]
fn abort_at_once<S: Stream>(file: &SslFile<S>) {
    let start = Instant::now();
    file.abort();
    assert!(start.elapsed() < AT_ONCE, "abort took {:?}", start.elapsed());
}

/// Each call on an aborted file.
#[track_caller]
fn is_over<S: Stream>(file: &SslFile<S>) {
    let mut handle = file;
    let calls: [(&str, io::Result<usize>); 6] = [
        ("read", handle.read(&mut [0; 9])),
        ("peek", file.peek(&mut [0; 9])),
        ("write", handle.write(b"x")),
        ("send", file.send(b"x").map(|()| 0)),
        ("flush", handle.flush().map(|()| 0)),
        ("close_clean", file.close_clean().map(|()| 0)),
    ];
    for (name, result) in calls {
        let error = result.expect_err(name);
        assert_eq!((error.kind(), kind_of(&error)), (ErrorKind::NotConnected, Some(Kind::NotOpen)), "{name}: {error}");
    }
    assert!(!file.is_open());
    assert_eq!(file.unsent(), 0);
}

/// The peer, an `SslFile`, reads a cut, whatever came before it; and again. Gives what came.
#[track_caller]
fn reads_a_cut(peer: &SslFile) -> Vec<u8> {
    let mut all = Vec::new();
    for _ in 0..2 {
        let end = { peer }.read_to_end(&mut all).expect_err("an abort was taken for an end");
        assert!(matches!(end.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset), "{end:?}");
        assert_eq!(kind_of(&end), Some(Kind::Truncated), "{end:?}");
    }
    all
}

#[test]
fn abort_is_a_cut_for_the_peer_and_the_end_for_every_handle() {
    on_each_engine(|engine| {
        for server_aborts in [false, true] {
            for nonblocking in [false, true] {
                let (client, server) = tls_pair(engine);
                let (file, peer) = if server_aborts { (server, client) } else { (client, server) };
                file.set_nonblocking(nonblocking).expect("set_nonblocking");
                let other = file.clone();
                { &file }.write_all(b"half an answer").expect("write");
                abort_at_once(&file);
                let came = reads_a_cut(&peer);
                assert!(b"half an answer".starts_with(&came), "{came:?}");
                is_over(&file);
                is_over(&other);
                abort_at_once(&other);
                // There is nothing left to close.
                let start = Instant::now();
                let _ = other.close();
                assert!(start.elapsed() < AT_ONCE);
            }
        }
    });
}

/// What has come and was not read is gone with it, and does not turn the cut into anything else.
#[test]
fn abort_with_unread_data_is_a_cut_too() {
    on_each_engine(|engine| {
        let (client, server) = tls_pair(engine);
        { &server }.write_all(b"unread").expect("write");
        assert_eq!(client.peek(&mut [0; 9]).expect("peek"), 6);
        { &server }.write_all(b"not even received").expect("write");
        abort_at_once(&client);
        is_over(&client);
        reads_a_cut(&server);
    });
}

#[test]
fn abort_loses_what_is_unsent_and_waits_for_no_one() {
    on_each_engine(|engine| {
        let (client, server) = tls_pair(engine);
        client.send(&vec![7; BIG]).expect("send");
        assert!(client.unsent() > 0, "the system took it all");
        abort_at_once(&client);
        is_over(&client);
        assert!(reads_a_cut(&server).len() < BIG);
    });
}

/// What a thread that waits is told.
type Waiting = (&'static str, fn(&SslFile) -> io::Result<()>);

const WAITING: [Waiting; 5] = [
    ("read", |mut file| file.read(&mut [0; 9]).map(drop)),
    ("peek", |file| file.peek(&mut [0; 9]).map(drop)),
    ("write", |mut file| file.write_all(&vec![7; BIG])),
    ("flush", |mut file| {
        file.send(&vec![7; BIG])?;
        file.flush()
    }),
    ("close_clean", |file| file.close_clean()),
];

#[test]
fn abort_wakes_calls_of_other_threads() {
    on_each_engine(|engine| {
        for (name, call) in WAITING {
            println!("{name}");
            let (client, server) = tls_pair(engine);
            let waiting = thread::spawn({
                let client = client.clone();
                move || call(&client)
            });
            until_busy(&client);
            abort_at_once(&client);
            let error = waiting.join().expect("waiting").expect_err(name);
            assert_eq!(error.kind(), ErrorKind::NotConnected, "{name}: {error}");
            // A clean close has said its close_notify before it waits.
            if name != "close_clean" {
                reads_a_cut(&server);
            }
            is_over(&client);
        }
    });
}

/// Several in each direction, which wait for each other as well.
#[test]
fn abort_wakes_all_of_them() {
    on_each_engine(|engine| {
        let (client, server) = tls_pair(engine);
        let waiting: Vec<_> = WAITING[..3]
            .iter()
            .flat_map(|waiting| [waiting; 3])
            .map(|(name, call)| {
                let client = client.clone();
                thread::spawn(move || call(&client).expect_err(name).kind())
            })
            .collect();
        until_busy(&client);
        // There is no telling how many wait already: one that comes later is told the same.
        thread::sleep(Duration::from_millis(100));
        abort_at_once(&client);
        for waiting in waiting {
            assert_eq!(waiting.join().expect("waiting"), ErrorKind::NotConnected);
        }
        reads_a_cut(&server);
    });
}

#[test]
fn abort_during_the_handshake_wakes_it_and_is_final() {
    on_each_engine(|engine| {
        let (ours, theirs) = tcp_pair();
        let options = SslFile::options().server().handshake(Handshake::Lazy);
        let file = options.open(ours, &server_context(engine)).expect("open");
        let shaking = thread::spawn({
            let file = file.clone();
            move || file.handshake()
        });
        until_busy(&file);
        abort_at_once(&file);
        assert_eq!(shaking.join().expect("shaking").expect_err("aborted").kind(), ErrorKind::NotConnected);
        is_over(&file);
        assert_eq!(file.handshake().expect_err("aborted").kind(), ErrorKind::NotConnected);
        // The stream has ended.
        theirs.set_read_timeout(Some(AT_ONCE)).expect("set_read_timeout");
        assert!(matches!({ &theirs }.read(&mut [0; 99]), Ok(0)));
    });
}

/// A bare peer reads to the end, which must not be close_notify.
#[track_caller]
fn bare_reads_a_cut(mut peer: Peer) {
    let end = peer.read_to_end(&mut Vec::new());
    end.expect_err("an abort was taken for an end");
}

#[test]
fn abort_in_a_backend_is_told_once_and_the_file_is_forgotten() {
    on_each_engine_and_role(|engine, role| {
        for has_unsent in [false, true] {
            let backend = Backend::new().expect("backend");
            let (file, peer) = pair(engine, role, &backend);
            let log = Log::new();
            file.set_callbacks(log.callbacks());
            turn_until(&backend, || log.writes() == 1);
            if has_unsent {
                file.send(&vec![7; BIG]).expect("send");
            }
            let socket = socket_of(&file);
            abort_at_once(&file);
            turn_until(&backend, || !log.closes().is_empty());
            settle(&backend);
            assert_eq!(log.closes().len(), 1, "{log:?}");
            assert!(matches!(log.all().last(), Some(Told::Close(_))), "{log:?}");
            is_over(&file);
            assert!(wake_ups(&backend) <= 2, "spinning after an abort");
            bare_reads_a_cut(peer);
            drop(file);
            assert!(backend.is_empty(), "the backend keeps what has ended");
            assert!(!is_held(&socket), "nothing lingers after an abort");
        }
    });
}

#[test]
fn abort_inside_a_callback_of_a_kept_file_ends_it() {
    on_each_engine_and_role(|engine, role| {
        let backend = Backend::new().expect("backend");
        let (file, mut peer) = pair(engine, role, &backend);
        let socket = socket_of(&file);
        let log = Log::new();
        file.set_callbacks(log.callbacks());
        file.set_read_callback(|file, _| {
            file.send(&vec![7; BIG]).expect("send");
            abort_at_once(file);
            is_over(file);
        });
        file.keep();
        peer.write_all(b"?").expect("write");
        turn_until(&backend, || !log.closes().is_empty());
        settle(&backend);
        assert_eq!(log.closes().len(), 1, "{log:?}");
        assert!(backend.is_empty(), "the backend keeps what has ended");
        assert!(!is_held(&socket));
        bare_reads_a_cut(peer);
    });
}

/// Without callbacks the end of the connection waits for nobody, either.
#[test]
fn abort_in_a_backend_without_callbacks_leaves_nothing_behind() {
    on_each_engine_and_role(|engine: Engine, role: Role| {
        let backend = Backend::new().expect("backend");
        let (file, peer) = pair(engine, role, &backend);
        let socket = socket_of(&file);
        abort_at_once(&file);
        bare_reads_a_cut(peer);
        drop(file);
        settle(&backend);
        assert!(backend.is_empty());
        assert!(!is_held(&socket));
    });
}

/// On a stream that can't be polled a read blocks in the stream itself: it cannot be woken, but nobody waits for it.
#[test]
fn abort_on_a_stream_without_a_descriptor_does_not_wait_for_who_blocks_in_it() {
    on_each_engine(|engine| {
        let (ours, theirs) = tcp_pair();
        let peer = thread::spawn(move || SslFile::server(theirs, &server_context(engine)).expect("server"));
        let half: TcpStream = ours.try_clone().expect("clone");
        let stream = Duplex::new(Plain(half), Plain(ours));
        let client = SslFile::client(stream, &crate::common::client_context(engine), crate::common::NAME);
        let client = client.expect("client");
        let peer = peer.join().expect("peer");
        let (told, is_told) = mpsc::channel();
        let reader = client.clone();
        thread::spawn(move || told.send({ &reader }.read(&mut [0; 9])));
        until_busy(&client);
        abort_at_once(&client);
        is_over(&client);
        // It comes back with what the stream gives.
        let _ = { &peer }.write_all(b"data for nobody");
        let error = is_told.recv_timeout(10 * AT_ONCE).expect("it hangs").expect_err("aborted");
        assert_eq!(error.kind(), ErrorKind::NotConnected);
    });
}

/// Hides the descriptor.
struct Plain(TcpStream);

impl Read for Plain {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.0.read(buf)
    }
}

impl Write for Plain {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.0.write(buf)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
