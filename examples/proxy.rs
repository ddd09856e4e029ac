//! A proxy: TLS in front, TLS behind, any number of connections on one event loop. What it has to get right, in this order:
//! what it can't pass on it does not read, an end is passed on as an end and a cut as a cut, and nothing is left of a connection
//! that has ended.
//!
//! ```text
//! proxy                                                             shows itself: a client and a server, then the end
//! proxy 127.0.0.1:8443 example.com:443 --cert server.pem            takes what comes to the other side
//! curl --cacert ca.pem --connect-to ::127.0.0.1:8443 https://localhost/    a client for it
//! ```

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::thread;
use std::time::Duration;

use clap::Parser;
use socket2::{Domain, Socket, Type};
use sslfile::{Backend, Callbacks, Certificate, Context, Identity, SslFile, SslListener};

/// What one side may leave unread before we stop reading from the other. Below the send limit, beyond which nothing is taken.
const HIGH_WATER: usize = 64 * 1024;
/// A connection on which nothing moves for so long has ended.
const IDLE: Duration = Duration::from_secs(300);

/// Pass TLS connections on to another TLS server.
#[derive(Parser)]
struct Args {
    /// Where to listen. Without it: serves a client of its own, and ends.
    #[arg(value_name = "ADDRESS:PORT", requires = "target")]
    listen: Option<SocketAddr>,
    /// The server behind, whose certificate must be for this name.
    #[arg(value_name = "HOST:PORT")]
    target: Option<String>,
    /// Our certificate chain and private key, PEM. Without it one is made on the spot.
    #[arg(long, value_name = "FILE")]
    cert: Option<PathBuf>,
    /// The private key, PEM, if it is not in there.
    #[arg(long, value_name = "FILE", requires = "cert")]
    key: Option<PathBuf>,
    /// A root to trust for the server behind, PEM. Without it: the system's.
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
}

fn main() -> io::Result<()> {
    let args = Args::parse();
    let (identity, root) = match &args.cert {
        Some(cert) => (Identity::from_pem_files(cert, args.key.as_ref().unwrap_or(cert))?, None),
        None => {
            let made = rcgen::generate_simple_self_signed(["localhost".to_string()]).map_err(io::Error::other)?;
            let (chain, key) = (made.cert.pem(), made.signing_key.serialize_pem());
            let root = Certificate::from_pem(chain.as_bytes())?;
            (Identity::from_pem(chain.as_bytes(), key.as_bytes())?, Some(root))
        }
    };
    let server = Context::server(identity)?;
    let trusted = match &args.ca {
        Some(file) => Some(Certificate::from_pem(&std::fs::read(file)?)?),
        None => root,
    };
    let client = match trusted {
        Some(root) => Context::builder().system_roots(false).add_root(root).build()?,
        None => Context::client()?,
    };
    match (args.listen, args.target) {
        (Some(listen), Some(target)) => {
            let (host, _) = target.rsplit_once(':').ok_or(io::ErrorKind::InvalidInput)?;
            let addr = target.to_socket_addrs()?.next().ok_or(io::ErrorKind::NotFound)?;
            let (listener, backend) = (SslListener::bind(listen, &server)?, Backend::new()?);
            log(format_args!("listening on {}", listener.local_addr()?));
            let _pairs = serve(&listener, &backend, Target { context: client, name: host.to_string(), addr })?;
            backend.run()
        }
        _ => show(&server, &client),
    }
}

/// What is behind.
struct Target {
    context: Context,
    name: String,
    addr: SocketAddr,
}

/// The pairs that are connected. It owns them, and nobody else does: with it all of them go.
type Pairs = Arc<Mutex<HashMap<SocketAddr, Arc<Pair>>>>;

fn serve(listener: &SslListener, backend: &Backend, target: Target) -> io::Result<Pairs> {
    let pairs = Pairs::default();
    let joined = Arc::downgrade(&pairs);
    listener.set_error_callback(|_, error| drop(writeln!(io::stderr(), "{error}")));
    listener.set_accept_callback(backend, move |front, addr| {
        let Some(pairs) = joined.upgrade() else { return };
        match target.open(&front) {
            Ok(back) => Pair::join(&pairs, addr, [front, back]),
            Err(error) => {
                let _ = writeln!(io::stderr(), "{addr}: {error}");
                front.abort();
            }
        }
    })?;
    Ok(pairs)
}

impl Target {
    /// Begins to connect and returns: a loop must not wait. What is sent is kept until the handshake is done; if it fails, or the
    /// connection does, the close callback hears of it.
    fn open(&self, front: &SslFile) -> io::Result<SslFile> {
        let socket = Socket::new(Domain::for_address(self.addr), Type::STREAM, None)?;
        socket.set_nonblocking(true)?;
        match socket.connect(&self.addr.into()) {
            Err(e) if e.kind() != io::ErrorKind::WouldBlock && !is_in_progress(&e) => return Err(e),
            _ => {}
        }
        let back = SslFile::options().client(&self.name).nonblocking(true).open(socket.into(), &self.context)?;
        back.set_backend(front.backend().as_ref())?;
        Ok(back)
    }
}

