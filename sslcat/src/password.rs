//! The password of a private key: from a file, from the environment, or from whoever sits at the terminal. Never from the command
//! line, which other users can read.

use std::fs::File;
use std::io::{self, Read};

use zeroize::Zeroizing;

use crate::args::Certificates;
use crate::exit::{self, Failure};

/// Longer ones are none.
const MOST: usize = 1024;

pub type Password = Zeroizing<String>;

/// What the command line says where to find.
pub fn given(asked: &Certificates) -> Result<Option<Password>, Failure> {
    if let Some(path) = &asked.password_file {
        let unusable = |error| Failure::new(exit::USAGE, format!("--password-file {}: {error}", path.display()));
        // Room enough from the start: a buffer that grows leaves copies behind.
        let mut text = Zeroizing::new(Vec::with_capacity(MOST + 2));
        let read = File::open(path).and_then(|file| file.take(MOST as u64 + 2).read_to_end(&mut text));
        read.map_err(unusable)?;
        let line = text.split(|byte| *byte == b'\n').next().unwrap_or_default();
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let password = std::str::from_utf8(line).ok().filter(|line| line.len() <= MOST);
        let password = password.ok_or_else(|| unusable(io::Error::other("its first line is no password")))?;
        return Ok(Some(Zeroizing::new(password.to_string())));
    }
    let Some(name) = &asked.password_env else { return Ok(None) };
    let unusable = |why| Failure::new(exit::USAGE, format!("--password-env {name}: the variable {why}"));
    match std::env::var(name) {
        Ok(password) => Ok(Some(Zeroizing::new(password))),
        Err(std::env::VarError::NotPresent) => Err(unusable("is not set")),
        Err(std::env::VarError::NotUnicode(_)) => Err(unusable("is not UTF-8")),
    }
}

/// Tries what `open` makes of the password that is given, or else of what is typed at the terminal.
pub fn with<T>(asked: &Certificates, what: &str, open: impl Fn(&str) -> Result<T, Failure>) -> Result<T, Failure> {
    const ATTEMPTS: usize = 3;
    if let Some(password) = given(asked)? {
        return open(&password);
    }
    let mut attempt = 1;
    loop {
        let password = ask(&format!("Password of {what}: ")).map_err(|error| {
            let text = format!("{what} needs a password, and {error}: --password-file FILE or --password-env NAME");
            Failure::new(exit::USAGE, text)
        })?;
        match open(&password) {
            Err(failure) if attempt < ATTEMPTS && failure.text.contains("password") => {
                crate::tell(failure.text);
                attempt += 1;
            }
            opened => return opened,
        }
    }
}

#[cfg(not(unix))]
fn ask(_: &str) -> io::Result<Password> {
    Err(io::Error::new(io::ErrorKind::Unsupported, "it can't be asked for here"))
}

#[cfg(unix)]
use terminal::ask;

#[cfg(unix)]
mod terminal {
    use std::fs::File;
    use std::io::{self, Write};

    use rustix::termios::{self, LocalModes, OptionalActions, SpecialCodeIndex, Termios};

    use super::{Password, Zeroizing, MOST};
    use crate::transfer::read_some;

    /// As it was, whatever happens.
    struct Quiet<'a> {
        terminal: &'a File,
        before: Termios,
    }

    impl Drop for Quiet<'_> {
        fn drop(&mut self) {
            let _ = termios::tcsetattr(self.terminal, OptionalActions::Now, &self.before);
        }
    }

    /// On the terminal itself: stdin and stdout are the transfer's.
    pub fn ask(prompt: &str) -> io::Result<Password> {
        let mut terminal = File::options()
            .read(true)
            .write(true)
            .open("/dev/tty")
            .map_err(|_| io::Error::other("there is no terminal to ask at"))?;
        let before = termios::tcgetattr(&terminal)?;
        let mut quiet = before.clone();
        // Keys that would end or stop us are read as well, so that none leaves a terminal behind that shows nothing.
        quiet.local_modes.remove(LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG);
        quiet.special_codes[SpecialCodeIndex::VMIN] = 1;
        quiet.special_codes[SpecialCodeIndex::VTIME] = 0;
        let reader = terminal.try_clone()?;
        termios::tcsetattr(&terminal, OptionalActions::Flush, &quiet)?;
        let quiet = Quiet { terminal: &reader, before };
        terminal.write_all(prompt.as_bytes())?;
        let typed = line(quiet.terminal);
        terminal.write_all(b"\n")?;
        typed
    }

    /// What is typed up to Enter.
    fn line(mut terminal: &File) -> io::Result<Password> {
        const INTERRUPT: u8 = 3;
        const END: u8 = 4;
        const ERASE: [u8; 2] = [8, 127];
        const ERASE_ALL: u8 = 21;
        let none = || Err(io::Error::other("none was given"));
        let mut password = Zeroizing::new(String::with_capacity(MOST));
        // A character's bytes.
        let mut begun = Zeroizing::new(Vec::with_capacity(4));
        loop {
            let mut byte = Zeroizing::new([0]);
            if read_some(&mut terminal, &mut byte[..])? == 0 {
                return none();
            }
            match byte[0] {
                b'\n' | b'\r' => return Ok(password),
                INTERRUPT | END => return none(),
                byte if ERASE.contains(&byte) => drop(password.pop()),
                ERASE_ALL => password.clear(),
                0..0x20 => {}
                byte => begun.push(byte),
            }
            match std::str::from_utf8(&begun) {
                Ok(text) if password.len() + text.len() <= MOST => password.push_str(text),
                Err(error) if error.error_len().is_none() => continue,
                _ => return Err(io::Error::other("what was typed is no password")),
            }
            begun.clear();
        }
    }
}
