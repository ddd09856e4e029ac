//! Sessions that clients resume: those of the context's store, and one connection's own.

use std::sync::{Arc, OnceLock};

use openssl::error::ErrorStack;
use openssl::ex_data::Index;
use openssl::ssl::{Ssl, SslContextBuilder, SslRef, SslSession, SslSessionCacheMode, SslSessionRef, SslVersion};
use parking_lot::Mutex;

use crate::engine::sessions::Sessions;
use crate::engine::Resumable;
use crate::error::Error;
use crate::settings::Settings;

/// What a context's clients remember of servers.
#[derive(Clone)]
pub(super) struct Store(Arc<Sessions<SslSession>>);

impl Store {
    pub fn new(settings: &Settings) -> Store {
        Store(Arc::new(Sessions::new(settings)))
    }

    /// Has OpenSSL tell of new sessions.
    pub fn attend(&self, context: &mut SslContextBuilder) -> Result<(), ErrorStack> {
        context.set_session_cache_mode(SslSessionCacheMode::CLIENT | SslSessionCacheMode::NO_INTERNAL);
        let sessions = self.0.clone();
        let index = name_index()?;
        context.set_new_session_callback(move |ssl, session| {
            if let Some(name) = ssl.ex_data(index) {
                sessions.keep(name, session);
            }
        });
        Ok(())
    }

    /// Offers the newest session with that server, if there is one.
    pub fn serve(&self, ssl: &mut Ssl, server_name: &str) -> Result<Client, ErrorStack> {
        ssl.set_ex_data(name_index()?, server_name.to_string());
        // A ticket of TLS 1.3 is used once (RFC 8446, appendix C.4).
        let once = |session: &SslSession| session.protocol_version() == SslVersion::TLS1_3;
        let offered = self.0.take(server_name, once);
        offered.iter().try_for_each(|session| offer(ssl, session))?;
        Ok(Client { offered: offered.map(|session| (self.clone(), session)), ..Client::default() })
    }
}

/// What a client's connection has to do with sessions.
#[derive(Default)]
pub(super) struct Client {
    /// While it shakes hands: what it has offered, and whose that is.
    offered: Option<(Store, SslSession)>,
    /// Once somebody wants to resume its session.
    shared: Option<Arc<Shared>>,
    failed: bool,
}

/// A copy of a connection's session. OpenSSL marks the session itself when it has been used in TLS 1.3, and does not offer it
/// again.
#[derive(Default)]
struct Shared(Mutex<Option<SslSession>>);

impl Client {
    /// Offers the session that another connection shares, and keeps none: its peer may not have shown a certificate for the
    /// name by which it would be kept.
    pub fn resume(ssl: &mut Ssl, shared: &Resumable) -> Result<Client, ErrorStack> {
        let session = shared.downcast_ref::<Shared>().and_then(|shared| shared.0.lock().clone());
        if let Some(session) = session {
            offer(ssl, &*copy(&session)?)?;
        }
        Ok(Client::default())
    }

    /// A session that was kept as bytes, in the form of OpenSSL's own (`i2d_SSL_SESSION`).
    pub fn resumable_from(kept: &[u8]) -> Result<Resumable, Error> {
        let session = SslSession::from_der(kept).map_err(|_| Error::invalid_input("session: these bytes are none"))?;
        Ok(Arc::new(Shared(Mutex::new(Some(session)))))
    }

    /// The connection's session as such bytes, if it has one that can be resumed.
    pub fn kept(&self, ssl: &SslRef) -> Option<Vec<u8>> {
        self.session(ssl)?.to_der().ok()
    }

    /// In TLS 1.3 there is no id before the server has sent a ticket.
    fn session<'a>(&self, ssl: &'a SslRef) -> Option<&'a SslSessionRef> {
        let may_be_resumed = !self.failed && ssl.is_init_finished();
        ssl.session().filter(|session| may_be_resumed && !session.id().is_empty())
    }

    /// The handshake is done.
    pub fn shaken(&mut self, ssl: &SslRef) {
        let Some((store, offered)) = self.offered.take() else { return };
        // OpenSSL does not tell of a session that the server has renewed while it was resumed (RFC 5077, section 3.3), and
        // marks the one that it took the place of. In TLS 1.3 it tells of all.
        let renewed = ssl.session().filter(|session| ssl.session_reused() && session.id() != offered.id());
        let (Some(session), Ok(index)) = (renewed, name_index()) else { return };
        if let Some(name) = ssl.ex_data(index).filter(|_| ssl.version2() != Some(SslVersion::TLS1_3)) {
            store.0.keep(name, session.to_owned());
        }
    }

    /// Its session, for others, from now on.
    pub fn share(&mut self, ssl: &SslRef) -> Resumable {
        let shared = self.shared.get_or_insert_default().clone();
        self.look(ssl);
        shared
    }

    /// The library has worked: there may be a new session to share.
    #[inline]
    pub fn look(&self, ssl: &SslRef) {
        if let Some(shared) = &self.shared {
            self.renew(shared, ssl);
        }
    }

    #[cold]
    fn renew(&self, shared: &Shared, ssl: &SslRef) {
        let Some(session) = self.session(ssl) else { return };
        let mut shared = shared.0.lock();
        if shared.as_ref().is_none_or(|shared| shared.id() != session.id()) {
            *shared = copy(session).ok();
        }
    }

    /// What has failed is not resumed (RFC 5246, section 7.2.2; RFC 8446, section 6.2).
    pub fn fail(&mut self) {
        self.failed = true;
        if let Some(shared) = &self.shared {
            shared.0.lock().take();
        }
    }
}

/// The `openssl` crate has no `SSL_SESSION_dup`.
fn copy(session: &SslSessionRef) -> Result<SslSession, ErrorStack> {
    SslSession::from_der(&session.to_der()?)
}

#[allow(unsafe_code, reason = "the openssl crate has no other way to offer a session")]
fn offer(ssl: &mut Ssl, session: &SslSessionRef) -> Result<(), ErrorStack> {
    // SAFETY: the session must come from the context that `ssl` was made from. It does: a `Store` belongs to one client
    // context, is filled from that context's connections alone, and serves these; and `Context` has seen to it that who
    // resumes another's session is of the same context, which has one client context of OpenSSL's. What was read from bytes is of
    // no context, and `s_client -sess_in` offers it so.
    unsafe { ssl.set_session(session) }
}

/// Where a client's `Ssl` keeps the server's name for the callback that stores sessions.
fn name_index() -> Result<Index<Ssl, String>, ErrorStack> {
    static INDEX: OnceLock<Index<Ssl, String>> = OnceLock::new();
    super::index(&INDEX)
}
