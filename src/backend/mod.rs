#[cfg_attr(all(test, shuttle), path = "../schedules/waiter.rs")]
mod waiter;

use std::any::Any;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fmt;
use std::hash::{BuildHasherDefault, Hasher};
use std::io;
use std::panic::{catch_unwind, resume_unwind, AssertUnwindSafe};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use crate::error::Error;
use crate::sync::thread::{self, ThreadId};
use crate::sync::{now, thread_local, AtomicUsize, Condvar, Mutex, MutexGuard, Ordering};
use crate::sys::Descriptor;
use waiter::{Arrivals, Waiter};

/// An event loop. Clones are handles on the same one; any thread may use any of them.
///
/// Files and listeners are put into it with their own `set_backend` and `set_accept_callback`; callbacks are called by
/// [`turn`](Backend::turn) and [`run`](Backend::run) only, in the thread that calls these. There may be any number of
/// backends in a process. While nothing happens nothing wakes.
///
/// A backend lives as long as there are handles on it; files do not keep it alive. When the last handle goes, the files
/// in it have no backend any more, and those it [kept](crate::SslFile::keep) are dropped.
///
/// Pike's `Pike.Backend`.
///
/// ```
/// use std::time::Duration;
/// use sslfile::Backend;
/// # fn main() -> std::io::Result<()> {
/// let backend = Backend::new()?;
/// let stopper = backend.clone();
/// backend.call_out(Duration::from_millis(5), move || stopper.stop());
/// backend.run()?;
/// # Ok(())
/// # }
/// ```
pub struct Backend {
    inner: Arc<Inner>,
}

/// A call that is due. Dropping it does not cancel it.
pub struct CallOut {
    backend: Weak<Inner>,
    id: TimerId,
}

/// What a backend watches: the event side of a file or of a listener.
pub(crate) trait Source: Send + Sync {
    /// The descriptors to read from and to write to; open as long as the source lives.
    fn descriptors(&self) -> Option<(Descriptor, Descriptor)>;
    /// Does what is due; says how many callbacks were called. Called by one thread at a time.
    fn run(self: Arc<Self>, at: &Place, happened: Happened, scratch: &mut [u8]) -> usize;
    /// The backend is gone, and with it this place; the source may have one elsewhere by now.
    fn orphaned(self: Arc<Self>, at: &Place);
}

/// Why a source runs; and, for [`Place::watch`], for what it wants to run.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Happened {
    pub readable: bool,
    pub writable: bool,
    /// The stream is broken, or over in both directions. Wanted alone it is a watch that tells of nothing else: of no
    /// data, nor of the end of the peer's. On Linux only; elsewhere it may never be told.
    pub hung_up: bool,
    /// The poller watches once only: what is wanted must be said again.
    pub disarmed: bool,
}

/// A source's place in a backend.
#[derive(Clone)]
pub(crate) struct Place {
    backend: Weak<Inner>,
    key: usize,
}

type TimerId = (Instant, u64);

struct Inner {
    /// Itself, for the places of its sources.
    weak: Weak<Inner>,
    /// Those that users have. When the last goes, so do the sources.
    handles: AtomicUsize,
    waiter: Waiter,
    state: Mutex<State>,
    /// Held for a turn.
    turning: Mutex<Turning>,
    /// A source has stopped running.
    rested: Condvar,
}

/// Under a lock that is never held while a source runs.
#[derive(Default)]
struct State {
    sources: HashMap<usize, Entry, BuildHasherDefault<KeyHasher>>,
    next_key: usize,
    /// Sources that have something to do without an event.
    ready: VecDeque<usize>,
    timers: BTreeMap<TimerId, Timer>,
    next_timer: u64,
    turns: u64,
    /// Who is in a turn.
    turner: Option<ThreadId>,
    stop: bool,
}

/// Keys are counted up, and nobody else chooses them: each is its own hash.
#[derive(Default)]
struct KeyHasher(u64);

