//! `native_tls::TlsStream<TcpStream>`, as shipped: its acceptor stops at TLS 1.2 and chooses the suite.

use std::io;
use std::net::TcpStream;

use native_tls::{Certificate, HandshakeError, Identity, TlsAcceptor, TlsConnector, TlsStream};

use crate::certs::{certs, NAME};
use crate::mutex;
use crate::peer::{End, Library, Reader, Role, Writer};

pub fn library() -> io::Result<Library> {
    let make = || -> Result<_, native_tls::Error> {
        let client = TlsConnector::builder()
            .disable_built_in_roots(true)
            .add_root_certificate(Certificate::from_pem(certs().ca.as_bytes())?)
            .build()?;
        Ok((Client(client), Server(acceptor()?)))
    };
    let (client, server) = make().map_err(io::Error::other)?;
    Ok(Library { client: Box::new(client), server: Box::new(server), resuming: None })
}

pub fn acceptor() -> Result<TlsAcceptor, native_tls::Error> {
    let identity = Identity::from_pkcs8(certs().leaf.as_bytes(), certs().key.as_bytes())?;
    TlsAcceptor::builder(identity).build()
}

struct Client(TlsConnector);
struct Server(TlsAcceptor);

impl Client {
    fn connect(&self, tcp: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        self.0.connect(NAME, tcp).map_err(failed)
    }
}

impl Server {
    fn accept(&self, tcp: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        self.0.accept(tcp).map_err(failed)
    }
}

impl Role for Client {
    fn open(&self, tcp: TcpStream) -> io::Result<Box<dyn End>> {
        Ok(Box::new(self.connect(tcp)?))
    }

    fn open_both_ways(&self, tcp: TcpStream) -> io::Result<(Reader, Writer)> {
        halves(self.connect(tcp)?)
    }
}

impl Role for Server {
    fn open(&self, tcp: TcpStream) -> io::Result<Box<dyn End>> {
        Ok(Box::new(self.accept(tcp)?))
    }

    fn open_both_ways(&self, tcp: TcpStream) -> io::Result<(Reader, Writer)> {
        halves(self.accept(tcp)?)
    }
}

impl End for TlsStream<TcpStream> {
    fn negotiated(&self) -> String {
        "not told by the library".to_string()
    }

    fn is_resumed(&self) -> Option<bool> {
        None
    }

    fn finish(mut self: Box<Self>) -> io::Result<()> {
        self.shutdown()
    }
}

fn halves(stream: TlsStream<TcpStream>) -> io::Result<(Reader, Writer)> {
    let socket = stream.get_ref().try_clone()?;
    socket.set_nonblocking(true)?;
    Ok(mutex::halves(stream, socket))
}

fn failed(error: HandshakeError<TcpStream>) -> io::Error {
    io::Error::other(error.to_string())
}
