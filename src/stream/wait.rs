use std::cell::OnceCell;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use rustix::event::{poll, PollFd, PollFlags, Timespec};
use rustix::pipe::{pipe_with, PipeFlags};

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

/// One thread's bed: what others use to wake it from a `poll`.
///
/// There is one for each thread, not for each file, so that an idle connection costs no descriptor.
#[derive(Default)]
pub(crate) struct Sleeper {
    woken: AtomicBool,
    /// Made when the thread polls for the first time: (read end, write end).
    pipe: OnceLock<(OwnedFd, OwnedFd)>,
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
        // First the flag, then the pipe; the sleeper makes the pipe first and then looks at the flag. So one of us sees
        // the other.
        self.woken.store(true, Ordering::SeqCst);
        if let Some((_, write)) = self.pipe.get() {
            // A full pipe wakes as well.
            let _ = rustix::io::write(write, &[0]);
        }
    }

    fn bed(&self) -> io::Result<&OwnedFd> {
        if self.pipe.get().is_none() {
            let ends = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
            let _ = self.pipe.set(ends);
        }
        Ok(&self.pipe.get().expect("set above").0)
    }

    fn take_wake_up(&self, bed: &OwnedFd) -> bool {
        if !self.woken.swap(false, Ordering::SeqCst) {
            return false;
        }
        let mut drain = [0; 64];
        while rustix::io::read(bed, &mut drain).is_ok_and(|n| n == drain.len()) {}
        true
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
    let bed = sleeper.bed()?;
    if sleeper.take_wake_up(bed) {
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
    sleeper.take_wake_up(bed);
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
