//! Time-outs bound whole calls, whatever the peer does, and leave nothing half-done; `interrupt` ends a wait in the
//! same way.

mod interrupt;
mod points;
#[cfg(unix)]
mod signals;
#[path = "../common/wire.rs"]
mod wire;

use crate::common;

use std::io::{self, ErrorKind, Read, Write};
use std::net::Shutdown;
#[cfg(unix)]
use std::net::TcpStream;
#[cfg(unix)]
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
#[cfg(unix)]
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use common::{
    client_context, engines, kind_of, pattern, server_context, tcp_pair, tls_pair, until_busy, within, LONG, NAME,
};
#[cfg(unix)]
use sslfile::Polled;
use sslfile::{Engine, ErrorKind as Kind, Handshake, SslFile, SslOptions, State};
use wire::{Flow, Wire};

/// The time-out most tests set.
const LIMIT: Duration = Duration::from_millis(300);
/// Far above `LIMIT`, and far below what a dripping peer would need.
const SOON: Duration = Duration::from_secs(4);
/// At this pace the first thousand bytes take twenty seconds.
const DRIP: Flow = Flow::Drip(Duration::from_millis(20));

/// Runs the test on each engine.
fn each(test: fn(Engine)) {
    within(2 * LONG, move || engines().into_iter().for_each(test));
}

fn lazy() -> SslOptions {
    SslFile::options().handshake(Handshake::Lazy)
}

/// (client, server) with a wire between them, hands not shaken.
fn unshaken(engine: Engine, options: SslOptions) -> (SslFile, SslFile, Wire) {
    let (client, server, wire) = Wire::new();
    let client = options.clone().client(NAME).open(client, &client_context(engine)).expect("client");
    let server = options.server().open(server, &server_context(engine)).expect("server");
    (client, server, wire)
}

/// The same, open, and all that belongs to the handshake (tickets too) off the wire.
fn open_over_wire(engine: Engine) -> (SslFile, SslFile, Wire) {
    let (client, server, wire) = unshaken(engine, lazy());
    thread::scope(|t| {
        t.spawn(|| exchange(&client, &server));
        server.handshake().expect("server handshake");
    });
    (client, server, wire)
}

/// One byte there and one back, on one thread: what has been written before has been read after.
fn exchange(mut one: &SslFile, mut other: &SslFile) {
    let mut byte = [0];
    one.write_all(&[1]).expect("write");
    other.read_exact(&mut byte).expect("read");
    other.write_all(&[2]).expect("write");
    one.read_exact(&mut byte).expect("read");
    assert_eq!(byte, [2]);
}

/// The default.
const SEND_LIMIT: usize = 256 << 10;

/// The call fails with `TimedOut`, not before the limit and not long after it.
fn times_out<T: std::fmt::Debug>(limit: Duration, call: impl FnOnce() -> io::Result<T>) {
    let start = Instant::now();
    let error = call().expect_err("nothing can have come of it");
    let took = start.elapsed();
    assert_eq!((error.kind(), kind_of(&error)), (ErrorKind::TimedOut, Some(Kind::TimedOut)), "{error}");
    assert!(took >= limit && took < limit + SOON, "limit {limit:?}, took {took:?}");
}

fn read_all(mut file: &SslFile, len: usize) -> Vec<u8> {
    let mut data = vec![0; len];
    file.read_exact(&mut data).expect("read_exact");
    data
}

// ------------------------------------------------------------------------------------------------
// Reading
// ------------------------------------------------------------------------------------------------

#[test]
fn read_from_a_silent_peer() {
    each(|engine| {
        let (client, server) = tls_pair(engine);
        for (mut reader, mut writer) in [(&client, &server), (&server, &client)] {
            reader.set_read_timeout(Some(LIMIT)).expect("set");
            times_out(LIMIT, || reader.read(&mut [0]));
            times_out(LIMIT, || reader.peek(&mut [0]));
            writer.write_all(&[9]).expect("write");
            assert_eq!(read_all(reader, 1), [9]);
            times_out(LIMIT, || reader.read(&mut [0]));
        }
        exchange(&client, &server);
    });
}

