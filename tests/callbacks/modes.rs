//! Blocking mode, idle time-outs, pause, and rest.

use std::io::{ErrorKind, Read, Write};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use sslfile::{Backend, SslFile};

use crate::common::{pattern, tcp_pair};
use crate::rig::{
    end_well, in_each_mode, logged_pair, on_each_engine_and_role, open, pair_with, settle, shaking_peer, turn_until,
    wake_ups, Log, Told,
};

const IDLE: Duration = Duration::from_millis(300);

#[test]
fn callbacks_are_called_in_blocking_mode_too() {
    in_each_mode(|engine, role, nonblocking| {
        let backend = Backend::new().expect("backend");
        let (ours, theirs) = tcp_pair();
        let peer = shaking_peer(role, theirs);
        let options = SslFile::options().nonblocking(nonblocking).backend(&backend);
        let file = open(engine, role, options, ours);
        assert_eq!(file.is_nonblocking(), nonblocking);
        let log = Log::new();
        file.set_callbacks(log.callbacks());
        turn_until(&backend, || peer.is_finished() && log.writes() == 1);
        let mut peer = peer.join().expect("peer");
        peer.write_all(b"hello").expect("write");
        turn_until(&backend, || log.data() == b"hello");
        file.send(b"back").expect("send");
        turn_until(&backend, || log.writes() == 2);
        let mut got = [0; 4];
        peer.read_exact(&mut got).expect("read");
        assert_eq!(&got, b"back");
        end_well(peer);
        turn_until(&backend, || !log.closes().is_empty());
        settle(&backend);
        let hello = Told::Read(b"hello".to_vec());
        assert_eq!(log.all(), [Told::Accept, Told::Write, hello, Told::Write, Told::Close(Ok(()))]);
    });
}

/// Direct calls of other threads take part: each byte goes to one of the two, in order of each.
#[test]
fn blocking_calls_and_callbacks_share_what_comes() {
    on_each_engine_and_role(|engine, role| {
        let backend = Backend::new().expect("backend");
        let (file, mut peer, log) = logged_pair(engine, role, &backend);
        file.set_nonblocking(false).expect("blocking");
        let total = 200_000;
        let reader = {
            let file = file.clone();
            thread::spawn(move || {
                let (mut all, mut buf) = (Vec::new(), [0; 1000]);
                loop {
                    match (&file).read(&mut buf).expect("read") {
                        0 => return all,
                        n => all.extend_from_slice(&buf[..n]),
                    }
                }
            })
        };
        let writer = thread::spawn(move || {
            for chunk in pattern(7, total).chunks(777) {
                peer.write_all(chunk).expect("write");
            }
            end_well(peer);
        });
        turn_until(&backend, || reader.is_finished() && !log.closes().is_empty());
        writer.join().expect("writer");
        let direct = reader.join().expect("reader");
        let (called, all) = (log.data(), pattern(7, total));
        assert_eq!(direct.len() + called.len(), total);
        let histogram = |data: &[u8]| {
            let mut counts = [0_usize; 256];
            data.iter().for_each(|byte| counts[usize::from(*byte)] += 1);
            counts
        };
        assert!(histogram(&[direct, called].concat()) == histogram(&all));
        assert_eq!(log.closes(), [Ok(())]);
    });
}

#[test]
fn a_blocking_write_beside_a_running_backend_loses_nothing() {
    on_each_engine_and_role(|engine, role| {
        let backend = Backend::new().expect("backend");
        let (file, mut peer, log) = logged_pair(engine, role, &backend);
        file.set_nonblocking(false).expect("blocking");
        let ours = file.clone();
        let writer = thread::spawn(move || {
            (&ours).write_all(&pattern(8, 4 << 20)).expect("write");
            ours.close().expect("close");
        });
        let reader = thread::spawn(move || {
            let mut got = Vec::new();
            peer.read_to_end(&mut got).expect("read");
            end_well(peer);
            got
        });
        turn_until(&backend, || writer.is_finished() && reader.is_finished() && !log.closes().is_empty());
        writer.join().expect("writer");
        assert!(reader.join().expect("reader") == pattern(8, 4 << 20));
        settle(&backend);
        assert_eq!(log.closes(), [Ok(())]);
    });
}

/// To blocking and back: callbacks stay, and what blocking calls left over is delivered.
#[test]
fn callbacks_survive_a_change_of_mode() {
    on_each_engine_and_role(|engine, role| {
        let backend = Backend::new().expect("backend");
        let (file, mut peer, log) = logged_pair(engine, role, &backend);
        file.set_nonblocking(false).expect("blocking");
        peer.write_all(b"for the call, for the callback").expect("write");
        let mut got = [0; 13];
        (&file).read_exact(&mut got).expect("read");
        assert_eq!(&got, b"for the call,");
        file.set_nonblocking(true).expect("non-blocking");
        turn_until(&backend, || log.data() == b" for the callback");
    });
}

