//! The short way of reads and writes, as `drive` has it in `calls` and `thread`.

use super::frames::{take, CallFrame, Ended, Frame, Io, Performed, Ret};
use super::io::Stage;
use super::node::Under;
use super::World;
use crate::machine::{After, Going, Job, Received, Sent};

impl World {
    pub(super) fn read_calmly(&mut self, t: usize, frame: Box<CallFrame>) {
        let machine = &self.nodes[frame.node].machine;
        match machine.is_quiet() {
            true => {
                let has_news = machine.tls.may_have_news();
                self.take_calmly(t, frame, has_news);
            }
            false => self.begin_driving(t, frame),
        }
    }

    fn take_calmly(&mut self, t: usize, mut frame: Box<CallFrame>, has_news: bool) {
        let node = frame.node;
        let is_alone = self.nodes[node].parked.is_empty() && self.nodes[node].under == Under::Net;
        let machine = &mut self.nodes[node].machine;
        if has_news {
            let (data, room) = (&mut frame.data, frame.room);
            let n = machine.read_calmly(|connection| take(connection, data, room));
            if n > 0 {
                let ended = Ended::Done(Ok(n));
                self.note_ended(t, node, frame.call.kind, frame.id, &frame.data, &ended);
                let ret = Ret::Call(ended, Vec::new());
                return match self.nodes[node].machine.tls.has_output() {
                    true => self.offer(t, node, false, ret),
                    false => self.give(t, node, ret),
                };
            }
        }
        if !is_alone || !machine.may_receive_calmly() {
            return self.begin_driving(t, frame);
        }
        let lease = machine.receive_calmly();
        self.do_calmly(t, frame, Job::Receive(lease));
    }

    pub(super) fn write_calmly(&mut self, t: usize, mut frame: Box<CallFrame>) {
        let clock = self.clock();
        let machine = &mut self.nodes[frame.node].machine;
        match machine.write_calmly(&mut frame.call, &frame.data, &clock) {
            Some((lease, flight)) => self.do_calmly(t, frame, Job::Send(lease, flight, Going::AsSet)),
            None => self.begin_driving(t, frame),
        }
    }

    fn do_calmly(&mut self, t: usize, mut frame: Box<CallFrame>, job: Job) {
        let node = frame.node;
        let slice = matches!(job, Job::Receive(_)).then(|| self.slice(&frame));
        frame.calm = true;
        self.tasks[t].stack.push(Frame::Call(frame));
        self.hand_out(t, node, job, slice);
    }

    /// The call whose job has just been done.
    pub(super) fn take_calm_call(&mut self, t: usize) -> Option<Box<CallFrame>> {
        let stack = &mut self.tasks[t].stack;
        match stack.pop()? {
            Frame::Call(frame) if frame.calm => Some(frame),
            other => {
                stack.push(other);
                None
            }
        }
    }

    /// Under the lock again.
    pub(super) fn go_on_calmly(&mut self, t: usize, mut frame: Box<CallFrame>, io: Io) {
        let (clock, node) = (self.clock(), frame.node);
        frame.calm = false;
        let machine = &mut self.nodes[node].machine;
        if matches!(io.job, Job::Receive(_)) {
            machine.has_received_calmly();
        }
        let is_calm = machine.is_calm();
        match (io.job, io.stage) {
            (Job::Receive(lease), Stage::Received(Received::Bytes(buffer), _)) if is_calm => {
                machine.take_in(lease, buffer, &clock);
                let is_interrupted = machine.is_interrupted(&frame.call);
                self.note_performed(t, Performed::Some);
                match is_interrupted {
                    true => self.begin_driving(t, frame),
                    false => self.take_calmly(t, frame, true),
                }
            }
            (Job::Send(lease, ..), Stage::Sent(flight, Sent::Took(After::Nothing), _))
                if is_calm && flight.is_empty() =>
            {
                let is_all = machine.has_written_calmly(lease, &mut frame.call, &frame.data, &clock);
                self.note_taken(node);
                self.note_performed(t, Performed::Some);
                if !is_all {
                    return self.begin_driving(t, frame);
                }
                let ended = Ended::Done(Ok(frame.data.len()));
                self.note_ended(t, node, frame.call.kind, frame.id, &frame.data, &ended);
                self.give(t, node, Ret::Call(ended, Vec::new()));
            }
            (job, stage) => {
                let performed = self.give_back(Io { job, stage, ..io });
                self.note_performed(t, performed);
                frame.dry = performed == Performed::Dry;
                match performed {
                    Performed::Panicked => self.end_in_panic(t, *frame),
                    _ => self.begin_driving(t, frame),
                }
            }
        }
    }
}
