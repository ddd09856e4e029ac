//! A session without cryptography: real record headers, so that the real [`Connection`] sees what it would see. A record of
//! type 23 says in its first byte what is in it.

use std::cell::RefCell;
use std::io::Read;

use crate::certificate::Certificate;
use crate::connection::Connection;
use crate::engine::{Session, Stop, Wire};
use crate::error::{Error, ErrorKind};
use crate::role::Role;
use crate::version::Version;

pub(super) const ALERT: u8 = 21;
pub(super) const HANDSHAKE: u8 = 22;
pub(super) const PROTECTED: u8 = 23;

// In handshake records.
pub(super) const CLIENT_HELLO: u8 = 1;
pub(super) const SERVER_HELLO: u8 = 2;
pub(super) const FINISHED: u8 = 20;

// In protected records. Zero is what a forged one has.
pub(super) const DATA: u8 = 1;
pub(super) const TICKET: u8 = 2;
pub(super) const UPDATE: u8 = 3;
pub(super) const ANSWER: u8 = 4;
/// A renegotiation, up to TLS 1.2: the peer asks for it, we say hello, and write nothing before it is done.
pub(super) const REQUEST: u8 = 5;
pub(super) const HELLO: u8 = 6;
pub(super) const RENEWED: u8 = 7;

pub(super) const LONGEST: usize = 16 * 1024;

pub(super) fn record(kind: u8, first: Option<u8>, body: &[u8], out: &mut Vec<u8>) {
    let n = body.len() + usize::from(first.is_some());
    out.extend([kind, 3, 3, (n >> 8) as u8, n as u8]);
    out.extend(first);
    out.extend_from_slice(body);
}

/// What the sessions of this thread's world have seen.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Probe {
    /// Records in a row that brought no data.
    pub barren: u32,
    pub tickets: u32,
    /// Plaintext bytes encrypted since somebody last set this to zero.
    pub encrypted: usize,
    /// The peer's close_notify.
    pub saw_bye: bool,
    pub violation: Option<&'static str>,
    /// Bytes of data ever decrypted.
    pub decrypted: u64,
    pub said_bye: bool,
}

thread_local! {
    pub(super) static PROBES: RefCell<[Probe; 3]> = const { RefCell::new([NO_PROBE; 3]) };
}

const NO_PROBE: Probe =
    Probe { barren: 0, tickets: 0, encrypted: 0, saw_bye: false, violation: None, decrypted: 0, said_bye: false };

pub(super) fn probe<T>(level: usize, f: impl FnOnce(&mut Probe) -> T) -> T {
    PROBES.with(|probes| f(&mut probes.borrow_mut()[level]))
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Begin,
    Helloed,
    Done,
}

pub(super) struct Fake {
    level: usize,
    role: Role,
    is_tls13: bool,
    stage: Stage,
    renegotiates: bool,
    /// The most plaintext for one record.
    fragment: usize,
    tickets: usize,
    /// Of the record at hand.
    rest: Vec<u8>,
    at: usize,
    scratch: Vec<u8>,
}

/// How a session is to be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plan {
    pub level: usize,
    pub role: Role,
    pub is_tls13: bool,
    pub fragment: usize,
    pub tickets: usize,
}

impl Plan {
    pub fn connection(self) -> Connection {
        probe(self.level, |probe| *probe = Probe::default());
        let fake = Fake {
            level: self.level,
            role: self.role,
            is_tls13: self.is_tls13,
            stage: Stage::Begin,
            renegotiates: false,
            fragment: self.fragment,
            tickets: self.tickets,
            rest: Vec::new(),
            at: 0,
            scratch: Vec::new(),
        };
        Connection::with_session(Box::new(fake), self.role)
    }
}

impl Fake {
    /// What was admitted, in `scratch`.
    fn take(&mut self, wire: &mut Wire) -> Result<(), Stop> {
        self.scratch.clear();
        if wire.read_to_end(&mut self.scratch).is_ok() || self.scratch.is_empty() {
            return Err(Stop::NeedsInput);
        }
        match *self.scratch.as_slice() {
            [20..=24, 3, 3, high, low, ..] if self.scratch.len() == 5 + usize::from(high) * 256 + usize::from(low) => {
                Ok(())
            }
            _ => Err(self.refuse(wire, 10)),
        }
    }

    fn say(&mut self, wire: &mut Wire, kind: u8, first: Option<u8>, body: &[u8]) {
        let mut out = Vec::with_capacity(body.len() + 6);
        record(kind, first, body, &mut out);
        wire.send(&out);
    }

    fn refuse(&mut self, wire: &mut Wire, alert: u8) -> Stop {
        self.say(wire, ALERT, None, &[2, alert]);
        Stop::Failed(Error::new(ErrorKind::LocalAlert(alert), "refused"))
    }

    fn barren(&self, is_ticket: bool) -> Stop {
        probe(self.level, |probe| {
            let (count, most) = match is_ticket {
                true => (&mut probe.tickets, 255),
                false => (&mut probe.barren, 32),
            };
            *count += 1;
            // The one too many is looked at, and refused.
            if *count > most + 1 {
                probe.violation = Some("work: more records in a row without data than allowed");
            }
        });
        Stop::NeedsInput
    }
}

