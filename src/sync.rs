//! Locks, conditions and atomics of what threads do with each other, in one place, so that a model checker's can take
//! their place.

pub(crate) use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

pub(crate) use parking_lot::{Condvar, Mutex, MutexGuard};
