//! TLS in TLS: an `SslFile` is a stream like any other, in any mode, to any depth, and is given back.

use crate::common;

use std::io::{self, ErrorKind, Read, Write};
use std::net::Shutdown;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use common::{client_context, engines, kind_of, pattern, server_builder, server_context, tls_pair, within, LONG, NAME};
use sslfile::{Engine, Handshake, PlainFile, SslFile, SslOptions, State, Stream};

fn again<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(e) if e.kind() == ErrorKind::WouldBlock => thread::sleep(Duration::from_micros(200)),
            other => return other,
        }
    }
}

/// One more layer over both ends.
fn wrap<S: Stream>(engine: Engine, (c, s): (S, S), nonblocking: bool) -> (SslFile<S>, SslFile<S>) {
    let open = || SslFile::options().nonblocking(nonblocking);
    thread::scope(|t| {
        let server = t.spawn(move || {
            let file = open().server().open(s, &server_context(engine)).expect("server");
            again(|| file.handshake()).expect("server handshake");
            file
        });
        let client = open().client(NAME).open(c, &client_context(engine)).expect("client");
        again(|| client.handshake()).expect("client handshake");
        (client, server.join().expect("server thread"))
    })
}

fn put<S: Stream>(mut file: &SslFile<S>, data: &[u8]) {
    let mut done = 0;
    while done < data.len() {
        done += again(|| file.write(&data[done..])).expect("write");
    }
    again(|| file.flush()).expect("flush");
}

fn get<S: Stream>(mut file: &SslFile<S>, len: usize) -> Vec<u8> {
    let mut data = vec![0; len];
    let mut done = 0;
    while done < len {
        match again(|| file.read(&mut data[done..])).expect("read") {
            0 => panic!("the end after {done} of {len} bytes"),
            n => done += n,
        }
    }
    data
}

fn word<S: Stream>(from: &SslFile<S>, to: &SslFile<S>, word: &[u8]) {
    put(from, word);
    assert_eq!(get(to, word.len()), word);
}

/// Request and reply, then megabytes both ways at once, then a clean end.
fn works<S: Stream>(client: &SslFile<S>, server: &SslFile<S>) {
    word(client, server, b"request");
    word(server, client, b"reply");
    let data = pattern(1, 5 << 20);
    thread::scope(|t| {
        t.spawn(|| put(client, &data));
        t.spawn(|| put(server, &data));
        t.spawn(|| assert!(get(client, data.len()) == data));
        t.spawn(|| assert!(get(server, data.len()) == data));
    });
    client.shutdown(Shutdown::Write).expect("shutdown");
    again(|| (&*client).flush()).expect("flush");
    assert_eq!(again(|| (&*server).read(&mut [0; 8])).expect("the end"), 0);
    word(server, client, b"still read");
    again(|| server.close()).expect("close");
    assert_eq!(again(|| (&*client).read(&mut [0; 8])).expect("the end"), 0);
}

#[test]
fn two_deep() {
    for engine in engines() {
        for nonblocking in [false, true] {
            within(LONG, move || {
                let (client, server) = wrap(engine, tls_pair(engine), nonblocking);
                works(&client, &server);
            });
        }
    }
}

#[test]
fn three_deep() {
    for engine in engines() {
        for nonblocking in [false, true] {
            within(LONG, move || {
                let two = wrap(engine, tls_pair(engine), false);
                let (client, server) = wrap(engine, two, nonblocking);
                works(&client, &server);
            });
        }
    }
}

/// Each layer may be of another library.
#[test]
fn engines_mix() {
    for outer in engines() {
        for inner in engines() {
            within(LONG, move || {
                let (client, server) = wrap(inner, tls_pair(outer), false);
                works(&client, &server);
                assert_eq!(client.context().engine(), inner);
                assert_eq!(client.get_ref().context().engine(), outer);
            });
        }
    }
}

