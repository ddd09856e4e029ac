//! Our own end of the connection: `shutdown(Write)` is the sender's, the rest is here. `state` has the picture.

use std::time::{Duration, Instant};

use super::call::{timed_out, Call, Step, Waits};
use super::deadlines::earlier;
use super::outcome::{not_open, taken};
use super::read::AHEAD_OF_CLEAN_CLOSE;
use super::state::{Drawn, End, OurEnd};
use super::{Clock, Machine};
use crate::error::{Error, ErrorKind};

/// The default of `SslOptions::close_timeout`.
pub(crate) const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// What the peer has not acknowledged. The system tells nobody of it: it is asked now and then.
#[derive(Clone, Copy, Debug, Default)]
struct Outstanding {
    /// When that was last asked.
    bytes: Option<usize>,
    /// Nobody has a handle any more, and something may still be on its way.
    lingers: bool,
    /// When to ask again, for what lingers, and how long after that.
    ask: Option<(Instant, Duration)>,
}

const FIRST_ASKED: Duration = Duration::from_millis(5);

#[derive(Debug)]
pub(super) struct Ending {
    pub state: End,
    close_timeout: Duration,
    /// Both directions of the stream are to be ended.
    pub owes_stream_end: bool,
    /// Both directions of the stream have been ended, or are about to be.
    stream_ended: bool,
    /// Made when it is asked for: most connections never do.
    outstanding: Option<Box<Outstanding>>,
    /// `close` in a backend has done what goes at once; the rest is the backend's.
    pub held: bool,
}

impl Ending {
    pub fn new(close_timeout: Duration) -> Ending {
        Ending {
            state: End::Not,
            close_timeout,
            owes_stream_end: false,
            stream_ended: false,
            outstanding: None,
            held: false,
        }
    }

    #[inline]
    pub fn is_calm(&self) -> bool {
        matches!(self.state, End::Not) && !self.owes_stream_end
    }

    #[inline]
    pub fn is_closing(&self) -> bool {
        matches!(self.state, End::Flush { .. } | End::Drain { .. })
    }

    pub fn is_under_way(&self) -> bool {
        self.is_closing() || matches!(self.state, End::Clean { .. })
    }

    pub fn is_aborted(&self) -> bool {
        matches!(self.state, End::Over { aborted: true })
    }

    pub fn lingers(&self) -> bool {
        self.outstanding.as_ref().is_some_and(|outstanding| outstanding.lingers)
    }

    /// How long to wait for the peer to take something. That `close` should not wait for the peer's end is no licence to lose
    /// what was accepted.
    fn patience(&self) -> Duration {
        match self.close_timeout {
            Duration::ZERO => CLOSE_TIMEOUT,
            time => time,
        }
    }
}

impl Machine {
    /// `close` begins.
    pub fn begin_close(&mut self, clock: &impl Clock) {
        if matches!(self.end.state, End::Not | End::Clean { .. }) && !self.lend.is_leaving() {
            self.end.state.move_to(End::Flush { progress: clock.now() });
            self.outcome.own = None;
            self.send.ask_end();
            self.stir.state = true;
            self.look(clock);
        }
    }

    /// The same, in a backend: what goes without waiting goes now, and the backend finishes it.
    pub fn begin_close_in_backend(&mut self, clock: &impl Clock) {
        self.end.held = !self.is_over();
        self.begin_close(clock);
    }

    /// `close_clean` begins, or goes on. What has been asked of a backend has the read time-out.
    pub fn begin_clean(&mut self, clock: &impl Clock) {
        if matches!(self.end.state, End::Not | End::Clean { .. }) {
            self.end.state.move_to(End::Clean { since: clock.now() });
            self.outcome.own = None;
            self.send.ask_end();
            self.stir.state = true;
            self.look(clock);
        }
    }

    /// Ends it at once, without close_notify. What was not sent is lost.
    pub fn abort(&mut self) {
        if self.is_lent() || self.is_done() || self.lend.is_leaving() {
            return;
        }
        self.outcome.own_given = true;
        self.drop_output();
        let error = Error::new(ErrorKind::NotOpen, "this end has aborted the connection");
        self.outcome.own = Some(Err(error));
        self.end.state.move_to(End::Over { aborted: true });
        self.end_stream();
        self.stir.state = true;
    }

    /// The last handle has gone, and something may still be on its way: so many bytes that the system knows of.
    pub fn linger(&mut self, outstanding: usize) {
        self.end.outstanding = Some(Box::new(Outstanding { bytes: Some(outstanding), lingers: true, ask: None }));
    }

