//! What is to be sent, in the order in which it goes: ciphertext that was refused, the connection's output, the queue, our end.

use std::num::NonZeroU64;

use zeroize::Zeroizing;

use super::job::{SendLease, Sent};
use super::state::{Drawn, End, OurEnd};
use super::{Clock, Machine, Manner, Setup};
use crate::engine::Buffer;
use crate::error::Error;

/// Plaintext that is encrypted before it is sent: a few records for each system call.
pub(super) const CHUNK: usize = 64 * 1024;

/// What a stream owes when it has taken all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum After {
    #[default]
    Nothing,
    /// It buffers, and has not been flushed since.
    Flush,
    /// It is a file itself, and could not send on yet what it has taken.
    Push,
}

/// A writer's place in the order of writers.
pub(crate) type Ticket = NonZeroU64;

pub(super) struct Sending {
    pub limit: usize,
    /// Somebody sends.
    pub lent: bool,
    /// Something of a user's.
    pub has_accepted: bool,
    /// The stream takes no more for now.
    pub full: bool,
    pub after: After,
    /// Accepted, not yet encrypted.
    pub queue: Buffer,
    /// So much of the queue goes before what the write at hand has yet to give; the rest behind it.
    pub ahead: usize,
    /// Plaintext bytes in the connection's output.
    pub encrypted: usize,
    /// Ciphertext that was taken out for sending and refused, and the plaintext bytes in it.
    pub flight: Buffer,
    pub flight_plain: usize,
    /// A half-close follows the flight at once.
    pub is_last: bool,
    pub half_closes: bool,
    /// The last flight had no data in it.
    pub is_behind_own: bool,
    pub end: OurEnd,
    /// The write whose turn it is: what it writes is in one piece.
    pub current: Option<Ticket>,
    /// Those that wait for theirs.
    pub tickets: Vec<Ticket>,
    drawn: u64,
    /// Bytes ever taken out of the queue, less those that were put in front of others.
    pub loaded: i64,
    /// How often all output has been handed to the stream.
    pub drained: u64,
}

impl Sending {
    pub fn new(setup: &Setup) -> Sending {
        Sending {
            limit: setup.send_limit,
            lent: false,
            has_accepted: false,
            full: false,
            after: After::Nothing,
            queue: Buffer::for_plaintext(),
            ahead: 0,
            encrypted: 0,
            flight: Buffer::default(),
            flight_plain: 0,
            is_last: false,
            half_closes: setup.half_closes,
            is_behind_own: false,
            end: OurEnd::Open,
            current: None,
            tickets: Vec::new(),
            drawn: 0,
            loaded: 0,
            drained: 0,
        }
    }

    #[inline]
    pub fn is_free(&self) -> bool {
        !self.lent
    }

    pub fn is_shut(&self) -> bool {
        self.end != OurEnd::Open
    }

    pub fn ask_end(&mut self) {
        if self.end == OurEnd::Open {
            self.end.move_to(OurEnd::Asked);
        }
    }

    /// Nobody has the turn, and nobody waits for it.
    #[inline]
    pub fn is_turn_free(&self) -> bool {
        self.current.is_none() && self.tickets.is_empty()
    }

    pub fn is_turn_of(&self, ticket: Ticket) -> bool {
        self.current.is_none() && self.tickets.first() == Some(&ticket)
    }

    pub fn draw_ticket(&mut self) -> Ticket {
        self.drawn += 1;
        Ticket::MIN.saturating_add(self.drawn)
    }

    /// The turn is this ticket's from now on. What is in the queue goes first.
    pub fn begin_turn(&mut self, ticket: Ticket) {
        if self.tickets.first() == Some(&ticket) {
            self.tickets.remove(0);
        }
        self.current = Some(ticket);
        self.ahead = self.queue.len();
    }

    /// Into the queue, behind what goes before the write at hand and in front of what others have left behind it.
    pub fn queue_at_hand(&mut self, bytes: &[u8]) {
        if self.queue.len() == self.ahead {
            return self.queue.append(bytes);
        }
        let all = Zeroizing::new(self.queue.take_vec());
        let (before, behind) = all.split_at(self.ahead);
        [before, bytes, behind].into_iter().for_each(|part| self.queue.append(part));
        self.loaded -= bytes.len() as i64;
    }

    /// How much will have been loaded when all is that is queued now.
    pub fn queued_until(&self) -> i64 {
        self.loaded + self.queue.len() as i64
    }

