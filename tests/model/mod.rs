//! Two ends, a simulated wire, and a seed that decides every action, split, delay and fault; a model beside them knows what each
//! may say. First two `Connection`s, then (`files`) two `SslFile`s over a stream that never blocks.

use crate::common;
use crate::wire;

#[path = "../wire/files.rs"]
mod files;

use std::collections::VecDeque;
use std::io;
use std::time::Duration;

use common::{kind_of, pattern, within};
use sslfile::{Connection, ErrorKind};
use wire::{for_each_seed, pairings, Pairing, Rng};

const LIMIT: Duration = Duration::from_secs(300);
/// The most that one side writes.
const MOST: usize = 300_000;

/// What the wire does to one direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    None,
    /// Only this many bytes arrive, then the stream ends.
    Cut(usize),
    /// The byte at this offset arrives with these bits turned over.
    Flip(usize, u8),
}

/// How reading ended, for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Clean,
    Error(io::ErrorKind, Option<ErrorKind>),
}

const TRUNCATED: End = End::Error(io::ErrorKind::BrokenPipe, Some(ErrorKind::Truncated));

/// One connection, and what is known of it.
struct Side {
    conn: Connection,
    is_server: bool,
    data: Vec<u8>,
    accepted: usize,
    got: usize,
    /// Ciphertext offsets, and the plaintext that is whole before each.
    marks: Vec<(usize, usize)>,
    /// Ciphertext that left the connection.
    produced: usize,
    /// Where ciphertext stood when both handshakes were known to be done.
    settled: Option<usize>,
    /// Asked to close, perhaps before the handshake was done.
    closing: bool,
    /// Ciphertext offset behind its close_notify.
    closed_at: Option<usize>,
    /// Plain bytes sent behind that.
    glue: Option<Vec<u8>>,
    unread: Vec<u8>,
    end: Option<End>,
    handshake_failed: Option<io::ErrorKind>,
}

/// From one side to the other.
struct Way {
    flight: VecDeque<u8>,
    passed: usize,
    fault: Fault,
    ended: bool,
}

struct World {
    name: String,
    rng: Rng,
    sides: [Side; 2],
    /// `ways[i]` leads from side `i` to the other.
    ways: [Way; 2],
    /// A fault may have stopped the handshake on either side, whichever direction it hit.
    faulty: bool,
}

impl World {
    fn new(pairing: &Pairing, seed: u64) -> World {
        let mut rng = Rng::new(seed);
        let (client, server) = pairing.connections();
        let side = |conn, is_server: bool| Side {
            conn,
            is_server,
            data: pattern(seed.wrapping_mul(2) + u64::from(is_server), MOST),
            accepted: 0,
            got: 0,
            marks: vec![(0, 0)],
            produced: 0,
            settled: None,
            closing: false,
            closed_at: None,
            glue: None,
            unread: Vec::new(),
            end: None,
            handshake_failed: None,
        };
        let sides = [side(client, false), side(server, true)];
        let mut ways = [(); 2].map(|()| Way { flight: VecDeque::new(), passed: 0, fault: Fault::None, ended: false });
        let faulty = rng.percent(60);
        if faulty {
            // Some in the handshake, which takes up to 3000 bytes, some far behind it.
            let at = match rng.below(4) {
                0 => rng.below(10),
                1 => rng.below(3_000),
                _ => rng.below(60_000),
            };
            let way = rng.below(2);
            ways[way].fault = if rng.percent(50) { Fault::Cut(at) } else { Fault::Flip(at, 1 << rng.below(8)) };
        }
        let name = format!("seed {seed}, {}, {:?} and {:?}", pairing.name(), ways[0].fault, ways[1].fault);
        World { name, rng, sides, ways, faulty }
    }

    fn run(&mut self) {
        let steps = 20 + self.rng.below(300);
        for _ in 0..steps {
            self.act();
        }
        self.drain();
        for i in 0..2 {
            if self.rng.percent(60) {
                self.close(i);
                self.collect(i, usize::MAX);
                self.glue(i);
            }
        }
        for _ in 0..steps / 4 {
            self.act();
        }
        self.drain();
        self.check_whole();
        // What never ended ends now, without a word.
        for i in 0..2 {
            if !self.ways[i].ended {
                self.ways[i].ended = true;
                self.sides[1 - i].conn.feed_eof();
            }
        }
        self.drain();
        self.check_ends();
    }

