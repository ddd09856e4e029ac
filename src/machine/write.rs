//! The calls that write.
//!
//! What one call writes is in one piece at the peer. So a write that takes several sends has the turn meanwhile: what others
//! write and send goes into the queue behind it, whole, as far as the send limit allows; what does not fit waits for its own
//! turn, in the order of asking.

use super::call::{Call, Patience, Step, Waits};
use super::outcome::taken;
use super::send::Ticket;
use super::{Clock, Kind, Machine, Manner};
use crate::error::Error;

/// How far a call that writes has come.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    pub ticket: Option<Ticket>,
    /// Bytes of its data that have been encrypted.
    pub done: usize,
    /// All its data is with the stream; it stays for what others have left in the queue behind it.
    stays: bool,
    /// The queue as it was when it asked: how much must have been loaded before it is through.
    queued_until: Option<i64>,
    /// The count of drains when that was so.
    drained_at: Option<u64>,
}

impl Machine {
    /// `Ok(n)`: n bytes have been accepted, once. `WouldBlock` and `TimedOut`: none.
    pub fn poll_write(&mut self, call: &mut Call, data: &[u8], clock: &impl Clock) -> Step<usize> {
        if !self.is_calm() || self.outcome.send_failure.is_some() {
            if self.is_lent() && !call.wraps {
                return self.done(call, Err(taken()));
            }
            self.look_for(call, clock);
            if let Some(error) = self.write_error() {
                let failed = self.outcome.send_failure.is_some();
                let result = if call.write.done > 0 && !failed { Ok(call.write.done) } else { Err(error) };
                return self.done(call, result);
            }
            if !self.settled() {
                let waits = self.waits_to_settle();
                return self.wait(call, waits, clock);
            }
        }
        if call.write.stays {
            return self.poll_rest(call, data.len(), clock);
        }
        if call.write.ticket.is_none_or(|ticket| self.send.current != Some(ticket)) {
            if let Some(step) = self.ask_for_turn(call, data, clock) {
                return step;
            }
        }
        if self.send.ahead == 0 && self.is_drained() {
            if call.write.done < data.len() {
                // What the stream does not take stays with us: no more than the limit at a time, where nobody waits for it.
                let most = match call.patience {
                    Patience::Never => self.send.limit.max(1),
                    Patience::Until(_) => usize::MAX,
                };
                let rest = &data[call.write.done..];
                if !(call.patience == Patience::Never && self.send.full) {
                    match self.encrypt(&rest[..rest.len().min(most)]) {
                        Ok(n) => {
                            call.write.done += n;
                            self.note_accepted(clock);
                        }
                        Err(_) if self.tls.refuses_writes() => {}
                        Err(_) if call.write.done > 0 => return self.done(call, Ok(call.write.done)),
                        Err(error) => return self.done(call, Err(error)),
                    }
                }
            } else {
                return self.end_write(call, data.len(), clock);
            }
        }
        if call.patience == Patience::Never && (call.exhausted || self.send.full || self.send.lent) {
            return self.queue_rest(call, data, clock);
        }
        let waits = self.waits_to_send(call);
        self.wait_accepted(call, waits, clock)
    }

    /// As `wait`; a call that has to end has accepted what it has accepted.
    fn wait_accepted(&mut self, call: &mut Call, waits: Waits, clock: &impl Clock) -> Step<usize> {
        match self.wait(call, waits, clock) {
            Step::Done(Err(_)) | Step::WouldBlock if call.write.done > 0 => Step::Done(Ok(call.write.done)),
            step => step,
        }
    }

    /// `None`: it is this call's turn.
    fn ask_for_turn(&mut self, call: &mut Call, data: &[u8], clock: &impl Clock) -> Option<Step<usize>> {
        let ticket = match call.write.ticket {
            Some(ticket) if self.send.is_turn_of(ticket) => ticket,
            Some(ticket) => {
                let waits = Waits { turn: Some(ticket), ..self.waits_of_writers() };
                return Some(self.wait(call, waits, clock));
            }
            None if self.send.is_turn_free() => self.send.draw_ticket(),
            None => {
                let room = self.send.limit.saturating_sub(self.unsent());
                let n = match call.patience {
                    Patience::Never => room.min(data.len()),
                    Patience::Until(_) if data.len() <= room => data.len(),
                    Patience::Until(_) => 0,
                };
                if n > 0 {
                    self.send.queue.append(&data[..n]);
                    self.note_accepted(clock);
                    return Some(self.done(call, Ok(n)));
                }
                if call.patience == Patience::Never {
                    return Some(self.would_block(call));
                }
                let ticket = self.send.draw_ticket();
                self.send.tickets.push(ticket);
                call.write.ticket = Some(ticket);
                let waits = Waits { turn: Some(ticket), ..self.waits_of_writers() };
                return Some(self.wait(call, waits, clock));
            }
        };
        call.write.ticket = Some(ticket);
        self.send.begin_turn(ticket);
        None
    }

