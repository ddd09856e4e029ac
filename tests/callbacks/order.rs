//! Accept, read, write: order and number.

use std::io::{Read, Write};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;

use sslfile::{Backend, Callbacks, SslFile};

use crate::common::{pattern, tcp_pair};
use crate::rig::{
    end_well, logged_pair, on_each_engine_and_role, open, pair, settle, shaking_peer, turn_until, wake_ups, Log, Told,
};

#[test]
fn accept_comes_first_and_once_then_write() {
    on_each_engine_and_role(|engine, role| {
        let backend = Backend::new().expect("backend");
        let (ours, theirs) = tcp_pair();
        let peer = shaking_peer(role, theirs);
        let file = open(engine, role, SslFile::options().nonblocking(true).backend(&backend), ours);
        let log = Log::new();
        file.set_callbacks(log.callbacks());
        turn_until(&backend, || log.writes() > 0 && peer.is_finished());
        let mut peer = peer.join().expect("peer");
        settle(&backend);
        assert_eq!(log.all(), [Told::Accept, Told::Write]);

        peer.write_all(b"hello").expect("write");
        turn_until(&backend, || log.data() == b"hello");
        settle(&backend);
        assert_eq!(log.all()[2..], [Told::Read(b"hello".to_vec())], "a read is no reason to call write");
    });
}

/// All that the peer said during its handshake is told in order: its first data and its end came in one piece.
#[test]
fn accept_read_write_close_in_one_turn() {
    on_each_engine_and_role(|engine, role| {
        let backend = Backend::new().expect("backend");
        let (file, mut peer) = pair(engine, role, &backend);
        settle(&backend);
        peer.write_all(b"hello").expect("write");
        end_well(peer);
        // Read ahead, with nobody to tell.
        settle(&backend);
        let log = Log::new();
        file.set_callbacks(log.callbacks());
        settle(&backend);
        let all = [Told::Accept, Told::Read(b"hello".to_vec()), Told::Write, Told::Close(Ok(()))];
        assert_eq!(log.all(), all);
    });
}

#[test]
fn accept_installed_later_is_told_at_the_next_turn_and_never_again() {
    on_each_engine_and_role(|engine, role| {
        let backend = Backend::new().expect("backend");
        let (file, _peer) = pair(engine, role, &backend);
        settle(&backend);
        let log = Log::new();
        for _ in 0..3 {
            let log = log.clone();
            file.set_accept_callback(move |_| log.add(Told::Accept));
            settle(&backend);
        }
        assert_eq!(log.all(), [Told::Accept]);
    });
}

#[test]
fn an_accept_callback_that_does_nothing_delays_no_other() {
    on_each_engine_and_role(|engine, role| {
        let backend = Backend::new().expect("backend");
        let (ours, theirs) = tcp_pair();
        let peer = shaking_peer(role, theirs);
        let file = open(engine, role, SslFile::options().nonblocking(true).backend(&backend), ours);
        let sent = Arc::new(AtomicUsize::new(0));
        let count = sent.clone();
        file.set_callbacks(Callbacks::new().on_accept(|_| ()).on_write(move |mut file: &SslFile| {
            if count.fetch_add(1, Ordering::SeqCst) == 0 {
                assert_eq!(file.write(b"from the write callback").expect("write"), 23);
            }
        }));
        turn_until(&backend, || peer.is_finished() && sent.load(Ordering::SeqCst) == 2);
        let mut got = [0; 23];
        peer.join().expect("peer").read_exact(&mut got).expect("read");
        assert_eq!(&got, b"from the write callback");
        settle(&backend);
        assert_eq!(sent.load(Ordering::SeqCst), 2, "once when it could, once after it had");
    });
}

#[test]
fn a_first_small_write_in_the_accept_callback_succeeds() {
    on_each_engine_and_role(|engine, role| {
        let backend = Backend::new().expect("backend");
        let (ours, theirs) = tcp_pair();
        let peer = shaking_peer(role, theirs);
        let file = open(engine, role, SslFile::options().nonblocking(true).backend(&backend), ours);
        let log = Log::new();
        let told = log.clone();
        file.set_accept_callback(move |mut file| {
            assert_eq!(file.write(b"first").expect("write"), 5);
            told.add(Told::Accept);
        });
        turn_until(&backend, || peer.is_finished() && !log.is_empty());
        let mut got = [0; 5];
        peer.join().expect("peer").read_exact(&mut got).expect("read");
        assert_eq!(&got, b"first");
    });
}

#[test]
fn write_is_called_again_only_after_a_write_or_when_installed_anew() {
    on_each_engine_and_role(|engine, role| {
        let backend = Backend::new().expect("backend");
        let (file, mut peer, log) = logged_pair(engine, role, &backend);
        for _ in 0..3 {
            peer.write_all(b"x").expect("write");
            settle(&backend);
        }
        assert_eq!(log.writes(), 0, "reads call no write callback");

        assert_eq!((&file).write(b"y").expect("write"), 1);
        settle(&backend);
        assert_eq!(log.writes(), 1, "after a write");

        file.send(b"z").expect("send");
        settle(&backend);
        assert_eq!(log.writes(), 2, "after a send");

        let again = log.clone();
        file.set_write_callback(move |_| again.add(Told::Write));
        settle(&backend);
        assert_eq!(log.writes(), 3, "installed anew");
        assert!(wake_ups(&backend) <= 2, "at rest");
    });
}

