//! What is done with each peer, and how long it takes.

use std::io;
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use cpu_time::ThreadTime;

use crate::ends::{both, give, hear, hear_end, join, on_client, on_server, say, take, tcp_pair, tcp_pairs};
use crate::peer::{End, Peer, Reader, Role, Writer};
use crate::pin::{self, Pin};

/// What a case counts.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    Bytes,
    Trips,
    Handshakes,
}

pub struct Case {
    pub name: &'static str,
    pub unit: Unit,
    /// Where the ends run.
    pub pin: Pin,
    /// How much of it makes one measurement.
    pub amount: u64,
    /// How much of it is counted under strace, which is slow.
    pub traced: u64,
    /// How much of it shows that it works at all.
    pub smoke: u64,
    run: Run,
}

/// One measurement. Setting up and warming up are not in it.
#[derive(Clone)]
pub struct Sample {
    pub wall: Duration,
    pub client_cpu: Duration,
    pub server_cpu: Duration,
    /// What the client says was negotiated; empty where nobody can ask.
    pub negotiated: String,
}

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;

/// All cases, in the order in which they are measured.
pub const CASES: &[Case] = &[
    bulk_case("bulk-1k", Pin::Apart, 64 * MIB, |peer, bytes| bulk(peer, KIB, bytes)),
    bulk_case("bulk-1k-together", Pin::Together, 64 * MIB, |peer, bytes| bulk(peer, KIB, bytes)),
    bulk_case("bulk-16k", Pin::Apart, 256 * MIB, |peer, bytes| bulk(peer, 16 * KIB, bytes)),
    bulk_case("bulk-64k", Pin::Apart, 256 * MIB, |peer, bytes| bulk(peer, 64 * KIB, bytes)),
    bulk_case("bulk-1m", Pin::Apart, 256 * MIB, |peer, bytes| bulk(peer, MIB, bytes)),
    bulk_case("both-ways", Pin::Apart, 256 * MIB, |peer, bytes| both_ways(peer, 64 * KIB, bytes)),
    trip_case("trip-64", Pin::Together, |peer, trips| trips_of(peer, 64, trips)),
    trip_case("trip-64-apart", Pin::Apart, |peer, trips| trips_of(peer, 64, trips)),
    handshake_case("handshake", |peer, n| handshakes(&*peer.client, &*peer.server, n, false)),
    handshake_case("resumed", |peer, n| match &peer.resuming {
        Some((client, server)) => handshakes(&**client, &**server, n, true),
        None => Ok(None),
    }),
];

type Run = fn(&Peer, u64) -> io::Result<Option<Sample>>;

const fn bulk_case(name: &'static str, pin: Pin, amount: u64, run: Run) -> Case {
    Case { name, unit: Unit::Bytes, pin, amount, traced: amount / 4, smoke: MIB, run }
}

const fn trip_case(name: &'static str, pin: Pin, run: Run) -> Case {
    Case { name, unit: Unit::Trips, pin, amount: 12_000, traced: 1_000, smoke: 10, run }
}

const fn handshake_case(name: &'static str, run: Run) -> Case {
    let (unit, pin) = (Unit::Handshakes, Pin::Together);
    Case { name, unit, pin, amount: 300, traced: 50, smoke: 3, run }
}

impl Case {
    pub fn find(name: &str) -> io::Result<&'static Case> {
        CASES.iter().find(|case| case.name == name).ok_or_else(|| {
            let names: Vec<_> = CASES.iter().map(|case| case.name).collect();
            let text = format!("no case {name:?}; there are {}", names.join(", "));
            io::Error::new(io::ErrorKind::InvalidInput, text)
        })
    }

    /// `None`: the peer cannot do it, or is not meant for it.
    pub fn run(&self, peer: &Peer, amount: u64) -> io::Result<Option<Sample>> {
        if !peer.takes(self.name) {
            return Ok(None);
        }
        pin::set(self.pin);
        (self.run)(peer, amount).map_err(|e| io::Error::new(e.kind(), format!("{} with {}: {e}", self.name, peer.name)))
    }
}

/// The buffer that every reader has.
const READ_BUFFER: usize = 64 << 10;

/// Opens the window of TCP and fills the buffers of a library before the clock starts.
const WARM_UP: u64 = 4 * MIB;

