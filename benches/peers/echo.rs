//! Echo servers of one thread under a load from the other processor: requests a second, what each costs the server, and
//! its system calls.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::time::Duration;

use crate::load::Load;
use crate::pin::{self, Pin};
use crate::report::{median, quantile, Table};
use crate::servers::{Kind, Server};
use crate::syscalls::{self, Counter};

const CONNECTIONS: &[usize] = &[1, 100, 1000];
const SIZES: &[usize] = &[64, 16 << 10];
/// The server that all are compared with in the last column.
const COMMON: &str = "tokio-rustls";

pub struct Plan<'a> {
    pub kinds: Vec<&'static Kind>,
    pub rounds: usize,
    /// How long one measurement takes.
    pub time: Duration,
    pub csv: Option<&'a Path>,
}

struct Sample {
    round: usize,
    case: String,
    server: &'static str,
    requests: u64,
    wall: Duration,
    cpu: Duration,
    sleeps: u64,
}

impl Sample {
    fn rate(&self) -> f64 {
        self.requests as f64 / self.wall.as_secs_f64()
    }

    fn cpu(&self) -> f64 {
        self.cpu.as_secs_f64() / self.requests as f64
    }
}

/// Each number of connections has servers of its own, which serve all its rounds.
pub fn run(plan: &Plan) -> io::Result<()> {
    pin::set(Pin::Apart);
    let mut samples = Vec::new();
    for connections in CONNECTIONS {
        let mut servers = start(&plan.kinds, *connections)?;
        for round in 0..plan.rounds {
            eprintln!("{connections} connections, round {} of {}", round + 1, plan.rounds);
            for size in SIZES {
                for (kind, server, load) in &mut servers {
                    load.flood(*size, plan.time / 4)?;
                    let before = server.usage()?;
                    let flood = load.flood(*size, plan.time)?;
                    let after = server.usage()?;
                    samples.push(Sample {
                        round,
                        case: case_name(*connections, *size),
                        server: kind.name,
                        requests: flood.requests,
                        wall: flood.wall,
                        cpu: after.cpu - before.cpu,
                        sleeps: after.sleeps - before.sleeps,
                    });
                }
            }
            servers.reverse();
        }
    }
    print(&samples, &plan.kinds);
    match plan.csv {
        Some(path) => write_csv(path, &samples),
        None => Ok(()),
    }
}

/// System calls of the server for each request.
pub fn count(plan: &Plan, counter: Counter) -> io::Result<()> {
    pin::set(Pin::Apart);
    let mut table = Table::new(&[&["case", "server"], syscalls::HEADS].concat());
    let mut csv = plan.csv.map(|path| File::create(path).map(BufWriter::new)).transpose()?;
    if let Some(csv) = &mut csv {
        writeln!(csv, "case,server,call,count")?;
    }
    for connections in CONNECTIONS {
        let mut servers = start(&plan.kinds, *connections)?;
        for size in SIZES {
            let case = case_name(*connections, *size);
            let mut totals: BTreeMap<&str, f64> = BTreeMap::new();
            for (kind, server, load) in &mut servers {
                eprintln!("{case} with {}", kind.name);
                let (mut counts, flood) = counter.count_of(server.pid(), || load.flood(*size, plan.time))?;
                counts.values_mut().for_each(|n| *n /= flood.requests as f64);
                // A call or two that depend on the moment are not the requests'.
                counts.retain(|_, n| *n >= 0.005);
                if let Some(csv) = &mut csv {
                    for (name, n) in &counts {
                        writeln!(csv, "{case},{},{name},{n:.4}", kind.name)?;
                    }
                }
                totals.insert(kind.name, counts.values().sum());
                let raw = kind.raw.and_then(|raw| totals.get(raw)).copied();
                let mut line = vec![case.clone(), kind.name.to_string()];
                line.extend(syscalls::cells(&counts, 2, raw));
                table.push(line);
            }
        }
    }
    table.print();
    Ok(())
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
    let server = Server::start(Kind::find(name)?, size)?;
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

fn print(samples: &[Sample], kinds: &[&'static Kind]) {
    let mut table = Table::new(&[
        "case",
        "server",
        "requests",
        "CPU",
        "busy",
        "sleeps",
        "to own raw",
        "quartiles",
        "best ratio",
        "CPU to raw",
        "to tokio-rustls",
        "CPU to it",
    ]);
    let mut cases: Vec<&str> = samples.iter().map(|sample| &*sample.case).collect();
    cases.sort_by_key(|case| samples.iter().position(|sample| sample.case == *case));
    cases.dedup();
    for case in cases {
        let of = |server: &str| -> Vec<&Sample> {
            samples.iter().filter(|sample| sample.case == case && sample.server == server).collect()
        };
        for kind in kinds {
            let mine = of(kind.name);
            let per_request = |sample: &&Sample| sample.sleeps as f64 / sample.requests as f64;
            let mut line = vec![
                case.to_string(),
                kind.name.to_string(),
                format!("{:.0} /s", median(mine.iter().map(|s| s.rate()))),
                format!("{:.2} µs", median(mine.iter().map(|s| s.cpu())) * 1e6),
                format!("{:.0} %", median(mine.iter().map(|s| s.rate() * s.cpu())) * 100.0),
                format!("{:.3}", median(mine.iter().map(per_request))),
            ];
            let raw = kind.raw.map(of).unwrap_or_default();
            let rates = paired(&mine, &raw, Sample::rate);
            if rates.is_empty() {
                line.extend(vec![String::new(); 4]);
            } else {
                let of_ratios = |q| quantile(rates.iter().copied(), q);
                line.push(format!("{:.2}", of_ratios(0.5)));
                line.push(format!("{:.2}-{:.2}", of_ratios(0.25), of_ratios(0.75)));
                line.push(format!("{:.2}", of_ratios(1.0)));
                line.push(format!("{:.2}", median(paired(&mine, &raw, Sample::cpu))));
            }
            let common = of(COMMON);
            for figure in [Sample::rate, Sample::cpu] {
                let ratios = paired(&mine, &common, figure);
                line.push(if ratios.is_empty() { String::new() } else { format!("{:.2}", median(ratios)) });
            }
            table.push(line);
        }
    }
    table.print();
}

/// Ratios of samples that were taken in the same round.
fn paired(mine: &[&Sample], other: &[&Sample], figure: fn(&Sample) -> f64) -> Vec<f64> {
    let of_round = |round| other.iter().find(|sample| sample.round == round);
    mine.iter().filter_map(|sample| Some(figure(sample) / figure(of_round(sample.round)?))).collect()
}

fn write_csv(path: &Path, samples: &[Sample]) -> io::Result<()> {
    let mut out = BufWriter::new(File::create(path)?);
    writeln!(out, "round,case,server,requests,seconds,server_cpu_seconds,sleeps")?;
    for Sample { round, case, server, requests, wall, cpu, sleeps } in samples {
        let (wall, cpu) = (wall.as_secs_f64(), cpu.as_secs_f64());
        writeln!(out, "{round},{case},{server},{requests},{wall:.9},{cpu:.9},{sleeps}")?;
    }
    out.flush()
}

/// Every server once, with next to nothing to do.
pub fn smoke() -> io::Result<()> {
    pin::set(Pin::Apart);
    for (kind, server, mut load) in start(&Kind::all(), 3)? {
        for size in SIZES {
            let flood = load.flood(*size, Duration::from_millis(10))?;
            assert!(flood.requests >= 3 && server.usage()?.cpu > Duration::ZERO);
        }
        println!("echo with {}: ok", kind.name);
    }
    Ok(())
}
