//! Asks again where that may help, and notices when there is nobody left to ask.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::attempt::{Answer, Offer, Server, Silence};
use super::wire::Offered;

pub struct Panel<'a> {
    server: Server<'a>,
    attempts: AtomicUsize,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    /// What the server has accepted before.
    good: Option<Offer>,
    /// In a row, and nothing was answered before.
    silent: usize,
    first_silence: Option<Silence>,
    /// It does not even accept that any more.
    gone: Option<Silence>,
}

pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<'a> Panel<'a> {
    pub fn new(server: Server<'a>) -> Panel<'a> {
        Panel { server, attempts: AtomicUsize::new(0), known: Mutex::default() }
    }

    pub fn attempts(&self) -> usize {
        self.attempts.load(Ordering::Relaxed)
    }

    pub fn first_silence(&self) -> Option<Silence> {
        lock(&self.known).first_silence.clone()
    }

    /// What would go out.
    pub fn offered(&self, offer: &Offer) -> Option<Offered> {
        self.server.offered(offer)
    }

    pub fn ask(&self, offer: &Offer) -> Answer {
        if let Some(gone) = &lock(&self.known).gone {
            return Answer::Unanswered(Silence { text: format!("not asked any more: {}", gone.text), ..gone.clone() });
        }
        let answer = match self.once(offer) {
            // Once may be chance.
            Answer::Unanswered(first) if !first.is_timeout => match self.once(offer) {
                Answer::Unanswered(second) => confirmed(&first, second),
                other => other,
            },
            other => other,
        };
        match &answer {
            Answer::Accepted(_) => {
                lock(&self.known).good.get_or_insert_with(|| offer.clone());
            }
            Answer::Unanswered(silence) => self.doubt(silence),
            Answer::Refused(_) | Answer::Impossible(_) => {}
        }
        answer
    }

    fn once(&self, offer: &Offer) -> Answer {
        let answer = self.server.ask(offer);
        if !matches!(answer, Answer::Impossible(_)) {
            self.attempts.fetch_add(1, Ordering::Relaxed);
        }
        answer
    }

    /// Whether there is still somebody. One thread finds out, and the others wait for it.
    fn doubt(&self, silence: &Silence) {
        // Each version is asked for, even if none is answered.
        const MOST: usize = 4;
        let mut known = lock(&self.known);
        known.first_silence.get_or_insert_with(|| silence.clone());
        if known.gone.is_some() {
            return;
        }
        let Some(good) = known.good.clone() else {
            known.silent += 1;
            known.gone = (known.silent >= MOST).then(|| silence.clone());
            return;
        };
        if let Answer::Unanswered(silence) = self.once(&good) {
            known.gone = Some(silence);
        }
    }
}

/// What was answered twice with the same alert is a no: OpenSSL says internal_error where its own policy leaves it nothing to choose.
fn confirmed(first: &Silence, second: Silence) -> Answer {
    const INTERNAL_ERROR: u8 = 80;
    match (first.alert, second.alert) {
        (Some(INTERNAL_ERROR), Some(INTERNAL_ERROR)) => Answer::Refused("internal_error".to_string()),
        _ => Answer::Unanswered(second),
    }
}
