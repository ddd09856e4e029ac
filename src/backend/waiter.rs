//! Waiting for events, on top of [`polling::Poller`].

use std::io;
use std::time::Duration;
#[cfg(any(target_os = "linux", target_os = "android"))]
use std::time::Instant;

use polling::{Event, PollMode, Poller};

use super::Happened;
use crate::sys::{BorrowedFd, Descriptor};

/// What is added to the poller for nothing else. Elsewhere it may turn around such an event for ever.
const TELLS_HANG_UPS: bool = cfg!(any(target_os = "linux", target_os = "android"));

/// The poller, and what it takes to wait on it and to break a wait off.
pub(super) struct Waiter {
    poller: Poller,
    mode: PollMode,
    #[cfg(any(target_os = "linux", target_os = "android"))]
    bell: crate::sys::OwnedFd,
    /// Who made it: a forked child has the same poller as its parent, and what it took out would be gone there.
    maker: u32,
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
    fn is_ours(&self) -> bool {
        std::process::id() == self.maker
    }

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
    pub fn change(&self, fd: Descriptor, key: usize, old: Happened, new: Happened) -> io::Result<()> {
        let watched = |h: Happened| h.readable || h.writable || (TELLS_HANG_UPS && h.hung_up);
        let (was, is) = (watched(old), watched(new));
        if (was, old.readable, old.writable) == (is, new.readable, new.writable) {
            return Ok(());
        }
        // Hang-ups are reported unasked.
        let new = Event::new(key, new.readable, new.writable);
        // SAFETY: the descriptor belongs to the stream inside an `Arc<dyn Source>` that the backend's entry holds, under
        // whose lock we are called, so it is open now. It stays so while it is in the poller: an entry is removed by
        // `Place::leave` or with all of the backend only, and both delete the descriptor first.
        unsafe {
            let fd = BorrowedFd::borrow_raw(fd);
            match (was, is) {
                (false, true) => self.poller.add_with_mode(&fd, new, self.mode),
                (true, true) => self.poller.modify_with_mode(fd, new, self.mode),
                (true, false) if !self.is_ours() => Ok(()),
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
        Ok(Waiter { poller, mode, bell, maker: std::process::id() })
    }

    /// No later than `timeout` plus what the system takes to wake a thread, some 0.1 ms.
    ///
    /// `epoll_wait` knows whole milliseconds only, `epoll_pwait2` is missing in older kernels, and the system wakes late
    /// by a thousandth of a long time. So a time-out is waited for in two parts, or three: what is left in the end is
    /// waited for with `ppoll`, which is exact. That is one call more, or two, for a wait in which nothing happens, and
    /// none for others; a short wait of whole milliseconds has no second part.
    pub fn wait(&self, arrivals: &mut Arrivals, timeout: Option<Duration>) -> io::Result<()> {
        arrivals.list.clear();
        let Some(timeout) = timeout else { return self.take(arrivals, None).map(drop) };
        // No clock is asked where one call does.
        let until = (coarse(timeout) != timeout).then(|| Instant::now().checked_add(timeout)).flatten();
        let mut left = timeout;
        loop {
            match coarse(left) {
                Duration::ZERO if !left.is_zero() => return self.take_exactly(arrivals, left),
                time if self.take(arrivals, Some(time))? => return Ok(()),
                _ => {}
            }
            let Some(until) = until else { return Ok(()) };
            left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
        }
    }

    /// For less than a millisecond.
    fn take_exactly(&self, arrivals: &mut Arrivals, timeout: Duration) -> io::Result<()> {
        use rustix::event::{poll, PollFd, PollFlags};
        let timeout = timespec(timeout);
        match poll(&mut [PollFd::new(&self.poller, PollFlags::IN)], Some(&timeout)) {
            Ok(0) | Err(rustix::io::Errno::INTR) => Ok(()),
            Ok(_) => self.take(arrivals, Some(Duration::ZERO)).map(drop),
            Err(e) => Err(e.into()),
        }
    }

    /// Whether the wait is over: something has come, or a signal.
    fn take(&self, arrivals: &mut Arrivals, timeout: Option<Duration>) -> io::Result<bool> {
        use rustix::event::epoll::{self, EventFlags};
        use std::mem::MaybeUninit;
        let mut room = [MaybeUninit::<epoll::Event>::uninit(); Self::ROOM];
        let events = match epoll::wait(&self.poller, &mut room[..], timeout.map(timespec).as_ref()) {
            Err(rustix::io::Errno::INTR) => return Ok(true),
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
                hung_up: flags.intersects(ended),
                disarmed: false,
            };
            arrivals.list.push((key, happened));
        }
        Ok(!events.is_empty())
    }

    /// Ends the wait under way, or the next one.
    pub fn notify(&self) {
        // A bell that can take no more rings already.
        let _ = rustix::io::write(&self.bell, &1u64.to_ne_bytes());
    }
}

/// The part of a wait that `epoll_wait` can do without being late for the whole: whole milliseconds, and of a long time
/// so much less that the system's lateness does not matter.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn coarse(left: Duration) -> Duration {
    /// A thousandth of it is as late as the system is with any wait.
    const SHORT: Duration = Duration::from_millis(50);
    let early = if left > SHORT { left / 256 } else { Duration::ZERO };
    let time = left - early;
    time - Duration::from_nanos(u64::from(time.subsec_nanos() % 1_000_000))
}

