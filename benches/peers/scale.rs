//! Many connections, mostly idle: memory for each, who has to wait, and what wakes a server that has nothing to do.

use std::io;
use std::thread;
use std::time::{Duration, Instant};

use crate::limits;
use crate::load::Load;
use crate::pin::{self, Pin};
use crate::process::Server;
use crate::report::{quantile, Table};
use crate::servers::Kind;

/// The buffer of those servers that need one for each connection.
const BUFFER: usize = 1 << 10;

/// Memory of the server for each idle connection, after small echoes and after large ones.
pub fn memory(kinds: &[&'static Kind], connections: usize) -> io::Result<()> {
    // What a server needs anyway is in use before the first look.
    const FIRST: usize = 20;
    pin::set(Pin::Apart);
    let connections = limits::connections(connections + FIRST, 1) - FIRST;
    let mut table = Table::new(&["connections", "server", "after 64 B", "after 16 KiB"]);
    for kind in kinds {
        eprintln!("{}", kind.name);
        let server = Server::start(kind, BUFFER)?;
        let mut first = Load::open(server.addr, FIRST)?;
        first.flood(16 << 10, Duration::ZERO)?;
        let base = server.usage()?.resident;
        let mut load = Load::open(server.addr, connections)?;
        let each = || -> io::Result<String> {
            let grown = server.usage()?.resident.saturating_sub(base);
            Ok(format!("{:.1} KiB", grown as f64 / connections as f64 / 1024.0))
        };
        let small = each()?;
        load.trickle(16 << 10, Duration::from_secs(1), 1)?;
        table.push(vec![connections.to_string(), kind.name.to_string(), small, each()?]);
    }
    table.print();
    Ok(())
}

/// `connections` that echo once in a `period`, for so many `periods`, and then not at all. Before them a few, with as many
/// echoes a second, to compare with.
pub fn scale(kinds: &[&'static Kind], connections: usize, period: Duration, periods: u64) -> io::Result<()> {
    pin::set(Pin::Apart);
    let connections = limits::connections(connections, 1);
    let mut table = Table::new(&[
        "connections",
        "server",
        "opened in",
        "memory for each",
        "echoes",
        "p50",
        "p99",
        "p99.9",
        "most",
        "overdue",
        "fewest-most",
        "CPU",
        "at 100",
        "ratio",
        "sleeps for each",
        "sleeps while idle",
    ]);
    for kind in kinds {
        eprintln!("{connections} connections to {}", kind.name);
        let server = Server::start(kind, BUFFER)?;
        let base = server.usage()?.resident;
        let few = cpu_of_few(&server, FEW.min(connections), period.mul_f64(FEW as f64 / connections.max(FEW) as f64))?;
        let start = Instant::now();
        let mut load = Load::open(server.addr, connections)?;
        let opened = start.elapsed();
        let before = server.usage()?;
        let trickle = load.trickle(64, period, periods)?;
        let after = server.usage()?;
        // The last sleep of the work begins after the last echo.
        thread::sleep(Duration::from_millis(100));
        let idle = server.usage()?.sleeps;
        let left_alone = IDLE.min(period * 4);
        thread::sleep(left_alone);
        let idle = server.usage()?.sleeps - idle;
        let echoes = trickle.latencies.len();
        let cpu = (after.cpu - before.cpu).as_secs_f64() / echoes as f64;
        let latency = |q| {
            let all = trickle.latencies.iter().map(Duration::as_secs_f64);
            format!("{:.0} µs", quantile(all, q) * 1e6)
        };
        table.push(vec![
            connections.to_string(),
            kind.name.to_string(),
            format!("{:.1} s", opened.as_secs_f64()),
            format!("{:.1} KiB", (before.resident - base) as f64 / connections as f64 / 1024.0),
            echoes.to_string(),
            latency(0.5),
            latency(0.99),
            latency(0.999),
            latency(1.0),
            trickle.overdue.to_string(),
            format!("{}-{}", trickle.fewest, trickle.most),
            format!("{:.1} µs", cpu * 1e6),
            format!("{:.1} µs", few * 1e6),
            format!("{:.2}", cpu / few),
            format!("{:.2}", (after.sleeps - before.sleeps) as f64 / echoes as f64),
            format!("{idle} in {left_alone:?}"),
        ]);
        if trickle.fewest == 0 {
            table.print();
            return Err(io::Error::other(format!("{} starves connections", kind.name)));
        }
    }
    table.print();
    Ok(())
}

/// Processor seconds for each echo.
fn cpu_of_few(server: &Server, connections: usize, period: Duration) -> io::Result<f64> {
    const PERIODS: u64 = 40;
    let mut load = Load::open(server.addr, connections)?;
    load.trickle(64, period, 2)?;
    let before = server.usage()?;
    let trickle = load.trickle(64, period, PERIODS)?;
    Ok((server.usage()?.cpu - before.cpu).as_secs_f64() / trickle.latencies.len() as f64)
}

/// How many connections the others are compared with.
const FEW: usize = 100;

/// How long a server is left alone, unless periods are short.
const IDLE: Duration = Duration::from_secs(2);
