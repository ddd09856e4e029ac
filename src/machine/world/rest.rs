//! Getting to rest, and what must hold there.

use std::time::Instant;

use super::frames::{Ended, Frame};
use super::ops::{Accepted, Op};
use super::World;
use crate::machine::{Kind, Manner, Step};
use crate::sys::Ready;

/// Rounds until rest. More of them is never.
const ROUNDS: usize = 60_000;

impl World {
    /// Everything gets on until nothing can; then the clock goes to what is due next.
    pub(super) fn settle(&mut self) {
        for _ in 0..ROUNDS {
            if self.found.is_some() {
                return;
            }
            if self.round() {
                continue;
            }
            self.check_rest();
            match self.next_time() {
                Some(at) => {
                    self.trace(|| format!("rest; {:?} later", at - self.now));
                    self.now = at;
                }
                None => return,
            }
        }
        self.found("liveness: never at rest");
    }

    /// The handshake is got over with, through a stream that is wide open: there is more to be seen behind it.
    pub(super) fn get_open(&mut self) {
        const WIDE: usize = 1 << 16;
        let top = self.top();
        let net = &mut self.net;
        let narrow = [net.room_in, net.room_out, net.room_peer, net.piece];
        (net.room_in, net.room_out, net.room_peer, net.piece) = (WIDE, WIDE, WIDE, WIDE);
        let mut in_vain = 0;
        for _ in 0..400 {
            let machine = &self.nodes[top].machine;
            if machine.settled() || machine.is_over() || self.found.is_some() || in_vain > 3 {
                break;
            }
            if self.looper.is_none() && self.tasks[1].stack.is_empty() {
                self.begin_op(1, top, Op::Handshake);
            }
            in_vain = if self.round() { 0 } else { in_vain + 1 };
        }
        [self.net.room_in, self.net.room_out, self.net.room_peer, self.net.piece] = narrow;
    }

    /// Each once. Says whether anything has changed.
    fn round(&mut self) -> bool {
        let mut any = self.act();
        any |= self.carry();
        for t in 0..self.tasks.len() {
            for _ in 0..64 {
                if !self.is_runnable(t) || self.found.is_some() {
                    break;
                }
                self.step(t);
                any = true;
                // A flood waits for nobody.
                if self.peer.manners.floods() && self.peer.is_open() {
                    self.act();
                }
            }
        }
        any
    }

    /// When something is due by time alone.
    fn next_time(&self) -> Option<Instant> {
        let mut all = Vec::new();
        for node in &self.nodes {
            all.extend(node.parked.iter().filter_map(|parked| parked.until));
            all.extend(node.alarm.filter(|_| node.place));
        }
        all.extend(self.looper.as_ref().and_then(|looper| looper.until()));
        for task in &self.tasks {
            if let Some(Frame::Io(io)) = task.stack.last() {
                all.extend(io.slice);
            }
        }
        all.into_iter().filter(|at| *at > self.now).min()
    }

    fn check_rest(&mut self) {
        self.rests += 1;
        self.check_loop();
        for node in 0..self.nodes.len() {
            self.check_parked(node);
            self.check_backend(node);
            self.check_owed(node);
        }
    }

