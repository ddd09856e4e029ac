//! Giving up a file's lock, and waking, against parking: what a thread waits for and another one brings about is never missed.

use std::io::{Read, Write};
use std::net::Shutdown;

use super::net::{pair, End};
use super::sync::{thread, time_has_passed};
use super::{check, must_find_without_notification};
use crate::file::PlainFile;

fn join(threads: impl IntoIterator<Item = thread::JoinHandle<()>>) {
    threads.into_iter().for_each(|thread| thread.join().expect("a thread of the model"));
}

/// A reader that sleeps, a write that does not fit into the stream and a `send` behind it. The answer comes when all has arrived: a
/// thread that has returned left the rest to those who wait.
fn queued_for_a_sleeper() {
    let (here, there) = pair();
    let file = PlainFile::new(here);
    let (writer, sender) = (file.clone(), file.clone());
    let threads = [
        thread::spawn(move || (&writer).write_all(b"wwwwww").expect("write")),
        thread::spawn(move || sender.send(b"sssss").expect("send")),
        thread::spawn(move || {
            let all = there.receive(11);
            let whole = [b"wwwwwwsssss", b"ssssswwwwww"].iter().any(|order| all == *order);
            assert!(whole, "one inside the other: {}", String::from_utf8_lossy(&all));
            assert!(there.send(b"ok"));
        }),
    ];
    let mut answer = [0; 2];
    (&file).read_exact(&mut answer).expect("read");
    assert_eq!(&answer, b"ok");
    join(threads);
}

#[test]
fn a_sleeping_reader_sends_what_others_have_queued() {
    check(queued_for_a_sleeper);
}

#[test]
fn a_sleeper_that_is_not_woken_is_found() {
    must_find_without_notification(0, queued_for_a_sleeper);
}

/// A peer that takes nothing before it has been able to send all: writers must read meanwhile.
#[test]
fn a_writer_reads_while_its_peer_only_writes() {
    check(|| {
        let (here, there) = pair();
        let file = PlainFile::new(here);
        let writers = [b"aaaaaa", b"bbbbbb"].map(|data| {
            let file = file.clone();
            thread::spawn(move || (&file).write_all(data).expect("write"))
        });
        let peer = thread::spawn(move || {
            assert!(there.send(b"0123456789"));
            assert_eq!(there.receive(12).len(), 12);
            // Until all has been read.
            there.receive(1);
        });
        join(writers);
        let mut all = [0; 10];
        (&file).read_exact(&mut all).expect("read");
        assert_eq!(&all, b"0123456789");
        drop(file);
        join([peer]);
    });
}

/// A reader and a writer of these bytes, and what ends their waits. Says whether the write failed.
fn ends_a_wait(data: &'static [u8], end: fn(&PlainFile<End>, End) -> Option<End>) -> bool {
    let (here, there) = pair();
    let file = PlainFile::new(here);
    let (reader, writer) = (file.clone(), file.clone());
    let reader = thread::spawn(move || {
        let _ = (&reader).read(&mut [0]);
    });
    let writer = thread::spawn(move || (&writer).write_all(data).is_err());
    let there = end(&file, there);
    join([reader]);
    let has_failed = writer.join().expect("a writer");
    drop(there);
    has_failed
}

#[test]
fn abort_ends_every_wait() {
    check(|| {
        ends_a_wait(b"more than fits", |file, there| {
            file.shared().abort();
            Some(there)
        });
    });
}

#[test]
fn shutdown_ends_a_wait_for_data() {
    check(|| {
        let has_failed = ends_a_wait(b"fits", |file, there| {
            file.shutdown(Shutdown::Read).expect("shutdown");
            assert_eq!(there.receive(4), b"fits");
            Some(there)
        });
        assert!(!has_failed);
    });
}

#[test]
fn the_peers_end_ends_every_wait() {
    check(|| assert!(ends_a_wait(b"more than fits", |_, _| None)));
}

/// The first closes; the other call waits for it, or finds it done.
#[test]
fn two_closes_and_a_reader() {
    check(|| {
        let (here, there) = pair();
        let file = PlainFile::new(here);
        let (reader, closer) = (file.clone(), file.clone());
        (&file).write_all(b"fits").expect("write");
        let threads = [
            thread::spawn(move || assert!((&reader).read(&mut [0]).is_err())),
            thread::spawn(move || assert!(closer.close().is_ok() || time_has_passed())),
            thread::spawn(move || assert!(there.receive(100) == b"fits" || time_has_passed())),
        ];
        assert!(file.close().is_ok() || time_has_passed());
        join(threads);
    });
}
