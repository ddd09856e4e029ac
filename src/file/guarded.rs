//! What stands behind a file's lock, and the questions that can be answered from it alone.

use std::io;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::MutexGuard;

use super::alert_queue::{self, AlertWatch};
use super::events::Events;
use super::turn::Turn;
use crate::connection::{write_shut_down, Connection};
use crate::engine::Buffer;
use crate::error::{Error, ErrorKind};
use crate::stream::{after, Inherited, Sleeper, Wait};

/// Under the lock.
pub(crate) struct Core {
    pub connection: Connection,
    pub nonblocking: bool,
    pub read_timeout: Option<Duration>,
    pub write_timeout: Option<Duration>,
    /// The stream has been taken over by another file, which alone may use it.
    pub taken: bool,

    pub reading: bool,
    pub writing: Turn,
    /// Calls that are waiting, for data, for room or for a turn.
    pub waiting: usize,
    /// Threads that wait in the stream.
    pub sleepers: Vec<Arc<Sleeper>>,
    /// Counts interrupts: a call that sees another number than it began with has been interrupted.
    pub interrupts: u64,

    /// The handshake is done and what the peer needs of it has been sent; or it has failed.
    pub settled: bool,
    pub handshake_deadline: Option<Instant>,
    /// The errors have been given the peer's name.
    pub named: bool,

    /// Accepted, not yet encrypted.
    pub queue: Buffer,
    /// Plaintext bytes in the connection's output.
    pub encrypted: usize,
    /// Ciphertext taken out for sending, less what has been sent, and the plaintext bytes in it. The holder of the
    /// writing turn has it in hand while it sends.
    pub flight: Buffer,
    pub flight_plain: usize,
    /// A half-close follows the flight.
    pub flight_is_last: bool,
    /// When something was last sent, kept up while closing.
    pub progress: Option<Instant>,
    /// The stream takes nothing more.
    pub write_failure: Option<Error>,
    /// The same, when the peer still needed our part of the handshake: the handshake has failed too.
    pub handshake_cut: Option<Error>,
    /// Accepted bytes were lost with that.
    pub lost: bool,

    pub read_shut: bool,
    pub write_shut: bool,
    pub half_closed: bool,
    /// Both directions of the stream have been ended, with our `close`.
    pub stream_ended: bool,
    pub ending: Ending,
    /// While closing: until when to read away what the peer still sends.
    pub drain_deadline: Option<Instant>,
    pub close_timeout: Duration,
    /// What was behind the peer's close_notify and the stream could not take back.
    pub leftover: Vec<u8>,
    /// The stream has been given back, though it is still in here.
    pub returned: bool,
    /// A reader waits in the stream for what comes next.
    pub reader_waits: bool,
    /// The stream takes no more for now.
    pub full: bool,
    /// The stream, a file itself, has taken something that it could not send on yet.
    pub held_back: bool,
    /// The stream has taken all, but has not been flushed since.
    pub flush_owed: bool,
    pub events: Events,
    pub alert_watch: Option<Arc<AlertWatch>>,
    pub handshake_begun: Option<Instant>,
    pub handshake_time: Option<Duration>,
}

/// Our own end of the connection.
///
/// | state | read | write |
/// |---|---|---|
/// | `Not` | as the connection says | as the connection says |
/// | `Cleaning`: `close_clean` under way, or broken off | as the connection says | `BrokenPipe` |
/// | `Cleaned` | what is left, then `NotConnected` | `NotConnected` |
/// | `Closing`: `close` under way | what is left, then `NotConnected` | `NotConnected` |
/// | `Closed` | what is left, then `NotConnected` | `NotConnected` |
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    Not,
    Cleaning,
    Cleaned,
    Closing,
    Closed,
}

/// The file's lock. Whoever gives it up tells the backend, if there is one, what has become of the file, and the user of the
/// alerts that came or went.
pub(crate) struct Guard<'a> {
    pub inner: MutexGuard<'a, Core>,
}

impl Deref for Guard<'_> {
    type Target = Core;

    fn deref(&self) -> &Core {
        &self.inner
    }
}

impl DerefMut for Guard<'_> {
    fn deref_mut(&mut self) -> &mut Core {
        &mut self.inner
    }
}

