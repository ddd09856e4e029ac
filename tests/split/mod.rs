//! Where TLS begins and ends on a stream that goes on: clean closes, STARTTLS, plain bytes right behind the close_notify, and
//! what `release` and `OpenError` give back.

use crate::common;
use crate::wire;

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use common::{kind_of, pattern, tcp_pair, wait_for, within, LONG, NAME};
use sslfile::{ErrorKind, Handshake, SslFile, SslOptions, State};
use wire::raw::RawPeer;
use wire::{pairings, settle, Pairing};

const PLAIN: &[u8] = b"250 and now in plain text\r\n";
const START: &[u8] = b"STARTTLS\r\n";
const REPLY: &[u8] = b"QUIT\r\n";

/// Every pairing, both roles, both modes.
#[derive(Clone, Copy)]
struct Case {
    pairing: &'static Pairing,
    server: bool,
    nonblocking: bool,
}

impl std::fmt::Display for Case {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let role = if self.server { "server" } else { "client" };
        let mode = if self.nonblocking { "non-blocking" } else { "blocking" };
        write!(f, "{role}, {}, {mode}", self.pairing.name())
    }
}

fn each_case(test: fn(Case)) {
    within(2 * LONG, move || {
        for pairing in pairings() {
            for (server, nonblocking) in [(false, false), (false, true), (true, false), (true, true)] {
                test(Case { pairing, server, nonblocking });
            }
        }
    });
}

impl Case {
    fn options(&self) -> SslOptions {
        SslFile::options().nonblocking(self.nonblocking).handshake(Handshake::Lazy)
    }

    fn open_with(&self, stream: TcpStream, options: SslOptions) -> SslFile {
        let opened = if self.server {
            options.server().open(stream, &self.pairing.server)
        } else {
            options.client(NAME).open(stream, &self.pairing.client)
        };
        opened.unwrap_or_else(|e| panic!("{self}: {e}"))
    }

    fn open(&self, stream: TcpStream) -> SslFile {
        self.open_with(stream, self.options())
    }

    fn opposite(&self) -> Case {
        Case { server: !self.server, ..*self }
    }

    fn peer(&self, stream: TcpStream) -> RawPeer {
        RawPeer::new(self.pairing.connection(!self.server), stream)
    }

    /// A file, and a far end run by `far` on a thread of its own.
    fn with_peer<T: Send>(&self, far: impl FnOnce(RawPeer) -> T + Send, near: impl FnOnce(SslFile)) -> T {
        let (a, b) = tcp_pair();
        let (peer, file) = (self.peer(b), self.open(a));
        thread::scope(|t| {
            let far = t.spawn(move || far(peer));
            near(file);
            far.join().expect("the far end")
        })
    }
}

fn read_some(file: &SslFile, buf: &mut [u8]) -> io::Result<usize> {
    settle(file, |mut file| file.read(buf))
}

fn read_to_end(file: &SslFile) -> io::Result<Vec<u8>> {
    let mut all = Vec::new();
    let mut buf = [0; 1_000];
    loop {
        match read_some(file, &mut buf)? {
            0 => return Ok(all),
            n => all.extend_from_slice(&buf[..n]),
        }
    }
}

fn read_exact(file: &SslFile, count: usize) -> io::Result<Vec<u8>> {
    let mut all = vec![0; count];
    let mut at = 0;
    while at < count {
        match read_some(file, &mut all[at..])? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            n => at += n,
        }
    }
    Ok(all)
}

fn write_all(file: &SslFile, mut data: &[u8]) -> io::Result<()> {
    while !data.is_empty() {
        let n = settle(file, |mut file| file.write(data))?;
        data = &data[n..];
    }
    settle(file, |mut file| file.flush())
}

fn close_clean(case: &Case, file: &SslFile) {
    settle(file, |file| file.close_clean()).unwrap_or_else(|e| panic!("{case}: close_clean: {e:?}"));
}

