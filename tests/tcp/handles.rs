//! Several handles on one connection: clones, and `shutdown` as all of them see it.

use super::*;

// ------------------------------------------------------------------------------------------------
// Clones
// ------------------------------------------------------------------------------------------------

#[test]
fn one_clone_writes_while_the_other_reads() {
    each(|net| {
        let (client, server) = net.pair();
        let clone = server.try_clone().expect("try_clone");
        thread::scope(|t| {
            t.spawn(|| {
                assert_eq!(read_byte(&client), 1);
                write_byte(&client, 2);
            });
            t.spawn(move || write_byte(&clone, 1));
            assert_eq!(read_byte(&server), 2);
        });
    });
}

#[test]
fn two_clones_read_each_byte_once() {
    each(|net| {
        let (client, server) = net.pair();
        let clone = server.try_clone().expect("try_clone");
        thread::scope(|t| {
            let (got, bytes) = channel();
            for file in [&server, &clone] {
                let got = got.clone();
                t.spawn(move || got.send(read_byte(file)).expect("send"));
            }
            write_byte(&client, 1);
            let first = bytes.recv().expect("first");
            write_byte(&client, 2);
            let second = bytes.recv().expect("second");
            assert_eq!((first, second), (1, 2));
        });
    });
}

#[test]
fn two_clones_write_each_byte_once() {
    each(|net| {
        let (client, server) = net.pair();
        let clone = server.try_clone().expect("try_clone");
        thread::scope(|t| {
            t.spawn(move || write_byte(&clone, 1));
            t.spawn(|| write_byte(&server, 2));
            let mut got = [read_byte(&client), read_byte(&client)];
            got.sort();
            assert_eq!(got, [1, 2]);
        });
    });
}

#[test]
fn nothing_but_reads_waits_for_a_blocked_reader() {
    each(|net| {
        let (client, server) = net.open_pair();
        let reader = server.try_clone().expect("try_clone");
        thread::scope(|t| {
            let read = t.spawn(|| read_byte(&reader));
            until_busy(&server);
            let clone = server.try_clone().expect("try_clone");
            assert!(format!("{clone:?}").contains("SslFile"));
            server.set_read_timeout(Some(LONG)).expect("set_read_timeout");
            server.set_write_timeout(Some(LONG)).expect("set_write_timeout");
            server.set_nodelay(true).expect("set_nodelay");
            server.peer_addr().expect("peer_addr");
            assert!(server.take_error().expect("take_error").is_none());
            assert!(server.is_open() && server.is_handshake_done());
            assert_eq!((server.state(), server.pending(), server.unsent()), (State::Open, 0, 0));
            drop(clone);
            (&server).write_all(&[5; 100_000]).expect("write");
            (&server).flush().expect("flush");
            server.shutdown(Shutdown::Write).expect("shutdown");
            let mut got = Vec::new();
            (&client).read_to_end(&mut got).expect("read_to_end");
            assert_eq!(got.len(), 100_000);
            assert!(!read.is_finished());
            write_byte(&client, 6);
            assert_eq!(read.join().expect("reader"), 6);
        });
    });
}

#[test]
fn nonblocking_write_beside_a_blocked_one_is_in_order_and_whole() {
    const BLOCKED: usize = 16 << 20;
    each(|net| {
        let (client, server) = net.open_pair();
        thread::scope(|t| {
            let writer = t.spawn(|| (&client).write_all(&vec![0; BLOCKED]).expect("write_all"));
            until_busy(&client);
            client.set_nonblocking(true).expect("set_nonblocking");
            let mut beside = 0;
            // It may take none of it, or some until its limit is met.
            let refused = loop {
                match (&client).write(&[1; 10_000]) {
                    Ok(n) => beside += n,
                    Err(e) => break e.kind(),
                }
            };
            assert_eq!(refused, ErrorKind::WouldBlock);
            client.set_nonblocking(false).expect("set_nonblocking");
            let mut got = vec![0; BLOCKED + beside];
            (&server).read_exact(&mut got).expect("read_exact");
            assert_eq!(got.iter().filter(|byte| **byte == 1).count(), beside);
            writer.join().expect("writer");
            (&client).flush().expect("flush");
            assert_eq!(client.unsent(), 0);
            write_byte(&client, 2);
            assert_eq!(read_byte(&server), 2);
        });
    });
}

