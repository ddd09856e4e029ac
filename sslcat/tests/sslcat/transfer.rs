//! What goes through it, and how it is shown.

use std::fs;
use std::io::{Read, Write};
use std::net::Shutdown;

use sslfile::{Engine, SslFile, Version};

use crate::common::{engines, pattern, server_builder, server_context};
use crate::tool::{is_here, on_a_terminal, Files, Server};
use crate::{sslcat, tool_alone, SSLCAT};

#[test]
fn is_full_duplex() {
    const LEN: usize = 8 << 20;
    let files = Files::new();
    for engine in engines() {
        let context = server_context(engine);
        let server = Server::start(move |tcp| {
            let file = SslFile::server(tcp, &context).unwrap();
            // Writes it all before it reads the first byte: a client that does not read while it writes gets stuck.
            (&file).write_all(&pattern(2, LEN)).unwrap();
            file.shutdown(Shutdown::Write).unwrap();
            let mut got = Vec::new();
            (&file).read_to_end(&mut got).unwrap();
            file.close().unwrap();
            got
        });
        let args = ["localhost", &server.port, "--ca", &files.ca];
        let ended = sslcat(engine, &args).feed(&pattern(1, LEN)).end();
        assert_eq!(ended.code, 0, "{engine:?}: {}", ended.stderr());
        assert!(ended.stdout == pattern(2, LEN), "{engine:?}: wrong bytes on stdout");
        assert!(server.join() == pattern(1, LEN), "{engine:?}: wrong bytes at the server");
    }
}

#[test]
fn sends_a_whole_file_to_a_peer_that_has_nothing_to_say() {
    const LEN: usize = 4 << 20;
    let files = Files::new();
    let input = files.dir.path().join("input");
    fs::write(&input, pattern(3, LEN)).unwrap();
    for engine in engines() {
        let context = server_context(engine);
        let server = Server::start(move |tcp| {
            let mut file = SslFile::server(tcp, &context).unwrap();
            // The client reads this end before it has sent much.
            file.shutdown(Shutdown::Write).unwrap();
            let mut got = Vec::new();
            file.read_to_end(&mut got).unwrap();
            got
        });
        let mut tool = sslcat(engine, &["localhost", &server.port, "--ca", &files.ca]);
        tool.command.stdin(fs::File::open(&input).unwrap());
        let ended = tool.open().end();
        assert_eq!(ended.code, 0, "{engine:?}: {ended:?}");
        assert!(server.join() == pattern(3, LEN), "{engine:?}: wrong bytes at the server");
    }
}

/// Without a terminal there is none: `server::moves_files_both_ways_between_two_of_its_kind`.
#[test]
fn shows_the_progress_of_a_file_on_a_terminal() {
    const LEN: usize = 3 << 20;
    if !is_here("script", &["--version"]) {
        return;
    }
    let files = Files::new();
    let (input, output) = (files.dir.path().join("input"), files.dir.path().join("output"));
    fs::write(&input, pattern(7, LEN)).unwrap();
    let serve = || {
        let context = server_context(engines()[0]);
        Server::start(move |tcp| {
            let file = SslFile::server(tcp, &context).unwrap();
            let mut got = Vec::new();
            (&file).read_to_end(&mut got).unwrap();
            (&file).write_all(&got).unwrap();
            file.close().unwrap();
        })
    };
    let (sslcat, ca, input, output) = (SSLCAT, &files.ca, input.display(), output.display());

    let server = serve();
    let line = format!("{sslcat} localhost {} --ca {ca} < {input} > {output}", server.port);
    let ended = on_a_terminal(&line).open().end();
    assert_eq!(ended.code, 0, "{ended:?}");
    assert!(ended.stdout().contains("3.00 MiB/3.00 MiB"), "sent: {ended:?}");
    server.join();

    let server = serve();
    let line = format!("cat {input} | {sslcat} localhost {} --ca {ca} > {output}", server.port);
    let ended = on_a_terminal(&line).open().end();
    assert_eq!(ended.code, 0, "{ended:?}");
    assert!(ended.stdout().contains("3.00 MiB"), "received: {ended:?}");
    server.join();
}

#[test]
fn ends_lines_with_crlf_when_asked_to() {
    let files = Files::new();
    for (options, heard) in [(&["--crlf"][..], "one\r\ntwo\r\n\r\nthree\r\n"), (&[], "one\ntwo\r\n\nthree\n")] {
        let context = server_context(engines()[0]);
        let server = Server::start(move |tcp| {
            let mut file = SslFile::server(tcp, &context).unwrap();
            let mut got = String::new();
            // In two pieces, cut in the middle of an end; when the first has come the rest is said.
            while !got.ends_with("two\r") {
                let mut byte = [0];
                file.read_exact(&mut byte).unwrap();
                got.push(char::from(byte[0]));
            }
            file.write_all(b"and?").unwrap();
            file.read_to_string(&mut got).unwrap();
            file.close().unwrap();
            got
        });
        let mut tool = tool_alone().args(&["localhost", &server.port, "--ca", &files.ca]).args(options).open();
        tool.say(b"one\ntwo\r");
        tool.stdout.wait_for("and?");
        tool.say(b"\n\nthree\n");
        let ended = tool.end_stdin().end();
        assert_eq!((ended.code, server.join().as_str()), (0, heard), "{ended:?}");
    }
}

#[test]
fn ends_when_the_peer_does_although_stdin_is_open() {
    let files = Files::new();
    for engine in engines() {
        let context = server_context(engine);
        let server = Server::start(move |tcp| {
            let mut file = SslFile::server(tcp, &context).unwrap();
            file.write_all(b"that is all").unwrap();
            file.close().unwrap();
        });
        let ended = sslcat(engine, &["localhost", &server.port, "--ca", &files.ca]).open().end();
        assert_eq!((ended.code, ended.stdout()), (0, "that is all"), "{engine:?}: {ended:?}");
        server.join();
    }
}

#[test]
fn says_what_was_negotiated() {
    let files = Files::new();
    // native-tls' acceptor stops at TLS 1.2, and chooses no protocol.
    let server_engine = engines().into_iter().find(|engine| *engine != Engine::Native).unwrap_or(Engine::Native);
    for engine in engines() {
        let mut builder = server_builder(server_engine);
        if server_engine != Engine::Native {
            builder = builder.alpn(["two", "one"]);
        }
        let context = builder.build().unwrap();
        let server = Server::start(move |tcp| {
            let mut file = SslFile::server(tcp, &context).unwrap();
            file.read_to_end(&mut Vec::new()).unwrap();
            (file.version(), file.alpn(), file.close())
        });
        let args = ["localhost", &server.port, "--ca", &files.ca, "--tls1.2", "--alpn", "one,two", "-v"];
        let ended = sslcat(engine, &args).feed(b"").end();
        assert_eq!(ended.code, 0, "{engine:?}: {ended:?}");
        let (version, alpn, closed) = server.join();
        closed.unwrap();
        let negotiated = ended.stderr().lines().find(|line| line.contains("engine")).unwrap_or_default();
        assert!(negotiated.contains(&format!("{engine:?} engine")), "{ended:?}");
        assert!(negotiated.contains("certificate trusted"), "{ended:?}");
        if server_engine != Engine::Native {
            assert_eq!((version, alpn.as_deref()), (Some(Version::Tls1_2), Some(&b"two"[..])), "{engine:?}");
            assert!(negotiated.contains("ALPN two"), "{ended:?}");
        }
        if engine != Engine::Native {
            assert!(negotiated.contains("TLSv1.2"), "{ended:?}");
        }
    }
}
