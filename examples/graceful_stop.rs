//! A server that is told to stop, and finishes what it has begun: it takes no new connections, answers what was asked, ends
//! each connection behind its last answer, and, when the time is up, cuts what is left. It answers each line, half a second later.
//!
//! ```text
//! graceful_stop                                          shows itself: stops while it has three clients, then the end
//! graceful_stop 127.0.0.1:8443 --cert server.pem         serves until SIGTERM or SIGINT, and then as long as it takes
//! openssl s_client -quiet -connect 127.0.0.1:8443        a client for it
//! ```

use std::collections::HashMap;
use std::io::{self, BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use clap::Parser;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use sslfile::{Backend, Callbacks, Certificate, Context, Identity, SslFile, SslListener};

/// How long an answer takes.
const WORK: Duration = Duration::from_millis(500);
const LONGEST_LINE: usize = 4096;

/// Answer lines over TLS until told to stop, and then finish in good order.
#[derive(Parser)]
struct Args {
    /// Where to listen. Without it: serves clients of its own, and ends.
    #[arg(value_name = "ADDRESS:PORT")]
    listen: Option<SocketAddr>,
    /// Our certificate chain and private key, PEM. Without it one is made on the spot.
    #[arg(long, value_name = "FILE")]
    cert: Option<PathBuf>,
    /// The private key, PEM, if it is not in there.
    #[arg(long, value_name = "FILE", requires = "cert")]
    key: Option<PathBuf>,
    /// Seconds that stopping may take.
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    grace: u64,
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
    let listen = args.listen.unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 0)));
    let listener = SslListener::bind(listen, &Context::server(identity)?)?;
    let addr = listener.local_addr()?;
    let server = Arc::new(Server { backend: Backend::new()?, listener, clients: Mutex::default() });
    log(format_args!("listening on {addr}"));

    // A signal may come at any time; the rest happens on the loop.
    let (stop, stopping) = mpsc::channel();
    let mut signals = Signals::new([SIGTERM, SIGINT])?;
    let (stopper, backend) = (stop.clone(), server.backend.clone());
    thread::spawn(move || {
        for _ in signals.forever() {
            let _ = stopper.send(());
            backend.wake();
        }
    });
    let clients = match (args.listen, root) {
        (None, Some(root)) => Some(show(addr, root, stop, server.backend.clone())),
        _ => None,
    };
    server.run(&stopping, Duration::from_secs(args.grace))?;
    clients.map_or(Ok(()), |clients| clients.join().expect("the clients do not panic"))
}

struct Server {
    backend: Backend,
    listener: SslListener,
    clients: Mutex<Clients>,
}

#[derive(Default)]
struct Clients {
    stopping: bool,
    open: HashMap<SocketAddr, Client>,
}

struct Client {
    file: SslFile,
    /// What has come of a line.
    line: Vec<u8>,
    /// Answers that we owe.
    owed: usize,
}

