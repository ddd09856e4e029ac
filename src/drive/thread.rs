//! The driver of a call: a thread polls it, does what the machine says, and parks when there is nothing to do.

use std::io;
use std::panic::resume_unwind;
use std::sync::Arc;

use super::perform::{Briefly, Came, Performed, Went};
use super::{Locked, Parked, Real};
use crate::engine::Buffer;
use crate::machine::{After, Call, Going, Job, Kind, Machine, Manner, Patience};
use crate::machine::{ReceiveLease, SendLease, Step, Tries, Waits};
use crate::stream::Transport;
use crate::sync::{now, MutexGuard};
use crate::sys::{Doorbell, Ready, Woken, SLICE};

/// What a call gives that a stream has broken off.
pub(super) trait Accepted: Sized {
    fn accepted(bytes: usize) -> Option<Self>;
}

/// What came of the short way.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Calmly {
    Some,
    /// There is nothing just now.
    Dry,
    /// It is not for the short way.
    Other,
}

impl Accepted for usize {
    fn accepted(bytes: usize) -> Option<usize> {
        (bytes > 0).then_some(bytes)
    }
}

impl Accepted for () {
    fn accepted(_: usize) -> Option<()> {
        None
    }
}

impl<S: Transport, F> Locked<'_, S, F> {
    /// The short way to receive, where all is quiet: nobody else waits for anything.
    #[inline(always)]
    pub(super) fn receive_calmly(&mut self) -> Calmly {
        let is_alone = self.parked.is_empty() && self.shared.busy_poll.is_zero() && !self.shared.stream.is_file();
        if !is_alone || !self.machine.may_receive_calmly() {
            return Calmly::Other;
        }
        let lease = self.machine.receive_calmly();
        let (buffer, came) = self.receive(Briefly::Slice);
        self.machine.has_received_calmly();
        if matches!(came, Ok(Ok(1..))) && self.machine.is_calm() {
            self.machine.take_in(lease, buffer, &Real);
            return Calmly::Some;
        }
        self.has_received_otherwise(lease, buffer, came)
    }

    #[cold]
    fn has_received_otherwise(&mut self, lease: ReceiveLease, buffer: Buffer, came: Came) -> Calmly {
        match self.has_received(lease, buffer, came) {
            Performed::Panicked(panic) => resume_unwind(panic),
            Performed::Dry => Calmly::Dry,
            _ => Calmly::Other,
        }
    }

    /// The short way to write: all of it in one send. Says whether that has come off; else the long way goes on from here.
    #[inline(always)]
    pub(super) fn write_calmly(&mut self, call: &mut Call, data: &[u8]) -> bool {
        let Some((lease, mut flight)) = self.machine.write_calmly(call, data, &Real) else { return false };
        let went = self.send(&mut flight, Going::AsSet);
        let all_went = matches!(went, Ok(Ok(Ok(After::Nothing)))) && flight.is_empty();
        if all_went && self.machine.is_calm() {
            return self.machine.has_written_calmly(lease, call, data, &Real);
        }
        self.has_sent_otherwise(call, lease, flight, went);
        false
    }

    #[cold]
    fn has_sent_otherwise(&mut self, call: &mut Call, lease: SendLease, flight: Buffer, went: Went) {
        if let Performed::Panicked(panic) = self.sent(lease, flight, went) {
            self.machine.leave(call);
            resume_unwind(panic);
        }
    }

    /// Takes a call to its end. `briefly`: a call that does not wait may receive for a slice all the same, as a file that wraps
    /// this one does the waiting. `dry`: there was nothing to receive just now.
    #[inline]
    pub(super) fn drive<T>(
        &mut self,
        mut call: Call,
        briefly: bool,
        mut dry: bool,
        mut poll: impl FnMut(&mut Machine, &mut Call) -> Step<T>,
    ) -> io::Result<T>
    where
        T: Accepted,
    {
        // Nobody but a backend watches for room between calls, unless another call waits for it.
        if self.place.is_none() && !self.is_room_awaited() {
            self.machine.room();
        }
        let never = call.patience == Patience::Never;
        let gives_all = self.machine.manner() == Manner::Polled && !self.shared.stream.is_file();
        let mut known = false;
        let mut received = 0;
        // Time has passed, for the peer to take something.
        let mut has_waited = never;
        loop {
            if has_waited {
                self.note_outstanding();
            }
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
            let waits = waits.less_room(call.kind, waits.writable && self.is_room_awaited());
            if waits.afresh {
                (dry, received) = (false, 0);
            }
            let never = never || call.is_hasty();
            let tries = Tries { receive: waits.readable && !dry, send: waits.writable, offer: false };
            let Some(job) = self.machine.job(tries) else {
                match never {
                    true => call.exhausted = true,
                    false => {
                        (dry, known) = (false, self.park(waits));
                        has_waited = true;
                    }
                }
                continue;
            };
            let how = match (briefly, never || known) {
                (true, _) => Briefly::Slice,
                (false, true) => Briefly::No,
                (false, false) => self.patience(&call, &waits),
            };
            let receives = matches!(job, Job::Receive(_));
            let performed = match how {
                Briefly::Spin(_) if receives => self.spin(job, how, waits),
                _ => self.perform(job, how),
            };
            match performed {
                // A socket gives all it has. Other streams may give any part of it, and nobody would tell of the rest.
                Performed::Some if receives => {
                    received += 1;
                    (dry, known) = (never && gives_all && received >= call.most_receives(), false);
                }
                Performed::Some => {}
                Performed::Again => call.try_again(),
                Performed::Dry => (dry, has_waited) = (true, true),
                Performed::Full => {}
                Performed::Passing(e) => return T::accepted(self.machine.abandon(call)).ok_or(e),
                Performed::Panicked(panic) => {
                    self.machine.abandon(call);
                    resume_unwind(panic);
                }
            }
        }
    }

    /// Another call waits for room in the stream, and sends when it is there.
    #[inline]
    fn is_room_awaited(&self) -> bool {
        // What a file inside waits for on its behalf may have changed since.
        let is_own = !self.shared.stream.is_file();
        is_own && self.parked.iter().any(|sleeper| !sleeper.rung && sleeper.waits.writable)
    }

    /// How long a receive may take, if nobody else waits for anything and nothing is to be sent meanwhile.
    fn patience(&self, call: &Call, waits: &Waits) -> Briefly {
        let is_alone = !waits.writable
            && self.machine.manner() == Manner::Polled
            && self.parked.iter().all(|sleeper| sleeper.rung || sleeper.waits.are_for_room_alone());
        if !is_alone {
            return Briefly::No;
        }
        if !self.shared.busy_poll.is_zero() && call.kind != Kind::Write {
            return Briefly::Spin(waits.until);
        }
        match waits.until {
            // Twice, as the system counts in ticks.
            Some(until) if until <= now() + 2 * SLICE => Briefly::No,
            _ => Briefly::Slice,
        }
    }

    /// Sleeps until something may have changed. Says whether it is the stream that is ready.
    #[cold]
    fn park(&mut self, waits: Waits) -> bool {
        let shared = self.shared;
        if waits.readable && shared.stream.is_ready() {
            return true;
        }
        let bell = Doorbell::current();
        // Before we are among those who may be rung for it. What is found only then may be our affair, too.
        let found = self.settle_accounts();
        if self.machine.concerns(&waits, found) {
            return false;
        }
        let watched = shared.watched(waits.of_stream());
        self.core.parked.push(Parked { waits, watched, bell: bell.clone(), rung: false });
        let wanted = Ready::from(waits.of_stream());
        let until = [waits.until, shared.stream.deadline()].into_iter().flatten().min();
        let woken = MutexGuard::unlocked(&mut self.core, || match wanted.is_empty() {
            true => bell.sleep(until),
            false => shared.stream.wait(watched.into(), &bell, until),
        });
        self.unpark(&bell);
        let Woken::Ready(ready) = woken else { return false };
        // Which it was of what a file inside waits for, nobody can tell from outside.
        let ready = if shared.stream.is_file() { wanted } else { ready };
        if ready.writable {
            self.machine.room();
        }
        ready.readable
    }

    /// As `perform`, and whoever has news for those who wait finds us among them.
    fn spin(&mut self, job: Job, how: Briefly, waits: Waits) -> Performed {
        let bell = Doorbell::current();
        // What it was rung for before, we have seen.
        bell.take_ring();
        let waits = Waits { readable: true, ..waits };
        let watched = self.shared.watched(waits.of_stream());
        self.core.parked.push(Parked { waits, watched, bell: bell.clone(), rung: false });
        let performed = self.perform(job, how);
        self.unpark(&bell);
        performed
    }

    fn unpark(&mut self, bell: &Arc<Doorbell>) {
        let parked = &mut self.core.parked;
        if let Some(at) = parked.iter().position(|sleeper| Arc::ptr_eq(&sleeper.bell, bell)) {
            parked.swap_remove(at);
        }
    }

    /// Does what there is to do, at most so many jobs, as long as the stream goes along.
    pub(super) fn do_jobs(&mut self, mut tries: Tries, most: usize) {
        for _ in 0..most {
            let Some(job) = self.machine.job(tries) else { break };
            match self.perform(job, Briefly::No) {
                Performed::Some | Performed::Again => {}
                Performed::Dry => tries.receive = false,
                Performed::Full => tries.send = false,
                Performed::Passing(_) => break,
                Performed::Panicked(panic) => resume_unwind(panic),
            }
        }
    }

    /// Does what goes without waiting.
    #[inline]
    pub(super) fn offer(&mut self) {
        if !self.machine.is_quiet() {
            self.do_jobs(Tries { receive: false, send: true, offer: true }, usize::MAX);
        }
    }
}