impl Drop for Guard<'_> {
    #[inline]
    fn drop(&mut self) {
        if self.events.place.is_some() {
            self.inner.tell_backend();
        }
        if self.connection.has_alerts() {
            self.pass_on_alerts();
        }
    }
}

impl Guard<'_> {
    fn pass_on_alerts(&mut self) {
        let alerts = self.connection.take_alerts();
        let Some(watch) = &self.alert_watch else { return };
        alert_queue::put(watch, alerts);
        if !alert_queue::is_in_call() {
            MutexGuard::unlocked(&mut self.inner, alert_queue::tell);
        }
    }
}

/// One call of a user: how long it may wait.
pub(crate) struct Call {
    pub wait: bool,
    pub deadline: Option<Instant>,
    /// What the deadline was made from, for errors.
    pub timeout: Option<Duration>,
    /// Each step may take this long.
    pub patience: Option<Duration>,
    pub interrupts: u64,
    /// Made by a file that wraps this one, which must look at its own state whenever we wake.
    pub nested: bool,
    /// Made by `close`, which goes on where other calls are told that it's over.
    pub closing: bool,
    /// It reads: `shutdown(Read)` ends it.
    pub reads: bool,
    /// Made by the backend, which knows that there is nothing to receive: it works with what is there.
    pub dry: bool,
}

/// Who asks.
#[derive(Clone, Copy)]
pub(crate) enum Caller {
    User,
    /// A file that wraps this one.
    Wrapper(Wait),
}

impl Core {
    pub fn new(connection: Connection, nonblocking: bool, inherited: &Inherited, close_timeout: Duration) -> Core {
        Core {
            connection,
            nonblocking,
            read_timeout: inherited.read_timeout,
            write_timeout: inherited.write_timeout,
            taken: false,
            reading: false,
            writing: Turn::default(),
            waiting: 0,
            sleepers: Vec::new(),
            interrupts: 0,
            settled: false,
            handshake_deadline: None,
            named: false,
            queue: Buffer::default(),
            encrypted: 0,
            flight: Buffer::default(),
            flight_plain: 0,
            flight_is_last: false,
            progress: None,
            write_failure: None,
            handshake_cut: None,
            lost: false,
            read_shut: false,
            write_shut: false,
            half_closed: false,
            stream_ended: false,
            ending: Ending::Not,
            drain_deadline: None,
            close_timeout,
            leftover: Vec::new(),
            returned: false,
            reader_waits: false,
            full: false,
            held_back: false,
            flush_owed: false,
            events: Events::default(),
            alert_watch: None,
            handshake_begun: None,
            handshake_time: None,
        }
    }

    #[inline]
    pub fn call(&self, caller: Caller, timeout: Option<Duration>) -> Call {
        let (wait, deadline, nested) = match caller {
            Caller::User if self.nonblocking => (false, None, false),
            Caller::User => (true, timeout.and_then(after), false),
            Caller::Wrapper(Wait::No) => (false, None, true),
            Caller::Wrapper(Wait::Until(deadline)) => (true, deadline, true),
        };
        Call {
            wait,
            deadline,
            timeout,
            patience: None,
            interrupts: self.interrupts,
            nested,
            closing: false,
            reads: false,
            dry: false,
        }
    }

    /// Bytes accepted and not yet handed to the stream.
    #[inline]
    pub fn unsent(&self) -> usize {
        self.queue.len() + self.encrypted + self.flight_plain
    }

    /// The stream could be given something.
    #[inline]
    pub fn has_output(&self) -> bool {
        let queued = !self.queue.is_empty() && self.settled;
        self.has_ciphertext() || queued || self.held_back || self.has_end_to_send()
    }

    #[inline]
    pub fn has_ciphertext(&self) -> bool {
        !self.flight.is_empty() || self.connection.has_output() || self.flush_owed
    }

    #[inline]
    pub fn has_end_to_send(&self) -> bool {
        let may_speak = self.settled || self.ending == Ending::Closing;
        self.write_shut
            && !self.half_closed
            && !self.returned
            && may_speak
            && self.write_failure.is_none()
            && !self.is_clean_end_sent()
    }

