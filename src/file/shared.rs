//! What all handles of one file share: the connection behind a short lock, the stream beside it, and the moves of bytes
//! between the two.
//!
//! The lock is held for memory work only. Who wants to use the stream takes the turn of that direction under the lock,
//! drops the lock, does the I/O, takes the lock again and gives up the turn. So ciphertext leaves in the order in which
//! it was made, and arrives in the order in which it came.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex, MutexGuard};

use super::guarded::{Call, Caller, Core, Ending, Guard};
use crate::callbacks::Slots;
use crate::connection::Connection;
use crate::context::Context;
use crate::engine::{Buffer, LARGE};
use crate::error::{Error, ErrorKind};
use crate::stream::{after, spin, Inherited, Sleeper, Transport, Wait};

/// The default of `SslOptions::handshake_timeout`.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(30);
/// Plaintext that is encrypted before it is sent: a few records for each system call.
const CHUNK: usize = 64 * 1024;

pub(crate) struct Shared<S, F> {
    pub stream: S,
    /// `None` for a file without TLS.
    pub context: Option<Context>,
    pub inherited: Inherited,
    /// The peer's name, for errors. Asked for at the beginning: a stream that was reset does not know it any more.
    pub peer: String,
    /// Those that users have. A backend has an `Arc` of its own, which does not count.
    pub handles: AtomicUsize,
    /// The stream has descriptors to poll: time-outs, switching, interrupting.
    pub polled: bool,
    /// The stream is none of ours to poll, but gives `WouldBlock` by itself.
    pub never_blocks: bool,
    pub send_limit: usize,
    /// As it was set, if it was.
    pub handshake_timeout: Option<Option<Duration>>,
    /// How long a call tries to receive before it sleeps.
    pub busy_poll: Duration,
    /// The stream has been told that it may be blocked in.
    pub bounded: AtomicBool,
    pub core: Mutex<Core>,
    /// What to call. Locked inside the core's lock, or alone; never while a callback is called or dropped.
    pub slots: Mutex<Slots<F>>,
    /// Something came, or the reading turn is free, or the state has changed.
    pub can_read: Condvar,
    /// The writing turn is free, or the state has changed.
    pub can_write: Condvar,
}

