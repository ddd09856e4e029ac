//! Modes, time-outs, interruptions, handles and the end itself, changed by some threads while others transfer.

use std::io::{self, ErrorKind, Read, Write};
use std::net::Shutdown;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Barrier, Mutex};
use std::thread;
use std::time::Duration;

use sslfile::{ClientAuth, Context, Engine, Handshake, SslFile, State, Stream};

use super::{again, byte_of, narrow_files, seed, wait_until_stuck, Order, Random, LARGEST, LIMIT, PERIOD, WRITERS};
use crate::common::{
    client_builder, client_context, engines, kind_of, server_builder, server_context, tls_pair, within, NAME,
};

/// What a call may say that was made while others change modes and time-outs: nothing has happened, try again.
fn nothing_happened(error: &io::Error) -> bool {
    match error.kind() {
        ErrorKind::WouldBlock | ErrorKind::TimedOut => true,
        ErrorKind::Other => kind_of(error) == Some(sslfile::ErrorKind::Interrupted),
        _ => false,
    }
}

fn stubborn(mut call: impl FnMut() -> io::Result<usize>) -> usize {
    loop {
        match call() {
            Ok(n) => return n,
            Err(e) if nothing_happened(&e) => thread::sleep(Duration::from_micros(100)),
            Err(e) => panic!("{e}"),
        }
    }
}

/// Every error but the end: how much of the writer's own sequence was accepted.
fn write_sequence<S: Stream>(file: &SslFile<S>, writer: usize, seed: u64, bytes: u64) -> u64 {
    let mut random = Random::new(seed, writer as u64);
    let source: Vec<u8> = (0..(LARGEST + PERIOD) as u64).map(|n| byte_of(writer, n)).collect();
    let mut done = 0;
    while done < bytes {
        let size = random.size().min((bytes - done) as usize);
        let from = (done % PERIOD as u64) as usize;
        let n = stubborn(|| (&*file).write(&source[from..from + size]));
        assert!(n >= 1 && n <= size);
        done += n as u64;
    }
    done
}

fn read_sequences<S: Stream>(file: &SslFile<S>, seed: u64) -> [u64; WRITERS] {
    let mut random = Random::new(seed, 300);
    let mut order = Order::default();
    let mut buf = vec![0; LARGEST];
    loop {
        let size = random.size();
        match stubborn(|| (&*file).read(&mut buf[..size])) {
            0 => return order.seen,
            n => order.check(&buf[..n]),
        }
    }
}

fn meddle<S: Stream>(file: &SslFile<S>, seed: u64, stop: &AtomicBool) {
    let mut random = Random::new(seed, 400);
    let mut handles = Vec::new();
    while !stop.load(Ordering::Acquire) {
        let short = Some(Duration::from_millis(1 + random.next() % 20));
        match random.next() % 12 {
            0 | 1 => file.set_nonblocking(true).expect("set_nonblocking"),
            2 | 3 => file.set_nonblocking(false).expect("set_nonblocking"),
            4 => file.set_read_timeout(short).expect("set_read_timeout"),
            5 => file.set_write_timeout(short).expect("set_write_timeout"),
            6 => file.set_read_timeout(None).expect("set_read_timeout"),
            7 => file.set_write_timeout(None).expect("set_write_timeout"),
            8 => file.interrupt(),
            9 => handles.push(file.try_clone().expect("try_clone")),
            10 => handles.truncate(1),
            _ => {
                assert!(file.is_handshake_done());
                assert!(matches!(file.state(), State::Open | State::PeerClosed), "{:?}", file.state());
                file.is_open();
                file.pending();
                file.unsent();
                file.interest();
                // Whoever holds the data: a look at it takes nothing away.
                file.set_nonblocking(true).expect("set_nonblocking");
                match file.peek(&mut [0; 100]) {
                    Ok(_) => {}
                    Err(e) => assert!(nothing_happened(&e), "{e}"),
                }
            }
        }
        thread::sleep(Duration::from_micros(random.next() % 1500));
    }
    // For the stragglers.
    file.set_nonblocking(false).expect("set_nonblocking");
    file.set_write_timeout(None).expect("set_write_timeout");
    file.set_read_timeout(None).expect("set_read_timeout");
}

#[test]
fn nothing_is_lost_while_modes_and_time_outs_change() {
    let seed = seed();
    for engine in engines() {
        within(LIMIT, move || {
            let (client, server) = shaken(narrow_files(engine, false));
            transfer_and_meddle(&client, &server, seed);
        });
    }
}

