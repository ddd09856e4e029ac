//! What must hold: after every step, when a call waits or ends, and when something is told. What must hold at rest is in `rest`.

use std::time::Instant;

use super::frames::{CallFrame, Ended};
use super::node::Under;
use super::session::probe;
use super::World;
use crate::error::Error;
use crate::machine::send::CHUNK;
use crate::machine::state::End;
use crate::machine::{Due, Kind, Manner, Patience, Waits};

/// One receive, and the rest of a record that was there.
const ONE_RECEIVE: usize = 300 * 1024;
const AHEAD: usize = 64 * 1024;
const MOST_HASTY_POLLS: u32 = 8;

impl World {
    pub(super) fn found(&mut self, what: &str) {
        if self.found.is_none() {
            self.trace(|| format!("FOUND {what}"));
            self.found = Some(what.to_string());
        }
    }

    /// Whenever a file's lock is given up.
    pub(super) fn check_step(&mut self, node: usize) {
        let it = &self.nodes[node];
        let machine = &it.machine;
        let mut found = machine.broken_invariant().map(|what| format!("invariant: {what}"));
        let send = &machine.send;
        if send.current.is_some_and(|current| send.tickets.iter().any(|ticket| *ticket < current)) {
            found = Some("fairness: a write has overtaken another".into());
        }
        let most = send.limit.max(self.biggest) + CHUNK;
        if machine.unsent() > most && node == self.top() {
            found = Some(format!("memory: {} bytes unsent, where {most} are allowed", machine.unsent()));
        }
        let ciphertext = machine.tls.output().len() + send.flight.len();
        let is_whole = !send.lent && machine.tls.failure().is_none();
        if is_whole && ciphertext > (send.encrypted + send.flight_plain) * 7 + 16 * 1024 {
            found = Some(format!("memory: {ciphertext} bytes of output"));
        }
        let ahead = machine.tls.ahead();
        let is_plain = !it.wrote && matches!(machine.end.state, End::Not) && node == self.top();
        if is_plain && ahead > AHEAD + ONE_RECEIVE {
            found = Some(format!("memory: {ahead} bytes ahead"));
        }
        if !self.is_real {
            let seen = probe(node, |probe| *probe);
            if let Some(what) = seen.violation {
                found = Some(what.into());
            }
            if seen.encrypted > CHUNK {
                found = Some(format!("work: {} bytes encrypted in a step", seen.encrypted));
            }
        }
        if let Some(what) = found {
            self.found(&format!("f{node} {what}"));
        }
    }

    /// A call is to wait for this.
    pub(super) fn check_wait(&mut self, frame: &CallFrame, waits: &Waits) {
        // However much the stream takes or gives.
        if frame.hasty_polls > MOST_HASTY_POLLS {
            self.found("time: a call whose time is over goes on and on");
        }
        let at = self.nodes[frame.node].machine.deadline_of(&frame.call);
        // As far as it had passed when the call was told that something has.
        if at.zip(frame.call.has_tried_since()).is_some_and(|(at, then)| then >= at) {
            self.found("time: a poll after the deadline waits");
        }
        match frame.call.patience {
            Patience::Never => {
                if frame.call.exhausted {
                    self.found("time: a call that may not wait does");
                }
            }
            Patience::Until(deadline) => {
                if deadline.is_some_and(|deadline| self.now >= deadline) && !frame.call.is_hasty() {
                    self.found("time: a poll after the call's deadline waits");
                }
                if waits.until.is_some_and(|until| self.now >= until) && !frame.call.is_hasty() {
                    self.found("time: a wait until what has passed");
                }
            }
        }
        if frame.call.kind == Kind::Close && !frame.call.is_hasty() {
            self.check_closing(frame.node, self.now);
        }
    }

