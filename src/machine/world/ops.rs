//! What users ask for, and how it is begun.

use std::time::Duration;

use super::frames::{Ended, Frame, Ret};
use super::node::{Slot, Under};
use super::tags::{tagged, CALLS};
use super::World;
use crate::machine::{Deadlines, Kind, Manner, Tries};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Op {
    Read(usize),
    Write(usize),
    Send(usize),
    Flush,
    Handshake,
    Close,
    CloseClean,
    Shut {
        write: bool,
        read: bool,
    },
    Interrupt,
    Abort,
    Pause(bool),
    Nonblocking(bool),
    Look,
    /// accept, read, write, close
    Install([bool; 4]),
    TakeCallbacks,
    Keep,
    Timeouts(Option<u64>, Option<u64>),
    /// From now.
    Deadlines(Option<u64>, Option<u64>),
    Enter,
    Leave,
    Questions,
    Drop,
}

/// How much of a write was accepted, as far as the user knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Accepted {
    /// It is under way, or it has failed in the middle.
    Upto(usize),
    Exactly(usize),
}

impl World {
    pub(super) fn begin_op(&mut self, t: usize, node: usize, op: Op) {
        self.trace(|| format!("t{t} f{node} {op:?}"));
        (self.tasks[t].last, self.tasks[t].ret) = (None, None);
        self.done += 1;
        if self.nodes[node].dropped {
            self.tasks[t].ret = Some(Ret::Unit);
            return;
        }
        let clock = self.clock();
        let it = &mut self.nodes[node];
        let in_background = it.machine.nonblocking && it.place && !it.machine.is_lent();
        match op {
            Op::Read(room) => return self.call(t, node, Kind::Read, false, Vec::new(), None, room),
            Op::Write(n) => {
                let Some(id) = self.new_id(n) else { return };
                self.nodes[node].wrote = true;
                return self.call(t, node, Kind::Write, false, tagged(id, n), Some(id), 0);
            }
            Op::Send(n) => {
                let Some(id) = self.new_id(n) else { return };
                let it = &mut self.nodes[node];
                it.wrote = true;
                if !it.place {
                    it.machine.room();
                }
                let queued = it.machine.queue(&tagged(id, n), &clock);
                self.writes[id] = Accepted::Exactly(if queued.is_ok() { n } else { 0 });
                if queued.is_ok() {
                    self.biggest = self.biggest.max(n);
                }
                self.trace(|| format!("    queued {id}: {queued:?}"));
                if self.nodes[node].machine.can_try() {
                    return self.offer(t, node, false, Ret::Unit);
                }
            }
            Op::Flush => {
                it.wrote = true;
                return self.call(t, node, Kind::Flush, false, Vec::new(), None, 0);
            }
            Op::Handshake => return self.call(t, node, Kind::Handshake, false, Vec::new(), None, 0),
            Op::Close => {
                self.has_hurried |= self.is_hasty;
                (it.wrote, it.ended) = (true, true);
                it.closing.get_or_insert(self.now);
                if in_background {
                    it.machine.begin_close_in_backend(&clock);
                    return self.offer(t, node, false, Ret::Unit);
                }
                return self.call(t, node, Kind::Close, false, Vec::new(), None, 0);
            }
            Op::CloseClean => {
                it.wrote = true;
                if in_background && !it.machine.is_done() {
                    if !it.machine.is_over() {
                        it.machine.begin_clean(&clock);
                        return self.offer(t, node, false, Ret::Unit);
                    }
                } else {
                    return self.call(t, node, Kind::CloseClean, false, Vec::new(), None, 0);
                }
            }
            Op::Shut { write, read } => {
                if !it.machine.is_over() && !it.machine.is_lent() {
                    it.ended |= read;
                    it.machine.shut(write, read);
                    return self.push(t, node);
                }
            }
            Op::Interrupt => it.machine.interrupt(),
            Op::Abort => {
                it.ended = true;
                it.machine.abort();
                self.lost = true;
                return self.offer(t, node, false, Ret::Unit);
            }
            Op::Pause(paused) => it.machine.pause_reading(paused, &clock),
            Op::Nonblocking(nonblocking) => {
                if it.machine.manner() == Manner::Polled && it.machine.nonblocking != nonblocking {
                    it.machine.nonblocking = nonblocking;
                    if nonblocking && it.machine.is_to_begin() {
                        it.machine.tick(&clock);
                        return self.offer(t, node, false, Ret::Unit);
                    }
                }
            }
            Op::Look => {
                if it.machine.wants_look() {
                    let tries = Tries { receive: true, send: true, offer: true };
                    if let Some(job) = it.machine.job(tries) {
                        self.tasks[t].stack.push(Frame::Offer(node, false, Box::new(Ret::Unit)));
                        return self.hand_out(t, node, job, None);
                    }
                }
                it.machine.is_open();
            }
            Op::Install([accept, read, write, close]) => {
                let set = |yes: bool| if yes { Slot::Set } else { Slot::Empty };
                (it.slots.accept, it.slots.read) = (set(accept), set(read));
                (it.slots.write, it.slots.close) = (set(write), set(close));
                it.forgotten = false;
                self.install(node, write);
            }
            Op::TakeCallbacks => {
                it.slots = Default::default();
                self.install(node, false);
            }
            Op::Keep => {
                if it.place {
                    it.machine.keep();
                }
            }
            Op::Timeouts(read, write) => {
                if it.machine.manner() == Manner::Polled {
                    it.machine.set_read_timeout(read.map(Duration::from_micros), &clock);
                    it.machine.set_write_timeout(write.map(Duration::from_micros), &clock);
                }
            }
            Op::Deadlines(read, write) => {
                if it.machine.manner() == Manner::Polled {
                    let at = |time: Option<u64>| time.map(|time| self.now + Duration::from_micros(time));
                    it.machine.set_deadlines(Deadlines { read: at(read), write: at(write) });
                }
            }
            Op::Enter => {
                if it.machine.manner() == Manner::Polled && !it.place && !it.running {
                    self.enter(node);
                }
            }
            Op::Leave => {
                if it.place && !it.running {
                    self.left_backend(node);
                }
            }
            Op::Questions => self.ask_questions(node),
            // Who has a call under way has a handle.
            Op::Drop if self.can_drop(node) => return self.begin_dropping(t, node),
            Op::Drop => {}
        }
        self.tasks[t].ret = Some(Ret::Unit);
        self.release(node);
    }

