//! Taking a plain file over and putting it back: callbacks, backend, blocking mode and unread bytes.

mod common;

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use common::{
    client_context, engines, kind_of, pattern, server_builder, server_context, tcp_pair, until_ready, within, LONG,
    NAME,
};
use socket2::SockRef;
use sslfile::{
    Backend, Callbacks, Context, Engine, ErrorKind, Handshake, Interest, PlainFile, SslFile, SslOptions, State, Stream,
};

type Tls = SslFile<PlainFile>;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Mode {
    Blocking,
    Nonblocking,
}

/// Repeats a call on a non-blocking plain file until it gives something else than `WouldBlock`.
fn again<T>(plain: &PlainFile, mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => poll(plain, plain.interest()),
            other => return other,
        }
    }
}

fn poll(file: &impl AsFd, interest: Interest) {
    use rustix::event::{poll, PollFd, PollFlags, Timespec};
    let mut flags = PollFlags::empty();
    flags.set(PollFlags::IN, interest.readable);
    flags.set(PollFlags::OUT, interest.writable);
    assert!(!flags.is_empty(), "WouldBlock, and no interest in anything");
    let limit = Timespec { tv_sec: 30, tv_nsec: 0 };
    assert_ne!(poll(&mut [PollFd::new(file, flags)], Some(&limit)).expect("poll"), 0, "waited in vain");
}

fn read_line(plain: &PlainFile) -> String {
    let mut line = Vec::new();
    let mut buf = [0; 4096];
    loop {
        let n = again(plain, || (&*plain).read(&mut buf)).expect("a line");
        assert_ne!(n, 0, "the end instead of a line");
        match buf[..n].iter().position(|b| *b == b'\n') {
            Some(at) => {
                line.extend_from_slice(&buf[..=at]);
                plain.unread(&buf[at + 1..n]);
                return String::from_utf8(line).expect("plain text, not TLS");
            }
            None => line.extend_from_slice(&buf[..n]),
        }
    }
}

fn write_line(plain: &PlainFile, line: &str) {
    plain.send(line.as_bytes()).expect("send");
    again(plain, || (&*plain).flush()).expect("flush");
}

/// Waits until the kernel holds something of which `enough` is true, and leaves it there.
fn wait_in_kernel(tcp: &TcpStream, enough: impl Fn(&[u8]) -> bool) {
    let mut buf = [0; 4096];
    let begin = Instant::now();
    loop {
        let n = tcp.peek(&mut buf).unwrap_or(0);
        if enough(&buf[..n]) {
            return;
        }
        assert!(begin.elapsed() < LONG, "never came; there is {:?}", String::from_utf8_lossy(&buf[..n]));
        thread::sleep(Duration::from_millis(1));
    }
}

fn turn_until(backend: &Backend, what: &str, mut done: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !done() {
        assert!(begin.elapsed() < LONG / 2, "in vain: {what}");
        backend.turn(Some(Duration::from_millis(20))).expect("turn");
    }
}

fn options(i_am_client: bool) -> SslOptions {
    match i_am_client {
        true => SslFile::options().client(NAME),
        false => SslFile::options().server(),
    }
}