    pub fn leave(&mut self, ticket: Ticket) {
        if self.current == Some(ticket) {
            self.current = None;
            self.ahead = 0;
        } else if let Some(at) = self.tickets.iter().position(|waiting| *waiting == ticket) {
            self.tickets.remove(at);
        }
    }
}

impl Machine {
    /// Bytes accepted and not yet handed to the stream.
    #[inline]
    pub fn unsent(&self) -> usize {
        self.send.queue.len() + self.send.encrypted + self.send.flight_plain
    }

    /// What was accepted and sent may not have reached the peer's system, and closing could lose it. Behind the peer's
    /// close_notify nothing comes that the system would answer with a reset.
    pub fn may_be_on_its_way(&self) -> bool {
        self.manner == Manner::Polled && self.send.has_accepted && !self.is_done() && !self.tls.has_ended_well()
    }

    /// The stream is owed something that needs nothing but room.
    #[inline]
    pub fn has_ciphertext(&self) -> bool {
        !self.send.flight.is_empty() || self.tls.has_output() || self.send.after != After::Nothing
    }

    /// The stream could be given something.
    #[inline]
    pub fn has_output(&self) -> bool {
        self.has_ciphertext() || self.may_load() || self.owes_end()
    }

    /// All is handed over, and nobody is at it.
    #[inline]
    pub(super) fn is_drained(&self) -> bool {
        self.send.is_free() && !self.has_ciphertext()
    }

    /// The queue's turn. Not before the handshake is out of the way: what waits behind it must not keep us from reading.
    #[inline]
    pub(super) fn may_load(&self) -> bool {
        #[cfg(test)]
        if self.old_rules.f && self.settled() && self.tls.failure().is_none() {
            return self.tls.is_handshake_done() && !self.send.queue.is_empty();
        }
        !self.send.queue.is_empty()
            && (self.send.current.is_none() || self.send.ahead > 0)
            && self.settled()
            && self.tls.is_handshake_done()
            && self.tls.failure().is_none()
            && !self.tls.refuses_writes()
    }

    /// Our end is to be said, and nothing is in front of it.
    #[inline]
    pub(super) fn owes_end(&self) -> bool {
        if !self.has_end_to_say() {
            return false;
        }
        let may_speak = (self.settled() || self.end.is_closing()) && !self.tls.refuses_writes();
        may_speak && self.send.queue.is_empty() && self.send.current.is_none()
    }

    /// Our end is to be said, when all else has been.
    pub(super) fn has_end_to_say(&self) -> bool {
        // What was lost must not look like a clean end.
        let is_over = matches!(self.end.state, End::Over { .. });
        self.send.end == OurEnd::Asked
            && !is_over
            && self.outcome.send_failure.is_none()
            && !self.is_clean_end_said()
            && !self.lend.is_returned()
    }

    /// `close_clean` leaves the stream open: there is nothing to do after its close_notify.
    pub(super) fn is_clean_end_said(&self) -> bool {
        matches!(self.end.state, End::Clean { .. } | End::Cleaned) && self.tls.write_error().is_some()
    }

    /// Queues all of `data` or nothing, behind the write at hand.
    pub fn queue(&mut self, data: &[u8], clock: &impl Clock) -> Result<(), Error> {
        if !self.is_calm() {
            if self.is_lent() {
                return Err(super::taken());
            }
            self.look(clock);
            if let Some(error) = self.write_error() {
                return Err(error);
            }
        }
        if data.is_empty() {
            return Ok(());
        }
        let unsent = self.unsent();
        if unsent > 0 && unsent.saturating_add(data.len()) > self.send.limit {
            return Err(Error::would_block("the send limit is reached"));
        }
        // With nothing in front of it there is no need to queue what the stream may take at once.
        let is_first = self.is_drained() && self.settled() && self.send.is_turn_free() && self.send.queue.is_empty();
        let encrypted = match is_first {
            true => self.encrypt(data).unwrap_or(0),
            false => 0,
        };
        self.send.queue.append(&data[encrypted..]);
        self.note_accepted(clock);
        Ok(())
    }

