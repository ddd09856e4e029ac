use parking_lot::Condvar;

/// Whose turn it is to use one direction of the stream. Kept under the file's lock; the holder uses the stream without
/// that lock.
///
/// A turn is handed to a waiter, if there is one, rather than put up for grabs: a thread that writes in a loop cannot
/// starve the others.
#[derive(Default)]
pub(crate) struct Turn {
    held: bool,
    /// Given up in favour of whoever of the waiting wakes first.
    handed: bool,
    waiting: usize,
}

impl Turn {
    pub fn try_take(&mut self) -> bool {
        let free = !self.held && !self.handed;
        self.held |= free;
        free
    }

    pub fn is_free(&self) -> bool {
        !self.held && !self.handed
    }

    pub fn release(&mut self, changed: &Condvar) {
        self.held = false;
        if self.waiting > 0 {
            self.handed = true;
            changed.notify_one();
        }
    }

    /// To be followed by sleeping on `changed`, then `claim` as often as it takes, or `give_up`.
    pub fn join(&mut self) {
        self.waiting += 1;
    }

    pub fn claim(&mut self) -> bool {
        if !self.handed || self.held {
            return false;
        }
        (self.handed, self.held) = (false, true);
        self.waiting -= 1;
        true
    }

    /// After a `claim` in vain, under the same lock: so the turn has not been handed to anybody.
    pub fn give_up(&mut self) {
        self.waiting -= 1;
    }
}
