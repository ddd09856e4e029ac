//! The event loop by itself: turns, call-outs, stopping and waking, any number of them in any thread, and rest when idle.

#[cfg(target_os = "linux")]
mod idle;

use crate::common;
use crate::rig;

use std::io::{ErrorKind, Read, Write};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{mpsc, Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use common::{engines, tcp_pair, within, LONG};
use rig::{logged_pair, on_each_engine, open, pair, panics, settle, turn_until, wake_ups};
use sslfile::{Backend, PlainFile, Role, SslFile};

const SOON: Duration = Duration::from_millis(20);

type Order = Arc<Mutex<Vec<u32>>>;

fn note(order: &Order, what: u32) -> impl FnOnce() + Send + 'static {
    let order = order.clone();
    move || order.lock().expect("order").push(what)
}

fn noted(order: &Order) -> Vec<u32> {
    order.lock().expect("order").clone()
}

fn new() -> Backend {
    Backend::new().expect("backend")
}

#[test]
fn turn_waits_no_longer_than_its_time_out_and_no_shorter() {
    within(LONG, || {
        let backend = new();
        let start = Instant::now();
        assert_eq!(backend.turn(Some(Duration::ZERO)).expect("turn"), 0);
        assert!(start.elapsed() < LONG / 4);
        let start = Instant::now();
        assert_eq!(backend.turn(Some(SOON)).expect("turn"), 0);
        assert!(start.elapsed() >= SOON);
    });
}

#[test]
fn call_outs_come_in_the_order_of_their_times_then_of_their_making() {
    within(LONG, || {
        let (backend, order) = (new(), Order::default());
        let late = SOON * 4;
        backend.call_out(late, note(&order, 5));
        backend.call_out(SOON, note(&order, 3));
        for first in 0..3 {
            backend.call_out(Duration::ZERO, note(&order, first));
        }
        backend.call_out(SOON * 2, note(&order, 4));
        let start = Instant::now();
        turn_until(&backend, || noted(&order).len() == 6);
        assert!(start.elapsed() >= late - SOON);
        assert_eq!(noted(&order), [0, 1, 2, 3, 4, 5]);
    });
}

/// Those that are overdue together still come by time, whatever the order of making.
#[test]
fn overdue_call_outs_come_in_the_order_of_their_times() {
    within(LONG, || {
        let (backend, order) = (new(), Order::default());
        for i in (0..10).rev() {
            backend.call_out(Duration::from_millis(u64::from(i) * 3), note(&order, i));
        }
        thread::sleep(SOON * 4);
        let calls = backend.turn(Some(LONG)).expect("turn");
        assert_eq!(calls, 10, "says how many calls");
        assert_eq!(noted(&order), (0..10).collect::<Vec<_>>());
    });
}

#[test]
fn a_call_out_is_never_early() {
    within(LONG, || {
        let backend = new();
        for delay in [0, 1, 2, 5, 17, 30] {
            let delay = Duration::from_millis(delay);
            let (sent, called) = mpsc::channel();
            let start = Instant::now();
            backend.call_out(delay, move || sent.send(start.elapsed()).expect("send"));
            let called = loop {
                backend.turn(None).expect("turn");
                if let Ok(called) = called.try_recv() {
                    break called;
                }
            };
            assert!(called >= delay, "{called:?} instead of {delay:?}");
        }
    });
}

#[test]
fn turns_and_call_outs_know_fractions_of_a_millisecond() {
    within(LONG, || {
        let backend = new();
        for micros in [200, 700, 1_300, 5_400, 20_200] {
            let time = Duration::from_micros(micros);
            // Windows wakes at the ticks of its clock.
            let limit = Duration::from_micros(if cfg!(windows) { 20_000 } else { 250 });
            let measure = |wait: &dyn Fn()| {
                let mut late = Duration::MAX;
                let (mut times, since) = (0, Instant::now());
                // The best: others may have the processor, for a while. Whole milliseconds would be late each time.
                while times < 20 || (late >= limit && since.elapsed() < Duration::from_secs(60)) {
                    let begin = Instant::now();
                    wait();
                    late = late.min(begin.elapsed().checked_sub(time).expect("never early"));
                    times += 1;
                }
                late
            };
            let turn = measure(&|| assert_eq!(backend.turn(Some(time)).expect("turn"), 0));
            let call_out = measure(&|| {
                backend.call_out(time, || ());
                assert_eq!(backend.turn(None).expect("turn"), 1, "the call-out, and at once");
            });
            assert!(turn < limit && call_out < limit, "{time:?}: turn late by {turn:?}, call-out by {call_out:?}");
        }
    });
}

