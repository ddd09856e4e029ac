//! `SslOptions::resume`: one connection's session on others. (With servers of FTP: tests/peers/ftp.rs.)

use std::io::{self, ErrorKind as Io, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::thread;

use rustls::crypto::ring;
use rustls::{HandshakeKind, ServerConnection};
use sslfile::{Context, Engine, ErrorKind, Handshake, SslFile, SslListener, SslOptions, Version};

use super::rig::{assert_unsupported, at, VERSIONS};
use crate::common::{
    certs, client_builder, client_context, engines, kind_of, rustls_configs, server_builder, tcp_pair, NAME,
};

/// So many can be opened with `Rustls`, in TLS 1.3, between two calls on the connection whose session they resume.
const READY: usize = 16;

/// Those that can.
fn able() -> impl Iterator<Item = Engine> {
    engines().into_iter().filter(|engine| *engine != Engine::Native)
}

/// Each engine that can as client and as server, with each version; nothing is kept in the client's context.
fn each(test: impl Fn(&Context, &Context, &str)) {
    for (client, server) in able().flat_map(|client| able().map(move |server| (client, server))) {
        for version in VERSIONS {
            let theirs = at(version, server_builder(server)).build().expect("server");
            let ours = client_builder(client).session_resumption(false).build().expect("client");
            test(&ours, &theirs, &format!("{client:?} at {server:?}, {version}"));
        }
    }
}

/// A connection.
fn open(options: SslOptions, ours: &Context, theirs: &Context) -> io::Result<[SslFile; 2]> {
    let (c, s) = tcp_pair();
    thread::scope(|scope| {
        let server = scope.spawn(|| SslFile::server(s, theirs));
        let client = options.open(c, ours);
        let server = server.join().expect("server");
        Ok([client?, server?])
    })
}

/// The same, with a word from the server, behind which the client has the tickets of TLS 1.3.
fn talk(options: SslOptions, ours: &Context, theirs: &Context) -> [SslFile; 2] {
    let both = open(options, ours, theirs).expect("handshake");
    hear(&both);
    both
}

fn hear([client, server]: &[SslFile; 2]) {
    { server }.write_all(b"x").expect("write");
    { client }.read_exact(&mut [0]).expect("read");
}

fn named() -> SslOptions {
    SslFile::options().client(NAME)
}

#[track_caller]
fn assert_resumed(options: &SslOptions, ours: &Context, theirs: &Context, resumed: bool, what: &str) -> [SslFile; 2] {
    let both = open(options.clone(), ours, theirs).unwrap_or_else(|e| panic!("{what}: {e}"));
    assert_eq!(both.each_ref().map(SslFile::is_resumed), [Some(resumed); 2], "{what}");
    both
}

#[test]
fn a_session_is_resumed_any_number_of_times() {
    each(|ours, theirs, what| {
        let control = talk(named(), ours, theirs);
        let options = named().resume(&control[0]);
        let mut open = Vec::new();
        for _ in 0..3 {
            // Some stay open, and have more said.
            open.extend((0..READY).map(|_| assert_resumed(&options, ours, theirs, true, what)));
            open.iter().for_each(hear);
            open.truncate(3);
            hear(&control);
        }
        // All that has been said came in order.
        let [client, server] = &control;
        { server }.write_all(&[7; 100_000]).expect("write");
        server.close().expect("close");
        let mut rest = Vec::new();
        { client }.read_to_end(&mut rest).expect("read");
        assert!(rest == [7; 100_000], "{what}");
    });
}

#[test]
fn what_is_offered_is_what_there_is_when_a_file_is_opened() {
    each(|ours, theirs, what| {
        let (c, s) = tcp_pair();
        let control = named().handshake(Handshake::Lazy).open(c, ours).expect("open");
        let options = named().resume(&control);
        assert_resumed(&options, ours, theirs, false, &format!("{what}: before the handshake"));
        thread::scope(|scope| {
            let server = scope.spawn(|| SslFile::server(s, theirs).expect("server"));
            control.handshake().expect("handshake");
            let both = [control.clone(), server.join().expect("server")];
            // In TLS 1.3 there is none before its tickets have been read.
            let is_there = control.version() == Some(Version::Tls1_2);
            assert_resumed(&options, ours, theirs, is_there, what);
            hear(&both);
            assert_resumed(&options, ours, theirs, true, what);
        });
    });
}

#[test]
fn a_session_outlives_its_connection_but_not_its_failure() {
    each(|ours, theirs, what| {
        let kept = |end: fn([SslFile; 2])| {
            let both = talk(named(), ours, theirs);
            let options = named().resume(&both[0]);
            end(both);
            options
        };
        assert_resumed(&kept(drop), ours, theirs, true, &format!("{what}: dropped"));
        let aborted = kept(|[client, _]| client.abort());
        for _ in 0..3 {
            assert_resumed(&aborted, ours, theirs, true, &format!("{what}: aborted"));
        }
        let cut = kept(|[client, server]| {
            server.abort();
            { &client }.read(&mut [0]).expect_err("a cut");
        });
        assert_resumed(&cut, ours, theirs, true, &format!("{what}: cut"));
        let failed = kept(|[client, server]| {
            let mut tcp = server.get_ref();
            tcp.write_all(&[23, 3, 3, 0, 64]).and_then(|()| tcp.write_all(&[1; 64])).expect("write");
            let error = { &client }.read(&mut [0]).expect_err("a forged record");
            assert_eq!(error.kind(), Io::InvalidData, "{error}");
        });
        assert_resumed(&failed, ours, theirs, false, &format!("{what}: failed"));
    });
}

#[test]
fn on_rustls_sixteen_tickets_lie_ready() {
    let engine = Engine::Rustls;
    if !engine.is_available() {
        return;
    }
    let theirs = at(Version::Tls1_3, server_builder(engine)).build().expect("server");
    let ours = client_context(engine);
    let control = talk(named(), &ours, &theirs);
    let options = named().resume(&control[0]);
    for _ in 0..READY {
        assert_resumed(&options, &ours, &theirs, true, "ready");
    }
    assert_resumed(&options, &ours, &theirs, false, "one too many");
    hear(&control);
    assert_resumed(&options, &ours, &theirs, true, "ready again");
}

/// What is laid ready for others on rustls goes through the connection's own keys: they are changed meanwhile, and the server
/// ends first.
#[test]
fn a_connection_works_on_while_others_resume_its_session() {
    for engine in able() {
        let mut config = rustls_configs::server(ring::default_provider(), &[&rustls::version::TLS13]).expect("server");
        config.ticketer = ring::Ticketer::new().expect("tickets");
        let config = Arc::new(config);
        let ours = client_builder(engine).build().expect("client");
        let theirs = |mut tcp: TcpStream, words: usize| {
            let mut tls = ServerConnection::new(config.clone()).expect("server");
            while tls.is_handshaking() {
                tls.complete_io(&mut tcp).expect("handshake");
            }
            let mut stream = rustls::Stream::new(&mut tls, &mut tcp);
            for word in 0..words {
                stream.write_all(&[word as u8; 1000]).and_then(|()| stream.flush()).expect("a word");
                stream.read_exact(&mut [0; 1]).expect("an answer");
                if word % 3 == 1 {
                    stream.conn.refresh_traffic_keys().expect("keys");
                }
            }
            stream.conn.send_close_notify();
            stream.flush().expect("an end");
            assert_eq!(stream.read(&mut [0]).expect("a word behind it"), 1);
            tls.handshake_kind() == Some(HandshakeKind::Resumed)
        };
        let resumes = |options: &SslOptions| {
            let (c, s) = tcp_pair();
            thread::scope(|scope| {
                let server = scope.spawn(|| theirs(s, 0));
                let file = options.clone().open(c, &ours).expect("client");
                { &file }.write_all(b"x").expect("write");
                file.close().expect("close");
                server.join().expect("server")
            })
        };
        let (c, s) = tcp_pair();
        thread::scope(|scope| {
            const WORDS: usize = 10;
            let server = scope.spawn(|| theirs(s, WORDS));
            let control = named().open(c, &ours).expect("client");
            let options = named().resume(&control);
            for word in 0..WORDS {
                let mut said = [0; 1000];
                { &control }.read_exact(&mut said).expect("a word");
                assert!(said == [word as u8; 1000]);
                assert!(resumes(&options), "{engine:?}, {word}");
                { &control }.write_all(b"x").expect("an answer");
            }
            assert_eq!({ &control }.read(&mut [0]).expect("the server's end"), 0);
            { &control }.write_all(b"x").expect("a word behind it");
            for _ in 0..READY {
                assert!(resumes(&options), "{engine:?}");
            }
            server.join().expect("server");
        });
    }
}

#[test]
fn a_connection_that_has_resumed_another_s_session_can_be_resumed() {
    each(|ours, theirs, what| {
        let mut last = talk(named(), ours, theirs);
        for _ in 0..5 {
            last = assert_resumed(&named().resume(&last[0]), ours, theirs, true, what);
        }
    });
}

#[test]
fn without_a_session_the_handshake_is_full_whatever_is_in_store() {
    for engine in able() {
        for version in VERSIONS {
            let what = format!("{engine:?}, {version}");
            let ours = client_builder(engine).session_resumption(true).build().expect("client");
            let forgetful = at(version, server_builder(engine)).session_resumption(false).build().expect("server");
            let theirs = at(version, server_builder(engine)).build().expect("server");
            drop(talk(named(), &ours, &theirs));
            let control = talk(named(), &ours, &forgetful);
            // Of a session with another server the peer knows nothing, either.
            assert_resumed(&named().resume(&control[0]), &ours, &theirs, false, &what);
            assert_resumed(&named(), &ours, &theirs, true, &what);
        }
    }
}

/// A server on rustls does not resume a session for another name (RFC 6066, section 3).
#[test]
fn a_session_is_not_kept_for_the_name_it_was_resumed_by() {
    let server = Engine::OpenSsl;
    if !server.is_available() {
        return;
    }
    for (engine, version) in able().flat_map(|engine| VERSIONS.map(|version| (engine, version))) {
        let what = format!("{engine:?}, {version}");
        let theirs = at(version, server_builder(server)).build().expect("server");
        let ours = client_builder(engine).session_resumption(true).build().expect("client");
        let control = talk(named(), &ours, &theirs);
        let other = SslFile::options().client("other.example");
        for _ in 0..2 {
            hear(&assert_resumed(&other.clone().resume(&control[0]), &ours, &theirs, true, &what));
        }
        let error = open(other, &ours, &theirs).map(drop).expect_err("a certificate for another name");
        assert_eq!(kind_of(&error), Some(ErrorKind::HostnameMismatch), "{what}: {error}");
    }
}

#[test]
fn a_client_with_a_certificate_resumes_what_it_is_told_to() {
    for engine in able() {
        for version in VERSIONS {
            let ours = client_builder(engine).identity(certs().client.identity()).build().expect("client");
            let theirs = at(version, server_builder(engine)).build().expect("server");
            let control = talk(named(), &ours, &theirs);
            assert_resumed(&named(), &ours, &theirs, false, "not told to");
            assert_resumed(&named().resume(&control[0]), &ours, &theirs, true, &format!("{engine:?}, {version}"));
        }
    }
}

#[test]
fn both_connections_are_clients_of_one_context() {
    for engine in engines() {
        let (ours, theirs) = (client_context(engine), server_builder(engine).build().expect("server"));
        let [client, server] = talk(named(), &ours, &theirs);
        let refused = |options: SslOptions, context: &Context| {
            let error = io::Error::from(options.open(tcp_pair().0, context).expect_err("refused"));
            assert_eq!(error.kind(), Io::InvalidInput, "{engine:?}: {error}");
        };
        refused(named().resume(&client), &client_context(engine));
        refused(named().resume(&server), &ours);
        refused(named().resume(&server), &theirs);
        refused(SslFile::options().server().resume(&client), &theirs);
        refused(SslFile::options().server().resume(&server), &theirs);
        let listener = SslListener::bind("127.0.0.1:0", &theirs).expect("bind");
        let error = listener.set_options(SslFile::options().resume(&server)).expect_err("refused");
        assert_eq!(error.kind(), Io::InvalidInput, "{engine:?}: {error}");
        // The same one by a clone of it.
        if engine != Engine::Native {
            assert_resumed(&named().resume(&client), &ours.clone(), &theirs, true, &format!("{engine:?}"));
        }
    }
}

#[test]
fn an_engine_that_cannot_says_so() {
    let engine = Engine::Native;
    if !engine.is_available() {
        return;
    }
    let ours = client_context(engine);
    let [client, _server] = talk(named(), &ours, &server_builder(engine).build().expect("server"));
    let error = named().resume(&client).open(tcp_pair().0, &ours).expect_err("refused");
    assert_unsupported(&error.into(), "resume", engine);
}

#[cfg(feature = "rustls")]
#[test]
fn a_rustls_configuration_made_elsewhere_keeps_its_sessions_to_itself() {
    let config = rustls_configs::client(ring::default_provider(), rustls::ALL_VERSIONS);
    let ours = Context::from(Arc::new(config.expect("configuration")));
    let [client, _server] = talk(named(), &ours, &server_builder(Engine::Rustls).build().expect("server"));
    let error = named().resume(&client).open(tcp_pair().0, &ours).expect_err("refused");
    assert_unsupported(&error.into(), "resume", Engine::Rustls);
}

#[cfg(feature = "openssl")]
#[test]
fn a_context_of_openssl_made_elsewhere_resumes() {
    use openssl::ssl::{SslConnector, SslMethod, SslVerifyMode};
    for version in VERSIONS {
        let mut connector = SslConnector::builder(SslMethod::tls_client()).expect("connector");
        connector.set_verify(SslVerifyMode::NONE);
        let ours = Context::from(connector.build());
        let theirs = at(version, server_builder(Engine::OpenSsl)).build().expect("server");
        let control = talk(named(), &ours, &theirs);
        let options = named().resume(&control[0]);
        for _ in 0..READY {
            assert_resumed(&options, &ours, &theirs, true, &version.to_string());
        }
    }
}

/// Servers of every engine; a client in a process of its own would see no difference: what it is given are bytes.
#[test]
fn a_session_that_was_kept_as_bytes_is_resumed() {
    for server in able().filter(|_| engines().contains(&Engine::OpenSsl)) {
        for version in VERSIONS {
            let what = format!("{server:?}, {version}");
            let theirs = at(version, server_builder(server)).build().expect("server");
            let client = || client_builder(Engine::OpenSsl).build().expect("client");
            let first = talk(named(), &client(), &theirs);
            let [client_end, server_end] = &first;
            assert_eq!(server_end.session(), None, "{what}");
            let kept = client_end.session().unwrap_or_else(|| panic!("{what}: no session"));
            drop(first);
            assert_resumed(&named().session(&kept), &client(), &theirs, true, &what);
            // For a server that knows nothing of it there is a full handshake.
            let other = at(version, server_builder(server)).build().expect("server");
            assert_resumed(&named().session(&kept), &client(), &other, false, &what);
        }
    }
}

#[test]
fn bytes_that_are_no_session_are_refused_and_so_are_servers_and_other_engines() {
    for engine in engines() {
        let context = client_context(engine);
        let refused = |options: SslOptions| options.open(tcp_pair().0, &context).expect_err("refused").into();
        let error: io::Error = refused(named().session(b"no session"));
        match engine {
            Engine::OpenSsl => assert_eq!(error.kind(), Io::InvalidInput, "{error}"),
            _ => assert_unsupported(&error, "session", engine),
        }
        let options = SslFile::options().server().session(b"");
        let theirs = server_builder(engine).build().expect("server");
        let error: io::Error = options.open(tcp_pair().0, &theirs).expect_err("refused").into();
        assert_eq!(error.kind(), Io::InvalidInput, "{engine:?}: {error}");
    }
}

#[test]
fn a_connection_that_is_not_open_yet_or_has_failed_keeps_no_session() {
    for engine in able() {
        let lazy = named().handshake(Handshake::Lazy).open(tcp_pair().0, &client_context(engine)).expect("client");
        assert_eq!(lazy.session(), None);
        let [client, server] = talk(named(), &client_context(engine), &server_builder(engine).build().expect("server"));
        assert_eq!(client.session().is_some(), engine == Engine::OpenSsl);
        // Not TLS, behind the back of its end.
        { server.get_ref() }.write_all(b"this is no record at all").expect("write");
        let _ = { &client }.read(&mut [0]);
        assert_eq!(client.session(), None, "{engine:?}");
    }
}