    fn new_id(&mut self, n: usize) -> Option<usize> {
        // Of what was not accepted the peer gets nothing: the number is free again.
        if let Some(id) = self.writes.iter().position(|accepted| *accepted == Accepted::Exactly(0)) {
            if self.peer.got.counts[id] == 0 {
                self.writes[id] = Accepted::Upto(n);
                return Some(id);
            }
        }
        if self.writes.len() == CALLS {
            return None;
        }
        self.writes.push(Accepted::Upto(n));
        Some(self.writes.len() - 1)
    }

    /// An operation for a thread that has nothing to do.
    pub(super) fn any_op(&mut self, node: usize) -> Op {
        let size = self.size;
        let rng = &mut self.rng;
        match rng.below(64) {
            0..=17 => Op::Read(rng.size(size.max(64))),
            // More than goes at a time.
            18..=20 => Op::Write(size - rng.below(size / 3 + 1)),
            21..=33 => Op::Write(rng.size(size)),
            34..=43 => Op::Send(rng.size(size / 4 + 1)),
            44..=46 => Op::Flush,
            47 => Op::Handshake,
            48 if rng.percent(5) => Op::Close,
            49 if rng.percent(6) => Op::CloseClean,
            50 if rng.percent(6) => Op::Shut { write: true, read: false },
            51 if rng.percent(3) => Op::Shut { write: rng.percent(50), read: true },
            52 | 53 => Op::Interrupt,
            54 if rng.percent(2) => Op::Abort,
            55 => Op::Look,
            56 => Op::Questions,
            57 if rng.percent(40) => Op::Nonblocking(rng.percent(50)),
            58 if rng.percent(20) => {
                let mut time = || rng.percent(30).then(|| 1 + rng.size(3_000_000) as u64);
                Op::Timeouts(time(), time())
            }
            58 if rng.percent(20) => {
                let mut time = || rng.percent(30).then(|| rng.size(3_000_000) as u64);
                Op::Deadlines(time(), time())
            }
            59 if self.nodes[node].place => Op::Pause(rng.percent(40)),
            60 if self.nodes[node].place && rng.percent(40) => Op::Install([(); 4].map(|()| rng.percent(80))),
            61 if self.nodes[node].place && rng.percent(20) => Op::TakeCallbacks,
            62 if self.has_backend && rng.percent(15) => {
                if self.nodes[node].place {
                    Op::Leave
                } else {
                    Op::Enter
                }
            }
            _ => Op::Read(rng.size(size.max(64))),
        }
    }

