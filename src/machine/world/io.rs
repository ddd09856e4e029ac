//! One job on the stream, as `drive::perform` does it: first without the lock, then what came of it is given back.

use std::io;

use super::frames::{Ended, Frame, Io, Performed, Ret};
use super::net::Got;
use super::node::Under;
use super::World;
use crate::engine::{Buffer, LARGE};
use crate::error::{Error, ErrorKind};
use crate::machine::{After, Job, Kind, Manner, Received, Sent, Which};

pub(super) enum Stage {
    Out,
    /// A file inside is at it.
    Inside,
    Received(Received, Performed),
    Sent(Buffer, Sent, Performed),
    Plain,
    Panicked(Which),
}

pub(super) fn name(job: &Job) -> String {
    match job {
        Job::Receive(_) => "receive".into(),
        Job::Send(_, flight, going) => format!("send {} {going:?}", flight.len()),
        Job::Flush(_) => "flush".into(),
        Job::Push(_) => "push".into(),
        Job::HalfClose(_, of_stream) => format!("half-close {of_stream}"),
        Job::End => "end".into(),
        Job::GiveBack(_, _, unread) => format!("give back {}", unread.len()),
    }
}

fn stream_error(kind: io::ErrorKind) -> Error {
    Error::new(ErrorKind::Truncated, format!("the stream: {kind}")).with_io_kind(kind)
}

fn wrapped(error: &Error) -> Error {
    Error::new(error.kind(), format!("inside: {error}")).with_io_kind(error.io_kind())
}

impl World {
    /// A stream that holds who uses it: not before it can.
    pub(super) fn can_go_on(&self, io: &Io) -> bool {
        let it = &self.nodes[io.node];
        if !matches!(io.stage, Stage::Out) || it.under != Under::Net {
            return true;
        }
        let blocks = it.machine.manner() == Manner::Blocks;
        match &io.job {
            Job::Receive(_) if blocks => self.net.readable(),
            Job::Receive(_) => io.slice.is_none_or(|until| self.now >= until) || self.net.readable(),
            Job::Send(..) if blocks => self.net.writable(),
            _ => true,
        }
    }

    pub(super) fn perform(&mut self, t: usize, mut io: Box<Io>) {
        if matches!(io.stage, Stage::Out) {
            io.stage = match self.nodes[io.node].under {
                _ if matches!(io.job, Job::HalfClose(_, false)) => Stage::Plain,
                Under::Net => self.use_net(&mut io),
                Under::File(inner) => {
                    io.stage = Stage::Inside;
                    return self.use_file(t, io, inner);
                }
            };
            // Others may come in between, or not.
            if self.rng.percent(50) {
                self.tasks[t].stack.push(Frame::Io(io));
                return;
            }
        }
        if matches!(io.stage, Stage::Inside) {
            io.stage = self.come_back(t, &mut io);
        }
        if let Some(frame) = self.take_calm_call(t) {
            return self.go_on_calmly(t, frame, *io);
        }
        let performed = self.give_back(*io);
        self.note_performed(t, performed);
        self.tasks[t].ret = Some(Ret::Performed(performed));
        self.dispatch(t);
    }

    pub(super) fn note_performed(&mut self, t: usize, performed: Performed) {
        if performed == Performed::Some {
            self.done += 1;
            self.io += 1;
        }
        self.trace(|| format!("t{t} gave back: {performed:?}"));
    }

    fn panics(&mut self) -> bool {
        self.panics > 0 && self.rng.one_in(self.panics)
    }

