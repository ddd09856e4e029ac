//! How it ends, as scripts see it.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use sslfile::{ClientAuth, Context, Engine, SslFile, Version};

use crate::common::{self, certs, engines, server_builder, server_context, Pair};
use crate::tool::{Files, Server};
use crate::{sslcat, tool_alone};

#[test]
fn help_lists_the_exit_codes() {
    let ended = tool_alone().args(&["--help"]).feed(b"").end();
    assert_eq!(ended.code, 0, "{ended:?}");
    for code in 0..=6 {
        assert!(ended.stdout().contains(&format!("\n  {code}  ")), "{code} in {ended:?}");
    }
}

#[test]
fn exits_1_for_wrong_usage() {
    let files = Files::new();
    let empty = files.write("empty.pem", "");
    let cases: &[&[&str]] = &[
        &[],
        &["localhost"],
        &["localhost:none"],
        &["localhost", "no-such-service"],
        &["localhost", "1", "--check", "--expires-in", "14"],
        &["localhost", "1", "--expires-in", "14d"],
        &["-l", "0", "--check"],
        &["localhost", "70000"],
        &["::1:443"],
        &[":443"],
        &["localhost", "1", "--tls1.2", "--tls1.3"],
        &["localhost", "1", "--timeout", "0"],
        &["localhost", "1", "--timeout", "soon"],
        &["localhost", "1", "--key", &files.key],
        &["localhost", "1", "--ca", "/no/such/file"],
        &["localhost", "1", "--ca", &empty],
        // A key is no certificate, and the other way round.
        &["localhost", "1", "--ca", &files.key],
        &["localhost", "1", "--cert", &files.key, "--key", &files.chain],
        &["localhost", "1", "--starttls", "gopher"],
        &["-l", "0", "--starttls", "smtp"],
        &["-l", "0", "--insecure"],
    ];
    for args in cases {
        let ended = tool_alone().args(args).feed(b"").end();
        assert_eq!(ended.code, 1, "{args:?}: {ended:?}");
        assert!(!ended.stderr.is_empty(), "{args:?}");
    }
}

#[test]
fn exits_2_without_a_connection() {
    // Nobody listens on a port that was free a moment ago.
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string();
    // A service's name stands for its port.
    let ended = tool_alone().args(&["127.0.0.1:nntps"]).feed(b"").end();
    assert_eq!(ended.code, 2, "{ended:?}");
    assert!(ended.stderr().contains("port 563"), "{ended:?}");
    for args in [["127.0.0.1", &port], ["no-such-host.invalid", "443"]] {
        let ended = tool_alone().args(&args).feed(b"").end();
        assert_eq!(ended.code, 2, "{args:?}: {ended:?}");
        assert!(ended.stderr().contains(args[0]) && ended.stderr().contains(args[1]), "{ended:?}");
    }
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let ended = tool_alone().args(&["-l", &taken.local_addr().unwrap().to_string()]).feed(b"").end();
    assert_eq!(ended.code, 2, "{ended:?}");
}

#[test]
fn exits_3_when_the_peer_speaks_no_tls() {
    for engine in engines() {
        let server = Server::start(|mut tcp: TcpStream| {
            let _ = tcp.read(&mut [0; 1024]);
            tcp.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").unwrap();
            let _ = tcp.read_to_end(&mut Vec::new());
        });
        let ended = sslcat(engine, &["127.0.0.1", &server.port, "--insecure"]).feed(b"").end();
        assert_eq!(ended.code, 3, "{engine:?}: {ended:?}");
        assert!(ended.stderr().contains("TLS"), "{engine:?}: {ended:?}");
        server.join();
    }
}

#[test]
fn exits_3_when_the_handshake_is_cut_silent_or_finds_no_version() {
    for engine in engines() {
        let server = Server::start(drop);
        let ended = sslcat(engine, &["127.0.0.1", &server.port]).feed(b"").end();
        assert_eq!(ended.code, 3, "{engine:?}: {ended:?}");
        server.join();

        let server = Server::start(|mut tcp: TcpStream| {
            let _ = tcp.read_to_end(&mut Vec::new());
        });
        let start = Instant::now();
        let ended = sslcat(engine, &["127.0.0.1", &server.port, "--timeout", "0.5"]).feed(b"").end();
        assert_eq!(ended.code, 3, "{engine:?}: {ended:?}");
        assert!(start.elapsed() >= Duration::from_millis(500), "{engine:?}: too early");
        server.join();

        let old = server_builder(engine).max_version(Version::Tls1_2).build().unwrap();
        let server = Server::start(move |tcp| SslFile::server(tcp, &old).map(drop).unwrap_err());
        let ended = sslcat(engine, &["127.0.0.1", &server.port, "--insecure", "--tls1.3"]).feed(b"").end();
        assert_eq!(ended.code, 3, "{engine:?}: {ended:?}");
        server.join();
    }
}