fn is_in_progress(error: &io::Error) -> bool {
    error.raw_os_error() == Some(rustix::io::Errno::INPROGRESS.raw_os_error())
}

/// The client's connection and ours to the server.
struct Pair {
    sides: [SslFile; 2],
    /// One of them has ended.
    half: AtomicBool,
    addr: SocketAddr,
    pairs: Weak<Mutex<HashMap<SocketAddr, Arc<Pair>>>>,
}

impl Pair {
    fn join(pairs: &Pairs, addr: SocketAddr, sides: [SslFile; 2]) {
        let pair = Arc::new(Pair { sides, half: AtomicBool::new(false), addr, pairs: Arc::downgrade(pairs) });
        for (this, other) in [(0, 1), (1, 0)] {
            // A file owns its callbacks. If they owned the pair, each file would own itself.
            let weak = || Arc::downgrade(&pair);
            let (read, write, close) = (weak(), weak(), weak());
            let with = |pair: &Weak<Pair>, f: &dyn Fn(&Pair)| pair.upgrade().iter().for_each(|pair| f(pair));
            let callbacks = Callbacks::new()
                .on_read(move |_: &SslFile, data| with(&read, &|pair| pair.pass(this, other, data)))
                .on_write(move |_| with(&write, &|pair| pair.sides[other].pause_reading(false)))
                .on_close(move |_, end| with(&close, &|pair| pair.ended(other, &end)));
            let _ = pair.sides[this].set_read_timeout(Some(IDLE));
            let _ = pair.sides[this].set_write_timeout(Some(IDLE));
            pair.sides[this].set_callbacks(callbacks);
        }
        pairs.lock().unwrap().insert(addr, pair);
    }

    fn pass(&self, this: usize, other: usize, data: &[u8]) {
        // Why it can't be sent, the other's close callback is told.
        if self.sides[other].send(data).is_ok() {
            self.sides[this].pause_reading(self.sides[other].unsent() > HIGH_WATER);
        }
    }

    fn ended(&self, other: usize, end: &io::Result<()>) {
        match end {
            // It may still be waiting for its answer. That takes until both have ended.
            Ok(()) => {
                let _ = self.sides[other].shutdown(Shutdown::Write);
                if !self.half.swap(true, Ordering::Relaxed) {
                    return;
                }
            }
            // What is missing must not look like an end.
            Err(error) => {
                let _ = writeln!(io::stderr(), "{error}");
                self.sides[other].abort();
            }
        }
        // The last handles go. What was accepted and is unsent, the backend still sends.
        if let Some(pairs) = self.pairs.upgrade() {
            pairs.lock().unwrap().remove(&self.addr);
        }
    }
}

/// A line of the log. Whoever reads it may have gone: `println!` would panic then, on the loop and in everybody's stead.
fn log(line: impl std::fmt::Display) {
    let _ = writeln!(io::stdout(), "{line}");
}

/// A server that sends back what comes; a client that sends a megabyte, says that this was all, and wants it back.
fn show(server: &Context, client: &Context) -> io::Result<()> {
    let (echo, listener) = (SslListener::bind("127.0.0.1:0", server)?, SslListener::bind("127.0.0.1:0", server)?);
    let target = Target { context: client.clone(), name: "localhost".to_string(), addr: echo.local_addr()? };
    let (addr, backend) = (listener.local_addr()?, Backend::new()?);
    let pairs = serve(&listener, &backend, target)?;
    let stopper = backend.clone();
    let client = client.clone();
    let ends = thread::spawn(move || {
        let echo = thread::spawn(move || -> io::Result<()> {
            let (file, _) = echo.accept()?;
            io::copy(&mut &file, &mut &file)?;
            file.close()
        });
        let sent = vec![7; 1 << 20];
        let mut got = Vec::new();
        let file = SslFile::options().client("localhost").connect(addr, &client)?;
        thread::scope(|scope| {
            let writer = scope.spawn(|| (&file).write_all(&sent).and_then(|()| file.shutdown(Shutdown::Write)));
            (&file).read_to_end(&mut got)?;
            writer.join().expect("the writer does not panic")
        })?;
        echo.join().expect("the server does not panic")?;
        let verdict = if got == sent { "the same" } else { "CHANGED" };
        log(format_args!("{} bytes came back, {verdict}", got.len()));
        stopper.stop();
        if got == sent {
            Ok(())
        } else {
            Err(io::Error::other("the echo differs"))
        }
    });
    backend.run()?;
    log(format_args!("{} connections left", pairs.lock().unwrap().len()));
    ends.join().expect("the ends do not panic")
}
