use std::cell::OnceCell;
use std::hint;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rustix::event::{poll, PollFd, PollFlags, Timespec};

/// How long an operation on a stream may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// Not at all: `WouldBlock`.
    No,
    /// Until then, or for ever: `TimedOut`.
    Until(Option<Instant>),
}

/// The moment that lies `time` ahead; `None` if it is too far to matter.
pub(crate) fn after(time: Duration) -> Option<Instant> {
    Instant::now().checked_add(time)
}

/// What others use to wake a thread from a `poll`.
///
/// There is one for each thread, not for each file, and it has a descriptor only while the thread is asleep: an idle
/// connection costs none, and a thread that has used files leaves none behind.
#[derive(Default)]
pub(crate) struct Sleeper {
    woken: AtomicBool,
    /// The end to write to, while the thread is in `poll`.
    bed: Mutex<Option<Arc<OwnedFd>>>,
}

thread_local! {
    static SLEEPER: OnceCell<Arc<Sleeper>> = const { OnceCell::new() };
}

impl Sleeper {
    /// This thread's.
    pub fn current() -> Arc<Sleeper> {
        SLEEPER.try_with(|s| s.get_or_init(Arc::default).clone()).unwrap_or_default()
    }

    /// Ends the thread's `poll`, or its next one: at worst a thread looks once more than it must.
    pub fn wake(&self) {
        // First the flag, then the bed; the sleeper makes its bed first and then looks at the flag. So one of us sees
        // the other.
        self.woken.store(true, Ordering::SeqCst);
        let bed = self.bed.lock().clone();
        if let Some(bed) = bed {
            // Nobody has written to it before, so there is room.
            let _ = rustix::io::write(&*bed, &1u64.to_ne_bytes());
        }
    }

    fn take_wake_up(&self) -> bool {
        self.woken.swap(false, Ordering::SeqCst)
    }
}

/// A descriptor to poll and one to write to, which may be the same.
fn make_bed() -> io::Result<(Arc<OwnedFd>, Arc<OwnedFd>)> {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    {
        use rustix::event::{eventfd, EventfdFlags};
        let bed = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        Ok((bed.clone(), bed))
    }
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    {
        let (read, write) = rustix::pipe::pipe()?;
        Ok((Arc::new(read), Arc::new(write)))
    }
}

/// Waits until the descriptor can be read or written.
///
/// Errors: `TimedOut` at the deadline, `Interrupted` when this thread was woken, or by a signal.
pub(crate) fn wait_ready(fd: BorrowedFd<'_>, flags: PollFlags, deadline: Option<Instant>) -> io::Result<()> {
    wait_any(&[(fd, flags)], deadline)
}

fn wait_any(wanted: &[(BorrowedFd<'_>, PollFlags)], deadline: Option<Instant>) -> io::Result<()> {
    let sleeper = Sleeper::current();
    let (bed, doorbell) = make_bed()?;
    *sleeper.bed.lock() = Some(doorbell);
    let result = sleep(&sleeper, &bed, wanted, deadline);
    *sleeper.bed.lock() = None;
    result
}

fn sleep(
    sleeper: &Sleeper,
    bed: &OwnedFd,
    wanted: &[(BorrowedFd<'_>, PollFlags)],
    deadline: Option<Instant>,
) -> io::Result<()> {
    if sleeper.take_wake_up() {
        return Err(io::ErrorKind::Interrupted.into());
    }
    let left = deadline.map(|deadline| {
        let left = deadline.saturating_duration_since(Instant::now());
        Timespec { tv_sec: left.as_secs() as _, tv_nsec: left.subsec_nanos() as _ }
    });
    // The bed first, then what is wanted, one or two.
    let mut fds: [PollFd<'_>; 3] = std::array::from_fn(|_| PollFd::new(bed, PollFlags::IN));
    for (place, (fd, flags)) in fds[1..].iter_mut().zip(wanted) {
        *place = PollFd::from_borrowed_fd(*fd, *flags);
    }
    let fds = &mut fds[..=wanted.len()];
    let ready = poll(fds, left.as_ref())?;
    if fds[1..].iter().any(|fd| !fd.revents().is_empty()) {
        return Ok(());
    }
    sleeper.take_wake_up();
    Err(match ready {
        0 => io::ErrorKind::TimedOut.into(),
        _ => io::ErrorKind::Interrupted.into(),
    })
}

/// Waits until one descriptor can be written or, if there is one, the other can be read. Errors as [`wait_ready`].
pub(crate) fn wait_writable(
    write: BorrowedFd<'_>,
    read: Option<BorrowedFd<'_>>,
    deadline: Option<Instant>,
) -> io::Result<()> {
    match read {
        Some(read) => wait_any(&[(write, PollFlags::OUT), (read, PollFlags::IN)], deadline),
        None => wait_any(&[(write, PollFlags::OUT)], deadline),
    }
}

/// Tries again and again, without sleeping, an operation that gives `WouldBlock` by itself.
///
/// Errors: `WouldBlock` when the time is over, `Interrupted` when this thread was woken; those of the operation.
pub(crate) fn spin(
    sleeper: &Sleeper,
    until: Option<Instant>,
    mut operation: impl FnMut() -> io::Result<usize>,
) -> io::Result<usize> {
    // The peer's thread may have landed on this processor, and others want to run, too.
    const YIELD: u32 = 16;
    let mut round = 0u32;
    loop {
        match operation() {
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
            result => return result,
        }
        if sleeper.take_wake_up() {
            return Err(io::ErrorKind::Interrupted.into());
        }
        if until.is_some_and(|until| Instant::now() >= until) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        round = round.wrapping_add(1);
        match round % YIELD {
            0 => thread::yield_now(),
            _ => hint::spin_loop(),
        }
    }
}

/// Tries, waits until the descriptor is ready, tries again: for operations that give `WouldBlock` by themselves.
pub(crate) fn retry(
    fd: BorrowedFd<'_>,
    flags: PollFlags,
    wait: Wait,
    mut operation: impl FnMut() -> io::Result<usize>,
) -> io::Result<usize> {
    loop {
        match (operation(), wait) {
            (Err(e), Wait::Until(deadline)) if e.kind() == io::ErrorKind::WouldBlock => {
                wait_ready(fd, flags, deadline)?;
            }
            (result, _) => return result,
        }
    }
}
