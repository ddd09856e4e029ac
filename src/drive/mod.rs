//! What makes threads and backends do what a file's [`Machine`] says. A driver holds no rule: it locks, asks, does I/O
//! without the lock, gives back, and waits.
//!
//! | file | |
//! |---|---|
//! | `mod` | what all handles of a file share; the lock |
//! | `accounts` | what happens when the lock is given up: who is woken, what the backend and the user are told |
//! | `thread` | the driver of a call: poll, do a job, or park |
//! | `backend` | the driver of a backend: jobs, then what is due |
//! | `perform` | one job on the stream |
//! | `calls` | the calls of users, one after the other |
//! | `callbacks` | setting, taking and calling callbacks |
//! | `journal` | what the `log` crate is told |
//! | `drop` | the last handle; `linger`: what is left of files that nobody has |

mod accounts;
pub(crate) mod alert_queue;
mod backend;
mod callbacks;
mod calls;
mod drop;
pub(crate) mod handle;
#[cfg(feature = "log")]
mod journal;
pub(crate) mod linger;
mod perform;
mod thread;

use std::cell::Cell;
use std::io;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::backend::{Backend, Happened, Place};
use crate::callbacks::Slots;
use crate::context::Context;
use crate::error::Error;
use crate::machine::{Clock, Interest, Machine, Manner, Setup, Waits};
use crate::stream::{Inherited, Transport};
use crate::sync::thread::ThreadId;
use crate::sync::{now, AtomicBool, AtomicUsize, Condvar, Mutex, MutexGuard};
use crate::sys::{Doorbell, Ready};
use alert_queue::AlertWatch;

pub(crate) use calls::{tells_would_block, Caller};

/// The real one.
pub(crate) struct Real;

impl Clock for Real {
    #[inline]
    fn now(&self) -> Instant {
        now()
    }
}

/// The same, read once: the first time that somebody asks.
#[derive(Default)]
pub(crate) struct ReadOnce(Cell<Option<Instant>>);

impl Clock for ReadOnce {
    #[inline]
    fn now(&self) -> Instant {
        let at = self.0.get().unwrap_or_else(now);
        self.0.set(Some(at));
        at
    }
}

/// What all handles of one file share.
pub(crate) struct Shared<S, F> {
    pub stream: S,
    /// `None` for a file without TLS.
    pub context: Option<Context>,
    /// Of the socket, as it was found: to be put back.
    read_timeout: Option<Duration>,
    /// The peer's name, for errors. Asked for at the beginning: a stream that was reset does not know it any more.
    pub peer: String,
    /// Those that users have. A backend has an `Arc` of its own, which does not count.
    pub handles: AtomicUsize,
    /// How long a call tries to receive before it sleeps.
    pub busy_poll: Duration,
    /// The stream has been told that it may be blocked in.
    bounded: AtomicBool,
    /// Who made the file: a forked child that drops it says nothing on it.
    process: u32,
    /// Held for memory work only: never while the stream is used, a callback runs or anything of a user's is dropped.
    core: Mutex<Core<F>>,
    /// No callback is at hand any more.
    rested: Condvar,
}

/// Under the lock.
pub(crate) struct Core<F> {
    pub machine: Machine,
    /// What to call.
    slots: Slots<F>,
    /// Threads that wait for something of this file.
    parked: Vec<Parked>,
    place: Option<Place>,
    /// While another file has the stream: the backend to go back to.
    home: Option<Place>,
    /// The thread that runs the file for its backend.
    running: Option<ThreadId>,
    /// It has a callback at hand.
    calling: bool,
    /// What the backend has been told.
    watched: Happened,
    alarm: Option<Instant>,
    /// The poller could not take the descriptor: the stream is tried now and then.
    unwatched: bool,
    alert_watch: Option<Arc<AlertWatch>>,
    #[cfg(feature = "log")]
    journal: journal::Told,
    /// Among those that linger.
    lingerer: Option<u64>,
}

struct Parked {
    waits: Waits,
    watched: Interest,
    bell: Arc<Doorbell>,
    /// It is awake, or about to be, and will look at all there is.
    rung: bool,
}

/// The file's lock. Whoever gives it up wakes those whom the changes concern, tells the backend what to wait for, and the user
/// of the alerts that came or went.
pub(crate) struct Locked<'a, S: Transport, F> {
    shared: &'a Shared<S, F>,
    core: MutexGuard<'a, Core<F>>,
}

impl<S: Transport, F> Deref for Locked<'_, S, F> {
    type Target = Core<F>;

    #[inline]
    fn deref(&self) -> &Core<F> {
        &self.core
    }
}

impl<S: Transport, F> DerefMut for Locked<'_, S, F> {
    #[inline]
    fn deref_mut(&mut self) -> &mut Core<F> {
        &mut self.core
    }
}

impl<S: Transport, F> Drop for Locked<'_, S, F> {
    #[inline]
    fn drop(&mut self) {
        self.settle_accounts();
    }
}

