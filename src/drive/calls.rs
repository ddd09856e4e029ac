//! The calls of users.

use std::io;
use std::net::Shutdown;
use std::time::{Duration, Instant};

use super::alert_queue::InCall;
use super::perform::Briefly;
use super::thread::Calmly;
use super::{Core, Locked, Real, Shared};
use crate::connection::Connection;
use crate::error::{Error, ErrorKind};
use crate::machine::{not_open, taken, Deadlines, Interest, Kind, Machine, Tries};
use crate::stream::Transport;

/// Of the kinds that a time-out may be told as: whether it is `WouldBlock`.
pub(crate) fn tells_would_block(kind: io::ErrorKind) -> io::Result<bool> {
    match kind {
        io::ErrorKind::TimedOut => Ok(false),
        io::ErrorKind::WouldBlock => Ok(true),
        _ => Err(Error::invalid_input(format!("a time-out is told as TimedOut or WouldBlock, not as {kind:?}")).into()),
    }
}

/// Who asks.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Caller {
    User,
    /// A file that wraps this one, which does the waiting.
    Wrapper,
    /// The same, and a receive may last a little.
    Briefly,
}

impl<S: Transport, F> Shared<S, F> {
    /// Reads or peeks: `take` says how much it got.
    #[inline]
    pub fn read(
        &self,
        caller: Caller,
        mut take: impl FnMut(&mut Connection) -> io::Result<usize>,
    ) -> io::Result<usize> {
        let _call = InCall::begin();
        let mut locked = self.lock();
        // As things are now: what others set meanwhile is for calls that begin later.
        let (timeout, interrupts) = (locked.machine.read_timeout(), locked.machine.interrupts());
        let mut dry = false;
        if caller == Caller::User && locked.machine.is_quiet() {
            let mut has_news = locked.machine.tls.may_have_news();
            loop {
                if has_news {
                    let n = locked.machine.read_calmly(|connection| take(connection).unwrap_or(0));
                    if n > 0 {
                        // What TLS has to answer.
                        if locked.machine.tls.has_output() {
                            locked.offer();
                        }
                        return Ok(n);
                    }
                }
                match locked.receive_calmly() {
                    Calmly::Some if locked.machine.interrupts() == interrupts => has_news = true,
                    performed => {
                        dry = performed == Calmly::Dry;
                        break;
                    }
                }
            }
        }
        let call = locked.machine.begin(Kind::Read, caller != Caller::User, timeout, &Real).since(interrupts);
        locked.drive(call, caller == Caller::Briefly, dry, |machine, call| {
            machine.poll_read(call, |connection| take(connection).unwrap_or(0), &Real)
        })
    }

    /// `Ok(n)`: n bytes have been accepted, once. `WouldBlock` and `TimedOut`: none.
    #[inline]
    pub fn write(&self, caller: Caller, data: &[u8]) -> io::Result<usize> {
        let _call = InCall::begin();
        if data.is_empty() {
            return Ok(0);
        }
        let mut locked = self.lock();
        let timeout = locked.machine.write_timeout();
        let mut call = locked.machine.begin(Kind::Write, caller != Caller::User, timeout, &Real);
        if caller == Caller::User && locked.write_calmly(&mut call, data) {
            return Ok(data.len());
        }
        locked.drive(call, false, false, |machine, call| machine.poll_write(call, data, &Real))
    }