    /// What a callback does: what callbacks of users do.
    pub(super) fn script_callback(
        &mut self,
        node: usize,
        called: super::backend::Called,
        ops: &mut std::collections::VecDeque<Op>,
    ) {
        use super::backend::Called;
        let unsent = self.nodes[node].machine.unsent();
        let size = self.size;
        match called {
            Called::Accept => {
                if self.rng.percent(60) {
                    ops.push_back(Op::Send(self.rng.size(size)));
                }
            }
            // As the guide's echo server: answers, and pauses while too much is unsent.
            Called::Read(n) => {
                for _ in 0..self.rng.below(3) {
                    ops.push_back(Op::Send(n.min(2 * size)));
                }
                if unsent + n > self.pause_above {
                    ops.push_back(Op::Pause(true));
                }
            }
            Called::Write => {
                ops.push_back(Op::Pause(false));
                if self.rng.percent(30) {
                    ops.push_back(Op::Send(self.rng.size(size)));
                }
            }
            Called::Close => {}
            Called::Forget => return,
        }
        if self.is_over || !self.rng.one_in(40) {
            return;
        }
        let op = match self.rng.below(10) {
            0 => Op::Close,
            1 => Op::CloseClean,
            2 => Op::Shut { write: true, read: self.rng.percent(20) },
            3 => Op::TakeCallbacks,
            4 | 5 => Op::Install([(); 4].map(|()| self.rng.percent(80))),
            6 => Op::Keep,
            7 if self.rng.percent(20) => Op::Abort,
            7 if self.nodes[node].machine.nonblocking => Op::Write(self.rng.size(size)),
            8 if self.nodes[node].machine.nonblocking => Op::Read(self.rng.size(size)),
            9 if self.can_drop(node) => Op::Drop,
            _ => Op::Questions,
        };
        let waits = !self.nodes[node].machine.nonblocking && matches!(op, Op::Close | Op::CloseClean);
        if !waits {
            ops.push_back(op);
        }
    }

    /// Nobody else has a call under way.
    pub(super) fn can_drop(&self, node: usize) -> bool {
        let busy = self.tasks.iter().skip(1).any(|task| !task.stack.is_empty());
        !busy && self.nodes[node].parked.is_empty() && !self.nodes[node].dropped && node == self.top()
    }

    /// A call of a user's has come to its end.
    pub(super) fn note_ended(
        &mut self,
        t: usize,
        node: usize,
        kind: Kind,
        id: Option<usize>,
        data: &[u8],
        ended: &Ended,
    ) {
        self.trace(|| {
            format!(
                "t{t} f{node} {kind:?} of {id:?} ends: {}",
                match ended {
                    Ended::Done(Err(e)) => format!("{:?} {e}", e.kind()),
                    other => format!("{other:?}"),
                }
            )
        });
        if node != self.top() {
            return;
        }
        self.tasks[t].last = Some(ended.clone());
        self.check_ended(node, kind, data, ended);
        let Some(id) = id else { return };
        let n = data.len();
        let failed = self.nodes[node].machine.write_error().is_some();
        self.writes[id] = match ended {
            Ended::Done(Ok(n)) => Accepted::Exactly(*n),
            Ended::WouldBlock => Accepted::Exactly(0),
            Ended::Done(Err(_)) if !failed => Accepted::Exactly(0),
            _ => Accepted::Upto(n),
        };
    }

    /// The last handle is with nobody any more; the stream goes with it.
    pub(super) fn abandon_stream(&mut self, t: usize, node: usize) {
        self.nodes[node].gone = true;
        match self.nodes[node].under {
            Under::Net => self.net.close(),
            Under::File(inner) => {
                self.take_home(inner, &[]);
                self.begin_dropping(t, inner);
            }
        }
    }
}
