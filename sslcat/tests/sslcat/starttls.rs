//! The plain part before TLS, with servers that recite.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::Duration;

use sslfile::SslFile;

use crate::common::{engines, server_context};
use crate::tool::{Files, Server};
use crate::{sslcat, tool_alone};

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
fn starts_tls_in_the_words_of_each_protocol() {
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
fn understands_replies_that_come_byte_by_byte() {
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
    let ended = tool_alone().args(&args).feed(b"").end();
    assert_eq!(ended.code, 0, "{ended:?}");
    assert!(ended.stderr().contains("< 220-one\n") && ended.stderr().contains("> STARTTLS\n"), "{ended:?}");
    server.join();
}

#[test]
fn exits_3_when_starttls_is_refused() {
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
        let ended = tool_alone().args(&args).feed(b"").end();
        assert_eq!(ended.code, 3, "{protocol}: {ended:?}");
        assert!(ended.stderr().contains(said), "{protocol} {said}: {ended:?}");
        server.join();
    }
}

/// CVE-2011-0411: what an attacker puts behind the server's consent must not pass for something that came encrypted.
#[test]
fn refuses_plain_bytes_behind_the_consent_to_tls() {
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
fn bounds_a_starttls_dialogue_in_time_and_length() {
    // A line that never ends, in drips: each alone is in time.
    let server = Server::start(|mut tcp: TcpStream| {
        while tcp.write_all(b"2").is_ok() {
            thread::sleep(Duration::from_millis(50));
        }
    });
    let args = ["localhost", &server.port, "--starttls", "smtp", "--timeout", "0.5"];
    let ended = tool_alone().args(&args).feed(b"").end();
    assert_eq!(ended.code, 3, "{ended:?}");
    assert!(ended.stderr().contains("in time"), "{ended:?}");
    server.join();

    let server = Server::start(|mut tcp: TcpStream| while tcp.write_all(b"220-and another thing\r\n").is_ok() {});
    let ended = tool_alone().args(&["localhost", &server.port, "--starttls", "smtp"]).feed(b"").end();
    assert_eq!(ended.code, 3, "{ended:?}");
    assert!(ended.stderr().contains("without end"), "{ended:?}");
    server.join();
}