/// One end writes, the other reads and says when it has it all.
fn bulk(peer: &Peer, size: u64, bytes: u64) -> io::Result<Option<Sample>> {
    let (client, server) = tcp_pair()?;
    thread::scope(|scope| {
        let server = on_server(scope, || {
            let mut end = peer.server.open(server)?;
            let mut buf = vec![0; READ_BUFFER];
            take(&mut end, &mut buf, WARM_UP)?;
            say(&mut end, b"w")?;
            let cpu = ThreadTime::now();
            take(&mut end, &mut buf, bytes)?;
            say(&mut end, b"d")?;
            let cpu = cpu.elapsed();
            hear_end(end, &mut buf)?;
            Ok(cpu)
        });
        let data = vec![b'x'; size as usize];
        let client = (|| {
            let mut end = peer.client.open(client)?;
            give(&mut end, &data, WARM_UP)?;
            hear(&mut end, b"w")?;
            let (start, cpu) = (Instant::now(), ThreadTime::now());
            give(&mut end, &data, bytes)?;
            hear(&mut end, b"d")?;
            let (wall, client_cpu) = (start.elapsed(), cpu.elapsed());
            let negotiated = end.negotiated();
            end.finish()?;
            Ok(Sample { wall, client_cpu, server_cpu: Duration::ZERO, negotiated })
        })();
        let (server_cpu, sample) = both(join(server), client)?;
        Ok(Some(Sample { server_cpu, ..sample }))
    })
}

/// One connection, two threads an end; `bytes` is the sum of both directions.
fn both_ways(peer: &Peer, size: u64, bytes: u64) -> io::Result<Option<Sample>> {
    let (client, server) = tcp_pair()?;
    let start = &Barrier::new(5);
    thread::scope(|scope| {
        let server = on_server(scope, || peer.server.open_both_ways(server));
        let client = peer.client.open_both_ways(client);
        let ((server_reader, server_writer), (client_reader, client_writer)) = both(join(server), client)?;
        let threads = [
            on_client(scope, move || read_half(client_reader, bytes / 2, start)),
            on_client(scope, move || write_half(client_writer, size, bytes / 2, start)),
            on_server(scope, move || read_half(server_reader, bytes / 2, start)),
            on_server(scope, move || write_half(server_writer, size, bytes / 2, start)),
        ];
        start.wait();
        let clock = Instant::now();
        // Halves are handed back, so that the connection does not end while a thread still uses it.
        let mut done = Vec::new();
        for thread in threads {
            done.push(join(thread)?);
        }
        let wall = clock.elapsed();
        let cpu: Vec<Duration> = done.iter().map(|(cpu, _)| *cpu).collect();
        Ok(Some(Sample { wall, client_cpu: cpu[0] + cpu[1], server_cpu: cpu[2] + cpu[3], negotiated: String::new() }))
    })
}

