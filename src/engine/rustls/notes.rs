//! What rustls tells to the callbacks of a configuration, which many connections share, and the connection at hand wants to
//! know. A connection works in one thread at a time and calls back within its own calls: what was noted in this thread
//! since the last `take` is about it.

use std::cell::RefCell;

use rustls::crypto::tls13::OkmBlock;
use rustls::pki_types::CertificateDer;

#[derive(Default)]
pub(super) struct Notes {
    /// The name a client asked for.
    pub server_name: Option<String>,
    /// The certificate a server shows.
    pub shown: Option<CertificateDer<'static>>,
    pub ocsp_response: Option<Vec<u8>>,
    pub secret: Option<Secret>,
}

/// What keys are exported from.
pub(super) struct Secret {
    /// The exporter's secret (TLS 1.3) or the master secret.
    pub bytes: OkmBlock,
    pub client_random: [u8; 32],
}

thread_local! {
    static NOTES: RefCell<Notes> = RefCell::default();
}

pub(super) fn note(f: impl FnOnce(&mut Notes)) {
    // A thread that is ending notes nothing more.
    let _ = NOTES.try_with(|notes| f(&mut notes.borrow_mut()));
}

pub(super) fn take() -> Notes {
    NOTES.try_with(RefCell::take).unwrap_or_default()
}
