//! Many threads on one connection.
//!
//! `SSLFILE_SOAK_MIB=1024 cargo test --release --test files -- soak` is the full run; `SSLFILE_SEED` repeats one.

mod backends;
mod changes;
mod soak;

use crate::common;

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{mpsc, Barrier};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use common::AsFd;
use common::{client_context, engines, kind_of, server_builder, server_context, within, NAME};
use rustix::event::{poll, PollFd, PollFlags, Timespec};
use sslfile::{Engine, Handshake, SslFile, SslOptions, Stream};

const LIMIT: Duration = Duration::from_secs(120);
const LARGEST: usize = 1 << 20;

/// Both sockets with the smallest buffers the system allows, so that every record is torn and everybody waits for everybody.
///
/// Segments are small as well: with loopback's, of which the window holds two, TCP may take a window a byte or two short of a segment
/// for too silly to send into, and from then on sends only when its persist timer fires, five times a second.
fn narrow_pair() -> (TcpStream, TcpStream) {
    use socket2::{Domain, Socket, Type};
    let narrow = |socket: &Socket| -> io::Result<()> {
        #[cfg(unix)]
        socket.set_tcp_mss(512)?;
        socket.set_send_buffer_size(4096)?;
        socket.set_recv_buffer_size(4096)
    };
    let listener = Socket::new(Domain::IPV4, Type::STREAM, None).expect("socket");
    narrow(&listener).expect("buffer sizes");
    listener.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).expect("bind");
    listener.listen(1).expect("listen");
    let client = Socket::new(Domain::IPV4, Type::STREAM, None).expect("socket");
    narrow(&client).expect("buffer sizes");
    client.connect(&listener.local_addr().expect("addr")).expect("connect");
    let (server, _) = listener.accept().expect("accept");
    narrow(&server).expect("buffer sizes");
    (client.into(), server.into())
}

fn narrow_files(engine: Engine, nonblocking: bool) -> (SslFile, SslFile) {
    let (c, s) = narrow_pair();
    lazy_files(engine, c, s, nonblocking)
}

fn lazy(nonblocking: bool) -> SslOptions {
    SslFile::options().handshake(Handshake::Lazy).nonblocking(nonblocking)
}

/// Whoever comes first shakes hands.
fn lazy_files<S: Stream>(engine: Engine, c: S, s: S, nonblocking: bool) -> (SslFile<S>, SslFile<S>) {
    let client = lazy(nonblocking).client(NAME).open(c, &client_context(engine)).expect("client");
    let server = lazy(nonblocking).server().open(s, &server_context(engine)).expect("server");
    (client, server)
}

/// A blocking file is asked once; for the other one waits as its `interest` says. Another thread may take what came, so not for ever.
fn again<S: Stream + AsFd, T>(file: &SslFile<S>, call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    again_on(file, PollFlags::IN | PollFlags::OUT, call)
}

/// For a thread that only reads, or only writes, and leaves the other direction to others.
fn again_on<S: Stream + AsFd, T>(
    file: &SslFile<S>,
    direction: PollFlags,
    mut call: impl FnMut() -> io::Result<T>,
) -> io::Result<T> {
    loop {
        match call() {
            Err(e) if file.is_nonblocking() && e.kind() == ErrorKind::WouldBlock => {
                let interest = file.interest();
                let mut flags = PollFlags::empty();
                flags.set(PollFlags::IN, interest.readable);
                flags.set(PollFlags::OUT, interest.writable);
                if file.is_handshake_done() {
                    flags &= direction;
                }
                let limit = Timespec { tv_sec: 0, tv_nsec: 5_000_000 };
                let _ = poll(&mut [PollFd::new(file, flags)], Some(&limit));
            }
            other => return other,
        }
    }
}

fn seed() -> u64 {
    let seed = match std::env::var("SSLFILE_SEED") {
        Ok(text) => text.parse().expect("SSLFILE_SEED is a number"),
        Err(_) => SystemTime::now().duration_since(UNIX_EPOCH).expect("clock").as_nanos() as u64,
    };
    println!("SSLFILE_SEED={seed}");
    seed
}

struct Random(u64);

impl Random {
    fn new(seed: u64, stream: u64) -> Random {
        let mut random = Random((seed ^ stream.wrapping_mul(0x9E37_79B9_7F4A_7C15)) | 1);
        random.next();
        random
    }
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
    /// 1 byte to 1 MiB, each order of magnitude as likely as the other.
    fn size(&mut self) -> usize {
        let bits = self.next() % 21;
        (1 << bits) + (self.next() as usize % (1 << bits)).min(LARGEST - (1 << bits))
    }
}

const WRITERS: usize = 4;
const PERIOD: usize = 61;

