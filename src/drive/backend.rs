//! The driver of a backend: the jobs that go without waiting, then what callbacks are to be told.

use std::io;
use std::panic::resume_unwind;
use std::sync::Arc;

use super::alert_queue::InCall;
use super::handle::{Face, Handle};
use super::perform::{stream_error, Briefly, Performed};
use super::{Locked, ReadOnce, Real, Shared};
use crate::backend::{Backend, Happened, Place, Source};
use crate::machine::{taken, Due, Job, Tries};
use crate::stream::Transport;
use crate::sync::{now, thread};
use crate::sys::Descriptor;

/// What one run hands to the read callback at most, so that the other files of the backend have their turn.
const FAIR_SHARE: usize = 256 * 1024;
/// And how many callbacks it calls.
const CALLS: usize = 16;

impl<S: Transport, F: Face<S>> Source for Shared<S, F> {
    fn descriptors(&self) -> Option<(Descriptor, Descriptor)> {
        self.stream.descriptors()
    }

    fn run(self: Arc<Self>, at: &Place, happened: Happened, scratch: &mut [u8]) -> usize {
        let _call = InCall::begin();
        let mut locked = self.lock();
        if !locked.is_in(at) || locked.running.is_some() {
            return 0;
        }
        locked.running = Some(thread::current().id());
        let mut readable = locked.take_note(happened);
        let (mut calls, mut share, mut panic) = (0, FAIR_SHARE, None);
        loop {
            locked.work(readable);
            readable = false;
            if panic.is_some() || share == 0 || !locked.is_in(at) {
                break;
            }
            let Some(due) = locked.machine.due(scratch, &Real) else { break };
            // A callback that always writes must not keep the turn either.
            share = share.saturating_sub(match due {
                Due::Read(n) => n.max(FAIR_SHARE / CALLS),
                _ => FAIR_SHARE / CALLS,
            });
            calls += usize::from(!matches!(due, Due::Forget));
            let told = if let Due::Read(n) = due { n } else { 0 };
            let in_hand = locked.take_in_hand(due);
            locked.calling = true;
            drop(locked);
            let result;
            (locked, result) = self.call_back(in_hand, scratch);
            panic = result.err();
            // What a peer said stays nowhere longer than it must.
            scratch[..told].fill(0);
            locked.calling = false;
            self.rested.notify_all();
        }
        locked.running = None;
        locked.note_outstanding();
        self.let_go(locked);
        if let Some(panic) = panic {
            resume_unwind(panic);
        }
        calls
    }

    fn orphaned(self: Arc<Self>, at: &Place) {
        let mut locked = self.lock();
        if !locked.is_in(at) {
            return;
        }
        locked.left_backend();
        let kept = locked.machine.let_go();
        let lingers = locked.machine.lingers();
        drop(locked);
        if kept {
            drop(Handle::first(self));
        } else if lingers {
            super::linger::adopt(&self);
        }
    }
}

impl<S: Transport, F> Locked<'_, S, F> {
    fn is_in(&self, at: &Place) -> bool {
        self.place.as_ref().is_some_and(|place| place.is(at))
    }

    /// What has happened. Says whether to receive.
    fn take_note(&mut self, happened: Happened) -> bool {
        let is_file = self.shared.stream.is_file();
        let rung = self.alarm.is_some_and(|at| at <= now());
        if rung {
            // The backend has forgotten it.
            self.alarm = None;
        }
        self.note_outstanding();
        if happened.disarmed {
            self.watched = Happened::default();
        }
        // Of a file inside, either may be worth a try; of what is not watched, nobody knows.
        let any = (happened.readable || happened.writable || rung) && is_file;
        let try_all = any || self.unwatched;
        if happened.writable || try_all {
            self.machine.room();
        }
        // It may be the deadline of a file inside that has passed.
        if any && !self.machine.is_returned() && (rung || self.shared.holds_back()) {
            self.push_on();
        }
        if happened.hung_up && !self.machine.wants_input() {
            let error = self.shared.stream.take_error().map(|e| stream_error("receiving", e));
            let is_broken = error.is_some();
            self.machine.hung_up(error);
            return is_broken;
        }
        happened.readable || try_all || self.shared.stream.is_ready()
    }

    /// All that gets on without callbacks and without waiting; one receive.
    fn work(&mut self, mut readable: bool) {
        // One reading, so that what becomes due meanwhile is not passed by.
        let clock = ReadOnce::default();
        if self.machine.is_overdue(&clock) {
            // The callbacks of others may have kept us from what was in time.
            self.machine.room();
            self.do_all(true);
            readable = false;
        }
        self.machine.tick(&clock);
        self.do_all(readable);
    }

    fn do_all(&mut self, mut readable: bool) {
        loop {
            let receive = readable && self.machine.wants_input();
            let tries = Tries { receive, send: true, offer: true };
            let Some(job) = self.machine.job(tries) else { break };
            let receives = matches!(job, Job::Receive(_));
            match self.perform(job, Briefly::No) {
                // What a stream that is a file itself has decrypted makes no event.
                Performed::Some if receives => readable = self.shared.stream.is_ready(),
                Performed::Some | Performed::Again => {}
                Performed::Dry => readable = false,
                Performed::Full | Performed::Passing(_) => {}
                Performed::Panicked(panic) => {
                    self.running = None;
                    resume_unwind(panic);
                }
            }
        }
    }

    #[inline]
    pub(super) fn note_outstanding(&mut self) {
        if self.machine.asks_for_outstanding() {
            let outstanding = self.shared.stream.unacknowledged();
            self.machine.note_outstanding(outstanding, &Real);
        }
    }

    /// It has no backend any more.
    fn left_backend(&mut self) -> Option<Place> {
        let place = self.place.take();
        if place.is_some() {
            self.machine.set_driven(false, &Real);
        }
        place
    }
}

