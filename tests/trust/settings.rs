//! What a context can ask for beside trust, what the two ends then agree on, and what an engine refuses.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::thread;

use ring::digest::{digest, SHA256};
use sslfile::{Certificate, ClientAuth, Context, ContextBuilder, Engine, ErrorKind as Kind, SslFile, Version};

use super::{assert_says, assert_unsupported, shake};
use crate::authority::Authority;
use crate::common::{
    ca, certs, client_builder, client_context, engines, kind_of, server_builder, server_context, within, LONG, NAME,
};

const VERSIONS: [Version; 2] = [Version::Tls1_2, Version::Tls1_3];

/// The only engine that knows them. (`Native` says `Unsupported`, which is tested below.)
const FULL: Engine = Engine::OpenSsl;

fn has_full() -> bool {
    let has = FULL.is_available();
    if !has {
        println!("{FULL:?} was not built: nothing to test");
    }
    has
}

fn both(version: Version) -> (ContextBuilder, ContextBuilder) {
    let pin = |b: ContextBuilder| b.min_version(version).max_version(version);
    (pin(client_builder(FULL)), pin(server_builder(FULL)))
}

fn built(builder: ContextBuilder) -> Context {
    builder.build().expect("context")
}

#[test]
fn client_certificate_is_asked_for_as_said() {
    if !has_full() {
        return;
    }
    for version in VERSIONS {
        for nonblocking in [false, true] {
            within(LONG, move || client_certificates(version, nonblocking));
        }
    }
}

fn client_certificates(version: Version, nonblocking: bool) {
    let server = |policy| built(both(version).1.add_root(ca()).client_auth(policy));
    let with = |identity| built(both(version).0.identity(identity));
    let bare = built(both(version).0);
    let known = with(certs().client.identity());
    let stranger = with(certs().self_signed.identity());
    let leaf = Certificate::from_pem(certs().client.chain.as_bytes()).expect("leaf");

    let (_, s) = shake(&known, NAME, &server(ClientAuth::None), nonblocking).files();
    assert_eq!(s.peer_certificate(), None, "nobody asked");
    let (_, s) = shake(&bare, NAME, &server(ClientAuth::Request), nonblocking).files();
    assert_eq!(s.peer_certificate(), None);
    for policy in [ClientAuth::Request, ClientAuth::Require] {
        let (_, s) = shake(&known, NAME, &server(policy), nonblocking).files();
        assert_eq!(s.peer_certificate(), Some(leaf.clone()));
        assert_eq!(s.peer_certificates(), Some(vec![leaf.clone(), ca()]));
        // One that does not hold is refused even where none would have done.
        let (client, judge) = shake(&stranger, NAME, &server(policy), nonblocking).errors();
        assert_eq!(kind_of(&judge), Some(Kind::Certificate), "{judge}");
        assert_eq!(judge.kind(), ErrorKind::InvalidData);
        assert_eq!(kind_of(&client), Some(Kind::PeerAlert(48)), "{client}");
    }
    let (client, judge) = shake(&bare, NAME, &server(ClientAuth::Require), nonblocking).errors();
    assert_eq!(kind_of(&judge), Some(Kind::Certificate), "{judge}");
    // certificate_required came with TLS 1.3; before that it was handshake_failure.
    let alert = if version == Version::Tls1_3 { 116 } else { 40 };
    assert_eq!(kind_of(&client), Some(Kind::PeerAlert(alert)), "{client}");
}

/// `Native` cannot ask for a client's certificate, but it can show one.
#[test]
fn every_engine_shows_its_certificate() {
    if !has_full() {
        return;
    }
    for engine in engines() {
        for version in VERSIONS {
            within(LONG, move || {
                let server = built(both(version).1.add_root(ca()).client_auth(ClientAuth::Require));
                let client = built(client_builder(engine).identity(certs().client.identity()));
                let (_, s) = shake(&client, NAME, &server, false).files();
                assert!(s.peer_certificate().is_some());
            });
        }
    }
}

