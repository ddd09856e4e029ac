//! The driver of a call: a thread polls it, does what the machine says, and parks when there is nothing to do.

use std::io;
use std::panic::resume_unwind;
use std::time::Instant;

use super::perform::{Briefly, Performed};
use super::{Locked, Parked};
use crate::machine::{Call, Kind, Machine, Manner, Patience, Step, Tries, Waits};
use crate::stream::Transport;
use crate::sys::{Doorbell, Ready, Woken, SLICE};

impl<S: Transport, F> Locked<'_, S, F> {
    /// Takes a call to its end. `briefly`: a call that does not wait may receive for a slice all the same, as a file that wraps
    /// this one does the waiting.
    #[inline]
    pub(super) fn drive<T>(
        &mut self,
        mut call: Call,
        briefly: bool,
        mut poll: impl FnMut(&mut Machine, &mut Call) -> Step<T>,
    ) -> io::Result<T> {
        // Nobody but a backend watches for room between calls.
        if self.place.is_none() {
            self.machine.room();
        }
        let never = call.patience == Patience::Never;
        let (mut dry, mut known) = (false, false);
        loop {
            let waits = match poll(&mut self.machine, &mut call) {
                Step::Done(result) => {
                    self.offer();
                    return result.map_err(|error| self.shared.told(error));
                }
                Step::WouldBlock => {
                    self.offer();
                    return Err(io::ErrorKind::WouldBlock.into());
                }
                Step::Wait(waits) => waits,
            };
            let tries = Tries { receive: waits.readable && !dry, send: waits.writable, offer: false };
            let Some(job) = self.machine.job(tries) else {
                match never {
                    true => call.exhausted = true,
                    false => {
                        self.park(waits);
                        (dry, known) = (false, true);
                    }
                }
                continue;
            };
            let how = match (briefly, never || known) {
                (true, _) => Briefly::Slice,
                (false, true) => Briefly::No,
                (false, false) => self.patience(&call, &waits),
            };
            let receives = matches!(job, crate::machine::Job::Receive(_));
            match self.perform(job, how) {
                // One receive is all that a call may do that does not wait.
                Performed::Some if receives => (dry, known) = (never, false),
                Performed::Some => {}
                Performed::Dry => dry = true,
                Performed::Full => {}
                Performed::Passing(e) => {
                    self.machine.abandon(call);
                    return Err(e);
                }
                Performed::Panicked(panic) => {
                    self.machine.abandon(call);
                    resume_unwind(panic);
                }
            }
        }
    }

    /// How long a receive may take, if nobody else waits for anything and nothing is to be sent meanwhile.
    fn patience(&self, call: &Call, waits: &Waits) -> Briefly {
        let is_alone = self.parked.is_empty() && !waits.writable && self.machine.manner() == Manner::Polled;
        if !is_alone {
            return Briefly::No;
        }
        if !self.shared.busy_poll.is_zero() && call.kind != Kind::Write {
            return Briefly::Spin(waits.until);
        }
        match waits.until {
            // Twice, as the system counts in ticks.
            Some(until) if until <= Instant::now() + 2 * SLICE => Briefly::No,
            _ => Briefly::Slice,
        }
    }

    /// Sleeps until something may have changed.
    #[cold]
    fn park(&mut self, waits: Waits) {
        let shared = self.shared;
        if waits.readable && shared.stream.is_ready() {
            return;
        }
        let bell = Doorbell::current();
        // Before we are among those who may be rung for it.
        self.settle_accounts();
        self.core.parked.push(Parked { waits, bell: bell.clone(), rung: false });
        let wanted = Ready { readable: waits.readable, writable: waits.writable };
        let until = [waits.until, shared.stream.deadline()].into_iter().flatten().min();
        let woken = crate::sync::MutexGuard::unlocked(&mut self.core, || match wanted.is_empty() {
            true => bell.sleep(until),
            false => shared.stream.wait(wanted, &bell, until),
        });
        let parked = &mut self.core.parked;
        if let Some(at) = parked.iter().position(|sleeper| std::sync::Arc::ptr_eq(&sleeper.bell, &bell)) {
            parked.swap_remove(at);
        }
        if matches!(woken, Woken::Ready(Ready { writable: true, .. })) {
            self.machine.room();
        }
    }

    /// Does what goes without waiting.
    #[inline]
    pub(super) fn offer(&mut self) {
        let tries = Tries { receive: false, send: true, offer: true };
        if self.machine.has_output() || !self.machine.is_calm() {
            while let Some(job) = self.machine.job(tries) {
                match self.perform(job, Briefly::No) {
                    Performed::Some | Performed::Dry => {}
                    Performed::Full | Performed::Passing(_) => break,
                    Performed::Panicked(panic) => resume_unwind(panic),
                }
            }
        }
        // The others began to wait when the file inside had nothing to send.
        if !self.parked.is_empty() && self.shared.stream.is_file() && self.shared.stream.holds_back() {
            self.machine.look_again();
        }
    }
}