impl<S: Transport, F: Face<S>> Shared<S, F> {
    /// After a run: lets go of what needs the backend no more.
    fn let_go(self: &Arc<Self>, mut locked: Locked<'_, S, F>) {
        let is_at_end = locked.place.is_none() || locked.machine.is_kept_to_the_end();
        let kept = is_at_end && locked.machine.let_go();
        let lingered = locked.machine.lingers() && locked.machine.is_done();
        let place = if lingered { locked.left_backend() } else { None };
        drop(locked);
        if let Some(place) = place {
            place.leave(false);
            super::linger::forget(self);
            self.stream.abandon();
        }
        if kept {
            drop(Handle::first(self.clone()));
        }
    }

    pub fn set_backend(self: &Arc<Self>, backend: Option<&Backend>) -> io::Result<()> {
        let mut locked = self.lock();
        if locked.machine.is_lent() {
            return Err(taken().into());
        }
        if backend.is_some() {
            self.needs_polling("a backend")?;
        }
        // More than once if another thread does the same.
        while let Some(old) = locked.place.clone() {
            if backend.is_some_and(|backend| old.is_in(backend)) {
                return Ok(());
            }
            locked.left_backend();
            // Without the lock: the old backend may be running the file and need it.
            drop(locked);
            old.leave(true);
            locked = self.lock();
        }
        match backend {
            Some(backend) => self.enter(&mut locked, backend),
            None => {
                // Nobody keeps it any more; after a callback that is running, whose file it is meanwhile.
                let kept = locked.running.is_none() && locked.machine.let_go();
                drop(locked);
                if kept {
                    drop(Handle::first(self.clone()));
                }
                Ok(())
            }
        }
    }

    pub(super) fn enter(self: &Arc<Self>, locked: &mut Locked<'_, S, F>, backend: &Backend) -> io::Result<()> {
        let place = backend.add(self.clone())?;
        (locked.watched, locked.alarm, locked.unwatched) = (Happened::default(), None, false);
        locked.place = Some(place);
        locked.machine.set_driven(true, &Real);
        Ok(())
    }

    pub fn keep(self: &Arc<Self>, mut handle: Handle<S, F>) {
        let mut locked = self.lock();
        let has_backend = locked.place.as_ref().is_some_and(Place::is_alive);
        if has_backend && locked.machine.keep() {
            // The count is the backend's now.
            handle.counted = false;
        }
        drop(locked);
        drop(handle);
    }

    /// The stream is ours again, and these bytes come first.
    pub fn take_home(self: &Arc<Self>, unread: &[u8]) {
        let mut locked = self.lock();
        locked.machine.take_home(unread);
        let backend = locked.home.take().and_then(|place| place.backend());
        if let Some(backend) = &backend {
            // A poller that refuses leaves a file without a backend, whose calls still work.
            let _ = self.enter(&mut locked, backend);
        }
        drop(locked);
        drop(backend);
    }
}

impl<S: Transport, F> Shared<S, F> {
    pub fn backend(&self) -> Option<Backend> {
        self.ask().backend()
    }

    pub fn pause_reading(&self, paused: bool) {
        self.lock().machine.pause_reading(paused, &Real);
    }

    /// The stream is about to be used by another file.
    pub fn lend(&self) -> io::Result<Option<Backend>> {
        let mut locked = self.lock();
        locked.machine.lend()?;
        let place = locked.left_backend();
        locked.home.clone_from(&place);
        drop(locked);
        Ok(place.and_then(|place| {
            place.leave(true);
            place.backend()
        }))
    }

    /// Takes the file out of its backend, which calls nothing for it any more when this returns.
    pub fn leave_backend(&self) -> Option<Backend> {
        let place = self.lock().left_backend()?;
        place.leave(true);
        place.backend()
    }
}
