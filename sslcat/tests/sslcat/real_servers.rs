//! STARTTLS with the servers that people have.

use crate::common::engines;
use crate::peers::ftp_server;
use crate::peers::harness::{run, Bench};
use crate::{servers, sslcat};

/// What is said in private, and a piece of the server's answer, by protocol.
fn talk(protocol: &str) -> (Vec<u8>, &'static str) {
    let stream = |namespace: &str| {
        format!(
            "<stream:stream xmlns='{namespace}' xmlns:stream='http://etherx.jabber.org/streams' to='localhost' \
             version='1.0'>"
        )
    };
    let (said, answer): (&[u8], &str) = match protocol {
        "imap" => (b"a2 NOOP\r\n", "a2 OK"),
        "pop3" => (b"CAPA\r\n", "+OK"),
        "smtp" | "lmtp" => (b"NOOP\r\n", "250 "),
        "ftp" => (b"QUIT\r\n", "221 "),
        "sieve" => (b"CAPABILITY\r\n", "OK \"Capability"),
        "nntp" => (b"DATE\r\n", "111 "),
        "irc" => (b"QUIT\r\n", "ERROR :"),
        "xmpp" => return (stream("jabber:client").into(), "<stream:features>"),
        // It has nothing to offer to a server that it knows nothing of.
        "xmpp-server" => return (stream("jabber:server").into(), "No stream features to offer"),
        // A bind as nobody, and its success.
        "ldap" => (b"\x30\x0c\x02\x01\x02\x60\x07\x02\x01\x03\x04\0\x80\0", "\x02\x01\x02\x61\x07\x0a\x01\0"),
        // The begin of a session (version 3.0, its user), and that the user has proven enough.
        "postgres" => (b"\0\0\0\x13\0\x03\0\0user\0user\0\0", "R\0\0\0\x08\0\0\0\0"),
        // The answer to its greeting, for a user without a password: with the next number, as is that of "OK" behind it.
        "mysql" => {
            let user = b"user\0\0";
            let mut packet = vec![32 + user.len() as u8, 0, 0, 2, 0, 0x8a, 0, 0, 0, 0, 0, 1, 33];
            packet.resize(4 + 32, 0);
            return ([&packet, &user[..]].concat(), "\x07\0\0\x03\0");
        }
        _ => panic!("what does one say in {protocol}?"),
    };
    (said.to_vec(), answer)
}

/// On each engine.
fn speaks(bench: &Bench, protocol: &str, port: u16) {
    let (port, ca) = (port.to_string(), bench.files.roots.to_str().expect("path in UTF-8"));
    for engine in engines() {
        println!("{protocol} {engine:?}");
        let args = ["localhost", &port, "--starttls", protocol, "--ca", ca];
        let checked = sslcat(engine, &args).args(&["--check"]).feed(b"").end();
        assert_eq!(checked.code, 0, "{engine:?} {protocol}: {checked:?}");

        let (said, answer) = talk(protocol);
        let mut client = sslcat(engine, &args).open();
        client.say(&said);
        client.stdout.wait_for(answer);
    }
}

#[test]
fn starts_tls_with_servers_of_each_protocol() {
    run(servers::all(), |bench, programs| {
        for program in programs {
            let server = program.start(bench);
            for (protocol, port) in program.protocols.iter().zip(&server.ports) {
                speaks(bench, protocol, *port);
            }
        }
    });
}

#[test]
fn starts_tls_with_servers_of_ftp() {
    run(ftp_server::both(), |bench, programs| {
        for program in programs {
            let server = program.start(bench);
            speaks(bench, "ftp", server.port);
        }
    });
}
