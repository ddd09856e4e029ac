use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::settings::Settings;

/// Servers whose sessions a context keeps, unless said.
const SERVERS: usize = 256;
/// Sessions kept for each.
const FOR_EACH: usize = 4;

/// The sessions a client context may resume, by the name of the server.
#[derive(Debug)]
pub(super) struct Sessions<T> {
    servers: usize,
    lifetime: Option<Duration>,
    by_name: Mutex<HashMap<String, VecDeque<(Instant, T)>>>,
}

impl<T> Sessions<T> {
    pub fn new(settings: &Settings) -> Sessions<T> {
        Sessions {
            servers: if settings.client_resumes() { settings.session_cache_size.unwrap_or(SERVERS) } else { 0 },
            lifetime: settings.session_lifetime,
            by_name: Mutex::default(),
        }
    }

    /// Whether it keeps any.
    #[cfg(feature = "rustls")]
    pub fn keeps(&self) -> bool {
        self.servers > 0
    }

    pub fn keep(&self, name: &str, session: T) {
        if self.servers == 0 {
            return;
        }
        let mut by_name = self.by_name.lock();
        if by_name.len() >= self.servers && !by_name.contains_key(name) {
            let oldest = by_name.iter().min_by_key(|(_, kept)| kept.back().map(|(made, _)| *made));
            let oldest = oldest.map(|(name, _)| name.clone());
            oldest.and_then(|name| by_name.remove(&name));
        }
        let kept = by_name.entry(name.to_string()).or_default();
        if kept.len() >= FOR_EACH {
            kept.pop_front();
        }
        kept.push_back((Instant::now(), session));
    }

    /// The newest, if it is not too old. `once`: it must not be used again.
    pub fn take(&self, name: &str, once: impl FnOnce(&T) -> bool) -> Option<T>
    where
        T: Clone,
    {
        let mut by_name = self.by_name.lock();
        let kept = by_name.get_mut(name)?;
        let (made, session) = kept.back()?;
        if self.lifetime.is_some_and(|lifetime| made.elapsed() >= lifetime) {
            // The others are older still.
            by_name.remove(name);
            return None;
        }
        let session = session.clone();
        if once(&session) {
            kept.pop_back();
        }
        Some(session)
    }

    #[cfg(feature = "rustls")]
    pub fn remove(&self, name: &str) {
        self.by_name.lock().remove(name);
    }
}