// ------------------------------------------------------------------------------------------------
// Shutting down
// ------------------------------------------------------------------------------------------------

#[test]
fn shutdown_write_ends_one_direction_even_before_the_handshake() {
    each(|net| {
        let (client, server) = net.pair();
        client.shutdown(Shutdown::Write).expect("shutdown");
        assert_eq!((&client).write(&[1]).expect_err("shut down").kind(), ErrorKind::BrokenPipe);
        thread::scope(|t| {
            t.spawn(|| {
                assert_eq!((&server).read(&mut [0]).expect("read"), 0);
                write_byte(&server, 1);
            });
            let mut buf = [0; 2];
            assert_eq!((&client).read(&mut buf).expect("read"), 1);
            assert_eq!(buf[0], 1);
        });
    });
}

/// A proxy that takes TCP's end of one side for that of both.
#[test]
fn without_a_half_close_tls_alone_says_our_end() {
    for engine in engines() {
        for half_close in [true, false] {
            let options = SslFile::options().half_close(half_close);
            let (client, server) =
                tls_pair_with(options, &client_context(engine), SslFile::options(), &server_context(engine));
            client.shutdown(Shutdown::Write).expect("shutdown");
            (&client).flush().expect("flush");
            assert_eq!((&server).read(&mut [0]).expect("read"), 0);

            let tcp = server.get_ref();
            let ended = |wanted: bool| {
                tcp.set_nonblocking(true).expect("set_nonblocking");
                let deadline = Instant::now() + LONG;
                let ended = loop {
                    match tcp.peek(&mut [0]) {
                        Ok(n) => break n == 0,
                        Err(e) => assert_eq!(e.kind(), ErrorKind::WouldBlock),
                    }
                    // It may be on its way.
                    if !wanted || Instant::now() > deadline {
                        break false;
                    }
                };
                tcp.set_nonblocking(false).expect("set_nonblocking");
                ended
            };
            assert_eq!(ended(half_close), half_close, "{engine:?}");
            write_byte(&server, 1);
            assert_eq!(read_byte(&client), 1);
            drop(client);
            assert!(ended(true), "{engine:?}: no end of the stream");
        }
    }
}

/// All that std's own test asks of `shutdown` on a file and its clones.
fn both_halves_are_shut_for_all_handles(file: SslFile) {
    let clone = file.try_clone().expect("try_clone");
    let dead = |mut handle: &SslFile, which: &str| {
        assert_eq!(handle.write(&[0]).expect_err(which).kind(), ErrorKind::BrokenPipe, "{which}");
        assert_eq!(handle.read(&mut [0]).expect(which), 0, "{which}");
    };
    file.shutdown(Shutdown::Write).expect("shutdown");
    assert_eq!((&file).write(&[0]).expect_err("shut down").kind(), ErrorKind::BrokenPipe);
    file.shutdown(Shutdown::Read).expect("shutdown");
    dead(&file, "the handle itself");
    dead(&clone, "an older clone");
    let newer = file.try_clone().expect("try_clone");
    dead(&newer, "a newer clone");
    for how in [Shutdown::Read, Shutdown::Write, Shutdown::Both] {
        // Once more may be an error (ENOTCONN on some systems) and must be nothing worse.
        let _ = newer.shutdown(how);
        let _ = clone.shutdown(how);
    }
    dead(&clone, "after all of it");
}

#[test]
fn shutdown_is_seen_by_all_clones_of_an_unshaken_file() {
    each(|net| {
        let (client, _silent) = net.pair();
        both_halves_are_shut_for_all_handles(client);
    });
}

