//! The end in every state, and what may be done inside handlers.

use super::*;

#[test]
fn close_in_every_state_tells_the_end_once() {
    within(LONG, || {
        for engine in engines() {
            let silent = || plain_server(|tcp| drop((&tcp).read_to_end(&mut Vec::new())));
            // While looking up, connecting, and shaking hands.
            for state in ["HostLookup", "Connecting", "Connected"] {
                let (port, server) = silent();
                let probe = Probe::new(&backend());
                probe.socket.connect_encrypted("127.0.0.1", port, &client_context(engine)).expect("connect");
                probe.until(state);
                probe.socket.write(b"lost with the connection").expect("queued");
                probe.socket.close();
                probe.socket.close();
                let end = probe.end();
                assert!(!probe.has("encrypted"), "{state}: {end:?}");
                // A server that has been given up on gets no connection, or its end.
                TcpStream::connect(("127.0.0.1", port)).ok();
                server.join().expect("server");
            }
            // Encrypted, with much unsent.
            let backend = backend();
            let (client, server) = encrypted_pair(engine, &backend);
            let data = pattern(4, 8 << 20);
            client.socket.write(&data).expect("write");
            client.socket.close();
            assert_eq!(client.socket.state(), SocketState::Closing);
            assert_eq!(client.socket.write(b"late").expect_err("late").kind(), io::ErrorKind::NotConnected);
            client.socket.close();
            client.end().expect("clean");
            server.end().expect("clean");
            assert!(server.data() == data, "{} of {} bytes", server.data().len(), data.len());
            assert!(backend.is_empty(), "{backend:?}");
        }
    });
}

#[test]
fn close_before_the_handshake_is_done_sends_what_was_queued() {
    within(LONG, || {
        for engine in engines() {
            let backend = backend();
            let (a, b) = tcp_pair();
            let (client, server) = (Probe::from_tcp(&backend, a), Probe::from_tcp(&backend, b));
            client.socket.start_client_encryption(&client_context(engine), NAME).expect("client");
            client.socket.write(b"the only words").expect("queued");
            client.socket.close();
            server.socket.start_server_encryption(&server_context(engine)).expect("server");
            client.end().expect("client's end");
            server.end().expect("server's end");
            assert_eq!(server.data(), b"the only words");
        }
    });
}

#[test]
fn the_last_handle_closes_the_connection_in_every_state() {
    within(LONG, || {
        for engine in engines() {
            let backend = backend();
            // Looking up and connecting: nothing is left behind.
            let (port, server) = plain_server(|mut tcp| tcp.read_to_end(&mut Vec::new()).map(drop));
            let socket = SslSocket::new(&backend);
            socket.on_closed(|_, _| panic!("called for a socket that is gone"));
            socket.connect("127.0.0.1", port).expect("connect");
            drop(socket);
            turn_until(&backend, "nothing left", || backend.is_empty());
            TcpStream::connect(("127.0.0.1", port)).ok();
            drop(server.join().expect("server"));
            // Encrypted: with close_notify, behind what was written.
            let (client, server) = encrypted_pair(engine, &backend);
            let data = pattern(5, 4 << 20);
            client.socket.write(&data).expect("write");
            client.socket.on_closed(|_, _| {});
            drop(client);
            let end = server.end();
            assert!(end.is_ok(), "{end:?} after {} bytes", server.data().len());
            assert!(server.data() == data, "{} of {} bytes", server.data().len(), data.len());
            turn_until(&backend, "nothing left", || backend.is_empty());
        }
    });
}

#[test]
fn handlers_own_no_socket_and_do_not_outlive_it() {
    within(LONG, || {
        let backend = backend();
        let (a, mut b) = tcp_pair();
        let socket = SslSocket::from_tcp(&backend, a).expect("from_tcp");
        let owned = Arc::new(());
        let inside = owned.clone();
        socket.on_ready_read(move |_| drop(inside.clone()));
        drop(socket);
        turn_until(&backend, "the handlers are gone", || Arc::strong_count(&owned) == 1);
        assert_eq!(b.read(&mut [0; 1]).expect("the end"), 0);
    });
}

// ---------------------------------------------------------------------------------------------------------------------
// Inside handlers
// ---------------------------------------------------------------------------------------------------------------------

#[test]
fn handlers_may_replace_each_other_close_and_connect_again() {
    within(LONG, || {
        for engine in engines() {
            let (port, server) = plain_server(move |tcp| {
                let file = SslFile::server(tcp, &server_context(engine)).expect("server");
                (&file).write_all(b"one").expect("write");
                (&file).read_exact(&mut [0; 3]).expect("read");
                (&file).write_all(b"two").expect("write");
                (&file).read(&mut [0; 1]).expect("end")
            });
            let backend = backend();
            let socket = SslSocket::new(&backend);
            let log = Arc::new(Mutex::new(Vec::new()));
            let to = log.clone();
            socket.on_ready_read(move |socket| {
                to.lock().expect("lock").push(format!("first: {}", String::from_utf8_lossy(&drain(socket))));
                let to = to.clone();
                socket.on_ready_read(move |socket| {
                    to.lock().expect("lock").push(format!("second: {}", String::from_utf8_lossy(&drain(socket))));
                    socket.close();
                });
                socket.write(b"ack").expect("write");
            });
            let (to, context) = (log.clone(), client_context(engine));
            socket.on_closed(move |socket, end| {
                let count = to.lock().expect("lock").iter().filter(|line| line.starts_with("closed")).count();
                to.lock().expect("lock").push(format!("closed {}", end.is_ok()));
                if count == 0 {
                    // Nobody listens there any more.
                    socket.connect_encrypted(NAME, port, &context).expect("again, from inside");
                }
            });
            socket.connect_encrypted(NAME, port, &client_context(engine)).expect("connect");
            turn_until(&backend, "both ends", || log.lock().expect("lock").len() == 4);
            assert_eq!(*log.lock().expect("lock"), ["first: one", "second: two", "closed true", "closed false"]);
            assert_eq!(server.join().expect("server"), 0);
        }
    });
}

