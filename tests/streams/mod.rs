//! What is particular to each kind of stream that can be wrapped. (The promises over each are in `promises.rs`.)
#![cfg(unix)]

mod gone;
#[cfg(unix)]
mod polled;

use crate::common;

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use common::{client_context, engines, kind_of, pattern, server_context, tcp_pair, within, LONG, NAME};
use rustix::fs::{fcntl_getfl, OFlags};
use sslfile::{Connection, Duplex, Engine, Handshake, ReadWrite, SslFile, State, Stream};

const TIMEOUT: Duration = Duration::from_millis(200);

fn again<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(e) if e.kind() == ErrorKind::WouldBlock => thread::sleep(Duration::from_micros(200)),
            other => return other,
        }
    }
}

fn open<C: Stream, S: Stream>(engine: Engine, c: C, s: S) -> (SslFile<C>, SslFile<S>) {
    thread::scope(|t| {
        let server = t.spawn(move || SslFile::server(s, &server_context(engine)).expect("server"));
        let client = SslFile::client(c, &client_context(engine), NAME).expect("client");
        (client, server.join().expect("server thread"))
    })
}

fn both_ways<C: Stream, S: Stream>(client: &SslFile<C>, server: &SslFile<S>) {
    let data = pattern(1, 3 << 20);
    thread::scope(|t| {
        t.spawn(|| (&*client).write_all(&data).expect("write"));
        t.spawn(|| (&*server).write_all(&data).expect("write"));
        t.spawn(|| {
            let mut got = vec![0; data.len()];
            (&*client).read_exact(&mut got).expect("read");
            assert!(got == data);
        });
        let mut got = vec![0; data.len()];
        (&*server).read_exact(&mut got).expect("read");
        assert!(got == data);
    });
}

/// Time-outs and switching work: there is a descriptor.
fn polled<S: Stream>(file: &SslFile<S>) {
    file.set_read_timeout(Some(TIMEOUT)).expect("set_read_timeout");
    let start = Instant::now();
    let error = (&*file).read(&mut [0; 8]).expect_err("silence");
    assert_eq!(error.kind(), ErrorKind::TimedOut, "{error}");
    assert!(start.elapsed() >= TIMEOUT);
    file.set_read_timeout(None).expect("set_read_timeout");
    file.set_nonblocking(true).expect("switch");
    assert_eq!((&*file).read(&mut [0; 8]).expect_err("nothing").kind(), ErrorKind::WouldBlock);
    file.set_nonblocking(false).expect("switch");
}

/// They do not, and are not pretended: there is none.
fn not_polled<S: Stream>(file: &SslFile<S>) {
    for refused in [
        file.set_read_timeout(Some(TIMEOUT)),
        file.set_write_timeout(Some(TIMEOUT)),
        file.set_nonblocking(!file.is_nonblocking()),
    ] {
        let error = refused.expect_err("without a descriptor");
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
        assert_eq!(kind_of(&error), Some(sslfile::ErrorKind::Unsupported));
    }
}

/// shutdown(Write) is close_notify and then the stream's own half-close: the bare peer sees the end, and can still speak.
fn half_closes<S: Stream>(engine: Engine, stream: S, mut bare: impl Read + Write + Send) {
    let mut peer = Connection::server(&server_context(engine)).expect("peer");
    let mut buf = [0; 16 << 10];
    let file = thread::scope(|t| {
        let file = t.spawn(move || SslFile::client(stream, &client_context(engine), NAME).expect("client"));
        while let Err(e) = peer.handshake() {
            assert_eq!(e.kind(), ErrorKind::WouldBlock, "{e}");
            bare.write_all(peer.output()).expect("write");
            peer.consume_output(peer.output().len());
            let n = bare.read(&mut buf).expect("read");
            peer.feed(&buf[..n]);
        }
        bare.write_all(peer.output()).expect("write");
        peer.consume_output(peer.output().len());
        file.join().expect("client")
    });
    file.shutdown(Shutdown::Write).expect("shutdown");
    (&file).flush().expect("flush");
    loop {
        match bare.read(&mut buf).expect("read") {
            0 => break,
            n => peer.feed(&buf[..n]),
        }
    }
    assert_eq!(peer.read(&mut buf).expect("close_notify"), 0);
    assert!(peer.is_peer_closed());
    peer.write(b"still heard").expect("write");
    bare.write_all(peer.output()).expect("write");
    let mut word = [0; 11];
    (&file).read_exact(&mut word).expect("read");
    assert_eq!(&word, b"still heard");
}