/// What both speak, the server's favourite first; seen by both ends.
#[test]
fn alpn_is_agreed_on_by_both_ends() {
    for client in engines() {
        for server in engines() {
            for nonblocking in [false, true] {
                within(LONG, move || alpn(client, server, nonblocking));
            }
        }
    }
}

fn alpn(client: Engine, server: Engine, nonblocking: bool) {
    let agree = |ours: &[&str], theirs: &[&str]| {
        let client = built(client_builder(client).alpn(ours));
        let server = built(server_builder(server).alpn(theirs));
        let (c, s) = shake(&client, NAME, &server, nonblocking).files();
        assert_eq!(c.alpn(), s.alpn());
        c.alpn().map(|name| String::from_utf8(name).expect("a name"))
    };
    assert_eq!(agree(&["h2", "http/1.1"], &["http/1.1"]).as_deref(), Some("http/1.1"));
    assert_eq!(agree(&["http/1.1"], &["h2", "http/1.1"]).as_deref(), Some("http/1.1"));
    assert_eq!(agree(&["http/1.1", "h2"], &["h2", "http/1.1"]).as_deref(), Some("h2"));
    assert_eq!(agree(&["one"], &[]), None);
    assert_eq!(agree(&[], &["one"]), None);
    assert_eq!(agree(&[], &[]), None);
    let longest = "x".repeat(255);
    assert_eq!(agree(&[&longest], &[&longest]), Some(longest.clone()));
}

/// Nothing in common is no_application_protocol (RFC 7301). The `native-tls` crate's servers go on without.
#[test]
fn alpn_without_overlap_is_refused() {
    if !has_full() {
        return;
    }
    for engine in engines() {
        within(LONG, move || {
            let client = built(client_builder(engine).alpn(["one"]));
            let server = built(server_builder(FULL).alpn(["two"]));
            let (ours, theirs) = shake(&client, NAME, &server, false).errors();
            assert_eq!(kind_of(&theirs), Some(Kind::LocalAlert(120)), "{theirs}");
            assert_eq!(kind_of(&ours), Some(Kind::PeerAlert(120)), "{ours}");
        });
    }
}

#[test]
fn alpn_names_have_1_to_255_bytes() {
    for engine in engines() {
        for bad in [String::new(), "x".repeat(256)] {
            let error = client_builder(engine).alpn([bad]).build().expect_err("a bad name");
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
            assert_says(&error, &["alpn"]);
        }
    }
}

/// RFC 5929: the hash of the server's certificate, the same at both ends.
#[test]
fn tls_server_end_point_is_equal_on_both_ends() {
    for client in engines() {
        for server in engines() {
            within(LONG, move || {
                for pair in [&certs().ecdsa, &certs().rsa] {
                    let server = built(server_builder(server).identity(pair.identity()));
                    let (c, s) = shake(&client_context(client), NAME, &server, false).files();
                    let leaf = Certificate::from_pem(pair.chain.as_bytes()).expect("leaf").to_der();
                    // The test CA signs with SHA-256.
                    let expected = digest(&SHA256, &leaf).as_ref().to_vec();
                    assert_eq!(c.tls_server_end_point(), Some(expected.clone()));
                    assert_eq!(s.tls_server_end_point(), Some(expected));
                }
            });
        }
    }
}

/// RFC 5705: the same at both ends, another for each label, context and connection.
#[test]
fn exported_keys_are_equal_on_both_ends() {
    if !has_full() {
        return;
    }
    for version in VERSIONS {
        within(LONG, move || {
            let (client, server) = both(version);
            let (client, server) = (built(client), built(server));
            let export = |file: &SslFile, label: &str, context: Option<&[u8]>| {
                let mut key = [0; 40];
                file.export_keying_material(&mut key, label, context).expect("key");
                assert_ne!(key, [0; 40]);
                key
            };
            let mut keys = Vec::new();
            for _ in 0..2 {
                let (c, s) = shake(&client, NAME, &server, false).files();
                for (label, context) in
                    [("EXPORTER-one", None), ("EXPORTER-two", None), ("EXPORTER-one", Some(&b"context"[..]))]
                {
                    let key = export(&c, label, context);
                    assert_eq!(key, export(&s, label, context));
                    keys.push(key);
                }
            }
            let count = keys.len();
            keys.sort();
            keys.dedup();
            assert_eq!(keys.len(), count, "two of them are the same");
        });
    }
}