/// The n-th byte of a writer tells who wrote it and n modulo a prime. However the writers interleave, and wherever records are cut,
/// the bytes of each must come in their order.
fn byte_of(writer: usize, n: u64) -> u8 {
    ((writer as u8) << 6) | (n % PERIOD as u64) as u8
}

#[derive(Default)]
struct Order {
    seen: [u64; WRITERS],
}

impl Order {
    fn check(&mut self, data: &[u8]) {
        for byte in data {
            let writer = usize::from(byte >> 6);
            let expected = byte_of(writer, self.seen[writer]);
            assert_eq!(*byte, expected, "byte {} of writer {writer}", self.seen[writer]);
            self.seen[writer] += 1;
        }
    }
}

/// Until it has begun to count and has not moved for a while; where it is then.
fn wait_until_stuck(counter: &AtomicU64) -> u64 {
    let (mut last, mut quiet) = (0, 0);
    while last == 0 || quiet < 6 {
        thread::sleep(Duration::from_millis(100));
        let now = counter.load(Ordering::Acquire);
        quiet = if now == last { quiet + 1 } else { 0 };
        last = now;
    }
    last
}

/// Nobody reads until all writers on both ends are stuck.
#[test]
fn both_ends_flooding_never_deadlock() {
    const EACH: usize = 3 << 20;
    for engine in engines() {
        within(LIMIT, move || {
            let (client, server) = narrow_files(engine, false);
            let written = AtomicU64::new(0);
            thread::scope(|t| {
                t.spawn(|| client.handshake().expect("handshake"));
                server.handshake().expect("handshake");
            });
            thread::scope(|t| {
                for file in [&client, &client, &server, &server] {
                    t.spawn(|| {
                        let mut left = EACH;
                        while left > 0 {
                            let n = (&*file).write(&[9; 10_000][..left.min(10_000)]).expect("write");
                            left -= n;
                            written.fetch_add(n as u64, Ordering::Relaxed);
                        }
                    });
                }
                let stuck_at = wait_until_stuck(&written);
                assert!(stuck_at < 4 * EACH as u64, "the sockets swallowed it all");
                for file in [&client, &server] {
                    t.spawn(|| {
                        let mut buf = vec![0; 50_000];
                        let mut left = 2 * EACH;
                        while left > 0 {
                            let n = (&*file).read(&mut buf).expect("read");
                            assert!(n > 0 && buf[..n].iter().all(|b| *b == 9));
                            left -= n;
                        }
                    });
                }
            });
        });
    }
}

/// A reader is blocked from the first line of the test to the last, and nothing else ever waits for it.
#[test]
fn a_blocked_reader_delays_nothing() {
    for engine in engines() {
        within(LIMIT, move || {
            let (client, server) = common::tls_pair(engine);
            let (about_to_read, reading) = mpsc::channel();
            let answered = AtomicBool::new(false);
            thread::scope(|t| {
                let reader = t.spawn(|| {
                    about_to_read.send(()).expect("told");
                    let mut word = [0; 8];
                    let n = (&client).read(&mut word).expect("read");
                    assert!(answered.load(Ordering::Acquire), "woken by nothing");
                    word[..n].to_vec()
                });
                reading.recv().expect("reader");
                // There is no telling a thread that blocks in a read from one that is about to.
                thread::sleep(Duration::from_millis(100));

                let drained = t.spawn(|| io::copy(&mut &server, &mut io::sink()).expect("drain"));
                let mut sent = 0;
                let mut slowest = Duration::ZERO;
                for round in 0..400 {
                    let start = Instant::now();
                    let data = common::pattern(round, 1 + (round as usize * 997) % 60_000);
                    (&client).write_all(&data).expect("write");
                    (&client).flush().expect("flush");
                    sent += data.len() as u64;
                    ask_and_set(&client);
                    slowest = slowest.max(start.elapsed());
                }
                client.shutdown(Shutdown::Write).expect("shutdown");
                assert_eq!(drained.join().expect("drained"), sent);
                println!("{engine:?}: slowest round {slowest:?}");
                // Had one of them waited for the reader, it would have done so for ever.
                assert!(!reader.is_finished());
                answered.store(true, Ordering::Release);
                (&server).write_all(b"at last").expect("write");
                assert_eq!(reader.join().expect("reader"), b"at last");
            });
        });
    }
}

fn ask_and_set(file: &SslFile) {
    let handle = file.try_clone().expect("try_clone");
    handle.set_nonblocking(false).expect("set_nonblocking");
    handle.set_read_timeout(None).expect("set_read_timeout");
    handle.set_write_timeout(Some(LIMIT)).expect("set_write_timeout");
    handle.set_nodelay(true).expect("set_nodelay");
    handle.set_ttl(64).expect("set_ttl");
    handle.set_linger(None).expect("set_linger");
    handle.handshake().expect("handshake");
    assert!(handle.is_handshake_done() && handle.is_open());
    assert_eq!(handle.state(), sslfile::State::Open);
    assert_eq!((handle.pending(), handle.unsent()), (0, 0));
    assert!(handle.last_error().is_none());
    assert!(handle.take_error().expect("take_error").is_none());
    handle.is_busy();
    handle.interest();
    handle.version();
    handle.cipher();
    handle.peer_certificate();
    handle.peer_addr().expect("peer_addr");
    handle.local_addr().expect("local_addr");
}

