//! P6 `Ok(n)` means n bytes accepted, once; P7 nothing forged.

use std::io::{ErrorKind, Read, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use sslfile::ErrorKind as TlsError;
use sslfile::{Engine, Handshake, SslFile, State, Stream};

use super::drive::*;
use super::wires::{Mode, Raw, Wire};
use crate::common::{client_context, kind_of, pattern, server_context, NAME};

/// P6: refused bytes never appear, accepted ones appear once and in order, and `close` at once loses none.
pub fn accepted_once<W: Wire>(engine: Engine, mode: Mode) {
    zero_lengths::<W>(engine, mode);
    let (client, server) = files::<W>(engine, mode);
    let start_reading = AtomicBool::new(false);
    thread::scope(|t| {
        let reader = t.spawn(|| {
            while !start_reading.load(Ordering::Acquire) {
                pause();
            }
            let all = drain(&server, mode);
            again(mode, || server.close()).expect("close");
            all
        });
        // Blocking writes need the reader; the others are to be refused first.
        start_reading.store(mode == Mode::Blocking, Ordering::Release);
        let accepted = write_and_change_the_buffer(&client, &start_reading);
        // At once, with the server's tickets unread: the client has never called `read`.
        again(mode, || client.close()).expect("close");
        let (got, end) = reader.join().expect("reader");
        end.expect("close_notify");
        assert_eq!(got.len(), accepted.len());
        assert!(got == accepted);
    });
    assert_eq!(client.state(), State::Closed);
}

/// Sizes from 1 byte to 200 KB; after each refusal another buffer, of another length, from another place.
fn write_and_change_the_buffer<S: Stream>(file: &SslFile<S>, refused: &AtomicBool) -> Vec<u8> {
    const TOTAL: usize = 8 << 20;
    let source = pattern(12, TOTAL + (1 << 20));
    let mut accepted = Vec::new();
    let mut at = 0;
    let mut turn: usize = 0;
    while accepted.len() < TOTAL {
        turn += 1;
        let size = 1 + (turn * turn * 7919) % [40, 3000, 20_000, 200_000][turn % 4];
        match (&*file).write(&source[at..at + size]) {
            Ok(n) => {
                assert!(n >= 1 && n <= size, "{n} of {size} bytes accepted");
                accepted.extend_from_slice(&source[at..at + n]);
                at += n;
            }
            Err(e) => {
                assert_eq!(e.kind(), ErrorKind::WouldBlock, "{e}");
                refused.store(true, Ordering::Release);
                pause();
                at += 1013;
            }
        }
        at %= TOTAL;
    }
    assert!(refused.load(Ordering::Relaxed), "the stream never refused anything");
    accepted
}

fn zero_lengths<W: Wire>(engine: Engine, mode: Mode) {
    let (client, server) = files::<W>(engine, mode);
    assert_eq!((&client).read(&mut []).expect("nothing read"), 0);
    assert_eq!((&client).write(&[]).expect("nothing written"), 0);
    put(&client, mode, b"more").expect("write");
    assert_eq!(get(&server, mode, 4).expect("read"), b"more");
}

/// P7: `Ok(0)` is the peer's close_notify; everything else that ends a connection is an error, behind the data and for ever.
pub fn nothing_forged<W: Wire>(engine: Engine, mode: Mode) {
    for from_client in [true, false] {
        let open = || match from_client {
            true => client_file::<W>(engine, mode),
            false => server_file::<W>(engine, mode),
        };
        clean_end(open(), mode);
        cut_between_records(open(), mode);
        cut_within_a_record(open(), mode);
        forged_record::<W>(open(), mode);
    }
    silent_to_the_server::<W>(engine, mode);
    silent_to_the_client::<W>(engine, mode);
}

type Opened<S> = (SslFile<S>, Peer);

fn clean_end<S: Stream>((file, mut peer): Opened<S>, mode: Mode) {
    let mut records = peer.seal(b"the whole story");
    records.extend(peer.seal_close());
    peer.raw.writer.write_all(&records).expect("write");
    peer.raw.writer.flush().expect("flush");
    let (data, end) = drain(&file, mode);
    end.expect("close_notify");
    assert_eq!(data, b"the whole story");
    drop(peer);
    for _ in 0..3 {
        assert_eq!((&file).read(&mut [0; 8]).expect("it stays the end"), 0);
    }
    assert_eq!(file.state(), State::PeerClosed);
    assert!(!file.is_open());
}

fn assert_cut<S: Stream>(file: &SslFile<S>, mode: Mode, expected: &[u8]) {
    let (data, end) = drain(file, mode);
    assert_eq!(data, expected, "what did arrive comes first");
    let error = end.expect_err("a cut is no end");
    assert_eq!(error.kind(), ErrorKind::BrokenPipe, "{error}");
    assert_eq!(kind_of(&error), Some(TlsError::Truncated));
    for _ in 0..3 {
        let error = (&*file).read(&mut [0; 8]).expect_err("it stays a cut");
        assert_eq!(error.kind(), ErrorKind::BrokenPipe, "{error}");
        assert_eq!(kind_of(&error), Some(TlsError::Truncated));
    }
    assert_eq!(file.peek(&mut [0; 8]).expect_err("a cut").kind(), ErrorKind::BrokenPipe);
    assert_eq!(file.state(), State::Failed);
    assert!(!file.is_open());
}

fn cut_between_records<S: Stream>((file, mut peer): Opened<S>, mode: Mode) {
    peer.say(b"half of the ");
    drop(peer);
    assert_cut(&file, mode, b"half of the ");
}

fn cut_within_a_record<S: Stream>((file, mut peer): Opened<S>, mode: Mode) {
    peer.say(b"one record, ");
    let record = peer.seal(b"and most of another");
    peer.raw.writer.write_all(&record[..record.len() - 1]).expect("write");
    drop(peer);
    assert_cut(&file, mode, b"one record, ");
}

fn forged_record<W: Wire>((file, mut peer): Opened<W::End>, mode: Mode) {
    peer.say(b"genuine");
    let mut record = peer.seal(b"not what it seems");
    let last = record.len() - 1;
    record[last] ^= 1;
    peer.raw.writer.write_all(&record).expect("write");
    peer.raw.writer.flush().expect("flush");
    let (data, end) = drain(&file, mode);
    assert_eq!(data, b"genuine");
    let error = end.expect_err("a forged record");
    assert_eq!(error.kind(), ErrorKind::InvalidData, "{error}");
    assert_bad_record(&file, &error);
    let later = (&file).read(&mut [0; 8]).expect_err("it stays an error");
    assert_eq!(kind_of(&later), kind_of(&error));
    assert_eq!(file.state(), State::Failed);
    // The peer is told: alert 20, bad_record_mac, fatal. A stream that can neither be polled nor refuse is not written to from
    // a read; there it goes with the last handle.
    if W::DESCRIPTOR || mode == Mode::Nonblocking {
        assert_eq!(told(&mut peer), Some(TlsError::PeerAlert(20)));
    } else {
        drop(file);
        assert_eq!(told(&mut peer), Some(TlsError::PeerAlert(20)));
    }
}

fn told(peer: &mut Peer) -> Option<TlsError> {
    loop {
        match peer.read(&mut [0; 8]) {
            Ok(n) => assert!(n > 0, "close_notify where an alert was due"),
            Err(e) => return kind_of(&e),
        }
    }
}
fn assert_bad_record<S: Stream>(file: &SslFile<S>, error: &std::io::Error) {
    let engine = file.context().engine();
    match kind_of(error) {
        Some(TlsError::LocalAlert(20)) => {}
        // An engine that can't tell says so.
        Some(TlsError::Protocol) if engine == Engine::Native => {}
        other => panic!("{engine:?}: {other:?}: {error}"),
    }
}

/// A peer that connects and leaves without a byte: nobody cut anything short.
fn silent_to_the_server<W: Wire>(engine: Engine, mode: Mode) {
    let (end, raw) = W::raw(engine, mode);
    let file = options(mode).server().handshake(Handshake::Lazy).open(end, &server_context(engine)).expect("open");
    drop(raw);
    for _ in 0..2 {
        assert_eq!(again(mode, || (&file).read(&mut [0; 8])).expect("no error"), 0);
    }
}

/// To a client the same is a cut: anybody on the way could make an empty answer of it.
fn silent_to_the_client<W: Wire>(engine: Engine, mode: Mode) {
    let (end, raw) = W::raw(engine, mode);
    let file = options(mode).client(NAME).handshake(Handshake::Lazy).open(end, &client_context(engine)).expect("open");
    let listener = thread::spawn(move || {
        // The hello is read, so that the end is an end and no reset.
        let Raw { mut reader, writer } = raw;
        let mut hello = [0; 5];
        reader.read_exact(&mut hello).expect("hello");
        let mut rest = vec![0; usize::from(u16::from_be_bytes([hello[3], hello[4]]))];
        reader.read_exact(&mut rest).expect("hello");
        drop((reader, writer));
    });
    for _ in 0..2 {
        let error = again(mode, || (&file).read(&mut [0; 8])).expect_err("a cut");
        assert_eq!(error.kind(), ErrorKind::BrokenPipe, "{error}");
        assert_eq!(kind_of(&error), Some(TlsError::Truncated));
    }
    listener.join().expect("listener");
}