/// The same with TLS in TLS: the inner file's changes reach threads that wait in the outer one.
#[test]
fn nothing_is_lost_while_modes_and_time_outs_change_in_tls_in_tls() {
    let seed = seed();
    for engine in engines() {
        within(LIMIT, move || {
            let (c, s) = shaken(narrow_files(engine, false));
            let lazy = || SslFile::options().handshake(Handshake::Lazy);
            let client = lazy().client(NAME).open(c, &client_context(engine)).expect("client");
            let server = lazy().server().open(s, &server_context(engine)).expect("server");
            let (client, server) = shaken((client, server));
            transfer_and_meddle(&client, &server, seed);
        });
    }
}

fn shaken<S: Stream>((client, server): (SslFile<S>, SslFile<S>)) -> (SslFile<S>, SslFile<S>) {
    thread::scope(|t| {
        t.spawn(|| client.handshake().expect("handshake"));
        server.handshake().expect("handshake");
    });
    (client, server)
}

fn transfer_and_meddle<S: Stream>(client: &SslFile<S>, server: &SslFile<S>, seed: u64) {
    const EACH: u64 = 3 << 20;
    let stop = AtomicBool::new(false);
    thread::scope(|t| {
        for (file, seed) in [(client, seed), (server, !seed)] {
            let stop = &stop;
            t.spawn(move || meddle(file, seed, stop));
        }
        let ways = [(client, server, seed), (server, client, !seed)].map(|(from, to, seed)| {
            let reader = t.spawn(move || read_sequences(to, seed));
            let writers: Vec<_> = (0..WRITERS).map(|i| t.spawn(move || write_sequence(from, i, seed, EACH))).collect();
            (from, reader, writers)
        });
        for (from, reader, writers) in ways {
            for writer in writers {
                assert_eq!(writer.join().expect("writer"), EACH);
            }
            from.shutdown(Shutdown::Write).expect("shutdown");
            // The end goes with the next call, if it did not go at once.
            while let Err(e) = (&*from).flush() {
                assert!(nothing_happened(&e), "{e}");
            }
            assert_eq!(reader.join().expect("reader"), [EACH; WRITERS]);
        }
        stop.store(true, Ordering::Release);
    });
}

/// How the transfer is broken off.
#[derive(Clone, Copy, Debug)]
enum Verb {
    Shutdown,
    Close,
}

/// One thread ends the file while others are in the middle of writing: what was accepted arrives, and nothing else.
#[test]
fn ended_in_the_midst_of_writing_loses_nothing_that_was_accepted() {
    let seed = seed();
    for engine in engines() {
        for nonblocking in [false, true] {
            for verb in [Verb::Shutdown, Verb::Close] {
                within(LIMIT, move || {
                    for round in 0..6 {
                        end_in_the_midst(engine, nonblocking, verb, seed.wrapping_add(round));
                    }
                });
            }
        }
    }
}

fn end_in_the_midst(engine: Engine, nonblocking: bool, verb: Verb, seed: u64) {
    let (client, server) = narrow_files(engine, nonblocking);
    let accepted = Mutex::new([0; WRITERS]);
    let total = AtomicU64::new(0);
    thread::scope(|t| {
        let server = &server;
        let reader = t.spawn(move || {
            let got = read_sequences(server, seed);
            again(server, || server.close()).expect("close");
            got
        });
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| {
                let (client, accepted, total) = (&client, &accepted, &total);
                t.spawn(move || {
                    let mut random = Random::new(seed, writer as u64);
                    let source: Vec<u8> = (0..(LARGEST + PERIOD) as u64).map(|n| byte_of(writer, n)).collect();
                    let mut done = 0u64;
                    let error = loop {
                        let from = (done % PERIOD as u64) as usize;
                        let size = random.size();
                        match again(client, || (&*client).write(&source[from..from + size])) {
                            Ok(n) => {
                                done += n as u64;
                                accepted.lock().expect("counts")[writer] = done;
                                total.fetch_add(n as u64, Ordering::AcqRel);
                            }
                            Err(e) => break e,
                        }
                    };
                    let expected = match verb {
                        Verb::Shutdown => ErrorKind::BrokenPipe,
                        Verb::Close => ErrorKind::NotConnected,
                    };
                    assert_eq!(error.kind(), expected, "{verb:?}: {error}");
                })
            })
            .collect();
        let enough = 100_000 + seed % 1_000_000;
        while total.load(Ordering::Acquire) < enough {
            thread::sleep(Duration::from_micros(200));
        }
        match verb {
            Verb::Close => again(&client, || client.close()).expect("close"),
            Verb::Shutdown => {
                client.shutdown(Shutdown::Write).expect("shutdown");
                again(&client, || (&client).flush()).expect("flush");
            }
        }
        for writer in writers {
            writer.join().expect("writer");
        }
        let got = reader.join().expect("reader");
        assert_eq!(got, *accepted.lock().expect("counts"), "{engine:?}, {verb:?}");
    });
}

