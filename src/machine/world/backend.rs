//! The driver of a backend, as `drive::backend` has it.

use std::collections::VecDeque;
use std::time::Instant;

use super::frames::{Frame, Performed, Ret};
use super::node::{Happened, Slot, Slots, Under};
use super::World;
use crate::machine::{Due, Job, Tries};

const FAIR_SHARE: usize = 256 * 1024;
const CALLS: usize = 16;

pub(super) struct Run {
    node: usize,
    readable: bool,
    /// Something is due by time, for which the stream is tried once more.
    late: bool,
    /// When it last began to work.
    begun: Instant,
    share: usize,
    stage: Stage,
    did: u32,
}

enum Stage {
    Begin(Happened),
    Begun,
    /// The job that is out receives.
    Working(bool),
    Called(Called),
}

#[derive(Clone, Copy)]
pub(super) enum Called {
    Accept,
    Read(usize),
    Write,
    Close,
    Forget,
}

impl World {
    /// The files that this task drives for a backend.
    fn driven_by(&self, t: usize) -> std::ops::Range<usize> {
        match t {
            0 => 0..self.nodes.len(),
            _ => 0..0,
        }
    }

    pub(super) fn has_event(&self, t: usize) -> bool {
        self.driven_by(t).any(|node| self.event_of(node).is_some())
    }

    fn event_of(&self, node: usize) -> Option<Happened> {
        let it = &self.nodes[node];
        let happened = self.happened(node);
        let is_due = it.ready || it.alarm.is_some_and(|at| at <= self.now) || happened != Happened::default();
        (it.place && !it.running && is_due).then_some(happened)
    }

    pub(super) fn begin_run(&mut self, t: usize) {
        let Some((node, happened)) = self.driven_by(t).find_map(|node| Some((node, self.event_of(node)?))) else {
            return;
        };
        self.nodes[node].ready = false;
        let run = Run {
            node,
            readable: false,
            late: false,
            begun: self.now,
            share: FAIR_SHARE,
            stage: Stage::Begin(happened),
            did: 0,
        };
        self.trace(|| format!("f{node} runs, {happened:?}"));
        self.tasks[t].stack.push(Frame::Run(run));
    }

    pub(super) fn go_on(&mut self, t: usize, mut run: Run) {
        let node = run.node;
        match std::mem::replace(&mut run.stage, Stage::Working(false)) {
            Stage::Begin(happened) => {
                if !self.nodes[node].place || self.nodes[node].running {
                    return;
                }
                self.nodes[node].running = true;
                let rung = self.nodes[node].alarm.is_some_and(|at| at <= self.now);
                run.readable = self.take_note(node, happened);
                if let Under::File(inner) = self.nodes[node].under {
                    let any = happened.readable || happened.writable || rung;
                    let is_ours = !self.nodes[node].machine.is_returned();
                    if any && is_ours && (rung || self.nodes[inner].machine.has_output()) {
                        // `push_on`.
                        run.stage = Stage::Begun;
                        self.tasks[t].stack.push(Frame::Run(run));
                        self.release(node);
                        return self.call(t, inner, crate::machine::Kind::Flush, true, Vec::new(), None, 0);
                    }
                }
                self.begin_work(&mut run);
            }
            Stage::Begun => {
                self.tasks[t].ret = None;
                self.begin_work(&mut run);
            }
            Stage::Working(receives) => match self.tasks[t].ret.take() {
                Some(Ret::Performed(Performed::Some)) => {
                    run.did += 1;
                    if receives {
                        run.readable = self.is_ready(node);
                    }
                }
                Some(Ret::Performed(Performed::Dry)) => run.readable = false,
                Some(Ret::Performed(Performed::Panicked)) => {
                    self.nodes[node].running = false;
                    self.release(node);
                    return;
                }
                _ => {}
            },
            Stage::Called(called) => {
                self.tasks[t].ret = None;
                self.has_called(node, called);
                self.begin_work(&mut run);
            }
        }
        loop {
            let machine = &mut self.nodes[node].machine;
            let receive = run.readable && machine.wants_input();
            if let Some(job) = machine.job(Tries { receive, send: true, offer: true }) {
                run.stage = Stage::Working(matches!(job, Job::Receive(_)));
                self.tasks[t].stack.push(Frame::Run(run));
                return self.hand_out(t, node, job, None);
            }
            if !std::mem::take(&mut run.late) {
                break;
            }
            run.readable = false;
            let (wants_input, at) = (machine.wants_input(), machine.deadline().filter(|at| *at <= run.begun));
            self.check_in_time(node, wants_input, at);
            self.nodes[node].machine.tick(&run.begun);
        }
        run.readable = false;
        if run.share == 0 || !self.nodes[node].place {
            return self.end_run(t, node, &run);
        }
        let clock = self.clock();
        let mut scratch = std::mem::take(&mut self.scratch);
        let due = self.nodes[node].machine.due(&mut scratch, &clock);
        self.scratch = scratch;
        let Some(due) = due else { return self.end_run(t, node, &run) };
        run.did += 1;
        self.done += 1;
        run.share = run.share.saturating_sub(match due {
            Due::Read(n) => n.max(FAIR_SHARE / CALLS),
            _ => FAIR_SHARE / CALLS,
        });
        let called = self.take_in_hand(node, due);
        let ops = self.callback_ops(node, called);
        run.stage = Stage::Called(called);
        self.tasks[t].stack.push(Frame::Run(run));
        self.tasks[t].stack.push(Frame::Ops(node, ops));
        self.release(node);
    }

