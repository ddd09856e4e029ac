//! The tickets of TLS 1.3 again. One that rustls has made of a server's message is good for one connection, and can't be copied;
//! but the message may come again. So a client's connection notes it as it is decrypted, and what is to be had again is given to
//! rustls as a record that our decrypter, in front of the library's own, knows for what it is.

use std::cell::Cell;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rustls::crypto::cipher::{
    AeadKey, InboundOpaqueMessage, InboundPlainMessage, Iv, MessageDecrypter, MessageEncrypter, Tls13AeadAlgorithm,
    UnsupportedOperationError,
};
use rustls::{CipherSuiteCommon, ConnectionTrafficSecrets, ContentType, Error, SupportedCipherSuite, Tls13CipherSuite};

use super::notes::note;

const HANDSHAKE: u8 = 22;
const APPLICATION_DATA: u8 = 23;
const NEW_SESSION_TICKET: u8 = 4;
/// RFC 8446, section 4.6.1.
const LONGEST_LIFE: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// Messages of one record that bring tickets (RFC 8446, section 4.6.1).
pub(super) struct Tickets {
    messages: Vec<u8>,
    until: Instant,
}

impl Tickets {
    /// If the record holds that, and nothing else and no parts.
    fn of(messages: &[u8]) -> Option<Tickets> {
        let mut life = LONGEST_LIFE;
        let mut rest = messages;
        while !rest.is_empty() {
            let [NEW_SESSION_TICKET, high, middle, low, rest_of_it @ ..] = rest else { return None };
            let length = u32::from_be_bytes([0, *high, *middle, *low]) as usize;
            let message = rest_of_it.get(..length)?;
            let seconds = u32::from_be_bytes(*message.first_chunk()?);
            life = life.min(Duration::from_secs(seconds.into()));
            rest = &rest_of_it[length..];
        }
        let until = Instant::now() + life;
        (!messages.is_empty()).then(|| Tickets { messages: messages.to_vec(), until })
    }

    pub fn have_expired(&self) -> bool {
        Instant::now() >= self.until
    }

    /// For rustls to meet in [`again`].
    pub fn record(&self) -> Vec<u8> {
        let length = (self.messages.len() + 1) as u16;
        let mut record = vec![APPLICATION_DATA, 3, 3];
        record.extend(length.to_be_bytes());
        record.extend(&self.messages);
        record.push(HANDSHAKE);
        record
    }
}

thread_local! {
    static AGAIN: Cell<bool> = const { Cell::new(false) };
}

/// Calls with what [`Tickets::record`] gave as all of the input.
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

/// The same suite, for clients, so that what it decrypts is looked at.
pub(super) fn noting(suite: SupportedCipherSuite) -> SupportedCipherSuite {
    /// rustls wants them to last, and has three.
    static MADE: Mutex<Vec<&'static Tls13CipherSuite>> = Mutex::new(Vec::new());
    let SupportedCipherSuite::Tls13(suite) = suite else { return suite };
    let mut made = MADE.lock();
    if let Some(made) = made.iter().find(|made| made.common.suite == suite.common.suite) {
        return SupportedCipherSuite::Tls13(made);
    }
    let common = CipherSuiteCommon { ..suite.common };
    let aead_alg = Box::leak(Box::new(Aead(suite.aead_alg)));
    let noting = Tls13CipherSuite { common, hkdf_provider: suite.hkdf_provider, aead_alg, quic: None };
    let noting = Box::leak(Box::new(noting));
    made.push(noting);
    SupportedCipherSuite::Tls13(noting)
}

struct Aead(&'static dyn Tls13AeadAlgorithm);

impl Tls13AeadAlgorithm for Aead {
    fn encrypter(&self, key: AeadKey, iv: Iv) -> Box<dyn MessageEncrypter> {
        self.0.encrypter(key, iv)
    }

    fn decrypter(&self, key: AeadKey, iv: Iv) -> Box<dyn MessageDecrypter> {
        Box::new(Decrypter { inner: self.0.decrypter(key, iv), again: 0 })
    }

    fn key_len(&self) -> usize {
        self.0.key_len()
    }

    fn extract_keys(&self, key: AeadKey, iv: Iv) -> Result<ConnectionTrafficSecrets, UnsupportedOperationError> {
        self.0.extract_keys(key, iv)
    }

    fn fips(&self) -> bool {
        self.0.fips()
    }
}

struct Decrypter {
    inner: Box<dyn MessageDecrypter>,
    /// How many of the records that rustls has counted were not the peer's.
    again: u64,
}

impl MessageDecrypter for Decrypter {
    fn decrypt<'a>(&mut self, record: InboundOpaqueMessage<'a>, seq: u64) -> Result<InboundPlainMessage<'a>, Error> {
        if AGAIN.get() {
            self.again += 1;
            return record.into_tls13_unpadded_message();
        }
        let plain = self.inner.decrypt(record, seq.wrapping_sub(self.again))?;
        if plain.typ == ContentType::Handshake {
            if let Some(tickets) = Tickets::of(plain.payload) {
                note(|notes| notes.tickets = Some(tickets));
            }
        }
        Ok(plain)
    }
}
