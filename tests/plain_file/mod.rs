//! `PlainFile` itself: a stream with callbacks and a backend, and no TLS.

use crate::common;

use rustix::fd::{AsFd, AsRawFd};
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use common::{kind_of, pattern, stream_pair, tcp_pair, within, LONG};
use sslfile::{Backend, Callbacks, ErrorKind, Interest, PlainFile, ReadWrite};

fn pair() -> (PlainFile, TcpStream) {
    let (a, b) = tcp_pair();
    (PlainFile::new(a), b)
}

fn turn_until(backend: &Backend, what: &str, mut done: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !done() {
        assert!(begin.elapsed() < LONG / 2, "in vain: {what}");
        backend.turn(Some(Duration::from_millis(20))).expect("turn");
    }
}

/// Turns a few times: nothing is to happen.
fn idle(backend: &Backend) -> usize {
    (0..5).map(|_| backend.turn(Some(Duration::from_millis(10))).expect("turn")).sum()
}

type Log = Arc<Mutex<Vec<String>>>;

/// Callbacks that write down what they are told.
fn logging(log: &Log) -> Callbacks<PlainFile> {
    let (accepts, reads, writes, closes) = (log.clone(), log.clone(), log.clone(), log.clone());
    let note = |log: &Log, text: String| log.lock().expect("lock").push(text);
    Callbacks::new()
        .on_accept(move |_| note(&accepts, "accept".to_string()))
        .on_read(move |_, data| note(&reads, String::from_utf8_lossy(data).into_owned()))
        .on_write(move |_| note(&writes, "write".to_string()))
        .on_close(move |_, end| note(&closes, format!("close {:?}", end.map_err(|e| e.kind()))))
}

fn lines(log: &Log) -> Vec<String> {
    log.lock().expect("lock").clone()
}

// ---------------------------------------------------------------------------------------------------------------------
// As a file
// ---------------------------------------------------------------------------------------------------------------------

#[test]
fn reads_writes_and_ends_as_a_tcp_stream_does() {
    within(LONG, || {
        let (plain, mut peer) = pair();
        (&plain).write_all(b"hello").expect("write");
        let mut got = [0; 5];
        peer.read_exact(&mut got).expect("read");
        assert_eq!(&got, b"hello");
        peer.write_all(b"world").expect("write");
        assert_eq!((&plain).read(&mut []).expect("empty"), 0);
        assert_eq!((&plain).write(&[]).expect("empty"), 0);
        let mut buf = [0; 100];
        assert_eq!((&plain).read(&mut buf).expect("what is there"), 5);
        peer.shutdown(Shutdown::Write).expect("shutdown");
        assert_eq!((&plain).read(&mut buf).expect("end"), 0);
        assert_eq!((&plain).read(&mut buf).expect("sticky"), 0);
        (&plain).write_all(b"still").expect("half-closed");
        plain.close().expect("close");
        let mut rest = String::new();
        peer.read_to_string(&mut rest).expect("rest");
        assert_eq!(rest, "still");
        assert_eq!((&plain).write(b"x").expect_err("closed").kind(), io::ErrorKind::NotConnected);
        assert_eq!((&plain).read(&mut buf).expect_err("closed").kind(), io::ErrorKind::NotConnected);
        plain.close().expect("twice");
    });
}

#[test]
fn a_reset_is_an_error_of_its_own_and_sticky() {
    within(LONG, || {
        let (plain, peer) = pair();
        socket2::SockRef::from(&peer).set_linger(Some(Duration::ZERO)).expect("linger");
        drop(peer);
        for _ in 0..2 {
            assert_eq!((&plain).read(&mut [0; 1]).expect_err("reset").kind(), io::ErrorKind::ConnectionReset);
        }
    });
}

#[test]
fn unread_puts_bytes_in_front_of_all_others() {
    within(LONG, || {
        let (plain, mut peer) = pair();
        peer.write_all(b"cd").expect("write");
        let mut buf = [0; 10];
        assert_eq!((&plain).read(&mut buf).expect("read"), 2);
        plain.unread(b"cd");
        plain.unread(b"b");
        plain.unread(b"a");
        plain.unread(b"");
        assert_eq!(plain.pending(), 4);
        assert_eq!(plain.peek(&mut buf).expect("peek"), 4);
        assert_eq!(plain.pending(), 4, "peeked, not taken");
        assert_eq!((&plain).read(&mut buf[..3]).expect("read"), 3);
        assert_eq!(&buf[..3], b"abc");
        peer.shutdown(Shutdown::Write).expect("shutdown");
        // Behind the end, too.
        assert_eq!((&plain).read(&mut buf).expect("read"), 1);
        assert_eq!((&plain).read(&mut buf).expect("end"), 0);
        plain.unread(b"again");
        assert_eq!((&plain).read(&mut buf).expect("put back behind the end"), 5);
        assert_eq!((&plain).read(&mut buf).expect("end"), 0);
    });
}

