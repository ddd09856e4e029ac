//! What the library can be told: suites, groups, names, pins, old versions, a key log.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use sslfile::{Certificate, Engine, Version};

use crate::common::{certs, engines, server_builder};
use crate::report::rude;
use crate::sslcat;
use crate::tool::{is_here, Ended, Files, Server, Tool};

/// `--check --json`, against a server of OpenSSL's or rustls'.
fn check(engine: Engine, server: &Server<()>, files: &Files, args: &[&str]) -> (Ended, Value) {
    let tool = sslcat(engine, &["localhost", &server.port, "--ca", &files.ca, "--check", "--json"]).args(args);
    let ended = tool.feed(b"").end();
    let document = serde_json::from_slice(&ended.stdout).unwrap_or(Value::Null);
    (ended, document)
}

fn telling() -> Vec<Engine> {
    engines().into_iter().filter(|engine| *engine != Engine::Native).collect()
}

fn plain(engine: Engine) -> Server<()> {
    rude(server_builder(engine).build().expect("context"))
}

#[test]
fn suites_and_groups_are_those_that_were_asked_for() {
    let files = Files::new();
    for engine in telling() {
        for (args, name, value) in [
            (
                &["--tls1.2", "--ciphers", "ECDHE-ECDSA-AES256-GCM-SHA384"][..],
                "cipher",
                "ECDHE-ECDSA-AES256-GCM-SHA384",
            ),
            (&["--tls1.2", "--ciphers", "ECDHE-ECDSA-CHACHA20-POLY1305"], "cipher", "ECDHE-ECDSA-CHACHA20-POLY1305"),
            // Those of another version say nothing about this one.
            (
                &["--ciphers", "TLS_CHACHA20_POLY1305_SHA256:ECDHE-ECDSA-AES128-GCM-SHA256"],
                "cipher",
                "TLS_CHACHA20_POLY1305_SHA256",
            ),
            (&["--ciphers", "ECDHE-ECDSA-AES128-GCM-SHA256"], "version", "TLSv1.3"),
            (&["--groups", "secp384r1"], "group", "secp384r1"),
            (&["--groups", "secp256r1:x25519"], "group", "secp256r1"),
        ] {
            let (ended, document) = check(engine, &plain(engine), &files, args);
            assert_eq!((ended.code, &document[name]), (0, &value.into()), "{engine:?} {args:?}: {ended:?}");
        }
    }
}

#[test]
fn what_a_library_does_not_have_is_wrong_usage() {
    let files = Files::new();
    let log = files.dir.path().join("keys").to_str().expect("UTF-8").to_string();
    for engine in engines() {
        let mut cases: Vec<&[&str]> = vec![
            &["--ciphers", "NO-SUCH-SUITE"],
            &["--ciphers", "TLS_NO_SUCH_SUITE"],
            &["--ciphers", "TLS_AES_128_GCM_SHA256:TLS_NO_SUCH_SUITE"],
            &["--ciphers", "ECDHE-ECDSA-AES256-GCM-SHA384,NO-SUCH-SUITE"],
            &["--ciphers", ""],
            &["--groups", "no-such-group"],
            &["--groups", ""],
            &["--pin", "sha256//short"],
            &["--sni", "a", "--no-sni"],
            &["--tls1.0", "--tls1.1"],
            &["--sni", ""],
        ];
        if engine != Engine::OpenSsl {
            cases.push(&["--ciphers", "HIGH:!aNULL"]);
        }
        if engine == Engine::Rustls {
            cases.extend([&["--tls1.0"][..], &["--tls1.1"]]);
        }
        if engine == Engine::Native {
            cases.extend([&["--ciphers", "ECDHE-ECDSA-AES256-GCM-SHA384"][..], &["--groups", "x25519"]]);
            cases.push(&["--sni", "other.example"]);
        }
        for args in cases {
            // Nobody is there: it has to be noticed before.
            let ended = sslcat(engine, &["127.0.0.1", "1"]).args(args).feed(b"").end();
            assert_eq!((ended.code, ended.stdout()), (1, ""), "{engine:?} {args:?}: {ended:?}");
            let is_told = ended.stderr().contains(args[0]) || ended.stderr().contains("TLSv1");
            assert!(is_told, "{engine:?} {args:?}: {ended:?}");
        }
        if engine == Engine::Native {
            let mut tool = sslcat(engine, &["127.0.0.1", "1"]);
            tool.command.env("SSLKEYLOGFILE", &log);
            let ended = tool.feed(b"").end();
            assert_eq!(ended.code, 1, "{ended:?}");
            assert!(ended.stderr().contains("SSLKEYLOGFILE"), "{ended:?}");
        }
    }
    let ended = sslcat(engines()[0], &["-l", "0", "--pin", &"00".repeat(32)]).feed(b"").end();
    assert_eq!(ended.code, 1, "{ended:?}");
}

