//! Which protocol versions are spoken: bounds of a context, of a file, and what happens where they do not meet.

use crate::common;

use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use common::bare::{self, Bare, LIBRARY};
use common::{
    client_builder, client_context, engines, kind_of, server_builder, server_context, tcp_pair, within, LONG, NAME,
};
use sslfile::{Context, ContextBuilder, Engine, ErrorKind as Kind, SslFile, SslOptions, Version};

const ALL: [Version; 4] = [Version::Tls1_0, Version::Tls1_1, Version::Tls1_2, Version::Tls1_3];

/// A bare TLS library, that says which version it was. Also the measure of what the library can do on this machine at all.
fn bare_server(tcp: TcpStream, min: Version, max: Version) -> io::Result<Version> {
    bare_talk(bare::server(tcp, min..=max)?)
}

fn bare_client(tcp: TcpStream, min: Version, max: Version) -> io::Result<Version> {
    bare_talk(bare::client(tcp, min..=max)?)
}

/// A byte each way, and the version.
fn bare_talk(mut stream: Bare<TcpStream>) -> io::Result<Version> {
    stream.write_all(b"!")?;
    stream.read_exact(&mut [0])?;
    Ok(stream.version())
}

/// Whether the bare library speaks it, asked without our crate.
fn library_speaks(version: Version) -> bool {
    let (c, s) = tcp_pair();
    thread::scope(|t| {
        let server = t.spawn(move || bare_server(s, version, version));
        bare_client(c, version, version).is_ok() && server.join().expect("server").is_ok()
    })
}

fn again<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(e) if e.kind() == ErrorKind::WouldBlock => thread::sleep(Duration::from_micros(200)),
            other => return other,
        }
    }
}

/// A handshake and a byte each way.
fn talk(options: SslOptions, tcp: TcpStream, context: &Context) -> io::Result<SslFile> {
    let file = options.open(tcp, context)?;
    again(|| file.handshake())?;
    again(|| (&file).write(b"!"))?;
    again(|| (&file).flush())?;
    assert_eq!(again(|| (&file).read(&mut [0]))?, 1);
    Ok(file)
}

fn shake(client: (SslOptions, &Context), server: (SslOptions, &Context)) -> (io::Result<SslFile>, io::Result<SslFile>) {
    let (c, s) = tcp_pair();
    thread::scope(|t| {
        let other = t.spawn(move || talk(server.0.server(), s, server.1));
        let client = talk(client.0.client(NAME), c, client.1);
        (client, other.join().expect("server"))
    })
}

fn plain() -> SslOptions {
    SslFile::options()
}

fn pinned(builder: ContextBuilder, version: Version) -> io::Result<Context> {
    builder.min_version(version).max_version(version).build()
}

/// The highest that both allow, whoever set the bounds, context or file.
#[test]
fn bounds_of_context_and_file_are_kept() {
    let engine = Engine::OpenSsl;
    if !engine.is_available() {
        return println!("{engine:?} was not built: no other engine tells the version");
    }
    let spoken: Vec<Version> = ALL.into_iter().filter(|v| library_speaks(*v)).collect();
    println!("{LIBRARY} here speaks {spoken:?}");
    assert!(spoken.contains(&Version::Tls1_2) && spoken.contains(&Version::Tls1_3));
    within(LONG * 3, move || {
        let wide_client = client_builder(engine).min_version(spoken[0]).build().expect("context");
        let wide_server = server_builder(engine).min_version(spoken[0]).build().expect("context");
        let strict_client = client_context(engine);
        let strict_server = server_context(engine);
        let ranges = |v: &[Version]| -> Vec<(Version, Version)> {
            v.iter().enumerate().flat_map(|(i, min)| v[i..].iter().map(move |max| (*min, *max))).collect()
        };
        for (client_min, client_max) in ranges(&spoken) {
            for (server_min, server_max) in ranges(&spoken) {
                let best = client_max.min(server_max);
                if best < client_min.max(server_min) {
                    continue;
                }
                let by_context = (
                    client_builder(engine).min_version(client_min).max_version(client_max).build().expect("client"),
                    server_builder(engine).min_version(server_min).max_version(server_max).build().expect("server"),
                );
                let client_file = plain().min_version(client_min).max_version(client_max);
                let server_file = plain().min_version(server_min).max_version(server_max);
                let ways = [
                    ((plain(), &by_context.0), (plain(), &by_context.1)),
                    // A file narrows what its context allows, or widens it.
                    ((client_file.clone(), &wide_client), (server_file.clone(), &wide_server)),
                    ((client_file, &strict_client), (server_file, &strict_server)),
                ];
                for (client, server) in ways {
                    let (c, s) = shake(client, server);
                    let what = format!("{client_min}-{client_max} with {server_min}-{server_max}");
                    let c = c.unwrap_or_else(|e| panic!("{what}: client: {e}"));
                    let s = s.unwrap_or_else(|e| panic!("{what}: server: {e}"));
                    assert_eq!((c.version(), s.version()), (Some(best), Some(best)), "{what}");
                }
            }
        }
    });
}

