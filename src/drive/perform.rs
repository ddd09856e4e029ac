//! One job on the stream, without the file's lock.

use std::any::Any;
use std::io;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::time::Instant;

use super::{Locked, Real};
use crate::engine::{Buffer, LARGE};
use crate::error::{Error, ErrorKind};
use crate::machine::{After, Going, Job, Manner, ReceiveLease, Received, SendLease, Sent, Which};
use crate::stream::Transport;
use crate::sync::{now, Ordering};
use crate::sys::{spin, Doorbell};

/// What came of a job, for the driver.
pub(super) enum Performed {
    /// Something was done.
    Some,
    /// A signal has interrupted it.
    Again,
    /// Nothing is there to be received.
    Dry,
    /// The stream takes no more.
    Full,
    /// A stream that waits by itself has given up, for now: this is for whoever called.
    Passing(io::Error),
    /// The stream's code has.
    Panicked(Box<dyn Any + Send>),
}

/// What a receive has given: a number, an error, or a panic of the stream's code.
pub(super) type Came = Result<io::Result<usize>, Box<dyn Any + Send>>;

/// What a send has given: the outer error is that of sending; the inner one that of what follows when all has been taken.
pub(super) type Went = Result<io::Result<io::Result<After>>, Box<dyn Any + Send>>;

/// How a receive may wait.
#[derive(Clone, Copy)]
pub(super) enum Briefly {
    No,
    /// For a slice, in the system.
    Slice,
    /// The same, after trying for as long as `busy_poll` says, at most until then.
    Spin(Option<Instant>),
}

impl<S: Transport, F> Locked<'_, S, F> {
    #[inline]
    pub(super) fn perform(&mut self, job: Job, briefly: Briefly) -> Performed {
        let shared = self.shared;
        match job {
            Job::Receive(lease) => {
                let (buffer, came) = self.receive(briefly);
                self.has_received(lease, buffer, came)
            }
            Job::Send(lease, mut flight, going) => {
                let went = self.send(&mut flight, going);
                self.sent(lease, flight, went)
            }
            Job::Flush(lease) | Job::Push(lease) if shared.stream.is_file() => {
                let result = self.unlocked(|| caught(|| shared.stream.push().map(|()| Ok(After::Nothing))));
                self.sent(lease, Buffer::default(), result)
            }
            Job::Flush(lease) | Job::Push(lease) => {
                let result = self.unlocked(|| caught(|| Ok(shared.after_sending())));
                self.sent(lease, Buffer::default(), result)
            }
            Job::HalfClose(lease, of_stream) => {
                if of_stream {
                    self.unlocked(|| shared.stream.half_close());
                }
                self.machine.half_closed(lease, &Real);
                Performed::Some
            }
            Job::End => {
                self.unlocked(|| shared.stream.end());
                Performed::Some
            }
            Job::GiveBack(receive, send, unread) => {
                // First: it will watch the same descriptor.
                self.unwatch();
                let leftover = self.unlocked(|| shared.give_back(unread));
                self.machine.given_back(receive, send, leftover);
                Performed::Some
            }
        }
    }

    /// Receives once, without the lock.
    #[inline(always)]
    pub(super) fn receive(&mut self, briefly: Briefly) -> (Buffer, Came) {
        let shared = self.shared;
        let mut buffer = Buffer::for_receiving();
        let room = buffer.space(LARGE / 2);
        let came = self.unlocked(|| caught(|| shared.receive(room, briefly)));
        if let Ok(Ok(n)) = came {
            buffer.filled(n);
        }
        (buffer, came)
    }

    /// With the lock again.
    pub(super) fn has_received(&mut self, lease: ReceiveLease, buffer: Buffer, came: Came) -> Performed {
        let (received, performed) = match came {
            Ok(Ok(0)) => (Received::End, Performed::Some),
            Ok(Ok(_)) => (Received::Bytes(buffer), Performed::Some),
            Ok(Err(e)) => {
                drop(buffer);
                match passing(e, self.machine.manner(), self.shared.stream.is_file()) {
                    Ok(performed) => (Received::Nothing, performed.unwrap_or(Performed::Dry)),
                    Err(e) => (Received::Failed(stream_error("receiving", e)), Performed::Some),
                }
            }
            Err(panic) => {
                self.machine.lease_lost(Which::Receive, &Real);
                return Performed::Panicked(panic);
            }
        };
        self.machine.received(lease, received, &Real);
        performed
    }

    /// The stream, a file itself, has output of its own for which it was watched: nobody else may send that, whatever this file
    /// wants. What comes of it stays with that file.
    pub(super) fn push_on(&mut self) {
        let shared = self.shared;
        drop(self.unlocked(|| caught(|| shared.stream.push())));
    }

    /// Sends once, without the lock. What is left in the flight has not gone.
    #[inline(always)]
    pub(super) fn send(&mut self, flight: &mut Buffer, going: Going) -> Went {
        let shared = self.shared;
        let mut send = || {
            caught(|| {
                let n = shared.stream.try_send(flight.as_slice(), going)?;
                if n == 0 {
                    return Err(io::ErrorKind::WriteZero.into());
                }
                flight.consume(n);
                Ok(if flight.is_empty() { shared.after_sending() } else { Ok(After::Flush) })
            })
        };
        match going {
            // With the lock, where the stream never holds us: what a user sets on the socket meanwhile must not be undone.
            Going::Promptly if shared.stream.has_delay() => send(),
            _ => self.unlocked(send),
        }
    }

    /// With the lock again.
    pub(super) fn sent(&mut self, lease: SendLease, flight: Buffer, result: Went) -> Performed {
        let owed = match flight.is_empty() && self.shared.stream.is_file() {
            true => After::Push,
            false => After::Nothing,
        };
        let (owed, result) = match result {
            // What was left behind is no flush owed: the rest of the flight comes first.
            Ok(Ok(Ok(after))) => (if flight.is_empty() { after } else { After::Nothing }, Ok(())),
            Ok(Ok(Err(e))) => (After::Flush, Err(e)),
            Ok(Err(e)) => (owed, Err(e)),
            Err(panic) => {
                self.machine.lease_lost(Which::Send, &Real);
                return Performed::Panicked(panic);
            }
        };
        let (sent, performed) =
            match result.map_err(|e| passing(e, self.machine.manner(), self.shared.stream.is_file())) {
                Ok(()) => (Sent::Took(owed), Performed::Some),
                Err(Ok(None)) => (Sent::Full(owed), Performed::Full),
                Err(Ok(Some(performed))) => (Sent::Nothing(owed), performed),
                Err(Err(e)) => (Sent::Failed(stream_error("sending", e)), Performed::Some),
            };
        self.machine.sent(lease, flight, sent, &Real);
        performed
    }
}

