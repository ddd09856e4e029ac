//! A file of the world: the machine, and around it what all handles of a file share in `drive`: who is parked, what the
//! backend watches, the callbacks.

use std::time::Instant;

use super::frames::{CallFrame, Frame};
use super::World;
use crate::machine::{Installed, Interest, Machine, Sleeper, Stir, Waits};
use crate::sys::Ready;

/// What a file's stream is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Under {
    Net,
    File(usize),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Parked {
    pub task: usize,
    pub waits: Waits,
    /// What is waited for of the net.
    pub wanted: Ready,
    pub until: Option<Instant>,
    pub rung: bool,
}

impl Sleeper for Parked {
    fn waits(&self) -> &Waits {
        &self.waits
    }

    fn watched(&self) -> Interest {
        Interest { readable: self.wanted.readable, writable: self.wanted.writable }
    }

    fn is_rung(&self) -> bool {
        self.rung
    }

    fn ring(&mut self) {
        self.rung = true;
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Slot {
    #[default]
    Empty,
    Set,
    Running,
}

impl Slot {
    pub fn is_set(self) -> bool {
        self != Slot::Empty
    }

    pub fn finish(&mut self) {
        if *self == Slot::Running {
            *self = Slot::Set;
        }
    }
}

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Slots {
    pub accept: Slot,
    pub read: Slot,
    pub write: Slot,
    pub close: Slot,
}

impl Slots {
    pub fn installed(&self) -> Installed {
        Installed {
            accept: self.accept.is_set(),
            read: self.read.is_set(),
            write: self.write.is_set(),
            close: self.close.is_set(),
            opened: false,
        }
    }
}

/// What a poller is asked for, and says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Happened {
    pub readable: bool,
    pub writable: bool,
    pub hung_up: bool,
}

pub(super) struct Node {
    pub machine: Machine,
    pub under: Under,
    pub parked: Vec<Parked>,
    /// It is in a backend.
    pub place: bool,
    /// To go back to it.
    pub home: bool,
    pub running: bool,
    pub watched: Happened,
    pub alarm: Option<Instant>,
    /// The backend is to run it without an event.
    pub ready: bool,
    pub slots: Slots,
    /// Nobody has a handle.
    pub dropped: bool,
    /// The stream has been let go of.
    pub gone: bool,
    pub accept_told: bool,
    pub close_told: bool,
    pub forgotten: bool,
    /// Runs in a row that an event began and that did nothing.
    pub idle_runs: u32,
    pub done_then: (u64, Option<Instant>),
    /// When `close` began, or the peer last took something since.
    pub closing: Option<Instant>,
    /// Something that waits for room has been begun.
    pub wrote: bool,
    /// The user has ended reading.
    pub ended: bool,
    /// What the last read said of the end.
    pub read_end: Option<Option<std::io::ErrorKind>>,
}

impl Node {
    pub fn new(machine: Machine, under: Under) -> Node {
        Node {
            machine,
            under,
            parked: Vec::new(),
            place: false,
            home: false,
            running: false,
            watched: Happened::default(),
            alarm: None,
            ready: false,
            slots: Slots::default(),
            dropped: false,
            gone: false,
            accept_told: false,
            close_told: false,
            forgotten: false,
            idle_runs: 0,
            done_then: (0, None),
            closing: None,
            wrote: false,
            ended: false,
            read_end: None,
        }
    }
}

impl World {
    /// The file's lock is given up. Says what has been found only now.
    pub(super) fn release(&mut self, node: usize) -> Stir {
        self.check_step(node);
        let mut stir = self.nodes[node].machine.take_stir();
        let mut found = Stir::default();
        if self.nodes[node].place && !self.nodes[node].running {
            self.tell_backend(node);
            found = self.nodes[node].machine.take_stir();
            stir = stir.and(found);
        }
        let mut parked = std::mem::take(&mut self.nodes[node].parked);
        let is_ready = !parked.is_empty() && self.is_ready(node);
        self.nodes[node].machine.wake(&mut parked, stir, |wanted| (self.watched(node, wanted), is_ready));
        self.nodes[node].parked = parked;
        drop(self.nodes[node].machine.tls.take_alerts());
        found
    }

    fn tell_backend(&mut self, node: usize) {
        let is_due = self.nodes[node].machine.is_due();
        let (wanted, alarm) = self.wanted(node);
        let wants_input = self.nodes[node].machine.wants_input();
        let is_due = is_due || (wants_input && self.is_ready(node));
        let it = &mut self.nodes[node];
        (it.watched, it.alarm) = (wanted, alarm);
        it.ready |= is_due;
    }

    /// What the backend should wait for.
    pub(super) fn wanted(&mut self, node: usize) -> (Happened, Option<Instant>) {
        let machine = &self.nodes[node].machine;
        if machine.is_returned() {
            return (Happened::default(), machine.deadline());
        }
        let wants = Ready { readable: machine.wants_input(), writable: machine.wants_room() };
        let hang_ups = machine.watches_for_hang_up();
        let watched = self.of_net(node, wants);
        let hung_up = !watched.readable && !watched.writable && hang_ups;
        let wanted = Happened { readable: watched.readable, writable: watched.writable, hung_up };
        let alarm = [self.nodes[node].machine.deadline(), self.stream_deadline(node)].into_iter().flatten().min();
        (wanted, alarm)
    }

