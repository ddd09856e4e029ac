//! What each engine can be told, in which role.

use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use ring::digest::{digest, SHA256};
use sslfile::{
    Backend, ClientAuth, Context, ContextBuilder, Engine, Handshake, Identity, Role, SslFile, SslOptions, Version,
};

use crate::authority::Authority;
use crate::common::{
    bare, ca, certs, client_builder, client_context, engines, server_builder, server_context, tcp_pair, test_in_child,
    tls_pair, until_ready, within, Pair, ECDSA_KEY, LONG, NAME,
};
use crate::table::{can, table, word};

/// Files that settings name.
struct Files {
    roots: PathBuf,
    log: PathBuf,
}

/// Makes the setting of a context that a line of the table names.
fn set(name: &str, builder: ContextBuilder, files: &Files) -> io::Result<ContextBuilder> {
    Ok(match name {
        "identity" => builder.identity(certs().ecdsa.identity()),
        "identity from PKCS#12" => builder.identity(Identity::from_pkcs12(&archive(), "secret")?),
        "identity from a key encrypted as PKCS#8" => builder.identity(encrypted(&certs().rsa, RSA_PKCS8)?),
        "identity from a key encrypted in OpenSSL's older form" => {
            builder.identity(encrypted(&certs().rsa, RSA_PKCS1)?)
        }
        "add_identity" => builder.add_identity("one.example", certs().rsa.identity()),
        "choose_identity" => builder.choose_identity(|_| None),
        "add_root" => builder.add_root(ca()),
        "add_roots_from" => builder.add_roots_from(&files.roots),
        "system_roots" => builder.system_roots(true),
        "add_crls" => builder.add_crls(Authority::new("of no use here").revoke(&[1], 2090).der()),
        "min_version" => builder.min_version(Version::Tls1_2),
        "min_version of TLS 1.3" => builder.min_version(Version::Tls1_3),
        "min_version below TLS 1.2" => builder.min_version(Version::Tls1_0),
        "max_version" => builder.max_version(Version::Tls1_2),
        "max_version below TLS 1.2" => builder.min_version(Version::Tls1_0).max_version(Version::Tls1_1),
        "min_version of SSL 3" => builder.min_version(Version::Ssl3),
        "alpn" => builder.alpn(["one", "two"]),
        "alpn with names that are not UTF-8" => builder.alpn([[0xff]]),
        "sni" => builder.sni(false),
        "client_auth" => builder.add_root(ca()).client_auth(ClientAuth::Request),
        "post_handshake_auth" => builder.post_handshake_auth(true),
        "cipher_list" => builder.cipher_list("ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-ECDSA-AES128-GCM-SHA256"),
        "cipher_list in OpenSSL's language" => builder.cipher_list("HIGH:!aNULL:@STRENGTH"),
        "ciphersuites" => builder.ciphersuites("TLS_AES_128_GCM_SHA256"),
        "groups" => builder.groups("secp256r1"),
        "signature_algorithms" => builder.signature_algorithms("ecdsa_secp256r1_sha256"),
        "prefer_server_order" => builder.prefer_server_order(false),
        "session_resumption(true)" => builder.session_resumption(true),
        "session_resumption(false)" => builder.session_resumption(false),
        "session_lifetime" => builder.session_lifetime(Duration::from_secs(60)),
        "session_cache_size" => builder.session_cache_size(1),
        "tickets" => builder.tickets(1),
        "key_log" => builder.key_log(|_| ()),
        "key_log_file" => builder.key_log_file(&files.log),
        "key_log_from_env" => builder.key_log_from_env(),
        "pin" => {
            let key = rcgen::KeyPair::from_pem(ECDSA_KEY).expect("key");
            let key = rcgen::PublicKeyData::subject_public_key_info(&key);
            builder.pin(digest(&SHA256, &key).as_ref().try_into().expect("32 bytes"))
        }
        "verify" => builder.verify(|_| Ok(())),
        "ocsp_stapling" => builder.ocsp_stapling(true),
        "max_fragment_size" => builder.max_fragment_size(1024),
        "on_alert" => builder.on_alert(|_| ()),
        "accept_common_names" => builder.accept_common_names(true),
        "lenient_eof" => builder.lenient_eof(true),
        "danger_accept_invalid_hostnames" => builder.danger_accept_invalid_hostnames(true),
        "danger_accept_invalid_certs" => builder.danger_accept_invalid_certs(true),
        other => panic!("a line that no test knows: {other:?}"),
    })
}

