//! From samples to a table and to CSV.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::time::Duration;

use crate::cases::{Case, Sample, Unit};
use crate::peer::Peer;

/// The peer that all are compared with in the last column.
const COMMON: &str = "openssl";

pub struct Row {
    pub round: usize,
    pub case: &'static Case,
    pub peer: String,
    pub amount: u64,
    pub sample: Sample,
}

impl Row {
    /// Units a second.
    fn rate(&self) -> f64 {
        self.amount as f64 / self.sample.wall.as_secs_f64()
    }

    /// Processor seconds of both ends per unit.
    fn cpu(&self) -> f64 {
        (self.sample.client_cpu + self.sample.server_cpu).as_secs_f64() / self.amount as f64
    }

    fn end_cpu(&self, of: impl Fn(&Sample) -> Duration) -> f64 {
        of(&self.sample).as_secs_f64() / self.amount as f64
    }
}

/// One line for each case and peer.
pub fn print(rows: &[Row], cases: &[&'static Case], peers: &[Peer]) {
    let mut table = Table::new(&[
        "case",
        "peer",
        "median",
        "best",
        "CPU",
        "client + server",
        "to own raw",
        "quartiles",
        "best ratio",
        "CPU to raw",
        "to openssl",
    ]);
    for case in cases {
        let of = |peer: &str| -> Vec<&Row> {
            rows.iter().filter(|row| row.case.name == case.name && row.peer == peer).collect()
        };
        for peer in peers {
            let mine = of(&peer.name);
            if mine.is_empty() {
                continue;
            }
            let rates: Vec<f64> = mine.iter().map(|row| row.rate()).collect();
            let best = rates.iter().copied().fold(0.0, f64::max);
            let cpu = median(mine.iter().map(|row| row.cpu()));
            let client = median(mine.iter().map(|row| row.end_cpu(|s| s.client_cpu)));
            let server = median(mine.iter().map(|row| row.end_cpu(|s| s.server_cpu)));
            let mut line = vec![
                case.name.to_string(),
                peer.name.clone(),
                rate_text(case.unit, quantile(rates.iter().copied(), 0.5)),
                rate_text(case.unit, best),
                cpu_text(case.unit, cpu),
                format!("{} + {}", cost_text(case.unit, client), cost_text(case.unit, server)),
            ];
            let raw = peer.raw.map(of).unwrap_or_default();
            line.extend(ratio_texts(&paired(&mine, &raw, Row::rate), paired(&mine, &raw, Row::cpu)));
            let common = paired(&mine, &of(COMMON), Row::rate);
            line.push(if common.is_empty() { String::new() } else { format!("{:.2}", median(common)) });
            table.push(line);
        }
    }
    table.print();
    println!();
    let width = peers.iter().map(|peer| peer.name.len()).max().unwrap_or(0);
    for peer in peers {
        let told = rows.iter().filter(|row| row.peer == peer.name).map(|row| &row.sample.negotiated);
        if let Some(told) = told.into_iter().find(|told| !told.is_empty()) {
            println!("{:<width$}  {told}", peer.name);
        }
    }
}

/// Ratios of samples that were taken in the same round.
/// The columns from "to own raw" to "CPU to raw".
pub fn ratio_texts(rates: &[f64], cpus: Vec<f64>) -> [String; 4] {
    if rates.is_empty() {
        return Default::default();
    }
    let of_rates = |q| quantile(rates.iter().copied(), q);
    [
        format!("{:.2}", of_rates(0.5)),
        format!("{:.2}-{:.2}", of_rates(0.25), of_rates(0.75)),
        format!("{:.2}", of_rates(1.0)),
        format!("{:.2}", median(cpus)),
    ]
}

fn paired(mine: &[&Row], other: &[&Row], figure: impl Fn(&Row) -> f64) -> Vec<f64> {
    let of_round = |round| other.iter().find(|row| row.round == round);
    mine.iter().filter_map(|row| Some(figure(row) / figure(of_round(row.round)?))).collect()
}

pub fn write_csv(path: &Path, rows: &[Row]) -> io::Result<()> {
    let mut out = BufWriter::new(File::create(path)?);
    writeln!(out, "round,case,peer,unit,amount,seconds,client_cpu_seconds,server_cpu_seconds")?;
    for row in rows {
        let Sample { wall, client_cpu, server_cpu, .. } = &row.sample;
        writeln!(
            out,
            "{},{},{},{},{},{:.9},{:.9},{:.9}",
            row.round,
            row.case.name,
            row.peer,
            row.case.unit.name(),
            row.amount,
            wall.as_secs_f64(),
            client_cpu.as_secs_f64(),
            server_cpu.as_secs_f64(),
        )?;
    }
    out.flush()
}

impl Unit {
    pub fn name(self) -> &'static str {
        match self {
            Unit::Bytes => "byte",
            Unit::Trips => "trip",
            Unit::Handshakes => "handshake",
        }
    }

    /// How many make the unit that counts of system calls are given in.
    pub fn per(self) -> (u64, &'static str) {
        match self {
            Unit::Bytes => (1 << 30, "GiB"),
            Unit::Trips => (1, "trip"),
            Unit::Handshakes => (1, "handshake"),
        }
    }
}

fn rate_text(unit: Unit, rate: f64) -> String {
    match unit {
        Unit::Bytes => format!("{:.0} MiB/s", rate / (1 << 20) as f64),
        Unit::Trips | Unit::Handshakes => format!("{rate:.0} /s"),
    }
}

fn cpu_text(unit: Unit, seconds: f64) -> String {
    let per = match unit {
        Unit::Bytes => "s/GiB",
        Unit::Trips | Unit::Handshakes => "µs",
    };
    format!("{} {per}", cost_text(unit, seconds))
}

fn cost_text(unit: Unit, seconds: f64) -> String {
    match unit {
        Unit::Bytes => format!("{:.2}", seconds * (1u64 << 30) as f64),
        Unit::Trips => format!("{:.1}", seconds * 1e6),
        Unit::Handshakes => format!("{:.0}", seconds * 1e6),
    }
}

pub fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    quantile(values, 0.5)
}

/// Between the two nearest values, in proportion.
pub fn quantile(values: impl IntoIterator<Item = f64>, q: f64) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    let Some(last) = values.len().checked_sub(1) else { return f64::NAN };
    let at = q * last as f64;
    let (low, high) = (values[at.floor() as usize], values[at.ceil() as usize]);
    low + (high - low) * at.fract()
}

/// Columns of text, as Markdown, so that it can be pasted.
pub struct Table {
    lines: Vec<Vec<String>>,
}

impl Table {
    pub fn new(head: &[&str]) -> Table {
        Table { lines: vec![head.iter().map(|cell| cell.to_string()).collect()] }
    }

    /// Lines of one group, as told by the first cell, name it once.
    pub fn push(&mut self, line: Vec<String>) {
        self.lines.push(line);
    }

    pub fn print(&self) {
        let columns = self.lines[0].len();
        let width = |column: usize| self.lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let mut group = "";
        for (i, line) in self.lines.iter().enumerate() {
            let mut text = String::from("|");
            for (column, (cell, width)) in line.iter().zip(&widths).enumerate() {
                let cell = if column == 0 && cell == group { "" } else { cell };
                match column < 2 {
                    true => text.push_str(&format!(" {cell:<width$} |")),
                    false => text.push_str(&format!(" {cell:>width$} |")),
                }
            }
            group = &line[0];
            println!("{text}");
            if i == 0 {
                let rules: Vec<String> = widths.iter().map(|width| "-".repeat(width + 2)).collect();
                println!("|{}|", rules.join("|"));
            }
        }
    }
}
