//! Pieces of I/O, each with the right to do it.

use super::lending::Lending;
use super::send::After;
use super::state::{Drawn, End, OurEnd};
use super::{Clock, Machine, Manner};
use crate::engine::Buffer;
use crate::error::{Error, ErrorKind};

/// The right to receive from the stream. One at a time; to be given back.
#[derive(Debug)]
pub(crate) struct ReceiveLease(pub(super) ());

/// The right to send to the stream. One at a time, so that wire order is encryption order; to be given back.
#[derive(Debug)]
pub(crate) struct SendLease(());

/// What a driver is to do, without the file's lock.
pub(crate) enum Job {
    /// Receive once; then `received`.
    Receive(ReceiveLease),
    /// Send this; then `sent`.
    Send(SendLease, Buffer, Going),
    /// Flush a stream that buffers, or have one that is a file send on what it took; then `sent` with an empty flight.
    Flush(SendLease),
    Push(SendLease),
    /// End our direction of the stream, or, if not, let it be said; then `half_closed`.
    HalfClose(SendLease, bool),
    /// End both directions.
    End,
    /// The stream goes back to who had it before, these bytes in front of it; then `given_back`. Nobody uses it meanwhile.
    GiveBack(ReceiveLease, SendLease, Vec<u8>),
}

/// How a flight goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Going {
    /// As the stream is set.
    AsSet,
    /// At once, whatever is unacknowledged: what was sent before it is TLS's own.
    Promptly,
    /// A half-close follows at once.
    Last,
}

/// What a driver could do without waiting for the stream, as far as it knows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tries {
    pub receive: bool,
    pub send: bool,
    /// Nobody waits for it: what may hold the driver is left.
    pub offer: bool,
}

/// What came of receiving.
pub(crate) enum Received {
    Bytes(Buffer),
    /// The stream's end.
    End,
    /// Nothing is there now.
    Nothing,
    Failed(Error),
}

/// What came of sending.
pub(crate) enum Sent {
    /// Something, and what is still to be done when that was all.
    Took(After),
    /// Nothing, for no reason of the stream's.
    Nothing(After),
    /// The stream takes no more for now.
    Full(After),
    Failed(Error),
}

/// One direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Which {
    Receive,
    Send,
}

impl Machine {
    /// The next piece of I/O.
    #[inline]
    pub fn job(&mut self, tries: Tries) -> Option<Job> {
        // Then there is none but to receive.
        if !self.is_quiet() {
            if let Some(job) = self.job_beside_receiving(tries) {
                return Some(job);
            }
        }
        if tries.receive && self.admits(self.limit_of_writers()) {
            self.receive.lent = true;
            return Some(Job::Receive(ReceiveLease(())));
        }
        None
    }

    fn job_beside_receiving(&mut self, tries: Tries) -> Option<Job> {
        if self.end.owes_stream_end {
            self.end.owes_stream_end = false;
            return Some(Job::End);
        }
        if let Some(job) = self.job_of_lending() {
            return Some(job);
        }
        match tries.send && self.send.is_free() && !self.send.full && self.may_send(tries) {
            true => self.job_of_sending(),
            false => None,
        }
    }

    /// To a stream that may hold us nothing is sent by the way, but the alert of a handshake that has failed.
    fn may_send(&self, tries: Tries) -> bool {
        let is_in_handshake = self.tls.failure().is_some() && !self.tls.is_handshake_done();
        !tries.offer || self.manner != Manner::Blocks || is_in_handshake
    }

