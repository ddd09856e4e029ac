//! `Native` on Windows: how data flows, in both versions, and what SChannel makes of certificates.
//!
//! A root that was added can't be trusted everywhere (wine refuses it, as nobody can be asked for revocation), so that
//! certificates are not checked here but where they are to be refused.
#![cfg(all(windows, feature = "native-tls", feature = "rustls"))]

#[path = "common/mod.rs"]
mod common;

use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::thread;
use std::time::Duration;

use common::{certs, kind_of, pattern, tcp_pair, until_busy, until_ready, within, LONG, NAME};
use sslfile::{
    Backend, Callbacks, Certificate, Context, ContextBuilder, Engine, ErrorKind as Kind, Handshake, Identity, SslFile,
    SslOptions, Version,
};

/// The wine of Debian 12 has no servers, no TLS 1.3, and takes a close_notify for an empty record.
fn is_old_wine() -> bool {
    let version = std::env::var("SSLFILE_WINE").ok().and_then(|version| version.parse::<u32>().ok());
    version.is_some_and(|version| version < 10)
}

fn versions() -> &'static [Version] {
    match is_old_wine() {
        true => &[Version::Tls1_2],
        false => &[Version::Tls1_2, Version::Tls1_3],
    }
}

/// Of client and server.
fn engines() -> &'static [(Engine, Engine)] {
    const ALL: [(Engine, Engine); 3] =
        [(Engine::Native, Engine::Rustls), (Engine::Rustls, Engine::Native), (Engine::Native, Engine::Native)];
    match is_old_wine() {
        true => &ALL[..1],
        false => &ALL,
    }
}

fn only(builder: ContextBuilder, version: Version) -> ContextBuilder {
    builder.min_version(version).max_version(version)
}

fn contexts(engines: (Engine, Engine), version: Version) -> (Context, Context) {
    let client = Context::builder().engine(engines.0).danger_accept_invalid_certs(true).alpn(&["old", "new"]);
    let server = Context::builder().engine(engines.1).identity(certs().rsa.identity()).alpn(&["new", "old"]);
    (only(client, version).build().expect("client"), only(server, version).build().expect("server"))
}

fn pair_of((client, server): &(Context, Context)) -> (SslFile, SslFile) {
    common::tls_pair_with(SslFile::options(), client, SslFile::options(), server)
}

fn each(test: fn(&(Context, Context))) {
    for &version in versions() {
        for &engines in engines() {
            println!("{engines:?} {version}");
            within(LONG, move || test(&contexts(engines, version)));
        }
    }
}

fn read_all(mut file: &SslFile, len: usize) -> Vec<u8> {
    let mut got = vec![0; len];
    file.read_exact(&mut got).expect("read");
    got
}

#[test]
fn data_flows_both_ways_at_once() {
    const SIZE: usize = 4 << 20;
    each(|contexts| {
        let (client, server) = pair_of(contexts);
        thread::scope(|t| {
            for (seed, file) in [&client, &server].into_iter().enumerate() {
                t.spawn(move || (&mut &*file).write_all(&pattern(seed as u64, SIZE)).expect("write"));
                t.spawn(move || assert!(read_all(file, SIZE) == pattern(1 - seed as u64, SIZE), "differs"));
            }
        });
        if is_old_wine() {
            return;
        }
        server.shutdown(Shutdown::Write).expect("shutdown");
        assert_eq!((&client).read(&mut [0]).expect("a close_notify"), 0);
        (&client).write_all(b"the last word").expect("write");
        client.shutdown(Shutdown::Write).expect("shutdown");
        if server.context().engine() != Engine::Native {
            assert_eq!(read_all(&server, 13), b"the last word");
            assert_eq!((&server).read(&mut [0]).expect("a close_notify"), 0);
        }
    });
}

#[test]
fn what_was_agreed_on_is_told() {
    each(|contexts| {
        let (client, server) = pair_of(contexts);
        assert!(client.alpn().is_some() && client.alpn() == server.alpn(), "{:?} {:?}", client.alpn(), server.alpn());
        let leaf = client.peer_certificate().expect("a certificate");
        assert_eq!(leaf, Certificate::from_pem(certs().rsa.chain.as_bytes()).expect("leaf"));
    });
}

#[test]
fn a_file_that_does_not_wait_gets_on_too() {
    each(|(client, server)| {
        let (c, s) = tcp_pair();
        let options = || SslFile::options().nonblocking(true).handshake(Handshake::Lazy);
        let client = options().client(NAME).open(c, client).expect("client");
        let server = options().server().open(s, server).expect("server");
        let data = pattern(3, 300_000);
        thread::scope(|t| {
            t.spawn(|| {
                let mut rest = &data[..];
                while !rest.is_empty() {
                    let n = until_ready(&client, || (&client).write(rest)).expect("write");
                    rest = &rest[n..];
                }
                until_ready(&client, || (&client).flush()).expect("flush");
            });
            let (mut got, mut buf) = (Vec::new(), [0; 16384]);
            while got.len() < data.len() {
                let n = until_ready(&server, || (&server).read(&mut buf)).expect("read");
                got.extend_from_slice(&buf[..n]);
            }
            assert!(got == data);
        });
    });
}

