//! P1 shared, P2 full duplex, P3 no deadlock of our making.

use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use sslfile::{Engine, SslFile, State, Stream};

use super::drive::*;
use super::wires::{Mode, Wire};
use crate::common::pattern;

const FLOOD: usize = 12 << 20;

fn send_and_sync<T: Send + Sync>(_: &T) {}

fn io_by_value(mut file: impl Read + Write, data: &[u8]) {
    file.write_all(data).expect("write");
    file.flush().expect("flush");
}

/// P1: `Send + Sync`, I/O through `&SslFile` and through the file, handles that outlive each other.
pub fn shared<W: Wire>(engine: Engine, mode: Mode) {
    let (client, server) = files::<W>(engine, mode);
    send_and_sync(&client);

    // A handle goes to another thread, the first one is dropped, and the connection lives on.
    let handle = client.try_clone().expect("try_clone");
    let other = client.clone();
    drop(client);
    let writer = thread::spawn(move || {
        io_by_value(&other, b"by reference, ");
        io_by_value(other, b"by value");
    });
    assert_eq!(get(&server, mode, 22).expect("read"), b"by reference, by value");
    writer.join().expect("writer");

    // One `&SslFile` in two threads at once. (With `ReadWrite` a read that blocks has the stream to itself.)
    if W::DUPLEX || mode == Mode::Nonblocking {
        thread::scope(|t| {
            t.spawn(|| put(&handle, mode, b"ping").expect("write"));
            t.spawn(|| assert_eq!(get(&handle, mode, 4).expect("read"), b"pong"));
            assert_eq!(get(&server, mode, 4).expect("read"), b"ping");
            put(&server, mode, b"pong").expect("write");
        });
    }

    // What one handle does, all see.
    let same = handle.try_clone().expect("try_clone");
    handle.shutdown(Shutdown::Write).expect("shutdown");
    let refused = (&same).write(b"late").expect_err("written after shutdown");
    assert_eq!(refused.kind(), ErrorKind::BrokenPipe);
    again(mode, || (&same).flush()).expect("flush");
    assert_eq!(drain(&server, mode).0, b"");
    assert_eq!(server.state(), State::PeerClosed);
}

/// P2: while a thread is blocked in `read`, everything else goes through; while one is blocked in `write`, reading does.
pub fn full_duplex<W: Wire>(engine: Engine, mode: Mode) {
    let (client, server) = files::<W>(engine, mode);
    let data = pattern(2, 300 << 10);
    let (about_to_read, reading) = mpsc::channel();
    thread::scope(|t| {
        let reader = t.spawn(|| {
            about_to_read.send(()).expect("told");
            get(&client, mode, 5).expect("read")
        });
        reading.recv().expect("reader");
        // There is no telling a thread that blocks in a read from one that is about to.
        thread::sleep(Duration::from_millis(100));
        assert!(!reader.is_finished());

        queries(&client);
        if W::DESCRIPTOR {
            client.set_read_timeout(None).expect("set_read_timeout");
            client.set_write_timeout(Some(Duration::from_secs(50))).expect("set_write_timeout");
            client.set_nonblocking(mode == Mode::Nonblocking).expect("set_nonblocking");
        }
        // `ReadWrite` has one lock, and says so.
        let writes_pass = W::DUPLEX || mode == Mode::Nonblocking;
        if writes_pass {
            let listener = t.spawn(|| get(&server, mode, data.len()).expect("read"));
            put(&client, mode, &data).expect("write");
            assert!(listener.join().expect("listener") == data);
        }
        client.shutdown(Shutdown::Write).expect("shutdown");
        if writes_pass {
            // Where `shutdown` cannot try, it goes with the next call.
            again(mode, || (&client).flush()).expect("flush");
            assert_eq!(drain(&server, mode).0, b"", "close_notify has come past the reader");
        }
        assert!(!reader.is_finished(), "nobody has sent anything yet");
        put(&server, mode, b"words").expect("write");
        assert_eq!(reader.join().expect("reader"), b"words");
    });
    if !W::DUPLEX {
        again(mode, || (&client).flush()).expect("flush");
        assert_eq!(drain(&server, mode).0, b"");
    } else {
        blocked_writer_delays_no_read::<W>(engine, mode);
    }
}

fn queries<S: Stream>(file: &SslFile<S>) {
    let _handle = file.try_clone().expect("try_clone");
    assert!(file.is_handshake_done());
    assert!(file.is_open());
    assert_eq!(file.state(), State::Open);
    assert!(file.last_error().is_none());
    assert_eq!(file.pending(), 0);
    assert_eq!(file.unsent(), 0);
    file.is_busy();
    file.interest();
    file.version();
    file.cipher();
    file.alpn();
    file.peer_certificate();
    assert!(!format!("{file:?}").is_empty());
}

