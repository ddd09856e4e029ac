//! What a file is, but for its stream, its locks, its threads and its clock.
//!
//! A [`Machine`] does no I/O, takes no lock, reads no clock and knows no thread: whoever drives it does. So a test can take
//! it through any order of events, by the million (`world`). There are four kinds of method:
//!
//! | kind | methods | what they do |
//! |---|---|---|
//! | inputs | `received`, `sent`, `half_closed`, `given_back`, `lease_lost`; `room`, `broken`, `hung_up`, `tick`; `interrupt`, `shut`, `queue`, `owe_push`, `begin_close`, `abort`, `linger`, `lend`, `take_home`; `set_driven`, `set_installed`, `pause_reading` | something has happened: to the stream, at the system's, by a user |
//! | calls | `begin`, then `poll_read`, `poll_write`, `poll`, any number of times, until `Done`; or `abandon` | what a user has asked for; resumable, by any driver |
//! | outputs | `job`, `wants_input`, `wants_room`, `watches_for_hang_up`, `deadline`, `due`, `take_stir` | what is to be done now, waited for, or told |
//! | questions | `read_end`, `write_error`, `state`, `unsent`, `interest`, `last_error`, `release_error` | answered from what is here, changing nothing |
//!
//! A driver begins a call and polls it. What it is to wait for comes back with the poll; it does a job instead, if there is one,
//! and polls again. A backend does jobs until there are none, and then tells what is due.
//!
//! A [`Job`] is a piece of I/O with the right to do it: one for each direction at a time (a lease). The driver does it without
//! the file's lock and gives the lease back with what came of it, a panic included. In between any other method may be called.
//! Time acts in two places alone: `tick`, for a backend, which tries the stream before that if something is due (`is_overdue`), and
//! the poll of a call that has tried all it can since it was told that time is over (`Waits::afresh`). So what has come in time
//! counts, however late a driver comes.
//!
//! # What holds
//!
//! `check` looks at these after every step, in every test and in the simulated world, line by line:
//!
//! | always | that is |
//! |---|---|
//! | states follow each other as they are drawn | from one giving up of the lock to the next arrows of `State` lead |
//! | input ahead is bounded | by 1 MiB and one receive; by 16 MiB once a clean close has begun |
//! | answers are bounded | what TLS says by itself: 4 KiB, and the answers to one record more |
//! | accepted bytes go, or are lost | there is output; or the send lease is out, a call has its turn, a handshake is owed; or the connection has failed |
//! | our end goes | as accepted bytes; or it is over, or the stream takes nothing |
//! | what a renegotiation waits for can come | while nothing can be encrypted, the stream has not ended |
//! | a handshake is waited for, or fails in time | input is expected, or there is output, or a lease is out; or it has a deadline |
//! | an armed write callback is owed something, or due | bytes are owed; or it is due; or close has been told, or is owed by our own end |
//! | the close callback is due, or the end is watched for | more is expected, or what has come is not taken yet; paused, a reset is watched for |
//! | the writer whose turn it is does not wait for it | a ticket is in one place |
//! | what goes first is in the queue | what was queued before the write at hand |
//! | no turn, nothing that goes first | |
//! | plaintext is counted where it is | encrypted: in the output; in flight: in the flight, or with who sends it |
//! | what is calm has no deadline | so that calls may go the short way |
//! | an end of ours shuts writing | `close`, `close_clean` |
//! | over, nothing is owed | |
//! | our end has come out somehow | what `close` and the close callback are told is there |
//!
//! # States
//!
//! `state` has the pictures of them, `calls.md` the table of what each call gives in each.

mod call;
mod calm;
#[cfg(any(test, debug_assertions))]
mod check;
mod deadlines;
mod deliver;
mod ending;
mod handshake;
mod job;
mod lending;
mod outcome;
mod read;
mod send;
mod state;
#[cfg(test)]
pub(crate) mod world;
mod write;

use std::time::{Duration, Instant};

use crate::connection::Connection;
use crate::error::Error;

pub(crate) use call::{Call, Kind, Patience, Sleeper, Step, Stir, Waits};
pub(crate) use deadlines::Deadlines;
pub(crate) use deliver::{Due, Installed};
pub(crate) use ending::CLOSE_TIMEOUT;
pub use job::Going;
pub(crate) use job::{Job, ReceiveLease, Received, SendLease, Sent, Tries, Which};
pub(crate) use outcome::{not_open, own, taken};
pub(crate) use send::After;
pub use state::{Interest, State};

use deadlines::Times;
use deliver::Delivering;
use ending::Ending;
use handshake::Handshaking;
use lending::Lending;
use outcome::Outcome;
use read::Receiving;
use send::Sending;

/// What time it is. Asked only where a deadline hangs on it.
pub(crate) trait Clock {
    fn now(&self) -> Instant;
}

/// One that stands.
impl Clock for Instant {
    #[inline]
    fn now(&self) -> Instant {
        *self
    }
}

/// How the stream can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Manner {
    /// It has descriptors: it is tried, and then waited for.
    Polled,
    /// It gives `WouldBlock` by itself, and nobody can wait for it.
    Tried,
    /// To try it is to wait for it.
    Blocks,
}

