//! ALPN (RFC 7301). With nothing in common: tests/peers/alpn.rs.

use super::rig::{s_client, s_server, serve, visit, with_openssl, Own};
use crate::common::{certs, client_builder, engines, server_builder};

#[test]
fn the_server_s_order_decides() {
    with_openssl(|bench| {
        let own = Own::new(bench, "server", &certs().ecdsa);
        for engine in engines() {
            for (theirs, ours, agreed) in [
                ("one,two", ["two", "one"], "two"),
                ("one,two", ["three", "one"], "one"),
                ("two,one", ["two", "one"], "two"),
            ] {
                let client = |port| {
                    let mut command = s_client(port);
                    command.args(["-alpn", theirs]);
                    command
                };
                let server = server_builder(engine).alpn(ours).build().expect("context");
                let (alpn, said) = serve(bench, &server, client, |file| file.alpn()).expect();
                assert_eq!(alpn.as_deref(), Some(agreed.as_bytes()), "{engine:?}");
                assert!(said.contains(&format!("ALPN protocol: {agreed}")), "{engine:?}: {said}");
            }
            // Theirs decides as well.
            let client = client_builder(engine).alpn(["two", "one"]).build().expect("context");
            let server = |port| {
                let mut command = s_server(port, 1, &own);
                command.args(["-alpn", "one,two"]);
                command
            };
            let (alpn, said) = visit(bench, &client, server, |file| file.alpn()).expect();
            assert_eq!(alpn.as_deref(), Some(&b"one"[..]), "{engine:?}");
            assert!(said.contains("ALPN protocols advertised by the client: two, one"), "{engine:?}: {said}");
        }
    });
}
