//! `Context::set_default`: what `connect` uses in the whole process. So each test is a process of its own.

use std::io::Read;
use std::thread;

use sslfile::{Context, SslFile, SslListener};

use crate::common::{client_context, engines, passes_in_child, server_context, within, LONG};

const MARK: &str = "SSLFILE_TEST_DEFAULT_CONTEXT";

#[test]
fn connect_uses_the_default_of_the_process() {
    const TEST: &str = "tcp::default_context::connect_uses_the_default_of_the_process";
    if std::env::var_os(MARK).is_none() {
        return passes_in_child(TEST, &[(MARK, "1")]);
    }
    within(LONG, || {
        for engine in engines() {
            let listener = SslListener::bind("localhost:0", &server_context(engine)).expect("bind");
            let port = listener.local_addr().expect("local_addr").port();
            let connect = |trusts: bool| {
                let mut file = SslFile::connect(("localhost", port)).expect("connect");
                assert_eq!(file.context().engine() == engine, trusts || engine == engines()[0]);
                thread::scope(|t| {
                    let server = t.spawn(|| {
                        let file = listener.accept().expect("accept").0;
                        file.handshake().and_then(|()| file.close())
                    });
                    let read = file.read_to_end(&mut Vec::new());
                    assert_eq!(read.is_ok(), trusts, "{engine:?}: {read:?}");
                    let closed = server.join().expect("no panic");
                    assert!(closed.is_ok() || !trusts, "{closed:?}");
                });
            };
            connect(false);
            Context::set_default(&client_context(engine)).expect("default");
            connect(true);
            // What was there before is still to be had.
            Context::set_default(&Context::client().expect("client")).expect("default");
        }
    });
}

#[test]
#[cfg(all(feature = "native-tls", not(any(windows, target_vendor = "apple"))))]
fn a_context_that_only_serves_is_refused() {
    let pair = &crate::common::certs().rsa;
    let identity = native_tls::Identity::from_pkcs8(pair.chain.as_bytes(), pair.key.as_bytes()).expect("identity");
    let acceptor = native_tls::TlsAcceptor::new(identity).expect("acceptor");
    let error = Context::set_default(&acceptor.into()).expect_err("it only serves");
    assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput, "{error}");
}
