//! The plain part before TLS, with servers that recite.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::Duration;

use sslfile::SslFile;

use crate::common::{engines, server_context};
use crate::tool::{Files, Server};
use crate::{sslcat, tool_alone};

/// What a server says in plain text, each answer to some words of the client. The last one begins TLS.
type Script = &'static [(&'static [u8], &'static [u8])];

const SMTP: Script = &[
    (b"", b"220-mail.example says hello\r\n220 and waits\r\n"),
    (b"EHLO [127.0.0.1]\r\n", b"250-mail.example\r\n250-SIZE 1000\r\n250-STARTTLS\r\n250 HELP\r\n"),
    (b"STARTTLS\r\n", b"220 go ahead\r\n"),
];
const STRICT_SMTP: Script = &[
    (b"", b"220 hello\r\n"),
    (b"EHLO [127.0.0.1]\r\n", b"250-mail.example\r\n250 starttls REQUIRED\r\n"),
    (b"STARTTLS\r\n", b"220 go ahead\r\n"),
];
const LMTP: Script = &[
    (b"", b"220 hello\r\n"),
    (b"LHLO [127.0.0.1]\r\n", b"250-mail.example\r\n250 STARTTLS\r\n"),
    (b"STARTTLS\r\n", b"220 go ahead\r\n"),
];
const IMAP: Script = &[
    (b"", b"* OK [CAPABILITY IMAP4rev1 STARTTLS] hello\r\n"),
    (b"a1 STARTTLS\r\n", b"* CAPABILITY IMAP4rev1\r\na1 OK begin\r\n"),
];
const POP3: Script = &[(b"", b"+OK hello\r\n"), (b"STLS\r\n", b"+OK begin\r\n")];
const FTP: Script = &[
    (b"", b"220-hello\r\n  this line has no code\r\n220-nor an end\r\n220 ready\r\n"),
    (b"AUTH TLS\r\n", b"234 begin\r\n"),
];
const NNTP: Script = &[(b"", b"201 hello, no posting\r\n"), (b"STARTTLS\r\n", b"382 begin\r\n")];
const SIEVE: Script = &[
    (b"", b"\"IMPLEMENTATION\" \"OK\"\r\n\"SASL\" \"PLAIN\"\r\n\"StartTLS\"\r\nOK (X) \"hello\"\r\n"),
    (b"STARTTLS\r\n", b"ok\r\n"),
];
const IRC: Script = &[(
    b"STARTTLS\r\n",
    b":irc.example NOTICE * :*** 670 is no number here\r\nNOTICE AUTH :hm\r\n:irc.example 670 * :begin\r\n",
)];
const XMPP: Script = &[
    (
        b"<?xml version='1.0'?><stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' \
          to='localhost' version='1.0'>",
        b"<?xml version='1.0'?><stream:stream from='localhost' a='>'><stream:features><a>x</a>\
          <starttls xmlns=\"urn:ietf:params:xml:ns:xmpp-tls\"><required/></starttls></stream:features>",
    ),
    (b"<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>", b"<proceed xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>"),
];
const XMPP_SERVER: Script = &[
    (
        b"<?xml version='1.0'?><stream:stream xmlns='jabber:server' xmlns:stream='http://etherx.jabber.org/streams' \
          to='localhost' version='1.0'>",
        b"<s:stream><s:features><t:starttls xmlns:t='urn:ietf:params:xml:ns:xmpp-tls'/></s:features>",
    ),
    (
        b"<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>",
        b" <proceed xmlns='urn:ietf:params:xml:ns:xmpp-tls'></proceed>",
    ),
];
const LDAP_REQUEST: &[u8] = b"\x30\x1d\x02\x01\x01\x77\x18\x80\x161.3.6.1.4.1.1466.20037";
const LDAP: Script = &[(LDAP_REQUEST, b"\x30\x0c\x02\x01\x01\x78\x07\x0a\x01\0\x04\0\x04\0")];
/// With long lengths, as Active Directory has them, and the name of the answer.
const LDAP_LONG: Script = &[(
    LDAP_REQUEST,
    b"\x30\x84\0\0\0\x28\x02\x01\x01\x78\x84\0\0\0\x1f\x0a\x01\0\x04\0\x04\0\x8a\x161.3.6.1.4.1.1466.20037",
)];
const POSTGRES: Script = &[(b"\0\0\0\x08\x04\xd2\x16\x2f", b"S")];
/// A greeting, up to the capabilities, with CLIENT_SSL among them, and behind them.
const MYSQL: Script =
    &[(b"", b"\x33\0\0\0\x0a11.8.9\0\x01\0\0\0challeng\0\x00\x8a\x2d\x02\0\0\0\x15\0\0\0\0\0\0\0\0\0\0e-behind-it\0")];
