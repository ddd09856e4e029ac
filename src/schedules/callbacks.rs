//! Taking callbacks away while another thread runs one.

use std::io::Read;
use std::sync::Arc;

use super::net::pair;
use super::sync::{thread, AtomicBool, AtomicUsize, Mutex, Ordering};
use super::{check, must_find_without_notification};
use crate::backend::Backend;
use crate::callbacks::Callbacks;
use crate::file::PlainFile;

/// `takers` threads take while the callback runs, or before, or after. One of them gets it.
fn take(takers: usize) {
    let (here, there) = pair();
    let (file, backend) = (PlainFile::new(here), Backend::new().expect("backend"));
    let (got, running) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
    let (to, runs) = (got.clone(), running.clone());
    file.set_callbacks(Callbacks::new().on_read(move |_, data| {
        assert!(!runs.swap(true, Ordering::SeqCst), "called twice at a time");
        to.lock().extend_from_slice(data);
        runs.store(false, Ordering::SeqCst);
    }));
    file.set_backend(Some(&backend)).expect("set");
    let turner = thread::spawn({
        let backend = backend.clone();
        move || backend.run().expect("run")
    });
    let peer = thread::spawn(move || assert!(there.send(b"012345")));
    let had = Arc::new(AtomicUsize::new(0));
    let takers: Vec<_> = (0..takers)
        .map(|_| {
            let (file, running, had) = (file.clone(), running.clone(), had.clone());
            thread::spawn(move || {
                let taken = file.take_callbacks();
                assert!(!running.load(Ordering::SeqCst), "it runs when it has been taken");
                had.fetch_add(usize::from(taken.read.is_some()), Ordering::SeqCst);
            })
        })
        .collect();
    takers.into_iter().for_each(|taker| taker.join().expect("a taker"));
    assert_eq!(had.load(Ordering::SeqCst), 1, "got by one");
    // What the callback has not got is there to be read.
    let mut rest = Vec::new();
    (&file).read_to_end(&mut rest).expect("read");
    got.lock().extend_from_slice(&rest);
    assert_eq!(*got.lock(), b"012345");
    peer.join().expect("the peer");
    backend.stop();
    turner.join().expect("the turner");
}

#[test]
fn who_takes_callbacks_waits_for_the_one_that_runs() {
    check(|| take(1));
}

#[test]
fn two_who_take_callbacks_both_wait() {
    check(|| take(2));
}

#[test]
fn a_taker_that_is_not_told_is_found() {
    must_find_without_notification(0, || take(2));
}

/// Inside a callback it does not wait, whoever else takes at the same time, and the callback does not come back.
#[test]
fn a_callback_takes_itself_while_another_thread_takes() {
    check(|| {
        let (here, there) = pair();
        let (file, backend) = (PlainFile::new(here), Backend::new().expect("backend"));
        let (stop, calls) = (backend.clone(), Arc::new(AtomicUsize::new(0)));
        let counted = calls.clone();
        file.set_callbacks(Callbacks::new().on_read(move |file: &PlainFile<_>, _: &[u8]| {
            counted.fetch_add(1, Ordering::SeqCst);
            drop(file.take_callbacks());
            stop.stop();
        }));
        file.set_backend(Some(&backend)).expect("set");
        let taker = thread::spawn({
            let (file, backend) = (file.clone(), backend.clone());
            move || {
                drop(file.take_callbacks());
                backend.stop();
            }
        });
        let peer = thread::spawn(move || there.send(b"01"));
        backend.run().expect("run");
        taker.join().expect("the taker");
        backend.turn(Some(std::time::Duration::ZERO)).expect("turn");
        assert!(calls.load(Ordering::SeqCst) <= 1);
        drop((file, backend));
        peer.join().expect("the peer");
    });
}

/// Set by one thread while another runs the old one: every byte is told to one of them, in order.
#[test]
fn the_new_callback_takes_over_from_the_one_that_runs() {
    check(|| {
        let (here, there) = pair();
        let (file, backend) = (PlainFile::new(here), Backend::new().expect("backend"));
        let got = Arc::new(Mutex::new(Vec::new()));
        let to = got.clone();
        file.set_callbacks(Callbacks::new().on_read(move |_, data| to.lock().extend_from_slice(data)));
        file.set_backend(Some(&backend)).expect("set");
        let setter = thread::spawn({
            let (file, to, stop) = (file.clone(), got.clone(), backend.clone());
            move || {
                let read = move |_: &PlainFile<_>, data: &[u8]| to.lock().extend_from_slice(data);
                let close = move |_: &PlainFile<_>, _: std::io::Result<()>| stop.stop();
                file.set_callbacks(Callbacks::new().on_read(read).on_close(close));
            }
        });
        let peer = thread::spawn(move || assert!(there.send(b"012345")));
        backend.run().expect("run");
        setter.join().expect("the setter");
        peer.join().expect("the peer");
        assert_eq!(*got.lock(), b"012345");
        drop(file);
    });
}
