//! The last handle goes, as `drive::drop` has it; the thread or the backend that goes on with what lingers is the world's one
//! backend.

use super::frames::{Frame, Performed, Ret};
use super::node::Under;
use super::World;
use crate::machine::{Kind, Manner, Tries};

const READS: usize = 16;
const READ: usize = 64 * 1024;

pub(super) struct Dropping {
    node: usize,
    stage: Stage,
}

#[derive(Clone, Copy)]
enum Stage {
    Offered,
    Closing,
    ReadingAway(usize),
    Elsewhere,
    Aborted,
}

impl World {
    pub(super) fn begin_dropping(&mut self, t: usize, node: usize) {
        let it = &mut self.nodes[node];
        it.dropped = true;
        it.ended = true;
        it.slots = Default::default();
        self.install(node, false);
        let machine = &mut self.nodes[node].machine;
        if machine.is_returned() {
            return self.part(t, node);
        }
        if self.rng.one_in(20) && !machine.is_done() {
            // Its thread unwinds from a panic.
            machine.abort();
            self.lost = true;
            self.tasks[t].stack.push(Frame::Drop(Dropping { node, stage: Stage::Aborted }));
            return self.offer(t, node, false, Ret::Unit);
        }
        if machine.manner() == Manner::Blocks && !machine.is_done() {
            self.nodes[node].place = false;
            self.tasks[t].stack.push(Frame::Drop(Dropping { node, stage: Stage::Elsewhere }));
            return self.call(t, node, Kind::Close, true, Vec::new(), None, 0);
        }
        machine.room();
        self.tasks[t].stack.push(Frame::Drop(Dropping { node, stage: Stage::Offered }));
        self.offer(t, node, false, Ret::Unit);
    }

    pub(super) fn go_on_dropping(&mut self, t: usize, dropping: Dropping) {
        let node = dropping.node;
        let clock = self.clock();
        let ret = self.tasks[t].ret.take();
        let under = self.nodes[node].under;
        if matches!(dropping.stage, Stage::Offered) {
            self.nodes[node].closing.get_or_insert(self.now);
        }
        self.trace(|| format!("t{t} f{node} goes, {} on its way", self.net.out.len()));
        let is_behind = matches!(under, Under::File(inner) if self.nodes[inner].machine.has_output());
        let machine = &mut self.nodes[node].machine;
        match dropping.stage {
            Stage::Offered => {
                let is_asked = machine.may_be_on_its_way() && under == Under::Net;
                let outstanding = if is_asked { self.net.out.len() } else { 0 };
                let lasts = machine.unsent() > 0 || outstanding > 0 || is_behind || machine.is_over();
                if lasts && !machine.is_done() && machine.manner() == Manner::Polled {
                    machine.linger(outstanding);
                }
                machine.begin_close(&clock);
                self.tasks[t].stack.push(Frame::Drop(Dropping { node, stage: Stage::Closing }));
                self.offer(t, node, false, Ret::Unit);
            }
            Stage::Closing if machine.lingers() => self.read_away(t, node, READS),
            Stage::ReadingAway(left) => match ret {
                Some(Ret::Performed(Performed::Dry | Performed::Passing | Performed::Panicked)) => {
                    self.read_away(t, node, 0)
                }
                _ => self.read_away(t, node, left),
            },
            Stage::Closing | Stage::Elsewhere | Stage::Aborted => self.part(t, node),
        }
    }

    fn read_away(&mut self, t: usize, node: usize, left: usize) {
        let machine = &mut self.nodes[node].machine;
        let tries = Tries { receive: true, send: true, offer: true };
        if left > 0 {
            if let Some(job) = machine.job(tries) {
                self.tasks[t].stack.push(Frame::Drop(Dropping { node, stage: Stage::ReadingAway(left - 1) }));
                return self.hand_out(t, node, job, None);
            }
        }
        self.note_outstanding(node);
        if self.nodes[node].machine.is_done() {
            return self.part(t, node);
        }
        // It lingers.
        self.tasks[t].ret = Some(Ret::Unit);
        if !self.nodes[node].place {
            self.enter(node);
        }
        self.release(node);
    }

    fn part(&mut self, t: usize, node: usize) {
        let it = &mut self.nodes[node];
        let is_plain = it.machine.manner() == Manner::Polled && it.under == Under::Net;
        let may_read_away = is_plain && !it.machine.has_ended_stream();
        it.place = false;
        self.release(node);
        if may_read_away {
            let n = self.net.to_us.len().min(READS * READ);
            self.net.to_us.consume(n);
        }
        self.tasks[t].ret = Some(Ret::Unit);
        self.abandon_stream(t, node);
    }
}
