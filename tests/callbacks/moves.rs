//! Moving between backends, leaving them, `keep`, and who owns what.

use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{mpsc, Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use sslfile::{Backend, Engine, Role, SslFile};

use crate::common::{pattern, tcp_pair};
use crate::rig::{
    cut, end_well, logged_pair, on_each_engine, on_each_engine_and_role, open, pair, pair_with, settle, shaking_peer,
    turn_all_until, turn_until, Log, Peer, Told,
};

#[test]
fn no_callback_begins_after_set_backend_none_has_returned() {
    on_each_engine_and_role(|engine, role| {
        let backend = Backend::new().expect("backend");
        let (file, mut peer, _) = logged_pair(engine, role, &backend);
        let (runner, out) = (backend.clone(), Arc::new(AtomicBool::new(false)));
        let late = Arc::new(AtomicUsize::new(0));
        let (is_out, count) = (out.clone(), late.clone());
        file.set_read_callback(move |_, _| {
            count.fetch_add(usize::from(is_out.load(Ordering::SeqCst)), Ordering::SeqCst);
            thread::sleep(Duration::from_micros(300));
            count.fetch_add(usize::from(is_out.load(Ordering::SeqCst)), Ordering::SeqCst);
        });
        let run = thread::spawn(move || runner.run());
        let done = Arc::new(AtomicBool::new(false));
        let end = done.clone();
        let writer = thread::spawn(move || {
            while !end.load(Ordering::SeqCst) {
                peer.write_all(b"x").expect("write");
                thread::sleep(Duration::from_micros(100));
            }
            peer
        });
        for _ in 0..100 {
            thread::sleep(Duration::from_micros(700));
            file.set_backend(None).expect("out");
            out.store(true, Ordering::SeqCst);
            thread::sleep(Duration::from_micros(700));
            out.store(false, Ordering::SeqCst);
            file.set_backend(Some(&backend)).expect("in");
        }
        done.store(true, Ordering::SeqCst);
        writer.join().expect("writer");
        backend.stop();
        run.join().expect("thread").expect("run");
        assert_eq!(late.load(Ordering::SeqCst), 0, "called, or still running, after the move");
    });
}

/// Two backends run in two threads, and the file goes to and fro while data flows.
#[test]
fn a_file_moved_while_data_flows_is_read_in_order_without_loss() {
    on_each_engine_and_role(|engine, role| {
        let backends = [Backend::new().expect("backend"), Backend::new().expect("backend")];
        let (file, mut peer, log) = logged_pair(engine, role, &backends[0]);
        let all = pattern(11, 3 << 20);
        thread::scope(|t| {
            let runs: Vec<_> = backends.iter().map(|b| t.spawn(|| b.run())).collect();
            let data = all.clone();
            let writer = t.spawn(move || {
                for chunk in data.chunks(5000) {
                    peer.write_all(chunk).expect("write");
                }
                end_well(peer);
            });
            let mut moves = 0;
            let start = Instant::now();
            while log.closes().is_empty() {
                moves += 1;
                file.set_backend(Some(&backends[moves % 2])).expect("move");
                thread::yield_now();
                assert!(start.elapsed() < crate::common::LONG / 2, "no end");
            }
            writer.join().expect("writer");
            backends.iter().for_each(Backend::stop);
            for run in runs {
                run.join().expect("thread").expect("run");
            }
            println!("{moves} moves");
        });
        assert!(log.data() == all);
        assert_eq!(log.closes(), [Ok(())]);
        assert_eq!(backends.iter().map(Backend::len).sum::<usize>(), 1);
    });
}

#[test]
fn a_move_in_any_state_is_taken_up_by_the_new_backend() {
    on_each_engine_and_role(|engine, role| {
        let backends = [Backend::new().expect("backend"), Backend::new().expect("backend")];
        let (ours, theirs) = tcp_pair();
        let file = open(engine, role, SslFile::options().nonblocking(true).backend(&backends[0]), ours);
        let log = Log::new();
        file.set_callbacks(log.callbacks());
        // In mid-handshake.
        settle(&backends[0]);
        file.set_backend(Some(&backends[1])).expect("move");
        let peer = shaking_peer(role, theirs);
        turn_until(&backends[1], || peer.is_finished() && log.writes() == 1);
        let mut peer = peer.join().expect("peer");
        // With data unsent.
        let data = pattern(12, 8 << 20);
        file.send(&data).expect("send");
        file.set_backend(Some(&backends[0])).expect("move");
        let reader = thread::spawn(move || {
            let mut got = vec![0; 8 << 20];
            peer.read_exact(&mut got).expect("read");
            (got, peer)
        });
        turn_until(&backends[0], || log.writes() == 2);
        let (got, mut peer) = reader.join().expect("reader");
        assert!(got == data);
        // With data undelivered.
        file.pause_reading(true);
        peer.write_all(b"undelivered").expect("write");
        settle(&backends[0]);
        file.set_backend(Some(&backends[1])).expect("move");
        file.pause_reading(false);
        turn_until(&backends[1], || log.data() == b"undelivered");
        // While it closes.
        file.close().expect("close");
        file.set_backend(Some(&backends[0])).expect("move");
        let end = thread::spawn(move || {
            assert_eq!(peer.read(&mut [0; 1]).expect("close_notify"), 0);
            end_well(peer);
        });
        turn_until(&backends[0], || !log.closes().is_empty() && end.is_finished());
        end.join().expect("end");
        // After the end.
        file.set_backend(Some(&backends[1])).expect("move");
        settle(&backends[1]);
        assert_eq!(log.closes(), [Ok(())]);
    });
}

#[test]
fn without_a_backend_nothing_is_called_and_all_is_told_later() {
    on_each_engine_and_role(|engine, role| {
        let backend = Backend::new().expect("backend");
        let (file, mut peer, log) = logged_pair(engine, role, &backend);
        file.set_backend(None).expect("out");
        peer.write_all(b"hello").expect("write");
        end_well(peer);
        settle(&backend);
        assert!(log.is_empty());
        file.set_backend(Some(&backend)).expect("in");
        turn_until(&backend, || !log.closes().is_empty());
        assert_eq!(log.all(), [Told::Read(b"hello".to_vec()), Told::Close(Ok(()))]);
    });
}

/// `set_backend` waits for a callback that another thread is running, and for no other.
#[test]
fn set_backend_waits_for_the_callback_of_its_file_alone() {
    on_each_engine(|engine| {
        let backend = Backend::new().expect("backend");
        let (busy, mut peer, _) = logged_pair(engine, Role::Server, &backend);
        let (other, _other_peer, _) = logged_pair(engine, Role::Server, &backend);
        let (sent, inside) = mpsc::channel();
        let (go, wait) = mpsc::channel::<()>();
        let ended = Arc::new(AtomicBool::new(false));
        let end = ended.clone();
        busy.set_read_callback(move |_, _| {
            sent.send(()).expect("send");
            let _ = wait.recv_timeout(crate::common::LONG / 2);
            end.store(true, Ordering::SeqCst);
        });
        let runner = backend.clone();
        let run = thread::spawn(move || runner.run());
        peer.write_all(b"x").expect("write");
        inside.recv().expect("inside");
        other.set_backend(None).expect("out");
        assert!(!ended.load(Ordering::SeqCst), "waited for another file's callback");
        let releaser = thread::spawn(move || {
            thread::sleep(Duration::from_millis(50));
            drop(go);
        });
        busy.set_backend(None).expect("out");
        assert!(ended.load(Ordering::SeqCst), "returned while the callback was running");
        releaser.join().expect("releaser");
        backend.stop();
        run.join().expect("thread").expect("run");
    });
}

#[test]
fn setters_and_queries_never_wait_for_a_running_callback() {
    on_each_engine(|engine| {
        let backend = Backend::new().expect("backend");
        let (file, mut peer, log) = logged_pair(engine, Role::Server, &backend);
        let (sent, inside) = mpsc::channel();
        let (go, wait) = mpsc::channel::<()>();
        file.set_read_callback(move |_, _| {
            sent.send(()).expect("send");
            let _ = wait.recv_timeout(crate::common::LONG / 2);
        });
        let runner = backend.clone();
        let run = thread::spawn(move || runner.run());
        peer.write_all(b"x").expect("write");
        inside.recv().expect("inside");
        let start = Instant::now();
        let _ = (file.state(), file.is_open(), file.pending(), file.unsent(), file.interest(), file.backend());
        assert_eq!((&file).write(b"y").expect("write"), 1);
        file.pause_reading(true);
        file.pause_reading(false);
        file.set_callbacks(log.callbacks());
        file.shutdown(Shutdown::Write).expect("shutdown");
        drop(file.clone());
        assert!(start.elapsed() < crate::common::LONG / 4);
        drop(go);
        end_well(peer);
        while log.closes().is_empty() {
            thread::sleep(Duration::from_millis(1));
        }
        backend.stop();
        run.join().expect("thread").expect("run");
    });
}

fn got_close_notify(mut peer: Peer) -> Vec<u8> {
    let mut got = Vec::new();
    peer.read_to_end(&mut got).expect("close_notify");
    got
}

#[test]
fn the_last_handle_dropped_says_close_notify_and_leaves_the_backend() {
    on_each_engine_and_role(|engine, role| {
        let backend = Backend::new().expect("backend");
        let (file, peer, log) = logged_pair(engine, role, &backend);
        let owned = Arc::new(());
        let inside = owned.clone();
        file.set_write_callback(move |_| drop(inside.clone()));
        settle(&backend);
        drop(file);
        assert!(backend.is_empty());
        assert_eq!(Arc::strong_count(&owned), 1, "the callbacks are still there");
        assert_eq!(got_close_notify(peer), b"");
        settle(&backend);
        assert!(log.is_empty(), "{log:?}");
    });
}

#[test]
fn a_dropped_file_with_unsent_data_is_finished_by_its_backend() {
    on_each_engine_and_role(|engine, role| {
        let backend = Backend::new().expect("backend");
        let (file, peer, log) = logged_pair(engine, role, &backend);
        let all = pattern(13, 8 << 20);
        file.send(&all).expect("send");
        assert!(file.unsent() > 0);
        drop(file);
        let reader = thread::spawn(move || got_close_notify(peer));
        turn_until(&backend, || reader.is_finished() && backend.is_empty());
        assert!(reader.join().expect("reader") == all);
        assert!(log.is_empty(), "called after the drop: {log:?}");
    });
}

#[test]
fn a_dropped_file_whose_peer_takes_nothing_is_gone_within_the_close_time_out() {
    on_each_engine_and_role(|engine, role| {
        let backend = Backend::new().expect("backend");
        let options = SslFile::options().nonblocking(true).close_timeout(Duration::from_millis(200));
        let (file, _peer) = pair_with(engine, role, options, &backend);
        file.send(&vec![0; 16 << 20]).expect("send");
        drop(file);
        assert_eq!(backend.len(), 1);
        let start = Instant::now();
        turn_until(&backend, || backend.is_empty());
        assert!(start.elapsed() < crate::common::LONG / 4);
    });
}

#[test]
fn a_kept_file_lives_until_its_end_has_been_told() {
    on_each_engine_and_role(|engine, role| {
        for (name, end) in [("close_notify", end_well as fn(Peer)), ("cut", cut)] {
            println!("{name}");
            let backend = Backend::new().expect("backend");
            let (file, mut peer, log) = logged_pair(engine, role, &backend);
            let owned = Arc::new(());
            let inside = owned.clone();
            file.set_accept_callback(move |_| drop(inside.clone()));
            file.keep();
            assert_eq!(backend.len(), 1);
            peer.write_all(b"hello").expect("write");
            turn_until(&backend, || log.data() == b"hello");
            end(peer);
            turn_until(&backend, || backend.is_empty());
            assert_eq!(log.closes().len(), 1);
            assert_eq!(Arc::strong_count(&owned), 1);
        }
    });
}

/// The peer has ended and we still have a lot to say: it is sent first.
#[test]
fn a_kept_file_is_not_gone_before_everything_accepted_is_sent() {
    on_each_engine_and_role(|engine, role| {
        let backend = Backend::new().expect("backend");
        let (file, mut peer, log) = logged_pair(engine, role, &backend);
        let all = pattern(14, 8 << 20);
        file.send(&all).expect("send");
        file.keep();
        peer.shutdown().expect("close_notify");
        turn_until(&backend, || log.closes() == [Ok(())]);
        settle(&backend);
        assert_eq!(backend.len(), 1, "gone with data unsent");
        let reader = thread::spawn(move || got_close_notify(peer));
        turn_until(&backend, || reader.is_finished() && backend.is_empty());
        assert!(reader.join().expect("reader") == all);
    });
}

/// Without callbacks, with reading shut down, closed by ourselves: whatever the way, a kept file goes.
#[test]
fn a_kept_file_goes_whatever_its_end() {
    type Way = (&'static str, fn(&SslFile));
    let ways: [Way; 5] = [
        ("no callbacks", |file| drop(file.take_callbacks())),
        ("no close callback", |file| file.clear_close_callback()),
        ("shutdown(Both)", |file| file.shutdown(Shutdown::Both).expect("shutdown")),
        ("shutdown(Read)", |file| file.shutdown(Shutdown::Read).expect("shutdown")),
        ("close", |file| file.close().expect("close")),
    ];
    for (name, way) in ways {
        for engine in crate::common::engines() {
            println!("{name}: {engine:?}");
            crate::common::within(crate::common::LONG, move || kept(engine, way));
        }
    }
}

fn kept(engine: Engine, way: fn(&SslFile)) {
    let backend = Backend::new().expect("backend");
    let (file, peer, _log) = logged_pair(engine, Role::Server, &backend);
    way(&file);
    file.keep();
    settle(&backend);
    end_well(peer);
    turn_until(&backend, || backend.is_empty());
}

#[test]
fn keep_without_a_backend_is_a_drop() {
    on_each_engine_and_role(|engine, role| {
        let backend = Backend::new().expect("backend");
        let (file, peer, _) = logged_pair(engine, role, &backend);
        file.set_backend(None).expect("out");
        file.keep();
        assert_eq!(got_close_notify(peer), b"");
    });
}

#[test]
fn a_kept_file_may_be_used_through_other_handles_and_outlive_the_keep() {
    on_each_engine_and_role(|engine, role| {
        let backend = Backend::new().expect("backend");
        let (file, mut peer, log) = logged_pair(engine, role, &backend);
        let mine = file.clone();
        file.keep();
        assert_eq!((&mine).write(b"x").expect("write"), 1);
        peer.read_exact(&mut [0; 1]).expect("read");
        end_well(peer);
        turn_until(&backend, || !log.closes().is_empty());
        settle(&backend);
        assert!(!mine.is_open());
        drop(mine);
        assert!(backend.is_empty());
    });
}

#[test]
fn a_kept_file_closed_inside_its_callback_is_gone_and_told() {
    on_each_engine_and_role(|engine, role| {
        let backend = Backend::new().expect("backend");
        let (file, mut peer, log) = logged_pair(engine, role, &backend);
        let told = log.clone();
        file.set_read_callback(move |file, data| {
            told.add(Told::Read(data.to_vec()));
            file.send(b"bye").expect("send");
            file.close().expect("close");
        });
        file.keep();
        peer.write_all(b"quit").expect("write");
        turn_until(&backend, || !log.data().is_empty());
        let reader = thread::spawn(move || got_close_notify(peer));
        turn_until(&backend, || backend.is_empty() && reader.is_finished());
        assert_eq!(reader.join().expect("reader"), b"bye");
        assert_eq!(log.closes(), [Ok(())]);
    });
}

/// No registration is left behind: the descriptor's number is used again at once by another file of the same backend.
#[test]
fn descriptors_used_again_at_once_are_watched_for_their_new_file() {
    on_each_engine(|engine| {
        let backend = Backend::new().expect("backend");
        for _ in 0..30 {
            let (file, mut peer, log) = logged_pair(engine, Role::Server, &backend);
            peer.write_all(b"x").expect("write");
            turn_until(&backend, || log.data() == b"x");
            drop(file);
            drop(peer);
        }
        assert!(backend.is_empty());
        settle(&backend);
    });
}

#[test]
fn callbacks_that_own_other_files_are_dropped_without_a_lock() {
    on_each_engine(|engine| {
        let backend = Backend::new().expect("backend");
        let (file, _peer) = pair(engine, Role::Server, &backend);
        let (other, other_peer) = pair(engine, Role::Server, &backend);
        // The callback owns a handle on another file, and one on its own file.
        let own = file.clone();
        let owned = Mutex::new(Some((other, own)));
        file.set_read_callback(move |_, _| drop(owned.lock().expect("owned").take()));
        settle(&backend);
        file.clear_read_callback();
        assert_eq!(got_close_notify(other_peer), b"");
        drop(file);
        turn_all_until(&[&backend], || backend.is_empty());
    });
}

#[test]
fn a_file_that_failed_is_told_the_same_in_its_next_backend() {
    on_each_engine(|engine| {
        let (one, two) = (Backend::new().expect("backend"), Backend::new().expect("backend"));
        let (file, peer) = pair(engine, Role::Server, &one);
        cut(peer);
        settle(&one);
        file.set_backend(Some(&two)).expect("move");
        let log = Log::new();
        file.set_callbacks(log.callbacks());
        turn_until(&two, || !log.closes().is_empty());
        assert_eq!(log.closes(), [Err(ErrorKind::BrokenPipe)]);
    });
}

/// Whoever takes a callback away does not take with it what that was about to be told.
#[test]
fn nothing_is_lost_while_another_thread_takes_the_read_callback_away_and_puts_it_back() {
    on_each_engine(|engine| {
        let backend = Backend::new().expect("backend");
        let (file, mut peer, log) = logged_pair(engine, Role::Server, &backend);
        let all = pattern(11, 400_000);
        let done = AtomicBool::new(false);
        thread::scope(|t| {
            t.spawn(|| {
                for piece in all.chunks(40) {
                    peer.write_all(piece).expect("write");
                }
            });
            for _ in 0..3 {
                t.spawn(|| {
                    while !done.load(Ordering::Acquire) {
                        file.clear_read_callback();
                        let log = log.clone();
                        file.set_read_callback(move |_, data| log.add(Told::Read(data.to_vec())));
                    }
                });
            }
            turn_until(&backend, || log.data().len() >= all.len());
            done.store(true, Ordering::Release);
        });
        assert!(log.data() == all, "lost or disordered");
    });
}

#[test]
fn a_kept_file_that_is_put_into_no_backend_ends_with_its_last_handle() {
    on_each_engine_and_role(|engine, role| {
        for inside in [false, true] {
            let backend = Backend::new().expect("backend");
            let (file, mut peer, _log) = logged_pair(engine, role, &backend);
            file.clone().keep();
            match inside {
                false => file.set_backend(None).expect("none"),
                true => {
                    file.set_read_callback(|file, _| file.set_backend(None).expect("none"));
                    peer.write_all(b"x").expect("write");
                    turn_until(&backend, || file.backend().is_none());
                }
            }
            assert!(backend.is_empty());
            { &file }.write_all(b"still here").expect("write");
            drop(file);
            assert_eq!(got_close_notify(peer), b"still here");
        }
    });
}
