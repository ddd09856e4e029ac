//! More than one processor for one server: a backend on each, against one backend for all; and what it costs to move a
//! connection from one backend to another.

use std::io::{self, Read, Write};
use std::net::TcpListener;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use cpu_time::{ProcessTime, ThreadTime};
use sslfile::{Backend, Engine, SslFile, SslListener};

use crate::certs::NAME;
use crate::load::Load;
use crate::ours;
use crate::pin::{self, Pin};
use crate::process::Server;
use crate::report::Table;
use crate::samples::{names, Sample, Samples};
use crate::servers::{built, context, Kind};

/// Who turns what.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    /// One backend, one thread.
    One,
    /// One backend that a thread on each processor turns, one at a time: turns of a backend never overlap.
    Shared,
    /// One backend that one thread turns, while threads on the other processors do what a request takes, and answer.
    Workers,
    /// A backend on each processor; a connection is moved to its own when it is accepted.
    Each,
    /// The same, and every request moves its connection to the next backend.
    Moving,
}

const KINDS: &[Kind] = &[
    Kind::ours("one-openssl", "", Engine::OpenSsl, |tcp, work| serve(tcp, work, Engine::OpenSsl, Way::One)),
    Kind::ours("shared-openssl", "one-openssl", Engine::OpenSsl, |tcp, work| {
        serve(tcp, work, Engine::OpenSsl, Way::Shared)
    }),
    Kind::ours("workers-openssl", "one-openssl", Engine::OpenSsl, |tcp, work| {
        serve(tcp, work, Engine::OpenSsl, Way::Workers)
    }),
    Kind::ours("each-openssl", "one-openssl", Engine::OpenSsl, |tcp, work| {
        serve(tcp, work, Engine::OpenSsl, Way::Each)
    }),
    Kind::ours("moving-openssl", "each-openssl", Engine::OpenSsl, |tcp, work| {
        serve(tcp, work, Engine::OpenSsl, Way::Moving)
    }),
    Kind::ours("one-rustls", "", Engine::Rustls, |tcp, work| serve(tcp, work, Engine::Rustls, Way::One)),
    Kind::ours("shared-rustls", "one-rustls", Engine::Rustls, |tcp, work| {
        serve(tcp, work, Engine::Rustls, Way::Shared)
    }),
    Kind::ours("workers-rustls", "one-rustls", Engine::Rustls, |tcp, work| {
        serve(tcp, work, Engine::Rustls, Way::Workers)
    }),
    Kind::ours("each-rustls", "one-rustls", Engine::Rustls, |tcp, work| serve(tcp, work, Engine::Rustls, Way::Each)),
    Kind::ours("moving-rustls", "each-rustls", Engine::Rustls, |tcp, work| {
        serve(tcp, work, Engine::Rustls, Way::Moving)
    }),
];

pub fn kinds() -> Vec<&'static Kind> {
    built(KINDS)
}

/// What a request takes beside the echo, in microseconds of processor time: nothing, and what a program does.
const WORK: &[usize] = &[0, 50];

pub struct Plan<'a> {
    pub kinds: Vec<&'static Kind>,
    pub connections: usize,
    pub rounds: usize,
    pub time: Duration,
    pub csv: Option<&'a Path>,
}

pub fn run(plan: &Plan) -> io::Result<()> {
    // The load generator takes what the servers leave.
    pin::set(Pin::Free);
    let mut samples = Samples::new("requests", &[]);
    for work in WORK {
        let start = |kind: &&'static Kind| {
            let server = Server::start(kind, *work)?;
            let load = Load::open(server.addr, plan.connections)?;
            Ok((*kind, server, load))
        };
        let mut servers = plan.kinds.iter().map(start).collect::<io::Result<Vec<_>>>()?;
        for round in 0..plan.rounds {
            eprintln!("{work} µs of work, round {} of {}", round + 1, plan.rounds);
            for (kind, server, load) in &mut servers {
                load.flood(64, plan.time / 4)?;
                let before = server.usage_of_all()?;
                let flood = load.flood(64, plan.time)?;
                let sample = Sample::new(kind.name, (flood.requests, flood.wall), before, server.usage_of_all()?);
                samples.list.push(Sample { round, case: format!("work-{work}"), ..sample });
            }
            servers.reverse();
        }
    }
    samples.print(&names(&plan.kinds), &[]);
    println!();
    moves(100, 100)?;
    samples.write(plan.csv)
}

fn serve(listener: TcpListener, work: usize, engine: Engine, way: Way) -> io::Result<()> {
    let work = Duration::from_micros(work as u64);
    let processors = pin::processors();
    let backends = match way {
        Way::Each | Way::Moving => (0..processors).map(|_| Backend::new()).collect::<io::Result<Vec<_>>>()?,
        _ => vec![Backend::new()?],
    };
    let backends: Arc<[Backend]> = backends.into();
    let listener = SslListener::from_tcp(listener, &context(engine)?)?;
    let workers = if way == Way::Workers { start_workers(processors, work)? } else { Vec::new() };
    let next = AtomicUsize::new(0);
    let all = backends.clone();
    listener.set_accept_callback(&backends[0], move |file, _| {
        let _ = file.set_nodelay(true);
        let mut home = next.fetch_add(1, Ordering::Relaxed);
        if all.len() > 1 {
            told(file.set_backend(Some(&all[home % all.len()])));
        }
        if let Some(worker) = workers.get(home % workers.len().max(1)).cloned() {
            file.set_read_callback(move |file, data| {
                // Workers live as long as the process.
                let _ = file.try_clone().map(|file| worker.send((file, data.to_vec())));
            });
        } else {
            let all = all.clone();
            file.set_read_callback(move |file, data| {
                spend(work);
                if way == Way::Moving {
                    home += 1;
                    told(file.set_backend(Some(&all[home % all.len()])));
                }
                told(file.send(data));
            });
        }
        file.keep();
    })?;
    let threads = if way == Way::Shared { processors } else { backends.len() };
    let turn = Arc::new(Mutex::new(()));
    // This thread is on the servers' processor; the others are on those that are left.
    for n in 1..threads {
        let (backend, turn) = (backends[n % backends.len()].clone(), turn.clone());
        thread::spawn(move || {
            pin::to(n - 1);
            told(take_turns(&backend, way, &turn));
        });
    }
    pin::to(threads.max(2) - 1);
    take_turns(&backends[0], way, &turn)
}