fn context(engine: Engine, i_am_client: bool) -> Context {
    match i_am_client {
        true => client_context(engine),
        false => server_context(engine),
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// Ten times plain, TLS, plain
// ---------------------------------------------------------------------------------------------------------------------

const ROUNDS: usize = 10;
const DATA: usize = 50_000;

/// What one side does in one round. The roles in TLS and in closing change from round to round.
#[derive(Clone, Copy)]
struct Part {
    round: usize,
    is_client: bool,
    ends: bool,
}

impl Part {
    fn of(side: usize, round: usize) -> Part {
        Part { round, is_client: (side + round) % 2 == 0, ends: (side + round / 2) % 2 == 0 }
    }
}

fn one_round(plain: PlainFile, part: Part, mode: Mode, engine: Engine) -> PlainFile {
    let round = part.round;
    let start = format!("STARTTLS {round}\r\n");
    if part.is_client {
        write_line(&plain, &start);
    } else {
        // The ClientHello is there before the line is read, so that it is read with it.
        if plain.pending() == 0 {
            wait_in_kernel(plain.get_ref(), |there| there.len() > start.len() + 100 && there.contains(&b'\n'));
        }
        assert_eq!(read_line(&plain), start);
        assert_ne!(plain.pending(), 0, "round {round}: the ClientHello was not glued to the line");
    }
    let tls = options(part.is_client).open(plain, &context(engine, part.is_client)).expect("open");
    until_ready(&tls, || tls.handshake()).unwrap_or_else(|e| panic!("round {round}: {e}"));
    assert_eq!(tls.is_nonblocking(), mode == Mode::Nonblocking, "mode taken over");
    let data = pattern(round as u64, DATA);
    if part.is_client {
        write_all(&tls, &data);
        assert!(read_exactly(&tls, DATA) == data, "round {round}: the echo differs");
    } else {
        assert!(read_exactly(&tls, DATA) == data, "round {round}: the data differs");
        write_all(&tls, &data);
    }
    let ready = format!("READY {round}\r\n");
    if part.ends {
        until_ready(&tls, || tls.close_clean()).expect("close_clean as initiator");
        assert_eq!(tls.state(), State::Closed);
        assert_not_connected(&tls);
        let (plain, unread) = tls.release().expect("release");
        assert_eq!(unread, b"", "a plain file takes the bytes itself");
        assert!(plain.pending() >= ready.len(), "round {round}: glued to the close_notify and lost");
        assert_eq!(plain.is_nonblocking(), mode == Mode::Nonblocking, "mode put back");
        assert_eq!(read_line(&plain), ready);
        plain
    } else {
        let mut buf = [0; 10];
        assert_eq!(until_ready(&tls, || (&tls).read(&mut buf)).expect("the end"), 0);
        assert_eq!(tls.state(), State::PeerClosed);
        // The close_notify and the plain line leave in one segment.
        let tcp = tls.get_ref().get_ref().try_clone().expect("clone");
        SockRef::from(&tcp).set_tcp_cork(true).expect("cork");
        until_ready(&tls, || tls.close_clean()).expect("close_clean as responder");
        assert_not_connected(&tls);
        let (plain, unread) = tls.release().expect("release");
        assert_eq!((unread, plain.is_nonblocking()), (Vec::new(), mode == Mode::Nonblocking));
        write_line(&plain, &ready);
        SockRef::from(&tcp).set_tcp_cork(false).expect("uncork");
        plain
    }
}

fn assert_not_connected(tls: &Tls) {
    assert_eq!((&*tls).read(&mut [0; 1]).expect_err("read").kind(), io::ErrorKind::NotConnected);
    assert_eq!((&*tls).write(&[0; 1]).expect_err("write").kind(), io::ErrorKind::NotConnected);
}

fn write_all<S: Stream + AsFd>(tls: &SslFile<S>, mut data: &[u8]) {
    while !data.is_empty() {
        let n = until_ready(tls, || (&*tls).write(data)).expect("write");
        data = &data[n..];
    }
    until_ready(tls, || (&*tls).flush()).expect("flush");
}

fn read_exactly<S: Stream + AsFd>(tls: &SslFile<S>, len: usize) -> Vec<u8> {
    let mut got = vec![0; len];
    let mut at = 0;
    while at < len {
        let n = until_ready(tls, || (&*tls).read(&mut got[at..])).expect("read");
        assert_ne!(n, 0, "the end after {at} of {len}");
        at += n;
    }
    got
}

fn ten_rounds(modes: [Mode; 2]) {
    within(LONG, move || {
        for engine in engines() {
            let (a, b) = tcp_pair();
            thread::scope(|t| {
                for ((side, tcp), mode) in [a, b].into_iter().enumerate().zip(modes) {
                    t.spawn(move || {
                        let mut plain = PlainFile::new(tcp);
                        plain.set_nonblocking(mode == Mode::Nonblocking).expect("mode");
                        for round in 0..ROUNDS {
                            plain = one_round(plain, Part::of(side, round), mode, engine);
                        }
                        plain.close().or_else(blocked).expect("close");
                    });
                }
            });
        }
    });
}

fn blocked(e: io::Error) -> io::Result<()> {
    if e.kind() == io::ErrorKind::WouldBlock {
        Ok(())
    } else {
        Err(e)
    }
}

#[test]
fn ten_times_plain_tls_plain_blocking_with_glued_bytes() {
    ten_rounds([Mode::Blocking, Mode::Blocking]);
}

#[test]
fn ten_times_plain_tls_plain_nonblocking_with_glued_bytes() {
    ten_rounds([Mode::Nonblocking, Mode::Nonblocking]);
}

#[test]
fn ten_times_plain_tls_plain_mixed_modes_with_glued_bytes() {
    ten_rounds([Mode::Nonblocking, Mode::Blocking]);
}

/// One side of the same dialogue, driven by callbacks alone.
struct Peer {
    side: usize,
    engine: Engine,
    plain: PlainFile,
    backend: Backend,
    state: Mutex<PeerState>,
}

#[derive(Default)]
struct PeerState {
    round: usize,
    line: Vec<u8>,
    got: Vec<u8>,
    tls: Option<Tls>,
    finished: bool,
}

impl Peer {
    fn new(side: usize, engine: Engine, tcp: TcpStream, backend: &Backend) -> Arc<Peer> {
        let plain = PlainFile::new(tcp);
        plain.set_nonblocking(true).expect("mode");
        let state = Mutex::default();
        let peer = Arc::new(Peer { side, engine, plain, backend: backend.clone(), state });
        let reader = peer.clone();
        peer.plain.set_callbacks(Callbacks::new().on_read(move |_: &PlainFile, data| reader.plain_data(data)));
        peer.plain.set_backend(Some(backend)).expect("backend");
        peer
    }

    fn part(&self) -> Part {
        Part::of(self.side, self.state.lock().expect("lock").round)
    }

    /// The client's first move.
    fn begin(self: &Arc<Self>) {
        let part = self.part();
        if part.round == ROUNDS {
            self.state.lock().expect("lock").finished = true;
        } else if part.is_client {
            self.plain.send(format!("STARTTLS {}\r\n", part.round).as_bytes()).expect("plain send");
            self.go_tls();
        }
    }

    fn plain_data(self: &Arc<Self>, data: &[u8]) {
        let mut state = self.state.lock().expect("lock");
        state.line.extend_from_slice(data);
        let Some(end) = state.line.iter().position(|b| *b == b'\n') else { return };
        let rest = state.line.split_off(end + 1);
        let line = String::from_utf8(std::mem::take(&mut state.line)).expect("plain text, not TLS");
        let round = state.round;
        drop(state);
        self.plain.unread(&rest);
        if line == format!("STARTTLS {round}\r\n") {
            self.go_tls();
        } else {
            assert_eq!(line, format!("READY {round}\r\n"));
            self.next();
        }
    }

    fn go_tls(self: &Arc<Self>) {
        let part = self.part();
        let context = context(self.engine, part.is_client);
        let tls = options(part.is_client).open(self.plain.clone(), &context).expect("open");
        assert_eq!(tls.backend().as_ref(), Some(&self.backend), "backend taken over");
        assert!(tls.is_nonblocking(), "mode taken over");
        if part.is_client {
            tls.send(&pattern(part.round as u64, DATA)).expect("queued");
        }
        let (reader, closer) = (self.clone(), self.clone());
        tls.set_callbacks(
            Callbacks::new()
                .on_read(move |tls: &Tls, data| reader.tls_data(tls, data))
                .on_close(move |tls: &Tls, end| closer.tls_end(tls, end)),
        );
        self.state.lock().expect("lock").tls = Some(tls);
    }

    fn tls_data(self: &Arc<Self>, tls: &Tls, data: &[u8]) {
        let part = self.part();
        let mut state = self.state.lock().expect("lock");
        state.got.extend_from_slice(data);
        if state.got.len() < DATA {
            return;
        }
        assert!(std::mem::take(&mut state.got) == pattern(part.round as u64, DATA), "round {}: differs", part.round);
        drop(state);
        if !part.is_client {
            tls.send(&pattern(part.round as u64, DATA)).expect("echo");
        }
        // The client knows that both have everything. The server may end, too: what it sent goes first.
        if part.ends {
            tls.close_clean().expect("close_clean");
        }
    }

    fn tls_end(self: &Arc<Self>, tls: &Tls, end: io::Result<()>) {
        let part = self.part();
        end.unwrap_or_else(|e| panic!("round {}: {e}", part.round));
        if part.ends {
            assert_eq!(tls.state(), State::Closed);
            // The plain read callback comes with what was glued to the close_notify.
            self.state.lock().expect("lock").tls = None;
            return;
        }
        assert_eq!(tls.state(), State::PeerClosed);
        SockRef::from(self.plain.get_ref()).set_tcp_cork(true).expect("cork");
        tls.close_clean().expect("close_clean");
        // Kept for later: called when the plain file is back.
        let (reader, writer) = (self.clone(), self.clone());
        let told = AtomicUsize::new(0);
        self.plain.set_callbacks(
            Callbacks::new().on_read(move |_: &PlainFile, data| reader.plain_data(data)).on_write(move |plain| {
                if told.fetch_add(1, Ordering::SeqCst) > 0 {
                    return;
                }
                let round = writer.part().round;
                writer.state.lock().expect("lock").tls = None;
                plain.send(format!("READY {round}\r\n").as_bytes()).expect("plain send");
                SockRef::from(plain.get_ref()).set_tcp_cork(false).expect("uncork");
                writer.next();
            }),
        );
    }

    fn next(self: &Arc<Self>) {
        self.state.lock().expect("lock").round += 1;
        assert_eq!(self.plain.backend().as_ref(), Some(&self.backend), "backend put back");
        assert!(self.plain.is_nonblocking(), "mode put back");
        self.begin();
    }

    fn is_finished(&self) -> bool {
        self.state.lock().expect("lock").finished
    }
}

#[test]
fn ten_times_plain_tls_plain_in_callbacks_with_glued_bytes() {
    within(LONG, || {
        for engine in engines() {
            let backend = Backend::new().expect("backend");
            let (a, b) = tcp_pair();
            let (a, b) = (Peer::new(0, engine, a, &backend), Peer::new(1, engine, b, &backend));
            a.begin();
            b.begin();
            turn_until(&backend, "ten rounds", || a.is_finished() && b.is_finished());
            assert_eq!(backend.len(), 2, "only the two plain files are watched");
            a.plain.take_callbacks();
            b.plain.take_callbacks();
        }
    });
}

#[test]
fn callback_mode_against_blocking_ten_times() {
    within(LONG, || {
        for engine in engines() {
            let backend = Backend::new().expect("backend");
            let (a, b) = tcp_pair();
            let a = Peer::new(0, engine, a, &backend);
            a.begin();
            let other = thread::spawn(move || {
                let mut plain = PlainFile::new(b);
                for round in 0..ROUNDS {
                    plain = one_round(plain, Part::of(1, round), Mode::Blocking, engine);
                }
                plain
            });
            turn_until(&backend, "ten rounds", || a.is_finished());
            other.join().expect("the blocking side");
            a.plain.take_callbacks();
        }
    });
}

// ---------------------------------------------------------------------------------------------------------------------
// Injection (CVE-2011-0411)
// ---------------------------------------------------------------------------------------------------------------------

const EVIL: &[u8] = b"RSET\r\nMAIL FROM:<evil@example.com>\r\n";

/// A plain file that has read a STARTTLS line and, with it, what a man in the middle put behind it; and the victim at
/// the other end, who knows nothing of it and shakes hands.
fn injected(engine: Engine, victim_is_client: bool) -> (PlainFile, thread::JoinHandle<io::Result<()>>) {
    let (ours, theirs) = tcp_pair();
    (&theirs).write_all(b"STARTTLS\r\n").expect("write");
    (&theirs).write_all(EVIL).expect("write");
    wait_in_kernel(&ours, |there| there.ends_with(EVIL));
    let victim = thread::spawn(move || {
        let tls = options(victim_is_client).open(theirs, &context(engine, victim_is_client))?;
        (&tls).write_all(b"secret")
    });
    let plain = PlainFile::new(ours);
    assert_eq!(read_line(&plain), "STARTTLS\r\n");
    // The victim's first words may be there, too.
    assert!(plain.pending() >= EVIL.len());
    (plain, victim)
}

#[test]
fn plain_bytes_behind_starttls_fail_the_handshake_and_come_back() {
    within(LONG, || {
        for engine in engines() {
            for we_are_client in [false, true] {
                let (plain, victim) = injected(engine, !we_are_client);
                let error = options(we_are_client).open(plain, &context(engine, we_are_client)).expect_err("handshake");
                assert_eq!(error.kind(), ErrorKind::NotTls, "{engine:?}: {error}");
                let (e, plain, rest) = error.into_parts();
                assert_eq!((e.kind(), rest), (io::ErrorKind::InvalidData, vec![]));
                // What was unread before the attempt is unread after it.
                let mut back = vec![0; EVIL.len()];
                (&plain).read_exact(&mut back).expect("what was there");
                assert_eq!(back, EVIL);
                plain.get_ref().shutdown(Shutdown::Both).expect("shutdown");
                victim.join().expect("victim").expect_err("the victim's handshake fails too");
            }
        }
    });
}

#[test]
fn plain_bytes_behind_starttls_fail_a_nonblocking_handshake() {
    within(LONG, || {
        for engine in engines() {
            let (plain, victim) = injected(engine, true);
            plain.set_nonblocking(true).expect("mode");
            let (other, handle) = (plain.clone(), plain.clone());
            drop(other);
            let opened = options(false).handshake(Handshake::Lazy).open(plain, &server_context(engine));
            let tls = opened.expect("lazily");
            let e = until_ready(&tls, || (&tls).read(&mut [0; 100])).expect_err("read");
            assert_eq!(kind_of(&e), Some(ErrorKind::NotTls), "{e}");
            assert_eq!(tls.state(), State::Failed);
            let (plain, rest) = tls.release().expect("the stream comes back");
            assert_eq!(rest, b"");
            assert_eq!(plain.pending(), handle.pending(), "on every handle");
            let mut back = vec![0; EVIL.len()];
            (&handle).read_exact(&mut back).expect("what was there");
            assert_eq!(back, EVIL);
            plain.get_ref().shutdown(Shutdown::Both).expect("shutdown");
            victim.join().expect("victim").expect_err("the victim's handshake fails too");
        }
    });
}

#[test]
fn plain_bytes_behind_starttls_fail_a_handshake_in_callbacks() {
    within(LONG, || {
        for engine in engines() {
            let backend = Backend::new().expect("backend");
            let (plain, victim) = injected(engine, true);
            plain.set_nonblocking(true).expect("mode");
            plain.set_backend(Some(&backend)).expect("backend");
            let opened = options(false).handshake(Handshake::Lazy).open(plain.clone(), &server_context(engine));
            let tls = opened.expect("lazily");
            let (ends, plaintext) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicUsize::new(0)));
            let (to, count) = (ends.clone(), plaintext.clone());
            tls.set_callbacks(
                Callbacks::new()
                    .on_read(move |_: &Tls, data| {
                        count.fetch_add(data.len(), Ordering::SeqCst);
                    })
                    .on_close(move |_: &Tls, end| to.lock().expect("lock").push(end)),
            );
            turn_until(&backend, "the failure is told", || !ends.lock().expect("lock").is_empty());
            assert_eq!(plaintext.load(Ordering::SeqCst), 0, "plain bytes taken for TLS plaintext");
            let end = ends.lock().expect("lock").pop().expect("told").expect_err("an error");
            assert_eq!((end.kind(), kind_of(&end)), (io::ErrorKind::InvalidData, Some(ErrorKind::NotTls)));
            let got = Arc::new(Mutex::new(Vec::new()));
            let to = got.clone();
            plain.set_callbacks(
                Callbacks::new().on_read(move |_: &PlainFile, data| to.lock().expect("lock").extend_from_slice(data)),
            );
            tls.release().expect("release");
            assert_eq!(plain.backend().as_ref(), Some(&backend), "backend put back");
            // The attacker's bytes come first; the victim's may follow.
            turn_until(&backend, "the plain bytes", || got.lock().expect("lock").len() >= EVIL.len());
            assert!(got.lock().expect("lock").starts_with(EVIL));
            assert!(ends.lock().expect("lock").is_empty(), "told twice");
            plain.get_ref().shutdown(Shutdown::Both).expect("shutdown");
            victim.join().expect("victim").expect_err("the victim's handshake fails too");
        }
    });
}