/// The stream, back in blocking mode, and what had been read too far.
fn release(case: &Case, file: SslFile) -> (TcpStream, Vec<u8>) {
    let (stream, unread) = file.release().unwrap_or_else(|e| panic!("{case}: release: {e:?}"));
    stream.set_nonblocking(false).expect("blocking");
    (stream, unread)
}

fn hear(case: &Case, stream: &mut TcpStream, mut so_far: Vec<u8>, expected: &[u8]) {
    assert!(expected.starts_with(&so_far), "{case}: {:?} came first", String::from_utf8_lossy(&so_far));
    let from = so_far.len();
    so_far.resize(expected.len(), 0);
    stream.read_exact(&mut so_far[from..]).unwrap_or_else(|e| panic!("{case}: plain text: {e:?}"));
    assert_eq!(so_far, expected, "{case}");
}

fn assert_not_open(case: &Case, file: &SslFile) {
    assert_eq!(file.state(), State::Closed, "{case}");
    assert!(!file.is_open(), "{case}");
    let mut buf = [0; 10];
    assert_eq!({ file }.read(&mut buf).expect("the peer's end stays"), 0, "{case}");
    assert_eq!(file.peek(&mut buf).expect("the peer's end stays"), 0, "{case}");
    let error = { file }.write(b"x").err().unwrap_or_else(|| panic!("{case}: I/O behind the end"));
    assert_eq!(error.kind(), io::ErrorKind::NotConnected, "{case}: {error:?}");
    assert_eq!(kind_of(&error), Some(ErrorKind::NotOpen), "{case}: {error:?}");
}

/// The far end of a clean close: waits for our close_notify, answers with its own and plain text glued to it, then listens.
fn answer_glued(mut peer: RawPeer) -> (Vec<u8>, Vec<u8>) {
    peer.handshake().expect("handshake");
    let data = peer.read_to_end().expect("close_notify");
    peer.close_with(PLAIN).expect("send");
    let mut heard = peer.conn.take_unread();
    peer.tcp.read_to_end(&mut heard).expect("plain text");
    (data, heard)
}

#[test]
fn the_initiator_of_a_clean_close_gets_the_bytes_glued_behind_the_answer() {
    each_case(|case| {
        let (data, heard) = case.with_peer(answer_glued, |file| {
            write_all(&file, b"EHLO").expect("write");
            close_clean(&case, &file);
            assert_not_open(&case, &file);
            let (mut stream, unread) = release(&case, file);
            hear(&case, &mut stream, unread, PLAIN);
            stream.write_all(REPLY).expect("plain text");
        });
        assert_eq!(data, b"EHLO", "{case}");
        assert_eq!(heard, REPLY, "{case}");
    });
}

#[test]
fn the_responder_to_a_clean_close_gets_the_bytes_glued_behind_the_question() {
    each_case(|case| {
        let begin = |mut peer: RawPeer| {
            peer.handshake().expect("handshake");
            peer.write_all(b"data").expect("write");
            peer.close_with(PLAIN).expect("send");
            assert_eq!(peer.read_to_end().expect("close_notify"), b"more");
            let mut heard = peer.conn.take_unread();
            peer.tcp.read_to_end(&mut heard).expect("plain text");
            heard
        };
        let heard = case.with_peer(begin, |file| {
            assert_eq!(read_to_end(&file).expect("read"), b"data", "{case}");
            assert_eq!(file.state(), State::PeerClosed, "{case}");
            // Nothing was answered yet: the other direction is still ours.
            write_all(&file, b"more").expect("half-closed");
            close_clean(&case, &file);
            assert_not_open(&case, &file);
            let (mut stream, unread) = release(&case, file);
            stream.write_all(REPLY).expect("plain text");
            hear(&case, &mut stream, unread, PLAIN);
        });
        assert_eq!(heard, REPLY, "{case}");
    });
}

