//! How a connection ends: our ends as the peer sees them, and a peer that is killed.

use std::io;
use std::net::Shutdown;
use std::thread;
use std::time::{Duration, Instant};

use rustix::io::ioctl_fionread;
use sslfile::{ErrorKind, SslFile};

use super::data::lines;
use super::harness::{Bench, Peer, STEP};
use super::ours::{cases, context, exchange, opened, rest, retry, send, setup, Case};
use super::tools::{AfterOurEnd, End, Talk, Tool};
use crate::common::kind_of;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Ending {
    Close,
    Drop,
    ShutdownWrite,
    CloseClean,
    /// Without close_notify: shows that the peer can tell.
    Abrupt,
}

const ENDINGS: [Ending; 5] = [Ending::Close, Ending::Drop, Ending::ShutdownWrite, Ending::CloseClean, Ending::Abrupt];

/// All we sent arrives, and then a clean end, unless we end without close_notify. A tool that keeps to itself what it saw
/// shows by its answer that it took a clean close for one.
pub fn sees_our_end_for_what_it_is(bench: &Bench, tool: Tool) {
    let endings = if tool.verdict.is_some() { &ENDINGS[..] } else { &[Ending::CloseClean] };
    let words = lines(5, 100_000);
    for case in cases(&tool) {
        let context = context(bench, &tool, case.engine, &bench.files.ecdsa).build().expect("context");
        for &ending in endings {
            let setup = setup(bench, &tool, case, &bench.files.ecdsa);
            let (mut peer, file) = opened(bench, &tool, case, setup, &context);
            if tool.talk == Talk::EchoLines {
                let echo = exchange(&file, &words, words.len()).unwrap_or_else(|e| panic!("{case:?}: {e}"));
                assert!(echo == words, "{case:?}: the echo differs");
                end(file, ending, &tool, case, &mut peer);
                continue;
            }
            send(&file, &words).unwrap_or_else(|e| panic!("{case:?}: {e}"));
            let heard = if waits_for_the_peer(ending) { Some(peer.hear(words.len())) } else { None };
            // One that goes on would have our `close` wait for its end in vain: it hears, and ends, meanwhile.
            let file = thread::scope(|scope| {
                let beside = ending == Ending::Close && tool.after_our_end == AfterOurEnd::GoesOn;
                let hearing = |peer: &mut Peer| {
                    let heard = heard.unwrap_or_else(|| peer.hear(words.len()));
                    assert!(heard == words, "{case:?} {ending:?}: {} received something else", tool.name);
                    if tool.after_our_end == AfterOurEnd::GoesOn && ending != Ending::CloseClean {
                        assert!(peer.said.waits_for("end "), "{case:?} {ending:?}: it said: {}", peer.said.so_far());
                        peer.stdin = None;
                    }
                };
                if beside {
                    scope.spawn(|| hearing(&mut peer));
                    return close(file, &tool, case);
                }
                let file = end(file, ending, &tool, case, &mut peer);
                hearing(&mut peer);
                file
            });
            peer.exit();
            drop(file);
            let Some(verdict) = tool.verdict else { continue };
            let said = peer.said.to_the_end();
            let seen = verdict(&said);
            let expected = if ending == Ending::Abrupt { End::Cut } else { End::Clean };
            // One that began the clean close itself may have nothing to say about our end.
            let began = ending == Ending::CloseClean && tool.ends_with_its_input && seen.is_none();
            assert!(began || seen == Some(expected), "{case:?} {ending:?}: {} said: {said}", tool.name);
        }
    }
}

/// A clean close needs the peer's end, for which it needs the end of its input, which must not come too early; and a
/// connection dropped while data is on the way may be reset.
fn waits_for_the_peer(ending: Ending) -> bool {
    matches!(ending, Ending::CloseClean | Ending::Abrupt)
}

