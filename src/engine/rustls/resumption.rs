//! Sessions that clients resume: those of the context's store, and one connection's own.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use rustls::client::{ClientSessionStore, Tls12ClientSessionValue, Tls13ClientSessionValue};
use rustls::pki_types::ServerName;
use rustls::NamedGroup;

use super::notes::{look, Notes};
use super::tickets::Ticket;
use super::IDENTITIES;
use crate::engine::sessions::Sessions;
use crate::engine::Resumable;
use crate::settings::Settings;

/// Tickets of TLS 1.3 that lie ready for those who resume a connection's session.
const READY: usize = 16;

/// A session that a client was given.
pub(super) enum Given {
    Tls12(Tls12ClientSessionValue),
    Tls13(Tls13ClientSessionValue),
}

/// What a context's clients remember of servers.
#[derive(Debug)]
pub(super) struct Store {
    groups: Mutex<HashMap<ServerName<'static>, NamedGroup>>,
    tls12: Sessions<Tls12ClientSessionValue>,
    tls13: Sessions<Arc<Mutex<Option<Tls13ClientSessionValue>>>>,
}

impl Store {
    pub fn new(settings: &Settings) -> Store {
        Store { groups: Mutex::default(), tls12: Sessions::new(settings), tls13: Sessions::new(settings) }
    }
}

/// What the client at hand is to resume, if that is not for the store to say.
fn wanted() -> Option<Arc<Own>> {
    look(|notes| notes.resume.clone()).flatten()
}

impl ClientSessionStore for Store {
    fn set_kx_hint(&self, server_name: ServerName<'static>, group: NamedGroup) {
        if !self.tls13.keeps() {
            return;
        }
        let mut groups = self.groups.lock();
        if groups.len() >= IDENTITIES {
            groups.clear();
        }
        groups.insert(server_name, group);
    }

    fn kx_hint(&self, server_name: &ServerName<'_>) -> Option<NamedGroup> {
        self.groups.lock().get(&server_name.to_owned()).copied()
    }

    fn set_tls12_session(&self, server_name: ServerName<'static>, value: Tls12ClientSessionValue) {
        let is_private = look(|notes| {
            notes.sessions.push(Given::Tls12(value.clone()));
            notes.is_private
        });
        if is_private != Some(true) {
            self.tls12.keep(&server_name.to_str(), value);
        }
    }

    fn tls12_session(&self, server_name: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        match wanted() {
            Some(own) => own.find(|kept| kept.tls12.clone()),
            None => self.tls12.take(&server_name.to_str(), |_| false),
        }
    }

    fn remove_tls12_session(&self, server_name: &ServerName<'static>) {
        self.tls12.remove(&server_name.to_str());
    }

    fn insert_tls13_ticket(&self, server_name: ServerName<'static>, value: Tls13ClientSessionValue) {
        let mut value = Some(value);
        look(|notes| {
            if notes.is_private {
                notes.sessions.extend(value.take().map(Given::Tls13));
            }
        });
        if value.is_some() {
            self.tls13.keep(&server_name.to_str(), Arc::new(Mutex::new(value)));
        }
    }

    fn take_tls13_ticket(&self, server_name: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        match wanted() {
            Some(own) => own.find(|kept| kept.tls13.pop()),
            None => self.tls13.take(&server_name.to_str(), |_| true)?.lock().take(),
        }
    }
}

/// What one connection has been given, for those who resume its session.
#[derive(Default)]
pub(super) struct Own(Mutex<Kept>);

#[derive(Default)]
struct Kept {
    tls12: Option<Tls12ClientSessionValue>,
    /// rustls wants each back as a whole, for one use.
    tls13: Vec<Tls13ClientSessionValue>,
    /// While it has been given none of its own: whose it has itself resumed.
    resumed: Option<Arc<Own>>,
}

impl Own {
    fn find<T>(self: &Arc<Own>, find: impl Fn(&mut Kept) -> Option<T>) -> Option<T> {
        let mut own = self.clone();
        loop {
            let mut kept = own.0.lock();
            let found = find(&mut kept);
            let Some(next) = kept.resumed.clone().filter(|_| found.is_none()) else { return found };
            drop(kept);
            own = next;
        }
    }
}

/// What a client's connection has to do with sessions.
pub(super) struct Resuming {
    own: Arc<Own>,
    /// While it shakes hands: whose session it has offered.
    from: Option<Arc<Own>>,
    /// Its sessions are not for the context's store.
    is_private: bool,
    /// Somebody wants to resume its session.
    is_shared: bool,
    /// What the server gave last, to be had again: rustls does not let it be copied.
    ticket: Option<Ticket>,
}

impl Resuming {
    /// `from`: whose session to offer, if that is not for the store to say. Then none is kept in the store either: the peer may
    /// not have shown a certificate for the name by which it would be kept.
    pub fn new(from: Option<Arc<Own>>) -> Resuming {
        Resuming { own: Arc::default(), is_private: from.is_some(), from, is_shared: false, ticket: None }
    }

    pub fn is_private(&self) -> bool {
        self.is_private
    }

    pub fn is_shared(&self) -> bool {
        self.is_shared
    }

    /// For when the connection is made: that is when rustls asks.
    pub fn offered(&self) -> Option<Notes> {
        self.from.clone().map(|own| Notes { resume: Some(own), ..Notes::default() })
    }

    pub fn keep(&mut self, sessions: Vec<Given>, ticket: Option<Ticket>) {
        if sessions.is_empty() && ticket.is_none() {
            return;
        }
        self.ticket = ticket.or(self.ticket.take());
        let mut kept = self.own.0.lock();
        kept.resumed = None;
        for session in sessions {
            match session {
                Given::Tls12(session) => kept.tls12 = Some(session),
                Given::Tls13(session) => kept.tls13.push(session),
            }
        }
        let surplus = kept.tls13.len().saturating_sub(READY);
        kept.tls13.drain(..surplus);
    }

    /// The handshake is done.
    pub fn shaken(&mut self, resumed: bool) {
        let Some(from) = self.from.take().filter(|_| resumed) else { return };
        // One that has itself none but another's is passed over: a row of connections that resume each other does not grow.
        let next = from.0.lock().resumed.clone();
        let mut kept = self.own.0.lock();
        if kept.tls12.is_none() && self.ticket.is_none() {
            kept.resumed = Some(next.unwrap_or(from));
        }
    }

    /// Its session, for others, from now on.
    pub fn share(&mut self) -> Resumable {
        self.is_shared = true;
        self.own.clone()
    }

    /// The ticket that rustls should meet again, so that enough lie ready.
    pub fn wanting(&self) -> Option<&Ticket> {
        let ticket = self.ticket.as_ref().filter(|_| self.is_shared)?;
        let mut kept = self.own.0.lock();
        if ticket.has_expired() {
            kept.tls13.clear();
            return None;
        }
        (kept.tls13.len() < READY).then_some(ticket)
    }

    /// It can't be had again.
    pub fn forget_ticket(&mut self) {
        self.ticket = None;
    }

    /// What has failed is not resumed (RFC 5246, section 7.2.2; RFC 8446, section 6.2).
    pub fn fail(&mut self) {
        self.ticket = None;
        *self.own.0.lock() = Kept::default();
    }
}
