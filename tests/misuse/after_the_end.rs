//! Every call on a file that has come to an end, whichever end.

use super::*;

/// Every way to come to an end, and the file after it.
fn ends(engine: Engine) -> Vec<(&'static str, SslFile, Option<SslFile>)> {
    let mut files = Vec::new();
    // Its `close` does not wait long for the other end, which in most of these tests does nothing.
    let options = SslFile::options().close_timeout(Duration::from_millis(50));
    let contexts = (client_context(engine), server_context(engine));
    let mut add = |name, end: &dyn Fn(SslFile, SslFile) -> (SslFile, Option<SslFile>)| {
        for flip in [false, true] {
            let (client, server) = common::tls_pair_with(options.clone(), &contexts.0, options.clone(), &contexts.1);
            let (ours, peer) = if flip { end(server, client) } else { end(client, server) };
            files.push((name, ours, peer));
        }
    };
    add("shutdown(Write)", &|ours, peer| {
        ours.shutdown(Shutdown::Write).expect("shutdown");
        (ours, Some(peer))
    });
    add("shutdown(Read)", &|ours, peer| {
        ours.shutdown(Shutdown::Read).expect("shutdown");
        (ours, Some(peer))
    });
    add("shutdown(Both)", &|ours, peer| {
        ours.shutdown(Shutdown::Both).expect("shutdown");
        (ours, Some(peer))
    });
    add("close", &|ours, peer| {
        drop(peer);
        ours.close().expect("close");
        (ours, None)
    });
    add("close_clean", &|ours, peer| {
        thread::scope(|t| {
            t.spawn(|| peer.close_clean().expect("peer's close_clean"));
            ours.close_clean().expect("close_clean");
        });
        (ours, Some(peer))
    });
    add("close_notify", &|ours, peer| {
        peer.shutdown(Shutdown::Write).expect("shutdown");
        assert_eq!((&ours).read(&mut [0]).expect("the end"), 0);
        (ours, Some(peer))
    });
    add("peer gone", &|ours, peer| {
        drop(peer);
        assert_eq!((&ours).read(&mut [0]).expect("the end"), 0);
        (ours, None)
    });
    add("cut", &|ours, peer| {
        peer.get_ref().shutdown(Shutdown::Both).expect("FIN");
        assert_eq!((&ours).read(&mut [0]).expect_err("cut").kind(), ErrorKind::BrokenPipe);
        (ours, None)
    });
    add("reset", &|ours, peer| {
        // Released, so that no close_notify goes before the RST.
        let (tcp, _) = peer.release().expect("release");
        socket2::SockRef::from(&tcp).set_linger(Some(Duration::ZERO)).expect("linger");
        drop(tcp);
        let error = (&ours).read(&mut [0]).expect_err("reset");
        assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error} {ours:?} {engine:?}");
        (ours, None)
    });
    files.push(("failed handshake", failed_handshake(engine), None));
    let (client, _) = tcp_pair();
    let file = lazy().client(NAME).open(client, &client_context(engine)).expect("open");
    file.handshake().expect_err("the peer has gone");
    files.push(("failed before a word", file, None));
    files
}

/// A client that has refused its server's certificate.
fn failed_handshake(engine: Engine) -> SslFile {
    let (client, server) = tcp_pair();
    let context = server_builder(engine).identity(certs().self_signed.identity()).build().expect("context");
    let file = lazy().client(NAME).open(client, &client_context(engine)).expect("open");
    thread::scope(|t| {
        t.spawn(|| SslFile::server(server, &context).map(drop).expect_err("refused"));
        let error = file.handshake().expect_err("self-signed");
        assert_eq!((error.kind(), kind_of(&error)), (ErrorKind::InvalidData, Some(Kind::Certificate)), "{error}");
    });
    file
}

/// What a read gives, and goes on giving.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Reads {
    End,
    Error(ErrorKind, Kind),
}