    /// Joins small pieces, so that they share a record.
    pub fn write_vectored(&self, bufs: &[io::IoSlice<'_>]) -> io::Result<usize> {
        const RECORD: usize = 16 * 1024;
        let mut filled = bufs.iter().filter(|buf| !buf.is_empty());
        match (filled.next(), filled.next()) {
            (None, _) => Ok(0),
            (Some(only), None) => self.write(Caller::User, only),
            (Some(first), Some(_)) if first.len() >= RECORD => self.write(Caller::User, first),
            _ => {
                let mut joined = Vec::with_capacity(RECORD);
                for buf in bufs {
                    let room = RECORD - joined.len();
                    joined.extend_from_slice(&buf[..buf.len().min(room)]);
                }
                self.write(Caller::User, &joined)
            }
        }
    }

    /// Queues all of `data` or nothing, in any mode and from the first moment, and sends what goes at once.
    pub fn send(&self, data: &[u8]) -> io::Result<()> {
        let _call = InCall::begin();
        let mut locked = self.lock();
        if locked.place.is_none() {
            locked.machine.room();
        }
        let queued = locked.machine.queue(data, &Real);
        if locked.machine.can_try() {
            locked.offer();
        }
        queued.map_err(|error| self.told(error))
    }

    #[inline]
    pub fn flush(&self, caller: Caller) -> io::Result<()> {
        // Nobody needs to be told of anything behind that.
        if caller == Caller::User && self.ask().machine.is_quiet() && !self.holds_back() {
            return Ok(());
        }
        self.call(Kind::Flush, caller, |locked| {
            if self.holds_back() {
                locked.machine.owe_push();
            }
            locked.machine.write_timeout()
        })
    }

    pub fn handshake(&self) -> io::Result<()> {
        self.call(Kind::Handshake, Caller::User, |locked| locked.machine.read_timeout())
    }

    fn call(
        &self,
        kind: Kind,
        caller: Caller,
        timeout: impl FnOnce(&mut Locked<'_, S, F>) -> Option<Duration>,
    ) -> io::Result<()> {
        let _call = InCall::begin();
        let mut locked = self.lock();
        let timeout = timeout(&mut locked);
        let call = locked.machine.begin(kind, caller != Caller::User, timeout, &Real);
        locked.drive(call, false, false, |machine, call| machine.poll(call, &Real))
    }

    /// Whether data can still be read, after a look, without waiting, for the peer's end.
    pub fn is_open(&self) -> bool {
        let _call = InCall::begin();
        let mut locked = self.lock();
        if locked.machine.wants_look() {
            let tries = Tries { receive: true, send: true, offer: true };
            if let Some(job) = locked.machine.job(tries) {
                locked.perform(job, Briefly::No);
            }
            locked.offer();
        }
        locked.machine.is_open()
    }

    /// Never waits.
    pub fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        let _call = InCall::begin();
        let mut locked = self.lock();
        locked.check_free()?;
        if locked.machine.is_over() {
            return Err(not_open().into());
        }
        locked.shut(how != Shutdown::Read, how != Shutdown::Write);
        Ok(())
    }

    /// Ends directions, whoever uses the file.
    pub fn shut(&self, write: bool, read: bool) {
        self.lock().shut(write, read);
    }

    pub fn close(&self) -> io::Result<()> {
        let _call = InCall::begin();
        let mut locked = self.lock();
        if locked.machine.nonblocking && locked.place.is_some() && !locked.machine.is_lent() {
            // What goes without waiting goes now; the backend goes on with it.
            locked.machine.begin_close_in_backend(&Real);
            locked.offer();
            return Ok(());
        }
        drop(locked);
        self.call(Kind::Close, Caller::User, |_| None)
    }

    pub fn close_clean(&self) -> io::Result<()> {
        let _call = InCall::begin();
        let mut locked = self.lock();
        locked.check_free()?;
        if locked.machine.nonblocking && locked.place.is_some() && !locked.machine.is_done() {
            if locked.machine.is_over() {
                return Err(not_open().into());
            }
            locked.machine.begin_clean(&Real);
            locked.offer();
            return Ok(());
        }
        drop(locked);
        self.call(Kind::CloseClean, Caller::User, |locked| locked.machine.read_timeout())
    }

    pub fn abort(&self) {
        let _call = InCall::begin();
        let mut locked = self.lock();
        locked.machine.abort();
        locked.offer();
    }

    pub fn interrupt(&self) {
        self.lock().machine.interrupt();
    }

    pub fn set_nonblocking(&self, nonblocking: bool) -> io::Result<()> {
        let _call = InCall::begin();
        let mut locked = self.lock();
        locked.check_free()?;
        if locked.machine.nonblocking != nonblocking {
            self.needs_polling("switching between blocking and non-blocking")?;
            locked.machine.nonblocking = nonblocking;
            // Who polls for input alone would wait for ever for a server that waits for our hello.
            if nonblocking && locked.machine.is_to_begin() {
                locked.machine.look(&Real);
                locked.offer();
            }
        }
        Ok(())
    }

    pub fn set_timeout(
        &self,
        timeout: Option<Duration>,
        set: impl FnOnce(&mut Machine, Option<Duration>),
    ) -> io::Result<()> {
        let mut locked = self.lock();
        locked.check_free()?;
        match timeout {
            Some(Duration::ZERO) => return Err(Error::invalid_input("a time-out can't be zero").into()),
            Some(_) => self.needs_polling("a time-out")?,
            None => {}
        }
        set(&mut locked.machine, timeout);
        Ok(())
    }

    pub fn set_deadline(
        &self,
        at: Option<Instant>,
        which: impl FnOnce(&mut Deadlines) -> &mut Option<Instant>,
    ) -> io::Result<()> {
        let mut locked = self.lock();
        locked.check_free()?;
        if at.is_some() {
            self.needs_polling("a deadline")?;
        }
        let mut deadlines = locked.machine.deadlines();
        *which(&mut deadlines) = at;
        locked.machine.set_deadlines(deadlines);
        Ok(())
    }

    pub fn set_timeout_kind(&self, kind: io::ErrorKind) -> io::Result<()> {
        let tells_would_block = tells_would_block(kind)?;
        let mut locked = self.lock();
        locked.check_free()?;
        locked.machine.set_tells_would_block(tells_would_block);
        Ok(())
    }

    /// Never waits. For what streams that are not polled can't have.
    pub fn needs_polling(&self, what: &str) -> io::Result<()> {
        match self.stream.is_polled() {
            true => Ok(()),
            false => {
                let text = format!("{what} needs a stream with a descriptor");
                Err(Error::new(ErrorKind::Unsupported, text).into())
            }
        }
    }

    /// What an event loop of the user's should wait for, on the stream's descriptor.
    pub fn interest(&self) -> Interest {
        let mut core = self.ask();
        let interest = core.machine.interest();
        if core.machine.is_returned() {
            return interest;
        }
        let has_something_inside = self.stream.is_ready() && core.machine.looks_at_stream();
        interest.through(self.watched(interest), has_something_inside)
    }

    /// Something can be read that no descriptor tells of.
    pub fn is_ready(&self) -> bool {
        let mut core = self.ask();
        core.machine.has_something_to_read() || (core.machine.settled() && self.stream.is_ready())
    }
}

impl<F> Core<F> {
    fn check_free(&self) -> io::Result<()> {
        match self.machine.is_lent() {
            true => Err(taken().into()),
            false => Ok(()),
        }
    }
}

impl<S: Transport, F> Locked<'_, S, F> {
    fn shut(&mut self, write: bool, read: bool) {
        self.machine.shut(write, read);
        self.push();
    }

    /// Gets on with the handshake and with sending as far as that goes without waiting. Where the stream may hold us, only our
    /// end is said, as it can't be said later.
    fn push(&mut self) {
        match (self.machine.can_try(), self.machine.settled()) {
            (true, _) => {}
            (false, true) if self.shared.stream.is_duplex() || !self.machine.is_receiving() => {
                return self.do_jobs(Tries { receive: false, send: true, offer: false }, usize::MAX)
            }
            (false, _) => return,
        }
        if !self.machine.settled() {
            let call = self.machine.begin(Kind::Handshake, true, None, &Real);
            // Errors stay with the machine.
            let _ = self.drive(call, false, false, |machine, call| machine.poll(call, &Real));
        }
        self.offer();
    }
}