#[test]
fn data_that_arrives_during_a_clean_close_is_delivered() {
    each_case(|case| {
        let late = pattern(1, 50_000);
        let sent = late.clone();
        let far = move |mut peer: RawPeer| {
            peer.handshake().expect("handshake");
            peer.read_to_end().expect("close_notify");
            peer.write_all(&sent).expect("late data");
            peer.close_with(PLAIN).expect("send");
            let mut rest = Vec::new();
            let _ = peer.tcp.read_to_end(&mut rest);
        };
        case.with_peer(far, |file| {
            let mut got = Vec::new();
            let mut buf = [0; 3_000];
            settle(&file, |file| file.handshake()).expect("handshake");
            let closed = loop {
                let closed = file.close_clean();
                let rest = loop {
                    match { &file }.read(&mut buf) {
                        Ok(n @ 1..) => got.extend_from_slice(&buf[..n]),
                        rest => break rest,
                    }
                };
                match closed {
                    // The peer's end may have come with what was just read.
                    Err(e) if case.nonblocking && e.kind() == io::ErrorKind::WouldBlock => match rest {
                        Err(e) if e.kind() == io::ErrorKind::WouldBlock => wait_for(&file),
                        _ => (),
                    },
                    closed => break closed,
                }
            };
            closed.unwrap_or_else(|e| panic!("{case}: {e:?}"));
            assert!(got == late, "{case}: {} of {} bytes", got.len(), late.len());
            assert_not_open(&case, &file);
            let (mut stream, unread) = release(&case, file);
            hear(&case, &mut stream, unread, PLAIN);
        });
    });
}

#[test]
fn both_ends_may_close_cleanly_at_once() {
    each_case(|case| {
        let (a, b) = tcp_pair();
        let ends = [(case, case.open(a)), (case.opposite(), case.opposite().open(b))];
        thread::scope(|t| {
            for (case, file) in ends {
                t.spawn(move || {
                    settle(&file, |file| file.handshake()).expect("handshake");
                    close_clean(&case, &file);
                    let (mut stream, unread) = release(&case, file);
                    stream.write_all(PLAIN).expect("plain text");
                    hear(&case, &mut stream, unread, PLAIN);
                });
            }
        });
    });
}

#[test]
fn one_tcp_connection_goes_tls_plain_and_tls_again() {
    each_case(|case| {
        let (a, b) = tcp_pair();
        let ends = [(case, a), (case.opposite(), b)];
        thread::scope(|t| {
            for (case, mut stream) in ends {
                t.spawn(move || {
                    let mut early = Vec::new();
                    for round in 0..3u64 {
                        stream.set_nonblocking(case.nonblocking).expect("mode");
                        let file = case.open_with(stream, case.options().already_read(early));
                        let data = pattern(round, 20_000);
                        let talk = |file: &SslFile| {
                            if case.server {
                                assert!(read_exact(file, data.len())? == data, "{case}: round {round}");
                                write_all(file, &data)
                            } else {
                                write_all(file, &data)?;
                                assert!(read_exact(file, data.len())? == data, "{case}: round {round}");
                                Ok(())
                            }
                        };
                        talk(&file).unwrap_or_else(|e| panic!("{case}: round {round}: {e:?}"));
                        close_clean(&case, &file);
                        let (plain, unread) = release(&case, file);
                        stream = plain;
                        stream.write_all(PLAIN).expect("plain text");
                        let keep = unread.len().saturating_sub(PLAIN.len());
                        early = unread[unread.len() - keep..].to_vec();
                        hear(&case, &mut stream, unread[..unread.len() - keep].to_vec(), PLAIN);
                    }
                });
            }
        });
    });
}

