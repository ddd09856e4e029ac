//! The interface of parking_lot, of std's threads and of the clock on shuttle's primitives. Shuttle's own conditions never
//! time out, so these are made of `park` and of a clock that is a thread.

use std::cell::{Cell, RefCell};
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, PoisonError, TryLockError};
use std::time::{Duration, Instant};

use shuttle::thread::Thread;

pub(crate) use shuttle::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};
pub(crate) use shuttle::{thread, thread_local};

/// As parking_lot's: a panic poisons nothing.
#[derive(Default)]
pub(crate) struct Mutex<T>(shuttle::sync::Mutex<T>);

pub(crate) struct MutexGuard<'a, T> {
    mutex: &'a Mutex<T>,
    guard: Option<shuttle::sync::MutexGuard<'a, T>>,
}

impl<T> Mutex<T> {
    pub fn new(value: T) -> Self {
        Mutex(shuttle::sync::Mutex::new(value))
    }

    pub fn lock(&self) -> MutexGuard<'_, T> {
        MutexGuard { mutex: self, guard: Some(self.0.lock().unwrap_or_else(PoisonError::into_inner)) }
    }

    pub fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
        match self.0.try_lock() {
            Ok(guard) => Some(MutexGuard { mutex: self, guard: Some(guard) }),
            Err(TryLockError::Poisoned(guard)) => Some(MutexGuard { mutex: self, guard: Some(guard.into_inner()) }),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    pub fn into_inner(self) -> T {
        self.0.into_inner().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<'a, T> MutexGuard<'a, T> {
    pub fn unlocked<R>(this: &mut Self, f: impl FnOnce() -> R) -> R {
        struct Relock<'g, 'a, T>(&'g mut MutexGuard<'a, T>);
        impl<T> Drop for Relock<'_, '_, T> {
            fn drop(&mut self) {
                self.0.guard = self.0.mutex.lock().guard.take();
            }
        }
        let relock = Relock(this);
        relock.0.guard = None;
        f()
    }
}

impl<T> Deref for MutexGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.guard.as_ref().expect("locked")
    }
}

impl<T> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        self.guard.as_mut().expect("locked")
    }
}

/// One thread's wait.
struct Ticket {
    thread: Thread,
    is_over: std::sync::atomic::AtomicBool,
}

impl Ticket {
    fn new() -> Arc<Ticket> {
        Arc::new(Ticket { thread: thread::current(), is_over: false.into() })
    }

    fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Relaxed)
    }

    fn end(&self) {
        self.is_over.store(true, Ordering::Relaxed);
        self.thread.unpark();
    }

    fn wait(&self) {
        while !self.is_over() {
            thread::park();
        }
    }
}

#[derive(Default)]
pub(crate) struct Condvar {
    waiting: std::sync::Mutex<Vec<Arc<Ticket>>>,
}

impl Condvar {
    pub fn new() -> Condvar {
        Condvar::default()
    }

    fn list(&self) -> std::sync::MutexGuard<'_, Vec<Arc<Ticket>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ticket(&self) -> Arc<Ticket> {
        // Others may run between what the caller has looked at and this.
        thread::sleep(Duration::ZERO);
        let ticket = Ticket::new();
        self.list().push(ticket.clone());
        ticket
    }

    pub fn wait<T>(&self, guard: &mut MutexGuard<'_, T>) {
        let ticket = self.ticket();
        MutexGuard::unlocked(guard, || ticket.wait());
    }

    pub fn wait_until<T>(&self, guard: &mut MutexGuard<'_, T>, until: Instant) {
        let ticket = self.ticket();
        MutexGuard::unlocked(guard, || {
            end_at(until, &ticket);
            ticket.wait();
        });
    }

    /// Any of those that wait, as the scheduler has it.
    pub fn notify_one(&self) {
        use shuttle::rand::Rng;
        let mut list = self.list();
        list.retain(|ticket| !ticket.is_over());
        if list.is_empty() || is_lost() {
            return;
        }
        let at = if list.len() == 1 { 0 } else { shuttle::rand::thread_rng().gen_range(0..list.len()) };
        let ticket = list.swap_remove(at);
        drop(list);
        ticket.end();
    }

    pub fn notify_all(&self) {
        if self.list().iter().any(|ticket| !ticket.is_over()) && !is_lost() {
            self.system_notifies();
        }
    }

    /// Never lost.
    pub fn system_notifies(&self) {
        let list = std::mem::take(&mut *self.list());
        list.iter().filter(|ticket| !ticket.is_over()).for_each(|ticket| ticket.end());
    }
}

/// The clock of one schedule.
struct Clock {
    now: Instant,
    alarms: Vec<(Instant, Arc<Ticket>)>,
    thread: Option<Thread>,
    is_over: bool,
}

std::thread_local! {
    static CLOCK: RefCell<Option<Clock>> = const { RefCell::new(None) };
    /// Of all schedules to come: the number of the notification that gets lost.
    static LOST: Cell<Option<usize>> = const { Cell::new(None) };
    static NOTIFICATIONS: Cell<usize> = const { Cell::new(0) };
}

/// Never across a switch of threads.
fn with_clock<R>(f: impl FnOnce(&mut Clock) -> R) -> R {
    CLOCK.with_borrow_mut(|clock| f(clock.as_mut().expect("inside a schedule")))
}

pub(crate) fn now() -> Instant {
    with_clock(|clock| clock.now)
}

/// Time has passed since the schedule began: what time-outs cost may be missing.
pub(super) fn time_has_passed() -> bool {
    BEGIN.with(|begin| now() > *begin)
}

std::thread_local! {
    static BEGIN: Instant = Instant::now();
}

fn end_at(until: Instant, ticket: &Arc<Ticket>) {
    let thread = with_clock(|clock| {
        clock.alarms.push((until, ticket.clone()));
        clock.thread.clone()
    });
    thread.expect("time passes").unpark();
}

/// Lets time pass: to the next moment that anybody waits for.
fn pass_time() {
    loop {
        let due = with_clock(|clock| {
            clock.alarms.retain(|(_, ticket)| !ticket.is_over());
            let next = clock.alarms.iter().map(|(at, _)| *at).min()?;
            clock.now = clock.now.max(next);
            let at = clock.alarms.iter().position(|(at, _)| *at == next)?;
            Some(clock.alarms.swap_remove(at).1)
        });
        match due {
            Some(ticket) => ticket.end(),
            None if with_clock(|clock| clock.is_over) => return,
            None => thread::park(),
        }
    }
}

/// One schedule of a model.
pub(super) fn in_time(model: fn()) {
    let now = BEGIN.with(|begin| *begin);
    CLOCK.set(Some(Clock { now, alarms: Vec::new(), thread: None, is_over: false }));
    NOTIFICATIONS.set(0);
    super::net::begin();
    let clock = thread::spawn(pass_time);
    with_clock(|at| at.thread = Some(clock.thread().clone()));
    model();
    super::wait_for_lingerers();
    with_clock(|clock| clock.is_over = true);
    clock.thread().unpark();
    clock.join().expect("the clock");
}

pub(super) fn lose_notification(n: Option<usize>) {
    LOST.set(n);
}

fn is_lost() -> bool {
    let n = NOTIFICATIONS.get();
    NOTIFICATIONS.set(n + 1);
    LOST.get() == Some(n)
}

/// A lock for all of a schedule.
macro_rules! global {
    (static $name:ident: $kind:ty = $value:expr) => {
        shuttle::lazy_static! {
            static ref $name: $kind = $value;
        }
    };
}
pub(crate) use global;