#[test]
fn a_cancelled_call_out_is_not_called_and_cancelling_says_so_once() {
    within(LONG, || {
        let (backend, order) = (new(), Order::default());
        let cancelled = backend.call_out(SOON, note(&order, 1));
        let called = backend.call_out(SOON, note(&order, 2));
        drop(backend.call_out(SOON, note(&order, 3)));
        assert!(cancelled.cancel());
        assert!(!cancelled.cancel(), "a second time");
        turn_until(&backend, || noted(&order).len() == 2);
        settle(&backend);
        assert_eq!(noted(&order), [2, 3]);
        assert!(!called.cancel(), "after the call");
        let orphan = backend.call_out(SOON, || ());
        drop(backend);
        assert!(!orphan.cancel(), "after the backend");
    });
}

#[test]
fn what_a_cancelled_call_out_owns_is_dropped_at_once() {
    let backend = new();
    let owned = Arc::new(());
    let (inside, other) = (owned.clone(), owned.clone());
    let call_out = backend.call_out(LONG, move || drop(inside));
    backend.call_out(LONG, move || drop(other));
    assert_eq!(Arc::strong_count(&owned), 3);
    call_out.cancel();
    assert_eq!(Arc::strong_count(&owned), 2);
    drop(backend);
    assert_eq!(Arc::strong_count(&owned), 1);
}

#[test]
fn a_call_out_may_make_and_cancel_others() {
    within(LONG, || {
        let (backend, order) = (new(), Order::default());
        let victim = Arc::new(Mutex::new(None));
        let (inner, shared, prey) = (backend.clone(), order.clone(), victim.clone());
        backend.call_out(Duration::ZERO, move || {
            note(&shared, 1)();
            // Due in the same turn, after this one.
            let victim: Option<sslfile::CallOut> = prey.lock().expect("victim").take();
            assert!(victim.expect("victim").cancel());
            inner.call_out(Duration::ZERO, note(&shared, 3));
        });
        *victim.lock().expect("victim") = Some(backend.call_out(Duration::ZERO, note(&order, 2)));
        turn_until(&backend, || noted(&order).len() == 2);
        settle(&backend);
        assert_eq!(noted(&order), [1, 3]);
    });
}

/// A call-out that makes another for now does not keep the turn from ending.
#[test]
fn a_call_out_that_renews_itself_starves_nobody() {
    fn renew(backend: &Backend, count: Arc<AtomicUsize>) {
        let again = backend.clone();
        backend.call_out(Duration::ZERO, move || {
            count.fetch_add(1, Ordering::SeqCst);
            renew(&again, count.clone());
        });
    }
    within(LONG, || {
        let (backend, count) = (new(), Arc::new(AtomicUsize::new(0)));
        renew(&backend, count.clone());
        for turns in 1..10 {
            backend.turn(None).expect("turn");
            assert!(count.load(Ordering::SeqCst) <= turns, "more than one in a turn");
        }
        let (file, mut peer, log) = logged_pair(engines()[0], Role::Server, &new());
        file.set_backend(Some(&backend)).expect("backend");
        peer.write_all(b"x").expect("write");
        turn_until(&backend, || log.data() == b"x");
    });
}

#[test]
fn absurd_delays_are_taken_as_they_are() {
    within(LONG, || {
        let backend = new();
        let never = backend.call_out(Duration::MAX, || panic!("for ever is over"));
        settle(&backend);
        assert!(never.cancel());
        assert!(format!("{backend:?}").contains("Backend"));
        assert!(!format!("{never:?}").is_empty());
    });
}

