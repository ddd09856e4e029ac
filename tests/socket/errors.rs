//! Each error told once, distinct and readable; time-outs; what is bounded.

use super::*;

/// The end of an encrypted connection to this port.
fn failure(port: u16, engine: Engine, timeout: Duration) -> io::Error {
    let probe = Probe::new(&backend());
    probe.socket.set_connect_timeout(Some(timeout));
    probe.socket.connect_encrypted(NAME, port, &client_context(engine)).expect("connect");
    probe.socket.write(b"never sent").expect("queued");
    let e = probe.end().expect_err("an error");
    assert!(!probe.has("encrypted") && !probe.has("written"), "{:?}", probe.events());
    let again = probe.socket.read(&mut [0; 1]).expect_err("sticky");
    assert_eq!((again.kind(), again.to_string()), (e.kind(), e.to_string()));
    assert_eq!(probe.socket.write(b"no").expect_err("no").kind(), io::ErrorKind::NotConnected);
    assert!(e.to_string().contains(NAME), "with whom? {e}");
    println!("{engine:?}: {e}");
    e
}

#[test]
fn each_error_is_distinct_and_readable() {
    within(LONG, || {
        for engine in engines() {
            // Nobody listens.
            let port = TcpListener::bind("127.0.0.1:0").expect("bind").local_addr().expect("address").port();
            let e = failure(port, engine, LONG);
            assert_eq!(e.kind(), io::ErrorKind::ConnectionRefused, "{e}");

            // A certificate for another name.
            let with = |pair: &'static common::Pair| {
                plain_server(move |tcp| {
                    let context = server_builder(engine).identity(pair.identity()).build().expect("context");
                    if let Ok(file) = SslFile::server(tcp, &context) {
                        let _ = (&file).read(&mut [0; 1]);
                    }
                })
            };
            let (port, thread) = with(&certs().other_name);
            let e = failure(port, engine, LONG);
            assert_eq!((e.kind(), kind_of(&e)), (io::ErrorKind::InvalidData, Some(ErrorKind::HostnameMismatch)), "{e}");
            thread.join().expect("server");

            // One that nobody signed.
            let (port, thread) = with(&certs().self_signed);
            let e = failure(port, engine, LONG);
            assert_eq!((e.kind(), kind_of(&e)), (io::ErrorKind::InvalidData, Some(ErrorKind::Certificate)), "{e}");
            thread.join().expect("server");

            // No TLS.
            let (port, thread) = plain_server(|mut tcp| {
                tcp.write_all(b"220 mail.example.com ESMTP\r\n").expect("write");
                let _ = tcp.read(&mut [0; 4096]);
            });
            let e = failure(port, engine, LONG);
            assert_eq!((e.kind(), kind_of(&e)), (io::ErrorKind::InvalidData, Some(ErrorKind::NotTls)), "{e}");
            thread.join().expect("server");

            // Closed in the middle.
            let (port, thread) = plain_server(|mut tcp| {
                let _ = tcp.read(&mut [0; 4096]);
            });
            let e = failure(port, engine, LONG);
            assert_eq!((e.kind(), kind_of(&e)), (io::ErrorKind::BrokenPipe, Some(ErrorKind::Truncated)), "{e}");
            thread.join().expect("server");

            // Silence, where TLS should be.
            let (stop, stopped) = mpsc::channel::<()>();
            let (port, thread) = plain_server(move |tcp| {
                let _ = stopped.recv();
                drop(tcp);
            });
            let begin = Instant::now();
            let e = failure(port, engine, Duration::from_millis(300));
            assert!(begin.elapsed() >= Duration::from_millis(300));
            assert_eq!((e.kind(), kind_of(&e)), (io::ErrorKind::TimedOut, Some(ErrorKind::TimedOut)), "{e}");
            assert!(e.to_string().contains("handshake") && e.to_string().contains("300ms"), "{e}");
            drop(stop);
            thread.join().expect("server");
        }
    });
}

#[test]
fn a_host_that_does_not_answer_the_connect_is_a_time_out_of_its_own() {
    within(LONG, || {
        // A queue of one that is full: the system lets further connections wait without an answer.
        let listener = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("socket");
        listener.bind(&std::net::SocketAddr::from(([127, 0, 0, 1], 0)).into()).expect("bind");
        listener.listen(0).expect("listen");
        let address = listener.local_addr().expect("address").as_socket().expect("IP");
        let mut fillers = Vec::new();
        while let Ok(filler) = TcpStream::connect_timeout(&address, Duration::from_millis(100)) {
            fillers.push(filler);
        }
        let probe = Probe::new(&backend());
        probe.socket.set_connect_timeout(Some(Duration::from_millis(200)));
        probe.socket.connect("127.0.0.1", address.port()).expect("connect");
        let e = probe.end().expect_err("silence");
        assert_eq!(e.kind(), io::ErrorKind::TimedOut);
        assert!(e.to_string().contains("connecting to 127.0.0.1"), "{e}");
        assert!(probe.backend.is_empty(), "the descriptor stayed in the backend");
    });
}