#[test]
fn read_from_a_peer_that_drips_a_record() {
    each(|engine| {
        let (client, server, wire) = open_over_wire(engine);
        let data = pattern(1, 2000);
        for (mut reader, mut writer, flow) in [(&client, &server, &wire.to_client), (&server, &client, &wire.to_server)]
        {
            flow.set(DRIP);
            writer.write_all(&data).expect("write");
            reader.set_read_timeout(Some(LIMIT)).expect("set");
            for _ in 0..3 {
                times_out(LIMIT, || reader.read(&mut [0; 4000]));
            }
            flow.set(Flow::Free);
            reader.set_read_timeout(None).expect("set");
            assert!(read_all(reader, data.len()) == data);
        }
        exchange(&client, &server);
    });
}

#[test]
fn read_from_a_peer_that_stops_in_the_middle_of_a_record() {
    each(|engine| {
        let (client, server, wire) = open_over_wire(engine);
        client.set_read_timeout(Some(LIMIT / 3)).expect("set");
        let data = pattern(2, 500);
        // Inside the header, at its end, inside the body, and one byte before the end of a record of 500 bytes and
        // an overhead of at least 5 + 16.
        for n in [1, 4, 5, 6, 100, 520] {
            wire.to_client.set(Flow::Allow(n));
            (&server).write_all(&data).expect("write");
            times_out(LIMIT / 3, || (&client).read(&mut [0; 1000]));
            wire.to_client.set(Flow::Free);
            client.set_read_timeout(Some(LONG)).expect("set");
            assert!(read_all(&client, data.len()) == data, "{n}");
            client.set_read_timeout(Some(LIMIT / 3)).expect("set");
        }
        exchange(&client, &server);
    });
}

#[test]
fn short_timeouts_lose_nothing_of_what_drips() {
    each(|engine| {
        let (client, server, wire) = open_over_wire(engine);
        let data = pattern(3, 1000);
        wire.to_client.set(Flow::Drip(Duration::from_micros(200)));
        client.set_read_timeout(Some(Duration::from_millis(2))).expect("set");
        let (mut got, mut waits) = (Vec::new(), 0);
        thread::scope(|t| {
            t.spawn(|| data.chunks(100).for_each(|piece| (&server).write_all(piece).expect("write")));
            let mut buf = [0; 64];
            while got.len() < data.len() {
                match (&client).read(&mut buf) {
                    Ok(n) => got.extend_from_slice(&buf[..n]),
                    Err(e) => {
                        assert_eq!(e.kind(), ErrorKind::TimedOut, "{e}");
                        waits += 1;
                    }
                }
            }
        });
        assert!(got == data);
        assert!(waits > 0, "nothing timed out, so nothing was shown");
    });
}

#[test]
fn the_smallest_and_the_largest_timeout() {
    each(|engine| {
        let (client, server) = tls_pair(engine);
        // Rounded down to no wait at all it would be std's zero: for ever.
        client.set_read_timeout(Some(Duration::from_nanos(1))).expect("set");
        times_out(Duration::ZERO, || (&client).read(&mut [0]));
        client.set_read_timeout(Some(Duration::MAX)).expect("set");
        client.set_write_timeout(Some(Duration::MAX)).expect("set");
        (&server).write_all(&[1]).expect("write");
        assert_eq!(read_all(&client, 1), [1]);
        thread::scope(|t| {
            let read = t.spawn(|| read_all(&client, 1));
            until_busy(&client);
            (&server).write_all(&[2]).expect("write");
            assert_eq!(read.join().expect("reader"), [2]);
        });
        exchange(&client, &server);
    });
}

#[test]
fn what_is_there_is_read_however_short_the_timeout() {
    each(|engine| {
        let (client, server) = tls_pair(engine);
        (&server).write_all(&[7; 3]).expect("write");
        assert_eq!(client.peek(&mut [0; 3]).expect("peek"), 3);
        client.set_read_timeout(Some(Duration::from_nanos(1))).expect("set");
        assert_eq!(read_all(&client, 3), [7; 3]);
    });
}

#[test]
fn close_clean_waits_for_the_answer_as_long_as_a_read() {
    each(|engine| {
        let (client, server) = tls_pair(engine);
        client.set_read_timeout(Some(LIMIT)).expect("set");
        times_out(LIMIT, || client.close_clean());
        times_out(LIMIT, || client.close_clean());
        assert_eq!((&server).read(&mut [0]).expect("our close_notify"), 0);
        server.close_clean().expect("the answer");
        client.close_clean().expect("may be called again");
    });
}