impl Server {
    fn run(self: &Arc<Self>, stopping: &mpsc::Receiver<()>, grace: Duration) -> io::Result<()> {
        // Who is in the backend must not own it: the callbacks have the server only for as long as they are called.
        let weak = Arc::downgrade(self);
        self.listener.set_error_callback(|_, error| drop(writeln!(io::stderr(), "{error}")));
        self.listener.set_accept_callback(&self.backend, move |file, addr| {
            if let Some(server) = weak.upgrade() {
                server.accepted(file, addr);
            }
        })?;
        let mut until = None;
        loop {
            if until.is_none() && stopping.try_recv().is_ok() {
                log("stopping");
                until = Some(Instant::now() + grace);
                // What has come already was asked in time.
                self.backend.turn(Some(Duration::ZERO))?;
                self.stop();
            }
            let Some(end) = until else {
                self.backend.turn(None)?;
                continue;
            };
            // The listener leaves it with its last handshake, and a file when all that it has to send is on its way.
            if self.backend.is_empty() {
                log("all done");
                return Ok(());
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() || stopping.try_recv().is_ok() {
                let left = std::mem::take(&mut self.clients.lock().unwrap().open);
                log(format_args!("{} cut", left.len()));
                left.values().for_each(|client| client.file.abort());
                return Ok(());
            }
            self.backend.turn(Some(left))?;
        }
    }

    fn stop(&self) {
        // Takes who is in the system's queue already. Who comes later is refused, and goes to another server.
        self.listener.finish();
        let mut clients = self.clients.lock().unwrap();
        clients.stopping = true;
        // The others end behind their last answer.
        let idle: Vec<_> = clients.open.iter().filter(|(_, client)| client.owed == 0).map(|(addr, _)| *addr).collect();
        idle.iter().for_each(|addr| clients.close(addr));
    }

    fn accepted(self: &Arc<Self>, file: SslFile, addr: SocketAddr) {
        let (read, close) = (Arc::downgrade(self), Arc::downgrade(self));
        let callbacks = Callbacks::new()
            .on_read(move |_: &SslFile, data| {
                if let Some(server) = read.upgrade() {
                    server.read(addr, data);
                }
            })
            .on_close(move |_, end| {
                if let Err(error) = end {
                    let _ = writeln!(io::stderr(), "{error}");
                }
                if let Some(server) = close.upgrade() {
                    server.clients.lock().unwrap().open.remove(&addr);
                }
            });
        // Who is being accepted while we stop has a line to say, as its connection was there before; see `read`.
        self.clients.lock().unwrap().open.insert(addr, Client { file: file.clone(), line: Vec::new(), owed: 0 });
        file.set_callbacks(callbacks);
    }

    fn read(self: &Arc<Self>, addr: SocketAddr, data: &[u8]) {
        let mut clients = self.clients.lock().unwrap();
        let Some(client) = clients.open.get_mut(&addr) else { return };
        for &byte in data {
            match byte {
                b'\n' => {
                    let line = std::mem::take(&mut client.line);
                    client.owed += 1;
                    log(format_args!("{addr}: {:?}", String::from_utf8_lossy(&line)));
                    let server = Arc::downgrade(self);
                    // As if there was something to work out, in another thread perhaps.
                    self.backend.call_out(WORK, move || {
                        if let Some(server) = server.upgrade() {
                            server.answer(addr, &line);
                        }
                    });
                }
                _ => client.line.push(byte),
            }
        }
        if client.line.len() > LONGEST_LINE {
            client.file.abort();
        }
    }

    fn answer(&self, addr: SocketAddr, line: &[u8]) {
        let mut clients = self.clients.lock().unwrap();
        let stopping = clients.stopping;
        let Some(client) = clients.open.get_mut(&addr) else { return };
        client.owed -= 1;
        // If it does not go, the close callback is told why.
        let _ = client.file.send(&[b"you said ", line, b"\n"].concat());
        if stopping && client.owed == 0 {
            clients.close(&addr);
        }
    }
}

impl Clients {
    /// Behind what is unsent, with close_notify. The backend sees to it; the close callback comes when it is done.
    fn close(&mut self, addr: &SocketAddr) {
        if let Some(client) = self.open.get(addr) {
            let _ = client.file.close();
        }
    }
}

/// A line of the log. Whoever reads it may have gone: `println!` would panic then, on the loop and in everybody's stead.
fn log(line: impl std::fmt::Display) {
    let _ = writeln!(io::stdout(), "{line}");
}

/// Three clients: one that says nothing, one that has asked something when the server is told to stop, and one that comes too late.
fn show(
    addr: SocketAddr,
    root: Certificate,
    stop: mpsc::Sender<()>,
    backend: Backend,
) -> thread::JoinHandle<io::Result<()>> {
    thread::spawn(move || {
        let context = Context::builder().system_roots(false).add_root(root).build()?;
        let connect = || SslFile::options().client("localhost").connect(addr, &context);
        let (idle, mut asking) = (connect()?, connect()?);
        asking.write_all(b"one\ntwo\n")?;
        let mut answers = BufReader::new(&asking).lines();
        log(format_args!("client: {}", answers.next().ok_or(io::ErrorKind::UnexpectedEof)??));
        (&asking).write_all(b"three\n")?;
        stop.send(()).expect("the server is there");
        backend.wake();
        for answer in answers {
            log(format_args!("client: {}", answer?));
        }
        log(format_args!("the other client: {:?}", BufReader::new(&idle).lines().next()));
        match connect() {
            Ok(_) => Err(io::Error::other("a connection after the end")),
            Err(error) => {
                log(format_args!("too late: {error}"));
                Ok(())
            }
        }
    })
}