const MYSQL_REQUEST: &[u8] = b"\x20\0\0\x01\0\x8a\0\0\0\0\0\x01\x21\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0";

const ALL: [(&str, Script); 15] = [
    ("smtp", SMTP),
    ("smtp", STRICT_SMTP),
    ("lmtp", LMTP),
    ("imap", IMAP),
    ("pop3", POP3),
    ("ftp", FTP),
    ("nntp", NNTP),
    ("sieve", SIEVE),
    ("irc", IRC),
    ("xmpp", XMPP),
    ("xmpp-server", XMPP_SERVER),
    ("ldap", LDAP),
    ("ldap", LDAP_LONG),
    ("postgres", POSTGRES),
    ("mysql", &[MYSQL[0], (MYSQL_REQUEST, b"")]),
];

/// Speaks the script; fails if the client says something else.
fn recite(mut tcp: &TcpStream, script: &[(&[u8], &[u8])]) {
    for (words, answer) in script {
        let mut heard = vec![0; words.len()];
        tcp.read_exact(&mut heard).unwrap();
        assert_eq!(heard.escape_ascii().to_string(), words.escape_ascii().to_string());
        if !answer.is_empty() {
            tcp.set_nonblocking(true).unwrap();
            let more = tcp.peek(&mut [0]);
            assert!(more.is_err(), "the client goes on before it may");
            tcp.set_nonblocking(false).unwrap();
            tcp.write_all(answer).unwrap();
        }
    }
}

