//! Resumption: by clients of ours whose context keeps the sessions, and by others at our servers.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use rustls::crypto::ring;
use rustls::{HandshakeKind, ServerConnection, SupportedProtocolVersion};
use sslfile::{Context, Engine, ErrorKind, SslFile, Version};

use super::rig::{
    assert_unsupported, at, context, flag, s_client, s_server, serve, text, with_openssl, write, Own, Server, VERSIONS,
};
use crate::common::{certs, client_builder, engines, kind_of, rustls_configs, server_builder, tcp_pair, NAME};
use crate::harness::Bench;

/// How servers let sessions be resumed: the version, and the arguments of `s_server`.
const WAYS: [(Version, &[&str]); 4] = [
    (Version::Tls1_2, &["-tls1_2"]),
    (Version::Tls1_2, &["-tls1_2", "-no_ticket"]),
    (Version::Tls1_3, &["-tls1_3"]),
    (Version::Tls1_3, &["-tls1_3", "-no_ticket"]),
];

/// Connections in a row to one server that keeps sessions; whether each was resumed, as both ends say.
fn visits(bench: &Bench, ways: &[&str], names: &[&str], visit: impl Fn(usize, &Server, &str) -> bool) -> Vec<bool> {
    let own = Own::new(bench, "server", &certs().ecdsa);
    let server = Server::start(bench, |port| {
        let mut command = s_server(port, names.len(), &own);
        command.args(ways);
        command
    });
    let resumed: Vec<bool> = names.iter().enumerate().map(|(nth, name)| visit(nth, &server, name)).collect();
    let said = server.said();
    assert_eq!(said.matches("Reused session-id").count(), resumed.iter().filter(|yes| **yes).count(), "{said}");
    resumed
}

fn go(server: &Server, context: &sslfile::Context, name: &str) -> bool {
    server.visit(context, name, |file| file.is_resumed().expect("it knows")).expect("visit")
}

#[test]
fn clients_of_one_context_share_sessions_by_tickets_and_by_ids() {
    with_openssl(|bench| {
        for engine in engines() {
            for (version, ways) in WAYS {
                let builder = at(version, client_builder(engine).session_resumption(true));
                let Some(client) = context(engine, "session_resumption", builder) else { continue };
                let resumed = visits(bench, ways, &[NAME, NAME, NAME], |_, server, name| {
                    // Each on its own clone of the context.
                    go(server, &client.clone(), name)
                });
                assert_eq!(resumed, [false, true, true], "{engine:?} {ways:?}");
            }
        }
    });
}

#[test]
fn a_session_is_for_one_name_and_one_context() {
    with_openssl(|bench| {
        for engine in engines() {
            let make = || context(engine, "session_resumption", client_builder(engine).session_resumption(true));
            let (Some(client), Some(other)) = (make(), make()) else { continue };
            let resumed = visits(bench, &[], &[NAME, "127.0.0.1", NAME], |_, server, name| go(server, &client, name));
            assert_eq!(resumed, [false, false, true], "{engine:?}");
            let contexts = [&client, &other, &other];
            let resumed = visits(bench, &[], &[NAME; 3], |nth, server, name| go(server, contexts[nth], name));
            assert_eq!(resumed, [false, false, true], "{engine:?}");
        }
    });
}

#[test]
fn a_client_with_a_certificate_resumes_when_asked_only() {
    with_openssl(|bench| {
        for engine in engines() {
            let builder = || client_builder(engine).identity(certs().client.identity());
            let asked = builder().session_resumption(true);
            let Some(asked) = context(engine, "session_resumption", asked) else { continue };
            let quiet = builder().build().expect("context");
            let go_with = |client: &sslfile::Context| {
                visits(bench, &[], &[NAME, NAME], |_, server, name| go(server, client, name))
            };
            assert_eq!(go_with(&quiet), [false, false], "{engine:?}");
            assert_eq!(go_with(&asked), [false, true], "{engine:?}");
            let off = client_builder(engine).session_resumption(false).build().expect("context");
            assert_eq!(go_with(&off), [false, false], "{engine:?}");
        }
    });
}

#[test]
fn a_session_too_old_is_not_offered() {
    with_openssl(|bench| {
        const LIFETIME: Duration = Duration::from_secs(1);
        for engine in engines() {
            for (version, ways) in WAYS {
                let builder = at(version, client_builder(engine).session_lifetime(LIFETIME));
                let Some(client) = context(engine, "session_lifetime", builder) else { continue };
                let begun = Instant::now();
                let resumed = visits(bench, ways, &[NAME; 3], |nth, server, name| {
                    if nth == 2 {
                        // The newest session is younger than the second visit.
                        thread::sleep(LIFETIME + Duration::from_millis(50));
                    }
                    go(server, &client, name)
                });
                // On a busy machine the second visit may come too late as well.
                let slow = begun.elapsed() > 2 * LIFETIME;
                assert!(resumed == [false, true, false] || (slow && !resumed[2]), "{engine:?} {ways:?}: {resumed:?}");
            }
        }
    });
}

