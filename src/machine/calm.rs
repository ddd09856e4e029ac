//! The short way of the commonest calls, while nothing is out of the ordinary: the steps of the long way, without the questions whose
//! answers are known. Whatever is not as expected is left to the long way, which goes on from here.

use super::call::{Call, Patience};
use super::job::{Job, ReceiveLease};
use super::read::AHEAD;
use super::send::{After, CHUNK};
use super::{Clock, Machine, Manner};
use crate::connection::Connection;

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

    /// Reads what is there, where all is quiet.
    #[inline]
    pub fn read_calmly(&mut self, take: impl FnOnce(&mut Connection) -> usize) -> usize {
        if !self.tls.has_news() {
            return 0;
        }
        let had_ended = self.tls.has_ended();
        let n = take(&mut self.tls);
        self.stir.state |= had_ended != self.tls.has_ended();
        n
    }

    /// The right to receive, for a call that may wait for ever, where all is quiet.
    #[inline]
    pub fn receive_calmly(&mut self, call: &mut Call) -> Option<ReceiveLease> {
        let waits = call.patience == Patience::Until(None) && self.manner == Manner::Polled && !self.has_deadlines();
        if !waits || self.is_interrupted(call) || !self.admits(AHEAD) {
            return None;
        }
        self.count(call);
        self.receive.lent = true;
        Some(ReceiveLease(()))
    }

    /// Encrypts what one send will do for, and has the turn for it.
    #[inline]
    pub fn write_calmly(&mut self, call: &mut Call, data: &[u8], clock: &impl Clock) -> Option<Job> {
        let waits = call.patience != Patience::Never && data.len() <= CHUNK && self.manner == Manner::Polled;
        if !waits || !self.is_quiet() || !self.send.is_turn_free() {
            return None;
        }
        // What fails here is told by the long way.
        let n = self.encrypt(data).ok()?;
        call.write.done = n;
        let ticket = self.send.draw_ticket();
        call.write.ticket = Some(ticket);
        self.send.begin_turn(ticket);
        self.note_accepted(clock);
        Some(self.take_flight())
    }

    /// Whether that was all.
    #[inline]
    pub fn has_written_calmly(&mut self, call: &mut Call, data: &[u8]) -> bool {
        let all = call.write.done == data.len() && self.is_quiet();
        if all {
            self.leave(call);
        }
        all
    }
}
