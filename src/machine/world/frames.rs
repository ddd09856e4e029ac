//! What a thread of the world does, as `drive` has it: a stack of frames, each step of which is what `drive` does under one
//! hold of a file's lock, or one use of the stream without it.

use std::time::Instant;

use super::node::Under;
use super::ops::Op;
use super::session::probe;
use super::World;
use crate::connection::Connection;
use crate::error::Error;
use crate::machine::{Call, Job, Kind, Patience, Step, Tries, Which};

/// Of a call in a row, with nothing done by anybody in between.
const MOST_POLLS: usize = 1000;

/// A thread, or a backend.
#[derive(Default)]
pub(super) struct Task {
    pub stack: Vec<Frame>,
    /// What the frame above has given.
    pub ret: Option<Ret>,
    /// The file in whose list of parked calls it is.
    pub parked: Option<usize>,
    /// Wakes by the stream in a row with nothing done by anybody in between; and how much had been done then.
    pub idle_wakes: u32,
    pub done_then: u64,
    /// How its last call of a user ended.
    pub last: Option<Ended>,
}

pub(super) enum Frame {
    Call(Box<CallFrame>),
    /// `offer`; `all`: `offer_all`. Then gives this.
    Offer(usize, bool, Box<Ret>),
    Io(Box<Io>),
    Run(super::backend::Run),
    Ops(usize, std::collections::VecDeque<Op>),
    /// The rest of `shut` on a file inside, once its handshake has been tried.
    Push(usize),
    Drop(super::dropping::Dropping),
}

pub(super) struct CallFrame {
    pub node: usize,
    pub call: Call,
    pub data: Vec<u8>,
    pub id: Option<usize>,
    /// Room for what is read.
    pub room: usize,
    pub briefly: bool,
    pub dry: bool,
    pub known: bool,
    pub received: usize,
    /// The job it has out is one that receives.
    pub reading: bool,
    /// What had been loaded when all was that was queued before it.
    pub queued_until: i64,
    /// The job it has out is of the short way.
    pub calm: bool,
    /// How often it has been polled since its time was over.
    pub hasty_polls: u32,
}

/// Of a call that reads.
pub(super) fn take(connection: &mut Connection, data: &mut Vec<u8>, room: usize) -> usize {
    data.resize(room, 0);
    let n = connection.read(data).unwrap_or(0);
    data.truncate(n);
    n
}

/// How a call ended.
#[derive(Clone, Debug)]
pub(super) enum Ended {
    Done(Result<usize, Error>),
    WouldBlock,
    Panicked,
}

