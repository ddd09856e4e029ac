//! What a peer may cost that sends no data: records that bring none, and the answers that TLS makes to them by itself (key
//! updates, refused renegotiations). Beyond that the connection fails, with an alert.

use super::{CloseNotify, Connection, Stop};
use crate::alert::alert_name;
use crate::engine::Wire;
use crate::error::{Error, ErrorKind};
use crate::role::Role;
use crate::version::Version;

/// Records in a row without data.
const RECORDS: u8 = 32;
/// Session tickets in a row.
const TICKETS: u8 = u8::MAX;
/// Bytes of answers that have not been handed on.
const ANSWERS: usize = 4 * 1024;

/// What the peer has cost.
#[derive(Default)]
pub(super) struct Spent {
    /// Since the last data: records that may have been tickets, and others.
    tickets: u8,
    barren: u8,
    /// Bytes of answers in the output, and where in all output the last one ends.
    answers: usize,
    answers_end: u64,
    /// The last answer refused a renegotiation.
    refused: bool,
    /// Bytes of answers in output that has been taken and may not have been sent.
    taken: usize,
    /// An old rule: nothing is counted.
    #[cfg(test)]
    uncounted: bool,
}

/// A record without data.
struct Barren {
    may_be_ticket: bool,
    /// Bytes of the answer to it.
    answer: usize,
}

impl Spent {
    #[inline]
    pub fn on_data(&mut self) {
        (self.tickets, self.barren, self.refused) = (0, 0, false);
    }

    /// Output has been consumed.
    #[inline]
    pub fn handed_on(&mut self, wire: &Wire) {
        if self.answers > 0 && wire.bytes_sent() - wire.outgoing.len() as u64 >= self.answers_end {
            self.answers = 0;
        }
    }

    /// Output has been taken.
    #[inline]
    pub fn taken(&mut self) {
        self.taken += std::mem::take(&mut self.answers);
    }

    /// What was taken has been sent.
    pub fn sent(&mut self) {
        self.taken = 0;
    }

    fn owed(&self) -> usize {
        self.answers + self.taken
    }

    /// Why the record is one too many, if it is.
    fn add(&mut self, record: &Barren, wire: &Wire) -> Option<String> {
        #[cfg(test)]
        if self.uncounted {
            return None;
        }
        let (count, most) = match record.may_be_ticket {
            true => (&mut self.tickets, TICKETS),
            false => (&mut self.barren, RECORDS),
        };
        if *count == most {
            return Some(format!("the peer sent more than {most} records in a row without data"));
        }
        *count += 1;
        if record.answer > 0 {
            let owed = self.owed();
            self.answers += record.answer;
            self.answers_end = wire.bytes_sent();
            // One answer alone may be longer, as that to a renegotiation is, with a client's certificates in it.
            if owed > 0 && self.owed() > ANSWERS {
                return Some(format!(
                    "the peer asks for answers and does not take them: {} bytes are unsent",
                    self.owed()
                ));
            }
        }
        None
    }
}

/// RFC 5246, section 7.2.2
const NO_RENEGOTIATION: u8 = 100;

impl Connection {
    /// Bytes of answers that TLS made by itself (to key updates, to renegotiations it refuses) and that have not been sent:
    /// those in the output, and in output taken before the last [`answers_sent`](Connection::answers_sent).
    #[cfg(any(test, debug_assertions))]
    pub(crate) fn answers(&self) -> usize {
        self.spent.owed()
    }

    /// All output that was taken has been handed to the stream.
    pub(crate) fn answers_sent(&mut self) {
        self.spent.sent();
    }

    /// The old rule, of which `machine::world` tells.
    #[cfg(test)]
    pub(crate) fn set_old_rule_e(&mut self, is_on: bool) {
        self.spent.uncounted = is_on;
    }

    /// A record has brought no data. `unseen` and `sent` are from before it.
    #[cold]
    pub(super) fn account(&mut self, unseen: usize, sent: u64) {
        let length = unseen - self.wire.unseen();
        let answer = (self.wire.bytes_sent() - sent) as usize;
        if answer > 0 {
            self.spent.refused = self.wire.was_handshake() && self.wire.sends_alert(answer);
            if self.spent.refused {
                self.note_alert(NO_RENEGOTIATION, true);
            }
        }
        let record = Barren { may_be_ticket: answer == 0 && self.may_be_ticket(length), answer };
        if let Some(why) = self.spent.add(&record, &self.wire) {
            let error = self.with_alert(Error::new(ErrorKind::Protocol, why));
            self.fail(self.explain(error.during("reading")));
        }
    }

