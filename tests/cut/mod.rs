//! A session that breaks off after every byte of its ciphertext, or arrives with one bit turned over: nothing is forged, nothing
//! that arrived whole is lost.

use crate::common;
use crate::wire;

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use common::{kind_of, pattern, tcp_pair, wait_for, within, NAME};
use sslfile::{Connection, Engine, ErrorKind, Handshake, SslFile, State};
use wire::raw::RawPeer;
use wire::{pairings, pairings_with, record_ends, Pairing, Rng};

const LIMIT: Duration = Duration::from_secs(300);
/// One record each.
const MESSAGES: [usize; 4] = [1, 16, 100, 250];

/// Two connections and what went between them. The victim is the side whose input is tampered with; its peer has data to send.
struct Session {
    victim: Connection,
    peer: Connection,
    is_server: bool,
    /// The peer's ciphertext.
    flow: Vec<u8>,
    fed: usize,
    got: Vec<u8>,
    /// Reads while data arrives, or only at the end.
    eager: bool,
}

/// What the peer's flow holds.
struct Layout {
    /// Where the handshake was done on both sides.
    settled: usize,
    /// The end of each message.
    marks: Vec<usize>,
    /// Behind the close_notify.
    end: usize,
}

impl Layout {
    /// The plaintext that is whole in the first `at` bytes.
    fn whole_before(&self, at: usize) -> usize {
        MESSAGES.iter().zip(&self.marks).filter(|(_, mark)| **mark <= at).map(|(len, _)| len).sum()
    }
}

fn message() -> Vec<u8> {
    pattern(3, MESSAGES.iter().sum())
}

impl Session {
    fn new(pairing: &Pairing, victim_is_server: bool, eager: bool) -> Session {
        Session {
            victim: pairing.connection(victim_is_server),
            peer: pairing.connection(!victim_is_server),
            is_server: victim_is_server,
            flow: Vec::new(),
            fed: 0,
            got: Vec::new(),
            eager,
        }
    }

    fn collect(&mut self) {
        self.flow.extend_from_slice(self.peer.output());
        let n = self.peer.output().len();
        self.peer.consume_output(n);
    }

    /// Gives the victim its input up to offset `limit`, in one piece.
    fn feed(&mut self, limit: usize) {
        self.collect();
        let to = limit.min(self.flow.len());
        if to > self.fed {
            let piece = &self.flow[self.fed..to];
            self.victim.feed(piece);
            self.fed = to;
        }
    }

    fn answer(&mut self) {
        let n = self.victim.output().len();
        self.peer.feed(self.victim.output());
        self.victim.consume_output(n);
    }

    /// Shakes hands as far as `limit` lets it; true if both are done.
    fn handshake(&mut self, limit: usize) -> bool {
        for _ in 0..20 {
            let _ = self.peer.handshake();
            self.feed(limit);
            let _ = self.victim.handshake();
            self.answer();
        }
        self.collect();
        self.peer.is_handshake_done() && self.victim.is_handshake_done()
    }

    /// The peer's messages and its close_notify, put on the flow.
    fn speak(&mut self) -> Layout {
        let settled = self.flow.len();
        let data = message();
        let mut from = 0;
        let mut marks = Vec::new();
        for len in MESSAGES {
            assert_eq!(self.peer.write(&data[from..from + len]).expect("write"), len);
            from += len;
            self.collect();
            marks.push(self.flow.len());
        }
        self.peer.close().expect("close");
        self.collect();
        Layout { settled, marks, end: self.flow.len() }
    }

    /// Reads until there is no more; how it stopped: `None` is `Ok(0)`.
    fn read(&mut self) -> Option<io::Error> {
        let mut buf = [0; 64];
        loop {
            match self.victim.read(&mut buf) {
                Ok(0) => return None,
                Ok(n) => self.got.extend_from_slice(&buf[..n]),
                Err(e) => return Some(e),
            }
        }
    }

    fn feed_in_pieces(&mut self, limit: usize, name: &str) {
        while self.fed < limit.min(self.flow.len()) {
            let next = limit.min(self.fed + 50);
            self.feed(next);
            if self.eager {
                if let Some(e) = self.read() {
                    assert_eq!(e.kind(), io::ErrorKind::WouldBlock, "{name}: {e:?} before the end");
                } else {
                    assert_eq!(self.fed, self.flow.len(), "{name}: forged end before the cut");
                }
            }
        }
    }
}

fn assert_truncated(name: &str, e: &io::Error) {
    assert_eq!(e.kind(), io::ErrorKind::BrokenPipe, "{name}: {e:?}");
    assert_eq!(kind_of(e), Some(ErrorKind::Truncated), "{name}: {e:?}");
}

