//! The stream: two windows, a wire that may lose what is on it, ends and resets. A descriptor's readiness is what a
//! level-triggered poller says.

use std::io;
use std::time::Instant;

use super::rng::Rng;

/// A queue of bytes.
#[derive(Default)]
pub(super) struct Bytes {
    storage: Vec<u8>,
    at: usize,
}

impl Bytes {
    pub fn len(&self) -> usize {
        self.storage.len() - self.at
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn push(&mut self, bytes: &[u8]) {
        self.storage.extend_from_slice(bytes);
    }

    pub fn as_slice(&self) -> &[u8] {
        &self.storage[self.at..]
    }

    pub fn consume(&mut self, n: usize) {
        self.at += n;
        if self.at == self.storage.len() {
            self.clear();
        } else if self.at > 1 << 16 && self.at > self.storage.len() / 2 {
            self.storage.drain(..self.at);
            self.at = 0;
        }
    }

    pub fn clear(&mut self) {
        self.storage.clear();
        self.at = 0;
    }

    pub fn move_to(&mut self, other: &mut Bytes, n: usize) {
        other.push(&self.as_slice()[..n]);
        self.consume(n);
    }
}

/// What a receive gave.
pub(super) enum Got {
    Bytes(usize),
    End,
    Nothing,
    Failed(io::ErrorKind),
}

pub(super) struct Net {
    /// In our system, to be received.
    pub to_us: Bytes,
    /// Sent by us, not acknowledged.
    pub out: Bytes,
    /// In the peer's system.
    pub to_peer: Bytes,
    pub room_in: usize,
    pub room_out: usize,
    pub room_peer: usize,
    /// The peer has ended its direction, behind what is in `to_us`.
    pub fin: bool,
    /// We have ended ours.
    pub our_fin: bool,
    /// We have ended both.
    pub ended: bool,
    pub reset: bool,
    reset_told: bool,
    /// The descriptor is closed.
    pub closed: bool,
    /// The peer got a reset from our system.
    pub peer_reset: bool,
    /// The peer's program has closed: what we send is answered with a reset.
    pub peer_gone: bool,
    /// Most bytes a receive gives, and a send takes, at a time; not always.
    pub piece: usize,
    /// What an edge-triggered poller has told of: something has come; there is room again where there was not enough.
    pub came: u64,
    pub opened: u64,
    wants_room: bool,
    pub now: Instant,
    /// Since when something lies there that nobody has tried to receive.
    pub untried: Option<Instant>,
}

impl Net {
    pub fn new(rng: &mut Rng, now: Instant) -> Net {
        let rooms = [1, 64, 700, 4096, 65_536, 300_000];
        let (room_in, room_out) = (rng.pick(&rooms).max(64), rng.pick(&rooms).max(24));
        Net {
            to_us: Bytes::default(),
            out: Bytes::default(),
            to_peer: Bytes::default(),
            room_in,
            room_out,
            room_peer: rng.pick(&rooms).max(24),
            fin: false,
            our_fin: false,
            ended: false,
            reset: false,
            reset_told: false,
            closed: false,
            peer_reset: false,
            peer_gone: false,
            piece: rng.pick(&[1, 100, 2000, usize::MAX, usize::MAX]),
            came: 0,
            opened: 0,
            wants_room: false,
            now,
            untried: None,
        }
    }

    pub fn readable(&self) -> bool {
        !self.to_us.is_empty() || self.fin || self.reset || self.ended
    }

    pub fn writable(&self) -> bool {
        self.reset || self.our_fin || self.ended || self.out.len() < self.room_out
    }

    /// Both directions are over.
    pub fn hung_up(&self) -> bool {
        self.reset || self.ended || (self.fin && self.our_fin)
    }

    /// The system's word for it, once.
    pub fn take_error(&mut self) -> Option<io::ErrorKind> {
        (self.reset && !std::mem::replace(&mut self.reset_told, true)).then_some(io::ErrorKind::ConnectionReset)
    }

    pub fn recv(&mut self, into: &mut [u8], rng: &mut Rng) -> Got {
        if !self.to_us.is_empty() {
            let most = into.len().min(self.to_us.len());
            let n = if rng.percent(50) { most.min(self.piece) } else { most };
            into[..n].copy_from_slice(&self.to_us.as_slice()[..n]);
            self.to_us.consume(n);
            self.untried = self.readable().then_some(self.now);
            return Got::Bytes(n);
        }
        self.untried = None;
        if let Some(kind) = self.take_error() {
            return Got::Failed(kind);
        }
        match self.reset || self.fin || self.ended {
            true => Got::End,
            false => Got::Nothing,
        }
    }

    pub fn send(&mut self, bytes: &[u8], rng: &mut Rng) -> Result<usize, io::ErrorKind> {
        if let Some(kind) = self.take_error() {
            return Err(kind);
        }
        if self.reset || self.our_fin || self.ended {
            return Err(io::ErrorKind::BrokenPipe);
        }
        let room = self.room_out.saturating_sub(self.out.len());
        self.wants_room |= room < bytes.len();
        if room == 0 {
            return Err(io::ErrorKind::WouldBlock);
        }
        let most = bytes.len().min(room);
        let n = if rng.percent(50) { most.min(self.piece) } else { most };
        self.out.push(&bytes[..n]);
        Ok(n)
    }

    /// The wire: what was sent arrives. Says whether anything moved.
    pub fn carry(&mut self, rng: &mut Rng) -> bool {
        if self.peer_gone && !self.out.is_empty() && !self.reset {
            self.reset_by_peer(rng.percent(50));
            return true;
        }
        let n = self.out.len().min(self.room_peer.saturating_sub(self.to_peer.len()));
        if n == 0 {
            return false;
        }
        let n = if rng.percent(50) { n } else { rng.upto(n) };
        self.out.move_to(&mut self.to_peer, n);
        if self.wants_room && self.writable() {
            self.wants_room = false;
            self.opened += 1;
        }
        true
    }

    /// From the peer; says how much arrived.
    pub fn arrive(&mut self, bytes: &[u8]) -> usize {
        if self.closed || self.ended {
            // Nobody is there to take it: our system resets, and what is on its way is lost.
            if self.closed && !bytes.is_empty() {
                self.reset_peer();
            }
            return bytes.len();
        }
        let n = bytes.len().min(self.room_in.saturating_sub(self.to_us.len()));
        self.to_us.push(&bytes[..n]);
        if n > 0 {
            self.has_come();
        }
        n
    }

    pub fn reset_by_peer(&mut self, keeps_input: bool) {
        self.reset = true;
        self.has_come();
        self.opened += 1;
        self.out.clear();
        if !keeps_input {
            self.to_us.clear();
        }
    }

    /// The peer ends its direction.
    pub fn end_of_peer(&mut self) {
        self.fin = true;
        self.has_come();
    }

    fn has_come(&mut self) {
        self.came += 1;
        self.untried.get_or_insert(self.now);
    }

    fn reset_peer(&mut self) {
        self.peer_reset = true;
        self.out.clear();
    }

    pub fn end(&mut self) {
        (self.ended, self.our_fin) = (true, true);
        self.to_us.clear();
    }

    /// The descriptor goes.
    pub fn close(&mut self) {
        self.closed = true;
        self.our_fin = true;
        if !self.to_us.is_empty() {
            self.reset_peer();
        }
    }
}
