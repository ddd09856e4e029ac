//! Counts system calls: runs this program again under strace or perf, for one peer and case, with and without the work.

use std::collections::BTreeMap;
use std::env;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{kill_process, Pid, Signal};

use crate::cases::Case;
use crate::peer::Peer;
use crate::report::{median, Table};
use crate::servers::Kind;

/// By name.
pub type Counts = BTreeMap<String, f64>;

const LIMIT: Duration = Duration::from_secs(120);

pub fn run(
    counter: Counter,
    cases: &[&'static Case],
    peers: &[Peer],
    rounds: usize,
    csv: Option<&Path>,
) -> io::Result<()> {
    let mut table = Table::new(&[&["case", "peer", "per"], HEADS].concat());
    let mut csv = csv.map(|path| File::create(path).map(BufWriter::new)).transpose()?;
    if let Some(csv) = &mut csv {
        writeln!(csv, "case,peer,per,call,count")?;
    }
    for case in cases {
        let (many, per) = case.unit.per();
        let mut totals: BTreeMap<&str, f64> = BTreeMap::new();
        for peer in peers {
            eprintln!("{} with {}", case.name, peer.name);
            if case.run(peer, case.smoke)?.is_none() {
                continue;
            }
            let counts = count(counter, case, peer, rounds)?;
            let counts: Counts = counts
                .into_iter()
                .map(|(name, n)| (name, n * many as f64 / case.traced as f64))
                // A call or two that depend on the moment are not the work's.
                .filter(|(_, n)| *n * case.traced as f64 / many as f64 > 4.0)
                .collect();
            if let Some(csv) = &mut csv {
                for (name, n) in &counts {
                    writeln!(csv, "{},{},{per},{name},{n:.3}", case.name, peer.name)?;
                }
            }
            let all = counts.values().sum();
            totals.insert(&peer.name, all);
            let raw = peer.raw.and_then(|raw| totals.get(raw)).copied();
            let mut line = vec![case.name.to_string(), peer.name.clone(), per.to_string()];
            line.extend(cells(&counts, if many == 1 { 2 } else { 0 }, raw));
            table.push(line);
        }
    }
    table.print();
    Ok(())
}

/// The heads of `cells`.
const HEADS: &[&str] = &["all", "recv", "send", "poll", "futex", "others", "to own raw", "which others"];

/// Counts as a part of a table's line. `raw`: all of the raw stream's.
fn cells(counts: &Counts, decimals: usize, raw: Option<f64>) -> Vec<String> {
    let text = |n: f64| format!("{n:.decimals$}");
    let sum = |class: &str| -> f64 {
        counts.iter().filter(|(name, _)| class_of(name) == class).map(|(_, n)| n).fold(0.0, |a, n| a + n)
    };
    let all: f64 = counts.values().sum();
    let mut cells = vec![text(all)];
    cells.extend(["recv", "send", "poll", "futex", "others"].map(|class| text(sum(class))));
    cells.push(raw.map_or(String::new(), |raw| format!("{:.2}", all / raw)));
    let others: Vec<String> = counts
        .iter()
        .filter(|(name, _)| class_of(name) == "others")
        .map(|(name, n)| format!("{name} {}", text(*n)))
        .collect();
    cells.push(others.join(", "));
    cells
}

/// What servers were counted to call for each request.
pub struct Book {
    table: Table,
    csv: Option<BufWriter<File>>,
    /// All calls of a server in a case.
    totals: BTreeMap<(String, &'static str), f64>,
}

impl Book {
    pub fn new(csv: Option<&Path>) -> io::Result<Book> {
        let mut csv = csv.map(|path| File::create(path).map(BufWriter::new)).transpose()?;
        if let Some(csv) = &mut csv {
            writeln!(csv, "case,server,call,count")?;
        }
        Ok(Book { table: Table::new(&[&["case", "server"], HEADS].concat()), csv, totals: BTreeMap::new() })
    }

    pub fn add(&mut self, case: &str, kind: &Kind, mut counts: Counts, requests: u64) -> io::Result<()> {
        counts.values_mut().for_each(|n| *n /= requests as f64);
        // A call or two that depend on the moment are not the requests'.
        counts.retain(|_, n| *n >= 0.005);
        if let Some(csv) = &mut self.csv {
            for (name, n) in &counts {
                writeln!(csv, "{case},{},{name},{n:.4}", kind.name)?;
            }
        }
        self.totals.insert((case.to_string(), kind.name), counts.values().sum());
        let raw = kind.raw.and_then(|raw| self.totals.get(&(case.to_string(), raw))).copied();
        let mut line = vec![case.to_string(), kind.name.to_string()];
        line.extend(cells(&counts, 2, raw));
        self.table.push(line);
        Ok(())
    }

    pub fn print(mut self) -> io::Result<()> {
        self.table.print();
        self.csv.as_mut().map_or(Ok(()), Write::flush)
    }
}

fn class_of(call: &str) -> &'static str {
    match call {
        "read" | "readv" | "recvfrom" | "recvmsg" => "recv",
        "write" | "writev" | "sendto" | "sendmsg" => "send",
        "poll" | "ppoll" | "epoll_wait" | "epoll_pwait" | "epoll_pwait2" | "epoll_ctl" => "poll",
        "futex" => "futex",
        _ => "others",
    }
}

/// What the work of `case.traced` costs beyond a run without work; medians over `rounds`.
fn count(counter: Counter, case: &Case, peer: &Peer, rounds: usize) -> io::Result<Counts> {
    let median_of = |amount: u64| -> io::Result<Counts> {
        let runs = (0..rounds).map(|_| counter.count(case, peer, amount)).collect::<io::Result<Vec<_>>>()?;
        let names = runs.iter().flat_map(|run| run.keys().cloned());
        let of = |name: &String| median(runs.iter().map(|run| run.get(name).copied().unwrap_or(0.0)));
        Ok(names.map(|name| (name.clone(), of(&name))).collect())
    };
    let (without, mut with) = (median_of(0)?, median_of(case.traced)?);
    for (name, n) in &mut with {
        *n -= without.get(name).copied().unwrap_or(0.0);
    }
    Ok(with)
}

/// What counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Counter {
    /// Needs no rights, and slows every call down
    Strace,
    /// Slows nothing down, and needs the right to use the kernel's tracepoints
    Perf,
}

