//! No ring of a doorbell is lost: asleep on its condition, asleep in a `wait` for a descriptor, with and without a time-out.

use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Instant;

use super::sync::{now, thread, AtomicBool, AtomicUsize, Condvar, Mutex, Ordering};
use super::{check, must_find, must_find_without_notification, net};
use crate::sys::{wait, Doorbell, Ready, SLICE};

const RINGERS: usize = 3;

/// Threads that do something, and ring.
fn ringers(bell: &Arc<Doorbell>) -> (Arc<AtomicUsize>, Vec<thread::JoinHandle<()>>) {
    let done = Arc::new(AtomicUsize::new(0));
    let ring = |_| {
        let (bell, done) = (bell.clone(), done.clone());
        thread::spawn(move || {
            done.fetch_add(1, Ordering::Relaxed);
            bell.ring();
        })
    };
    let threads = (0..RINGERS).map(ring).collect();
    (done, threads)
}

fn asleep() {
    let bell = Doorbell::current();
    let (done, threads) = ringers(&bell);
    while done.load(Ordering::Relaxed) < RINGERS {
        bell.sleep(None);
    }
    threads.into_iter().for_each(|thread| thread.join().expect("a ringer"));
}

#[test]
fn a_sleeper_hears_every_ring() {
    check(asleep);
}

#[test]
fn a_ring_that_knocks_at_nobody_is_found() {
    must_find_without_notification(0, asleep);
}

/// The time-out may pass at any moment, in the middle of a ring, too.
#[test]
fn a_sleeper_with_a_time_out_hears_every_ring() {
    check(|| {
        let bell = Doorbell::current();
        let (done, threads) = ringers(&bell);
        let until = now() + SLICE;
        while done.load(Ordering::Relaxed) < RINGERS {
            bell.sleep(Some(until).filter(|until| now() < *until));
        }
        threads.into_iter().for_each(|thread| thread.join().expect("a ringer"));
    });
}

/// A stream that has data, and rings before and after it. `mixed`: sleeps of both kinds, one after the other, as of a thread
/// that has several files.
fn waits(mut until: Option<Instant>, mixed: bool) {
    let (here, mut there) = UnixStream::pair().expect("a pair");
    here.set_nonblocking(true).expect("non-blocking");
    let bell = Doorbell::current();
    let (done, threads) = ringers(&bell);
    let sender = thread::spawn(move || {
        there.write_all(b"x").expect("write");
        net::touched();
        // To be closed later: an end is ready, too.
        there
    });
    let mut got = false;
    while done.load(Ordering::Relaxed) < RINGERS || !got {
        let wanted = if got && mixed { Ready::default() } else { Ready::READABLE };
        wait(&[(here.as_fd(), wanted)], &bell, until);
        until = until.filter(|until| now() < *until);
        got |= (&here).read(&mut [0]).is_ok();
    }
    sender.join().expect("the sender");
    threads.into_iter().for_each(|thread| thread.join().expect("a ringer"));
}

#[test]
fn a_wait_for_a_descriptor_hears_every_ring_and_the_stream() {
    check(|| waits(None, false));
}

#[test]
fn a_wait_with_a_time_out_hears_every_ring_and_the_stream() {
    check(|| waits(Some(now() + SLICE), true));
}

/// The doorbell as it must not be: it looks whether it has been rung before it says that it sleeps.
#[derive(Default)]
struct Hasty {
    rung: AtomicBool,
    asleep: AtomicBool,
    lock: Mutex<()>,
    condition: Condvar,
}

impl Hasty {
    fn ring(&self) {
        self.rung.store(true, Ordering::SeqCst);
        if self.asleep.load(Ordering::SeqCst) {
            drop(self.lock.lock());
            self.condition.notify_one();
        }
    }

    fn sleep(&self) {
        let mut guard = self.lock.lock();
        if !self.rung.swap(false, Ordering::SeqCst) {
            self.asleep.store(true, Ordering::SeqCst);
            self.condition.wait(&mut guard);
            self.asleep.store(false, Ordering::SeqCst);
        }
    }
}

#[test]
fn a_doorbell_that_looks_before_it_says_so_is_found() {
    must_find(|| {
        let bell = Arc::new(Hasty::default());
        let done = Arc::new(AtomicBool::new(false));
        let ringer = thread::spawn({
            let (bell, done) = (bell.clone(), done.clone());
            move || {
                done.store(true, Ordering::Relaxed);
                bell.ring();
            }
        });
        while !done.load(Ordering::Relaxed) {
            bell.sleep();
        }
        ringer.join().expect("the ringer");
    });
}
