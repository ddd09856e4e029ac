//! What is put back, when, and to whom; what is refused meanwhile.

use super::*;

#[test]
fn a_failed_handshake_puts_callbacks_backend_and_mode_back() {
    within(LONG, || {
        for engine in engines() {
            let backend = Backend::new().expect("backend");
            let (ours, theirs) = tcp_pair();
            let plain = PlainFile::new(ours);
            let got = Arc::new(Mutex::new(Vec::new()));
            let to = got.clone();
            plain.set_callbacks(
                Callbacks::new().on_read(move |_: &PlainFile, data| to.lock().expect("lock").extend_from_slice(data)),
            );
            plain.set_backend(Some(&backend)).expect("backend");
            // A certificate for another name: the client refuses it, by then deep in the handshake.
            let server = thread::spawn(move || {
                let identity = common::certs().other_name.identity();
                let context = server_builder(engine).identity(identity).build().expect("context");
                let error = SslFile::server(PlainFile::new(theirs), &context).err();
                error.map(|e| e.into_parts().1)
            });
            let error = SslFile::client(plain, &client_context(engine), NAME).expect_err("the name is wrong");
            assert_eq!(error.kind(), ErrorKind::HostnameMismatch, "{error}");
            let (_, plain, _) = error.into_parts();
            assert_eq!(plain.backend().as_ref(), Some(&backend));
            assert!(!plain.is_nonblocking());
            // TLS 1.3: the server is done before it hears of it; its file takes the alert as the end.
            if let Some(other) = server.join().expect("server") {
                (&other).write_all(b"plain again").expect("write");
                turn_until(&backend, "the plain read callback", || got.lock().expect("lock").ends_with(b"plain again"));
            }
            assert!(!plain.take_callbacks().is_empty());
        }
    });
}

/// A TLS file over a plain one with another handle on that, in nobody's backend; and its peer.
fn taken_over(engine: Engine) -> (Tls, PlainFile, Tls) {
    let (a, b) = tcp_pair();
    let plain = PlainFile::new(a);
    let handle = plain.clone();
    let server = thread::spawn(move || SslFile::server(PlainFile::new(b), &server_context(engine)).expect("server"));
    let tls = SslFile::client(plain, &client_context(engine), NAME).expect("client");
    (tls, handle, server.join().expect("server"))
}

#[test]
fn a_plain_file_that_is_taken_over_is_busy() {
    within(LONG, || {
        for engine in engines() {
            let (tls, plain, peer) = taken_over(engine);
            let backend = Backend::new().expect("backend");
            let calls: Vec<(&str, io::Result<()>)> = vec![
                ("read", (&plain).read(&mut [0; 10]).map(drop)),
                ("peek", plain.peek(&mut [0; 10]).map(drop)),
                ("write", (&plain).write(b"no").map(drop)),
                ("flush", (&plain).flush()),
                ("send", plain.send(b"no")),
                ("shutdown", plain.shutdown(Shutdown::Write)),
                ("close", plain.close()),
                ("set_nonblocking", plain.set_nonblocking(true)),
                ("set_read_timeout", plain.set_read_timeout(Some(LONG))),
                ("set_write_timeout", plain.set_write_timeout(Some(LONG))),
                ("set_backend", plain.set_backend(Some(&backend))),
                ("set_backend(None)", plain.set_backend(None)),
            ];
            for (call, result) in calls {
                let e = result.expect_err(call);
                assert_eq!(e.kind(), io::ErrorKind::ResourceBusy, "{call}: {e}");
            }
            let plain = plain.into_stream().expect_err("into_stream");
            let error = SslFile::client(plain, &client_context(engine), NAME).expect_err("a second file over it");
            let (e, plain, _) = error.into_parts();
            assert_eq!(e.kind(), io::ErrorKind::ResourceBusy, "{e}");
            // None of it did any harm.
            (&tls).write_all(b"still here").expect("write");
            let mut buf = [0; 10];
            (&peer).read_exact(&mut buf).expect("read");
            assert_eq!(&buf, b"still here");
            thread::scope(|t| {
                t.spawn(|| peer.close_clean().expect("peer"));
                tls.close_clean().expect("close_clean");
            });
            // Back at once, whoever holds handles on the TLS file.
            (&plain).write_all(b"plain").expect("plain again");
            let mut buf = [0; 5];
            peer.get_ref().clone().read_exact(&mut buf).expect("plain again");
            assert_eq!(&buf, b"plain");
        }
    });
}