/// Ends it; what is still to be held comes back.
fn end(file: SslFile, ending: Ending, tool: &Tool, case: Case, peer: &mut Peer) -> Option<SslFile> {
    let failed = |e: io::Error| -> ! { panic!("{case:?} {ending:?} with {}: {e}", tool.name) };
    match ending {
        Ending::Drop => {
            drop(file);
            return None;
        }
        Ending::ShutdownWrite => file.shutdown(Shutdown::Write).unwrap_or_else(|e| failed(e)),
        Ending::Close => return close(file, tool, case),
        Ending::CloseClean => {
            if tool.ends_with_its_input {
                peer.stdin = None;
            }
            // These may leave without an answer, or with the connection: they begin.
            if tool.ends_with_its_input && tool.after_our_end != AfterOurEnd::GoesOn {
                rest(&file).1.unwrap_or_else(|e| failed(e));
            }
            retry(&file, || file.close_clean()).unwrap_or_else(|e| failed(e));
            let (stream, late) = file.release().unwrap_or_else(|e| failed(e.into()));
            assert_eq!(late, b"", "{case:?}");
            drop(stream);
            return None;
        }
        Ending::Abrupt => {
            // Reads the session tickets too, for which the system would reset the connection.
            peer.feed(b"x");
            assert_eq!(exchange(&file, b"", 1).unwrap_or_else(|e| failed(e)), b"x");
            let (stream, _) = file.release().unwrap_or_else(|e| failed(e.into()));
            drop(stream);
            return None;
        }
    }
    Some(file)
}

fn close(file: SslFile, tool: &Tool, case: Case) -> Option<SslFile> {
    finish(&file, || file.close()).unwrap_or_else(|e| panic!("{case:?} Close with {}: {e}", tool.name));
    Some(file)
}

/// A non-blocking `close` ends at the close time-out, which no descriptor tells of.
fn finish(file: &SslFile, mut call: impl FnMut() -> io::Result<()>) -> io::Result<()> {
    let deadline = Instant::now() + STEP;
    loop {
        match call() {
            Err(e) if e.kind() == io::ErrorKind::WouldBlock && file.is_nonblocking() && Instant::now() < deadline => {
                thread::sleep(Duration::from_millis(10));
            }
            done => return done,
        }
    }
}

/// What the peer had sent is delivered, and then its end is an error, for good.
pub fn killed_is_a_cut_after_all_its_data(bench: &Bench, tool: Tool) {
    for case in cases(&tool) {
        let context = context(bench, &tool, case.engine, &bench.files.ecdsa).build().expect("context");
        let setup = setup(bench, &tool, case, &bench.files.ecdsa);
        let (mut peer, file) = opened(bench, &tool, case, setup, &context);
        // The peer has read all we sent, session tickets included: its end will be no reset.
        let hello = b"hello, and no more\n";
        if tool.talk == Talk::Pipe {
            send(&file, hello).expect("send");
            assert_eq!(peer.hear(hello.len()), hello, "{case:?}");
        } else {
            assert_eq!(exchange(&file, hello, hello.len()).expect("echo"), hello, "{case:?}");
        }

        // One record: a pipe takes so much at once.
        let last = lines(6, 3000);
        match tool.talk {
            Talk::Pipe => peer.feed(&last),
            Talk::EchoLines => send(&file, &last).expect("send"),
        }
        until_arrived(&file, last.len(), case, &peer);
        peer.kill();

        let (received, end) = rest(&file);
        assert!(received == last, "{case:?}: {} of {} bytes", received.len(), last.len());
        for again in [end, rest(&file).1] {
            let error = again.expect_err("a cut connection is no end of file");
            assert_eq!(error.kind(), io::ErrorKind::BrokenPipe, "{case:?}: {error}");
            assert_eq!(kind_of(&error), Some(ErrorKind::Truncated), "{case:?}: {error}");
        }
        assert!(!file.is_open(), "{case:?}");
    }
}

/// Waits until the system holds this much for us, unread.
fn until_arrived(file: &SslFile, len: usize, case: Case, peer: &Peer) {
    let deadline = Instant::now() + STEP;
    while ioctl_fionread(file).expect("FIONREAD") < len as u64 {
        assert!(Instant::now() < deadline, "{case:?}: nothing came; it said: {}", peer.said.so_far());
        thread::sleep(Duration::from_millis(2));
    }
}