// ---------------------------------------------------------------------------------------------------------------------
// What is put back
// ---------------------------------------------------------------------------------------------------------------------

#[test]
fn a_failed_handshake_puts_callbacks_backend_and_mode_back() {
    within(LONG, || {
        for engine in engines() {
            let backend = Backend::new().expect("backend");
            let (ours, theirs) = tcp_pair();
            let plain = PlainFile::new(ours);
            let got = Arc::new(Mutex::new(Vec::new()));
            let to = got.clone();
            plain.set_callbacks(
                Callbacks::new().on_read(move |_: &PlainFile, data| to.lock().expect("lock").extend_from_slice(data)),
            );
            plain.set_backend(Some(&backend)).expect("backend");
            // A certificate for another name: the client refuses it, by then deep in the handshake.
            let server = thread::spawn(move || {
                let identity = common::certs().other_name.identity();
                let context = server_builder(engine).identity(identity).build().expect("context");
                let error = SslFile::server(PlainFile::new(theirs), &context).err();
                error.map(|e| e.into_parts().1)
            });
            let error = SslFile::client(plain, &client_context(engine), NAME).expect_err("the name is wrong");
            assert_eq!(error.kind(), ErrorKind::HostnameMismatch, "{error}");
            let (_, plain, _) = error.into_parts();
            assert_eq!(plain.backend().as_ref(), Some(&backend));
            assert!(!plain.is_nonblocking());
            // TLS 1.3: the server is done before it hears of it; its file takes the alert as the end.
            if let Some(other) = server.join().expect("server") {
                (&other).write_all(b"plain again").expect("write");
                turn_until(&backend, "the plain read callback", || got.lock().expect("lock").ends_with(b"plain again"));
            }
            assert!(!plain.take_callbacks().is_empty());
        }
    });
}