impl Session for Fake {
    fn handshake(&mut self, wire: &mut Wire) -> Result<(), Stop> {
        if self.stage == Stage::Done {
            return Ok(());
        }
        if self.role == Role::Client && self.stage == Stage::Begin {
            self.stage = Stage::Helloed;
            self.say(wire, HANDSHAKE, Some(CLIENT_HELLO), &[0; 100]);
            return Err(Stop::NeedsInput);
        }
        self.take(wire)?;
        let said = (self.scratch[0], self.scratch.get(5).copied().unwrap_or(0));
        match (self.role, self.stage, said) {
            (_, _, (ALERT, level)) => {
                let number = self.scratch.get(6).copied().unwrap_or(0);
                if level == 1 && number != 0 {
                    return Err(Stop::NeedsInput);
                }
                Err(Stop::Failed(Error::new(ErrorKind::PeerAlert(number), "the peer's alert")))
            }
            (Role::Server, Stage::Begin, (HANDSHAKE, CLIENT_HELLO)) => {
                self.stage = Stage::Helloed;
                self.say(wire, HANDSHAKE, Some(SERVER_HELLO), &[0; 900]);
                Err(Stop::NeedsInput)
            }
            (Role::Client, Stage::Helloed, (HANDSHAKE, SERVER_HELLO)) => {
                self.say(wire, HANDSHAKE, Some(FINISHED), &[0; 40]);
                if !self.is_tls13 {
                    return Err(Stop::NeedsInput);
                }
                self.stage = Stage::Done;
                Ok(())
            }
            (Role::Client, Stage::Helloed, (HANDSHAKE, FINISHED)) if !self.is_tls13 => {
                self.stage = Stage::Done;
                Ok(())
            }
            (Role::Server, Stage::Helloed, (HANDSHAKE, FINISHED)) => {
                self.stage = Stage::Done;
                if !self.is_tls13 {
                    self.say(wire, HANDSHAKE, Some(FINISHED), &[0; 40]);
                }
                for _ in 0..self.tickets {
                    self.say(wire, PROTECTED, Some(TICKET), &[0; 200]);
                }
                Ok(())
            }
            _ => Err(self.refuse(wire, 10)),
        }
    }

    fn read(&mut self, wire: &mut Wire, buf: &mut [u8]) -> Result<usize, Stop> {
        if self.at == self.rest.len() {
            self.take(wire)?;
            let first = self.scratch.get(5).copied().unwrap_or(0);
            match (self.scratch[0], first) {
                (PROTECTED, DATA) if self.scratch.len() > 6 => {
                    std::mem::swap(&mut self.rest, &mut self.scratch);
                    self.at = 6;
                    probe(self.level, |probe| {
                        (probe.barren, probe.tickets) = (0, 0);
                        probe.decrypted += self.rest.len() as u64 - 6;
                    });
                }
                (PROTECTED, DATA) => return Err(self.barren(false)),
                (PROTECTED, TICKET) => return Err(self.barren(self.role == Role::Client && self.is_tls13)),
                (PROTECTED, UPDATE) => {
                    self.say(wire, PROTECTED, Some(ANSWER), &[0; 20]);
                    return Err(self.barren(false));
                }
                (PROTECTED, ANSWER) => return Err(self.barren(false)),
                (PROTECTED, REQUEST) if !self.is_tls13 => {
                    if !self.renegotiates && !probe(self.level, |probe| probe.said_bye) {
                        self.renegotiates = true;
                        self.say(wire, PROTECTED, Some(HELLO), &[0; 100]);
                    }
                    return Err(self.barren(false));
                }
                (PROTECTED, RENEWED) => {
                    self.renegotiates = false;
                    return Err(self.barren(false));
                }
                (ALERT, 1) if self.scratch.get(6) == Some(&0) => {
                    probe(self.level, |probe| probe.saw_bye = true);
                    return Ok(0);
                }
                (ALERT, 1) => return Err(self.barren(false)),
                (ALERT, 2) => {
                    let number = self.scratch.get(6).copied().unwrap_or(0);
                    return Err(Stop::Failed(Error::new(ErrorKind::PeerAlert(number), "the peer's alert")));
                }
                (PROTECTED, 0) => return Err(self.refuse(wire, 20)),
                _ => return Err(self.refuse(wire, 10)),
            }
        }
        let n = buf.len().min(self.rest.len() - self.at);
        buf[..n].copy_from_slice(&self.rest[self.at..self.at + n]);
        self.at += n;
        if self.at == self.rest.len() {
            self.rest.clear();
            self.at = 0;
        }
        Ok(n)
    }

    fn write(&mut self, wire: &mut Wire, data: &[u8]) -> Result<usize, Stop> {
        if self.renegotiates {
            return Err(Stop::NeedsInput);
        }
        let n = data.len().min(self.fragment);
        self.say(wire, PROTECTED, Some(DATA), &data[..n]);
        probe(self.level, |probe| {
            probe.encrypted += n;
            if probe.said_bye {
                probe.violation = Some("meaning: data behind our close_notify");
            }
        });
        Ok(n)
    }

    fn close(&mut self, wire: &mut Wire) -> Result<(), Stop> {
        if self.renegotiates {
            return Err(Stop::NeedsInput);
        }
        self.say(wire, ALERT, None, &[1, 0]);
        probe(self.level, |probe| probe.said_bye = true);
        Ok(())
    }

    fn pending(&self) -> usize {
        self.rest.len() - self.at
    }

    fn version(&self) -> Option<Version> {
        Some(if self.is_tls13 { Version::Tls1_3 } else { Version::Tls1_2 })
    }

    fn alpn(&self) -> Option<Vec<u8>> {
        None
    }

    fn peer_certificate(&self) -> Option<Certificate> {
        None
    }

    fn tls_server_end_point(&self) -> Option<Vec<u8>> {
        None
    }

    fn export_keying_material(&self, _: &mut [u8], _: &str, _: Option<&[u8]>) -> Result<(), Error> {
        Err(Error::unsupported("no keys"))
    }
}
