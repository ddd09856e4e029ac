//! What must not stay behind when the process ends before its work is done: by a signal, or because the time is over while
//! something waits that has no deadline (a name that is looked up, an output that nobody reads).

use std::fs;
use std::io;
use std::path::PathBuf;
use std::process;
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard};

use crate::failure::{tell, TRANSFER};

/// The file to be removed. Who ends the process holds this, so that nothing is created or finished meanwhile.
pub static STATE: Mutex<Option<PathBuf>> = Mutex::new(None);

/// Removes it. Whoever drops what this returns lets others create or finish something again.
pub fn remove() -> MutexGuard<'static, Option<PathBuf>> {
    let mut state = STATE.lock();
    let _ = state.take().map(fs::remove_file);
    state
}

/// Waits for signals, and for the end of the time.
pub fn watch(end: Option<Instant>) -> io::Result<()> {
    #[cfg(unix)]
    signals::watch()?;
    let Some(end) = end else { return Ok(()) };
    // The connection's deadlines come first: they can tell more.
    let end = end + Duration::from_millis(300);
    let wait = move || {
        thread::sleep(end.saturating_duration_since(Instant::now()));
        let _state = remove();
        tell("the time of --max-time is over");
        process::exit(TRANSFER.into());
    };
    thread::Builder::new().spawn(wait)?;
    Ok(())
}

#[cfg(unix)]
mod signals {
    use std::{fs, io, thread};

    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
    use signal_hook::iterator::Signals;
    use signal_hook::low_level::emulate_default_handler;

    pub fn watch() -> io::Result<()> {
        let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP].into_iter().filter(|signal| !is_ignored(*signal)))?;
        let wait = move || {
            for signal in signals.forever() {
                let _state = super::remove();
                // Who waits for us sees what ended us.
                let _ = emulate_default_handler(signal);
            }
        };
        thread::Builder::new().spawn(wait)?;
        Ok(())
    }

    /// Since before we began: by `nohup`, or by a shell for what it runs in the background.
    fn is_ignored(signal: i32) -> bool {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let mask = status.lines().find_map(|line| u64::from_str_radix(line.strip_prefix("SigIgn:")?.trim(), 16).ok());
        mask.is_some_and(|mask| mask >> (signal - 1) & 1 == 1)
    }
}
