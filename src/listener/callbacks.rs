//! What a listener tells its user, and whom it tells next.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::panic::{catch_unwind, resume_unwind, AssertUnwindSafe};

use parking_lot::Mutex;

use crate::callbacks::Slot;
use crate::file::SslFile;

/// Locked for the length of a look: there is one accept callback, and it is called by one thread at a time.
#[derive(Default)]
pub(super) struct ListenerCallbacks {
    pub accept: Slot<OnAccept>,
    pub error: Slot<OnError>,
    /// What they are to be told.
    pub accepted: VecDeque<(SslFile, SocketAddr)>,
    pub failed: VecDeque<(SocketAddr, io::Error)>,
}

pub(super) type OnAccept = Box<dyn FnMut(SslFile, SocketAddr) + Send>;
pub(super) type OnError = Box<dyn FnMut(SocketAddr, io::Error) + Send>;

impl ListenerCallbacks {
    /// Tells what there is to tell; says how many calls that took.
    pub fn tell(callbacks: &Mutex<ListenerCallbacks>) -> usize {
        call_all(callbacks, |all| (&mut all.accept, &mut all.accepted), |f, (file, addr)| f(file, addr))
            + call_all(callbacks, |all| (&mut all.error, &mut all.failed), |f, (addr, e)| f(addr, e))
    }

    /// Whether somebody is still to be told something.
    pub fn has_more(&self) -> bool {
        (self.accept.is_set() && !self.accepted.is_empty()) || (self.error.is_set() && !self.failed.is_empty())
    }

    /// The callbacks, and what nobody will be told, to be dropped without the lock.
    pub fn take(&mut self) -> impl Sized {
        let untold = (std::mem::take(&mut self.accepted), std::mem::take(&mut self.failed));
        (self.accept.set(None), self.error.set(None), untold)
    }
}

/// Calls a callback with all it is to be told; says how often. If another thread is calling it, that one goes on with
/// what is new. Without a callback nobody is told.
fn call_all<T, A>(
    callbacks: &Mutex<ListenerCallbacks>,
    parts: for<'a> fn(&'a mut ListenerCallbacks) -> (&'a mut Slot<T>, &'a mut VecDeque<A>),
    f: impl Fn(&mut T, A),
) -> usize {
    let mut calls = 0;
    loop {
        let mut all = callbacks.lock();
        let (slot, waiting) = parts(&mut all);
        let Some(mut callback) = slot.start() else {
            let unheard = if slot.is_set() { VecDeque::new() } else { std::mem::take(waiting) };
            drop(all);
            drop(unheard);
            return calls;
        };
        let Some(arguments) = waiting.pop_front() else {
            // Nobody can have changed the slot meanwhile.
            let unwanted = slot.finish(callback);
            drop(all);
            drop(unwanted);
            return calls;
        };
        drop(all);
        let result = catch_unwind(AssertUnwindSafe(|| f(&mut callback, arguments)));
        let mut all = callbacks.lock();
        let (slot, _) = parts(&mut all);
        let unwanted = match &result {
            Ok(()) => slot.finish(callback),
            Err(_) => {
                slot.lost();
                Some(callback)
            }
        };
        drop(all);
        drop(unwanted);
        if let Err(panic) = result {
            resume_unwind(panic);
        }
        calls += 1;
    }
}
