use std::io::{self, Read, Write};
use std::ops::{Deref, DerefMut};

use super::Buffer;

/// The "socket" of a session: ciphertext that has come, ciphertext that is to go.
///
/// Reading it never gives an end of file, writing it never fails; both only move memory. It is lent to a library for one call,
/// by swapping a pointer; what the library has meanwhile takes no memory.
#[derive(Default)]
pub(crate) struct Wire(Option<Box<Ends>>);

static NOTHING: Ends = Ends::NEW;

impl Deref for Wire {
    type Target = Ends;

    #[inline]
    fn deref(&self) -> &Ends {
        self.0.as_deref().unwrap_or(&NOTHING)
    }
}

impl DerefMut for Wire {
    #[inline]
    fn deref_mut(&mut self) -> &mut Ends {
        self.0.get_or_insert_with(|| Box::new(Ends::NEW))
    }
}

impl Wire {
    /// Has `f` meet a record that was not made with any key, in place of what is next in the input. That is how every
    /// library can be brought to end a session with a fatal alert, whether it has a call for that or not.
    pub fn with_forged_record<T>(&mut self, f: impl FnOnce(&mut Wire) -> T) -> T {
        let [_, major, minor] = self.head;
        let (held, admitted, records) = (self.held, self.admitted, self.records_received);
        let input = std::mem::take(&mut self.incoming);
        self.incoming.append(&input.as_slice()[..held]);
        self.incoming.append(&[APPLICATION_DATA, major, minor, 0, FORGED as u8]);
        self.incoming.append(&[0; FORGED]);
        self.admitted = HEADER + FORGED;
        let result = f(self);
        (self.held, self.admitted, self.records_received) = (held, admitted, records);
        self.incoming = input;
        result
    }
}

/// Both ends of a wire.
pub(crate) struct Ends {
    pub incoming: Buffer,
    pub outgoing: Buffer,
    /// How much of `incoming` the library may take.
    admitted: usize,
    /// How much of `incoming` the library has seen and wants to see again, with more behind it.
    held: usize,
    /// The last alert that went out in the clear, which not every library tells us of.
    pub alert_sent: Option<u8>,
    /// What is sent from now on is dropped.
    is_mute: bool,
    /// Type and version of the record that was admitted last.
    head: [u8; 3],
    pub records_received: u64,
    bytes_sent: u64,
    sent: Records,
}

/// The header of a record (RFC 8446, section 5.1): type, version, length.
const HEADER: usize = 5;
/// More than this no record may hold (RFC 8446, section 5.2; RFC 5246, section 6.2.3).
const LONGEST: usize = 16 * 1024 + 2048;
const ALERT: u8 = 21;
const HANDSHAKE: u8 = 22;
const APPLICATION_DATA: u8 = 23;
/// Long enough for any cipher to look at, and a whole number of blocks.
const FORGED: usize = 96;

impl Ends {
    const NEW: Ends = Ends {
        incoming: Buffer::NEW,
        outgoing: Buffer::NEW,
        admitted: 0,
        held: 0,
        alert_sent: None,
        is_mute: false,
        head: [0; 3],
        records_received: 0,
        bytes_sent: 0,
        sent: Records { whole: 0, header: [0; HEADER], known: 0, missing: 0 },
    };