    fn act(&mut self) {
        let i = self.rng.below(2);
        match self.rng.below(100) {
            0..=14 => self.handshake(i),
            15..=34 => self.write(i),
            35..=54 => {
                let room = if self.rng.percent(5) { 0 } else { self.rng.size() };
                self.read(i, room);
            }
            55..=74 => {
                let n = self.rng.size();
                self.collect(i, n);
            }
            75..=94 => {
                let n = self.rng.size();
                self.deliver(i, n);
            }
            95..=96 => self.take_unread(i),
            97 => self.close(i),
            _ => self.glue(i),
        }
    }

    fn handshake(&mut self, i: usize) {
        let name = &self.name;
        let side = &mut self.sides[i];
        let done = side.conn.handshake();
        match done {
            Ok(()) => {
                assert!(side.conn.is_handshake_done(), "{name}: side {i} says done, and not");
                assert_eq!(side.handshake_failed, None, "{name}: side {i}: a failed handshake is final");
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                assert!(!side.conn.is_handshake_done(), "{name}: side {i} says not done, and is");
                assert_eq!(side.handshake_failed, None, "{name}: side {i}: a failed handshake is final");
            }
            Err(e) => _ = self.fail(i, e),
        }
        self.note_settled();
    }

    /// An error of the connection: allowed, and the same as before? Only a read ends reading with it: what came before
    /// may still have to be read.
    fn fail(&mut self, i: usize, e: io::Error) -> End {
        let name = &self.name;
        let end = End::Error(e.kind(), kind_of(&e));
        assert!(self.faulty || end == TRUNCATED, "{name}: side {i}: {e:?} from nowhere");
        match e.kind() {
            io::ErrorKind::BrokenPipe => {
                assert_eq!(kind_of(&e), Some(ErrorKind::Truncated), "{name}: side {i}: {e:?}");
                assert!(self.ways[1 - i].ended, "{name}: side {i}: {e:?} before the end of the stream");
            }
            io::ErrorKind::InvalidData => {
                let flipped = self.ways.iter().any(|w| matches!(w.fault, Fault::Flip(..)));
                assert!(flipped, "{name}: side {i}: {e:?} and no byte was changed");
            }
            _ => panic!("{name}: side {i}: {e:?}"),
        }
        let side = &mut self.sides[i];
        if !side.conn.is_handshake_done() {
            let first = *side.handshake_failed.get_or_insert(e.kind());
            assert_eq!(first, e.kind(), "{name}: side {i}: a failed handshake gives the same error: {e:?}");
        }
        if let Some(first @ End::Error(..)) = side.end {
            assert_eq!(first, end, "{name}: side {i}: the first error sticks");
        }
        end
    }

    fn write(&mut self, i: usize) {
        let size = if self.rng.percent(5) { 0 } else { self.rng.size() };
        let name = &self.name;
        let side = &mut self.sides[i];
        let size = size.min(MOST - side.accepted);
        let data = &side.data[side.accepted..side.accepted + size];
        let result = side.conn.write(data);
        let done = side.conn.is_handshake_done();
        match result {
            Ok(n) => {
                assert!(n <= size && (n > 0) == (size > 0), "{name}: side {i}: wrote {n} of {size}");
                assert!(done || n == 0, "{name}: side {i}: data accepted before the handshake");
                assert!(!side.closing || n == 0, "{name}: side {i}: data accepted behind close_notify");
                side.accepted += n;
                side.marks.push((side.produced + side.conn.output().len(), side.accepted));
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                let full = !side.conn.output().is_empty();
                assert!(!side.closing && (!done || full), "{name}: side {i}: write refused for no reason");
            }
            Err(e) if side.closing && e.kind() == io::ErrorKind::BrokenPipe => (),
            Err(e) => _ = self.fail(i, e),
        }
        self.note_settled();
    }