impl<S: Transport, F: 'static> Shared<S, F> {
    pub fn lock(&self) -> Guard<'_> {
        Guard { inner: self.core.lock() }
    }

    /// As `lock`, for a question: nobody needs to be told of anything behind it.
    pub fn ask(&self) -> MutexGuard<'_, Core> {
        self.core.lock()
    }

    /// The stream can be used without being blocked by it.
    pub fn can_try(&self) -> bool {
        self.polled || self.never_blocks
    }

    /// Wakes whoever waits on this file, to look at its state again.
    pub fn wake_all(&self, core: &Core) {
        self.can_read.notify_all();
        self.can_write.notify_all();
        core.sleepers.iter().for_each(|s| s.wake());
        self.stream.wake();
    }

    /// Takes the handshake to its end, the sending of our part included. `Ok` also when it has failed: the connection
    /// has the error.
    pub fn shake<'a>(&'a self, mut core: Guard<'a>, call: &Call) -> io::Result<Guard<'a>> {
        while !core.settled {
            core.check(call)?;
            if core.handshake_deadline.is_none() {
                core.handshake_deadline = self.handshake_limit(&core).and_then(after);
            }
            let begun = *core.handshake_begun.get_or_insert_with(Instant::now);
            let outcome = core.connection.handshake();
            if outcome.is_ok() && core.handshake_time.is_none() {
                core.handshake_time = Some(begun.elapsed());
            }
            match outcome {
                Ok(()) if !core.has_ciphertext() || core.connection.output_is_optional() => {
                    core.settled = true;
                    self.wake_all(&core);
                }
                Ok(()) => core = self.send_now(core, call)?,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    // After sending look again: another thread may have received meanwhile.
                    core = match core.has_ciphertext() && core.writing.is_free() {
                        true => self.send_now(core, call)?,
                        false => self.wait_for_input(core, call)?,
                    };
                }
                Err(_) => core = self.end_handshake(core, call),
            }
        }
        Ok(core)
    }

    /// After a failure: names the peer in it and sends the alert if that can be done.
    fn end_handshake<'a>(&'a self, mut core: Guard<'a>, call: &Call) -> Guard<'a> {
        core.settled = true;
        self.name_peer(&mut core);
        // A stream that can't be tried gets its alert like the rest of the handshake.
        let wait = if self.can_try() { Wait::No } else { Wait::Until(None) };
        if core.has_ciphertext() && core.writing.try_take() {
            core = self.send_output(core, call, wait).0;
            core.writing.release(&self.can_write);
        }
        if self.stream.is_file() && core.writing.is_free() && !core.reading {
            core.drop_output();
            let unread = core.connection.take_input();
            self.give_stream_back(&mut core, unread);
        }
        self.wake_all(&core);
        core
    }

    /// Blocking files and those in a backend have a time-out by default; who polls by himself keeps his own time.
    fn handshake_limit(&self, core: &Core) -> Option<Duration> {
        let is_users = core.nonblocking && core.events.place.is_none();
        let default = (!is_users).then_some(HANDSHAKE_TIMEOUT);
        self.handshake_timeout.unwrap_or(default).filter(|_| self.polled)
    }

    pub fn name_peer(&self, core: &mut Core) {
        let has_error = core.connection.failure().is_some() || core.connection.read_error().is_some();
        if core.named || !has_error {
            return;
        }
        core.named = true;
        core.connection.name_peer(&self.peer);
    }

    /// Receives once, or waits while another thread does. The caller looks at the connection again.
    ///
    /// Errors: `WouldBlock`, `TimedOut`; the handshake's time-out is the connection's failure and no error here.
    pub fn wait_for_input<'a>(&'a self, mut core: Guard<'a>, call: &Call) -> io::Result<Guard<'a>> {
        let deadline = core.deadline(call);
        if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            return self.timed_out(core, call);
        }
        if call.dry {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        if core.reading {
            if !call.wait {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            let timed_out = self.sleep(&mut core, &self.can_read, deadline);
            return match (timed_out, call.nested) {
                (true, _) => self.timed_out(core, call),
                (false, true) => Err(io::ErrorKind::Interrupted.into()),
                (false, false) => Ok(core),
            };
        }
        core.reading = true;
        core.reader_waits = call.wait;
        let wait = if call.wait { Wait::Until(deadline) } else { Wait::No };
        let sleeper = core.fell_asleep(wait);
        drop(core);
        let mut buffer = Buffer::for_receiving();
        let result = self.receive(buffer.space(LARGE / 2), wait, call, sleeper.as_deref());
        let mut core = self.lock();
        core.woke_up(sleeper);
        (core.reading, core.reader_waits) = (false, false);
        self.can_read.notify_all();
        match result {
            // The system tells of a reset once only: a send may have been told.
            Ok(0) => match core.write_failure.clone().filter(|e| e.io_kind() == io::ErrorKind::ConnectionReset) {
                Some(reset) => core.connection.feed_error(reset),
                None => core.connection.feed_eof(),
            },
            Ok(n) => {
                buffer.filled(n);
                core.connection.feed_buffer(buffer);
                core.note_received();
            }
            Err(e) => match e.kind() {
                io::ErrorKind::Interrupted if call.nested => return Err(e),
                io::ErrorKind::Interrupted => {}
                io::ErrorKind::TimedOut if wait != Wait::No && self.polled && e.raw_os_error().is_none() => {
                    return self.timed_out(core, call);
                }
                _ if is_passing(&e) => {
                    // It may be long until more comes.
                    core.connection.trim();
                    return Err(e);
                }
                _ => core.connection.feed_error(stream_error("receiving", e)),
            },
        }
        Ok(core)
    }

    /// As the stream's `recv`; a call that may sleep tries for a while first, if it is to. A file inside another leaves that
    /// to the outer one.
    fn receive(&self, buf: &mut [u8], wait: Wait, call: &Call, sleeper: Option<&Sleeper>) -> io::Result<usize> {
        if let (Wait::Until(deadline), Some(sleeper)) = (wait, sleeper) {
            if !self.busy_poll.is_zero() && self.polled && !call.nested {
                let until = after(self.busy_poll).into_iter().chain(deadline).min();
                match spin(sleeper, until, || self.stream.recv(buf, Wait::No)) {
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                    result => return result,
                }
            }
        }
        if wait != Wait::No && !self.bounded.swap(true, Ordering::Relaxed) {
            self.stream.bound_receives()?;
        }
        self.stream.recv(buf, wait)
    }

    /// A reader that waits must see to what is unsent, if there is something and nobody else does: the peer may wait for that.
    pub fn must_send_meanwhile(&self, core: &Core) -> bool {
        self.polled && core.writing.is_free() && !core.reading && core.events.place.is_none()
    }

    /// As `wait_for_input`, and it ends as well when there is room for what is unsent.
    pub fn wait_and_send<'a>(&'a self, mut core: Guard<'a>, call: &Call) -> io::Result<Guard<'a>> {
        let deadline = core.deadline(call);
        core.reading = true;
        let sleeper = core.fell_asleep(Wait::Until(deadline));
        drop(core);
        let result = self.stream.wait_writable(true, deadline);
        let mut core = self.lock();
        core.woke_up(sleeper);
        core.reading = false;
        self.can_read.notify_all();
        match result {
            Ok(()) => {}
            Err(e) if e.kind() == io::ErrorKind::TimedOut => core = self.timed_out(core, call)?,
            Err(e) if call.nested => return Err(e),
            Err(_) => return Ok(core),
        }
        core = self.offer(core);
        let glance = Call { wait: false, nested: true, ..*call };
        match self.wait_for_input(core, &glance) {
            Err(e) if e.kind() == io::ErrorKind::WouldBlock || e.kind() == io::ErrorKind::Interrupted => {
                Ok(self.lock())
            }
            result => result,
        }
    }

    /// Takes the writing turn, sends all that is there, waiting as the call may, and gives up the turn.
    pub fn send_now<'a>(&'a self, core: Guard<'a>, call: &Call) -> io::Result<Guard<'a>> {
        let core = self.take_writing(core, call)?;
        let (core, result) = self.send_output(core, call, call.stream_wait());
        let core = self.give_up_writing(core, call);
        match result {
            Ok(true) => Ok(core),
            Ok(false) => Err(io::ErrorKind::WouldBlock.into()),
            Err(e) => Err(e),
        }
    }

    /// Sends all that is there, waiting as the call may, and reads meanwhile: two ends that both flush must not wait for
    /// each other. `take_in` deals with what has come.
    pub fn send_and_read<'a>(
        &'a self,
        core: Guard<'a>,
        call: &Call,
        take_in: impl Fn(&mut Connection),
    ) -> io::Result<Guard<'a>> {
        if !self.can_try() {
            return self.send_now(core, call);
        }
        let mut core = self.take_writing(core, call)?;
        let glance = Call { wait: false, nested: true, ..*call };
        let result = loop {
            let (guard, sent) = self.send_output(core, call, Wait::No);
            core = guard;
            match sent {
                Ok(false) => {}
                Ok(true) => break Ok(()),
                Err(e) => break Err(e),
            }
            let before = core.connection.received();
            core = match self.wait_for_input(core, &glance) {
                Ok(guard) => guard,
                Err(_) => self.lock(),
            };
            take_in(&mut core.connection);
            if let Err(e) = core.check(call) {
                break Err(e);
            }
            if core.connection.received() != before {
                continue;
            }
            if !call.wait {
                break Err(io::ErrorKind::WouldBlock.into());
            }
            let deadline = match call.patience {
                Some(patience) => core.progress.and_then(|at| at.checked_add(patience)),
                None => core.deadline(call),
            };
            if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                break Err(self.time_out(call).into());
            }
            // A stream that has ended can be read for ever: only room is worth waiting for.
            let or_readable = !core.reading && !core.connection.has_ended();
            let sleeper = core.fell_asleep(Wait::Until(deadline));
            drop(core);
            // Whatever it says, we look again.
            let _ = self.stream.wait_writable(or_readable, deadline);
            core = self.lock();
            core.woke_up(sleeper);
        };
        let core = self.give_up_writing(core, call);
        result.map(|()| core)
    }

    /// Sends what goes without waiting, if nobody else is sending.
    pub fn offer<'a>(&'a self, mut core: Guard<'a>) -> Guard<'a> {
        let in_vain = core.full && core.events.place.is_some();
        if in_vain || !core.has_output() || !self.can_try() || !core.writing.try_take() {
            return core;
        }
        let call = core.call(Caller::Wrapper(Wait::No), None);
        core = self.send_output(core, &call, Wait::No).0;
        core.writing.release(&self.can_write);
        core
    }

    pub fn take_writing<'a>(&'a self, mut core: Guard<'a>, call: &Call) -> io::Result<Guard<'a>> {
        if core.writing.try_take() {
            return Ok(core);
        }
        if !call.wait {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        core.writing.join();
        loop {
            let deadline = core.deadline(call);
            let timed_out = self.sleep(&mut core, &self.can_write, deadline);
            if core.writing.claim() {
                return Ok(core);
            }
            let stop = match core.check(call) {
                Err(e) => Some(e),
                Ok(()) if timed_out => Some(self.time_out(call).into()),
                Ok(()) if call.nested => Some(io::ErrorKind::Interrupted.into()),
                Ok(()) => None,
            };
            if let Some(e) = stop {
                core.writing.give_up();
                return Err(e);
            }
        }
    }

    /// Gives up the turn, after a try to send what others have left for its holder.
    pub fn give_up_writing<'a>(&'a self, mut core: Guard<'a>, call: &Call) -> Guard<'a> {
        if core.has_output() && !core.full && self.can_try() {
            core = self.send_output(core, call, Wait::No).0;
        }
        core.writing.release(&self.can_write);
        core
    }

    /// By the holder of the writing turn: sends all that is there, the queue and our end included. `Ok(false)`: the
    /// stream takes no more for now, and `wait` was `No`.
    pub fn send_output<'a>(&'a self, mut core: Guard<'a>, call: &Call, wait: Wait) -> (Guard<'a>, io::Result<bool>) {
        loop {
            if let Some(failure) = &core.write_failure {
                let failure = failure.to_io();
                return (core, Err(failure));
            }
            let loaded = !core.flight.is_empty() || self.load(&mut core);
            core.held_back = !loaded && !core.flush_owed && self.stream.holds_back();
            let step = match loaded {
                true => Step::Send,
                false if core.flush_owed => Step::Flush,
                false if core.held_back => Step::Push,
                false => return (core, Ok(true)),
            };
            let mut flush_owed = core.flush_owed;
            let is_last = core.flight_is_last;
            let wait = match wait {
                Wait::No => Wait::No,
                Wait::Until(_) => Wait::Until(core.deadline(call)),
            };
            let mut flight = std::mem::take(&mut core.flight);
            let sleeper = core.fell_asleep(wait);
            drop(core);
            let mut result = match step {
                Step::Send if is_last => self.stream.send_last(flight.as_slice(), wait),
                Step::Send => self.stream.send(flight.as_slice(), wait),
                Step::Flush => Ok(0),
                Step::Push => self.stream.push(wait).map(|()| 0),
            };
            if let (Ok(n), Step::Send | Step::Flush) = (&result, step) {
                flight.consume(*n);
                flush_owed |= *n > 0;
                if flight.is_empty() && flush_owed {
                    match self.stream.flush() {
                        Ok(()) => flush_owed = false,
                        Err(e) => result = Err(e),
                    }
                }
            }
            core = self.lock();
            core.woke_up(sleeper);
            core.flush_owed = flush_owed;
            core.flight_plain = core.flight_plain.min(flight.len());
            core.flight = flight;
            match result {
                Ok(0) if step == Step::Send => self.fail_writing(&mut core, io::ErrorKind::WriteZero.into()),
                Ok(_) => {
                    core.full = false;
                    core.note_progress();
                }
                Err(e) => match e.kind() {
                    io::ErrorKind::WouldBlock if wait == Wait::No => {
                        core.full = true;
                        return (core, Ok(false));
                    }
                    io::ErrorKind::Interrupted if call.nested => return (core, Err(e)),
                    io::ErrorKind::Interrupted => {
                        if let Err(e) = core.check(call) {
                            return (core, Err(e));
                        }
                    }
                    io::ErrorKind::TimedOut if self.polled && e.raw_os_error().is_none() => {
                        core = match self.timed_out(core, call) {
                            Ok(core) => core,
                            Err(e) => return (self.lock(), Err(e)),
                        };
                        if core.connection.failure().is_some() {
                            return (core, Ok(true));
                        }
                    }
                    _ if is_passing(&e) => return (core, Err(e)),
                    _ => self.fail_writing(&mut core, e),
                },
            }
        }
    }

    /// Puts the next ciphertext into the empty flight: the connection's output, or else from the queue, or else our
    /// end. False when nothing is left to be sent.
    fn load(&self, core: &mut Core) -> bool {
        loop {
            if core.connection.has_output() {
                core.flight = core.connection.take_output();
                core.flight_plain = std::mem::take(&mut core.encrypted);
                return true;
            }
            if core.connection.failure().is_some() && !core.queue.is_empty() {
                core.drop_output();
            }
            // Not before the handshake is out of the way: what waits behind it must not keep us from reading.
            if !core.queue.is_empty() && core.settled && core.connection.is_handshake_done() {
                let Core { queue, connection, encrypted, .. } = core;
                let chunk = &queue.as_slice()[..queue.len().min(CHUNK)];
                if let Ok(n) = connection.write(chunk) {
                    *encrypted += n;
                    queue.consume(n);
                }
                continue;
            }
            if !core.has_end_to_send() || !core.queue.is_empty() {
                return false;
            }
            // A failed connection has no more to say, and one whose handshake is not done has not yet.
            if core.connection.is_handshake_done() && core.connection.close().is_ok() && core.connection.has_output() {
                core.flight_is_last = !matches!(core.ending, Ending::Cleaning | Ending::Cleaned);
                continue;
            }
            if !matches!(core.ending, Ending::Cleaning | Ending::Cleaned) {
                core.half_closed = true;
                self.stream.half_close();
            }
            return false;
        }
    }

    /// Encrypts a chunk of `data` for the next flight. By the holder of the writing turn, when all else has been sent.
    pub fn encrypt(&self, core: &mut Core, data: &[u8]) -> io::Result<usize> {
        let n = core.connection.write(&data[..data.len().min(CHUNK)])?;
        core.encrypted += n;
        Ok(n)
    }

    fn fail_writing(&self, core: &mut Core, e: io::Error) {
        let failure = stream_error("sending", e).during(&self.peer);
        if !core.connection.is_handshake_done() {
            core.named = true;
            core.connection.fail(failure.clone());
        } else if !core.settled {
            core.handshake_cut = Some(failure.clone());
        }
        core.write_failure = Some(failure);
        core.drop_output();
        self.wake_all(core);
    }

    /// Sleeps with the lock given up; says whether the deadline passed.
    fn sleep(&self, core: &mut Guard<'_>, changed: &Condvar, deadline: Option<Instant>) -> bool {
        core.waiting += 1;
        let timed_out = match deadline {
            Some(deadline) => changed.wait_until(&mut core.inner, deadline).timed_out(),
            None => {
                changed.wait(&mut core.inner);
                false
            }
        };
        core.waiting -= 1;
        timed_out
    }

    /// A deadline has passed: the handshake's ends the connection, the call's ends the call.
    fn timed_out<'a>(&'a self, mut core: Guard<'a>, call: &Call) -> io::Result<Guard<'a>> {
        let now = Instant::now();
        let handshaking = !core.connection.is_handshake_done();
        if handshaking && core.handshake_deadline.is_some_and(|deadline| now >= deadline) {
            let limit = self.handshake_limit(&core).unwrap_or_default();
            let text = format!("the TLS handshake took longer than its time-out of {limit:?}");
            core.connection.fail(Error::new(ErrorKind::TimedOut, text));
            return Ok(core);
        }
        match call.deadline {
            _ if call.patience.is_some() => Err(self.time_out(call).into()),
            Some(deadline) if now >= deadline => Err(self.time_out(call).into()),
            _ => Ok(core),
        }
    }
}