    /// Of the call, or of what time does to the connection.
    pub(super) fn deadline_of(&self, frame: &CallFrame) -> Option<Instant> {
        let machine = &self.nodes[frame.node].machine;
        let own = match frame.call.patience {
            Patience::Until(own) => own,
            Patience::Never => None,
        };
        [own, machine.deadline_of(&frame.call), machine.machine_deadline()].into_iter().flatten().min()
    }

    /// Until when a receive may last.
    pub(super) fn slice(&mut self, frame: &CallFrame) -> Instant {
        let end = self.now + crate::sys::SLICE;
        if !frame.call.wraps && self.deadline_of(frame).is_some_and(|at| at < end) {
            self.found("time: a receive that may last beyond the call's deadline");
        }
        end
    }

    /// If time is to act now: what had come by then has been tried.
    pub(super) fn check_in_time(&mut self, node: usize, wants_input: bool, at: Option<Instant>) {
        let it = &self.nodes[node];
        let Some(at) = at.filter(|at| self.now >= *at && it.under == Under::Net) else { return };
        let may_receive = wants_input && it.machine.can_try() && it.machine.admits(it.machine.limit());
        if may_receive && self.net.untried.is_some_and(|since| since < at) {
            self.found("time: it acts before what has come in time");
        }
    }

    /// The end that is under way had time still as somebody looked.
    pub(super) fn check_closing(&mut self, node: usize, now: Instant) {
        let it = &self.nodes[node];
        let bounded = it.machine.can_try() && it.machine.end.is_closing() && !it.gone;
        let Some(since) = it.closing.filter(|_| bounded) else { return };
        if now >= since + 2 * self.patience {
            let (state, lingers) = (it.machine.end.state, it.machine.lingers());
            self.trace(|| format!("f{node} {state:?}, lingers {lingers}, since {:?}", since - super::beginning()));
            self.found("time: close outlasts its bound");
        }
    }

    /// A call of a user's has ended.
    pub(super) fn check_ended(&mut self, node: usize, kind: Kind, data: &[u8], ended: &Ended) {
        match (kind, ended) {
            (Kind::Read, Ended::Done(Ok(n))) => self.check_read(node, data, *n),
            (Kind::Read, Ended::Done(Err(error))) => self.check_read_error(node, error),
            (Kind::Close, Ended::Done(result)) => match result {
                Ok(_) if !self.nodes[node].machine.is_done() => {
                    self.found("meaning: close has returned, and it is not over");
                }
                Ok(_) => self.closed_well |= !self.lost,
                Err(_) => self.lost = true,
            },
            (Kind::Write, Ended::Done(Ok(0))) => self.found("meaning: a write has accepted nothing"),
            (Kind::Flush, Ended::Done(Ok(_))) => {}
            (_, Ended::Panicked) => self.lost = true,
            _ => {}
        }
    }

    /// The peer's close_notify: it has come, as far as anybody can look into an engine.
    fn saw_bye(&self, node: usize) -> bool {
        match self.is_real {
            true => self.peer.said_bye(node),
            false => probe(node, |probe| probe.saw_bye),
        }
    }

    fn check_read(&mut self, node: usize, data: &[u8], n: usize) {
        if n > 0 {
            if self.nodes[node].read_end.is_some() && !self.nodes[node].ended {
                self.found("meaning: data behind the end");
            }
            return self.check_delivered(&data[..n]);
        }
        let saw_bye = self.saw_bye(node);
        let machine = &self.nodes[node].machine;
        let said_nothing = machine.tls.traffic().bytes_received == 0 && machine.tls.role() == crate::Role::Server;
        let is_shut = machine.receive.shut;
        if !saw_bye && !said_nothing && !is_shut {
            self.found("meaning: Ok(0) without a clean end");
        }
        self.check_sticky(node, None);
        if saw_bye && !is_shut && self.delivered.count < self.peer.sent.count {
            self.found("meaning: Ok(0) before all data");
        }
    }

    fn check_read_error(&mut self, node: usize, error: &Error) {
        // A call's own end is not the connection's.
        if self.nodes[node].machine.read_end().is_some() {
            self.check_sticky(node, Some(error.io_kind()));
        }
    }