    /// Reads once; says whether anything came of it.
    fn read(&mut self, i: usize, room: usize) -> bool {
        let mut buf = vec![0; room];
        let result = self.sides[i].conn.read(&mut buf);
        self.note_settled();
        let name = &self.name;
        let [a, b] = &mut self.sides;
        let (side, peer) = if i == 0 { (a, b) } else { (b, a) };
        match result {
            Ok(0) if room == 0 => false,
            Ok(0) => {
                let way = &self.ways[1 - i];
                let unsaid = side.is_server && way.ended && way.passed == 0;
                if !unsaid {
                    let closed_at = peer.closed_at.unwrap_or_else(|| panic!("{name}: side {i}: forged end"));
                    assert!(closed_at <= way.passed, "{name}: side {i}: end before the close_notify");
                    assert_eq!(side.got, peer.accepted, "{name}: side {i}: end before all data");
                    assert!(side.conn.is_peer_closed(), "{name}: side {i}: is_peer_closed after Ok(0)");
                }
                let first = *side.end.get_or_insert(End::Clean);
                assert_eq!(first, End::Clean, "{name}: side {i}: a clean end after an error");
                false
            }
            Ok(n) => {
                assert_eq!(side.end, None, "{name}: side {i}: data behind the end");
                assert!(side.got + n <= peer.accepted, "{name}: side {i}: data nobody wrote");
                assert_eq!(buf[..n], peer.data[side.got..side.got + n], "{name}: side {i}: wrong data");
                side.got += n;
                true
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                assert_eq!(side.end, None, "{name}: side {i}: an end that does not stick");
                assert!(!self.ways[1 - i].ended, "{name}: side {i}: waits for input that cannot come");
                false
            }
            Err(e) => {
                let end = self.fail(i, e);
                let first = *self.sides[i].end.get_or_insert(end);
                assert_eq!(first, end, "{}: side {i}: an error behind the end", self.name);
                false
            }
        }
    }

    /// Ciphertext out of side `i`, onto the wire.
    fn collect(&mut self, i: usize, n: usize) -> bool {
        let name = &self.name;
        let side = &mut self.sides[i];
        let n = n.min(side.conn.output().len());
        assert!(n == 0 || side.glue.is_none(), "{name}: side {i}: output behind its close_notify");
        self.ways[i].flight.extend(&side.conn.output()[..n]);
        side.conn.consume_output(n);
        side.produced += n;
        n > 0
    }

    /// Off the wire, into the other side.
    fn deliver(&mut self, i: usize, n: usize) -> bool {
        let way = &mut self.ways[i];
        if way.ended {
            way.flight.clear();
            return false;
        }
        let left = match way.fault {
            Fault::Cut(at) => at - way.passed,
            _ => usize::MAX,
        };
        let n = n.min(way.flight.len()).min(left);
        let mut bytes: Vec<u8> = way.flight.drain(..n).collect();
        if let Fault::Flip(at, bits) = way.fault {
            if (way.passed..way.passed + n).contains(&at) {
                bytes[at - way.passed] ^= bits;
            }
        }
        way.passed += n;
        self.sides[1 - i].conn.feed(&bytes);
        if n == left {
            way.ended = true;
            self.sides[1 - i].conn.feed_eof();
        }
        n > 0
    }

    fn close(&mut self, i: usize) {
        let side = &mut self.sides[i];
        let closed = side.conn.close();
        match closed {
            Ok(()) => side.closing = true,
            // Too late to be heard.
            Err(e) => _ = self.fail(i, e),
        }
        self.note_settled();
    }

    /// Plain bytes right behind the close_notify, once that is on the wire.
    fn glue(&mut self, i: usize) {
        let side = &mut self.sides[i];
        let ready = side.closed_at == Some(side.produced) && side.conn.output().is_empty();
        if !ready || side.glue.is_some() || self.faulty {
            return;
        }
        let n = self.rng.size();
        let plain = pattern(n as u64, n);
        self.ways[i].flight.extend(&plain);
        side.glue = Some(plain);
    }

    fn take_unread(&mut self, i: usize) {
        let side = &mut self.sides[i];
        let unread = side.conn.take_unread();
        if self.faulty && !side.conn.is_peer_closed() {
            return; // What TLS did not consume may come then, for a look at it.
        }
        let early = !side.conn.is_peer_closed() && !unread.is_empty();
        assert!(!early, "{}: side {i}: {} bytes taken before the close_notify", self.name, unread.len());
        side.unread.extend(unread);
    }

    /// After any call that may have ended a handshake.
    fn note_settled(&mut self) {
        for side in self.sides.iter_mut().filter(|s| s.closing && s.conn.is_handshake_done()) {
            side.closed_at.get_or_insert(side.produced + side.conn.output().len());
        }
        if self.sides.iter().all(|s| s.conn.is_handshake_done()) {
            for side in &mut self.sides {
                side.settled.get_or_insert(side.produced + side.conn.output().len());
            }
        }
    }