/// STARTTLS with a buffered reader: some of the ClientHello, or all of it, was read with the plain text.
#[test]
fn bytes_read_too_far_before_starttls_are_carried_into_the_handshake() {
    each_case(|case| {
        if !case.server {
            return; // A server says nothing before the ClientHello.
        }
        let far = |mut peer: RawPeer| {
            let _ = peer.conn.handshake();
            let mut first = START.to_vec();
            first.extend_from_slice(peer.conn.output());
            peer.conn.consume_output(first.len() - START.len());
            peer.tcp.write_all(&first).expect("send");
            peer.handshake().expect("handshake");
            peer.write_all(b"mail").expect("write");
            peer.close_with(PLAIN).expect("send");
            peer.read_to_end().expect("close_notify")
        };
        for early in [1, 5, 60, usize::MAX] {
            let (mut near, tcp) = tcp_pair();
            let peer = case.peer(tcp);
            thread::scope(|t| {
                let far = t.spawn(move || far(peer));
                near.set_nonblocking(false).expect("blocking");
                let mut buf = vec![0; START.len().saturating_add(early).min(20_000)];
                let mut n = 0;
                while n <= START.len() {
                    n += near.read(&mut buf[n..]).expect("plain text");
                }
                assert!(buf.starts_with(START), "{case}");
                let pending = buf[START.len()..n].to_vec();
                near.set_nonblocking(case.nonblocking).expect("mode");
                let file = case.open_with(near, case.options().already_read(pending));
                assert_eq!(read_to_end(&file).unwrap_or_else(|e| panic!("{case}: {early}: {e:?}")), b"mail");
                close_clean(&case, &file);
                let (mut stream, unread) = release(&case, file);
                hear(&case, &mut stream, unread, PLAIN);
                assert_eq!(far.join().expect("the far end"), b"", "{case}");
            });
        }
    });
}

/// What a peer that speaks no TLS said, whole, and the stream to answer it on.
#[test]
fn a_peer_without_tls_gets_its_answer_in_plain_text() {
    each_case(|case| {
        let said: &[u8] = if case.server {
            b"GET / HTTP/1.0\r\nHost: localhost\r\n\r\n"
        } else {
            b"220 mail.example.com ESMTP, at your service\r\n"
        };
        for already in [0, 3, said.len()] {
            let (near, mut far) = tcp_pair();
            far.write_all(&said[already..]).expect("send");
            let options = case.options().already_read(said[..already].to_vec());
            let options = if case.nonblocking { options } else { options.handshake(Handshake::Eager) };
            let (error, stream, bytes) = refuse(&case, near, options);
            assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{case}: {error:?}");
            assert_eq!(kind_of(&error), Some(ErrorKind::NotTls), "{case}: {error:?}");
            assert!(error.to_string().contains("TLS"), "{case}: {error}");
            let mut stream = stream;
            stream.set_nonblocking(false).expect("blocking");
            hear(&case, &mut stream, bytes, said);
            stream.write_all(REPLY).expect("an answer");
            drop(stream);
            let mut heard = Vec::new();
            far.read_to_end(&mut heard).expect("the answer");
            assert!(heard.ends_with(REPLY), "{case}: {heard:?}");
        }
    });
}

/// A handshake that must fail: by `open` where it waits, else by the first calls; the stream either way.
fn refuse(case: &Case, stream: TcpStream, options: SslOptions) -> (io::Error, TcpStream, Vec<u8>) {
    let options = if case.server { options.server() } else { options.client(NAME) };
    let context = if case.server { &case.pairing.server } else { &case.pairing.client };
    match options.open(stream, context) {
        Err(refused) => {
            assert_eq!(refused.kind(), ErrorKind::NotTls, "{case}: {refused}");
            refused.into_parts()
        }
        Ok(file) => {
            let error = settle(&file, |file| file.handshake()).expect_err("no TLS there");
            assert_eq!(file.state(), State::Failed, "{case}");
            let (stream, bytes) = file.release().unwrap_or_else(|e| panic!("{case}: after a failed handshake: {e:?}"));
            (error, stream, bytes)
        }
    }
}