    /// An end is the same for ever, until we end it ourselves.
    fn check_sticky(&mut self, node: usize, end: Option<std::io::ErrorKind>) {
        let it = &mut self.nodes[node];
        let before = it.read_end.replace(end);
        if !it.ended && before.is_some_and(|before| before != end) {
            self.found(&format!("meaning: the end was {before:?}, and is {end:?}"));
        }
    }

    pub(super) fn check_delivered(&mut self, data: &[u8]) {
        if let Err(what) = self.delivered.check(data) {
            self.found(&what);
        }
        if self.delivered.count > self.peer.sent.count {
            self.found("meaning: more delivered than sent");
        }
    }

    /// A backend is to call this back.
    pub(super) fn check_due(&mut self, node: usize, due: &Due) {
        let saw_bye = self.saw_bye(node);
        let it = &mut self.nodes[node];
        let (accept_told, close_told) = (it.accept_told, it.close_told);
        let mut found = None;
        if it.forgotten {
            found = Some("delivery: something is told after all was");
        }
        match due {
            Due::Opened => {}
            Due::Accept => {
                if std::mem::replace(&mut it.accept_told, true) || close_told {
                    found = Some("delivery: accept is told twice, or after close");
                }
            }
            Due::Read(n) => {
                // A clean close that has failed is told, and what still comes is delivered.
                let is_closed = close_told && !matches!(it.machine.end.state, End::Clean { .. } | End::Cleaned);
                if *n == 0 || is_closed || (it.slots.accept.is_set() && !accept_told && !close_told) {
                    found = Some("delivery: read is told out of order");
                }
                let data = std::mem::take(&mut self.scratch);
                self.check_delivered(&data[..*n]);
                self.scratch = data;
            }
            Due::Write => {
                if it.machine.unsent() > 0 || (it.slots.accept.is_set() && !accept_told && !close_told) {
                    found = Some("delivery: write is told while something is unsent, or before accept");
                }
            }
            Due::Close(result) => {
                if std::mem::replace(&mut it.close_told, true) {
                    found = Some("delivery: close is told twice");
                }
                let own = it.machine.end.state != End::Not;
                if !own && (it.machine.tls.plain_len() > 0 || !it.machine.tls.has_ended()) && !it.machine.receive.shut {
                    found = Some("delivery: close is told before the data");
                }
                if !own && result.is_ok() {
                    let said_nothing = it.machine.tls.traffic().bytes_received == 0;
                    if !saw_bye && !said_nothing && !it.machine.receive.shut {
                        found = Some("meaning: close is told as clean, and was not");
                    }
                }
                if own && it.machine.end.state == (End::Over { aborted: false }) {
                    match result {
                        Ok(()) => self.closed_well |= !self.lost,
                        Err(_) => self.lost = true,
                    }
                }
            }
            Due::Forget => it.forgotten = true,
        }
        if let Some(what) = found {
            self.found(what);
        }
    }

    pub(super) fn trace_due(&self, node: usize, due: &Due) {
        self.trace(|| format!("f{node} is due {due:?}"));
    }

    /// Questions change nothing, and agree with each other.
    pub(super) fn ask_questions(&mut self, node: usize) {
        let machine = &mut self.nodes[node].machine;
        let before = (machine.state(), machine.unsent(), machine.interest());
        let _ = (machine.last_error(), machine.read_end(), machine.write_error(), machine.release_error());
        let over = machine.is_done();
        let after = (machine.state(), machine.unsent(), machine.interest());
        if before != after {
            self.found("questions change something");
        }
        if over && (after.2.readable || (after.2.writable && !self.nodes[node].machine.has_output())) {
            self.found("meaning: it is over, and interested");
        }
    }

    pub(super) fn is_polled(&self) -> bool {
        self.nodes[0].machine.manner() == Manner::Polled
    }
}
