//! What a seed decides at the beginning.

use std::time::Duration;

use super::frames::Task;
use super::looper::Looper;
use super::manners::{self, Manners};
use super::net::Net;
use super::node::{Node, Under};
use super::ops::Op;
use super::peer::Peer;
use super::real;
use super::rng::Rng;
use super::session::Plan;
use super::tags::Counted;
use super::{beginning, How, World};
use crate::machine::{Machine, Manner, Setup, CLOSE_TIMEOUT};
use crate::role::Role;

impl World {
    pub(super) fn new(seed: u64, how: How) -> World {
        let mut rng = Rng::new(seed);
        let mut net = Net::new(&mut rng, super::beginning());
        let is_real = rng.one_in(1000) || how.real;
        // A flood that fills what there is to be filled.
        let drowns = rng.one_in(800) && !is_real;
        // An event loop of a user's own.
        let loops = rng.percent(8) && !drowns;
        let manner = match rng.below(10) {
            _ if drowns || loops => Manner::Polled,
            0 => Manner::Blocks,
            1 => Manner::Tried,
            _ => Manner::Polled,
        };
        let levels = 1 + usize::from(rng.percent(15) && !drowns);
        let has_backend = manner == Manner::Polled && rng.percent(45) && !drowns && !loops;
        let is_for_callbacks = has_backend && rng.percent(20);
        let manners = match rng.percent(30) {
            true => Manners::Good,
            false if is_real => rng.pick(&manners::REAL),
            false => rng.pick(&manners::ALL),
        };
        let close_timeout = match rng.below(4) {
            0 => Duration::ZERO,
            1 => Duration::from_micros(1 + rng.size(2_000_000) as u64),
            _ => CLOSE_TIMEOUT,
        };
        let limit = rng.pick(&[1, 100, 3000, 20_000, 256 * 1024, 256 * 1024]);
        // What goes byte by byte through two of them takes for ever.
        let limit = if levels > 1 { limit.max(100) } else { limit };
        let time = |rng: &mut Rng, percent| {
            rng.percent(percent).then(|| Duration::from_micros(1 + rng.size(5_000_000) as u64))
        };
        let polled = manner == Manner::Polled;
        let setup = Setup {
            manner,
            over_file: false,
            nonblocking: manner == Manner::Tried
                || loops
                || (polled && !drowns && rng.percent(if has_backend { 70 } else { 25 })),
            read_timeout: time(&mut rng, if polled && !drowns { 10 } else { 0 }),
            write_timeout: time(&mut rng, if polled { 10 } else { 0 }),
            close_timeout,
            handshake_timeout: match rng.below(4) {
                0 => Some(None),
                1 if rng.percent(30) => Some(time(&mut rng, 100)),
                _ => None,
            },
            half_closes: seed % 8 != 0,
            send_limit: limit,
            deadlines: Default::default(),
            tells_would_block: false,
        };
        let mut plans = Vec::new();
        for level in 0..levels {
            plans.push(Plan {
                level,
                role: if rng.percent(50) { Role::Client } else { Role::Server },
                is_tls13: rng.percent(70),
                fragment: rng.pick(&[1, 60, 1000, 16 * 1024, 16 * 1024]).max(if levels > 1 { 60 } else { 1 }),
                tickets: rng.below(4),
            });
        }
        let (connections, real) = match is_real {
            true => {
                let (connections, real) = real::open(&plans, &mut rng);
                (connections, Some(real))
            }
            false => (plans.iter().map(|plan| plan.connection()).collect(), None),
        };
        let nodes: Vec<Node> = plans
            .iter()
            .zip(connections)
            .map(|(plan, mut connection)| {
                let setup = Setup { over_file: plan.level > 0, ..setup.clone() };
                connection.set_old_rule_e(how.rules.e);
                let mut machine = Machine::new(connection, &setup);
                machine.old_rules = how.rules;
                let under = if plan.level == 0 { Under::Net } else { Under::File(plan.level - 1) };
                Node::new(machine, under)
            })
            .collect();
        let ours: Vec<_> = plans.iter().map(|plan| (plan.role == Role::Client, plan.is_tls13)).collect();
        let mut peer = Peer::new(manners, &ours, net.room_in, &mut rng);
        if let Some(real) = real {
            peer.make_real(real);
        }
        // Nothing takes for ever that goes at all.
        let most = net.room_out.min(net.room_peer).min(net.piece).saturating_mul(16);
        let size = rng.pick(&[3, 200, 3000, 3000, 40_000, 200_000, 200_000]).min(most);
        if drowns {
            (net.room_in, net.piece) = (1 << 20, usize::MAX);
            peer.drown();
        }
        let threads = if drowns || loops { 1 } else { rng.pick(&[1, 1, 2, 2, 3, 4, 6]) };
        let pause_above = rng.pick(&[1, 1000, 100_000, usize::MAX]);
        let panics = if rng.percent(8) { 1 + rng.below(60) } else { 0 };
        let looper = loops.then(|| Looper::new(&mut net, size, &mut rng));
        let hiccups = if rng.percent(15) { 2 + rng.below(30) } else { 0 };
        let mut world = World {
            rng,
            now: beginning(),
            net,
            peer,
            nodes,
            tasks: (0..=threads).map(|_| Task::default()).collect(),
            has_backend,
            is_for_callbacks,
            writes: Vec::new(),
            delivered: Counted::default(),
            found: None,
            steps: 0,
            life: Default::default(),
            rests: 0,
            done: 0,
            io: 0,
            traces: how.traces,
            panics,
            hiccups,
            looper,
            size,
            pause_above,
            biggest: 0,
            patience: if close_timeout.is_zero() { CLOSE_TIMEOUT } else { close_timeout },
            scratch: vec![0; 64 * 1024],
            is_real,
            is_over: false,
            closed_well: false,
            lost: false,
            is_hasty: close_timeout.is_zero(),
            has_hurried: false,
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
}
