//! The last handle goes: nobody can use the file any more. Never blocks, and calls no callback.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::sync::Arc;
use std::time::Duration;

use super::alert_queue::InCall;
use super::handle::Face;
use super::{Locked, Real, Shared};
use crate::backend::Place;
use crate::callbacks::Slots;
use crate::engine::Buffer;
use crate::machine::{Kind, Manner, Tries};
use crate::stream::Transport;
use crate::sync::thread;

/// What a dropped file reads away at most, so that a peer that goes on sending can't hold the thread.
const READS: usize = 16;
const READ: usize = 64 * 1024;
/// How long a drop waits for a stream that can't be tried.
const WAIT: Duration = Duration::from_millis(100);
/// Threads that do so at once, at most: what is dropped beyond that ends as if it were cut.
const ENDING_ELSEWHERE: usize = 64;
static ELSEWHERE: AtomicUsize = AtomicUsize::new(0);

impl<S: Transport, F: Face<S>> Shared<S, F> {
    pub fn last_handle_gone(self: &Arc<Self>) {
        let _call = InCall::begin();
        if std::process::id() != self.process {
            // A forked child: the connection is its parent's, and so is the poller.
            return;
        }
        let mut locked = self.lock();
        let callbacks = locked.forget_callbacks();
        if locked.machine.is_returned() {
            return self.part(locked, callbacks);
        }
        if thread::panicking() {
            locked.machine.abort();
            locked.offer();
            self.part(locked, callbacks);
            return self.stream.abandon();
        }
        if locked.machine.manner() == Manner::Blocks && !locked.machine.is_done() {
            self.part(locked, callbacks);
            return self.end_elsewhere();
        }
        locked.machine.room();
        locked.offer();
        // Before our end is said, which takes its time to be acknowledged, too.
        let is_asked = locked.machine.may_be_on_its_way() && !self.stream.is_file();
        let outstanding = if is_asked { self.stream.unacknowledged() } else { 0 };
        // A file inside that still has something to send may have no room for our close_notify.
        let is_behind = self.holds_back();
        let lasts = locked.machine.unsent() > 0 || outstanding > 0 || is_behind || locked.machine.is_over();
        if lasts && !locked.machine.is_done() && locked.machine.manner() == Manner::Polled {
            locked.machine.linger(outstanding);
        }
        locked.machine.begin_close(&Real);
        locked.offer();
        if locked.machine.lingers() {
            locked.do_jobs(Tries { receive: true, send: true, offer: true }, READS);
            locked.note_outstanding();
            if !locked.machine.is_done() {
                drop(locked);
                drop(callbacks);
                return super::linger::adopt(self);
            }
        }
        let may_read_away = locked.machine.manner() == Manner::Polled && !locked.machine.has_ended_stream();
        self.part(locked, callbacks);
        if may_read_away {
            self.read_away_raw();
        }
        self.stream.abandon();
    }

    /// Out of the backend.
    fn part(&self, mut locked: Locked<'_, S, F>, callbacks: Slots<F>) {
        #[cfg(feature = "log")]
        locked.log_parting();
        let (place, lingers) = (locked.place.take(), locked.machine.lingers());
        let lingerer = locked.lingerer.take();
        drop(locked);
        if let Some(place) = place {
            place.leave(false);
        }
        if lingers {
            // Its backend went, and it was adopted before we were done here.
            super::linger::left(lingerer);
        }
        drop(callbacks);
    }

    /// This stream can only be written to by waiting for it, and a drop must not wait: another thread does, and gets a moment to
    /// do it in.
    fn end_elsewhere(self: &Arc<Self>) {
        /// Counts itself.
        struct Counted;
        impl Drop for Counted {
            fn drop(&mut self) {
                ELSEWHERE.fetch_sub(1, Ordering::AcqRel);
            }
        }
        let others = ELSEWHERE.fetch_add(1, Ordering::AcqRel);
        let counted = Counted;
        if others >= ENDING_ELSEWHERE {
            return self.stream.abandon();
        }
        let (done, finished) = mpsc::channel();
        let shared = self.clone();
        let thread = thread::Builder::new().name("sslfile-drop".to_string()).spawn(move || {
            let mut locked = shared.lock();
            let call = locked.machine.begin(Kind::Close, true, None, &Real);
            let _ = locked.drive(call, false, false, |machine, call| machine.poll(call, &Real));
            drop(locked);
            shared.stream.abandon();
            drop(shared);
            drop(counted);
            let _ = done.send(());
        });
        if thread.is_ok() {
            let _ = finished.recv_timeout(WAIT);
        }
    }

    /// Shut for reading, a socket does not tell the peer of the room that reading makes: a peer that still sends would wait for
    /// it a minute. What is unread ends the connection for it too.
    fn read_away_raw(&self) {
        let mut away = Buffer::for_receiving();
        for _ in 0..READS {
            let room = away.space(READ);
            // What does not fill the room was all there was.
            if !self.stream.try_recv(room).is_ok_and(|n| n == room.len()) {
                break;
            }
        }
    }

    /// The place of the backend, if somebody can turn it.
    pub(super) fn live_place(&self) -> Option<Place> {
        self.ask().place.clone().filter(Place::is_alive)
    }
}

impl<S: Transport, F> Locked<'_, S, F> {
    /// Nobody is told of anything, and what the callbacks own goes: to be dropped without the lock.
    fn forget_callbacks(&mut self) -> Slots<F> {
        self.machine.set_installed(Default::default(), false, &Real);
        std::mem::take(&mut self.slots)
    }
}
