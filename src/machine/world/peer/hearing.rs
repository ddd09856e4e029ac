//! What the peer makes of what it gets.

use super::super::manners::Manners;
use super::super::session::{
    ALERT, ANSWER, CLIENT_HELLO, DATA, FINISHED, HANDSHAKE, HELLO, PROTECTED, SERVER_HELLO, TICKET, UPDATE,
};
use super::{Peer, Stage};

impl Peer {
    pub(super) fn understand(&mut self) -> Result<(), String> {
        for at in 0..self.layers.len() {
            let input = std::mem::take(&mut self.layers[at].input);
            let mut rest = input.as_slice();
            while let [kind, _, _, high, low, more @ ..] = rest {
                let n = usize::from(*high) * 256 + usize::from(*low);
                if more.len() < n {
                    break;
                }
                let (body, behind) = more.split_at(n);
                rest = behind;
                self.take(at, *kind, body)?;
            }
            self.layers[at].input = rest.to_vec();
        }
        Ok(())
    }

    fn take(&mut self, at: usize, kind: u8, body: &[u8]) -> Result<(), String> {
        let (is_client, is_tls13, stage) = (self.layers[at].is_client, self.layers[at].is_tls13, self.layers[at].stage);
        let is_last = at == self.top();
        if self.layers[at].saw_bye {
            return Err(format!("delivery: a record of type {kind} behind our close_notify"));
        }
        match (kind, body.first().copied().unwrap_or(0)) {
            (PROTECTED, DATA) if is_last => return self.got.take(&body[1..]),
            (PROTECTED, DATA) => self.layers[at + 1].input.extend_from_slice(&body[1..]),
            (PROTECTED, UPDATE) => self.say(at, PROTECTED, Some(ANSWER), &[0; 20]),
            (PROTECTED, HELLO) => self.layers[at].owes_renewal = true,
            (PROTECTED, _) => {}
            (ALERT, 1) => {
                self.layers[at].saw_bye = true;
                self.saw_bye |= is_last;
            }
            (ALERT, _) => self.saw_alert = true,
            (HANDSHAKE, CLIENT_HELLO) if !is_client && stage == Stage::Begin => {
                self.layers[at].stage = Stage::Helloed;
                if self.manners != Manners::Silent {
                    self.say(at, HANDSHAKE, Some(SERVER_HELLO), &[0; 700]);
                }
            }
            (HANDSHAKE, SERVER_HELLO) if is_client => {
                self.say(at, HANDSHAKE, Some(FINISHED), &[0; 40]);
                if is_tls13 {
                    self.layers[at].stage = Stage::Done;
                }
            }
            (HANDSHAKE, FINISHED) => {
                self.layers[at].stage = Stage::Done;
                if !is_client {
                    match is_tls13 {
                        true => self.say(at, PROTECTED, Some(TICKET), &[0; 200]),
                        false => self.say(at, HANDSHAKE, Some(FINISHED), &[0; 40]),
                    }
                }
            }
            other => return Err(format!("meaning: the peer got {other:?} in {stage:?}")),
        }
        Ok(())
    }
}
