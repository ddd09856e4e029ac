//! Peers and `sslfile` in turn, in one process, over loopback. README.md in the folder above says how to read the figures.
//!
//! `cargo bench -p sslfile-benches -- --help`

#[cfg(feature = "openssl")]
mod accept;
mod callgrind;
mod cases;
mod certs;
mod cores;
mod dial;
mod echo;
mod ends;
mod http;
mod http_load;
mod instructions;
mod limits;
mod load;
mod mutex;
mod ours;
mod peer;
mod pin;
mod plain;
mod process;
#[cfg(feature = "native-tls")]
mod raw_native;
#[cfg(feature = "openssl")]
mod raw_openssl;
mod raw_rustls;
mod report;
mod samples;
mod scale;
mod servers;
mod syscalls;
mod terminators;
mod timers;

use std::env;
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread;
use std::time::Duration;

use clap::Parser;

use cases::{Case, Sample, CASES};
use peer::Peer;
use pin::Pin;
use report::Row;
use servers::Kind;
use syscalls::Counter;

/// Speed of TLS streams: peers and sslfile in turn, over loopback.
#[derive(Parser)]
#[command(bin_name = "cargo bench -p sslfile-benches --")]
struct Args {
    /// How often everything is measured [default: 9, with --quick or --syscalls 3]
    #[arg(long)]
    rounds: Option<usize>,
    /// Echo servers of one thread on 1, 100 and 1,000 connections; with --syscalls: their calls
    #[arg(long, group = "mode")]
    echo: bool,
    /// New connections a second, with full and with resumed handshakes
    #[cfg(feature = "openssl")]
    #[arg(long, group = "mode")]
    accept: bool,
    /// HTTP/1.1 servers with connections that stay open, and nginx, if it is installed; needs wrk
    #[arg(long, group = "mode")]
    http: bool,
    /// A backend on each processor beside one for all, and what a moved connection costs
    #[arg(long, group = "mode")]
    cores: bool,
    /// What idle time-outs cost a turn of a backend
    #[arg(long, group = "mode")]
    timers: bool,
    /// Instructions and allocations of a small read, a small write and a new connection, our own and the engine's; needs
    /// valgrind
    #[arg(long, group = "mode")]
    instructions: bool,
    /// Memory of echo servers for each idle connection
    #[arg(long, group = "mode")]
    memory: bool,
    /// Echo servers with 10,000 connections that speak now and then
    #[arg(long, group = "mode")]
    scale: bool,
    /// The example `terminator` beside stunnel and hitch, as far as they are installed
    #[arg(long, group = "mode")]
    terminators: bool,
    /// How many connections; for --echo [default: 1, 100 and 1000], --accept, at once [default: 32], --http [default: 64],
    /// --memory [default: 2000], --scale [default: 10000], --terminators [default: 1000], --cores [default: 100], and timers for
    /// --timers [default: 1000, 10000 and 100000]
    #[arg(long, requires = "mode")]
    connections: Option<usize>,
    /// Cases to measure, separated by commas [default: all]
    #[arg(long, value_delimiter = ',', value_name = "NAME")]
    cases: Vec<String>,
    /// Peers to measure; `a+b` has the client of one and the server of another [default: all]
    #[arg(long, value_delimiter = ',', value_name = "NAME")]
    peers: Vec<String>,
    /// A quarter of the work and fewer rounds
    #[arg(long)]
    quick: bool,
    /// Where the two ends run [default: what suits the case]
    #[arg(long, value_enum)]
    pin: Option<Pin>,
    /// Write every measurement, or with --syscalls every count, to this file
    #[arg(long, value_name = "FILE")]
    csv: Option<PathBuf>,
    /// Count system calls instead of measuring time [default: with strace]
    #[arg(long, value_enum, value_name = "WITH", num_args = 0..=1, require_equals = true, default_missing_value = "strace")]
    syscalls: Option<Counter>,
    /// One measurement of one peer and one case, for profilers
    #[arg(long, value_name = "PEER:CASE")]
    one: Option<String>,
    /// How much, in bytes, trips, handshakes or, for echo servers, milliseconds; goes with --one
    #[arg(long, requires = "one")]
    amount: Option<u64>,
    /// A server's process
    #[arg(long, hide = true)]
    serve: Option<String>,
    #[arg(long, hide = true, requires = "serve", default_value_t = 1024)]
    parameter: usize,
    /// Names of peers and cases
    #[arg(long)]
    list: bool,
    /// What cargo adds
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> ExitCode {
    if let Err(e) = leave_package_folder() {
        eprintln!("error: {e}");
        return ExitCode::FAILURE;
    }
    // `cargo test` starts benches too, with arguments meant for tests: show in a moment that everything runs.
    let measures = env::args().any(|arg| ["--bench", "--one", "--serve"].contains(&&*arg));
    let done = if measures { run(Args::parse()) } else { smoke() };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("error: {e}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: Args) -> io::Result<()> {
    limits::raise();
    if let Some(pin) = args.pin {
        pin::override_all(pin);
    }
    if args.list {
        println!("peers: {}", Peer::names().join(" "));
        println!("cases: {}", CASES.iter().map(|case| case.name).collect::<Vec<_>>().join(" "));
        let names = |kinds: Vec<&'static Kind>| kinds.iter().map(|kind| kind.name).collect::<Vec<_>>().join(" ");
        println!("echo servers: {}", names(servers::all()));
        println!("HTTP servers: nginx {}", names(http::kinds()));
        println!("servers on several processors: {}", names(cores::kinds()));
        return Ok(());
    }
    if let Some(name) = &args.serve {
        return process::serve(servers::find(name)?, args.parameter);
    }
    if args.timers {
        let counts = args.connections.map_or(vec![1_000, 10_000, 100_000], |one| vec![one]);
        return timers::run(&counts, if args.quick { 5_000 } else { 50_000 });
    }
    if args.of_servers() {
        return run_servers(&args);
    }
    if let Some(one) = &args.one {
        return run_one(one, args.amount);
    }
    if args.instructions {
        let wanted = |name: &&str| args.peers.is_empty() || args.peers.iter().any(|peer| peer == name);
        let peers: Vec<&str> = match args.peers.is_empty() {
            true => instructions::PEERS.iter().copied().filter(|name| Peer::names().contains(name)).collect(),
            false => Peer::names().into_iter().filter(wanted).collect(),
        };
        let servers: Vec<&str> = servers::all().iter().map(|kind| kind.name).filter(wanted).collect();
        if peers.is_empty() && servers.is_empty() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "no peer and no server of these names"));
        }
        return instructions::run(&peers, &servers, args.csv.as_deref());
    }
    let cases = match args.cases.is_empty() {
        true => CASES.iter().collect(),
        false => args.cases.iter().map(|name| Case::find(name)).collect::<io::Result<Vec<_>>>()?,
    };
    let peers = match args.peers.is_empty() {
        true => Peer::all()?,
        false => args.peers.iter().map(|name| Peer::new(name)).collect::<io::Result<_>>()?,
    };
    let rounds = args.rounds.unwrap_or(if args.quick || args.syscalls.is_some() { 3 } else { 9 }).max(1);
    if let Some(counter) = args.syscalls {
        return syscalls::run(counter, &cases, &peers, rounds, args.csv.as_deref());
    }
    let rows = measure(&cases, &peers, rounds, if args.quick { 4 } else { 1 })?;
    report::print(&rows, &cases, &peers);
    match &args.csv {
        Some(path) => report::write_csv(path, &rows),
        None => Ok(()),
    }
}