    pub fn lingers(&self) -> bool {
        self.end.lingers()
    }

    /// It matters how much of what was sent the peer has not acknowledged: the system tells of room late, when much of it is
    /// there.
    pub fn asks_for_outstanding(&self) -> bool {
        self.end.is_closing()
    }

    /// How much that is: less than before is progress; and with nothing left there is nothing to linger for.
    pub fn note_outstanding(&mut self, bytes: usize, clock: &impl Clock) {
        let patience = self.end.patience();
        let outstanding = self.end.outstanding.get_or_insert_default();
        let taken = outstanding.bytes.replace(bytes).is_some_and(|before| bytes < before);
        if let End::Flush { progress } = &mut self.end.state {
            if taken {
                *progress = clock.now();
            }
        }
        let End::Drain { until } = &mut self.end.state else { return };
        if !outstanding.lingers {
            return;
        }
        if bytes == 0 {
            return self.finish(Ok(()));
        }
        let now = clock.now();
        if taken {
            *until = now + patience;
        }
        match &mut outstanding.ask {
            None => outstanding.ask = Some((now + FIRST_ASKED, FIRST_ASKED)),
            Some((at, after)) if now >= *at => {
                *after *= 2;
                *at = now + *after;
            }
            Some(_) => {}
        }
    }

    /// Both directions of the stream have been ended: nothing more can be read away.
    pub fn has_ended_stream(&self) -> bool {
        self.end.stream_ended
    }

    fn end_stream(&mut self) {
        if !self.lend.is_returned() && !self.end.stream_ended {
            self.end.owes_stream_end = true;
            self.end.stream_ended = true;
        }
    }

    pub(super) fn note_progress(&mut self, clock: &impl Clock) {
        if let End::Flush { progress } = &mut self.end.state {
            *progress = clock.now();
        }
        self.times.sent(self.driven, clock);
    }

    /// As far as it goes without I/O.
    pub(super) fn step_end(&mut self, clock: &impl Clock) {
        if self.end.held {
            return;
        }
        match self.end.state {
            End::Flush { .. } => {
                if self.settled() || self.send.queue.is_empty() {
                    self.tls.discard_input();
                }
                if self.tls.failure().or(self.outcome.send_failure.as_ref()).is_some() {
                    // The alert first, if the stream takes it.
                    let has_alert = self.has_ciphertext() && self.outcome.send_failure.is_none();
                    if !has_alert || self.send.full {
                        self.finish_failed();
                    }
                } else if self.send.end == OurEnd::HalfClosed && self.is_drained() {
                    self.begin_drain(clock);
                }
            }
            End::Drain { .. } => {
                if self.tls.discard_input() || self.outcome.send_failure.is_some() {
                    self.finish(Ok(()));
                }
            }
            End::Clean { .. } => {
                // Before that nobody gets what is in front of the end, which must not show without it.
                if self.settled() {
                    self.tls.read_ahead(AHEAD_OF_CLEAN_CLOSE);
                }
                // Once: who is woken by it looks here again.
                if let Some(error) = self.clean_failure().filter(|_| self.outcome.own.is_none()) {
                    self.outcome.own = Some(Err(error));
                    self.stir.state = true;
                }
            }
            End::Not | End::Cleaned | End::Over { .. } => {}
        }
    }

    fn begin_drain(&mut self, clock: &impl Clock) {
        let time = match self.end.lingers() {
            true => self.end.patience(),
            false => self.end.close_timeout,
        };
        let drains = self.can_try() && !time.is_zero() && !self.lend.is_returned();
        match clock.now().checked_add(time).filter(|_| drains) {
            Some(until) => {
                self.end.state.move_to(End::Drain { until });
                self.stir.state = true;
                self.step_end(clock);
            }
            None => self.finish(Ok(())),
        }
    }

    /// The peer went first: an error only if that cost data.
    fn finish_failed(&mut self) {
        self.drop_output();
        let result = self.cost_of_failure().unwrap_or(Ok(()));
        self.finish(result);
    }

    fn cost_of_failure(&self) -> Option<Result<(), Error>> {
        let failure = self.tls.failure().or(self.outcome.send_failure.as_ref()).filter(|_| self.outcome.lost)?;
        Some(Err(failure.clone()))
    }