impl Hasher for KeyHasher {
    fn finish(&self) -> u64 {
        // The table looks at the high bits, too.
        self.0.wrapping_mul(0x9E37_79B9_7F4A_7C15)
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.0 = (self.0 << 8) | u64::from(*byte));
    }

    fn write_usize(&mut self, key: usize) {
        self.0 = key as u64;
    }
}

thread_local! {
    /// Asking for it each time would count references.
    static THIS_THREAD: ThreadId = thread::current().id();
}

fn this_thread() -> ThreadId {
    THIS_THREAD.try_with(|id| *id).unwrap_or_else(|_| thread::current().id())
}

struct Entry {
    source: Arc<dyn Source>,
    registered: Happened,
    alarm: Option<TimerId>,
    queued: bool,
    running: Option<ThreadId>,
    /// The last turn in which it was run.
    ran: u64,
}

enum Timer {
    CallOut(Box<dyn FnOnce() + Send>),
    Alarm(usize),
}

/// What one turn needs, kept for the next.
struct Turning {
    arrivals: Arrivals,
    scratch: Vec<u8>,
}

/// Plaintext handed to a read callback at once.
const SCRATCH: usize = 64 * 1024;
/// A delay that is too long for the clock.
const FAR: Duration = Duration::from_secs(30 * 365 * 86_400);

impl Backend {
    /// A new one.
    ///
    /// Errors: those of the system: no descriptors left, say.
    pub fn new() -> io::Result<Backend> {
        let waiter = Waiter::new()?;
        let turning = Turning { arrivals: Arrivals::default(), scratch: vec![0; SCRATCH] };
        Ok(Backend {
            inner: Arc::new_cyclic(|weak| Inner {
                weak: weak.clone(),
                handles: AtomicUsize::new(1),
                waiter,
                state: Mutex::default(),
                turning: Mutex::new(turning),
                rested: Condvar::new(),
            }),
        })
    }

    /// One pass: waits for the first event, call-out or wake-up, at most `timeout` (`None`: for ever); calls what is
    /// due; says how many calls. It waits no shorter than `timeout`, and no longer than the system takes to wake a thread
    /// at that time (on Linux some 0.1 ms). Zero calls may mean that something was done that no callback is told of: a step of a
    /// handshake, say.
    ///
    /// A panic in a callback goes on here, when all else that was due has been called; the callback is removed, and the
    /// backend and every file can be used as before.
    ///
    /// Errors: `InvalidInput` from inside a callback of this backend; `ResourceBusy` while another thread is in a turn;
    /// those of the system.
    pub fn turn(&self, timeout: Option<Duration>) -> io::Result<usize> {
        self.inner.turn(timeout, false)
    }

    /// Turns until [`stop`](Backend::stop). Errors and panics as [`turn`](Backend::turn).
    pub fn run(&self) -> io::Result<()> {
        loop {
            if std::mem::take(&mut self.inner.state.lock().stop) {
                return Ok(());
            }
            self.inner.turn(None, true)?;
        }
    }

    /// Ends the `run` under way when its turn is done, or the next one.
    pub fn stop(&self) {
        let mut state = self.inner.state.lock();
        state.stop = true;
        self.inner.notify(state);
    }

    /// Ends the wait of the turn under way, or of the next one.
    pub fn wake(&self) {
        self.inner.waiter.notify();
    }

    /// Calls `f` in a turn, `delay` from now or as soon as possible after that: [`turn`](Backend::turn) waits as exactly
    /// for a call as for its time-out. Calls are made in the order of their
    /// times, and of their making where these are equal; a call may make and cancel others.
    ///
    /// Pike's `call_out`.
    pub fn call_out(&self, delay: Duration, f: impl FnOnce() + Send + 'static) -> CallOut {
        let from = now();
        let at = from.checked_add(delay).unwrap_or(from + FAR);
        let mut state = self.inner.state.lock();
        let id = state.add_timer(at, Timer::CallOut(Box::new(f)));
        self.inner.notify(state);
        CallOut { backend: Arc::downgrade(&self.inner), id }
    }

    /// Files and listeners it watches.
    pub fn len(&self) -> usize {
        self.inner.state.lock().sources.len()
    }

