//! TLS in front of any TCP port: one event loop per core, callbacks, no thread per connection.
//!
//! ```text
//! terminator 0.0.0.0:443 127.0.0.1:8080 --cert server.pem --key server.key
//! python3 -m http.server 8080                             something to stand in front of
//! curl --cacert server.pem https://localhost/             somebody who calls
//! kill -HUP $PID                                          reads the certificate anew; connections live on
//! kill $PID                                               accepts no more, and ends with the last connection
//! ```

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use clap::Parser;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use socket2::{Domain, Socket, Type};
use sslfile::{Backend, Callbacks, Context, Identity, PlainFile, SslFile, SslListener};

/// What one side may leave unread before the other is not read from any more.
const HIGH_WATER: usize = 128 * 1024;

/// Take TLS connections, and pass what they say to a plain TCP port.
#[derive(Parser)]
#[command(max_term_width = 100)]
struct Args {
    /// Where to listen.
    #[arg(value_name = "LISTEN:PORT")]
    listen: SocketAddr,
    /// Whom to stand in front of.
    #[arg(value_name = "TARGET:PORT")]
    target: String,
    /// Our certificate chain, PEM, our own first. Read again on SIGHUP.
    #[arg(long, value_name = "FILE")]
    cert: PathBuf,
    /// Its private key, PEM [default: in the --cert file].
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// Event loops [default: one per core].
    #[arg(long, value_name = "NUMBER")]
    loops: Option<NonZeroUsize>,
    /// Seconds between two lines of statistics; 0: none.
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    stats: u64,
    /// Seconds that connections are given after SIGTERM or SIGINT. A second signal ends at once.
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    grace: u64,
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("terminator: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> io::Result<()> {
    let key = args.key.as_deref().unwrap_or(&args.cert);
    let context = load(&args.cert, key)?;
    let target = resolve(&args.target)?;
    let loops = args.loops.or(thread::available_parallelism().ok()).map_or(1, NonZeroUsize::get);
    let stats = Arc::new(Stats::default());
    let mut signals = Signals::new([SIGHUP, SIGINT, SIGTERM])?;

    let (mut listeners, mut backends, mut threads) = (Vec::new(), Vec::new(), Vec::new());
    let mut addr = args.listen;
    for _ in 0..loops {
        let listener = SslListener::from_tcp(share_port(addr)?, &context)?;
        // Port 0 is chosen once.
        addr = listener.local_addr()?;
        let backend = Backend::new()?;
        serve(&listener, &backend, target, &stats)?;
        let runner = backend.clone();
        threads.push(thread::spawn(move || runner.run()));
        listeners.push(listener);
        backends.push(backend);
    }
    println!("listening on {addr}, for {target}, {loops} loops");

    let interval = Duration::from_secs(args.stats);
    let (mut stopping, mut next_line) = (None, Instant::now() + interval);
    loop {
        thread::sleep(Duration::from_millis(50));
        for signal in signals.pending() {
            match (signal, stopping) {
                (SIGHUP, _) => match load(&args.cert, key) {
                    Ok(context) => {
                        listeners.iter().for_each(|listener| listener.set_context(&context));
                        println!("new certificate");
                    }
                    Err(error) => eprintln!("the old certificate stays: {error}"),
                },
                (_, None) => {
                    listeners.iter().for_each(SslListener::close);
                    stopping = Some(Instant::now());
                    println!("stopping");
                }
                (_, Some(_)) => stopping = Some(Instant::now() - Duration::from_secs(args.grace)),
            }
        }
        if args.stats > 0 && Instant::now() >= next_line {
            println!("{}", stats.line());
            next_line += interval;
        }
        let is_over = |since: Instant| stats.live() == 0 || since.elapsed() >= Duration::from_secs(args.grace);
        if stopping.is_some_and(is_over) {
            break;
        }
    }
    backends.iter().for_each(Backend::stop);
    for thread in threads {
        thread.join().unwrap_or_else(|_| Err(io::Error::other("an event loop panicked")))?;
    }
    println!("{}", stats.line());
    Ok(())
}

/// A bad pair shows here, and not when a client comes.
fn load(cert: &Path, key: &Path) -> io::Result<Context> {
    let identity = Identity::from_pem_files(cert, key)?;
    Context::server(identity)
}

fn resolve(target: &str) -> io::Result<SocketAddr> {
    let found = target.to_socket_addrs()?.next();
    found.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, format!("{target} has no address")))
}

/// A listener for each loop on one port; the system spreads the connections.
fn share_port(addr: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.bind(&addr.into())?;
    socket.listen(1024)?;
    Ok(socket.into())
}

fn serve(listener: &SslListener, backend: &Backend, target: SocketAddr, stats: &Arc<Stats>) -> io::Result<()> {
    let failed = stats.clone();
    listener.set_error_callback(move |_, error| {
        failed.failed.fetch_add(1, Ordering::Relaxed);
        eprintln!("{error}");
    });
    // Without a handle on it: the backend must not hold itself.
    let stats = stats.clone();
    listener.set_accept_callback(backend, move |client, addr| {
        if let Err(error) = Pair::join(client, target, &stats) {
            eprintln!("{addr}: {target}: {error}");
        }
    })
}

