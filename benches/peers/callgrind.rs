//! Runs this program again under callgrind, and tells whose the instructions and allocations were.

use std::collections::{BTreeMap, HashMap};
use std::env;
use std::fs;
use std::io;
use std::process::Command;
use std::time::Duration;

use crate::syscalls::run_within;

const LIMIT: Duration = Duration::from_secs(240);
/// A function of a library that serves many counts for the nearest function, among so many callers, that belongs to
/// somebody.
const CALLERS: u32 = 8;

/// Costs of `--one` with this amount, in each of these threads, which callgrind numbers; with `function` only while they are in it.
pub fn count(one: &str, amount: u64, function: Option<&str>, threads: &[u32]) -> io::Result<Vec<Costs>> {
    let folder = tempfile::tempdir()?;
    let out = folder.path().join("callgrind");
    let mut valgrind = Command::new("valgrind");
    valgrind.args(["-q", "--tool=callgrind", "--separate-threads=yes"]);
    valgrind.arg(format!("--separate-callers={CALLERS}"));
    valgrind.args(function.map(|function| format!("--toggle-collect={function}")));
    valgrind.arg(format!("--callgrind-out-file={}", out.display()));
    // What is bound when it is first called would be counted there.
    valgrind.env("LD_BIND_NOW", "1");
    valgrind.arg(env::current_exe()?).args(["--one", one, "--amount", &amount.to_string()]);
    run_within(LIMIT, valgrind, one)?;
    let costs_of = |thread: &u32| {
        let text = fs::read(format!("{}-{thread:02}", out.display()))?;
        let costs = parse(&String::from_utf8_lossy(&text));
        match costs.0.is_empty() {
            true => Err(io::Error::other(format!("callgrind saw nothing in thread {thread} of {one}"))),
            false => Ok(costs),
        }
    };
    threads.iter().map(costs_of).collect()
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Owner {
    /// The TLS library, with the crate that speaks to it and all that it calls.
    Engine,
    /// sslfile, with all that it calls.
    Ours,
    /// What a server of somebody else's stands on.
    Runtime,
    /// This program.
    Bench,
}

/// Where an instruction is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    pub owner: Owner,
    /// The owner's function that is at work.
    pub of: String,
    /// The function itself, the same or one that it has called.
    pub function: String,
}

impl Place {
    pub fn is_own(&self) -> bool {
        self.of == self.function
    }
}

#[derive(Clone, Copy, Default)]
pub struct Cost {
    pub instructions: f64,
    pub allocations: f64,
}

#[derive(Default)]
pub struct Costs(pub BTreeMap<Place, Cost>);

impl Costs {
    fn add(&mut self, place: Place, instructions: f64, allocations: f64) {
        let cost = self.0.entry(place).or_default();
        cost.instructions += instructions;
        cost.allocations += allocations;
    }

    /// What remains for each of so many.
    pub fn less(mut self, other: &Costs, many: u64) -> Costs {
        for (place, cost) in &other.0 {
            self.add(place.clone(), -cost.instructions, -cost.allocations);
        }
        for cost in self.0.values_mut() {
            cost.instructions /= many as f64;
            cost.allocations /= many as f64;
        }
        self.0.retain(|_, cost| cost.instructions.abs() >= 0.01 || cost.allocations.abs() >= 0.0001);
        self
    }

    pub fn sum(&self, wanted: impl Fn(&Place) -> bool) -> Cost {
        let costs = self.0.iter().filter(|(place, _)| wanted(place));
        costs.fold(Cost::default(), |sum, (_, cost)| Cost {
            instructions: sum.instructions + cost.instructions,
            allocations: sum.allocations + cost.allocations,
        })
    }
}

