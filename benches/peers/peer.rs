//! What is measured: each peer is a way to put TLS (or nothing) on a TCP stream, on either end.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use sslfile::Engine;

#[cfg(feature = "native-tls")]
use crate::raw_native;
#[cfg(feature = "openssl")]
use crate::raw_openssl;
use crate::{ours, plain, raw_rustls};

pub type Reader = Box<dyn Read + Send>;
pub type Writer = Box<dyn Write + Send>;

/// One end of an open connection, used by one thread.
pub trait End: Read + Write + Send {
    /// Version and suite, as far as the library tells.
    fn negotiated(&self) -> String;

    /// Whether the handshake was an abbreviated one, as far as the library tells.
    fn is_resumed(&self) -> Option<bool>;

    /// Says close_notify and drops the connection, without waiting for the peer.
    fn finish(self: Box<Self>) -> io::Result<()>;
}

/// A role, client or server, with its settings made once.
pub trait Role: Send + Sync {
    /// Shakes hands and blocks from then on.
    fn open(&self, tcp: TcpStream) -> io::Result<Box<dyn End>>;

    /// Shakes hands and gives two halves for two threads: the file's own clones where it has such, else a mutex around
    /// the non-blocking stream, with a poll when it would block.
    fn open_both_ways(&self, tcp: TcpStream) -> io::Result<(Reader, Writer)>;
}

/// Both roles of one library, without session resumption and, where it can, with.
pub struct Library {
    pub client: Box<dyn Role>,
    pub server: Box<dyn Role>,
    pub resuming: Option<(Box<dyn Role>, Box<dyn Role>)>,
}

/// What the command line can name.
struct Entry {
    name: &'static str,
    /// The raw stream of the same TLS library.
    raw: Option<&'static str>,
    make: fn() -> io::Result<Library>,
    is_available: fn() -> bool,
    /// The cases that it is meant for. In others it is measured if the command line names it.
    cases: Option<&'static [&'static str]>,
}

impl Entry {
    const fn new(name: &'static str, raw: Option<&'static str>, make: fn() -> io::Result<Library>) -> Entry {
        Entry { name, raw, make, is_available: || true, cases: None }
    }

    /// Of a build that may lack it.
    const fn available(self, is_available: fn() -> bool) -> Entry {
        Entry { is_available, ..self }
    }

    const fn only(self, cases: &'static [&'static str]) -> Entry {
        Entry { cases: Some(cases), ..self }
    }
}

/// How long `ours-*-spin` tries before it sleeps.
const SPIN: Duration = Duration::from_micros(50);
/// Where each end has a processor, and one waits for the other.
const SPINNING: &[&str] = &["bulk-64k", "trip-64-apart"];

/// Pairs that are compared stand side by side, so that they are measured one after the other.
const ENTRIES: &[Entry] = &[
    Entry::new("plain", None, plain::library),
    #[cfg(feature = "native-tls")]
    Entry::new("native-tls", None, raw_native::library),
    Entry::new("ours-native", Some("native-tls"), || ours::library(Engine::Native, Duration::ZERO))
        .available(|| Engine::Native.is_available()),
    #[cfg(feature = "openssl")]
    Entry::new("openssl", None, raw_openssl::library),
    Entry::new("ours-openssl", Some("openssl"), || ours::library(Engine::OpenSsl, Duration::ZERO))
        .available(|| Engine::OpenSsl.is_available()),
    Entry::new("ours-openssl-spin", Some("openssl"), || ours::library(Engine::OpenSsl, SPIN))
        .available(|| Engine::OpenSsl.is_available())
        .only(SPINNING),
    Entry::new("rustls", None, raw_rustls::library),
    Entry::new("ours-rustls", Some("rustls"), || ours::library(Engine::Rustls, Duration::ZERO))
        .available(|| Engine::Rustls.is_available()),
    Entry::new("ours-rustls-spin", Some("rustls"), || ours::library(Engine::Rustls, SPIN))
        .available(|| Engine::Rustls.is_available())
        .only(SPINNING),
];

pub struct Peer {
    pub name: String,
    pub raw: Option<&'static str>,
    pub client: Box<dyn Role>,
    pub server: Box<dyn Role>,
    pub resuming: Option<(Box<dyn Role>, Box<dyn Role>)>,
    cases: Option<&'static [&'static str]>,
}

impl Peer {
    /// The names of all peers that were built, in the order in which they are measured.
    pub fn names() -> Vec<&'static str> {
        ENTRIES.iter().filter(|e| (e.is_available)()).map(|e| e.name).collect()
    }

    /// Each for the cases that it is meant for.
    pub fn all() -> io::Result<Vec<Peer>> {
        let make = |name| Ok(Peer { cases: find(name)?.cases, ..Peer::new(name)? });
        Peer::names().into_iter().map(make).collect()
    }

    /// Whether this case is one for it.
    pub fn takes(&self, case: &str) -> bool {
        self.cases.is_none_or(|cases| cases.contains(&case))
    }

    /// `name` for both ends, or `client+server` for two kinds of ends.
    pub fn new(name: &str) -> io::Result<Peer> {
        let Some((client, server)) = name.split_once('+') else {
            let entry = find(name)?;
            let Library { client, server, resuming } = (entry.make)()?;
            return Ok(Peer { name: name.to_string(), raw: entry.raw, client, server, resuming, cases: None });
        };
        let (client, server) = ((find(client)?.make)()?, (find(server)?.make)()?);
        let resuming = match (client.resuming, server.resuming) {
            (Some((client, _)), Some((_, server))) => Some((client, server)),
            _ => None,
        };
        let (client, server) = (client.client, server.server);
        Ok(Peer { name: name.to_string(), raw: None, client, server, resuming, cases: None })
    }
}

fn find(name: &str) -> io::Result<&'static Entry> {
    let entry = ENTRIES.iter().find(|e| e.name == name && (e.is_available)());
    entry.ok_or_else(|| {
        let text = format!("no peer {name:?}; there are {}", Peer::names().join(", "));
        io::Error::new(io::ErrorKind::InvalidInput, text)
    })
}