#[test]
fn reading_after_each_kind_of_end() {
    each(|engine| {
        for (name, mut file, _peer) in ends(engine) {
            let expected = match name {
                // Reading goes on.
                "shutdown(Write)" => continue,
                "shutdown(Read)" | "shutdown(Both)" | "close_notify" | "peer gone" | "close_clean" => Reads::End,
                "close" => Reads::Error(ErrorKind::NotConnected, Kind::NotOpen),
                "cut" | "failed before a word" => Reads::Error(ErrorKind::BrokenPipe, Kind::Truncated),
                "reset" => Reads::Error(ErrorKind::ConnectionReset, Kind::Truncated),
                "failed handshake" => Reads::Error(ErrorKind::InvalidData, Kind::Certificate),
                other => unreachable!("{other}"),
            };
            let outcome = |result: io::Result<usize>| match result {
                Ok(n) => {
                    assert_eq!(n, 0, "{name}");
                    Reads::End
                }
                Err(e) => Reads::Error(e.kind(), kind_of(&e).unwrap_or_else(|| panic!("{name}: untyped {e:?}"))),
            };
            for nonblocking in [false, true] {
                let _ = file.set_nonblocking(nonblocking);
                let mut buf = [0; 8];
                for _ in 0..2 {
                    assert_eq!(outcome(file.read(&mut buf)), expected, "read, {name}, nonblocking {nonblocking}");
                    assert_eq!(outcome(file.peek(&mut buf)), expected, "peek, {name}, nonblocking {nonblocking}");
                    let vectored = file.read_vectored(&mut [IoSliceMut::new(&mut buf)]);
                    assert_eq!(outcome(vectored), expected, "read_vectored, {name}");
                }
            }
            assert!(!file.is_open(), "{name}");
        }
    });
}

#[test]
fn writing_after_each_kind_of_end() {
    each(|engine| {
        for (name, mut file, peer) in ends(engine) {
            match name {
                // Writing goes on.
                "shutdown(Read)" | "close_notify" => {
                    file.write_all(b"still").expect(name);
                    file.flush().expect(name);
                    let mut got = [0; 5];
                    peer.as_ref().expect("a peer").read_exact(&mut got).expect(name);
                    assert_eq!(&got, b"still", "{name}");
                    continue;
                }
                // The first write may get as far as the kernel, which learns the truth from the peer's.
                "peer gone" | "cut" => {
                    let error = loop {
                        match file.write(&[0; 1000]) {
                            Ok(n) => assert!(n > 0, "{name}"),
                            Err(e) => break e,
                        }
                    };
                    assert!(matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset), "{error}");
                    continue;
                }
                _ => {}
            }
            let expected = match name {
                "shutdown(Write)" | "shutdown(Both)" | "failed before a word" => ErrorKind::BrokenPipe,
                "close" | "close_clean" => ErrorKind::NotConnected,
                "reset" => ErrorKind::ConnectionReset,
                "failed handshake" => ErrorKind::InvalidData,
                other => unreachable!("{other}"),
            };
            for nonblocking in [false, true] {
                let _ = file.set_nonblocking(nonblocking);
                let results = [
                    file.write(&[0]),
                    file.write_vectored(&[IoSlice::new(&[0])]),
                    file.send(&[0]).map(|()| 1),
                    file.write(&[0; 100_000]),
                ];
                for result in results {
                    let error = result.expect_err(name);
                    let reset = expected == ErrorKind::ConnectionReset && error.kind() == ErrorKind::BrokenPipe;
                    assert!(error.kind() == expected || reset, "{name}: {:?}, {error}", error.kind());
                    assert!(kind_of(&error).is_some(), "{name}: untyped {error:?}");
                }
            }
            assert_eq!(file.unsent(), 0, "{name}");
        }
    });
}

