//! How far the transfer has come.

use std::fs;
use std::io::{self, Seek};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use indicatif::{ProgressBar, ProgressStyle};

#[derive(Clone, Copy, PartialEq)]
pub enum Direction {
    Sent,
    Received,
}

/// How the two directions know of each other, and how the user does.
pub struct Progress {
    /// Both ways.
    bytes: AtomicU64,
    /// Something read from stdin is not yet written.
    pub sending: AtomicBool,
    /// The peer is told that stdin has ended.
    pub stdin_ended: AtomicBool,
    pub bar: ProgressBar,
    /// What the bar is about.
    shown: Direction,
}

impl Progress {
    /// The bar is for the file that goes out or else comes in. `indicatif` draws on stderr, if that is a terminal.
    pub fn new() -> Progress {
        let to_send = file_behind(&io::stdin()).and_then(|mut file| {
            let length = file.metadata().ok()?.len();
            Some(length.saturating_sub(file.stream_position().ok()?))
        });
        let (bar, shown, template) = match to_send {
            Some(length) => {
                let template = "{wide_bar} {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec} {eta}";
                (ProgressBar::new(length), Direction::Sent, template)
            }
            None if file_behind(&io::stdout()).is_some() => {
                let template = "{spinner} {binary_bytes} {binary_bytes_per_sec} {elapsed}";
                (ProgressBar::no_length(), Direction::Received, template)
            }
            None => (ProgressBar::hidden(), Direction::Sent, ""),
        };
        let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
        let (bytes, sending, stdin_ended) = (AtomicU64::new(0), AtomicBool::new(false), AtomicBool::new(false));
        Progress { bytes, sending, stdin_ended, bar: bar.with_style(style), shown }
    }

    pub fn add(&self, direction: Direction, n: usize) {
        self.bytes.fetch_add(n as u64, Ordering::Relaxed);
        if direction == self.shown {
            self.bar.inc(n as u64);
        }
    }

    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Our end has been said, and nothing else by anybody.
    pub fn is_silent_end(&self) -> bool {
        self.stdin_ended.load(Ordering::Relaxed) && self.bytes() == 0
    }

    pub fn is_sending(&self) -> bool {
        self.sending.load(Ordering::Relaxed)
    }
}

/// The regular file that one of the standard streams was redirected to.
#[cfg(unix)]
fn file_behind(stream: &impl std::os::fd::AsFd) -> Option<fs::File> {
    let file = fs::File::from(stream.as_fd().try_clone_to_owned().ok()?);
    file.metadata().ok()?.is_file().then_some(file)
}

#[cfg(windows)]
fn file_behind(stream: &impl std::os::windows::io::AsHandle) -> Option<fs::File> {
    let file = fs::File::from(stream.as_handle().try_clone_to_owned().ok()?);
    file.metadata().ok()?.is_file().then_some(file)
}
