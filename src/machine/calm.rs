//! The short way of the commonest calls, while nothing is out of the ordinary: the steps of the long way, without the questions whose
//! answers are known. Whatever is not as expected is left to the long way, which goes on from here.

use super::call::{Call, Patience};
use super::job::{ReceiveLease, SendLease};
use super::read::AHEAD;
use super::send::{After, CHUNK};
use super::{Clock, Machine, Manner};
use crate::connection::Connection;
use crate::engine::Buffer;

impl Machine {
    /// All is calm, and nothing is to be sent or being sent.
    #[inline]
    pub fn is_quiet(&self) -> bool {
        self.is_calm()
            && self.send.is_free()
            && !self.tls.has_output()
            && self.send.flight.is_empty()
            && self.send.queue.is_empty()
            && self.send.after == After::Nothing
    }

    /// Reads, where all is quiet.
    #[inline]
    pub fn read_calmly(&mut self, take: impl FnOnce(&mut Connection) -> usize) -> usize {
        let had_ended = self.tls.has_ended();
        let n = take(&mut self.tls);
        self.stir.state |= had_ended != self.tls.has_ended();
        n
    }

    /// A call that reads may wait for ever, and does so by receiving.
    #[inline]
    pub fn may_receive_calmly(&self) -> bool {
        !self.nonblocking
            && self.times.read_timeout.is_none()
            && self.manner == Manner::Polled
            && !self.has_deadlines()
            && self.admits(AHEAD)
    }

    /// The right to receive, where all is quiet and that is so. It is counted as a call that waits.
    #[inline]
    pub fn receive_calmly(&mut self) -> ReceiveLease {
        self.waiting += 1;
        self.receive.readers += 1;
        self.receive.lent = true;
        ReceiveLease(())
    }

    /// What came of it goes to `received` next.
    #[inline]
    pub fn has_received_calmly(&mut self) {
        self.waiting -= 1;
        self.receive.readers -= 1;
    }

    /// Encrypts what one send will do for, and has the turn for it.
    #[inline]
    pub fn write_calmly(&mut self, call: &mut Call, data: &[u8], clock: &impl Clock) -> Option<(SendLease, Buffer)> {
        let waits = call.patience != Patience::Never && data.len() <= CHUNK && self.manner == Manner::Polled;
        if !waits || !self.is_quiet() || !self.send.is_turn_free() || self.send.is_behind_own {
            return None;
        }
        // What fails here is told by the long way.
        let n = self.encrypt(data).ok()?;
        call.write.done = n;
        let ticket = self.send.draw_ticket();
        call.write.ticket = Some(ticket);
        self.send.begin_turn(ticket);
        self.note_accepted(clock);
        self.send.flight_plain = std::mem::take(&mut self.send.encrypted);
        Some((self.lend_sending(), self.tls.take_output()))
    }

    /// All of that has gone, while all was calm. Says whether that was all there is.
    #[inline]
    pub fn has_written_calmly(&mut self, _: SendLease, call: &mut Call, data: &[u8], clock: &impl Clock) -> bool {
        self.send.lent = false;
        self.send.flight_plain = 0;
        self.send.full = false;
        self.note_progress(clock);
        if self.tls.has_output() {
            return false;
        }
        self.note_drained();
        let is_all = call.write.done == data.len() && self.send.queue.is_empty();
        if is_all {
            self.leave(call);
        }
        is_all
    }
}