    fn use_net(&mut self, io: &mut Io) -> Stage {
        self.net.now = self.now;
        if matches!(io.job, Job::Receive(_) | Job::Send(..)) && self.panics() {
            let which = if matches!(io.job, Job::Receive(_)) { Which::Receive } else { Which::Send };
            return Stage::Panicked(which);
        }
        if self.hiccups > 0 && self.rng.one_in(self.hiccups) {
            if let Some(stage) = self.hiccup(io) {
                return stage;
            }
        }
        if matches!(io.job, Job::Send(..)) {
            self.peer.get_ahead(&mut self.net, &mut self.rng);
        }
        match &mut io.job {
            Job::Receive(_) => {
                let mut buffer = Buffer::for_receiving();
                let got = self.net.recv(buffer.space(LARGE / 2), &mut self.rng);
                match got {
                    Got::Bytes(n) => {
                        buffer.filled(n);
                        Stage::Received(Received::Bytes(buffer), Performed::Some)
                    }
                    Got::End => Stage::Received(Received::End, Performed::Some),
                    Got::Nothing => Stage::Received(Received::Nothing, Performed::Dry),
                    Got::Failed(kind) => Stage::Received(Received::Failed(stream_error(kind)), Performed::Some),
                }
            }
            Job::Send(_, flight, _) => {
                let result = self.net.send(flight.as_slice(), &mut self.rng);
                let mut flight = std::mem::take(flight);
                match result {
                    Ok(n) => {
                        flight.consume(n);
                        Stage::Sent(flight, Sent::Took(After::Nothing), Performed::Some)
                    }
                    Err(io::ErrorKind::WouldBlock) => Stage::Sent(flight, Sent::Full(After::Nothing), Performed::Full),
                    Err(kind) => Stage::Sent(flight, Sent::Failed(stream_error(kind)), Performed::Some),
                }
            }
            Job::Flush(_) | Job::Push(_) => Stage::Sent(Buffer::default(), Sent::Took(After::Nothing), Performed::Some),
            Job::HalfClose(..) => {
                self.net.our_fin = true;
                Stage::Plain
            }
            Job::End => {
                self.net.end();
                Stage::Plain
            }
            Job::GiveBack(..) => Stage::Plain,
        }
    }

    /// Nothing was transferred, for no reason of the stream's: a signal; or, where the stream waits by itself, its time-out.
    fn hiccup(&mut self, io: &mut Io) -> Option<Stage> {
        let gives_up = self.nodes[io.node].machine.manner() == Manner::Blocks && self.rng.percent(70);
        let performed = if gives_up { Performed::Passing } else { Performed::Again };
        match &mut io.job {
            Job::Receive(_) => Some(Stage::Received(Received::Nothing, performed)),
            Job::Send(_, flight, _) => {
                Some(Stage::Sent(std::mem::take(flight), Sent::Nothing(After::Nothing), performed))
            }
            _ => None,
        }
    }

    fn use_file(&mut self, t: usize, io: Box<Io>, inner: usize) {
        let node = io.node;
        let what = match &io.job {
            Job::Receive(_) => (Kind::Read, Vec::new()),
            Job::Send(_, flight, _) => (Kind::Write, flight.as_slice().to_vec()),
            Job::Flush(_) | Job::Push(_) => (Kind::Flush, Vec::new()),
            Job::HalfClose(..) | Job::End => {
                let both = matches!(io.job, Job::End);
                self.tasks[t].stack.push(Frame::Io(io));
                return self.shut_inside(t, inner, both);
            }
            Job::GiveBack(..) => {
                // First: it will watch the same descriptor.
                self.nodes[node].watched = Default::default();
                let Job::GiveBack(_, _, unread) = &io.job else { return };
                let unread = unread.clone();
                self.take_home(inner, &unread);
                self.tasks[t].stack.push(Frame::Io(io));
                return;
            }
        };
        self.tasks[t].stack.push(Frame::Io(io));
        self.call(t, inner, what.0, true, what.1, None, LARGE / 2);
    }

    pub(super) fn take_home(&mut self, inner: usize, unread: &[u8]) {
        let it = &mut self.nodes[inner];
        it.machine.take_home(unread);
        if std::mem::take(&mut it.home) {
            self.enter(inner);
        }
        self.release(inner);
    }

    /// `shut` on a file inside.
    fn shut_inside(&mut self, t: usize, inner: usize, both: bool) {
        let machine = &mut self.nodes[inner].machine;
        machine.shut(true, both);
        self.push(t, inner);
    }

    /// `Locked::push`.
    pub(super) fn push(&mut self, t: usize, node: usize) {
        let machine = &self.nodes[node].machine;
        match (machine.can_try(), machine.settled()) {
            (true, true) => self.offer(t, node, false, Ret::Unit),
            (true, false) => {
                self.tasks[t].stack.push(Frame::Push(node));
                self.call(t, node, Kind::Handshake, true, Vec::new(), None, 0);
            }
            (false, true) => self.offer(t, node, true, Ret::Unit),
            (false, false) => {
                self.tasks[t].ret = Some(Ret::Unit);
                self.release(node);
            }
        }
    }

