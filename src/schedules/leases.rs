//! Who uses a direction of the stream hands it on: several readers and writers, some of which give up in the middle.

use std::collections::BTreeSet;
use std::io::{ErrorKind, Read, Write};
use std::time::Duration;

use super::net::pair;
use super::sync::thread;
use super::{check, must_find_without_notification};
use crate::file::PlainFile;

const TIME: Duration = Duration::from_millis(100);

/// Three readers for four bytes; whoever times out tries again, or leaves it to the others.
fn readers(patient: usize) {
    let (here, there) = pair();
    let file = PlainFile::new(here);
    if patient < 3 {
        file.set_read_timeout(Some(TIME)).expect("set");
    }
    let readers: Vec<_> = (0..3)
        .map(|i| {
            let file = file.clone();
            thread::spawn(move || {
                let mut got = Vec::new();
                loop {
                    let mut byte = [0];
                    match (&file).read(&mut byte) {
                        Ok(0) => return got,
                        Ok(_) => got.push(byte[0]),
                        Err(e) => {
                            assert_eq!(e.kind(), ErrorKind::TimedOut);
                            if i >= patient {
                                return got;
                            }
                        }
                    }
                }
            })
        })
        .collect();
    assert!(there.send(b"0123"));
    drop(there);
    let mut got: Vec<_> = readers.into_iter().flat_map(|reader| reader.join().expect("a reader")).collect();
    assert!(!file.shared().ask().machine.is_busy());
    if patient > 0 {
        got.sort_unstable();
        assert_eq!(got, b"0123");
    }
    let set: BTreeSet<_> = got.iter().collect();
    assert_eq!(set.len(), got.len(), "read twice");
}

#[test]
fn readers_hand_the_stream_on() {
    check(|| readers(3));
}

#[test]
fn readers_that_give_up_hand_the_stream_on() {
    check(|| readers(1));
}

/// What they had in hand is not lost for the next.
#[test]
fn readers_that_all_give_up_leave_no_lease_behind() {
    check(|| readers(0));
}

#[test]
fn a_reader_that_is_not_told_is_found() {
    must_find_without_notification(0, || readers(3));
}

/// Each write is whole, or not there; the queue goes on without those who have left it.
#[test]
fn writers_that_give_up_leave_the_queue() {
    check(|| {
        let (here, there) = pair();
        let file = PlainFile::new(here);
        file.set_write_timeout(Some(TIME)).expect("set");
        let writers: Vec<_> = [b"aaaaaa", b"bbbbbb", b"cccccc"]
            .into_iter()
            .map(|data| {
                let file = file.clone();
                thread::spawn(move || match (&file).write(data) {
                    Ok(n) => n,
                    Err(e) => {
                        assert_eq!(e.kind(), ErrorKind::TimedOut);
                        0
                    }
                })
            })
            .collect();
        let peer = thread::spawn(move || there.receive(100));
        let accepted: usize = writers.into_iter().map(|writer| writer.join().expect("a writer")).sum();
        let patient = file.set_write_timeout(None).and_then(|()| (&file).flush());
        patient.expect("flush");
        file.close().expect("close");
        let arrived = peer.join().expect("the peer");
        assert_eq!(arrived.len(), accepted);
        let runs = 1 + arrived.windows(2).filter(|pair| pair[0] != pair[1]).count();
        let different = arrived.iter().collect::<BTreeSet<_>>().len();
        assert!(arrived.is_empty() || runs == different, "{}", String::from_utf8_lossy(&arrived));
    });
}