    /// Lets the library have the next record, if it is there as a whole, or what comes instead of one. Says whether
    /// there is something to be had.
    ///
    /// The library never takes part of a record, so that `incoming` always starts with a record, or with what the peer
    /// sent after TLS; and it is not called for nothing.
    #[inline]
    pub fn admit_record(&mut self) -> bool {
        if self.admitted > 0 {
            return true;
        }
        let rest = &self.incoming.as_slice()[self.held..];
        self.admitted = match *rest {
            // A client's first message in the frame of SSL 2 (RFC 5246, appendix E.2).
            [high @ 0x80..=0xff, low, 1, 3, ..] if self.records_received == 0 => {
                let whole = 2 + usize::from(u16::from_be_bytes([high & 0x7f, low]));
                if rest.len() < whole {
                    0
                } else {
                    whole
                }
            }
            [kind, major, minor, high, low, ..] => {
                self.head = [kind, major, minor];
                let length = usize::from(u16::from_be_bytes([high, low]));
                // One of unknown type, for the library to refuse, is no less a record for coming in pieces.
                let is_record = ((20..=24).contains(&kind) || major == 3) && length <= LONGEST;
                match is_record {
                    true if rest.len() < HEADER + length => 0,
                    true => HEADER + length,
                    false => rest.len(),
                }
            }
            _ => 0,
        };
        self.admitted > 0
    }

    /// Whether that record calls itself application data, in the version that TLS 1.2 and 1.3 have there.
    #[cfg(feature = "rustls")]
    #[inline]
    pub fn admits_data(&self) -> bool {
        self.admitted > 0 && self.head == [APPLICATION_DATA, 3, 3]
    }

    /// Takes that back, for a call that must not meet what has come: rustls would tell of a close_notify only once.
    #[cfg(feature = "rustls")]
    #[inline]
    pub fn withhold(&mut self) {
        self.admitted = 0;
    }

    /// How much the library has not seen.
    #[inline]
    pub fn unseen(&self) -> usize {
        self.incoming.len() - self.held
    }

    /// Whether the record that was admitted last calls itself application data, as all protected ones of TLS 1.3 do.
    pub fn was_application_data(&self) -> bool {
        self.head[0] == APPLICATION_DATA
    }

    /// Whether it calls itself a message of a handshake: behind ours, below TLS 1.3, the wish for another.
    pub fn was_handshake(&self) -> bool {
        self.head[0] == HANDSHAKE
    }

    /// Whether the last so many bytes of the output begin with an alert.
    pub fn sends_alert(&self, bytes: usize) -> bool {
        matches!(
            self.outgoing.as_slice().split_at_checked(self.outgoing.len().wrapping_sub(bytes)),
            Some((_, [ALERT, ..]))
        )
    }

    /// The version in that record's header, or what stands in its place.
    #[allow(dead_code, reason = "without OpenSSL nobody asks")]
    pub fn record_version(&self) -> [u8; 2] {
        [self.head[1], self.head[2]]
    }

    /// Nothing more is to be sent.
    pub fn mute(&mut self) {
        self.is_mute = true;
    }

    pub fn is_mute(&self) -> bool {
        self.is_mute
    }

    #[inline]
    pub fn bytes_sent(&self) -> u64 {
        self.bytes_sent
    }

    pub fn records_sent(&self) -> u64 {
        self.sent.whole
    }

    /// Changes the alert that was just put here in the clear.
    #[cfg(feature = "rustls")]
    pub fn amend_alert(&mut self, number: u8) {
        if let Some(last) = self.outgoing.as_mut_slice().last_mut().filter(|_| self.alert_sent.is_some()) {
            *last = number;
            self.alert_sent = Some(number);
        }
    }

    /// Ciphertext for the peer.
    #[inline]
    pub fn send(&mut self, bytes: &[u8]) {
        if self.is_mute {
            return;
        }
        let before = self.outgoing.len();
        self.outgoing.append(bytes);
        self.note_sent(before);
    }

    pub fn clear_input(&mut self) {
        (self.held, self.admitted) = (0, 0);
        self.incoming.clear();
    }

    /// Takes all input away.
    pub fn take_input(&mut self) -> Vec<u8> {
        (self.held, self.admitted) = (0, 0);
        self.incoming.take_vec()
    }

    /// What the next call of a library that reads will give it.
    #[cfg(feature = "native-tls")]
    pub fn admitted(&self) -> &[u8] {
        &self.incoming.as_slice()[self.held..][..self.admitted]
    }

