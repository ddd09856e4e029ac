//! The plain part of a conversation, up to the server's consent to TLS. A protocol is a file that knows its own words, and a line
//! in `begin`.

mod dialogue;
mod ftp;
mod imap;
mod irc;
mod ldap;
mod lmtp;
mod mysql;
mod nntp;
mod pop3;
mod postgres;
mod sieve;
mod smtp;
mod xmpp;

use std::io;
use std::net::TcpStream;
use std::time::Instant;

use crate::args::{Args, Protocol};
use dialogue::Dialogue;

/// What was read behind the server's consent is returned: it is no TLS, and an attacker may have put it there to have it taken
/// for the server's first encrypted words (CVE-2011-0411). It must be neither kept nor dropped in silence; given to
/// `already_read` it fails the handshake.
pub fn begin(tcp: &TcpStream, protocol: Protocol, host: &str, args: &Args) -> io::Result<Vec<u8>> {
    let name = args.certificates.name.as_deref().unwrap_or(host);
    let deadline = Instant::now() + args.connection.patience();
    let mut dialogue = Dialogue::new(tcp, deadline, args.output.verbose);
    match protocol {
        Protocol::Smtp => smtp::begin(&mut dialogue),
        Protocol::Imap => imap::begin(&mut dialogue),
        Protocol::Pop3 => pop3::begin(&mut dialogue),
        Protocol::Ftp => ftp::begin(&mut dialogue),
        Protocol::Lmtp => lmtp::begin(&mut dialogue),
        Protocol::Sieve => sieve::begin(&mut dialogue),
        Protocol::Nntp => nntp::begin(&mut dialogue),
        Protocol::Irc => irc::begin(&mut dialogue),
        Protocol::Xmpp => xmpp::begin(&mut dialogue, "jabber:client", name),
        Protocol::XmppServer => xmpp::begin(&mut dialogue, "jabber:server", name),
        Protocol::Ldap => ldap::begin(&mut dialogue),
        Protocol::Postgres => postgres::begin(&mut dialogue),
        Protocol::Mysql => mysql::begin(&mut dialogue),
    }?;
    dialogue.end()
}
