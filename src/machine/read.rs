//! Receiving, and the calls that read.

use super::call::{Call, Step, Waits};
use super::job::{ReceiveLease, Received};
use super::outcome::taken;
use super::state::End;
use super::{Clock, Machine, Manner};
use crate::connection::Connection;
use crate::engine::Buffer;

/// What is taken in ahead of being read; then the peer is held by its window.
pub(super) const AHEAD: usize = 64 * 1024;
/// The same while a write waits and nobody reads, so that two ends that answer each other with big writes get on.
const AHEAD_OF_WRITERS: usize = 1 << 20;
/// Plaintext that `close_clean` keeps for readers while it waits for the peer's close_notify.
pub(super) const AHEAD_OF_CLEAN_CLOSE: usize = 16 << 20;

#[derive(Debug, Default)]
pub(super) struct Receiving {
    /// Somebody receives.
    pub lent: bool,
    /// Calls that wait to read: a backend leaves what comes to them.
    pub readers: usize,
    /// `shutdown(Read)`.
    pub shut: bool,
}

impl Receiving {
    #[inline]
    pub fn is_free(&self) -> bool {
        !self.lent
    }
}

impl Machine {
    /// Somebody receives just now.
    pub fn is_receiving(&self) -> bool {
        self.receive.lent
    }

    /// The rule that admits input: the only one.
    #[inline(always)]
    pub(super) fn admits(&self, limit: usize) -> bool {
        self.receive.is_free() && self.expects_input() && self.tls.ahead() < limit
    }

    /// More may come.
    #[inline]
    pub(super) fn expects_input(&self) -> bool {
        !self.tls.is_input_over() && !self.is_done()
    }

    /// How much may wait to be read.
    #[inline]
    pub(super) fn limit(&self) -> usize {
        match self.end.state {
            #[cfg(test)]
            _ if self.old_rules.c && self.end.is_under_way() => usize::MAX,
            End::Clean { .. } => AHEAD_OF_CLEAN_CLOSE,
            // What was decrypted before stays to be read; what comes now is thrown away.
            End::Flush { .. } | End::Drain { .. } => AHEAD + self.tls.plain_len(),
            _ => AHEAD,
        }
    }

    pub(super) fn limit_of_writers(&self) -> usize {
        self.limit().max(AHEAD_OF_WRITERS)
    }

    /// Something was received, while all is calm.
    #[inline(always)]
    pub fn take_in(&mut self, _: ReceiveLease, bytes: Buffer, clock: &impl Clock) {
        self.receive.lent = false;
        #[cfg(test)]
        {
            self.old_passes_by = self.old_rules.i;
        }
        self.tls.feed_buffer(bytes);
        self.times.received(self.driven, clock);
        self.stir.input = true;
    }

    /// What came of receiving.
    pub fn received(&mut self, _: ReceiveLease, received: Received, clock: &impl Clock) {
        self.receive.lent = false;
        // That we have ended the stream ourselves says nothing of the peer.
        if self.end.is_aborted() {
            self.stir.input = true;
            return;
        }
        match received {
            // What was in front of it has been thrown away.
            Received::Bytes(_) if matches!(self.end.state, End::Over { .. }) => {}
            Received::Bytes(bytes) => {
                #[cfg(test)]
                {
                    self.old_passes_by = self.old_rules.i;
                }
                self.tls.feed_buffer(bytes);
                self.times.received(self.driven, clock);
            }
            // The system tells of a reset once only: it may have told somebody else.
            Received::End => match self.outcome.reset() {
                Some(reset) => self.tls.feed_error(reset),
                None => self.tls.feed_eof(),
            },
            // It may be long until more comes.
            Received::Nothing => {
                #[cfg(test)]
                {
                    self.old_passes_by = false;
                }
                return self.tls.trim();
            }
            Received::Failed(error) => self.tls.feed_error(error),
        }
        self.stir.input = true;
        if !self.is_calm() {
            self.look(clock);
        }
    }

    /// Reads or peeks: `take` says how much it got.
    pub fn poll_read(
        &mut self,
        call: &mut Call,
        mut take: impl FnMut(&mut Connection) -> usize,
        clock: &impl Clock,
    ) -> Step<usize> {
        if !self.is_calm() {
            if let Some(result) = self.before_read(call, clock) {
                return self.done(call, result);
            }
        }
        if self.settled() {
            let had_ended = self.tls.has_ended();
            if self.tls.has_news() {
                let n = take(&mut self.tls);
                self.stir.state |= had_ended != self.tls.has_ended();
                if n > 0 {
                    // A clean close waits for readers, if too much is kept for them.
                    self.stir.input |= matches!(self.end.state, End::Clean { .. });
                    return self.done(call, Ok(n));
                }
            }
        }
        if let Some(end) = self.read_end() {
            return self.done(call, end.map(|()| 0));
        }
        let waits = self.waits_to_read(call);
        self.wait(call, waits, clock)
    }

    /// Where things are out of the ordinary.
    fn before_read(&mut self, call: &Call, clock: &impl Clock) -> Option<Result<usize, crate::Error>> {
        if self.is_lent() && !call.wraps {
            return Some(Err(taken()));
        }
        self.look_for(call, clock);
        if self.receive.shut {
            return Some(Ok(0));
        }
        self.end.is_aborted().then(|| Err(super::not_open()))
    }

    fn waits_to_read(&self, call: &Call) -> Waits {
        let settled = self.settled();
        // To write to a stream that may hold the writer is no reader's affair, but for the handshake.
        let may_send = !settled || (self.manner != Manner::Blocks && (!self.driven || call.wraps));
        Waits {
            readable: self.admits(self.limit()),
            writable: may_send && self.send.is_free() && self.has_output(),
            input: true,
            drained: !settled,
            receive_lease: !self.receive.is_free(),
            send_lease: may_send && !settled && !self.send.is_free(),
            may_send,
            ..Waits::default()
        }
    }

    /// Whether data can still be read, after the look that the driver has had.
    pub fn is_open(&mut self) -> bool {
        if self.receive.shut || matches!(self.end.state, End::Over { .. }) {
            return false;
        }
        if self.tls.is_to_speak_first() {
            return true;
        }
        if self.tls.read_ahead(1) {
            return !self.tls.is_read_to_end();
        }
        !self.is_over() && self.tls.failure().is_none()
    }

    /// A look at the stream could tell more of that.
    pub fn wants_look(&mut self) -> bool {
        !self.is_lent()
            && self.can_try()
            && self.is_open()
            && !self.tls.is_to_speak_first()
            && self.tls.plain_len() == 0
    }

    /// The next read would look at the stream.
    pub fn looks_at_stream(&mut self) -> bool {
        self.expects_input() && !self.has_something_to_read()
    }

    /// Something can be read that no descriptor tells of.
    pub fn has_something_to_read(&mut self) -> bool {
        self.settled() && (self.tls.may_give_data() || self.tls.has_ended())
    }

    pub fn pending(&mut self) -> usize {
        match self.receive.shut || !self.settled() {
            true => 0,
            false => self.tls.pending(),
        }
    }

    /// Puts bytes back in front of what will be read next.
    pub fn unread(&mut self, bytes: &[u8]) {
        match self.lend.later() {
            // For when the stream is ours again.
            Some(later) => drop(later.splice(0..0, bytes.iter().copied())),
            None => {
                self.tls.unread(bytes);
                self.stir.input = true;
            }
        }
    }
}
