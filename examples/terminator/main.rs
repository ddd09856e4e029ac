//! TLS in front of any TCP port: one event loop per core, callbacks, no thread per connection.
//!
//! ```text
//! terminator 0.0.0.0:443 127.0.0.1:8080 --cert server.pem --key server.key
//! python3 -m http.server 8080                             something to stand in front of
//! curl --cacert server.pem https://localhost/             somebody who calls
//! kill -HUP $PID                                          reads the certificates anew; connections live on
//! kill $PID                                               takes no more, and ends with the last connection
//! ```

mod front;
mod log;
mod pair;
mod proxy;
mod target;

use std::io;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use clap::Parser;
use rustix::process::{getrlimit, setrlimit, Resource, Rlimit};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use sslfile::Backend;

use front::Front;
use pair::Gate;
use target::Target;

/// Take TLS connections, and pass what they say to a plain TCP port.
#[derive(Parser)]
#[command(max_term_width = 100)]
struct Args {
    /// Where to listen.
    #[arg(value_name = "LISTEN:PORT")]
    listen: SocketAddr,
    /// Whom to stand in front of. All addresses of a name are tried.
    #[arg(value_name = "TARGET:PORT")]
    target: String,
    /// Our certificate chain, PEM, our own first. Read again on SIGHUP.
    #[arg(long, value_name = "FILE")]
    cert: PathBuf,
    /// Its private key, PEM [default: in the --cert file].
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// More certificates, each with its key, for clients that ask for a name (SNI): NAME.pem, or '*.NAME.pem'.
    #[arg(long, value_name = "FOLDER")]
    certs: Option<PathBuf>,
    /// Only clients with a certificate that one of these has issued, PEM.
    #[arg(long, value_name = "FILE")]
    client_ca: Option<PathBuf>,
    /// What the target speaks, best first, for ALPN: h2,http/1.1 for instance.
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    alpn: Vec<String>,
    /// Tell the target who the client is, by a PROXY header.
    #[arg(long, value_name = "VERSION", value_parser = ["v1", "v2"])]
    send_proxy: Option<String>,
    /// Take only connections that begin with a PROXY header, of either version, from a proxy before us.
    #[arg(long)]
    accept_proxy: bool,
    /// Seconds for connecting to each address of the target.
    #[arg(long, value_name = "SECONDS", default_value_t = 5)]
    connect_timeout: u64,
    /// Seconds after which a connection ends on which nothing moves; 0: never.
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    idle: u64,
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
    let args = Args::parse();
    std::panic::set_hook(Box::new(|panic| log::error(panic)));
    let result = run(&args).inspect_err(|error| log::error(error));
    log::flush();
    ExitCode::from(u8::from(result.is_err()))
}

fn run(args: &Args) -> io::Result<()> {
    // Each connection takes two descriptors, and the soft limit is often 1024, for the sake of programs with `select`.
    let limit = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }) {
        log::warn(format_args!("the limit of descriptors stays: {error}"));
    }
    let target = Target::new(&args.target, Duration::from_secs(args.connect_timeout))?;
    let loops = args.loops.or(thread::available_parallelism().ok()).map_or(1, NonZeroUsize::get);
    let (send_proxy, idle) = (args.send_proxy.clone(), Duration::from_secs(args.idle));
    let gate = Arc::new(Gate { target, send_proxy, idle, stats: Default::default() });
    let mut signals = Signals::new([SIGHUP, SIGINT, SIGTERM])?;
    let backends = (0..loops).map(|_| Backend::new()).collect::<io::Result<Vec<_>>>()?;
    let front = Front::open(args, &backends, &gate)?;
    let run = |backend: Backend| thread::spawn(move || backend.run());
    let mut threads: Vec<_> = backends.iter().cloned().map(run).collect();
    log::info(format_args!("listening on {}, for {}, {loops} loops", front.addr, args.target));

    // What is being accepted, what is being sent: all are in there.
    let is_over = |until| backends.iter().all(Backend::is_empty) && front.is_finished() || Instant::now() >= until;
    let (mut until, mut told) = (None, Instant::now());
    while !until.is_some_and(is_over) {
        thread::sleep(Duration::from_millis(50));
        for signal in signals.pending() {
            match (signal, until) {
                (SIGHUP, _) => match front.renew(args) {
                    Ok(()) => log::info("new certificates"),
                    Err(error) => log::warn(format_args!("the old certificates stay: {error}")),
                },
                (_, None) => {
                    log::info("stopping");
                    front.finish();
                    until = Some(Instant::now() + Duration::from_secs(args.grace));
                }
                (_, Some(_)) => until = Some(Instant::now()),
            }
        }
        if args.stats > 0 && told.elapsed().as_secs() >= args.stats {
            log::info(gate.stats.line());
            told = Instant::now();
        }
        // Its clients would hang, and half of the others not be served. Whoever started us can do that again.
        if let Some(ended) = threads.iter().position(JoinHandle::is_finished) {
            return Err(io::Error::other(format!("an event loop has ended: {:?}", threads.swap_remove(ended).join())));
        }
        if args.accept_proxy && front.is_finished() && until.is_none() {
            return Err(io::Error::other("nobody accepts any more"));
        }
    }
    log::info(gate.stats.line());
    Ok(())
}
