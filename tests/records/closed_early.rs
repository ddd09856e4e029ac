//! A close_notify in the handshake, where nobody can vouch for it: who said it says no more.

use std::io::ErrorKind as Io;

use sslfile::{Connection, Engine, ErrorKind, Role, Version};

use super::common::{client_builder, engines, kind_of, server_builder, within, LONG, NAME};

const CLOSE_NOTIFY: [u8; 7] = [21, 3, 3, 0, 2, 1, 0];
const UNEXPECTED_MESSAGE: u8 = 10;

fn pass(from: &mut Connection, to: &mut Connection) {
    to.feed(from.output());
    from.consume_output(usize::MAX);
}

/// The handshake as far as this flight, which `role` waits for. `None`: it is done before.
fn wait_for(engine: Engine, version: Version, role: Role, flight: usize) -> Option<Connection> {
    let client = client_builder(engine).min_version(version).build().expect("context");
    let server = server_builder(engine).max_version(version).build().expect("context");
    let mut client = Connection::client(&client, NAME).expect("client");
    let mut server = Connection::server(&server).expect("server");
    let mut done = client.handshake().is_ok();
    for before in 0..flight {
        let (from, to) = match before % 2 {
            0 => (&mut client, &mut server),
            _ => (&mut server, &mut client),
        };
        pass(from, to);
        done = to.handshake().is_ok();
    }
    let waits = match role {
        Role::Client => client,
        Role::Server => server,
    };
    (!done).then_some(waits)
}

#[test]
fn a_close_notify_in_the_handshake_ends_it_at_once() {
    let mut tried = 0;
    for engine in engines() {
        for version in [Version::Tls1_2, Version::Tls1_3] {
            if engine == Engine::Native && version == Version::Tls1_3 {
                continue;
            }
            for (role, flight) in [(Role::Server, 0), (Role::Client, 1), (Role::Server, 2), (Role::Client, 3)] {
                let Some(mut ours) = within(LONG, move || wait_for(engine, version, role, flight)) else { continue };
                tried += 1;
                let what = format!("{engine:?} as {role:?}, {version}, in place of flight {flight}");
                // What waits for it is left away: it is said instead.
                ours.feed(&CLOSE_NOTIFY);
                let error = ours.handshake().expect_err(&what);
                assert_eq!(error.kind(), Io::InvalidData, "{what}: {error}");
                let kind = kind_of(&error);
                // Before the first word OpenSSL's servers want none but a client's.
                let is_refused = kind == Some(ErrorKind::LocalAlert(UNEXPECTED_MESSAGE)) && flight == 0;
                assert!(kind == Some(ErrorKind::PeerAlert(0)) || is_refused, "{what}: {kind:?}, {error}");
                if !is_refused {
                    assert!(error.to_string().contains("close_notify"), "{what}: {error}");
                    let told: Vec<_> = ours.take_alerts().iter().map(|a| (a.number(), a.is_ours())).collect();
                    assert_eq!(told, [(0, false)], "{what}");
                }
                assert_eq!(ours.read(&mut [0; 9]).expect_err(&what).to_string(), error.to_string(), "{what}");
            }
        }
    }
    assert!(tried >= 3 * engines().len(), "{tried}");
}
