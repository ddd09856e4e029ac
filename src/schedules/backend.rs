//! A backend against those who tell it things: `make_ready`, alarms, `leave`, `add` and the last handle, while it runs.

use std::io::Read;
use std::sync::Arc;
use std::time::Duration;

use super::net::pair;
use super::sync::{now, thread, AtomicBool, AtomicUsize, Mutex, Ordering};
use super::{check, must_find_without_notification};
use crate::backend::{Backend, Happened, Place, Source};
use crate::callbacks::Callbacks;
use crate::file::PlainFile;
use crate::stream::Transport;
use crate::sys::Descriptor;

const RINGERS: usize = 3;

/// The least that can be in a backend.
#[derive(Default)]
struct Counter {
    asked: AtomicUsize,
    seen: AtomicUsize,
    running: AtomicBool,
    orphaned: AtomicBool,
    /// Nobody may run it any more.
    left: AtomicBool,
}

impl Source for Counter {
    fn descriptors(&self) -> Option<(Descriptor, Descriptor)> {
        Some((0, 0))
    }

    fn run(self: Arc<Self>, _: &Place, _: Happened, _: &mut [u8]) -> usize {
        assert!(!self.running.swap(true, Ordering::SeqCst), "run by two threads");
        assert!(!self.left.load(Ordering::SeqCst), "run after it has left");
        self.seen.store(self.asked.load(Ordering::SeqCst), Ordering::SeqCst);
        self.running.store(false, Ordering::SeqCst);
        1
    }

    fn orphaned(self: Arc<Self>, _: &Place) {
        assert!(!self.orphaned.swap(true, Ordering::SeqCst), "twice");
    }
}

fn made_ready() {
    let backend = Backend::new().expect("backend");
    let counter = Arc::new(Counter::default());
    let place = backend.add(counter.clone()).expect("add");
    let ringers: Vec<_> = (0..RINGERS)
        .map(|_| {
            let (counter, place) = (counter.clone(), place.clone());
            thread::spawn(move || {
                counter.asked.fetch_add(1, Ordering::SeqCst);
                place.make_ready();
            })
        })
        .collect();
    while counter.seen.load(Ordering::SeqCst) < RINGERS {
        backend.turn(None).expect("turn");
    }
    ringers.into_iter().for_each(|ringer| ringer.join().expect("a ringer"));
}

/// What the ready source is to see is there when it runs, however the turn is made.
#[test]
fn what_is_made_ready_runs() {
    check(made_ready);
}

#[test]
fn an_alarm_runs_the_source_in_the_wait_of_another_thread() {
    check(|| {
        let backend = Backend::new().expect("backend");
        let counter = Arc::new(Counter::default());
        let place = backend.add(counter.clone()).expect("add");
        let setter = thread::spawn({
            let counter = counter.clone();
            move || {
                counter.asked.store(1, Ordering::SeqCst);
                place.set_alarm(Some(now() + Duration::from_secs(2)));
                place.set_alarm(Some(now() + Duration::from_secs(1)));
            }
        });
        while counter.seen.load(Ordering::SeqCst) < 1 {
            backend.turn(None).expect("turn");
        }
        setter.join().expect("the setter");
    });
}

#[test]
fn stop_ends_the_run() {
    check(|| {
        let backend = Backend::new().expect("backend");
        let stopper = thread::spawn({
            let backend = backend.clone();
            move || backend.stop()
        });
        backend.run().expect("run");
        stopper.join().expect("the stopper");
    });
}

fn leaves(turns: usize) {
    let backend = Backend::new().expect("backend");
    let counter = Arc::new(Counter::default());
    let place = backend.add(counter.clone()).expect("add");
    let turner = thread::spawn({
        let backend = backend.clone();
        move || (0..turns).for_each(|_| drop(backend.turn(Some(Duration::from_secs(1)))))
    });
    let ringer = thread::spawn({
        let place = place.clone();
        move || place.make_ready()
    });
    place.leave(true);
    assert!(!counter.running.load(Ordering::SeqCst), "it runs when it has left");
    counter.left.store(true, Ordering::SeqCst);
    assert!(backend.is_empty());
    turner.join().expect("the turner");
    ringer.join().expect("the ringer");
    assert_eq!(Arc::strong_count(&counter), 1);
}

#[test]
fn a_source_that_has_left_is_not_run() {
    check(|| leaves(2));
}

#[test]
fn a_leave_that_is_not_told_of_the_rest_is_found() {
    must_find_without_notification(0, || leaves(1));
}

/// The last handle goes in one thread, while another one asks for a handle by the place, and a third leaves.
#[test]
fn the_last_handle_against_those_who_have_a_place() {
    check(|| {
        let backend = Backend::new().expect("backend");
        let counters = [Arc::new(Counter::default()), Arc::new(Counter::default())];
        let [one, other] = counters.clone().map(|counter| backend.add(counter).expect("add"));
        let asks = thread::spawn(move || {
            if let Some(backend) = one.backend() {
                assert!(one.is_alive());
                backend.turn(Some(Duration::ZERO)).expect("turn");
            }
            one.make_ready();
        });
        let leaves = thread::spawn(move || other.leave(true));
        drop(backend);
        asks.join().expect("who asks");
        leaves.join().expect("who leaves");
        assert!(counters[0].orphaned.load(Ordering::SeqCst));
        assert_eq!(Arc::strong_count(&counters[1]), 1);
    });
}

