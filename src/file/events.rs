//! The event side of a file: what a backend does for it, and when its callbacks are called.
//!
//! The rules stand here once, for files with TLS and without, in blocking mode and in non-blocking mode. Whoever changes
//! a file's state does so under its lock; giving up the lock compares what the file now wants (`wanted`, `alarm`,
//! `is_due`) with what the backend has been told. The backend then runs the file: work without callbacks first, then the
//! callbacks that are due, one after the other, in the order accept, read, write, close.

use std::any::Any;
use std::io;
use std::os::fd::RawFd;
use std::panic::{catch_unwind, resume_unwind, AssertUnwindSafe};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::alert_queue::{in_callback, InCall};
use super::guarded::{taken, Caller, Core, Ending, Guard};
use super::handle::{Face, Handle};
use super::shared::Shared;
use crate::backend::{Backend, Happened, Place, Source};
use crate::callbacks::{Accept, Callbacks, Close, Installed, Opened, Read, Slots, Write};
use crate::error::{Error, ErrorKind};
use crate::stream::{Transport, Wait};

/// What is read ahead of a read callback at most; then the peer is held by its window.
const READ_AHEAD: usize = 64 * 1024;
/// What one run hands to the read callback at most, so that the other files of the backend have their turn.
const FAIR_SHARE: usize = 256 * 1024;

/// Under the file's lock.
#[derive(Default)]
pub(crate) struct Events {
    pub place: Option<Place>,
    /// While another file has the stream: the backend to go back to.
    pub home: Option<Place>,
    pub installed: Installed,
    pub paused: bool,
    /// The backend owns a handle.
    pub kept: bool,
    /// A thread runs the file.
    running: bool,
    /// There may be something to do that the state does not show.
    pub look: bool,
    accept_told: bool,
    close_told: bool,
    /// The write callback is to be called when nothing is unsent.
    pub write_armed: bool,
    /// How our own `close` or `close_clean` ended.
    pub own_end: Option<Result<(), Error>>,
    /// While another file has the stream: what was put back meanwhile.
    pub unread_later: Vec<u8>,
    /// When `close_clean` was asked for.
    pub cleaning: Option<Instant>,
    /// The last handle has gone while something was unsent.
    orphan: bool,
    /// When something was last received, and sent, for the idle time-outs.
    received: Option<Instant>,
    sent: Option<Instant>,
    /// What the backend has been told.
    watched: Happened,
    alarm: Option<Instant>,
}

/// What is due.
enum Next {
    Opened,
    Accept,
    Read(usize),
    Write,
    Close,
}

/// The same, with the callback in hand.
enum Due<F> {
    Opened(Option<Opened<F>>),
    Accept(Option<Accept<F>>),
    Read(Option<Read<F>>, usize),
    Write(Option<Write<F>>),
    Close(Option<Close<F>>, io::Result<()>),
}

impl Core {
    /// What to wait for. Nothing once reading has ended and all is sent: the system would report the end for ever.
    #[inline]
    fn wanted(&self) -> Happened {
        Happened { readable: self.wants_input(), writable: self.wants_room(), ..Happened::default() }
    }

    #[inline]
    fn wants_input(&self) -> bool {
        let is_ending = matches!(self.ending, Ending::Closing | Ending::Cleaning);
        let has_room = || !self.events.paused && self.connection.ahead() < READ_AHEAD;
        !self.connection.has_ended()
            && !self.is_done()
            && !self.reader_waits
            && (!self.settled || is_ending || self.read_shut || has_room())
    }

    #[inline]
    fn wants_room(&self) -> bool {
        self.has_output() && !self.is_done() && self.writing.is_free() && self.may_send()
    }

    /// Output that waits for something other than room is no reason to wait for room.
    fn may_send(&self) -> bool {
        self.has_ciphertext() || self.held_back || self.connection.is_handshake_done()
    }

