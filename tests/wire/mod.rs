//! Simulated wires and scripted far ends, for the tests that decide every transfer themselves.
#![allow(dead_code)]

pub mod far;
pub mod pipe;
pub mod raw;

use std::io;
use std::panic::{self, AssertUnwindSafe};
use std::sync::OnceLock;
use std::time::{SystemTime, UNIX_EPOCH};

use sslfile::{Connection, Context, ContextBuilder, Engine, SslFile, Stream, Version};

use crate::common::{client_builder, engines, server_builder, wait_for, AsFd, NAME};

/// splitmix64: small, good enough, the same everywhere.
#[derive(Clone, Debug)]
pub struct Rng(u64);

impl Rng {
    pub fn new(seed: u64) -> Rng {
        Rng(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// 0 to `n` - 1.
    pub fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    pub fn percent(&mut self, chance: usize) -> bool {
        self.below(100) < chance
    }

    /// Often tiny, often near a record's size, sometimes large; never 0.
    pub fn size(&mut self) -> usize {
        match self.below(6) {
            0 => 1,
            1 => 1 + self.below(16),
            2 => 1 + self.below(300),
            3 => 1 + self.below(4_000),
            4 => 16_380 + self.below(9),
            _ => 1 + self.below(40_000),
        }
    }

    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }
}

/// Calls `run` with `runs` seeds in turn. `SSLFILE_SEED` gives the first (and, alone, the only) one, `SSLFILE_RUNS` their
/// number. A seed decides all but the keys, so a repeat can differ in the length of a signature, and in nothing else.
pub fn for_each_seed(name: &str, runs: u64, mut run: impl FnMut(u64)) {
    let given = number("SSLFILE_SEED");
    let first = given.unwrap_or_else(|| {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock after 1970");
        now.as_micros() as u64
    });
    let runs = number("SSLFILE_RUNS").unwrap_or(if given.is_some() { 1 } else { runs });
    println!("{name}: seeds {first} to {}", first.wrapping_add(runs.max(1) - 1));
    for i in 0..runs {
        let seed = first.wrapping_add(i);
        if let Err(panic) = panic::catch_unwind(AssertUnwindSafe(|| run(seed))) {
            eprintln!("{name} failed; to repeat: SSLFILE_SEED={seed} SSLFILE_RUNS=1");
            panic::resume_unwind(panic);
        }
    }
}

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable}={text} is not a number")))
}

/// Repeats `op` while a non-blocking file says `WouldBlock`, waiting in between.
pub fn settle<S: Stream + AsFd, T>(
    file: &SslFile<S>,
    mut op: impl FnMut(&SslFile<S>) -> io::Result<T>,
) -> io::Result<T> {
    loop {
        match op(file) {
            Err(e) if file.is_nonblocking() && e.kind() == io::ErrorKind::WouldBlock => wait_for(file),
            done => return done,
        }
    }
}

/// Two contexts that will speak one version with each other.
pub struct Pairing {
    pub client_engine: Engine,
    pub server_engine: Engine,
    pub version: Version,
    /// All handshakes but the first may be short ones.
    pub resumes: bool,
    pub client: Context,
    pub server: Context,
}

impl Pairing {
    pub fn name(&self) -> String {
        let how = if self.resumes { "resumed" } else { "full" };
        format!("{:?} to {:?}, {} {how}", self.client_engine, self.server_engine, self.version)
    }

    pub fn is_one_engine(&self) -> bool {
        self.client_engine == self.server_engine
    }

    /// The engine of the side that is a server or not.
    pub fn engine(&self, server: bool) -> Engine {
        if server {
            self.server_engine
        } else {
            self.client_engine
        }
    }

    pub fn connections(&self) -> (Connection, Connection) {
        (self.connection(false), self.connection(true))
    }

    pub fn connection(&self, server: bool) -> Connection {
        if server {
            Connection::server(&self.server).expect("server")
        } else {
            Connection::client(&self.client, NAME).expect("client")
        }
    }
}

/// Every engine with every engine, TLS 1.2 and 1.3, full and resumed handshakes, as far as both can.
pub fn pairings() -> &'static [Pairing] {
    static PAIRINGS: OnceLock<Vec<Pairing>> = OnceLock::new();
    PAIRINGS.get_or_init(|| {
        let pairings = pairings_with(|builder| builder);
        for engine in engines() {
            let reached = |p: &Pairing| p.client_engine == engine || p.server_engine == engine;
            assert!(pairings.iter().any(reached), "{engine:?} can neither TLS 1.2 nor 1.3");
        }
        pairings
    })
}

/// The same with some further setting on both sides.
pub fn pairings_with(setting: fn(ContextBuilder) -> ContextBuilder) -> Vec<Pairing> {
    let mut pairings = Vec::new();
    for version in [Version::Tls1_2, Version::Tls1_3] {
        for resumes in [false, true] {
            let clients = able(version, resumes, |engine| setting(client_builder(engine)));
            let servers = able(version, resumes, |engine| setting(server_builder(engine)));
            for (client_engine, client) in &clients {
                for (server_engine, server) in &servers {
                    pairings.push(Pairing {
                        client_engine: *client_engine,
                        server_engine: *server_engine,
                        version,
                        resumes,
                        client: client.clone(),
                        server: server.clone(),
                    });
                }
            }
        }
    }
    pairings
}

fn able(version: Version, resumes: bool, builder: impl Fn(Engine) -> ContextBuilder) -> Vec<(Engine, Context)> {
    let build = |engine| {
        let builder = builder(engine).min_version(version).max_version(version);
        let built = match builder.clone().session_resumption(resumes).build() {
            // An engine without that switch does not resume, or only when its peer does.
            Err(e) if e.kind() == io::ErrorKind::Unsupported && !resumes => builder.build(),
            built => built,
        };
        match built {
            Ok(context) => Some((engine, context)),
            Err(e) if e.kind() == io::ErrorKind::Unsupported && engine != Engine::OpenSsl => None,
            Err(e) => panic!("{engine:?}, {version}: {e}"),
        }
    };
    engines().into_iter().filter_map(build).collect()
}

/// Ends of the TLS records in `flow`, which starts at a record.
pub fn record_ends(flow: &[u8]) -> Vec<usize> {
    let mut ends = Vec::new();
    let mut at = 0;
    while at + 5 <= flow.len() {
        at += 5 + usize::from(u16::from_be_bytes([flow[at + 3], flow[at + 4]]));
        if at <= flow.len() {
            ends.push(at);
        }
    }
    ends
}