// ------------------------------------------------------------------------------------------------
// Handshakes
// ------------------------------------------------------------------------------------------------

#[test]
fn read_timeout_in_a_handshake_that_drips_and_goes_on_afterwards() {
    each(|engine| {
        let (client, server, wire) = unshaken(engine, lazy());
        wire.set(DRIP);
        client.set_read_timeout(Some(LIMIT)).expect("set");
        thread::scope(|t| {
            let server = t.spawn(|| (&server).write_all(&[5]).expect("server"));
            for _ in 0..3 {
                times_out(LIMIT, || (&client).read(&mut [0]));
                assert_eq!(client.state(), State::Handshaking);
            }
            times_out(LIMIT, || client.peek(&mut [0]));
            wire.set(Flow::Free);
            client.set_read_timeout(None).expect("set");
            assert_eq!(read_all(&client, 1), [5]);
            server.join().expect("server");
        });
        exchange(&client, &server);
    });
}

#[test]
fn write_timeout_in_a_handshake_that_drips_accepts_nothing() {
    each(|engine| {
        let (client, server, wire) = unshaken(engine, lazy());
        wire.set(DRIP);
        client.set_write_timeout(Some(LIMIT)).expect("set");
        thread::scope(|t| {
            let server = t.spawn(|| read_all(&server, 4));
            for _ in 0..3 {
                times_out(LIMIT, || (&client).write(b"never accepted"));
            }
            assert_eq!(client.unsent(), 0);
            wire.set(Flow::Free);
            client.set_write_timeout(None).expect("set");
            (&client).write_all(b"once").expect("write");
            assert_eq!(server.join().expect("server"), b"once");
        });
        exchange(&client, &server);
    });
}

#[test]
fn timeouts_of_a_server_hold_in_its_handshake_too() {
    each(|engine| {
        let (client, server, wire) = unshaken(engine, lazy());
        wire.to_server.set(DRIP);
        server.set_read_timeout(Some(LIMIT)).expect("set");
        server.set_write_timeout(Some(LIMIT)).expect("set");
        thread::scope(|t| {
            let client = t.spawn(|| read_all(&client, 1));
            times_out(LIMIT, || (&server).read(&mut [0]));
            times_out(LIMIT, || (&server).write(&[0]));
            wire.set(Flow::Free);
            server.set_write_timeout(None).expect("set");
            (&server).write_all(&[1]).expect("write");
            assert_eq!(client.join().expect("client"), [1]);
        });
        server.set_read_timeout(None).expect("set");
        exchange(&client, &server);
    });
}

#[test]
fn handshake_that_stops_in_the_middle_of_a_record_goes_on_afterwards() {
    each(|engine| {
        // Bytes of the hello, and of the server's flight.
        for n in [1, 5, 100, 200] {
            let (client, server, wire) = unshaken(engine, lazy());
            for flow in [&wire.to_server, &wire.to_client] {
                wire.set(Flow::Free);
                flow.set(Flow::Allow(n));
                for mut file in [&client, &server] {
                    file.set_read_timeout(Some(LIMIT / 3)).expect("set");
                    times_out(LIMIT / 3, || file.read(&mut [0]));
                    times_out(LIMIT / 3, || file.handshake());
                    file.set_read_timeout(None).expect("set");
                    assert_eq!(file.state(), State::Handshaking, "{n}");
                }
            }
            wire.set(Flow::Free);
            thread::scope(|t| {
                t.spawn(|| client.handshake().expect("client handshake"));
                server.handshake().expect("server handshake");
            });
            exchange(&client, &server);
        }
    });
}

#[test]
fn handshake_timeout_is_a_budget_for_the_whole_handshake_and_final() {
    each(|engine| {
        let options = lazy().handshake_timeout(Some(LIMIT));
        let (client, server, wire) = unshaken(engine, options);
        wire.set(DRIP);
        thread::scope(|t| {
            for mut file in [&client, &server] {
                t.spawn(move || {
                    times_out(LIMIT, || file.read(&mut [0]));
                    assert_eq!(file.state(), State::Failed);
                    assert!(!file.is_handshake_done());
                    // The same error, and at once.
                    let later: [io::Result<()>; 4] = [
                        file.read(&mut [0]).map(drop),
                        file.write(&[0]).map(drop),
                        file.peek(&mut [0]).map(drop),
                        file.handshake(),
                    ];
                    for result in later {
                        let error = result.expect_err("it is final");
                        assert_eq!((error.kind(), kind_of(&error)), (ErrorKind::TimedOut, Some(Kind::TimedOut)));
                    }
                });
            }
        });
        wire.set(Flow::Free);
        times_out(Duration::ZERO, || client.handshake());
    });
}

