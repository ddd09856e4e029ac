//! Lines with a time and a level, written by a thread of its own: whoever reads them may be slow, or gone, and no loop waits for it.

use std::fmt::Display;
use std::io::{self, Write};
use std::sync::mpsc::{sync_channel, SyncSender};
use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Lines that wait for their reader. What comes beyond is lost.
const WAITING: usize = 1024;
type Job = Box<dyn FnOnce() + Send>;

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
pub fn about(whom: impl Display, error: &io::Error) -> String {
    let (whom, error) = (whom.to_string(), error.to_string());
    if error.contains(&whom) {
        error
    } else {
        format!("{whom}: {error}")
    }
}

/// Waits until all is written, but not for ever.
pub fn flush() {
    let (done, written) = sync_channel(1);
    queue(move || done.send(()).unwrap_or_default());
    let _ = written.recv_timeout(Duration::from_secs(1));
}

fn write(level: &str, text: impl Display, mut to: impl Write + Send + 'static) {
    let line = line(level, text);
    // To a reader that has gone nothing can be said; `println!` would panic.
    queue(move || drop(to.write_all(line.as_bytes())));
}

fn queue(job: impl FnOnce() + Send + 'static) {
    static JOBS: OnceLock<SyncSender<Job>> = OnceLock::new();
    let jobs = JOBS.get_or_init(|| {
        let (jobs, waiting) = sync_channel::<Job>(WAITING);
        thread::spawn(move || waiting.iter().for_each(|job| job()));
        jobs
    });
    let _ = jobs.try_send(Box::new(job));
}

/// `2026-11-30T04:41:55.123Z WARN  text`. What peers have said must not look like another line.
fn line(level: &str, text: impl Display) -> String {
    let text = text.to_string().replace(char::is_control, "?");
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let (days, second) = (now.as_secs() / 86_400, now.as_secs() % 86_400);
    // Days from the first of March in the year 0, in eras of 400 years; a leap day comes last.
    let (era, day) = ((days + 719_468) / 146_097, (days + 719_468) % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let (day, month) = (day - (153 * month + 2) / 5 + 1, if month < 10 { month + 3 } else { month - 9 });
    let year = era * 400 + year + u64::from(month <= 2);
    let (hour, minute, second, milli) = (second / 3600, second / 60 % 60, second % 60, now.subsec_millis());
    format!("{year}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{milli:03}Z {level} {text}\n")
}
