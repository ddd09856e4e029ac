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
//! | the reader's and the writer's, in a backend | they are points in time | the same |
//!
//! Those of calls end the call: that of its time-out is the call's own, and beside it the reader's or the writer's deadline
//! counts, as it stands while the call waits.

use std::time::{Duration, Instant};

use super::call::{Call, Kind};
use super::state::End;
use super::{Clock, Machine, Setup};
use crate::error::{Error, ErrorKind};

#[derive(Debug)]
pub(super) struct Times {
    pub read_timeout: Option<Duration>,
    pub write_timeout: Option<Duration>,
    /// For the idle time-outs of callback mode.
    received: Option<Instant>,
    sent: Option<Instant>,
    /// Made when one is set: most connections never have any.
    deadlines: Option<Box<Deadlines>>,
    /// A call's time-out is told as `WouldBlock`.
    pub tells_would_block: bool,
}

/// For all calls of a direction, from now on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Deadlines {
    pub read: Option<Instant>,
    pub write: Option<Instant>,
}

impl Deadlines {
    fn boxed(self) -> Option<Box<Deadlines>> {
        (self != Deadlines::default()).then(|| Box::new(self))
    }
}

/// The end of a time-out, or the deadline.
pub(super) fn earlier(since: Option<Instant>, timeout: Option<Duration>, deadline: Option<Instant>) -> Option<Instant> {
    let end = since.zip(timeout).and_then(|(since, timeout)| since.checked_add(timeout));
    end.into_iter().chain(deadline).min()
}

impl Times {
    pub fn new(setup: &Setup) -> Times {
        Times {
            read_timeout: setup.read_timeout,
            write_timeout: setup.write_timeout,
            received: None,
            sent: None,
            deadlines: setup.deadlines.boxed(),
            tells_would_block: setup.tells_would_block,
        }
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

    pub fn deadlines(&self) -> Deadlines {
        self.times.deadlines.as_deref().copied().unwrap_or_default()
    }

    /// Calls that wait are bound by them from now on.
    pub fn set_deadlines(&mut self, deadlines: Deadlines) {
        self.times.deadlines = deadlines.boxed();
        self.stir.state = true;
    }

    pub fn tells_would_block(&self) -> bool {
        self.times.tells_would_block
    }

    /// How a call's time-out is told.
    pub fn set_tells_would_block(&mut self, yes: bool) {
        self.times.tells_would_block = yes;
    }

    /// Of its direction. `close` has its own time.
    #[inline]
    pub(super) fn deadline_of(&self, call: &Call) -> Option<Instant> {
        let deadlines = self.times.deadlines.as_deref().filter(|_| !call.wraps)?;
        match call.kind {
            Kind::Read | Kind::Handshake | Kind::CloseClean => deadlines.read,
            Kind::Write | Kind::Flush => deadlines.write,
            Kind::Close => None,
        }
    }

    #[inline]
    pub(super) fn has_deadlines(&self) -> bool {
        self.times.deadlines.is_some()
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

    /// All is calm, and no idle time-out is set: nothing becomes due by time alone.
    #[inline]
    pub(super) fn is_timeless(&self) -> bool {
        self.is_calm() && !self.may_idle()
    }

    /// Idle time-outs are set, or deadlines.
    #[inline]
    fn may_idle(&self) -> bool {
        self.driven && (self.times.read_timeout.is_some() || self.times.write_timeout.is_some() || self.has_deadlines())
    }

    /// When something becomes due by time alone.
    #[inline]
    pub fn deadline(&self) -> Option<Instant> {
        match self.is_timeless() {
            true => None,
            false => self.earliest(),
        }
    }

    fn earliest(&self) -> Option<Instant> {
        let common = self.machine_deadline();
        if !self.may_idle() {
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
        earlier(self.times.received, self.times.read_timeout, self.deadlines().read).filter(|_| runs)
    }

    fn idle_write(&self) -> Option<Instant> {
        let runs = self.settled()
            && self.deliver.installed.any()
            && self.unsent() > 0
            && self.end.state == End::Not
            && self.tls.failure().is_none();
        earlier(self.times.sent, self.times.write_timeout, self.deadlines().write).filter(|_| runs)
    }

    /// Something is due by time, which acts with the next `tick`. What can be done without waiting comes before it.
    #[inline]
    pub fn is_overdue(&self, clock: &impl Clock) -> bool {
        self.deadline().is_some_and(|deadline| clock.now() >= deadline)
    }

    /// The one function by which time acts.
    pub(super) fn expire(&mut self, clock: &impl Clock) {
        let Some(deadline) = self.deadline() else { return };
        let now = clock.now();
        if now < deadline {
            return;
        }
        self.expire_handshake(now);
        self.expire_end(now);
        let over = |at: Option<Instant>| at.is_some_and(|at| now >= at);
        let (what, timeout, deadline) = match (over(self.idle_read()), over(self.idle_write())) {
            (true, _) => ("received", self.times.read_timeout, self.deadlines().read),
            (_, true) => ("sent", self.times.write_timeout, self.deadlines().write),
            _ => return self.look(clock),
        };
        if self.driven {
            let text = match timeout.filter(|_| !over(deadline)) {
                Some(time) => format!("nothing was {what} for {time:?}"),
                None => format!("the deadline has passed, and nothing was {what}"),
            };
            self.fail(Error::new(ErrorKind::TimedOut, text));
            self.drop_output();
        }
        self.look(clock);
    }
}
