//! Reading and writing.

use std::io;
use std::time::Duration;

use super::alert_queue::InCall;
use super::guarded::{not_open, Call, Caller, Core, Ending, Guard};
use super::shared::Shared;
use crate::connection::Connection;
use crate::error::{Error, ErrorKind};
use crate::stream::{Transport, Wait};

impl<S: Transport, F: 'static> Shared<S, F> {
    /// Reads or peeks: `take` is asked first and whenever something has come.
    pub fn input(
        &self,
        caller: Caller,
        mut take: impl FnMut(&mut Connection) -> io::Result<usize>,
    ) -> io::Result<usize> {
        let _call = InCall::begin();
        let mut core = self.lock();
        let mut begun: Option<Call> = None;
        let (mut offered, mut has_output) = (false, false);
        loop {
            core.check_free(caller)?;
            if core.read_shut {
                return Ok(0);
            }
            if core.settled {
                let over = core.is_over();
                let taken = match core.connection.has_news() {
                    true => take(&mut core.connection),
                    false => Err(io::ErrorKind::WouldBlock.into()),
                };
                match taken {
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                    Ok(n) if n > 0 => {
                        drop(self.offer(core));
                        return Ok(n);
                    }
                    _ if over => return Err(not_open().into()),
                    Err(_) => {
                        self.name_peer(&mut core);
                        let result = take(&mut core.connection);
                        // The alert that goes with it.
                        drop(self.offer(core));
                        return result;
                    }
                    Ok(_) => return Ok(0),
                }
                // Whoever gives up the lock must look again before it waits: another thread may have received.
                has_output = core.has_output();
                if has_output && !std::mem::replace(&mut offered, true) {
                    core = self.offer(core);
                    continue;
                }
                offered = false;
            }
            if begun.is_none() {
                begun = Some(Call { reads: true, ..core.call(caller, core.read_timeout) });
            }
            let Some(call) = &begun else { continue };
            core.check(call)?;
            core = match core.settled {
                true if has_output && call.wait && self.must_send_meanwhile(&core) => self.wait_and_send(core, call)?,
                true => self.wait_for_input(core, call)?,
                false => match self.shake(core, call) {
                    Ok(core) => core,
                    Err(e) => return self.end_of_wait(e),
                },
            };
        }
    }

    /// `shutdown(Read)` wakes readers in the handshake too.
    fn end_of_wait(&self, e: io::Error) -> io::Result<usize> {
        match self.lock().read_shut {
            true => Ok(0),
            false => Err(e),
        }
    }

    /// `Ok(n)`: n bytes have been accepted, once. `WouldBlock` and `TimedOut`: none.
    pub fn write(&self, caller: Caller, data: &[u8]) -> io::Result<usize> {
        let _call = InCall::begin();
        if data.is_empty() {
            return Ok(0);
        }
        let core = self.lock();
        core.check_free(caller)?;
        let call = core.call(caller, core.write_timeout);
        let core = self.ready_to_write(core, &call)?;
        if call.wait {
            self.write_waiting(core, &call, data)
        } else {
            self.write_at_once(core, &call, data)
        }
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

    pub fn set_nonblocking(&self, nonblocking: bool) -> io::Result<()> {
        let mut core = self.lock();
        core.check_free(Caller::User)?;
        if core.nonblocking != nonblocking {
            self.needs_polling("switching between blocking and non-blocking")?;
            core.nonblocking = nonblocking;
        }
        Ok(())
    }

    pub fn set_timeout(
        &self,
        timeout: Option<Duration>,
        which: impl FnOnce(&mut Core) -> &mut Option<Duration>,
    ) -> io::Result<()> {
        let mut core = self.lock();
        core.check_free(Caller::User)?;
        match timeout {
            Some(Duration::ZERO) => return Err(Error::invalid_input("a time-out can't be zero").into()),
            Some(_) => self.needs_polling("a time-out")?,
            None => {}
        }
        *which(&mut core) = timeout;
        core.note_timeouts();
        Ok(())
    }

    fn ready_to_write<'a>(&'a self, mut core: Guard<'a>, call: &Call) -> io::Result<Guard<'a>> {
        if !core.settled && core.write_error().is_none() {
            core = self.shake(core, call)?;
        }
        match core.write_error() {
            Some(e) => Err(e.into()),
            None => Ok(core),
        }
    }

    fn write_waiting<'a>(&'a self, core: Guard<'a>, call: &Call, data: &[u8]) -> io::Result<usize> {
        let mut core = self.take_writing(core, call)?;
        let mut result = Ok(true);
        if core.has_output() {
            (core, result) = self.send_output(core, call, call.stream_wait());
        }
        let mut accepted = 0;
        while matches!(result, Ok(true)) && accepted < data.len() {
            if let Some(e) = core.write_error() {
                result = Err(e.into());
                break;
            }
            match self.encrypt(&mut core, &data[accepted..]) {
                Ok(n) => accepted += n,
                Err(e) => {
                    result = Err(e);
                    break;
                }
            }
            (core, result) = self.send_output(core, call, call.stream_wait());
        }
        let failed = core.write_failure.is_some();
        if accepted > 0 {
            core.note_accepted();
        }
        drop(self.give_up_writing(core, call));
        match result {
            Err(e) if accepted == 0 || failed => Err(e),
            Ok(false) if accepted == 0 => Err(io::ErrorKind::WouldBlock.into()),
            _ => Ok(accepted),
        }
    }

    fn write_at_once<'a>(&'a self, mut core: Guard<'a>, call: &Call, data: &[u8]) -> io::Result<usize> {
        let mut accepted = 0;
        let mut result = Ok(true);
        if core.writing.try_take() {
            (core, result) = self.send_output(core, call, Wait::No);
            while matches!(result, Ok(true)) && accepted < data.len() && core.write_error().is_none() {
                // What the stream does not take stays with us: no more than the limit at a time.
                let next = &data[accepted..];
                match self.encrypt(&mut core, &next[..next.len().min(self.send_limit.max(1))]) {
                    Ok(n) => accepted += n,
                    Err(e) => {
                        result = Err(e);
                        break;
                    }
                }
                (core, result) = self.send_output(core, call, Wait::No);
            }
            core = self.give_up_writing(core, call);
        }
        match result {
            Err(e) if accepted == 0 || core.write_failure.is_some() => return Err(e),
            Err(_) => {
                core.note_accepted();
                return Ok(accepted);
            }
            Ok(_) => {}
        }
        if let Some(e) = core.write_error() {
            return if accepted > 0 { Ok(accepted) } else { Err(e.into()) };
        }
        // The stream is full, or another thread is sending: what still fits is queued.
        let room = self.send_limit.saturating_sub(core.unsent()).min(data.len() - accepted);
        core.queue.append(&data[accepted..accepted + room]);
        accepted += room;
        if accepted > 0 {
            core.note_accepted();
        }
        match accepted {
            0 => Err(io::ErrorKind::WouldBlock.into()),
            n => Ok(n),
        }
    }

    /// Whether a wrapper could read something that the descriptor does not tell of.
    pub fn is_ready(&self) -> bool {
        let _call = InCall::begin();
        let mut core = self.lock();
        core.settled && (core.connection.may_give_data() || core.connection.has_ended() || self.stream.is_ready())
    }

    /// Queues all of `data` or nothing, in any mode and from the first moment, and sends what goes at once.
    pub fn send(&self, data: &[u8]) -> io::Result<()> {
        let _call = InCall::begin();
        let mut core = self.lock();
        core.check_free(Caller::User)?;
        if let Some(e) = core.write_error() {
            return Err(e.into());
        }
        if data.is_empty() {
            return Ok(());
        }
        let unsent = core.unsent();
        if unsent > 0 && unsent.saturating_add(data.len()) > self.send_limit {
            return Err(Error::would_block("the send limit is reached").into());
        }
        // With nothing in front of it there is no need to queue what the stream may take at once.
        let encrypted = match core.settled && core.writing.is_free() && !core.has_output() {
            true => self.encrypt(&mut core, data).unwrap_or(0),
            false => 0,
        };
        core.queue.append(&data[encrypted..]);
        core.note_accepted();
        drop(self.push(core));
        Ok(())
    }

    /// Gets on with the handshake and with sending as far as that goes without waiting.
    pub fn push<'a>(&'a self, mut core: Guard<'a>) -> Guard<'a> {
        if !self.can_try() {
            return core;
        }
        if !core.settled {
            let call = core.call(Caller::Wrapper(Wait::No), None);
            // Errors stay with the connection; a time-out can't be.
            core = match self.shake(core, &call) {
                Ok(core) => core,
                Err(_) => self.lock(),
            };
        }
        self.offer(core)
    }

    pub fn flush(&self, caller: Caller) -> io::Result<()> {
        let _call = InCall::begin();
        let core = self.lock();
        core.check_free(caller)?;
        let call = core.call(caller, core.write_timeout);
        let core = if core.settled { core } else { self.shake(core, &call)? };
        core.check(&call)?;
        if let Some(failure) = core.connection.failure().or(core.write_failure.as_ref()) {
            return Err(failure.to_io());
        }
        if core.has_output() {
            drop(self.send_now(core, &call)?);
        }
        Ok(())
    }

    pub fn handshake(&self) -> io::Result<()> {
        let _call = InCall::begin();
        let core = self.lock();
        core.check_free(Caller::User)?;
        let call = core.call(Caller::User, core.read_timeout);
        let core = if core.settled { core } else { self.shake(core, &call)? };
        core.check(&call)?;
        let core = self.offer(core);
        match core.connection.failure().or(core.handshake_cut.as_ref()) {
            Some(failure) if !core.connection.is_handshake_done() || core.handshake_cut.is_some() => {
                Err(failure.to_io())
            }
            _ => Ok(()),
        }
    }

    /// Whether data can still be read, after a look, without waiting, for the peer's end.
    pub fn is_open(&self) -> bool {
        let _call = InCall::begin();
        let mut core = self.lock();
        loop {
            if core.read_shut || core.ending == Ending::Closed {
                return false;
            }
            if core.connection.is_to_speak_first() {
                return true;
            }
            if core.connection.read_ahead(1) {
                return !core.connection.is_read_to_end();
            }
            if core.is_over() || core.connection.failure().is_some() {
                return false;
            }
            if !self.can_try() || core.reading {
                return true;
            }
            let call = core.call(Caller::Wrapper(Wait::No), None);
            core = match self.wait_for_input(core, &call) {
                Ok(core) => core,
                Err(_) => return true,
            };
        }
    }

    pub fn interrupt(&self) {
        let mut core = self.lock();
        if core.waiting > 0 {
            core.interrupts += 1;
            self.wake_all(&core);
        }
    }

    /// Never waits. For time-outs on streams that can't have them.
    pub fn needs_polling(&self, what: &str) -> io::Result<()> {
        match self.polled {
            true => Ok(()),
            false => {
                let text = format!("{what} needs a stream with a descriptor");
                Err(Error::new(ErrorKind::Unsupported, text).into())
            }
        }
    }
}