#[test]
fn handshake_timeout_is_kept_in_pieces_and_by_any_thread() {
    each(|engine| {
        // A first caller gives up early; the budget runs on, and the second one hits it.
        let (client, _silent) = tcp_pair();
        let options = lazy().client(NAME).handshake_timeout(Some(2 * LIMIT));
        let start = Instant::now();
        let file = options.open(client, &client_context(engine)).expect("open");
        file.set_read_timeout(Some(LIMIT / 3)).expect("set");
        times_out(LIMIT / 3, || (&file).read(&mut [0]));
        assert_eq!(file.state(), State::Handshaking);
        file.set_read_timeout(None).expect("set");
        thread::scope(|t| {
            for _ in 0..3 {
                t.spawn(|| times_out(Duration::ZERO, || file.handshake()));
            }
        });
        assert!(start.elapsed() >= 2 * LIMIT, "{:?}", start.elapsed());
        assert_eq!(file.state(), State::Failed);
    });
}

#[test]
fn handshake_timeout_of_an_eager_open_gives_the_stream_back() {
    each(|engine| {
        let (client, mut peer) = tcp_pair();
        let start = Instant::now();
        let failed = SslFile::options()
            .client(NAME)
            .handshake_timeout(Some(LIMIT))
            .open(client, &client_context(engine))
            .expect_err("silent");
        assert!(start.elapsed() >= LIMIT, "{:?}", start.elapsed());
        assert_eq!(failed.kind(), Kind::TimedOut);
        let (error, mut stream, unread) = failed.into_parts();
        assert_eq!((error.kind(), unread), (ErrorKind::TimedOut, Vec::new()), "{error}");
        // What failed, and with whom.
        let text = error.to_string();
        assert!(text.contains("handshake") && text.contains(NAME) && text.contains("127.0.0.1:"), "{text}");
        stream.write_all(b"plain").expect("write");
        drop(stream);
        let mut sent = Vec::new();
        peer.read_to_end(&mut sent).expect("read");
        assert!(sent.ends_with(b"plain"));

        let (_silent, server) = tcp_pair();
        let options = SslFile::options().server().handshake_timeout(Some(LIMIT));
        let failed = options.open(server, &server_context(engine)).expect_err("silent");
        assert_eq!((failed.kind(), failed.error().kind()), (Kind::TimedOut, ErrorKind::TimedOut));
    });
}

#[test]
fn without_a_handshake_timeout_a_handshake_has_all_the_time() {
    each(|engine| {
        let (client, server, wire) = unshaken(engine, lazy().handshake_timeout(None));
        wire.set(Flow::Allow(0));
        thread::scope(|t| {
            let done = [t.spawn(|| client.handshake()), t.spawn(|| server.handshake())];
            until_busy(&client);
            until_busy(&server);
            thread::sleep(LIMIT);
            assert!(done.iter().all(|thread| !thread.is_finished()));
            wire.set(Flow::Free);
            done.into_iter().for_each(|thread| thread.join().expect("thread").expect("handshake"));
        });
        exchange(&client, &server);
    });
}

#[test]
fn handshake_timeout_is_thirty_seconds_unless_set() {
    within(2 * LONG, || {
        let default = Duration::from_secs(30);
        let start = Instant::now();
        thread::scope(|t| {
            for engine in engines() {
                t.spawn(move || {
                    let (client, _silent) = tcp_pair();
                    let failed = SslFile::client(client, &client_context(engine), NAME).expect_err("silent");
                    assert_eq!(failed.kind(), Kind::TimedOut);
                    assert!(start.elapsed() >= default, "{:?}", start.elapsed());
                });
                t.spawn(move || {
                    let (_silent, server) = tcp_pair();
                    let file = lazy().server().open(server, &server_context(engine)).expect("open");
                    let error = (&file).read(&mut [0]).expect_err("silent");
                    assert_eq!(kind_of(&error), Some(Kind::TimedOut), "{error}");
                    assert!(start.elapsed() >= default, "{:?}", start.elapsed());
                });
            }
        });
        let took = start.elapsed();
        assert!(took >= default && took < 2 * default, "{took:?}");
    });
}

