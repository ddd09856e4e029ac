//! As a server, and against OpenSSL's own tools.

use std::fs;
use std::path::Path;

use sslfile::Engine;

use crate::common::{certs, engines, pattern};
use crate::sslcat;
use crate::tool::{is_here, Files, Tool};

#[test]
fn listens_with_a_certificate_made_on_the_spot() {
    let files = Files::new();
    for engine in engines() {
        let mut server = sslcat(engine, &["-l", "0", "-v", "--name", "box.example"]).open();
        let port = server.port();
        let made = server.stderr.wait_for("-----END CERTIFICATE-----\n");
        assert!(made.contains("made a certificate"), "{made}");
        let ca = files.write("made.pem", &made[made.find("-----BEGIN").unwrap()..]);

        let args = ["127.0.0.1", &port, "--ca", &ca, "--name", "box.example"];
        let mut client = sslcat(engine, &args).open();
        client.say(b"from the client");
        server.stdout.wait_for("from the client");
        server.say(b"from the server");
        client.stdout.wait_for("from the server");
        let client = client.end_stdin();
        let (client, server) = (client.end(), server.end());
        assert_eq!((client.code, client.stdout()), (0, "from the server"), "{engine:?}: {client:?}");
        assert_eq!((server.code, server.stdout()), (0, "from the client"), "{engine:?}: {server:?}");
    }
}

#[test]
fn moves_files_both_ways_between_two_of_its_kind() {
    const LEN: usize = 3 << 20;
    let files = Files::new();
    let path = |name: &str| files.dir.path().join(name);
    fs::write(path("up"), pattern(4, LEN)).unwrap();
    fs::write(path("down"), pattern(5, LEN)).unwrap();
    for engine in engines() {
        let mut server = sslcat(engine, &["-l", "127.0.0.1:0", "--cert", &files.chain, "--key", &files.key]);
        server.command.stdin(fs::File::open(path("down")).unwrap());
        server.command.stdout(fs::File::create(path("up received")).unwrap());
        let server = server.open();

        let mut client = sslcat(engine, &["localhost", &server.port(), "--ca", &files.ca]);
        client.command.stdin(fs::File::open(path("up")).unwrap());
        client.command.stdout(fs::File::create(path("down received")).unwrap());
        let (client, server) = (client.open().end(), server.end());
        assert_eq!((client.code, client.stderr()), (0, ""), "{engine:?}: {client:?}");
        assert_eq!(server.code, 0, "{engine:?}: {server:?}");
        assert!(fs::read(path("up received")).unwrap() == pattern(4, LEN), "{engine:?}: up");
        assert!(fs::read(path("down received")).unwrap() == pattern(5, LEN), "{engine:?}: down");
    }
}

#[test]
fn demands_a_client_certificate_where_the_engine_can() {
    let files = Files::new();
    let (chain, key) = (files.write("own.pem", &certs().client.chain), files.write("own.key", &certs().client.key));
    let listen = ["-l", "127.0.0.1:0", "--cert", &files.chain, "--key", &files.key, "--ca", &files.ca];
    for engine in engines() {
        if engine == Engine::Native {
            let ended = sslcat(engine, &listen).feed(b"").end();
            assert_eq!(ended.code, 1, "{ended:?}");
            assert!(ended.stderr().contains("Native"), "the engine is to be named: {ended:?}");
            continue;
        }
        for with in [true, false] {
            let server = sslcat(engine, &listen).feed(b"");
            let mut client = sslcat(engine, &["localhost", &server.port(), "--ca", &files.ca]);
            if with {
                client = client.args(&["--cert", &chain, "--key", &key]);
            }
            let client = client.feed(b"hello").end();
            let server = server.end();
            let (code, said) = if with { (0, "hello") } else { (4, "") };
            assert_eq!((client.code, server.stdout()), (code, said), "{engine:?}: {client:?} {server:?}");
            assert_eq!(server.code == 0, with, "{engine:?}: {server:?}");
        }
    }
}

#[test]
fn serves_openssl_s_client() {
    if !is_here("openssl", &["version"]) {
        return;
    }
    let files = Files::new();
    for engine in engines() {
        for version in ["-tls1_2", "-tls1_3"] {
            if engine == Engine::Native && version == "-tls1_3" {
                continue;
            }
            let listen = ["-l", "127.0.0.1:0", "--cert", &files.chain, "--key", &files.key];
            let mut server = sslcat(engine, &listen).open();
            let address = format!("127.0.0.1:{}", server.port());
            let args =
                ["s_client", "-connect", &address, "-CAfile", &files.ca, "-verify_return_error", "-quiet", version];
            let mut client = Tool::new(Path::new("openssl")).args(&args).open();
            client.say(b"from s_client\n");
            server.stdout.wait_for("from s_client\n");
            server.say(b"from sslcat\n");
            client.stdout.wait_for("from sslcat\n");
            let server = server.end_stdin();
            let (client, server) = (client.end(), server.end());
            assert_eq!(client.code, 0, "{engine:?} {version}: {client:?}");
            assert_eq!((server.code, server.stdout()), (0, "from s_client\n"), "{engine:?} {version}: {server:?}");
        }
    }
}

#[test]
fn talks_to_openssl_s_server() {
    if !is_here("openssl", &["version"]) {
        return;
    }
    let files = Files::new();
    for engine in engines() {
        for version in ["--tls1.2", "--tls1.3"] {
            let mut server = Tool::new(Path::new("openssl"));
            let args = ["s_server", "-accept", "127.0.0.1:0", "-cert", &files.chain, "-key", &files.key];
            server = server.args(&args).args(&["-naccept", "1", "-rev"]).feed(b"");
            let told = server.stdout.line("ACCEPT 127.0.0.1:");
            let port = told.rsplit(':').next().unwrap();

            let mut client = sslcat(engine, &["localhost", port, "--ca", &files.ca, version, "-v"]).open();
            client.say(b"olleh\ndlrow\n");
            client.stdout.wait_for("hello\nworld\n");
            let client = client.end_stdin().end();
            assert_eq!((client.code, client.stdout()), (0, "hello\nworld\n"), "{engine:?} {version}: {client:?}");
            assert_eq!(server.end().code, 0, "{engine:?} {version}");
        }
    }
}