#[test]
fn server_sees_the_name_it_was_asked_for() {
    if !has_full() {
        return;
    }
    for engine in engines() {
        within(LONG, move || {
            let server = server_context(FULL);
            let asked = |client: Context, name: &str| shake(&client, name, &server, false).files().1.server_name();
            assert_eq!(asked(client_context(engine), NAME).as_deref(), Some(NAME));
            // Addresses are no names (RFC 6066), and who wants can keep quiet.
            assert_eq!(asked(client_context(engine), "127.0.0.1"), None);
            assert_eq!(asked(client_context(engine), "::1"), None);
            assert_eq!(asked(built(client_builder(engine).sni(false)), NAME), None);
        });
    }
}

#[test]
fn version_and_cipher_are_told_by_those_who_know() {
    for engine in engines() {
        let (c, s) = shake(&client_context(engine), NAME, &server_context(engine), false).files();
        if engine == Engine::Native {
            assert_eq!((c.version(), s.version()), (None, None));
            assert_eq!((c.cipher(), c.is_resumed()), (None, None));
        } else {
            assert_eq!((c.version(), s.version()), (Some(Version::Tls1_3), Some(Version::Tls1_3)));
            assert_eq!(c.cipher(), s.cipher());
            assert!(c.cipher().expect("cipher").contains("AES"), "{:?}", c.cipher());
            assert_eq!(c.is_resumed(), Some(false));
        }
    }
}

#[test]
fn ciphers_are_those_asked_for() {
    if !has_full() {
        return;
    }
    within(LONG, || {
        for name in ["ECDHE-ECDSA-AES128-GCM-SHA256", "ECDHE-ECDSA-CHACHA20-POLY1305"] {
            let (client, server) = both(Version::Tls1_2);
            let (c, s) = shake(&built(client.cipher_list(name)), NAME, &built(server), false).files();
            assert_eq!((c.cipher().as_deref(), s.cipher().as_deref()), (Some(name), Some(name)));
        }
        for name in ["TLS_AES_128_GCM_SHA256", "TLS_CHACHA20_POLY1305_SHA256"] {
            let (client, server) = both(Version::Tls1_3);
            let (c, s) = shake(&built(client), NAME, &built(server.ciphersuites(name)), false).files();
            assert_eq!((c.cipher().as_deref(), s.cipher().as_deref()), (Some(name), Some(name)));
        }
        // No cipher in common: a typed error on both ends.
        let (client, server) = both(Version::Tls1_2);
        let client = built(client.cipher_list("ECDHE-ECDSA-AES128-GCM-SHA256"));
        let server = built(server.cipher_list("ECDHE-ECDSA-AES256-GCM-SHA384"));
        let (ours, theirs) = shake(&client, NAME, &server, false).errors();
        assert_eq!(kind_of(&theirs), Some(Kind::LocalAlert(40)), "{theirs}");
        assert_eq!(kind_of(&ours), Some(Kind::PeerAlert(40)), "{ours}");

        for (option, bad) in [
            ("cipher_list", client_builder(FULL).cipher_list("NO-SUCH-CIPHER")),
            ("ciphersuites", client_builder(FULL).ciphersuites("TLS_NO_SUCH_SUITE")),
        ] {
            let error = bad.build().expect_err("a cipher that is none");
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
            assert_says(&error, &[option]);
        }
    });
}