    /// When something is due by time alone.
    fn alarm(&self) -> Option<Instant> {
        let events = &self.events;
        let closing = match (self.ending, self.drain_deadline) {
            (Ending::Closing, Some(drain)) => Some(drain),
            (Ending::Closing, None) => self.progress.and_then(|at| at.checked_add(self.flush_patience())),
            (Ending::Cleaning, _) if self.events.own_end.is_none() => self.clean_deadline(),
            _ => None,
        };
        if closing.is_none() && self.handshake_deadline.is_none() && self.read_timeout.or(self.write_timeout).is_none()
        {
            return None;
        }
        let later = |at: Option<Instant>, time: Option<Duration>| at?.checked_add(time?);
        let idle_read = later(events.received, self.read_timeout).filter(|_| self.reads_idly());
        let idle_write = later(events.sent, self.write_timeout).filter(|_| self.writes_idly());
        [self.handshake_deadline(), closing, idle_read, idle_write].into_iter().flatten().min()
    }

    /// Until when the backend waits for the peer's answer to `close_clean`.
    fn clean_deadline(&self) -> Option<Instant> {
        self.events.cleaning?.checked_add(self.read_timeout?)
    }

    /// The read time-out runs: the read callback is waiting for data.
    fn reads_idly(&self) -> bool {
        self.settled
            && self.events.installed.read
            && !self.events.paused
            && self.ending == Ending::Not
            && !self.connection.has_ended()
            && !self.read_shut
    }

    /// The write time-out runs: what was accepted is waiting to be sent.
    fn writes_idly(&self) -> bool {
        self.settled
            && self.events.installed.any()
            && self.unsent() > 0
            && self.ending == Ending::Not
            && self.connection.failure().is_none()
    }

    fn next(&mut self, buffer: &mut [u8]) -> Option<Next> {
        let failed = self.connection.failure().is_some();
        let events = &mut self.events;
        if events.installed.opened && self.settled {
            return Some(Next::Opened);
        }
        if events.installed.accept && !events.accept_told && self.settled && self.connection.is_handshake_done() {
            events.accept_told = true;
            return Some(Next::Accept);
        }
        if self.may_read() {
            if let Ok(n @ 1..) = self.connection.read(buffer) {
                return Some(Next::Read(n));
            }
        }
        if self.is_write_due() && !failed {
            self.events.write_armed = false;
            return Some(Next::Write);
        }
        if self.is_close_due() {
            self.events.close_told = true;
            return Some(Next::Close);
        }
        None
    }

    fn may_read(&self) -> bool {
        let is_over = matches!(self.ending, Ending::Closing | Ending::Closed);
        self.events.installed.read && !self.events.paused && !self.read_shut && !is_over && self.settled
    }

    fn is_write_due(&self) -> bool {
        self.events.installed.write
            && self.events.write_armed
            && self.settled
            && self.unsent() == 0
            && !self.held_back
            && (self.write_error().is_none() || self.has_failed_behind_the_end())
    }

    /// Sending has failed when the end had been told: there is no other callback left to say that nothing is waiting any more.
    fn has_failed_behind_the_end(&self) -> bool {
        self.events.close_told && self.write_failure.is_some() && self.ending == Ending::Not
    }

    /// The end has come, and all data before it has been taken.
    fn is_close_due(&self) -> bool {
        self.events.installed.close && !self.events.close_told && self.has_reached_end()
    }

    fn has_reached_end(&self) -> bool {
        match self.ending {
            _ if self.events.own_end.is_some() => true,
            Ending::Not if self.read_shut && self.half_closed => true,
            Ending::Not => self.settled && self.connection.is_read_to_end(),
            _ => false,
        }
    }

    fn end_result(&self) -> io::Result<()> {
        match (&self.events.own_end, self.connection.read_error()) {
            (Some(Ok(())), _) => Ok(()),
            (Some(Err(error)), _) | (None, Some(error)) => Err(error.to_io()),
            (None, None) => Ok(()),
        }
    }

    /// The backend has done all that `keep` asked for.
    fn is_kept_to_the_end(&self) -> bool {
        let told = || self.events.close_told || !self.events.installed.close;
        let nothing_left = || self.unsent() == 0 || self.write_error().is_some();
        self.events.kept && told() && self.has_reached_end() && nothing_left()
    }