fn take_turns(backend: &Backend, way: Way, turn: &Mutex<()>) -> io::Result<()> {
    if way != Way::Shared {
        return backend.run();
    }
    loop {
        let _mine = turn.lock().unwrap_or_else(PoisonError::into_inner);
        backend.turn(None)?;
    }
}

/// Where the answer goes, and what was asked.
type Request = (SslFile, Vec<u8>);

/// One on each processor but the last, which turns the backend.
fn start_workers(processors: usize, work: Duration) -> io::Result<Vec<mpsc::Sender<Request>>> {
    let start = |n| {
        let (sender, requests) = mpsc::channel::<Request>();
        thread::Builder::new().spawn(move || {
            pin::to(n);
            for (file, data) in requests {
                spend(work);
                told(file.send(&data));
            }
        })?;
        Ok(sender)
    };
    (0..(processors - 1).max(1)).map(start).collect()
}

/// Of this thread's processor, however long that takes.
fn spend(time: Duration) {
    if time.is_zero() {
        return;
    }
    let begin = ThreadTime::now();
    while begin.elapsed() < time {}
}

fn told(result: io::Result<()>) {
    if let Err(e) = result {
        eprintln!("a server failed: {e}");
    }
}

/// Moves connections that nobody speaks on from one backend to another and back, from a third thread; and with a message
/// behind each move.
fn moves(files: usize, times: usize) -> io::Result<()> {
    let mut table =
        Table::new(&["engine", "moves", "each", "CPU of the mover", "CPU of all", "CPU of a trip", "behind a move"]);
    for engine in [Engine::OpenSsl, Engine::Rustls].into_iter().filter(|engine| engine.is_available()) {
        let backends = [Backend::new()?, Backend::new()?];
        let threads: Vec<_> = (0..2)
            .map(|n| {
                let backend = backends[n].clone();
                thread::spawn(move || {
                    pin::to(n);
                    backend.run()
                })
            })
            .collect();
        let mut pairs = (0..files).map(|_| pair(engine, &backends[0])).collect::<io::Result<Vec<_>>>()?;
        let (start, own, all) = (Instant::now(), ThreadTime::now(), ProcessTime::now());
        for time in 1..=times {
            for (_, file) in &pairs {
                file.set_backend(Some(&backends[time % 2]))?;
            }
        }
        let n = (files * times) as u32;
        let (wall, own, all) = (start.elapsed() / n, own.elapsed() / n, all.elapsed() / n);
        let mut trips = |moved: bool| -> io::Result<Duration> {
            let start = ProcessTime::now();
            for time in 1..=times {
                for (peer, file) in &mut pairs {
                    if moved {
                        file.set_backend(Some(&backends[time % 2]))?;
                    }
                    peer.write_all(&[b'x'; 64])?;
                    peer.read_exact(&mut [0; 64])?;
                }
            }
            Ok(start.elapsed() / n)
        };
        let (still, moved) = (trips(false)?, trips(true)?);
        let text = |time: Duration| format!("{:.2} µs", time.as_secs_f64() * 1e6);
        let mut line = vec![format!("{engine:?}"), n.to_string()];
        line.extend([wall, own, all, still, moved].map(text));
        table.push(line);
        drop(pairs);
        backends.iter().for_each(Backend::stop);
        for thread in threads {
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        }
    }
    table.print();
    Ok(())
}

/// A blocking client, and the server's file, which echoes, in a backend.
fn pair(engine: Engine, backend: &Backend) -> io::Result<(SslFile<UnixStream>, SslFile<UnixStream>)> {
    let (client, server) = UnixStream::pair()?;
    let (client_context, server_context) = (ours::client(engine)?, ours::server(engine, false)?);
    let options = SslFile::options().server().backend(backend).nonblocking(true);
    let server = options.open(server, &server_context)?;
    server.set_read_callback(|file, data| told(file.send(data)));
    let mut client = SslFile::options().client(NAME).open(client, &client_context)?;
    client.write_all(b"?")?;
    client.read_exact(&mut [0])?;
    Ok((client, server))
}

/// Every server once.
pub fn smoke() -> io::Result<()> {
    pin::set(Pin::Free);
    for kind in kinds() {
        let server = Server::start(kind, 1)?;
        let flood = Load::open(server.addr, 4)?.flood(64, Duration::from_millis(10))?;
        assert!(flood.requests >= 4, "{}", kind.name);
        println!("cores with {}: ok", kind.name);
    }
    moves(2, 3)
}
