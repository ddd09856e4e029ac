//! `rustls::StreamOwned` with ring.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::ops::DerefMut;
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::crypto::{ring, CryptoProvider};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{
    ClientConfig, ClientConnection, ConfigBuilder, ConnectionCommon, HandshakeKind, RootCertStore, ServerConfig,
    ServerConnection, SideData, StreamOwned, WantsVerifier,
};

use crate::certs::{certs, NAME};
use crate::mutex;
use crate::peer::{End, Library, Reader, Role, Writer};

pub fn library() -> io::Result<Library> {
    Ok(Library {
        client: Box::new(Client(client_config(Resumption::disabled())?)),
        server: Box::new(Server(server_config()?)),
        resuming: Some((Box::new(Client(client_config(Resumption::default())?)), Box::new(Server(server_config()?)))),
    })
}

struct Client(Arc<ClientConfig>);
struct Server(Arc<ServerConfig>);

/// The suite that all are measured with.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(CryptoProvider {
        cipher_suites: vec![ring::cipher_suite::TLS13_AES_256_GCM_SHA384],
        kx_groups: vec![ring::kx_group::X25519],
        ..ring::default_provider()
    })
}

fn client_config(resumption: Resumption) -> io::Result<Arc<ClientConfig>> {
    let mut roots = RootCertStore::empty();
    roots.add(certificate(&certs().ca)?).map_err(io::Error::other)?;
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(io::Error::other)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.resumption = resumption;
    Ok(Arc::new(config))
}

pub fn server_config() -> io::Result<Arc<ServerConfig>> {
    with_identity(
        ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(io::Error::other)?,
    )
}

/// A server that leaves version and suite to its client.
pub fn any_suite() -> io::Result<Arc<ServerConfig>> {
    let provider = Arc::new(ring::default_provider());
    with_identity(
        ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(io::Error::other)?,
    )
}

fn with_identity(builder: ConfigBuilder<ServerConfig, WantsVerifier>) -> io::Result<Arc<ServerConfig>> {
    let key = PrivateKeyDer::from_pem_slice(certs().key.as_bytes()).map_err(io::Error::other)?;
    let leaf = vec![certificate(&certs().leaf)?];
    let config = builder.with_no_client_auth().with_single_cert(leaf, key).map_err(io::Error::other)?;
    Ok(Arc::new(config))
}

fn certificate(pem: &str) -> io::Result<CertificateDer<'static>> {
    CertificateDer::from_pem_slice(pem.as_bytes()).map_err(io::Error::other)
}

impl Client {
    fn connect(&self, mut tcp: TcpStream) -> io::Result<(ClientConnection, TcpStream)> {
        let name = ServerName::try_from(NAME).map_err(io::Error::other)?;
        let mut tls = ClientConnection::new(self.0.clone(), name).map_err(io::Error::other)?;
        while tls.is_handshaking() {
            tls.complete_io(&mut tcp)?;
        }
        Ok((tls, tcp))
    }
}

impl Server {
    fn accept(&self, mut tcp: TcpStream) -> io::Result<(ServerConnection, TcpStream)> {
        let mut tls = ServerConnection::new(self.0.clone()).map_err(io::Error::other)?;
        while tls.is_handshaking() {
            tls.complete_io(&mut tcp)?;
        }
        Ok((tls, tcp))
    }
}

impl Role for Client {
    fn open(&self, tcp: TcpStream) -> io::Result<Box<dyn End>> {
        let (tls, tcp) = self.connect(tcp)?;
        Ok(Box::new(StreamOwned::new(tls, tcp)))
    }

    fn open_both_ways(&self, tcp: TcpStream) -> io::Result<(Reader, Writer)> {
        let (tls, tcp) = self.connect(tcp)?;
        halves(tls, tcp)
    }
}

impl Role for Server {
    fn open(&self, tcp: TcpStream) -> io::Result<Box<dyn End>> {
        let (tls, tcp) = self.accept(tcp)?;
        Ok(Box::new(StreamOwned::new(tls, tcp)))
    }

    fn open_both_ways(&self, tcp: TcpStream) -> io::Result<(Reader, Writer)> {
        let (tls, tcp) = self.accept(tcp)?;
        halves(tls, tcp)
    }
}

impl<C, S> End for StreamOwned<C, TcpStream>
where
    C: DerefMut<Target = ConnectionCommon<S>> + Send,
    S: SideData,
{
    fn negotiated(&self) -> String {
        let suite = self.conn.negotiated_cipher_suite().map(|s| s.suite());
        format!("{:?} {suite:?}", self.conn.protocol_version())
    }

    fn is_resumed(&self) -> Option<bool> {
        self.conn.handshake_kind().map(|kind| kind == HandshakeKind::Resumed)
    }

    fn finish(mut self: Box<Self>) -> io::Result<()> {
        self.conn.send_close_notify();
        self.conn.complete_io(&mut self.sock).map(|_| ())
    }
}

fn halves<C, S>(tls: C, tcp: TcpStream) -> io::Result<(Reader, Writer)>
where
    C: DerefMut<Target = ConnectionCommon<S>> + Send + 'static,
    S: SideData,
{
    let socket = tcp.try_clone()?;
    socket.set_nonblocking(true)?;
    Ok(mutex::halves(NonBlocking { tls, tcp }, socket))
}

/// `StreamOwned` refuses to read while it has something to send, which stops two ends that flood each other; this reads
/// when asked to read and sends when asked to write.
struct NonBlocking<C> {
    tls: C,
    tcp: TcpStream,
}

impl<C, S> NonBlocking<C>
where
    C: DerefMut<Target = ConnectionCommon<S>>,
    S: SideData,
{
    fn send(&mut self) -> io::Result<()> {
        while self.tls.wants_write() {
            self.tls.write_tls(&mut self.tcp)?;
        }
        Ok(())
    }
}

impl<C, S> Read for NonBlocking<C>
where
    C: DerefMut<Target = ConnectionCommon<S>>,
    S: SideData,
{
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.tls.reader().read(buf) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                other => return other,
            }
            self.tls.read_tls(&mut self.tcp)?;
            self.tls.process_new_packets().map_err(io::Error::other)?;
        }
    }
}

impl<C, S> Write for NonBlocking<C>
where
    C: DerefMut<Target = ConnectionCommon<S>>,
    S: SideData,
{
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.send()?;
        let accepted = self.tls.writer().write(buf)?;
        match self.send() {
            Err(e) if e.kind() != io::ErrorKind::WouldBlock => Err(e),
            _ => Ok(accepted),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.send()
    }
}
