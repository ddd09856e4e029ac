//! Locks, conditions, atomics, threads and the clock of what threads do with each other, in one place, so that a model
//! checker's can take their place: see `schedules`.

#[cfg(all(test, shuttle))]
pub(crate) use crate::schedules::sync::*;

#[cfg(not(all(test, shuttle)))]
mod real {
    pub(crate) use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};
    pub(crate) use std::{thread, thread_local};

    pub(crate) use parking_lot::{Condvar, Mutex, MutexGuard};

    #[inline]
    pub(crate) fn now() -> std::time::Instant {
        std::time::Instant::now()
    }

    /// A lock for all of the process.
    macro_rules! global {
        (static $name:ident: $kind:ty = $value:expr) => {
            static $name: $kind = $value;
        };
    }
    pub(crate) use global;
}

#[cfg(not(all(test, shuttle)))]
pub(crate) use real::*;
