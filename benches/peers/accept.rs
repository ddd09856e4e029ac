//! New connections: how many a second a server of one thread takes in, and what each costs it.
//!
//! A connection is a handshake, an echo of 64 bytes (which brings the tickets) and a clean end, and several are under way at
//! once. The load generator is the raw openssl crate on mio, in one thread on the other processor.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use openssl::ssl::{ErrorCode, Ssl, SslContext, SslSession, SslStream, SslVersion};

use crate::dial::{self, Connector};
use crate::load::REQUEST;
use crate::pin::{self, Pin};
use crate::process::Server;
use crate::samples::{names, Negotiated, Sample, Samples};
use crate::servers::{self, Kind};
use crate::syscalls::{Book, Counter};

/// The server that all are compared with in the last columns.
const COMMON: &str = "tokio-rustls";
/// The buffer of those servers that need one for each connection.
pub const BUFFER: usize = 1 << 10;
/// How long nothing may happen before the server counts as stuck.
const PATIENCE: Duration = Duration::from_secs(20);
/// Before the clock starts.
const WARM_UP: u64 = 64;

pub struct Plan<'a> {
    pub kinds: Vec<&'static Kind>,
    pub rounds: usize,
    /// How many connections make one measurement.
    pub visits: u64,
    /// How many are under way at once.
    pub at_once: usize,
    pub csv: Option<&'a Path>,
}

/// The cases, and whether sessions are resumed in them.
const CASES: &[(&str, bool)] = &[("full", false), ("resumed", true)];

pub fn run(plan: &Plan) -> io::Result<()> {
    pin::set(Pin::Apart);
    let mut samples = Samples::new("connections", &[("tickets", "")]);
    let mut negotiated = Negotiated::default();
    for (case, resumed) in CASES {
        let mut servers = start(plan, *resumed, &mut negotiated)?;
        for round in 0..plan.rounds {
            eprintln!("{case} handshakes, round {} of {}", round + 1, plan.rounds);
            for (kind, server, visitors) in &mut servers {
                visitors.visit(WARM_UP, plan.at_once)?;
                let before = server.usage()?;
                let visits = visitors.visit(plan.visits, plan.at_once)?;
                visits.check(*resumed).map_err(|e| io::Error::other(format!("{}: {e}", kind.name)))?;
                let sample = Sample::new(kind.name, (visits.made, visits.wall), before, server.usage()?);
                let more = vec![visits.tickets as f64 / visits.made as f64];
                samples.list.push(Sample { round, case: case.to_string(), more, ..sample });
            }
            servers.reverse();
        }
    }
    samples.print(&names(&plan.kinds), &[COMMON]);
    negotiated.print();
    samples.write(plan.csv)
}

/// System calls of the server for each connection.
pub fn count(plan: &Plan, counter: Counter) -> io::Result<()> {
    pin::set(Pin::Apart);
    let mut book = Book::new(plan.csv)?;
    for (case, resumed) in CASES {
        for (kind, server, mut visitors) in start(plan, *resumed, &mut Negotiated::default())? {
            eprintln!("{case} with {}", kind.name);
            let visit = || visitors.visit(plan.visits, plan.at_once);
            let (counts, visits) = counter.count_of(server.pid(), visit)?;
            book.add(case, kind, counts, visits.made)?;
        }
    }
    book.print()
}

/// Those that can do it, warmed up.
fn start(
    plan: &Plan,
    resumed: bool,
    negotiated: &mut Negotiated,
) -> io::Result<Vec<(&'static Kind, Server, Visitors)>> {
    let mut servers = Vec::new();
    for kind in &plan.kinds {
        let server = Server::start(kind, BUFFER)?;
        let mut visitors = Visitors::new(server.addr, resumed)?;
        match visitors.visit(WARM_UP, plan.at_once)? {
            warm if resumed && warm.resumed == 0 => eprintln!("{} resumes nothing", kind.name),
            warm => {
                negotiated.note(kind.name, warm.negotiated);
                servers.push((*kind, server, visitors));
            }
        }
    }
    Ok(servers)
}

