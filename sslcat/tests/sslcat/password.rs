//! Keys that take a password: where it comes from, and where not.

use std::fs;
use std::path::Path;
use std::process::Command;

use sslfile::{Engine, SslFile};

use crate::common::{certs, engines, server_builder};
use crate::tool::{is_here, on_a_terminal, Files, Server, Tool};
use crate::{sslcat, SSLCAT};

const PASSWORD: &str = "correct horse, bätterie";

/// The client's certificate with its key in three forms, as --cert and --key have it.
struct Keys {
    files: Files,
    forms: Vec<(&'static str, Vec<String>)>,
}

impl Keys {
    fn new() -> Keys {
        let files = Files::new();
        let chain = files.write("own.pem", &certs().client.chain);
        let key = files.write("own.key", &certs().client.key);
        let path = |name: &str| files.dir.path().join(name).to_str().expect("UTF-8").to_string();
        let (pkcs8, old, archive) = (path("pkcs8.pem"), path("old.pem"), path("own.p12"));
        let openssl = |args: &[&str]| {
            let made = Command::new("openssl").args(args).env("PASSWORD", PASSWORD).output().expect("openssl");
            assert!(made.status.success(), "{made:?}");
        };
        let out = ["-passout", "env:PASSWORD"];
        openssl(&[&["pkcs8", "-topk8", "-v2", "aes-256-cbc", "-in", &key, "-out", &pkcs8][..], &out].concat());
        openssl(&[&["ec", "-aes256", "-in", &key, "-out", &old][..], &out].concat());
        openssl(&[&["pkcs12", "-export", "-in", &chain, "-inkey", &key, "-out", &archive][..], &out].concat());
        let arguments = |args: &[&str]| args.iter().map(ToString::to_string).collect();
        let forms = vec![
            ("PKCS#8", arguments(&["--cert", &chain, "--key", &pkcs8])),
            ("OpenSSL's own", arguments(&["--cert", &chain, "--key", &old])),
            ("PKCS#12", arguments(&["--cert", &archive])),
        ];
        Keys { files, forms }
    }
}

/// Reads to the end, and says whether the client had a certificate.
fn demanding() -> Server<bool> {
    let context =
        server_builder(Engine::OpenSsl).client_auth(sslfile::ClientAuth::Require).add_root(crate::common::ca());
    let context = context.system_roots(false).build().expect("context");
    Server::start(move |tcp| {
        let file = SslFile::server(tcp, &context).ok();
        file.is_some_and(|file| std::io::copy(&mut &file, &mut std::io::sink()).is_ok())
    })
}

fn has_openssl() -> bool {
    engines().contains(&Engine::OpenSsl) && is_here("openssl", &["version"])
}

/// Without the terminal that the tests may have been started at.
fn away_from_the_terminal(engine: Engine, args: &[&str]) -> Tool {
    let inner = sslcat(engine, args);
    let mut tool = Tool::new(Path::new("setsid"));
    tool.command.arg("--wait").arg(SSLCAT).args(inner.command.get_args());
    tool
}

#[test]
fn a_password_comes_from_a_file_or_the_environment() {
    if !has_openssl() {
        return;
    }
    let keys = Keys::new();
    let right = keys.files.write("right", &format!("{PASSWORD}\r\nanother line\n"));
    let wrong = keys.files.write("wrong", "wrong");
    for engine in engines() {
        for (form, own) in &keys.forms {
            let own: Vec<&str> = own.iter().map(String::as_str).collect();
            for (source, code) in [
                (["--password-file", &right], 0),
                (["--password-env", "SSLCAT_TEST_PASSWORD"], 0),
                (["--password-file", &wrong], 1),
                (["--password-file", "/no/such/file"], 1),
                (["--password-file", "/dev/zero"], 1),
                (["--password-env", "SSLCAT_TEST_NOTHING"], 1),
            ] {
                let server = demanding();
                let tool = away_from_the_terminal(engine, &["localhost", &server.port, "--ca", &keys.files.ca]);
                let mut tool = tool.args(&own).args(&source);
                tool.command.env("SSLCAT_TEST_PASSWORD", PASSWORD);
                let ended = tool.feed(b"").end();
                assert_eq!(ended.code, code, "{engine:?} {form} {source:?}: {ended:?}");
                assert!(!ended.stderr().contains(PASSWORD), "{ended:?}");
                // Once in 256 times a wrong password fits what is in no way checked; what comes out is then no key.
                let told = ["assword", "the key's encryption cannot be read"];
                let is_told = told.iter().any(|told| ended.stderr().contains(told));
                assert!(code == 0 || is_told, "{engine:?} {form} {source:?}: {ended:?}");
                if code == 0 {
                    assert!(server.join(), "{engine:?} {form} {source:?}");
                }
            }
            // Nobody to ask: said before anything is connected to.
            let tool = away_from_the_terminal(engine, &["127.0.0.1", "1"]).args(&own);
            let ended = tool.feed(PASSWORD.as_bytes()).end();
            assert_eq!(ended.code, 1, "{engine:?} {form}: {ended:?}");
            assert!(ended.stderr().contains("--password-file"), "{engine:?} {form}: {ended:?}");
        }
    }
    // Never on the command line.
    let ended = sslcat(engines()[0], &["localhost", "1", "--password", PASSWORD]).feed(b"").end();
    assert_eq!(ended.code, 1, "{ended:?}");
}

#[test]
fn an_archive_without_a_password_needs_none_and_no_key_beside_it() {
    if !has_openssl() {
        return;
    }
    let files = Files::new();
    let (chain, key) = (files.write("own.pem", &certs().client.chain), files.write("own.key", &certs().client.key));
    let archive = files.dir.path().join("own.p12").to_str().expect("UTF-8").to_string();
    let made = Command::new("openssl")
        .args(["pkcs12", "-export", "-in", &chain, "-inkey", &key, "-out", &archive, "-passout", "pass:"])
        .output()
        .expect("openssl");
    assert!(made.status.success(), "{made:?}");
    let broken = files.dir.path().join("broken.p12").to_str().expect("UTF-8").to_string();
    fs::write(&broken, &fs::read(&archive).expect("archive")[..100]).expect("write");
    for engine in engines() {
        let server = demanding();
        let args = ["localhost", &server.port, "--ca", &files.ca, "--cert", &archive];
        let ended = away_from_the_terminal(engine, &args).feed(b"").end();
        assert_eq!(ended.code, 0, "{engine:?}: {ended:?}");
        assert!(server.join(), "{engine:?}");
        for args in [&["--cert", &archive, "--key", &key][..], &["--cert", &broken]] {
            let ended = away_from_the_terminal(engine, &["127.0.0.1", "1"]).args(args).feed(b"").end();
            assert_eq!(ended.code, 1, "{engine:?} {args:?}: {ended:?}");
            assert!(ended.stderr().contains("PKCS#12"), "{engine:?} {args:?}: {ended:?}");
        }
    }
}

#[cfg(unix)]
#[test]
fn the_terminal_is_asked_and_shows_nothing() {
    if !has_openssl() || !is_here("script", &["--version"]) {
        return;
    }
    let keys = Keys::new();
    let (_, own) = &keys.forms[0];
    let server = demanding();
    let line = format!(
        "{SSLCAT} localhost {} --ca {} {} </dev/null; echo \"ended: $?\"; stty -a",
        server.port,
        keys.files.ca,
        own.join(" ")
    );
    let mut tool = on_a_terminal(&line).open();
    tool.stdout.wait_for("Password of ");
    tool.say(b"wrong\n");
    // What is typed before it asks again is thrown away.
    tool.stdout.wait_for("with this password\r\nPassword of ");
    // ^U takes all back, and the key for it the last character.
    tool.say(format!("not this\x15{PASSWORD}ö\x7f\n").as_bytes());
    let shown = tool.stdout.wait_for("ended: 0");
    let ended = tool.end();
    assert!(server.join(), "{ended:?}");
    for typed in [PASSWORD, "wrong", "not this"] {
        assert!(!shown.contains(typed), "{typed:?} in {shown:?}");
    }
    assert!(ended.stdout().contains("isig icanon iexten echo "), "{ended:?}");

    // ^C ends the program, and leaves the terminal as it was.
    let line = format!("{SSLCAT} 127.0.0.1 1 {} </dev/null; echo \"ended: $?\"; stty -a", own.join(" "));
    let mut tool = on_a_terminal(&line).open();
    tool.stdout.wait_for("Password of ");
    tool.say(b"half\x03");
    tool.stdout.wait_for("ended: 1");
    let ended = tool.end();
    assert!(ended.stdout().contains("isig icanon iexten echo "), "{ended:?}");
    assert!(!ended.stdout().contains("half"), "{ended:?}");
}