/// All layers at once and none shaken before: the first byte does it, from the outside in.
#[test]
fn lazy_all_the_way() {
    for engine in engines() {
        within(LONG, move || {
            let (c, s) = common::tcp_pair();
            let lazy = || SslFile::options().handshake(Handshake::Lazy);
            let (client_context, server_context) = (client_context(engine), server_context(engine));
            let outer = lazy().client(NAME).open(c, &client_context).expect("open");
            let client = lazy().client(NAME).open(outer, &client_context).expect("open");
            let outer = lazy().server().open(s, &server_context).expect("open");
            let server = lazy().server().open(outer, &server_context).expect("open");
            thread::scope(|t| {
                t.spawn(|| put(&client, b"first byte"));
                assert_eq!(get(&server, 10), b"first byte");
            });
            assert!(client.is_handshake_done() && client.get_ref().is_handshake_done());
        });
    }
}

/// While it is wrapped, a handle on the outer file does no I/O and changes no mode; it can be asked, and it is whole afterwards.
#[test]
fn wrapped_file_refuses_io_until_it_is_given_back() {
    for engine in engines() {
        for nonblocking in [false, true] {
            within(LONG, move || wrapped_file_refuses_io(engine, nonblocking));
        }
    }
}

fn wrapped_file_refuses_io(engine: Engine, nonblocking: bool) {
    let (c, s) = tls_pair(engine);
    let (kept_client, kept_server) = (c.try_clone().expect("clone"), s.try_clone().expect("clone"));
    let (client, server) = wrap(engine, (c, s), nonblocking);
    for kept in [&kept_client, &kept_server] {
        let mut handle = kept;
        let refusals = [
            ("read", handle.read(&mut [0; 8]).map(drop)),
            ("peek", handle.peek(&mut [0; 8]).map(drop)),
            ("write", handle.write(b"plain").map(drop)),
            ("flush", handle.flush()),
            ("send", handle.send(b"plain")),
            ("set_nonblocking", handle.set_nonblocking(!nonblocking)),
            ("shutdown", handle.shutdown(Shutdown::Write)),
            ("close", handle.close()),
            ("close_clean", handle.close_clean()),
        ];
        for (call, result) in refusals {
            let error = result.expect_err(call);
            assert_eq!(error.kind(), ErrorKind::ResourceBusy, "{call}: {error}");
        }
        assert_eq!(kept.state(), State::Open);
        assert!(kept.peer_addr().is_ok());
    }
    word(&client, &server, b"nothing came between");
    word(&server, &client, b"in either direction");

    thread::scope(|t| {
        t.spawn(|| again(|| client.close_clean()).expect("close_clean"));
        again(|| server.close_clean()).expect("close_clean");
    });
    // Given back at once, whoever holds the handle.
    assert!(!kept_client.is_nonblocking(), "its mode as well");
    word(&kept_client, &kept_server, b"the outer connection");
    word(&kept_server, &kept_client, b"goes on");
    let gone = (&client).write(b"late").expect_err("over");
    assert_eq!(kind_of(&gone), Some(sslfile::ErrorKind::NotOpen), "{gone}");
}

/// Five inner sessions one after the other on one outer connection, with outer data between them and glued to their ends.
#[test]
fn close_clean_gives_the_outer_file_back() {
    for engine in engines() {
        for nonblocking in [false, true] {
            for client_first in [true, false] {
                within(LONG, move || {
                    let (mut c, mut s) = tls_pair(engine);
                    for round in 0..5 {
                        let (client, server) = wrap(engine, (c, s), nonblocking);
                        word(&client, &server, format!("inner {round}").as_bytes());
                        (c, s) = match client_first {
                            true => end_inner(client, server),
                            false => {
                                let (s, c) = end_inner(server, client);
                                (c, s)
                            }
                        };
                        assert!(!c.is_nonblocking() && !s.is_nonblocking());
                        word(&c, &s, format!("outer {round}").as_bytes());
                        word(&s, &c, b"and back");
                    }
                });
            }
        }
    }
}

/// The responder answers and goes on in the outer connection at once: what it says there is behind its close_notify.
fn end_inner(first: SslFile<SslFile>, second: SslFile<SslFile>) -> (SslFile, SslFile) {
    let responder = thread::spawn(move || {
        assert_eq!(again(|| (&second).read(&mut [0; 8])).expect("the end"), 0);
        again(|| second.close_clean()).expect("close_clean");
        let (outer, unread) = second.release().expect("release");
        assert_eq!(unread, b"");
        put(&outer, b"glued to the end");
        outer
    });
    again(|| first.close_clean()).expect("close_clean");
    // A file takes back itself what was read too far.
    let (outer, unread) = first.release().expect("release");
    assert_eq!(unread, b"");
    assert_eq!(get(&outer, 16), b"glued to the end");
    (outer, responder.join().expect("responder"))
}