    /// Until nothing moves any more.
    fn drain(&mut self) {
        for _ in 0..10_000 {
            let mut moved = false;
            for i in 0..2 {
                let done = self.sides[i].conn.is_handshake_done();
                if !done {
                    self.handshake(i);
                    moved |= self.sides[i].conn.is_handshake_done();
                }
                moved |= self.collect(i, usize::MAX);
                moved |= self.deliver(i, usize::MAX);
                while {
                    let room = self.rng.size();
                    self.read(i, room)
                } {
                    moved = true;
                }
                self.take_unread(i);
            }
            if !moved {
                return;
            }
        }
        panic!("{}: HANG: still moving after 10000 rounds", self.name);
    }

    /// The offset up to which the way from side `i` is whole.
    fn whole(&self, i: usize) -> usize {
        match self.ways[i].fault {
            Fault::None => usize::MAX,
            Fault::Cut(at) | Fault::Flip(at, _) => at,
        }
    }

    /// All that must have arrived has.
    fn check_whole(&self) {
        let name = &self.name;
        for i in 0..2 {
            let (side, peer) = (&self.sides[i], &self.sides[1 - i]);
            let whole = self.whole(1 - i);
            let due = peer.marks.iter().filter(|(at, _)| *at <= whole).map(|(_, plain)| *plain).max();
            let due = if self.faulty && !side.conn.is_handshake_done() { 0 } else { due.unwrap_or(0) };
            assert!(side.got >= due, "{name}: side {i}: {} of {due} bytes arrived", side.got);
            if !self.faulty {
                assert!(side.conn.is_handshake_done(), "{name}: side {i}: no handshake: {:?}", side.conn);
                assert_eq!(side.end.is_some(), peer.closed_at.is_some(), "{name}: side {i}: {:?}", side.end);
                assert_eq!(side.conn.is_peer_closed(), peer.closed_at.is_some(), "{name}: side {i}");
                let glue = peer.glue.as_deref().unwrap_or(&[]);
                assert!(side.unread == glue, "{name}: side {i}: {} unread, {} glued", side.unread.len(), glue.len());
            }
        }
    }

    /// Both streams have ended: each side has ended as it must.
    fn check_ends(&mut self) {
        for i in 0..2 {
            let end = self.sides[i].end.unwrap_or_else(|| panic!("{}: side {i}: no end", self.name));
            let (side, peer) = (&self.sides[i], &self.sides[1 - i]);
            let (name, fault) = (&self.name, self.ways[1 - i].fault);
            let passed = self.ways[1 - i].passed;
            let clean = peer.closed_at.is_some_and(|at| at <= passed);
            let expected = if clean || (side.is_server && passed == 0) { End::Clean } else { TRUNCATED };
            let reached = |at| at < passed && peer.closed_at.is_none_or(|closed| at < closed);
            match fault {
                Fault::Flip(at, _) if reached(at) => {
                    // Records are sealed once both are done; before that a byte may not matter.
                    if peer.settled.is_some_and(|settled| at >= settled) {
                        assert_ne!(end, End::Clean, "{name}: side {i}: a forged record went unseen");
                    }
                }
                // The peer may have died of what we sent, and said so.
                _ if matches!(self.ways[i].fault, Fault::Flip(..)) => {
                    let alert = matches!(end, End::Error(io::ErrorKind::InvalidData, _));
                    assert!(end == expected || alert, "{name}: side {i}: {end:?}");
                }
                _ => assert_eq!(end, expected, "{name}: side {i}"),
            }
            for _ in 0..2 {
                self.read(i, 100);
            }
        }
    }
}

#[test]
fn two_connections_keep_to_the_model_whatever_the_wire_does() {
    within(LIMIT, || {
        let pairings = pairings();
        for_each_seed("two connections", 400, |seed| {
            let pairing = &pairings[seed as usize % pairings.len()];
            World::new(pairing, seed).run();
        });
    });
}

#[test]
fn two_files_keep_to_the_model_on_a_stream_that_never_blocks() {
    within(LIMIT, || {
        let pairings = pairings();
        for_each_seed("two files", 200, |seed| {
            let pairing = &pairings[seed as usize % pairings.len()];
            files::World::new(pairing, seed).run();
        });
    });
}