#[test]
fn unread_wakes_a_blocked_reader() {
    within(LONG, || {
        let (plain, _peer) = pair();
        let reader = plain.clone();
        let thread = thread::spawn(move || {
            let mut buf = [0; 10];
            (&reader).read(&mut buf).map(|n| buf[..n].to_vec())
        });
        thread::sleep(Duration::from_millis(100));
        plain.unread(b"here");
        assert_eq!(thread.join().expect("reader").expect("read"), b"here");
    });
}

#[test]
fn time_outs_bound_each_call_and_leave_nothing_half_done() {
    within(LONG, || {
        let (plain, mut peer) = pair();
        let time = Duration::from_millis(150);
        assert_eq!(plain.set_read_timeout(Some(Duration::ZERO)).expect_err("zero").kind(), io::ErrorKind::InvalidInput);
        plain.set_read_timeout(Some(time)).expect("time-out");
        plain.set_write_timeout(Some(time)).expect("time-out");
        for _ in 0..2 {
            let begin = Instant::now();
            assert_eq!((&plain).read(&mut [0; 1]).expect_err("nothing").kind(), io::ErrorKind::TimedOut);
            assert!(begin.elapsed() >= time);
        }
        let begin = Instant::now();
        let e = loop {
            if let Err(e) = (&plain).write(&[0; 1 << 20]) {
                break e;
            }
        };
        assert_eq!((e.kind(), kind_of(&e)), (io::ErrorKind::TimedOut, Some(ErrorKind::TimedOut)));
        assert!(begin.elapsed() >= time);
        peer.write_all(b"x").expect("write");
        assert_eq!((&plain).read(&mut [0; 1]).expect("as before"), 1);
    });
}

#[test]
fn blocking_and_not_at_any_time() {
    within(LONG, || {
        let (plain, mut peer) = pair();
        assert!(!plain.is_nonblocking());
        assert_eq!(plain.interest(), Interest { readable: true, writable: false });
        plain.set_nonblocking(true).expect("mode");
        assert!(plain.clone().is_nonblocking(), "for every handle");
        assert_eq!((&plain).read(&mut [0; 1]).expect_err("nothing").kind(), io::ErrorKind::WouldBlock);
        let mut sent = 0;
        let e = loop {
            match (&plain).write(&pattern(0, 10_000)) {
                Ok(n) => sent += n,
                Err(e) => break e,
            }
        };
        assert_eq!(e.kind(), io::ErrorKind::WouldBlock);
        assert!(plain.interest().writable);
        plain.set_nonblocking(false).expect("mode");
        let reader = thread::spawn(move || {
            let mut got = Vec::new();
            peer.read_to_end(&mut got).map(|_| got.len()).expect("read")
        });
        (&plain).flush().expect("waits until all is handed over");
        assert_eq!(plain.unsent(), 0);
        plain.close().expect("close");
        assert_eq!(reader.join().expect("reader"), sent);
    });
}

#[test]
fn a_stream_that_is_nonblocking_or_has_time_outs_makes_a_file_that_is_so_too() {
    within(LONG, || {
        let (a, _b) = tcp_pair();
        a.set_nonblocking(true).expect("mode");
        // Windows does not tell a stream's mode.
        assert_eq!(PlainFile::new(a).is_nonblocking(), cfg!(unix));
        let (a, _b) = tcp_pair();
        a.set_read_timeout(Some(Duration::from_millis(80))).expect("time-out");
        let plain = PlainFile::new(a);
        assert_eq!((&plain).read(&mut [0; 1]).expect_err("nothing").kind(), io::ErrorKind::TimedOut);
        let (tcp, _) = plain.into_stream().expect("the only handle");
        assert_eq!(tcp.read_timeout().expect("time-out"), Some(Duration::from_millis(80)), "put back");
    });
}

