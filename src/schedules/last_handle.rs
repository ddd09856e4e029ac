//! The last handle goes: against `keep`, against a backend that runs or goes too, and against the thread on which files linger.

use std::sync::Arc;
use std::time::Duration;

use super::check;
use super::net::{pair, End};
use super::sync::{thread, time_has_passed, AtomicUsize, Ordering};
use crate::backend::Backend;
use crate::callbacks::Callbacks;
use crate::file::PlainFile;
use crate::stream::Transport;

/// More than the stream holds.
const ALL: &[u8] = b"012345";

/// The peer gets everything, and the end, unless what is left had to go for the time it took.
fn peer(there: End) -> thread::JoinHandle<()> {
    thread::spawn(move || {
        let got = there.receive(100);
        assert!(got == ALL || time_has_passed(), "{}", String::from_utf8_lossy(&got));
    })
}

fn turning(backend: &Backend) -> thread::JoinHandle<()> {
    let backend = backend.clone();
    thread::spawn(move || backend.run().expect("run"))
}

fn join(threads: impl IntoIterator<Item = thread::JoinHandle<()>>) {
    threads.into_iter().for_each(|thread| thread.join().expect("a thread of the model"));
}

/// Several threads drop, one of them is the last. That thread ends only when it has no file: all threads of a schedule must end.
fn dropped_by(droppers: usize, files: usize) {
    let mut threads = Vec::new();
    for _ in 0..files {
        let (here, there) = pair();
        let file = PlainFile::new(here);
        file.send(ALL).expect("send");
        threads.push(peer(there));
        threads.extend((1..droppers).map(|_| {
            let file = file.clone();
            thread::spawn(move || drop(file))
        }));
        drop(file);
    }
    join(threads);
}

#[test]
fn what_is_unsent_arrives_whoever_drops_last() {
    check(|| dropped_by(3, 1));
}

/// The second comes as the thread ends for want of files, or has just ended.
#[test]
fn no_file_is_given_to_a_thread_that_is_about_to_end() {
    check(|| dropped_by(1, 2));
}

#[test]
fn files_of_two_threads_begin_to_linger() {
    check(|| dropped_by(2, 2));
}

/// In a backend of the user's.
#[test]
fn a_file_lingers_in_its_backend() {
    check(|| {
        let (here, there) = pair();
        let (file, backend) = (PlainFile::new(here), Backend::new().expect("backend"));
        file.set_backend(Some(&backend)).expect("set");
        let threads = [peer(there), turning(&backend)];
        file.send(ALL).expect("send");
        drop(file);
        let [peer, turner] = threads;
        join([peer]);
        backend.stop();
        join([turner]);
        backend.turn(Some(Duration::ZERO)).expect("turn");
    });
}

/// The backend goes while the file lingers in it, or at the same moment: another thread takes the file over.
#[test]
fn a_file_lingers_on_when_its_backend_goes() {
    check(|| {
        let (here, there) = pair();
        let (file, backend) = (PlainFile::new(here), Backend::new().expect("backend"));
        file.set_backend(Some(&backend)).expect("set");
        file.send(ALL).expect("send");
        let peer = peer(there);
        let goes = thread::spawn(move || {
            backend.turn(Some(Duration::ZERO)).expect("turn");
            drop(backend);
        });
        drop(file);
        join([peer, goes]);
    });
}

/// One thread keeps, another drops, both in a backend that runs: the close callback is told once, and then the file has gone.
#[test]
fn keep_against_the_other_handles() {
    check(|| {
        let (here, there) = pair();
        let (file, backend) = (PlainFile::new(here), Backend::new().expect("backend"));
        let told = Arc::new(AtomicUsize::new(0));
        let (tells, stop) = (told.clone(), backend.clone());
        file.set_callbacks(Callbacks::new().on_read(|_, _| {}).on_close(move |_, _| {
            tells.fetch_add(1, Ordering::SeqCst);
            stop.stop();
        }));
        file.set_backend(Some(&backend)).expect("set");
        let turner = turning(&backend);
        let (kept, other) = (file.clone(), file.clone());
        let peer = thread::spawn(move || {
            assert!(there.send(b"01"));
            there.half_close();
            there.receive(1);
        });
        let threads = [thread::spawn(move || kept.keep()), thread::spawn(move || drop(other))];
        file.keep();
        join(threads);
        join([turner]);
        // Kept after its end has been told, it goes in a turn of its own.
        while !backend.is_empty() {
            backend.turn(None).expect("turn");
        }
        join([peer]);
        assert_eq!(told.load(Ordering::SeqCst), 1);
    });
}

/// The backend's last handle goes as the file is given to it: the file goes with it, or with the call.
#[test]
fn keep_against_the_backends_last_handle() {
    check(|| {
        let (here, there) = pair();
        let (file, backend) = (PlainFile::new(here), Backend::new().expect("backend"));
        file.set_backend(Some(&backend)).expect("set");
        file.send(ALL).expect("send");
        let threads = [peer(there), thread::spawn(move || drop(backend)), thread::spawn(move || file.keep())];
        join(threads);
    });
}

/// A callback that owns the last handle is dropped with it, in the middle of its own call.
#[test]
fn the_last_handle_goes_while_a_callback_runs() {
    check(|| {
        let (here, there) = pair();
        let (file, backend) = (PlainFile::new(here), Backend::new().expect("backend"));
        let stop = backend.clone();
        file.set_callbacks(Callbacks::new().on_read(move |file: &PlainFile<_>, _: &[u8]| {
            drop(file.clone());
            stop.stop();
        }));
        file.set_backend(Some(&backend)).expect("set");
        let turner = turning(&backend);
        let peer = thread::spawn(move || {
            there.send(b"x");
            there.receive(1);
        });
        drop(file);
        // The callback may never have come.
        backend.stop();
        join([turner, peer]);
        backend.turn(Some(Duration::ZERO)).expect("turn");
    });
}
