//! Why we stop: an exit code for scripts, and a text for people.

use std::fmt::{self, Display};
use std::io::{self, Write};

pub const USAGE: u8 = 1;
pub const CONNECT: u8 = 2;
pub const HANDSHAKE: u8 = 3;
pub const CERTIFICATE: u8 = 4;
pub const TRANSFER: u8 = 5;
pub const LOCAL: u8 = 6;
pub const HTTP: u8 = 7;

#[derive(Debug)]
pub struct Failure {
    pub code: u8,
    pub text: String,
}

impl Failure {
    pub fn new(code: u8, text: impl Display) -> Failure {
        Failure { code, text: text.to_string() }
    }

    /// When whoever reads our output has enough, as in `https_get ... | head`, there is nothing to say.
    pub fn output(error: io::Error) -> Failure {
        let quiet = error.kind() == io::ErrorKind::BrokenPipe;
        Failure { code: LOCAL, text: if quiet { String::new() } else { format!("cannot write the output: {error}") } }
    }

    /// Of the connection, or one of ours that has come through a `Read`.
    pub fn transfer(error: io::Error) -> Failure {
        match error.downcast() {
            Ok(failure) => failure,
            Err(error) => Failure::new(TRANSFER, error),
        }
    }

    pub fn not_http(why: impl Display) -> Failure {
        Failure::new(HTTP, format!("the server's answer is not HTTP/1.1: {why}"))
    }
}

impl Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Failure {}

/// So that it can come out of a `Read`.
impl From<Failure> for io::Error {
    fn from(failure: Failure) -> io::Error {
        io::Error::other(failure)
    }
}

/// On stderr. Who asks for it with `2>&-` may do without.
pub fn tell(text: impl Display) {
    // In one piece, for those who share it.
    let _ = io::stderr().write_all(format!("https_get: {text}\n").as_bytes());
}
