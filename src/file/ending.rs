//! The ways a file ends: `shutdown`, `close`, `close_clean`, and the drop of its last handle.

use std::io;
use std::net::Shutdown;
use std::sync::mpsc;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use super::alert_queue::InCall;
use super::events::own;
use super::guarded::{not_open, taken, Call, Caller, Core, Ending, Guard};
use super::shared::Shared;
use crate::engine::Buffer;
use crate::error::{Error, ErrorKind};
use crate::stream::{after, Transport, Wait};

/// The default of `SslOptions::close_timeout`.
pub(crate) const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);
/// Plaintext that `close_clean` keeps for readers while it waits for the peer's close_notify.
const CLEAN_LIMIT: usize = 16 << 20;
/// What a dropped file reads away at most, so that a peer that goes on sending can't hold the thread.
const DROP_READS: usize = 16;
const DROP_READ: usize = 64 * 1024;
/// How long a drop waits for a stream that can't be tried.
const DROP_WAIT: Duration = Duration::from_millis(100);

impl Core {
    /// How long `close` waits for the peer to take something. That it should not wait for the peer's end is no licence to
    /// lose what was accepted.
    pub fn flush_patience(&self) -> Duration {
        match self.close_timeout {
            Duration::ZERO => CLOSE_TIMEOUT,
            time => time,
        }
    }
}