impl Args {
    /// Whether the mode is one about servers.
    fn of_servers(&self) -> bool {
        #[cfg(feature = "openssl")]
        if self.accept {
            return true;
        }
        self.echo || self.memory || self.scale || self.terminators || self.http || self.cores
    }
}

/// The modes about servers.
fn run_servers(args: &Args) -> io::Result<()> {
    let rounds = args.rounds.unwrap_or(if args.quick { 3 } else { 9 }).max(1);
    let time = Duration::from_millis(if args.quick { 150 } else { 400 });
    let csv = args.csv.as_deref();
    if args.terminators {
        let visits = if args.quick { 300 } else { 1000 };
        let idle = args.connections.unwrap_or(1000);
        return terminators::run(&terminators::Plan { rounds, time: time * 2, visits, idle });
    }
    if args.http {
        let connections = args.connections.unwrap_or(64);
        let seconds = if args.quick { 1 } else { 2 };
        return http_load::run(&http_load::Plan { servers: &args.peers, connections, rounds, seconds, csv });
    }
    if args.cores {
        let kinds = servers::chosen(cores::kinds(), &args.peers)?;
        let connections = args.connections.unwrap_or(100);
        return cores::run(&cores::Plan { kinds, connections, rounds, time, csv });
    }
    let kinds = servers::chosen(servers::all(), &args.peers)?;
    #[cfg(feature = "openssl")]
    if args.accept {
        let (visits, at_once) = (if args.quick { 250 } else { 1000 }, args.connections.unwrap_or(32));
        let plan = accept::Plan { kinds, rounds, visits, at_once, csv };
        return args.syscalls.map_or_else(|| accept::run(&plan), |counter| accept::count(&plan, counter));
    }
    if args.memory {
        return scale::memory(&kinds, args.connections.unwrap_or(2000));
    }
    if args.scale {
        return scale::scale(&kinds, args.connections.unwrap_or(10_000), Duration::from_secs(10), 3);
    }
    let connections = args.connections.map_or(echo::CONNECTIONS.to_vec(), |one| vec![one]);
    let plan = echo::Plan { kinds, connections: &connections, rounds, time, csv };
    match args.syscalls {
        Some(counter) => echo::count(&plan, counter),
        None => echo::run(&plan),
    }
}