#[test]
fn callbacks_set_on_the_plain_handle_meanwhile_are_kept_for_later() {
    within(LONG, || {
        for engine in engines() {
            let backend = Backend::new().expect("backend");
            let (a, b) = tcp_pair();
            let plain = PlainFile::new(a);
            plain.set_nonblocking(true).expect("mode");
            plain.set_backend(Some(&backend)).expect("backend");
            let early = Arc::new(AtomicUsize::new(0));
            let count = early.clone();
            plain.set_callbacks(Callbacks::new().on_read(move |_: &PlainFile, _| {
                count.fetch_add(1, Ordering::SeqCst);
            }));
            let peer = thread::spawn(move || {
                let tls = SslFile::server(PlainFile::new(b), &server_context(engine)).expect("server");
                (&tls).write_all(b"TLS").expect("write");
                assert_eq!((&tls).read(&mut [0; 1]).expect("end"), 0);
                tls.close_clean().expect("responder");
                let (plain, _) = tls.release().expect("release");
                (&plain).write_all(b"plain").expect("write");
                plain
            });
            let tls = SslFile::client(plain.clone(), &client_context(engine), NAME).expect("client");
            let log = Arc::new(Mutex::new(String::new()));
            let to = log.clone();
            plain.set_callbacks(Callbacks::new().on_read(move |_: &PlainFile, data| {
                *to.lock().expect("lock") += &format!("plain:{};", String::from_utf8_lossy(data));
            }));
            let (to, end) = (log.clone(), log.clone());
            tls.set_callbacks(
                Callbacks::new()
                    .on_read(move |tls: &Tls, data| {
                        *to.lock().expect("lock") += &format!("tls:{};", String::from_utf8_lossy(data));
                        tls.close_clean().expect("close_clean");
                    })
                    .on_close(move |_: &Tls, how| *end.lock().expect("lock") += &format!("end:{};", how.is_ok())),
            );
            turn_until(&backend, "plain data", || log.lock().expect("lock").contains("plain"));
            assert_eq!(*log.lock().expect("lock"), "tls:TLS;end:true;plain:plain;", "{engine:?}");
            assert_eq!(early.load(Ordering::SeqCst), 0, "the first callback was replaced");
            peer.join().expect("peer");
        }
    });
}

#[test]
fn each_file_has_its_own_backend_and_the_plain_one_goes_home() {
    within(LONG, || {
        for engine in engines() {
            let (home, away) = (Backend::new().expect("backend"), Backend::new().expect("backend"));
            let (a, b) = tcp_pair();
            let plain = PlainFile::new(a);
            plain.set_nonblocking(true).expect("mode");
            plain.set_backend(Some(&home)).expect("backend");
            assert_eq!(home.len(), 1);
            let peer = thread::spawn(move || {
                let tls = SslFile::server(PlainFile::new(b), &server_context(engine)).expect("server");
                tls.close_clean().expect("close_clean");
                tls.release().expect("release").0
            });
            let tls = SslFile::client(plain.clone(), &client_context(engine), NAME).expect("client");
            assert_eq!(tls.backend().as_ref(), Some(&home), "taken over");
            tls.set_backend(Some(&away)).expect("backend");
            assert_eq!((home.len(), away.len()), (0, 1));
            let done = Arc::new(AtomicUsize::new(0));
            let count = done.clone();
            tls.set_callbacks(Callbacks::new().on_close(move |tls: &Tls, how| {
                how.expect("clean");
                tls.close_clean().expect("close_clean");
                count.fetch_add(1, Ordering::SeqCst);
            }));
            turn_until(&away, "the clean close", || done.load(Ordering::SeqCst) == 1 && tls.state() == State::Closed);
            assert_eq!(plain.backend().as_ref(), Some(&home), "home again");
            assert_eq!(home.len(), 1);
            tls.release().expect("release");
            assert_eq!((home.len(), away.len()), (1, 0));
            drop(peer.join().expect("peer"));
        }
    });
}