#[test]
fn a_client_keeps_sessions_of_so_many_servers() {
    with_openssl(|bench| {
        for engine in engines() {
            for (size, expected) in [
                (0, [false, false, false, false, false]),
                (1, [false, true, false, false, false]),
                (2, [false, true, false, true, true]),
            ] {
                let builder = client_builder(engine).session_cache_size(size);
                let Some(client) = context(engine, "session_cache_size", builder) else { continue };
                let names = [NAME, NAME, "127.0.0.1", NAME, "127.0.0.1"];
                let resumed = visits(bench, &[], &names, |_, server, name| go(server, &client, name));
                assert_eq!(resumed, expected, "{engine:?} {size}");
            }
        }
    });
}

/// A visit of `s_client` that takes its session from a file, or leaves it there.
fn client(port: u16, version: Version, option: &str, session: &Path) -> std::process::Command {
    let mut command = s_client(port);
    command.args([flag(version), option]).arg(session);
    command
}

#[test]
fn our_servers_resume_unless_told_not_to() {
    with_openssl(|bench| {
        let session = write(bench, "session", "");
        for engine in engines().into_iter().filter(|engine| *engine != Engine::Native) {
            for version in VERSIONS {
                for (resumption, resumed) in [(None, true), (Some(true), true), (Some(false), false)] {
                    let builder = at(version, server_builder(engine));
                    let builder = resumption.iter().fold(builder, |b, yes| b.session_resumption(*yes));
                    let server = builder.build().expect("context");
                    let first = serve(bench, &server, |port| client(port, version, "-sess_out", &session), |_| ());
                    first.expect();
                    let again = |port| client(port, version, "-sess_in", &session);
                    if !resumed && version == Version::Tls1_3 {
                        // Nothing was given that could be kept.
                        let (_, said) = serve(bench, &server, s_client, |_| ()).expect();
                        assert!(!said.contains("New Session Ticket arrived"), "{engine:?}: {said}");
                        continue;
                    }
                    let (ours, said) = serve(bench, &server, again, |file| file.is_resumed()).expect();
                    assert_eq!(ours, Some(resumed), "{engine:?} {version} {resumption:?}");
                    assert_eq!(said.contains("Reused, TLSv1."), resumed, "{engine:?} {version} {resumption:?}: {said}");
                }
            }
        }
    });
}

#[test]
fn a_server_remembers_so_many_sessions() {
    with_openssl(|bench| {
        let version = Version::Tls1_2;
        for engine in engines() {
            let both = Some([true, true]);
            for (size, remembered) in [(0, None), (1, Some([false, true])), (2, both), (usize::MAX, both)] {
                let builder = at(version, server_builder(engine).session_cache_size(size));
                let Some(server) = context(engine, "session_cache_size", builder) else { continue };
                // Without tickets, so that the server must remember.
                let files = ["one", "two"].map(|name| write(bench, name, ""));
                let visit = |option, file: &Path| {
                    let start = |port| {
                        let mut command = client(port, version, option, file);
                        command.arg("-no_ticket");
                        command
                    };
                    serve(bench, &server, start, |file| file.is_resumed()).expect().0
                };
                for file in &files {
                    assert_eq!(visit("-sess_out", file), Some(false));
                }
                let Some(remembered) = remembered else {
                    for file in files {
                        assert_eq!(text(&file), "", "{engine:?}: a session that nobody remembers");
                    }
                    continue;
                };
                // The second first: to resume counts as use.
                let two = visit("-sess_in", &files[1]);
                let one = visit("-sess_in", &files[0]);
                assert_eq!([one, two], remembered.map(Some), "{engine:?} {size}");
            }
        }
    });
}

/// The `openssl` crate has no way to set it.
#[test]
fn a_server_s_lifetime_is_refused_where_it_cannot_be_set() {
    let engine = Engine::OpenSsl;
    if !engine.is_available() {
        return;
    }
    let context = server_builder(engine).session_lifetime(Duration::from_secs(1)).build().expect("clients can");
    let error = sslfile::SslFile::server(tcp_pair().1, &context).map(drop).expect_err("servers cannot");
    assert_unsupported(&error.into(), "session_lifetime", engine);
}

/// How a client's connection ends.
#[derive(Clone, Copy, Debug, PartialEq)]
enum End {
    Closed,
    Dropped,
    Aborted,
    /// By the server.
    Cut,
}

const ENDS: [End; 4] = [End::Closed, End::Dropped, End::Aborted, End::Cut];

