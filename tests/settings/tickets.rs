//! How many tickets a server gives.

use std::io::ErrorKind;

use sslfile::Version;

use super::rig::{at, context, s_client, serve, with_openssl};
use crate::common::{engines, server_builder, server_context};

#[test]
fn a_client_of_tls_1_3_gets_as_many_as_were_said() {
    with_openssl(|bench| {
        let count = |said: &str| said.matches("Post-Handshake New Session Ticket arrived").count();
        for engine in engines() {
            for number in [0, 1, 4] {
                let builder = at(Version::Tls1_3, server_builder(engine).tickets(number));
                let Some(server) = context(engine, "tickets", builder) else { continue };
                let (_, said) = serve(bench, &server, s_client, |_| ()).expect();
                assert_eq!(count(&said), number, "{engine:?}: {said}");
            }
            let server = server_context(engine);
            let (version, said) = serve(bench, &server, s_client, |file| file.version()).expect();
            if version == Some(Version::Tls1_3) {
                assert_eq!(count(&said), 2, "{engine:?}: {said}");
            }
        }
    });
}

#[test]
fn in_tls_1_2_none_means_a_session_that_the_server_remembers() {
    with_openssl(|bench| {
        for engine in engines() {
            for (number, given) in [(0, false), (1, true)] {
                let builder = at(Version::Tls1_2, server_builder(engine).tickets(number));
                let Some(server) = context(engine, "tickets", builder) else { continue };
                let (_, said) = serve(bench, &server, s_client, |_| ()).expect();
                assert_eq!(said.contains("TLS session ticket:"), given, "{engine:?}: {said}");
                if !given {
                    let id = said.split("Session-ID: ").nth(1).and_then(|rest| rest.lines().next());
                    assert_eq!(id.map(str::len), Some(64), "{engine:?}: {said}");
                }
            }
        }
    });
}

/// Each is made and sent in the handshake.
#[test]
fn more_than_255_are_refused() {
    for engine in engines() {
        for number in [256, usize::MAX] {
            let refused = server_builder(engine).tickets(number).build().expect_err("too many");
            assert_eq!(refused.kind(), ErrorKind::InvalidInput, "{engine:?}");
            assert!(refused.to_string().contains("tickets"), "{refused}");
        }
    }
}