impl<S: Transport, F> Shared<S, F> {
    pub fn new(
        stream: S,
        context: Option<&Context>,
        inherited: Inherited,
        peer: String,
        machine: Machine,
        busy_poll: Duration,
    ) -> Shared<S, F> {
        let on_alert = context.and_then(Context::on_alert);
        let alert_watch = on_alert.map(|on_alert| Arc::new(AlertWatch { on_alert, peer: peer.clone() }));
        Shared {
            stream,
            context: context.cloned(),
            read_timeout: inherited.read_timeout,
            peer,
            handles: AtomicUsize::new(1),
            busy_poll,
            bounded: AtomicBool::new(false),
            process: std::process::id(),
            core: Mutex::new(Core {
                machine,
                slots: Slots::default(),
                parked: Vec::new(),
                place: None,
                home: None,
                running: None,
                calling: false,
                watched: Happened::default(),
                alarm: None,
                unwatched: false,
                alert_watch,
                #[cfg(feature = "log")]
                journal: Default::default(),
                lingerer: None,
            }),
            rested: Condvar::new(),
        }
    }

    /// The stream, a file itself, has something left to send.
    pub(super) fn holds_back(&self) -> bool {
        self.stream.is_file() && self.stream.holds_back()
    }

    /// What the descriptor is to be watched for, if this is wanted of the stream.
    fn watched(&self, wanted: Interest) -> Interest {
        let Ready { readable, writable } = self.stream.watched(wanted.into());
        Interest { readable, writable }
    }

    /// For a question: nobody needs to be told of anything behind it.
    pub fn ask(&self) -> MutexGuard<'_, Core<F>> {
        self.core.lock()
    }
}

impl<S: Transport, F> Shared<S, F> {
    #[inline]
    pub fn lock(&self) -> Locked<'_, S, F> {
        Locked { shared: self, core: self.core.lock() }
    }

    /// As the user gets it.
    #[cold]
    pub(super) fn told(&self, error: Error) -> io::Error {
        let names_nobody = matches!(error.kind(), crate::ErrorKind::NotOpen | crate::ErrorKind::Interrupted);
        match names_nobody {
            true => error.to_io(),
            false => error.naming(&self.peer).to_io(),
        }
    }

    /// The stream is as it was before there was a file on it. Says what it could not take back.
    fn give_back(&self, unread: Vec<u8>) -> Vec<u8> {
        self.stream.give_back(&self.inherited(), unread)
    }

    fn inherited(&self) -> Inherited {
        Inherited { read_timeout: self.read_timeout, ..Inherited::default() }
    }

    /// The stream as it was, and what was read from it and not consumed.
    pub fn into_stream(self) -> (S, Vec<u8>) {
        let inherited = self.inherited();
        let unread = match self.core.into_inner().machine.into_unread() {
            Ok(leftover) => leftover,
            Err(unread) => self.stream.give_back(&inherited, unread),
        };
        (self.stream, unread)
    }
}

impl<F> Core<F> {
    /// Another thread than this has a callback at hand.
    fn is_called_by_another(&self, me: ThreadId) -> bool {
        self.calling && self.running != Some(me)
    }

    /// What the backend should wait for.
    fn wanted(&self, stream: &impl Transport) -> (Happened, Option<Instant>) {
        if self.machine.is_returned() {
            // What the file inside waits for is its own affair again.
            return (Happened::default(), self.machine.deadline());
        }
        let wants = Ready { readable: self.machine.wants_input(), writable: self.machine.wants_room() };
        let watched = stream.watched(wants);
        let hung_up = !watched.readable && !watched.writable && self.machine.watches_for_hang_up();
        let wanted = Happened { readable: watched.readable, writable: watched.writable, hung_up, disarmed: false };
        let alarm = [self.machine.deadline(), stream.deadline()].into_iter().flatten().min();
        (wanted, alarm)
    }

    /// Takes the descriptor out of the poller; the place in the backend stays.
    fn unwatch(&mut self) {
        self.watched = Happened::default();
        if let Some(place) = &self.place {
            // What can't be taken out was not in there.
            let _ = place.watch(Happened::default());
        }
    }

    pub fn backend(&self) -> Option<Backend> {
        self.place.as_ref().and_then(Place::backend)
    }
}

impl Setup {
    /// Of a file over this stream; the handshake's time-out is the default.
    pub fn of(
        stream: &impl Transport,
        inherited: &Inherited,
        nonblocking: bool,
        close_timeout: Duration,
        send_limit: usize,
    ) -> Setup {
        let manner = match (stream.is_polled(), nonblocking) {
            (true, _) => Manner::Polled,
            (false, true) => Manner::Tried,
            (false, false) => Manner::Blocks,
        };
        Setup {
            manner,
            over_file: stream.is_file(),
            nonblocking,
            read_timeout: inherited.read_timeout,
            write_timeout: inherited.write_timeout,
            close_timeout,
            handshake_timeout: None,
            half_closes: true,
            send_limit,
            deadlines: inherited.deadlines,
            tells_would_block: inherited.tells_would_block,
        }
    }
}