/// The outer file comes out of a failed inner handshake, with what was read back in it.
#[test]
fn failed_inner_handshake_gives_the_outer_file_back() {
    for engine in engines() {
        within(LONG, move || {
            let (c, s) = tls_pair(engine);
            put(&s, b"no inner TLS here");
            let failed = SslFile::client(c, &client_context(engine), NAME).expect_err("no TLS");
            assert_eq!(failed.kind(), sslfile::ErrorKind::NotTls);
            // It takes back itself what was read too far.
            let (_, c, unread) = failed.into_parts();
            assert_eq!(unread, b"");
            assert_eq!(get(&c, 17), b"no inner TLS here");
            word(&s, &c, b"the outer file");
            put(&c, b"works");
            // The server end gets the inner hello, perhaps an alert, then this.
            let mut all = get(&s, 5);
            while !all.ends_with(b"works") {
                all.extend(get(&s, 1));
            }

            let refused =
                server_builder(engine).identity(common::certs().other_name.identity()).build().expect("context");
            let (c, s) = tls_pair(engine);
            let server = thread::spawn(move || SslFile::server(s, &refused).expect_err("refused"));
            let failed = SslFile::client(c, &client_context(engine), NAME).expect_err("a wrong name");
            assert_eq!(failed.kind(), sslfile::ErrorKind::HostnameMismatch);
            let other = server.join().expect("server");
            assert!(matches!(other.kind(), sslfile::ErrorKind::PeerAlert(_)), "{other}");
            word(&failed.into_parts().1, &other.into_parts().1, b"and again");
        });
    }
}

/// Time-outs of the inner file bound its calls, and leave all layers whole.
#[test]
fn time_outs_work_through_the_layers() {
    const TIMEOUT: Duration = Duration::from_millis(250);
    for engine in engines() {
        within(LONG, move || {
            let two = wrap(engine, tls_pair(engine), false);
            let (client, server) = wrap(engine, two, false);
            client.set_read_timeout(Some(TIMEOUT)).expect("set_read_timeout");
            for _ in 0..2 {
                let start = Instant::now();
                let error = (&client).read(&mut [0; 8]).expect_err("silence");
                assert_eq!(error.kind(), ErrorKind::TimedOut, "{error}");
                assert!(start.elapsed() >= TIMEOUT && start.elapsed() < TIMEOUT * 20);
            }
            client.set_write_timeout(Some(TIMEOUT)).expect("set_write_timeout");
            let mut accepted = Vec::new();
            let data = pattern(2, 1 << 20);
            loop {
                let start = Instant::now();
                match (&client).write(&data) {
                    Ok(n) => accepted.extend_from_slice(&data[..n]),
                    Err(e) => {
                        assert_eq!(e.kind(), ErrorKind::TimedOut, "{e}");
                        assert!(start.elapsed() >= TIMEOUT && start.elapsed() < TIMEOUT * 20);
                        break;
                    }
                }
                assert!(accepted.len() < 64 << 20, "swallowed it all");
            }
            client.set_write_timeout(None).expect("set_write_timeout");
            thread::scope(|t| {
                t.spawn(|| put(&client, b"the rest"));
                assert!(get(&server, accepted.len()) == accepted);
                assert_eq!(get(&server, 8), b"the rest");
            });
            word(&server, &client, b"and back");
        });
    }
}

