//! `openssl::ssl::SslStream<TcpStream>`, made by the crate's own connector and acceptor.

use std::io;
use std::net::TcpStream;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};

use openssl::pkey::PKey;
use openssl::ssl::{
    HandshakeError, ShutdownResult, Ssl, SslAcceptor, SslAcceptorBuilder, SslConnector, SslContextBuilder, SslMethod,
    SslSession, SslSessionCacheMode, SslStream, SslVersion,
};
use openssl::x509::store::X509StoreBuilder;
use openssl::x509::X509;

use crate::certs::{certs, NAME};
use crate::mutex;
use crate::peer::{End, Library, Reader, Role, Writer};

pub fn library() -> io::Result<Library> {
    Ok(Library {
        client: Box::new(Client { connector: connector()?.build(), session: None }),
        server: Box::new(Server(acceptor()?)),
        resuming: Some((Box::new(resuming_client()?), Box::new(Server(acceptor()?)))),
    })
}

/// The session to resume, replaced as tickets come in.
type Latest = Arc<Mutex<Option<SslSession>>>;

struct Client {
    connector: SslConnector,
    session: Option<Latest>,
}

struct Server(SslAcceptor);

fn connector() -> io::Result<openssl::ssl::SslConnectorBuilder> {
    let mut builder = SslConnector::builder(SslMethod::tls_client())?;
    pin(&mut builder)?;
    let mut store = X509StoreBuilder::new()?;
    store.add_cert(X509::from_pem(certs().ca.as_bytes())?)?;
    builder.set_cert_store(store.build());
    Ok(builder)
}

pub fn acceptor() -> io::Result<SslAcceptor> {
    let mut builder = with_identity()?;
    pin(&mut builder)?;
    Ok(builder.build())
}

/// A server that leaves version and suite to its client.
pub fn any_suite() -> io::Result<SslAcceptor> {
    Ok(with_identity()?.build())
}

/// With tokio.
pub async fn accept(
    acceptor: &SslAcceptor,
    tcp: tokio::net::TcpStream,
) -> io::Result<tokio_openssl::SslStream<tokio::net::TcpStream>> {
    let mut tls = tokio_openssl::SslStream::new(Ssl::new(acceptor.context())?, tcp)?;
    Pin::new(&mut tls).accept().await.map_err(io::Error::other)?;
    Ok(tls)
}

fn with_identity() -> io::Result<SslAcceptorBuilder> {
    let mut builder = SslAcceptor::mozilla_intermediate_v5(SslMethod::tls_server())?;
    let leaf = X509::from_pem(certs().leaf.as_bytes())?;
    builder.set_certificate(&leaf)?;
    let key = PKey::private_key_from_pem(certs().key.as_bytes())?;
    builder.set_private_key(&key)?;
    Ok(builder)
}

/// The suite that all are measured with.
fn pin(builder: &mut SslContextBuilder) -> io::Result<()> {
    builder.set_min_proto_version(Some(SslVersion::TLS1_3))?;
    builder.set_max_proto_version(Some(SslVersion::TLS1_3))?;
    builder.set_ciphersuites("TLS_AES_256_GCM_SHA384")?;
    Ok(())
}

fn resuming_client() -> io::Result<Client> {
    let latest = Latest::default();
    let store = latest.clone();
    let mut builder = connector()?;
    builder.set_session_cache_mode(SslSessionCacheMode::CLIENT | SslSessionCacheMode::NO_INTERNAL);
    builder.set_new_session_callback(move |_, session| {
        *store.lock().unwrap_or_else(PoisonError::into_inner) = Some(session);
    });
    Ok(Client { connector: builder.build(), session: Some(latest) })
}

impl Client {
    fn connect(&self, tcp: TcpStream) -> io::Result<SslStream<TcpStream>> {
        let mut ssl = self.connector.configure()?.into_ssl(NAME)?;
        if let Some(latest) = &self.session {
            let session = latest.lock().unwrap_or_else(PoisonError::into_inner).clone();
            if let Some(session) = session {
                // SAFETY: the session was made by a connection of this same context.
                unsafe { ssl.set_session(&session)? };
            }
        }
        ssl.connect(tcp).map_err(failed)
    }
}

impl Server {
    fn accept(&self, tcp: TcpStream) -> io::Result<SslStream<TcpStream>> {
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

impl End for SslStream<TcpStream> {
    fn negotiated(&self) -> String {
        let suite = self.ssl().current_cipher().map_or("no suite", |c| c.name());
        format!("{} {suite}", self.ssl().version_str())
    }

    fn is_resumed(&self) -> Option<bool> {
        Some(self.ssl().session_reused())
    }

    /// OpenSSL drops a session from its cache unless close_notify was sent.
    fn finish(mut self: Box<Self>) -> io::Result<()> {
        match self.shutdown() {
            Ok(ShutdownResult::Sent | ShutdownResult::Received) => Ok(()),
            Err(e) => Err(e.into_io_error().unwrap_or_else(io::Error::other)),
        }
    }
}

fn halves(stream: SslStream<TcpStream>) -> io::Result<(Reader, Writer)> {
    let socket = stream.get_ref().try_clone()?;
    socket.set_nonblocking(true)?;
    Ok(mutex::halves(stream, socket))
}

fn failed(error: HandshakeError<TcpStream>) -> io::Error {
    io::Error::other(error.to_string())
}
