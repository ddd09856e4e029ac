//! Taking a plain file over and putting it back: callbacks, backend, blocking mode and unread bytes.

mod nested;
mod restored;

use crate::common;

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{mpsc, Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use common::AsFd;
use common::{
    client_context, engines, kind_of, pattern, server_builder, server_context, tcp_pair, until_ready, within, LONG,
    NAME,
};
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

/// Between the two sides, one end each: whether what was corked left in one segment. The system holds it back for 200 ms at the
/// most, which may pass on a loaded machine.
struct Glue {
    said: mpsc::Sender<bool>,
    heard: mpsc::Receiver<bool>,
    /// How often it did.
    held: usize,
}

impl Glue {
    fn pair() -> [Glue; 2] {
        let ((to_a, from_b), (to_b, from_a)) = (mpsc::channel(), mpsc::channel());
        [Glue { said: to_b, heard: from_b, held: 0 }, Glue { said: to_a, heard: from_a, held: 0 }]
    }

    /// What was corked then has just been let go.
    fn say(&self, corked: Instant) {
        // A side that has done its ten rounds hears no more.
        let _ = self.said.send(corked.elapsed() < Duration::from_millis(200));
    }
}

fn one_round(plain: PlainFile, part: Part, mode: Mode, engine: Engine, glue: &mut Glue) -> PlainFile {
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
        let pending = plain.pending();
        if glue.heard.recv().expect("the other side") && GLUES {
            assert!(pending >= ready.len(), "round {round}: glued to the close_notify and lost");
            glue.held += 1;
        }
        assert_eq!(plain.is_nonblocking(), mode == Mode::Nonblocking, "mode put back");
        assert_eq!(read_line(&plain), ready);
        plain
    } else {
        let mut buf = [0; 10];
        assert_eq!(until_ready(&tls, || (&tls).read(&mut buf)).expect("the end"), 0);
        assert_eq!(tls.state(), State::PeerClosed);
        // The close_notify and the plain line leave in one segment.
        let tcp = tls.get_ref().get_ref().try_clone().expect("clone");
        let begin = Instant::now();
        cork(&tcp, true);
        until_ready(&tls, || tls.close_clean()).expect("close_clean as responder");
        assert_not_connected(&tls);
        let (plain, unread) = tls.release().expect("release");
        assert_eq!((unread, plain.is_nonblocking()), (Vec::new(), mode == Mode::Nonblocking));
        write_line(&plain, &ready);
        cork(&tcp, false);
        glue.say(begin);
        plain
    }
}

/// What is written meanwhile leaves in one segment; elsewhere it may take two.
fn cork(tcp: &TcpStream, yes: bool) {
    #[cfg(target_os = "linux")]
    socket2::SockRef::from(tcp).set_tcp_cork(yes).expect("cork");
    let _ = (tcp, yes);
}

const GLUES: bool = cfg!(target_os = "linux");

fn assert_not_connected(tls: &Tls) {
    assert_eq!((&*tls).read(&mut [0; 1]).expect("the peer's end stays"), 0);
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
                for (((side, tcp), mode), mut glue) in [a, b].into_iter().enumerate().zip(modes).zip(Glue::pair()) {
                    t.spawn(move || {
                        let mut plain = PlainFile::new(tcp);
                        plain.set_nonblocking(mode == Mode::Nonblocking).expect("mode");
                        for round in 0..ROUNDS {
                            plain = one_round(plain, Part::of(side, round), mode, engine, &mut glue);
                        }
                        assert_ne!(glue.held, 0, "the machine never let 200 ms do");
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
    glue: Mutex<Glue>,
}

#[derive(Default)]
struct PeerState {
    round: usize,
    line: Vec<u8>,
    got: Vec<u8>,
    tls: Option<Tls>,
    finished: bool,
    corked: Option<Instant>,
}

impl Peer {
    fn new(side: usize, engine: Engine, tcp: TcpStream, backend: &Backend, glue: Glue) -> Arc<Peer> {
        let plain = PlainFile::new(tcp);
        plain.set_nonblocking(true).expect("mode");
        let state = Mutex::default();
        let peer = Arc::new(Peer { side, engine, plain, backend: backend.clone(), state, glue: Mutex::new(glue) });
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
        self.state.lock().expect("lock").corked = Some(Instant::now());
        cork(self.plain.get_ref(), true);
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
                cork(plain.get_ref(), false);
                let corked = writer.state.lock().expect("lock").corked.take().expect("corked");
                writer.glue.lock().expect("lock").say(corked);
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
            let [glue, other] = Glue::pair();
            let (a, b) = (Peer::new(0, engine, a, &backend, glue), Peer::new(1, engine, b, &backend, other));
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
            let [glue, mut other] = Glue::pair();
            let a = Peer::new(0, engine, a, &backend, glue);
            a.begin();
            let other = thread::spawn(move || {
                let mut plain = PlainFile::new(b);
                for round in 0..ROUNDS {
                    plain = one_round(plain, Part::of(1, round), Mode::Blocking, engine, &mut other);
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
