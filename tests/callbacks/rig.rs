//! A backend, a file in it with callbacks that write down what they are told, and a bare peer on a thread.

use std::io::{self, ErrorKind};
use std::net::TcpStream;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use sslfile::{Backend, Callbacks, Engine, Handshake, Role, SslFile, SslOptions, Stream, Version};

use crate::common::bare::{self, Bare};
use crate::common::{client_context, engines, server_context, tcp_pair, within, LONG, NAME};

/// Long enough that what would be called has been called.
const QUIET: Duration = Duration::from_millis(if cfg!(windows) { 150 } else { 60 });

/// What a callback was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    Accept,
    Read(Vec<u8>),
    Write,
    Close(Result<(), ErrorKind>),
}

/// What the callbacks were told, in order.
#[derive(Clone, Debug, Default)]
pub struct Log(Arc<Mutex<Vec<Told>>>);

impl Log {
    pub fn new() -> Log {
        Log::default()
    }

    pub fn add(&self, told: Told) {
        let mut log = self.0.lock().expect("log");
        match (log.last_mut(), told) {
            // How the plaintext is cut is nobody's promise.
            (Some(Told::Read(before)), Told::Read(data)) => before.extend(data),
            (_, told) => log.push(told),
        }
    }

    pub fn all(&self) -> Vec<Told> {
        self.0.lock().expect("log").clone()
    }

    pub fn clear(&self) {
        self.0.lock().expect("log").clear();
    }

    pub fn is_empty(&self) -> bool {
        self.all().is_empty()
    }

    pub fn count(&self, which: impl Fn(&Told) -> bool) -> usize {
        self.all().iter().filter(|told| which(told)).count()
    }

    pub fn writes(&self) -> usize {
        self.count(|told| *told == Told::Write)
    }

    pub fn closes(&self) -> Vec<Result<(), ErrorKind>> {
        let ends = |told| match told {
            Told::Close(end) => Some(end),
            _ => None,
        };
        self.all().into_iter().filter_map(ends).collect()
    }

    /// All that was read.
    pub fn data(&self) -> Vec<u8> {
        let data = |told| match told {
            Told::Read(data) => data,
            _ => Vec::new(),
        };
        self.all().into_iter().flat_map(data).collect()
    }

    /// Callbacks of any face that write into this log.
    pub fn callbacks<F: 'static>(&self) -> Callbacks<F> {
        let (a, r, w, c) = (self.clone(), self.clone(), self.clone(), self.clone());
        Callbacks::new()
            .on_accept(move |_| a.add(Told::Accept))
            .on_read(move |_, data| {
                assert!(!data.is_empty(), "a read callback without data");
                r.add(Told::Read(data.to_vec()));
            })
            .on_write(move |_| w.add(Told::Write))
            .on_close(move |_, end| c.add(Told::Close(end.map_err(|e| e.kind()))))
    }
}

pub fn on_each_engine(test: fn(Engine)) {
    for engine in engines() {
        println!("{engine:?}");
        within(LONG, move || test(engine));
    }
}

pub fn on_each_engine_and_role(test: fn(Engine, Role)) {
    for engine in engines() {
        for role in [Role::Client, Role::Server] {
            println!("{engine:?} as {role:?}");
            within(LONG, move || test(engine, role));
        }
    }
}

/// In non-blocking mode and in blocking mode.
pub fn in_each_mode(test: fn(Engine, Role, bool)) {
    for engine in engines() {
        for role in [Role::Client, Role::Server] {
            for nonblocking in [true, false] {
                println!("{engine:?} as {role:?}, non-blocking: {nonblocking}");
                within(LONG, move || test(engine, role, nonblocking));
            }
        }
    }
}

/// Turns until `done`.
#[track_caller]
pub fn turn_until(backend: &Backend, done: impl FnMut() -> bool) {
    turn_all_until(&[backend], done);
}

#[track_caller]
pub fn turn_all_until(backends: &[&Backend], mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < LONG / 4, "turned in vain");
        for backend in backends {
            backend.turn(Some(Duration::from_millis(5))).expect("turn");
        }
    }
}

