//! Echo servers of one thread.

use std::future::Future;
use std::io;
use std::net::TcpListener;
use std::sync::Arc;

use sslfile::{Backend, Context, Engine, Identity, SslListener};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::certs::certs;
use crate::load::REQUEST;
#[cfg(feature = "native-tls")]
use crate::raw_native;
#[cfg(feature = "openssl")]
use crate::raw_openssl;
use crate::{cores, http, pin, raw_rustls};

/// A kind of server. It serves for ever. For what it is started with a number, which for echo servers is the size of a
/// connection's buffer, where they need one.
pub struct Kind {
    pub name: &'static str,
    /// The one it is compared with: of the same TLS library.
    pub raw: Option<&'static str>,
    engine: Option<Engine>,
    serve: fn(TcpListener, usize) -> io::Result<()>,
}

/// Those that are compared stand side by side.
const KINDS: &[Kind] = &[
    #[cfg(feature = "native-tls")]
    Kind::peer("tokio-native-tls", tokio_native_tls),
    Kind::ours("ours-native", "tokio-native-tls", Engine::Native, |listener, _| ours(listener, Engine::Native)),
    #[cfg(feature = "openssl")]
    Kind::peer("tokio-openssl", tokio_openssl),
    Kind::ours("ours-openssl", "tokio-openssl", Engine::OpenSsl, |listener, _| ours(listener, Engine::OpenSsl)),
    Kind::peer("tokio-rustls", tokio_rustls),
    Kind::ours("ours-rustls", "tokio-rustls", Engine::Rustls, |listener, _| ours(listener, Engine::Rustls)),
];

/// No TLS at all: what TLS terminators stand in front of.
pub const PLAIN: &Kind = &Kind::peer("plain", plain);

impl Kind {
    pub const fn peer(name: &'static str, serve: fn(TcpListener, usize) -> io::Result<()>) -> Kind {
        Kind { name, raw: None, engine: None, serve }
    }

    pub const fn ours(
        name: &'static str,
        raw: &'static str,
        engine: Engine,
        serve: fn(TcpListener, usize) -> io::Result<()>,
    ) -> Kind {
        Kind { name, raw: Some(raw), engine: Some(engine), serve }
    }

    pub fn serve(&self, listener: TcpListener, parameter: usize) -> io::Result<()> {
        (self.serve)(listener, parameter)
    }

    /// The name of those that it is compared with.
    pub fn family(&self) -> &'static str {
        self.raw.unwrap_or(self.name)
    }
}

/// All echo servers that were built, in the order in which they are measured.
pub fn all() -> Vec<&'static Kind> {
    built(KINDS)
}

pub fn built(kinds: &'static [Kind]) -> Vec<&'static Kind> {
    kinds.iter().filter(|kind| kind.engine.is_none_or(Engine::is_available)).collect()
}

/// Those with these names; all if there is no name.
pub fn chosen(kinds: Vec<&'static Kind>, names: &[String]) -> io::Result<Vec<&'static Kind>> {
    let find = |name: &String| {
        kinds.iter().copied().find(|kind| kind.name == *name).ok_or_else(|| {
            let all: Vec<_> = kinds.iter().map(|kind| kind.name).collect();
            let text = format!("no server {name:?}; there are {}", all.join(", "));
            io::Error::new(io::ErrorKind::InvalidInput, text)
        })
    };
    match names.is_empty() {
        true => Ok(kinds),
        false => names.iter().map(find).collect(),
    }
}

/// Of whatever sort.
pub fn find(name: &str) -> io::Result<&'static Kind> {
    let all = [all(), vec![PLAIN], http::kinds(), cores::kinds()].concat();
    chosen(all, &[name.to_string()]).map(|found| found[0])
}

fn ours(listener: TcpListener, engine: Engine) -> io::Result<()> {
    let backend = Backend::new()?;
    let listener = SslListener::from_tcp(listener, &context(engine)?)?;
    listener.set_accept_callback(&backend, |file, _| {
        // A client that has gone already is its own affair.
        let _ = file.set_nodelay(true);
        file.set_read_callback(|file, data| {
            if let Err(e) = file.send(data) {
                eprintln!("a message is lost: {e}");
            }
        });
        file.keep();
    })?;
    backend.run()
}

/// A server that leaves version and suite to its client.
pub fn context(engine: Engine) -> io::Result<Context> {
    let identity = Identity::from_pem(certs().leaf.as_bytes(), certs().key.as_bytes())?;
    Context::builder().engine(engine).identity(identity).build()
}

fn plain(listener: TcpListener, _: usize) -> io::Result<()> {
    // It shares the load generator's processor, and leaves the other one to the terminator.
    pin::client();
    let content: Arc<[u8]> = vec![b'x'; 1 << 20].into();
    tokio_server(listener, move |tcp| answer(tcp, content.clone()))
}

#[cfg(feature = "native-tls")]
fn tokio_native_tls(listener: TcpListener, buffer: usize) -> io::Result<()> {
    let acceptor = tokio_native_tls::TlsAcceptor::from(raw_native::acceptor().map_err(io::Error::other)?);
    tokio_server(listener, move |tcp| {
        let acceptor = acceptor.clone();
        async move { echo(acceptor.accept(tcp).await.map_err(io::Error::other)?, buffer).await }
    })
}

#[cfg(feature = "openssl")]
fn tokio_openssl(listener: TcpListener, buffer: usize) -> io::Result<()> {
    let acceptor = raw_openssl::any_suite()?;
    tokio_server(listener, move |tcp| {
        let acceptor = acceptor.clone();
        async move { echo(raw_openssl::accept(&acceptor, tcp).await?, buffer).await }
    })
}

fn tokio_rustls(listener: TcpListener, buffer: usize) -> io::Result<()> {
    let acceptor = tokio_rustls::TlsAcceptor::from(raw_rustls::any_suite()?);
    tokio_server(listener, move |tcp| {
        let acceptor = acceptor.clone();
        async move { echo(acceptor.accept(tcp).await?, buffer).await }
    })
}

/// A task for each connection, in one thread.
pub fn tokio_server<F>(listener: TcpListener, serve: impl Fn(tokio::net::TcpStream) -> F) -> io::Result<()>
where
    F: Future<Output = io::Result<()>> + Send + 'static,
{
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        listener.set_nonblocking(true)?;
        let listener = tokio::net::TcpListener::from_std(listener)?;
        loop {
            let (tcp, _) = listener.accept().await?;
            tcp.set_nodelay(true)?;
            // How a connection ends is its own affair.
            tokio::spawn(serve(tcp));
        }
    })
}

/// Requests with a size in front get so much; others come back as they are.
async fn answer(mut tcp: tokio::net::TcpStream, content: Arc<[u8]>) -> io::Result<()> {
    let mut request = [0; REQUEST];
    while tcp.read_exact(&mut request).await? > 0 {
        let digits = request.iter().take_while(|byte| byte.is_ascii_digit());
        match digits.fold(0, |size, digit| size * 10 + usize::from(digit - b'0')) {
            0 => tcp.write_all(&request).await?,
            size => tcp.write_all(&content[..size.min(content.len())]).await?,
        }
    }
    Ok(())
}

async fn echo(mut tls: impl AsyncRead + AsyncWrite + Unpin, buffer: usize) -> io::Result<()> {
    let mut buffer = vec![0; buffer];
    loop {
        match tls.read(&mut buffer).await? {
            0 => return tls.shutdown().await,
            n => {
                tls.write_all(&buffer[..n]).await?;
                tls.flush().await?;
            }
        }
    }
}