/// Cuts at `at`; says whether the flow was longer than that.
fn cut_at(pairing: &Pairing, victim_is_server: bool, at: usize) -> bool {
    let role = if victim_is_server { "server" } else { "client" };
    let name = format!("{role}, {}, cut at {at}", pairing.name());
    let mut session = Session::new(pairing, victim_is_server, at % 2 == 0);
    let settled = session.handshake(at);
    let layout = settled.then(|| session.speak());
    session.feed_in_pieces(at, &name);
    session.victim.feed_eof();
    let (end, whole) = layout.as_ref().map_or((usize::MAX, 0), |l| (l.end, l.whole_before(at)));

    let stopped = session.read();
    assert_eq!(session.got, message()[..whole], "{name}: what arrived whole is delivered, and no more");
    if at >= end {
        assert!(stopped.is_none(), "{name}: {stopped:?} for a clean end");
        assert!(session.victim.is_peer_closed(), "{name}");
        assert!(session.read().is_none(), "{name}: a clean end sticks");
        return false;
    }
    assert!(!session.victim.is_peer_closed(), "{name}: a close_notify out of nowhere");
    if session.is_server && at == 0 {
        // A peer that said nothing at all is no error to a server.
        assert!(stopped.is_none(), "{name}: {stopped:?}");
        assert!(session.read().is_none(), "{name}: sticky");
        assert!(!session.victim.is_handshake_done(), "{name}");
        return true;
    }
    let e = stopped.unwrap_or_else(|| panic!("{name}: forged end"));
    assert_truncated(&name, &e);
    for _ in 0..2 {
        assert_truncated(&name, &session.read().unwrap_or_else(|| panic!("{name}: the cut does not stick")));
    }
    if !session.victim.is_handshake_done() {
        let e = session.victim.handshake().expect_err("a handshake without its peer");
        assert_truncated(&name, &e);
        let e = session.victim.write(b"x").expect_err("a write without a handshake");
        assert_truncated(&name, &e);
    }
    true
}

fn cut_everywhere(victim_is_server: bool) {
    for pairing in pairings() {
        let mut at = 0;
        while cut_at(pairing, victim_is_server, at) {
            at += 1;
            assert!(at < 100_000, "{}: no end of the flow", pairing.name());
        }
        assert!(at > 600, "{}: a flow of {at} bytes holds no session", pairing.name());
    }
}

#[test]
fn a_client_cut_after_every_byte_reads_what_came_and_no_forged_end() {
    within(LIMIT, || cut_everywhere(false));
}

#[test]
fn a_server_cut_after_every_byte_reads_what_came_and_no_forged_end() {
    within(LIMIT, || cut_everywhere(true));
}

/// With `lenient_eof` a cut between records is an end like any other, and one inside a record still an error.
#[test]
fn a_lenient_end_is_clean_between_records_and_a_cut_inside_one() {
    within(LIMIT, || {
        for pairing in pairings_with(|builder| builder.lenient_eof(true)).iter().filter(|p| p.is_one_engine()) {
            for server in [false, true] {
                let mut at = 0;
                while lenient_cut_at(pairing, server, at) {
                    at += 1;
                }
                assert!(at > 400, "{}: {at} bytes", pairing.name());
            }
        }
    });
}

/// Cuts `at` bytes behind the handshake; says whether the flow was longer than that.
fn lenient_cut_at(pairing: &Pairing, victim_is_server: bool, at: usize) -> bool {
    let mut session = Session::new(pairing, victim_is_server, false);
    assert!(session.handshake(usize::MAX), "{}: no handshake", pairing.name());
    let spot = session.fed + at;
    let layout = session.speak();
    let name = format!("{}, victim is server: {victim_is_server}, cut at {at}", pairing.name());
    session.feed(spot);
    session.victim.feed_eof();
    let whole = layout.whole_before(spot);
    for _ in 0..2 {
        let stopped = session.read();
        assert_eq!(session.got, message()[..whole], "{name}");
        let between = layout.marks.contains(&spot) || spot == layout.settled || spot >= layout.end;
        match stopped {
            None => assert!(between, "{name}: half a record taken for an end"),
            Some(e) => {
                assert!(!between, "{name}: {e:?} between records");
                assert_truncated(&name, &e);
            }
        }
    }
    spot < layout.end
}

/// The alert, or on an engine that cannot tell which, a bad record.
fn is_alert(engine: Engine, kind: Option<ErrorKind>, alert: ErrorKind) -> bool {
    kind == Some(alert) || (engine == Engine::Native && kind == Some(ErrorKind::Protocol))
}