#[test]
fn send_takes_all_or_nothing() {
    within(LONG, || {
        let (plain, mut peer) = pair();
        let (big, small) = (pattern(1, 16 << 20), pattern(2, 1000));
        plain.send(&big).expect("nothing is unsent: any size");
        let unsent = plain.unsent();
        assert!(unsent > 256 << 10, "the peer reads nothing: {unsent}");
        assert_eq!(plain.send(&small).expect_err("does not fit").kind(), io::ErrorKind::WouldBlock);
        assert_eq!(plain.unsent(), unsent);
        let reader = thread::spawn(move || {
            let mut got = Vec::new();
            peer.read_to_end(&mut got).map(|_| got).expect("read")
        });
        (&plain).flush().expect("flush");
        plain.send(&small).expect("fits");
        plain.shutdown(Shutdown::Write).expect("behind all of it");
        let got = reader.join().expect("reader");
        assert!(got[..big.len()] == big && got[big.len()..] == small, "{} bytes", got.len());
    });
}

#[test]
fn shutdown_ends_one_direction() {
    within(LONG, || {
        let (plain, mut peer) = pair();
        let reader = plain.clone();
        let blocked = thread::spawn(move || (&reader).read(&mut [0; 1]));
        thread::sleep(Duration::from_millis(50));
        plain.shutdown(Shutdown::Read).expect("shutdown");
        assert_eq!(blocked.join().expect("reader").expect("woken"), 0);
        (&plain).write_all(b"x").expect("writing goes on");
        plain.shutdown(Shutdown::Write).expect("shutdown");
        assert_eq!((&plain).write(b"y").expect_err("ended").kind(), io::ErrorKind::BrokenPipe);
        let mut got = String::new();
        peer.read_to_string(&mut got).expect("read");
        assert_eq!(got, "x");
    });
}

#[test]
fn is_open_looks_whether_the_end_is_there() {
    within(LONG, || {
        let (plain, mut peer) = pair();
        assert!(plain.is_open());
        peer.write_all(b"x").expect("write");
        drop(peer);
        assert!(plain.is_open(), "there is data before the end");
        assert_eq!((&plain).read(&mut [0; 1]).expect("read"), 1);
        let begin = Instant::now();
        while plain.is_open() {
            assert!(begin.elapsed() < LONG / 2, "the end is not seen");
        }
    });
}

#[test]
fn into_stream_gives_the_stream_and_what_was_not_consumed() {
    within(LONG, || {
        let (plain, mut peer) = pair();
        let other = plain.try_clone().expect("clone");
        let plain = plain.into_stream().expect_err("there is another handle");
        drop(other);
        plain.unread(b"rest");
        let fd = plain.as_raw_fd();
        assert_eq!(plain.as_fd().as_raw_fd(), plain.get_ref().as_raw_fd());
        let (mut tcp, rest) = plain.into_stream().expect("the last handle");
        assert_eq!((tcp.as_raw_fd(), &rest[..]), (fd, &b"rest"[..]));
        tcp.write_all(b"ordinary").expect("write");
        let mut got = [0; 8];
        peer.read_exact(&mut got).expect("read");
        assert_eq!(&got, b"ordinary");
    });
}

#[test]
fn one_thread_reads_while_another_writes() {
    within(LONG, || {
        const SIZE: usize = 8 << 20;
        let (a, b) = tcp_pair();
        let files = [PlainFile::new(a), PlainFile::new(b)];
        thread::scope(|t| {
            for (seed, file) in files.iter().enumerate() {
                t.spawn(move || {
                    (&*file).write_all(&pattern(seed as u64, SIZE)).expect("write");
                    file.shutdown(Shutdown::Write).expect("shutdown");
                });
                t.spawn(move || {
                    let mut got = Vec::new();
                    (&*file).read_to_end(&mut got).expect("read");
                    assert!(got == pattern(1 - seed as u64, SIZE), "differs");
                });
            }
        });
    });
}

