//! Setting callbacks, taking them away, and calling them.

use std::any::Any;
use std::io;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::Arc;

use super::alert_queue::in_callback;
use super::handle::{Face, Handle};
use super::{Locked, Real, Shared};
use crate::callbacks::{Accept, Callbacks, Close, Opened, Read, Slots, Write};
use crate::machine::{Due, Installed};
use crate::stream::Transport;
use crate::sync::thread;

/// What is due, with the callback in hand.
pub(super) enum InHand<F> {
    Opened(Option<Opened<F>>, io::Result<()>),
    Accept(Option<Accept<F>>),
    Read(Option<Read<F>>, usize),
    Write(Option<Write<F>>),
    Close(Option<Close<F>>, io::Result<()>),
    /// To be dropped.
    All(Slots<F>),
}

impl<F> Slots<F> {
    /// As the machine is told, which knows no callbacks.
    fn installed(&self) -> Installed {
        Installed {
            accept: self.accept.is_set(),
            read: self.read.is_set(),
            write: self.write.is_set(),
            close: self.close.is_set(),
            opened: self.opened.is_some(),
        }
    }
}

impl<S: Transport, F> Shared<S, F> {
    /// Changes callbacks; what was there before is for the caller to drop, without a lock, as it may own files.
    fn change_slots<T>(&self, sets_write: bool, change: impl FnOnce(&mut Slots<F>) -> T) -> T {
        let mut locked = self.lock();
        let old = change(&mut locked.slots);
        locked.note_slots(sets_write);
        old
    }

    pub fn set_callbacks(&self, new: Callbacks<F>) {
        let old = self.change_slots(new.write.is_some(), |slots| {
            (
                slots.accept.set(new.accept),
                slots.read.set(new.read),
                slots.write.set(new.write),
                slots.close.set(new.close),
            )
        });
        drop(old);
    }

    /// Waits for the callback at hand, if another thread runs it, and gives that out too.
    pub fn take_callbacks(&self) -> Callbacks<F> {
        let me = thread::current().id();
        let mut locked = self.lock();
        if locked.is_called_by_another(me) {
            locked.machine.hold_callbacks(true);
            locked.settle_accounts();
            while locked.core.is_called_by_another(me) {
                self.rested.wait(&mut locked.core);
            }
            locked.machine.hold_callbacks(false);
        }
        let slots = &mut locked.slots;
        let taken = Callbacks {
            accept: slots.accept.set(None),
            read: slots.read.set(None),
            write: slots.write.set(None),
            close: slots.close.set(None),
        };
        locked.note_slots(false);
        taken
    }

    pub fn set_slot<T>(&self, is_write: bool, set: impl FnOnce(&mut Slots<F>) -> T) {
        drop(self.change_slots(is_write, set));
    }

    /// For a listener: to be told how the handshake went.
    pub fn set_opened(&self, opened: Opened<F>) {
        let old = self.change_slots(false, |slots| slots.opened.replace(opened));
        drop(old);
    }
}

impl<S: Transport, F> Locked<'_, S, F> {
    /// Callbacks have been set or taken away.
    fn note_slots(&mut self, sets_write: bool) {
        let installed = self.slots.installed();
        self.machine.set_installed(installed, sets_write, &Real);
    }
}

impl<S: Transport, F: Face<S>> Locked<'_, S, F> {
    /// Takes what is to be called out of its slot, under the lock: nobody can take it away while what it is to be told is in our
    /// hands.
    pub(super) fn take_in_hand(&mut self, due: Due) -> InHand<F> {
        let shared = self.shared;
        let result = match &due {
            Due::Opened => self.machine.handshake_result(),
            _ => Ok(()),
        };
        let slots = &mut self.slots;
        match due {
            Due::Opened => {
                let result = result.map_err(|e| match crate::Error::of(&e) {
                    Some(error) => shared.told(error.clone()),
                    None => e,
                });
                InHand::Opened(slots.opened.take(), result)
            }
            Due::Accept => InHand::Accept(slots.accept.start()),
            Due::Read(n) => InHand::Read(slots.read.start(), n),
            Due::Write => InHand::Write(slots.write.start()),
            Due::Close(result) => InHand::Close(slots.close.start(), result.map_err(|error| shared.told(error))),
            Due::Forget => {
                let all = std::mem::take(slots);
                self.note_slots(false);
                InHand::All(all)
            }
        }
    }
}

impl<S: Transport, F: Face<S>> Shared<S, F> {
    /// Calls one callback, without the lock, and takes the lock again. The error is its panic, or that of what it owned.
    pub(super) fn call_back<'a>(
        self: &'a Arc<Self>,
        in_hand: InHand<F>,
        data: &[u8],
    ) -> (Locked<'a, S, F>, Result<(), Box<dyn Any + Send>>) {
        let file = F::from_handle(Handle { shared: self.clone(), counted: false });
        macro_rules! call {
            ($slot:ident, $callback:ident, $($argument:expr),*) => {{
                let Some(mut callback) = $callback else { return (self.lock(), Ok(())) };
                let mut result = in_callback(|| catch_unwind(AssertUnwindSafe(|| callback(&file, $($argument),*))));
                let mut locked = self.lock();
                let unwanted = match &result {
                    Ok(()) => locked.slots.$slot.finish(callback),
                    Err(_) => {
                        locked.slots.$slot.lost();
                        Some(callback)
                    }
                };
                if let Some(unwanted) = unwanted {
                    locked.note_slots(false);
                    let dropped = locked.unlocked(|| in_callback(|| catch_unwind(AssertUnwindSafe(|| drop(unwanted)))));
                    result = result.and(dropped);
                }
                (locked, result)
            }};
        }
        match in_hand {
            InHand::Opened(opened, result) => {
                let Some(opened) = opened else { return (self.lock(), Ok(())) };
                let result = in_callback(|| catch_unwind(AssertUnwindSafe(|| opened(&file, result))));
                (self.lock(), result)
            }
            InHand::Accept(accept) => call!(accept, accept,),
            InHand::Read(read, n) => call!(read, read, &data[..n]),
            InHand::Write(write) => call!(write, write,),
            InHand::Close(close, result) => call!(close, close, result),
            InHand::All(all) => {
                let result = in_callback(|| catch_unwind(AssertUnwindSafe(|| drop(all))));
                (self.lock(), result)
            }
        }
    }
}
