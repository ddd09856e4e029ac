//! P9 the stream comes back; P10 no cycles, no leaks, no blocking drop.

use std::io::{ErrorKind, Read, Write};
use std::thread;
use std::time::Instant;

use sslfile::{Engine, Handshake, SslFile};

use super::drive::*;
use super::wires::{Mode, Raw, Wire};
use crate::common::{client_context, kind_of, server_context, NAME};

fn read_raw(raw: &mut Raw, mode: Mode, len: usize) -> Vec<u8> {
    let mut data = vec![0; len];
    let mut done = 0;
    while done < len {
        match again(mode, || raw.reader.read(&mut data[done..])).expect("raw read") {
            0 => panic!("the end after {done} of {len} bytes"),
            n => done += n,
        }
    }
    data
}

fn write_raw(raw: &mut Raw, mode: Mode, data: &[u8]) {
    let mut done = 0;
    while done < data.len() {
        done += again(mode, || raw.writer.write(&data[done..])).expect("raw write");
    }
    again(mode, || raw.writer.flush()).expect("raw flush");
}

/// How a stream behaves that came back: a switched one as before it was wrapped (blocking), another as it always does.
fn bare_mode<W: Wire>(mode: Mode) -> Mode {
    if W::DESCRIPTOR {
        Mode::Blocking
    } else {
        mode
    }
}

/// P9: back after a failed handshake and after a clean close, with the bytes nobody consumed; and taken on with some already read.
pub fn stream_comes_back<W: Wire>(engine: Engine, mode: Mode) {
    after_a_failed_handshake::<W>(engine, mode);
    for peer_first in [false, true] {
        after_a_clean_close::<W>(engine, mode, peer_first);
    }
    with_the_hello_already_read::<W>(engine, mode);
    not_while_others_hold_it::<W>(engine, mode);
}

fn after_a_failed_handshake<W: Wire>(engine: Engine, mode: Mode) {
    const GREETING: &[u8] = b"220 mail.example ESMTP, no TLS here\r\n";
    let (end, mut peer) = W::raw(engine, mode);
    write_raw(&mut peer, Mode::Blocking, GREETING);
    let opened = options(mode).client(NAME).open(end, &client_context(engine));
    let (error, end, unread) = match (mode, opened) {
        (Mode::Blocking, opened) => opened.expect_err("a handshake with a mail server").into_parts(),
        // What is found out later is told by the handshake, and the stream is had by `release`.
        (Mode::Nonblocking, Err(failed)) => failed.into_parts(),
        (Mode::Nonblocking, Ok(file)) => {
            let error = again(mode, || file.handshake()).expect_err("a mail server");
            let same = file.handshake().expect_err("final");
            assert_eq!(kind_of(&same), kind_of(&error));
            let (end, unread) = file.release().expect("release");
            (error, end, unread)
        }
    };
    assert_eq!(error.kind(), ErrorKind::InvalidData, "{error}");
    assert_eq!(kind_of(&error), Some(sslfile::ErrorKind::NotTls), "{error}");

    let bare = bare_mode::<W>(mode);
    let mut ours = W::halves(end);
    let mut got = unread;
    if got.len() < GREETING.len() {
        let rest = GREETING.len() - got.len();
        got.extend(read_raw(&mut ours, bare, rest));
    }
    assert_eq!(got, GREETING, "all of it, as it spoke no TLS");
    write_raw(&mut ours, bare, b"QUIT\r\n");
    // The mail server gets our hello, perhaps an alert, and then the plain line.
    let mut heard = Vec::new();
    while !heard.ends_with(b"QUIT\r\n") {
        heard.extend(read_raw(&mut peer, Mode::Blocking, 1));
    }
    assert_eq!(heard[0], 22, "a handshake record came first");
    write_raw(&mut peer, Mode::Blocking, b"221");
    assert_eq!(read_raw(&mut ours, bare, 3), b"221");
}

fn after_a_clean_close<W: Wire>(engine: Engine, mode: Mode, peer_first: bool) {
    let (file, mut peer) = client_file::<W>(engine, mode);
    put(&file, mode, b"in TLS").expect("write");
    assert_eq!(peer.hear(6), b"in TLS");
    let ending = thread::spawn(move || {
        let mut last = peer.seal(b"last words");
        if !peer_first {
            assert_eq!(peer.read(&mut [0; 8]).expect("close_notify"), 0);
        }
        last.extend(peer.seal_close());
        last.extend_from_slice(b"glued to it");
        write_raw(&mut peer.raw, Mode::Blocking, &last);
        if peer_first {
            assert_eq!(peer.read(&mut [0; 8]).expect("close_notify"), 0);
        }
        (peer.tls.take_unread(), peer.raw)
    });
    if peer_first {
        assert_eq!(get(&file, mode, 10).expect("read"), b"last words");
        assert_eq!(again(mode, || (&file).read(&mut [0; 8])).expect("the end"), 0);
        again(mode, || file.close_clean()).expect("close_clean");
    } else {
        again(mode, || file.close_clean()).expect("close_clean");
        // What was said before the peer's end is delivered, and then there is no file any more.
        assert_eq!(get(&file, mode, 10).expect("read"), b"last words");
    }
    let (early, mut theirs) = ending.join().expect("peer");
    assert_eq!(early, b"", "nothing of ours before we spoke");
    let refused = (&file).write(b"too late").expect_err("it is over");
    assert_eq!(refused.kind(), ErrorKind::NotConnected, "{refused}");
    assert_eq!(kind_of(&refused), Some(sslfile::ErrorKind::NotOpen));

    let (end, unread) = file.release().expect("release");
    let bare = bare_mode::<W>(mode);
    let mut ours = W::halves(end);
    let mut got = unread;
    let rest = 11 - got.len();
    got.extend(read_raw(&mut ours, bare, rest));
    assert_eq!(got, b"glued to it");
    write_raw(&mut ours, bare, b"plain again");
    assert_eq!(read_raw(&mut theirs, Mode::Blocking, 11), b"plain again");
    write_raw(&mut theirs, Mode::Blocking, b"for both");
    assert_eq!(read_raw(&mut ours, bare, 8), b"for both");
}

