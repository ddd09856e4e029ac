//! How the peer's bytes begin, and what it means that there are no more.

use super::{Connection, End};
use crate::alert::alert_name;
use crate::error::{Error, ErrorKind};
use crate::role::Role;

impl Connection {
    /// The input is used up: was that the end of it?
    pub(super) fn look_for_end(&mut self) {
        let Some(cause) = &self.input_end else { return };
        if self.end.is_some() {
            return;
        }
        let whole = self.wire.incoming.is_empty();
        let said_nothing = self.received == 0 && self.role == Role::Server && cause.is_none();
        let end = match cause {
            _ if said_nothing => End::Bare,
            None if self.plain_text || (self.lenient_eof && whole && self.handshake_done) => End::Bare,
            None => End::Failed(Error::new(
                ErrorKind::Truncated,
                match (self.handshake_done, whole) {
                    (false, _) => "the peer closed the stream during the TLS handshake",
                    (true, true) => "the stream ended without close_notify: data may be missing",
                    (true, false) => "the stream ended inside a record, without close_notify: data is missing",
                },
            )),
            Some(error) => End::Failed(error.clone()),
        };
        let end = match end {
            End::Failed(error) => End::Failed(self.explain(error)),
            well => well,
        };
        if !self.handshake_done {
            self.failure = Some(match &end {
                End::Failed(error) => error.clone(),
                End::CloseNotify | End::Bare => {
                    Error::new(ErrorKind::Truncated, "the peer closed the stream before its first byte")
                }
            });
        }
        self.end = Some(end);
    }

    /// Whether the first bytes look like TLS, before the library takes them: what speaks another protocol gets an alert
    /// and its bytes can be had back. False while that can't be told and after it has been denied.
    pub(super) fn recognise(&mut self) -> bool {
        if self.recognised || self.received == 0 || self.plain_text {
            return true;
        }
        let bytes = self.wire.incoming.as_slice();
        self.recognised = match *bytes {
            [] => return true,
            // A record: its type, then the major version, 3 since SSL 3.0.
            [20..=23] => return self.wait_for_more(),
            [20..=23, 3, ..] => true,
            // SSL 2's frame around a ClientHello for a later version (RFC 5246, appendix E.2).
            [0x80..=0xff] | [0x80..=0xff, _] | [0x80..=0xff, _, 1] if self.role == Role::Server => {
                return self.wait_for_more()
            }
            [0x80..=0xff, _, 1, 3, ..] if self.role == Role::Server => true,
            _ => false,
        };
        if !self.recognised {
            let shown = bytes[..bytes.len().min(40)].escape_ascii();
            let text = format!("TLS handshake: the peer does not speak TLS; it sent \"{shown}\"");
            const UNEXPECTED_MESSAGE: u8 = 10;
            debug_assert_eq!(alert_name(UNEXPECTED_MESSAGE), "unexpected_message");
            let not_tls = (self.role == Role::Server).then(|| bytes.to_vec());
            if !self.answers_plain {
                self.wire.send(&[21, 3, 1, 0, 2, 2, UNEXPECTED_MESSAGE]);
            }
            self.fail(Error::new(ErrorKind::NotTls, text));
            self.note_alert(UNEXPECTED_MESSAGE, true);
            if let Some(alert) = self.alerts.last_mut() {
                alert.not_tls = not_tls;
            }
        }
        self.recognised
    }

    fn wait_for_more(&mut self) -> bool {
        self.look_for_end();
        // A client must still say its first words.
        self.role == Role::Client && !self.begun
    }
}
