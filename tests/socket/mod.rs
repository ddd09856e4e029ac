//! `SslSocket`: one object for plain and TLS, driven by a backend.

mod ends;
mod errors;
mod names;
mod written;

use crate::common;

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{mpsc, Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use common::{
    certs, client_context, engines, kind_of, pattern, server_builder, server_context, tcp_pair, within, LONG, NAME,
};
use sslfile::{Backend, Engine, ErrorKind, Mode, PlainFile, SocketState, SslFile, SslSocket};

/// A socket whose handlers write down what they are told.
struct Probe {
    socket: SslSocket,
    backend: Backend,
    log: Arc<Mutex<Log>>,
}

#[derive(Default)]
struct Log {
    events: Vec<String>,
    data: Vec<u8>,
    end: Option<io::Result<()>>,
}

impl Probe {
    fn new(backend: &Backend) -> Probe {
        Probe::over(backend, SslSocket::new(backend))
    }

    fn from_tcp(backend: &Backend, tcp: TcpStream) -> Probe {
        Probe::over(backend, SslSocket::from_tcp(backend, tcp).expect("from_tcp"))
    }

    fn over(backend: &Backend, socket: SslSocket) -> Probe {
        let log = Arc::new(Mutex::new(Log::default()));
        let note = |log: &Arc<Mutex<Log>>| {
            let log = log.clone();
            move |event: String| log.lock().expect("lock").events.push(event)
        };
        let say = note(&log);
        socket.on_state_changed(move |_, state| say(format!("{state:?}")));
        let say = note(&log);
        socket.on_mode_changed(move |_, mode| say(format!("{mode:?}")));
        let say = note(&log);
        socket.on_encrypted(move |_| say("encrypted".to_string()));
        let say = note(&log);
        socket.on_written(move |_| say("written".to_string()));
        let to = log.clone();
        socket.on_ready_read(move |socket| {
            let mut log = to.lock().expect("lock");
            if log.events.last().is_none_or(|last| last != "read") {
                log.events.push("read".to_string());
            }
            log.data.extend_from_slice(&drain(socket));
        });
        let to = log.clone();
        socket.on_closed(move |_, end| {
            let mut log = to.lock().expect("lock");
            log.events.push("closed".to_string());
            assert!(log.end.replace(end).is_none(), "the end was told twice");
        });
        Probe { socket, backend: backend.clone(), log }
    }

    fn events(&self) -> Vec<String> {
        self.log.lock().expect("lock").events.clone()
    }

    fn data(&self) -> Vec<u8> {
        self.log.lock().expect("lock").data.clone()
    }

    fn has(&self, event: &str) -> bool {
        self.events().iter().any(|e| e == event)
    }

    fn until(&self, event: &str) {
        turn_until(&self.backend, event, || self.has(event));
    }

    /// Turns until the end is told, and a little longer; gives the end.
    fn end(&self) -> io::Result<()> {
        self.until("closed");
        for _ in 0..3 {
            self.backend.turn(Some(Duration::from_millis(5))).expect("turn");
        }
        assert_eq!(self.socket.state(), SocketState::Unconnected);
        assert!(!self.socket.is_encrypted());
        self.log.lock().expect("lock").end.take().expect("told")
    }
}

/// What has arrived.
fn drain(socket: &SslSocket) -> Vec<u8> {
    let (mut got, mut buf) = (Vec::new(), [0; 4096]);
    while let Ok(n @ 1..) = socket.read(&mut buf) {
        got.extend_from_slice(&buf[..n]);
    }
    got
}

fn turn_until(backend: &Backend, what: &str, mut done: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !done() {
        assert!(begin.elapsed() < LONG / 2, "in vain: {what}");
        backend.turn(Some(Duration::from_millis(20))).expect("turn");
    }
}

fn backend() -> Backend {
    Backend::new().expect("backend")
}

/// A blocking TLS server for one connection, with this identity.
fn server<T: Send + 'static>(
    engine: Engine,
    serve: impl FnOnce(SslFile) -> T + Send + 'static,
) -> (u16, thread::JoinHandle<T>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    let port = listener.local_addr().expect("address").port();
    let thread = thread::spawn(move || {
        let (tcp, _) = listener.accept().expect("accept");
        serve(SslFile::server(tcp, &server_context(engine)).expect("server"))
    });
    (port, thread)
}