    /// Polled again, each call that is parked gives the same answer, and somebody waits for what it waits for.
    fn check_parked(&mut self, node: usize) {
        let parked = self.nodes[node].parked.clone();
        let clock = self.clock();
        let mut asked = Ready::default();
        for sleeper in &parked {
            let Some(Frame::Call(mut frame)) = self.tasks[sleeper.task].stack.pop() else { continue };
            let machine = &mut self.nodes[node].machine;
            let data = std::mem::take(&mut frame.data);
            let step = match frame.call.kind {
                Kind::Read => machine.poll_read(&mut frame.call, |_| 1, &clock),
                Kind::Write => machine.poll_write(&mut frame.call, &data, &clock),
                _ => match machine.poll(&mut frame.call, &clock) {
                    Step::Done(result) => Step::Done(result.map(|()| 0)),
                    Step::WouldBlock => Step::WouldBlock,
                    Step::Wait(waits) => Step::Wait(waits),
                },
            };
            frame.data = data;
            let kind = frame.call.kind;
            match step {
                Step::Wait(waits) => {
                    let of_file = Ready::from(waits.of_stream());
                    let of_net = if of_file.is_empty() { of_file } else { self.of_net(node, of_file) };
                    asked.readable |= of_net.readable;
                    asked.writable |= of_net.writable;
                    if self.net.reset && self.is_polled() {
                        self.found(&format!("liveness: {kind:?} waits on a dead stream"));
                    }
                }
                Step::Done(result) => {
                    self.found(&format!("liveness: f{node} a wake-up was lost: {kind:?} would have ended {result:?}"));
                }
                Step::WouldBlock => self.found("liveness: a parked call may not wait"),
            }
            self.tasks[sleeper.task].stack.push(Frame::Call(frame));
        }
        // Nobody gives this lock up: nothing has changed.
        let waited = parked.iter().fold(self.watched_by_backends(), |all, sleeper| Ready {
            readable: all.readable || sleeper.wanted.readable,
            writable: all.writable || sleeper.wanted.writable,
        });
        let lost = Ready { readable: asked.readable && !waited.readable, writable: asked.writable && !waited.writable };
        if !lost.is_empty() && !self.is_held() {
            self.found(&format!("liveness: f{node} a wake-up was lost: nobody waits for {lost:?}"));
        }
    }

    /// Somebody is in the stream, for a slice, or for as long as it holds him.
    fn is_held(&self) -> bool {
        self.tasks.iter().any(|task| matches!(task.stack.last(), Some(Frame::Io(_))))
    }

    fn watched_by_backends(&self) -> Ready {
        let watched = |node: &super::node::Node| node.place && (node.watched.readable || node.watched.writable);
        Ready {
            readable: self.nodes.iter().any(|node| watched(node) && node.watched.readable),
            writable: self.nodes.iter().any(|node| watched(node) && node.watched.writable),
        }
    }

    /// The backend waits for what it should.
    fn check_backend(&mut self, node: usize) {
        let it = &self.nodes[node];
        if !it.place || it.running || self.is_held() {
            return;
        }
        let (watched, alarm) = (it.watched, it.alarm);
        let (wanted, due_at) = self.wanted(node);
        if watched != wanted || alarm != due_at {
            self.found(&format!("liveness: f{node} the backend watches {watched:?} instead of {wanted:?}, until {alarm:?} instead of {due_at:?}"));
        }
        if self.nodes[node].machine.is_due() {
            self.found("liveness: the backend was not told that something is due");
        }
        self.check_closing(node, self.now);
    }

    /// Nothing is owed on a dead stream.
    fn check_owed(&mut self, node: usize) {
        let it = &self.nodes[node];
        let machine = &it.machine;
        if !it.place || it.dropped || node != self.top() || !self.net.reset {
            return;
        }
        let holds_data = machine.tls.ahead() > 0 && (machine.deliver.paused || !it.slots.read.is_set());
        let settled = machine.settled();
        if it.slots.close.is_set() && !it.close_told && !holds_data {
            self.found(&format!("liveness: the stream is dead, and close is not told; settled {settled}"));
        }
        let it = &self.nodes[node];
        if it.machine.unsent() > 0 && it.machine.tls.failure().is_none() {
            self.found("liveness: the stream is dead, and bytes wait to be sent");
        }
    }

    /// The last part of each life.
    pub(super) fn finish(&mut self) {
        self.is_over = true;
        let top = self.top();
        self.settle();
        self.looper = None;
        if self.found.is_some() {
            return;
        }
        if self.nodes[top].place {
            self.user(top, Op::Pause(false));
        }
        self.check_all_sent(top);
        self.peer.go_on(&mut self.rng);
        let how = self.rng.below(10);
        match how {
            0 => self.user(top, Op::CloseClean),
            1 => self.user(top, Op::Shut { write: true, read: false }),
            2 => self.user(top, Op::Abort),
            3..=7 => self.user(top, Op::Close),
            _ => {}
        }
        self.check_calls_end(top);
        if self.found.is_some() {
            return;
        }
        if self.tasks.iter().all(|task| task.stack.is_empty()) && !self.nodes[top].dropped {
            self.user(top, Op::Drop);
            let machine = &self.nodes[top].machine;
            if machine.manner() == Manner::Polled && !machine.is_done() && machine.lingers() {
                self.found("liveness: what lingers does not end");
            }
        }
        self.check_arrived();
    }