/// One connection with both contexts, ended in order; whether each end says it was resumed.
fn visit(client: &Context, name: &str, server: &Context) -> (Option<bool>, Option<bool>) {
    let (c, s) = crate::common::tcp_pair();
    thread::scope(|t| {
        let server = t.spawn(move || {
            let file = SslFile::server(s, server).expect("server");
            (&file).write_all(b"welcome").expect("write");
            let mut rest = Vec::new();
            (&file).read_to_end(&mut rest).expect("a clean end");
            file.close().expect("close");
            file.is_resumed()
        });
        let file = SslFile::client(c, client, name).expect("client");
        // Tickets come behind the handshake, before the data.
        let mut word = [0; 7];
        (&file).read_exact(&mut word).expect("read");
        file.close().expect("close");
        (file.is_resumed(), server.join().expect("server"))
    })
}

const YES: (Option<bool>, Option<bool>) = (Some(true), Some(true));
const NO: (Option<bool>, Option<bool>) = (Some(false), Some(false));

#[test]
fn sessions_are_resumed() {
    if !has_full() {
        return;
    }
    for version in VERSIONS {
        within(LONG, move || {
            let (client, server) = both(version);
            let client = built(client.session_resumption(true));
            let server = built(server.session_resumption(true));
            assert_eq!(visit(&client, NAME, &server), NO);
            for _ in 0..3 {
                assert_eq!(visit(&client, NAME, &server), YES);
            }
            // A session belongs to its context and to its name, lest a check be passed by.
            assert_eq!(visit(&client, "127.0.0.1", &server), NO);
            assert_eq!(visit(&built(both(version).0.session_resumption(true)), NAME, &server), NO);
        });
    }
}

#[test]
fn sessions_are_not_resumed_where_either_end_does_not_want_to() {
    if !has_full() {
        return;
    }
    for version in VERSIONS {
        for (ours, theirs) in [(true, false), (false, true), (false, false)] {
            within(LONG, move || {
                let (client, server) = both(version);
                let client = built(client.session_resumption(ours));
                let server = built(server.session_resumption(theirs));
                for _ in 0..3 {
                    assert_eq!(visit(&client, NAME, &server), NO);
                }
            });
        }
    }
}

/// A session proves who the client was: it is not used behind the back of one with an identity.
#[test]
fn sessions_with_a_client_certificate_are_resumed_when_asked_only() {
    if !has_full() {
        return;
    }
    for version in VERSIONS {
        within(LONG, move || {
            let server = built(both(version).1.add_root(ca()).client_auth(ClientAuth::Request));
            let quiet = built(both(version).0.identity(certs().client.identity()));
            for _ in 0..2 {
                assert_eq!(visit(&quiet, NAME, &server), NO);
            }
            let asked = both(version).0.identity(certs().client.identity()).session_resumption(true);
            let asked = built(asked);
            assert_eq!(visit(&asked, NAME, &server), NO);
            assert_eq!(visit(&asked, NAME, &server), YES);
        });
    }
}

/// The NSS format, one set of lines per connection, appended; the same secrets from either end.
#[test]
fn key_log_has_the_secrets_of_each_connection() {
    if !has_full() {
        return;
    }
    for version in VERSIONS {
        within(LONG, move || {
            let folder = tempfile::tempdir().expect("folder");
            let (one, other) = (folder.path().join("client.keys"), folder.path().join("server.keys"));
            fs::write(&one, "# kept\n").expect("file");
            let (client, server) = both(version);
            let client = built(client.key_log_file(&one));
            let server = built(server.key_log_file(&other));
            let connections = 3;
            for _ in 0..connections {
                shake(&client, NAME, &server, false).files();
            }
            let read = |path| fs::read_to_string(path).expect("key log");
            let (one, other) = (read(&one), read(&other));
            let ours = one.strip_prefix("# kept\n").expect("what was there is still there");
            let labels: &[&str] = match version {
                Version::Tls1_3 => &[
                    "CLIENT_HANDSHAKE_TRAFFIC_SECRET",
                    "SERVER_HANDSHAKE_TRAFFIC_SECRET",
                    "CLIENT_TRAFFIC_SECRET_0",
                    "SERVER_TRAFFIC_SECRET_0",
                ],
                _ => &["CLIENT_RANDOM"],
            };
            for label in labels {
                let lines = |log: &str| -> Vec<String> {
                    let mut lines: Vec<_> =
                        log.lines().filter(|l| l.starts_with(&format!("{label} "))).map(String::from).collect();
                    lines.sort();
                    lines
                };
                assert_eq!(lines(ours).len(), connections, "{label} in {ours}");
                assert_eq!(lines(ours), lines(&other));
            }
            for line in ours.lines() {
                let fields: Vec<_> = line.split(' ').collect();
                assert_eq!(fields.len(), 3, "{line}");
                assert!(fields[1..].iter().all(|f| f.bytes().all(|b| b.is_ascii_hexdigit())), "{line}");
            }
        });
    }
}