    /// Whether a record of this length, header included, that brought no data and had no answer can have been a session
    /// ticket of TLS 1.3, or part of one. Not every library tells. A server sends some at once, so that there may be more of
    /// them than of others, which are shorter; a peer that pads those to pass for tickets gains little.
    fn may_be_ticket(&self, length: usize) -> bool {
        // Header, message with a nonce and a ticket of one byte each (RFC 8446, section 4.6.1), type, the shortest tag.
        const SHORTEST: usize = 5 + (4 + 4 + 4 + 2 + 3 + 2) + 1 + 8;
        let is_tls13 = self.session.version().is_none_or(|version| version == Version::Tls1_3);
        self.role == Role::Client && is_tls13 && self.wire.was_application_data() && length >= SHORTEST
    }

    /// The same end, with what the peer had wanted: who is refused a renegotiation often ends the connection, and its alert,
    /// `handshake_failure` say, does not tell why.
    pub(super) fn explain(&self, error: Error) -> Error {
        match self.spent.refused {
            true => error.adding("; it had asked to renegotiate, which is refused (no_renegotiation)"),
            false => error,
        }
    }

    /// The library has failed. `sent` is from before.
    #[cold]
    pub(super) fn fail_reading(&mut self, error: Error, sent: u64) {
        // Some of its limits end a session without a word.
        let owes_alert = self.wire.bytes_sent() == sent && !matches!(error.kind(), ErrorKind::PeerAlert(_));
        let error = match owes_alert {
            true => self.with_alert(error),
            false => error,
        };
        self.fail(self.explain(error.during("reading")));
    }

    /// Puts the fatal alert for this error on the wire, if none has gone and our close_notify has not; says which it was.
    fn with_alert(&mut self, error: Error) -> Error {
        if self.close == CloseNotify::Queued {
            return error;
        }
        let sent = self.wire.bytes_sent();
        let session = &mut self.session;
        let alert = match self.wire.with_forged_record(|wire| session.read(wire, &mut [0; 256])) {
            Err(Stop::Failed(refusal)) if self.wire.bytes_sent() > sent => refusal.alert(),
            _ => None,
        };
        match (alert, error.kind()) {
            (Some((alert, true)), ErrorKind::Protocol | ErrorKind::LocalAlert(_)) => {
                let text = format!("{error}; ended with the alert {} ({alert})", alert_name(alert));
                Error::new(ErrorKind::LocalAlert(alert), text).with_source(error)
            }
            _ => error,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_count_until_they_are_sent() {
        let (mut spent, mut wire) = (Spent::default(), Wire::default());
        let answer = |spent: &mut Spent, wire: &mut Wire| {
            wire.send(&[0; 100]);
            spent.add(&Barren { may_be_ticket: false, answer: 100 }, wire)
        };
        assert_eq!((answer(&mut spent, &mut wire), spent.owed()), (None, 100));
        // Consumed in pieces.
        for (left, owed) in [(60, 100), (1, 100), (0, 0)] {
            let goes = wire.outgoing.len() - left;
            wire.outgoing.consume(goes);
            spent.handed_on(&wire);
            assert_eq!(spent.owed(), owed, "{left}");
        }
        // Taken twice, and then sent, with another answer made meanwhile.
        for owed in [100, 200] {
            assert_eq!(answer(&mut spent, &mut wire), None);
            wire.outgoing.clear();
            spent.taken();
            assert_eq!(spent.owed(), owed);
        }
        assert_eq!((answer(&mut spent, &mut wire), spent.owed()), (None, 300));
        spent.sent();
        assert_eq!(spent.owed(), 100);
        // Never sent.
        spent.taken();
        let mut answers = 1;
        while answer(&mut spent, &mut wire).is_none() {
            answers += 1;
            spent.taken();
            spent.on_data();
        }
        assert_eq!(answers, ANSWERS / 100);
    }

    #[test]
    fn one_answer_alone_may_be_long() {
        let (mut spent, wire) = (Spent::default(), Wire::default());
        let record = Barren { may_be_ticket: false, answer: 2 * ANSWERS };
        assert_eq!(spent.add(&record, &wire), None);
        assert!(spent.add(&record, &wire).is_some());
    }
}
