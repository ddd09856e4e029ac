//! Counts instructions and allocations, which no other work on the machine can change: runs this program again under
//! callgrind, and tells what a small read and a small write cost the engine from what they cost ourselves.

use std::collections::{BTreeMap, HashMap};
use std::env;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::report::Table;
use crate::syscalls::run_within;

/// Those that are looked at by default, if they were built.
pub const PEERS: &[&str] = &["native-tls", "ours-native", "openssl", "ours-openssl", "rustls", "ours-rustls"];

/// What is counted, and the function that does it and nothing else.
const CALLS: &[(&str, &str)] = &[("read", "*::read_trip"), ("write", "*::write_trip"), ("flush", "*::flush_trip")];
const CASE: &str = "trip-64";
/// callgrind's numbers of the threads.
const ENDS: &[(&str, u32)] = &[("client", 1), ("server", 2)];

/// Two runs differ by so many calls, so that what happens once is left out.
const TRIPS: u64 = 500;
const LIMIT: Duration = Duration::from_secs(120);
/// A function of a library that serves many counts for the nearest function, among so many callers, that belongs to
/// somebody.
const CALLERS: u32 = 8;

pub fn run(peers: &[&str], csv: Option<&Path>) -> io::Result<()> {
    let mut table = Table::new(&[
        "call",
        "peer",
        "end",
        "instructions",
        "engine's",
        "ours",
        "in sslfile",
        "for it elsewhere",
        "allocations: engine's",
        "ours",
    ]);
    let mut csv = csv.map(|path| File::create(path).map(BufWriter::new)).transpose()?;
    if let Some(csv) = &mut csv {
        writeln!(csv, "call,peer,end,owner,for,function,instructions,allocations")?;
    }
    for (call, function) in CALLS {
        for peer in peers {
            eprintln!("{call} with {peer}");
            let mut with = count(peer, function, TRIPS)?;
            let mut without = count(peer, function, 0)?;
            for (end, _) in ENDS {
                let costs = with.remove(end).unwrap_or_default().less(&without.remove(end).unwrap_or_default());
                let of = |owner: Owner| costs.sum(|place| place.owner == owner);
                let (engine, ours) = (of(Owner::Engine), of(Owner::Ours));
                let own = costs.sum(|place| place.owner == Owner::Ours && place.is_own());
                let all = costs.sum(|_| true);
                let whole = |n: f64| format!("{n:.0}");
                table.push(vec![
                    call.to_string(),
                    peer.to_string(),
                    end.to_string(),
                    whole(all.instructions),
                    whole(engine.instructions),
                    whole(ours.instructions),
                    whole(own.instructions),
                    whole(ours.instructions - own.instructions),
                    format!("{:.2}", engine.allocations),
                    format!("{:.2}", ours.allocations),
                ]);
                for (place, cost) in &costs.0 {
                    let Some(csv) = &mut csv else { break };
                    let Place { owner, of, function } = place;
                    let Cost { instructions, allocations } = cost;
                    let quoted = |name: &str| format!("\"{}\"", name.replace('"', "\"\""));
                    let (of, function) = (quoted(of), quoted(function));
                    writeln!(csv, "{call},{peer},{end},{owner:?},{of},{function},{instructions:.2},{allocations:.4}")?;
                }
            }
        }
    }
    table.print();
    Ok(())
}

/// Costs of each end while it is in the function, for so many trips.
fn count(peer: &str, function: &str, trips: u64) -> io::Result<HashMap<&'static str, Costs>> {
    let folder = tempfile::tempdir()?;
    let out = folder.path().join("callgrind");
    let mut valgrind = Command::new("valgrind");
    valgrind.args(["-q", "--tool=callgrind", "--separate-threads=yes"]);
    valgrind.arg(format!("--separate-callers={CALLERS}"));
    valgrind.arg(format!("--toggle-collect={function}"));
    valgrind.arg(format!("--callgrind-out-file={}", out.display()));
    // What is bound when it is first called would be counted there.
    valgrind.env("LD_BIND_NOW", "1");
    valgrind.arg(env::current_exe()?).args(["--one", &format!("{peer}:{CASE}"), "--amount", &trips.to_string()]);
    run_within(LIMIT, valgrind, peer)?;
    let costs_of = |(end, thread): &(&'static str, u32)| {
        let text = fs::read(format!("{}-{thread:02}", out.display()))?;
        let costs = parse(&String::from_utf8_lossy(&text));
        match costs.0.is_empty() {
            true => Err(io::Error::other(format!("callgrind saw nothing of {function} in the {end} of {peer}"))),
            false => Ok((*end, costs)),
        }
    };
    ENDS.iter().map(costs_of).collect()
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Owner {
    /// The TLS library, with the crate that speaks to it and all that it calls.
    Engine,
    /// sslfile, with all that it calls.
    Ours,
    /// This program.
    Bench,
}

/// Where an instruction is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    owner: Owner,
    /// The owner's function that is at work.
    of: String,
    /// The function itself, the same or one that it has called.
    function: String,
}

impl Place {
    fn is_own(&self) -> bool {
        self.of == self.function
    }
}

#[derive(Clone, Copy, Default)]
struct Cost {
    instructions: f64,
    allocations: f64,
}

#[derive(Default)]
struct Costs(BTreeMap<Place, Cost>);

impl Costs {
    fn add(&mut self, place: Place, instructions: f64, allocations: f64) {
        let cost = self.0.entry(place).or_default();
        cost.instructions += instructions;
        cost.allocations += allocations;
    }

    /// What remains for each trip.
    fn less(mut self, other: &Costs) -> Costs {
        for (place, cost) in &other.0 {
            self.add(place.clone(), -cost.instructions, -cost.allocations);
        }
        for cost in self.0.values_mut() {
            cost.instructions /= TRIPS as f64;
            cost.allocations /= TRIPS as f64;
        }
        self.0.retain(|_, cost| cost.instructions.abs() >= 0.01 || cost.allocations.abs() >= 0.0001);
        self
    }

    fn sum(&self, wanted: impl Fn(&Place) -> bool) -> Cost {
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
            name if ENGINES.contains(&name) => Some(Owner::Engine),
            _ => None,
        }
    })
}