// ------------------------------------------------------------------------------------------------
// Writing
// ------------------------------------------------------------------------------------------------

/// Writes until it times out; gives the number of bytes that were accepted.
fn fill(mut file: &SslFile, data: &[u8]) -> usize {
    let mut accepted = 0;
    loop {
        assert!(accepted < data.len(), "the peer's buffers took everything");
        let start = Instant::now();
        match file.write(&data[accepted..data.len().min(accepted + 100_000)]) {
            Ok(n) => accepted += n,
            Err(e) => {
                assert_eq!((e.kind(), kind_of(&e)), (ErrorKind::TimedOut, Some(Kind::TimedOut)), "{e}");
                assert!(start.elapsed() >= LIMIT && start.elapsed() < LIMIT + SOON, "{:?}", start.elapsed());
                return accepted;
            }
        }
    }
}

#[test]
fn write_to_a_peer_that_does_not_read_accounts_for_every_byte() {
    each(|engine| {
        let (client, server) = tls_pair(engine);
        for (mut writer, reader) in [(&client, &server), (&server, &client)] {
            let data = pattern(4, 32 << 20);
            writer.set_write_timeout(Some(LIMIT)).expect("set");
            let accepted = fill(writer, &data);
            // Twice more, with other bytes: none of them is accepted.
            times_out(LIMIT, || writer.write(b"not these"));
            times_out(LIMIT, || writer.write(b"nor those, and they are more"));
            writer.set_write_timeout(None).expect("set");
            thread::scope(|t| {
                t.spawn(move || writer.write_all(b"the end").expect("write after time-outs"));
                assert!(read_all(reader, accepted) == data[..accepted]);
                assert_eq!(read_all(reader, 7), b"the end");
            });
        }
        exchange(&client, &server);
    });
}

#[test]
fn one_large_write_to_a_slow_reader_ends_on_time() {
    each(|engine| {
        let (client, server) = tls_pair(engine);
        // Small buffers, so that there is room for a little more all the time.
        socket2::SockRef::from(client.get_ref()).set_send_buffer_size(16_384).expect("SO_SNDBUF");
        socket2::SockRef::from(server.get_ref()).set_recv_buffer_size(16_384).expect("SO_RCVBUF");
        let data = pattern(5, 32 << 20);
        client.set_write_timeout(Some(LIMIT)).expect("set");
        let stop = AtomicBool::new(false);
        let (written, read) = thread::scope(|t| {
            let reader = t.spawn(|| {
                let (mut got, mut buf) = (Vec::new(), vec![0; 4096]);
                while !stop.load(SeqCst) {
                    // Slow, but never silent.
                    let n = (&server).read(&mut buf).expect("read");
                    got.extend_from_slice(&buf[..n]);
                    thread::sleep(Duration::from_millis(5));
                }
                (&server).read_to_end(&mut got).expect("the rest");
                got
            });
            let start = Instant::now();
            let written = match (&client).write(&data) {
                Ok(n) => n,
                Err(e) => {
                    assert_eq!(e.kind(), ErrorKind::TimedOut, "{e}");
                    0
                }
            };
            assert!(start.elapsed() < LIMIT + SOON, "{:?}", start.elapsed());
            stop.store(true, SeqCst);
            client.set_write_timeout(None).expect("set");
            client.shutdown(Shutdown::Write).expect("shutdown");
            (&client).flush().expect("flush");
            (written, reader.join().expect("reader"))
        });
        assert!(written < data.len(), "it took everything in time, so nothing was shown");
        assert!(read == data[..written], "accepted {written}, read {}", read.len());
    });
}

