//! Waiting for events, on top of [`polling::Poller`].

use std::io;
use std::os::fd::{BorrowedFd, RawFd};
use std::time::Duration;

use polling::{Event, PollMode, Poller};

use super::Happened;

/// The poller, and what it takes to wait on it and to break a wait off.
pub(super) struct Waiter {
    poller: Poller,
    mode: PollMode,
    #[cfg(any(target_os = "linux", target_os = "android"))]
    bell: std::os::fd::OwnedFd,
}

/// What came of a wait, and the room for it.
#[derive(Default)]
pub(super) struct Arrivals {
    /// Keys, and what happened there.
    pub list: Vec<(usize, Happened)>,
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    room: Option<polling::Events>,
}

impl Waiter {
    fn mode_of(poller: &Poller) -> PollMode {
        // What is not re-armed for each event saves a system call for each.
        if poller.supports_level() {
            PollMode::Level
        } else {
            PollMode::Oneshot
        }
    }

    /// From one interest to another, with as few system calls as that takes.
    #[allow(unsafe_code, reason = "adding to a poller and borrowing a raw descriptor")]
    pub fn change(&self, fd: RawFd, old: Event, new: Event) -> io::Result<()> {
        let (was, is) = (old.readable || old.writable, new.readable || new.writable);
        if (old.readable, old.writable) == (new.readable, new.writable) {
            return Ok(());
        }
        // SAFETY: the descriptor belongs to the stream inside an `Arc<dyn Source>` that the backend's entry holds, under
        // whose lock we are called, so it is open now. It stays so while it is in the poller: an entry is removed by
        // `Place::leave` or with all of the backend only, and both delete the descriptor first.
        unsafe {
            let fd = BorrowedFd::borrow_raw(fd);
            match (was, is) {
                (false, true) => self.poller.add_with_mode(&fd, new, self.mode),
                (true, true) => self.poller.modify_with_mode(fd, new, self.mode),
                (true, false) => self.poller.delete(fd),
                (false, false) => Ok(()),
            }
        }
    }
}

/// On Linux the wait itself is done here: the poller's own costs four system calls more, for a timer and a notifier that
/// `epoll_wait` and a bell of ours make needless. The poller's descriptor is the epoll instance, and its keys are the
/// events' data; `waits_on_the_poller` checks that.
#[cfg(any(target_os = "linux", target_os = "android"))]
impl Waiter {
    /// Not among the keys of sources, nor that which the poller keeps for itself.
    const BELL: usize = usize::MAX - 1;
    const ROOM: usize = 1024;

    #[allow(unsafe_code, reason = "adding to a poller")]
    pub fn new() -> io::Result<Waiter> {
        use rustix::event::{eventfd, EventfdFlags};
        let poller = Poller::new()?;
        let bell = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let mode = Waiter::mode_of(&poller);
        // SAFETY: both live in the same struct, and `Drop` deletes the bell before either is closed.
        unsafe { poller.add_with_mode(&bell, Event::readable(Self::BELL), PollMode::Level)? };
        Ok(Waiter { poller, mode, bell })
    }

    pub fn wait(&self, arrivals: &mut Arrivals, timeout: Option<Duration>) -> io::Result<()> {
        use rustix::event::epoll::{self, EventFlags};
        use rustix::event::Timespec;
        use std::mem::MaybeUninit;
        arrivals.list.clear();
        let mut room = [MaybeUninit::<epoll::Event>::uninit(); Self::ROOM];
        let timeout = timeout.map(|t| Timespec { tv_sec: t.as_secs() as _, tv_nsec: t.subsec_nanos() as _ });
        let events = match epoll::wait(&self.poller, &mut room[..], timeout.as_ref()) {
            Err(rustix::io::Errno::INTR) => return Ok(()),
            result => result?.0,
        };
        let ended = EventFlags::HUP | EventFlags::ERR;
        for event in events.iter() {
            let (flags, key) = (event.flags, event.data.u64() as usize);
            if key == Self::BELL {
                // Whoever rings from here on rings for the next wait.
                let _ = rustix::io::read(&self.bell, &mut [0; 8]);
                continue;
            }
            let happened = Happened {
                readable: flags.intersects(EventFlags::IN | EventFlags::PRI | ended),
                writable: flags.intersects(EventFlags::OUT | ended),
                disarmed: false,
            };
            arrivals.list.push((key, happened));
        }
        Ok(())
    }

    /// Ends the wait under way, or the next one.
    pub fn notify(&self) {
        // A bell that can take no more rings already.
        let _ = rustix::io::write(&self.bell, &1u64.to_ne_bytes());
    }
}

#[cfg(any(target_os = "linux", target_os = "android"))]
impl Drop for Waiter {
    fn drop(&mut self) {
        let _ = self.poller.delete(&self.bell);
    }
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
impl Waiter {
    pub fn new() -> io::Result<Waiter> {
        let poller = Poller::new()?;
        let mode = Waiter::mode_of(&poller);
        Ok(Waiter { poller, mode })
    }

    pub fn wait(&self, arrivals: &mut Arrivals, timeout: Option<Duration>) -> io::Result<()> {
        arrivals.list.clear();
        let events = arrivals.room.get_or_insert_with(polling::Events::new);
        events.clear();
        self.poller.wait(events, timeout)?;
        let disarmed = self.mode == PollMode::Oneshot;
        arrivals.list.extend(events.iter().map(|event| {
            let happened = Happened { readable: event.readable, writable: event.writable, disarmed };
            (event.key, happened)
        }));
        Ok(())
    }

    pub fn notify(&self) {
        // A failure would mean a poller that is broken; the next turn says so.
        let _ = self.poller.notify();
    }
}

#[cfg(all(test, any(target_os = "linux", target_os = "android")))]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::fd::AsRawFd;
    use std::os::unix::net::UnixStream;

    #[test]
    fn waits_on_the_poller() {
        let waiter = Waiter::new().expect("waiter");
        let (here, mut there) = UnixStream::pair().expect("pair");
        let mut arrivals = Arrivals::default();
        let none = Event::none(42);
        waiter.change(here.as_raw_fd(), none, Event::readable(42)).expect("add");
        waiter.wait(&mut arrivals, Some(Duration::ZERO)).expect("wait");
        assert!(arrivals.list.is_empty());

        there.write_all(b"x").expect("write");
        // Level: it says so as long as it is so.
        for _ in 0..2 {
            waiter.wait(&mut arrivals, None).expect("wait");
            assert!(matches!(arrivals.list[..], [(42, Happened { readable: true, writable: false, .. })]));
        }

        waiter.change(here.as_raw_fd(), Event::readable(42), Event::all(42)).expect("modify");
        waiter.wait(&mut arrivals, None).expect("wait");
        assert!(matches!(arrivals.list[..], [(42, Happened { readable: true, writable: true, .. })]));

        waiter.change(here.as_raw_fd(), Event::all(42), none).expect("delete");
        for _ in 0..2 {
            waiter.notify();
            waiter.notify();
            waiter.wait(&mut arrivals, None).expect("the bell ends it");
            assert!(arrivals.list.is_empty());
        }
        waiter.wait(&mut arrivals, Some(Duration::from_millis(1))).expect("and rings once");
        assert!(arrivals.list.is_empty());
    }
}
