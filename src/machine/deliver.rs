//! What callbacks are to be told, in which order: accept, read, write, close.

use super::read::AHEAD;
use super::send::After;
use super::state::{End, Interest};
use super::{Clock, Machine};
use crate::error::Error;

/// Which callbacks there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Installed {
    pub accept: bool,
    pub read: bool,
    pub write: bool,
    pub close: bool,
    /// A listener's, told instead of all others how the handshake went.
    pub opened: bool,
}

impl Installed {
    #[inline]
    pub fn any(self) -> bool {
        self.accept || self.read || self.write || self.close
    }
}

/// What has been told of a file's life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
enum Told {
    #[default]
    Nothing,
    Accepted,
    Closed,
}

/// What is due.
#[derive(Debug)]
pub(crate) enum Due {
    /// How the handshake went.
    Opened,
    Accept,
    /// So many bytes of plaintext.
    Read(usize),
    Write,
    Close(Result<(), Error>),
    /// All callbacks go, with all they own: the end has been told.
    Forget,
}

#[derive(Debug, Default)]
pub(super) struct Delivering {
    pub installed: Installed,
    pub paused: bool,
    /// The write callback is to be called when nothing is unsent.
    pub write_armed: bool,
    told: Told,
    /// Threads that wait to take the callbacks away: nothing new is called.
    takers: usize,
    /// The backend owns a handle.
    kept: bool,
    /// The system has told that both directions are over: there is nothing more to learn from it.
    hung_up: bool,
}

impl Delivering {
    /// The read callback waits for data.
    pub fn may_give_data(&self) -> bool {
        self.installed.read && !self.paused
    }
}

impl Machine {
    /// Callbacks have been set or removed. `write`: the write callback is a new one.
    pub fn set_installed(&mut self, installed: Installed, write: bool, clock: &impl Clock) {
        let begins = !self.deliver.installed.any() && installed.any();
        self.deliver.installed = installed;
        self.deliver.write_armed |= write;
        if begins {
            self.note_timeouts(clock);
        }
    }

    pub fn pause_reading(&mut self, paused: bool, clock: &impl Clock) {
        if std::mem::replace(&mut self.deliver.paused, paused) != paused {
            self.note_timeouts(clock);
        }
    }

    /// Somebody waits to take the callbacks away, or has done.
    pub fn hold_callbacks(&mut self, hold: bool) {
        match hold {
            true => self.deliver.takers += 1,
            false => self.deliver.takers -= 1,
        }
    }

    /// The backend owns a handle from now on. False if it has one.
    pub fn keep(&mut self) -> bool {
        !std::mem::replace(&mut self.deliver.kept, true)
    }

    /// The backend gives its handle up.
    pub fn let_go(&mut self) -> bool {
        std::mem::take(&mut self.deliver.kept)
    }

    /// What the backend should be woken for. Nothing once reading has ended and all is sent: the system would report the end for
    /// ever.
    #[inline]
    pub fn wants_input(&self) -> bool {
        #[cfg(test)]
        if self.is_left_by_old_rules() {
            return false;
        }
        let is_dead = || self.outcome.send_failure.is_some() || self.outcome.broken.is_some();
        let is_needed = || !self.settled() || self.end.is_under_way() || self.tls.refuses_writes();
        let heeds_no_pause = || is_needed() || self.receive.shut || is_dead();
        self.expects_input()
            && self.receive.readers == 0
            && (!self.deliver.paused || heeds_no_pause())
            && self.tls.ahead() < self.limit()
    }

    #[inline]
    pub fn wants_room(&self) -> bool {
        self.send.is_free() && self.send.current.is_none() && self.has_output() && !self.is_done()
    }

    /// Nothing is read for now: whether the system should tell of a reset.
    pub fn watches_for_hang_up(&self) -> bool {
        self.expects_input() && self.settled() && !self.deliver.hung_up && self.outcome.broken.is_none()
    }

    /// Both directions are over, for this reason, if it is one.
    pub fn hung_up(&mut self, error: Option<Error>) {
        self.deliver.hung_up = true;
        if let Some(error) = error {
            self.broken(error);
        }
    }

    /// Where nobody reads, the end shows only once what is before it has been decrypted.
    fn look_ahead(&mut self) {
        // And where somebody else has met it, who does not read.
        let is_to_show = !self.may_read() || (self.tls.is_input_over() && !self.tls.has_ended());
        if self.settled() && is_to_show && !self.end.is_closing() && !self.receive.shut && !self.is_done() {
            let had_ended = self.tls.has_ended();
            self.tls.read_ahead(AHEAD);
            self.stir.state |= had_ended != self.tls.has_ended();
        }
    }