#[test]
fn exits_4_for_a_certificate_it_does_not_trust() {
    let files = Files::new();
    let pair = |pair: &Pair, engine| Context::builder().engine(engine).identity(pair.identity()).build().unwrap();
    for engine in engines() {
        let untrusted = pair(&certs().self_signed, engine);
        let other_name = pair(&certs().other_name, engine);
        let right = pair(&certs().ecdsa, engine);
        let cases: [(&Context, &[&str], i32); 8] = [
            (&right, &["--ca", &files.ca], 0),
            (&right, &["--ca", &files.ca, "--name", "wrong.example"], 4),
            (&right, &[], 4),
            (&untrusted, &["--ca", &files.ca], 4),
            (&untrusted, &["--insecure"], 0),
            (&other_name, &["--ca", &files.ca], 4),
            (&other_name, &["--ca", &files.ca, "--name", "wrong.example"], 0),
            (&other_name, &["--insecure"], 0),
        ];
        for (context, args, code) in cases {
            let context = context.clone();
            let server = Server::start(move |tcp| {
                let Ok(mut file) = SslFile::server(tcp, &context) else { return };
                // In TLS 1.3 the server may be done before the client has judged.
                if io::copy(&mut &file, &mut io::sink()).is_ok() {
                    let _ = file.write_all(b"bye").and_then(|()| file.close());
                }
            });
            let ended = sslcat(engine, &["localhost", &server.port]).args(args).feed(b"hello").end();
            assert_eq!(ended.code, code, "{engine:?} {args:?}: {ended:?}");
            assert_eq!(ended.stdout(), if code == 0 { "bye" } else { "" }, "{engine:?} {args:?}: {ended:?}");
            server.join();
        }
    }
}

#[test]
fn exits_4_when_the_server_refuses_our_certificate() {
    // On OpenSSL native-tls can't ask for one.
    if !engines().contains(&Engine::OpenSsl) {
        return;
    }
    let files = Files::new();
    for engine in engines() {
        for version in [Version::Tls1_2, Version::Tls1_3] {
            let demanding = server_builder(Engine::OpenSsl).client_auth(ClientAuth::Require).add_root(common::ca());
            let demanding = demanding.system_roots(false).max_version(version).build().unwrap();
            // Up to TLS 1.2 there is no alert that says "certificate required".
            let without = if version == Version::Tls1_3 { 4 } else { 3 };
            for (own, code) in [(Some(&certs().client), 0), (Some(&certs().self_signed), 4), (None, without)] {
                let demanding = demanding.clone();
                let server = Server::start(move |tcp| {
                    let file = SslFile::server(tcp, &demanding)?;
                    io::copy(&mut &file, &mut io::sink())?;
                    file.close()
                });
                let mut tool = sslcat(engine, &["localhost", &server.port, "--ca", &files.ca]);
                if let Some(own) = own {
                    let (chain, key) = (files.write("own.pem", &own.chain), files.write("own.key", &own.key));
                    tool = tool.args(&["--cert", &chain, "--key", &key]);
                }
                let ended = tool.feed(b"hello").end();
                assert_eq!(ended.code, code, "{engine:?} {version}: {ended:?}");
                assert_eq!(server.join().is_ok(), code == 0, "{engine:?} {version}");
            }
        }
    }
}

#[test]
fn exits_5_for_a_cut_and_delivers_what_came_before() {
    let files = Files::new();
    for engine in engines() {
        let context = server_context(engine);
        let server = Server::start(move |tcp| {
            let mut file = SslFile::server(tcp, &context).unwrap();
            file.write_all(b"first half").unwrap();
            file.get_ref().shutdown(Shutdown::Write).unwrap();
            // The client's end, whichever.
            let _ = file.read_to_end(&mut Vec::new());
        });
        // With stdin open: a client that waits for it would hang.
        let ended = sslcat(engine, &["localhost", &server.port, "--ca", &files.ca]).open().end();
        assert_eq!((ended.code, ended.stdout()), (5, "first half"), "{engine:?}: {ended:?}");
        assert!(!ended.stderr.is_empty());
        server.join();
    }
}

#[test]
fn times_out_when_nothing_moves_and_only_then() {
    let files = Files::new();
    for engine in engines() {
        // Reads to the end, and says nothing before.
        let serve = |context: Context| {
            Server::start(move |tcp| {
                let mut file = SslFile::server(tcp, &context).unwrap();
                let mut got = Vec::new();
                let _ = file.read_to_end(&mut got);
                let _ = file.close();
                got
            })
        };
        let server = serve(server_context(engine));
        let args = ["localhost", &server.port, "--ca", &files.ca, "--timeout", "1"];
        let start = Instant::now();
        let ended = sslcat(engine, &args).open().end();
        assert_eq!(ended.code, 5, "{engine:?}: {ended:?}");
        assert!(start.elapsed() >= Duration::from_secs(1), "{engine:?}: too early");
        server.join();

        // Nothing comes for longer than that, but something goes.
        let server = serve(server_context(engine));
        let args = ["localhost", &server.port, "--ca", &files.ca, "--timeout", "1"];
        let mut tool = sslcat(engine, &args).open();
        for byte in b"not so fast" {
            tool.say(&[*byte]);
            thread::sleep(Duration::from_millis(150));
        }
        let ended = tool.end_stdin().end();
        assert_eq!(ended.code, 0, "{engine:?}: {ended:?}");
        assert_eq!(server.join(), b"not so fast", "{engine:?}");
    }
}

#[test]
fn exits_6_without_a_word_when_nobody_reads_its_output() {
    let files = Files::new();
    for engine in engines() {
        let context = server_context(engine);
        let server = Server::start(move |tcp| {
            let mut file = SslFile::server(tcp, &context).unwrap();
            while file.write_all(&[b'x'; 4096]).is_ok() {}
        });
        let mut tool = sslcat(engine, &["localhost", &server.port, "--ca", &files.ca]);
        tool.discard_stdout = true;
        let ended = tool.open().end();
        assert_eq!((ended.code, ended.stderr()), (6, ""), "{engine:?}");
        server.join();
    }
}