/// A cut anywhere below is a cut; only the inner close_notify is an end.
#[test]
fn outer_end_is_a_cut_for_the_inner_file() {
    for engine in engines() {
        for nonblocking in [false, true] {
            within(LONG, move || {
                // The outer connection ends in order, the inner one does not.
                let (c, s) = tls_pair(engine);
                let kept = s.try_clone().expect("clone");
                let (client, server) = wrap(engine, (c, s), nonblocking);
                put(&server, b"before");
                let (outer, _) = released(server);
                drop(outer);
                again(|| kept.close()).expect("close");
                assert_cut(&client);

                // TCP is cut under both.
                let (c, s) = tls_pair(engine);
                let tcp = s.get_ref().try_clone().expect("clone");
                let (client, server) = wrap(engine, (c, s), nonblocking);
                put(&server, b"before");
                tcp.shutdown(Shutdown::Both).expect("shutdown");
                assert_cut(&client);
                drop(server);
            });
        }
    }
}

fn released<S: Stream>(mut file: SslFile<S>) -> (S, Vec<u8>) {
    loop {
        match file.release() {
            Ok(parts) => return parts,
            Err(failed) => {
                let (error, back) = failed.into_parts();
                assert_eq!(error.kind(), ErrorKind::WouldBlock, "{error}");
                file = back;
            }
        }
    }
}

fn assert_cut<S: Stream>(mut file: &SslFile<S>) {
    assert_eq!(get(file, 6), b"before");
    for _ in 0..3 {
        let error = again(|| file.read(&mut [0; 8])).expect_err("a cut");
        assert_eq!(error.kind(), ErrorKind::BrokenPipe, "{error}");
        assert_eq!(kind_of(&error), Some(sslfile::ErrorKind::Truncated));
    }
}

/// The last handle takes every layer with it, and each says its end.
#[test]
fn drop_ends_every_layer() {
    for engine in engines() {
        for nonblocking in [false, true] {
            within(LONG, move || {
                let (c, s) = tls_pair(engine);
                let (client, server) = wrap(engine, (c, s), nonblocking);
                drop(client);
                assert_eq!(again(|| (&server).read(&mut [0; 8])).expect("the inner end"), 0);
                again(|| server.close_clean()).err();
                let (outer, unread) = match server.release() {
                    Ok(parts) => parts,
                    // Where the inner end could not be answered any more, the file is not given back; that is all there was to see.
                    Err(_) => return,
                };
                assert_eq!(unread, b"");
                assert_eq!((&outer).read(&mut [0; 8]).expect("the outer end"), 0);
            });
        }
    }
}

/// Whatever the mode of either, the inner file's is the one that counts, and the outer gets its own back.
#[test]
fn modes_of_inner_and_outer_are_their_own() {
    for engine in engines() {
        for (outer_mode, inner_mode) in [(false, true), (true, false), (true, true), (false, false)] {
            within(LONG, move || {
                let (c, s) = tls_pair(engine);
                for file in [&c, &s] {
                    file.set_nonblocking(outer_mode).expect("switch");
                }
                let (client, server) = wrap(engine, (c, s), inner_mode);
                assert_eq!(client.is_nonblocking(), inner_mode);
                if inner_mode {
                    let nothing = (&client).read(&mut [0; 8]).expect_err("nothing there");
                    assert_eq!(nothing.kind(), ErrorKind::WouldBlock);
                }
                // Switched in the middle, both ways, with data on the way.
                client.set_nonblocking(!inner_mode).expect("switch");
                assert_eq!(client.is_nonblocking(), !inner_mode);
                word(&client, &server, b"switched");
                word(&server, &client, b"and read");
                client.set_nonblocking(inner_mode).expect("switch");
                word(&server, &client, b"back");
                let (c, s) = end_inner_in_any_mode(client, server);
                assert_eq!((c.is_nonblocking(), s.is_nonblocking()), (outer_mode, outer_mode));
                word(&c, &s, b"outer");
            });
        }
    }
}

fn end_inner_in_any_mode(client: SslFile<SslFile>, server: SslFile<SslFile>) -> (SslFile, SslFile) {
    thread::scope(|t| {
        let ends = |file: SslFile<SslFile>| {
            again(|| file.close_clean()).expect("close_clean");
            file.release().expect("release").0
        };
        let server = t.spawn(move || ends(server));
        (ends(client), server.join().expect("server"))
    })
}

