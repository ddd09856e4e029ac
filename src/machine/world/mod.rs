//! The simulated world: a file's [`Machine`], or one file over another, among threads, a backend, a stream, a peer and a clock that a
//! seed decides. Whatever it does is what `drive` does, cut where a lock is given up.
//!
//! | file | |
//! |---|---|
//! | `rng`, `tags` | chance; bytes that tell where they come from |
//! | `net`, `peer`, `session` | the stream; who is at its other end; TLS records without cryptography |
//! | `node`, `frames`, `io`, `backend`, `dropping` | what `drive` is in earnest: the lock, the calls, the jobs, the backend, the last handle |
//! | `ops` | what users and their callbacks do |
//! | `checks`, `rest` | what must hold after each step, and at rest |
//! | `rules` | old rules put back, which the world must find |
//!
//! `cargo test --lib world` runs a thousand seeds. `SSLFILE_WORLD_SEEDS=1000000 cargo test --release --lib world` runs as
//! many as it says; `SSLFILE_WORLD_SEED=7` runs that one, and tells what happens.

mod backend;
#[cfg(test)]
mod calls;
mod checks;
mod dropping;
mod frames;
mod io;
mod net;
mod node;
mod ops;
mod peer;
mod rest;
mod rng;
mod rules;
mod session;
mod tags;

use std::time::{Duration, Instant};

use super::{Clock, Machine, Manner, Setup};
use crate::role::Role;
use frames::Task;
use net::Net;
use node::{Node, Under};
use ops::{Accepted, Op};
use peer::{Manners, Peer};
use rng::Rng;
use session::Plan;
use tags::Counted;

pub(crate) use rules::OldRules;

pub(super) struct At(Instant);

impl Clock for At {
    fn now(&self) -> Instant {
        self.0
    }
}

pub(super) struct World {
    rng: Rng,
    now: Instant,
    net: Net,
    peer: Peer,
    nodes: Vec<Node>,
    /// The first is the backend's.
    tasks: Vec<Task>,
    has_backend: bool,
    writes: Vec<Accepted>,
    /// What users were given.
    delivered: Counted,
    found: Option<String>,
    steps: u64,
    rests: u64,
    /// Jobs that came to something, and callbacks.
    done: u64,
    traces: bool,
    /// Of each so many uses of the stream one panics; 0: none.
    panics: usize,
    /// Of what is written and read.
    size: usize,
    pause_above: usize,
    /// The most that was queued at once.
    biggest: usize,
    patience: Duration,
    scratch: Vec<u8>,
    is_real: bool,
    /// Users do no more of their own.
    is_over: bool,
    closed_well: bool,
    /// Somebody was told that something was lost.
    lost: bool,
    kept_over: Option<usize>,
}

fn beginning() -> Instant {
    static BEGUN: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    *BEGUN.get_or_init(Instant::now)
}