#[test]
fn a_cut_and_a_reset_are_told_after_the_data() {
    within(LONG, || {
        for engine in engines() {
            for reset in [false, true] {
                let (port, thread) = server(engine, move |file| {
                    (&file).write_all(b"last words").expect("write");
                    // Until it has been read.
                    (&file).read_exact(&mut [0; 2]).expect("read");
                    if reset {
                        file.set_linger(Some(Duration::ZERO)).expect("linger");
                        let tcp = file.get_ref().try_clone().expect("clone");
                        file.release().expect("release");
                        drop(tcp);
                    } else {
                        file.get_ref().shutdown(Shutdown::Both).expect("cut");
                    }
                });
                let probe = Probe::new(&backend());
                probe.socket.connect_encrypted(NAME, port, &client_context(engine)).expect("connect");
                turn_until(&probe.backend, "data", || probe.data() == b"last words");
                probe.socket.write(b"OK").expect("write");
                let e = probe.end().expect_err("cut");
                let expected = if reset { io::ErrorKind::ConnectionReset } else { io::ErrorKind::BrokenPipe };
                assert_eq!((e.kind(), kind_of(&e)), (expected, Some(ErrorKind::Truncated)), "{e}");
                thread.join().expect("server");
            }
        }
    });
}

#[test]
fn idle_read_and_write_time_outs_end_the_connection() {
    within(LONG, || {
        let time = Duration::from_millis(200);
        for engine in engines() {
            for encrypted in [false, true] {
                let backend = backend();
                let pair = || match encrypted {
                    true => encrypted_pair(engine, &backend),
                    false => {
                        let (a, b) = tcp_pair();
                        (Probe::from_tcp(&backend, a), Probe::from_tcp(&backend, b))
                    }
                };
                let (idle, peer) = pair();
                let begin = Instant::now();
                idle.socket.set_read_timeout(Some(time));
                let e = idle.end().expect_err("idle");
                assert!(begin.elapsed() >= time);
                assert_eq!((e.kind(), kind_of(&e)), (io::ErrorKind::TimedOut, Some(ErrorKind::TimedOut)), "{e}");
                assert!(e.to_string().contains("received"), "{e}");
                drop(peer);

                // The peer reads nothing.
                let (stuck, peer) = pair();
                stuck.socket.set_write_timeout(Some(time));
                peer.socket.on_ready_read(|_| {});
                stuck.socket.write(&vec![0; 16 << 20]).expect("write");
                let e = stuck.end().expect_err("stuck");
                assert_eq!(e.kind(), io::ErrorKind::TimedOut, "{e}");
                assert!(e.to_string().contains("sent"), "{e}");
            }
        }
    });
}

#[test]
fn a_peer_that_floods_is_held_while_nothing_is_read() {
    within(LONG, || {
        for engine in engines() {
            let backend = backend();
            let (reader, writer) = encrypted_pair(engine, &backend);
            reader.socket.on_ready_read(|_| {});
            const SIZE: usize = 32 << 20;
            writer.socket.write(&vec![7; SIZE]).expect("write");
            let mut before = usize::MAX;
            // Until nothing moves any more.
            loop {
                for _ in 0..20 {
                    backend.turn(Some(Duration::from_millis(10))).expect("turn");
                }
                let unsent = writer.socket.unsent();
                if unsent == before {
                    break;
                }
                before = unsent;
            }
            assert!(before > SIZE / 2, "only {before} held back");
            let mut got = 0;
            turn_until(&backend, "all of it", || {
                got += drain(&reader.socket).len();
                got == SIZE
            });
        }
    });
}

#[test]
fn what_is_written_before_there_is_a_connection_is_bounded() {
    within(LONG, || {
        let (port, server) = plain_server(|mut tcp| {
            let mut got = Vec::new();
            tcp.read_to_end(&mut got).map(|_| got).expect("read")
        });
        let probe = Probe::new(&backend());
        probe.socket.connect("127.0.0.1", port).expect("connect");
        let data = pattern(2, 200 << 10);
        probe.socket.write(&data).expect("fits");
        assert_eq!(probe.socket.write(&data).expect_err("does not").kind(), io::ErrorKind::WouldBlock);
        assert_eq!(probe.socket.unsent(), data.len());
        probe.until("written");
        probe.socket.write(b"more").expect("room again");
        probe.socket.close();
        probe.end().expect("end");
        let got = server.join().expect("server");
        assert!(got[..data.len()] == data && &got[data.len()..] == b"more", "{} bytes", got.len());
    });
}