    fn job_of_sending(&mut self) -> Option<Job> {
        if self.outcome.send_failure.is_some() || self.lend.is_returned() {
            return None;
        }
        loop {
            if !self.send.flight.is_empty() || self.tls.has_output() {
                return Some(self.take_flight());
            }
            match self.send.after {
                After::Flush => return Some(Job::Flush(self.lend_sending())),
                After::Push => return Some(Job::Push(self.lend_sending())),
                After::Nothing => {}
            }
            if self.may_load() {
                self.load();
                // The library may refuse for now: it is busy with something that needs input.
                if !self.tls.has_output() {
                    return None;
                }
                continue;
            }
            if !self.owes_end() {
                return None;
            }
            // A failed connection has no more to say, and one whose handshake is not done has not yet.
            if self.tls.is_handshake_done() && self.tls.close().is_ok() && self.tls.has_output() {
                self.send.is_last = !matches!(self.end.state, End::Clean { .. } | End::Cleaned);
                continue;
            }
            if self.tls.refuses_writes() {
                return None;
            }
            self.stir.state = true;
            return match self.end.state {
                End::Clean { .. } | End::Cleaned => None,
                _ => Some(Job::HalfClose(self.lend_sending(), self.send.half_closes)),
            };
        }
    }

    fn take_flight(&mut self) -> Job {
        let lease = self.lend_sending();
        if self.send.flight.is_empty() {
            let flight = self.tls.take_output();
            self.send.flight_plain = std::mem::take(&mut self.send.encrypted);
            let has_data = self.send.flight_plain > 0;
            let is_behind_own = std::mem::replace(&mut self.send.is_behind_own, !has_data);
            // Nagle's algorithm has small data wait for an acknowledgement: of data before it, not of TLS's tickets.
            let going = self.going(self.send.is_last, has_data && is_behind_own);
            return Job::Send(lease, flight, going);
        }
        // What is behind it may be what is last.
        let going = self.going(self.send.is_last && !self.tls.has_output(), false);
        Job::Send(lease, std::mem::take(&mut self.send.flight), going)
    }

    fn going(&self, is_last: bool, promptly: bool) -> Going {
        match is_last {
            true if self.send.half_closes => Going::Last,
            // What a half-close would take along.
            true => Going::Promptly,
            false if promptly => Going::Promptly,
            false => Going::AsSet,
        }
    }

    #[inline]
    pub(super) fn lend_sending(&mut self) -> SendLease {
        self.send.lent = true;
        SendLease(())
    }

    fn job_of_lending(&mut self) -> Option<Job> {
        if !self.receive.is_free() || !self.send.is_free() {
            return None;
        }
        if self.is_cleaned_but_for_return() {
            let unread = self.tls.take_unread();
            return Some(self.give_back(unread));
        }
        // The alert first, if the stream takes it.
        let has_failed = self.over_file && self.tls.failure().is_some() && !self.tls.is_handshake_done();
        if has_failed && !self.lend.is_returned() && (!self.has_output() || self.send.full) {
            self.drop_output();
            let unread = self.tls.take_input();
            return Some(self.give_back(unread));
        }
        None
    }

    fn give_back(&mut self, unread: Vec<u8>) -> Job {
        self.receive.lent = true;
        self.lend = Lending::Returning;
        Job::GiveBack(ReceiveLease(()), self.lend_sending(), unread)
    }

    /// The stream is with who had it before; `leftover` is what it could not take back.
    pub fn given_back(&mut self, _: ReceiveLease, _: SendLease, leftover: Vec<u8>) {
        (self.receive.lent, self.send.lent) = (false, false);
        self.lend.returned(leftover);
        if matches!(self.end.state, End::Clean { .. }) && self.clean_failure().is_none() {
            self.end.state.move_to(End::Cleaned);
            self.outcome.own = Some(Ok(()));
        }
        self.stir.state = true;
    }

    /// The stream's code has panicked: that direction has failed.
    pub fn lease_lost(&mut self, which: Which, clock: &impl Clock) {
        let error =
            |doing: &str| Error::new(ErrorKind::Other, format!("{doing}: the code of the wrapped stream has panicked"));
        match which {
            Which::Receive => {
                self.receive.lent = false;
                self.tls.feed_error(error("receiving"));
                self.stir.input = true;
            }
            Which::Send => {
                self.send.lent = false;
                if self.send.end == OurEnd::Asked {
                    self.send.end.move_to(OurEnd::HalfClosed);
                }
                self.fail_sending(error("sending"));
            }
        }
        self.stir.state = true;
        self.look(clock);
    }
}