#[test]
fn another_name_is_asked_for_than_is_expected() {
    // OpenSSL or rustls, which tell what they were asked for.
    let Some(theirs) = telling().into_iter().next() else { return };
    let files = Files::new();
    for engine in engines() {
        let mut cases: Vec<(&[&str], Option<&str>, i32)> = vec![
            (&["--no-sni"], None, 0),
            (&["--no-sni", "--name", "other.example"], None, 4),
            (&["--sni", "other.example", "-k"], Some("other.example"), 0),
        ];
        if engine != Engine::Native {
            cases.extend([
                (&["--sni", "other.example"][..], Some("other.example"), 0),
                (&["--sni", "other.example", "--name", "127.0.0.1"], Some("other.example"), 0),
                (&["--sni", "localhost", "--name", "other.example"], Some("localhost"), 4),
                (&["--sni", "localhost", "--name", "127.0.0.2"], Some("localhost"), 4),
            ]);
        }
        for (args, asked, code) in cases {
            let context = server_builder(theirs).build().expect("context");
            let server = Server::start(move |tcp| {
                let file = sslfile::SslFile::server(tcp, &context).ok()?;
                let _ = std::io::copy(&mut &file, &mut std::io::sink());
                file.server_name()
            });
            let tool = sslcat(engine, &["localhost", &server.port, "--ca", &files.ca, "--check", "--json"]).args(args);
            let ended = tool.feed(b"").end();
            assert_eq!(ended.code, code, "{engine:?} {args:?}: {ended:?}");
            let document: Value = serde_json::from_slice(&ended.stdout).expect("JSON");
            assert_eq!(document["sni"], Value::from(asked), "{engine:?} {args:?}: {ended:?}");
            let heard = server.join();
            assert!(code != 0 || heard.as_deref() == asked, "{engine:?} {args:?}: {heard:?}");
            assert!(
                !args.contains(&"--sni") || code == 0 || ended.stderr().contains("it is for localhost"),
                "{ended:?}"
            );
        }
    }
}

#[test]
fn pins_are_those_that_openssl_makes_and_refuse_others() {
    let files = Files::new();
    let leaf = Certificate::from_pem(certs().ecdsa.chain.as_bytes()).expect("certificate").info().expect("info");
    let der = files.dir.path().join("key.der");
    fs::write(&der, &leaf.public_key).expect("write");
    for engine in telling() {
        let (ended, document) = check(engine, &plain(engine), &files, &[]);
        let pin = document["certificates"][0]["pin"].as_str().expect("a pin").to_string();
        let of_ca = document["certificates"][1]["pin"].as_str().expect("a pin").to_string();
        assert_eq!(ended.code, 0, "{ended:?}");
        let mut hex = "00".repeat(32);
        if is_here("openssl", &["version"]) {
            let told = Command::new("openssl").args(["dgst", "-sha256", "-r"]).arg(&der).output().expect("openssl");
            hex = String::from_utf8(told.stdout).expect("text")[..64].to_string();
            let (ended, _) = check(engine, &plain(engine), &files, &["--pin", &hex]);
            assert_eq!(ended.code, 0, "{engine:?}: {ended:?}");
        }
        let none = "ff".repeat(32);
        for (args, code) in [
            (&["--pin", &pin][..], 0),
            (&["--pin", &none, "--pin", &pin], 0),
            (&["--pin", &of_ca], 0),
            (&["--pin", &none], 4),
            // A pin does not replace the other checks; with -k it is the only one, of the peer's own key.
            (&["--pin", &pin, "--name", "other.example"], 4),
            (&["--pin", &pin, "-k", "--name", "other.example"], 0),
            (&["--pin", &of_ca, "-k"], 4),
            (&["--pin", &none, "-k"], 4),
        ] {
            let (ended, _) = check(engine, &plain(engine), &files, args);
            assert_eq!(ended.code, code, "{engine:?} {args:?} {hex}: {ended:?}");
        }
    }
}

