//! P4 blocking or not at any time, P5 deadlines.

use std::io::{ErrorKind, Read, Write};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use sslfile::{Engine, Handshake, SslFile, State, Stream};

use super::drive::*;
use super::wires::{Mode, Raw, Wire};
use crate::common::{client_context, kind_of, pattern, server_context, NAME};

/// What is asked for, and what it may become on a machine that does other things as well. The drips below take far longer.
const TIMEOUT: Duration = Duration::from_millis(300);
const AT_MOST: Duration = Duration::from_secs(6);
const DRIP: Duration = Duration::from_millis(40);

fn timed<T>(call: impl FnOnce() -> T) -> (T, Duration) {
    let start = Instant::now();
    let value = call();
    (value, start.elapsed())
}

fn assert_timed_out<T: std::fmt::Debug>(result: std::io::Result<T>, took: Duration) {
    let error = result.expect_err("should have timed out");
    assert_eq!(error.kind(), ErrorKind::TimedOut, "{error}");
    assert_eq!(kind_of(&error), Some(sslfile::ErrorKind::TimedOut));
    assert!(took >= TIMEOUT, "after {took:?}");
    assert!(took < AT_MOST, "stretched to {took:?}");
}

/// P4: switched in mid-handshake and in mid-transfer, both ways.
pub fn blocking_or_not<W: Wire>(engine: Engine, mode: Mode) {
    if !W::DESCRIPTOR {
        return no_switching::<W>(engine, mode);
    }
    switched_in_mid_handshake::<W>(engine, mode);
    switched_in_mid_transfer::<W>(engine, mode);
}

fn no_switching<W: Wire>(engine: Engine, mode: Mode) {
    let (client, server) = files::<W>(engine, mode);
    let refused = client.set_nonblocking(mode == Mode::Blocking).expect_err("switched");
    assert_eq!(refused.kind(), ErrorKind::Unsupported, "{refused}");
    assert_eq!(kind_of(&refused), Some(sslfile::ErrorKind::Unsupported));
    assert_eq!(client.is_nonblocking(), mode == Mode::Nonblocking);
    put(&client, mode, b"as before").expect("write");
    assert_eq!(get(&server, mode, 9).expect("read"), b"as before");
}

fn switched_in_mid_handshake<W: Wire>(engine: Engine, mode: Mode) {
    let (c, s) = W::pair(engine, mode);
    let open = SslFile::options().nonblocking(true);
    let client = open.clone().client(NAME).open(c, &client_context(engine)).expect("client");
    assert_eq!(client.state(), State::Handshaking);
    assert!(would_block(&client.handshake()), "nobody has answered yet");
    assert!(would_block(&(&client).read(&mut [0; 8])));
    assert!(would_block(&(&client).write(b"not yet")));
    assert!(!client.is_handshake_done());

    // A lazy blocking file made non-blocking before its first step.
    let server =
        SslFile::options().server().handshake(Handshake::Lazy).open(s, &server_context(engine)).expect("server");
    server.set_nonblocking(true).expect("switch");
    assert!(server.is_nonblocking());
    // Until each has waited for the other at least once: TLS 1.2 and 1.3 both have that.
    while !would_block(&server.handshake()) {}

    let blocking_end = mode == Mode::Blocking;
    thread::scope(|t| {
        t.spawn(|| {
            client.set_nonblocking(false).expect("switch");
            assert!(!client.is_nonblocking());
            client.handshake().expect("a blocking handshake takes over");
        });
        server.set_nonblocking(!blocking_end).expect("switch");
        let rest = if blocking_end { Mode::Blocking } else { Mode::Nonblocking };
        again(rest, || server.handshake()).expect("handshake");
    });
    client.set_nonblocking(true).expect("switch");
    assert!(would_block(&(&client).read(&mut [0; 8])));
    put(&client, Mode::Nonblocking, b"done").expect("write");
    server.set_nonblocking(false).expect("switch");
    assert_eq!(get(&server, Mode::Blocking, 4).expect("read"), b"done");
}