    /// What is to be told next; plaintext goes into `buffer`.
    pub fn due(&mut self, buffer: &mut [u8], clock: &impl Clock) -> Option<Due> {
        if !self.is_calm() {
            self.look(clock);
        }
        self.look_ahead();
        if self.deliver.takers > 0 {
            return None;
        }
        if self.deliver.installed.opened && self.settled() {
            self.deliver.installed.opened = false;
            return Some(Due::Opened);
        }
        if self.is_accept_due() {
            self.deliver.told = Told::Accepted;
            return Some(Due::Accept);
        }
        if self.may_read() && self.tls.may_have_news() {
            let had_ended = self.tls.has_ended();
            let read = self.tls.read(buffer);
            self.stir.state |= had_ended != self.tls.has_ended();
            if let Ok(n @ 1..) = read {
                return Some(Due::Read(n));
            }
        }
        if self.is_write_due() {
            self.deliver.write_armed = false;
            return Some(Due::Write);
        }
        if self.is_close_due() {
            self.deliver.told = Told::Closed;
            return Some(Due::Close(self.end_result()));
        }
        self.is_forget_due().then_some(Due::Forget)
    }

    /// Whether a backend has something to do without an event.
    pub fn is_due(&mut self) -> bool {
        self.look_ahead();
        self.is_to_begin()
            || self.end.owes_stream_end
            || self.end.held
            || (self.is_cleaned_but_for_return() && self.receive.is_free() && self.send.is_free())
            || self.is_kept_to_the_end()
            || (self.lingers() && self.is_done())
            || (self.deliver.takers == 0 && self.is_call_due())
    }

    fn is_call_due(&mut self) -> bool {
        (self.deliver.installed.opened && self.settled())
            || self.is_accept_due()
            || (self.may_read() && self.tls.may_give_data())
            || self.is_write_due()
            || self.is_close_due()
            || self.is_forget_due()
    }

    fn is_accept_due(&self) -> bool {
        let due = self.deliver.installed.accept && self.deliver.told == Told::Nothing;
        due && self.settled() && self.tls.is_handshake_done()
    }

    fn may_read(&self) -> bool {
        let is_over = self.end.is_closing() || matches!(self.end.state, End::Over { .. });
        self.deliver.may_give_data() && !self.receive.shut && !is_over && self.settled()
    }

    /// Nothing accepted is unsent: sent, or lost. Who pauses to wait for room always hears.
    pub(super) fn is_write_due(&self) -> bool {
        #[cfg(test)]
        if self.old_rules.a && self.write_error().is_some() {
            return false;
        }
        let due = self.deliver.installed.write && self.deliver.write_armed;
        due && self.settled()
            && self.tls.is_handshake_done()
            && self.unsent() == 0
            && self.send.after != After::Push
            && !self.is_over()
    }

    pub(super) fn is_close_due(&self) -> bool {
        self.deliver.installed.close && self.deliver.told != Told::Closed && self.has_reached_end()
    }

    /// The end has come, and all data before it has been taken.
    fn has_reached_end(&self) -> bool {
        match self.end.state {
            _ if self.outcome.own.is_some() => true,
            End::Not if self.receive.shut && self.send.end == super::state::OurEnd::HalfClosed => true,
            End::Not => self.settled() && self.tls.is_read_to_end(),
            _ => false,
        }
    }

    fn is_write_owed(&self) -> bool {
        self.deliver.installed.write && self.deliver.write_armed && !self.is_over()
    }

    fn is_forget_due(&self) -> bool {
        self.deliver.told == Told::Closed
            && self.deliver.installed.any()
            && self.has_reached_end()
            && !self.is_write_owed()
    }

    /// The end has been told, to who is to be told.
    pub(super) fn is_told(&self) -> bool {
        self.deliver.told == Told::Closed
    }

    /// The backend has done all that `keep` asked for.
    pub fn is_kept_to_the_end(&self) -> bool {
        let told = || self.is_told() || !self.deliver.installed.close;
        let nothing_left = || self.unsent() == 0 || self.write_error().is_some();
        self.deliver.kept && told() && self.has_reached_end() && nothing_left()
    }

    /// What an event loop of the user's should wait for.
    pub fn interest(&self) -> Interest {
        let is_ending = self.end.is_under_way() && !self.is_done();
        // What comes behind a handshake whose last words we can't get rid of waits for them.
        let is_full = !self.settled() && (self.tls.is_input_over() || self.tls.ahead() >= self.limit());
        let is_wanted = !self.receive.shut || !self.settled() || is_ending || self.tls.refuses_writes();
        Interest {
            // After `shutdown(Read)` what comes is of use to a handshake and to an end that is under way only.
            readable: !self.is_done() && !self.tls.has_ended() && is_wanted && !is_full,
            // Where the next call needs nothing more to come to its end: a wait that ends at once.
            writable: (is_ending && self.tls.has_ended()) || self.has_output() || self.is_to_begin(),
        }
    }

    /// What a file that wraps this one should wait for, if it wants this of it.
    pub fn waits_for_wrapper(&self, readable: bool, writable: bool) -> Interest {
        let may_write = self.settled() && !self.tls.refuses_writes();
        Interest {
            readable: (readable || (writable && !may_write)) && self.expects_input(),
            writable: self.has_output() || (writable && may_write),
        }
    }
}