/// A plain server for one connection.
fn plain_server<T: Send + 'static>(
    serve: impl FnOnce(TcpStream) -> T + Send + 'static,
) -> (u16, thread::JoinHandle<T>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    let port = listener.local_addr().expect("address").port();
    (port, thread::spawn(move || serve(listener.accept().expect("accept").0)))
}

// ---------------------------------------------------------------------------------------------------------------------
// Connecting, modes, states
// ---------------------------------------------------------------------------------------------------------------------

#[test]
fn a_plain_connection_from_look_up_to_end() {
    within(LONG, || {
        let (port, server) = plain_server(|mut tcp| {
            let mut got = String::new();
            tcp.write_all(b"hello").expect("write");
            tcp.read_to_string(&mut got).expect("read");
            got
        });
        let probe = Probe::new(&backend());
        assert_eq!((probe.socket.state(), probe.socket.mode()), (SocketState::Unconnected, Mode::Unencrypted));
        probe.socket.connect("127.0.0.1", port).expect("connect");
        assert_eq!(probe.socket.state(), SocketState::HostLookup);
        probe.socket.write(b"from the first moment").expect("write");
        assert_eq!(probe.socket.unsent(), 21);
        assert_eq!(probe.events(), [""; 0], "handlers are called by the backend only");
        probe.until("written");
        assert_eq!(probe.socket.unsent(), 0);
        assert_eq!(probe.socket.peer_addr().expect("address").port(), port);
        probe.until("read");
        assert_eq!(probe.data(), b"hello");
        probe.socket.close();
        probe.end().expect("our own end");
        let events = probe.events();
        assert_eq!(events[..3], ["HostLookup", "Connecting", "Connected"], "{events:?}");
        assert_eq!(events[events.len() - 3..], ["Closing", "Unconnected", "closed"], "{events:?}");
        assert_eq!(server.join().expect("server"), "from the first moment");
    });
}

#[test]
fn an_encrypted_connection_from_look_up_to_the_peers_end() {
    within(LONG, || {
        for engine in engines() {
            let (port, server) = server(engine, |file| {
                let mut got = [0; 6];
                (&file).read_exact(&mut got).expect("read");
                (&file).write_all(b"answer").expect("write");
                file.close().expect("close");
                got
            });
            let probe = Probe::new(&backend());
            probe.socket.connect_encrypted(NAME, port, &client_context(engine)).expect("connect");
            assert_eq!(probe.socket.mode(), Mode::SslClient, "set before the handshake");
            assert!(!probe.socket.is_encrypted());
            probe.socket.write(b"queued").expect("write");
            probe.end().expect("the peer's clean end");
            let events = probe.events();
            let expected = ["encrypted", "written", "read", "Unconnected", "Unencrypted", "closed"];
            let rest: Vec<&String> = events.iter().filter(|e| expected.contains(&e.as_str())).collect();
            assert_eq!(rest, expected, "{events:?}");
            assert!(events.contains(&"SslClient".to_string()), "{events:?}");
            assert_eq!(probe.data(), b"answer");
            assert_eq!(probe.socket.read(&mut [0; 10]).expect("sticky"), 0);
            assert_eq!(&server.join().expect("server"), b"queued");
        }
    });
}

#[test]
fn all_addresses_of_a_host_are_tried() {
    within(LONG, || {
        // localhost is ::1 and 127.0.0.1; only one of them is served, now the one and now the other.
        let here = common::loopbacks();
        let addresses: Vec<_> = std::net::ToSocketAddrs::to_socket_addrs("localhost:1").expect("localhost").collect();
        for address in addresses.into_iter().filter(|address| here.contains(&address.ip())) {
            let listener = TcpListener::bind((address.ip(), 0)).expect("bind");
            let port = listener.local_addr().expect("address").port();
            let probe = Probe::new(&backend());
            probe.socket.connect("localhost", port).expect("connect");
            probe.until("Connected");
            assert_eq!(probe.socket.peer_addr().expect("address").ip(), address.ip());
        }
    });
}

