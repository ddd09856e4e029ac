//! `sslcat`: exit codes, transfer, STARTTLS, and the other side played by scripts, by `sslcat` and by OpenSSL's tools.

use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use sslfile::{ClientAuth, Context, Engine, SslFile, Version};

use crate::common::{self, certs, engines, pattern, server_builder, server_context, Pair};
use crate::tool::{example, is_here, on_a_terminal, Files, Server, Tool};

/// `sslcat` on this engine.
fn sslcat(engine: Engine, args: &[&str]) -> Tool {
    let library = match engine {
        Engine::Native => "native",
        Engine::OpenSsl => "openssl",
        Engine::Rustls => "rustls",
        other => panic!("sslcat does not know {other:?}"),
    };
    Tool::example("sslcat").args(&["--engine", library]).args(args)
}

// ---------------------------------------------------------------------------------------------------------------------
// sslcat: exit codes
// ---------------------------------------------------------------------------------------------------------------------

#[test]
fn sslcat_help_lists_the_exit_codes() {
    let ended = Tool::example("sslcat").args(&["--help"]).feed(b"").end();
    assert_eq!(ended.code, 0, "{ended:?}");
    for code in 0..=6 {
        assert!(ended.stdout().contains(&format!("\n  {code}  ")), "{code} in {ended:?}");
    }
}

#[test]
fn sslcat_exits_1_for_wrong_usage() {
    let files = Files::new();
    let empty = files.write("empty.pem", "");
    let cases: &[&[&str]] = &[
        &[],
        &["localhost"],
        &["localhost:none"],
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
        let ended = Tool::example("sslcat").args(args).feed(b"").end();
        assert_eq!(ended.code, 1, "{args:?}: {ended:?}");
        assert!(!ended.stderr.is_empty(), "{args:?}");
    }
}

#[test]
fn sslcat_exits_2_without_a_connection() {
    // Nobody listens on a port that was free a moment ago.
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string();
    for args in [["127.0.0.1", &port], ["no-such-host.invalid", "443"]] {
        let ended = Tool::example("sslcat").args(&args).feed(b"").end();
        assert_eq!(ended.code, 2, "{args:?}: {ended:?}");
        assert!(ended.stderr().contains(args[0]) && ended.stderr().contains(args[1]), "{ended:?}");
    }
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let ended = Tool::example("sslcat").args(&["-l", &taken.local_addr().unwrap().to_string()]).feed(b"").end();
    assert_eq!(ended.code, 2, "{ended:?}");
}

