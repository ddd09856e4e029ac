//! All that becomes due by time alone, in one place.
//!
//! | deadline | since | what it does |
//! |---|---|---|
//! | the handshake's | its first step | the connection fails: `TimedOut` |
//! | `close`: flushing | the peer last took something | what is left is lost: `TimedOut` |
//! | `close`: draining | our end was said | the connection is over |
//! | `close_clean`, asked of a backend | that was asked | told: `TimedOut`; it may be asked again |
//! | idle reading, in a backend | something was last received | the connection fails: `TimedOut` |
//! | idle writing, in a backend | something was last sent of what waits | the same |
//!
//! A call's own deadline is the call's.

use std::time::{Duration, Instant};

use super::state::End;
use super::{Clock, Machine};
use crate::error::{Error, ErrorKind};

#[derive(Debug)]
pub(super) struct Times {
    pub read_timeout: Option<Duration>,
    pub write_timeout: Option<Duration>,
    /// For the idle time-outs of callback mode.
    received: Option<Instant>,
    sent: Option<Instant>,
}

impl Times {
    pub fn new(read_timeout: Option<Duration>, write_timeout: Option<Duration>) -> Times {
        Times { read_timeout, write_timeout, received: None, sent: None }
    }

    #[inline]
    pub fn received(&mut self, driven: bool, clock: &impl Clock) {
        if driven && self.read_timeout.is_some() {
            self.received = Some(clock.now());
        }
    }

    #[inline]
    pub fn sent(&mut self, driven: bool, clock: &impl Clock) {
        if driven && self.write_timeout.is_some() {
            self.sent = Some(clock.now());
        }
    }
}

impl Machine {
    pub fn read_timeout(&self) -> Option<Duration> {
        self.times.read_timeout
    }

    pub fn write_timeout(&self) -> Option<Duration> {
        self.times.write_timeout
    }

    pub fn set_read_timeout(&mut self, timeout: Option<Duration>, clock: &impl Clock) {
        self.times.read_timeout = timeout;
        self.note_timeouts(clock);
    }

    pub fn set_write_timeout(&mut self, timeout: Option<Duration>, clock: &impl Clock) {
        self.times.write_timeout = timeout;
        self.note_timeouts(clock);
    }

    /// The idle time-outs begin anew.
    pub(super) fn note_timeouts(&mut self, clock: &impl Clock) {
        self.times.received(self.driven, clock);
        self.times.sent(self.driven, clock);
    }

    /// Something has been accepted.
    #[inline]
    pub(super) fn note_accepted(&mut self, clock: &impl Clock) {
        self.deliver.write_armed = true;
        self.send.has_accepted = true;
        self.times.sent(self.driven, clock);
    }

    /// For calls that wait.
    #[inline]
    pub(super) fn machine_deadline(&self) -> Option<Instant> {
        if self.is_calm() {
            return None;
        }
        [self.handshake_deadline(), self.end_deadline()].into_iter().flatten().min()
    }

    /// When something becomes due by time alone.
    pub fn deadline(&self) -> Option<Instant> {
        let common = self.machine_deadline();
        if !self.driven || (self.times.read_timeout.is_none() && self.times.write_timeout.is_none()) {
            return common;
        }
        [common, self.idle_read(), self.idle_write()].into_iter().flatten().min()
    }

    fn idle_read(&self) -> Option<Instant> {
        let runs = self.settled()
            && self.deliver.may_give_data()
            && self.end.state == End::Not
            && !self.tls.has_ended()
            && !self.receive.shut;
        self.times.received?.checked_add(self.times.read_timeout?).filter(|_| runs)
    }

    fn idle_write(&self) -> Option<Instant> {
        let runs = self.settled()
            && self.deliver.installed.any()
            && self.unsent() > 0
            && self.end.state == End::Not
            && self.tls.failure().is_none();
        self.times.sent?.checked_add(self.times.write_timeout?).filter(|_| runs)
    }

    /// The one place where time acts.
    pub(super) fn expire(&mut self, clock: &impl Clock) {
        let Some(deadline) = self.deadline() else { return };
        let now = clock.now();
        if now < deadline {
            return;
        }
        self.expire_handshake(now);
        self.expire_end(now);
        let over = |at: Option<Instant>| at.is_some_and(|at| now >= at);
        let idle = match (over(self.idle_read()), over(self.idle_write())) {
            (true, _) => self.times.read_timeout.map(|time| ("received", time)),
            (_, true) => self.times.write_timeout.map(|time| ("sent", time)),
            _ => None,
        };
        if let Some((what, time)) = idle.filter(|_| self.driven) {
            self.fail(Error::new(ErrorKind::TimedOut, format!("nothing was {what} for {time:?}")));
            self.drop_output();
        }
    }
}