#[test]
fn zero_length_buffers_in_every_state() {
    fn check(name: &str, mut file: &SslFile) {
        for nonblocking in [true, false] {
            let _ = file.set_nonblocking(nonblocking);
            assert_eq!(file.read(&mut []).expect(name), 0);
            assert_eq!(file.write(&[]).expect(name), 0);
            assert_eq!(file.read_vectored(&mut []).expect(name), 0);
            assert_eq!(file.write_vectored(&[]).expect(name), 0);
            assert_eq!(file.read_vectored(&mut [IoSliceMut::new(&mut []), IoSliceMut::new(&mut [])]).expect(name), 0);
            assert_eq!(file.write_vectored(&[IoSlice::new(&[]), IoSlice::new(&[])]).expect(name), 0);
            file.write_all(&[]).expect(name);
            file.read_exact(&mut []).expect(name);
        }
    }
    each(|engine| {
        let (stream, _silent) = tcp_pair();
        let file = lazy().client(NAME).open(stream, &client_context(engine)).expect("open");
        check("before the handshake", &file);
        assert!(!file.is_handshake_done());
        let (client, server) = tls_pair(engine);
        check("open", &client);
        (&server).write_all(&[1]).expect("write");
        assert_eq!(client.peek(&mut [0]).expect("peek"), 1);
        check("open, with data", &client);
        assert_eq!(client.peek(&mut []).expect("peek"), 0);
        assert_eq!(client.pending(), 1);
        for (name, file, _peer) in ends(engine) {
            check(name, &file);
        }
    });
}

#[test]
fn every_other_call_after_each_kind_of_end() {
    each(|engine| {
        for (name, mut file, _peer) in ends(engine) {
            // What is asserted for most: they return.
            let queries = format!("{file:?} {:?} {:?}", file.state(), file.interest());
            assert!(!queries.is_empty());
            let _ = (file.is_open(), file.is_busy(), file.pending(), file.unsent(), file.role(), file.last_error());
            let _ = (file.version(), file.cipher(), file.alpn(), file.server_name(), file.peer_certificate());
            let _ = (file.peer_certificates(), file.is_resumed(), file.tls_server_end_point());
            let _ = file.export_keying_material(&mut [0; 16], "EXPERIMENTAL test", None);
            let _ = (file.flush(), file.handshake(), file.peer_addr(), file.local_addr(), file.take_error());
            let _ = (file.set_nodelay(true), file.set_read_timeout(Some(LONG)), file.set_nonblocking(false));
            file.interrupt();
            let clone = file.try_clone().expect(name);
            assert_eq!(clone.state(), file.state(), "{name}");
            file.set_read_timeout(Some(Duration::from_millis(50))).expect(name);
            for how in [Shutdown::Write, Shutdown::Read, Shutdown::Both] {
                let _ = clone.shutdown(how);
            }
            let _ = clone.close_clean();
            let _ = clone.close();
            let _ = clone.close_clean();
            assert!(!clone.is_open(), "{name}");
            for result in [file.read(&mut [0]), file.write(&[0])] {
                assert!(!matches!(result, Ok(1..)), "{name}: data after the end");
            }
        }
    });
}

#[test]
fn a_failed_handshake_is_the_same_error_for_every_call() {
    each(|engine| {
        let mut file = failed_handshake(engine);
        assert_eq!(file.state(), State::Failed);
        let first = file.last_error().expect("last_error").to_string();
        let results = [
            file.handshake(),
            file.read(&mut [0]).map(drop),
            file.write(&[0]).map(drop),
            file.peek(&mut [0]).map(drop),
            file.send(&[0]),
            file.try_clone().expect("try_clone").handshake(),
        ];
        for result in results {
            let error = result.expect_err("final");
            assert_eq!((error.kind(), kind_of(&error)), (ErrorKind::InvalidData, Some(Kind::Certificate)));
            assert_eq!(error.to_string(), first);
        }
        assert!(!file.is_open() && !file.is_handshake_done());
        let (stream, _) = file.release().expect("the stream comes back");
        stream.peer_addr().expect("and is open");
    });
}