/// Turns until nothing has happened for a while. A backend that spins never gets there.
#[track_caller]
pub fn settle(backend: &Backend) {
    let start = Instant::now();
    let mut idle = 0;
    while idle < 4 {
        assert!(start.elapsed() < LONG / 4, "never at rest");
        // A turn that lasts without a call has waited, or has worked on a busy machine: what is ready then comes at once.
        let wait = if idle == 0 { QUIET } else { Duration::ZERO };
        let before = Instant::now();
        let calls = backend.turn(Some(wait)).expect("turn");
        idle = if calls == 0 && before.elapsed() >= wait { idle + 1 } else { 0 };
    }
}

/// Wake-ups in half a second.
pub fn wake_ups(backend: &Backend) -> usize {
    let end = Instant::now() + Duration::from_millis(500);
    let mut turns = 0;
    while let Some(left) = end.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
        backend.turn(Some(left)).expect("turn");
        turns += 1;
    }
    turns
}

pub fn panics(f: impl FnOnce()) -> bool {
    catch_unwind(AssertUnwindSafe(f)).is_err()
}

pub type Peer = Bare<TcpStream>;

pub fn bare_client(tcp: TcpStream) -> Peer {
    bare::client(tcp, Version::Tls1_2..=Version::Tls1_3).expect("connect")
}

/// A bare peer that shakes hands on a thread of its own.
pub fn shaking_peer(role_of_file: Role, tcp: TcpStream) -> JoinHandle<Peer> {
    thread::spawn(move || match role_of_file {
        Role::Client => bare::server(tcp, Version::Tls1_2..=Version::Tls1_3).expect("accept"),
        Role::Server => bare_client(tcp),
    })
}

/// A file that has not shaken hands.
pub fn open<S: Stream>(engine: Engine, role: Role, options: SslOptions, stream: S) -> SslFile<S> {
    let options = options.handshake(Handshake::Lazy);
    match role {
        Role::Client => options.client(NAME).open(stream, &client_context(engine)),
        Role::Server => options.server().open(stream, &server_context(engine)),
    }
    .expect("open")
}

/// A non-blocking file in a backend, hands shaken, callbacks not yet set.
pub fn pair(engine: Engine, role: Role, backend: &Backend) -> (SslFile, Peer) {
    pair_with(engine, role, SslFile::options().nonblocking(true), backend)
}

pub fn pair_with(engine: Engine, role: Role, options: SslOptions, backend: &Backend) -> (SslFile, Peer) {
    let (ours, theirs) = tcp_pair();
    let peer = shaking_peer(role, theirs);
    let file = open(engine, role, options.backend(backend), ours);
    turn_until(backend, || file.is_handshake_done() && peer.is_finished());
    (file, peer.join().expect("peer"))
}

/// The same with callbacks that write into a log, which is empty: what is called at the beginning has been called.
pub fn logged_pair(engine: Engine, role: Role, backend: &Backend) -> (SslFile, Peer, Log) {
    logged_pair_with(engine, role, SslFile::options(), backend)
}

pub fn logged_pair_with(engine: Engine, role: Role, options: SslOptions, backend: &Backend) -> (SslFile, Peer, Log) {
    let (file, peer) = pair_with(engine, role, options.nonblocking(true), backend);
    file.set_callbacks(Log::new().callbacks());
    settle(backend);
    let log = Log::new();
    file.set_callbacks(log.callbacks());
    turn_until(backend, || log.all() == [Told::Write]);
    log.clear();
    (file, peer, log)
}

/// A reset instead of an end.
pub fn reset(peer: Peer) {
    socket2::SockRef::from(peer.get_ref()).set_linger(Some(Duration::ZERO)).expect("linger");
}

/// close_notify and then the end.
pub fn end_well(mut peer: Peer) {
    let _ = peer.shutdown();
    cut(peer);
}

/// A bare end, without close_notify. What has come is read away, so that it is no reset.
pub fn cut(peer: Peer) {
    let tcp = peer.get_ref();
    // Refused if the file's end came with a reset: that is an end, too.
    let _ = tcp.shutdown(std::net::Shutdown::Write);
    tcp.set_nonblocking(true).expect("non-blocking");
    let _ = io::copy(&mut { tcp }, &mut io::sink());
}
