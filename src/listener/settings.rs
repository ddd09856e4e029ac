//! What is set on a listener, and what it knows of the connections that are on their way to its user.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use crate::backend::Place;
use crate::context::Context;
use crate::file::{SslFile, SslOptions};
use crate::sys::has_said_something;

/// Under a lock that is taken before a file's, and before the callbacks'. No file is dropped while it is held, and no handle
/// on a backend.
pub(super) struct Settings {
    pub context: Context,
    /// Of files accepted from now on.
    pub options: SslOptions,
    pub phase: Phase,
    pub paused: bool,
    pub pending_limit: usize,
    /// Accepted, and waiting for room: one, or those that `finish` found.
    pub waiting: VecDeque<(TcpStream, SocketAddr)>,
    /// On their way from there to `pending`.
    pub starting: usize,
    /// Files whose handshake is under way, in callback mode, by age.
    pub pending: HashMap<u64, Pending>,
    pub next_pending: u64,
    /// Those of which nothing has come, as far as is known.
    pub silent: BTreeSet<u64>,
    /// After an error of the system: accept nothing until then.
    pub resting: Option<Instant>,
    pub place: Option<Place>,
    /// What the backend has been told.
    pub watched: bool,
    pub alarm: Option<Instant>,
    /// How many connections to take in the next turn: as many as there were, or twice as many if there were more.
    pub burst: usize,
}

pub(super) struct Pending {
    pub file: SslFile,
    pub addr: SocketAddr,
    pub since: Instant,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    Listening,
    /// `finish` has been called, and the system's queue is still to be emptied.
    Emptying,
    /// No more comes; handshakes are under way.
    Finishing,
    Closed,
}

/// Whether another handshake may begin.
pub(super) enum Room {
    Yes,
    /// Then, unless one of those under way says something or ends.
    At(Instant),
    No,
}

/// Handshakes under way at once, unless set otherwise.
const PENDING_LIMIT: usize = 1024;
/// Connections accepted in one run, so that the files of the backend have their turn.
pub(super) const FAIR_SHARE: usize = 64;
/// How long to leave the system alone when it can't accept: it is out of descriptors, say.
pub(super) const REST: Duration = Duration::from_millis(100);
/// Who says nothing for so long gives way to others when there is no room.
pub(super) const SILENCE: Duration = Duration::from_secs(1);

impl Settings {
    pub fn new(context: &Context) -> Settings {
        Settings {
            context: context.clone(),
            options: SslFile::options(),
            phase: Phase::Listening,
            paused: false,
            pending_limit: PENDING_LIMIT,
            waiting: VecDeque::new(),
            starting: 0,
            pending: HashMap::new(),
            next_pending: 0,
            silent: BTreeSet::new(),
            resting: None,
            place: None,
            watched: false,
            alarm: None,
            burst: 0,
        }
    }

    pub fn under_way(&self) -> usize {
        self.pending.len() + self.starting
    }

    /// A limit of none says when to begin; what has begun must come to its end.
    pub fn is_full(&self) -> bool {
        self.under_way() >= self.pending_limit.max(1)
    }

    pub fn room(&mut self) -> Room {
        if self.pending_limit == 0 && self.phase == Phase::Listening {
            return Room::No;
        }
        if !self.is_full() {
            return Room::Yes;
        }
        match self.oldest_silent().map(|(_, since)| since + SILENCE) {
            Some(at) if at <= Instant::now() => Room::Yes,
            Some(at) => Room::At(at),
            None => Room::No,
        }
    }

    /// Who has to give way first. After `finish` nobody has: those who wait are no newcomers.
    pub fn oldest_silent(&mut self) -> Option<(u64, Instant)> {
        if self.phase != Phase::Listening {
            return None;
        }
        while let Some(id) = self.silent.first().copied() {
            match self.pending.get(&id) {
                Some(pending) if pending.file.traffic().bytes_received == 0 => return Some((id, pending.since)),
                _ => self.silent.remove(&id),
            };
        }
        None
    }

    /// Who has to give way, to be dropped without the lock.
    pub fn take_silent(&mut self) -> Option<Pending> {
        while let Some((id, _)) = self.oldest_silent().filter(|(_, since)| since.elapsed() >= SILENCE) {
            let speaks = |file: &SslFile| has_said_something(file.get_ref());
            if !self.pending.get(&id).is_some_and(|pending| speaks(&pending.file)) {
                return self.remove(id);
            }
            // It has come while the backend was busy elsewhere.
            self.silent.remove(&id);
        }
        None
    }

    /// Whether to look into the system's queue.
    pub fn takes_more(&mut self) -> bool {
        match self.phase {
            _ if self.resting.is_some() => false,
            Phase::Listening => !self.paused && self.waiting.is_empty() && matches!(self.room(), Room::Yes),
            Phase::Emptying => true,
            Phase::Finishing | Phase::Closed => false,
        }
    }

    /// When something is due by time alone.
    pub fn next_look(&mut self) -> Option<Instant> {
        let needs_room = !self.waiting.is_empty() || (self.phase == Phase::Listening && !self.paused);
        let room = match self.room() {
            Room::At(at) if needs_room => Some(at),
            _ => None,
        };
        [self.resting, room].into_iter().flatten().min()
    }

    pub fn rest(&mut self) {
        self.resting = Some(Instant::now() + REST);
    }

    /// Out of the system's queue into ours.
    pub fn take(&mut self, stream: TcpStream, addr: SocketAddr) {
        if self.phase != Phase::Closed {
            self.waiting.push_back((stream, addr));
        }
    }

    pub fn remove(&mut self, id: u64) -> Option<Pending> {
        self.silent.remove(&id);
        self.pending.remove(&id)
    }

    /// All that is under way, to be dropped without the lock.
    pub fn abandon(&mut self) -> impl Sized {
        self.silent.clear();
        (std::mem::take(&mut self.pending), std::mem::take(&mut self.waiting))
    }

    /// The backend has forgotten what is over.
    pub fn expire(&mut self, now: Instant) {
        for at in [&mut self.resting, &mut self.alarm] {
            *at = at.filter(|at| *at > now);
        }
    }
}