    /// For a library that works on the input in place: what it may see, which is what it has held and what is admitted.
    #[cfg(feature = "rustls")]
    #[inline]
    pub fn view(&mut self) -> &mut [u8] {
        let end = self.held + self.admitted;
        &mut self.incoming.as_mut_slice()[..end]
    }

    /// Whether the library is amid a message.
    #[cfg(feature = "rustls")]
    pub fn holds(&self) -> bool {
        self.held > 0
    }

    /// Of that, what is admitted and the library has not seen.
    #[cfg(feature = "rustls")]
    pub fn news(&mut self) -> &mut [u8] {
        let held = self.held;
        &mut self.view()[held..]
    }

    /// The library has seen the view, and has no use for the first `n` bytes of it.
    #[cfg(feature = "rustls")]
    #[inline]
    pub fn seen(&mut self, n: usize) {
        if self.admitted > 0 {
            self.records_received += 1;
            if self.was_application_data() {
                self.incoming.becomes_plain();
            }
        }
        self.held = (self.held + self.admitted).saturating_sub(n);
        self.admitted = 0;
        if n > 0 {
            self.incoming.consume(n);
        }
    }

    /// For a library that writes in place: room for `n` bytes, to be followed by [`put`](Ends::put).
    #[cfg(feature = "rustls")]
    #[inline]
    pub fn room(&mut self, n: usize) -> &mut [u8] {
        self.outgoing.space(n)
    }

    /// The first `n` bytes of the room are ciphertext for the peer.
    #[cfg(feature = "rustls")]
    #[inline]
    pub fn put(&mut self, n: usize) {
        let before = self.outgoing.len();
        self.outgoing.filled(if self.is_mute { 0 } else { n });
        self.note_sent(before);
    }

    #[inline]
    fn note_sent(&mut self, before: usize) {
        let new = &self.outgoing.as_slice()[before..];
        if let [ALERT, _, _, 0, 2, _level, alert] = *new {
            self.alert_sent = Some(alert);
        }
        self.bytes_sent += new.len() as u64;
        self.sent.count(new);
    }
}

/// Counts records in a stream of bytes that comes in any pieces.
struct Records {
    whole: u64,
    header: [u8; HEADER],
    /// Bytes of the header that are there.
    known: u8,
    /// Bytes of the record that are yet to come.
    missing: u16,
}

impl Records {
    #[inline]
    fn count(&mut self, mut bytes: &[u8]) {
        // They come whole, for the most part.
        while let ([_, _, _, high, low, rest @ ..], 0) = (bytes, self.known) {
            let Some(next) = rest.get(usize::from(u16::from_be_bytes([*high, *low]))..) else { break };
            self.whole += 1;
            bytes = next;
        }
        if !bytes.is_empty() {
            self.count_parts(bytes);
        }
    }

    fn count_parts(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let known = usize::from(self.known);
            if known < HEADER {
                let n = bytes.len().min(HEADER - known);
                self.header[known..known + n].copy_from_slice(&bytes[..n]);
                self.known += n as u8;
                bytes = &bytes[n..];
                self.missing = u16::from_be_bytes([self.header[3], self.header[4]]);
            }
            let n = bytes.len().min(usize::from(self.missing));
            self.missing -= n as u16;
            bytes = &bytes[n..];
            if usize::from(self.known) == HEADER && self.missing == 0 {
                self.whole += 1;
                self.known = 0;
            }
        }
    }
}

impl Read for Wire {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let Some(ends) = self.0.as_mut().filter(|ends| ends.admitted > 0) else {
            return Err(io::ErrorKind::WouldBlock.into());
        };
        let room = buf.len().min(ends.admitted);
        let n = ends.incoming.read_into(&mut buf[..room]);
        ends.admitted -= n;
        if ends.admitted == 0 {
            ends.records_received += 1;
        }
        Ok(n)
    }
}

impl Write for Wire {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.send(buf);
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
