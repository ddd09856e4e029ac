//! How it ended: who ended it, why, and what it cost; and from that what each call is told (`world::calls` walks the table).
//!
#![doc = include_str!("calls.md")]

use std::io;
use std::ops::{Deref, DerefMut};

use super::state::{End, State};
use super::Machine;
use crate::connection::write_shut_down;
use crate::error::{Error, ErrorKind};

/// Made when there is something to tell: a connection that is well has none.
#[derive(Debug, Default)]
pub(super) struct Outcome(Option<Box<Facts>>);

static NOTHING: Facts =
    Facts { send_failure: None, handshake_cut: None, broken: None, lost: false, own: None, own_given: false };

impl Deref for Outcome {
    type Target = Facts;

    #[inline]
    fn deref(&self) -> &Facts {
        self.0.as_deref().unwrap_or(&NOTHING)
    }
}

impl DerefMut for Outcome {
    fn deref_mut(&mut self) -> &mut Facts {
        self.0.get_or_insert_default()
    }
}

#[derive(Debug, Default)]
pub(super) struct Facts {
    /// The stream takes nothing more.
    pub send_failure: Option<Error>,
    /// The same, when the peer still needed our part of the handshake: the handshake has failed too.
    pub handshake_cut: Option<Error>,
    /// The stream is dead, though what came before may still be there to be received.
    pub broken: Option<Error>,
    /// Accepted bytes were lost.
    pub lost: bool,
    /// How our own end came out: `close`, `close_clean`, `abort`.
    pub own: Option<Result<(), Error>>,
    /// `close` has given that.
    pub own_given: bool,
}

impl Outcome {
    /// There is nothing to tell.
    #[inline]
    pub fn is_untouched(&self) -> bool {
        self.0.is_none()
    }

    /// What to take the stream's bare end for, if the system has told of a reset already.
    pub fn reset(&self) -> Option<Error> {
        let is_reset = |error: &&Error| error.io_kind() == io::ErrorKind::ConnectionReset;
        self.broken.as_ref().or(self.send_failure.as_ref().filter(is_reset)).cloned()
    }
}

impl Machine {
    /// What a read is told when there is no data left; `None`: more may come.
    #[inline]
    pub fn read_end(&self) -> Option<Result<(), Error>> {
        if self.receive.shut {
            return Some(Ok(()));
        }
        if self.end.is_closing() || matches!(self.end.state, End::Over { .. }) {
            return Some(Err(not_open()));
        }
        if !self.tls.has_ended() {
            return None;
        }
        Some(self.tls.read_error().map_or(Ok(()), |error| Err(error.clone())))
    }

    /// Why nothing may be written.
    #[inline]
    pub fn write_error(&self) -> Option<Error> {
        if self.is_over() {
            return Some(not_open());
        }
        if let Some(failure) = self.tls.failure().or(self.outcome.send_failure.as_ref()) {
            return Some(failure.clone());
        }
        self.send.is_shut().then(write_shut_down)
    }

    /// We have ended the connection, or are about to.
    #[inline]
    pub fn is_over(&self) -> bool {
        self.end.is_closing() || matches!(self.end.state, End::Over { .. } | End::Cleaned)
    }

    /// There is nothing to wait for any more.
    #[inline]
    pub fn is_done(&self) -> bool {
        self.lend.is_returned() || matches!(self.end.state, End::Over { .. } | End::Cleaned)
    }

    /// Nothing is out of the ordinary: calls go the short way.
    #[inline]
    pub fn is_calm(&self) -> bool {
        self.has_flown()
            && self.end.is_calm()
            && !self.receive.shut
            && self.lend.is_own()
            && self.tls.failure().is_none()
            && self.outcome.is_untouched()
            && !self.send.is_shut()
    }

    pub fn state(&self) -> State {
        match self.end.state {
            End::Over { .. } | End::Cleaned => State::Closed,
            End::Flush { .. } | End::Drain { .. } => State::Closing,
            End::Not if self.tls.has_ended_well() => State::PeerClosed,
            _ if self.tls.failure().is_some() || self.tls.read_error().is_some() => State::Failed,
            End::Clean { .. } => State::Closing,
            End::Not if self.tls.is_handshake_done() => State::Open,
            End::Not => State::Handshaking,
        }
    }

    /// The error that ended the connection, if one did.
    pub fn last_error(&self) -> Option<&Error> {
        let of_peer = self.tls.failure().or(self.tls.read_error()).or(self.outcome.send_failure.as_ref());
        of_peer.or(self.outcome.own.as_ref().and_then(|own| own.as_ref().err()))
    }

    /// What the close callback is told.
    pub(super) fn end_result(&self) -> Result<(), Error> {
        match (&self.outcome.own, self.tls.read_error()) {
            (Some(own), _) => own.clone(),
            (None, Some(error)) => Err(error.clone()),
            (None, None) => Ok(()),
        }
    }

    /// What a listener is told of the handshake: `UnexpectedEof` for a peer that ended before its first byte.
    pub fn handshake_result(&self) -> io::Result<()> {
        match self.tls.failure() {
            Some(_) if self.tls.has_ended_well() => Err(io::ErrorKind::UnexpectedEof.into()),
            Some(failure) => Err(failure.to_io()),
            None => Ok(()),
        }
    }

    /// The system says that the stream is dead. What came before may still be there to be received.
    pub fn broken(&mut self, error: Error) {
        self.outcome.broken.get_or_insert(error.clone());
        self.fail_sending(error);
    }

    /// Why the stream can't be moved out, if so.
    pub fn release_error(&self) -> Option<Error> {
        if self.is_lent() {
            return Some(taken());
        }
        let owes = self.unsent() > 0 || (self.send.is_shut() && self.has_output());
        match self.end.state {
            End::Cleaned => None,
            End::Over { .. } => Some(not_open().with_io_kind(io::ErrorKind::BrokenPipe)),
            _ if owes && self.tls.failure().is_none() => {
                Some(Error::would_block("accepted data or our close_notify is not sent yet"))
            }
            End::Flush { .. } | End::Drain { .. } => Some(not_open().with_io_kind(io::ErrorKind::BrokenPipe)),
            End::Clean { .. } => {
                let error = Error::new(ErrorKind::NotOpen, "the clean close has not come to its end");
                Some(error.with_io_kind(io::ErrorKind::BrokenPipe))
            }
            End::Not => None,
        }
    }
}

pub(crate) fn not_open() -> Error {
    Error::new(ErrorKind::NotOpen, "this end has closed the connection")
}

pub(crate) fn taken() -> Error {
    Error::new(ErrorKind::Other, "another file has taken this stream over").with_io_kind(io::ErrorKind::ResourceBusy)
}

pub(super) fn interrupted() -> Error {
    Error::new(ErrorKind::Interrupted, "interrupted")
}

/// An error to be told later, as the file keeps errors.
pub(crate) fn own(e: &io::Error) -> Error {
    match Error::of(e) {
        Some(error) => error.clone(),
        None => Error::new(ErrorKind::Other, e.to_string()).with_io_kind(e.kind()),
    }
}
