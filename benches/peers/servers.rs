//! Echo servers of one thread, each in a process of its own: this program again, with `--serve`.

use std::fs;
use std::future::Future;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use sslfile::{Backend, Context, Engine, Identity, SslListener};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::certs::certs;
use crate::load::REQUEST;
use crate::pin::{self, Pin};
#[cfg(feature = "native-tls")]
use crate::raw_native;
use crate::raw_rustls;

/// A kind of server. It serves for ever, and a connection's buffer, where it needs one, has the given size.
pub struct Kind {
    pub name: &'static str,
    /// The one it is compared with: of the same TLS library.
    pub raw: Option<&'static str>,
    serve: fn(TcpListener, usize) -> io::Result<()>,
    engine: Option<Engine>,
}

/// Those that are compared stand side by side.
const KINDS: &[Kind] = &[
    #[cfg(feature = "native-tls")]
    Kind { name: "tokio-native-tls", raw: None, serve: tokio_native_tls, engine: None },
    Kind {
        name: "ours-native",
        raw: Some("tokio-native-tls"),
        serve: |listener, _| ours(listener, Engine::Native),
        engine: Some(Engine::Native),
    },
    Kind {
        name: "ours-openssl",
        raw: Some("tokio-native-tls"),
        serve: |listener, _| ours(listener, Engine::OpenSsl),
        engine: Some(Engine::OpenSsl),
    },
    Kind { name: "tokio-rustls", raw: None, serve: tokio_rustls, engine: None },
    Kind {
        name: "ours-rustls",
        raw: Some("tokio-rustls"),
        serve: |listener, _| ours(listener, Engine::Rustls),
        engine: Some(Engine::Rustls),
    },
];

/// No TLS at all: what TLS terminators stand in front of.
pub const PLAIN: Kind = Kind { name: "plain", raw: None, serve: plain, engine: None };

impl Kind {
    /// All that were built, in the order in which they are measured.
    pub fn all() -> Vec<&'static Kind> {
        KINDS.iter().filter(|kind| kind.engine.is_none_or(Engine::is_available)).collect()
    }

    pub fn find(name: &str) -> io::Result<&'static Kind> {
        Kind::all().into_iter().find(|kind| kind.name == name).ok_or_else(|| {
            let names: Vec<_> = Kind::all().iter().map(|kind| kind.name).collect();
            let text = format!("no server {name:?}; there are {}", names.join(", "));
            io::Error::new(io::ErrorKind::InvalidInput, text)
        })
    }
}

/// A server's process, which ends with this.
pub struct Server {
    pub addr: SocketAddr,
    child: Child,
}

/// What a server has used up to now.
#[derive(Clone, Copy)]
pub struct Usage {
    /// Processor time of the serving thread, in the kernel and outside.
    pub cpu: Duration,
    /// How often that thread went to sleep.
    pub sleeps: u64,
    /// Memory of the process, in bytes.
    pub resident: u64,
}

impl Server {
    pub fn start(kind: &Kind, buffer: usize) -> io::Result<Server> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["--serve", kind.name, "--buffer", &buffer.to_string()]);
        let mut child = pin::spawn(command.stdin(Stdio::piped()).stdout(Stdio::piped()))?;
        let mut line = String::new();
        if let Some(out) = child.stdout.take() {
            BufReader::new(out).read_line(&mut line)?;
        }
        match line.trim().parse() {
            Ok(addr) => Ok(Server { addr, child }),
            Err(_) => {
                child.wait()?;
                Err(io::Error::other(format!("{} did not start", kind.name)))
            }
        }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn usage(&self) -> io::Result<Usage> {
        usage(self.pid())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Of a process whose main thread does the work. Linux tells.
pub fn usage(pid: u32) -> io::Result<Usage> {
    let field = |text: &str, name: &str| -> io::Result<u64> {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        let number = line.and_then(|rest| rest.split_whitespace().next()).and_then(|word| word.parse().ok());
        number.ok_or_else(|| io::Error::other(format!("/proc does not tell {name:?}")))
    };
    let schedule = fs::read_to_string(format!("/proc/{pid}/task/{pid}/schedstat"))?;
    let thread = fs::read_to_string(format!("/proc/{pid}/task/{pid}/status"))?;
    let process = fs::read_to_string(format!("/proc/{pid}/status"))?;
    Ok(Usage {
        cpu: Duration::from_nanos(field(&schedule, "")?),
        sleeps: field(&thread, "voluntary_ctxt_switches:")?,
        resident: field(&process, "VmRSS:")? * 1024,
    })
}

/// The server's process: says where it listens, and ends when its standard input does.
pub fn serve(kind: &Kind, buffer: usize) -> io::Result<()> {
    pin::set(Pin::Apart);
    thread::spawn(|| {
        let _ = io::stdin().read_to_end(&mut Vec::new());
        std::process::exit(0);
    });
    pin::server();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    println!("{}", listener.local_addr()?);
    io::stdout().flush()?;
    (kind.serve)(listener, buffer)
}

fn ours(listener: TcpListener, engine: Engine) -> io::Result<()> {
    let identity = Identity::from_pem(certs().leaf.as_bytes(), certs().key.as_bytes())?;
    let context = Context::builder().engine(engine).identity(identity).build()?;
    let backend = Backend::new()?;
    let listener = SslListener::from_tcp(listener, &context)?;
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

fn tokio_rustls(listener: TcpListener, buffer: usize) -> io::Result<()> {
    let acceptor = tokio_rustls::TlsAcceptor::from(raw_rustls::any_suite()?);
    tokio_server(listener, move |tcp| {
        let acceptor = acceptor.clone();
        async move { echo(acceptor.accept(tcp).await?, buffer).await }
    })
}

fn tokio_server<F>(listener: TcpListener, serve: impl Fn(tokio::net::TcpStream) -> F) -> io::Result<()>
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
