//! What must not be left behind when we end, by a signal too: the file of a Unix socket, and processes that --exec has started.

use std::io;
use std::process::{Child, Command, ExitStatus};
use std::sync::{Mutex, MutexGuard, PoisonError};

#[cfg(unix)]
use std::path::{Path, PathBuf};

#[derive(Default)]
struct Leftovers {
    /// Where it is, and which it is: its device and number.
    #[cfg(unix)]
    socket: Option<(PathBuf, u64, u64)>,
    /// Each the first of a group of its own.
    processes: Vec<u32>,
}

static LEFTOVERS: Mutex<Leftovers> = Mutex::new(Leftovers {
    #[cfg(unix)]
    socket: None,
    processes: Vec::new(),
});

fn leftovers() -> MutexGuard<'static, Leftovers> {
    LEFTOVERS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Makes the socket's file, by this, and remembers it.
#[cfg(unix)]
pub fn make_socket<T>(path: &Path, bind: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    // Held meanwhile, so that a signal comes before it or behind it.
    let mut left = leftovers();
    let bound = bind()?;
    left.socket = identity(path).map(|(device, number)| (path.to_path_buf(), device, number));
    Ok(bound)
}

#[cfg(unix)]
fn identity(path: &Path) -> Option<(u64, u64)> {
    use std::os::unix::fs::MetadataExt;
    let metadata = std::fs::symlink_metadata(path).ok()?;
    Some((metadata.dev(), metadata.ino()))
}

/// Nobody listens there any more. What has come to stand in its place is not ours.
pub fn remove_socket() {
    leftovers().remove_socket();
}

/// When we end: processes have seen their pipes close, and are told as well.
pub fn end() {
    let mut left = leftovers();
    left.remove_socket();
    for process in left.processes.drain(..) {
        tell_group(process, false);
    }
}

impl Leftovers {
    fn remove_socket(&mut self) {
        #[cfg(unix)]
        if let Some((path, device, number)) = self.socket.take() {
            if identity(&path) == Some((device, number)) {
                let _ = std::fs::remove_file(path);
            }
        }
    }
}

pub fn start(command: &mut Command) -> io::Result<Child> {
    #[cfg(unix)]
    std::os::unix::process::CommandExt::process_group(command, 0);
    let mut left = leftovers();
    let child = command.spawn()?;
    left.processes.push(child.id());
    Ok(child)
}

/// How it has ended, if it has. From then on its number may be another's.
pub fn try_wait(child: &mut Child) -> io::Result<Option<ExitStatus>> {
    let mut left = leftovers();
    let status = child.try_wait()?;
    if status.is_some() {
        left.processes.retain(|process| *process != child.id());
    }
    Ok(status)
}

/// Asks a process and those that it has started to end, or ends them.
pub fn stop(child: &mut Child, by_force: bool) {
    if leftovers().processes.contains(&child.id()) {
        tell_group(child.id(), by_force);
        #[cfg(not(unix))]
        let _ = child.kill();
    }
}

#[cfg(unix)]
fn tell_group(process: u32, by_force: bool) {
    use rustix::process::{kill_process_group, Pid, Signal};
    let signal = if by_force { Signal::KILL } else { Signal::TERM };
    if let Some(group) = i32::try_from(process).ok().and_then(Pid::from_raw) {
        let _ = kill_process_group(group, signal);
    }
}

#[cfg(not(unix))]
fn tell_group(_: u32, _: bool) {}

/// From here on ^C and its like clean up, then do what they always do.
#[cfg(unix)]
pub fn clean_up_at_signals() -> io::Result<()> {
    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
    let ignored = ignored_signals();
    let wanted = [SIGHUP, SIGINT, SIGTERM].into_iter().filter(|signal| ignored >> (signal - 1) & 1 == 0);
    let mut signals = signal_hook::iterator::Signals::new(wanted)?;
    std::thread::Builder::new().spawn(move || {
        for signal in signals.forever() {
            end();
            let _ = signal_hook::low_level::emulate_default_handler(signal);
        }
    })?;
    Ok(())
}

/// As `nohup`, or a shell's `&`, have it; where the system does not tell, none.
#[cfg(unix)]
fn ignored_signals() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| u64::from_str_radix(line.strip_prefix("SigIgn:")?.trim(), 16).ok());
    mask.unwrap_or(0)
}

#[cfg(not(unix))]
pub fn clean_up_at_signals() -> io::Result<()> {
    Ok(())
}