#[test]
fn the_last_handle_may_go_inside_a_handler() {
    within(LONG, || {
        for engine in engines() {
            let backend = backend();
            let (client, server) = encrypted_pair(engine, &backend);
            let slot = Arc::new(Mutex::new(None));
            let gone = Arc::new(AtomicBool::new(false));
            let (own, flag) = (slot.clone(), gone.clone());
            client.socket.on_ready_read(move |_| {
                let last: Option<SslSocket> = own.lock().expect("lock").take();
                drop(last);
                flag.store(true, Ordering::SeqCst);
            });
            *slot.lock().expect("lock") = Some(client.socket.clone());
            drop(client);
            server.socket.write(b"go").expect("write");
            turn_until(&backend, "the handler", || gone.load(Ordering::SeqCst));
            server.end().expect("a clean end");
            turn_until(&backend, "nothing left", || backend.is_empty());
        }
    });
}

#[test]
fn a_panic_in_a_handler_leaves_the_socket_and_the_loop_usable() {
    within(LONG, || {
        for engine in engines() {
            let backend = backend();
            let (client, server) = encrypted_pair(engine, &backend);
            client.socket.on_ready_read(|_| panic!("in a handler"));
            server.socket.write(b"bang").expect("write");
            let begin = Instant::now();
            while catch_unwind(AssertUnwindSafe(|| backend.turn(Some(Duration::from_millis(20))))).is_ok() {
                assert!(begin.elapsed() < LONG / 2, "the panic does not come out of the turn");
            }
            assert_eq!(drain(&client.socket), b"bang");
            let to = client.log.clone();
            client.socket.on_ready_read(move |socket| to.lock().expect("lock").data.extend_from_slice(&drain(socket)));
            server.socket.write(b"again").expect("write");
            turn_until(&backend, "data after the panic", || client.data() == b"again");
            client.socket.close();
            client.end().expect("clean");
        }
    });
}

#[test]
fn all_methods_may_be_called_from_other_threads_while_the_loop_runs() {
    within(LONG, || {
        for engine in engines() {
            let backend = backend();
            let (client, server) = encrypted_pair(engine, &backend);
            let echo = server.socket.clone();
            server.socket.on_ready_read(move |_| echo.write(&drain(&echo)).expect("echo"));
            let runner = {
                let backend = backend.clone();
                thread::spawn(move || backend.run().expect("run"))
            };
            let data = pattern(6, 100_000);
            thread::scope(|t| {
                let (writer, data) = (&client.socket, &data);
                t.spawn(move || {
                    for piece in data.chunks(1000) {
                        while let Err(e) = writer.write(piece) {
                            assert_eq!(e.kind(), io::ErrorKind::WouldBlock, "{e}");
                            thread::yield_now();
                        }
                    }
                });
                t.spawn(|| {
                    for _ in 0..1000 {
                        let _ = (client.socket.state(), client.socket.mode(), client.socket.unsent());
                        client.socket.set_read_timeout(Some(LONG));
                        client.socket.set_write_timeout(Some(LONG));
                    }
                });
            });
            let begin = Instant::now();
            while client.data().len() < data.len() {
                assert!(begin.elapsed() < LONG / 2, "{} of {} bytes", client.data().len(), data.len());
                thread::sleep(Duration::from_millis(1));
            }
            assert!(client.data() == data, "differs");
            backend.stop();
            runner.join().expect("runner");
            // The echo handler holds its own socket: end it.
            server.socket.on_ready_read(|_| {});
        }
    });
}

#[test]
fn a_plain_peer_file_and_a_socket_understand_each_other_at_starttls() {
    within(LONG, || {
        for engine in engines() {
            let (a, b) = tcp_pair();
            let peer = thread::spawn(move || {
                let plain = PlainFile::new(b);
                (&plain).write_all(b"220 go ahead\r\n").expect("write");
                let tls = SslFile::server(plain, &server_context(engine)).expect("server");
                let mut got = [0; 6];
                (&tls).read_exact(&mut got).expect("read");
                assert_eq!(&got, b"secret");
                tls.close_clean().expect("close_clean");
                let (plain, _) = tls.release().expect("release");
                let mut got = [0; 4];
                (&plain).read_exact(&mut got).expect("read");
                got
            });
            let probe = Probe::from_tcp(&backend(), a);
            turn_until(&probe.backend, "the line", || probe.data() == b"220 go ahead\r\n");
            probe.socket.start_client_encryption(&client_context(engine), NAME).expect("start");
            probe.socket.write(b"secret").expect("write");
            probe.until("encrypted");
            probe.until("written");
            probe.socket.stop_encryption().expect("stop");
            probe.socket.write(b"QUIT").expect("write");
            turn_until(&probe.backend, "plain", || probe.socket.mode() == Mode::Unencrypted);
            turn_until(&probe.backend, "sent", || probe.socket.unsent() == 0);
            assert_eq!(&peer.join().expect("peer"), b"QUIT");
        }
    });
}