impl<S: Transport, F: 'static> Shared<S, F> {
    /// The error of a call that has taken too long.
    pub fn time_out(&self, call: &Call) -> Error {
        let text = match call.patience.or(call.timeout) {
            Some(time) => format!("{}: the time-out of {time:?} has passed", self.peer),
            None => format!("{}: the time-out has passed", self.peer),
        };
        Error::new(ErrorKind::TimedOut, text)
    }
}

/// What is next on the way out.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Step {
    /// Ciphertext to the stream.
    Send,
    /// A stream that is buffered, on its way.
    Flush,
    /// What a stream that is a file itself has not sent yet.
    Push,
}

/// Nothing was transferred and trying again makes sense. What the system calls a time-out is the end of a connection.
fn is_passing(e: &io::Error) -> bool {
    match e.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => true,
        io::ErrorKind::TimedOut => e.raw_os_error().is_none(),
        _ => false,
    }
}

/// An error of the stream, for good.
fn stream_error(what: &str, e: io::Error) -> Error {
    let kind = match e.kind() {
        io::ErrorKind::TimedOut => io::ErrorKind::BrokenPipe,
        kind => kind,
    };
    Error::new(ErrorKind::Truncated, format!("{what}: {e}")).with_io_kind(kind).with_source(e)
}