#[test]
fn waits_end_by_time_by_interrupt_and_by_a_cut() {
    each(|contexts| {
        let (client, server) = pair_of(contexts);
        client.set_read_timeout(Some(Duration::from_millis(100))).expect("set");
        assert_eq!((&client).read(&mut [0]).expect_err("silence").kind(), ErrorKind::TimedOut);
        client.set_read_timeout(None).expect("set");
        thread::scope(|t| {
            let reader = t.spawn(|| (&client).read(&mut [0]));
            until_busy(&client);
            client.interrupt();
            let e = reader.join().expect("thread").expect_err("interrupted");
            assert_eq!(kind_of(&e), Some(Kind::Interrupted), "{e}");
        });
        (&server).write_all(b"the last").expect("write");
        assert_eq!(read_all(&client, 8), b"the last");
        server.get_ref().shutdown(Shutdown::Write).expect("cut");
        let e = (&client).read(&mut [0]).expect_err("a cut is no end");
        assert_eq!((e.kind(), kind_of(&e)), (ErrorKind::BrokenPipe, Some(Kind::Truncated)), "{e}");
    });
}

/// What comes behind our own close_notify nobody can read there, and nobody takes it for the peer's end.
#[test]
fn behind_its_own_end_it_is_deaf_and_says_so() {
    each(|contexts| {
        let (client, server) = pair_of(contexts);
        let (native, other) = match client.context().engine() {
            Engine::Native => (client, server),
            _ => (server, client),
        };
        native.shutdown(Shutdown::Write).expect("shutdown");
        assert_eq!((&other).read(&mut [0]).expect("a close_notify"), 0);
        (&other).write_all(b"unheard").expect("write");
        other.close().expect("close");
        let e = (&native).read(&mut [0; 8]).expect_err("something is missing");
        assert_eq!((e.kind(), kind_of(&e)), (ErrorKind::BrokenPipe, Some(Kind::Truncated)), "{e}");
    });
}

#[test]
fn the_stream_comes_back_with_what_follows() {
    each(|contexts| {
        let (client, server) = pair_of(contexts);
        // Who ends first must read behind its own end.
        let (first, second) = match client.context().engine() {
            Engine::Native => (server, client),
            _ => (client, server),
        };
        if first.context().engine() == Engine::Native || is_old_wine() {
            return;
        }
        let plain = thread::scope(|t| {
            let first = t.spawn(move || {
                first.close_clean().expect("close_clean");
                let (mut tcp, unread) = first.release().expect("release");
                assert!(unread.is_empty());
                tcp.write_all(b"and in plain").expect("write");
            });
            assert_eq!((&second).read(&mut [0]).expect("a close_notify"), 0);
            second.close_clean().expect("close_clean");
            first.join().expect("first");
            second.release().expect("release")
        });
        let (mut tcp, mut got) = plain;
        tcp.read_to_end(&mut got).expect("read");
        assert_eq!(got, b"and in plain");
    });
}

#[test]
fn callbacks_echo() {
    each(|contexts| {
        let (client, server) = pair_of(contexts);
        let backend = Backend::new().expect("backend");
        server.set_callbacks(Callbacks::new().on_read(|file: &SslFile, data| file.send(data).expect("send")));
        server.set_nonblocking(true).expect("set");
        server.set_backend(Some(&backend)).expect("set");
        let turner = backend.clone();
        let turns = thread::spawn(move || turner.run());
        let data = pattern(5, 100_000);
        thread::scope(|t| {
            t.spawn(|| (&client).write_all(&data).expect("write"));
            assert!(read_all(&client, data.len()) == data);
        });
        backend.stop();
        turns.join().expect("thread").expect("run");
    });
}

#[test]
fn a_certificate_for_another_name_or_of_nobody_we_know_is_refused() {
    for &version in versions() {
        within(LONG, move || {
            let (_, server) = contexts((Engine::Native, Engine::Rustls), version);
            let client = only(Context::builder().engine(Engine::Native), version).build().expect("client");
            for (name, kinds) in [
                (NAME, [Kind::Certificate, Kind::Certificate]),
                ("other.example", [Kind::HostnameMismatch, Kind::Certificate]),
            ] {
                let (c, s) = tcp_pair();
                let options: SslOptions = SslFile::options().client(name);
                let failed = thread::scope(|t| {
                    t.spawn(|| SslFile::options().server().open(s, &server).map(drop));
                    options.open(c, &client)
                });
                match failed {
                    Ok(_) => println!("{name}, {version}: taken"),
                    Err(failed) => {
                        let kind = kind_of(failed.error());
                        assert!(kinds.contains(&kind.expect("ours")), "{name}, {version}: {}", failed.error());
                    }
                }
            }
        });
    }
}

#[test]
fn an_identity_comes_from_an_archive_too_and_what_does_not_fit_is_refused() {
    let archive = include_bytes!("common/keys/rsa.p12");
    let identity = Identity::from_pkcs12(archive, "secret").expect("archive");
    Context::server(identity).expect("context");
    assert_eq!(Identity::from_pkcs12(archive, "other").expect_err("password").kind(), ErrorKind::InvalidInput);
    let key = certs().ecdsa.key.clone();
    let e = Identity::from_pem(certs().rsa.chain.as_bytes(), key.as_bytes()).expect_err("another's key");
    assert_eq!(e.kind(), ErrorKind::InvalidInput, "{e}");
}