#[test]
fn release_is_refused_while_data_is_unsent_and_loses_none_of_it() {
    each_case(|case| {
        if !case.nonblocking {
            return; // A blocking write hands all over before it returns.
        }
        let (a, b) = tcp_pair();
        let (mut peer, file) = (case.peer(b), case.open(a));
        let (go, wait) = std::sync::mpsc::channel();
        thread::scope(|t| {
            let far = t.spawn(move || {
                peer.handshake().expect("handshake");
                wait.recv().expect("the word");
                let mut got = Vec::new();
                let mut buf = [0; 16_384];
                let cut = loop {
                    match peer.read(&mut buf) {
                        Ok(0) => panic!("{case}: a close_notify that nobody sent"),
                        Ok(n) => got.extend_from_slice(&buf[..n]),
                        Err(e) => break e,
                    }
                };
                (got, cut)
            });
            settle(&file, |file| file.handshake()).expect("handshake");
            let block = pattern(4, 100_000);
            let mut accepted = Vec::new();
            while file.unsent() == 0 {
                match { &file }.write(&block) {
                    Ok(n) => accepted.extend_from_slice(&block[..n]),
                    Err(e) => panic!("{case}: {e:?} with nothing unsent"),
                }
            }
            let refused = file.release().expect_err("data is unsent");
            assert_eq!(refused.error().kind(), io::ErrorKind::WouldBlock, "{case}");
            assert!(refused.file().unsent() > 0, "{case}");
            let (_, file) = refused.into_parts();
            go.send(()).expect("the far end");
            settle(&file, |mut file| file.flush()).expect("flush");
            // On an open file it ends TLS without a word.
            let (stream, _) = release(&case, file);
            stream.shutdown(Shutdown::Write).expect("the stream is whole");
            let (got, cut) = far.join().expect("the far end");
            assert!(got == accepted, "{case}: {} of {} bytes", got.len(), accepted.len());
            assert_eq!(cut.kind(), io::ErrorKind::BrokenPipe, "{case}: {cut:?}");
            assert_eq!(kind_of(&cut), Some(ErrorKind::Truncated), "{case}: {cut:?}");
        });
    });
}

/// A peer that shakes hands, then reads until the stream ends.
fn listen(mut peer: RawPeer) -> io::Result<Vec<u8>> {
    peer.handshake()?;
    peer.read_to_end()
}

#[test]
fn release_needs_the_last_handle() {
    each_case(|case| {
        let heard = case.with_peer(listen, |file| {
            settle(&file, |file| file.handshake()).expect("handshake");
            let other = file.try_clone().expect("clone");
            let refused = file.release().expect_err("there is another handle");
            assert_eq!(refused.error().kind(), io::ErrorKind::ResourceBusy, "{case}");
            let (error, file) = refused.into_parts();
            assert_eq!(error.kind(), io::ErrorKind::ResourceBusy, "{case}");
            // Neither has lost anything.
            write_all(&other, b"one").expect("write");
            write_all(&file, b"two").expect("write");
            drop(file);
            let (stream, unread) = release(&case, other);
            assert_eq!(unread, b"", "{case}");
            stream.shutdown(Shutdown::Both).expect("the stream is whole");
        });
        let cut = heard.expect_err("released without close_notify");
        assert_eq!(kind_of(&cut), Some(ErrorKind::Truncated), "{case}: {cut:?}");
    });
}

#[test]
fn release_after_close_has_nothing_to_give() {
    each_case(|case| {
        let far = |peer: RawPeer| listen(peer).expect("close_notify");
        case.with_peer(far, |file| {
            settle(&file, |file| file.handshake()).expect("handshake");
            settle(&file, |file| file.close()).unwrap_or_else(|e| panic!("{case}: {e:?}"));
            let error = { &file }.read(&mut [0; 10]).expect_err("we have closed");
            assert_eq!(error.kind(), io::ErrorKind::NotConnected, "{case}: {error:?}");
            let refused = file.release().expect_err("the stream has ended");
            assert_eq!(refused.error().kind(), io::ErrorKind::BrokenPipe, "{case}");
        });
    });
}

