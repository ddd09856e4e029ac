//! `interrupt` ends waits, and only waits.

use super::common::{until_ready, until_stuck};
use super::*;

fn is_interrupted(error: &io::Error) -> bool {
    (error.kind(), kind_of(error)) == (ErrorKind::Other, Some(Kind::Interrupted))
}

#[test]
fn interrupt_wakes_a_reader_long_before_its_timeout() {
    each(|engine| {
        let (client, server) = tls_pair(engine);
        for timeout in [None, Some(100 * LONG)] {
            client.set_read_timeout(timeout).expect("set");
            let calls: [&(dyn Fn() -> io::Result<usize> + Sync); 2] =
                [&|| (&client).read(&mut [0]), &|| client.peek(&mut [0])];
            for call in calls {
                thread::scope(|t| {
                    let waiting = t.spawn(call);
                    until_busy(&client);
                    client.try_clone().expect("try_clone").interrupt();
                    let error = waiting.join().expect("reader").expect_err("interrupted");
                    assert!(is_interrupted(&error), "{error:?}");
                });
            }
        }
        assert!(!client.is_busy());
        exchange(&client, &server);
    });
}

#[test]
fn interrupt_wakes_every_reader() {
    each(|engine| {
        let (client, server) = tls_pair(engine);
        thread::scope(|t| {
            let readers: Vec<_> = (0..3).map(|_| t.spawn(|| (&client).read(&mut [0]))).collect();
            // No one tells how many wait, so those that came too late are interrupted once more.
            until_busy(&client);
            while readers.iter().any(|reader| !reader.is_finished()) {
                client.interrupt();
                thread::sleep(Duration::from_millis(5));
            }
            for reader in readers {
                assert!(is_interrupted(&reader.join().expect("reader").expect_err("interrupted")));
            }
        });
        exchange(&client, &server);
    });
}

#[test]
fn interrupt_wakes_a_writer_and_every_byte_is_accounted_for() {
    each(|engine| {
        for timeout in [None, Some(100 * LONG)] {
            let (client, server) = tls_pair(engine);
            client.set_write_timeout(timeout).expect("set");
            let data = pattern(8, 32 << 20);
            let accepted = AtomicUsize::new(0);
            thread::scope(|t| {
                let writer = t.spawn(|| loop {
                    let done = accepted.load(SeqCst);
                    match (&client).write(&data[done..data.len().min(done + 100_000)]) {
                        Ok(n) => accepted.fetch_add(n, SeqCst),
                        Err(e) => break e,
                    };
                });
                // The first interrupt may end a call that has accepted something: `Ok`.
                until_stuck(&client, &accepted);
                while !writer.is_finished() {
                    client.interrupt();
                    thread::sleep(Duration::from_millis(5));
                }
                let error = writer.join().expect("writer");
                assert!(is_interrupted(&error), "{error:?}");
            });
            let accepted = accepted.into_inner();
            client.set_write_timeout(None).expect("set");
            thread::scope(|t| {
                t.spawn(|| (&client).write_all(b"the end").expect("write after an interrupt"));
                assert!(read_all(&server, accepted) == data[..accepted]);
                assert_eq!(read_all(&server, 7), b"the end");
            });
            exchange(&client, &server);
        }
    });
}

#[test]
fn interrupt_wakes_a_handshake_that_goes_on_afterwards() {
    each(|engine| {
        let (client, server, wire) = unshaken(engine, lazy());
        wire.set(Flow::Allow(0));
        thread::scope(|t| {
            for file in [&client, &server] {
                let calls: [&(dyn Fn() -> io::Result<()> + Sync); 3] =
                    [&|| file.handshake(), &|| (&mut &*file).read(&mut [0]).map(drop), &|| {
                        (&mut &*file).write(&[0]).map(drop)
                    }];
                for call in calls {
                    thread::scope(|t| {
                        let waiting = t.spawn(call);
                        until_busy(file);
                        file.interrupt();
                        let error = waiting.join().expect("thread").expect_err("interrupted");
                        assert!(is_interrupted(&error), "{error:?}");
                    });
                    assert_eq!(file.state(), State::Handshaking);
                }
            }
            wire.set(Flow::Free);
            t.spawn(|| server.handshake().expect("server handshake"));
            client.handshake().expect("client handshake");
        });
        exchange(&client, &server);
    });
}

#[test]
fn interrupt_with_nobody_waiting_does_nothing() {
    each(|engine| {
        let (client, server, _wire) = unshaken(engine, lazy());
        client.interrupt();
        server.interrupt();
        thread::scope(|t| {
            t.spawn(|| client.handshake().expect("client handshake"));
            server.handshake().expect("server handshake");
        });
        for _ in 0..10 {
            client.interrupt();
            server.interrupt();
            exchange(&client, &server);
        }
        client.interrupt();
        thread::scope(|t| {
            let read = t.spawn(|| read_all(&client, 1));
            until_busy(&client);
            thread::sleep(Duration::from_millis(20));
            assert!(!read.is_finished(), "an interrupt of the past woke it");
            (&server).write_all(&[6]).expect("write");
            assert_eq!(read.join().expect("reader"), [6]);
        });
        client.set_nonblocking(true).expect("set_nonblocking");
        client.interrupt();
        assert_eq!((&client).read(&mut [0]).expect_err("nothing there").kind(), ErrorKind::WouldBlock);
        (&server).write_all(&[7]).expect("write");
        let mut byte = [0];
        assert_eq!(until_ready(&client, || (&client).read(&mut byte)).expect("read"), 1);
        assert_eq!(byte, [7]);
    });
}

#[test]
fn interrupt_ends_flush_close_and_close_clean_which_may_be_called_again() {
    each(|engine| {
        let waits_and_is_interrupted = |file: &SslFile, call: &(dyn Fn() -> io::Result<()> + Sync)| {
            thread::scope(|t| {
                let waiting = t.spawn(call);
                until_busy(file);
                file.interrupt();
                let error = waiting.join().expect("thread").expect_err("interrupted");
                assert!(is_interrupted(&error), "{error:?}");
            });
        };
        let options = SslFile::options().close_timeout(LONG);
        let pair = || {
            common::tls_pair_with(options.clone(), &client_context(engine), options.clone(), &server_context(engine))
        };

        let (client, server) = pair();
        let data = pattern(9, 32 << 20);
        client.send(&data).expect("all of it, as nothing is unsent");
        waits_and_is_interrupted(&client, &|| (&client).flush());
        waits_and_is_interrupted(&client, &|| client.close());
        assert_eq!(client.state(), State::Closing);
        thread::scope(|t| {
            t.spawn(|| client.close().expect("close"));
            let mut got = Vec::new();
            (&server).read_to_end(&mut got).expect("nothing was lost");
            assert!(got == data);
            server.close().expect("close");
        });

        let (client, server) = pair();
        waits_and_is_interrupted(&client, &|| client.close_clean());
        thread::scope(|t| {
            t.spawn(|| server.close_clean().expect("the answer"));
            client.close_clean().expect("may be called again");
        });
        let (mut tcp, _) = client.release().expect("open and plain");
        tcp.write_all(b"plain").expect("write");
        let (mut tcp, unread) = server.release().expect("open and plain");
        let mut got = vec![0; 5 - unread.len()];
        tcp.read_exact(&mut got).expect("read");
        assert_eq!([unread, got].concat(), b"plain");
    });
}