    fn is_due(&mut self) -> bool {
        let may_go_on = !self.settled && self.connection.is_to_speak_first();
        let has_data = self.may_read() && self.connection.may_give_data();
        let events = &self.events;
        events.look
            || may_go_on
            || (events.installed.opened && self.settled)
            || (events.installed.accept && !events.accept_told && self.settled && self.connection.is_handshake_done())
            || has_data
            || self.is_write_due()
            || self.is_close_due()
            || self.is_kept_to_the_end()
    }

    /// Takes the descriptor out of the poller; the place in the backend stays.
    pub fn unwatch(&mut self) {
        self.events.watched = Happened::default();
        if let Some(place) = &self.events.place {
            // What can't be taken out was not in there.
            let _ = place.watch(Happened::default());
        }
    }

    /// By whoever gives up the lock.
    pub fn tell_backend(&mut self) {
        if self.events.running {
            return;
        }
        let (wanted, alarm) = (self.wanted(), self.alarm());
        let watched = &self.events.watched;
        let is_watched = (wanted.readable, wanted.writable) == (watched.readable, watched.writable);
        if is_watched && alarm == self.events.alarm && !self.is_due() {
            return;
        }
        let Some(place) = self.events.place.clone() else { return };
        if !is_watched {
            self.events.watched = wanted;
            if let Err(e) = place.watch(wanted) {
                // Out of descriptors or memory in the system: without events the file is lost.
                let text = format!("the event loop can't watch the stream: {e}");
                self.connection.fail(Error::new(ErrorKind::Other, text).with_io_kind(e.kind()).with_source(e));
                self.settled = true;
            }
        }
        if alarm != self.events.alarm {
            self.events.alarm = alarm;
            place.set_alarm(alarm);
        }
        if self.is_due() {
            place.make_ready();
        }
    }

    /// For the time-outs that run while something is to be sent.
    pub fn note_progress(&mut self) {
        if self.ending == Ending::Closing {
            self.progress = Some(Instant::now());
        }
        if self.events.place.is_some() && self.write_timeout.is_some() {
            self.events.sent = Some(Instant::now());
        }
    }

    /// Something has been accepted.
    pub fn note_accepted(&mut self) {
        self.events.write_armed = true;
        if self.events.place.is_some() && self.write_timeout.is_some() {
            self.events.sent = Some(Instant::now());
        }
    }

    pub fn note_received(&mut self) {
        if self.events.place.is_some() && self.read_timeout.is_some() {
            self.events.received = Some(Instant::now());
        }
    }

    pub fn note_timeouts(&mut self) {
        let now = Some(Instant::now());
        (self.events.received, self.events.sent) = (now, now);
    }
}

impl<S: Transport, F: Face<S>> Source for Shared<S, F> {
    fn descriptors(&self) -> Option<(RawFd, RawFd)> {
        self.stream.descriptors()
    }

    fn run(self: Arc<Self>, at: &Place, happened: Happened, scratch: &mut [u8]) -> usize {
        let _call = InCall::begin();
        let mut core = self.lock();
        let is_ours = |core: &Core| core.events.place.as_ref().is_some_and(|place| place.is(at));
        if !is_ours(&core) || std::mem::replace(&mut core.events.running, true) {
            return 0;
        }
        core.events.look = false;
        if core.events.alarm.is_some_and(|at| at <= Instant::now()) {
            // The backend has forgotten it.
            core.events.alarm = None;
        }
        core.full &= !happened.writable;
        if happened.disarmed {
            core.events.watched = Happened::default();
        }
        core = self.work(core, happened.readable);
        let (mut calls, mut share, mut panic) = (0, FAIR_SHARE, None);
        while panic.is_none() && is_ours(&core) {
            let Some(next) = core.next(scratch) else { break };
            // A callback that always writes must not keep the turn either.
            share = share.saturating_sub(match next {
                Next::Read(n) => n,
                _ => FAIR_SHARE / 16,
            });
            calls += 1;
            // Under the lock: nobody can take it away while what it is to be told is in our hands.
            let due = self.start(next, &mut core);
            drop(core);
            panic = in_callback(|| self.call(due, scratch)).err();
            core = self.lock();
            if is_ours(&core) {
                core = self.work(core, false);
            }
            if share == 0 {
                core.events.look = true;
                break;
            }
        }
        core.events.running = false;
        self.finish(core);
        if let Some(panic) = panic {
            resume_unwind(panic);
        }
        calls
    }

