//! The end: told exactly once, after all data, to whichever callback or call comes.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};

use sslfile::{Backend, Engine, Role, SslFile, State};

use crate::common::bare::is_bad_record_mac;
use crate::common::{kind_of, pattern, tcp_pair, LONG};
use crate::rig::{
    bare_client, cut, end_well, logged_pair, logged_pair_with, on_each_engine, on_each_engine_and_role, open, pair,
    reset, settle, turn_until, wake_ups, Log, Peer, Told,
};

type End = (&'static str, fn(Peer), Result<(), ErrorKind>);

const ENDS: [End; 3] = [
    ("close_notify", end_well, Ok(())),
    ("cut", cut, Err(ErrorKind::BrokenPipe)),
    ("reset", reset, Err(ErrorKind::ConnectionReset)),
];

#[test]
fn each_end_is_told_once_and_sticky_to_calls() {
    on_each_engine_and_role(|engine, role| {
        for (name, end, result) in ENDS {
            println!("{name}");
            let backend = Backend::new().expect("backend");
            let (file, peer, log) = logged_pair(engine, role, &backend);
            end(peer);
            turn_until(&backend, || !log.closes().is_empty());
            settle(&backend);
            assert_eq!(log.all(), [Told::Close(result)]);
            assert!(!file.is_open());
            for _ in 0..2 {
                let read = (&file).read(&mut [0; 10]);
                assert_eq!(read.map_err(|e| e.kind()), result.map(|()| 0));
            }
            let again = log.clone();
            file.set_close_callback(move |_, _| again.add(Told::Close(Ok(()))));
            settle(&backend);
            assert_eq!(log.closes(), [result], "installed anew, told again");
            assert!(wake_ups(&backend) <= 2, "spinning after the end");
        }
    });
}

#[test]
fn data_comes_before_each_end() {
    on_each_engine_and_role(|engine, role| {
        for (name, end, result) in ENDS.into_iter().take(2) {
            println!("{name}");
            let backend = Backend::new().expect("backend");
            let (_file, mut peer, log) = logged_pair(engine, role, &backend);
            let all = pattern(3, 100_000);
            peer.write_all(&all).expect("write");
            end(peer);
            turn_until(&backend, || !log.closes().is_empty());
            settle(&backend);
            assert_eq!(log.all(), [Told::Read(all), Told::Close(result)]);
        }
    });
}

#[test]
fn an_end_without_close_callback_is_told_when_one_is_installed() {
    on_each_engine_and_role(|engine, role| {
        for (name, end, result) in ENDS {
            println!("{name}");
            let backend = Backend::new().expect("backend");
            let (file, mut peer) = pair(engine, role, &backend);
            let log = Log::new();
            let told = log.clone();
            file.set_read_callback(move |_, data| told.add(Told::Read(data.to_vec())));
            peer.write_all(b"last words").expect("write");
            turn_until(&backend, || log.data() == b"last words");
            end(peer);
            settle(&backend);
            assert!(wake_ups(&backend) <= 2, "spinning at an end that nobody was told");
            let told = log.clone();
            file.set_close_callback(move |_, end| told.add(Told::Close(end.map_err(|e| e.kind()))));
            settle(&backend);
            assert_eq!(log.closes(), [result]);
            assert_eq!((&file).read(&mut [0; 9]).map_err(|e| e.kind()), result.map(|()| 0));
        }
    });
}

#[test]
fn the_end_waits_for_data_that_nobody_has_read_and_comes_when_a_call_has() {
    on_each_engine_and_role(|engine, role| {
        for (name, end, result) in ENDS.into_iter().take(2) {
            println!("{name}");
            let backend = Backend::new().expect("backend");
            let (file, mut peer, log) = logged_pair(engine, role, &backend);
            file.clear_read_callback();
            peer.write_all(b"unread").expect("write");
            end(peer);
            settle(&backend);
            assert_eq!(log.closes(), []);
            let mut got = [0; 6];
            (&file).read_exact(&mut got).expect("read");
            settle(&backend);
            assert_eq!(log.all(), [Told::Close(result)]);
        }
    });
}

#[test]
fn a_cut_inside_a_record_is_a_cut() {
    on_each_engine_and_role(|engine, role| {
        let backend = Backend::new().expect("backend");
        let (_file, peer, log) = logged_pair(engine, role, &backend);
        { peer.get_ref() }.write_all(&[23, 3, 3, 0, 100, 1, 2, 3]).expect("half a record");
        cut(peer);
        turn_until(&backend, || !log.closes().is_empty());
        assert_eq!(log.all(), [Told::Close(Err(ErrorKind::BrokenPipe))]);
    });
}

#[test]
fn a_bad_record_is_told_once_and_its_alert_is_sent() {
    on_each_engine_and_role(|engine, role| {
        let backend = Backend::new().expect("backend");
        let (file, mut peer, log) = logged_pair(engine, role, &backend);
        let mut record = vec![23, 3, 3, 0, 100];
        record.extend([7; 100]);
        { peer.get_ref() }.write_all(&record).expect("bad record");
        turn_until(&backend, || !log.closes().is_empty());
        settle(&backend);
        assert_eq!(log.all(), [Told::Close(Err(ErrorKind::InvalidData))]);
        assert!(!file.is_open());
        assert_eq!(file.state(), State::Failed);
        assert_eq!((&file).write(b"x").expect_err("written").kind(), ErrorKind::InvalidData);
        let error = peer.read(&mut [0; 10]).expect_err("no alert");
        assert!(is_bad_record_mac(&error), "{error}");
    });
}

/// Every kind of failed handshake is told to the close callback, once, whenever that is set.
#[test]
fn a_failed_handshake_is_told_to_the_close_callback_alone() {
    type Fault = (&'static str, fn(TcpStream), ErrorKind);
    let faults: [Fault; 4] = [
        (
            "no TLS",
            |mut tcp| tcp.write_all(b"HTTP/1.0 400 Bad Request\r\n\r\n").expect("write"),
            ErrorKind::InvalidData,
        ),
        ("alert", |mut tcp| tcp.write_all(&[21, 3, 3, 0, 2, 2, 40]).expect("write"), ErrorKind::InvalidData),
        (
            "cut",
            |mut tcp| {
                tcp.write_all(&[22, 3, 3]).expect("write");
                tcp.shutdown(Shutdown::Write).expect("shutdown");
            },
            ErrorKind::BrokenPipe,
        ),
        (
            "reset",
            |tcp| {
                { &tcp }.write_all(&[22, 3, 3]).expect("write");
                socket2::SockRef::from(&tcp).set_linger(Some(std::time::Duration::ZERO)).expect("linger");
            },
            ErrorKind::ConnectionReset,
        ),
    ];
    for (name, fault, kind) in faults {
        for engine in crate::common::engines() {
            for role in [Role::Client, Role::Server] {
                for early in [true, false] {
                    println!("{name}: {engine:?} as {role:?}, callbacks before: {early}");
                    crate::common::within(crate::common::LONG, move || {
                        failed_handshake(engine, role, early, fault, kind);
                    });
                }
            }
        }
    }
}

fn failed_handshake(engine: Engine, role: Role, early: bool, fault: fn(TcpStream), kind: ErrorKind) {
    let backend = Backend::new().expect("backend");
    let (ours, theirs) = tcp_pair();
    let file = open(engine, role, SslFile::options().nonblocking(true).backend(&backend), ours);
    let log = Log::new();
    if early {
        file.set_callbacks(log.callbacks());
    }
    settle(&backend);
    let alive = theirs.try_clone().expect("clone");
    // What resets needs both handles gone.
    let alive = Some(alive).filter(|_| kind != ErrorKind::ConnectionReset);
    fault(theirs);
    settle(&backend);
    file.set_callbacks(log.callbacks());
    turn_until(&backend, || !log.closes().is_empty());
    settle(&backend);
    assert_eq!(log.all(), [Told::Close(Err(kind))]);
    assert!(!file.is_open());
    assert_eq!(file.handshake().expect_err("handshake").kind(), kind);
    assert_eq!((&file).read(&mut [0; 1]).expect_err("read").kind(), kind);
    assert!(wake_ups(&backend) <= 2, "spinning after a failure");
    drop(alive);
}

#[test]
fn a_peer_that_ends_before_its_first_byte_is_a_clean_end_to_a_server_and_a_cut_to_a_client() {
    on_each_engine_and_role(|engine, role| {
        let backend = Backend::new().expect("backend");
        let (ours, theirs) = tcp_pair();
        let file = open(engine, role, SslFile::options().nonblocking(true).backend(&backend), ours);
        let log = Log::new();
        file.set_callbacks(log.callbacks());
        theirs.shutdown(Shutdown::Write).expect("shutdown");
        turn_until(&backend, || !log.closes().is_empty());
        settle(&backend);
        let end = if role == Role::Server { Ok(()) } else { Err(ErrorKind::BrokenPipe) };
        assert_eq!(log.all(), [Told::Close(end)]);
    });
}

#[test]
fn our_own_close_is_told_when_it_is_finished() {
    on_each_engine_and_role(|engine, role| {
        let backend = Backend::new().expect("backend");
        // A busy machine may not come to it for a second.
        let options = SslFile::options().close_timeout(LONG);
        let (file, mut peer, log) = logged_pair_with(engine, role, options, &backend);
        let all = pattern(4, 8 << 20);
        file.send(&all).expect("send");
        file.close().expect("at once");
        assert_eq!(file.state(), State::Closing);
        backend.turn(Some(std::time::Duration::ZERO)).expect("turn");
        assert_eq!(log.closes(), [], "told before all was sent");
        let reader = std::thread::spawn(move || {
            let mut got = Vec::new();
            peer.read_to_end(&mut got).expect("read");
            end_well(peer);
            got
        });
        turn_until(&backend, || !log.closes().is_empty());
        assert!(reader.join().expect("reader") == all, "accepted data was lost");
        settle(&backend);
        assert_eq!(log.closes(), [Ok(())]);
        assert_eq!(file.state(), State::Closed);
        assert_eq!((&file).read(&mut [0; 1]).expect_err("read").kind(), ErrorKind::NotConnected);
    });
}

#[test]
fn a_close_that_loses_data_is_told_as_timed_out() {
    on_each_engine_and_role(|engine, role| {
        let backend = Backend::new().expect("backend");
        let options = SslFile::options().nonblocking(true).close_timeout(std::time::Duration::from_millis(300));
        let (file, peer) = crate::rig::pair_with(engine, role, options, &backend);
        let log = Log::new();
        file.set_callbacks(log.callbacks());
        file.send(&vec![0; 16 << 20]).expect("send");
        let start = std::time::Instant::now();
        file.close().expect("at once");
        turn_until(&backend, || !log.closes().is_empty());
        assert!(start.elapsed() >= std::time::Duration::from_millis(300));
        settle(&backend);
        assert_eq!(log.closes(), [Err(ErrorKind::TimedOut)]);
        assert_eq!(file.state(), State::Closed);
        drop(peer);
    });
}

#[test]
fn a_close_after_the_peers_end_is_not_told_again() {
    on_each_engine_and_role(|engine, role| {
        let backend = Backend::new().expect("backend");
        let (file, peer, log) = logged_pair(engine, role, &backend);
        end_well(peer);
        turn_until(&backend, || !log.closes().is_empty());
        file.close().expect("close");
        settle(&backend);
        assert_eq!(log.closes(), [Ok(())]);
        assert_eq!(file.state(), State::Closed);
    });
}

#[test]
fn a_clean_close_is_told_when_the_peer_has_answered() {
    on_each_engine_and_role(|engine, role| {
        let backend = Backend::new().expect("backend");
        let (file, mut peer, log) = logged_pair(engine, role, &backend);
        file.close_clean().expect("at once");
        settle(&backend);
        assert_eq!(log.closes(), [], "told before the answer");
        assert_eq!(peer.read(&mut [0; 10]).expect("read"), 0);
        peer.write_all(b"late").expect("write");
        peer.shutdown().expect("close_notify");
        turn_until(&backend, || !log.closes().is_empty());
        settle(&backend);
        assert_eq!(log.closes(), [Ok(())]);
        let mut late = log.data();
        let mut rest = [0; 4];
        if late.is_empty() {
            (&file).read_exact(&mut rest).expect("read");
            late = rest.to_vec();
        }
        assert_eq!(late, b"late");
        let (stream, unread) = file.release().expect("release");
        assert_eq!(unread, b"");
        stream.set_nonblocking(false).expect("blocking");
        { &stream }.write_all(b"plain").expect("plain");
        let mut plain = [0; 5];
        { peer.get_ref() }.read_exact(&mut plain).expect("plain");
        assert_eq!(&plain, b"plain");
    });
}

#[test]
fn a_clean_close_as_responder_is_told_once() {
    on_each_engine_and_role(|engine, role| {
        let backend = Backend::new().expect("backend");
        let (file, mut peer, log) = logged_pair(engine, role, &backend);
        peer.shutdown().expect("close_notify");
        turn_until(&backend, || !log.closes().is_empty());
        file.close_clean().expect("at once");
        settle(&backend);
        assert_eq!(peer.read(&mut [0; 10]).expect("close_notify"), 0);
        assert_eq!(log.closes(), [Ok(())]);
        assert_eq!(file.state(), State::Closed);
        file.release().expect("release");
    });
}

#[test]
fn a_clean_close_that_is_cut_is_told_as_broken_pipe() {
    on_each_engine_and_role(|engine, role| {
        let backend = Backend::new().expect("backend");
        let (file, peer, log) = logged_pair(engine, role, &backend);
        file.close_clean().expect("at once");
        settle(&backend);
        cut(peer);
        turn_until(&backend, || !log.closes().is_empty());
        settle(&backend);
        assert_eq!(log.closes(), [Err(ErrorKind::BrokenPipe)]);
    });
}

#[test]
fn the_peers_half_close_lets_us_go_on_writing() {
    on_each_engine_and_role(|engine, role| {
        let backend = Backend::new().expect("backend");
        let (file, mut peer, log) = logged_pair(engine, role, &backend);
        peer.shutdown().expect("close_notify");
        turn_until(&backend, || !log.closes().is_empty());
        assert_eq!(file.state(), State::PeerClosed);
        // Those from before have gone: with the end told, nothing was owed to them.
        settle(&backend);
        assert!(file.take_callbacks().is_empty());
        file.set_callbacks(log.callbacks());
        let all = pattern(5, 1 << 20);
        file.send(&all).expect("send");
        let reader = std::thread::spawn(move || {
            let mut got = vec![0; 1 << 20];
            { &mut peer }.read_exact(&mut got).expect("read");
            got
        });
        turn_until(&backend, || reader.is_finished());
        assert!(reader.join().expect("reader") == all);
        settle(&backend);
        assert_eq!(log.all(), [Told::Close(Ok(())), Told::Write]);
    });
}

/// `shutdown(Read)` stops the callbacks of reading; that the connection has ended is told all the same.
#[test]
fn the_end_is_told_after_shutdown_of_reading() {
    on_each_engine_and_role(|engine, role| {
        let backend = Backend::new().expect("backend");
        let (file, mut peer, log) = logged_pair(engine, role, &backend);
        file.shutdown(Shutdown::Read).expect("shutdown");
        peer.write_all(b"not wanted").expect("write");
        end_well(peer);
        settle(&backend);
        file.close().expect("close");
        turn_until(&backend, || !log.closes().is_empty());
        assert_eq!(log.data(), b"");
        assert_eq!(log.closes().len(), 1);
    });
}

#[test]
fn a_shutdown_of_writing_is_sent_by_the_backend() {
    on_each_engine_and_role(|engine, role| {
        let backend = Backend::new().expect("backend");
        let (file, mut peer, log) = logged_pair(engine, role, &backend);
        let all = pattern(6, 4 << 20);
        file.send(&all).expect("send");
        file.shutdown(Shutdown::Write).expect("shutdown");
        let reader = std::thread::spawn(move || {
            let mut got = Vec::new();
            peer.read_to_end(&mut got).expect("close_notify");
            peer.write_all(b"still here").expect("write");
            (got, peer)
        });
        turn_until(&backend, || log.data() == b"still here");
        let (got, peer) = reader.join().expect("reader");
        assert!(got == all);
        end_well(peer);
        turn_until(&backend, || !log.closes().is_empty());
        assert_eq!(log.closes(), [Ok(())]);
    });
}

#[test]
fn an_error_of_writing_leaves_what_can_be_read() {
    on_each_engine(|engine| {
        let backend = Backend::new().expect("backend");
        let (ours, theirs) = tcp_pair();
        let peer = std::thread::spawn(move || bare_client(theirs));
        let file = open(engine, Role::Server, SslFile::options().nonblocking(true).backend(&backend), ours);
        turn_until(&backend, || file.is_handshake_done() && peer.is_finished());
        let mut peer = peer.join().expect("peer");
        settle(&backend);
        file.pause_reading(true);
        peer.write_all(b"before the reset").expect("write");
        // Its receiving side is shut: what we send is answered with a reset only if it is closed; so it is shut at ours.
        file.get_ref().shutdown(Shutdown::Write).expect("shutdown");
        let log = Log::new();
        file.set_callbacks(log.callbacks());
        assert_eq!((&file).write(b"x").expect_err("written").kind(), ErrorKind::BrokenPipe);
        file.pause_reading(false);
        turn_until(&backend, || log.data() == b"before the reset");
        end_well(peer);
        turn_until(&backend, || !log.closes().is_empty());
        assert_eq!(log.closes(), [Ok(())]);
    });
}

#[test]
fn a_handshake_that_takes_too_long_is_told_as_timed_out() {
    on_each_engine_and_role(|engine, role| {
        let backend = Backend::new().expect("backend");
        let (ours, _theirs) = tcp_pair();
        let limit = std::time::Duration::from_millis(200);
        let options = SslFile::options().nonblocking(true).backend(&backend).handshake_timeout(Some(limit));
        let start = std::time::Instant::now();
        let file = open(engine, role, options, ours);
        let log = Log::new();
        file.set_callbacks(log.callbacks());
        turn_until(&backend, || !log.closes().is_empty());
        assert!(start.elapsed() >= limit);
        assert_eq!(log.all(), [Told::Close(Err(ErrorKind::TimedOut))]);
        let error = file.handshake().expect_err("handshake");
        assert_eq!(kind_of(&error), Some(sslfile::ErrorKind::TimedOut));
        assert!(error.to_string().contains("handshake"), "{error}");
    });
}

/// There is no other callback left to say that nothing is waiting any more.
#[test]
fn a_failure_to_send_after_the_end_was_told_is_told_to_the_write_callback() {
    on_each_engine_and_role(|engine, role| {
        let backend = Backend::new().expect("backend");
        let (file, mut peer, log) = logged_pair(engine, role, &backend);
        socket2::SockRef::from(peer.get_ref()).set_recv_buffer_size(16 << 10).expect("SO_RCVBUF");
        socket2::SockRef::from(file.get_ref()).set_send_buffer_size(16 << 10).expect("SO_SNDBUF");
        peer.shutdown().expect("close_notify");
        file.send(&pattern(5, 8 << 20)).expect("send");
        turn_until(&backend, || log.closes() == [Ok(())]);
        settle(&backend);
        assert!(file.unsent() > 0);
        reset(peer);
        turn_until(&backend, || log.writes() > 0);
        settle(&backend);
        assert_eq!(log.all(), [Told::Close(Ok(())), Told::Write]);
        assert_eq!(file.unsent(), 0);
        assert!(file.send(b"more").is_err());
        assert!(wake_ups(&backend) <= 2, "spinning after the end");
    });
}

#[test]
fn the_end_is_told_after_shutdown_of_reading_with_data_in_front_of_it_that_nobody_took() {
    on_each_engine_and_role(|engine, role| {
        for paused in [false, true] {
            let backend = Backend::new().expect("backend");
            let (file, mut peer, log) = logged_pair(engine, role, &backend);
            match paused {
                true => file.pause_reading(true),
                false => file.clear_read_callback(),
            }
            peer.write_all(b"nobody wants this").expect("write");
            end_well(peer);
            settle(&backend);
            assert_eq!(log.closes(), []);
            file.shutdown(Shutdown::Read).expect("shutdown");
            turn_until(&backend, || !log.closes().is_empty());
            assert_eq!(log.closes(), [Ok(())]);
        }
    });
}