    /// The stream is full, or another thread is sending: what still fits is queued.
    fn queue_rest(&mut self, call: &mut Call, data: &[u8], clock: &impl Clock) -> Step<usize> {
        let rest = &data[call.write.done..];
        let room = self.send.limit.saturating_sub(self.unsent()).min(rest.len());
        self.send.queue_at_hand(&rest[..room]);
        call.write.done += room;
        if room > 0 {
            self.note_accepted(clock);
        }
        match call.write.done {
            0 => self.would_block(call),
            n => self.done(call, Ok(n)),
        }
    }

    /// All of it is with the stream. What others have queued behind it, as they must not wait, is its affair too: nobody else
    /// may come by to send it.
    fn end_write(&mut self, call: &mut Call, n: usize, clock: &impl Clock) -> Step<usize> {
        if let Some(ticket) = call.write.ticket.take() {
            self.send.leave(ticket);
        }
        let stays = !self.send.queue.is_empty() && call.patience != Patience::Never && !self.driven;
        if !stays {
            return self.done(call, Ok(n));
        }
        call.write.stays = true;
        self.poll_rest(call, n, clock)
    }

    fn poll_rest(&mut self, call: &mut Call, n: usize, clock: &impl Clock) -> Step<usize> {
        if self.has_been_drained(call) {
            return self.done(call, Ok(n));
        }
        let waits = self.waits_to_send(call);
        self.wait_accepted(call, waits, clock)
    }

    /// All that was queued when the call first asked this has been handed to the stream.
    fn has_been_drained(&mut self, call: &mut Call) -> bool {
        let until = *call.write.queued_until.get_or_insert(self.send.queued_until());
        if self.is_drained() && self.send.queue.is_empty() && !self.has_output() {
            return true;
        }
        if self.send.loaded < until {
            return false;
        }
        let at = *call.write.drained_at.get_or_insert(self.send.drained);
        self.send.drained > at
    }

    /// Waits until all is handed to the stream, the close_notify of a `shutdown(Write)` and what others have queued included.
    pub(super) fn poll_flush(&mut self, call: &mut Call, clock: &impl Clock) -> Step<()> {
        if self.is_lent() && !call.wraps {
            return self.done(call, Err(taken()));
        }
        self.look_for(call, clock);
        if let Some(error) = self.flush_error() {
            return self.done(call, Err(error));
        }
        if !self.settled() {
            let waits = self.waits_to_settle();
            return self.wait(call, waits, clock);
        }
        if self.has_been_drained(call) && !self.has_end_to_say() {
            return self.done(call, Ok(()));
        }
        let waits = self.waits_to_send(call);
        self.wait(call, waits, clock)
    }

    pub(super) fn flush_error(&self) -> Option<Error> {
        match self.is_over() {
            true => Some(super::not_open()),
            false => self.tls.failure().or(self.outcome.send_failure.as_ref()).cloned(),
        }
    }

    /// Those that wait for room read ahead meanwhile, if nobody reads: the peer may wait for that. And they send what nobody else
    /// does.
    pub(super) fn waits_of_writers(&self) -> Waits {
        let needs_input = self.tls.refuses_writes();
        let may_receive = needs_input || (self.manner != Manner::Blocks && !self.receive.shut);
        Waits {
            readable: may_receive && self.receive.readers == 0 && self.admits(self.limit_of_writers()),
            input: needs_input,
            writable: self.lacks_sender(),
            may_receive,
            may_send: true,
            ..Waits::default()
        }
    }

    pub(super) fn waits_to_send(&self, call: &Call) -> Waits {
        let is_reading_ahead =
            call.patience != Patience::Never || call.kind == Kind::Close || self.tls.refuses_writes();
        let waits =
            if is_reading_ahead { self.waits_of_writers() } else { Waits { may_send: true, ..Waits::default() } };
        Waits {
            writable: self.send.is_free() && self.has_output(),
            send_lease: !self.send.is_free(),
            drained: true,
            ..waits
        }
    }

    /// What the handshake waits for.
    pub(super) fn waits_to_settle(&self) -> Waits {
        Waits {
            readable: self.admits(self.limit()),
            writable: self.send.is_free() && self.has_output(),
            input: true,
            drained: true,
            receive_lease: !self.receive.is_free(),
            send_lease: !self.send.is_free(),
            may_send: true,
            ..Waits::default()
        }
    }
}