/// A TLS file over a plain one with another handle on that, in nobody's backend; and its peer.
fn taken_over(engine: Engine) -> (Tls, PlainFile, Tls) {
    let (a, b) = tcp_pair();
    let plain = PlainFile::new(a);
    let handle = plain.clone();
    let server = thread::spawn(move || SslFile::server(PlainFile::new(b), &server_context(engine)).expect("server"));
    let tls = SslFile::client(plain, &client_context(engine), NAME).expect("client");
    (tls, handle, server.join().expect("server"))
}

#[test]
fn a_plain_file_that_is_taken_over_is_busy() {
    within(LONG, || {
        for engine in engines() {
            let (tls, plain, peer) = taken_over(engine);
            let backend = Backend::new().expect("backend");
            let calls: Vec<(&str, io::Result<()>)> = vec![
                ("read", (&plain).read(&mut [0; 10]).map(drop)),
                ("peek", plain.peek(&mut [0; 10]).map(drop)),
                ("write", (&plain).write(b"no").map(drop)),
                ("flush", (&plain).flush()),
                ("send", plain.send(b"no")),
                ("shutdown", plain.shutdown(Shutdown::Write)),
                ("close", plain.close()),
                ("set_nonblocking", plain.set_nonblocking(true)),
                ("set_read_timeout", plain.set_read_timeout(Some(LONG))),
                ("set_write_timeout", plain.set_write_timeout(Some(LONG))),
                ("set_backend", plain.set_backend(Some(&backend))),
                ("set_backend(None)", plain.set_backend(None)),
            ];
            for (call, result) in calls {
                let e = result.expect_err(call);
                assert_eq!(e.kind(), io::ErrorKind::ResourceBusy, "{call}: {e}");
            }
            let plain = plain.into_stream().expect_err("into_stream");
            let error = SslFile::client(plain, &client_context(engine), NAME).expect_err("a second file over it");
            let (e, plain, _) = error.into_parts();
            assert_eq!(e.kind(), io::ErrorKind::ResourceBusy, "{e}");
            // None of it did any harm.
            (&tls).write_all(b"still here").expect("write");
            let mut buf = [0; 10];
            (&peer).read_exact(&mut buf).expect("read");
            assert_eq!(&buf, b"still here");
            thread::scope(|t| {
                t.spawn(|| peer.close_clean().expect("peer"));
                tls.close_clean().expect("close_clean");
            });
            // Back at once, whoever holds handles on the TLS file.
            (&plain).write_all(b"plain").expect("plain again");
            let mut buf = [0; 5];
            peer.get_ref().clone().read_exact(&mut buf).expect("plain again");
            assert_eq!(&buf, b"plain");
        }
    });
}