#[test]
fn looking_up_and_connecting_never_holds_the_loop() {
    within(LONG, || {
        let backend = backend();
        let probe = Probe::new(&backend);
        let begin = Instant::now();
        probe.socket.connect("no-such-host.invalid", 1).expect("connect");
        let ticks = Arc::new(AtomicUsize::new(0));
        let count = ticks.clone();
        backend.call_out(Duration::ZERO, move || {
            count.fetch_add(1, Ordering::SeqCst);
        });
        backend.turn(Some(Duration::ZERO)).expect("turn");
        backend.turn(Some(Duration::ZERO)).expect("turn");
        assert_eq!(ticks.load(Ordering::SeqCst), 1, "the look-up held the loop");
        assert!(begin.elapsed() < Duration::from_secs(1));
        let e = probe.end().expect_err("no such host");
        assert!(e.to_string().contains("no-such-host.invalid"), "{e}");
    });
}

#[test]
fn a_socket_can_connect_again_after_its_end() {
    within(LONG, || {
        for engine in engines() {
            let probe = Probe::new(&backend());
            for round in 0..3 {
                let text = format!("round {round}");
                let reply = text.clone();
                let (port, server) = server(engine, move |file| {
                    (&file).write_all(reply.as_bytes()).expect("write");
                    file.close().expect("close");
                });
                probe.log.lock().expect("lock").events.clear();
                probe.socket.connect_encrypted(NAME, port, &client_context(engine)).expect("connect");
                probe.end().expect("clean");
                assert_eq!(std::mem::take(&mut probe.log.lock().expect("lock").data), text.as_bytes());
                server.join().expect("server");
            }
        }
    });
}

#[test]
fn a_peer_that_has_ended_its_side_still_gets_its_answer() {
    within(LONG, || {
        for engine in engines() {
            for encrypted in [false, true] {
                let backend = backend();
                let (a, b) = tcp_pair();
                let peer = thread::spawn(move || {
                    let mut answer = String::new();
                    if encrypted {
                        let file = SslFile::client(a, &client_context(engine), NAME).expect("client");
                        (&file).write_all(b"request").expect("write");
                        file.shutdown(Shutdown::Write).expect("half-close");
                        (&file).read_to_string(&mut answer).map(|_| answer)
                    } else {
                        (&a).write_all(b"request").expect("write");
                        a.shutdown(Shutdown::Write).expect("half-close");
                        (&a).read_to_string(&mut answer).map(|_| answer)
                    }
                });
                let probe = Probe::from_tcp(&backend, b);
                if encrypted {
                    probe.socket.start_server_encryption(&server_context(engine)).expect("start");
                }
                let to = probe.log.clone();
                probe.socket.on_ready_read(move |socket| {
                    let mut log = to.lock().expect("lock");
                    let data = drain(socket);
                    log.data.extend_from_slice(&data);
                    // The peer's end is something to read, too.
                    if !data.is_empty() && log.data == b"request" {
                        socket.write(b"answer").expect("the end is told later");
                    }
                });
                probe.end().expect("the peer's clean end");
                drop(probe);
                turn_until(&backend, "all is sent", || backend.is_empty());
                assert_eq!(peer.join().expect("peer").expect("clean"), "answer");
            }
        }
    });
}

#[test]
fn a_million_bytes_go_each_way_in_order() {
    within(LONG, || {
        for engine in engines() {
            const SIZE: usize = 1_000_000;
            let (port, server) = server(engine, |file| {
                let mut got = vec![0; SIZE];
                (&file).read_exact(&mut got).expect("read");
                (&file).write_all(&got).expect("write");
                file.close().expect("close");
            });
            let probe = Probe::new(&backend());
            probe.socket.connect_encrypted(NAME, port, &client_context(engine)).expect("connect");
            let data = pattern(1, SIZE);
            // In pieces, each taken whole or not at all.
            let mut rest = &data[..];
            turn_until(&probe.backend, "all is taken", || {
                while !rest.is_empty() {
                    let piece = rest.len().min(100_000);
                    match probe.socket.write(&rest[..piece]) {
                        Ok(()) => rest = &rest[piece..],
                        Err(e) => {
                            assert_eq!(e.kind(), io::ErrorKind::WouldBlock, "{e}");
                            return false;
                        }
                    }
                }
                true
            });
            probe.end().expect("clean");
            assert!(probe.data() == data, "differs");
            server.join().expect("server");
        }
    });
}