#[test]
fn over_another_stream_and_over_what_has_no_descriptor() {
    within(LONG, || {
        let (a, mut b) = stream_pair();
        let plain = PlainFile::new(a);
        (&plain).write_all(b"unix").expect("write");
        let mut got = [0; 4];
        b.read_exact(&mut got).expect("read");
        assert_eq!(&got, b"unix");
        let plain = PlainFile::new(ReadWrite::new(io::Cursor::new(b"in memory".to_vec())));
        let mut got = String::new();
        (&plain).read_to_string(&mut got).expect("read");
        assert_eq!(got, "in memory");
        let backend = Backend::new().expect("backend");
        for result in [
            plain.set_backend(Some(&backend)),
            plain.set_nonblocking(true),
            plain.set_read_timeout(Some(Duration::from_secs(1))),
        ] {
            assert_eq!(result.expect_err("no descriptor").kind(), io::ErrorKind::Unsupported);
        }
    });
}

#[test]
fn dropping_the_last_handle_sends_what_was_accepted_and_ends_the_stream() {
    within(LONG, || {
        let (plain, mut peer) = pair();
        plain.send(b"last words").expect("send");
        drop(plain.clone());
        drop(plain);
        let mut got = String::new();
        peer.read_to_string(&mut got).expect("the end");
        assert_eq!(got, "last words");
    });
}

// ---------------------------------------------------------------------------------------------------------------------
// With callbacks
// ---------------------------------------------------------------------------------------------------------------------

#[test]
fn callbacks_come_in_order_and_an_idle_file_wakes_nobody() {
    within(LONG, || {
        let backend = Backend::new().expect("backend");
        let (plain, mut peer) = pair();
        plain.set_nonblocking(true).expect("mode");
        let log = Log::default();
        plain.set_callbacks(logging(&log));
        plain.set_backend(Some(&backend)).expect("backend");
        assert_eq!((plain.backend().as_ref(), backend.len()), (Some(&backend), 1));
        turn_until(&backend, "write", || lines(&log).contains(&"write".to_string()));
        assert_eq!(idle(&backend), 0, "{:?}", lines(&log));
        log.lock().expect("lock").clear();
        peer.write_all(b"one").expect("write");
        turn_until(&backend, "read", || lines(&log) == ["one"]);
        assert_eq!(idle(&backend), 0, "a read is no reason for a write callback: {:?}", lines(&log));
        plain.send(b"answer").expect("send");
        turn_until(&backend, "write again", || lines(&log) == ["one", "write"]);
        // Unread, it would make the end a reset.
        peer.read_exact(&mut [0; 6]).expect("the answer");
        peer.write_all(b"two").expect("write");
        drop(peer);
        turn_until(&backend, "close", || lines(&log).len() == 4);
        assert_eq!(lines(&log), ["one", "write", "two", "close Ok(())"]);
        assert_eq!(idle(&backend), 0);
        assert!(plain.take_callbacks().is_empty(), "the end has been told");
    });
}

#[test]
fn a_reset_and_our_own_close_are_each_told_once() {
    within(LONG, || {
        let backend = Backend::new().expect("backend");
        for reset in [true, false] {
            let (plain, peer) = pair();
            plain.set_nonblocking(true).expect("mode");
            let log = Log::default();
            let to = log.clone();
            plain.set_callbacks(Callbacks::new().on_close(move |_: &PlainFile, end| {
                to.lock().expect("lock").push(format!("{:?}", end.map_err(|e| e.kind())));
            }));
            plain.set_backend(Some(&backend)).expect("backend");
            if reset {
                socket2::SockRef::from(&peer).set_linger(Some(Duration::ZERO)).expect("linger");
            } else {
                plain.close().expect("close");
            }
            drop(peer);
            turn_until(&backend, "close", || !lines(&log).is_empty());
            idle(&backend);
            assert_eq!(lines(&log), [if reset { "Err(ConnectionReset)" } else { "Ok(())" }]);
            drop(plain);
            assert!(backend.is_empty());
        }
    });
}

#[test]
fn unread_bytes_fire_the_read_callback_at_the_next_turn() {
    within(LONG, || {
        let backend = Backend::new().expect("backend");
        let (plain, _peer) = pair();
        let log = Log::default();
        plain.set_callbacks(logging(&log));
        plain.set_backend(Some(&backend)).expect("backend");
        turn_until(&backend, "quiet", || idle(&backend) == 0);
        plain.unread(b"put back");
        turn_until(&backend, "read", || lines(&log).contains(&"put back".to_string()));
    });
}