    fn finish(&mut self, result: Result<(), Error>) {
        self.drop_output();
        // Nobody may read what came behind a gap.
        self.tls.discard_input();
        // A silent peer may still be reading: a socket that were closed for reading too would answer what the peer sends
        // late (session tickets, say) with a reset, and what is on its way to the peer would be lost.
        if result.is_err() || self.tls.has_ended() || self.tls.has_discarded() {
            self.end_stream();
        }
        self.outcome.own = Some(result);
        self.end.state.move_to(End::Over { aborted: false });
        self.stir.state = true;
    }

    /// Until when the end that is under way has time.
    pub(super) fn end_deadline(&self) -> Option<Instant> {
        match self.end.state {
            #[cfg(test)]
            End::Flush { .. } if self.old_passes_by => None,
            End::Flush { progress } if self.can_try() => progress.checked_add(self.end.patience()),
            End::Drain { until } => {
                let asked = self.end.outstanding.as_ref().and_then(|outstanding| outstanding.ask);
                Some(asked.map_or(until, |(at, _)| at.min(until)))
            }
            End::Clean { since } if self.driven && self.outcome.own.is_none() => {
                earlier(Some(since), self.times.read_timeout, self.deadlines().read)
            }
            _ => None,
        }
    }

    pub(super) fn expire_end(&mut self, now: Instant) {
        if self.end_deadline().is_none_or(|deadline| now < deadline) {
            return;
        }
        match self.end.state {
            End::Flush { .. } => {
                self.drop_output();
                self.finish(Err(timed_out(Some(self.end.patience()))));
            }
            End::Drain { until } if now < until => {}
            End::Drain { .. } => self.finish(Ok(())),
            _ => {
                self.outcome.own = Some(Err(timed_out(self.times.read_timeout)));
                self.stir.state = true;
            }
        }
    }

    pub(super) fn poll_close(&mut self, call: &mut Call, clock: &impl Clock) -> Step<()> {
        if self.is_lent() && !call.wraps {
            return self.done(call, Err(taken()));
        }
        if !std::mem::replace(&mut call.begun, true) {
            self.begin_close(clock);
        }
        self.look_for(call, clock);
        if self.is_done() {
            let given = std::mem::replace(&mut self.outcome.own_given, true) || self.end.state == End::Cleaned;
            let result = self.outcome.own.clone().or_else(|| self.cost_of_failure());
            let result = result.filter(|_| !given).unwrap_or(Ok(()));
            return self.done(call, result);
        }
        // To say our end may need what the peer says first.
        let may_receive = self.can_try() || self.tls.refuses_writes();
        let waits = Waits {
            readable: may_receive && self.admits(self.limit()),
            input: true,
            receive_lease: !self.receive.is_free(),
            ..self.waits_to_send(call)
        };
        self.wait(call, waits, clock)
    }

    pub(super) fn poll_clean(&mut self, call: &mut Call, clock: &impl Clock) -> Step<()> {
        if self.is_lent() && !call.wraps {
            return self.done(call, Err(taken()));
        }
        self.look_for(call, clock);
        match self.end.state {
            End::Cleaned => return self.done(call, Ok(())),
            End::Flush { .. } | End::Drain { .. } | End::Over { .. } => return self.done(call, Err(not_open())),
            End::Not | End::Clean { .. } => {}
        }
        if let Some(error) = self.clean_failure() {
            return self.done(call, Err(error));
        }
        if !self.settled() {
            let waits = self.waits_to_settle();
            return self.wait(call, waits, clock);
        }
        if !std::mem::replace(&mut call.begun, true) {
            self.begin_clean(clock);
            if let Some(error) = self.clean_failure() {
                return self.done(call, Err(error));
            }
        }
        let waits = Waits {
            readable: self.admits(self.limit()),
            input: true,
            receive_lease: !self.receive.is_free(),
            ..self.waits_to_send(call)
        };
        self.wait(call, waits, clock)
    }

    pub(super) fn clean_failure(&self) -> Option<Error> {
        let failure = self.tls.failure().or(self.outcome.send_failure.as_ref()).or(self.tls.read_error());
        failure.cloned()
    }

    /// Both ends are said, and only the stream is to be given back.
    pub(super) fn is_cleaned_but_for_return(&self) -> bool {
        matches!(self.end.state, End::Clean { .. })
            && self.tls.has_ended_well()
            && self.is_clean_end_said()
            && self.is_drained()
            && self.clean_failure().is_none()
    }
}