/// Against a bare library, which tells what was spoken, each engine in each role keeps to one version.
#[test]
fn each_engine_speaks_what_it_is_told_to() {
    for engine in engines() {
        for version in ALL {
            if !library_speaks(version) {
                println!("{LIBRARY} here does not speak {version}");
                continue;
            }
            within(LONG, move || {
                as_client(engine, version);
                as_server(engine, version);
            });
        }
    }
}

/// With Debian's security level, the `native-tls` crate has no way to TLS 1.0 and 1.1; then the error is typed.
fn may_fail(engine: Engine, version: Version) -> bool {
    engine == Engine::Native && version < Version::Tls1_2
}

fn as_client(engine: Engine, version: Version) {
    for per_file in [false, true] {
        let (c, s) = tcp_pair();
        let (context, options) = if per_file {
            (client_context(engine), plain().min_version(version).max_version(version))
        } else {
            (pinned(client_builder(engine), version).expect("context"), plain())
        };
        let server = thread::spawn(move || bare_server(s, Version::Tls1_0, Version::Tls1_3));
        match talk(options.client(NAME), c, &context) {
            Ok(file) => {
                assert_eq!(server.join().expect("server").expect("server"), version);
                if engine == Engine::OpenSsl {
                    assert_eq!(file.version(), Some(version));
                }
            }
            Err(e) => {
                assert!(may_fail(engine, version), "{engine:?} {version}: {e}");
                assert_handshake_error(&e);
            }
        }
    }
}

fn as_server(engine: Engine, version: Version) {
    for per_file in [false, true] {
        let (context, options) = if per_file {
            (Ok(server_context(engine)), plain().min_version(version).max_version(version))
        } else {
            (pinned(server_builder(engine), version), plain())
        };
        let beyond = engine == Engine::Native && version > Version::Tls1_2;
        let context = match context {
            Ok(context) => context,
            Err(e) => {
                assert!(beyond, "{engine:?} {version}: {e}");
                assert_unsupported(&e, engine);
                continue;
            }
        };
        let (c, s) = tcp_pair();
        let client = thread::spawn(move || bare_client(c, Version::Tls1_0, Version::Tls1_3));
        match talk(options.server(), s, &context) {
            Ok(file) => {
                assert!(!beyond, "{engine:?} served {version}");
                assert_eq!(client.join().expect("client").expect("client"), version);
                if engine == Engine::OpenSsl {
                    assert_eq!(file.version(), Some(version));
                }
            }
            Err(e) if beyond => assert_unsupported(&e, engine),
            Err(e) => {
                assert!(may_fail(engine, version), "{engine:?} {version}: {e}");
                assert_handshake_error(&e);
            }
        }
    }
}

fn assert_unsupported(error: &io::Error, engine: Engine) {
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
    assert_eq!(kind_of(error), Some(Kind::Unsupported));
    let text = error.to_string();
    assert!(text.contains("TLSv1.3") && text.contains(&format!("{engine:?}")), "{text}");
}