const RSA_PKCS8: &str = include_str!("../common/keys/rsa.pkcs8.encrypted.pem");
const RSA_PKCS1: &str = include_str!("../common/keys/rsa.pkcs1.encrypted.pem");

fn encrypted(pair: &Pair, key: &str) -> io::Result<Identity> {
    Identity::from_pem_encrypted(pair.chain.as_bytes(), key.as_bytes(), "secret")
}

fn archive() -> Vec<u8> {
    #[cfg(feature = "openssl")]
    return crate::common::pkcs12(&certs().ecdsa, "secret");
    #[cfg(not(feature = "openssl"))]
    b"an archive".to_vec()
}

/// Makes the setting of a file that a line of the table names.
fn set_file(name: &str, options: SslOptions, backend: &Backend, context: &Context) -> SslOptions {
    match name {
        // The roles themselves, which `outcome` sets.
        "client" | "server" => options,
        "min_version" => options.min_version(Version::Tls1_2),
        "min_version of TLS 1.3" => options.min_version(Version::Tls1_3),
        "min_version below TLS 1.2" => options.min_version(Version::Tls1_0),
        "max_version" => options.max_version(Version::Tls1_2),
        "max_version below TLS 1.2" => options.min_version(Version::Tls1_0).max_version(Version::Tls1_1),
        "nonblocking" => options.nonblocking(true),
        "handshake" => options.handshake(Handshake::Lazy),
        "handshake_timeout" => options.handshake_timeout(Some(LONG)),
        "close_timeout" => options.close_timeout(LONG),
        "connect_timeout" => options.connect_timeout(Some(LONG)),
        "timeout_kind" => options.timeout_kind(io::ErrorKind::WouldBlock),
        "busy_poll" => options.busy_poll(Duration::from_micros(50)),
        "half_close" => options.half_close(false),
        "send_limit" => options.send_limit(1),
        "already_read" => options.already_read(Vec::new()),
        "backend" => options.backend(backend),
        "resume" => {
            let other = SslFile::options().client(NAME).handshake(Handshake::Lazy);
            options.resume(&other.open(tcp_pair().0, context).expect("a client"))
        }
        "session" => options.session(&kept_session()),
        other => panic!("a line that no test knows: {other:?}"),
    }
}

fn kept_session() -> Vec<u8> {
    if !engines().contains(&Engine::OpenSsl) {
        return Vec::new();
    }
    let (client, server) = tls_pair(Engine::OpenSsl);
    (&server).write_all(b"x").expect("write");
    (&client).read_exact(&mut [0]).expect("read");
    client.session().expect("it has come")
}

/// A handshake with a peer that has none of our code.
fn shake(name: &str, role: Role, options: SslOptions, context: &Context) -> io::Result<()> {
    let (ours, theirs) = tcp_pair();
    let peer = thread::spawn(move || match role {
        Role::Client => bare::server(theirs, Version::Tls1_2..=Version::Tls1_3).map(drop),
        Role::Server => bare::client(theirs, Version::Tls1_2..=Version::Tls1_3).map(drop),
    });
    let options = match role {
        Role::Client => options.client(NAME),
        Role::Server => options.server(),
    };
    // The peer has no such version, and the system may forbid it: tests/versions knows more.
    if name == "max_version below TLS 1.2" {
        return Ok(options.handshake(Handshake::Lazy).open(ours, context).map(drop)?);
    }
    let file: SslFile = options.open(ours, context)?;
    until_ready(&file, || file.handshake())?;
    peer.join().expect("peer")
}

const ROLES: [Role; 2] = [Role::Client, Role::Server];

