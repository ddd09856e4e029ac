//! An event loop of a user's own: one thread, calls that do not wait, and a poller that is asked for `interest()`, or, edge-triggered,
//! for everything once. Each event means: go on until `WouldBlock`, in both directions.

use std::time::{Duration, Instant};

use super::frames::Ended;
use super::net::Net;
use super::ops::Op;
use super::rng::Rng;
use super::World;
use crate::machine::Interest;

/// The thread it is.
const TASK: usize = 1;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Doing {
    /// An event has come.
    Waking,
    Reading,
    Writing,
    Flushing,
    Closing,
    Waiting,
    Over,
}

pub(super) struct Looper {
    is_edge: bool,
    /// Bytes to write.
    left: usize,
    size: usize,
    doing: Doing,
    read_over: bool,
    wants_close: bool,
    closes: bool,
    interest: Interest,
    /// The poller's edges when this turn began.
    edges: (u64, u64),
    /// While it closes: its own time-out; while it does not read: until when.
    until: Option<Instant>,
    /// It does not read now and then, and does not wait for that.
    holds_off: bool,
    is_holding: bool,
    /// Turns in a row in which nothing was done; what had been done then.
    idle: u32,
    done: u64,
}

impl Looper {
    pub fn new(net: &mut Net, size: usize, rng: &mut Rng) -> Looper {
        let is_edge = rng.percent(50);
        if is_edge {
            // A socket gives all it has; who hears of changes only could not do with less.
            net.piece = usize::MAX;
        }
        Looper {
            is_edge,
            left: rng.below(4) * rng.size(size * 4),
            size,
            doing: Doing::Waking,
            read_over: false,
            wants_close: rng.percent(50),
            closes: false,
            interest: Interest { readable: false, writable: false },
            edges: (0, 0),
            until: None,
            holds_off: !is_edge && rng.percent(40),
            is_holding: false,
            idle: 0,
            done: 0,
        }
    }

    pub fn until(&self) -> Option<Instant> {
        self.until.filter(|_| self.doing == Doing::Waiting)
    }

    /// What comes after that.
    fn after(&mut self, ended: Option<Ended>) -> Doing {
        let blocked = matches!(ended, Some(Ended::WouldBlock));
        let count = match &ended {
            Some(Ended::Done(Ok(n))) => Some(*n),
            _ => None,
        };
        let next = match self.doing {
            Doing::Waking if self.closes => Doing::Closing,
            Doing::Waking if self.is_holding => Doing::Writing,
            Doing::Waking => Doing::Reading,
            Doing::Reading if count.is_some_and(|n| n > 0) => Doing::Reading,
            Doing::Reading if matches!(ended, Some(Ended::Panicked)) => Doing::Reading,
            Doing::Reading => {
                self.read_over |= !blocked;
                Doing::Writing
            }
            // A receive, too, may have been what has panicked.
            Doing::Writing if matches!(ended, Some(Ended::Panicked)) => Doing::Reading,
            Doing::Writing if blocked => Doing::Waiting,
            Doing::Writing => {
                self.left = self.left.saturating_sub(count.unwrap_or(self.left));
                Doing::Writing
            }
            Doing::Flushing if blocked => Doing::Waiting,
            Doing::Flushing if count.is_some() && !self.wants_close && !self.read_over => Doing::Waiting,
            Doing::Flushing => Doing::Closing,
            Doing::Closing if blocked => Doing::Waiting,
            Doing::Closing | Doing::Over => Doing::Over,
            Doing::Waiting => Doing::Waking,
        };
        match next {
            Doing::Reading if self.read_over => Doing::Writing,
            next => next,
        }
    }

    fn op(&mut self) -> Option<Op> {
        if self.doing == Doing::Writing && self.left == 0 {
            self.doing = Doing::Flushing;
        }
        Some(match self.doing {
            Doing::Reading => Op::Read(self.size.max(64)),
            Doing::Writing => Op::Write(self.left.min(self.size)),
            Doing::Flushing => Op::Flush,
            Doing::Closing => Op::Close,
            Doing::Waking | Doing::Waiting | Doing::Over => return None,
        })
    }
}