/// Eight handles go at the same moment in eight threads: one of them is the last, and says the end once.
#[test]
fn last_of_many_handles_says_the_end() {
    for engine in engines() {
        within(LIMIT, move || {
            for _ in 0..25 {
                let (client, server) = tls_pair(engine);
                let start = Barrier::new(8);
                thread::scope(|t| {
                    for i in 0..8 {
                        let (handle, start) = (client.clone(), &start);
                        t.spawn(move || {
                            (&handle).write_all(&[i]).expect("write");
                            start.wait();
                            drop(handle);
                        });
                    }
                    drop(client);
                });
                let mut got = Vec::new();
                (&server).read_to_end(&mut got).expect("a clean end");
                got.sort_unstable();
                assert_eq!(got, [0, 1, 2, 3, 4, 5, 6, 7]);
            }
        });
    }
}

/// One context for all threads, its sessions shared: each connection is its own.
#[test]
fn one_context_serves_many_threads() {
    for engine in engines() {
        within(LIMIT, move || {
            let mut server = server_builder(engine).alpn(["one", "two"]);
            if engine == Engine::OpenSsl {
                server = server.add_root(crate::common::ca()).client_auth(ClientAuth::Request);
            }
            let (client, server) = (client_builder(engine).alpn(["two"]), server);
            let (client, server) = (client.build().expect("context"), server.build().expect("context"));
            thread::scope(|t| {
                for i in 0..8 {
                    let (client, server) = (client.clone(), server.clone());
                    t.spawn(move || (0..15).for_each(|round| greet(&client, &server, (i, round))));
                }
            });
        });
    }
}

fn greet(client: &Context, server: &Context, (i, round): (u8, u8)) {
    let (c, s) = crate::common::tcp_pair();
    thread::scope(|t| {
        t.spawn(move || {
            let file = SslFile::server(s, server).expect("server");
            let mut word = [0; 2];
            (&file).read_exact(&mut word).expect("read");
            (&file).write_all(&word).expect("write");
            file.close().expect("close");
        });
        let file = SslFile::client(c, client, NAME).expect("client");
        assert_eq!(file.alpn(), Some(b"two".to_vec()));
        (&file).write_all(&[i, round]).expect("write");
        let mut word = Vec::new();
        (&file).read_to_end(&mut word).expect("a clean end");
        assert_eq!(word, [i, round]);
        file.close().expect("close");
    });
}

/// Readers and writers that are stuck on both ends all come back when the file is closed, and say so.
#[test]
fn close_wakes_everybody() {
    for engine in engines() {
        within(LIMIT, move || {
            let (client, server) = tls_pair(engine);
            // Nobody reads there.
            let stuck = AtomicU64::new(0);
            thread::scope(|t| {
                for _ in 0..3 {
                    let client = &client;
                    t.spawn(move || {
                        let error = (&*client).read(&mut [0; 8]).expect_err("nobody sends anything");
                        assert_eq!(kind_of(&error), Some(sslfile::ErrorKind::NotOpen), "{error}");
                    });
                    let stuck = &stuck;
                    t.spawn(move || loop {
                        match (&*client).write(&[1; 50_000]) {
                            Ok(n) => drop(stuck.fetch_add(n as u64, Ordering::AcqRel)),
                            Err(e) => {
                                let kind = kind_of(&e);
                                assert_eq!(kind, Some(sslfile::ErrorKind::NotOpen), "{e}");
                                break;
                            }
                        }
                    });
                }
                wait_until_stuck(&stuck);
                // Whether the system had room for the rest decides between these.
                match client.close() {
                    Ok(()) => {}
                    Err(e) => assert_eq!(e.kind(), ErrorKind::TimedOut, "{e}"),
                }
                assert!(!client.is_open());
            });
            drop(server);
        });
    }
}