/// Eight threads on each end, all the first to use the connection: it is shaken once, and each gets what it asked for.
#[test]
fn handshakes_raced_by_many_threads() {
    for engine in engines() {
        for nonblocking in [false, true] {
            within(LIMIT, move || {
                for _ in 0..15 {
                    let (c, s) = common::tcp_pair();
                    race(lazy_files(engine, c, s, nonblocking));
                }
            });
        }
    }
}

/// Two layers, none shaken before.
#[test]
fn handshakes_of_tls_in_tls_raced_by_many_threads() {
    for engine in engines() {
        for nonblocking in [false, true] {
            within(LIMIT, move || {
                for _ in 0..10 {
                    let (c, s) = common::tcp_pair();
                    let (c, s) = lazy_files(engine, c, s, false);
                    race(lazy_files(engine, c, s, nonblocking));
                }
            });
        }
    }
}

fn race<S: Stream + AsFd>((client, server): (SslFile<S>, SslFile<S>)) {
    let start = Barrier::new(16);
    thread::scope(|t| {
        for i in 0..16 {
            let file = if i < 8 { client.clone() } else { server.clone() };
            let start = &start;
            t.spawn(move || {
                start.wait();
                first_use(&file, i % 4);
                assert!(file.is_handshake_done());
            });
        }
    });
    again(&client, || (&client).write(b"after")).expect("write");
    let mut buf = [0; 8];
    assert_eq!(again(&server, || (&server).read(&mut buf)).expect("read"), 5);
    assert_eq!(&buf[..5], b"after");
}

/// Two threads of each end do each of these, so that there is a byte for each that reads.
fn first_use<S: Stream + AsFd>(mut file: &SslFile<S>, what: usize) {
    let mut byte = [0];
    match what {
        0 => again(file, || file.handshake()).expect("handshake"),
        1 => assert_eq!(again(file, || file.write(b"x")).expect("write"), 1),
        2 => {
            assert_eq!(again(file, || file.read(&mut byte)).expect("read"), 1);
            assert_eq!(byte, *b"x");
        }
        _ => again(file, || file.flush()).expect("flush"),
    }
}

/// A handshake that fails, fails for all of them, with the same error, now and later.
#[test]
fn failed_handshake_raced_by_many_threads() {
    for engine in engines() {
        for nonblocking in [false, true] {
            within(LIMIT, move || {
                let untrusted =
                    server_builder(engine).identity(common::certs().self_signed.identity()).build().expect("context");
                let (c, s) = common::tcp_pair();
                let client = lazy(nonblocking).client(NAME).open(c, &client_context(engine)).expect("client");
                let server = lazy(nonblocking).server().open(s, &untrusted).expect("server");
                let start = Barrier::new(16);
                let (tell, told) = mpsc::channel();
                thread::scope(|t| {
                    for i in 0..16 {
                        let file = if i < 8 { client.clone() } else { server.clone() };
                        let (start, tell) = (&start, tell.clone());
                        t.spawn(move || {
                            start.wait();
                            let error = fail_at_first_use(&file, i % 4);
                            tell.send((i < 8, kind_of(&error))).expect("told");
                        });
                    }
                });
                drop(tell);
                let kinds: Vec<_> = told.into_iter().collect();
                let of_client = kinds.iter().filter(|k| k.0).map(|k| k.1);
                let mut of_server = kinds.iter().filter(|k| !k.0).map(|k| k.1);
                let first = of_server.next().expect("a server error");
                assert!(of_client.eq([Some(sslfile::ErrorKind::Certificate); 8]), "{kinds:?}");
                assert!(of_server.all(|kind| kind == first), "{kinds:?}");
                assert!(matches!(first, Some(sslfile::ErrorKind::PeerAlert(_))), "{kinds:?}");
                let later = client.handshake().expect_err("it stays failed");
                assert_eq!(kind_of(&later), Some(sslfile::ErrorKind::Certificate));
            });
        }
    }
}

fn fail_at_first_use(mut file: &SslFile, what: usize) -> io::Error {
    let result = match what {
        0 => again(file, || file.handshake()),
        1 => again(file, || file.write(b"x").map(drop)),
        2 => again(file, || file.read(&mut [0]).map(drop)),
        _ => again(file, || file.flush()),
    };
    result.expect_err("an untrusted certificate")
}
