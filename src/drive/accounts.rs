//! What happens when a file's lock is given up: who is woken, and what the backend and the user are told.

use super::{alert_queue, Core, Locked, Parked};
use crate::backend::Happened;
use crate::machine::{Interest, Sleeper, Stir, Waits};
use crate::stream::Transport;
use crate::sync::{now, MutexGuard};

impl Sleeper for Parked {
    fn waits(&self) -> &Waits {
        &self.waits
    }

    fn watched(&self) -> Interest {
        self.watched
    }

    fn is_rung(&self) -> bool {
        self.rung
    }

    fn ring(&mut self) {
        self.rung = true;
        self.bell.ring();
    }
}

impl<S: Transport, F> Locked<'_, S, F> {
    /// Without the lock, for I/O and for all that is not ours.
    #[inline]
    pub fn unlocked<T>(&mut self, f: impl FnOnce() -> T) -> T {
        self.settle_accounts();
        MutexGuard::unlocked(&mut self.core, f)
    }

    /// To be done before the lock is given up. Says what has been found only now.
    #[inline(always)]
    pub(super) fn settle_accounts(&mut self) -> Stir {
        #[cfg(debug_assertions)]
        if let Some(what) = self.machine.broken_invariant() {
            if !crate::sync::thread::panicking() {
                panic!("{}: a file's invariant does not hold: {what}", self.shared.peer);
            }
        }
        let stir = self.machine.take_stir();
        // Whether a logger is to be told only the journal knows.
        let concerns_others = self.has_idle_backend() || !self.parked.is_empty() || cfg!(feature = "log");
        match concerns_others || self.machine.tls.has_alerts() {
            true => self.tell_others(stir),
            false => Stir::default(),
        }
    }

    fn tell_others(&mut self, mut stir: Stir) -> Stir {
        let mut found = Stir::default();
        // First: it looks ahead, and what it finds may concern others.
        if self.has_idle_backend() {
            self.tell_backend();
            found = self.machine.take_stir();
            stir = stir.and(found);
        }
        let shared = self.shared;
        let Core { machine, parked, .. } = &mut *self.core;
        machine.wake(parked, stir, |wanted| (shared.watched(wanted), shared.stream.is_ready()));
        #[cfg(feature = "log")]
        self.note_for_log();
        let has_news = self.machine.tls.has_alerts() && self.pass_on_alerts();
        #[cfg(feature = "log")]
        let has_news = has_news || alert_queue::has_more();
        if has_news && !alert_queue::is_in_call() {
            MutexGuard::unlocked(&mut self.core, alert_queue::tell);
            // Anything may have happened meanwhile.
            found.state = true;
        }
        found
    }

    /// A backend that runs the file looks for itself when it has done.
    #[inline]
    fn has_idle_backend(&self) -> bool {
        self.place.is_some() && self.running.is_none()
    }

    /// Says whether somebody is to be told.
    fn pass_on_alerts(&mut self) -> bool {
        let alerts = self.machine.tls.take_alerts();
        let Some(watch) = &self.alert_watch else { return false };
        alert_queue::put(watch, alerts);
        true
    }

    /// What the backend should wait for, if that has changed.
    fn tell_backend(&mut self) {
        let shared = self.shared;
        let core = &mut *self.core;
        // First: it looks ahead, and what it finds may be the end.
        let is_due = core.machine.is_due();
        let (wanted, alarm) = core.wanted(&shared.stream);
        let is_watched = (wanted.readable, wanted.writable, wanted.hung_up)
            == (core.watched.readable, core.watched.writable, core.watched.hung_up);
        let is_due = is_due || (core.machine.wants_input() && shared.stream.is_ready());
        if is_watched && alarm == core.alarm && !is_due {
            return;
        }
        let Some(place) = &core.place else { return };
        let mut alarm = alarm;
        if !is_watched {
            core.watched = wanted;
            core.unwatched = place.watch(wanted).is_err();
            if core.unwatched {
                // Out of memory in the system: no reason to give the connection up.
                core.watched = Happened::default();
            }
        }
        if core.unwatched {
            let soon = now() + crate::sys::SLICE;
            alarm = Some(alarm.map_or(soon, |at| at.min(soon)));
        }
        if alarm != core.alarm {
            core.alarm = alarm;
            place.set_alarm(alarm);
        }
        if is_due {
            place.make_ready();
        }
    }
}