    /// Encrypts a chunk of `data`.
    #[inline]
    pub(super) fn encrypt(&mut self, data: &[u8]) -> Result<usize, Error> {
        let had_refused = self.tls.refuses_writes();
        match self.tls.write(&data[..data.len().min(CHUNK)]) {
            Ok(n) => {
                self.send.encrypted += n;
                Ok(n)
            }
            Err(e) => {
                self.note_refusal(had_refused);
                self.stir.state |= self.tls.failure().is_some();
                Err(super::outcome::own(&e))
            }
        }
    }

    /// While nothing can be encrypted, those who wait for all to be sent are to receive as well.
    fn note_refusal(&mut self, had_refused: bool) {
        self.stir.state |= !had_refused && self.tls.refuses_writes();
    }

    /// Takes the next chunk out of the queue.
    pub(super) fn load(&mut self) {
        let had_refused = self.tls.refuses_writes();
        let Sending { queue, ahead, current, loaded, encrypted, .. } = &mut self.send;
        let most = match current {
            #[cfg(test)]
            _ if self.old_rules.f => CHUNK,
            Some(_) => (*ahead).min(CHUNK),
            None => CHUNK,
        };
        let chunk = &queue.as_slice()[..queue.len().min(most)];
        if let Ok(n) = self.tls.write(chunk) {
            *encrypted += n;
            *loaded += n as i64;
            *ahead = ahead.saturating_sub(n);
            queue.consume(n);
        }
        self.note_refusal(had_refused);
        if self.tls.failure().is_some() {
            self.drop_output();
            self.stir.state = true;
        }
    }

    /// What came of sending: what is left of the flight comes back.
    pub fn sent(&mut self, _: SendLease, flight: Buffer, sent: Sent, clock: &impl Clock) {
        self.send.lent = false;
        self.send.flight_plain = self.send.flight_plain.min(flight.len());
        self.send.flight = flight;
        match sent {
            Sent::Took(after) => {
                self.send.after = after;
                self.send.full = false;
                self.note_progress(clock);
            }
            Sent::Nothing(after) => self.send.after = after,
            Sent::Full(after) => {
                self.send.after = after;
                self.send.full = true;
            }
            Sent::Failed(error) => self.fail_sending(error),
        }
        if self.outcome.send_failure.is_some() || self.is_done() {
            self.drop_output();
        }
        if !self.has_ciphertext() {
            self.note_drained();
        }
        if !self.is_calm() {
            self.look(clock);
        }
    }

    /// All output has been handed to the stream.
    #[inline]
    pub(super) fn note_drained(&mut self) {
        self.send.drained += 1;
        self.send.is_last = false;
        self.stir.drained = true;
        self.tls.answers_sent();
    }

    /// The file inside has something left to send: that goes with a flush, too, or who waits for room waits for ever. A backend
    /// sees to that by itself.
    pub fn owe_push(&mut self) {
        if !self.driven
            && self.is_drained()
            && self.settled()
            && self.flush_error().is_none()
            && !self.lend.is_returned()
        {
            self.send.after = After::Push;
        }
    }

    /// Our direction of the stream has been ended.
    pub fn half_closed(&mut self, _: SendLease, clock: &impl Clock) {
        self.send.lent = false;
        self.send.end.move_to(OurEnd::HalfClosed);
        self.send.drained += 1;
        (self.stir.state, self.stir.drained) = (true, true);
        self.look(clock);
    }

    /// There may be room in the stream.
    pub fn room(&mut self) {
        self.send.full = false;
    }

    /// The stream takes nothing more.
    pub(super) fn fail_sending(&mut self, error: Error) {
        #[cfg(test)]
        if self.old_rules.b && !self.tls.is_handshake_done() {
            self.outcome.send_failure.get_or_insert(error);
            return self.drop_output();
        }
        if !self.tls.is_handshake_done() {
            self.tls.fail(error.clone());
        } else if !self.settled() {
            self.outcome.handshake_cut = Some(error.clone());
        }
        self.outcome.send_failure.get_or_insert(error);
        self.tls.mute();
        self.drop_output();
        self.stir.state = true;
    }

    /// Nothing more goes out; what was accepted and not sent is lost.
    pub(super) fn drop_output(&mut self) {
        if self.unsent() > 0 {
            self.outcome.lost = true;
        }
        let send = &mut self.send;
        send.queue.clear();
        send.flight.clear();
        (send.encrypted, send.flight_plain, send.ahead) = (0, 0, 0);
        send.after = After::Nothing;
        let output = self.tls.output().len();
        self.tls.consume_output(output);
        self.stir.drained = true;
    }
}