#[test]
fn a_paused_file_holds_its_peer() {
    within(LONG, || {
        let backend = Backend::new().expect("backend");
        let (plain, peer) = pair();
        peer.set_nonblocking(true).expect("mode");
        let got = Arc::new(AtomicUsize::new(0));
        let count = got.clone();
        plain.set_callbacks(Callbacks::new().on_read(move |_: &PlainFile, data| {
            count.fetch_add(data.len(), Ordering::SeqCst);
        }));
        plain.pause_reading(true);
        plain.set_backend(Some(&backend)).expect("backend");
        let (mut sent, mut stuck) = (0, 0);
        while stuck < 5 {
            stuck = match (&peer).write(&[0; 65536]) {
                Ok(n) => {
                    sent += n;
                    0
                }
                Err(_) => stuck + 1,
            };
            idle(&backend);
        }
        assert_eq!(got.load(Ordering::SeqCst), 0);
        // Direct reads are not concerned.
        let n = (&plain).read(&mut [0; 1000]).expect("read");
        plain.pause_reading(false);
        turn_until(&backend, "all of it", || got.load(Ordering::SeqCst) == sent - n);
    });
}

#[test]
fn idle_time_outs_end_a_file_with_callbacks() {
    within(LONG, || {
        let backend = Backend::new().expect("backend");
        for writes in [false, true] {
            let (plain, _peer) = pair();
            plain.set_nonblocking(true).expect("mode");
            let log = Log::default();
            plain.set_callbacks(logging(&log));
            plain.set_backend(Some(&backend)).expect("backend");
            let (time, begin) = (Some(Duration::from_millis(150)), Instant::now());
            if writes {
                plain.set_write_timeout(time).expect("time-out");
                plain.send(&[0; 16 << 20]).expect("send");
            } else {
                plain.set_read_timeout(time).expect("time-out");
            }
            turn_until(&backend, "the end", || lines(&log).contains(&"close Err(TimedOut)".to_string()));
            assert!(Some(begin.elapsed()) >= time);
            assert_eq!((&plain).read(&mut [0; 1]).expect_err("ended").kind(), io::ErrorKind::TimedOut);
        }
    });
}

#[test]
fn a_kept_file_goes_with_its_end_and_a_dropped_one_sends_what_is_left() {
    within(LONG, || {
        let backend = Backend::new().expect("backend");
        let (plain, mut peer) = pair();
        plain.set_nonblocking(true).expect("mode");
        plain.set_backend(Some(&backend)).expect("backend");
        plain.set_callbacks(Callbacks::new().on_read(|file: &PlainFile, data| file.send(data).expect("echo")));
        plain.keep();
        peer.write_all(b"echo").expect("write");
        peer.shutdown(Shutdown::Write).expect("shutdown");
        turn_until(&backend, "gone", || backend.is_empty());
        let mut got = String::new();
        peer.read_to_string(&mut got).expect("read");
        assert_eq!(got, "echo");

        let (plain, mut peer) = pair();
        plain.set_nonblocking(true).expect("mode");
        plain.set_backend(Some(&backend)).expect("backend");
        let data = pattern(8, 8 << 20);
        plain.send(&data).expect("send");
        drop(plain);
        let reader = thread::spawn(move || {
            let mut got = Vec::new();
            peer.read_to_end(&mut got).map(|_| got).expect("read")
        });
        turn_until(&backend, "gone", || backend.is_empty());
        assert!(reader.join().expect("reader") == data);
    });
}

#[test]
fn a_file_moves_between_backends_and_the_old_one_calls_nothing_more() {
    within(LONG, || {
        let (first, second) = (Backend::new().expect("backend"), Backend::new().expect("backend"));
        let (plain, mut peer) = pair();
        let log = Log::default();
        let to = log.clone();
        plain.set_callbacks(Callbacks::new().on_read(move |_: &PlainFile, data| {
            to.lock().expect("lock").push(String::from_utf8_lossy(data).into_owned());
        }));
        plain.set_backend(Some(&first)).expect("backend");
        idle(&first);
        peer.write_all(b"x").expect("write");
        plain.set_backend(Some(&second)).expect("backend");
        assert_eq!((first.len(), second.len(), idle(&first)), (0, 1, 0));
        turn_until(&second, "read", || lines(&log) == ["x"]);
        plain.set_backend(None).expect("none");
        assert_eq!(plain.backend(), None);
        peer.write_all(b"y").expect("write");
        assert_eq!(idle(&second), 0);
        let mut buf = [0; 1];
        assert_eq!((&plain).read(&mut buf).expect("directly"), 1);
        assert_eq!(&buf, b"y");
    });
}
