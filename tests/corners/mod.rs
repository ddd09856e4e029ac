//! What one call leaves to the next, and to whoever comes then.

use crate::common;

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{mpsc, Arc};
use std::thread;
use std::time::{Duration, Instant};

use common::{client_context, engines, kind_of, pattern, server_context, tcp_pair, tls_pair, within, LONG, NAME};
use sslfile::{Backend, Callbacks, ErrorKind, Handshake, ReadWrite, SslFile};

/// `send` queues; the reads that follow see to it that what is queued goes, and the close_notify behind it.
#[test]
fn a_blocked_reader_sends_what_waits() {
    for engine in engines() {
        within(LONG, move || {
            let (client, mut server) = tls_pair(engine);
            let data = pattern(1, 16 << 20);
            let expected = data.clone();
            let peer = thread::spawn(move || {
                let mut got = Vec::new();
                server.read_to_end(&mut got).expect("read");
                assert!(got == expected);
                server.write_all(b"thanks").expect("write");
                server.close().expect("close");
            });
            client.send(&data).expect("send");
            client.shutdown(Shutdown::Write).expect("shutdown");
            let mut answer = Vec::new();
            (&client).read_to_end(&mut answer).expect("read");
            assert_eq!(answer, b"thanks");
            peer.join().expect("peer");
        });
    }
}

/// What a non-blocking write left goes with a blocking read.
#[test]
fn what_a_nonblocking_write_left_goes_after_the_switch() {
    for engine in engines() {
        within(LONG, move || {
            let (client, mut server) = tls_pair(engine);
            client.set_nonblocking(true).expect("set_nonblocking");
            let data = pattern(2, 1 << 20);
            let mut accepted = 0;
            while client.unsent() == 0 {
                match (&client).write(&data) {
                    Ok(n) => accepted += n,
                    Err(e) => assert_eq!(e.kind(), io::ErrorKind::WouldBlock),
                }
            }
            client.set_nonblocking(false).expect("set_nonblocking");
            let peer = thread::spawn(move || {
                io::copy(&mut (&server).take(accepted as u64), &mut io::sink()).expect("read");
                server.write_all(b"!").expect("write");
            });
            (&client).read_exact(&mut [0]).expect("read");
            assert_eq!(client.unsent(), 0);
            peer.join().expect("peer");
        });
    }
}

/// A file in a backend, its client's end, and the backend.
fn in_backend(engine: sslfile::Engine) -> (Backend, SslFile, SslFile) {
    let backend = Backend::new().expect("backend");
    let (client, server) = tls_pair(engine);
    server.set_nonblocking(true).expect("set_nonblocking");
    server.set_backend(Some(&backend)).expect("set_backend");
    (backend, client, server)
}

#[test]
fn an_empty_send_is_no_write() {
    for engine in engines() {
        within(LONG, move || {
            let (backend, _client, server) = in_backend(engine);
            let calls = Arc::new(AtomicUsize::new(0));
            let count = calls.clone();
            server.set_write_callback(move |file| {
                count.fetch_add(1, Ordering::Relaxed);
                file.send(b"").expect("send");
            });
            for _ in 0..5 {
                backend.turn(Some(Duration::from_millis(20))).expect("turn");
            }
            assert_eq!(calls.load(Ordering::Relaxed), 1);
        });
    }
}

#[test]
fn a_write_callback_that_always_writes_leaves_the_turn_to_others() {
    for engine in engines() {
        within(LONG, move || {
            let (backend, mut client, server) = in_backend(engine);
            let reader = thread::spawn(move || drop(io::copy(&mut client, &mut io::sink())));
            server.set_write_callback(|file| file.send(&[7; 1024]).expect("send"));
            let begin = Instant::now();
            let stopper = backend.clone();
            backend.call_out(Duration::from_millis(50), move || stopper.stop());
            backend.run().expect("run");
            assert!(begin.elapsed() < Duration::from_secs(10));
            server.set_backend(None).expect("set_backend");
            drop(server);
            reader.join().expect("reader");
        });
    }
}

#[test]
fn direct_reads_count_against_the_idle_time_out() {
    for engine in engines() {
        within(LONG, move || {
            let (backend, mut client, server) = in_backend(engine);
            server.set_nonblocking(false).expect("set_nonblocking");
            let (ended, end) = mpsc::channel();
            server.set_callbacks(
                Callbacks::new().on_read(|_: &SslFile, _| {}).on_close(move |_, why| drop(ended.send(why))),
            );
            server.set_read_timeout(Some(Duration::from_millis(1000))).expect("set_read_timeout");
            thread::scope(|t| {
                let reader = t.spawn(|| while (&server).read(&mut [0; 10]).is_ok_and(|n| n > 0) {});
                t.spawn(|| backend.run());
                for _ in 0..20 {
                    client.write_all(b"x").expect("write");
                    thread::sleep(Duration::from_millis(100));
                }
                assert!(end.try_recv().is_err(), "ended though data came");
                client.close().expect("close");
                end.recv().expect("end").expect("a clean end");
                reader.join().expect("reader");
                backend.stop();
            });
        });
    }
}