/// STARTTLS, and a reader that took more than its line.
fn with_the_hello_already_read<W: Wire>(engine: Engine, mode: Mode) {
    let (end, raw) = W::raw(engine, mode);
    let mut peer = Peer::client(engine, raw);
    let _ = peer.tls.handshake();
    let mut hello = peer.take_output();
    let not_read_yet = hello.split_off(50);
    write_raw(&mut peer.raw, Mode::Blocking, &not_read_yet);
    let peer = thread::spawn(move || peer.shaken());
    let file = options(mode).server().already_read(hello).open(end, &server_context(engine)).expect("open");
    again(mode, || file.handshake()).expect("handshake");
    let mut peer = peer.join().expect("peer");
    put(&file, mode, b"250 ok").expect("write");
    assert_eq!(peer.hear(6), b"250 ok");
}

fn not_while_others_hold_it<W: Wire>(engine: Engine, mode: Mode) {
    let (file, mut peer) = client_file::<W>(engine, mode);
    let other = file.try_clone().expect("try_clone");
    let refused = file.release().err().expect("released under another's feet");
    assert_eq!(refused.error().kind(), ErrorKind::ResourceBusy, "{refused}");
    let (_, file) = refused.into_parts();
    put(&other, mode, b"alive").expect("write");
    assert_eq!(peer.hear(5), b"alive");
    // The last handle gets it from an open file too: TLS is dropped abruptly, and the peer is told nothing.
    drop(other);
    let (end, unread) = again_released(file, mode);
    assert_eq!(unread, b"");
    let mut ours = W::halves(end);
    write_raw(&mut ours, bare_mode::<W>(mode), b"plain");
    assert_eq!(read_raw(&mut peer.raw, Mode::Blocking, 5), b"plain");
}

fn again_released<S: sslfile::Stream>(mut file: SslFile<S>, mode: Mode) -> (S, Vec<u8>) {
    loop {
        match file.release() {
            Ok(parts) => return parts,
            Err(failed) => {
                let (error, back) = failed.into_parts();
                assert!(mode == Mode::Nonblocking && error.kind() == ErrorKind::WouldBlock, "{error}");
                pause();
                file = back;
            }
        }
    }
}

/// P10: the last handle says close_notify, does not wait, and takes the stream with it.
pub fn dropped<W: Wire>(engine: Engine, mode: Mode) {
    last_handle_says_so::<W>(engine, mode);
    in_mid_handshake::<W>(engine, mode);
    // A stream that can neither be polled nor refuse holds whoever writes to it.
    if W::DESCRIPTOR || mode == Mode::Nonblocking {
        with_a_peer_that_does_not_read::<W>(engine, mode);
    }
}

fn last_handle_says_so<W: Wire>(engine: Engine, mode: Mode) {
    let (file, mut peer) = client_file::<W>(engine, mode);
    let handles: Vec<_> = (0..3).map(|_| file.try_clone().expect("try_clone")).collect();
    drop(file);
    for handle in handles {
        put(&handle, mode, b"still here").expect("write");
        assert_eq!(peer.hear(10), b"still here");
        drop(handle);
    }
    assert_eq!(peer.read(&mut [0; 8]).expect("close_notify"), 0);
    assert_gone(peer.raw);
}

/// The other end of the stream is closed: it reads as ended, and writing to it fails in the end.
fn assert_gone(mut raw: Raw) {
    let mut buf = [0; 64 << 10];
    loop {
        match raw.reader.read(&mut buf) {
            Ok(0) => break,
            Ok(_) => {}
            Err(e) if e.kind() == ErrorKind::ConnectionReset => break,
            Err(e) if e.kind() == ErrorKind::BrokenPipe => break,
            Err(e) => panic!("{e}"),
        }
    }
    let start = Instant::now();
    while raw.writer.write(&buf).and_then(|_| raw.writer.flush()).is_ok() {
        assert!(start.elapsed() < CLOSE_TIMEOUT, "somebody still holds the stream");
    }
}

fn in_mid_handshake<W: Wire>(engine: Engine, mode: Mode) {
    let (end, raw) = W::raw(engine, mode);
    let file = options(mode).client(NAME).handshake(Handshake::Lazy).open(end, &client_context(engine)).expect("open");
    if mode == Mode::Nonblocking {
        assert!(would_block(&file.handshake()));
    }
    drop(file);
    assert_gone(raw);
}

fn with_a_peer_that_does_not_read<W: Wire>(engine: Engine, mode: Mode) {
    let (file, peer) = client_file::<W>(engine, mode);
    if W::DESCRIPTOR {
        file.set_nonblocking(true).expect("switch");
    }
    let chunk = [7; 16 << 10];
    while let Ok(n) = (&file).write(&chunk) {
        assert!(n > 0);
    }
    while file.send(&chunk).is_ok() {}
    assert!(file.unsent() > 0, "everything went");
    if W::DESCRIPTOR {
        file.set_nonblocking(mode == Mode::Nonblocking).expect("switch");
    }
    let start = Instant::now();
    drop(file);
    let took = start.elapsed();
    assert!(took < CLOSE_TIMEOUT / 4, "dropping took {took:?}");
    assert_gone(peer.raw);
}
