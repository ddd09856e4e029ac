//! Tickets of TLS 1.3 that are none, or come in parts.

use std::io::Read;

use sslfile::{Engine, Handshake, Role, SslFile, Version};

use crate::common::{tcp_pair, within, LONG, NAME};
use crate::evil::{connection_pair, file_pair, HANDSHAKE};

/// So many lie ready for those who resume a connection's session.
const READY: usize = 16;

/// RFC 8446, section 4.6.1.
fn new_session_ticket(ticket: &[u8]) -> Vec<u8> {
    let length = u16::try_from(ticket.len()).expect("short").to_be_bytes();
    let body = [&[0, 0, 14, 16, 0, 0, 0, 0, 1, 7][..], &length, ticket, &[0, 0]].concat();
    [&[4, 0, 0, u8::try_from(body.len()).expect("short")][..], &body].concat()
}

/// What one connection's peer has said in vain is not offered for another that is used by the same thread.
#[test]
fn a_ticket_that_was_refused_is_nobody_s() {
    if !Engine::Rustls.is_available() {
        return;
    }
    within(LONG, || {
        const ALIEN: &[u8] = b"a ticket that a client has given to its server";
        let (mut control, mut peer) =
            file_pair(Engine::Rustls, Role::Client, Version::Tls1_3, SslFile::options().client(NAME));
        let options = SslFile::options().client(NAME).resume(&control).handshake(Handshake::Lazy);
        let first = peer.data(b"x");
        peer.send(&first).expect("send");
        control.read_exact(&mut [0]).expect("behind the first tickets");

        let (mut server, mut client) = connection_pair(Engine::Rustls, Role::Server, Version::Tls1_3);
        server.feed(&client.record(HANDSHAKE, &new_session_ticket(ALIEN)));
        server.read(&mut [0]).expect_err("a client gives no tickets");

        // In two records: what is not whole in one is not noted.
        let own = new_session_ticket(b"a ticket of its own");
        let (start, rest) = own.split_at(20);
        let records = [peer.record(HANDSHAKE, start), peer.record(HANDSHAKE, rest), peer.data(b"x")].concat();
        peer.send(&records).expect("send");
        control.read_exact(&mut [0]).expect("behind its own");

        let hello = || {
            let (c, mut s) = tcp_pair();
            let data = options.clone().open(c, &control.context()).expect("open");
            data.set_nonblocking(true).expect("nonblocking");
            let mut hello = vec![0; 4096];
            let n = s.read(&mut hello).expect("a hello");
            hello.truncate(n);
            hello
        };
        for _ in 0..READY {
            assert!(!hello().windows(ALIEN.len()).any(|part| part == ALIEN), "it is offered to another");
        }
    });
}
