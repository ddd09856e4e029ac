//! `set_read_deadline`, `set_write_deadline`: points in time, for any number of calls; and how a time-out is told.

use super::*;

const LONG_AGO: Duration = Duration::from_secs(5);

#[test]
fn a_read_deadline_bounds_many_calls() {
    each(|engine| {
        let (client, server) = tls_pair(engine);
        let ends = Instant::now() + LIMIT;
        thread::scope(|t| {
            t.spawn(|| {
                // Each byte in time for any time-out of a call.
                for _ in 0..1_000 {
                    if (&server).write_all(b"x").is_err() || Instant::now() > ends + LIMIT {
                        break;
                    }
                    thread::sleep(LIMIT / 10);
                }
            });
            client.set_read_timeout(Some(LIMIT)).expect("time-out");
            client.set_read_deadline(Some(ends)).expect("deadline");
            times_out(LIMIT - Duration::from_millis(50), || (&client).read_exact(&mut [0; 1_000]));
        });
        // Over and over, until another is set; what is there is given all the same.
        times_out(Duration::ZERO, || {
            let mut all = Vec::new();
            (&client).read_to_end(&mut all)
        });
        times_out(Duration::ZERO, || client.peek(&mut [0]));
        (&server).write_all(b"late").expect("write");
        client.set_read_deadline(None).expect("deadline");
        let (mut all, mut more) = (Vec::new(), [0; 100]);
        while !all.ends_with(b"late") {
            let n = (&client).read(&mut more).expect("read");
            all.extend_from_slice(&more[..n]);
        }
    });
}

#[test]
fn what_is_there_is_given_behind_the_deadline() {
    each(|engine| {
        let (client, server) = tls_pair(engine);
        (&server).write_all(b"here").expect("write");
        client.set_read_deadline(Some(Instant::now() - LONG_AGO)).expect("deadline");
        // On its way, or there.
        let mut got = [0; 4];
        let mut read = 0;
        while read < 4 {
            match (&client).read(&mut got[read..]) {
                Ok(n) => read += n,
                Err(e) => assert_eq!(e.kind(), ErrorKind::TimedOut, "{e}"),
            }
        }
        assert_eq!(&got, b"here");
        server.shutdown(Shutdown::Write).expect("shutdown");
        let end = loop {
            match (&client).read(&mut got) {
                Err(e) if e.kind() == ErrorKind::TimedOut => {}
                end => break end,
            }
        };
        assert_eq!(end.expect("the end"), 0);
    });
}

#[test]
fn it_counts_for_calls_that_wait_already_and_for_all_handles() {
    each(|engine| {
        let (client, server) = tls_pair(engine);
        let other = client.try_clone().expect("clone");
        thread::scope(|t| {
            let readers = [&client, &other].map(|mut file| t.spawn(move || file.read(&mut [0])));
            until_busy(&client);
            // Far away, and then near.
            client.set_read_deadline(Some(Instant::now() + 100 * SOON)).expect("deadline");
            client.set_read_deadline(Some(Instant::now() + LIMIT)).expect("deadline");
            let begun = Instant::now();
            for reader in readers {
                let error = reader.join().expect("no panic").expect_err("nothing has come");
                assert_eq!((error.kind(), kind_of(&error)), (ErrorKind::TimedOut, Some(Kind::TimedOut)), "{error}");
                assert!(error.to_string().contains("deadline"), "{error}");
            }
            assert!(begun.elapsed() < SOON);
        });
        // The other direction is not concerned.
        (&client).write_all(b"up").expect("write");
        assert_eq!(read_all(&server, 2), b"up");
    });
}

#[test]
fn a_write_deadline_bounds_writes() {
    each(|engine| {
        let (client, server) = tls_pair(engine);
        client.set_write_deadline(Some(Instant::now() + LIMIT)).expect("deadline");
        let mut written = 0;
        let error = loop {
            match (&client).write(&pattern(written as u64, 1 << 20)) {
                Ok(n) => written += n,
                Err(e) => break e,
            }
        };
        assert_eq!((error.kind(), kind_of(&error)), (ErrorKind::TimedOut, Some(Kind::TimedOut)), "{error}");
        // What was accepted goes, once.
        client.set_write_deadline(None).expect("deadline");
        thread::scope(|t| {
            t.spawn(|| {
                (&client).flush().expect("flush");
                client.shutdown(Shutdown::Write).expect("shutdown");
            });
            let mut all = Vec::new();
            (&server).read_to_end(&mut all).expect("all of it");
            assert_eq!(all.len(), written);
        });
    });
}