#[test]
fn a_call_out_from_another_thread_ends_a_wait() {
    within(LONG, || {
        let (backend, order) = (new(), Order::default());
        let (maker, made) = (backend.clone(), order.clone());
        let thread = thread::spawn(move || {
            thread::sleep(SOON);
            maker.call_out(Duration::ZERO, note(&made, 1));
        });
        while noted(&order).is_empty() {
            backend.turn(None).expect("turn");
        }
        thread.join().expect("thread");
    });
}

/// The wait under way is for a later one.
#[test]
fn an_earlier_call_out_from_another_thread_shortens_a_wait() {
    within(LONG, || {
        let (backend, order) = (new(), Order::default());
        backend.call_out(LONG * 10, || ());
        let (maker, made) = (backend.clone(), order.clone());
        let thread = thread::spawn(move || {
            thread::sleep(SOON);
            maker.call_out(SOON, note(&made, 1));
        });
        while noted(&order).is_empty() {
            backend.turn(None).expect("turn");
        }
        thread.join().expect("thread");
    });
}

#[test]
fn stop_ends_the_run_under_way_or_the_next_one() {
    within(LONG, || {
        let backend = new();
        // From inside.
        let inside = backend.clone();
        backend.call_out(SOON, move || inside.stop());
        backend.run().expect("run");
        // From another thread.
        let outside = backend.clone();
        let thread = thread::spawn(move || {
            thread::sleep(SOON);
            outside.stop();
        });
        backend.run().expect("run");
        thread.join().expect("thread");
        // Before, and only once.
        backend.stop();
        backend.run().expect("run");
        let (order, inside) = (Order::default(), backend.clone());
        let called = order.clone();
        backend.call_out(SOON, move || {
            note(&called, 1)();
            inside.stop();
        });
        backend.run().expect("run");
        assert_eq!(noted(&order), [1], "stopped by a stop that had been used up");
    });
}

#[test]
fn a_stop_that_waits_for_a_run_makes_no_turns_spin() {
    within(LONG, || {
        let backend = new();
        backend.stop();
        assert!(wake_ups(&backend) <= 2, "{} turns in half a second", wake_ups(&backend));
        backend.run().expect("run");
    });
}

#[test]
fn wake_ends_the_wait_under_way_or_the_next_one() {
    within(LONG, || {
        let backend = new();
        backend.wake();
        assert_eq!(backend.turn(None).expect("turn"), 0);
        let waker = backend.clone();
        let thread = thread::spawn(move || {
            thread::sleep(SOON);
            waker.wake();
        });
        assert_eq!(backend.turn(None).expect("turn"), 0);
        thread.join().expect("thread");
        let start = Instant::now();
        assert_eq!(backend.turn(Some(SOON)).expect("turn"), 0);
        assert!(start.elapsed() >= SOON, "woken by a wake-up that had been used up");
    });
}

#[test]
fn a_turn_inside_a_turn_is_refused_and_another_backends_is_not() {
    within(LONG, || {
        let (backend, other, order) = (new(), new(), Order::default());
        let (inner, inner_other, called) = (backend.clone(), other.clone(), order.clone());
        other.call_out(Duration::ZERO, note(&order, 1));
        backend.call_out(Duration::ZERO, move || {
            assert_eq!(inner.turn(None).expect_err("turned").kind(), ErrorKind::InvalidInput);
            assert_eq!(inner.run().expect_err("ran").kind(), ErrorKind::InvalidInput);
            assert_eq!(inner_other.turn(None).expect("turn"), 1);
            note(&called, 2)();
        });
        backend.turn(None).expect("turn");
        assert_eq!(noted(&order), [1, 2]);
    });
}