impl World {
    pub(super) fn new(seed: u64, rules: OldRules, traces: bool) -> World {
        let mut rng = Rng::new(seed);
        let mut net = Net::new(&mut rng);
        // A flood that fills what there is to be filled.
        let drowns = rng.one_in(800);
        let manner = match rng.below(10) {
            _ if drowns => Manner::Polled,
            0 => Manner::Blocks,
            1 => Manner::Tried,
            _ => Manner::Polled,
        };
        let levels = 1 + usize::from(rng.percent(15) && !drowns);
        let has_backend = manner == Manner::Polled && rng.percent(45) && !drowns;
        let manners = if rng.percent(30) { Manners::Good } else { rng.pick(&peer::ALL) };
        let close_timeout = match rng.below(4) {
            0 => Duration::ZERO,
            1 => Duration::from_micros(1 + rng.size(2_000_000) as u64),
            _ => super::CLOSE_TIMEOUT,
        };
        let limit = rng.pick(&[1, 100, 3000, 20_000, 256 * 1024, 256 * 1024]);
        let time = |rng: &mut Rng, percent| {
            rng.percent(percent).then(|| Duration::from_micros(1 + rng.size(5_000_000) as u64))
        };
        let polled = manner == Manner::Polled;
        let setup = Setup {
            manner,
            over_file: false,
            nonblocking: manner == Manner::Tried
                || (polled && !drowns && rng.percent(if has_backend { 70 } else { 25 })),
            read_timeout: time(&mut rng, if polled && !drowns { 10 } else { 0 }),
            write_timeout: time(&mut rng, if polled { 10 } else { 0 }),
            close_timeout,
            handshake_timeout: match rng.below(4) {
                0 => Some(None),
                1 if rng.percent(30) => Some(time(&mut rng, 100)),
                _ => None,
            },
            send_limit: limit,
        };
        let mut plans = Vec::new();
        for level in 0..levels {
            plans.push(Plan {
                level,
                role: if rng.percent(50) { Role::Client } else { Role::Server },
                is_tls13: rng.percent(70),
                fragment: rng.pick(&[1, 60, 1000, 16 * 1024, 16 * 1024]),
                tickets: rng.below(4),
            });
        }
        let nodes: Vec<Node> = plans
            .iter()
            .map(|plan| {
                let setup = Setup { over_file: plan.level > 0, ..setup.clone() };
                let mut connection = plan.connection();
                connection.set_old_rule_e(rules.e);
                let mut machine = Machine::new(connection, &setup);
                machine.old_rules = rules;
                let under = if plan.level == 0 { Under::Net } else { Under::File(plan.level - 1) };
                Node::new(machine, under)
            })
            .collect();
        let ours: Vec<_> = plans.iter().map(|plan| (plan.role == Role::Client, plan.is_tls13)).collect();
        let mut peer = Peer::new(manners, &ours, net.room_in, &mut rng);
        // Nothing takes for ever that goes at all.
        let most = net.room_out.min(net.room_peer).min(net.piece).saturating_mul(16);
        let size = rng.pick(&[3, 200, 3000, 3000, 40_000, 200_000, 200_000]).min(most);
        if drowns {
            (net.room_in, net.piece) = (1 << 20, usize::MAX);
            peer.drown();
        }
        let threads = if drowns { 1 } else { rng.pick(&[1, 1, 2, 2, 3, 4, 6]) };
        let pause_above = rng.pick(&[1, 1000, 100_000, usize::MAX]);
        let panics = if rng.percent(8) { 1 + rng.below(60) } else { 0 };
        let mut world = World {
            rng,
            now: beginning(),
            net,
            peer,
            nodes,
            tasks: (0..=threads).map(|_| Task::default()).collect(),
            has_backend,
            writes: Vec::new(),
            delivered: Counted::default(),
            found: None,
            steps: 0,
            rests: 0,
            done: 0,
            traces,
            panics,
            size,
            pause_above,
            biggest: 0,
            patience: if close_timeout.is_zero() { super::CLOSE_TIMEOUT } else { close_timeout },
            scratch: vec![0; 64 * 1024],
            is_real: false,
            is_over: false,
            closed_well: false,
            lost: false,
            kept_over: None,
        };
        world.open(drowns);
        world
    }

    /// One file takes the other over.
    fn open(&mut self, drowns: bool) {
        let top = self.top();
        if self.has_backend {
            self.enter(0);
        }
        for node in 0..top {
            let lent = self.nodes[node].machine.lend();
            assert!(lent.is_ok(), "a fresh file can be lent");
            self.nodes[node].home = self.nodes[node].place;
            self.left_backend(node);
            self.release(node);
            if self.nodes[node].home {
                self.enter(node + 1);
            }
        }
        if self.has_backend {
            let set = [(); 4].map(|()| self.rng.percent(85));
            self.begin_op(1, top, Op::Install(set));
            self.release(top);
        }
        if drowns && self.rng.percent(80) {
            let op = self.rng.pick(&[Op::CloseClean, Op::CloseClean, Op::Close]);
            self.begin_op(1, top, op);
        }
        self.trace_beginning();
    }

    pub(super) fn top(&self) -> usize {
        self.nodes.len() - 1
    }

    pub(super) fn clock(&self) -> At {
        At(self.now)
    }

    pub(super) fn trace(&self, what: impl FnOnce() -> String) {
        if self.traces {
            eprintln!("{:>12?} {:>5} {}", self.now - beginning(), self.steps, what());
        }
    }