#[test]
fn shutdown_is_seen_by_all_clones_of_an_open_file() {
    each(|net| {
        let (client, _silent) = net.open_pair();
        both_halves_are_shut_for_all_handles(client);
        let (_silent, server) = net.open_pair();
        both_halves_are_shut_for_all_handles(server);
    });
}

fn shutdown_wakes_a_reader(file: &SslFile, how: Shutdown) {
    let clone = file.try_clone().expect("try_clone");
    thread::scope(|t| {
        let read = t.spawn(move || (&clone).read(&mut [0]).expect("woken, and without an error"));
        until_busy(file);
        file.shutdown(how).expect("shutdown");
        assert_eq!(read.join().expect("reader"), 0);
    });
}

#[test]
fn shutdown_read_wakes_a_blocked_reader() {
    each(|net| {
        for how in [Shutdown::Read, Shutdown::Both] {
            // A pair for each: after `Both` the other end has nothing to wait for.
            let (client, _silent) = net.open_pair();
            shutdown_wakes_a_reader(&client, how);
            let (_silent, server) = net.open_pair();
            shutdown_wakes_a_reader(&server, how);
        }
    });
}

#[test]
fn shutdown_read_wakes_a_reader_that_waits_in_the_handshake() {
    each(|net| {
        for how in [Shutdown::Read, Shutdown::Both] {
            let (client, _silent) = net.pair();
            shutdown_wakes_a_reader(&client, how);
            let _silent = TcpStream::connect(net.addr).expect("connect");
            shutdown_wakes_a_reader(&net.accept(), how);
        }
    });
}

#[test]
fn shutdown_read_leaves_writing_alone() {
    each(|net| {
        let (client, server) = net.open_pair();
        client.shutdown(Shutdown::Read).expect("shutdown");
        write_byte(&client, 3);
        assert_eq!(read_byte(&server), 3);
    });
}

// ------------------------------------------------------------------------------------------------
// Debug
// ------------------------------------------------------------------------------------------------

/// What std shows of both addresses: "addr: …, peer: …".
fn addresses_of(tcp: &TcpStream) -> String {
    let shown = format!("{tcp:?}");
    let from = shown.find("addr: ").expect("std's own");
    let name = if cfg!(windows) { ", socket: " } else { ", fd: " };
    let to = shown.find(name).expect("std's own");
    shown[from..to].to_string()
}

#[test]
fn debug_shows_both_addresses_as_stds_does() {
    each(|net| {
        let (client, server) = net.pair();
        for file in [&client, &server] {
            let expected = addresses_of(file.get_ref());
            assert!(format!("{file:?}").contains(&expected), "{file:?}, {expected}");
        }
        drop((client, server));

        let tcp = TcpStream::connect(net.addr).expect("connect");
        let expected = addresses_of(&tcp);
        let plain = PlainFile::new(tcp);
        assert!(format!("{plain:?}").contains(&expected), "{plain:?}, {expected}");
        let tls = SslFile::options().client(NAME).handshake(Handshake::Lazy).open(plain, &net.client).expect("open");
        assert!(format!("{tls:?}").contains(&expected), "{tls:?}, {expected}");
    });
}

/// Asks the file while it is being shown.
struct Asks<'a>(&'a SslFile, usize);

impl std::fmt::Write for Asks<'_> {
    fn write_str(&mut self, _: &str) -> std::fmt::Result {
        self.1 += 1;
        self.0.set_read_timeout(None).expect("time-out");
        Ok(())
    }
}

#[test]
fn debug_waits_for_nobody_and_holds_no_lock() {
    each(|net| {
        let (client, server) = net.pair();
        thread::scope(|t| {
            t.spawn(|| assert_eq!(read_byte(&client), 1));
            until_busy(&client);
            let mut asks = Asks(&client, 0);
            std::fmt::Write::write_fmt(&mut asks, format_args!("{client:?}")).expect("shown");
            assert!(asks.1 > 0);
            write_byte(&server, 1);
        });
    });
}