/// Begun without blocking, ended by a blocking call: the accept callback is told by the backend.
#[test]
fn a_switch_to_blocking_in_mid_handshake_keeps_the_accept_callback() {
    on_each_engine_and_role(|engine, role| {
        let backend = Backend::new().expect("backend");
        let (ours, theirs) = tcp_pair();
        let file = open(engine, role, SslFile::options().nonblocking(true).backend(&backend), ours);
        let log = Log::new();
        file.set_callbacks(log.callbacks());
        settle(&backend);
        file.set_nonblocking(false).expect("blocking");
        let peer = shaking_peer(role, theirs);
        file.handshake().expect("handshake");
        assert!(log.is_empty(), "called outside a turn");
        turn_until(&backend, || peer.is_finished() && log.writes() > 0);
        let _peer = peer.join().expect("peer");
        settle(&backend);
        assert_eq!(log.all(), [Told::Accept, Told::Write]);
    });
}

#[test]
fn nothing_read_for_the_read_time_out_ends_the_connection() {
    in_each_mode(|engine, role, nonblocking| {
        let backend = Backend::new().expect("backend");
        let (file, mut peer, log) = logged_pair(engine, role, &backend);
        file.set_nonblocking(nonblocking).expect("mode");
        file.set_read_timeout(Some(IDLE)).expect("time-out");
        // What is read starts the time anew.
        let start = Instant::now();
        let mut last = start;
        for _ in 0..4 {
            last = Instant::now();
            peer.write_all(b"x").expect("write");
            let half = Instant::now();
            while half.elapsed() < IDLE / 3 {
                backend.turn(Some(Duration::from_millis(5))).expect("turn");
            }
        }
        if start.elapsed() < IDLE * 2 {
            assert_eq!(log.closes(), []);
        }
        turn_until(&backend, || !log.closes().is_empty());
        assert!(last.elapsed() >= IDLE, "early: {:?}", last.elapsed());
        settle(&backend);
        assert_eq!(log.closes(), [Err(ErrorKind::TimedOut)]);
        assert_eq!(log.data(), b"xxxx");
        assert!(!file.is_open());
        assert_eq!((&file).read(&mut [0; 1]).expect_err("read").kind(), ErrorKind::TimedOut);
    });
}

#[test]
fn nothing_sent_for_the_write_time_out_ends_the_connection() {
    in_each_mode(|engine, role, nonblocking| {
        let backend = Backend::new().expect("backend");
        let (file, _peer, log) = logged_pair(engine, role, &backend);
        file.set_nonblocking(nonblocking).expect("mode");
        file.set_write_timeout(Some(IDLE)).expect("time-out");
        // With nothing to send there is nothing to wait for.
        let start = Instant::now();
        while start.elapsed() < IDLE * 2 {
            backend.turn(Some(Duration::from_millis(50))).expect("turn");
        }
        assert_eq!(log.closes(), []);
        let start = Instant::now();
        file.send(&vec![0; 16 << 20]).expect("send");
        turn_until(&backend, || !log.closes().is_empty());
        assert!(start.elapsed() >= IDLE);
        let turns = wake_ups(&backend);
        assert!(turns <= 3, "{turns} turns in half a second after the end, {} bytes unsent", file.unsent());
        settle(&backend);
        assert_eq!(log.all(), [Told::Write, Told::Close(Err(ErrorKind::TimedOut))]);
    });
}

#[test]
fn a_paused_file_is_not_timed_out_for_reading() {
    on_each_engine_and_role(|engine, role| {
        let backend = Backend::new().expect("backend");
        let (file, mut peer, log) = logged_pair(engine, role, &backend);
        file.set_read_timeout(Some(IDLE)).expect("time-out");
        file.pause_reading(true);
        let start = Instant::now();
        while start.elapsed() < IDLE * 2 {
            backend.turn(Some(Duration::from_millis(50))).expect("turn");
        }
        assert!(log.is_empty(), "{log:?}");
        file.pause_reading(false);
        peer.write_all(b"x").expect("write");
        turn_until(&backend, || log.data() == b"x");
        turn_until(&backend, || !log.closes().is_empty());
        assert_eq!(log.closes(), [Err(ErrorKind::TimedOut)]);
    });
}