#[test]
fn callbacks_set_on_the_plain_handle_meanwhile_are_kept_for_later() {
    within(LONG, || {
        for engine in engines() {
            let backend = Backend::new().expect("backend");
            let (a, b) = tcp_pair();
            let plain = PlainFile::new(a);
            plain.set_nonblocking(true).expect("mode");
            plain.set_backend(Some(&backend)).expect("backend");
            let early = Arc::new(AtomicUsize::new(0));
            let count = early.clone();
            plain.set_callbacks(Callbacks::new().on_read(move |_: &PlainFile, _| {
                count.fetch_add(1, Ordering::SeqCst);
            }));
            let peer = thread::spawn(move || {
                let tls = SslFile::server(PlainFile::new(b), &server_context(engine)).expect("server");
                (&tls).write_all(b"TLS").expect("write");
                assert_eq!((&tls).read(&mut [0; 1]).expect("end"), 0);
                tls.close_clean().expect("responder");
                let (plain, _) = tls.release().expect("release");
                (&plain).write_all(b"plain").expect("write");
                plain
            });
            let tls = SslFile::client(plain.clone(), &client_context(engine), NAME).expect("client");
            let log = Arc::new(Mutex::new(String::new()));
            let to = log.clone();
            plain.set_callbacks(Callbacks::new().on_read(move |_: &PlainFile, data| {
                *to.lock().expect("lock") += &format!("plain:{};", String::from_utf8_lossy(data));
            }));
            let (to, end) = (log.clone(), log.clone());
            tls.set_callbacks(
                Callbacks::new()
                    .on_read(move |tls: &Tls, data| {
                        *to.lock().expect("lock") += &format!("tls:{};", String::from_utf8_lossy(data));
                        tls.close_clean().expect("close_clean");
                    })
                    .on_close(move |_: &Tls, how| *end.lock().expect("lock") += &format!("end:{};", how.is_ok())),
            );
            turn_until(&backend, "plain data", || log.lock().expect("lock").contains("plain"));
            assert_eq!(*log.lock().expect("lock"), "tls:TLS;end:true;plain:plain;", "{engine:?}");
            assert_eq!(early.load(Ordering::SeqCst), 0, "the first callback was replaced");
            peer.join().expect("peer");
        }
    });
}