#[test]
fn half_close_reaches_the_stream() {
    for engine in engines() {
        within(LONG, move || {
            let (c, s) = tcp_pair();
            half_closes(engine, c, s);
            let (c, s) = UnixStream::pair().expect("pair");
            half_closes(engine, c, s);
            let (c, s) = tcp_pair();
            half_closes(engine, socket2::Socket::from(c), s);
        });
    }
}

#[test]
fn unix_stream() {
    for engine in engines() {
        within(LONG, move || {
            let (c, s) = UnixStream::pair().expect("pair");
            let fd = c.as_raw_fd();
            let (client, server) = open(engine, c, s);
            assert_eq!(client.as_raw_fd(), fd);
            assert!(client.get_ref().peer_addr().expect("address").is_unnamed());
            both_ways(&client, &server);
            polled(&client);
            polled(&server);
            both_ways(&client, &server);
        });
    }
}

#[test]
fn socket2_socket_over_tcp_and_unix() {
    use socket2::{Domain, Socket, Type};
    for engine in engines() {
        within(LONG, move || {
            let (c, s) = tcp_pair();
            let (client, server) = open(engine, Socket::from(c), Socket::from(s));
            both_ways(&client, &server);
            polled(&client);
            client.get_ref().set_tcp_nodelay(true).expect("an option of the socket");
            assert!(client.get_ref().tcp_nodelay().expect("an option of the socket"));

            let (c, s) = Socket::pair(Domain::UNIX, Type::STREAM, None).expect("pair");
            let (client, server) = open(engine, c, s);
            both_ways(&client, &server);
            polled(&server);
        });
    }
}

/// Halves with descriptors make a stream that can wait with a time-out; one without makes one that can't.
#[test]
fn duplex_has_a_descriptor_when_both_halves_have() {
    for engine in engines() {
        within(LONG, move || {
            let halves = |stream: TcpStream| Duplex::new(stream.try_clone().expect("clone"), stream);
            let (c, s) = tcp_pair();
            let (client, server) = open(engine, halves(c), halves(s));
            both_ways(&client, &server);
            polled(&client);
            both_ways(&client, &server);

            let (c, s) = tcp_pair();
            let boxed: Box<dyn Read + Send> = Box::new(c.try_clone().expect("clone"));
            let (client, server) = open(engine, Duplex::new(boxed, c), s);
            not_polled(&client);
            both_ways(&client, &server);
        });
    }
}

/// A tunnel through a program: `cat` there and `cat` back.
#[test]
fn duplex_over_the_pipes_of_a_child() {
    for engine in engines() {
        within(LONG, move || {
            let (c, s) = UnixStream::pair().expect("pair");
            let from =
                |stream: &UnixStream| Stdio::from(std::os::fd::OwnedFd::from(stream.try_clone().expect("clone")));
            let mut there = Command::new("cat").stdin(Stdio::piped()).stdout(from(&c)).spawn().expect("cat");
            let mut back = Command::new("cat").stdin(from(&c)).stdout(Stdio::piped()).spawn().expect("cat");
            drop(c);
            let pipes = Duplex::new(back.stdout.take().expect("stdout"), there.stdin.take().expect("stdin"));
            let (client, server) = open(engine, pipes, s);
            both_ways(&client, &server);
            polled(&client);
            both_ways(&client, &server);
            // The end: our file closes its pipe, `cat` ends, and with it the tunnel.
            client.close().ok();
            drop(client);
            let mut rest = Vec::new();
            (&server).read_to_end(&mut rest).expect("close_notify");
            assert_eq!(rest, b"");
            assert!(there.wait().expect("cat").success());
            drop(server);
            back.wait().expect("cat");
        });
    }
}

#[test]
fn duplex_and_read_write_give_back_what_they_were_given() {
    let (reader, writer) = Duplex::new(&b"read"[..], Vec::<u8>::new()).into_inner();
    assert_eq!((reader, writer), (&b"read"[..], Vec::new()));
    let cursor = ReadWrite::new(io::Cursor::new(vec![1, 2, 3])).into_inner();
    assert_eq!(cursor.into_inner(), [1, 2, 3]);
}

/// One direction of a line in memory that gives and takes a few bytes at a time and now and then is interrupted.
#[derive(Clone, Default)]
struct Line(Arc<Mutex<VecDeque<u8>>>);

struct Fussy {
    input: Line,
    output: Line,
    turn: usize,
}