#[test]
fn starts_tls_in_the_words_of_each_protocol() {
    let files = Files::new();
    for engine in engines() {
        for (protocol, script) in ALL {
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
    const ERROR: &[u8] = b"\x17\0\0\0\xff\x10\x04Too many connections";
    const STREAM: &[u8] = XMPP[0].0;
    const CASES: &[(&str, Script, &str)] = &[
        ("smtp", &[(b"", b"554 go away\r\n")], "554 go away"),
        ("smtp", &[(b"", b"220 hi\r\n"), (b"EHLO [127.0.0.1]\r\n", b"250-hi\r\n250 HELP\r\n")], "does not offer"),
        ("smtp", &[(b"", b"220 hi\r\n"), (b"EHLO [127.0.0.1]\r\n", b"250 NOSTARTTLS\r\n")], "does not offer"),
        ("smtp", &[SMTP[0], SMTP[1], (b"STARTTLS\r\n", b"454 not now\r\n")], "454 not now"),
        ("smtp", &[SMTP[0], SMTP[1], (b"STARTTLS\r\n", b"")], "hung up"),
        ("lmtp", &[LMTP[0], (LMTP[1].0, b"500 what?\r\n")], "500 what?"),
        ("imap", &[(b"", b"* BYE full\r\n")], "* BYE full"),
        ("imap", &[IMAP[0], (b"a1 STARTTLS\r\n", b"* hm\r\na1 NO never\r\n")], "a1 NO never"),
        ("pop3", &[POP3[0], (b"STLS\r\n", b"-ERR never\r\n")], "-ERR never"),
        ("ftp", &[FTP[0], (b"AUTH TLS\r\n", b"502 what?\r\n")], "502 what?"),
        ("nntp", &[(b"", b"400 later\r\n")], "400 later"),
        ("nntp", &[NNTP[0], (b"STARTTLS\r\n", b"580 no\r\n")], "580 no"),
        ("sieve", &[(b"", b"\"SASL\" \"STARTTLS\"\r\nOK\r\n")], "does not offer"),
        ("sieve", &[(b"", b"BYE \"full\"\r\n")], "full"),
        ("sieve", &[SIEVE[0], (b"STARTTLS\r\n", b"NO\r\n")], "NO"),
        ("irc", &[(b"STARTTLS\r\n", b":irc.example 691 * :STARTTLS failed\r\n")], "691 * :STARTTLS failed"),
        ("irc", &[(b"STARTTLS\r\n", b":irc.example 421 * STARTTLS :Unknown command\r\n")], "Unknown command"),
        ("irc", &[(b"STARTTLS\r\n", b"ERROR :banned\r\n")], "ERROR :banned"),
        ("xmpp", &[(STREAM, b"<stream:stream><stream:features/>")], "does not offer"),
        ("xmpp", &[(STREAM, b"<a><starttls xmlns='x'/></features>")], "does not offer"),
        ("xmpp", &[(STREAM, b"<stream:error><host-unknown xmlns='x'/></stream:error>")], "host-unknown"),
        ("xmpp", &[(STREAM, b"<stream:stream></stream:stream>")], "</stream:stream>"),
        ("xmpp", &[XMPP[0], (XMPP[1].0, b"<failure xmlns='x'/></stream:stream>")], "<failure"),
        ("xmpp", &[XMPP[0], (XMPP[1].0, b"<proceed xmlns='x'/>")], "<proceed"),
        (
            "xmpp-server",
            &[XMPP_SERVER[0], (XMPP[1].0, b"<proceed xmlns='urn:ietf:params:xml:ns:xmpp-tls'><a/>")],
            "proceed",
        ),
        // unavailable (52); a notice of disconnection, which has another number.
        ("ldap", &[(LDAP_REQUEST, b"\x30\x0e\x02\x01\x01\x78\x09\x0a\x01\x34\x04\0\x04\x02no")], "result 52 no"),
        ("ldap", &[(LDAP_REQUEST, b"\x30\x0c\x02\x01\0\x78\x07\x0a\x01\x34\x04\0\x04\0")], "result 52"),
        ("ldap", &[(LDAP_REQUEST, b"\x30\x0c\x02\x01\0\x78\x07\x0a\x01\0\x04\0\x04\0")], "not speak that"),
        ("ldap", &[(LDAP_REQUEST, b"\x30\x80\x02\x01\x01\0\0")], "not speak that"),
        ("ldap", &[(LDAP_REQUEST, b"\x30\x85\0\0\0\0\0")], "not speak that"),
        ("ldap", &[(LDAP_REQUEST, b"\x30\x84\xff\xff\xff\xff")], "without end"),
        ("ldap", &[(LDAP_REQUEST, b"\x30\x0c\x02\x01\x01\x78\x07\x0a\x7f\0\x04\0\x04\0")], "not speak that"),
        ("ldap", &[(LDAP_REQUEST, b"\x30\0")], "not speak that"),
        ("postgres", &[(POSTGRES[0].0, b"N")], "does not offer"),
        ("postgres", &[(POSTGRES[0].0, b"Efull\0")], "an error"),
        ("postgres", &[(POSTGRES[0].0, b"HTTP/1.1 400")], "not speak that"),
        ("mysql", &[(b"", ERROR)], "Too many connections"),
        ("mysql", &[(b"", b"\x1a\0\0\0\x0a5.0\0\x01\0\0\0challeng\0\x00\x82xxxxxxx")], "does not offer"),
        ("mysql", &[(b"", b"\x10\0\0\0\x0a5.0\0\x01\0\0\0challen")], "not speak that"),
        ("mysql", &[(b"", b"\x01\0\0\0\xff")], "not speak that"),
        ("mysql", &[(b"", b"\0\0\0\0")], "not speak that"),
        ("mysql", &[(b"", b"\xff\xff\xff\0")], "without end"),
    ];
    for (protocol, script, said) in CASES {
        let server = Server::start(move |tcp: TcpStream| recite(&tcp, script));
        let args = ["127.0.0.1", &server.port, "--name", "localhost", "-k", "--starttls", protocol];
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
    for engine in engines() {
        for (protocol, script) in ALL {
            let context = server_context(engine);
            let server = Server::start(move |mut tcp: TcpStream| {
                let (last, before) = script.split_last().unwrap();
                // Of MySQL it is the greeting.
                let (said, consent) = if last.1.is_empty() { (&before[..0], before[0]) } else { (before, *last) };
                recite(&tcp, said);
                let glued = [consent.1, b"250 injected\r\n"].concat();
                recite(&tcp, &[(consent.0, &glued)]);
                if last.1.is_empty() {
                    tcp.read_exact(&mut [0; MYSQL_REQUEST.len()]).unwrap();
                }
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
fn bounds_a_starttls_dialogue_in_time() {
    // Silence; and an answer that never ends, in drips: each alone is in time.
    for drip in [&b""[..], b"2"] {
        let ends: Vec<_> = ALL
            .iter()
            .map(|(protocol, _)| {
                let server = Server::start(move |mut tcp: TcpStream| {
                    if drip.is_empty() {
                        let _ = tcp.read_to_end(&mut Vec::new());
                    }
                    while !drip.is_empty() && tcp.write_all(drip).is_ok() {
                        thread::sleep(Duration::from_millis(50));
                    }
                });
                let args = ["localhost", &server.port, "-k", "--starttls", protocol, "--timeout", "0.5"];
                (protocol, tool_alone().args(&args).feed(b""), server)
            })
            .collect();
        for (protocol, tool, server) in ends {
            let ended = tool.end();
            assert_eq!(ended.code, 3, "{protocol}: {ended:?}");
            // Those that know from its start that it is none of theirs need not wait.
            let known = !drip.is_empty() && ["ldap", "mysql", "postgres"].contains(protocol);
            assert!(known || ended.stderr().contains("in time"), "{protocol} {drip:?}: {ended:?}");
            server.join();
        }
    }
}

#[test]
fn bounds_a_starttls_dialogue_in_length() {
    let pieces: [&[u8]; 10] = [
        b"220-and another thing\r\n",
        b"* and another thing\r\n",
        b"\"AND\" \"another thing\"\r\n",
        b":irc.example NOTICE * :and another thing\r\n",
        b"<and-another-thing>",
        b"<'",
        b"no line, nor an end ",
        b"\r\n",
        b"\x30",
        b"\0",
    ];
    for (protocol, _) in ALL {
        for piece in pieces {
            let flood = piece.repeat(1000);
            let server = Server::start(move |mut tcp: TcpStream| while tcp.write_all(&flood).is_ok() {});
            let ended = tool_alone().args(&["localhost", &server.port, "-k", "--starttls", protocol]).feed(b"").end();
            assert_eq!((ended.code, ended.stdout()), (3, ""), "{protocol} {piece:?}: {ended:?}");
            assert!(!ended.stderr().is_empty() && ended.stderr().len() < 5000, "{protocol} {piece:?}: {ended:?}");
            server.join();
        }
    }
}

#[test]
fn a_consent_that_is_cut_is_none() {
    for (protocol, script) in ALL {
        let at = if protocol == "mysql" { 0 } else { script.len() - 1 };
        for length in 0..script[at].1.len() {
            let server = Server::start(move |tcp: TcpStream| {
                recite(&tcp, &script[..at]);
                recite(&tcp, &[(script[at].0, &script[at].1[..length])]);
            });
            let args = ["127.0.0.1", &server.port, "--name", "localhost", "-k", "--starttls", protocol];
            let ended = tool_alone().args(&args).feed(b"").end();
            assert_eq!(ended.code, 3, "{protocol}: {ended:?}");
            let told = ended.stderr().contains("hung up") || ended.stderr().contains("reset");
            assert!(told, "{protocol}, {length} bytes: {ended:?}");
            server.join();
        }
    }
}
