//! j: streams whose code panics.

use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use std::sync::Arc;

use sslfile::{Duplex, Engine, ReadWrite, SslFile, Stream};

use crate::common::{client_context, server_context, tcp_pair, NAME};
use crate::rig::on_each_engine;

/// Panics once in each direction that is armed.
#[derive(Clone, Debug)]
struct Bad {
    tcp: Arc<TcpStream>,
    read: Arc<AtomicBool>,
    write: Arc<AtomicBool>,
}

impl Read for Bad {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        assert!(!self.read.swap(false, Ordering::SeqCst), "the stream's read panics");
        { &*self.tcp }.read(buf)
    }
}

impl Write for Bad {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        assert!(!self.write.swap(false, Ordering::SeqCst), "the stream's write panics");
        { &*self.tcp }.write(buf)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A client over what `wrap` makes of a bad stream, the bad stream, and the server.
fn pair_over<S: Stream>(engine: Engine, wrap: impl FnOnce(Bad) -> S) -> (SslFile<S>, Bad, SslFile) {
    let (ours, theirs) = tcp_pair();
    let bad = Bad { tcp: Arc::new(ours), read: Arc::default(), write: Arc::default() };
    let server = thread::spawn(move || SslFile::server(theirs, &server_context(engine)).expect("server"));
    let client = SslFile::client(wrap(bad.clone()), &client_context(engine), NAME).expect("client");
    (client, bad, server.join().expect("server"))
}

/// What a call gives, in a thread of its own: it must not hang.
#[track_caller]
fn soon<S: Stream, T: Send + 'static>(
    file: &SslFile<S>,
    call: impl FnOnce(&SslFile<S>) -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let (done, is_done) = mpsc::channel();
    let file = file.clone();
    thread::spawn(move || done.send(call(&file)));
    is_done.recv_timeout(Duration::from_secs(10)).expect("the call hangs, or panics")
}

#[track_caller]
fn panics(call: impl FnOnce() -> io::Result<usize>) {
    assert!(catch_unwind(AssertUnwindSafe(call)).is_err(), "the stream's panic was swallowed");
}

fn after_a_read_that_panics<S: Stream>(engine: Engine, wrap: fn(Bad) -> S) {
    let (client, bad, server) = pair_over(engine, wrap);
    { &server }.write_all(b"there is something to read").expect("write");
    bad.read.store(true, Ordering::SeqCst);
    panics(|| { &client }.read(&mut [0; 9]));
    for _ in 0..2 {
        soon(&client, |mut file| file.read(&mut [0; 9])).expect_err("read behind a panic");
        soon(&client, |file| file.peek(&mut [0; 9])).expect_err("peeked behind a panic");
    }
    // The other direction is as it was.
    soon(&client, |mut file| file.write_all(b"word")).expect("write");
    let mut word = [0; 4];
    { &server }.read_exact(&mut word).expect("read");
    assert_eq!(&word, b"word");
    let _ = soon(&client, |file| file.close());
    assert_eq!({ &server }.read(&mut [0]).expect("close_notify"), 0);
    let refused = soon(&client, |mut file| file.write(b"x")).expect_err("written after close");
    assert_eq!(refused.kind(), ErrorKind::NotConnected);
}

fn after_a_write_that_panics<S: Stream>(engine: Engine, wrap: fn(Bad) -> S) {
    let (client, bad, server) = pair_over(engine, wrap);
    bad.write.store(true, Ordering::SeqCst);
    panics(|| { &client }.write(b"x"));
    for _ in 0..2 {
        soon(&client, |mut file| file.write(b"x")).expect_err("written behind a panic");
        soon(&client, |mut file| file.flush()).expect_err("flushed behind a panic");
        soon(&client, |file| file.send(b"x")).expect_err("queued behind a panic");
    }
    // The other direction is as it was.
    { &server }.write_all(b"word").expect("write");
    let got = soon(&client, |mut file| {
        let mut word = [0; 4];
        file.read_exact(&mut word).map(|()| word)
    });
    assert_eq!(&got.expect("read"), b"word");
    // It says that something was lost.
    soon(&client, |file| file.close()).expect_err("closed well");
}

#[test]
fn j_a_read_write_that_panics_in_read_has_failed_in_that_direction() {
    on_each_engine(|engine| after_a_read_that_panics(engine, ReadWrite::new));
}

#[test]
fn j_a_read_write_that_panics_in_write_has_failed_in_that_direction() {
    on_each_engine(|engine| after_a_write_that_panics(engine, ReadWrite::new));
}

#[test]
fn j_a_duplex_that_panics_in_read_has_failed_in_that_direction() {
    on_each_engine(|engine| after_a_read_that_panics(engine, |bad| Duplex::new(bad.clone(), bad)));
}

#[test]
fn j_a_duplex_that_panics_in_write_has_failed_in_that_direction() {
    on_each_engine(|engine| after_a_write_that_panics(engine, |bad| Duplex::new(bad.clone(), bad)));
}

/// A thread that waits in the file when another's call panics is woken, and told.
#[test]
fn j_threads_that_wait_for_their_turn_learn_of_a_panic() {
    on_each_engine(|engine| {
        let (client, bad, _server) = pair_over(engine, |bad| Duplex::new(bad.clone(), bad));
        let big = vec![7; 12 << 20];
        thread::scope(|t| {
            let writers: Vec<_> =
                (0..3).map(|_| t.spawn(|| catch_unwind(AssertUnwindSafe(|| { &client }.write(&big))))).collect();
            crate::common::until_busy(&client);
            // The one whose turn it is comes back from the system by this.
            bad.write.store(true, Ordering::SeqCst);
            bad.tcp.shutdown(std::net::Shutdown::Both).expect("shutdown");
            for writer in writers {
                if let Ok(result) = writer.join().expect("writer") {
                    result.expect_err("written over a stream that has failed");
                }
            }
        });
    });
}