#[test]
fn on_a_non_blocking_file_timed_out_takes_the_place_of_would_block() {
    each(|engine| {
        let (client, _server) = tls_pair(engine);
        client.set_nonblocking(true).expect("mode");
        assert_eq!((&client).read(&mut [0]).expect_err("nothing").kind(), ErrorKind::WouldBlock);
        client.set_read_deadline(Some(Instant::now() - LONG_AGO)).expect("deadline");
        times_out(Duration::ZERO, || (&client).read(&mut [0]));
        client.set_read_deadline(None).expect("deadline");
        assert_eq!((&client).read(&mut [0]).expect_err("nothing").kind(), ErrorKind::WouldBlock);
    });
}

#[test]
fn a_handshake_and_a_clean_close_are_reads() {
    each(|engine| {
        let (client, server, _wire) = unshaken(engine, lazy());
        client.set_read_deadline(Some(Instant::now() + LIMIT)).expect("deadline");
        times_out(LIMIT - Duration::from_millis(50), || client.handshake());
        client.set_read_deadline(None).expect("deadline");
        thread::scope(|t| {
            t.spawn(|| exchange(&client, &server));
            server.handshake().expect("handshake");
        });
        client.set_read_deadline(Some(Instant::now() - LONG_AGO)).expect("deadline");
        times_out(Duration::ZERO, || client.close_clean());
    });
}

#[test]
fn a_file_that_wraps_another_has_its_deadlines() {
    each(|engine| {
        let (client, server) = tls_pair(engine);
        let at = Instant::now() + LIMIT;
        client.set_read_deadline(Some(at)).expect("deadline");
        client.set_timeout_kind(ErrorKind::WouldBlock).expect("kind");
        let outer = lazy().client(NAME).open(client, &client_context(engine)).expect("open");
        let error = outer.handshake().expect_err("the peer says nothing");
        assert_eq!((error.kind(), kind_of(&error)), (ErrorKind::WouldBlock, Some(Kind::TimedOut)), "{error}");
        assert!(Instant::now() >= at);
        drop(server);
    });
}

#[test]
fn a_time_out_is_told_as_would_block_if_that_is_wished() {
    each(|engine| {
        let told = |result: io::Result<usize>| {
            let error = result.expect_err("nothing can have come");
            assert_eq!(kind_of(&error), Some(Kind::TimedOut), "{error}");
            error.kind()
        };
        let (client, server) = tcp_pair();
        let options = SslFile::options().timeout_kind(ErrorKind::WouldBlock);
        let (client, server) = thread::scope(|t| {
            let client = t.spawn(|| options.clone().client(NAME).open(client, &client_context(engine)));
            let server = SslFile::server(server, &server_context(engine)).expect("server");
            (client.join().expect("no panic").expect("client"), server)
        });
        for (file, kind) in [(&client, ErrorKind::WouldBlock), (&server, ErrorKind::TimedOut)] {
            file.set_read_timeout(Some(LIMIT / 10)).expect("time-out");
            assert_eq!(told((&mut &*file).read(&mut [0])), kind);
            file.set_read_timeout(None).expect("time-out");
            file.set_read_deadline(Some(Instant::now())).expect("deadline");
            assert_eq!(told((&mut &*file).read(&mut [0])), kind);
        }
        client.set_timeout_kind(ErrorKind::TimedOut).expect("kind");
        assert_eq!(told((&client).read(&mut [0])), ErrorKind::TimedOut);
        assert_eq!(client.set_timeout_kind(ErrorKind::Other).expect_err("no such").kind(), ErrorKind::InvalidInput);
        let (stream, _peer) = tcp_pair();
        let odd = SslFile::options().timeout_kind(ErrorKind::BrokenPipe).server().open(stream, &server_context(engine));
        assert_eq!(odd.expect_err("no such").error().kind(), ErrorKind::InvalidInput);
    });
}