#[test]
fn sslcat_exits_3_when_the_peer_speaks_no_tls() {
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
fn sslcat_exits_3_when_the_handshake_is_cut_silent_or_finds_no_version() {
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
fn sslcat_exits_4_for_a_certificate_it_does_not_trust() {
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
fn sslcat_exits_4_when_the_server_refuses_our_certificate() {
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
fn sslcat_exits_5_for_a_cut_and_delivers_what_came_before() {
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
fn sslcat_times_out_when_nothing_moves_and_only_then() {
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
fn sslcat_exits_6_without_a_word_when_nobody_reads_its_output() {
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

// ---------------------------------------------------------------------------------------------------------------------
// sslcat: transfer
// ---------------------------------------------------------------------------------------------------------------------

#[test]
fn sslcat_is_full_duplex() {
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
fn sslcat_sends_a_whole_file_to_a_peer_that_has_nothing_to_say() {
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

/// Without a terminal there is none: `sslcat_moves_files_both_ways_between_two_of_its_kind`.
#[test]
fn sslcat_shows_the_progress_of_a_file_on_a_terminal() {
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
    let (sslcat, ca, input, output) = (example("sslcat"), &files.ca, input.display(), output.display());
    let sslcat = sslcat.display();

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
fn sslcat_ends_when_the_peer_does_although_stdin_is_open() {
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
fn sslcat_says_what_was_negotiated() {
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

// ---------------------------------------------------------------------------------------------------------------------
// sslcat: STARTTLS
// ---------------------------------------------------------------------------------------------------------------------

/// What a server says in plain text, each answer after a line from the client. The last one begins TLS.
type Script<'a> = &'a [(&'static str, &'static str)];

const SMTP: Script<'static> = &[
    ("", "220-mail.example says hello\r\n220 and waits\r\n"),
    ("EHLO [127.0.0.1]", "250-mail.example\r\n250-SIZE 1000\r\n250-STARTTLS\r\n250 HELP\r\n"),
    ("STARTTLS", "220 go ahead\r\n"),
];
const IMAP: Script<'static> = &[
    ("", "* OK [CAPABILITY IMAP4rev1 STARTTLS] hello\r\n"),
    ("a1 STARTTLS", "* CAPABILITY IMAP4rev1\r\na1 OK begin\r\n"),
];
const POP3: Script<'static> = &[("", "+OK hello\r\n"), ("STLS", "+OK begin\r\n")];
const FTP: Script<'static> =
    &[("", "220-hello\r\n  this line has no code\r\n220-nor an end\r\n220 ready\r\n"), ("AUTH TLS", "234 begin\r\n")];

/// Speaks the script; fails if the client says something else.
fn recite(tcp: &TcpStream, script: &[(&str, &str)]) {
    let mut input = BufReader::new(tcp);
    for (line, answer) in script {
        if !line.is_empty() {
            let mut heard = String::new();
            input.read_line(&mut heard).unwrap();
            assert_eq!(heard, format!("{line}\r\n"));
        }
        (&mut &*tcp).write_all(answer.as_bytes()).unwrap();
    }
    assert!(input.buffer().is_empty(), "the client goes on before it may");
}

#[test]
fn sslcat_starts_tls_in_the_words_of_each_protocol() {
    let files = Files::new();
    for engine in engines() {
        for (protocol, script) in [("smtp", SMTP), ("imap", IMAP), ("pop3", POP3), ("ftp", FTP)] {
            let context = server_context(engine);
            let server = Server::start(move |tcp: TcpStream| {
                recite(&tcp, script);
                let mut file = SslFile::server(tcp, &context).unwrap();
                let mut got = String::new();
                file.read_to_string(&mut got).unwrap();
                file.write_all(got.to_uppercase().as_bytes()).unwrap();
                file.close().unwrap();
            });
            let args = ["127.0.0.1", &server.port, "--name", "localhost", "--ca", &files.ca, "--starttls", protocol];
            let ended = sslcat(engine, &args).feed(b"in private").end();
            assert_eq!((ended.code, ended.stdout()), (0, "IN PRIVATE"), "{engine:?} {protocol}: {ended:?}");
            server.join();
        }
    }
}

#[test]
fn sslcat_understands_replies_that_come_byte_by_byte() {
    let files = Files::new();
    let context = server_context(engines()[0]);
    let server = Server::start(move |mut tcp: TcpStream| {
        tcp.set_nodelay(true).unwrap();
        for byte in b"220-one\r\n220 two\r\n" {
            tcp.write_all(&[*byte]).unwrap();
        }
        recite(&tcp, &SMTP[1..]);
        let mut file = SslFile::server(tcp, &context).unwrap();
        file.read_to_end(&mut Vec::new()).unwrap();
        file.close().unwrap();
    });
    let args = ["localhost", &server.port, "--ca", &files.ca, "--starttls", "smtp", "-v"];
    let ended = Tool::example("sslcat").args(&args).feed(b"").end();
    assert_eq!(ended.code, 0, "{ended:?}");
    assert!(ended.stderr().contains("< 220-one\n") && ended.stderr().contains("> STARTTLS\n"), "{ended:?}");
    server.join();
}

#[test]
fn sslcat_exits_3_when_starttls_is_refused() {
    let cases: &[(&str, Script, &str)] = &[
        ("smtp", &[("", "554 go away\r\n")], "554 go away"),
        ("smtp", &[("", "220 hi\r\n"), ("EHLO [127.0.0.1]", "250-hi\r\n250 HELP\r\n")], "does not offer"),
        ("smtp", &[SMTP[0], SMTP[1], ("STARTTLS", "454 not now\r\n")], "454 not now"),
        ("smtp", &[SMTP[0], SMTP[1], ("STARTTLS", "")], "hung up"),
        ("imap", &[("", "* BYE full\r\n")], "* BYE full"),
        ("imap", &[IMAP[0], ("a1 STARTTLS", "* hm\r\na1 NO never\r\n")], "a1 NO never"),
        ("pop3", &[POP3[0], ("STLS", "-ERR never\r\n")], "-ERR never"),
        ("ftp", &[FTP[0], ("AUTH TLS", "502 what?\r\n")], "502 what?"),
    ];
    for (protocol, script, said) in cases {
        let script = script.to_vec();
        let server = Server::start(move |tcp: TcpStream| recite(&tcp, &script));
        let args = ["127.0.0.1", &server.port, "--starttls", protocol];
        let ended = Tool::example("sslcat").args(&args).feed(b"").end();
        assert_eq!(ended.code, 3, "{protocol}: {ended:?}");
        assert!(ended.stderr().contains(said), "{protocol} {said}: {ended:?}");
        server.join();
    }
}

/// CVE-2011-0411: what an attacker puts behind the server's consent must not pass for something that came encrypted.
#[test]
fn sslcat_refuses_plain_bytes_behind_the_consent_to_tls() {
    let files = Files::new();
    let glued: &[(&str, Script)] = &[
        ("smtp", &[SMTP[0], SMTP[1], ("STARTTLS", "220 go ahead\r\n250 injected\r\n")]),
        ("imap", &[IMAP[0], ("a1 STARTTLS", "a1 OK begin\r\n* OK injected\r\n")]),
        ("pop3", &[POP3[0], ("STLS", "+OK begin\r\n+OK injected\r\n")]),
        ("ftp", &[FTP[0], ("AUTH TLS", "234 begin\r\n230 injected\r\n")]),
    ];
    for engine in engines() {
        for (protocol, script) in glued {
            let (script, context) = (script.to_vec(), server_context(engine));
            let server = Server::start(move |tcp: TcpStream| {
                recite(&tcp, &script);
                // The server itself is innocent, and would go on.
                SslFile::server(tcp, &context).is_ok()
            });
            let args = ["localhost", &server.port, "--ca", &files.ca, "--starttls", protocol];
            let ended = sslcat(engine, &args).feed(b"").end();
            assert_eq!((ended.code, ended.stdout()), (3, ""), "{engine:?} {protocol}: {ended:?}");
            assert!(!server.join(), "{engine:?} {protocol}: the handshake went through");
        }
    }
}

#[test]
fn sslcat_bounds_a_starttls_dialogue_in_time_and_length() {
    // A line that never ends, in drips: each alone is in time.
    let server = Server::start(|mut tcp: TcpStream| {
        while tcp.write_all(b"2").is_ok() {
            thread::sleep(Duration::from_millis(50));
        }
    });
    let args = ["localhost", &server.port, "--starttls", "smtp", "--timeout", "0.5"];
    let ended = Tool::example("sslcat").args(&args).feed(b"").end();
    assert_eq!(ended.code, 3, "{ended:?}");
    assert!(ended.stderr().contains("in time"), "{ended:?}");
    server.join();

    let server = Server::start(|mut tcp: TcpStream| while tcp.write_all(b"220-and another thing\r\n").is_ok() {});
    let ended = Tool::example("sslcat").args(&["localhost", &server.port, "--starttls", "smtp"]).feed(b"").end();
    assert_eq!(ended.code, 3, "{ended:?}");
    assert!(ended.stderr().contains("without end"), "{ended:?}");
    server.join();
}

// ---------------------------------------------------------------------------------------------------------------------
// sslcat: as a server, and against OpenSSL's own tools
// ---------------------------------------------------------------------------------------------------------------------

#[test]
fn sslcat_listens_with_a_certificate_made_on_the_spot() {
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
fn sslcat_moves_files_both_ways_between_two_of_its_kind() {
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
fn sslcat_demands_a_client_certificate_where_the_engine_can() {
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
fn sslcat_serves_openssl_s_client() {
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
fn sslcat_talks_to_openssl_s_server() {
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
