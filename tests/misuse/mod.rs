//! Bad use gets an error: never a panic, never a hang.

mod after_the_end;

use crate::common;

use std::io::{self, ErrorKind, IoSlice, IoSliceMut, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use common::{
    certs, client_builder, client_context, engines, kind_of, pattern, server_builder, server_context, tcp_pair,
    tls_pair, until_busy, until_ready, until_stuck, within, LONG, NAME,
};
use sslfile::{Context, Engine, ErrorKind as Kind, Handshake, SslFile, SslOptions, State, Version};

/// Runs the test on each engine.
fn each(test: fn(Engine)) {
    within(LONG, move || engines().into_iter().for_each(test));
}

fn lazy() -> SslOptions {
    SslFile::options().handshake(Handshake::Lazy)
}

/// The option or argument is refused before a byte is sent, and the stream is given back.
fn refused(options: SslOptions, context: &Context) {
    assert_eq!(refusal(options, context), ErrorKind::InvalidInput);
}

fn refusal(options: SslOptions, context: &Context) -> ErrorKind {
    let (stream, mut peer) = tcp_pair();
    let addr = stream.local_addr().expect("local_addr");
    let failed = options.handshake(Handshake::Lazy).open(stream, context).expect_err("misuse");
    assert!(!failed.to_string().is_empty());
    let (error, mut stream, unread) = failed.into_parts();
    assert_eq!((stream.local_addr().expect("the same"), unread), (addr, Vec::new()));
    stream.write_all(b"plain").expect("write");
    drop(stream);
    let mut sent = Vec::new();
    peer.read_to_end(&mut sent).expect("read");
    assert_eq!(sent, b"plain");
    error.kind()
}

// ------------------------------------------------------------------------------------------------
// Opening
// ------------------------------------------------------------------------------------------------

const BAD_NAMES: [&str; 5] = ["", "\0", "local\0host", "localhost\0", "localhost\0.example.com"];

#[test]
fn empty_names_and_names_with_nul_are_refused() {
    each(|engine| {
        let context = client_context(engine);
        for name in BAD_NAMES {
            refused(SslFile::options().client(name), &context);
            let (stream, _peer) = tcp_pair();
            let failed = SslFile::client(stream, &context, name).expect_err("misuse");
            assert_eq!(failed.error().kind(), ErrorKind::InvalidInput, "{name:?}: {failed}");
        }
    });
}

#[test]
fn bad_names_are_refused_with_every_check_switched_off_too() {
    each(|engine| {
        let builder = client_builder(engine).danger_accept_invalid_certs(true).danger_accept_invalid_hostnames(true);
        let context = builder.build().expect("context");
        for name in BAD_NAMES {
            refused(SslFile::options().client(name), &context);
        }
    });
}

#[test]
fn names_no_host_can_have_are_an_error_or_match_nothing() {
    each(|engine| {
        let label = "a".repeat(64);
        let long = format!("{}example.com", "label.".repeat(60));
        for name in [" ", ".", "..", "a..b", "*", "*.example.com", "host name", "-", "127.0.0.1:443", &label, &long] {
            let (client, server) = tcp_pair();
            thread::scope(|t| {
                t.spawn(move || SslFile::server(server, &server_context(engine)).map(drop).map_err(drop));
                let failed = SslFile::client(client, &client_context(engine), name).expect_err(name);
                let kind = failed.error().kind();
                assert!(matches!(kind, ErrorKind::InvalidInput | ErrorKind::InvalidData), "{name:?}: {failed}");
            });
        }
    });
}

#[test]
fn options_without_role_are_refused() {
    each(|engine| {
        refused(SslFile::options(), &client_context(engine));
        refused(SslFile::options().nonblocking(true), &server_context(engine));
    });
}

#[test]
fn context_without_identity_is_no_server() {
    each(|engine| {
        refused(SslFile::options().server(), &client_context(engine));
        let (stream, _peer) = tcp_pair();
        let failed = SslFile::server(stream, &client_context(engine)).expect_err("misuse");
        assert_eq!(failed.error().kind(), ErrorKind::InvalidInput, "{failed}");
        assert!(failed.to_string().contains("identity") || failed.to_string().contains("certificate"), "{failed}");
        if let Ok(listener) = sslfile::SslListener::bind("127.0.0.1:0", &client_context(engine)) {
            // If it is not told at once, then with the first client.
            let _client = TcpStream::connect(listener.local_addr().expect("local_addr")).expect("connect");
            let error = listener.accept().map(drop).expect_err("misuse");
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
        }
    });
}

#[test]
fn versions_in_the_wrong_order_are_refused() {
    each(|engine| {
        let swapped = client_builder(engine).min_version(Version::Tls1_3).max_version(Version::Tls1_2);
        let error = swapped.build().map(drop).expect_err("misuse");
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
        let options = SslFile::options().client(NAME);
        refused(options.min_version(Version::Tls1_3).max_version(Version::Tls1_2), &client_context(engine));
        // Each is right on its own; together with the context's they leave nothing.
        let context = client_builder(engine).min_version(Version::Tls1_2).build().expect("context");
        refused(SslFile::options().client(NAME).max_version(Version::Tls1_1), &context);
        let context = server_builder(engine).max_version(Version::Tls1_2).build().expect("context");
        let kind = refusal(SslFile::options().server().min_version(Version::Tls1_3), &context);
        // Native cannot serve TLS 1.3 at all, which is as good a reason.
        assert!(kind == ErrorKind::InvalidInput || engine == Engine::Native && kind == ErrorKind::Unsupported);
    });
}

#[test]
fn eager_connect_to_an_impossible_address_is_an_error() {
    each(|engine| {
        for addr in ["", ":", "localhost", "localhost:", "localhost:0x1bb"] {
            let error = SslFile::options().connect(addr, &client_context(engine)).expect_err(addr);
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{addr:?}: {error}");
        }
        for host in ["", "no\0name"] {
            let error = SslFile::options().connect((host, 443), &client_context(engine)).expect_err(host);
            assert!(!error.to_string().is_empty(), "{host:?}");
        }
    });
}

#[test]
fn absurd_limits_are_taken_as_they_are() {
    each(|engine| {
        // The least: nothing may wait, no time to close. It must still carry data.
        let least = SslFile::options().send_limit(0).close_timeout(Duration::ZERO);
        let most = SslFile::options()
            .send_limit(usize::MAX)
            .close_timeout(Duration::MAX)
            .handshake_timeout(Some(Duration::MAX));
        for options in [least, most] {
            let (client, server) =
                common::tls_pair_with(options.clone(), &client_context(engine), options, &server_context(engine));
            let data = pattern(1, 100_000);
            thread::scope(|t| {
                t.spawn(|| (&client).write_all(&data).expect("write_all"));
                let mut got = vec![0; data.len()];
                (&server).read_exact(&mut got).expect("read_exact");
                assert!(got == data);
                // Both close, so that even the longest wait ends.
                t.spawn(|| client.close().expect("close"));
                server.close().expect("close");
            });
        }
    });
}

// ------------------------------------------------------------------------------------------------
// Closing
// ------------------------------------------------------------------------------------------------

#[test]
fn double_close_does_nothing_more() {
    each(|engine| {
        let (client, server) = tls_pair(engine);
        let clone = client.try_clone().expect("try_clone");
        thread::scope(|t| {
            let read = t.spawn(|| (&server).read(&mut [0]).expect("close_notify"));
            client.close().expect("close");
            assert_eq!(read.join().expect("reader"), 0);
        });
        client.close().expect("close again");
        clone.close().expect("close of a clone");
        assert_eq!(clone.state(), State::Closed);
        // Several at once.
        let (client, server) = tls_pair(engine);
        thread::scope(|t| {
            for _ in 0..4 {
                t.spawn(|| client.close().expect("close"));
            }
            assert_eq!((&server).read(&mut [0]).expect("close_notify"), 0);
            server.close().expect("close");
        });
        assert_eq!(client.state(), State::Closed);
    });
}

#[test]
fn close_before_the_handshake() {
    each(|engine| {
        for flip in [false, true] {
            let (client, server) = tcp_pair();
            let client = lazy().client(NAME).open(client, &client_context(engine)).expect("open");
            let server = lazy().server().open(server, &server_context(engine)).expect("open");
            let (one, other) = if flip { (&server, &client) } else { (&client, &server) };
            let _ = one.close();
            let _ = other.close();
            for mut file in [one, other] {
                assert!(!file.is_open());
                file.read(&mut [0]).expect_err("closed");
                file.write(&[0]).expect_err("closed");
            }
        }
    });
}

#[test]
fn close_during_a_blocked_read_ends_the_read() {
    each(|engine| {
        for flip in [false, true] {
            let (mut ours, mut peer) = tls_pair(engine);
            if flip {
                std::mem::swap(&mut ours, &mut peer);
            }
            thread::scope(|t| {
                let reads = [t.spawn(|| (&ours).read(&mut [0])), t.spawn(|| ours.peek(&mut [0]))];
                until_busy(&ours);
                ours.close().expect("close");
                for read in reads {
                    let error = read.join().expect("reader").expect_err("closed under it");
                    assert_eq!((error.kind(), kind_of(&error)), (ErrorKind::NotConnected, Some(Kind::NotOpen)));
                }
            });
            assert_eq!((&peer).read(&mut [0]).expect("close_notify"), 0);
        }
    });
}

#[test]
fn close_during_a_blocked_write_ends_the_write() {
    each(|engine| {
        let options = SslFile::options().close_timeout(Duration::from_millis(300));
        let (client, server) =
            common::tls_pair_with(options, &client_context(engine), SslFile::options(), &server_context(engine));
        let data = pattern(2, 32 << 20);
        let accepted = AtomicUsize::new(0);
        thread::scope(|t| {
            let writer = t.spawn(|| loop {
                let done = accepted.load(SeqCst);
                match (&client).write(&data[done..data.len().min(done + 100_000)]) {
                    Ok(n) => accepted.fetch_add(n, SeqCst),
                    Err(e) => return e,
                };
            });
            until_stuck(&client, &accepted);
            let closed = client.close();
            let error = writer.join().expect("writer");
            assert_eq!((error.kind(), kind_of(&error)), (ErrorKind::NotConnected, Some(Kind::NotOpen)), "{error}");
            let mut got = Vec::new();
            let end = (&server).read_to_end(&mut got);
            let accepted = accepted.load(SeqCst);
            match closed {
                // The kernel had room for the last of it after all.
                Ok(()) => {
                    end.expect("a clean end");
                    assert!(got == data[..accepted]);
                }
                Err(e) => assert_lost(e, end.expect_err("cut"), &got, &data[..accepted]),
            }
        });
    });
}

/// `close` said that something was lost, and so it was, and the peer can tell.
fn assert_lost(closed: io::Error, read: io::Error, got: &[u8], accepted: &[u8]) {
    assert_eq!((closed.kind(), kind_of(&closed)), (ErrorKind::TimedOut, Some(Kind::TimedOut)), "{closed}");
    assert!(matches!(read.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset), "{read}");
    assert!(got.len() < accepted.len() && *got == accepted[..got.len()]);
}

#[test]
fn close_that_cannot_send_what_was_accepted_says_so() {
    each(|engine| {
        let limit = Duration::from_millis(300);
        let options = SslFile::options().close_timeout(limit);
        let (client, server) =
            common::tls_pair_with(options, &client_context(engine), SslFile::options(), &server_context(engine));
        let data = pattern(4, 32 << 20);
        client.send(&data).expect("all of it, as nothing is unsent");
        let start = Instant::now();
        let closed = client.close().expect_err("the peer does not read");
        assert!(start.elapsed() >= limit, "{:?}", start.elapsed());
        assert_eq!(client.state(), State::Closed);
        let mut got = Vec::new();
        let read = (&server).read_to_end(&mut got).expect_err("cut");
        assert_lost(closed, read, &got, &data);
    });
}

#[test]
fn close_during_a_handshake_ends_the_handshake() {
    each(|engine| {
        let (stream, _silent) = tcp_pair();
        let file = lazy().client(NAME).open(stream, &client_context(engine)).expect("open");
        thread::scope(|t| {
            let waiting = t.spawn(|| file.handshake());
            until_busy(&file);
            let _ = file.close();
            waiting.join().expect("thread").expect_err("closed under it");
        });
        assert!(!file.is_open());
    });
}

#[test]
fn close_while_nonblocking_finishes_by_further_calls() {
    each(|engine| {
        let (client, server) = tls_pair(engine);
        client.set_nonblocking(true).expect("set_nonblocking");
        assert_eq!(client.close().expect_err("the peer is still there").kind(), ErrorKind::WouldBlock);
        assert_eq!(client.state(), State::Closing);
        assert_eq!((&client).write(&[0]).expect_err("closing").kind(), ErrorKind::NotConnected);
        thread::scope(|t| {
            t.spawn(|| server.close().expect("close"));
            until_ready(&client, || client.close()).expect("close");
        });
        assert_eq!(client.state(), State::Closed);
        client.close().expect("and once more");
    });
}

// ------------------------------------------------------------------------------------------------
// Several threads, several handles
// ------------------------------------------------------------------------------------------------

#[test]
fn handshake_from_several_threads_is_one_handshake() {
    each(|engine| {
        let (client, server) = tcp_pair();
        let client = lazy().client(NAME).open(client, &client_context(engine)).expect("open");
        let server = lazy().server().open(server, &server_context(engine)).expect("open");
        let barrier = Barrier::new(12);
        thread::scope(|t| {
            for i in 0..12 {
                let file = if i % 2 == 0 { &client } else { &server };
                let (barrier, clone) = (&barrier, file.try_clone().expect("try_clone"));
                t.spawn(move || {
                    barrier.wait();
                    match i / 2 {
                        0..=3 => clone.handshake().expect("handshake"),
                        4 => assert_eq!((&clone).write(&[1]).expect("write"), 1),
                        _ => assert_eq!((&clone).read(&mut [0; 2]).expect("read"), 1),
                    }
                });
            }
        });
        assert!(client.is_handshake_done() && server.is_handshake_done());
        client.handshake().expect("done is done");
    });
}

#[test]
fn a_handshake_that_fails_tells_every_thread_the_same() {
    each(|engine| {
        let (client, server) = tcp_pair();
        let context = server_builder(engine).identity(certs().self_signed.identity()).build().expect("context");
        let file = lazy().client(NAME).open(client, &client_context(engine)).expect("open");
        let barrier = Barrier::new(6);
        thread::scope(|t| {
            t.spawn(|| SslFile::server(server, &context).map(drop).expect_err("refused"));
            for i in 0..6 {
                let (file, barrier) = (&file, &barrier);
                t.spawn(move || {
                    barrier.wait();
                    let error = match i % 3 {
                        0 => file.handshake().expect_err("refused"),
                        1 => (&*file).read(&mut [0]).expect_err("refused"),
                        _ => (&*file).write(&[0]).expect_err("refused"),
                    };
                    assert_eq!(kind_of(&error), Some(Kind::Certificate), "{error}");
                });
            }
        });
    });
}

#[test]
fn release_with_other_handles_gives_the_file_back() {
    each(|engine| {
        let (client, server) = tls_pair(engine);
        let clone = client.try_clone().expect("try_clone");
        let failed = client.release().expect_err("another handle");
        assert_eq!(failed.error().kind(), ErrorKind::ResourceBusy, "{failed}");
        assert_eq!(failed.file().state(), State::Open);
        let (error, mut client) = failed.into_parts();
        assert_eq!(error.kind(), ErrorKind::ResourceBusy);
        client.write_all(&[3]).expect("it works on");
        let mut byte = [0];
        (&server).read_exact(&mut byte).expect("read");
        assert_eq!(byte, [3]);
        drop(clone);
        let (mut tcp, unread) = client.release().expect("the last handle");
        assert_eq!(unread, []);
        tcp.write_all(b"plain").expect("write");
        drop(tcp);
        // To TLS the plain bytes are garbage, and whatever it is called, it is no end.
        let error = (&server).read(&mut [0]).expect_err("no TLS");
        let kinds = [ErrorKind::InvalidData, ErrorKind::BrokenPipe, ErrorKind::ConnectionReset];
        assert!(kinds.contains(&error.kind()), "{error}");
    });
}

#[test]
fn release_after_close_is_broken_pipe() {
    each(|engine| {
        let (client, server) = tls_pair(engine);
        drop(server);
        client.close().expect("close");
        let failed = client.release().expect_err("closed");
        assert_eq!(failed.error().kind(), ErrorKind::BrokenPipe, "{failed}");
    });
}

#[test]
fn release_with_unsent_bytes_would_block() {
    each(|engine| {
        let (client, server) = tls_pair(engine);
        client.set_nonblocking(true).expect("set_nonblocking");
        let mut sent = 0;
        let data = pattern(3, 32 << 20);
        for _ in 0..3 {
            while let Ok(n) = (&client).write(&data[sent..sent + 50_000]) {
                sent += n;
            }
            thread::sleep(Duration::from_millis(50));
        }
        assert_ne!(client.unsent(), 0);
        let failed = client.release().expect_err("unsent");
        assert_eq!(failed.error().kind(), ErrorKind::WouldBlock, "{failed}");
        let (_, client) = failed.into_parts();
        thread::scope(|t| {
            t.spawn(|| until_ready(&client, || (&client).flush()).expect("flush"));
            let mut got = vec![0; sent];
            (&server).read_exact(&mut got).expect("read_exact");
            assert!(got == data[..sent]);
        });
        client.release().expect("all is sent");
    });
}

#[test]
fn send_over_its_limit_takes_nothing() {
    each(|engine| {
        let options = SslFile::options().send_limit(10_000);
        let (client, server) =
            common::tls_pair_with(options, &client_context(engine), SslFile::options(), &server_context(engine));
        client.set_nonblocking(true).expect("set_nonblocking");
        let mut sent = Vec::new();
        // All or nothing, however large, as long as nothing is unsent.
        for i in 0..2000 {
            let data = pattern(i, 20_000);
            match client.send(&data) {
                Ok(()) => sent.extend(data),
                Err(e) => {
                    assert_eq!(e.kind(), ErrorKind::WouldBlock, "{e}");
                    break;
                }
            }
        }
        assert!(sent.len() < 2000 * 20_000, "the limit was never met");
        thread::scope(|t| {
            t.spawn(|| until_ready(&client, || (&client).flush()).expect("flush"));
            let mut got = vec![0; sent.len()];
            (&server).read_exact(&mut got).expect("read_exact");
            assert!(got == sent);
        });
    });
}
