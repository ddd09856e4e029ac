//! Which processor each end runs on. Left to the system, two threads that wait for one another land on one processor or on
//! two as it likes, and what differs by a factor of three is the luck and not the peer.

use std::io;
use std::panic::resume_unwind;
use std::process::{Child, Command};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::OnceLock;
use std::thread;

use rustix::process::Pid;

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Pin {
    /// The system decides
    Free,
    /// Both ends on one processor
    Together,
    /// Each end on its own
    Apart,
}

/// What the user wants for all cases.
static WANTED: OnceLock<Pin> = OnceLock::new();
static CURRENT: AtomicU8 = AtomicU8::new(Pin::Free as u8);

/// Instead of what suits each case.
pub fn override_all(pin: Pin) {
    WANTED.get_or_init(|| pin);
}

/// From now on, for a case that `pin` suits. The calling thread is a client.
pub fn set(pin: Pin) {
    CURRENT.store(*WANTED.get().unwrap_or(&pin) as u8, Ordering::Relaxed);
    client();
}

/// The calling thread is a client.
pub fn client() {
    if CURRENT.load(Ordering::Relaxed) == Pin::Free as u8 {
        processors::run_on_any(None);
    } else {
        processors::run_on(0, None);
    }
}

/// The calling thread is a server.
pub fn server() {
    place_server(None);
}

/// That process is a server, whatever processor it has chosen for itself.
pub fn server_process(pid: Pid) {
    place_server(Some(pid));
}

/// The calling thread has the `n`th processor.
pub fn to(n: usize) {
    processors::run_on(n, None);
}

/// What a thread says that is bound to a processor.
pub fn bound<T: Send>(f: impl FnOnce() -> T + Send) -> T {
    let work = || {
        to(0);
        f()
    };
    thread::scope(|scope| scope.spawn(work).join().unwrap_or_else(|panic| resume_unwind(panic)))
}

/// How many there are for this process.
pub fn processors() -> usize {
    processors::count()
}

/// Starts a process that may run everywhere, and will say itself where.
pub fn spawn(command: &mut Command) -> io::Result<Child> {
    let spawn = || {
        processors::run_on_any(None);
        command.spawn()
    };
    thread::scope(|scope| scope.spawn(spawn).join().unwrap_or_else(|panic| resume_unwind(panic)))
}

fn place_server(pid: Option<Pid>) {
    match CURRENT.load(Ordering::Relaxed) {
        pin if pin == Pin::Together as u8 => processors::run_on(0, pid),
        pin if pin == Pin::Apart as u8 => processors::run_on(1, pid),
        _ => processors::run_on_any(pid),
    }
}

#[cfg(target_os = "linux")]
mod processors {
    use std::sync::OnceLock;

    use rustix::process::Pid;
    use rustix::thread::{sched_getaffinity, sched_setaffinity, CpuSet};

    /// Those that the process may use, asked before the first change.
    fn allowed() -> &'static CpuSet {
        static ALLOWED: OnceLock<CpuSet> = OnceLock::new();
        ALLOWED.get_or_init(|| sched_getaffinity(None).unwrap_or_default())
    }

    pub fn run_on_any(thread: Option<Pid>) {
        // On failure the thread stays where it is, which is where it may be.
        let _ = sched_setaffinity(thread, allowed());
    }

    pub fn count() -> usize {
        (0..CpuSet::MAX_CPU).filter(|cpu| allowed().is_set(*cpu)).count().max(1)
    }

    /// The `n`th of them; the last if there are fewer.
    pub fn run_on(n: usize, thread: Option<Pid>) {
        let all = (0..CpuSet::MAX_CPU).filter(|cpu| allowed().is_set(*cpu));
        if let Some(cpu) = all.take(n + 1).last() {
            let mut one = CpuSet::new();
            one.set(cpu);
            let _ = sched_setaffinity(thread, &one);
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod processors {
    use rustix::process::Pid;

    pub fn run_on_any(_: Option<Pid>) {}
    pub fn run_on(_: usize, _: Option<Pid>) {}

    pub fn count() -> usize {
        std::thread::available_parallelism().map_or(1, usize::from)
    }
}
