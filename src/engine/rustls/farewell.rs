//! Our close_notify, said past rustls.
//!
//! Once rustls has sent an alert of its own, close_notify included, its debug builds assert that nothing is wrong with what the
//! peer sends: a peer that goes on with garbage behind our end would be a panic. So rustls is not told. It is given the two bytes
//! of the alert as data, and the suite, whose cipher is rustls' with one thing added, puts them into a record of an alert's type.

use std::cell::Cell;

use rustls::crypto::cipher::{MessageEncrypter, OutboundOpaqueMessage, OutboundPlainMessage};
use rustls::{ContentType, Error};

/// Level "warning", number 0 (RFC 8446, section 6.1).
pub(super) const CLOSE_NOTIFY: [u8; 2] = [1, 0];

thread_local! {
    /// What this thread has encrypted as data is our close_notify.
    static IS_FAREWELL: Cell<bool> = const { Cell::new(false) };
}

/// What `encrypt` has rustls encrypt as data is a close_notify.
pub(super) fn say<T>(encrypt: impl FnOnce() -> T) -> T {
    struct Said;

    impl Drop for Said {
        fn drop(&mut self) {
            IS_FAREWELL.set(false);
        }
    }

    IS_FAREWELL.set(true);
    let _said = Said;
    encrypt()
}

/// The library's own, in front of which what it encrypts is looked at.
pub(super) struct Encrypter(pub Box<dyn MessageEncrypter>);

impl MessageEncrypter for Encrypter {
    fn encrypt(&mut self, message: OutboundPlainMessage<'_>, seq: u64) -> Result<OutboundOpaqueMessage, Error> {
        let is_farewell = IS_FAREWELL.get() && message.typ == ContentType::ApplicationData;
        match is_farewell {
            true => self.0.encrypt(OutboundPlainMessage { typ: ContentType::Alert, ..message }, seq),
            false => self.0.encrypt(message, seq),
        }
    }

    fn encrypted_payload_len(&self, payload_len: usize) -> usize {
        self.0.encrypted_payload_len(payload_len)
    }
}