impl<S: Transport, F: 'static> Shared<S, F> {
    /// Never waits.
    pub fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        let _call = InCall::begin();
        let core = self.lock();
        core.check_free(Caller::User)?;
        if core.is_over() {
            return Err(not_open().into());
        }
        drop(core);
        self.shut(how != Shutdown::Read, how != Shutdown::Write);
        Ok(())
    }

    /// Ends directions, whoever uses the file.
    pub fn shut(&self, write: bool, read: bool) {
        let mut core = self.lock();
        core.write_shut |= write;
        core.read_shut |= read;
        self.wake_all(&core);
        drop(self.push(core));
    }

    pub fn close(&self) -> io::Result<()> {
        let _call = InCall::begin();
        let mut core = self.lock();
        core.check_free(Caller::User)?;
        if matches!(core.ending, Ending::Closed | Ending::Cleaned) {
            return Ok(());
        }
        self.begin_closing(&mut core);
        let mut call = core.call(Caller::User, None);
        call.closing = true;
        call.patience = self.can_try().then(|| core.flush_patience());
        if !call.wait && core.events.place.is_some() {
            // The backend goes on with it.
            core.events.look = true;
            return Ok(());
        }
        self.close_step(core, &call)
    }

    pub fn begin_closing(&self, core: &mut Core) {
        if matches!(core.ending, Ending::Not | Ending::Cleaning) {
            core.ending = Ending::Closing;
            core.write_shut = true;
            core.progress = Some(Instant::now());
            self.wake_all(core);
        }
    }

    /// Closes as far as the call may wait.
    pub fn close_step<'a>(&'a self, core: Guard<'a>, call: &Call) -> io::Result<()> {
        let (core, flushed) = self.flush_to_close(core, call);
        let core = match flushed {
            Err(e) if e.kind() == io::ErrorKind::WouldBlock && !call.wait => {
                let stuck = core.progress.is_none_or(|at| at.elapsed() >= core.flush_patience());
                if !stuck {
                    return Err(e);
                }
                return self.end(core, Err(self.time_out(call).into()));
            }
            // It can be called again.
            Err(e) if Error::of(&e).is_some_and(|e| e.kind() == ErrorKind::Interrupted) => return Err(e),
            Err(e) => return self.end(core, Err(e)),
            Ok(()) => core,
        };
        // What the peer still sends is read away, or the system would answer it with a reset, which can cost the peer
        // what it has not read yet.
        match self.drain(core, call) {
            Ok(core) => self.end(core, Ok(())),
            Err(e) => Err(e),
        }
    }

    /// Sends what was accepted, our close_notify and the half-close.
    fn flush_to_close<'a>(&'a self, mut core: Guard<'a>, call: &Call) -> (Guard<'a>, io::Result<()>) {
        let has_queue = !core.queue.is_empty();
        if has_queue && !core.settled {
            core = match self.shake(core, call) {
                Ok(core) => core,
                Err(e) => return (self.lock(), Err(e)),
            };
        }
        let result = match core.has_output() || !core.half_closed {
            true => match self.send_and_read(core, call, |connection| {
                connection.discard_input();
            }) {
                Ok(guard) => {
                    core = guard;
                    Ok(())
                }
                Err(e) => {
                    core = self.lock();
                    Err(e)
                }
            },
            false => Ok(()),
        };
        if core.write_failure.is_none() && core.connection.failure().is_none() {
            return (core, result);
        }
        // The peer went first: an error only if that cost data.
        let failure = core.connection.failure().or(core.write_failure.as_ref()).filter(|_| core.lost);
        let result = failure.map_or(Ok(()), |failure| Err(failure.to_io()));
        (core, result)
    }

    /// Reads away what comes, until the peer's end or the close time-out.
    fn drain<'a>(&'a self, mut core: Guard<'a>, call: &Call) -> io::Result<Guard<'a>> {
        if !self.can_try() || core.close_timeout.is_zero() || core.write_failure.is_some() || core.returned {
            return Ok(core);
        }
        if core.drain_deadline.is_none() {
            core.drain_deadline = after(core.close_timeout);
        }
        let deadline = core.drain_deadline;
        let until = Call { deadline, patience: None, ..*call };
        loop {
            if core.connection.discard_input() {
                return Ok(core);
            }
            if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                return Ok(core);
            }
            match self.wait_for_input(core, &until) {
                Ok(guard) => core = guard,
                Err(e) if e.kind() == io::ErrorKind::TimedOut => return Ok(self.lock()),
                Err(e) => return Err(e),
            }
            core.check(&until)?;
        }
    }

    fn end(&self, mut core: Guard<'_>, result: io::Result<()>) -> io::Result<()> {
        core.ending = Ending::Closed;
        core.events.own_end = Some(result.as_ref().map_or_else(|e| Err(own(e)), |()| Ok(())));
        core.drop_output();
        // A silent peer may still be reading: a socket that were closed for reading too would answer what the peer
        // sends late (session tickets, say) with a reset, and what is on its way to the peer would be lost.
        let is_over_for_peer = result.is_err() || core.connection.has_ended() || core.connection.has_discarded();
        if is_over_for_peer && !core.returned {
            self.stream.end();
            core.stream_ended = true;
        }
        self.wake_all(&core);
        result
    }

    pub fn close_clean(&self) -> io::Result<()> {
        let _call = InCall::begin();
        let mut core = self.lock();
        core.check_free(Caller::User)?;
        match core.ending {
            Ending::Cleaned => return Ok(()),
            Ending::Closing | Ending::Closed => return Err(not_open().into()),
            Ending::Not | Ending::Cleaning => {}
        }
        let call = core.call(Caller::User, core.read_timeout);
        if !call.wait && core.events.place.is_some() {
            core.ending = Ending::Cleaning;
            core.write_shut = true;
            core.events.own_end = None;
            core.events.cleaning = Some(Instant::now());
            core.events.look = true;
            self.wake_all(&core);
            return Ok(());
        }
        self.clean_step(core, &call)
    }

    /// Closes cleanly as far as the call may wait.
    pub fn clean_step<'a>(&'a self, mut core: Guard<'a>, call: &Call) -> io::Result<()> {
        core = if core.settled { core } else { self.shake(core, call)? };
        if let Some(failure) = core.connection.failure().or(core.write_failure.as_ref()) {
            return Err(failure.to_io());
        }
        core.ending = Ending::Cleaning;
        core.write_shut = true;
        self.wake_all(&core);
        if core.has_output() || core.unsent() > 0 || core.connection.write_error().is_none() {
            core = self.send_and_read(core, call, |connection| {
                connection.read_ahead(CLEAN_LIMIT);
            })?;
        }
        loop {
            core.connection.read_ahead(CLEAN_LIMIT);
            if let Some(e) = core.connection.read_error() {
                return Err(e.to_io());
            }
            if core.connection.has_ended_well() {
                break;
            }
            if core.connection.plain_len() >= CLEAN_LIMIT {
                return Err(Error::would_block("the peer goes on sending: read what has come, then call again").into());
            }
            core.check(call)?;
            core = self.wait_for_input(core, call)?;
            if core.is_over() {
                return if core.ending == Ending::Cleaned { Ok(()) } else { Err(not_open().into()) };
            }
        }
        core.ending = Ending::Cleaned;
        core.events.own_end = Some(Ok(()));
        let unread = core.connection.take_unread();
        self.give_stream_back(&mut core, unread);
        self.wake_all(&core);
        Ok(())
    }

    /// The stream is as it was before there was a file on it; a stream that is a file itself is used by its own handles
    /// again.
    pub fn give_stream_back(&self, core: &mut Core, unread: Vec<u8>) {
        // First: it will watch the same descriptor.
        core.unwatch();
        core.leftover = self.stream.give_back(&self.inherited, unread);
        core.returned = true;
    }

    /// Why the stream can't be moved out, if so.
    pub fn release_error(&self, core: &mut Core) -> Option<Error> {
        if core.taken {
            return Some(taken());
        }
        let owes = core.unsent() > 0 || (core.write_shut && core.has_output());
        match core.ending {
            Ending::Cleaned => None,
            Ending::Closed => Some(not_open().with_io_kind(io::ErrorKind::BrokenPipe)),
            _ if owes && core.connection.failure().is_none() => {
                Some(Error::would_block("accepted data or our close_notify is not sent yet"))
            }
            Ending::Closing => Some(not_open().with_io_kind(io::ErrorKind::BrokenPipe)),
            Ending::Cleaning => {
                let error = Error::new(ErrorKind::NotOpen, "the clean close has not come to its end");
                Some(error.with_io_kind(io::ErrorKind::BrokenPipe))
            }
            Ending::Not => None,
        }
    }

    /// Nobody can use the file any more: says close_notify, as far as that goes without waiting.
    pub fn last_handle_gone(self: &Arc<Self>) {
        let _call = InCall::begin();
        if self.leave_to_backend() {
            return;
        }
        let over = matches!(self.lock().ending, Ending::Closed | Ending::Cleaned);
        if self.can_try() || over {
            return self.bid_farewell(Wait::No);
        }
        // This stream can only be written to by waiting for it, and a drop must not wait: another thread does, and gets
        // a moment to do it in.
        let (done, finished) = mpsc::channel();
        let shared = self.clone();
        let thread = thread::Builder::new().name("sslfile-drop".to_string()).spawn(move || {
            shared.bid_farewell(Wait::Until(None));
            drop(shared);
            let _ = done.send(());
        });
        if thread.is_ok() {
            let _ = finished.recv_timeout(DROP_WAIT);
        }
    }

    pub fn bid_farewell(&self, wait: Wait) {
        let _call = InCall::begin();
        let mut core = self.lock();
        if core.returned {
            return;
        }
        if core.ending != Ending::Closed {
            core.ending = Ending::Closing;
            core.write_shut = true;
            let mut call = core.call(Caller::Wrapper(wait), None);
            call.closing = true;
            if core.writing.try_take() {
                core = self.send_output(core, &call, wait).0;
                core.writing.release(&self.can_write);
            }
        }
        // Shut for reading, a socket does not tell the peer of the room that reading makes: a peer that still sends would wait
        // for it a minute. What is unread ends the connection for it too.
        let may_read_away = wait == Wait::No && self.polled && !core.stream_ended;
        drop(core);
        if may_read_away {
            let mut away = Buffer::for_receiving();
            for _ in 0..DROP_READS {
                let room = away.space(DROP_READ);
                // What does not fill the room was all there was.
                if !self.stream.recv(room, Wait::No).is_ok_and(|n| n == room.len()) {
                    break;
                }
            }
        }
        self.stream.abandon();
    }
}