/// Honoured, or refused by name.
#[track_caller]
fn check(engine: Engine, role: Role, name: &str, word: &str, outcome: io::Result<()>) {
    let what = format!("{engine:?}, {role:?}, {name}: the guide says {word:?}");
    match outcome {
        Ok(()) => assert!(can(word, role), "{what}, and it works"),
        Err(e) if e.kind() == io::ErrorKind::Unsupported => {
            assert!(!can(word, role), "{what}: {e}");
            let text = e.to_string();
            assert!(text.contains(&format!("{engine:?}")) || name.starts_with("identity from"), "{what}: {text}");
            let method = name.split('(').next().unwrap_or(name);
            let file = method.strip_suffix("_from_env").map_or_else(|| method.to_string(), |log| format!("{log}_file"));
            assert!(text.contains(&file) || name.contains(' '), "{what}: {text}");
        }
        Err(e) => panic!("{what}: {e}"),
    }
}

#[test]
fn each_setting_of_a_context_is_honoured_or_refused_as_the_table_says() {
    const CHILD: &str = "SSLFILE_TEST_MATRIX";
    const TEST: &str = "matrix::settings::each_setting_of_a_context_is_honoured_or_refused_as_the_table_says";
    if let Ok(folder) = std::env::var(CHILD) {
        return settings_of_a_context(Path::new(&folder));
    }
    // In a process of its own, since one of the settings is made by the environment.
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().to_str().expect("a path").to_string();
    let log = format!("{path}/env.keys");
    let output = test_in_child(TEST, &[(CHILD, &path), ("SSLKEYLOGFILE", &log)]).output().expect("child");
    assert!(
        output.status.success(),
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(String::from_utf8_lossy(&output.stdout).contains("1 passed"), "{output:?}");
}

fn settings_of_a_context(folder: &Path) {
    let roots = folder.join("roots.pem");
    std::fs::write(&roots, &certs().ca_pem).expect("write");
    for engine in engines() {
        let files = Files { roots: roots.clone(), log: folder.join(format!("{engine:?}.keys")) };
        for (names, cells) in table("setting of a context") {
            for name in names {
                for role in ROLES {
                    let builder = match role {
                        Role::Client => client_builder(engine),
                        Role::Server => server_builder(engine),
                    };
                    let context = set(&name, builder, &files).and_then(ContextBuilder::build);
                    let outcome = context.and_then(|context| shake(&name, role, SslFile::options(), &context));
                    check(engine, role, &name, word(&cells, engine), outcome);
                }
            }
        }
        // What is refused has left nothing behind.
        assert_eq!(files.log.exists(), crate::table::honours(engine, "key_log_file"), "{engine:?}");
    }
}

#[test]
fn each_setting_of_a_file_is_honoured_or_refused_as_the_table_says() {
    within(LONG, || {
        let backend = Backend::new().expect("backend");
        for engine in engines() {
            for (names, cells) in table("setting of a file") {
                for name in names {
                    for role in ROLES {
                        // For clients only.
                        if matches!(&*name, "resume" | "session") && role == Role::Server {
                            continue;
                        }
                        let context = match role {
                            Role::Client => client_context(engine),
                            Role::Server => server_context(engine),
                        };
                        let options = set_file(&name, SslFile::options(), &backend, &context);
                        let outcome = shake(&name, role, options, &context);
                        check(engine, role, &name, word(&cells, engine), outcome);
                    }
                }
            }
        }
    });
}

#[test]
fn each_setting_has_a_line() {
    for (heading, source, owner) in [
        ("setting of a context", include_str!("../../src/context.rs"), "ContextBuilder"),
        ("setting of a file", include_str!("../../src/file/options.rs"), "SslOptions"),
    ] {
        let listed: Vec<String> = table(heading).into_iter().flat_map(|(names, _)| names).collect();
        let (_, methods) = source.split_once(&format!("\nimpl {owner} {{\n")).expect("the methods");
        let (methods, _) = methods.split_once("\n}\n").expect("their end");
        let mut found = 0;
        for method in methods.split("\n    pub fn ").skip(1) {
            let (signature, _) = method.split_once('{').expect("a body");
            let name = signature.split(['(', '<']).next().unwrap_or_default();
            // The engine is the column.
            if !signature.contains("-> Self") || name == "engine" {
                continue;
            }
            let has_line = |line: &String| line.split(['(', ' ']).next() == Some(name);
            assert!(listed.iter().any(has_line), "{owner}::{name} is in no line of the table");
            found += 1;
        }
        assert!(found > 10, "{owner}: {found}");
    }
}