    fn orphaned(self: Arc<Self>) {
        let mut core = self.lock();
        core.events.place = None;
        let kept = std::mem::take(&mut core.events.kept);
        drop(core);
        if kept {
            drop(Handle::first(self));
        }
    }
}

impl<S: Transport, F: Face<S>> Shared<S, F> {
    /// All that gets on without callbacks: receiving, the handshake, sending, closing, time-outs.
    fn work<'a>(&'a self, mut core: Guard<'a>, readable: bool) -> Guard<'a> {
        let mut call = core.call(Caller::Wrapper(Wait::No), None);
        call.closing = true;
        // What a stream that is a file itself has decrypted makes no event.
        while (readable || self.stream.is_ready()) && !core.reading && core.wants_input() {
            let before = core.connection.received();
            core = match self.wait_for_input(core, &call) {
                Ok(core) => core,
                Err(_) => self.lock(),
            };
            if core.connection.received() == before {
                // The end, or nothing: an end could be read for ever.
                break;
            }
            if !self.stream.is_ready() {
                break;
            }
        }
        call.dry = true;
        if !core.settled {
            core = match self.shake(core, &call) {
                Ok(core) => core,
                Err(_) => self.lock(),
            };
            if core.settled {
                core.note_timeouts();
            }
        }
        if core.read_shut && core.settled {
            // Nobody will read it, and the end is behind it.
            core.connection.discard_all();
        } else if !core.may_read() && core.settled {
            // The end shows only once what is before it has been decrypted.
            core.connection.read_ahead(READ_AHEAD);
        }
        self.check_idle(&mut core);
        core = self.offer(core);
        match core.ending {
            Ending::Closing => {
                call.patience = Some(core.flush_patience());
                match self.close_step(core, &call) {
                    Ok(()) => self.lock(),
                    Err(_) => self.lock(),
                }
            }
            Ending::Cleaning if core.events.own_end.is_none() => match self.clean_step(core, &call) {
                Ok(()) => self.lock(),
                Err(e) => {
                    let mut core = self.lock();
                    if e.kind() != io::ErrorKind::WouldBlock {
                        core.events.own_end = Some(Err(own(&e)));
                    } else if core.clean_deadline().is_some_and(|deadline| Instant::now() >= deadline) {
                        call.timeout = core.read_timeout;
                        call.patience = None;
                        core.events.own_end = Some(Err(self.time_out(&call)));
                    }
                    core
                }
            },
            _ => core,
        }
    }

    /// The time-outs of callback mode: too long idle ends the connection.
    fn check_idle(&self, core: &mut Core) {
        let now = Instant::now;
        let over = |at: Option<Instant>, time: Option<Duration>| match (at, time) {
            (Some(at), Some(time)) if now().saturating_duration_since(at) >= time => Some(time),
            _ => None,
        };
        let idle = match over(core.events.received, core.read_timeout).filter(|_| core.reads_idly()) {
            Some(time) => Some(("received", time)),
            None => {
                over(core.events.sent, core.write_timeout).filter(|_| core.writes_idly()).map(|time| ("sent", time))
            }
        };
        if let Some((what, time)) = idle {
            let text = format!("nothing was {what} for {time:?}");
            core.connection.fail(Error::new(ErrorKind::TimedOut, text));
            core.drop_output();
        }
    }

    /// Takes what is to be called out of its slot.
    fn start(&self, next: Next, core: &mut Core) -> Due<F> {
        let mut slots = self.slots.lock();
        match next {
            Next::Opened => Due::Opened(slots.opened.take()),
            Next::Accept => Due::Accept(slots.accept.start()),
            Next::Read(n) => Due::Read(slots.read.start(), n),
            Next::Write => Due::Write(slots.write.start()),
            Next::Close => {
                self.name_peer(core);
                Due::Close(slots.close.start(), core.end_result())
            }
        }
    }

