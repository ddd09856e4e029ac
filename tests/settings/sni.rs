//! The server's name in the client's first message (RFC 6066, section 3).

use sslfile::Engine;

use super::rig::{asking, s_server, serve, with_openssl, Own, Server};
use crate::common::{certs, client_builder, engines, server_context, NAME};

const HEARD: &str = "Hostname in TLS extension: \"localhost\"";

#[test]
fn the_name_is_sent_unless_it_is_an_address_or_switched_off() {
    with_openssl(|bench| {
        let own = Own::new(bench, "server", &certs().ecdsa);
        for engine in engines() {
            for (name, sni, heard) in [(NAME, true, true), ("127.0.0.1", true, false), (NAME, false, false)] {
                let client = client_builder(engine).sni(sni).build().expect("context");
                let server = Server::start(bench, |port| {
                    let mut command = s_server(port, 1, &own);
                    // It tells of names only when it has a second certificate for one.
                    command.args(["-servername", "other.example", "-cert2"]).arg(&own.leaf).arg("-key2").arg(&own.key);
                    command
                });
                server.visit(&client, name, |_| ()).unwrap_or_else(|e| panic!("{engine:?} {name}: {e}"));
                let said = server.said();
                assert_eq!(said.contains(HEARD), heard, "{engine:?} {name} {sni}: {said}");
            }
        }
    });
}

#[test]
fn the_server_sees_the_name_it_was_asked_for() {
    with_openssl(|bench| {
        for engine in engines() {
            for name in [Some("one.example"), None] {
                let client = |port| asking(port, name);
                let (seen, _) = serve(bench, &server_context(engine), client, |file| file.server_name()).expect();
                let known = name.filter(|_| engine != Engine::Native);
                assert_eq!(seen.as_deref(), known, "{engine:?}");
            }
        }
    });
}