/// A megabyte leaves in many pieces; the callback comes when the last one has left.
#[test]
fn write_waits_until_nothing_is_unsent() {
    on_each_engine_and_role(|engine, role| {
        let backend = Backend::new().expect("backend");
        let (file, mut peer) = pair(engine, role, &backend);
        let unsent = Log::new();
        let told = unsent.clone();
        let all = pattern(1, 8 << 20);
        file.send(&all).expect("send");
        assert!(file.unsent() > 0, "the system took 8 MiB at once");
        file.set_write_callback(move |file| {
            assert_eq!(file.unsent(), 0);
            told.add(Told::Write);
        });
        settle(&backend);
        assert_eq!(unsent.writes(), 0, "called with {} bytes unsent", file.unsent());
        let reader = std::thread::spawn(move || {
            let mut got = vec![0; 8 << 20];
            peer.read_exact(&mut got).expect("read");
            got
        });
        turn_until(&backend, || unsent.writes() > 0);
        assert!(reader.join().expect("reader") == all);
        settle(&backend);
        assert_eq!(unsent.writes(), 1);
    });
}

#[test]
fn what_is_sent_before_the_handshake_goes_when_it_is_done() {
    on_each_engine_and_role(|engine, role| {
        let backend = Backend::new().expect("backend");
        let (ours, theirs) = tcp_pair();
        let file = open(engine, role, SslFile::options().nonblocking(true).backend(&backend), ours);
        let log = Log::new();
        file.set_callbacks(log.callbacks());
        file.send(b"early").expect("send");
        assert_eq!(file.unsent(), 5);
        let peer = shaking_peer(role, theirs);
        turn_until(&backend, || peer.is_finished() && log.writes() > 0);
        let mut got = [0; 5];
        let mut peer = peer.join().expect("peer");
        peer.read_exact(&mut got).expect("read");
        assert_eq!(&got, b"early");
        settle(&backend);
        assert_eq!(log.all(), [Told::Accept, Told::Write]);
    });
}

#[test]
fn a_megabyte_is_read_in_order_and_without_loss_then_the_end() {
    on_each_engine_and_role(|engine, role| {
        let backend = Backend::new().expect("backend");
        let (_file, mut peer, log) = logged_pair(engine, role, &backend);
        let all = pattern(2, 1 << 20);
        let data = all.clone();
        let writer = std::thread::spawn(move || {
            peer.write_all(&data).expect("write");
            end_well(peer);
        });
        turn_until(&backend, || !log.closes().is_empty());
        writer.join().expect("writer");
        settle(&backend);
        assert!(log.data() == all);
        assert_eq!(log.all().last(), Some(&Told::Close(Ok(()))));
        assert_eq!(log.closes().len(), 1);
    });
}

#[test]
fn callbacks_set_in_mid_handshake_are_called_and_the_last_setter_wins() {
    on_each_engine_and_role(|engine, role| {
        let backend = Backend::new().expect("backend");
        let (ours, theirs) = tcp_pair();
        let file = open(engine, role, SslFile::options().nonblocking(true).backend(&backend), ours);
        let (first, last) = (Log::new(), Log::new());
        // The handshake begins, and can't end.
        settle(&backend);
        file.set_callbacks(first.callbacks());
        settle(&backend);
        assert!(first.is_empty(), "{first:?}");
        file.clear_write_callback();
        let told = last.clone();
        file.set_read_callback(move |_, data| told.add(Told::Read(data.to_vec())));
        let peer = shaking_peer(role, theirs);
        turn_until(&backend, || peer.is_finished() && file.is_handshake_done());
        let mut peer = peer.join().expect("peer");
        peer.write_all(b"hello").expect("write");
        turn_until(&backend, || last.data() == b"hello");
        settle(&backend);
        assert_eq!(first.all(), [Told::Accept], "a removed or replaced callback came back");
    });
}

#[test]
fn cleared_callbacks_are_not_called() {
    on_each_engine_and_role(|engine, role| {
        let backend = Backend::new().expect("backend");
        let (file, mut peer, log) = logged_pair(engine, role, &backend);
        file.clear_read_callback();
        file.clear_write_callback();
        file.clear_close_callback();
        file.clear_accept_callback();
        peer.write_all(b"hello").expect("write");
        assert_eq!((&file).write(b"x").expect("write"), 1);
        end_well(peer);
        settle(&backend);
        assert!(log.is_empty(), "{log:?}");
        let mut got = Vec::new();
        (&file).read_to_end(&mut got).expect("read");
        assert_eq!(got, b"hello");
    });
}

#[test]
fn taken_callbacks_can_be_put_back() {
    on_each_engine_and_role(|engine, role| {
        let backend = Backend::new().expect("backend");
        let (file, mut peer, log) = logged_pair(engine, role, &backend);
        let taken = file.take_callbacks();
        assert!(!taken.is_empty());
        assert!(file.take_callbacks().is_empty());
        peer.write_all(b"hello").expect("write");
        settle(&backend);
        assert!(log.is_empty(), "{log:?}");
        file.set_callbacks(taken);
        settle(&backend);
        assert_eq!(log.data(), b"hello", "what waited is delivered");
    });
}
