//! Echo servers of one thread under a load from the other processor: requests a second, what each costs the server, and
//! its system calls.

use std::io;
use std::path::Path;
use std::time::Duration;

use crate::limits;
use crate::load::Load;
use crate::pin::{self, Pin};
use crate::process::Server;
use crate::samples::{names, Negotiated, Sample, Samples};
use crate::servers::{self, Kind};
use crate::syscalls::{Book, Counter};

pub const CONNECTIONS: &[usize] = &[1, 100, 1000];
const SIZES: &[usize] = &[64, 16 << 10];
/// The server that all are compared with in the last column.
const COMMON: &str = "tokio-rustls";

pub struct Plan<'a> {
    pub kinds: Vec<&'static Kind>,
    pub connections: &'a [usize],
    pub rounds: usize,
    /// How long one measurement takes.
    pub time: Duration,
    pub csv: Option<&'a Path>,
}

/// Each number of connections has servers of its own, which serve all its rounds.
pub fn run(plan: &Plan) -> io::Result<()> {
    pin::set(Pin::Apart);
    let mut samples = Samples::new("requests", &[]);
    let mut negotiated = Negotiated::default();
    for wanted in plan.connections {
        for kinds in at_once(&plan.kinds, *wanted) {
            let connections = limits::connections(*wanted, kinds.len());
            let mut servers = start(&kinds, connections)?;
            servers.iter().for_each(|(kind, _, load)| negotiated.note(kind.name, load.negotiated()));
            for round in 0..plan.rounds {
                eprintln!("{connections} connections, round {} of {}", round + 1, plan.rounds);
                for size in SIZES {
                    for (kind, server, load) in &mut servers {
                        load.flood(*size, plan.time / 4)?;
                        let before = server.usage()?;
                        let flood = load.flood(*size, plan.time)?;
                        let sample = Sample::new(kind.name, (flood.requests, flood.wall), before, server.usage()?);
                        samples.list.push(Sample { round, case: case_name(connections, *size), ..sample });
                    }
                }
                servers.reverse();
            }
        }
    }
    samples.print(&names(&plan.kinds), &[COMMON]);
    negotiated.print();
    samples.write(plan.csv)
}

/// All servers at once, or where their connections are more than the process may have, those that are compared.
fn at_once(kinds: &[&'static Kind], connections: usize) -> Vec<Vec<&'static Kind>> {
    if limits::has_room_for(connections * kinds.len()) {
        return vec![kinds.to_vec()];
    }
    let mut groups: Vec<Vec<&'static Kind>> = Vec::new();
    for kind in kinds {
        match groups.iter_mut().find(|group| group[0].family() == kind.family()) {
            Some(group) => group.push(kind),
            None => groups.push(vec![kind]),
        }
    }
    groups
}

/// System calls of the server for each request.
pub fn count(plan: &Plan, counter: Counter) -> io::Result<()> {
    pin::set(Pin::Apart);
    let mut book = Book::new(plan.csv)?;
    for wanted in plan.connections {
        for kinds in at_once(&plan.kinds, *wanted) {
            let connections = limits::connections(*wanted, kinds.len());
            let mut servers = start(&kinds, connections)?;
            for size in SIZES {
                let case = case_name(connections, *size);
                for (kind, server, load) in &mut servers {
                    eprintln!("{case} with {}", kind.name);
                    let (counts, flood) = counter.count_of(server.pid(), || load.flood(*size, plan.time))?;
                    book.add(&case, kind, counts, flood.requests)?;
                }
            }
        }
    }
    book.print()
}

/// The number of connections and the size in a case's name.
pub fn parse(case: &str) -> Option<(usize, usize)> {
    let (connections, size) = case.strip_prefix("echo-")?.split_once('-')?;
    let size = match size.strip_suffix('k') {
        Some(kib) => kib.parse::<usize>().ok()? << 10,
        None => size.parse().ok()?,
    };
    Some((connections.parse().ok()?, size))
}

/// A flood for a profiler of the server, whose process it names.
pub fn one(name: &str, connections: usize, size: usize, time: Duration) -> io::Result<()> {
    pin::set(Pin::Apart);
    let server = Server::start(servers::find(name)?, size)?;
    let mut load = Load::open(server.addr, connections)?;
    println!("{name} is process {}", server.pid());
    let before = server.usage()?;
    let flood = load.flood(size, time)?;
    let cpu = server.usage()?.cpu - before.cpu;
    println!("{} requests in {:?}, CPU of the server {cpu:?}", flood.requests, flood.wall);
    Ok(())
}

fn start(kinds: &[&'static Kind], connections: usize) -> io::Result<Vec<(&'static Kind, Server, Load)>> {
    let largest = SIZES.iter().copied().max().unwrap_or(0);
    let start = |kind: &&'static Kind| {
        let server = Server::start(kind, largest)?;
        let load = Load::open(server.addr, connections)
            .map_err(|e| io::Error::new(e.kind(), format!("{connections} connections to {}: {e}", kind.name)))?;
        Ok((*kind, server, load))
    };
    kinds.iter().map(start).collect()
}

fn case_name(connections: usize, size: usize) -> String {
    match size {
        0..1024 => format!("echo-{connections}-{size}"),
        _ => format!("echo-{connections}-{}k", size >> 10),
    }
}

/// Every server once, with next to nothing to do.
pub fn smoke() -> io::Result<()> {
    pin::set(Pin::Apart);
    for (kind, server, mut load) in start(&servers::all(), 3)? {
        for size in SIZES {
            let flood = load.flood(*size, Duration::from_millis(10))?;
            assert!(flood.requests >= 3 && server.usage()?.cpu > Duration::ZERO);
        }
        println!("echo with {}: ok", kind.name);
    }
    Ok(())
}