#[test]
fn pause_stops_the_read_callback_and_no_direct_read() {
    on_each_engine_and_role(|engine, role| {
        let backend = Backend::new().expect("backend");
        let (file, mut peer, log) = logged_pair(engine, role, &backend);
        file.pause_reading(true);
        peer.write_all(b"direct").expect("write");
        settle(&backend);
        assert!(log.is_empty(), "{log:?}");
        assert!(wake_ups(&backend) <= 2, "spinning while paused");
        let mut got = [0; 6];
        crate::common::until_ready(&file, || (&file).read_exact(&mut got)).expect("read");
        assert_eq!(&got, b"direct");
        peer.write_all(b"called").expect("write");
        settle(&backend);
        file.pause_reading(false);
        turn_until(&backend, || log.data() == b"called");
        assert_eq!(log.all(), [Told::Read(b"called".to_vec())]);
    });
}

#[test]
fn writing_goes_on_while_reading_is_paused() {
    on_each_engine_and_role(|engine, role| {
        let backend = Backend::new().expect("backend");
        let (file, mut peer, log) = logged_pair(engine, role, &backend);
        file.pause_reading(true);
        file.send(&pattern(9, 2 << 20)).expect("send");
        let reader = thread::spawn(move || {
            let mut got = vec![0; 2 << 20];
            peer.read_exact(&mut got).expect("read");
            (got, peer)
        });
        turn_until(&backend, || log.writes() == 1);
        assert!(reader.join().expect("reader").0 == pattern(9, 2 << 20));
    });
}

#[test]
fn nobody_spins_in_any_state() {
    on_each_engine_and_role(|engine, role| {
        let backend = Backend::new().expect("backend");
        // A handshake nobody answers.
        let (ours, _silent) = tcp_pair();
        let shaking = open(engine, role, SslFile::options().nonblocking(true).backend(&backend), ours);
        shaking.set_callbacks(Log::new().callbacks());
        // Open and idle.
        let (_idle, _peer, _log) = logged_pair(engine, role, &backend);
        // Output that the peer does not take.
        let (full, _deaf, _) = logged_pair(engine, role, &backend);
        full.send(&vec![0; 16 << 20]).expect("send");
        // Input that nobody reads.
        let (unread, mut talker, _) = logged_pair(engine, role, &backend);
        unread.clear_read_callback();
        let talking = thread::spawn(move || {
            let _ = talker.write_all(&vec![0; 1 << 20]);
            talker
        });
        // Ended with nobody told.
        let (ended, gone, _) = logged_pair(engine, role, &backend);
        drop(ended.take_callbacks());
        end_well(gone);
        // Reset while paused.
        let (paused, reset, _) = logged_pair(engine, role, &backend);
        paused.pause_reading(true);
        crate::rig::reset(reset);
        settle(&backend);
        let turns = wake_ups(&backend);
        assert!(turns <= 2, "{turns} turns in half a second");
        drop(unread);
        talking.join().expect("talker");
    });
}

/// Many blocking readers on files with callbacks: the backend is not woken by what they read.
#[test]
fn a_blocked_reader_makes_no_backend_spin() {
    on_each_engine_and_role(|engine, role| {
        let backend = Backend::new().expect("backend");
        let (file, mut peer, log) = logged_pair(engine, role, &backend);
        file.clear_read_callback();
        file.set_nonblocking(false).expect("blocking");
        let read = Arc::new(AtomicUsize::new(0));
        let (handle, count) = (file.clone(), read.clone());
        let reader = thread::spawn(move || {
            let mut byte = [0];
            while (&handle).read(&mut byte).expect("read") == 1 {
                count.fetch_add(1, Ordering::SeqCst);
            }
        });
        crate::common::until_busy(&file);
        settle(&backend);
        assert!(wake_ups(&backend) <= 2, "spinning");
        peer.write_all(&[1; 100]).expect("write");
        turn_until(&backend, || read.load(Ordering::SeqCst) == 100);
        end_well(peer);
        turn_until(&backend, || reader.is_finished() && !log.closes().is_empty());
        assert_eq!(log.closes(), [Ok(())]);
    });
}

#[test]
fn time_outs_of_a_file_whose_backend_waits_are_on_time_after_data() {
    on_each_engine_and_role(|engine, role| {
        let backend = Backend::new().expect("backend");
        let options = SslFile::options().nonblocking(true).handshake_timeout(None);
        let (file, _peer) = pair_with(engine, role, options, &backend);
        file.set_read_timeout(Some(IDLE)).expect("time-out");
        let log = Log::new();
        file.set_callbacks(log.callbacks());
        // One wait without a limit: the alarm alone ends it.
        while log.closes().is_empty() {
            backend.turn(None).expect("turn");
        }
        assert_eq!(log.closes(), [Err(ErrorKind::TimedOut)]);
    });
}