impl<S: Transport, F> super::Shared<S, F> {
    #[inline(always)]
    fn receive(&self, buf: &mut [u8], briefly: Briefly) -> io::Result<usize> {
        if let Briefly::Spin(until) = briefly {
            let bell = Doorbell::current();
            let until = now().checked_add(self.busy_poll).into_iter().chain(until).min();
            if let Some(result) = spin(&bell, until, || self.stream.try_recv(buf)) {
                return result;
            }
            if bell.is_rung() {
                return Err(io::ErrorKind::WouldBlock.into());
            }
        }
        if matches!(briefly, Briefly::No) {
            return self.stream.try_recv(buf);
        }
        if !self.bounded.load(Ordering::Relaxed) && !self.bounded.swap(true, Ordering::Relaxed) {
            self.stream.bound_receives()?;
        }
        self.stream.recv_for_slice(buf)
    }

    /// The stream has taken all: passes on what it buffers.
    fn after_sending(&self) -> io::Result<After> {
        self.stream.flush()?;
        Ok(match self.holds_back() {
            true => After::Push,
            false => After::Nothing,
        })
    }
}

#[inline]
fn caught<T>(f: impl FnOnce() -> T) -> Result<T, Box<dyn Any + Send>> {
    catch_unwind(AssertUnwindSafe(f))
}

/// Nothing was transferred and trying again makes sense; for a stream that waits by itself, the caller must know. What the
/// system calls a time-out is the end of a connection, and that of a file inside, which is never asked to wait, too.
fn passing(e: io::Error, manner: Manner, is_file: bool) -> io::Result<Option<Performed>> {
    match e.kind() {
        io::ErrorKind::Interrupted => Ok(Some(Performed::Again)),
        io::ErrorKind::TimedOut if e.raw_os_error().is_some() || is_file => Err(e),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => match manner {
            Manner::Blocks => Ok(Some(Performed::Passing(e))),
            _ => Ok(None),
        },
        _ => Err(e),
    }
}

/// An error of the stream, for good. Where the stream has ended it is a cut; any other keeps its own kind and text.
pub(crate) fn stream_error(doing: &str, e: io::Error) -> Error {
    let io_kind = match e.kind() {
        io::ErrorKind::TimedOut => io::ErrorKind::BrokenPipe,
        kind => kind,
    };
    let is_end = matches!(
        io_kind,
        io::ErrorKind::BrokenPipe
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::UnexpectedEof
            | io::ErrorKind::WriteZero
            | io::ErrorKind::HostUnreachable
            | io::ErrorKind::NetworkUnreachable
            | io::ErrorKind::NetworkDown
            | io::ErrorKind::NotConnected
    );
    let kind = match Error::of(&e) {
        Some(inner) => inner.kind(),
        None if is_end => ErrorKind::Truncated,
        None => ErrorKind::Other,
    };
    Error::new(kind, format!("{doing}: {e}")).with_io_kind(io_kind).named_as(&e).with_source(e)
}
