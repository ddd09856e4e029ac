//! What was measured of servers, as a table and as CSV.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::time::Duration;

use crate::process::Usage;
use crate::report::{median, ratio_texts, Table};
use crate::servers::Kind;

/// A server's name, and that of the one that it is compared with.
pub type Named = (&'static str, Option<&'static str>);

/// One measurement: what a server has done, and what it took.
pub struct Sample {
    pub round: usize,
    pub case: String,
    pub server: &'static str,
    /// Requests, or what else is counted.
    pub requests: u64,
    pub wall: Duration,
    /// Of the serving thread.
    pub cpu: Duration,
    pub sleeps: u64,
    /// What `Samples` has more columns for.
    pub more: Vec<f64>,
}

impl Sample {
    pub fn new(server: &'static str, done: (u64, Duration), before: Usage, after: Usage) -> Sample {
        let (requests, wall) = done;
        let (cpu, sleeps) = (after.cpu - before.cpu, after.sleeps - before.sleeps);
        Sample { round: 0, case: String::new(), server, requests, wall, cpu, sleeps, more: Vec::new() }
    }

    fn rate(&self) -> f64 {
        self.requests as f64 / self.wall.as_secs_f64()
    }

    fn cpu(&self) -> f64 {
        self.cpu.as_secs_f64() / self.requests as f64
    }
}

pub struct Samples {
    /// What is counted.
    pub unit: &'static str,
    /// Further columns, and what is behind their figures.
    pub more: &'static [(&'static str, &'static str)],
    pub list: Vec<Sample>,
}

impl Samples {
    pub fn new(unit: &'static str, more: &'static [(&'static str, &'static str)]) -> Samples {
        Samples { unit, more, list: Vec::new() }
    }

    /// `others`: with whom all are compared in the last columns.
    pub fn print(&self, servers: &[Named], others: &[&'static str]) {
        let mut head: Vec<String> = ["case", "server", self.unit, "CPU", "busy", "sleeps"].map(String::from).to_vec();
        head.extend(self.more.iter().map(|(name, _)| name.to_string()));
        head.extend(["to own raw", "quartiles", "best ratio", "CPU to raw"].map(String::from));
        for other in others {
            head.extend([format!("to {other}"), "CPU to it".to_string()]);
        }
        let mut table = Table::new(&head.iter().map(String::as_str).collect::<Vec<_>>());
        let mut cases: Vec<&str> = self.list.iter().map(|sample| &*sample.case).collect();
        cases.sort_by_key(|case| self.list.iter().position(|sample| sample.case == *case));
        cases.dedup();
        for case in cases {
            for (server, raw) in servers {
                table.push(self.line(case, server, *raw, others));
            }
        }
        table.print();
    }

    fn line(&self, case: &str, server: &str, raw: Option<&str>, others: &[&str]) -> Vec<String> {
        let of = |server: &str| -> Vec<&Sample> {
            self.list.iter().filter(|sample| sample.case == case && sample.server == server).collect()
        };
        let mine = of(server);
        let mut line = vec![case.to_string(), server.to_string()];
        if mine.is_empty() {
            let cells = 8 + self.more.len() + 2 * others.len();
            line.resize(2 + cells, String::new());
            return line;
        }
        let per_request = |sample: &&Sample| sample.sleeps as f64 / sample.requests as f64;
        line.extend([
            format!("{:.0} /s", median(mine.iter().map(|s| s.rate()))),
            format!("{:.2} µs", median(mine.iter().map(|s| s.cpu())) * 1e6),
            format!("{:.0} %", median(mine.iter().map(|s| s.rate() * s.cpu())) * 100.0),
            format!("{:.3}", median(mine.iter().map(per_request))),
        ]);
        for (i, (_, unit)) in self.more.iter().enumerate() {
            line.push(format!("{:.2}{unit}", median(mine.iter().filter_map(|sample| sample.more.get(i)).copied())));
        }
        let raw = raw.map(of).unwrap_or_default();
        line.extend(ratio_texts(&paired(&mine, &raw, Sample::rate), paired(&mine, &raw, Sample::cpu)));
        for other in others {
            let other = of(other);
            for figure in [Sample::rate, Sample::cpu] {
                let ratios = paired(&mine, &other, figure);
                line.push(if ratios.is_empty() { String::new() } else { format!("{:.2}", median(ratios)) });
            }
        }
        line
    }

    pub fn write(&self, path: Option<&Path>) -> io::Result<()> {
        let Some(path) = path else { return Ok(()) };
        let mut out = BufWriter::new(File::create(path)?);
        write!(out, "round,case,server,{},seconds,server_cpu_seconds,sleeps", self.unit)?;
        self.more.iter().try_for_each(|(name, _)| write!(out, ",{name}"))?;
        writeln!(out)?;
        for Sample { round, case, server, requests, wall, cpu, sleeps, more } in &self.list {
            let (wall, cpu) = (wall.as_secs_f64(), cpu.as_secs_f64());
            write!(out, "{round},{case},{server},{requests},{wall:.9},{cpu:.9},{sleeps}")?;
            more.iter().try_for_each(|figure| write!(out, ",{figure}"))?;
            writeln!(out)?;
        }
        out.flush()
    }
}

pub fn names(kinds: &[&'static Kind]) -> Vec<Named> {
    kinds.iter().map(|kind| (kind.name, kind.raw)).collect()
}

/// What was negotiated with each, in the order in which it was learned, once.
#[derive(Default)]
pub struct Negotiated(Vec<(&'static str, String)>);

impl Negotiated {
    pub fn note(&mut self, server: &'static str, what: String) {
        if self.0.iter().all(|(known, _)| *known != server) {
            self.0.push((server, what));
        }
    }

    pub fn print(&self) {
        println!();
        let width = self.0.iter().map(|(server, _)| server.len()).max().unwrap_or(0);
        for (server, what) in &self.0 {
            println!("{server:<width$}  {what}");
        }
    }
}

/// Ratios of samples that were taken in the same round.
fn paired(mine: &[&Sample], other: &[&Sample], figure: fn(&Sample) -> f64) -> Vec<f64> {
    let of_round = |round| other.iter().find(|sample| sample.round == round);
    mine.iter().filter_map(|sample| Some(figure(sample) / figure(of_round(sample.round)?))).collect()
}
