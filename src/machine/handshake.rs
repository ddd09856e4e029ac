//! The handshake: begun by the first call that needs it, done once.

use std::time::{Duration, Instant};

use super::call::{Call, Step};
use super::outcome::taken;
use super::{Clock, Machine, Manner};
use crate::error::{Error, ErrorKind};

/// The default of `SslOptions::handshake_timeout`.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(30);

#[derive(Debug)]
pub(super) struct Handshaking {
    /// Until it is done, and what the peer needs of it has been handed to the stream.
    under_way: Option<Box<UnderWay>>,
    time: Option<Duration>,
}

#[derive(Debug)]
struct UnderWay {
    /// As it was set, if it was.
    timeout: Option<Option<Duration>>,
    begun: Option<Instant>,
    deadline: Option<Instant>,
}

impl Handshaking {
    pub fn new(timeout: Option<Option<Duration>>, needless: bool) -> Handshaking {
        let under_way = UnderWay { timeout, begun: None, deadline: None };
        Handshaking { under_way: (!needless).then(|| Box::new(under_way)), time: None }
    }
}

impl Machine {
    /// The handshake has come to its end, good or bad.
    #[inline]
    pub fn settled(&self) -> bool {
        self.has_flown() || self.tls.failure().is_some()
    }

    #[inline]
    pub(super) fn has_flown(&self) -> bool {
        self.shake.under_way.is_none()
    }

    /// How long it took on this end.
    pub fn handshake_time(&self) -> Option<Duration> {
        self.shake.time
    }

    /// As far as that goes without I/O.
    pub(super) fn shake_hands(&mut self, clock: &impl Clock) {
        let limit = self.handshake_limit();
        let Some(under_way) = &mut self.shake.under_way else { return };
        let begun = *under_way.begun.get_or_insert_with(|| clock.now());
        if under_way.deadline.is_none() {
            under_way.deadline = limit.and_then(|limit| clock.now().checked_add(limit));
        }
        let outcome = self.tls.handshake();
        if outcome.is_ok() && self.shake.time.is_none() {
            self.shake.time = Some(clock.now().saturating_duration_since(begun));
            self.stir.state = true;
        }
        // A server's tickets may go when they will.
        if outcome.is_ok() && (self.is_drained() || self.tls.output_is_optional()) {
            self.shake.under_way = None;
            self.note_timeouts(clock);
            self.stir.state = true;
        }
        self.stir.state |= self.tls.failure().is_some();
    }

    /// Blocking files and those in a backend have a time-out by default; who polls by himself keeps his own time.
    fn handshake_limit(&self) -> Option<Duration> {
        let is_users = self.nonblocking && !self.driven;
        let default = (!is_users).then_some(HANDSHAKE_TIMEOUT);
        let set = self.shake.under_way.as_ref().and_then(|under_way| under_way.timeout);
        set.unwrap_or(default).filter(|_| self.manner == Manner::Polled)
    }

    pub(super) fn handshake_deadline(&self) -> Option<Instant> {
        let deadline = self.shake.under_way.as_ref()?.deadline;
        deadline.filter(|_| !self.tls.is_handshake_done() && self.tls.failure().is_none())
    }

    pub(super) fn expire_handshake(&mut self, now: Instant) {
        if self.handshake_deadline().is_some_and(|deadline| now >= deadline) {
            let limit = self.handshake_limit().unwrap_or_default();
            let text = format!("the TLS handshake took longer than its time-out of {limit:?}");
            self.fail(Error::new(ErrorKind::TimedOut, text));
        }
    }

    /// A client has said nothing yet. Once it has been begun it goes on when something comes or goes.
    pub fn is_to_begin(&self) -> bool {
        let is_needless = self.is_over() && self.send.queue.is_empty();
        !self.settled() && !is_needless && self.tls.is_to_speak_first()
    }

    pub(super) fn poll_handshake(&mut self, call: &mut Call, clock: &impl Clock) -> Step<()> {
        if self.is_lent() && !call.wraps {
            return self.done(call, Err(taken()));
        }
        self.look_for(call, clock);
        if self.end.is_aborted() {
            return self.done(call, Err(super::not_open()));
        }
        if !self.settled() {
            if self.is_over() {
                return self.done(call, Err(super::not_open()));
            }
            let waits = self.waits_to_settle();
            return self.wait(call, waits, clock);
        }
        let failure = self.tls.failure().filter(|_| !self.tls.is_handshake_done());
        let result = match failure.or(self.outcome.handshake_cut.as_ref()) {
            Some(failure) => Err(failure.clone()),
            None if self.is_over() => Err(super::not_open()),
            None => Ok(()),
        };
        self.done(call, result)
    }
}