/// Turns one bit of the byte at `at` (from the end of the handshake) over; says whether there was one.
fn flip_at(pairing: &Pairing, victim_is_server: bool, at: usize, bit: u8) -> bool {
    let mut session = Session::new(pairing, victim_is_server, false);
    assert!(session.handshake(usize::MAX), "{}: no handshake", pairing.name());
    let fed = session.fed;
    let layout = session.speak();
    // What a TLS 1.3 server says right behind its handshake is in the victim already.
    assert!(fed <= layout.settled, "fed more than there was");
    let spot = fed + at;
    if spot >= layout.end {
        return false;
    }
    let role = if victim_is_server { "server" } else { "client" };
    let name = format!("{role}, {}, bit {bit} of byte {at} turned over", pairing.name());
    session.flow[spot] ^= 1 << bit;
    session.feed(usize::MAX);
    let e = session.read().unwrap_or_else(|| panic!("{name}: forged end"));
    let whole = layout.whole_before(record_start(&layout, fed, spot));
    assert_eq!(session.got, message()[..whole], "{name}: what came before is delivered, and no more");

    let engine = pairing.engine(victim_is_server);
    let in_header = spot - record_start(&layout, fed, spot) < 5;
    if in_header && e.kind() == io::ErrorKind::WouldBlock {
        // The record is longer now, and the rest of it cannot come.
        session.victim.feed_eof();
        assert_truncated(&name, &session.read().unwrap_or_else(|| panic!("{name}: forged end")));
        return true;
    }
    assert_eq!(e.kind(), io::ErrorKind::InvalidData, "{name}: {e:?}");
    if in_header {
        let alert = matches!(kind_of(&e), Some(ErrorKind::LocalAlert(_) | ErrorKind::Protocol));
        assert!(alert || kind_of(&e) == Some(ErrorKind::NotTls), "{name}: {e:?}");
    } else {
        assert!(is_alert(engine, kind_of(&e), ErrorKind::LocalAlert(20)), "{name}: {e:?}");
    }
    let again = session.read().unwrap_or_else(|| panic!("{name}: an end after a forged record"));
    assert_eq!((again.kind(), kind_of(&again)), (e.kind(), kind_of(&e)), "{name}: the error sticks");
    let refused = session.victim.write(b"x");
    assert!(refused.is_err(), "{name}: data accepted on a broken connection");

    // The peer is told, unless the victim could not even tell where the record was.
    assert!(!session.victim.output().is_empty(), "{name}: no alert");
    session.answer();
    let told = session.peer.read(&mut [0; 10]).expect_err("the peer's read");
    assert_eq!(told.kind(), io::ErrorKind::InvalidData, "{name}: the peer got {told:?}");
    let peer_engine = pairing.engine(!victim_is_server);
    let alert = match kind_of(&e) {
        Some(ErrorKind::LocalAlert(n)) => ErrorKind::PeerAlert(n),
        _ if in_header => return true,
        _ => ErrorKind::PeerAlert(20),
    };
    assert!(is_alert(peer_engine, kind_of(&told), alert), "{name}: the peer got {told:?}");
    true
}

/// Where the record that holds `spot` begins.
fn record_start(layout: &Layout, fed: usize, spot: usize) -> usize {
    let starts = [fed, layout.settled].into_iter().chain(layout.marks.iter().copied());
    starts.filter(|start| *start <= spot).max().expect("it is behind the handshake")
}

#[test]
fn one_bit_turned_over_in_any_byte_is_never_data_and_never_an_end() {
    within(LIMIT, || {
        let mut rng = Rng::new(5);
        for pairing in pairings() {
            for server in [false, true] {
                let mut at = 0;
                while flip_at(pairing, server, at, rng.below(8) as u8) {
                    at += 1;
                }
                assert!(at > 400, "{}: {at} bytes", pairing.name());
            }
        }
    });
}

#[test]
fn the_flow_is_what_the_other_tests_take_it_for() {
    within(LIMIT, || {
        for pairing in pairings() {
            for server in [false, true] {
                let mut session = Session::new(pairing, server, false);
                assert!(session.handshake(usize::MAX));
                let layout = session.speak();
                let ends = record_ends(&session.flow);
                let name = pairing.name();
                assert!(ends.contains(&layout.settled), "{name}: the handshake ends within a record");
                for mark in &layout.marks {
                    assert!(ends.contains(mark), "{name}: a message ends within a record");
                }
                assert_eq!(ends.iter().filter(|end| **end > layout.settled).count(), MESSAGES.len() + 1, "{name}");
                assert_eq!(ends.last(), Some(&layout.end), "{name}");
            }
        }
    });
}