#[test]
fn one_thread_at_a_time_turns_and_the_other_is_told() {
    within(LONG, || {
        let backend = new();
        let (sent, inside) = mpsc::channel();
        let (go, wait) = mpsc::channel::<()>();
        backend.call_out(Duration::ZERO, move || {
            sent.send(()).expect("send");
            let _ = wait.recv();
        });
        let turner = backend.clone();
        let thread = thread::spawn(move || turner.turn(None).expect("turn"));
        inside.recv().expect("inside");
        assert_eq!(backend.turn(None).expect_err("turned").kind(), ErrorKind::ResourceBusy);
        drop(go);
        thread.join().expect("thread");
        backend.turn(Some(Duration::ZERO)).expect("turn");
    });
}

#[test]
fn a_panic_in_a_call_out_propagates_and_the_rest_is_called() {
    within(LONG, || {
        let (backend, order) = (new(), Order::default());
        backend.call_out(Duration::ZERO, note(&order, 1));
        backend.call_out(Duration::ZERO, || panic!("in a call-out"));
        backend.call_out(Duration::ZERO, note(&order, 2));
        assert!(panics(|| assert!(backend.turn(None).is_ok())));
        turn_until(&backend, || noted(&order) == [1, 2]);
        settle(&backend);
    });
}

#[test]
fn handles_on_the_same_loop_are_equal() {
    let (one, other) = (new(), new());
    assert_eq!(one, one.clone());
    assert_ne!(one, other);
}

#[test]
fn len_counts_what_is_watched() {
    on_each_engine(|engine| {
        let backend = new();
        assert!(backend.is_empty());
        let (file, _peer) = pair(engine, Role::Server, &backend);
        let (plain, _other) = tcp_pair();
        let plain = PlainFile::new(plain);
        plain.set_backend(Some(&backend)).expect("backend");
        assert_eq!(backend.len(), 2);
        file.set_backend(None).expect("out");
        assert_eq!(backend.len(), 1);
        drop(plain);
        assert!(backend.is_empty());
    });
}

#[test]
fn several_backends_in_one_thread_each_call_their_own() {
    on_each_engine(|engine| {
        let backends = [new(), new(), new()];
        let mut files: Vec<_> = backends.iter().map(|b| logged_pair(engine, Role::Server, b)).collect();
        for (i, backend) in backends.iter().enumerate() {
            files[i].1.write_all(&[i as u8]).expect("write");
            for other in backends.iter().filter(|other| *other != backend) {
                settle(other);
            }
            assert!(files[i].2.is_empty(), "called by another backend");
            turn_until(backend, || files[i].2.data() == [i as u8]);
        }
    });
}

#[test]
fn several_backends_in_several_threads_run_at_once() {
    on_each_engine(|engine| {
        let backends: Vec<_> = (0..4).map(|_| new()).collect();
        let mut files: Vec<_> = backends.iter().map(|b| logged_pair(engine, Role::Server, b)).collect();
        thread::scope(|t| {
            let runs: Vec<_> = backends.iter().map(|b| t.spawn(|| b.run())).collect();
            for (_, peer, _) in &mut files {
                peer.write_all(b"hello").expect("write");
            }
            while files.iter().any(|(_, _, log)| log.data() != b"hello") {
                thread::sleep(Duration::from_millis(1));
            }
            backends.iter().for_each(Backend::stop);
            for run in runs {
                run.join().expect("thread").expect("run");
            }
        });
    });
}

/// Every use of a file from another thread reaches a backend that is waiting without a limit.
#[test]
fn what_other_threads_do_to_files_reaches_a_waiting_backend() {
    on_each_engine(|engine| {
        let backend = new();
        let (file, mut peer, log) = logged_pair(engine, Role::Client, &backend);
        let runner = backend.clone();
        let run = thread::spawn(move || runner.run());
        let until = |what: &str, done: &dyn Fn() -> bool| {
            let start = Instant::now();
            while !done() {
                assert!(start.elapsed() < LONG / 4, "{what} did not reach the backend");
                thread::sleep(Duration::from_millis(1));
            }
        };
        // Each when the backend has gone to sleep again, more likely than not.
        let pause = || thread::sleep(SOON);
        pause();
        assert_eq!((&file).write(b"x").expect("write"), 1);
        until("write", &|| log.writes() == 1);
        pause();
        file.pause_reading(true);
        peer.write_all(b"one").expect("write");
        pause();
        file.pause_reading(false);
        until("pause_reading", &|| log.data() == b"one");
        pause();
        file.clear_read_callback();
        peer.write_all(b"two").expect("write");
        pause();
        file.set_callbacks(log.callbacks());
        until("set_callbacks", &|| log.data() == b"onetwo");
        pause();
        file.set_backend(None).expect("out");
        peer.write_all(b"three").expect("write");
        pause();
        file.set_backend(Some(&backend)).expect("in");
        until("set_backend", &|| log.data() == b"onetwothree");
        pause();
        file.set_read_timeout(Some(SOON)).expect("time-out");
        until("set_read_timeout", &|| log.closes() == [Err(ErrorKind::TimedOut)]);
        pause();
        backend.stop();
        run.join().expect("thread").expect("run");
    });
}