    /// Whether it watches none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Takes a source in, to be run at the next turn.
    pub(crate) fn add(&self, source: Arc<dyn Source>) -> io::Result<Place> {
        if source.descriptors().is_none() {
            return Err(Error::unsupported("a backend needs a stream with a descriptor").into());
        }
        let mut state = self.inner.state.lock();
        let key = state.next_key;
        state.next_key += 1;
        let entry = Entry { source, registered: Happened::default(), alarm: None, queued: true, running: None, ran: 0 };
        state.sources.insert(key, entry);
        state.ready.push_back(key);
        self.inner.notify(state);
        Ok(Place { backend: Arc::downgrade(&self.inner), key })
    }
}

impl Clone for Backend {
    fn clone(&self) -> Self {
        self.inner.handles.fetch_add(1, Ordering::Relaxed);
        Backend { inner: self.inner.clone() }
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        if self.inner.handles.fetch_sub(1, Ordering::AcqRel) > 1 {
            return;
        }
        let mut state = self.inner.state.lock();
        let mut sources = std::mem::take(&mut state.sources);
        let timers = std::mem::take(&mut state.timers);
        for (key, entry) in &mut sources {
            self.inner.forget(*key, entry);
        }
        drop(state);
        for (key, entry) in sources {
            entry.source.orphaned(&Place { backend: self.inner.weak.clone(), key });
        }
        // Call-outs that nobody will make may own files.
        drop(timers);
    }
}

impl PartialEq for Backend {
    /// Whether both are handles on the same event loop.
    fn eq(&self, other: &Backend) -> bool {
        Arc::ptr_eq(&self.inner, &other.inner)
    }
}

impl Eq for Backend {}

impl fmt::Debug for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Backend").field("len", &self.len()).finish_non_exhaustive()
    }
}

impl CallOut {
    /// Takes the call back. False if it has been called or cancelled.
    pub fn cancel(&self) -> bool {
        let Some(backend) = self.backend.upgrade() else { return false };
        let cancelled = backend.state.lock().timers.remove(&self.id);
        // Dropped without the lock: the closure may own a file.
        cancelled.is_some()
    }
}

impl fmt::Debug for CallOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CallOut").field("at", &self.id.0).finish_non_exhaustive()
    }
}

impl Place {
    /// Never to be dropped under a lock of the source's: it may be the last handle by then.
    pub fn backend(&self) -> Option<Backend> {
        let inner = self.backend.upgrade()?;
        let one_more = |handles| (handles > 0).then_some(handles + 1);
        inner.handles.fetch_update(Ordering::AcqRel, Ordering::Acquire, one_more).ok()?;
        Some(Backend { inner })
    }

    /// Whether it is in this one. Asked without a handle of its own, which could be the last: it must not go under a lock of
    /// the source's.
    pub fn is_in(&self, backend: &Backend) -> bool {
        std::ptr::eq(self.backend.as_ptr(), Arc::as_ptr(&backend.inner))
    }

    /// Whether somebody can turn it.
    pub fn is_alive(&self) -> bool {
        self.backend.upgrade().is_some_and(|inner| inner.handles.load(Ordering::Acquire) > 0)
    }

    pub fn is(&self, other: &Place) -> bool {
        self.key == other.key && self.backend.ptr_eq(&other.backend)
    }

    /// What to wait for from now on.
    ///
    /// A descriptor of which nothing is wanted is not watched at all, and one that has hung up had better not be: the
    /// system reports that for ever, whatever is wanted.
    pub fn watch(&self, wanted: Happened) -> io::Result<()> {
        let Some(backend) = self.backend.upgrade() else { return Ok(()) };
        let mut state = backend.state.lock();
        let Some(entry) = state.sources.get_mut(&self.key) else { return Ok(()) };
        let old = std::mem::replace(&mut entry.registered, wanted);
        backend.register(self.key, entry, old, wanted)
    }