#[test]
fn old_versions_are_spoken_when_asked_for() {
    let Some(engine) = engines().into_iter().find(|engine| *engine == Engine::OpenSsl) else { return };
    let files = Files::new();
    for (option, version) in
        [("--tls1.0", Version::Tls1_0), ("--tls1.1", Version::Tls1_1), ("--tls1.2", Version::Tls1_2)]
    {
        let old =
            || rude(server_builder(engine).min_version(Version::Tls1_0).max_version(version).build().expect("context"));
        let (ended, document) = check(engine, &old(), &files, &[option]);
        assert_eq!((ended.code, &document["version"]), (0, &version.to_string().into()), "{ended:?}");
        let (ended, _) = check(engine, &old(), &files, &[]);
        assert_eq!(ended.code == 0, version == Version::Tls1_2, "{ended:?}");
    }
}

#[test]
fn the_key_log_is_written_when_the_environment_asks_for_it() {
    let files = Files::new();
    for engine in telling() {
        let log = files.dir.path().join(format!("{engine:?}"));
        let server = plain(engine);
        let mut tool = sslcat(engine, &["localhost", &server.port, "--ca", &files.ca, "--check"]);
        tool.command.env("SSLKEYLOGFILE", &log);
        let ended = tool.feed(b"").end();
        assert_eq!(ended.code, 0, "{engine:?}: {ended:?}");
        let text = fs::read_to_string(&log).expect("a key log");
        assert!(text.contains("CLIENT_TRAFFIC_SECRET_0 "), "{engine:?}: {text}");
        // A file that can't be written is said, and no connection goes without.
        let mut tool = sslcat(engine, &["127.0.0.1", "1"]);
        tool.command.env("SSLKEYLOGFILE", files.dir.path().join("no folder/keys"));
        let ended = tool.feed(b"").end();
        assert_eq!(ended.code, 1, "{engine:?}: {ended:?}");
        assert!(ended.stderr().contains("no folder"), "{engine:?}: {ended:?}");
    }
}

#[test]
fn who_shows_no_certificate_is_nobody_that_was_expected() {
    if !engines().contains(&Engine::OpenSsl) || !is_here("openssl", &["version"]) {
        return;
    }
    let files = Files::new();
    let none = "ff".repeat(32);
    for (args, code) in [
        (&["--ca", &files.ca][..], 3),
        (&["-k", "--pin", &none], 3),
        (&["--ca", &files.ca, "--ocsp"], 3),
        // As it was asked for.
        (&["-k"], 0),
    ] {
        let server = Tool::new(Path::new("openssl")).args(&["s_server", "-accept", "127.0.0.1:0", "-naccept", "1"]);
        let server = server.args(&["-nocert", "-cipher", "ADH:@SECLEVEL=0", "-tls1_2"]).open();
        let told = server.stdout.line("ACCEPT 127.0.0.1:");
        let port = told.rsplit(':').next().expect("port");
        let tool = sslcat(Engine::OpenSsl, &["localhost", port, "--check", "--ciphers", "ALL:@SECLEVEL=0"]);
        let ended = tool.args(args).feed(b"").end();
        assert_eq!(ended.code, code, "{args:?}: {ended:?}");
    }
}
