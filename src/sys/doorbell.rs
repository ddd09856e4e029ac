use std::cell::OnceCell;
use std::process;
use std::sync::Arc;
use std::time::Instant;

use super::{Bell, Woken};
use crate::sync::{now, thread_local, AtomicBool, AtomicU8, Condvar, Mutex, Ordering};

/// What a thread is woken by, asleep in [`sleep`](Doorbell::sleep) or in [`wait`](super::wait).
///
/// There is one for each thread, not for each file. Its descriptor is made when the thread first waits for a stream, and
/// stays, so that an idle thread needs no luck to be woken when descriptors have run out.
///
/// No ring is lost: the ringer sets `rung`, then looks at `asleep`; the owner sets `asleep`, then looks at `rung`. All
/// four are `SeqCst`, so one of the two sees the other. A ringer that is slow may knock when the owner has gone on
/// already: the owner then looks once more than it must.
#[derive(Default)]
pub struct Doorbell {
    rung: AtomicBool,
    asleep: AtomicU8,
    lock: Mutex<()>,
    condition: Condvar,
    /// Of the process with this number: a forked child that used its parent's would take rings from it.
    bell: Mutex<Option<(u32, Arc<Bell>)>>,
}

const AWAKE: u8 = 0;
/// On the condition.
pub(super) const PARKED: u8 = 1;
/// On the bell's descriptor.
pub(super) const POLLING: u8 = 2;

thread_local! {
    static DOORBELL: OnceCell<Arc<Doorbell>> = const { OnceCell::new() };
}

impl Doorbell {
    /// This thread's. While the thread ends, one that is made for the purpose.
    pub fn current() -> Arc<Doorbell> {
        DOORBELL.try_with(|bell| bell.get_or_init(Arc::default).clone()).unwrap_or_default()
    }

    /// Ends the owner's sleep, or its next one. A system call only if it sleeps.
    pub fn ring(&self) {
        self.rung.store(true, Ordering::SeqCst);
        match self.asleep.load(Ordering::SeqCst) {
            PARKED => {
                // The owner is between its look at the flag and the condition only while it has the lock.
                drop(self.lock.lock());
                self.condition.notify_one();
            }
            POLLING => {
                let bell = self.bell.lock().as_ref().map(|(_, bell)| bell.clone());
                if let Some(bell) = bell {
                    bell.ring();
                }
            }
            _ => {}
        }
    }

    /// Whether it has been rung and nobody has taken that.
    pub fn is_rung(&self) -> bool {
        self.rung.load(Ordering::SeqCst)
    }

    /// The same, and takes it. For the owner.
    pub fn take_ring(&self) -> bool {
        self.rung.swap(false, Ordering::SeqCst)
    }

    /// Sleeps until rung or until then, without a descriptor. For the owner; a signal does not end it.
    pub fn sleep(&self, until: Option<Instant>) -> Woken {
        self.asleep.store(PARKED, Ordering::SeqCst);
        let mut guard = self.lock.lock();
        let woken = loop {
            if self.take_ring() {
                break Woken::Rung;
            }
            match until {
                None => self.condition.wait(&mut guard),
                Some(until) if now() >= until => break Woken::TimedOut,
                Some(until) => {
                    self.condition.wait_until(&mut guard, until);
                }
            }
        };
        drop(guard);
        self.asleep.store(AWAKE, Ordering::SeqCst);
        woken
    }

    /// The descriptor's owner; `None` if the system has none to give.
    pub(super) fn bell(&self) -> Option<Arc<Bell>> {
        let process = process::id();
        let mut slot = self.bell.lock();
        match &*slot {
            Some((maker, bell)) if *maker == process => Some(bell.clone()),
            _ => {
                let bell = Arc::new(Bell::new().ok()?);
                *slot = Some((process, bell.clone()));
                Some(bell)
            }
        }
    }

    /// With a bell that the caller has made.
    #[cfg(all(test, unix))]
    pub(super) fn with_bell(bell: Bell) -> Arc<Doorbell> {
        let doorbell = Doorbell::default();
        *doorbell.bell.lock() = Some((process::id(), Arc::new(bell)));
        Arc::new(doorbell)
    }

    #[cfg(test)]
    pub(super) fn is_asleep(&self, how: u8) -> bool {
        self.asleep.load(Ordering::SeqCst) == how
    }

    /// From now on a ring is written to the bell, until `got_up`. A ring from before is told by `take_ring`, which the
    /// owner calls in between.
    pub(super) fn will_poll(&self) {
        self.asleep.store(POLLING, Ordering::SeqCst);
    }

    pub(super) fn got_up(&self) {
        self.asleep.store(AWAKE, Ordering::SeqCst);
    }
}