    /// What a file inside has made of it.
    fn come_back(&mut self, t: usize, io: &mut Io) -> Stage {
        let (ended, data) = match self.tasks[t].ret.take() {
            Some(Ret::Call(ended, data)) => (ended, data),
            _ => return Stage::Plain,
        };
        let Under::File(_) = self.nodes[io.node].under else { return Stage::Plain };
        let blocks = self.nodes[io.node].machine.manner() == Manner::Blocks;
        match (&mut io.job, ended) {
            (Job::Receive(_), Ended::Panicked) => Stage::Panicked(Which::Receive),
            (_, Ended::Panicked) => Stage::Panicked(Which::Send),
            (Job::Receive(_), Ended::WouldBlock) if blocks => Stage::Received(Received::Nothing, Performed::Passing),
            (Job::Receive(_), Ended::WouldBlock) => Stage::Received(Received::Nothing, Performed::Dry),
            (Job::Receive(_), Ended::Done(Ok(0))) => Stage::Received(Received::End, Performed::Some),
            (Job::Receive(_), Ended::Done(Ok(_))) => {
                let mut buffer = Buffer::for_receiving();
                buffer.append(&data);
                Stage::Received(Received::Bytes(buffer), Performed::Some)
            }
            (Job::Receive(_), Ended::Done(Err(e))) => Stage::Received(Received::Failed(wrapped(&e)), Performed::Some),
            (Job::Send(_, flight, _), ended) => {
                let mut flight = std::mem::take(flight);
                match ended {
                    Ended::Done(Ok(n)) => {
                        flight.consume(n);
                        let after =
                            if flight.is_empty() && self.holds_back(io.node) { After::Push } else { After::Nothing };
                        Stage::Sent(flight, Sent::Took(after), Performed::Some)
                    }
                    Ended::Done(Err(e)) => Stage::Sent(flight, Sent::Failed(wrapped(&e)), Performed::Some),
                    _ if blocks => Stage::Sent(flight, Sent::Nothing(After::Nothing), Performed::Passing),
                    _ => Stage::Sent(flight, Sent::Full(After::Nothing), Performed::Full),
                }
            }
            (_, Ended::Done(Ok(_))) => Stage::Sent(Buffer::default(), Sent::Took(After::Nothing), Performed::Some),
            (_, Ended::Done(Err(e))) => Stage::Sent(Buffer::default(), Sent::Failed(wrapped(&e)), Performed::Some),
            _ if blocks => Stage::Sent(Buffer::default(), Sent::Nothing(After::Push), Performed::Passing),
            _ => Stage::Sent(Buffer::default(), Sent::Full(After::Push), Performed::Full),
        }
    }

    /// Under the lock again.
    pub(super) fn give_back(&mut self, io: Io) -> Performed {
        let clock = self.clock();
        let node = io.node;
        let machine = &mut self.nodes[node].machine;
        match (io.job, io.stage) {
            (_, Stage::Panicked(which)) => {
                self.lose(node, which);
                return Performed::Panicked;
            }
            (Job::Receive(lease), Stage::Received(received, performed)) => {
                machine.received(lease, received, &clock);
                return performed;
            }
            (Job::Send(lease, ..) | Job::Flush(lease) | Job::Push(lease), Stage::Sent(flight, sent, performed)) => {
                let took = matches!(sent, Sent::Took(_));
                machine.sent(lease, flight, sent, &clock);
                if took {
                    self.note_taken(node);
                }
                return performed;
            }
            (Job::HalfClose(lease, _), _) => {
                machine.half_closed(lease, &clock);
                self.note_taken(node);
            }
            (Job::GiveBack(receive, send, unread), _) => {
                let leftover = match self.nodes[node].under {
                    Under::Net => unread,
                    Under::File(_) => Vec::new(),
                };
                self.nodes[node].machine.given_back(receive, send, leftover);
            }
            (Job::End, _) => {}
            _ => self.found("a job came back as another"),
        }
        Performed::Some
    }

    pub(super) fn note_taken(&mut self, node: usize) {
        let now = self.now;
        if let Some(at) = &mut self.nodes[node].closing {
            *at = now;
        }
    }
}