    /// Runs the source then, if not before.
    pub fn set_alarm(&self, at: Option<Instant>) {
        let Some(backend) = self.backend.upgrade() else { return };
        let mut state = backend.state.lock();
        let Some(entry) = state.sources.get_mut(&self.key) else { return };
        let old = entry.alarm.take();
        if let Some(old) = old {
            state.timers.remove(&old);
        }
        let Some(at) = at else { return };
        let id = state.add_timer(at, Timer::Alarm(self.key));
        if let Some(entry) = state.sources.get_mut(&self.key) {
            entry.alarm = Some(id);
        }
        backend.notify(state);
    }

    /// Runs the source at the next turn.
    pub fn make_ready(&self) {
        let Some(backend) = self.backend.upgrade() else { return };
        let mut state = backend.state.lock();
        let Some(entry) = state.sources.get_mut(&self.key) else { return };
        if !std::mem::replace(&mut entry.queued, true) {
            state.ready.push_back(self.key);
            backend.notify(state);
        }
    }

    /// Takes the source out. With `wait` it returns when the source is not running any more, unless it is the one who
    /// asks.
    pub fn leave(&self, wait: bool) {
        let Some(backend) = self.backend.upgrade() else { return };
        let mut state = backend.state.lock();
        let Some(entry) = state.sources.get_mut(&self.key) else { return };
        backend.forget(self.key, entry);
        if let Some(alarm) = entry.alarm.take() {
            state.timers.remove(&alarm);
        }
        let me = Some(this_thread());
        let runs_elsewhere = |state: &State| {
            let running = state.sources.get(&self.key).and_then(|entry| entry.running);
            running.is_some() && running != me
        };
        while runs_elsewhere(&state) && wait {
            backend.rested.wait(&mut state);
        }
        let entry = state.sources.remove(&self.key);
        drop(state);
        drop(entry);
    }
}

impl State {
    /// In this turn.
    fn has_run(&self, key: usize) -> bool {
        self.sources.get(&key).is_some_and(|entry| entry.ran == self.turns)
    }

    /// For the next look at what is ready.
    fn make_ready(&mut self, key: usize) {
        if let Some(entry) = self.sources.get_mut(&key).filter(|entry| !entry.queued) {
            entry.queued = true;
            self.ready.push_back(key);
        }
    }

    fn add_timer(&mut self, at: Instant, timer: Timer) -> TimerId {
        let id = (at, self.next_timer);
        self.next_timer += 1;
        self.timers.insert(id, timer);
        id
    }
}

impl Inner {
    /// `until_stop`: does not wait after `stop`.
    fn turn(&self, timeout: Option<Duration>, until_stop: bool) -> io::Result<usize> {
        let me = this_thread();
        if self.state.lock().turner == Some(me) {
            return Err(Error::invalid_input("a callback can't turn its own backend").into());
        }
        let Some(mut turning) = self.turning.try_lock() else {
            let error = Error::new(crate::ErrorKind::Other, "another thread is in a turn of this backend");
            return Err(error.with_io_kind(io::ErrorKind::ResourceBusy).into());
        };
        let limit = {
            let mut state = self.state.lock();
            state.turner = Some(me);
            let first = state.timers.first_key_value().map(|((at, _), _)| at.saturating_duration_since(now()));
            match () {
                () if !state.ready.is_empty() || (until_stop && state.stop) => Some(Duration::ZERO),
                () => first.map_or(timeout, |first| Some(timeout.map_or(first, |timeout| timeout.min(first)))),
            }
        };
        let turning = &mut *turning;
        let waited = self.waiter.wait(&mut turning.arrivals, limit);
        let mut panic = None;
        let calls = match &waited {
            Ok(_) => self.dispatch(&turning.arrivals.list, &mut turning.scratch, &mut panic),
            Err(_) => 0,
        };
        self.state.lock().turner = None;
        if let Some(panic) = panic {
            resume_unwind(panic);
        }
        waited.map(|_| calls)
    }