#[cfg(any(target_os = "linux", target_os = "android"))]
fn timespec(time: Duration) -> rustix::event::Timespec {
    rustix::event::Timespec { tv_sec: time.as_secs() as _, tv_nsec: time.subsec_nanos() as _ }
}

#[cfg(any(target_os = "linux", target_os = "android"))]
impl Drop for Waiter {
    fn drop(&mut self) {
        if self.is_ours() {
            let _ = self.poller.delete(&self.bell);
        }
    }
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
impl Waiter {
    pub fn new() -> io::Result<Waiter> {
        let poller = Poller::new()?;
        let mode = Waiter::mode_of(&poller);
        Ok(Waiter { poller, mode, maker: std::process::id() })
    }

    pub fn wait(&self, arrivals: &mut Arrivals, timeout: Option<Duration>) -> io::Result<()> {
        arrivals.list.clear();
        let events = arrivals.room.get_or_insert_with(polling::Events::new);
        events.clear();
        self.poller.wait(events, timeout)?;
        let disarmed = self.mode == PollMode::Oneshot;
        arrivals.list.extend(events.iter().map(|event| {
            let happened = Happened { readable: event.readable, writable: event.writable, hung_up: false, disarmed };
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
    use std::net::{Shutdown, TcpListener, TcpStream};
    use std::os::fd::AsRawFd;
    use std::os::unix::net::UnixStream;

    const NONE: Happened = Happened { readable: false, writable: false, hung_up: false, disarmed: false };
    const READABLE: Happened = Happened { readable: true, ..NONE };
    const BOTH: Happened = Happened { readable: true, writable: true, ..NONE };
    const HUNG_UP: Happened = Happened { hung_up: true, ..NONE };

    #[test]
    fn waits_on_the_poller() {
        let waiter = Waiter::new().expect("waiter");
        let (here, mut there) = UnixStream::pair().expect("pair");
        let (fd, mut arrivals) = (here.as_raw_fd(), Arrivals::default());
        waiter.change(fd, 42, NONE, READABLE).expect("add");
        waiter.wait(&mut arrivals, Some(Duration::ZERO)).expect("wait");
        assert!(arrivals.list.is_empty());

        there.write_all(b"x").expect("write");
        // Level: it says so as long as it is so.
        for _ in 0..2 {
            waiter.wait(&mut arrivals, None).expect("wait");
            assert!(matches!(arrivals.list[..], [(42, Happened { readable: true, writable: false, .. })]));
        }

        waiter.change(fd, 42, READABLE, BOTH).expect("modify");
        waiter.wait(&mut arrivals, None).expect("wait");
        assert!(matches!(
            arrivals.list[..],
            [(42, Happened { readable: true, writable: true, hung_up: false, disarmed: false })]
        ));

        waiter.change(fd, 42, BOTH, NONE).expect("delete");
        for _ in 0..2 {
            waiter.notify();
            waiter.notify();
            waiter.wait(&mut arrivals, None).expect("the bell ends it");
            assert!(arrivals.list.is_empty());
        }
        waiter.wait(&mut arrivals, Some(Duration::from_millis(1))).expect("and rings once");
        assert!(arrivals.list.is_empty());
    }

    /// Peers: the one that we watch, and the other.
    fn tcp_pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
        let here = TcpStream::connect(listener.local_addr().expect("addr")).expect("connect");
        (here, listener.accept().expect("accept").0)
    }

    #[test]
    fn a_watch_for_hang_ups_tells_of_a_reset_and_of_nothing_else() {
        let waiter = Waiter::new().expect("waiter");
        let (here, mut there) = tcp_pair();
        let (fd, mut arrivals) = (here.as_raw_fd(), Arrivals::default());
        let mut look = |timeout| {
            waiter.wait(&mut arrivals, timeout).expect("wait");
            arrivals.list.clone()
        };
        waiter.change(fd, 42, NONE, HUNG_UP).expect("add");
        there.write_all(b"data").expect("write");
        there.shutdown(Shutdown::Write).expect("shutdown");
        assert!(matches!(here.peek(&mut [0]), Ok(1)), "the data is there");
        assert!(look(Some(Duration::from_millis(20))).is_empty(), "and makes no event");

        // From and to other watches.
        waiter.change(fd, 42, HUNG_UP, READABLE).expect("modify");
        assert!(matches!(look(None)[..], [(42, Happened { readable: true, hung_up: false, .. })]));
        waiter.change(fd, 42, READABLE, HUNG_UP).expect("modify");
        assert!(look(Some(Duration::from_millis(20))).is_empty());

        socket2::SockRef::from(&there).set_linger(Some(Duration::ZERO)).expect("linger");
        drop(there);
        assert!(matches!(look(None)[..], [(42, Happened { hung_up: true, .. })]), "a reset does");
        waiter.change(fd, 42, HUNG_UP, NONE).expect("delete");
        assert!(look(Some(Duration::ZERO)).is_empty());
    }

    #[test]
    fn coarse_waits_are_whole_milliseconds_and_never_too_long() {
        let micros = Duration::from_micros;
        for (left, expected) in [(0, 0), (1, 0), (999, 0), (1_000, 1_000), (7_999, 7_000), (50_000, 50_000)] {
            assert_eq!(coarse(micros(left)), micros(expected), "{left} us");
        }
        for left in [50_001, 100_000, 1_000_000, 30_000_000, u64::MAX].map(micros) {
            let time = coarse(left);
            assert!(time.subsec_nanos() % 1_000_000 == 0 && time + left / 1_000 < left, "{time:?} of {left:?}");
        }
        assert!(coarse(Duration::MAX) < Duration::MAX);
    }

    /// How late a wait ends, at best: others may have the processor. Whole milliseconds would be late each time.
    fn lateness(timeout: Duration, enough: Duration) -> Duration {
        let waiter = Waiter::new().expect("waiter");
        let mut arrivals = Arrivals::default();
        let mut best = Duration::MAX;
        let begin = Instant::now();
        while best >= enough && begin.elapsed() < Duration::from_secs(20) {
            let begin = Instant::now();
            waiter.wait(&mut arrivals, Some(timeout)).expect("wait");
            best = best.min(begin.elapsed().checked_sub(timeout).expect("never early"));
        }
        best
    }

    #[test]
    fn waits_end_in_time() {
        // By the system's slack and the way through its scheduler; whole milliseconds would be late by 500 us and more.
        let limit = Duration::from_micros(250);
        for micros in [100, 300, 1_500, 10_300, 60_000, 300_000] {
            let late = lateness(Duration::from_micros(micros), limit);
            println!("{micros} us: late by {late:?}");
            assert!(late < limit, "{micros} us: late by {late:?}");
        }
    }

    #[test]
    fn what_comes_in_the_last_fraction_of_a_millisecond_is_taken() {
        let waiter = Waiter::new().expect("waiter");
        let (here, mut there) = UnixStream::pair().expect("pair");
        let mut arrivals = Arrivals::default();
        waiter.change(here.as_raw_fd(), 42, NONE, READABLE).expect("add");
        there.write_all(b"x").expect("write");
        for timeout in [Duration::from_micros(300), Duration::from_micros(1_300)] {
            waiter.wait(&mut arrivals, Some(timeout)).expect("wait");
            assert_eq!(arrivals.list.len(), 1, "{timeout:?}");
        }
    }
}