/// A file with a read callback, taken out of its backend and put back by another thread: every byte is read once, by the callback or
/// by the thread.
#[test]
fn a_file_that_leaves_and_comes_back_loses_no_byte() {
    check(|| {
        let (here, there) = pair();
        let (file, backend) = (PlainFile::new(here), Backend::new().expect("backend"));
        let (got, out) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
        let (to, is_out, stop) = (got.clone(), out.clone(), backend.clone());
        file.set_callbacks(
            Callbacks::new()
                .on_read(move |_, data| {
                    assert!(!is_out.load(Ordering::SeqCst), "called after it has left");
                    to.lock().extend_from_slice(data);
                })
                .on_close(move |_, result| {
                    assert!(result.is_ok());
                    stop.stop();
                }),
        );
        file.set_backend(Some(&backend)).expect("set");
        let turner = thread::spawn({
            let backend = backend.clone();
            move || backend.run().expect("run")
        });
        let peer = thread::spawn(move || assert!(there.send(b"012345")));
        file.set_backend(None).expect("leave");
        out.store(true, Ordering::SeqCst);
        let mut byte = [0];
        let n = (&file).read(&mut byte).expect("read");
        got.lock().extend_from_slice(&byte[..n]);
        out.store(false, Ordering::SeqCst);
        file.set_backend(Some(&backend)).expect("come back");
        peer.join().expect("the peer");
        turner.join().expect("the turner");
        assert_eq!(*got.lock(), b"012345");
    });
}

/// The backend it leaves goes at the same moment: it is in the new one all the same.
#[test]
fn a_file_that_moves_as_its_backend_goes_is_in_the_new_one() {
    check(|| {
        let (here, there) = pair();
        let (file, old) = (PlainFile::new(here), Backend::new().expect("backend"));
        let new = Backend::new().expect("backend");
        file.set_backend(Some(&old)).expect("set");
        let stop = new.clone();
        file.set_callbacks(Callbacks::new().on_read(move |_, _: &[u8]| stop.stop()));
        let goes = thread::spawn(move || {
            old.turn(Some(Duration::ZERO)).expect("turn");
            drop(old);
        });
        file.set_backend(Some(&new)).expect("move");
        assert!(file.backend().is_some());
        let peer = thread::spawn(move || there.send(b"x"));
        // Not called by the old one, or called: either stops the new one's run.
        new.run().expect("run");
        goes.join().expect("who drops");
        peer.join().expect("the peer");
    });
}

/// Callbacks and queued data of one thread, the pauses of another: all is sent, and answered.
#[test]
fn what_other_threads_ask_of_a_file_is_done_by_its_backend() {
    check(|| {
        let (here, there) = pair();
        let (file, backend) = (PlainFile::new(here), Backend::new().expect("backend"));
        file.set_backend(Some(&backend)).expect("set");
        let turner = thread::spawn({
            let backend = backend.clone();
            move || backend.run().expect("run")
        });
        let sends = thread::spawn({
            let file = file.clone();
            move || file.send(b"012345").expect("send")
        });
        let pauses = thread::spawn({
            let file = file.clone();
            move || {
                file.pause_reading(true);
                file.pause_reading(false);
            }
        });
        let peer = thread::spawn(move || {
            assert_eq!(there.receive(6), b"012345");
            assert!(there.send(b"answer"));
        });
        let (mut answer, stop) = (Vec::new(), backend.clone());
        file.set_callbacks(Callbacks::new().on_read(move |_, data: &[u8]| {
            answer.extend_from_slice(data);
            if answer == b"answer" {
                stop.stop();
            }
        }));
        [turner, sends, pauses, peer].into_iter().for_each(|thread| thread.join().expect("a thread"));
    });
}

/// A stream comes back from the file that wrapped it as the backend's last handle goes, and another thread puts the file elsewhere.
#[test]
fn a_stream_that_comes_home_as_its_backend_goes() {
    check(|| {
        let (here, there) = pair();
        let (file, backend) = (PlainFile::new(here), Backend::new().expect("backend"));
        file.set_backend(Some(&backend)).expect("set");
        let mut inherited = file.take_over().expect("taken over");
        let handles = (backend, inherited.backend.take());
        let goes = thread::spawn(move || {
            handles.0.turn(Some(Duration::ZERO)).expect("turn");
            drop(handles);
        });
        let asks = thread::spawn({
            let file = file.clone();
            move || file.backend().is_some()
        });
        file.give_back(&inherited, b"0".to_vec());
        let mut byte = [0];
        assert_eq!((&file).read(&mut byte).expect("read"), 1);
        assert_eq!(&byte, b"0");
        goes.join().expect("who drops");
        asks.join().expect("who asks");
        assert!(file.backend().is_none());
        drop(there);
    });
}

/// Two threads put the same file into backends of theirs: it is in one of them in the end, and the other is empty.
#[test]
fn two_who_set_the_backend() {
    check(|| {
        let (here, there) = pair();
        let file = PlainFile::new(here);
        let backends = [0, 1, 2].map(|_| Backend::new().expect("backend"));
        file.set_backend(Some(&backends[0])).expect("set");
        let setters = [1, 2].map(|i| {
            let (file, backend) = (file.clone(), backends[i].clone());
            thread::spawn(move || file.set_backend(Some(&backend)).expect("set"))
        });
        backends[0].turn(Some(Duration::ZERO)).expect("turn");
        setters.into_iter().for_each(|setter| setter.join().expect("who sets"));
        assert_eq!(backends.iter().map(Backend::len).sum::<usize>(), 1);
        assert_eq!(backends.iter().position(|backend| !backend.is_empty()), {
            let of_file = file.backend().expect("it has one");
            backends.iter().position(|backend| *backend == of_file)
        });
        drop(there);
    });
}