/// Names of cases for `one`.
pub fn parse(case: &str) -> Option<bool> {
    CASES.iter().find(|(name, _)| case.strip_prefix("accept-") == Some(name)).map(|(_, resumed)| *resumed)
}

/// For a profiler: all in this process, the server in a thread of its name, one connection after the other.
pub fn one(name: &str, resumed: bool, visits: u64) -> io::Result<()> {
    pin::set(Pin::Apart);
    let kind = servers::find(name)?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let addr = listener.local_addr()?;
    let serve = move || {
        pin::server();
        if let Err(e) = kind.serve(listener, BUFFER) {
            eprintln!("{name}: {e}", name = kind.name);
        }
    };
    thread::Builder::new().name("server".to_string()).spawn(serve)?;
    let mut visitors = Visitors::new(addr, resumed)?;
    visitors.visit(WARM_UP, 1)?;
    let visits = visitors.visit(visits, 1)?;
    visits.check(resumed)?;
    println!("{name}: {} connections in {:?}, {}", visits.made, visits.wall, visits.negotiated);
    Ok(())
}

/// Those who come and go.
struct Visitors {
    addr: SocketAddr,
    context: SslContext,
    /// Sessions to resume, the newest last, and how many there were in all. With TLS 1.3
    /// each is used once: rustls forgets one that was.
    sessions: Option<Arc<Mutex<VecDeque<SslSession>>>>,
    tickets: Arc<Mutex<u64>>,
    poll: Poll,
    events: Events,
}

#[derive(Default)]
struct Visits {
    made: u64,
    wall: Duration,
    resumed: u64,
    tickets: u64,
    negotiated: String,
}

impl Visits {
    fn check(&self, resumed: bool) -> io::Result<()> {
        // A ticket may have come too late for one or two.
        match (resumed, self.resumed) {
            (false, 0) => Ok(()),
            (true, n) if n * 100 >= self.made * 95 => Ok(()),
            (_, n) => Err(io::Error::other(format!("{n} of {} handshakes were resumed", self.made))),
        }
    }
}

struct Visitor {
    tls: SslStream<TcpStream>,
    /// What it wanted to resume.
    session: Option<SslSession>,
    phase: Phase,
    received: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    ShakingHands,
    WaitingForEcho,
    /// We have said close_notify.
    WaitingForEnd,
    /// The server has, too. It ends the TCP connection first, so that no port of ours is taken for a minute.
    WaitingForEof,
    Gone,
}

impl Visitors {
    fn new(addr: SocketAddr, resumed: bool) -> io::Result<Visitors> {
        let tickets = Arc::new(Mutex::new(0));
        let sessions: Option<Arc<Mutex<VecDeque<SslSession>>>> = resumed.then(Arc::default);
        let (count, store) = (tickets.clone(), sessions.clone());
        let context = Connector::with_sessions(move |session| {
            // rustls keeps so many in memory.
            const MOST: usize = 128;
            *locked(&count) += 1;
            let Some(store) = &store else { return };
            let mut store = locked(store);
            store.push_back(session);
            if store.len() > MOST {
                store.pop_front();
            }
        })?;
        Ok(Visitors { addr, context, sessions, tickets, poll: Poll::new()?, events: Events::with_capacity(256) })
    }