/// Reads callgrind's format: of each function the lines that say what was spent in it, and the calls of the allocator.
///
/// The name of a function is followed by those of its callers. Names are written out once and numbered from then on.
fn parse(text: &str) -> Costs {
    let (mut names, mut objects) = (HashMap::new(), HashMap::new());
    // The object of each function, which is told only where its own lines are.
    let mut libraries = HashMap::new();
    let (mut object, mut function, mut callee) = (String::new(), String::new(), String::new());
    let mut is_inclusive = false;
    let mut spent: Vec<(String, f64, f64)> = Vec::new();
    for line in text.lines() {
        if let Some(name) = line.strip_prefix("ob=") {
            object = resolve(name, &mut objects);
        } else if let Some(name) = line.strip_prefix("cob=") {
            resolve(name, &mut objects);
        } else if let Some(name) = line.strip_prefix("fn=") {
            function = resolve(name, &mut names);
            libraries.insert(first(&function).to_string(), object.clone());
        } else if let Some(name) = line.strip_prefix("cfn=") {
            callee = resolve(name, &mut names);
        } else if let Some(calls) = line.strip_prefix("calls=") {
            is_inclusive = true;
            let times = calls.split(' ').next().and_then(|n| n.parse().ok()).unwrap_or(0.0);
            if is_allocator(first(&callee)) && !is_allocator(first(&function)) {
                spent.push((callee.clone(), 0.0, times));
            }
        } else if line.starts_with(|c: char| c.is_ascii_digit() || "+-*".contains(c)) {
            // The line after a call has the cost of the call with all that is below it.
            if !std::mem::take(&mut is_inclusive) {
                let cost = line.split(' ').nth(1).and_then(|n| n.parse().ok()).unwrap_or(0.0);
                spent.push((function.clone(), cost, 0.0));
            }
        }
    }
    let mut costs = Costs::default();
    for (chain, instructions, allocations) in spent {
        let owned = chain.split('\'').find_map(|name| {
            let owner = owner_of(name, libraries.get(name).map_or("", String::as_str))?;
            Some((owner, name))
        });
        let (owner, of) = owned.unwrap_or((Owner::Bench, "unknown"));
        let place = Place { owner, of: of.to_string(), function: first(&chain).to_string() };
        costs.add(place, instructions, allocations);
    }
    costs
}

/// `(7) name` the first time, `(7)` from then on.
fn resolve(text: &str, known: &mut HashMap<String, String>) -> String {
    let (number, name) = text.split_once(')').unwrap_or(("", text));
    if !name.is_empty() {
        known.insert(number.to_string(), name.trim_start().to_string());
    }
    known.get(number).cloned().unwrap_or_default()
}

fn first(chain: &str) -> &str {
    chain.split('\'').next().unwrap_or(chain)
}

fn is_allocator(function: &str) -> bool {
    ["malloc", "calloc", "realloc", "posix_memalign", "aligned_alloc"].contains(&function)
}

/// Whose a function is; nobody's in particular if it is one of std, libc and the like.
fn owner_of(function: &str, object: &str) -> Option<Owner> {
    const ENGINES: &[&str] =
        &["openssl", "openssl_sys", "native_tls", "rustls", "ring", "webpki", "rustls_pki_types", "untrusted"];
    const RUNTIMES: &[&str] = &["tokio", "tokio_openssl", "tokio_native_tls", "tokio_rustls", "mio"];
    if object.contains("libssl") || object.contains("libcrypto") || function.starts_with("ring_core_") {
        return Some(Owner::Engine);
    }
    // `<type as trait>::function` belongs to the type's crate, or else to the trait's.
    let paths = match function.strip_prefix('<') {
        Some(rest) => rest.split(" as ").collect(),
        None => vec![function],
    };
    paths.into_iter().find_map(|path| {
        let name = path.trim_start_matches(['&', '*', '<', '(', '[']).trim_start_matches("mut ");
        match name.split("::").next()? {
            "sslfile" => Some(Owner::Ours),
            "peers" => Some(Owner::Bench),
            name if RUNTIMES.contains(&name) => Some(Owner::Runtime),
            name if ENGINES.contains(&name) => Some(Owner::Engine),
            _ => None,
        }
    })
}