#[test]
fn flush_times_out_while_the_peer_does_not_read() {
    each(|engine| {
        let (client, server) = tls_pair(engine);
        client.set_nonblocking(true).expect("set_nonblocking");
        let data = pattern(6, 32 << 20);
        let mut accepted = 0;
        // Once more after a pause: the kernel moves bytes to the peer's side for a while.
        for _ in 0..3 {
            while let Ok(n) = (&client).write(&data[accepted..accepted + 50_000]) {
                accepted += n;
            }
            thread::sleep(Duration::from_millis(50));
        }
        assert_ne!(client.unsent(), 0);
        assert_eq!((&client).flush().expect_err("stuck").kind(), ErrorKind::WouldBlock);
        client.set_nonblocking(false).expect("set_nonblocking");
        client.set_write_timeout(Some(LIMIT)).expect("set");
        times_out(LIMIT, || (&client).flush());
        client.set_write_timeout(None).expect("set");
        thread::scope(|t| {
            t.spawn(|| (&client).flush().expect("flush"));
            assert!(read_all(&server, accepted) == data[..accepted]);
        });
        assert_eq!(client.unsent(), 0);
        exchange(&client, &server);
    });
}

// ------------------------------------------------------------------------------------------------
// Others hold the turn
// ------------------------------------------------------------------------------------------------

#[test]
fn read_times_out_while_another_thread_reads_without_limit() {
    each(|engine| {
        let (client, server) = tls_pair(engine);
        thread::scope(|t| {
            let first = t.spawn(|| read_all(&client, 1));
            until_busy(&client);
            // As with a socket, the new value is for calls that start from now on.
            client.set_read_timeout(Some(LIMIT)).expect("set");
            times_out(LIMIT, || (&client).read(&mut [0]));
            times_out(LIMIT, || client.peek(&mut [0]));
            assert!(!first.is_finished());
            (&server).write_all(&[4]).expect("write");
            assert_eq!(first.join().expect("reader"), [4]);
        });
        exchange(&client, &server);
    });
}

#[test]
fn write_times_out_while_another_thread_writes_without_limit() {
    each(|engine| {
        let (client, server) = tls_pair(engine);
        let data = pattern(7, 16 << 20);
        thread::scope(|t| {
            let first = t.spawn(|| (&client).write_all(&data).expect("write_all"));
            until_busy(&client);
            // Nobody reads, so it stays where it is, whoever of us is served first.
            thread::sleep(LIMIT);
            client.set_write_timeout(Some(LIMIT)).expect("set");
            // What does not fit under the send limit waits for its turn; what does is queued.
            times_out(LIMIT, || (&client).write(&data[..SEND_LIMIT + 1]));
            assert_eq!((&client).write(b"but these").expect("queued"), 9);
            client.set_write_timeout(None).expect("set");
            assert!(!first.is_finished());
            assert!(read_all(&server, data.len()) == data);
            assert_eq!(read_all(&server, 9), b"but these");
            first.join().expect("writer");
        });
        exchange(&client, &server);
    });
}

#[test]
fn handshake_of_another_thread_does_not_stretch_a_timeout() {
    each(|engine| {
        let (client, server, wire) = unshaken(engine, lazy());
        wire.set(Flow::Allow(0));
        thread::scope(|t| {
            let first = t.spawn(|| client.handshake().expect("handshake"));
            until_busy(&client);
            client.set_read_timeout(Some(LIMIT)).expect("set");
            client.set_write_timeout(Some(LIMIT)).expect("set");
            times_out(LIMIT, || (&client).read(&mut [0]));
            times_out(LIMIT, || (&client).write(&[0]));
            assert!(!first.is_finished());
            wire.set(Flow::Free);
            server.handshake().expect("handshake");
            first.join().expect("client");
        });
        client.set_read_timeout(None).expect("set");
        exchange(&client, &server);
    });
}