    /// Events first, then call-outs, then what is ready without either, or through them. What becomes due meanwhile is for the next
    /// turn: nobody is run once more who has had his turn, but for a second descriptor of his.
    fn dispatch(
        &self,
        happened: &[(usize, Happened)],
        scratch: &mut [u8],
        panic: &mut Option<Box<dyn Any + Send>>,
    ) -> usize {
        let mut calls = 0;
        let mut state = self.state.lock();
        state.turns += 1;
        let (at, next_timer) = (now(), state.next_timer);
        drop(state);
        for (key, happened) in happened {
            // Two keys a source: its descriptors may be two.
            calls += self.run_source(*key / 2, *happened, scratch, panic);
        }
        loop {
            let mut state = self.state.lock();
            let due = state.timers.range(..=(at, u64::MAX)).map(|(id, _)| *id).find(|(_, made)| *made < next_timer);
            let Some(timer) = due.and_then(|id| state.timers.remove(&id)) else { break };
            match timer {
                Timer::CallOut(f) => {
                    drop(state);
                    keep_panic(panic, f);
                    calls += 1;
                }
                Timer::Alarm(key) => {
                    if let Some(entry) = state.sources.get_mut(&key) {
                        entry.alarm = None;
                    }
                    let ran = state.has_run(key);
                    if ran {
                        state.make_ready(key);
                    }
                    drop(state);
                    if !ran {
                        calls += self.run_source(key, Happened::default(), scratch, panic);
                    }
                }
            }
        }
        let mut locked = self.state.lock();
        let state = &mut *locked;
        let mut ready = std::mem::take(&mut state.ready);
        ready.retain(|&key| {
            if let Some(entry) = state.sources.get_mut(&key) {
                entry.queued = false;
            }
            let ran = state.has_run(key);
            if ran {
                state.make_ready(key);
            }
            !ran
        });
        drop(locked);
        for key in ready {
            calls += self.run_source(key, Happened::default(), scratch, panic);
        }
        calls
    }

    fn run_source(
        &self,
        key: usize,
        happened: Happened,
        scratch: &mut [u8],
        panic: &mut Option<Box<dyn Any + Send>>,
    ) -> usize {
        let mut state = self.state.lock();
        let turn = state.turns;
        let Some(entry) = state.sources.get_mut(&key) else { return 0 };
        entry.ran = turn;
        if happened.disarmed {
            entry.registered = Happened::default();
        }
        entry.running = Some(this_thread());
        let source = entry.source.clone();
        drop(state);
        let mut calls = 0;
        let place = Place { backend: self.weak.clone(), key };
        keep_panic(panic, || calls = source.run(&place, happened, scratch));
        let mut state = self.state.lock();
        if let Some(entry) = state.sources.get_mut(&key) {
            entry.running = None;
        }
        self.rested.notify_all();
        calls
    }

    /// Sees to it that a thread that waits in a turn looks again. The turning thread itself looks anyway.
    fn notify(&self, state: MutexGuard<'_, State>) {
        let needless = state.turner.is_none_or(|turner| turner == this_thread());
        drop(state);
        if !needless {
            self.waiter.notify();
        }
    }

    /// Takes the entry's descriptors out of the poller.
    fn forget(&self, key: usize, entry: &mut Entry) {
        let old = std::mem::take(&mut entry.registered);
        // What can't be deleted was never in there.
        let _ = self.register(key, entry, old, Happened::default());
    }

    /// Changes what is watched of one source.
    fn register(&self, key: usize, entry: &Entry, old: Happened, new: Happened) -> io::Result<()> {
        let Some((read, write)) = entry.source.descriptors() else { return Ok(()) };
        let key = key * 2;
        if read == write {
            return self.waiter.change(read, key, old, new);
        }
        let reads = |h: Happened| Happened { writable: false, ..h };
        let writes = |h: Happened| Happened { readable: false, ..h };
        self.waiter.change(read, key, reads(old), reads(new))?;
        self.waiter.change(write, key + 1, writes(old), writes(new))
    }
}

/// Lets the rest of the turn go on when a callback panics. The first panic is the turn's.
fn keep_panic(first: &mut Option<Box<dyn Any + Send>>, f: impl FnOnce()) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(f)) {
        first.get_or_insert(panic);
    }
}