// ---------------------------------------------------------------------------------------------------------------------
// Encryption that begins later, and stops
// ---------------------------------------------------------------------------------------------------------------------

#[test]
fn starttls_as_client_and_as_server_keeps_the_order_of_what_is_written() {
    within(LONG, || {
        for engine in engines() {
            let backend = backend();
            let (a, b) = tcp_pair();
            let (client, server) = (Probe::from_tcp(&backend, a), Probe::from_tcp(&backend, b));
            client.socket.write(b"STARTTLS\r\n").expect("plain");
            client.socket.start_client_encryption(&client_context(engine), NAME).expect("start");
            assert_eq!(client.socket.mode(), Mode::SslClient);
            client.socket.write(b"first in TLS").expect("queued until encrypted");
            // The server starts on the line. What came with it belongs to the handshake.
            let context = server_context(engine);
            let to = server.log.clone();
            server.socket.on_ready_read(move |socket| {
                if socket.mode() == Mode::Unencrypted {
                    let mut line = [0; 10];
                    assert_eq!(socket.read(&mut line).expect("the line"), 10);
                    assert_eq!(&line, b"STARTTLS\r\n");
                    socket.start_server_encryption(&context).expect("start");
                    assert_eq!(drain(socket), b"", "the rest is no plaintext");
                } else {
                    to.lock().expect("lock").data.extend_from_slice(&drain(socket));
                }
            });
            turn_until(&backend, "data", || server.data() == b"first in TLS");
            assert!(server.has("SslServer") && server.has("encrypted"), "{:?}", server.events());
            drop((client, server));
        }
    });
}

#[test]
fn plain_bytes_behind_starttls_are_never_taken_for_tls_plaintext() {
    within(LONG, || {
        for engine in engines() {
            let (a, b) = tcp_pair();
            (&b).write_all(b"220 ready\r\nEVIL COMMAND\r\n").expect("write");
            let probe = Probe::from_tcp(&backend(), a);
            let count = Arc::new(AtomicUsize::new(0));
            let (times, context) = (count.clone(), client_context(engine));
            probe.socket.on_ready_read(move |socket| {
                if times.fetch_add(1, Ordering::SeqCst) == 0 {
                    assert_eq!(socket.read(&mut [0; 11]).expect("the line"), 11);
                    socket.start_client_encryption(&context, NAME).expect("start");
                }
                assert_eq!(drain(socket), b"", "plain bytes where TLS was asked for");
            });
            let server = thread::spawn(move || {
                let file = SslFile::server(b, &server_context(engine)).map_err(io::Error::from)?;
                (&file).read(&mut [0; 1])
            });
            let e = probe.end().expect_err("the handshake fails");
            assert_eq!(kind_of(&e), Some(ErrorKind::NotTls), "{e}");
            assert_eq!(drain(&probe.socket), b"");
            server.join().expect("server").expect_err("and there");
        }
    });
}

/// A pair of sockets, TLS on.
fn encrypted_pair(engine: Engine, backend: &Backend) -> (Probe, Probe) {
    let (a, b) = tcp_pair();
    let (client, server) = (Probe::from_tcp(backend, a), Probe::from_tcp(backend, b));
    client.socket.start_client_encryption(&client_context(engine), NAME).expect("client");
    server.socket.start_server_encryption(&server_context(engine)).expect("server");
    turn_until(backend, "encrypted", || client.has("encrypted") && server.has("encrypted"));
    (client, server)
}

#[test]
fn encryption_stops_when_both_stop_it_and_starts_again() {
    within(LONG, || {
        for engine in engines() {
            let backend = backend();
            let (client, server) = encrypted_pair(engine, &backend);
            for round in 0..3 {
                client.socket.write(b"in TLS").expect("write");
                client.socket.stop_encryption().expect("stop");
                server.socket.stop_encryption().expect("stop");
                client.socket.write(b", then plain").expect("write");
                assert_eq!(client.socket.mode(), Mode::SslClient, "until it is done");
                turn_until(&backend, "plain data", || server.data() == b"in TLS, then plain");
                assert_eq!(server.socket.mode(), Mode::Unencrypted, "round {round}");
                assert!(!client.socket.is_encrypted());
                for probe in [&client, &server] {
                    *probe.log.lock().expect("lock") = Log::default();
                }
                client.socket.start_client_encryption(&client_context(engine), NAME).expect("client");
                server.socket.start_server_encryption(&server_context(engine)).expect("server");
                turn_until(&backend, "encrypted", || client.has("encrypted") && server.has("encrypted"));
            }
        }
    });
}

