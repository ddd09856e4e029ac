//! A scripted far end in the same thread: what a file writes to its stream reaches the far end within that very call, and what
//! the far end answers lies ready for the next read. So a test can count the calls on the stream and fail any one of them, and
//! a read that finds nothing on a blocking stream is a hang caught in the act.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use sslfile::Connection;

use super::Rng;

pub const START: &[u8] = b"STARTTLS\r\n";
pub const GO: &[u8] = b"GO\r\n";
/// Glued behind the far end's close_notify.
pub const HELLO: &[u8] = b"PLAIN AGAIN\r\n";
pub const QUIT: &[u8] = b"QUIT\r\n";
pub const BYE: &[u8] = b"BYE\r\n";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// One byte is moved, no more.
    Short,
    WouldBlock,
    Interrupted,
    TimedOut,
    /// The connection is dead from then on, both ways.
    Reset,
    /// An error TLS knows nothing of, in one direction, from then on.
    Other,
    /// `Ok(0)` in one direction, from then on.
    Eof,
}

impl Fault {
    pub const ALL: [Fault; 7] =
        [Fault::Short, Fault::WouldBlock, Fault::Interrupted, Fault::TimedOut, Fault::Reset, Fault::Other, Fault::Eof];

    pub fn is_passing(self) -> bool {
        matches!(self, Fault::Short | Fault::WouldBlock | Fault::Interrupted | Fault::TimedOut)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    Read,
    Write,
    Flush,
}

/// Which calls fail.
#[derive(Clone, Copy, Debug)]
pub enum When {
    Never,
    /// The one with this number, from 0.
    At(usize),
    /// Every second, on average: not in step with anything.
    Often,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ends {
    /// Answers close_notify, then ends its stream.
    Stream,
    /// Answers close_notify, then goes on in plain text.
    Tls,
}

#[derive(Debug)]
enum Phase {
    /// Before STARTTLS; what has arrived of it.
    Before(Vec<u8>),
    Tls,
    /// Behind the exchange of close_notify; what has arrived.
    Behind(Vec<u8>),
    Ended,
}

#[derive(Debug)]
pub struct Far {
    conn: Connection,
    /// The far end is the client.
    is_client: bool,
    ends: Ends,
    phase: Phase,
    outbox: VecDeque<u8>,
    /// Plaintext that came over TLS, all of it echoed.
    pub received: Vec<u8>,
    echoed: usize,
    pub error: Option<io::Error>,
    // The stream between.
    nonblocking: bool,
    fault: Fault,
    when: When,
    calls: usize,
    /// The call that was failed, and its number.
    pub fired: Option<(Call, usize)>,
    broken: [bool; 2],
    /// A blocking read found nothing and would have waited for ever.
    pub starved: bool,
    /// Set by the test around reads that must not write.
    pub writes_forbidden: bool,
}

#[derive(Clone, Debug)]
pub struct Wire(Arc<Mutex<Far>>);

/// The stream, or half of it.
#[derive(Debug)]
pub struct Near {
    wire: Wire,
    _alive: Sender<()>,
}

/// Tells when every `Near` was dropped.
pub struct Alive(Receiver<()>);

impl Alive {
    pub fn is_gone_within(&self, limit: Duration) -> bool {
        self.0.recv_timeout(limit) == Err(RecvTimeoutError::Disconnected)
    }
}

pub struct Script {
    pub is_client: bool,
    pub starttls: bool,
    pub ends: Ends,
    pub nonblocking: bool,
    pub fault: Fault,
    pub when: When,
}

impl Wire {
    /// The far end, and the two halves of the stream to it.
    pub fn new(conn: Connection, script: Script) -> (Wire, [Near; 2], Alive) {
        let Script { is_client, starttls, ends, nonblocking, fault, when } = script;
        let mut far = Far {
            conn,
            is_client,
            ends,
            phase: if starttls { Phase::Before(Vec::new()) } else { Phase::Tls },
            outbox: VecDeque::new(),
            received: Vec::new(),
            echoed: 0,
            error: None,
            nonblocking,
            fault,
            when,
            calls: 0,
            fired: None,
            broken: [false; 2],
            starved: false,
            writes_forbidden: false,
        };
        match starttls {
            true if is_client => far.outbox.extend(START),
            true => (),
            false => far.drive(),
        }
        let wire = Wire(Arc::new(Mutex::new(far)));
        let (alive, watch) = mpsc::channel();
        let near = || Near { wire: wire.clone(), _alive: alive.clone() };
        let halves = [near(), near()];
        (wire, halves, Alive(watch))
    }