/// What a file begins with.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    pub manner: Manner,
    /// The stream is a file itself, which gets its stream back after a handshake that failed.
    pub over_file: bool,
    pub nonblocking: bool,
    pub read_timeout: Option<Duration>,
    pub write_timeout: Option<Duration>,
    pub close_timeout: Duration,
    /// As it was set, if it was.
    pub handshake_timeout: Option<Option<Duration>>,
    /// Our end is the stream's too.
    pub half_closes: bool,
    pub send_limit: usize,
    pub deadlines: Deadlines,
    pub tells_would_block: bool,
}

/// A file without its stream. See the module's page.
pub(crate) struct Machine {
    pub tls: Connection,
    manner: Manner,
    over_file: bool,
    /// Calls of users do not wait.
    pub nonblocking: bool,
    /// A backend drives the file.
    driven: bool,
    receive: Receiving,
    send: Sending,
    shake: Handshaking,
    end: Ending,
    deliver: Delivering,
    lend: Lending,
    times: Times,
    outcome: Outcome,
    /// Calls that wait.
    waiting: usize,
    /// Counts interrupts: a call that sees another number than it began with has been interrupted.
    interrupts: u64,
    stir: Stir,
    /// When the lock was last given up.
    #[cfg(any(test, debug_assertions))]
    seen: std::cell::Cell<State>,
    #[cfg(test)]
    old_rules: world::OldRules,
    /// Of the old rule i: something has come since the stream was last found dry.
    #[cfg(test)]
    old_passes_by: bool,
}

impl Machine {
    pub fn new(tls: Connection, setup: &Setup) -> Machine {
        Machine {
            manner: setup.manner,
            over_file: setup.over_file,
            nonblocking: setup.nonblocking,
            driven: false,
            receive: Receiving::default(),
            send: Sending::new(setup),
            shake: Handshaking::new(setup.handshake_timeout, tls.is_plain_text()),
            end: Ending::new(setup.close_timeout),
            deliver: Delivering::default(),
            lend: Lending::Own,
            times: Times::new(setup),
            outcome: Outcome::default(),
            waiting: 0,
            interrupts: 0,
            stir: Stir::default(),
            #[cfg(any(test, debug_assertions))]
            seen: std::cell::Cell::new(State::Handshaking),
            #[cfg(test)]
            old_rules: Default::default(),
            #[cfg(test)]
            old_passes_by: false,
            tls,
        }
    }

    /// A backend drives the file from now on, or does so no more.
    pub fn set_driven(&mut self, driven: bool, clock: &impl Clock) {
        self.driven = driven;
        self.note_timeouts(clock);
        self.stir.state = true;
    }

    /// Makes calls that wait end. Nothing happens to those that do not.
    pub fn interrupt(&mut self) {
        if self.waiting > 0 {
            self.interrupts += 1;
            self.stir.state = true;
        }
    }

    /// How often that has been done.
    #[inline]
    pub fn interrupts(&self) -> u64 {
        self.interrupts
    }

    /// A call waits.
    pub fn is_busy(&self) -> bool {
        self.waiting > 0
    }

    pub fn manner(&self) -> Manner {
        self.manner
    }

    /// The stream can be used without being blocked by it.
    pub fn can_try(&self) -> bool {
        self.manner != Manner::Blocks
    }

    /// Ends directions. What can't be said now is said by the next call, or by the backend.
    pub fn shut(&mut self, write: bool, read: bool) {
        if write {
            self.send.ask_end();
        }
        self.receive.shut |= read;
        self.discard_unwanted();
        self.stir.state = true;
    }

    /// After `shutdown(Read)` nobody will read what has come, and the end is behind it.
    fn discard_unwanted(&mut self) {
        if self.receive.shut && self.settled() {
            let had_ended = self.tls.has_ended();
            self.tls.discard_all();
            self.stir.state |= had_ended != self.tls.has_ended();
        }
    }

    /// What has changed since this was last asked: who waits for it is to look again.
    #[inline]
    pub fn take_stir(&mut self) -> Stir {
        std::mem::take(&mut self.stir)
    }

    /// A backend looks. It has tried the stream, if something was due.
    pub fn tick(&mut self, clock: &impl Clock) {
        self.end.held = false;
        if !self.is_timeless() {
            self.look(clock);
            self.expire(clock);
        }
    }

    /// A call looks.
    fn look_for(&mut self, call: &Call, clock: &impl Clock) {
        self.look(clock);
        if let Some(then) = call.has_tried_since() {
            self.expire(&then);
        }
    }

    /// After every input: what follows from it without I/O and without time.
    pub fn look(&mut self, clock: &impl Clock) {
        // Who closes without having said anything needs no handshake for it.
        let has_nothing_to_say = self.end.is_closing() && self.send.queue.is_empty();
        if !self.settled() && !has_nothing_to_say {
            self.shake_hands(clock);
        }
        self.discard_unwanted();
        if self.end.is_under_way() {
            self.step_end(clock);
        }
    }

    /// The connection has failed for a reason of ours.
    fn fail(&mut self, error: Error) {
        self.tls.fail(error);
        self.stir.state = true;
    }
}