    /// Calls one callback. The error is its panic.
    fn call(self: &Arc<Self>, due: Due<F>, data: &[u8]) -> Result<(), Box<dyn Any + Send>> {
        let file = F::from_handle(Handle { shared: self.clone(), counted: false });
        macro_rules! call {
            ($slot:ident, $($argument:expr),*) => {{
                let Some(mut callback) = $slot else { return Ok(()) };
                let result = catch_unwind(AssertUnwindSafe(|| callback(&file, $($argument),*)));
                let mut slots = self.slots.lock();
                let unwanted = match &result {
                    Ok(()) => slots.$slot.finish(callback),
                    Err(_) => {
                        slots.$slot.lost();
                        Some(callback)
                    }
                };
                drop(slots);
                if result.is_err() {
                    self.note_installed();
                }
                drop(unwanted);
                result
            }};
        }
        match due {
            Due::Opened(opened) => {
                self.note_installed();
                let result = self.handshake_result();
                let Some(opened) = opened else { return Ok(()) };
                catch_unwind(AssertUnwindSafe(|| opened(&file, result)))
            }
            Due::Accept(accept) => call!(accept,),
            Due::Read(read, n) => call!(read, &data[..n]),
            Due::Write(write) => call!(write,),
            Due::Close(close, result) => call!(close, result),
        }
    }

    fn handshake_result(&self) -> io::Result<()> {
        let mut core = self.lock();
        self.name_peer(&mut core);
        match core.connection.failure() {
            Some(_) if core.connection.has_ended_well() => Err(io::ErrorKind::UnexpectedEof.into()),
            Some(failure) => Err(failure.to_io()),
            None => Ok(()),
        }
    }

    /// After a run: lets go of what needs the backend no more.
    fn finish(self: &Arc<Self>, mut core: Guard<'_>) {
        let kept = core.is_kept_to_the_end() && std::mem::take(&mut core.events.kept);
        let done = core.events.orphan && matches!(core.ending, Ending::Closed | Ending::Cleaned);
        let place = if done { core.events.place.take() } else { None };
        drop(core);
        if let Some(place) = place {
            place.leave(false);
            self.bid_farewell(Wait::No);
        }
        if kept {
            drop(Handle::first(self.clone()));
        }
    }

    fn note_installed(&self) {
        let mut core = self.lock();
        let installed = self.slots.lock().installed();
        core.events.installed = installed;
    }

    /// Changes callbacks; what was there before is dropped without a lock, as it may own files.
    fn change_slots<T>(&self, change: impl FnOnce(&mut Slots<F>, &mut Events) -> T) -> T {
        let mut core = self.lock();
        let mut slots = self.slots.lock();
        let old = change(&mut slots, &mut core.events);
        core.events.installed = slots.installed();
        drop(slots);
        core.events.look = true;
        if core.events.received.is_none() {
            core.note_timeouts();
        }
        drop(core);
        old
    }

    pub fn set_callbacks(&self, new: Callbacks<F>) {
        let old = self.change_slots(|slots, events| {
            events.write_armed |= new.write.is_some();
            (
                slots.accept.set(new.accept),
                slots.read.set(new.read),
                slots.write.set(new.write),
                slots.close.set(new.close),
            )
        });
        drop(old);
    }

    pub fn take_callbacks(&self) -> Callbacks<F> {
        self.change_slots(|slots, _| Callbacks {
            accept: slots.accept.set(None),
            read: slots.read.set(None),
            write: slots.write.set(None),
            close: slots.close.set(None),
        })
    }

    pub fn set_slot<T>(&self, is_write: bool, set: impl FnOnce(&mut Slots<F>) -> T) {
        let old = self.change_slots(|slots, events| {
            events.write_armed |= is_write;
            set(slots)
        });
        drop(old);
    }

    /// For a listener: to be told how the handshake went.
    pub fn set_opened(&self, opened: Opened<F>) {
        self.change_slots(|slots, _| slots.opened = Some(opened));
    }