impl World {
    pub(super) fn has_loop_event(&self, t: usize) -> bool {
        let Some(looper) = self.looper.as_ref().filter(|_| t == TASK) else { return false };
        match looper.doing {
            Doing::Waiting => {
                let told = match looper.is_edge {
                    true => looper.edges != (self.net.came, self.net.opened),
                    false => {
                        let Interest { readable, writable } = looper.interest;
                        (readable && self.net.readable()) || (writable && self.net.writable())
                    }
                };
                told || looper.until.is_some_and(|until| self.now >= until)
            }
            Doing::Over => false,
            _ => true,
        }
    }

    /// The next call of its turn.
    pub(super) fn turn_loop(&mut self, t: usize) {
        if t != TASK || !self.tasks[t].stack.is_empty() || !self.has_loop_event(t) {
            return;
        }
        let Some(mut looper) = self.looper.take() else { return };
        let top = self.top();
        let ended = self.tasks[t].last.take();
        if looper.doing == Doing::Waiting {
            self.trace(|| "the loop has an event".into());
            looper.edges = (self.net.came, self.net.opened);
            looper.doing = Doing::Waking;
            if looper.until.is_some_and(|until| self.now >= until) {
                (looper.is_holding, looper.done) = (false, u64::MAX);
            }
            looper.until = looper.until.filter(|_| looper.is_holding);
            looper.idle = if std::mem::replace(&mut looper.done, self.io) == self.io { looper.idle + 1 } else { 0 };
            // Who does not read is told of what is inside again and again, as of a hang-up.
            let is_told = looper.is_holding && self.has_something_inside(top);
            if looper.idle > 3 && !looper.is_edge && !is_told {
                self.found(&format!("liveness: a loop spins on {:?}, closes {}", looper.interest, looper.closes));
            }
        } else {
            looper.doing = looper.after(ended);
        }
        // A write that had to go on with the handshake may have brought data.
        if looper.doing == Doing::Waiting
            && !looper.read_over
            && !looper.closes
            && !looper.is_holding
            && self.nodes[top].machine.pending() > 0
        {
            looper.doing = Doing::Reading;
        }
        let op = looper.op();
        if looper.doing == Doing::Closing && !std::mem::replace(&mut looper.closes, true) {
            self.trace(|| "the loop closes".into());
        }
        if looper.doing == Doing::Waiting {
            let interest = self.nodes[top].machine.interest();
            looper.interest = interest.through(self.watched(top, interest), self.has_something_inside(top));
            let may_hold = looper.holds_off && !looper.closes && self.nodes[top].machine.settled();
            if may_hold && !looper.is_holding && self.rng.percent(30) {
                looper.is_holding = true;
                looper.until = Some(self.now + Duration::from_millis(5));
            }
            looper.interest.readable &= !looper.is_holding;
            if looper.closes {
                // It keeps its own time.
                looper.until = Some(self.now + self.patience + Duration::from_millis(1));
            }
            let interest = looper.interest;
            self.trace(|| format!("the loop waits for {interest:?}"));
        }
        self.looper = Some(looper);
        if let Some(op) = op {
            self.begin_op(t, top, op);
        }
    }

    /// At rest its calls would give nothing: it has been told of all that it waits for.
    pub(super) fn check_loop(&mut self) {
        let Some(looper) = self.looper.take() else { return };
        // Of what time alone has done nobody tells it.
        let is_late = self.nodes[self.top()].machine.deadline().is_some_and(|at| at <= self.now);
        if looper.doing == Doing::Waiting && self.tasks[TASK].stack.is_empty() && !is_late && !looper.is_holding {
            let ops = match looper.closes {
                true => vec![Op::Close],
                false if looper.read_over => vec![],
                false => vec![Op::Read(looper.size.max(64))],
            };
            for op in ops {
                self.begin_op(TASK, self.top(), op);
                while !self.tasks[TASK].stack.is_empty() && self.found.is_none() {
                    if !self.is_runnable(TASK) {
                        self.found("liveness: a call of the loop waits");
                        break;
                    }
                    self.step(TASK);
                }
                match self.tasks[TASK].last.take() {
                    None | Some(Ended::WouldBlock | Ended::Panicked) => {}
                    Some(ended) => {
                        let (edge, interest) = (looper.is_edge, looper.interest);
                        self.found(&format!(
                            "liveness: {op:?} gives {ended:?}, and the loop was not told; edge {edge}, {interest:?}"
                        ));
                    }
                }
            }
        }
        self.looper = Some(looper);
    }
}