fn fussy_pair() -> (Fussy, Fussy) {
    let (there, back) = (Line::default(), Line::default());
    let end = |input, output| Fussy { input, output, turn: 0 };
    (end(back.clone(), there.clone()), end(there, back))
}

impl Fussy {
    /// How many bytes this time; or an interruption, or nothing for now.
    fn mood(&mut self) -> io::Result<usize> {
        self.turn += 1;
        match self.turn % 7 {
            0 => Err(ErrorKind::Interrupted.into()),
            3 => Err(ErrorKind::WouldBlock.into()),
            n => Ok(1 + n * self.turn % 2000),
        }
    }
}

impl Read for Fussy {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.mood()?.min(buf.len());
        let mut line = self.input.0.lock().expect("line");
        if line.is_empty() {
            return Err(ErrorKind::WouldBlock.into());
        }
        line.read(&mut buf[..n])
    }
}

impl Write for Fussy {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let n = self.mood()?.min(buf.len());
        self.output.0.lock().expect("line").write(&buf[..n])
    }
    fn flush(&mut self) -> io::Result<()> {
        self.mood().map(drop)
    }
}

/// `nonblocking(true)` says of a stream without a descriptor that it gives `WouldBlock` itself.
#[test]
fn read_write_that_would_block() {
    for engine in engines() {
        within(LONG, move || {
            let (c, s) = fussy_pair();
            let open = || SslFile::options().nonblocking(true);
            let client = open().client(NAME).open(ReadWrite::new(c), &client_context(engine)).expect("client");
            let server = open().server().open(ReadWrite::new(s), &server_context(engine)).expect("server");
            assert!(client.is_nonblocking());
            let blocks = (&client).read(&mut [0; 8]).expect_err("nobody has answered");
            assert_eq!(blocks.kind(), ErrorKind::WouldBlock, "{blocks}");
            not_polled(&client);
            // Both ends on one thread.
            while !(client.is_handshake_done() && server.is_handshake_done()) {
                for result in [client.handshake(), server.handshake()] {
                    assert!(result.is_ok() || result.is_err_and(|e| e.kind() == ErrorKind::WouldBlock));
                }
            }
            let data = pattern(3, 600_000);
            let (mut sent, mut got) = (0, Vec::new());
            let mut buf = [0; 30_000];
            while got.len() < data.len() {
                match (&client).write(&data[sent..]) {
                    Ok(n) => sent += n,
                    Err(e) => assert_eq!(e.kind(), ErrorKind::WouldBlock, "{e}"),
                }
                if sent == data.len() {
                    match (&client).flush() {
                        Ok(()) => {}
                        Err(e) => assert_eq!(e.kind(), ErrorKind::WouldBlock, "{e}"),
                    }
                }
                match (&server).read(&mut buf) {
                    Ok(n) => got.extend_from_slice(&buf[..n]),
                    Err(e) => assert_eq!(e.kind(), ErrorKind::WouldBlock, "{e}"),
                }
            }
            assert!(got == data);
        });
    }
}

/// Blocking, and counting what is written to it.
struct Counting {
    tcp: TcpStream,
    writes: Arc<Mutex<usize>>,
}

impl Read for Counting {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.tcp.read(buf)
    }
}

impl Write for Counting {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        *self.writes.lock().expect("count") += 1;
        self.tcp.write(buf)
    }
    fn flush(&mut self) -> io::Result<()> {
        self.tcp.flush()
    }
}

/// A stream that can neither be polled nor refuse is not written to from a read: who knows whether the other end reads.
#[test]
fn read_writes_nothing_to_a_stream_that_may_block() {
    for engine in engines() {
        within(LONG, move || {
            let (c, s) = tcp_pair();
            let writes = Arc::new(Mutex::new(0));
            let stream = ReadWrite::new(Counting { tcp: c, writes: writes.clone() });
            let tap = s.try_clone().expect("clone");
            let (client, server) = open(engine, stream, s);
            (&server).write_all(b"genuine").expect("write");
            let mut word = [0; 7];
            let shaken = *writes.lock().expect("count");
            (&client).read_exact(&mut word).expect("read");
            // A forged record: the alert for it is due, and not to be sent from here.
            (&tap).write_all(b"\x17\x03\x03\x00\x20forged forged forged forged forg").expect("write");
            let error = (&client).read(&mut word).expect_err("a forged record");
            assert_eq!(error.kind(), ErrorKind::InvalidData, "{error}");
            assert_eq!(*writes.lock().expect("count"), shaken, "written from a read");
            drop(client);
            let error = (&server).read(&mut word).expect_err("the alert");
            assert_eq!(kind_of(&error), Some(sslfile::ErrorKind::PeerAlert(20)), "{error}");
        });
    }
}

