//! Our close_notify, said past rustls.
//!
//! Once rustls has sent an alert of its own, close_notify included, its debug builds assert that nothing is wrong with what the
//! peer sends: a peer that goes on with garbage behind our end would be a panic. So rustls is not told. It is given the two bytes
//! of the alert as data, and the suite, whose cipher is rustls' with one thing added, puts them into a record of an alert's type.

use std::cell::Cell;
use std::ptr;
use std::sync::OnceLock;

use rustls::crypto::cipher::{
    AeadKey, Iv, KeyBlockShape, MessageDecrypter, MessageEncrypter, OutboundOpaqueMessage, OutboundPlainMessage,
    Tls12AeadAlgorithm, Tls13AeadAlgorithm, UnsupportedOperationError,
};
use rustls::crypto::CipherSuiteCommon;
use rustls::{ConnectionTrafficSecrets, ContentType, Error, SupportedCipherSuite, Tls12CipherSuite, Tls13CipherSuite};

use super::cryptography::ALL_CIPHER_SUITES;

/// Level "warning", number 0 (RFC 8446, section 6.1).
pub(super) const CLOSE_NOTIFY: [u8; 2] = [1, 0];

thread_local! {
    /// What this thread has encrypted as data is our close_notify.
    static IS_FAREWELL: Cell<bool> = const { Cell::new(false) };
}

/// What `encrypt` has rustls encrypt as data is a close_notify. `None`: it can't be said so, in a thread that is ending.
pub(super) fn say<T>(encrypt: impl FnOnce() -> T) -> Option<T> {
    struct Said;

    impl Drop for Said {
        fn drop(&mut self) {
            let _ = IS_FAREWELL.try_with(|farewell| farewell.set(false));
        }
    }

    IS_FAREWELL.try_with(|farewell| farewell.set(true)).ok()?;
    let _said = Said;
    Some(encrypt())
}

/// All suites of rustls, made so that a close_notify can be said with them.
pub(super) fn suites() -> &'static [SupportedCipherSuite] {
    static SUITES: OnceLock<Vec<SupportedCipherSuite>> = OnceLock::new();
    // They are for ever, as rustls wants them.
    SUITES.get_or_init(|| ALL_CIPHER_SUITES.iter().map(|suite| wrap(*suite)).collect())
}

/// Whether it is one of these: a configuration made elsewhere has others.
pub(super) fn can_be_said_with(suite: SupportedCipherSuite) -> bool {
    suites().iter().any(|ours| match (suite, ours) {
        (SupportedCipherSuite::Tls12(suite), SupportedCipherSuite::Tls12(ours)) => ptr::eq(suite, *ours),
        (SupportedCipherSuite::Tls13(suite), SupportedCipherSuite::Tls13(ours)) => ptr::eq(suite, *ours),
        _ => false,
    })
}

fn wrap(suite: SupportedCipherSuite) -> SupportedCipherSuite {
    let common = |of: &CipherSuiteCommon| CipherSuiteCommon { ..*of };
    match suite {
        SupportedCipherSuite::Tls12(suite) => {
            let aead_alg = Box::leak(Box::new(Aead(suite.aead_alg)));
            let common = common(&suite.common);
            SupportedCipherSuite::Tls12(Box::leak(Box::new(Tls12CipherSuite { common, aead_alg, ..*suite })))
        }
        SupportedCipherSuite::Tls13(suite) => {
            let aead_alg = Box::leak(Box::new(Aead(suite.aead_alg)));
            let common = common(&suite.common);
            SupportedCipherSuite::Tls13(Box::leak(Box::new(Tls13CipherSuite { common, aead_alg, ..*suite })))
        }
    }
}

struct Aead<A: ?Sized + 'static>(&'static A);

impl Tls12AeadAlgorithm for Aead<dyn Tls12AeadAlgorithm> {
    fn encrypter(&self, key: AeadKey, iv: &[u8], extra: &[u8]) -> Box<dyn MessageEncrypter> {
        Box::new(Encrypter(self.0.encrypter(key, iv, extra)))
    }

    fn decrypter(&self, key: AeadKey, iv: &[u8]) -> Box<dyn MessageDecrypter> {
        self.0.decrypter(key, iv)
    }

    fn key_block_shape(&self) -> KeyBlockShape {
        self.0.key_block_shape()
    }

    fn extract_keys(
        &self,
        key: AeadKey,
        iv: &[u8],
        explicit: &[u8],
    ) -> Result<ConnectionTrafficSecrets, UnsupportedOperationError> {
        self.0.extract_keys(key, iv, explicit)
    }

    fn fips(&self) -> bool {
        self.0.fips()
    }
}

impl Tls13AeadAlgorithm for Aead<dyn Tls13AeadAlgorithm> {
    fn encrypter(&self, key: AeadKey, iv: Iv) -> Box<dyn MessageEncrypter> {
        Box::new(Encrypter(self.0.encrypter(key, iv)))
    }

    fn decrypter(&self, key: AeadKey, iv: Iv) -> Box<dyn MessageDecrypter> {
        self.0.decrypter(key, iv)
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

struct Encrypter(Box<dyn MessageEncrypter>);

impl MessageEncrypter for Encrypter {
    fn encrypt(&mut self, mut message: OutboundPlainMessage<'_>, seq: u64) -> Result<OutboundOpaqueMessage, Error> {
        let is_data = message.typ == ContentType::ApplicationData;
        if is_data && IS_FAREWELL.try_with(Cell::get).unwrap_or(false) {
            message.typ = ContentType::Alert;
        }
        self.0.encrypt(message, seq)
    }

    fn encrypted_payload_len(&self, payload_len: usize) -> usize {
        self.0.encrypted_payload_len(payload_len)
    }
}