/// How a file's reading went, on a real socket: the bytes, and how it stopped, twice.
fn read_file(file: &mut SslFile, nonblocking: bool) -> (Vec<u8>, [Option<io::Error>; 2]) {
    let mut got = Vec::new();
    let mut once = || {
        let mut buf = [0; 64];
        loop {
            match file.read(&mut buf) {
                Ok(0) => return None,
                Ok(n) => got.extend_from_slice(&buf[..n]),
                Err(e) if nonblocking && e.kind() == io::ErrorKind::WouldBlock => wait_for(file),
                Err(e) => return Some(e),
            }
        }
    };
    let stops = [once(), once()];
    (got, stops)
}

/// Sends its data and close_notify over `tcp`, of its ciphertext the first `at` bytes; says how long the whole is, once known.
fn cut_peer(pairing: &Pairing, is_server: bool, tcp: TcpStream, at: usize) -> Option<usize> {
    let mut peer = RawPeer::new(pairing.connection(is_server), tcp).cut_after(at);
    let talk = |peer: &mut RawPeer| {
        peer.handshake()?;
        let data = message();
        let mut from = 0;
        for len in MESSAGES {
            peer.write_all(&data[from..from + len])?;
            from += len;
        }
        peer.close_with_nothing()
    };
    let whole = talk(&mut peer).is_ok().then(|| peer.made());
    // Stays until the other has gone, lest a reset overtake what was sent.
    let _ = peer.tcp.shutdown(std::net::Shutdown::Write);
    let _ = io::copy(&mut peer.tcp, &mut io::sink());
    whole
}

/// One session over TCP, cut at `at`; the length of the whole flow if the cut let it be known.
fn cut_socket_at(pairing: &'static Pairing, victim_is_server: bool, at: usize, nonblocking: bool) -> Option<usize> {
    let role = if victim_is_server { "server" } else { "client" };
    let mode = if nonblocking { "non-blocking" } else { "blocking" };
    let name = format!("{role}, {}, {mode}, cut at {at}", pairing.name());
    let (near, far) = tcp_pair();
    let (tell, told) = mpsc::channel();
    let peer = thread::spawn(move || {
        let _ = tell.send(cut_peer(pairing, !victim_is_server, far, at));
    });
    let options = SslFile::options().nonblocking(nonblocking).handshake(Handshake::Lazy);
    let opened = if victim_is_server {
        options.server().open(near, &pairing.server)
    } else {
        options.client(NAME).open(near, &pairing.client)
    };
    let mut file = opened.expect("a lazy open");
    let (got, [stop, again]) = read_file(&mut file, nonblocking);
    let (state, open) = (file.state(), file.is_open());
    let last_words = file.write(b"x").is_err() || file.flush().is_err();
    drop(file);
    let whole = told.recv_timeout(Duration::from_secs(30)).expect("the peer ends");
    peer.join().expect("the peer");

    assert!(!open, "{name}: open after the end, {state:?}");
    assert!(message().starts_with(&got), "{name}: wrong data");
    match whole {
        Some(end) if at >= end => {
            assert!(stop.is_none() && again.is_none(), "{name}: {stop:?}, {again:?} for a clean end");
            assert_eq!(got, message(), "{name}");
            assert_eq!(state, State::PeerClosed, "{name}");
        }
        _ if at == 0 && victim_is_server => {
            assert!(stop.is_none() && again.is_none(), "{name}: {stop:?}, {again:?} of a peer that said nothing");
            assert!(last_words, "{name}: data sent to nobody");
        }
        _ => {
            for stop in [stop, again] {
                assert_truncated(&name, &stop.unwrap_or_else(|| panic!("{name}: forged end")));
            }
        }
    }
    whole
}

#[test]
fn a_real_socket_cut_at_a_sample_of_bytes_reads_what_came_and_no_forged_end() {
    within(LIMIT, || {
        let mut rng = Rng::new(11);
        for pairing in pairings() {
            for server in [false, true] {
                for nonblocking in [false, true] {
                    let whole = cut_socket_at(pairing, server, 50_000, nonblocking);
                    let end = whole.expect("an uncut session");
                    let mut spots: Vec<usize> = (0..12).map(|_| rng.below(end - 8)).collect();
                    // At the ends of the flow, and around its last record.
                    spots.extend([0, 1, 5, end - 60, end - 40, end - 24, end - 10]);
                    for at in spots {
                        cut_socket_at(pairing, server, at, nonblocking);
                    }
                }
            }
        }
    });
}