    /// So many connections, some of them at once.
    fn visit(&mut self, visits: u64, at_once: usize) -> io::Result<Visits> {
        let tickets = *locked(&self.tickets);
        let mut done = Visits::default();
        let mut begun = 0;
        let mut places: Vec<Option<Visitor>> = (0..at_once).map(|_| None).collect();
        let start = Instant::now();
        for (key, place) in places.iter_mut().enumerate() {
            if begun < visits {
                *place = Some(self.enter(key)?);
                begun += 1;
            }
        }
        while done.made < visits {
            self.poll.poll(&mut self.events, Some(PATIENCE))?;
            if self.events.is_empty() {
                return Err(io::Error::new(io::ErrorKind::TimedOut, format!("nothing happened for {PATIENCE:?}")));
            }
            let keys: Vec<usize> = self.events.iter().map(|event| event.token().0).collect();
            for key in keys {
                let Some(visitor) = &mut places[key] else { continue };
                if !visitor.go_on()? {
                    continue;
                }
                done.made += 1;
                done.resumed += u64::from(visitor.tls.ssl().session_reused());
                if done.negotiated.is_empty() {
                    done.negotiated = dial::negotiated(&visitor.tls);
                }
                // TLS 1.2 brings no other for one that was resumed.
                let is_old = visitor.tls.ssl().version2() == Some(SslVersion::TLS1_2);
                if let (Some(sessions), Some(session), true) = (&self.sessions, visitor.session.take(), is_old) {
                    locked(sessions).push_back(session);
                }
                let fd = visitor.tls.get_ref().as_raw_fd();
                self.poll.registry().deregister(&mut SourceFd(&fd))?;
                places[key] = None;
                if begun < visits {
                    places[key] = Some(self.enter(key)?);
                    begun += 1;
                }
            }
        }
        done.wall = start.elapsed();
        done.tickets = *locked(&self.tickets) - tickets;
        Ok(done)
    }

    fn enter(&mut self, key: usize) -> io::Result<Visitor> {
        let tcp = TcpStream::connect(self.addr)?;
        tcp.set_nodelay(true)?;
        tcp.set_nonblocking(true)?;
        let fd = tcp.as_raw_fd();
        let mut ssl = Ssl::new(&self.context)?;
        ssl.set_connect_state();
        let session = self.sessions.as_ref().and_then(|sessions| locked(sessions).pop_back());
        if let Some(session) = &session {
            // SAFETY: the session was made by a connection of this same context.
            unsafe { ssl.set_session(session)? };
        }
        let mut visitor = Visitor { tls: SslStream::new(ssl, tcp)?, session, phase: Phase::ShakingHands, received: 0 };
        visitor.go_on()?;
        self.poll.registry().register(&mut SourceFd(&fd), Token(key), Interest::READABLE)?;
        Ok(visitor)
    }
}

impl Visitor {
    /// As far as it gets. Whether it is gone.
    fn go_on(&mut self) -> io::Result<bool> {
        loop {
            let went_on = match self.phase {
                Phase::ShakingHands => match self.tls.do_handshake() {
                    Ok(()) => {
                        self.tls.write_all(&[b'v'; REQUEST])?;
                        Ok(Phase::WaitingForEcho)
                    }
                    Err(e) if e.code() == ErrorCode::WANT_READ => Err(io::ErrorKind::WouldBlock.into()),
                    Err(e) => Err(e.into_io_error().unwrap_or_else(io::Error::other)),
                },
                Phase::WaitingForEcho => self.tls.read(&mut [0; REQUEST]).and_then(|n| {
                    self.received += n;
                    match (n, self.received) {
                        (0, _) => return Err(io::ErrorKind::UnexpectedEof.into()),
                        (_, REQUEST) => {}
                        _ => return Ok(Phase::WaitingForEcho),
                    }
                    dial::close(&mut self.tls);
                    Ok(Phase::WaitingForEnd)
                }),
                Phase::WaitingForEnd => match self.tls.read(&mut [0; 1]) {
                    Ok(0) => Ok(Phase::WaitingForEof),
                    Ok(_) => Err(io::Error::other("more than the echo")),
                    Err(e) => Err(e),
                },
                Phase::WaitingForEof => self.tls.get_mut().read(&mut [0; 1]).map(|_| Phase::Gone),
                Phase::Gone => return Ok(true),
            };
            match went_on {
                Ok(phase) => self.phase = phase,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(e) => return Err(e),
            }
        }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Every server once.
pub fn smoke() -> io::Result<()> {
    pin::set(Pin::Apart);
    for kind in servers::all() {
        for (case, resumed) in CASES {
            let server = Server::start(kind, BUFFER)?;
            let visits = Visitors::new(server.addr, *resumed)?.visit(8, 2)?;
            // The first two bring the tickets.
            println!("{case} handshakes with {}: ok, {} of {} resumed", kind.name, visits.resumed, visits.made);
            assert!(visits.resumed == 0 || *resumed);
        }
    }
    Ok(())
}