#[test]
fn each_file_has_its_own_backend_and_the_plain_one_goes_home() {
    within(LONG, || {
        for engine in engines() {
            let (home, away) = (Backend::new().expect("backend"), Backend::new().expect("backend"));
            let (a, b) = tcp_pair();
            let plain = PlainFile::new(a);
            plain.set_nonblocking(true).expect("mode");
            plain.set_backend(Some(&home)).expect("backend");
            assert_eq!(home.len(), 1);
            let peer = thread::spawn(move || {
                let tls = SslFile::server(PlainFile::new(b), &server_context(engine)).expect("server");
                tls.close_clean().expect("close_clean");
                tls.release().expect("release").0
            });
            let tls = SslFile::client(plain.clone(), &client_context(engine), NAME).expect("client");
            assert_eq!(tls.backend().as_ref(), Some(&home), "taken over");
            tls.set_backend(Some(&away)).expect("backend");
            assert_eq!((home.len(), away.len()), (0, 1));
            let done = Arc::new(AtomicUsize::new(0));
            let count = done.clone();
            tls.set_callbacks(Callbacks::new().on_close(move |tls: &Tls, how| {
                how.expect("clean");
                tls.close_clean().expect("close_clean");
                count.fetch_add(1, Ordering::SeqCst);
            }));
            turn_until(&away, "the clean close", || done.load(Ordering::SeqCst) == 1 && tls.state() == State::Closed);
            assert_eq!(plain.backend().as_ref(), Some(&home), "home again");
            assert_eq!(home.len(), 1);
            tls.release().expect("release");
            assert_eq!((home.len(), away.len()), (1, 0));
            drop(peer.join().expect("peer"));
        }
    });
}