#[test]
fn many_threads_with_short_timeouts_lose_neither_turn_nor_byte() {
    const EACH: usize = 300_000;
    const THREADS: usize = 4;
    each(|engine| {
        let (client, server, wire) = open_over_wire(engine);
        socket2::SockRef::from(client.get_ref()).set_send_buffer_size(8192).expect("SO_SNDBUF");
        client.set_write_timeout(Some(Duration::from_millis(1))).expect("set");
        server.set_read_timeout(Some(Duration::from_millis(1))).expect("set");
        let (done, waits) = (AtomicBool::new(false), [AtomicUsize::new(0), AtomicUsize::new(0)]);
        // Nothing accepted or taken, so try again; whether it was a time-out or an interrupt.
        let gave_up = |e: io::Error, which: usize| {
            assert!(matches!(kind_of(&e), Some(Kind::TimedOut | Kind::Interrupted)), "{e:?}");
            waits[which].fetch_add(1, SeqCst);
        };
        let counts = thread::scope(|t| {
            let writers: Vec<_> = (0..THREADS)
                .map(|id| {
                    let (mut client, gave_up) = (&client, &gave_up);
                    t.spawn(move || {
                        let (chunk, mut left) = (vec![id as u8; 30_000], EACH);
                        while left > 0 {
                            // From one byte to more than a record.
                            let len = (left * 7919 % 30_000 + 1).min(left);
                            match client.write(&chunk[..len]) {
                                Ok(n) => left -= n,
                                Err(e) => gave_up(e, 0),
                            }
                        }
                    })
                })
                .collect();
            let readers: Vec<_> = (0..THREADS)
                .map(|_| {
                    let (mut server, gave_up) = (&server, &gave_up);
                    t.spawn(move || {
                        let (mut counts, mut buf) = ([0; THREADS], vec![0; 20_000]);
                        loop {
                            match server.read(&mut buf) {
                                Ok(0) => return counts,
                                Ok(n) => buf[..n].iter().for_each(|id| counts[*id as usize] += 1),
                                Err(e) => gave_up(e, 1),
                            }
                        }
                    })
                })
                .collect();
            // The wire stalls again and again, and somebody interrupts whoever waits.
            let disturber = t.spawn(|| {
                while !done.load(SeqCst) {
                    wire.to_server.set(Flow::Allow(20_000));
                    thread::sleep(Duration::from_millis(5));
                    client.interrupt();
                    server.interrupt();
                }
                wire.set(Flow::Free);
            });
            writers.into_iter().for_each(|writer| writer.join().expect("writer"));
            done.store(true, SeqCst);
            // Its last interrupt must not meet the flush.
            disturber.join().expect("disturber");
            client.set_write_timeout(None).expect("set");
            client.shutdown(Shutdown::Write).expect("shutdown");
            (&client).flush().expect("flush");
            readers.into_iter().map(|reader| reader.join().expect("reader")).fold([0; THREADS], |mut sum, counts| {
                sum.iter_mut().zip(counts).for_each(|(sum, n)| *sum += n);
                sum
            })
        });
        assert_eq!(counts, [EACH; THREADS]);
        assert!(waits.iter().all(|n| n.load(SeqCst) > 0), "nobody gave up, so nothing was shown: {waits:?}");
    });
}

/// A socket that takes all it is given at once, from some moment on.
#[cfg(unix)]
struct Bottomless {
    tcp: TcpStream,
    is_open: Arc<AtomicBool>,
}

#[cfg(unix)]
impl AsFd for Bottomless {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.tcp.as_fd()
    }
}

#[cfg(unix)]
impl Read for Bottomless {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.tcp.read(buf)
    }
}

#[cfg(unix)]
impl Write for Bottomless {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        if self.is_open.load(SeqCst) {
            Ok(buf.len())
        } else {
            self.tcp.write(buf)
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Time is over, whatever room there is: nobody who reads as fast as we write makes a call last for ever.
#[cfg(unix)]
#[test]
fn a_stream_that_takes_all_does_not_stretch_a_write() {
    /// More than is encrypted within the time-out. Nobody writes to it: it takes no memory.
    const MUCH: usize = 1 << 30;
    each(|engine| {
        let (c, s) = tcp_pair();
        c.set_nonblocking(true).expect("set_nonblocking");
        let is_open = Arc::new(AtomicBool::new(false));
        let stream = Polled::new(Bottomless { tcp: c, is_open: is_open.clone() });
        let server = thread::spawn(move || SslFile::server(s, &server_context(engine)).expect("server"));
        let options = SslFile::options().client(NAME).nonblocking(false);
        let client = options.open(stream, &client_context(engine)).expect("client");
        let server = server.join().expect("server");
        is_open.store(true, SeqCst);
        client.set_write_timeout(Some(LIMIT)).expect("set_write_timeout");
        let start = Instant::now();
        let n = { &client }.write(&vec![0; MUCH]).expect("what was accepted in time");
        let lasted = start.elapsed();
        assert!(lasted >= LIMIT && n < MUCH, "{engine:?}: {n} bytes in {lasted:?}");
        client.abort();
        drop(server);
    });
}