#[test]
fn a_clean_close_in_a_backend_is_bounded_by_the_read_time_out() {
    for engine in engines() {
        within(LONG, move || {
            let (backend, _client, server) = in_backend(engine);
            let (ended, end) = mpsc::channel();
            server.set_close_callback(move |_, why| drop(ended.send(why)));
            server.set_read_timeout(Some(Duration::from_millis(200))).expect("set_read_timeout");
            let begin = Instant::now();
            server.close_clean().expect("begun");
            let why = loop {
                backend.turn(Some(Duration::from_secs(5))).expect("turn");
                if let Ok(why) = end.try_recv() {
                    break why.expect_err("nobody answers");
                }
            };
            assert_eq!(why.kind(), io::ErrorKind::TimedOut);
            assert!(begin.elapsed() >= Duration::from_millis(200));
        });
    }
}

#[test]
fn is_open_sees_a_client_that_went_before_the_handshake() {
    for engine in engines() {
        within(LONG, move || {
            for words in [&b""[..], b"\x16\x03\x01\x00"] {
                let (mut c, s) = tcp_pair();
                let options = SslFile::options().server().handshake(Handshake::Lazy);
                let server = options.open(s, &server_context(engine)).expect("open");
                c.write_all(words).expect("write");
                assert!(server.is_open());
                drop(c);
                while server.is_open() {
                    thread::sleep(Duration::from_millis(1));
                }
            }
        });
    }
}

/// The default of 30 s begins when a file comes to need one; here it is set, and the file goes into a backend late.
#[test]
fn a_file_that_goes_into_a_backend_late_has_a_handshake_time_out() {
    for engine in engines() {
        within(LONG, move || {
            let (_silent, s) = tcp_pair();
            let options = SslFile::options().server().nonblocking(true);
            let server = options.handshake_timeout(Some(Duration::from_millis(300))).open(s, &server_context(engine));
            let server = server.expect("open");
            let backend = Backend::new().expect("backend");
            let (ended, end) = mpsc::channel();
            server.set_close_callback(move |_, why| drop(ended.send(why)));
            server.set_backend(Some(&backend)).expect("set_backend");
            let why = loop {
                backend.turn(Some(Duration::from_secs(5))).expect("turn");
                if let Ok(why) = end.try_recv() {
                    break why.expect_err("silence");
                }
            };
            assert_eq!((why.kind(), kind_of(&why)), (io::ErrorKind::TimedOut, Some(ErrorKind::TimedOut)));
        });
    }
}

/// What has come and is not read yet, the peer's close_notify here, is not for a write to meet.
#[test]
fn a_write_between_two_turns_loses_nothing_that_has_come() {
    for engine in engines() {
        within(LONG, move || {
            let (backend, client, server) = in_backend(engine);
            let (ended, end) = mpsc::channel();
            server.set_read_callback(|_, _| {});
            server.set_close_callback(move |_, why| drop(ended.send(why)));
            (&client).write_all(b"a").expect("write");
            client.shutdown(Shutdown::Write).expect("shutdown");
            let unread = (client.traffic().bytes_sent - server.traffic().bytes_received) as usize;
            let mut arrived = vec![0; unread + 1];
            while server.get_ref().peek(&mut arrived).ok() != Some(unread) {
                thread::sleep(Duration::from_millis(1));
            }
            assert_eq!((&server).read(&mut [0]).expect("read"), 1);
            (&server).write_all(b"b").expect("write");
            let why = loop {
                backend.turn(Some(LONG)).expect("turn");
                if let Ok(why) = end.try_recv() {
                    break why;
                }
            };
            why.expect("a clean end");
        });
    }
}

#[test]
fn a_backend_for_a_stream_without_a_descriptor_is_refused_before_a_byte_is_sent() {
    for engine in engines() {
        let backend = Backend::new().expect("backend");
        let stream = ReadWrite::new(io::Cursor::new(Vec::new()));
        let options = SslFile::options().client(NAME).backend(&backend);
        let refused = options.open(stream, &client_context(engine)).expect_err("refused");
        assert_eq!(refused.error().kind(), io::ErrorKind::Unsupported);
        assert_eq!(refused.into_parts().1.into_inner().into_inner(), b"");
    }
}

#[test]
fn after_shutdown_read_there_is_nothing_to_wait_for() {
    for engine in engines() {
        within(LONG, move || {
            let (client, mut server) = tls_pair(engine);
            server.write_all(b"unread").expect("write");
            assert_eq!(client.peek(&mut [0; 6]).expect("peek"), 6);
            client.shutdown(Shutdown::Read).expect("shutdown");
            assert_eq!((client.pending(), client.interest().readable), (0, false));
        });
    }
}