#[test]
fn release_of_an_open_file_puts_everything_back() {
    within(LONG, || {
        for engine in engines() {
            let backend = Backend::new().expect("backend");
            let (tls, plain, peer) = taken_over(engine);
            tls.set_backend(Some(&backend)).expect("backend");
            let (back, rest) = tls.release().expect("release");
            assert_eq!(rest, b"");
            assert_eq!(back.backend(), None, "the plain file had none");
            // Abruptly: nothing was said to the peer, which now meets plain text.
            (&plain).write_all(b"not TLS at all").expect("plain write");
            let e = (&peer).read(&mut [0; 10]).expect_err("garbage");
            assert_eq!(e.kind(), io::ErrorKind::InvalidData, "{e}");
            assert!(back.is_open());
        }
    });
}

#[test]
fn a_dropped_tls_file_gives_the_plain_handle_back_at_its_end() {
    within(LONG, || {
        for engine in engines() {
            let (tls, plain, peer) = taken_over(engine);
            drop(tls);
            assert_eq!((&peer).read(&mut [0; 1]).expect("close_notify"), 0);
            plain.set_read_timeout(Some(Duration::from_millis(50))).expect("not busy any more");
            assert_eq!((&plain).read(&mut [0; 1]).expect_err("nothing comes").kind(), io::ErrorKind::TimedOut);
        }
    });
}

#[test]
fn unread_bytes_and_already_read_ones_go_into_the_handshake_in_order() {
    within(LONG, || {
        for engine in engines() {
            let (a, b) = tcp_pair();
            let client = thread::spawn(move || SslFile::client(a, &client_context(engine), NAME).expect("client"));
            let plain = PlainFile::new(b);
            let mut hello = [0; 60];
            (&plain).read_exact(&mut hello).expect("part of the ClientHello");
            // In the order of the stream: passed on by hand, put back, still in the file, still in the kernel.
            plain.unread(&hello[20..]);
            let options = SslFile::options().server().already_read(hello[..20].to_vec());
            let server = options.open(plain, &server_context(engine)).expect("server");
            let client = client.join().expect("client");
            (&client).write_all(b"hello").expect("write");
            assert_eq!(read_exactly(&server, 5), b"hello");
        }
    });
}

// ---------------------------------------------------------------------------------------------------------------------
// TLS in TLS in TLS
// ---------------------------------------------------------------------------------------------------------------------

type Deep1 = SslFile<PlainFile>;
type Deep2 = SslFile<Deep1>;
type Deep3 = SslFile<Deep2>;

fn nest<S: Stream>(stream: S, is_client: bool, engine: Engine) -> SslFile<S> {
    let options = options(is_client).nonblocking(true).handshake(Handshake::Lazy);
    options.open(stream, &context(engine, is_client)).unwrap_or_else(|e| panic!("open: {e}"))
}

/// Reads what comes until there is as much as is wanted.
fn gather<S: Stream>(file: &SslFile<S>, echo: bool) -> Arc<Mutex<Vec<u8>>> {
    let got = Arc::new(Mutex::new(Vec::new()));
    let to = got.clone();
    file.set_read_callback(move |file, data| {
        to.lock().expect("lock").extend_from_slice(data);
        if echo {
            file.send(data).expect("echo");
        }
    });
    got
}

