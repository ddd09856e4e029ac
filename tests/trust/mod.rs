//! Who is trusted, with what keys, and what the two ends agree on.

mod causes;
mod common_names;
mod identities;
mod own_root;
mod settings;
mod verdicts;
mod wiped;

use crate::common;

use std::io::{self, ErrorKind, Read, Write};
use std::thread;
use std::time::Duration;

use sslfile::{Context, SslFile, SslOptions};

/// What each end made of a handshake.
struct Outcome {
    client: io::Result<SslFile>,
    server: io::Result<SslFile>,
}

impl Outcome {
    /// Both ends, which must have agreed.
    fn files(self) -> (SslFile, SslFile) {
        (self.client.expect("client"), self.server.expect("server"))
    }

    fn errors(self) -> (io::Error, io::Error) {
        (self.client.expect_err("client"), self.server.expect_err("server"))
    }
}

/// A handshake over TCP and, if it comes off, a word each way. (In TLS 1.3 a client hears of its refusal only then.)
fn shake(client: &Context, name: &str, server: &Context, nonblocking: bool) -> Outcome {
    let (c, s) = common::tcp_pair();
    let options = || SslFile::options().nonblocking(nonblocking).close_timeout(Duration::ZERO);
    thread::scope(|t| {
        let server = t.spawn(move || talk(options().server(), s, server, b"server", b"client"));
        let client = talk(options().client(name), c, client, b"client", b"server");
        Outcome { client, server: server.join().expect("server thread") }
    })
}

fn talk(
    options: SslOptions,
    stream: std::net::TcpStream,
    context: &Context,
    say: &[u8],
    hear: &[u8],
) -> io::Result<SslFile> {
    let file = options.open(stream, context)?;
    again(|| file.handshake())?;
    let mut sent = 0;
    while sent < say.len() {
        sent += again(|| (&file).write(&say[sent..]))?;
    }
    let mut heard = vec![0; hear.len()];
    let mut done = 0;
    while done < heard.len() {
        match again(|| (&file).read(&mut heard[done..]))? {
            0 => panic!("an end that nobody said"),
            n => done += n,
        }
    }
    assert_eq!(heard, hear);
    Ok(file)
}

fn again<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(e) if e.kind() == ErrorKind::WouldBlock => thread::sleep(Duration::from_micros(200)),
            other => return other,
        }
    }
}

/// An option that the engine cannot honour: the right kind, and a text with the names of both.
#[track_caller]
fn assert_unsupported(error: &io::Error, option: &str, engine: sslfile::Engine) {
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
    assert_eq!(common::kind_of(error), Some(sslfile::ErrorKind::Unsupported));
    let text = error.to_string();
    assert!(text.contains(option), "{option:?} is not in {text:?}");
    assert!(text.contains(&format!("{engine:?}")), "{engine:?} is not in {text:?}");
}

/// All of these, whatever their case.
#[track_caller]
fn assert_says(error: &io::Error, words: &[&str]) {
    let text = error.to_string();
    for word in words {
        assert!(text.to_lowercase().contains(&word.to_lowercase()), "{word:?} is not in {text:?}");
    }
}