    pub fn far(&self) -> MutexGuard<'_, Far> {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl Far {
    /// Takes what the file sent.
    fn take(&mut self, bytes: &[u8]) {
        match &mut self.phase {
            Phase::Before(so_far) => {
                so_far.extend_from_slice(bytes);
                let awaited = if self.is_client { GO } else { START };
                if so_far.len() < awaited.len() {
                    return;
                }
                assert_eq!(&so_far[..awaited.len()], awaited, "the plain dialogue");
                let early = so_far.split_off(awaited.len());
                if !self.is_client {
                    self.outbox.extend(GO);
                }
                self.phase = Phase::Tls;
                self.conn.feed(&early);
                self.drive();
            }
            Phase::Tls => {
                self.conn.feed(bytes);
                self.drive();
            }
            Phase::Behind(so_far) => {
                so_far.extend_from_slice(bytes);
                if so_far == QUIT {
                    self.outbox.extend(BYE);
                }
            }
            Phase::Ended => (),
        }
    }

    fn drive(&mut self) {
        match self.converse() {
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => (),
            Err(e) if self.error.is_none() => self.error = Some(e),
            _ => (),
        }
        let n = self.conn.output().len();
        self.outbox.extend(self.conn.output());
        self.conn.consume_output(n);
        if self.conn.is_peer_closed() && matches!(self.phase, Phase::Tls) {
            let unread = self.conn.take_unread();
            self.phase = match self.ends {
                Ends::Stream => Phase::Ended,
                Ends::Tls => {
                    self.outbox.extend(HELLO);
                    Phase::Behind(Vec::new())
                }
            };
            self.take(&unread);
        }
    }

    /// Echoes, and answers close_notify.
    fn converse(&mut self) -> io::Result<()> {
        self.conn.handshake()?;
        let mut buf = [0; 20_000];
        loop {
            while self.echoed < self.received.len() {
                self.echoed += self.conn.write(&self.received[self.echoed..])?;
            }
            match self.conn.read(&mut buf)? {
                0 => return self.conn.close(),
                n => self.received.extend_from_slice(&buf[..n]),
            }
        }
    }

    /// Calls on the stream so far.
    pub fn calls(&self) -> usize {
        self.calls
    }

    /// It has answered our close_notify.
    pub fn has_closed(&self) -> bool {
        matches!(self.phase, Phase::Behind(_) | Phase::Ended)
    }

    /// How much this call may move, or how it fails.
    fn upset(&mut self, call: Call) -> io::Result<usize> {
        const CHUNK: usize = 4_096;
        let number = self.calls;
        self.calls += 1;
        let due = match self.when {
            When::Never => false,
            When::At(k) => number == k,
            When::Often => Rng::new(number as u64).percent(50),
        };
        if due {
            self.fired.get_or_insert((call, number));
        }
        let way = usize::from(call != Call::Read);
        if due && !self.fault.is_passing() {
            self.broken[way] = true;
            self.broken[1 - way] |= self.fault == Fault::Reset;
        }
        if due || self.broken[way] {
            return match self.fault {
                Fault::Short => Ok(1),
                Fault::WouldBlock => Err(io::ErrorKind::WouldBlock.into()),
                Fault::Interrupted => Err(io::ErrorKind::Interrupted.into()),
                Fault::TimedOut => Err(io::ErrorKind::TimedOut.into()),
                Fault::Reset => Err(io::ErrorKind::ConnectionReset.into()),
                Fault::Other => Err(io::Error::other("the lid fell off")),
                Fault::Eof => Ok(0),
            };
        }
        Ok(CHUNK)
    }
}

impl Read for Near {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let far = &mut *self.wire.far();
        let n = far.upset(Call::Read)?.min(buf.len());
        if far.outbox.is_empty() && n > 0 {
            if matches!(far.phase, Phase::Ended) {
                return Ok(0);
            }
            if far.nonblocking {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            far.starved = true;
            return Err(io::Error::new(io::ErrorKind::ConnectionAborted, "a read that would never end"));
        }
        let n = n.min(far.outbox.len());
        for (to, from) in buf.iter_mut().zip(far.outbox.drain(..n)) {
            *to = from;
        }
        Ok(n)
    }
}

impl Write for Near {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let far = &mut *self.wire.far();
        assert!(!far.writes_forbidden, "a read wrote to a stream that may block");
        let n = far.upset(Call::Write)?.min(buf.len());
        far.take(&buf[..n]);
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.wire.far().upset(Call::Flush).map(drop)
    }
}