#[test]
fn key_log_that_cannot_be_written_is_refused() {
    if !has_full() {
        return;
    }
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("nowhere").join("keys");
    let error = client_builder(FULL).key_log_file(&path).build().expect_err("no such folder");
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    assert_says(&error, &[&path.display().to_string()]);
}

/// What an engine cannot do it refuses at `build`, with the names of both.
#[test]
fn unsupported_options_are_refused_by_name() {
    let engine = Engine::Native;
    if !engine.is_available() {
        return;
    }
    let folder = tempfile::tempdir().expect("folder");
    let log = folder.path().join("keys");
    for (option, builder) in [
        ("client_auth", server_builder(engine).add_root(ca()).client_auth(ClientAuth::Request)),
        ("client_auth", server_builder(engine).add_root(ca()).client_auth(ClientAuth::Require)),
        ("cipher_list", client_builder(engine).cipher_list("HIGH")),
        ("cipher_list", server_builder(engine).cipher_list("HIGH")),
        ("ciphersuites", client_builder(engine).ciphersuites("TLS_AES_128_GCM_SHA256")),
        ("key_log_file", client_builder(engine).key_log_file(&log)),
        ("session_resumption", client_builder(engine).session_resumption(true)),
        ("SSLv3", client_builder(engine).min_version(Version::Ssl3)),
    ] {
        let error = builder.build().expect_err(option);
        assert_unsupported(&error, option, engine);
    }
    assert!(!log.exists(), "refused, and yet made");
    // Asking for what is there anyway is asking for nothing.
    built(server_builder(engine).client_auth(ClientAuth::None));
}

#[test]
fn unsupported_export_is_refused_by_name() {
    let engine = Engine::Native;
    if !engine.is_available() {
        return;
    }
    let (c, s) = shake(&client_context(engine), NAME, &server_context(engine), false).files();
    for file in [c, s] {
        let error = file.export_keying_material(&mut [0; 8], "EXPORTER", None).expect_err("unsupported");
        assert_unsupported(&error, "export_keying_material", engine);
    }
}

#[test]
fn engines_that_were_not_built_are_refused_by_name() {
    for engine in [Engine::Native, Engine::OpenSsl, Engine::Rustls] {
        assert_eq!(engine.is_available(), Engine::available().contains(&engine));
        let built = Context::builder().engine(engine).system_roots(false).build();
        match engine.is_available() {
            true => assert_eq!(built.expect("context").engine(), engine),
            false => assert_unsupported(&built.expect_err("not built"), "feature", engine),
        }
    }
    let default = Context::builder().system_roots(false).build().expect("context").engine();
    assert_eq!(Some(&default), Engine::available().first());
}

/// A root that is no CA of ours changes nothing for a server that asks nobody.
#[test]
fn settings_of_one_role_do_not_disturb_the_other() {
    for engine in engines() {
        within(LONG, move || {
            // One context in both roles.
            let stranger = Authority::new("a stranger").certificate();
            let context =
                built(server_builder(engine).system_roots(false).add_root(ca()).add_root(stranger).alpn(["one"]));
            let (c, s) = shake(&context, NAME, &context, false).files();
            assert_eq!(c.alpn(), Some(b"one".to_vec()));
            assert_eq!(s.alpn(), c.alpn());
        });
    }
}