#[derive(Clone, Debug)]
pub(super) enum Ret {
    Unit,
    Performed(Performed),
    /// Of a call on a file inside; with what was read.
    Call(Ended, Vec<u8>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Performed {
    Some,
    Dry,
    Full,
    /// A signal has interrupted it.
    Again,
    /// A stream that waits by itself has given up, for now.
    Passing,
    Panicked,
}

pub(super) struct Io {
    pub node: usize,
    pub job: Job,
    /// A receive may last until then.
    pub slice: Option<Instant>,
    pub stage: super::io::Stage,
}

impl World {
    /// Whether it can do something now.
    pub(super) fn is_runnable(&self, t: usize) -> bool {
        let task = &self.tasks[t];
        if let Some(node) = task.parked {
            let Some(parked) = self.nodes[node].parked.iter().find(|parked| parked.task == t) else { return true };
            let ready = self.is_net_ready(parked.wanted);
            return parked.rung || !ready.is_empty() || parked.until.is_some_and(|until| self.now >= until);
        }
        match task.stack.last() {
            Some(Frame::Io(io)) => self.can_go_on(io),
            Some(_) => true,
            None => self.has_event(t) || self.has_loop_event(t),
        }
    }

    /// One step.
    pub(super) fn step(&mut self, t: usize) {
        self.steps += 1;
        for level in 0..self.nodes.len() {
            probe(level, |probe| probe.encrypted = 0);
        }
        if let Some(node) = self.tasks[t].parked.take() {
            self.unpark(t, node);
        }
        if self.tasks[t].stack.is_empty() {
            self.begin_run(t);
            if self.tasks[t].stack.is_empty() {
                return self.turn_loop(t);
            }
        }
        self.dispatch(t);
    }

    pub(super) fn dispatch(&mut self, t: usize) {
        match self.tasks[t].stack.pop() {
            Some(Frame::Call(frame)) => self.drive(t, frame),
            Some(Frame::Offer(node, all, ret)) => {
                let performed = self.tasks[t].ret.take();
                match performed {
                    Some(Ret::Performed(Performed::Full | Performed::Passing)) => self.give(t, node, *ret),
                    Some(Ret::Performed(Performed::Panicked)) => {
                        self.give(t, node, Ret::Call(Ended::Panicked, Vec::new()));
                    }
                    _ => self.offer(t, node, all, *ret),
                }
            }
            Some(Frame::Io(io)) => self.perform(t, io),
            Some(Frame::Run(run)) => self.go_on(t, run),
            Some(Frame::Ops(node, mut ops)) => {
                self.tasks[t].ret = None;
                match ops.pop_front() {
                    Some(op) => {
                        self.tasks[t].stack.push(Frame::Ops(node, ops));
                        self.begin_op(t, node, op);
                    }
                    None => self.tasks[t].ret = Some(Ret::Unit),
                }
            }
            Some(Frame::Push(node)) => {
                self.tasks[t].ret = None;
                self.offer(t, node, false, Ret::Unit);
            }
            Some(Frame::Drop(dropping)) => self.go_on_dropping(t, dropping),
            None => {}
        }
    }

    /// The lock is given up, and the frame below gets this.
    pub(super) fn give(&mut self, t: usize, node: usize, ret: Ret) {
        self.tasks[t].ret = Some(ret);
        self.release(node);
    }

    /// The job is done without the lock.
    pub(super) fn hand_out(&mut self, t: usize, node: usize, job: Job, slice: Option<Instant>) {
        self.trace(|| format!("t{t} f{node} job {}", super::io::name(&job)));
        let io = Io { node, job, slice, stage: super::io::Stage::Out };
        self.tasks[t].stack.push(Frame::Io(Box::new(io)));
        self.release(node);
    }

    /// A call begins, under the lock.
    #[allow(clippy::too_many_arguments, reason = "what a call is made of")]
    pub(super) fn call(
        &mut self,
        t: usize,
        node: usize,
        kind: Kind,
        wraps: bool,
        data: Vec<u8>,
        id: Option<usize>,
        room: usize,
    ) {
        let clock = self.clock();
        let machine = &mut self.nodes[node].machine;
        let timeout = match kind {
            Kind::Read | Kind::Handshake | Kind::CloseClean => machine.read_timeout(),
            Kind::Write | Kind::Flush => machine.write_timeout(),
            Kind::Close => None,
        };
        let call = machine.begin(kind, wraps, timeout, &clock);
        if kind == Kind::Flush && self.holds_back(node) {
            self.nodes[node].machine.owe_push();
        }
        let machine = &mut self.nodes[node].machine;
        let queued_until = machine.send.queued_until();
        self.trace(|| format!("t{t} f{node} {kind:?} {:?} {} of {id:?}", call.patience, data.len()));
        let mut frame = CallFrame {
            node,
            call,
            data,
            id,
            room,
            briefly: false,
            dry: false,
            known: false,
            received: 0,
            reading: false,
            queued_until,
            calm: false,
            hasty_polls: 0,
        };
        if let Some(Frame::Io(io)) = self.tasks[t].stack.last() {
            frame.briefly = kind == Kind::Read && io.slice.is_some();
        }
        match kind {
            Kind::Read if !wraps => self.read_calmly(t, Box::new(frame)),
            Kind::Write if !wraps => self.write_calmly(t, Box::new(frame)),
            _ => self.begin_driving(t, Box::new(frame)),
        }
    }

    pub(super) fn begin_driving(&mut self, t: usize, frame: Box<CallFrame>) {
        let node = frame.node;
        self.tasks[t].ret = None;
        if !self.nodes[node].place && !self.is_room_awaited(node) {
            self.nodes[node].machine.room();
        }
        self.drive(t, frame);
    }

    fn poll(&mut self, frame: &mut CallFrame) -> Step<usize> {
        let clock = self.clock();
        let machine = &mut self.nodes[frame.node].machine;
        match frame.call.kind {
            Kind::Read => {
                let (data, room) = (&mut frame.data, frame.room);
                machine.poll_read(&mut frame.call, |connection| take(connection, data, room), &clock)
            }
            Kind::Write => machine.poll_write(&mut frame.call, &frame.data, &clock),
            _ => match machine.poll(&mut frame.call, &clock) {
                Step::Done(result) => Step::Done(result.map(|()| 0)),
                Step::WouldBlock => Step::WouldBlock,
                Step::Wait(waits) => Step::Wait(waits),
            },
        }
    }

    fn drive(&mut self, t: usize, mut frame: Box<CallFrame>) {
        let node = frame.node;
        let never = frame.call.patience == Patience::Never;
        match self.tasks[t].ret.take() {
            Some(Ret::Performed(Performed::Some)) if frame.reading => {
                let gives_all = self.nodes[node].under == Under::Net && self.is_polled();
                frame.received += 1;
                let most = frame.call.most_receives();
                (frame.dry, frame.known) =
                    ((never || frame.call.is_hasty()) && gives_all && frame.received >= most, false);
                if frame.call.patience == Patience::Never
                    && gives_all
                    && frame.received > 2
                    && !matches!(frame.call.kind, Kind::Close | Kind::CloseClean)
                {
                    self.found("work: a call that does not wait has received more than twice");
                }
            }
            Some(Ret::Performed(Performed::Dry)) => frame.dry = true,
            Some(Ret::Performed(Performed::Again)) => {
                frame.call.try_again();
                frame.hasty_polls = frame.hasty_polls.saturating_sub(1);
            }
            Some(Ret::Performed(Performed::Passing)) => {
                let CallFrame { call, data, id, .. } = *frame;
                let kind = call.kind;
                let ended = match self.nodes[node].machine.abandon(call) {
                    0 => Ended::WouldBlock,
                    n => Ended::Done(Ok(n)),
                };
                self.note_ended(t, node, kind, id, &data, &ended);
                return self.give(t, node, Ret::Call(ended, Vec::new()));
            }
            Some(Ret::Performed(Performed::Panicked)) => return self.end_in_panic(t, *frame),
            _ => {}
        }
        for _ in 0..MOST_POLLS {
            if let Some(then) = frame.call.has_tried_since() {
                let reads =
                    !matches!(frame.call.kind, Kind::Write | Kind::Flush) || !self.nodes[node].machine.settled();
                self.check_in_time(node, reads, self.deadline_of(&frame).filter(|at| then >= *at));
            }
            let step = self.poll(&mut frame);
            let ended = match step {
                Step::Wait(waits) => {
                    let goes_on = frame.call.is_hasty() && !waits.afresh;
                    frame.hasty_polls = if goes_on { frame.hasty_polls + 1 } else { 0 };
                    self.check_wait(&frame, &waits);
                    let waits = waits.less_room(frame.call.kind, self.is_room_awaited(node));
                    if waits.afresh {
                        (frame.dry, frame.received) = (false, 0);
                    }
                    let tries = Tries { receive: waits.readable && !frame.dry, send: waits.writable, offer: false };
                    if let Some(job) = self.nodes[node].machine.job(tries) {
                        frame.reading = matches!(job, Job::Receive(_));
                        let never = never || frame.call.is_hasty();
                        let may_last = frame.briefly || (!never && !frame.known && self.may_last(node, &waits));
                        let slice = may_last.then(|| self.slice(&frame));
                        self.tasks[t].stack.push(Frame::Call(frame));
                        return self.hand_out(t, node, job, slice);
                    }
                    if never || frame.call.is_hasty() {
                        frame.call.exhausted = true;
                        continue;
                    }
                    (frame.dry, frame.known) = (false, true);
                    if waits.readable && self.is_ready(node) {
                        continue;
                    }
                    return self.park(t, frame, waits);
                }
                Step::Done(result) => Ended::Done(result),
                Step::WouldBlock => Ended::WouldBlock,
            };
            let is_flushed = frame.call.kind == Kind::Flush && matches!(ended, Ended::Done(Ok(_)));
            if is_flushed && self.nodes[node].machine.send.loaded < frame.queued_until {
                self.found("meaning: flushed, and what was queued before is not on its way");
            }
            let CallFrame { call, data, id, .. } = *frame;
            self.note_ended(t, node, call.kind, id, &data, &ended);
            let data = if call.wraps && call.kind == Kind::Read { data } else { Vec::new() };
            return self.offer(t, node, false, Ret::Call(ended, data));
        }
        self.found("liveness: a call is polled again and again, and neither waits nor ends");
    }

    pub(super) fn end_in_panic(&mut self, t: usize, frame: CallFrame) {
        let CallFrame { node, call, data, id, .. } = frame;
        let kind = call.kind;
        self.nodes[node].machine.abandon(call);
        self.note_ended(t, node, kind, id, &data, &Ended::Panicked);
        self.give(t, node, Ret::Call(Ended::Panicked, Vec::new()));
    }

    fn may_last(&mut self, node: usize, waits: &crate::machine::Waits) -> bool {
        let near = waits.until.is_some_and(|until| until <= self.now + 2 * crate::sys::SLICE);
        self.nodes[node].parked.iter().all(|sleeper| sleeper.rung || sleeper.waits.are_for_room_alone())
            && !waits.writable
            && self.nodes[node].machine.manner() == crate::machine::Manner::Polled
            && !near
    }

    /// `offer`, still under the lock.
    pub(super) fn offer(&mut self, t: usize, node: usize, all: bool, ret: Ret) {
        let machine = &mut self.nodes[node].machine;
        let tries = Tries { receive: false, send: true, offer: !all };
        if machine.has_output() || !machine.is_calm() {
            if let Some(job) = machine.job(tries) {
                self.tasks[t].stack.push(Frame::Offer(node, all, Box::new(ret)));
                return self.hand_out(t, node, job, None);
            }
        }
        self.give(t, node, ret);
    }

    pub(super) fn lose(&mut self, node: usize, which: Which) {
        let clock = self.clock();
        self.lost = true;
        self.nodes[node].machine.lease_lost(which, &clock);
    }
}
