//! What the `log` crate is told of a file: how its handshake went, alerts, its end. No data and no secret: names, numbers, and the
//! texts of errors.

use std::fmt::Write as _;

use ::log::Level;

use super::alert_queue;
use super::Locked;
use crate::error::ErrorKind;
use crate::machine::{Machine, State};
use crate::role::Role;
use crate::stream::Transport;

/// What has been told.
#[derive(Default)]
pub(super) struct Told {
    shaken: bool,
    end: bool,
}

const CLOSE_NOTIFY: u8 = 0;

impl<S: Transport, F> Locked<'_, S, F> {
    /// What is new, for when no lock is held.
    pub(super) fn note_for_log(&mut self) {
        if !alert_queue::is_logged(Level::Debug) || self.machine.tls.is_plain_text() {
            return;
        }
        let is_shaken = self.machine.tls.is_handshake_done();
        if is_shaken && !self.journal.shaken {
            self.core.journal.shaken = true;
            self.log(Level::Debug, &agreed(&self.machine));
        }
        for alert in self.machine.tls.alerts() {
            let level = if alert.number() == CLOSE_NOTIFY { Level::Trace } else { Level::Debug };
            let verb = if alert.is_ours() { "sent" } else { "received" };
            self.log(level, &format!("{verb} the alert {} ({})", alert.name(), alert.number()));
        }
        let state = self.machine.state();
        if matches!(state, State::Closed | State::Failed) {
            let how = match (state, self.machine.last_error()) {
                // What it has sent instead is in that error.
                (_, Some(error)) if error.kind() == ErrorKind::NotTls => {
                    "TLS handshake: the peer does not speak TLS".to_string()
                }
                (_, Some(error)) if is_shaken => format!("ended: {error}"),
                (_, Some(error)) => error.to_string(),
                (State::Closed, None) => "closed".to_string(),
                (_, None) => "ended".to_string(),
            };
            self.log_end(&how);
        }
    }

    /// The last handle has gone, and nobody will see the rest.
    pub(super) fn log_parting(&mut self) {
        if alert_queue::is_logged(Level::Debug) && !self.machine.tls.is_plain_text() {
            self.log_end("the last handle has gone");
        }
    }

    fn log_end(&mut self, how: &str) {
        if std::mem::replace(&mut self.core.journal.end, true) {
            return;
        }
        let traffic = self.machine.tls.traffic();
        let (received, sent) = (traffic.bytes_received, traffic.bytes_sent);
        self.log(Level::Debug, &format!("{how}; {received} bytes have come and {sent} were made, handshake included"));
    }

    fn log(&self, level: Level, what: &str) {
        let role = match self.machine.tls.role() {
            Role::Client => "client of",
            Role::Server => "server for",
        };
        alert_queue::log(level, || format!("{role} {}: {what}", self.shared.peer));
    }
}

/// As far as the library tells.
fn agreed(machine: &Machine) -> String {
    let session = machine.tls.session();
    let time = machine.handshake_time().unwrap_or_default();
    let mut text = format!("handshake done in {time:.1?}");
    let facts = [session.version().map(|v| v.to_string()), session.cipher(), session.group()];
    let alpn = session.alpn().map(|protocol| format!("ALPN {}", String::from_utf8_lossy(&protocol).escape_debug()));
    let asked = || machine.tls.server_name().map(|name| format!("asked for {}", name.escape_debug()));
    let asked = (machine.tls.role() == Role::Server).then(asked).flatten();
    let resumed = session.is_resumed().filter(|resumed| *resumed).map(|_| "resumed".to_string());
    for fact in facts.into_iter().chain([alpn, asked, resumed]).flatten() {
        // Into memory.
        let _ = write!(text, ", {fact}");
    }
    text
}
