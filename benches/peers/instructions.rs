//! Counts instructions and allocations, which no other work on the machine can change: of a small read and a small write, and
//! of a new connection at the server; those of the engine, and those of our own.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use crate::callgrind::{count, Cost, Costs, Owner, Place};
use crate::report::Table;

/// Those that are looked at by default, if they were built.
pub const PEERS: &[&str] = &["native-tls", "ours-native", "openssl", "ours-openssl", "rustls", "ours-rustls"];

/// What is counted, and the function that does it and nothing else.
const CALLS: &[(&str, &str)] = &[("read", "*::read_trip"), ("write", "*::write_trip"), ("flush", "*::flush_trip")];
const CASE: &str = "trip-64";
/// callgrind's numbers of the threads.
const CLIENT: u32 = 1;
const SERVER: u32 = 2;

/// Two runs differ by so many calls, so that what happens once is left out.
const TRIPS: u64 = 500;
/// The same of connections.
#[cfg(feature = "openssl")]
const CONNECTIONS: u64 = 100;

type Csv = Option<BufWriter<File>>;

/// `peers` for reads and writes, `servers` for connections.
pub fn run(peers: &[&str], servers: &[&str], csv: Option<&Path>) -> io::Result<()> {
    let mut csv = csv.map(|path| File::create(path).map(BufWriter::new)).transpose()?;
    if let Some(csv) = &mut csv {
        writeln!(csv, "call,peer,end,owner,for,function,instructions,allocations")?;
    }
    if !peers.is_empty() {
        of_calls(peers, &mut csv)?;
    }
    #[cfg(feature = "openssl")]
    if !servers.is_empty() {
        of_connections(servers, &mut csv)?;
    }
    #[cfg(not(feature = "openssl"))]
    let _ = servers;
    Ok(())
}

fn of_calls(peers: &[&str], csv: &mut Csv) -> io::Result<()> {
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
    for (call, function) in CALLS {
        for peer in peers {
            eprintln!("{call} with {peer}");
            let one = format!("{peer}:{CASE}");
            let with = count(&one, TRIPS, Some(function), &[CLIENT, SERVER])?;
            let without = count(&one, 0, Some(function), &[CLIENT, SERVER])?;
            for ((end, with), without) in ["client", "server"].iter().zip(with).zip(without) {
                let costs = with.less(&without, TRIPS);
                let of = |owner: Owner| costs.sum(|place| place.owner == owner);
                let (engine, ours) = (of(Owner::Engine), of(Owner::Ours));
                let mut line = vec![call.to_string(), peer.to_string(), end.to_string()];
                line.extend([all(&costs), engine.instructions].map(whole));
                line.extend(own_and_elsewhere(&costs, Owner::Ours));
                line.extend([engine.allocations, ours.allocations].map(|n| format!("{n:.2}")));
                table.push(line);
                write(csv, [call, peer, end], &costs)?;
            }
        }
    }
    table.print();
    Ok(())
}

/// Of whole lives of connections, one after the other, in the server's thread.
#[cfg(feature = "openssl")]
fn of_connections(servers: &[&str], csv: &mut Csv) -> io::Result<()> {
    let mut table = Table::new(&[
        "connection",
        "server",
        "instructions",
        "engine's",
        "ours",
        "in sslfile",
        "for it elsewhere",
        "runtime's",
        "the server's own",
        "allocations: engine's",
        "ours",
        "runtime's",
    ]);
    for case in ["full", "resumed"] {
        for server in servers {
            eprintln!("{case} handshakes with {server}");
            let one = format!("{server}:accept-{case}");
            let with = count(&one, CONNECTIONS, None, &[SERVER])?;
            let without = count(&one, 0, None, &[SERVER])?;
            for (with, without) in with.into_iter().zip(without) {
                let costs = with.less(&without, CONNECTIONS);
                let of = |owner: Owner| costs.sum(|place| place.owner == owner);
                let (engine, ours, runtime) = (of(Owner::Engine), of(Owner::Ours), of(Owner::Runtime));
                let mut line = vec![case.to_string(), server.to_string()];
                line.extend([all(&costs), engine.instructions].map(whole));
                line.extend(own_and_elsewhere(&costs, Owner::Ours));
                line.extend([runtime.instructions, of(Owner::Bench).instructions].map(whole));
                let allocations = [engine.allocations, ours.allocations, runtime.allocations];
                line.extend(allocations.map(|n| format!("{n:.1}")));
                table.push(line);
                write(csv, [&format!("connection-{case}"), server, "server"], &costs)?;
            }
        }
    }
    table.print();
    Ok(())
}

fn whole(n: f64) -> String {
    format!("{n:.0}")
}

fn all(costs: &Costs) -> f64 {
    costs.sum(|_| true).instructions
}

/// The sum, what is in functions of the owner, and what those call.
fn own_and_elsewhere(costs: &Costs, owner: Owner) -> [String; 3] {
    let all = costs.sum(|place| place.owner == owner).instructions;
    let own = costs.sum(|place| place.owner == owner && place.is_own()).instructions;
    [all, own, all - own].map(whole)
}

fn write(csv: &mut Csv, [call, peer, end]: [&str; 3], costs: &Costs) -> io::Result<()> {
    let Some(csv) = csv else { return Ok(()) };
    for (place, cost) in &costs.0 {
        let Place { owner, of, function } = place;
        let Cost { instructions, allocations } = cost;
        let quoted = |name: &str| format!("\"{}\"", name.replace('"', "\"\""));
        let (of, function) = (quoted(of), quoted(function));
        writeln!(csv, "{call},{peer},{end},{owner:?},{of},{function},{instructions:.2},{allocations:.4}")?;
    }
    Ok(())
}
