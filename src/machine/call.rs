//! Calls of users: what they ask for, how long they wait, and what they wait for meanwhile.

use std::io;
use std::time::{Duration, Instant};

use super::outcome::interrupted;
use super::send::Ticket;
use super::state::Interest;
use super::{Clock, Machine};
use crate::error::{Error, ErrorKind};

/// What a call asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Read,
    Write,
    Flush,
    Handshake,
    Close,
    CloseClean,
}

/// How long a call waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Patience {
    Never,
    Until(Option<Instant>),
}

/// One call of a user, kept by its driver from one poll to the next.
#[derive(Debug)]
pub(crate) struct Call {
    pub kind: Kind,
    pub patience: Patience,
    /// What the deadline was made from, for its error.
    pub timeout: Option<Duration>,
    /// Made by a file that wraps this one, which alone may use it.
    pub wraps: bool,
    /// Time is over, the call's own or the connection's, and since when it knows: it tries once more, and does not wait. Behind that
    /// time acts, as far as it had passed then.
    hasty: Option<Instant>,
    /// How often it has been polled since.
    tries: u8,
    /// The driver has tried all that can be tried without waiting.
    pub exhausted: bool,
    interrupts: u64,
    /// It has begun to wait, and is counted.
    waits: bool,
    pub(super) write: super::write::Progress,
    /// Its first poll has been made.
    pub(super) begun: bool,
}

/// What comes of a poll.
#[derive(Debug)]
pub(crate) enum Step<T> {
    Done(Result<T, Error>),
    /// The call may not wait, and would have to. Without an error's allocation.
    WouldBlock,
    Wait(Waits),
}

/// What a call, or a backend, waits for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Waits {
    /// The stream can be received from.
    pub readable: bool,
    /// The stream can be sent to.
    pub writable: bool,
    pub until: Option<Instant>,
    /// The call has become hasty: what was tried before counts no more.
    pub afresh: bool,
    /// Something has come.
    pub input: bool,
    /// All output has been handed to the stream.
    pub drained: bool,
    /// The lease of a direction that somebody else has.
    pub receive_lease: bool,
    pub send_lease: bool,
    /// Its turn to write.
    pub turn: Option<Ticket>,
    /// It would wait for this as well, if nobody else did.
    pub may_send: bool,
    pub may_receive: bool,
}

impl Waits {
    /// Nothing that a receive meanwhile could pass by.
    pub fn are_for_room_alone(&self) -> bool {
        self.writable && !self.readable
    }

    pub fn of_stream(&self) -> Interest {
        Interest { readable: self.readable, writable: self.writable }
    }

    /// A reader leaves it to a writer who waits for room, if there is one, to send what there is.
    pub fn less_room(self, kind: Kind, is_awaited: bool) -> Waits {
        Waits { writable: self.writable && !(is_awaited && kind == Kind::Read), ..self }
    }
}

/// A call that waits, as its driver keeps it.
pub(crate) trait Sleeper {
    fn waits(&self) -> &Waits;
    /// What it watches the descriptor for: of a file inside, what that made of its waits when it began.
    fn watched(&self) -> Interest;
    /// It is awake, or about to be, and will look at all there is.
    fn is_rung(&self) -> bool;
    fn ring(&mut self);
}

/// What has changed: those who wait for it are to be woken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Stir {
    /// Something that concerns everybody.
    pub state: bool,
    pub input: bool,
    pub drained: bool,
}

impl Stir {
    pub fn and(self, other: Stir) -> Stir {
        Stir {
            state: self.state || other.state,
            input: self.input || other.input,
            drained: self.drained || other.drained,
        }
    }
}

/// A stream that takes all, or gives without end, does not stretch a call whose time is over: what had come in time, the end behind
/// it, and what had room in time.
const MOST_TRIES: u8 = 4;

impl Call {
    /// What it may receive without waiting. The second time finds the end behind what there was the first time: who is told of
    /// changes only is not told of it again. What an end throws away can be more than is received at a time.
    pub fn most_receives(&self) -> usize {
        match self.kind {
            Kind::Close | Kind::CloseClean if !self.is_hasty() => 16,
            _ => 2,
        }
    }