/// Each round runs each case with each peer, there and back, so that whoever is compared is measured within a second.
fn measure(cases: &[&'static Case], peers: &[Peer], rounds: usize, divisor: u64) -> io::Result<Vec<Row>> {
    let mut rows = Vec::new();
    for round in 0..rounds {
        eprintln!("round {} of {rounds}", round + 1);
        for case in cases {
            let mut order: Vec<&Peer> = peers.iter().collect();
            if round % 2 == 1 {
                order.reverse();
            }
            for peer in order {
                let amount = case.amount / divisor;
                if let Some(sample) = watched(case, peer, amount)? {
                    let peer = peer.name.clone();
                    rows.push(Row { round, case, peer, amount, sample });
                }
            }
        }
    }
    Ok(rows)
}

/// A peer that hangs ends the run, with its name.
fn watched(case: &Case, peer: &Peer, amount: u64) -> io::Result<Option<Sample>> {
    const LIMIT: Duration = Duration::from_secs(60);
    let what = format!("{} with {}", case.name, peer.name);
    let (done, wait): (Sender<()>, _) = mpsc::channel();
    thread::spawn(move || {
        if wait.recv_timeout(LIMIT) == Err(RecvTimeoutError::Timeout) {
            eprintln!("error: {what} is not done after {LIMIT:?}");
            std::process::exit(1);
        }
    });
    let sample = case.run(peer, amount);
    drop(done);
    sample
}

fn run_one(one: &str, amount: Option<u64>) -> io::Result<()> {
    let Some((peer, case)) = one.split_once(':') else {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "--one wants PEER:CASE"));
    };
    if let Some((connections, size)) = echo::parse(case) {
        return echo::one(peer, connections, size, Duration::from_millis(amount.unwrap_or(3000)));
    }
    #[cfg(feature = "openssl")]
    if let Some(resumed) = accept::parse(case) {
        return accept::one(peer, resumed, amount.unwrap_or(1000));
    }
    let (peer, case) = (Peer::new(peer)?, Case::find(case)?);
    let amount = amount.unwrap_or(case.amount);
    match case.run(&peer, amount)? {
        Some(Sample { wall, client_cpu, server_cpu, negotiated }) => println!(
            "{one}: {amount} {}s in {wall:?}, CPU client {client_cpu:?} server {server_cpu:?}, {negotiated}",
            case.unit.name(),
        ),
        None => println!("{one}: not possible"),
    }
    Ok(())
}

/// Everything once, with next to nothing to do.
fn smoke() -> io::Result<()> {
    for peer in Peer::all()? {
        for case in CASES.iter().filter(|case| peer.takes(case.name)) {
            let word = match watched(case, &peer, case.smoke)? {
                Some(_) => "ok",
                None => "not possible",
            };
            println!("{} with {}: {word}", case.name, peer.name);
        }
    }
    // Servers are measured with what Linux tells of them.
    if cfg!(target_os = "linux") {
        echo::smoke()?;
        #[cfg(feature = "openssl")]
        accept::smoke()?;
        http_load::smoke()?;
        cores::smoke()?;
        timers::run(&[10, 30], 20)?;
        let kinds = servers::all();
        scale::memory(&kinds, 5)?;
        scale::scale(&kinds, 5, Duration::from_millis(50), 2)?;
    }
    Ok(())
}

/// cargo starts it in the folder of its package; names of files are meant from the folder where cargo was called, which as a
/// rule is the one above.
fn leave_package_folder() -> io::Result<()> {
    match env::var_os("CARGO_MANIFEST_DIR") {
        Some(package) => env::set_current_dir(PathBuf::from(package).join("..")),
        None => Ok(()),
    }
}