/// Threads move one file between backends and none, all at once: it ends up in one place.
#[test]
fn racing_moves_leave_a_file_in_one_backend() {
    on_each_engine(|engine| {
        for _ in 0..20 {
            let backends = [new(), new(), new()];
            let (file, _peer) = pair(engine, Role::Server, &backends[0]);
            thread::scope(|t| {
                for own in 0..4 {
                    let (file, backends) = (&file, &backends);
                    t.spawn(move || {
                        for i in 0..200 {
                            let to = (own + i) % 4;
                            file.set_backend(backends.get(to)).expect("move");
                        }
                    });
                }
            });
            let lens = backends.iter().map(Backend::len).sum::<usize>();
            assert_eq!(lens, usize::from(file.backend().is_some()));
            file.set_backend(None).expect("out");
            assert!(backends.iter().all(Backend::is_empty));
        }
    });
}

/// Whoever happens to hold the last reference to a backend for a moment must not come to harm.
#[test]
fn a_backend_dropped_while_other_threads_use_its_files_hangs_nobody() {
    on_each_engine(|engine| {
        let end = Instant::now() + Duration::from_secs(4);
        let holder = new();
        let (file, _peer) = pair(engine, Role::Server, &holder);
        let done = AtomicBool::new(false);
        thread::scope(|t| {
            let user = t.spawn(|| {
                while !done.load(Ordering::SeqCst) {
                    // Each changes what the file wants of its backend.
                    file.pause_reading(true);
                    file.pause_reading(false);
                }
            });
            while Instant::now() < end {
                let backend = new();
                file.set_backend(Some(&backend)).expect("backend");
                backend.turn(Some(Duration::ZERO)).expect("turn");
                drop(backend);
            }
            done.store(true, Ordering::SeqCst);
            user.join().expect("user");
        });
        assert_eq!(file.backend(), None);
    });
}

#[test]
fn files_of_a_dropped_backend_have_none_and_go_on() {
    on_each_engine(|engine| {
        let backend = new();
        let (file, mut peer, log) = logged_pair(engine, Role::Server, &backend);
        let (kept, mut other) = pair(engine, Role::Server, &backend);
        kept.keep();
        drop(backend);
        assert_eq!(file.backend(), None);
        // What was kept has been dropped with close_notify.
        assert_eq!(other.read(&mut [0; 1]).expect("close_notify"), 0);
        peer.write_all(b"hello").expect("write");
        file.set_nonblocking(false).expect("blocking");
        let mut got = [0; 5];
        std::io::Read::read_exact(&mut &file, &mut got).expect("read");
        assert_eq!(&got, b"hello");
        let next = new();
        file.set_backend(Some(&next)).expect("backend");
        peer.write_all(b"again").expect("write");
        turn_until(&next, || log.data() == b"again");
    });
}

#[test]
fn a_backend_takes_no_stream_without_a_descriptor() {
    on_each_engine(|engine| {
        let stream = sslfile::ReadWrite::new(std::io::Cursor::new(Vec::new()));
        let file = open(engine, Role::Server, SslFile::options(), stream);
        assert_eq!(file.set_backend(Some(&new())).expect_err("taken").kind(), ErrorKind::Unsupported);
        file.set_backend(None).expect("none");
    });
}