    /// `close_clean` leaves the stream open: there is nothing to do after its close_notify.
    #[inline]
    pub fn is_clean_end_sent(&self) -> bool {
        matches!(self.ending, Ending::Cleaning | Ending::Cleaned) && self.connection.write_error().is_some()
    }

    #[inline]
    pub fn is_over(&self) -> bool {
        matches!(self.ending, Ending::Closing | Ending::Closed | Ending::Cleaned)
    }

    /// There is nothing to wait for any more.
    #[inline]
    pub fn is_done(&self) -> bool {
        self.returned || matches!(self.ending, Ending::Closed | Ending::Cleaned)
    }

    /// What an event loop should wait for.
    pub fn interest(&self) -> crate::Interest {
        let is_ending = matches!(self.ending, Ending::Closing | Ending::Cleaning);
        crate::Interest {
            // After `shutdown(Read)` what comes is of use to a handshake and to an end that is under way only.
            readable: !self.is_done()
                && !self.connection.has_ended()
                && (!self.read_shut || !self.settled || is_ending),
            // Where the next call needs nothing more to come to its end: a wait that ends at once.
            writable: (is_ending && self.connection.has_ended())
                || self.has_output()
                || (!self.settled && self.connection.is_to_speak_first()),
        }
    }

    /// Whether a call may go on.
    #[inline]
    pub fn check(&self, call: &Call) -> io::Result<()> {
        if call.interrupts != self.interrupts {
            return Err(Error::new(ErrorKind::Interrupted, "interrupted").into());
        }
        if (self.is_over() && !call.closing) || (self.read_shut && call.reads) {
            return Err(not_open().into());
        }
        Ok(())
    }

    #[inline]
    pub fn check_free(&self, caller: Caller) -> io::Result<()> {
        match caller {
            Caller::User if self.taken => Err(taken().into()),
            _ => Ok(()),
        }
    }

    /// Why nothing may be written.
    pub fn write_error(&self) -> Option<Error> {
        if self.is_over() {
            return Some(not_open());
        }
        if let Some(failure) = self.connection.failure().or(self.write_failure.as_ref()) {
            return Some(failure.clone());
        }
        self.write_shut.then(write_shut_down)
    }

    #[inline]
    pub fn deadline(&self, call: &Call) -> Option<Instant> {
        let own = match call.patience {
            Some(patience) => after(patience),
            None => call.deadline,
        };
        match self.handshake_deadline() {
            Some(handshake) => Some(own.map_or(handshake, |own| own.min(handshake))),
            None => own,
        }
    }

    #[inline]
    pub fn handshake_deadline(&self) -> Option<Instant> {
        self.handshake_deadline.filter(|_| !self.connection.is_handshake_done())
    }

    pub fn fell_asleep(&mut self, wait: Wait) -> Option<Arc<Sleeper>> {
        if wait == Wait::No {
            return None;
        }
        self.waiting += 1;
        let sleeper = Sleeper::current();
        self.sleepers.push(sleeper.clone());
        Some(sleeper)
    }

    pub fn woke_up(&mut self, sleeper: Option<Arc<Sleeper>>) {
        let Some(sleeper) = sleeper else { return };
        self.waiting -= 1;
        if let Some(at) = self.sleepers.iter().position(|s| Arc::ptr_eq(s, &sleeper)) {
            self.sleepers.swap_remove(at);
        }
    }

    /// Nothing more goes out; what was accepted and not sent is lost.
    pub fn drop_output(&mut self) {
        self.lost |= self.unsent() > 0;
        self.queue.clear();
        self.flight.clear();
        (self.encrypted, self.flight_plain) = (0, 0);
        (self.held_back, self.flush_owed) = (false, false);
        let output = self.connection.output().len();
        self.connection.consume_output(output);
    }
}

impl Call {
    #[inline]
    pub fn stream_wait(&self) -> Wait {
        if self.wait {
            Wait::Until(self.deadline)
        } else {
            Wait::No
        }
    }
}

pub(crate) fn not_open() -> Error {
    Error::new(ErrorKind::NotOpen, "this end has closed the connection")
}

pub(crate) fn taken() -> Error {
    Error::new(ErrorKind::Other, "another file has taken this stream over").with_io_kind(io::ErrorKind::ResourceBusy)
}