fn assert_handshake_error(error: &io::Error) {
    assert_eq!(error.kind(), ErrorKind::InvalidData, "{error}");
    assert!(
        matches!(kind_of(error), Some(Kind::LocalAlert(_) | Kind::PeerAlert(_) | Kind::Protocol)),
        "{:?}: {error}",
        kind_of(error)
    );
}

/// On OpenSSL, native-tls' acceptor stops at TLS 1.2; asked for more it says so, at once and by name.
#[cfg(all(unix, not(target_vendor = "apple")))]
#[test]
fn native_acceptor_above_tls_1_2_is_unsupported() {
    let engine = Engine::Native;
    if !engine.is_available() {
        return;
    }
    within(LONG, move || {
        let opened = pinned(server_builder(engine), Version::Tls1_3)
            .and_then(|context| Ok(plain().server().open(tcp_pair().1, &context)?));
        assert_unsupported(&opened.expect_err("a TLS 1.3 server"), engine);
        let context = server_context(engine);
        let options = plain().server().min_version(Version::Tls1_3);
        let failed = options.open(tcp_pair().1, &context).expect_err("a TLS 1.3 server");
        assert_unsupported(failed.error(), engine);

        // A maximum of 1.3 asks for nothing it cannot do, and as a client it goes all the way.
        server_builder(engine).max_version(Version::Tls1_3).build().expect("context");
        if Engine::OpenSsl.is_available() {
            let client = pinned(client_builder(engine), Version::Tls1_3).expect("context");
            let (_, s) = shake((plain(), &client), (plain(), &server_context(Engine::OpenSsl)));
            assert_eq!(s.expect("server").version(), Some(Version::Tls1_3));
        }
    });
}

/// Where nothing is shared one end says so with an alert, the other hears it, and both errors have a type.
#[test]
fn no_shared_version_is_a_typed_error_on_both_ends() {
    for client in engines() {
        for server in engines() {
            for nonblocking in [false, true] {
                within(LONG, move || {
                    no_shared_version(client, server, nonblocking, Version::Tls1_3, Version::Tls1_2);
                    if server != Engine::Native {
                        no_shared_version(client, server, nonblocking, Version::Tls1_2, Version::Tls1_3);
                    }
                });
            }
        }
    }
}

fn no_shared_version(client: Engine, server: Engine, nonblocking: bool, ours: Version, theirs: Version) {
    let by_context = (
        pinned(client_builder(client), ours).expect("client"),
        pinned(server_builder(server), theirs).expect("server"),
    );
    let by_file = (client_context(client), server_context(server));
    let open = || plain().nonblocking(nonblocking);
    let pin = |version| open().min_version(version).max_version(version);
    for (c, s) in [
        shake((open(), &by_context.0), (open(), &by_context.1)),
        shake((pin(ours), &by_file.0), (pin(theirs), &by_file.1)),
    ] {
        let (c, s) = (c.expect_err("client"), s.expect_err("server"));
        assert_handshake_error(&c);
        assert_handshake_error(&s);
        let (c, s) = (kind_of(&c).expect("ours"), kind_of(&s).expect("ours"));
        // Whoever notices: protocol_version, or no shared cipher where the list tells it first.
        let alert = match (c, s) {
            (Kind::LocalAlert(sent), Kind::PeerAlert(heard)) => (sent == heard).then_some(sent),
            (Kind::PeerAlert(heard), Kind::LocalAlert(sent)) => (sent == heard).then_some(sent),
            _ => None,
        };
        assert!(matches!(alert, Some(70 | 40)), "client {client:?}: {c:?}, server {server:?}: {s:?}");
    }
}

