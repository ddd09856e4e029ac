//! What is left of files that nobody has: what may still be on its way is sent, and what comes is read away, or the system would
//! answer it with a reset, which can cost the peer what it has not read yet.
//!
//! A file's backend does it; for a file without one, one thread of the process, which is started for the first such file
//! and ends when it has none.

use std::collections::VecDeque;
use std::sync::{Arc, Weak};

use super::handle::Face;
use super::Shared;
use crate::backend::Backend;
use crate::stream::Transport;
use crate::sync::{global, thread, Mutex};

/// Files that linger at most; the oldest goes first.
const MOST: usize = 1024;

struct Lingerers {
    all: VecDeque<(u64, Weak<dyn Lingers>)>,
    next: u64,
    /// What the thread turns, while there is one.
    backend: Option<Backend>,
    /// Whose thread that is.
    process: u32,
}

// Locked before any file's lock, never inside one.
global!(static LINGERERS: Mutex<Lingerers> = Mutex::new(Lingerers { all: VecDeque::new(), next: 0, backend: None, process: 0 }));

trait Lingers: Send + Sync {
    /// Ends at once.
    fn end(&self);
}

impl<S: Transport, F: Face<S>> Lingers for Shared<S, F> {
    fn end(&self) {
        let mut locked = self.lock();
        locked.lingerer = None;
        let place = locked.place.take();
        drop(locked);
        // The backend's entry is the last that owns the file.
        if let Some(place) = place {
            place.leave(false);
        }
        self.stream.abandon();
    }
}

/// Sees to it that somebody goes on with a file that nobody has.
pub(super) fn adopt<S: Transport, F: Face<S>>(shared: &Arc<Shared<S, F>>) {
    if std::process::id() != shared.process {
        return;
    }
    let mut lingerers = LINGERERS.lock();
    if shared.live_place().is_none() && lingerers.enter(shared).is_none() {
        // No thread, or no descriptor for its poller: then the system does what it can.
        drop(lingerers);
        return shared.stream.abandon();
    }
    if shared.ask().lingerer.is_some() {
        // The backend it was in has gone: it has been counted.
        return;
    }
    let id = lingerers.next;
    lingerers.next += 1;
    let weak: Weak<Shared<S, F>> = Arc::downgrade(shared);
    lingerers.all.push_back((id, weak));
    let oldest = match lingerers.all.len() > MOST {
        true => lingerers.all.pop_front(),
        false => None,
    };
    let mut locked = shared.lock();
    let over = locked.place.is_none();
    locked.lingerer = Some(id);
    drop(locked);
    if over {
        // It was over sooner than we got here.
        lingerers.forget(id);
    }
    drop(lingerers);
    if let Some(oldest) = oldest.and_then(|(_, oldest)| oldest.upgrade()) {
        oldest.end();
        left(None);
    }
}

/// It is over.
pub(super) fn forget<S: Transport, F: Face<S>>(shared: &Shared<S, F>) {
    let id = shared.lock().lingerer.take();
    if let Some(id) = id {
        LINGERERS.lock().forget(id);
    }
}

/// One has left before its time, with this number if it was counted: the thread may wait for it alone.
pub(super) fn left(id: Option<u64>) {
    let mut lingerers = LINGERERS.lock();
    if let Some(id) = id {
        lingerers.forget(id);
    }
    if let Some(backend) = &lingerers.backend {
        backend.wake();
    }
}

impl Lingerers {
    fn forget(&mut self, id: u64) {
        if let Ok(at) = self.all.binary_search_by_key(&id, |(id, _)| *id) {
            self.all.remove(at);
        }
    }

    /// Into the backend of the thread, which is started if need be.
    fn enter<S: Transport, F: Face<S>>(&mut self, shared: &Arc<Shared<S, F>>) -> Option<()> {
        // A forked child has no such thread, and what its parent's looks after is none of its business.
        if self.backend.is_some() && self.process != std::process::id() {
            std::mem::forget(self.backend.take());
            self.all.clear();
        }
        self.process = std::process::id();
        let backend = match &self.backend {
            Some(backend) => backend.clone(),
            None => {
                let backend = Backend::new().ok()?;
                let turned = backend.clone();
                let named = thread::Builder::new().name("sslfile-linger".to_string());
                named.spawn(move || run(turned)).ok()?;
                self.backend = Some(backend.clone());
                backend
            }
        };
        let mut locked = shared.lock();
        shared.enter(&mut locked, &backend).ok()
    }
}

/// The thread. Nothing is added but under the lock, so that none is added to a backend that is about to go.
fn run(backend: Backend) {
    loop {
        {
            let mut lingerers = LINGERERS.lock();
            if backend.is_empty() {
                lingerers.backend = None;
                return;
            }
        }
        // No callback of a user's is called here, but a stream's code may panic: that is told by nobody.
        let turned = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| backend.turn(None)));
        let _ = turned.map(|turned| turned.map_err(|_| thread::sleep(crate::sys::SLICE)));
    }
}

/// How many files linger.
#[cfg(all(test, shuttle))]
pub(crate) fn count() -> usize {
    LINGERERS.lock().all.len()
}
