use std::fs::{File, OpenOptions};
use std::io::Write;

use parking_lot::Mutex;

use crate::error::Error;
use crate::settings::{KeyLog, Settings};

/// Where a context's secrets are logged, in the NSS key log format: a file, a closure, or both.
#[derive(Debug)]
pub(super) struct KeyLogger {
    file: Option<Mutex<File>>,
    closure: Option<KeyLog>,
}

impl KeyLogger {
    /// `None` if nobody asked for it.
    pub fn new(settings: &Settings) -> Result<Option<KeyLogger>, Error> {
        let open = |path: &std::path::PathBuf| {
            let mut options = OpenOptions::new();
            options.append(true).create(true);
            // Whoever reads it can read the connections.
            #[cfg(unix)]
            std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
            let file = options.open(path);
            file.map(Mutex::new).map_err(|e| Error::of_file("cannot open the key log", path, e))
        };
        let file = settings.key_log_file.as_ref().map(open).transpose()?;
        let closure = settings.key_log.clone();
        Ok((file.is_some() || closure.is_some()).then_some(KeyLogger { file, closure }))
    }

    /// A line, without its newline.
    pub fn log(&self, line: &str) {
        if let Some(file) = &self.file {
            // A key log that can't be written must not end the connection.
            let _ = file.lock().write_all(format!("{line}\n").as_bytes());
        }
        if let Some(closure) = &self.closure {
            closure.ask(|log| log(line));
        }
    }
}