    fn trace_beginning(&self) {
        let top = &self.nodes[self.top()].machine;
        self.trace(|| {
            format!(
                "peer {:?}, stream {:?}, {} files, {:?}, backend {}, threads {}, nonblocking {}, limit {}, patience {:?}, windows {} {} {}",
                self.peer.manners,
                top.manner(),
                self.nodes.len(),
                top.tls.role(),
                self.has_backend,
                self.tasks.len() - 1,
                top.nonblocking,
                top.send.limit,
                self.patience,
                self.net.room_in,
                self.net.room_out,
                self.net.room_peer,
            )
        });
    }

    fn act(&mut self) -> bool {
        match self.peer.act(&mut self.net, &mut self.rng) {
            Ok(did) => {
                if did && self.peer.budget > 0 {
                    self.now += Duration::from_micros(self.rng.below(8000) as u64);
                }
                if did {
                    let Net { to_us, to_peer, reset, fin, .. } = &self.net;
                    self.trace(|| format!("peer: {} to us, {} to it, {reset} {fin}", to_us.len(), to_peer.len()));
                }
                did
            }
            Err(what) => {
                self.found(&what);
                false
            }
        }
    }

    fn carry(&mut self) -> bool {
        let did = self.net.carry(&mut self.rng);
        if did {
            for node in &mut self.nodes {
                if node.machine.lingers() {
                    node.closing = Some(self.now);
                }
            }
        }
        did
    }

    fn live(&mut self) {
        let steps = 50 + self.rng.below(900);
        for _ in 0..steps {
            if self.found.is_some() {
                return;
            }
            match self.rng.below(16) {
                0..=3 => drop(self.act()),
                4 => drop(self.carry()),
                5 if self.rng.one_in(3) => self.now += Duration::from_micros(self.rng.size(400_000) as u64),
                _ => {
                    let t = self.rng.below(self.tasks.len());
                    if self.is_runnable(t) {
                        self.step(t);
                    } else if t > 0 && self.tasks[t].stack.is_empty() && self.rng.percent(60) {
                        let op = self.any_op(self.top());
                        self.begin_op(t, self.top(), op);
                    }
                }
            }
        }
    }

    pub(super) fn run(&mut self) -> Option<String> {
        self.live();
        self.finish();
        self.found.take()
    }
}

/// What comes of a seed; the error says what does not hold.
pub(in crate::machine) fn run(seed: u64, rules: OldRules, traces: bool) -> Result<u64, String> {
    let mut world = World::new(seed, rules, traces);
    match world.run() {
        Some(what) => Err(format!("{what} ({:?})", world.peer.manners)),
        None => Ok(world.steps),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(name: &str) -> Option<u64> {
        std::env::var(name).ok()?.parse().ok()
    }

    #[test]
    fn holds_in_every_world() {
        if let Some(seed) = number("SSLFILE_WORLD_SEED") {
            let result = run(seed, OldRules::default(), true);
            assert!(result.is_ok(), "seed {seed}: {result:?}");
            return;
        }
        let seeds = number("SSLFILE_WORLD_SEEDS").unwrap_or(if cfg!(debug_assertions) { 1000 } else { 10_000 });
        let first = number("SSLFILE_WORLD_FIRST").unwrap_or(1);
        let begun = Instant::now();
        let (mut steps, mut failed) = (0, std::collections::BTreeMap::<String, (u64, u64)>::new());
        for seed in first..first + seeds {
            match run(seed, OldRules::default(), false) {
                Ok(n) => steps += n,
                Err(what) => {
                    let kind = what.split(|c: char| c.is_ascii_digit()).next().unwrap_or_default().to_string();
                    let kind = if kind.is_empty() || kind == "f" { what } else { kind };
                    failed.entry(kind).or_insert((0, seed)).0 += 1;
                }
            }
        }
        println!("{seeds} seeds, {steps} steps, {:?}", begun.elapsed());
        for (what, (times, seed)) in &failed {
            println!("SSLFILE_WORLD_SEED={seed}: {what} ({times} times)");
        }
        assert!(failed.is_empty(), "{failed:?}");
    }
}