#[test]
fn encryption_stops_in_the_handler_of_the_message_that_asks_for_it() {
    within(LONG, || {
        for engine in engines() {
            let backend = backend();
            let (client, server) = encrypted_pair(engine, &backend);
            let to = server.log.clone();
            server.socket.on_ready_read(move |socket| {
                let data = drain(socket);
                to.lock().expect("lock").data.extend_from_slice(&data);
                if data.ends_with(b"STOP\r\n") {
                    // The close_notify may have come with the message.
                    socket.stop_encryption().expect("stop as responder");
                    socket.write(b"plain answer").expect("write");
                }
            });
            client.socket.write(b"STOP\r\n").expect("write");
            client.socket.stop_encryption().expect("stop");
            turn_until(&backend, "the plain answer", || client.data() == b"plain answer");
            assert_eq!((client.socket.mode(), server.socket.mode()), (Mode::Unencrypted, Mode::Unencrypted));
        }
    });
}

#[test]
fn a_peer_that_has_stopped_encryption_waits_for_us_to_stop_it() {
    within(LONG, || {
        for engine in engines() {
            let backend = backend();
            let (client, server) = encrypted_pair(engine, &backend);
            client.socket.stop_encryption().expect("stop");
            client.socket.write(b"plain").expect("queued");
            for _ in 0..20 {
                backend.turn(Some(Duration::from_millis(5))).expect("turn");
            }
            assert!(!server.has("closed") && !client.has("closed"));
            assert_eq!((client.socket.mode(), server.socket.mode()), (Mode::SslClient, Mode::SslServer));
            server.socket.stop_encryption().expect("stop");
            turn_until(&backend, "plain data", || server.data() == b"plain");
            assert_eq!((client.socket.mode(), server.socket.mode()), (Mode::Unencrypted, Mode::Unencrypted));
        }
    });
}

#[test]
fn calls_in_the_wrong_state_are_refused() {
    within(LONG, || {
        let engine = engines()[0];
        let (client, server) = (client_context(engine), server_context(engine));
        let backend = backend();
        let kind = |result: io::Result<()>| result.expect_err("refused").kind();
        let socket = SslSocket::new(&backend);
        assert_eq!(kind(socket.start_client_encryption(&client, NAME)), io::ErrorKind::NotConnected);
        assert_eq!(kind(socket.start_server_encryption(&server)), io::ErrorKind::NotConnected);
        assert_eq!(kind(socket.stop_encryption()), io::ErrorKind::NotConnected);
        assert_eq!(kind(socket.read(&mut [0; 1]).map(drop)), io::ErrorKind::NotConnected);
        assert_eq!(kind(socket.peer_addr().map(drop)), io::ErrorKind::NotConnected);
        assert_eq!(kind(socket.connect("", 1)), io::ErrorKind::InvalidInput);
        assert_eq!(kind(socket.connect_encrypted("a host", 1, &client)), io::ErrorKind::InvalidInput);
        socket.close();
        assert_eq!(socket.state(), SocketState::Unconnected);
        let (a, _b) = tcp_pair();
        let socket = SslSocket::from_tcp(&backend, a).expect("from_tcp");
        assert_eq!(socket.state(), SocketState::Connected);
        assert_eq!(kind(socket.connect("localhost", 1)), io::ErrorKind::AlreadyExists);
        assert_eq!(kind(socket.stop_encryption()), io::ErrorKind::InvalidInput);
        assert_eq!(kind(socket.start_server_encryption(&client)), io::ErrorKind::InvalidInput);
        assert_eq!(kind(socket.read(&mut [0; 1]).map(drop)), io::ErrorKind::WouldBlock);
        socket.start_client_encryption(&client, NAME).expect("start");
        assert_eq!(kind(socket.start_client_encryption(&client, NAME)), io::ErrorKind::AlreadyExists);
        socket.close();
        assert_eq!(kind(socket.write(b"late")), io::ErrorKind::NotConnected);
    });
}