#[test]
fn tls_in_tls_in_tls_in_callbacks_and_back_out_again() {
    within(LONG, || {
        for engine in engines() {
            let backend = Backend::new().expect("backend");
            let (a, b) = tcp_pair();
            let (a, b) = (PlainFile::new(a), PlainFile::new(b));
            for plain in [&a, &b] {
                plain.set_nonblocking(true).expect("mode");
                plain.set_backend(Some(&backend)).expect("backend");
            }
            // All three at once: the inner handshakes wait for the outer ones.
            let client: [Deep3; 1] = [nest(nest(nest(a.clone(), true, engine), true, engine), true, engine)];
            let server: [Deep3; 1] = [nest(nest(nest(b.clone(), false, engine), false, engine), false, engine)];
            let ([client], [server]) = (client, server);
            assert_eq!(backend.len(), 2, "one place for each descriptor");
            let got = gather(&client, false);
            let echoed = gather(&server, true);
            let data = pattern(3, 200_000);
            client.send(&data).expect("queued from the first moment");
            turn_until(&backend, "the echo", || got.lock().expect("lock").len() == data.len());
            assert!(*got.lock().expect("lock") == data && *echoed.lock().expect("lock") == data, "differs");

            // Out again, one by one; what was inside is delivered before.
            server.set_close_callback(|file, how| {
                how.expect("clean");
                file.close_clean().expect("responder");
            });
            client.close_clean().expect("initiator");
            turn_until(&backend, "third", || client.state() == State::Closed && server.state() == State::Closed);
            let ((client, _), (server, _)) = (client.release().expect("third"), server.release().expect("third"));
            assert!(client.backend().is_some() && server.backend().is_some(), "the second ones drive on");
            let (got, _) = (gather(&client, false), gather(&server, true));
            client.send(b"two deep").expect("send");
            turn_until(&backend, "the echo two deep", || *got.lock().expect("lock") == b"two deep");

            client.set_close_callback(|file, how| {
                how.expect("clean");
                file.close_clean().expect("responder");
            });
            server.close_clean().expect("initiator");
            turn_until(&backend, "second", || client.state() == State::Closed && server.state() == State::Closed);
            let ((client, _), (server, _)) = (client.release().expect("second"), server.release().expect("second"));
            let (got, _) = (gather(&client, false), gather(&server, true));
            client.send(b"one deep").expect("send");
            turn_until(&backend, "the echo one deep", || *got.lock().expect("lock") == b"one deep");

            server.set_close_callback(|file, how| {
                how.expect("clean");
                file.close_clean().expect("responder");
            });
            client.close_clean().expect("initiator");
            turn_until(&backend, "first", || client.state() == State::Closed && server.state() == State::Closed);
            let got = Arc::new(Mutex::new(Vec::new()));
            let to = got.clone();
            a.set_callbacks(
                Callbacks::new().on_read(move |_: &PlainFile, data| to.lock().expect("lock").extend_from_slice(data)),
            );
            b.send(b"plain").expect("send");
            turn_until(&backend, "plain data", || *got.lock().expect("lock") == b"plain");
        }
    });
}

#[test]
fn a_wrapped_tls_file_has_its_callbacks_again_after_the_inner_one() {
    within(LONG, || {
        for engine in engines() {
            let backend = Backend::new().expect("backend");
            let (a, b) = tcp_pair();
            let outer = |tcp: TcpStream, is_client| {
                let plain = PlainFile::new(tcp);
                plain.set_nonblocking(true).expect("mode");
                plain.set_backend(Some(&backend)).expect("backend");
                nest(plain, is_client, engine)
            };
            let (client, server) = (outer(a, true), outer(b, false));
            let outer_got = gather(&client, false);
            let (inner_client, inner_server) =
                (nest(client.clone(), true, engine), nest(server.clone(), false, engine));
            let inner_got = gather(&inner_client, false);
            inner_server.send(b"inner").expect("send");
            turn_until(&backend, "inner data", || *inner_got.lock().expect("lock") == b"inner");
            assert_eq!(*outer_got.lock().expect("lock"), b"", "the outer callback sees no inner record");
            assert_eq!(client.send(b"no").expect_err("busy").kind(), io::ErrorKind::ResourceBusy);
            inner_client.set_close_callback(|file, _| file.close_clean().expect("responder"));
            inner_server.close_clean().expect("initiator");
            turn_until(&backend, "inner end", || {
                inner_client.state() == State::Closed && inner_server.state() == State::Closed
            });
            server.send(b"outer").expect("send");
            turn_until(&backend, "outer data", || *outer_got.lock().expect("lock") == b"outer");
        }
    });
}