#[test]
fn release_of_an_open_file_puts_everything_back() {
    within(LONG, || {
        for engine in engines() {
            let backend = Backend::new().expect("backend");
            let (tls, plain, peer) = taken_over(engine);
            tls.set_backend(Some(&backend)).expect("backend");
            let (back, rest) = tls.release().expect("release");
            assert_eq!(rest, b"");
            assert_eq!(back.backend(), None, "the plain file had none");
            // Abruptly: nothing was said to the peer, which now meets plain text.
            (&plain).write_all(b"not TLS at all").expect("plain write");
            let e = (&peer).read(&mut [0; 10]).expect_err("garbage");
            assert_eq!(e.kind(), io::ErrorKind::InvalidData, "{e}");
            assert!(back.is_open());
        }
    });
}

#[test]
fn the_end_of_the_tcp_connection_is_told_through_the_plain_file_once() {
    within(LONG, || {
        for engine in engines() {
            for reset in [false, true] {
                let backend = Backend::new().expect("backend");
                let (tls, plain, peer) = taken_over(engine);
                tls.set_nonblocking(true).expect("mode");
                let (log, plain_log) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicUsize::new(0)));
                let (data, end, count) = (log.clone(), log.clone(), plain_log.clone());
                plain.set_callbacks(Callbacks::new().on_close(move |_: &PlainFile, _| {
                    count.fetch_add(1, Ordering::SeqCst);
                }));
                tls.set_callbacks(
                    Callbacks::new()
                        .on_read(move |_: &Tls, bytes| data.lock().expect("lock").extend_from_slice(bytes))
                        .on_close(move |_: &Tls, how| {
                            let kind = how.expect_err("a cut").kind();
                            end.lock().expect("lock").extend_from_slice(format!(", {kind:?}").as_bytes());
                        }),
                );
                tls.set_backend(Some(&backend)).expect("backend");
                (&peer).write_all(b"data").expect("write");
                turn_until(&backend, "data", || *log.lock().expect("lock") == b"data");
                let tcp = peer.get_ref().get_ref();
                match reset {
                    false => tcp.shutdown(Shutdown::Both).expect("cut"),
                    true => {
                        socket2::SockRef::from(tcp).set_linger(Some(Duration::ZERO)).expect("linger");
                        let (peer, _) = peer.release().expect("release");
                        drop(peer.into_stream().expect("the only handle"));
                    }
                }
                turn_until(&backend, "the end", || log.lock().expect("lock").len() > 4);
                backend.turn(Some(Duration::from_millis(20))).expect("turn");
                let expected: &[u8] = if reset { b"data, ConnectionReset" } else { b"data, BrokenPipe" };
                assert_eq!(*log.lock().expect("lock"), expected);
                assert_eq!(plain_log.load(Ordering::SeqCst), 0, "the plain file still belongs to the TLS file");
            }
        }
    });
}

#[test]
fn a_dropped_tls_file_gives_the_plain_handle_back_at_its_end() {
    within(LONG, || {
        for engine in engines() {
            let (tls, plain, peer) = taken_over(engine);
            drop(tls);
            assert_eq!((&peer).read(&mut [0; 1]).expect("close_notify"), 0);
            plain.set_read_timeout(Some(Duration::from_millis(50))).expect("not busy any more");
            assert_eq!((&plain).read(&mut [0; 1]).expect_err("nothing comes").kind(), io::ErrorKind::TimedOut);
        }
    });
}

#[test]
fn unread_bytes_and_already_read_ones_go_into_the_handshake_in_order() {
    within(LONG, || {
        for engine in engines() {
            let (a, b) = tcp_pair();
            let client = thread::spawn(move || SslFile::client(a, &client_context(engine), NAME).expect("client"));
            let plain = PlainFile::new(b);
            let mut hello = [0; 60];
            (&plain).read_exact(&mut hello).expect("part of the ClientHello");
            // In the order of the stream: passed on by hand, put back, still in the file, still in the kernel.
            plain.unread(&hello[20..]);
            let options = SslFile::options().server().already_read(hello[..20].to_vec());
            let server = options.open(plain, &server_context(engine)).expect("server");
            let client = client.join().expect("client");
            (&client).write_all(b"hello").expect("write");
            assert_eq!(read_exactly(&server, 5), b"hello");
        }
    });
}