    /// It has begun when there had been so many interrupts.
    #[inline]
    pub fn since(self, interrupts: u64) -> Call {
        Call { interrupts, ..self }
    }

    /// A signal has come instead of what was tried.
    pub fn try_again(&mut self) {
        self.tries = self.tries.saturating_sub(1);
    }

    #[inline]
    pub fn is_hasty(&self) -> bool {
        self.hasty.is_some()
    }

    /// What had passed by then may act.
    #[inline]
    pub(super) fn has_tried_since(&self) -> Option<Instant> {
        self.hasty.filter(|_| self.exhausted)
    }
}

impl Machine {
    /// Begins a call. `timeout` bounds it, if it may wait.
    #[inline]
    pub fn begin(&self, kind: Kind, wraps: bool, timeout: Option<Duration>, clock: &impl Clock) -> Call {
        let never = match wraps {
            true => self.can_try(),
            false => self.nonblocking,
        };
        let patience = match (never, timeout) {
            (true, _) => Patience::Never,
            (false, Some(time)) => Patience::Until(clock.now().checked_add(time)),
            (false, None) => Patience::Until(None),
        };
        Call {
            kind,
            patience,
            timeout,
            wraps,
            hasty: None,
            tries: 0,
            exhausted: false,
            interrupts: self.interrupts,
            waits: false,
            write: Default::default(),
            begun: false,
        }
    }

    /// The call is over: it is counted no more, and leaves the queue of writers.
    #[inline]
    pub fn leave(&mut self, call: &mut Call) {
        if call.waits {
            call.waits = false;
            self.waiting -= 1;
            if call.kind == Kind::Read {
                self.receive.readers -= 1;
            }
        }
        if let Some(ticket) = call.write.ticket.take() {
            self.send.leave(ticket);
        }
    }

    /// The driver gives the call up: what it has accepted stays accepted. Says how much that is.
    pub fn abandon(&mut self, mut call: Call) -> usize {
        self.leave(&mut call);
        call.write.done
    }

    /// The call ends, unless it may wait.
    pub(super) fn wait<T>(&mut self, call: &mut Call, mut waits: Waits, clock: &impl Clock) -> Step<T> {
        if self.is_interrupted(call) {
            return self.done(call, Err(interrupted()));
        }
        let common = self.deadline_of(call);
        let own = match call.patience {
            Patience::Until(own) => own,
            Patience::Never => None,
        };
        // Then the connection's time has acted in this poll, and the call may go on.
        let has_tried = call.has_tried_since().is_some();
        if call.is_hasty() && !has_tried {
            call.tries += 1;
            call.exhausted |= call.tries == MOST_TRIES;
            // What is left is for what has come.
            waits.writable &= call.tries < MOST_TRIES / 2;
        }
        if let Some(then) = call.has_tried_since() {
            let had_passed = |at: Option<Instant>| at.is_some_and(|at| then >= at);
            if had_passed(own) || had_passed(common) {
                let mut error = timed_out(call.timeout.filter(|_| had_passed(own)));
                if self.times.tells_would_block {
                    error = error.with_io_kind(io::ErrorKind::WouldBlock);
                }
                return self.done(call, Err(error));
            }
        }
        if has_tried {
            call.hasty = None;
        }
        let until = [own, common, self.machine_deadline()].into_iter().flatten().min();
        if call.patience == Patience::Never && call.exhausted {
            return self.would_block(call);
        }
        if let Some(until) = until.filter(|_| call.hasty.is_none()) {
            call.hasty = Some(clock.now()).filter(|now| *now >= until);
            if call.is_hasty() {
                (waits.afresh, call.exhausted, call.tries) = (true, false, 0);
                self.room();
            }
        }
        if call.patience != Patience::Never {
            waits.until = until;
            self.count(call);
        }
        Step::Wait(waits)
    }