    fn begin_work(&mut self, run: &mut Run) {
        let clock = self.clock();
        run.begun = self.now;
        let machine = &mut self.nodes[run.node].machine;
        run.late = machine.is_overdue(&clock);
        if run.late {
            machine.room();
            run.readable = true;
            // Its next bound begins only now.
            self.note_taken(run.node);
        } else {
            machine.tick(&clock);
        }
    }

    fn take_note(&mut self, node: usize, happened: Happened) -> bool {
        let is_file = self.nodes[node].under != Under::Net;
        let rung = self.nodes[node].alarm.is_some_and(|at| at <= self.now);
        if rung {
            self.nodes[node].alarm = None;
        }
        if self.nodes[node].machine.lingers() {
            self.note_outstanding(node);
        }
        let try_all = (happened.readable || happened.writable || rung) && is_file;
        let machine = &mut self.nodes[node].machine;
        if happened.writable || try_all {
            machine.room();
        }
        if happened.hung_up && !machine.wants_input() {
            let error = self.net.take_error().map(|kind| {
                crate::Error::new(crate::ErrorKind::Truncated, "the stream has hung up").with_io_kind(kind)
            });
            let is_broken = error.is_some();
            machine.hung_up(error);
            return is_broken;
        }
        happened.readable || try_all || self.is_ready(node)
    }

    pub(super) fn note_outstanding(&mut self, node: usize) {
        let clock = self.clock();
        let it = &mut self.nodes[node];
        let outstanding = if it.under == Under::Net { self.net.out.len() } else { 0 };
        let before = it.machine.end.state;
        it.machine.note_outstanding(outstanding, &clock);
        if it.machine.end.state != before {
            // Asked now, it has seen progress.
            it.closing = Some(self.now);
        }
    }

    fn take_in_hand(&mut self, node: usize, due: Due) -> Called {
        self.check_due(node, &due);
        self.trace_due(node, &due);
        let slots = &mut self.nodes[node].slots;
        let start = |slot: &mut Slot| *slot = if *slot == Slot::Set { Slot::Running } else { *slot };
        match due {
            Due::Opened => Called::Forget,
            Due::Accept => {
                start(&mut slots.accept);
                Called::Accept
            }
            Due::Read(n) => {
                start(&mut slots.read);
                Called::Read(n)
            }
            Due::Write => {
                start(&mut slots.write);
                Called::Write
            }
            Due::Close(_) => {
                start(&mut slots.close);
                Called::Close
            }
            Due::Forget => {
                *slots = Slots::default();
                self.install(node, false);
                Called::Forget
            }
        }
    }

    /// The callback has returned: it goes back to its slot, unless that has been changed.
    fn has_called(&mut self, node: usize, called: Called) {
        let slots = &mut self.nodes[node].slots;
        match called {
            Called::Accept => slots.accept.finish(),
            Called::Read(_) => slots.read.finish(),
            Called::Write => slots.write.finish(),
            Called::Close => slots.close.finish(),
            Called::Forget => return,
        }
        self.install(node, false);
    }

    pub(super) fn install(&mut self, node: usize, write: bool) {
        let clock = self.clock();
        let installed = self.nodes[node].slots.installed();
        self.nodes[node].machine.set_installed(installed, write, &clock);
    }

    fn end_run(&mut self, t: usize, node: usize, run: &Run) {
        // Who has the lease is at it.
        let is_at_it = self.nodes[..=node].iter().any(|it| it.machine.receive.lent || it.machine.send.lent);
        let it = &mut self.nodes[node];
        it.running = false;
        let then = std::mem::replace(&mut it.done_then, (self.done, Some(self.now)));
        it.idle_runs = if run.did > 0 || is_at_it || then != it.done_then { 0 } else { it.idle_runs + 1 };
        if it.idle_runs > 2 {
            self.found("liveness: a backend spins: runs that an event began, and nothing changes");
        }
        if self.nodes[node].machine.lingers() {
            self.note_outstanding(node);
        }
        let it = &mut self.nodes[node];
        if it.machine.is_kept_to_the_end() && it.machine.let_go() {
            self.kept_over = Some(node);
        }
        let lingered = self.nodes[node].machine.lingers() && self.nodes[node].machine.is_done();
        if lingered {
            self.left_backend(node);
        }
        self.check_closing(node, run.begun);
        self.release(node);
        if lingered {
            self.abandon_stream(t, node);
        }
    }

    pub(super) fn enter(&mut self, node: usize) {
        let clock = self.clock();
        let it = &mut self.nodes[node];
        (it.place, it.watched, it.alarm) = (true, Happened::default(), None);
        // The backend runs at its next turn what it takes in.
        it.ready = true;
        it.machine.set_driven(true, &clock);
    }

    pub(super) fn left_backend(&mut self, node: usize) {
        let clock = self.clock();
        let it = &mut self.nodes[node];
        if std::mem::take(&mut it.place) {
            (it.watched, it.alarm, it.ready) = (Happened::default(), None, false);
            it.machine.set_driven(false, &clock);
        }
    }

    pub(super) fn callback_ops(&mut self, node: usize, called: Called) -> VecDeque<super::ops::Op> {
        let mut ops = VecDeque::new();
        if let Called::Forget = called {
            return ops;
        }
        self.script_callback(node, called, &mut ops);
        ops
    }
}