/// Connections in a row, each with a word from the server and this end; whether each was resumed, as both say.
fn in_a_row(client: &Context, end: End, serve: impl Fn(TcpStream, End) -> bool + Sync) -> Vec<bool> {
    let resumed = (0..5).map(|_| {
        let (c, s) = tcp_pair();
        thread::scope(|scope| {
            let server = scope.spawn(|| serve(s, end));
            let file = SslFile::client(c, client, NAME).expect("client");
            { &file }.read_exact(&mut [0]).expect("a word");
            let resumed = file.is_resumed().expect("it knows");
            match end {
                End::Closed => file.close().expect("close"),
                End::Dropped => drop(file),
                End::Aborted => file.abort(),
                End::Cut => drop({ &file }.read(&mut [0]).expect_err("a cut")),
            }
            assert_eq!(server.join().expect("server"), resumed, "the server says otherwise");
            resumed
        })
    });
    resumed.collect()
}

/// As rustls and Java do with each ticket of TLS 1.2 (RFC 5077, section 3.3).
#[test]
fn a_session_that_the_server_renews_is_resumed_each_time_however_connections_end() {
    for engine in engines() {
        let ours = client_builder(engine).session_resumption(true);
        let Some(client) = context(engine, "session_resumption", ours) else { continue };
        let versions: [&SupportedProtocolVersion; 2] = [&rustls::version::TLS12, &rustls::version::TLS13];
        for (version, end) in versions.into_iter().flat_map(|version| ENDS.map(|end| (version, end))) {
            // Of its own, with its own keys.
            let mut server = rustls_configs::server(ring::default_provider(), &[version]).expect("server");
            server.ticketer = ring::Ticketer::new().expect("tickets");
            let server = Arc::new(server);
            let resumed = in_a_row(&client, end, |mut tcp, end| {
                let mut tls = ServerConnection::new(server.clone()).expect("server");
                let mut stream = rustls::Stream::new(&mut tls, &mut tcp);
                stream.write_all(b"x").and_then(|()| stream.flush()).expect("a word");
                if end != End::Cut {
                    let _ = stream.read(&mut [0]);
                }
                tls.handshake_kind() == Some(HandshakeKind::Resumed)
            });
            assert_eq!(resumed, [false, true, true, true, true], "{engine:?}, {:?}, {end:?}", version.version);
        }
    }
}

/// What a server remembers outlives it as well.
#[test]
fn a_cut_connection_has_not_spoilt_its_session() {
    for (engine, server) in engines().into_iter().flat_map(|client| engines().into_iter().map(move |s| (client, s))) {
        for (version, tickets) in VERSIONS.into_iter().flat_map(|version| [(version, 2), (version, 0)]) {
            let theirs = at(version, server_builder(server)).tickets(tickets);
            let Some(theirs) = context(server, "tickets", theirs) else { continue };
            // In TLS 1.3 a session is told of by a ticket.
            let expected = [false, true, true, true, true].map(|yes| yes && (version, tickets) != (Version::Tls1_3, 0));
            for end in ENDS {
                let ours = client_builder(engine).session_resumption(true);
                let Some(client) = context(engine, "session_resumption", ours) else { continue };
                let resumed = in_a_row(&client, end, |tcp, end| {
                    let file = SslFile::server(tcp, &theirs).expect("server");
                    { &file }.write_all(b"x").expect("a word");
                    match end {
                        End::Cut => file.abort(),
                        _ => drop({ &file }.read(&mut [0])),
                    }
                    file.is_resumed().expect("it knows")
                });
                assert_eq!(resumed, expected, "{engine:?} at {server:?}, {version}, {tickets} tickets, {end:?}");
            }
        }
    }
}

/// RFC 5246, section 7.2.2.
#[test]
fn a_connection_that_an_alert_has_ended_has_spoilt_its_session() {
    let engine = Engine::OpenSsl;
    if !engine.is_available() {
        return;
    }
    let client = client_builder(engine).build().expect("client");
    let theirs = at(Version::Tls1_2, server_builder(engine)).build().expect("server");
    let resumed = [false, true, false].map(|fails| {
        let (c, s) = tcp_pair();
        thread::scope(|scope| {
            let server = scope.spawn(|| SslFile::server(s, &theirs).expect("server"));
            let file = SslFile::client(c, &client, NAME).expect("client");
            let server = server.join().expect("server");
            if fails {
                { server.get_ref() }.write_all(&[23, 3, 3, 0, 1, 1]).expect("write");
                let error = { &file }.read(&mut [0]).expect_err("a forged record");
                assert_eq!(kind_of(&error), Some(ErrorKind::LocalAlert(20)), "{error}");
            }
            file.is_resumed()
        })
    });
    assert_eq!(resumed, [Some(false), Some(true), Some(false)]);
}