fn is_nonblocking(fd: BorrowedFd<'_>) -> bool {
    fcntl_getfl(fd).expect("fcntl").contains(OFlags::NONBLOCK)
}

/// The mode a stream had before is the mode it has after.
#[test]
fn mode_of_the_stream_is_put_back() {
    for engine in engines() {
        for before in [false, true] {
            for inside in [false, true] {
                within(LONG, move || {
                    let (c, s) = UnixStream::pair().expect("pair");
                    c.set_nonblocking(before).expect("switch");
                    let server = thread::spawn(move || {
                        let file = SslFile::server(s, &server_context(engine)).expect("server");
                        file.close_clean().expect("close_clean");
                        file.release().expect("release").0
                    });
                    let options = SslFile::options().client(NAME).nonblocking(inside);
                    let file = options.open(c, &client_context(engine)).expect("client");
                    assert_eq!(file.is_nonblocking(), inside);
                    again(|| file.handshake()).expect("handshake");
                    again(|| file.close_clean()).expect("close_clean");
                    let (c, _) = file.release().expect("release");
                    assert_eq!(is_nonblocking(c.as_fd()), before);
                    server.join().expect("server");

                    // After a handshake that failed, too.
                    let (c, s) = UnixStream::pair().expect("pair");
                    c.set_nonblocking(before).expect("switch");
                    (&s).write_all(b"this is no TLS\r\n").expect("write");
                    let options = SslFile::options().client(NAME).nonblocking(inside);
                    let c = match options.open(c, &client_context(engine)) {
                        Err(failed) => failed.into_parts().1,
                        Ok(file) => {
                            again(|| file.handshake()).expect_err("no TLS");
                            file.release().expect("release").0
                        }
                    };
                    assert_eq!(is_nonblocking(c.as_fd()), before);
                });
            }
        }
    }
}

/// `close` ends the connection without pulling the descriptor from under anyone who holds a handle.
#[test]
fn descriptor_stays_until_the_last_handle() {
    for engine in engines() {
        within(LONG, move || {
            let (c, s) = tcp_pair();
            let fd = c.as_raw_fd();
            let (client, server) = open(engine, c, s);
            let other = client.try_clone().expect("clone");
            thread::scope(|t| {
                t.spawn(|| {
                    assert_eq!((&server).read(&mut [0; 8]).expect("the end"), 0);
                    server.close().expect("close");
                });
                client.close().expect("close");
            });
            assert_eq!(other.state(), State::Closed);
            drop(client);
            assert_eq!(other.as_raw_fd(), fd);
            fcntl_getfl(other.as_fd()).expect("an open descriptor");
            assert!(other.get_ref().local_addr().is_ok());
        });
    }
}

/// Without `client` or `server` nothing is opened, and the stream comes back.
#[test]
fn open_without_a_role_gives_the_stream_back() {
    for engine in engines() {
        let (c, _s) = UnixStream::pair().expect("pair");
        let failed =
            SslFile::options().handshake(Handshake::Lazy).open(c, &client_context(engine)).expect_err("no role");
        assert_eq!(failed.error().kind(), ErrorKind::InvalidInput, "{failed}");
        let (_, c, unread) = failed.into_parts();
        assert_eq!(unread, b"");
        assert!(!is_nonblocking(c.as_fd()));
        (&c).write_all(b"usable").expect("write");
    }
}

/// Errors and the log are led by it.
#[test]
fn the_path_that_a_peer_has_chosen_has_no_control_characters_in_texts() {
    use socket2::{Domain, SockAddr, Socket, Type};
    let folder = tempfile::tempdir().expect("folder");
    let listener = std::os::unix::net::UnixListener::bind(folder.path().join("server")).expect("bind");
    let client = Socket::new(Domain::UNIX, Type::STREAM, None).expect("socket");
    let path = folder.path().join("me\nsslfile: all is well\x1b[2J");
    client.bind(&SockAddr::unix(path).expect("address")).expect("bind");
    client.connect(&SockAddr::unix(folder.path().join("server")).expect("address")).expect("connect");
    client.send(b"no TLS at all").expect("send");
    let (server, _) = listener.accept().expect("accept");
    let error = SslFile::server(server, &server_context(engines()[0])).expect_err("no TLS").to_string();
    assert!(error.contains("sslfile: all is well"), "{error}");
    assert!(!error.contains(char::is_control), "{error:?}");
}