    /// What has happened of it.
    pub(super) fn happened(&self, node: usize) -> Happened {
        let watched = self.nodes[node].watched;
        let any = watched.readable || watched.writable || watched.hung_up;
        let gone = any && self.net.hung_up();
        Happened {
            readable: (watched.readable && self.net.readable()) || (gone && !watched.hung_up),
            writable: (watched.writable && self.net.writable()) || (gone && !watched.hung_up),
            hung_up: gone,
        }
    }

    /// Something that the next read would take is in the file inside.
    pub(super) fn has_something_inside(&mut self, node: usize) -> bool {
        self.is_ready(node) && self.nodes[node].machine.looks_at_stream()
    }

    /// The file inside has something left to send.
    pub(super) fn holds_back(&self, node: usize) -> bool {
        matches!(self.nodes[node].under, Under::File(inner) if self.nodes[inner].machine.has_output())
    }

    pub(super) fn watched(&self, node: usize, wanted: Interest) -> Interest {
        let Ready { readable, writable } = self.of_net(node, wanted.into());
        Interest { readable, writable }
    }

    /// `Transport::watched`, down to the net.
    pub(super) fn of_net(&self, node: usize, wanted: Ready) -> Ready {
        match self.nodes[node].under {
            Under::Net => wanted,
            Under::File(inner) => {
                let waits = self.nodes[inner].machine.waits_for_wrapper(wanted.readable, wanted.writable);
                self.of_net(inner, waits.into())
            }
        }
    }

    /// `Transport::is_ready` of its stream.
    pub(super) fn is_ready(&mut self, node: usize) -> bool {
        match self.nodes[node].under {
            Under::Net => false,
            Under::File(inner) => {
                let machine = &mut self.nodes[inner].machine;
                machine.has_something_to_read() || (machine.settled() && self.is_ready(inner))
            }
        }
    }

    pub(super) fn stream_deadline(&self, node: usize) -> Option<Instant> {
        match self.nodes[node].under {
            Under::Net => None,
            Under::File(inner) => {
                let own = self.nodes[inner].machine.deadline();
                own.into_iter().chain(self.stream_deadline(inner)).min()
            }
        }
    }

    pub(super) fn is_net_ready(&self, wanted: Ready) -> Ready {
        Ready { readable: wanted.readable && self.net.readable(), writable: wanted.writable && self.net.writable() }
    }

    pub(super) fn is_room_awaited(&self, node: usize) -> bool {
        let is_own = self.nodes[node].under == Under::Net;
        is_own && self.nodes[node].parked.iter().any(|sleeper| !sleeper.rung && sleeper.waits.writable)
    }

    pub(super) fn park(&mut self, t: usize, frame: Box<CallFrame>, waits: Waits) {
        let node = frame.node;
        self.tasks[t].stack.push(Frame::Call(frame));
        // Before it is among those who may be rung for it. What is found only then may be its affair, too.
        let found = self.release(node);
        if self.nodes[node].machine.concerns(&waits, found) {
            return;
        }
        let wanted = Ready::from(waits.of_stream());
        let until = [waits.until, self.stream_deadline(node)].into_iter().flatten().min();
        self.trace(|| format!("t{t} f{node} parks {waits:?}"));
        let wanted = if wanted.is_empty() { wanted } else { self.of_net(node, wanted) };
        self.nodes[node].parked.push(Parked { task: t, waits, wanted, until, rung: false });
        self.tasks[t].parked = Some(node);
    }

    pub(super) fn unpark(&mut self, t: usize, node: usize) {
        let parked = &mut self.nodes[node].parked;
        let Some(at) = parked.iter().position(|parked| parked.task == t) else { return };
        let sleeper = parked.swap_remove(at);
        let ready = self.is_net_ready(sleeper.wanted);
        let is_rung = sleeper.rung && (ready.is_empty() || self.rng.percent(50));
        self.trace(|| format!("t{t} f{node} wakes, rung {}, {ready:?}", sleeper.rung));
        if is_rung || ready.is_empty() {
            return;
        }
        let writable = match self.nodes[node].under {
            Under::Net => ready.writable,
            // Which it was, nobody can tell from outside.
            Under::File(_) => sleeper.waits.writable,
        };
        if writable {
            self.nodes[node].machine.room();
        }
        // Who has the lease is at it.
        let is_at_it = self.nodes.iter().any(|node| node.machine.receive.lent || node.machine.send.lent);
        if std::mem::replace(&mut self.tasks[t].done_then, self.done) != self.done || is_at_it {
            self.tasks[t].idle_wakes = 0;
        }
        self.tasks[t].idle_wakes += 1;
        if self.tasks[t].idle_wakes > 4 {
            self.found("liveness: a call spins: ready, and nothing comes of it");
        }
    }
}
