//! Lines with a time and a level, written by a thread of its own: whoever reads them may be slow, or gone, and no loop waits for it.

use std::fmt::Display;
use std::io::{self, Write};
use std::sync::mpsc::{sync_channel, SyncSender};
use std::sync::LazyLock;
use std::thread;
use std::time::{Duration, SystemTime};

pub fn info(text: impl Display) {
    write("INFO ", text, io::stdout());
}

pub fn warn(text: impl Display) {
    write("WARN ", text, io::stderr());
}

pub fn error(text: impl Display) {
    write("ERROR", text, io::stderr());
}

/// Something that went wrong with somebody, whose name is said once: most errors of the library have it in them.
pub fn about(whom: impl Display, error: &io::Error) -> io::Error {
    let (whom, text) = (whom.to_string(), error.to_string());
    io::Error::new(error.kind(), if text.contains(&whom) { text } else { format!("{whom}: {text}") })
}

/// Waits until all is written, but not for ever.
pub fn flush() {
    let (done, written) = sync_channel(1);
    queue(move || done.send(()).unwrap_or_default());
    let _ = written.recv_timeout(Duration::from_secs(1));
}

/// `2026-11-30T04:41:55.123Z WARN  text`. What peers have said must not look like another line.
fn write(level: &str, text: impl Display, mut to: impl Write + Send + 'static) {
    let (now, text) = (humantime::format_rfc3339_millis(SystemTime::now()), text.to_string());
    let line = format!("{now} {level} {}\n", text.replace(char::is_control, "?"));
    // To a reader that has gone nothing can be said; `println!` would panic.
    queue(move || drop(to.write_all(line.as_bytes())));
}

fn queue(job: impl FnOnce() + Send + 'static) {
    static JOBS: LazyLock<SyncSender<Box<dyn FnOnce() + Send>>> = LazyLock::new(|| {
        // Lines that wait for their reader. What comes beyond is lost.
        let (jobs, waiting) = sync_channel::<Box<dyn FnOnce() + Send>>(1024);
        thread::spawn(move || waiting.iter().for_each(|job| job()));
        jobs
    });
    let _ = JOBS.try_send(Box::new(job));
}