#[test]
fn a_clean_close_that_the_peer_breaks_off_fails_and_gives_nothing_back() {
    each_case(|case| {
        let far = |mut peer: RawPeer| {
            peer.handshake().expect("handshake");
            peer.read_to_end().expect("close_notify");
            // Ends without an answer.
        };
        case.with_peer(far, |file| {
            settle(&file, |file| file.handshake()).expect("handshake");
            let error = settle(&file, |file| file.close_clean()).expect_err("no answer came");
            assert_eq!(error.kind(), io::ErrorKind::BrokenPipe, "{case}: {error:?}");
            assert_eq!(kind_of(&error), Some(ErrorKind::Truncated), "{case}: {error:?}");
            assert!(!file.is_open(), "{case}");
            let again = settle(&file, |file| file.close_clean()).expect_err("it does not heal");
            assert_eq!(again.kind(), io::ErrorKind::BrokenPipe, "{case}: {again:?}");
            let refused = file.release().expect_err("the stream has ended");
            assert_eq!(refused.error().kind(), io::ErrorKind::BrokenPipe, "{case}");
        });
    });
}

#[test]
fn a_clean_close_that_timed_out_may_be_called_again() {
    each_case(|case| {
        if case.nonblocking {
            return;
        }
        let (go, wait) = std::sync::mpsc::channel::<()>();
        let far = move |mut peer: RawPeer| {
            peer.handshake().expect("handshake");
            peer.read_to_end().expect("close_notify");
            wait.recv().expect("the word");
            peer.close_with(PLAIN).expect("send");
            let mut rest = Vec::new();
            let _ = peer.tcp.read_to_end(&mut rest);
        };
        case.with_peer(far, |file| {
            file.handshake().expect("handshake");
            let limit = Duration::from_millis(100);
            file.set_read_timeout(Some(limit)).expect("time-out");
            for _ in 0..2 {
                let start = Instant::now();
                let error = file.close_clean().expect_err("the peer is silent");
                assert_eq!(error.kind(), io::ErrorKind::TimedOut, "{case}: {error:?}");
                assert_eq!(kind_of(&error), Some(ErrorKind::TimedOut), "{case}: {error:?}");
                assert!(start.elapsed() >= limit, "{case}: after {:?}", start.elapsed());
                assert_eq!(file.state(), State::Closing, "{case}");
            }
            let refused = { &file }.write(b"x").expect_err("our close_notify is out");
            assert_eq!(refused.kind(), io::ErrorKind::BrokenPipe, "{case}: {refused:?}");
            go.send(()).expect("the far end");
            file.set_read_timeout(None).expect("time-out");
            close_clean(&case, &file);
            let (mut stream, unread) = release(&case, file);
            hear(&case, &mut stream, unread, PLAIN);
        });
    });
}

/// A wrapped stream in the mode it came in: `release` leaves it as the file had it.
#[test]
fn the_descriptor_stays_open_until_the_stream_is_dropped() {
    each_case(|case| {
        let far = |peer: RawPeer| answer_glued(peer).1;
        let heard = case.with_peer(far, |file| {
            let addr = file.get_ref().local_addr().expect("address");
            settle(&file, |file| file.handshake()).expect("handshake");
            let other = file.clone();
            close_clean(&case, &file);
            // Another handle sees the end, and still has the stream.
            assert_not_open(&case, &other);
            assert_eq!(other.get_ref().local_addr().expect("address"), addr, "{case}");
            drop(file);
            let (mut stream, unread) = release(&case, other);
            assert_eq!(stream.local_addr().expect("address"), addr, "{case}");
            hear(&case, &mut stream, unread, PLAIN);
            stream.write_all(REPLY).expect("plain text");
        });
        assert_eq!(heard, REPLY, "{case}");
    });
}
