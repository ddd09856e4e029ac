//! The certificates that a server shows, read from what it says in the clear, as all are up to TLS 1.2: for a library that does not
//! tell whom it has refused.

use crate::certificate::Certificate;

const HANDSHAKE: u8 = 22;
const SERVER_HELLO: u8 = 2;
const CERTIFICATE: u8 = 11;
const HEADER: usize = 4;
/// Longer ones are not for us.
const LONGEST: usize = 128 * 1024;

#[derive(Default)]
pub(super) struct Overheard {
    /// The messages of the handshake so far, from the first one that is not whole, or that is what we wait for.
    messages: Vec<u8>,
    is_over: bool,
}

impl Overheard {
    /// Takes a record, as it is on the wire (RFC 5246, section 6.2.1).
    pub fn hear(&mut self, record: &[u8]) {
        let [HANDSHAKE, _, _, _, _, fragment @ ..] = record else {
            // What is behind it is encrypted; an alert is the end. No record at all is none.
            self.is_over |= !record.is_empty();
            return;
        };
        if self.is_over {
            return;
        }
        self.messages.extend_from_slice(fragment);
        while let Some((kind, body)) = message(&self.messages) {
            match kind {
                SERVER_HELLO => drop(self.messages.drain(..HEADER + body.len())),
                // The first after the server's hello, if it has any.
                _ => return self.is_over = true,
            }
        }
        self.is_over |= self.messages.len() > LONGEST;
    }

    /// Its own first. None if it has not come, or not to us.
    pub fn certificates(&self) -> Vec<Certificate> {
        // certificate_list (RFC 5246, section 7.4.2), in each a length of three bytes before what it is of
        let Some((CERTIFICATE, body)) = message(&self.messages) else { return Vec::new() };
        let Some((mut list, _)) = counted(body) else { return Vec::new() };
        std::iter::from_fn(|| {
            let (der, rest) = counted(list)?;
            list = rest;
            Some(Certificate::from_library(der.to_vec()))
        })
        .collect()
    }
}

/// Kind and body of a message that is there as a whole (RFC 5246, section 7.4).
fn message(bytes: &[u8]) -> Option<(u8, &[u8])> {
    let (kind, rest) = bytes.split_first()?;
    Some((*kind, counted(rest)?.0))
}

/// What a length of three bytes stands before, and what follows that.
fn counted(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<3>()?;
    let [high, middle, low] = length.map(usize::from);
    rest.split_at_checked(high << 16 | middle << 8 | low)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(kind: u8, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(body.len()).expect("short").to_be_bytes();
        [&[kind], &length[1..], body].concat()
    }

    fn record(kind: u8, fragment: &[u8]) -> Vec<u8> {
        let length = u16::try_from(fragment.len()).expect("short").to_be_bytes();
        [&[kind, 3, 3], &length[..], fragment].concat()
    }

    #[test]
    fn certificates_are_found_however_they_are_cut_into_records() {
        let list = [&[0, 0, 3][..], b"one", &[0, 0, 5], b"other"].concat();
        let certificate = whole(CERTIFICATE, &whole(0, &list)[1..]);
        let flight = [whole(SERVER_HELLO, b"hello"), certificate, whole(12, b"keys"), whole(14, b"")].concat();
        for size in 1..=flight.len() {
            let mut overheard = Overheard::default();
            flight.chunks(size).for_each(|part| overheard.hear(&record(HANDSHAKE, part)));
            overheard.hear(&record(20, &[1]));
            let found: Vec<_> = overheard.certificates().iter().map(Certificate::to_der).collect();
            assert_eq!(found, [b"one".to_vec(), b"other".to_vec()], "in pieces of {size}");
        }
    }

    #[test]
    fn nothing_is_kept_of_what_is_encrypted_or_too_long() {
        let mut overheard = Overheard::default();
        overheard.hear(&record(HANDSHAKE, &whole(SERVER_HELLO, b"hello")));
        overheard.hear(&[]);
        overheard.hear(&record(23, b"encrypted"));
        overheard.hear(&record(HANDSHAKE, &whole(CERTIFICATE, &[0; 9])));
        assert_eq!((overheard.certificates().len(), overheard.messages.len()), (0, 0));

        let mut overheard = Overheard::default();
        let endless = record(HANDSHAKE, &[CERTIFICATE; 16 * 1024]);
        (0..100).for_each(|_| overheard.hear(&endless));
        assert!(overheard.messages.len() <= LONGEST + 16 * 1024, "{}", overheard.messages.len());
    }
}