fn switched_in_mid_transfer<W: Wire>(engine: Engine, mode: Mode) {
    let (client, server) = files::<W>(engine, mode);
    let data = pattern(8, 12 << 20);
    client.set_nonblocking(true).expect("switch");
    let mut done = 0;
    loop {
        match (&client).write(&data[done..]) {
            Ok(n) => done += n,
            Err(e) => {
                assert_eq!(e.kind(), ErrorKind::WouldBlock, "{e}");
                break;
            }
        }
        assert!(done < data.len(), "the stream swallowed it all");
    }
    thread::scope(|t| {
        // The peer changes its mind at every read, within a record as well.
        t.spawn(|| {
            let mut got = Vec::new();
            let mut buf = vec![0; 10_007];
            while got.len() < data.len() {
                let blocking = got.len() % 2 == 0;
                server.set_nonblocking(!blocking).expect("switch");
                match (&server).read(&mut buf) {
                    Ok(n) => got.extend_from_slice(&buf[..n]),
                    Err(e) => {
                        assert!(!blocking && e.kind() == ErrorKind::WouldBlock, "{e}");
                        server.set_nonblocking(false).expect("switch");
                        let n = (&server).read(&mut buf[..1]).expect("read");
                        got.extend_from_slice(&buf[..n]);
                    }
                }
            }
            assert!(got == data);
        });
        // The writer finishes in blocking mode what it began in the other.
        client.set_nonblocking(false).expect("switch");
        put(&client, Mode::Blocking, &data[done..]).expect("write");
    });
}

/// P5: a time-out bounds the whole call, and nothing is half-done after it.
pub fn deadlines<W: Wire>(engine: Engine, mode: Mode) {
    half_a_record_is_no_data::<W>(engine, mode);
    if mode == Mode::Nonblocking {
        return;
    }
    if !W::DESCRIPTOR {
        return no_time_outs::<W>(engine);
    }
    silent_peer::<W>(engine);
    dripping_peer::<W>(engine);
    peer_that_does_not_read::<W>(engine);
    dripping_handshake::<W>(engine);
}

fn no_time_outs<W: Wire>(engine: Engine) {
    let (client, _server) = files::<W>(engine, Mode::Blocking);
    for refused in [client.set_read_timeout(Some(TIMEOUT)), client.set_write_timeout(Some(TIMEOUT))] {
        let refused = refused.expect_err("a time-out without a descriptor");
        assert_eq!(refused.kind(), ErrorKind::Unsupported, "{refused}");
        assert_eq!(kind_of(&refused), Some(sslfile::ErrorKind::Unsupported));
    }
}

/// The record that came in two parts is read as one; between them there is nothing to read.
fn half_a_record_is_no_data<W: Wire>(engine: Engine, mode: Mode) {
    let (file, mut peer) = client_file::<W>(engine, mode);
    let data = pattern(9, 3000);
    let record = peer.seal(&data);
    let (first, rest) = record.split_at(record.len() / 2);
    peer.raw.writer.write_all(first).expect("half a record");
    peer.raw.writer.flush().expect("flush");
    if mode == Mode::Nonblocking {
        for _ in 0..20 {
            assert!(would_block(&(&file).read(&mut [0; 100])));
            pause();
        }
    } else if W::DESCRIPTOR {
        file.set_read_timeout(Some(TIMEOUT)).expect("set_read_timeout");
        let (result, took) = timed(|| (&file).read(&mut [0; 100]));
        assert_timed_out(result, took);
        file.set_read_timeout(None).expect("set_read_timeout");
    }
    peer.raw.writer.write_all(rest).expect("the rest");
    peer.raw.writer.flush().expect("flush");
    assert!(get(&file, mode, data.len()).expect("read") == data);
    still_works(&file, &mut peer, mode);
}

fn still_works<S: Stream>(file: &SslFile<S>, peer: &mut Peer, mode: Mode) {
    put(file, mode, b"still").expect("write");
    assert_eq!(peer.hear(5), b"still");
    peer.say(b"here");
    assert_eq!(get(file, mode, 4).expect("read"), b"here");
}

fn silent_peer<W: Wire>(engine: Engine) {
    let (file, mut peer) = client_file::<W>(engine, Mode::Blocking);
    file.set_read_timeout(Some(TIMEOUT)).expect("set_read_timeout");
    assert_eq!(file.read_timeout().expect("read_timeout"), Some(TIMEOUT));
    for _ in 0..2 {
        let (result, took) = timed(|| (&file).read(&mut [0; 8]));
        assert_timed_out(result, took);
    }
    let (result, took) = timed(|| file.peek(&mut [0; 8]));
    assert_timed_out(result, took);
    file.set_read_timeout(None).expect("set_read_timeout");
    still_works(&file, &mut peer, Mode::Blocking);
}