impl Counter {
    /// The calls of one run, from its first moment to its last.
    fn count(self, case: &Case, peer: &Peer, amount: u64) -> io::Result<Counts> {
        let (mut counter, out) = self.command();
        counter.arg(env::current_exe()?);
        counter.args(["--one", &format!("{}:{}", peer.name, case.name), "--amount", &amount.to_string()]);
        run_within(LIMIT, counter, &format!("{} with {}", case.name, peer.name))?;
        let counts = self.read(&out)?;
        match counts.is_empty() {
            true => Err(io::Error::other(format!("{self:?} counted nothing"))),
            false => Ok(counts),
        }
    }

    /// The calls of a process that is there already, while `work` goes on.
    pub fn count_of<T>(self, pid: u32, work: impl FnOnce() -> io::Result<T>) -> io::Result<(Counts, T)> {
        // How long the counter takes to begin; it doesn't say.
        const START: Duration = Duration::from_millis(700);
        let (mut counter, out) = self.command();
        counter.args(["-p", &pid.to_string()]).stdin(Stdio::null()).stderr(Stdio::null());
        let mut counter = counter.spawn()?;
        std::thread::sleep(START);
        let done = work();
        if counter.try_wait()?.is_none() {
            kill_process(Pid::from_child(&counter), Signal::INT)?;
            counter.wait()?;
        }
        let done = done?;
        Ok((self.read(&out)?, done))
    }

    /// What counts, up to what it counts, and where the counts will be.
    fn command(self) -> (Command, PathBuf) {
        let out = env::temp_dir().join(format!("sslfile-peers-counts-{}", std::process::id()));
        let mut counter = match self {
            Counter::Strace => Command::new("strace"),
            Counter::Perf => Command::new("perf"),
        };
        match self {
            Counter::Strace => counter.args(["-f", "-q", "-c", "-o"]).arg(&out),
            Counter::Perf => counter.args(["stat", "-x", ",", "-e", &tracepoints(), "-o"]).arg(&out),
        };
        (counter, out)
    }

    fn read(self, out: &Path) -> io::Result<Counts> {
        let text = std::fs::read_to_string(out)?;
        std::fs::remove_file(out)?;
        Ok(match self {
            Counter::Strace => parse_strace(&text),
            Counter::Perf => parse_perf(&text),
        })
    }
}

pub fn run_within(limit: Duration, mut command: Command, what: &str) -> io::Result<()> {
    let name = command.get_program().to_string_lossy().into_owned();
    let child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn();
    let mut child = child.map_err(|e| io::Error::new(e.kind(), format!("{name} (is it installed?): {e}")))?;
    let start = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if start.elapsed() > limit {
            child.kill()?;
            child.wait()?;
            let text = format!("{what} under {name} is not done after {limit:?}");
            return Err(io::Error::new(io::ErrorKind::TimedOut, text));
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    match status.success() {
        true => Ok(()),
        false => Err(io::Error::other(format!("{what} under {name}: {status}"))),
    }
}

/// Lines of `strace -c`: share, seconds, microseconds a call, calls, maybe errors, name.
fn parse_strace(text: &str) -> Counts {
    let line = |line: &str| -> Option<(String, f64)> {
        let cells: Vec<&str> = line.split_whitespace().collect();
        let (calls, name) = (cells.get(3)?.parse().ok()?, *cells.last()?);
        (name != "total").then(|| (name.to_string(), calls))
    };
    text.lines().filter_map(line).collect()
}

/// Each tracepoint takes a moment to set up, so not every call has its own.
const WATCHED: &[&str] = &[
    "read",
    "readv",
    "recvfrom",
    "recvmsg",
    "write",
    "writev",
    "sendto",
    "sendmsg",
    "poll",
    "ppoll",
    "epoll_wait",
    "epoll_pwait",
    "epoll_pwait2",
    "epoll_ctl",
    "futex",
    "getsockopt",
    "setsockopt",
    "accept4",
    "getpeername",
    "getsockname",
    "fcntl",
    "shutdown",
    "close",
    "getpid",
    "getrandom",
    "mmap",
    "munmap",
    "madvise",
    "brk",
    "sched_yield",
];

fn tracepoints() -> String {
    let watched = WATCHED.iter().map(|call| format!("syscalls:sys_enter_{call}"));
    let all: Vec<String> = watched.chain(["raw_syscalls:sys_enter".to_string()]).collect();
    all.join(",")
}

/// Lines of `perf stat -x ,`: count, unit, event.
fn parse_perf(text: &str) -> Counts {
    let mut total = 0.0;
    let mut counts = Counts::new();
    for line in text.lines() {
        let cells: Vec<&str> = line.split(',').collect();
        let (Some(Ok(n)), Some(event)) = (cells.first().map(|n| n.parse::<f64>()), cells.get(2)) else { continue };
        match event.strip_prefix("syscalls:sys_enter_") {
            Some(name) => {
                counts.insert(name.to_string(), n);
            }
            None => total = n,
        }
    }
    if total > 0.0 {
        let rest = total - counts.values().sum::<f64>();
        counts.insert("unnamed".to_string(), rest);
    }
    counts
}