    /// With a peer that reads, all that was accepted has gone.
    fn check_all_sent(&mut self, top: usize) {
        let machine = &self.nodes[top].machine;
        let is_calm = machine.settled() && machine.tls.failure().is_none() && machine.write_error().is_none();
        // Without a backend nobody sends what was left between calls.
        let goes = self.nodes[top].place && !self.nodes[top].running && !self.is_kept_waiting();
        if goes && is_calm && self.peer.manners.reads() && machine.unsent() > 0 && !self.net.reset {
            self.found("liveness: at rest, and accepted bytes are not sent to a peer that reads");
        }
    }

    /// By a peer that asked for a renegotiation, and has no part in it; or whose part is behind data that nobody reads.
    fn is_kept_waiting(&self) -> bool {
        let is_half = self.peer.manners == super::manners::Manners::HalfRenegotiating;
        self.nodes.iter().any(|node| node.machine.tls.refuses_writes() && (is_half || !node.machine.wants_input()))
    }

    /// An operation of a thread that has nothing to do, and what follows. Where nothing can be waited for it is tried again.
    fn user(&mut self, node: usize, op: Op) {
        for _ in 0..100 {
            let Some(t) = (1..self.tasks.len()).find(|t| self.tasks[*t].stack.is_empty()) else { return };
            self.begin_op(t, node, op);
            self.settle();
            let again = matches!(self.tasks[t].last, Some(Ended::WouldBlock));
            if !again || self.found.is_some() {
                return;
            }
            self.now += std::time::Duration::from_millis(30);
        }
    }

    /// After our end no call waits any more.
    fn check_calls_end(&mut self, top: usize) {
        let it = &self.nodes[top];
        if it.machine.is_done() && self.is_polled() {
            if let Some(sleeper) = it.parked.first() {
                let waits = sleeper.waits;
                self.found(&format!("liveness: we have ended it, and a call waits for {waits:?}"));
            }
        }
    }

    /// What was accepted is with a peer that reads, if nobody was told otherwise.
    fn check_arrived(&mut self) {
        // A reset from our system, after the time-out of a close, can cost what is on its way.
        let is_kind = self.peer.manners.is_kind() && !self.net.reset && !self.net.peer_reset;
        for (id, accepted) in self.writes.clone().into_iter().enumerate() {
            let got = self.peer.got.counts[id];
            match accepted {
                Accepted::Exactly(n) if got > n => {
                    self.found(&format!("meaning: write {id} accepted {n} bytes, and the peer got {got}"));
                }
                Accepted::Exactly(n) if got < n && self.closed_well && is_kind && !self.lost => {
                    self.found(&format!("meaning: closed well, but of write {id} the peer got {got} of {n}"));
                }
                Accepted::Exactly(n) if got < n && self.must_arrive() => {
                    self.found(&format!("meaning: dropped, and of write {id} the peer got {got} of {n}"));
                }
                _ => {}
            }
        }
    }

    /// Nothing has cost what was accepted: it arrives however it ends.
    fn must_arrive(&self) -> bool {
        let top = &self.nodes[self.top()];
        let was_open = top.machine.tls.is_handshake_done() && top.machine.tls.failure().is_none();
        top.gone
            && was_open
            && self.peer.manners.is_kind()
            && self.peer.manners != super::manners::Manners::Flooding
            && !self.net.reset
            && !self.lost
            && !self.has_hurried
            && self.patience >= super::super::CLOSE_TIMEOUT
            && self.is_polled()
            && top.machine.last_error().is_none()
    }
}
