//! What rustls tells to the callbacks of a configuration, which many connections share, and the connection at hand wants to
//! know. A connection works in one thread at a time and calls back within its own calls: what is noted in this thread
//! during such a call is about it, but for other connections that a user's closure may have used meanwhile.

use std::cell::RefCell;
use std::sync::Arc;

use rustls::crypto::tls13::OkmBlock;
use rustls::pki_types::CertificateDer;

use super::resumption::{Given, Own};
use super::tickets::Ticket;
use crate::certificate::Certificate;

#[derive(Default)]
pub(super) struct Notes {
    /// The name a client asked for.
    pub server_name: Option<String>,
    /// The certificate a server shows.
    pub shown: Option<CertificateDer<'static>>,
    pub ocsp_response: Option<Vec<u8>>,
    /// What the peer has sent, if it came to a check and did not pass: nobody else keeps it.
    pub judged: Option<Vec<Certificate>>,
    pub secret: Option<Secret>,
    /// Sessions that a client was given.
    pub sessions: Vec<Given>,
    /// The message that brought the last one of TLS 1.3.
    pub ticket: Option<Ticket>,
    /// They are not for the context's store.
    pub is_private: bool,
    /// To be resumed, and nothing else.
    pub resume: Option<Arc<Own>>,
}

impl Notes {
    /// For a connection whose sessions are its own.
    pub fn private() -> Notes {
        Notes { is_private: true, ..Notes::default() }
    }
}

/// What keys are exported from.
pub(super) struct Secret {
    /// The exporter's secret (TLS 1.3) or the master secret.
    pub bytes: OkmBlock,
    pub client_random: [u8; 32],
}

thread_local! {
    /// Made by the first that is noted: most calls note nothing, and the notes are large.
    static NOTES: RefCell<Option<Box<Notes>>> = const { RefCell::new(None) };
}

/// What has been noted. `None` in a thread that is ending.
pub(super) fn look<T>(f: impl FnOnce(&mut Notes) -> T) -> Option<T> {
    NOTES.try_with(|notes| f(notes.borrow_mut().get_or_insert_default())).ok()
}

/// A thread that is ending notes nothing more.
pub(super) fn note(f: impl FnOnce(&mut Notes)) {
    let _ = look(f);
}

/// Calls, with these notes to begin with, and says what was noted, if anything was. What was noted before stays, also when a user's
/// code panics in the call: it is about a connection whose call has led to this one.
pub(super) fn during<T>(notes: Option<Notes>, call: impl FnOnce() -> T) -> (T, Option<Box<Notes>>) {
    struct Outer(Option<Box<Notes>>);

    impl Drop for Outer {
        fn drop(&mut self) {
            swap(self.0.take());
        }
    }

    let _outer = Outer(swap(notes.map(Box::new)));
    let result = call();
    (result, swap(None))
}

fn swap(other: Option<Box<Notes>>) -> Option<Box<Notes>> {
    NOTES.try_with(|notes| notes.replace(other)).unwrap_or_default()
}

/// The ticket that this thread has noted outside of [`during`]: that of the connection whose call has just ended.
pub(super) fn take_ticket() -> Option<Ticket> {
    NOTES.try_with(|notes| notes.borrow_mut().as_mut()?.ticket.take()).ok().flatten()
}