fn blocked_writer_delays_no_read<W: Wire>(engine: Engine, mode: Mode) {
    let (client, server) = files::<W>(engine, mode);
    let flood = pattern(3, FLOOD);
    let done = AtomicUsize::new(0);
    thread::scope(|t| {
        t.spawn(|| write_counted(&client, mode, &flood, &done));
        wait_until_stuck(&[&done]);
        assert!(done.load(Ordering::Relaxed) < FLOOD, "the stream swallowed the whole flood");

        for word in [b"first", b"other"] {
            put(&server, mode, word).expect("write");
            assert_eq!(get(&client, mode, 5).expect("read"), word);
        }
        assert!(get(&server, mode, FLOOD).expect("read") == flood);
    });
}

fn write_counted<S: Stream>(file: &SslFile<S>, mode: Mode, data: &[u8], done: &AtomicUsize) {
    let mut at = 0;
    while at < data.len() {
        let end = data.len().min(at + (64 << 10));
        at += again(mode, || (&*file).write(&data[at..end])).expect("write");
        done.store(at, Ordering::Relaxed);
    }
    again(mode, || (&*file).flush()).expect("flush");
}

/// Until none of the counters has moved for a while.
fn wait_until_stuck(counters: &[&AtomicUsize]) {
    let read = || -> Vec<usize> { counters.iter().map(|c| c.load(Ordering::Relaxed)).collect() };
    let mut quiet = 0;
    let mut last = read();
    while quiet < 10 {
        thread::sleep(Duration::from_millis(30));
        let now = read();
        quiet = if now == last && now.iter().all(|n| *n > 0) { quiet + 1 } else { 0 };
        last = now;
    }
}

/// P3: both ends flood until neither can send any more; then both read, and everything arrives.
pub fn no_deadlock<W: Wire>(engine: Engine, mode: Mode) {
    if mode == Mode::Nonblocking {
        alternating_always_progresses::<W>(engine);
    }
    if !W::DUPLEX && mode == Mode::Blocking {
        return half_duplex_floods::<W>(engine, mode);
    }
    let (client, server) = files::<W>(engine, mode);
    let up = pattern(4, FLOOD);
    let down = pattern(5, FLOOD);
    let (sent_up, sent_down) = (AtomicUsize::new(0), AtomicUsize::new(0));
    thread::scope(|t| {
        t.spawn(|| write_counted(&client, mode, &up, &sent_up));
        t.spawn(|| write_counted(&server, mode, &down, &sent_down));
        wait_until_stuck(&[&sent_up, &sent_down]);
        t.spawn(|| assert!(get(&client, mode, FLOOD).expect("read") == down));
        t.spawn(|| assert!(get(&server, mode, FLOOD).expect("read") == up));
    });
}

/// One thread for both ends, each call in its turn whatever the one before it said.
fn alternating_always_progresses<W: Wire>(engine: Engine) {
    let (client, server) = files::<W>(engine, Mode::Nonblocking);
    let data = pattern(6, FLOOD);
    let mut sent = [0; 2];
    let mut got = [Vec::new(), Vec::new()];
    let mut buf = vec![0; 100_000];
    while got[0].len() < FLOOD || got[1].len() < FLOOD {
        let mut moved = false;
        for (i, file) in [&client, &server].into_iter().enumerate() {
            let end = FLOOD.min(sent[i] + 70_000);
            match (&*file).write(&data[sent[i]..end]) {
                Ok(n) => {
                    moved |= n > 0;
                    sent[i] += n;
                }
                Err(e) => assert_eq!(e.kind(), ErrorKind::WouldBlock, "{e}"),
            }
            match (&*file).read(&mut buf) {
                Ok(n) => {
                    assert!(n > 0, "an end that nobody said");
                    moved = true;
                    got[i].extend_from_slice(&buf[..n]);
                }
                Err(e) => assert_eq!(e.kind(), ErrorKind::WouldBlock, "{e}"),
            }
            if sent[i] == FLOOD {
                match (&*file).flush() {
                    Ok(()) => {}
                    Err(e) => assert_eq!(e.kind(), ErrorKind::WouldBlock, "{e}"),
                }
            }
        }
        if !moved {
            pause();
        }
    }
    assert!(got[0] == data && got[1] == data);
}

/// With one lock for both directions, each way in turn.
fn half_duplex_floods<W: Wire>(engine: Engine, mode: Mode) {
    let (client, server) = files::<W>(engine, mode);
    let data = pattern(7, FLOOD);
    for (from, to) in [(&client, &server), (&server, &client)] {
        thread::scope(|t| {
            t.spawn(|| put(from, mode, &data).expect("write"));
            assert!(get(to, mode, FLOOD).expect("read") == data);
        });
    }
}