/// A client and its connection to the target. The callbacks of each own the other; both are taken, and so dropped, at the end.
struct Pair {
    stats: Arc<Stats>,
    /// Directions that have not ended.
    open: AtomicU64,
}

impl Pair {
    fn join(client: SslFile, target: SocketAddr, stats: &Arc<Stats>) -> io::Result<()> {
        let upstream = PlainFile::new(connect(target)?);
        upstream.set_backend(client.backend().as_ref())?;
        stats.accepted.fetch_add(1, Ordering::Relaxed);
        let pair = Arc::new(Pair { stats: stats.clone(), open: AtomicU64::new(2) });

        let (reads, closes) = (pair.clone(), pair.clone());
        let (to, from) = (upstream.clone(), upstream.clone());
        client.set_callbacks(
            Callbacks::new()
                .on_read(move |client: &SslFile, data| {
                    reads.stats.received.fetch_add(data.len() as u64, Ordering::Relaxed);
                    // An error comes to the close callback; if that has been called before, this is the end.
                    if to.send(data).is_err() && reads.open.load(Ordering::Relaxed) == 1 {
                        return reads.part(client, &to);
                    }
                    if to.unsent() > HIGH_WATER {
                        client.pause_reading(true);
                        // There while it is needed, as it is called after every message. None of these is being called now.
                        let paused = client.clone();
                        to.set_callbacks(to.take_callbacks().on_write(move |upstream: &PlainFile| {
                            paused.pause_reading(false);
                            // All but this one.
                            upstream.set_callbacks(upstream.take_callbacks());
                        }));
                    }
                })
                .on_close(move |client, end| closes.client_ended(client, &from, end)),
        );
        let (reads, closes) = (pair.clone(), pair);
        let (to, from) = (client.clone(), client);
        upstream.set_callbacks(
            Callbacks::new()
                .on_read(move |upstream: &PlainFile, data| {
                    reads.stats.sent.fetch_add(data.len() as u64, Ordering::Relaxed);
                    if to.send(data).is_err() && reads.open.load(Ordering::Relaxed) == 1 {
                        return reads.part(&to, upstream);
                    }
                    if to.unsent() > HIGH_WATER {
                        upstream.pause_reading(true);
                        let paused = upstream.clone();
                        to.set_write_callback(move |client| {
                            paused.pause_reading(false);
                            client.clear_write_callback();
                        });
                    }
                })
                .on_close(move |upstream, end| closes.upstream_ended(&from, upstream, end)),
        );
        Ok(())
    }

    fn client_ended(&self, client: &SslFile, upstream: &PlainFile, end: io::Result<()>) {
        match end {
            // It may still be waiting for its answer.
            Ok(()) => drop(upstream.shutdown(std::net::Shutdown::Write)),
            Err(_) => return self.part(client, upstream),
        }
        self.direction_ended(client, upstream);
    }

    fn upstream_ended(&self, client: &SslFile, upstream: &PlainFile, end: io::Result<()>) {
        match end {
            Ok(()) => drop(client.shutdown(std::net::Shutdown::Write)),
            Err(error) => {
                // What is missing must not look like an end: no close_notify.
                eprintln!("the target: {error}");
                let _ = client.get_ref().shutdown(std::net::Shutdown::Both);
                return self.part(client, upstream);
            }
        }
        self.direction_ended(client, upstream);
    }

    fn direction_ended(&self, client: &SslFile, upstream: &PlainFile) {
        if self.open.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.part(client, upstream);
        }
    }

    /// What is unsent the backend still sends.
    fn part(&self, client: &SslFile, upstream: &PlainFile) {
        self.stats.ended.fetch_add(1, Ordering::Relaxed);
        // The close callbacks of the other side would find nothing to do.
        drop((client.take_callbacks(), upstream.take_callbacks()));
    }
}

/// Begins to connect: what is sent waits until that is done, and a failure is the end of the stream.
fn connect(target: SocketAddr) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(target), Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    match socket.connect(&target.into()) {
        Err(e) if e.raw_os_error() != Some(rustix::io::Errno::INPROGRESS.raw_os_error()) => Err(e),
        _ => Ok(socket.into()),
    }
}

#[derive(Default)]
struct Stats {
    accepted: AtomicU64,
    ended: AtomicU64,
    failed: AtomicU64,
    received: AtomicU64,
    sent: AtomicU64,
}

impl Stats {
    fn live(&self) -> u64 {
        self.accepted.load(Ordering::Relaxed).saturating_sub(self.ended.load(Ordering::Relaxed))
    }

    fn line(&self) -> String {
        format!(
            "{} live, {} in all, {} failed handshakes, {} bytes from clients, {} to them",
            self.live(),
            self.accepted.load(Ordering::Relaxed),
            self.failed.load(Ordering::Relaxed),
            self.received.load(Ordering::Relaxed),
            self.sent.load(Ordering::Relaxed),
        )
    }
}
