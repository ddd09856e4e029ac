//! What is measured: each peer is a way to put TLS (or nothing) on a TCP stream, on either end.

use std::io::{self, Read, Write};
use std::net::TcpStream;

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
}

/// Pairs that are compared stand side by side, so that they are measured one after the other.
const ENTRIES: &[Entry] = &[
    Entry { name: "plain", raw: None, make: plain::library, is_available: || true },
    #[cfg(feature = "native-tls")]
    Entry { name: "native-tls", raw: None, make: raw_native::library, is_available: || true },
    Entry {
        name: "ours-native",
        raw: Some("native-tls"),
        make: || ours::library(Engine::Native),
        is_available: || Engine::Native.is_available(),
    },
    #[cfg(feature = "openssl")]
    Entry { name: "openssl", raw: None, make: raw_openssl::library, is_available: || true },
    Entry {
        name: "ours-openssl",
        raw: Some("openssl"),
        make: || ours::library(Engine::OpenSsl),
        is_available: || Engine::OpenSsl.is_available(),
    },
    Entry { name: "rustls", raw: None, make: raw_rustls::library, is_available: || true },
    Entry {
        name: "ours-rustls",
        raw: Some("rustls"),
        make: || ours::library(Engine::Rustls),
        is_available: || Engine::Rustls.is_available(),
    },
];

pub struct Peer {
    pub name: String,
    pub raw: Option<&'static str>,
    pub client: Box<dyn Role>,
    pub server: Box<dyn Role>,
    pub resuming: Option<(Box<dyn Role>, Box<dyn Role>)>,
}

impl Peer {
    /// The names of all peers that were built, in the order in which they are measured.
    pub fn names() -> Vec<&'static str> {
        ENTRIES.iter().filter(|e| (e.is_available)()).map(|e| e.name).collect()
    }

    /// `name` for both ends, or `client+server` for two kinds of ends.
    pub fn new(name: &str) -> io::Result<Peer> {
        let Some((client, server)) = name.split_once('+') else {
            let entry = find(name)?;
            let Library { client, server, resuming } = (entry.make)()?;
            return Ok(Peer { name: name.to_string(), raw: entry.raw, client, server, resuming });
        };
        let (client, server) = ((find(client)?.make)()?, (find(server)?.make)()?);
        let resuming = match (client.resuming, server.resuming) {
            (Some((client, _)), Some((_, server))) => Some((client, server)),
            _ => None,
        };
        let (client, server) = (client.client, server.server);
        Ok(Peer { name: name.to_string(), raw: None, client, server, resuming })
    }
}

fn find(name: &str) -> io::Result<&'static Entry> {
    let entry = ENTRIES.iter().find(|e| e.name == name && (e.is_available)());
    entry.ok_or_else(|| {
        let text = format!("no peer {name:?}; there are {}", Peer::names().join(", "));
        io::Error::new(io::ErrorKind::InvalidInput, text)
    })
}