    pub fn set_backend(self: &Arc<Self>, backend: Option<&Backend>) -> io::Result<()> {
        let mut core = self.lock();
        if core.taken {
            return Err(taken().into());
        }
        if backend.is_some() {
            self.needs_polling("a backend")?;
        }
        // More than once if another thread does the same.
        while let Some(old) = core.events.place.take() {
            if backend.is_some() && old.backend().as_ref() == backend {
                core.events.place = Some(old);
                return Ok(());
            }
            // Without the lock: the old backend may be running the file and need it.
            drop(core);
            old.leave(true);
            core = self.lock();
        }
        match backend {
            Some(backend) => self.enter(core, backend),
            None => Ok(()),
        }
    }

    fn enter(self: &Arc<Self>, mut core: Guard<'_>, backend: &Backend) -> io::Result<()> {
        let place = backend.add(self.clone())?;
        (core.events.watched, core.events.alarm) = (Happened::default(), None);
        core.events.look = true;
        core.note_timeouts();
        core.events.place = Some(place);
        Ok(())
    }

    pub fn backend(&self) -> Option<Backend> {
        self.ask().events.place.as_ref().and_then(Place::backend)
    }

    pub fn pause_reading(&self, paused: bool) {
        let mut core = self.lock();
        if std::mem::replace(&mut core.events.paused, paused) != paused {
            core.events.look |= !paused;
            core.note_timeouts();
        }
    }

    pub fn keep(self: &Arc<Self>, mut handle: Handle<S, F>) {
        let mut core = self.lock();
        let has_backend = core.events.place.as_ref().is_some_and(Place::is_alive);
        if has_backend && !core.events.kept {
            core.events.kept = true;
            core.events.look = true;
            // The count is the backend's now.
            handle.counted = false;
        }
        drop(core);
        drop(handle);
    }

    /// The stream is about to be used by another file.
    pub fn lend(&self) -> io::Result<Option<Backend>> {
        let mut core = self.lock();
        if std::mem::replace(&mut core.taken, true) {
            return Err(taken().into());
        }
        let place = core.events.place.take();
        core.events.home = place.clone();
        drop(core);
        Ok(place.and_then(|place| {
            place.leave(true);
            place.backend()
        }))
    }

    /// The stream is ours again, and these bytes come first.
    pub fn take_home(self: &Arc<Self>, unread: &[u8]) {
        let mut core = self.lock();
        core.taken = false;
        let later = std::mem::take(&mut core.events.unread_later);
        core.connection.unread(&later);
        core.connection.unread(unread);
        let home = core.events.home.take();
        if let Some(backend) = home.and_then(|place| place.backend()) {
            // A poller that refuses leaves a file without a backend, whose calls still work.
            let _ = self.enter(core, &backend);
        }
    }
}

impl<S: Transport, F: 'static> Shared<S, F> {
    /// Takes the file out of its backend, which calls nothing for it any more when this returns.
    pub fn leave_backend(&self) -> Option<Backend> {
        let place = self.lock().events.place.take()?;
        place.leave(true);
        place.backend()
    }

    /// With the last handle gone: whether the backend will see to what is unsent.
    pub fn leave_to_backend(&self) -> bool {
        let mut core = self.lock();
        let Some(place) = core.events.place.clone() else { return false };
        let unfinished = core.ending == Ending::Closing || core.unsent() > 0;
        let can_finish = core.write_failure.is_none() && core.connection.failure().is_none();
        if place.is_alive() && unfinished && can_finish {
            core.events.orphan = true;
            core.events.look = true;
            self.begin_closing(&mut core);
            // Nobody is told of it, and what the callbacks own goes now.
            core.events.installed = Installed::default();
            let slots = std::mem::take(&mut *self.slots.lock());
            drop(core);
            drop(slots);
            return true;
        }
        core.events.place = None;
        drop(core);
        place.leave(false);
        false
    }
}

/// An error to be told later, as the file keeps errors.
pub(crate) fn own(e: &io::Error) -> Error {
    match Error::of(e) {
        Some(error) => error.clone(),
        None => Error::new(ErrorKind::Other, e.to_string()).with_io_kind(e.kind()),
    }
}