/// An eager handshake that the socket's time-out ends has failed to open the file, however that is told.
#[test]
fn a_blocking_open_that_times_out_is_no_open_file() {
    each(|engine| {
        let (stream, _peer) = tcp_pair();
        stream.set_read_timeout(Some(LIMIT)).expect("time-out");
        let opened =
            SslFile::options().timeout_kind(ErrorKind::WouldBlock).client(NAME).open(stream, &client_context(engine));
        assert_eq!(opened.expect_err("the peer says nothing").error().kind(), ErrorKind::WouldBlock);
    });
}

#[test]
fn streams_without_a_descriptor_have_none() {
    each(|engine| {
        let (stream, _peer) = tcp_pair();
        let file = lazy().client(NAME).open(sslfile::ReadWrite::new(stream), &client_context(engine)).expect("open");
        let refused = file.set_read_deadline(Some(Instant::now())).expect_err("nothing to poll");
        assert_eq!(refused.kind(), ErrorKind::Unsupported);
        file.set_write_deadline(None).expect("none is what there is");
    });
}

#[test]
fn a_connect_time_out_bounds_all_addresses_together() {
    // A listener whose queue is full: the system leaves further SYNs unanswered.
    let listener = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("socket");
    listener.bind(&std::net::SocketAddr::from(([127, 0, 0, 1], 0)).into()).expect("bind");
    listener.listen(0).expect("listen");
    let addr = listener.local_addr().expect("address").as_socket().expect("IP");
    let mut full = Vec::new();
    while let Ok(stream) = std::net::TcpStream::connect_timeout(&addr, LIMIT / 3) {
        full.push(stream);
        assert!(full.len() < 100, "no end of room");
    }
    let options = || SslFile::options().connect_timeout(Some(LIMIT));
    let context = client_context(engines()[0]);
    times_out_plainly(|| options().connect(addr, &context).map(drop));
    let zero = SslFile::options().connect_timeout(Some(Duration::ZERO)).connect(addr, &context);
    assert_eq!(zero.map(drop).expect_err("zero").kind(), ErrorKind::InvalidInput);
}

/// By the system's own time-out.
fn times_out_plainly(call: impl FnOnce() -> io::Result<()>) {
    let start = Instant::now();
    let error = call().expect_err("nobody answers");
    let took = start.elapsed();
    assert_eq!(error.kind(), ErrorKind::TimedOut, "{error}");
    assert!(took >= LIMIT - Duration::from_millis(10) && took < LIMIT + SOON, "{took:?}");
}

#[test]
fn in_a_backend_the_connection_ends_at_its_deadline() {
    each(|engine| {
        let backend = sslfile::Backend::new().expect("backend");
        let (client, server) = tls_pair(engine);
        let (tell, told) = std::sync::mpsc::channel();
        client.set_nonblocking(true).expect("mode");
        client.set_callbacks(
            sslfile::Callbacks::new()
                .on_read(|_, _| {})
                .on_close(move |_, end| tell.send(end).expect("the test lives")),
        );
        client.set_backend(Some(&backend)).expect("backend");
        client.set_read_deadline(Some(Instant::now() + 100 * SOON)).expect("deadline");
        backend.turn(Some(LIMIT / 10)).expect("turn");
        assert!(told.try_recv().is_err());
        let at = Instant::now() + LIMIT;
        client.set_read_deadline(Some(at)).expect("deadline");
        let end = loop {
            backend.turn(Some(SOON)).expect("turn");
            if let Ok(end) = told.try_recv() {
                break end;
            }
            assert!(Instant::now() < at + SOON);
        };
        let error = end.expect_err("the deadline");
        assert_eq!((error.kind(), kind_of(&error)), (ErrorKind::TimedOut, Some(Kind::TimedOut)), "{error}");
        assert!(Instant::now() >= at, "{error}");
        drop(server);
    });
}
