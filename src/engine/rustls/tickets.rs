//! Tickets of TLS 1.3 again. One that rustls has made of a server's message is good for one connection, and can't be copied;
//! but the message may come again. So a client's connection notes it as it is decrypted, and what is to be had again is given to
//! rustls as a record that our decrypter, in front of the library's own, knows for what it is.

use std::cell::Cell;
use std::time::{Duration, Instant};

use rustls::crypto::cipher::{InboundOpaqueMessage, InboundPlainMessage, MessageDecrypter};
use rustls::{ContentType, Error};

use super::notes::note;

const HANDSHAKE: u8 = 22;
const APPLICATION_DATA: u8 = 23;
const NEW_SESSION_TICKET: u8 = 4;
/// RFC 8446, section 4.6.1.
const LONGEST_LIFE: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// A message that brings a ticket (RFC 8446, section 4.6.1).
pub(super) struct Ticket {
    message: Vec<u8>,
    until: Instant,
}

impl Ticket {
    /// The last of a record that holds such messages, and nothing else and no parts.
    fn last(mut messages: &[u8]) -> Option<Ticket> {
        loop {
            let [NEW_SESSION_TICKET, high, middle, low, body @ ..] = messages else { return None };
            let length = u32::from_be_bytes([0, *high, *middle, *low]) as usize;
            let (body, next) = body.split_at_checked(length)?;
            if next.is_empty() {
                let life = Duration::from_secs(u32::from_be_bytes(*body.first_chunk()?).into());
                return Some(Ticket { message: messages.to_vec(), until: Instant::now() + life.min(LONGEST_LIFE) });
            }
            messages = next;
        }
    }

    pub fn has_expired(&self) -> bool {
        Instant::now() >= self.until
    }

    /// For rustls to meet in [`again`].
    pub fn record(&self) -> Vec<u8> {
        let length = (self.message.len() + 1) as u16;
        let mut record = vec![APPLICATION_DATA, 3, 3];
        record.extend(length.to_be_bytes());
        record.extend(&self.message);
        record.push(HANDSHAKE);
        record
    }
}

thread_local! {
    static AGAIN: Cell<bool> = const { Cell::new(false) };
}

/// Calls with what [`Ticket::record`] gave as all of the input.
pub(super) fn again<T>(call: impl FnOnce() -> T) -> T {
    struct End;
    impl Drop for End {
        fn drop(&mut self) {
            AGAIN.set(false);
        }
    }
    AGAIN.set(true);
    let _end = End;
    call()
}

#[cold]
fn note_ticket(messages: &[u8]) {
    if let Some(ticket) = Ticket::last(messages) {
        note(|notes| notes.ticket = Some(ticket));
    }
}

/// The library's own, in front of which what it decrypts is looked at.
pub(super) struct Decrypter {
    inner: Box<dyn MessageDecrypter>,
    /// How many of the records that rustls has counted were not the peer's.
    again: u64,
}

impl Decrypter {
    pub fn new(inner: Box<dyn MessageDecrypter>) -> Decrypter {
        Decrypter { inner, again: 0 }
    }
}

impl MessageDecrypter for Decrypter {
    fn decrypt<'a>(&mut self, record: InboundOpaqueMessage<'a>, seq: u64) -> Result<InboundPlainMessage<'a>, Error> {
        if AGAIN.get() {
            self.again += 1;
            return record.into_tls13_unpadded_message();
        }
        let plain = self.inner.decrypt(record, seq.wrapping_sub(self.again));
        if let Ok(InboundPlainMessage { typ: ContentType::Handshake, payload, .. }) = &plain {
            note_ticket(payload);
        }
        plain
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A lifetime, and the ticket itself or what there is of it.
    fn message(seconds: u32, ticket: &[u8]) -> Vec<u8> {
        let body = [&seconds.to_be_bytes()[..], ticket].concat();
        [&[NEW_SESSION_TICKET], &(body.len() as u32).to_be_bytes()[1..], &body].concat()
    }

    #[test]
    fn the_last_ticket_of_a_record_is_noted_and_nothing_but_tickets() {
        let (first, last) = (message(10, b"first"), message(3600, b"last"));
        let both = [&first[..], &last].concat();
        let noted = Ticket::last(&both).expect("a ticket");
        assert_eq!(noted.message, last);
        assert!(!noted.has_expired());
        assert_eq!(noted.record(), [&[23, 3, 3, 0, last.len() as u8 + 1], &last[..], &[22]].concat());
        assert!(Ticket::last(&message(0, b"at once")).expect("a ticket").has_expired());
        // Parts, and what is no ticket or too short to be one.
        for cut in (0..both.len()).filter(|cut| *cut != first.len()) {
            assert!(Ticket::last(&both[..cut]).is_none(), "{cut}");
        }
        let key_update = [24, 0, 0, 1, 0];
        for other in [&key_update[..], &[&first[..], &key_update].concat(), &[NEW_SESSION_TICKET, 0, 0, 3, 0, 0, 9]] {
            assert!(Ticket::last(other).is_none(), "{other:?}");
        }
    }
}
