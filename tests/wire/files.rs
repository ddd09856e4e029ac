//! The model of two `SslFile`s over an in-memory stream that never blocks.

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::time::Duration;

use sslfile::{ErrorKind, Handshake, Interest, ReadWrite, SslFile, State};

use crate::common::{kind_of, pattern, NAME};
use crate::wire::pipe::{Alive, End, Manners, Pipe};
use crate::wire::{Pairing, Rng};

type File = SslFile<ReadWrite<End>>;

/// The most that one side writes.
const MOST: usize = 80_000;
/// Rounds that any finish may take: a room of 64 bytes and three refusals in four included.
const PATIENCE: usize = 200_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Finish {
    /// One closes, the other reads to the end, then closes.
    Close,
    /// Both end their writing, read to the end, close.
    HalfClose,
    /// One closes cleanly, the other answers.
    Answer,
    /// Both close cleanly of their own accord.
    Clean,
    /// One closes wherever it is, in the handshake perhaps.
    Early,
    /// One is dropped.
    Drop,
    /// The stream ends without a word.
    Cut,
}

const FINISHES: [Finish; 7] =
    [Finish::Close, Finish::HalfClose, Finish::Answer, Finish::Clean, Finish::Early, Finish::Drop, Finish::Cut];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verb {
    None,
    Close,
    CloseClean,
}

struct Side {
    /// The first is the one that is released.
    handles: Vec<File>,
    alive: Alive,
    is_server: bool,
    limit: usize,
    data: Vec<u8>,
    accepted: usize,
    got: usize,
    shut_write: bool,
    shut_read: bool,
    verb: Verb,
    /// The verb has returned `Ok`.
    verb_done: bool,
    /// Reading has ended: cleanly (true) or by a cut.
    end: Option<bool>,
    /// Released: the stream, what it had been read too far, and how much plain text went out on it.
    plain: Option<(End, Vec<u8>, usize)>,
}

pub struct World {
    name: String,
    rng: Rng,
    pipe: Pipe,
    sides: [Side; 2],
    finish: Finish,
    /// The side that begins the finish.
    first: usize,
    cut: bool,
}

impl Side {
    fn file(&self) -> &File {
        &self.handles[0]
    }

    fn is_done(&self) -> bool {
        self.file().is_handshake_done()
    }
}

impl World {
    pub fn new(pairing: &Pairing, seed: u64) -> World {
        let mut rng = Rng::new(seed);
        let manners = Manners::random(&mut rng);
        let finish = *rng.pick(&FINISHES);
        let (pipe, ends) = Pipe::new(manners, rng.next());
        let mut side = |(end, alive), is_server: bool| {
            let limit = *rng.pick(&[1, 100, 5_000, 40_000, 256 << 10]);
            let when = *rng.pick(&[Handshake::Lazy, Handshake::Eager]);
            let options = SslFile::options()
                .nonblocking(true)
                .handshake(when)
                .send_limit(limit)
                .close_timeout(Duration::from_secs(600));
            let (options, context) =
                if is_server { (options.server(), &pairing.server) } else { (options.client(NAME), &pairing.client) };
            let file = options.open(ReadWrite::new(end), context).expect("nothing has failed yet");
            Side {
                handles: vec![file],
                alive,
                is_server,
                limit,
                data: pattern(seed.wrapping_mul(2) + u64::from(is_server), MOST),
                accepted: 0,
                got: 0,
                shut_write: false,
                shut_read: false,
                verb: Verb::None,
                verb_done: false,
                end: None,
                plain: None,
            }
        };
        let [a, b] = ends;
        let sides = [side(a, false), side(b, true)];
        let first = rng.below(2);
        let name = format!("seed {seed}, {}, {manners:?}, {finish:?} by side {first}", pairing.name());
        World { name, rng, pipe, sides, finish, first, cut: false }
    }

    pub fn run(&mut self) {
        let most = if self.finish == Finish::Early { 30 } else { 400 };
        let steps = self.rng.below(most);
        for _ in 0..steps {
            let i = self.rng.below(2);
            self.act(i);
        }
        match self.finish {
            Finish::Cut => self.finish_cut(),
            Finish::Drop => self.finish_drop(),
            Finish::Early => self.finish_early(),
            _ => self.finish_both(),
        }
        for (i, side) in self.sides.iter_mut().enumerate() {
            side.handles.clear();
            side.plain = None;
            assert!(side.alive.is_gone(), "{}: side {i}: the stream outlives its file", self.name);
        }
    }