enum Half {
    Reader(#[allow(dead_code)] Reader),
    Writer(#[allow(dead_code)] Writer),
}

fn read_half(mut reader: Reader, bytes: u64, start: &Barrier) -> io::Result<(Duration, Half)> {
    let mut buf = vec![0; READ_BUFFER];
    // The barrier is reached whatever happens, or the others would wait for ever.
    let warm = take(&mut reader, &mut buf, WARM_UP);
    start.wait();
    warm?;
    let cpu = ThreadTime::now();
    take(&mut reader, &mut buf, bytes)?;
    Ok((cpu.elapsed(), Half::Reader(reader)))
}

fn write_half(mut writer: Writer, size: u64, bytes: u64, start: &Barrier) -> io::Result<(Duration, Half)> {
    let data = vec![b'x'; size as usize];
    let warm = give(&mut writer, &data, WARM_UP);
    start.wait();
    warm?;
    let cpu = ThreadTime::now();
    give(&mut writer, &data, bytes)?;
    Ok((cpu.elapsed(), Half::Writer(writer)))
}

/// A message there and the same back, one after the other.
fn trips_of(peer: &Peer, size: usize, trips: u64) -> io::Result<Option<Sample>> {
    const WARM_UP: u64 = 100;
    let (client, server) = tcp_pair()?;
    thread::scope(|scope| {
        let server = on_server(scope, || {
            let mut end = peer.server.open(server)?;
            let mut message = vec![0; size];
            let mut echo = |end: &mut Box<dyn End>, trips| -> io::Result<()> {
                for _ in 0..trips {
                    read_trip(end, &mut message)?;
                    write_trip(end, &message)?;
                    flush_trip(end)?;
                }
                Ok(())
            };
            echo(&mut end, WARM_UP)?;
            let cpu = ThreadTime::now();
            echo(&mut end, trips)?;
            let cpu = cpu.elapsed();
            hear_end(end, &mut [0; 16])?;
            Ok(cpu)
        });
        let client = (|| {
            let mut end = peer.client.open(client)?;
            let message = vec![b'x'; size];
            let mut answer = vec![0; size];
            let mut ask = |end: &mut Box<dyn End>, trips| -> io::Result<()> {
                for _ in 0..trips {
                    write_trip(end, &message)?;
                    flush_trip(end)?;
                    read_trip(end, &mut answer)?;
                }
                Ok(())
            };
            ask(&mut end, WARM_UP)?;
            let (start, cpu) = (Instant::now(), ThreadTime::now());
            ask(&mut end, trips)?;
            let (wall, client_cpu) = (start.elapsed(), cpu.elapsed());
            let negotiated = end.negotiated();
            end.finish()?;
            Ok(Sample { wall, client_cpu, server_cpu: Duration::ZERO, negotiated })
        })();
        let (server_cpu, sample) = both(join(server), client)?;
        Ok(Some(Sample { server_cpu, ..sample }))
    })
}

/// By the names of these three callgrind knows what to count.
#[inline(never)]
fn read_trip(end: &mut Box<dyn End>, message: &mut [u8]) -> io::Result<()> {
    end.read_exact(message)
}

#[inline(never)]
fn write_trip(end: &mut Box<dyn End>, message: &[u8]) -> io::Result<()> {
    end.write_all(message)
}

#[inline(never)]
fn flush_trip(end: &mut Box<dyn End>) -> io::Result<()> {
    end.flush()
}

/// Whole lives of connections, one after the other: handshake, a byte there and a byte back (which brings the tickets),
/// close_notify, end. The TCP connections are made before the clock starts.
fn handshakes(client: &dyn Role, server: &dyn Role, n: u64, resumed: bool) -> io::Result<Option<Sample>> {
    // The first brings the ticket.
    const WARM_UP: usize = 3;
    // At least so many TCP connections are made, used or not: a count of system calls with and without work then leaves
    // them out.
    const AT_LEAST: usize = 64;
    let n = n as usize + WARM_UP;
    let mut pairs = tcp_pairs(n.max(AT_LEAST))?;
    pairs.truncate(n);
    let (clients, servers): (Vec<_>, Vec<_>) = pairs.into_iter().unzip();
    thread::scope(|scope| {
        let server = on_server(scope, || {
            let mut cpu = ThreadTime::now();
            for (i, tcp) in servers.into_iter().enumerate() {
                if i == WARM_UP {
                    cpu = ThreadTime::now();
                }
                let mut end = server.open(tcp)?;
                hear(&mut end, b"?")?;
                say(&mut end, b"!")?;
                hear_end(end, &mut [0; 16])?;
            }
            Ok(cpu.elapsed())
        });
        let client = (|| {
            let (mut start, mut cpu) = (Instant::now(), ThreadTime::now());
            let mut negotiated = String::new();
            for (i, tcp) in clients.into_iter().enumerate() {
                if i == WARM_UP {
                    (start, cpu) = (Instant::now(), ThreadTime::now());
                }
                let mut end = client.open(tcp)?;
                if i > 0 && end.is_resumed().is_some_and(|is| is != resumed) {
                    let text = if resumed { "not resumed" } else { "resumed" };
                    return Err(io::Error::other(format!("handshake {i} was {text}")));
                }
                say(&mut end, b"?")?;
                hear(&mut end, b"!")?;
                if i == 0 {
                    negotiated = end.negotiated();
                }
                end.finish()?;
            }
            let (wall, client_cpu) = (start.elapsed(), cpu.elapsed());
            Ok(Sample { wall, client_cpu, server_cpu: Duration::ZERO, negotiated })
        })();
        let (server_cpu, sample) = both(join(server), client)?;
        Ok(Some(Sample { server_cpu, ..sample }))
    })
}