/// What the outer knows can be asked through the inner.
#[test]
fn descriptor_and_address_pass_through() {
    use rustix::fd::{AsFd, AsRawFd};
    for engine in engines() {
        within(LONG, move || {
            let two = wrap(engine, tls_pair(engine), false);
            let (client, server) = wrap(engine, two, false);
            let tcp = client.get_ref().get_ref().get_ref();
            assert_eq!(client.as_raw_fd(), tcp.as_raw_fd());
            assert_eq!(client.as_fd().as_raw_fd(), tcp.as_raw_fd());
            let local = server.get_ref().get_ref().local_addr().expect("address");
            assert_eq!(client.get_ref().get_ref().peer_addr().expect("address"), local);
        });
    }
}

/// A lazy inner handshake with a time-out of its own against an outer peer that never answers.
#[test]
fn handshake_time_out_works_through_the_layers() {
    const TIMEOUT: Duration = Duration::from_millis(250);
    for engine in engines() {
        within(LONG, move || {
            let (c, s) = tls_pair(engine);
            let options: SslOptions = SslFile::options().client(NAME).handshake_timeout(Some(TIMEOUT));
            let start = Instant::now();
            let failed = options.open(c, &client_context(engine)).expect_err("silence");
            let took = start.elapsed();
            assert_eq!(failed.error().kind(), ErrorKind::TimedOut, "{failed}");
            assert!(took >= TIMEOUT && took < TIMEOUT * 20, "{took:?}");
            let (_, c, _) = failed.into_parts();
            word(&s, &c, b"the outer file works");
        });
    }
}

/// It has what is there in front of it, and waits for room alone: no descriptor is ready for that.
#[cfg(unix)]
#[test]
fn a_loop_that_does_not_read_for_now_does_not_spin() {
    use rustix::event::{poll, PollFd, PollFlags, Timespec};
    use rustix::fd::AsFd;

    fn rounds<S: Stream + AsFd>(file: &SslFile<S>) -> usize {
        let (mut rounds, end) = (0, Instant::now() + Duration::from_millis(30));
        while Instant::now() < end {
            again(|| { file }.flush()).expect("flush");
            let flags = if file.interest().writable { PollFlags::OUT } else { PollFlags::empty() };
            let limit = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };
            poll(&mut [PollFd::new(file, flags)], Some(&limit)).expect("poll");
            rounds += 1;
        }
        rounds
    }

    for engine in engines() {
        within(LONG, move || {
            let (client, server) = wrap(engine, tls_pair(engine), true);
            put(&server, &pattern(1, 100_000));
            server.shutdown(Shutdown::Write).expect("shutdown");
            again(|| (&server).flush()).expect("flush");
            for _ in 0..20 {
                get(&client, 1000);
                let rounds = rounds(&client);
                assert!(rounds < 15, "{engine:?}: {rounds}, {:?}", client.interest());
                if client.pending() < 1000 {
                    break;
                }
            }
        });
    }
}

/// What it would receive is the other file's, and the reader there waits for a descriptor with nothing left in it.
#[test]
fn a_question_to_the_file_inside_takes_nothing_from_a_reader() {
    for engine in engines() {
        within(LONG, move || {
            let (c, s) = common::tcp_pair();
            let inner = PlainFile::new(c);
            let handle = inner.try_clone().expect("clone");
            let (client, server) = wrap(engine, (inner, PlainFile::new(s)), false);
            client.set_read_timeout(Some(Duration::from_secs(10))).expect("time-out");
            let done = AtomicBool::new(false);
            thread::scope(|t| {
                t.spawn(|| {
                    while !done.load(Ordering::Relaxed) {
                        assert!(handle.is_open());
                    }
                });
                for round in 0..10 {
                    let reader = t.spawn(|| {
                        let mut word = [0; 5];
                        (&client).read_exact(&mut word).map(|()| word)
                    });
                    // It is past its first try.
                    thread::sleep(Duration::from_millis(20 + 5 * round));
                    put(&server, b"hello");
                    let start = Instant::now();
                    let word = reader.join().expect("reader");
                    if word.is_err() || start.elapsed() > Duration::from_secs(5) {
                        done.store(true, Ordering::Relaxed);
                        panic!("{engine:?}, round {round}: {word:?}");
                    }
                }
                done.store(true, Ordering::Relaxed);
            });
        });
    }
}
