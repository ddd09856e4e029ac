//! What a file is, but for its stream, its locks, its threads and its clock.
//!
//! A [`Machine`] does no I/O, takes no lock, reads no clock and knows no thread: whoever drives it does. So a test can take
//! it through any order of events, by the million (`world`). There are four kinds of method:
//!
//! | kind | methods | what they do |
//! |---|---|---|
//! | inputs | `received`, `sent`, `lease_lost`, `room`, `broken`, `interrupt`, `shut`, `queue`, `abort`, `user_gone`, … | something has happened |
//! | calls | `begin`, then `poll_read`, `poll_write`, `poll`, any number of times, until `Done`; or `abandon` | what a user has asked for; resumable, by any driver |
//! | outputs | `job`, `waits`, `deadline`, `due`, `take_stir` | what is to be done now, waited for, or told |
//! | questions | `read_end`, `write_error`, `state`, `unsent`, `interest`, … | answered from what is here, changing nothing |
//!
//! A [`Job`] is a piece of I/O with the right to do it: one for each direction at a time (a lease). The driver does it without
//! the file's lock and gives the lease back with what came of it, a panic included. In between any other method may be called.
//! Every input and every poll first expires what is due, so that no path passes a deadline by.
//!
//! # What is owed
//!
//! `check` holds this after every step, in every test and in the simulated world:
//!
//! | owed | one of these holds |
//! |---|---|
//! | accepted bytes, our end | writable is waited for; the send lease is out; a call has its turn; a handshake is owed; the outcome says lost |
//! | the handshake's outcome | readable or writable is waited for; a lease is out; a deadline |
//! | an armed write callback | bytes are owed; or it is due; or close has been told, or is owed by our own end |
//! | the close callback | it is due; readable is waited for; paused, and the stream not known to be dead |
//!
//! # States
//!
//! `outcome` has the table of what each call gives in each state, `ending` that of our own end.

mod call;
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

pub(crate) use call::{most_receives, Call, Kind, Patience, Step, Stir, Waits};
pub(crate) use deliver::{Due, Installed};
pub(crate) use ending::CLOSE_TIMEOUT;
pub(crate) use job::{Job, Received, SendLease, Sent, Tries, Which};
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
    pub send_limit: usize,
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
            send: Sending::new(setup.send_limit),
            shake: Handshaking::new(setup.handshake_timeout, tls.is_plain_text()),
            end: Ending::new(setup.close_timeout),
            deliver: Delivering::default(),
            lend: Lending::Own,
            times: Times::new(setup.read_timeout, setup.write_timeout),
            outcome: Outcome::default(),
            waiting: 0,
            interrupts: 0,
            stir: Stir::default(),
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
        self.stir.state = true;
    }

    /// A file inside has something left to send that nobody may wait for: all who wait are to look again.
    pub fn look_again(&mut self) {
        self.stir.state = true;
    }

    /// What has changed since this was last asked: who waits for it is to look again.
    #[inline]
    pub fn take_stir(&mut self) -> Stir {
        std::mem::take(&mut self.stir)
    }

    /// Time has passed, or somebody looks.
    pub fn tick(&mut self, clock: &impl Clock) {
        self.end.held = false;
        if !self.is_calm() || self.driven {
            self.look(clock);
        }
    }

    /// After every input: what follows from it without I/O.
    fn look(&mut self, clock: &impl Clock) {
        self.expire(clock);
        // Who closes without having said anything needs no handshake for it.
        let has_nothing_to_say = self.end.is_closing() && self.send.queue.is_empty();
        if !self.settled() && !has_nothing_to_say {
            self.shake_hands(clock);
        }
        if self.receive.shut && self.settled() {
            // Nobody will read it, and the end is behind it.
            let had_ended = self.tls.has_ended();
            self.tls.discard_all();
            self.stir.state |= had_ended != self.tls.has_ended();
        }
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

#[cfg(test)]
mod tests {
    /// What would make the machine impure, by the names it goes by.
    const IMPURE: [&str; 12] = [
        "Instant::now",
        "SystemTime",
        "Mutex",
        "Condvar",
        "Atomic",
        "thread",
        "OwnedFd",
        "RawFd",
        "TcpStream",
        "crate::stream",
        "crate::sys",
        "crate::drive",
    ];

    #[test]
    fn knows_no_stream_no_lock_no_thread_and_no_clock() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/machine");
        let mut read = 0;
        for entry in std::fs::read_dir(folder).expect("the sources").flatten() {
            let path = entry.path();
            if path.extension().is_none_or(|e| e != "rs") {
                continue;
            }
            let text = std::fs::read_to_string(&path).expect("a source file");
            let code = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
            for line in code.lines().filter(|line| !line.trim_start().starts_with("//")) {
                for word in IMPURE {
                    assert!(!line.contains(word), "{}: {word} in `{}`", path.display(), line.trim());
                }
            }
            read += 1;
        }
        assert!(read > 10, "{read} files looked at");
    }
}
