//! TLS in TLS in TLS, in callbacks.

use super::*;

type Deep1 = SslFile<PlainFile>;
type Deep2 = SslFile<Deep1>;
type Deep3 = SslFile<Deep2>;

fn nest<S: Stream>(stream: S, is_client: bool, engine: Engine) -> SslFile<S> {
    let options = options(is_client).nonblocking(true).handshake(Handshake::Lazy);
    options.open(stream, &context(engine, is_client)).unwrap_or_else(|e| panic!("open: {e}"))
}

/// Reads what comes until there is as much as is wanted.
fn gather<S: Stream>(file: &SslFile<S>, echo: bool) -> Arc<Mutex<Vec<u8>>> {
    let got = Arc::new(Mutex::new(Vec::new()));
    let to = got.clone();
    file.set_read_callback(move |file, data| {
        to.lock().expect("lock").extend_from_slice(data);
        if echo {
            file.send(data).expect("echo");
        }
    });
    got
}

#[test]
fn tls_in_tls_in_tls_in_callbacks_and_back_out_again() {
    within(LONG, || {
        for engine in engines() {
            let backend = Backend::new().expect("backend");
            let (a, b) = tcp_pair();
            let (a, b) = (PlainFile::new(a), PlainFile::new(b));
            for plain in [&a, &b] {
                plain.set_nonblocking(true).expect("mode");
                plain.set_backend(Some(&backend)).expect("backend");
            }
            // All three at once: the inner handshakes wait for the outer ones.
            let client: [Deep3; 1] = [nest(nest(nest(a.clone(), true, engine), true, engine), true, engine)];
            let server: [Deep3; 1] = [nest(nest(nest(b.clone(), false, engine), false, engine), false, engine)];
            let ([client], [server]) = (client, server);
            assert_eq!(backend.len(), 2, "one place for each descriptor");
            let got = gather(&client, false);
            let echoed = gather(&server, true);
            let data = pattern(3, 200_000);
            client.send(&data).expect("queued from the first moment");
            turn_until(&backend, "the echo", || got.lock().expect("lock").len() == data.len());
            assert!(*got.lock().expect("lock") == data && *echoed.lock().expect("lock") == data, "differs");

            // Out again, one by one; what was inside is delivered before.
            server.set_close_callback(|file, how| {
                how.expect("clean");
                file.close_clean().expect("responder");
            });
            client.close_clean().expect("initiator");
            turn_until(&backend, "third", || client.state() == State::Closed && server.state() == State::Closed);
            let ((client, _), (server, _)) = (client.release().expect("third"), server.release().expect("third"));
            assert!(client.backend().is_some() && server.backend().is_some(), "the second ones drive on");
            let (got, _) = (gather(&client, false), gather(&server, true));
            client.send(b"two deep").expect("send");
            turn_until(&backend, "the echo two deep", || *got.lock().expect("lock") == b"two deep");

            client.set_close_callback(|file, how| {
                how.expect("clean");
                file.close_clean().expect("responder");
            });
            server.close_clean().expect("initiator");
            turn_until(&backend, "second", || client.state() == State::Closed && server.state() == State::Closed);
            let ((client, _), (server, _)) = (client.release().expect("second"), server.release().expect("second"));
            let (got, _) = (gather(&client, false), gather(&server, true));
            client.send(b"one deep").expect("send");
            turn_until(&backend, "the echo one deep", || *got.lock().expect("lock") == b"one deep");

            server.set_close_callback(|file, how| {
                how.expect("clean");
                file.close_clean().expect("responder");
            });
            client.close_clean().expect("initiator");
            turn_until(&backend, "first", || client.state() == State::Closed && server.state() == State::Closed);
            let got = Arc::new(Mutex::new(Vec::new()));
            let to = got.clone();
            a.set_callbacks(
                Callbacks::new().on_read(move |_: &PlainFile, data| to.lock().expect("lock").extend_from_slice(data)),
            );
            b.send(b"plain").expect("send");
            turn_until(&backend, "plain data", || *got.lock().expect("lock") == b"plain");
        }
    });
}

#[test]
fn a_wrapped_tls_file_has_its_callbacks_again_after_the_inner_one() {
    within(LONG, || {
        for engine in engines() {
            let backend = Backend::new().expect("backend");
            let (a, b) = tcp_pair();
            let outer = |tcp: TcpStream, is_client| {
                let plain = PlainFile::new(tcp);
                plain.set_nonblocking(true).expect("mode");
                plain.set_backend(Some(&backend)).expect("backend");
                nest(plain, is_client, engine)
            };
            let (client, server) = (outer(a, true), outer(b, false));
            let outer_got = gather(&client, false);
            let (inner_client, inner_server) =
                (nest(client.clone(), true, engine), nest(server.clone(), false, engine));
            let inner_got = gather(&inner_client, false);
            inner_server.send(b"inner").expect("send");
            turn_until(&backend, "inner data", || *inner_got.lock().expect("lock") == b"inner");
            assert_eq!(*outer_got.lock().expect("lock"), b"", "the outer callback sees no inner record");
            assert_eq!(client.send(b"no").expect_err("busy").kind(), io::ErrorKind::ResourceBusy);
            inner_client.set_close_callback(|file, _| file.close_clean().expect("responder"));
            inner_server.close_clean().expect("initiator");
            turn_until(&backend, "inner end", || {
                inner_client.state() == State::Closed && inner_server.state() == State::Closed
            });
            server.send(b"outer").expect("send");
            turn_until(&backend, "outer data", || *outer_got.lock().expect("lock") == b"outer");
        }
    });
}