    /// It waits, and is counted, once.
    #[inline]
    pub(super) fn count(&mut self, call: &mut Call) {
        if !std::mem::replace(&mut call.waits, true) {
            self.waiting += 1;
            if call.kind == Kind::Read {
                self.receive.readers += 1;
            }
        }
    }

    #[inline]
    pub fn is_interrupted(&self, call: &Call) -> bool {
        call.interrupts != self.interrupts
    }

    #[inline]
    pub(super) fn done<T>(&mut self, call: &mut Call, result: Result<T, Error>) -> Step<T> {
        self.leave(call);
        Step::Done(result)
    }

    pub(super) fn would_block<T>(&mut self, call: &mut Call) -> Step<T> {
        self.leave(call);
        Step::WouldBlock
    }

    /// A handshake, a flush or an end.
    pub fn poll(&mut self, call: &mut Call, clock: &impl Clock) -> Step<()> {
        match call.kind {
            Kind::Handshake => self.poll_handshake(call, clock),
            Kind::Flush => self.poll_flush(call, clock),
            Kind::Close => self.poll_close(call, clock),
            Kind::CloseClean => self.poll_clean(call, clock),
            Kind::Read | Kind::Write => unreachable!("these have polls of their own"),
        }
    }

    /// Whether what has changed is what somebody waits for.
    pub fn concerns(&self, waits: &Waits, stir: Stir) -> bool {
        stir.state
            || (stir.input && waits.input)
            || (stir.drained && waits.drained)
            || (waits.receive_lease && self.receive.is_free())
            || (waits.send_lease && self.send.is_free())
            || waits.turn.is_some_and(|ticket| self.send.is_turn_of(ticket))
    }

    /// Rings for those whom it concerns; and for one to wait for the stream where nobody does and somebody should. `stream` tells,
    /// of what is wanted of it, what its descriptor is to be watched for, and whether it has something that no descriptor tells of.
    pub fn wake(&self, sleepers: &mut [impl Sleeper], stir: Stir, stream: impl Fn(Interest) -> (Interest, bool)) {
        if sleepers.is_empty() {
            return;
        }
        for sleeper in sleepers.iter_mut().filter(|sleeper| !sleeper.is_rung()) {
            // A file inside may have got something meanwhile, for us or to send, or may take what it did not.
            let misses_something = || {
                let wanted = sleeper.waits().of_stream();
                if wanted == Interest::NONE {
                    return false;
                }
                let (watched, is_ready) = stream(wanted);
                watched.is_more_than(sleeper.watched()) || (wanted.readable && is_ready)
            };
            if self.concerns(sleeper.waits(), stir) || misses_something() {
                sleeper.ring();
            }
        }
        type Of = fn(&Waits) -> bool;
        for (lacks, watches, would) in [
            (Machine::lacks_sender as fn(&Machine) -> bool, (|w| w.writable) as Of, (|w| w.may_send) as Of),
            (Machine::lacks_receiver, |w| w.readable, |w| w.may_receive),
        ] {
            let is_watched = sleepers.iter().any(|sleeper| sleeper.is_rung() || watches(sleeper.waits()));
            if !is_watched && lacks(self) {
                if let Some(sleeper) = sleepers.iter_mut().find(|sleeper| would(sleeper.waits())) {
                    sleeper.ring();
                }
            }
        }
    }

    /// There is output that somebody should wait to send.
    pub(super) fn lacks_sender(&self) -> bool {
        !self.driven && self.send.is_free() && self.has_output()
    }

    /// Writers wait for a peer that may wait for us to read: somebody should.
    fn lacks_receiver(&self) -> bool {
        self.receive.readers == 0 && self.admits(self.limit_of_writers())
    }
}

pub(super) fn timed_out(timeout: Option<Duration>) -> Error {
    let text = match timeout {
        Some(time) => format!("the time-out of {time:?} has passed"),
        None => "the deadline has passed".to_string(),
    };
    Error::new(ErrorKind::TimedOut, text)
}