/// Out of the box: TLS 1.2 up, the best first; older peers are refused with an error that has a type.
#[test]
fn tls_1_2_up_is_the_default() {
    for engine in engines() {
        within(LONG, move || {
            for version in ALL.into_iter().filter(|v| library_speaks(*v)) {
                let (c, s) = tcp_pair();
                let server = thread::spawn(move || bare_server(s, version, version));
                let client = talk(plain().client(NAME), c, &client_context(engine));
                check_default(engine, version, client, server.join().expect("server"));

                let (c, s) = tcp_pair();
                let client = thread::spawn(move || bare_client(c, version, version));
                let server = talk(plain().server(), s, &server_context(engine));
                let native_stops = engine == Engine::Native && version == Version::Tls1_3;
                match native_stops {
                    true => assert_handshake_error(&server.expect_err("beyond it")),
                    false => check_default(engine, version, server, client.join().expect("client")),
                }
            }
        });
    }
}

fn check_default(engine: Engine, version: Version, ours: io::Result<SslFile>, theirs: io::Result<Version>) {
    if version >= Version::Tls1_2 {
        ours.unwrap_or_else(|e| panic!("{engine:?} {version}: {e}"));
        assert_eq!(theirs.expect("theirs"), version);
    } else {
        assert_handshake_error(&ours.expect_err("an old version"));
        assert!(theirs.is_err());
    }
}

#[test]
fn ssl_3_is_unsupported() {
    for engine in engines() {
        for builder in [client_builder(engine), server_builder(engine)] {
            let error = pinned(builder, Version::Ssl3).expect_err("SSL 3");
            assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
            assert_eq!(kind_of(&error), Some(Kind::Unsupported));
            assert!(error.to_string().contains("SSLv3"), "{error}");
        }
        let options = plain().client(NAME).min_version(Version::Ssl3).max_version(Version::Ssl3);
        let failed = options.open(tcp_pair().0, &client_context(engine)).expect_err("SSL 3");
        assert_eq!(failed.error().kind(), ErrorKind::Unsupported, "{failed}");
    }
}

#[test]
fn minimum_above_maximum_is_refused() {
    for engine in engines() {
        let (low, high) = (Version::Tls1_2, Version::Tls1_3);
        let built = client_builder(engine).min_version(high).max_version(low).build();
        let error = built.expect_err("no version left");
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
        let options = plain().client(NAME).min_version(high).max_version(low);
        let failed = options.open(tcp_pair().0, &client_context(engine)).expect_err("none left");
        assert_eq!(failed.error().kind(), ErrorKind::InvalidInput, "{failed}");
        // Also where file and context leave nothing together.
        let old = client_builder(engine).max_version(low).build().expect("context");
        let failed = plain().client(NAME).min_version(high).open(tcp_pair().0, &old);
        assert_eq!(failed.expect_err("none left").error().kind(), ErrorKind::InvalidInput);
    }
}

/// The system's roots are loaded once for a context, not again for each file with bounds of its own.
#[test]
fn bounds_of_a_file_do_not_load_the_roots_again() {
    let fastest = |times: usize, mut f: Box<dyn FnMut()>| {
        (0..times)
            .map(|_| {
                let start = Instant::now();
                f();
                start.elapsed()
            })
            .min()
            .expect("times")
    };
    for engine in engines() {
        let build = fastest(
            4,
            Box::new(move || {
                Context::builder().engine(engine).build().expect("context");
            }),
        );
        let context = Context::builder().engine(engine).build().expect("context");
        let open = fastest(
            20,
            Box::new(move || {
                let options = plain().client(NAME).max_version(Version::Tls1_2).nonblocking(true);
                options.open(tcp_pair().0, &context).expect("open");
            }),
        );
        println!("{engine:?}: context {build:?}, file {open:?}");
        assert!(open < build / 2, "{engine:?}: a file took {open:?}, a context {build:?}");
    }
}

#[test]
fn versions_are_ordered_and_have_names() {
    let names: Vec<String> = ALL.iter().map(|v| v.to_string()).collect();
    assert_eq!(names, ["TLSv1.0", "TLSv1.1", "TLSv1.2", "TLSv1.3"]);
    assert_eq!(Version::Ssl3.to_string(), "SSLv3");
    assert!(Version::Ssl3 < Version::Tls1_0 && ALL.is_sorted());
}
