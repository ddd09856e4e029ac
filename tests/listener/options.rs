//! `SslListener::set_options`: how accepted files are opened.

use super::*;

use sslfile::{Backend, SslOptions, Version};

fn options() -> SslOptions {
    SslFile::options()
}

#[test]
fn accepted_files_have_the_options_of_the_moment() {
    each(|engine, ip| {
        let listener = bind(ip, engine);
        let addr = listener.local_addr().expect("local_addr");
        let accepted = || {
            let client = TcpStream::connect(addr).expect("connect");
            (listener.accept().expect("accept").0, client)
        };
        listener
            .set_options(options().nonblocking(true).send_limit(1000).timeout_kind(ErrorKind::WouldBlock))
            .expect("options");
        let (file, _client) = accepted();
        assert!(file.is_nonblocking());
        // Of what can't go yet as much is queued as the limit says.
        file.send(&[0; 1000]).expect("send");
        assert_eq!(file.send(&[0]).expect_err("the limit").kind(), ErrorKind::WouldBlock);
        file.set_nonblocking(false).expect("mode");
        file.set_read_timeout(Some(Duration::from_millis(20))).expect("time-out");
        let error = (&file).read(&mut [0]).expect_err("the client says nothing");
        assert_eq!((error.kind(), kind_of(&error)), (ErrorKind::WouldBlock, Some(Kind::TimedOut)), "{error}");
        // The next ones replace them all.
        listener.set_options(options().handshake_timeout(Some(Duration::from_millis(20)))).expect("options");
        let (file, _client) = accepted();
        assert!(!file.is_nonblocking());
        let error = file.handshake().expect_err("the client says nothing");
        assert_eq!((error.kind(), file.state()), (ErrorKind::TimedOut, State::Failed), "{error}");
        listener.set_handshake_timeout(None);
        let (file, _client) = accepted();
        file.set_read_timeout(Some(Duration::from_millis(100))).expect("time-out");
        file.handshake().expect_err("the client says nothing");
        assert_eq!(file.state(), State::Handshaking);
    });
}

#[test]
fn versions_count_in_both_modes() {
    each(|engine, ip| {
        let listener = bind(ip, engine);
        let addr = listener.local_addr().expect("local_addr");
        listener.set_options(options().max_version(Version::Tls1_2)).expect("options");
        // Not every engine tells.
        let is_old = |version: Option<Version>| assert_eq!(version.unwrap_or(Version::Tls1_2), Version::Tls1_2);
        let context = client_context(engine);
        let version = || {
            let mut file = options().client(NAME).connect(addr, &context).expect("connect");
            file.read_to_end(&mut Vec::new()).expect("the end");
            file.version()
        };
        thread::scope(|t| {
            let server = t.spawn(|| {
                let file = listener.accept().expect("accept").0;
                file.handshake().and_then(|()| file.close())
            });
            is_old(version());
            server.join().expect("no panic").expect("close");
        });
        let backend = Backend::new().expect("backend");
        listener.set_accept_callback(&backend, |file, _| file.close().expect("close")).expect("callback");
        thread::scope(|t| {
            let loops = t.spawn(|| backend.run().expect("run"));
            is_old(version());
            backend.stop();
            loops.join().expect("no panic");
        });
    });
}

#[test]
fn what_only_one_connection_can_have_is_refused_and_changes_nothing() {
    each(|engine, ip| {
        let listener = bind(ip, engine);
        listener.set_options(options().nonblocking(true)).expect("options");
        let backend = Backend::new().expect("backend");
        let refused = [
            options().client(NAME),
            options().server(),
            options().already_read(b"x".to_vec()),
            options().backend(&backend),
            options().timeout_kind(ErrorKind::Other),
            options().min_version(Version::Tls1_3).max_version(Version::Tls1_2),
        ];
        for options in refused {
            let error = listener.set_options(options).expect_err("refused");
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
        }
        let _client = TcpStream::connect(listener.local_addr().expect("local_addr")).expect("connect");
        assert!(listener.accept().expect("accept").0.is_nonblocking());
    });
}