    fn act(&mut self, i: usize) {
        match self.rng.below(100) {
            0..=9 => self.handshake(i),
            10..=34 => self.write(i),
            35..=64 => self.read(i),
            65..=69 => self.peek(i),
            70..=76 => self.send(i),
            77..=86 => drop(self.flush(i)),
            87..=92 => self.look(i),
            93..=95 => self.handles(i),
            96..=98 => self.release_too_early(i),
            _ => self.shutdown(i),
        }
    }

    fn handle(&mut self, i: usize) -> File {
        self.rng.pick(&self.sides[i].handles).clone()
    }

    fn handshake(&mut self, i: usize) {
        let file = self.handle(i);
        let (name, side) = (&self.name, &self.sides[i]);
        match file.handshake() {
            Ok(()) => assert!(file.is_handshake_done(), "{name}: side {i}: says done, and is not"),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                // Done, but for what the stream has not taken of it yet.
                let Interest { readable, writable } = file.interest();
                assert!(readable || writable, "{name}: side {i}: waits for nothing");
                let silent = side.is_server && self.pipe.passed(1 - i) == 0;
                assert!(!writable || !silent, "{name}: side {i}: wants to write before the client spoke");
                let unsent = file.is_handshake_done() && writable;
                assert!(unsent || !file.is_handshake_done(), "{name}: side {i}: says not done, and is");
            }
            Err(_) if side.verb != Verb::None => (),
            Err(e) => self.check_cut(i, e),
        }
    }

    /// The one error of a stream that only ever refuses, is cut, or is gone.
    fn check_cut(&self, i: usize, e: io::Error) {
        let name = &self.name;
        assert!(self.cut, "{name}: side {i}: {e:?} from nowhere");
        assert_eq!(e.kind(), io::ErrorKind::BrokenPipe, "{name}: side {i}: {e:?}");
        assert_eq!(kind_of(&e), Some(ErrorKind::Truncated), "{name}: side {i}: {e:?}");
    }

    fn check_write_error(&self, i: usize, e: io::Error) {
        let (name, side) = (&self.name, &self.sides[i]);
        let ended = [io::ErrorKind::BrokenPipe, io::ErrorKind::NotConnected].contains(&e.kind());
        match e.kind() {
            _ if side.verb != Verb::None => assert!(ended, "{name}: side {i}: {e:?} after {:?}", side.verb),
            io::ErrorKind::BrokenPipe if side.shut_write => (),
            _ => self.check_cut(i, e),
        }
    }

    fn write(&mut self, i: usize) {
        let size = if self.rng.percent(5) { 0 } else { self.rng.size() };
        let mut file = self.handle(i);
        let (name, side) = (&self.name, &mut self.sides[i]);
        let size = size.min(MOST - side.accepted);
        let before = file.unsent();
        match file.write(&side.data[side.accepted..side.accepted + size]) {
            Ok(n) => {
                assert!(n <= size && (n > 0) == (size > 0), "{name}: side {i}: wrote {n} of {size}");
                let ended = side.shut_write || side.verb != Verb::None;
                assert!(n == 0 || !ended, "{name}: side {i}: data accepted behind the end");
                assert!(n == 0 || side.is_done(), "{name}: side {i}: data accepted before the handshake");
                let (after, limit) = (file.unsent(), side.limit);
                assert!(after <= before.max(limit), "{name}: side {i}: {after} unsent, limit {limit}");
                side.accepted += n;
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                assert!(size > 0, "{name}: side {i}: an empty write refused");
                assert!(!side.shut_write, "{name}: side {i}: a write behind shutdown says WouldBlock");
                let waits = file.interest().writable;
                assert!(waits || !side.is_done(), "{name}: side {i}: refused, and not waiting to send");
            }
            Err(e) => self.check_write_error(i, e),
        }
    }

    fn send(&mut self, i: usize) {
        let size = if self.rng.percent(5) { 0 } else { self.rng.size() };
        let file = self.handle(i);
        let (name, side) = (&self.name, &mut self.sides[i]);
        let size = size.min(MOST - side.accepted);
        let before = file.unsent();
        match file.send(&side.data[side.accepted..side.accepted + size]) {
            Ok(()) => {
                let ended = side.shut_write || side.verb != Verb::None;
                assert!(size == 0 || !ended, "{name}: side {i}: data accepted behind the end");
                side.accepted += size;
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                let due = before == 0 || before + size <= side.limit;
                assert!(!due, "{name}: side {i}: {size} bytes refused with {before} of {} unsent", side.limit);
            }
            Err(e) => self.check_write_error(i, e),
        }
    }

    /// True when everything accepted was handed over.
    fn flush(&mut self, i: usize) -> bool {
        let mut file = self.handle(i);
        match file.flush() {
            Ok(()) => {
                assert_eq!(file.unsent(), 0, "{}: side {i}: unsent after flush", self.name);
                true
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => false,
            Err(e) => {
                self.check_write_error(i, e);
                false
            }
        }
    }

    fn read(&mut self, i: usize) {
        let room = if self.rng.percent(3) { 0 } else { self.rng.size() };
        let _ = self.read_some(i, room);
    }

    fn read_some(&mut self, i: usize, room: usize) -> Result<usize, io::ErrorKind> {
        let mut file = self.handle(i);
        let pending = file.pending();
        let mut buf = vec![0; room];
        let result = file.read(&mut buf);
        let outcome = match &result {
            Ok(n) => Ok(*n),
            Err(e) => Err(e.kind()),
        };
        self.check_read(i, room, pending, result.map(|n| &buf[..n]), true);
        outcome
    }

    fn peek(&mut self, i: usize) {
        let room = self.rng.size();
        let file = self.handle(i);
        let pending = file.pending();
        let mut buf = vec![0; room];
        let result = file.peek(&mut buf);
        let came = matches!(result, Ok(n) if n > 0);
        self.check_read(i, room, pending, result.map(|n| &buf[..n]), false);
        assert!(!came || file.pending() > 0, "{}: side {i}: nothing pending after a peek", self.name);
    }

    fn check_read(&mut self, i: usize, room: usize, pending: usize, result: io::Result<&[u8]>, take: bool) {
        let name = &self.name;
        let [a, b] = &mut self.sides;
        let (side, peer) = if i == 0 { (a, b) } else { (b, a) };
        match result {
            Ok([]) if room == 0 || side.shut_read => (),
            Ok([]) => {
                let unsaid = self.cut && side.is_server && !side.is_done();
                let closed = peer.shut_write || peer.verb != Verb::None || peer.handles.is_empty();
                assert!(closed || unsaid, "{name}: side {i}: forged end");
                let whole = side.got == peer.accepted || side.verb == Verb::Close;
                assert!(whole || unsaid, "{name}: side {i}: end before all data");
                assert_ne!(side.end, Some(false), "{name}: side {i}: a clean end after a cut");
                side.end = Some(true);
            }
            Ok(data) => {
                assert!(!side.shut_read, "{name}: side {i}: data after shutdown(Read)");
                assert_eq!(side.end, None, "{name}: side {i}: data behind the end");
                assert!(side.got + data.len() <= peer.accepted, "{name}: side {i}: data nobody wrote");
                assert_eq!(*data, peer.data[side.got..side.got + data.len()], "{name}: side {i}: wrong data");
                if take {
                    side.got += data.len();
                }
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                assert!(room > 0 && !side.shut_read, "{name}: side {i}: this read needs no waiting");
                assert_eq!(side.end, None, "{name}: side {i}: an end that does not stick");
                assert_eq!(pending, 0, "{name}: side {i}: WouldBlock with data pending");
            }
            Err(e) if e.kind() == io::ErrorKind::NotConnected => {
                assert_ne!(side.verb, Verb::None, "{name}: side {i}: {e:?}");
            }
            Err(e) => {
                assert_ne!(side.end, Some(true), "{name}: side {i}: {e:?} after a clean end");
                side.end = Some(false);
                self.check_cut(i, e);
            }
        }
    }

    /// What can be asked without waiting.
    fn look(&mut self, i: usize) {
        let file = self.handle(i);
        let (name, side, peer) = (&self.name, &self.sides[i], &self.sides[1 - i]);
        let (open, state, debug) = (file.is_open(), file.state(), format!("{file:?}"));
        assert!(!debug.is_empty());
        assert!(file.is_nonblocking(), "{name}: side {i}");
        if side.verb == Verb::None && !self.cut {
            let ending = peer.shut_write || peer.verb != Verb::None;
            assert!(open || side.shut_read || ending, "{name}: side {i}: not open, in {state:?}");
            assert!(file.last_error().is_none(), "{name}: side {i}: {:?}", file.last_error());
            let expected = if file.is_handshake_done() { State::Open } else { State::Handshaking };
            assert!(state == expected || ending, "{name}: side {i}: {state:?}");
        }
        assert!(!open || side.end.is_none(), "{name}: side {i}: open after the end");
        for unsupported in [file.set_nonblocking(false), file.set_read_timeout(Some(Duration::from_secs(1)))] {
            let kind = unsupported.map_err(|e| e.kind());
            let allowed = [Err(io::ErrorKind::Unsupported), Err(io::ErrorKind::NotConnected)];
            assert!(allowed.contains(&kind), "{name}: side {i}: {kind:?} without a descriptor");
        }
    }

    fn handles(&mut self, i: usize) {
        let another = self.handle(i);
        let handles = &mut self.sides[i].handles;
        if handles.len() > 2 || (handles.len() > 1 && self.rng.percent(50)) {
            handles.pop();
        } else {
            handles.push(another);
        }
    }

    fn release_too_early(&mut self, i: usize) {
        let file = self.sides[i].handles.swap_remove(0);
        let (others, unsent) = (!self.sides[i].handles.is_empty(), file.unsent());
        let name = &self.name;
        if !others && unsent == 0 {
            self.sides[i].handles.push(file); // It would succeed.
            return;
        }
        let refused = file.release().expect_err("a release too early");
        let (error, file) = refused.into_parts();
        let fits = match error.kind() {
            io::ErrorKind::ResourceBusy => others,
            io::ErrorKind::WouldBlock => unsent > 0 || self.sides[i].shut_write,
            _ => false,
        };
        assert!(fits, "{name}: side {i}: release with {unsent} unsent, other handles {others}: {error:?}");
        self.sides[i].handles.insert(0, file);
    }

    fn shutdown(&mut self, i: usize) {
        if self.rng.percent(60) {
            return;
        }
        let how = if self.rng.percent(80) { Shutdown::Write } else { Shutdown::Read };
        let file = self.handle(i);
        let side = &mut self.sides[i];
        if let Err(e) = file.shutdown(how) {
            panic!("{}: side {i}: shutdown({how:?}): {e:?}", self.name);
        }
        side.shut_write |= how == Shutdown::Write;
        side.shut_read |= how == Shutdown::Read;
    }

    /// Both ends by way of a verb, each in small steps and in turn.
    fn finish_both(&mut self) {
        for round in 0.. {
            assert!(round < PATIENCE, "{}: HANG in the finish: {}", self.name, self.report());
            for i in 0..2 {
                self.step_towards_the_end(i);
            }
            if (0..2).all(|i| self.sides[i].verb_done) && self.all_is_read() {
                break;
            }
        }
        let [a, b] = &self.sides;
        for (i, (side, peer)) in [(a, b), (b, a)].into_iter().enumerate() {
            let discards = side.shut_read || (self.finish == Finish::Close && i == self.first);
            let whole = discards || side.got == peer.accepted;
            assert!(whole, "{}: side {i}: {} of {} bytes", self.name, side.got, peer.accepted);
            if side.plain.is_none() {
                assert_eq!(side.file().state(), State::Closed, "{}: side {i}", self.name);
                assert!(!side.file().is_open(), "{}: side {i}", self.name);
            }
        }
        if matches!(self.finish, Finish::Clean | Finish::Answer) {
            self.talk_plain();
        } else {
            self.check_no_release();
        }
    }

    /// Where things stand, for a hang.
    fn report(&self) -> String {
        let side = |i: usize| {
            let s = &self.sides[i];
            let file = s.handles.first().map(|f| (f.state(), f.unsent(), f.pending(), f.interest()));
            let Side { got, accepted, verb, verb_done, end, shut_read, .. } = s;
            format!(
                "side {i}: {file:?}, got {got}, accepted {accepted}, {verb:?} done {verb_done}, end {end:?}, \
                 shut_read {shut_read}, {} in flight; ",
                self.pipe.in_flight(i)
            )
        };
        side(0) + &side(1)
    }

    fn all_is_read(&self) -> bool {
        let clean = matches!(self.finish, Finish::Clean | Finish::Answer);
        !clean || self.sides.iter().all(|side| side.plain.is_some())
    }

    fn step_towards_the_end(&mut self, i: usize) {
        if self.sides[i].plain.is_some() {
            return self.say_plain(i);
        }
        if !self.sides[i].is_done() && self.sides[i].verb == Verb::None {
            return self.handshake(i);
        }
        let begins = i == self.first;
        let ended = self.sides[i].end == Some(true) || self.sides[i].shut_read;
        match self.finish {
            Finish::Close if begins => self.verb(i, Verb::Close),
            Finish::Close if ended => self.verb(i, Verb::Close),
            Finish::HalfClose => {
                if !self.sides[i].shut_write {
                    let shut = self.sides[i].file().shutdown(Shutdown::Write);
                    shut.unwrap_or_else(|e| panic!("{}: side {i}: {e:?}", self.name));
                    self.sides[i].shut_write = true;
                }
                let flushed = self.sides[i].verb != Verb::None || self.flush(i);
                // Nobody would read what the peer still has to send.
                if self.sides[i].shut_read || (flushed && ended) {
                    self.verb(i, Verb::Close);
                }
            }
            Finish::Clean => self.verb(i, Verb::CloseClean),
            Finish::Answer if begins || ended => self.verb(i, Verb::CloseClean),
            _ if self.rng.percent(20) => self.write(i),
            _ => drop(self.flush(i)),
        }
        if self.sides[i].verb != Verb::Close {
            self.read(i);
        }
        self.release_when_clean(i);
    }

    fn verb(&mut self, i: usize, verb: Verb) {
        let file = self.handle(i);
        let side = &mut self.sides[i];
        side.verb = verb;
        let done = match verb {
            Verb::CloseClean => file.close_clean(),
            _ => file.close(),
        };
        match done {
            Ok(()) => side.verb_done = true,
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                assert!(!side.verb_done, "{}: side {i}: {verb:?} had ended", self.name);
            }
            // A clean close may be asked again; it has ended then.
            Err(e) if side.verb_done && e.kind() == io::ErrorKind::NotConnected => (),
            Err(e) => panic!("{}: side {i}: {verb:?}: {e:?}", self.name),
        }
    }

    /// After a clean close and all that was to be read: the stream comes out.
    fn release_when_clean(&mut self, i: usize) {
        let side = &self.sides[i];
        if side.verb != Verb::CloseClean || !side.verb_done {
            return;
        }
        // Data that had been waiting comes first.
        match self.read_some(i, 1_000) {
            Ok(0) => (),
            Ok(n) if n > 0 => return,
            other => panic!("{}: side {i}: {other:?} after close_clean", self.name),
        }
        let side = &mut self.sides[i];
        side.handles.truncate(1);
        let file = side.handles.pop().expect("the last handle");
        let (stream, unread) = file.release().unwrap_or_else(|e| panic!("{}: side {i}: {e:?}", self.name));
        side.plain = Some((stream.into_inner(), unread, 0));
    }

    fn plain_text(i: usize) -> Vec<u8> {
        pattern(99 + i as u64, 300)
    }

    fn say_plain(&mut self, i: usize) {
        let (stream, _, said) = self.sides[i].plain.as_mut().expect("released");
        if let Ok(n) = stream.write(&World::plain_text(i)[*said..]) {
            *said += n;
        }
    }

    /// Both streams are out: what each says now arrives at the other, from the first byte behind the close_notify.
    fn talk_plain(&mut self) {
        let mut heard = [Vec::new(), Vec::new()];
        for (i, heard) in heard.iter_mut().enumerate() {
            *heard = self.sides[i].plain.as_ref().expect("released").1.clone();
        }
        for round in 0.. {
            assert!(round < PATIENCE, "{}: HANG in plain text", self.name);
            for (i, heard) in heard.iter_mut().enumerate() {
                self.say_plain(i);
                let (stream, ..) = self.sides[i].plain.as_mut().expect("released");
                let mut buf = [0; 100];
                if let Ok(n) = stream.read(&mut buf) {
                    heard.extend_from_slice(&buf[..n]);
                }
            }
            if heard.iter().all(|h| h.len() >= 300) {
                break;
            }
        }
        for (i, heard) in heard.iter().enumerate() {
            assert!(*heard == World::plain_text(1 - i), "{}: side {i}: {} plain bytes", self.name, heard.len());
        }
    }

    fn check_no_release(&mut self) {
        for (i, side) in self.sides.iter_mut().enumerate() {
            side.handles.truncate(1);
            let file = side.handles.pop().expect("the last handle");
            let refused = file.release().expect_err("the stream has ended");
            let kind = refused.error().kind();
            assert_eq!(kind, io::ErrorKind::BrokenPipe, "{}: side {i}: release after close", self.name);
            side.handles.push(refused.into_parts().1);
        }
    }

    /// What was flushed before the last handle went arrives, and the end is a clean one.
    fn finish_drop(&mut self) {
        let (gone, left) = (self.first, 1 - self.first);
        for round in 0.. {
            assert!(round < PATIENCE, "{}: HANG before the drop: {}", self.name, self.report());
            let mut flushed = [false; 2];
            for (i, flushed) in flushed.iter_mut().enumerate() {
                *flushed = self.flush(i);
                self.read(i);
            }
            // A reader that has turned away takes nothing off the stream.
            let stuck = self.sides[left].shut_read;
            if self.sides.iter().all(|side| side.is_done()) && (flushed[gone] || stuck) {
                break;
            }
        }
        self.pipe.set_manners(Manners::EASY);
        self.flush(gone);
        self.sides[gone].handles.clear();
        assert!(self.sides[gone].alive.is_gone(), "{}: the stream outlives its file", self.name);
        for round in 0.. {
            assert!(round < PATIENCE, "{}: HANG after the drop: {}", self.name, self.report());
            self.read(left);
            if self.sides[left].shut_read || self.sides[left].end.is_some() {
                break;
            }
        }
        let side = &self.sides[left];
        let whole = side.shut_read || (side.end == Some(true) && side.got == self.sides[gone].accepted);
        assert!(whole, "{}: {} of {}", self.name, side.got, self.sides[gone].accepted);
    }

    /// What was accepted arrives, though the close came in the middle of the handshake.
    fn finish_early(&mut self) {
        let (gone, left) = (self.first, 1 - self.first);
        for round in 0.. {
            assert!(round < PATIENCE, "{}: HANG in an early close: {}", self.name, self.report());
            self.verb(gone, Verb::Close);
            self.handshake(left);
            self.read(left);
            // Nobody else reads what a reader that has turned away is sent.
            if self.sides[left].shut_read && self.sides[left].is_done() {
                self.verb(left, Verb::Close);
            }
            // A stream without half-close can't tell of an end in the handshake: waiting for the peer's would be in vain.
            let file = self.sides[gone].file();
            if self.sides[gone].verb_done || file.unsent() == 0 {
                break;
            }
        }
        self.cut = true;
        self.sides[gone].handles.clear();
        for round in 0.. {
            assert!(round < PATIENCE, "{}: HANG after an early close: {}", self.name, self.report());
            let side = &self.sides[left];
            if side.end.is_some() || side.shut_read || side.verb != Verb::None {
                break;
            }
            self.read(left);
        }
        let side = &self.sides[left];
        let (got, sent) = (side.got, self.sides[gone].accepted);
        assert!(side.shut_read || got == sent, "{}: {got} of {sent} bytes, {}", self.name, self.report());
    }

    fn finish_cut(&mut self) {
        let (victim, other) = (self.first, 1 - self.first);
        let more = self.rng.below(self.pipe.in_flight(other) + 500);
        self.cut = true;
        self.pipe.cut(other, more);
        for round in 0.. {
            assert!(round < PATIENCE, "{}: HANG after the cut: {}", self.name, self.report());
            self.read(victim);
            for i in 0..2 {
                let write = self.rng.percent(10) && self.sides[i].end.is_none();
                if write {
                    self.write(i);
                } else {
                    self.handshake(i);
                    self.flush(i);
                }
            }
            // Once the other has no more to send, a cut further on never comes.
            let idle = self.pipe.passed(other) > 0 && round > 1_000 && self.sides[victim].end.is_none();
            if idle {
                let now = self.pipe.in_flight(other);
                self.pipe.cut(other, now);
            }
            if self.sides[victim].end.is_some() || self.sides[victim].shut_read {
                break;
            }
        }
        if self.sides[victim].end.is_some() {
            for _ in 0..2 {
                self.read(victim);
            }
            assert!(!self.sides[victim].file().is_open(), "{}: open after the cut", self.name);
        }
    }
}