/// Sends one byte at a time until told to stop, then the rest at once.
fn drip(raw: &mut Raw, bytes: &[u8], stop: mpsc::Receiver<()>) {
    let mut sent = 0;
    while sent < bytes.len() {
        match stop.recv_timeout(DRIP) {
            Err(mpsc::RecvTimeoutError::Timeout) => {
                raw.writer.write_all(&bytes[sent..=sent]).expect("drip");
                raw.writer.flush().expect("drip");
                sent += 1;
            }
            Ok(()) | Err(mpsc::RecvTimeoutError::Disconnected) => {
                raw.writer.write_all(&bytes[sent..]).expect("the rest");
                return raw.writer.flush().expect("the rest");
            }
        }
    }
}

fn dripping_peer<W: Wire>(engine: Engine) {
    let (file, mut peer) = client_file::<W>(engine, Mode::Blocking);
    let data = pattern(10, 2000);
    let record = peer.seal(&data);
    file.set_read_timeout(Some(TIMEOUT)).expect("set_read_timeout");
    let (stop, stopped) = mpsc::channel();
    thread::scope(|t| {
        t.spawn(|| drip(&mut peer.raw, &record, stopped));
        for _ in 0..2 {
            let (result, took) = timed(|| (&file).read(&mut [0; 8]));
            assert_timed_out(result, took);
        }
        stop.send(()).expect("dripper");
    });
    file.set_read_timeout(None).expect("set_read_timeout");
    assert!(get(&file, Mode::Blocking, data.len()).expect("read") == data);
    still_works(&file, &mut peer, Mode::Blocking);
}

/// What `write` accepted before the time-out arrives, once; what it refused does not.
fn peer_that_does_not_read<W: Wire>(engine: Engine) {
    let (file, mut peer) = client_file::<W>(engine, Mode::Blocking);
    file.set_write_timeout(Some(TIMEOUT)).expect("set_write_timeout");
    assert_eq!(file.write_timeout().expect("write_timeout"), Some(TIMEOUT));
    let data = pattern(11, 32 << 20);
    let mut accepted = Vec::new();
    loop {
        let at = accepted.len();
        let (result, took) = timed(|| (&file).write(&data[at..at + (1 << 20)]));
        assert!(took < AT_MOST, "stretched to {took:?}");
        match result {
            Ok(n) => accepted.extend_from_slice(&data[at..at + n]),
            Err(_) => {
                assert_timed_out(result, took);
                break;
            }
        }
        assert!(accepted.len() < 31 << 20, "the stream swallowed it all");
    }
    // Reading is not disturbed by it, and neither is the next write, of other bytes.
    peer.say(b"word");
    assert_eq!(get(&file, Mode::Blocking, 4).expect("read"), b"word");
    file.set_write_timeout(None).expect("set_write_timeout");
    thread::scope(|t| {
        t.spawn(|| put(&file, Mode::Blocking, b"other bytes").expect("write"));
        assert!(peer.hear(accepted.len()) == accepted);
        assert_eq!(peer.hear(11), b"other bytes");
    });
    still_works(&file, &mut peer, Mode::Blocking);
}

fn dripping_handshake<W: Wire>(engine: Engine) {
    let (end, raw) = W::raw(engine, Mode::Blocking);
    let mut peer = Peer::client(engine, raw);
    let _ = peer.tls.handshake();
    let hello = peer.take_output();
    assert!(DRIP * hello.len() as u32 > AT_MOST + TIMEOUT, "a hello of {} bytes", hello.len());
    let (stop, stopped) = mpsc::channel();
    let mut raw = peer.raw;
    let (failed, took) = thread::scope(|t| {
        t.spawn(move || drip(&mut raw, &hello, stopped));
        let (opened, took) =
            timed(|| SslFile::options().server().handshake_timeout(Some(TIMEOUT)).open(end, &server_context(engine)));
        stop.send(()).expect("dripper");
        (opened.expect_err("should have timed out"), took)
    });
    assert_eq!(failed.kind(), sslfile::ErrorKind::TimedOut);
    let (error, _stream, _unread) = failed.into_parts();
    assert_timed_out(Err::<(), _>(error), took);
}
