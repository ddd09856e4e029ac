use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::Arc;

use rustls::client::{ClientConnectionData, UnbufferedClientConnection};
use rustls::pki_types::CertificateDer;
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{ConnectionState, EncodeError, EncodeTlsData, EncryptError, UnbufferedStatus};
use rustls::{AlertDescription, CommonState, HandshakeKind, InvalidMessage, ProtocolVersion};

use super::exporter::export;
use super::notes::{self, Notes, Secret};
use super::resumption::Resuming;
use super::server_hello::ServerHello;
use super::tickets::{again, Ticket};
use super::verifier::Verifier;
use super::{farewell, names, suites, words};
use crate::certificate::Certificate;
use crate::engine::alert::Report;
use crate::engine::wire::Ends;
use crate::engine::{end_point, verdict, Buffer, Resumable, Session, Stop, Wire};
use crate::error::{Error, ErrorKind};
use crate::version::Version;

/// What the two kinds of connection have in common, and rustls has no name for.
pub(super) trait Unbuffered: Send {
    type Data;

    fn process<'c, 'i>(&'c mut self, incoming: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data>;
    fn state(&self) -> &CommonState;
    /// How many tickets of TLS 1.3 have come.
    fn tickets(&self) -> u32 {
        0
    }
}

impl Unbuffered for UnbufferedClientConnection {
    type Data = ClientConnectionData;

    fn process<'c, 'i>(&'c mut self, incoming: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(incoming)
    }

    fn state(&self) -> &CommonState {
        self
    }

    fn tickets(&self) -> u32 {
        self.tls13_tickets_received()
    }
}

impl Unbuffered for UnbufferedServerConnection {
    type Data = ServerConnectionData;

    fn process<'c, 'i>(&'c mut self, incoming: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(incoming)
    }

    fn state(&self) -> &CommonState {
        self
    }
}

pub(super) struct RustlsSession<C> {
    conn: C,
    is_server: bool,
    /// Whom a client expects.
    expected: String,
    verifier: Option<Arc<Verifier>>,
    /// Of clients.
    resuming: Option<Resuming>,
    handshake_done: bool,
    /// A record of data needs no look at it before rustls has it, and none at what this thread has noted behind it.
    is_calm: bool,
    /// How many tickets of TLS 1.3 have been kept.
    tickets: u32,
    /// rustls has been told of our close_notify: from then on its debug builds assert that the peer does nothing wrong.
    may_assert: bool,
    /// What a record held beyond the reader's buffer.
    rest: Buffer,
    server_name: Option<String>,
    shown: Option<CertificateDer<'static>>,
    ocsp_response: Option<Vec<u8>>,
    secret: Option<Secret>,
    server_hello: ServerHello,
}

/// What a call is to achieve, once nothing stands in its way.
enum Goal<'a> {
    Handshake,
    Read(&'a mut [u8]),
    Write(&'a [u8]),
    Close,
}

/// What rustls' state asks for, without the borrow of the input.
enum Next {
    Again,
    NeedsInput,
    PeerClosed,
    Done(usize),
}

impl<C: Unbuffered> RustlsSession<C> {
    /// `expected`: whom a client expects.
    pub fn new(
        conn: C,
        expected: Option<&str>,
        verifier: Option<Arc<Verifier>>,
        resuming: Option<Resuming>,
    ) -> RustlsSession<C> {
        RustlsSession {
            conn,
            is_server: expected.is_none(),
            expected: expected.unwrap_or_default().to_string(),
            verifier,
            resuming,
            handshake_done: false,
            is_calm: false,
            tickets: 0,
            may_assert: false,
            rest: Buffer::for_plaintext(),
            server_name: None,
            shown: None,
            ocsp_response: None,
            secret: None,
            server_hello: ServerHello::NEW,
        }
    }

    /// `first`: what the first step has given, if that is done.
    fn run(
        &mut self,
        wire: &mut Wire,
        mut goal: Goal<'_>,
        mut first: Option<Result<Next, rustls::Error>>,
    ) -> Result<usize, Stop> {
        if !self.handshake_done && !self.is_server {
            self.server_hello.note(wire.news());
        }
        let is_early_end = !self.handshake_done && is_close_notify(wire.news());
        let is_tls13 = self.conn.state().protocol_version() == Some(ProtocolVersion::TLSv1_3);
        if is_tls13 && self.handshake_done {
            spoil_forged_header(wire.news());
        }
        // Here is what can be told before.
        if self.may_assert && !matches!(wire.news(), [] | [20..=23, 3, ..]) {
            return Err(Stop::Failed(Error::new(ErrorKind::Protocol, UNSOUND)));
        }
        loop {
            let mut judged = None;
            let is_private = self.resuming.as_ref().is_some_and(Resuming::is_private);
            let outcome = match self.handshake_done && !is_private {
                true => {
                    let outcome = first.take().unwrap_or_else(|| self.step(wire, &mut goal));
                    match self.conn.tickets() != self.tickets {
                        true => self.keep_ticket(notes::take_ticket()),
                        // What rustls has refused is not for the next connection of this thread.
                        false if outcome.is_err() => drop(notes::take_ticket()),
                        false => {}
                    }
                    outcome
                }
                false => {
                    let before = is_private.then(Notes::private);
                    let (outcome, notes) = notes::during(before, || self.step(wire, &mut goal));
                    if let Some(mut notes) = notes {
                        judged = notes.judged.take();
                        self.keep(*notes);
                    }
                    self.tickets = self.conn.tickets();
                    outcome
                }
            };
            match outcome {
                Ok(Next::Again) => {}
                // rustls passes over what nobody can vouch for. But whoever said it says no more.
                Ok(Next::NeedsInput) if is_early_end => {
                    let said = rustls::Error::AlertReceived(AlertDescription::CloseNotify);
                    return Err(Stop::Failed(self.failure(said, &[], wire)));
                }
                Ok(Next::NeedsInput) => {
                    self.ready_tickets(wire);
                    return Err(Stop::NeedsInput);
                }
                Ok(Next::PeerClosed) => return Ok(0),
                Ok(Next::Done(n)) => {
                    self.ready_tickets(wire);
                    return Ok(n);
                }
                Err(e) => {
                    if let Some(resuming) = &mut self.resuming {
                        resuming.fail();
                    }
                    return Err(Stop::Failed(self.failure(e, &judged.unwrap_or_default(), wire)));
                }
            }
        }
    }

    /// The same for a call that can do without all that comes before and behind a step but with few records.
    #[inline(always)]
    fn run_calmly(&mut self, wire: &mut Wire, mut goal: Goal<'_>) -> Result<usize, Stop> {
        match self.step_within(wire, &mut goal) {
            Ok(Next::Done(n)) => {
                if self.resuming.as_ref().is_some_and(Resuming::is_shared) {
                    self.ready_tickets(wire);
                }
                Ok(n)
            }
            other => self.run(wire, goal, Some(other)),
        }
    }

    fn step(&mut self, wire: &mut Wire, goal: &mut Goal<'_>) -> Result<Next, rustls::Error> {
        let sent_before = wire.outgoing.len();
        let next = self.step_within(wire, goal);
        if !self.handshake_done && self.is_server {
            self.server_hello.note(&wire.outgoing.as_slice()[sent_before..]);
        }
        next
    }

    #[inline(always)]
    fn step_within(&mut self, wire: &mut Wire, goal: &mut Goal<'_>) -> Result<Next, rustls::Error> {
        let wire = &mut **wire;
        let has_suite_of_ours =
            matches!(goal, Goal::Close) && self.conn.state().negotiated_cipher_suite().is_some_and(suites::is_ours);
        let Some(UnbufferedStatus { discard, state, .. }) = process(&mut self.conn, wire.view(), self.may_assert)
        else {
            return Err(rustls::Error::General(UNSOUND.to_string()));
        };
        let next = match state {
            Ok(ConnectionState::ReadTraffic(mut data)) => {
                let mut done = Next::Again;
                while let Some(record) = data.next_record() {
                    let payload = record?.payload;
                    // rustls gives no data before the handshake is done, and none to a call that does not read: each call
                    // that does takes all there is.
                    let n = match goal {
                        Goal::Read(buf) if self.rest.is_empty() && matches!(done, Next::Again) => {
                            let n = payload.len().min(buf.len());
                            buf[..n].copy_from_slice(&payload[..n]);
                            done = Next::Done(n);
                            n
                        }
                        _ => 0,
                    };
                    if n < payload.len() {
                        self.rest.append(&payload[n..]);
                    }
                }
                Ok(done)
            }
            Ok(ConnectionState::WriteTraffic(mut traffic)) => match goal {
                Goal::Handshake => Ok(Next::Done(0)),
                Goal::Read(_) => Ok(Next::NeedsInput),
                Goal::Write(data) => {
                    // A record has at most a header, a nonce and a tag more than its plaintext.
                    const RECORD: usize = 16 * 1024;
                    const OVERHEAD: usize = 64;
                    let room = data.len() + (data.len() / RECORD + 2) * OVERHEAD;
                    fill(wire, room, |out| traffic.encrypt(data, out)).map(|()| Next::Done(data.len()))
                }
                Goal::Close => {
                    const ROOM: usize = 64;
                    let said = has_suite_of_ours.then(|| {
                        farewell::say(|| fill(wire, ROOM, |out| traffic.encrypt(&farewell::CLOSE_NOTIFY, out)))
                    });
                    // rustls itself says it even when its keys are used up.
                    let said = said.filter(Result::is_ok).unwrap_or_else(|| {
                        (self.may_assert, self.is_calm) = (true, false);
                        fill(wire, ROOM, |out| traffic.queue_close_notify(out))
                    });
                    said.map(|()| Next::Done(0))
                }
            },
            Ok(ConnectionState::EncodeTlsData(data)) => {
                encode(data, wire);
                Ok(Next::Again)
            }
            Ok(ConnectionState::TransmitTlsData(data)) => {
                data.done();
                Ok(Next::Again)
            }
            Ok(ConnectionState::PeerClosed) => match goal {
                Goal::Read(_) => Ok(Next::PeerClosed),
                _ => Ok(Next::Again),
            },
            // Both ends have said close_notify: there is nothing to be had and nothing more to say.
            Ok(ConnectionState::Closed) => match goal {
                Goal::Read(_) => Ok(Next::PeerClosed),
                _ => Ok(Next::Done(0)),
            },
            Ok(_) => Ok(Next::NeedsInput),
            Err(e) => Err(e),
        };
        wire.seen(discard);
        next
    }

    /// Puts the alert that goes with a failure on the wire, and says what failed. `judged`: what the peer has sent for a check.
    fn failure(&mut self, e: rustls::Error, judged: &[Certificate], wire: &mut Wire) -> Error {
        let before = wire.outgoing.len();
        self.say(wire);
        let unsaid = self.handshake_done && !wire.is_mute() && is_unsaid(&e);
        if unsaid {
            wire.with_forged_record(|wire| self.refuse(wire));
        }
        // rustls ends without a word on some messages that can't be parsed. Before there are keys we can say it ourselves.
        let in_the_clear = match self.version() {
            None => true,
            Some(version) => version == Version::Tls1_2 && is_general(&e, NO_SIGNATURE),
        };
        let is_peers = matches!(e, rustls::Error::AlertReceived(_));
        if let Some(alert) = alert_for(&e).filter(|_| in_the_clear && !is_peers && wire.outgoing.len() == before) {
            wire.send(&[21, 3, 3, 0, 2, 2, alert]);
        }
        let has_alerted = wire.outgoing.len() > before;
        match wire.alert_sent.filter(|_| has_alerted) {
            // TLS 1.2 has no certificate_required; its peers may not know it (RFC 5246, section 7.4.6).
            Some(CERTIFICATE_REQUIRED) if self.version() == Some(Version::Tls1_2) => {
                wire.amend_alert(HANDSHAKE_FAILURE)
            }
            // RFC 6066, section 3.
            Some(_) if is_general(&e, NO_CERTIFICATE) => wire.amend_alert(UNRECOGNIZED_NAME),
            _ => {}
        }
        let alert = match wire.alert_sent {
            None if unsaid => has_alerted.then_some(BAD_RECORD_MAC),
            None if has_alerted => alert_for(&e),
            alert => alert,
        };
        let (mut reason, mut verdict) = (None, None);
        match &e {
            rustls::Error::AlertReceived(alert) => reason = Some(Report::PEER_ALERT + u32::from(u8::from(*alert))),
            rustls::Error::NoCertificatesPresented => reason = Some(Report::PEER_DID_NOT_RETURN_A_CERTIFICATE),
            rustls::Error::InvalidCertificate(e) => {
                verdict = Some(verdict::verdict(words::fault(e), judged, &self.expected));
            }
            _ => {}
        }
        let (text, is_mute) = (words::text(&e), wire.is_mute());
        let report =
            Report { reason, alert_sent: alert, verdict, refused: judged.to_vec(), is_mute, text, ..Report::default() };
        report.judge().with_source(e)
    }

    /// Puts what waits in rustls on the wire.
    fn say(&mut self, wire: &mut Wire) {
        while self.conn.state().wants_write() {
            let UnbufferedStatus { discard, state, .. } = self.conn.process(wire.view());
            match state {
                Ok(ConnectionState::EncodeTlsData(data)) => encode(data, wire),
                Ok(ConnectionState::TransmitTlsData(data)) => data.done(),
                _ => return,
            }
            wire.seen(discard);
        }
    }

    /// Has rustls, which has failed, meet a forged record, for the alert that goes with that.
    fn refuse(&mut self, wire: &mut Wire) {
        // It gives its error again for each message that is left of the last record; each has a header of four bytes.
        for _ in 0..=16 * 1024 / 4 {
            let UnbufferedStatus { discard, state, .. } = self.conn.process(wire.view());
            if let Ok(ConnectionState::TransmitTlsData(data)) = state {
                data.done();
            }
            if self.conn.state().wants_write() {
                return self.say(wire);
            }
            wire.seen(discard);
        }
    }

    fn keep(&mut self, notes: Notes) {
        self.server_name = notes.server_name.or(self.server_name.take());
        self.shown = notes.shown.or(self.shown.take());
        self.ocsp_response = notes.ocsp_response.or(self.ocsp_response.take());
        self.secret = notes.secret.or(self.secret.take());
        if let Some(resuming) = &mut self.resuming {
            resuming.keep(notes.sessions, notes.ticket);
        }
    }

    fn keep_ticket(&mut self, ticket: Option<Ticket>) {
        self.tickets = self.conn.tickets();
        if let Some(resuming) = &mut self.resuming {
            resuming.keep(Vec::new(), ticket);
        }
    }

    /// Sees to it that there are tickets for those who resume this connection's session.
    fn ready_tickets(&mut self, wire: &mut Wire) {
        // rustls must not be amid a message of the peer's, nor at an end.
        while self.handshake_done && !wire.is_mute() && !wire.holds() {
            let Some(ticket) = self.resuming.as_ref().and_then(Resuming::wanting) else { return };
            let mut record = ticket.record();
            let ((), notes) = notes::during(Some(Notes::private()), || again(|| self.meet(&mut record, wire)));
            let sessions = notes.map(|notes| notes.sessions).unwrap_or_default();
            let Some(resuming) = &mut self.resuming else { return };
            if sessions.is_empty() {
                resuming.forget_ticket();
            }
            resuming.keep(sessions, None);
            self.tickets = self.conn.tickets();
        }
    }

    /// Has rustls work on a record that is not on the wire.
    fn meet(&mut self, mut record: &mut [u8], wire: &mut Wire) {
        while !record.is_empty() {
            let UnbufferedStatus { discard, state, .. } = self.conn.process(record);
            match state {
                Ok(ConnectionState::EncodeTlsData(data)) => encode(data, wire),
                Ok(ConnectionState::TransmitTlsData(data)) => data.done(),
                _ if discard == 0 => return,
                _ => {}
            }
            record = &mut record[discard..];
        }
    }
}

/// Whether it is one in the clear.
fn is_close_notify(record: &[u8]) -> bool {
    matches!(record, [21, _, _, 0, 2, _level, 0])
}

/// A protected record is authenticated with its header as it came (RFC 8446, section 5.2); rustls takes type and version for
/// what they should be. Wrong ones must not pass.
fn spoil_forged_header(record: &mut [u8]) {
    const CHANGE_CIPHER_SPEC: u8 = 20;
    const APPLICATION_DATA: u8 = 23;
    match record {
        // The one that is never protected is refused for being there.
        [APPLICATION_DATA, 3, 3, ..] | [CHANGE_CIPHER_SPEC, ..] => {}
        [_, _, _, _, _, .., last] => *last ^= 1,
        _ => {}
    }
}

/// `None`: a debug build of rustls has panicked. It asserts that nothing is wrong with what comes behind an alert of ours, if it
/// knows of that: on contexts made elsewhere (see `farewell`).
fn process<'c, 'i, C: Unbuffered>(
    conn: &'c mut C,
    incoming: &'i mut [u8],
    may_assert: bool,
) -> Option<UnbufferedStatus<'c, 'i, C::Data>> {
    if !(may_assert && cfg!(debug_assertions)) {
        return Some(conn.process(incoming));
    }
    let call = AssertUnwindSafe((conn, incoming));
    catch_unwind(move || {
        let AssertUnwindSafe((conn, incoming)) = { call };
        conn.process(incoming)
    })
    .ok()
}

/// Lets rustls write ciphertext, in as much room as it turns out to need.
#[inline]
fn fill(
    wire: &mut Ends,
    mut room: usize,
    mut write: impl FnMut(&mut [u8]) -> Result<usize, EncryptError>,
) -> Result<(), rustls::Error> {
    loop {
        match write(wire.room(room)) {
            Ok(n) => {
                wire.put(n);
                return Ok(());
            }
            Err(EncryptError::InsufficientSize(e)) => room = e.required_size,
            Err(EncryptError::EncryptExhausted) => return Err(rustls::Error::EncryptError),
        }
    }
}

fn encode<D>(mut data: EncodeTlsData<'_, D>, wire: &mut Ends) {
    if let Err(EncodeError::InsufficientSize(e)) = data.encode(&mut []) {
        if let Ok(n) = data.encode(wire.room(e.required_size)) {
            wire.put(n);
        }
    }
}

const UNSOUND: &str = "the peer broke the protocol behind our close_notify";

const BAD_RECORD_MAC: u8 = 20;
const HANDSHAKE_FAILURE: u8 = 40;
const UNRECOGNIZED_NAME: u8 = 112;
const CERTIFICATE_REQUIRED: u8 = 116;

/// Errors that rustls has in words only: our closure for certificates gave none, our key can't sign as the peer wants.
const NO_CERTIFICATE: &str = "no server certificate chain resolved";
const NO_SIGNATURE: &str = "incompatible signing key";

fn is_general(e: &rustls::Error, what: &str) -> bool {
    matches!(e, rustls::Error::General(text) if text == what)
}

/// Whether rustls ends with this error and sends no alert: its limits.
fn is_unsaid(e: &rustls::Error) -> bool {
    use rustls::PeerMisbehaved::{
        MessageInterleavedWithHandshakeMessage, TooManyEmptyFragments, TooManyKeyUpdateRequests,
        TooManyRenegotiationRequests, TooManyWarningAlertsReceived,
    };
    matches!(
        e,
        rustls::Error::PeerMisbehaved(
            MessageInterleavedWithHandshakeMessage
                | TooManyEmptyFragments
                | TooManyKeyUpdateRequests
                | TooManyRenegotiationRequests
                | TooManyWarningAlertsReceived
        )
    )
}

/// The alert that rustls sends for an error, for when it went out encrypted and could not be seen.
fn alert_for(e: &rustls::Error) -> Option<u8> {
    use rustls::{Error, PeerMisbehaved};
    let alert = match e {
        Error::InvalidCertificate(e) => e.clone().into(),
        Error::NoCertificatesPresented => AlertDescription::CertificateRequired,
        Error::InvalidMessage(InvalidMessage::InvalidKeyUpdate) => AlertDescription::IllegalParameter,
        Error::InvalidMessage(e) => (*e).into(),
        Error::PeerSentOversizedRecord => AlertDescription::RecordOverflow,
        Error::DecryptError => AlertDescription::BadRecordMac,
        Error::InappropriateMessage { .. } | Error::InappropriateHandshakeMessage { .. } => {
            AlertDescription::UnexpectedMessage
        }
        Error::PeerMisbehaved(
            PeerMisbehaved::IllegalMiddleboxChangeCipherSpec | PeerMisbehaved::KeyEpochWithPendingFragment,
        ) => AlertDescription::UnexpectedMessage,
        Error::PeerMisbehaved(_) => AlertDescription::IllegalParameter,
        Error::PeerIncompatible(_) => AlertDescription::HandshakeFailure,
        _ if is_general(e, NO_SIGNATURE) => AlertDescription::HandshakeFailure,
        Error::NoApplicationProtocol => AlertDescription::NoApplicationProtocol,
        _ => return None,
    };
    Some(alert.into())
}

impl<C: Unbuffered> Session for RustlsSession<C> {
    fn handshake(&mut self, wire: &mut Wire) -> Result<(), Stop> {
        if !self.handshake_done {
            self.run(wire, Goal::Handshake, None)?;
            self.handshake_done = true;
            self.is_calm = !self.resuming.as_ref().is_some_and(Resuming::is_private);
            let resumed = self.is_resumed() == Some(true);
            if let Some(resuming) = &mut self.resuming {
                resuming.shaken(resumed);
            }
        }
        Ok(())
    }

    fn read(&mut self, wire: &mut Wire, buf: &mut [u8]) -> Result<usize, Stop> {
        if !self.rest.is_empty() {
            return Ok(self.rest.read_into(buf));
        }
        match self.is_calm && wire.admits_data() {
            true => self.run_calmly(wire, Goal::Read(buf)),
            false => self.run(wire, Goal::Read(buf), None),
        }
    }

    fn write(&mut self, wire: &mut Wire, data: &[u8]) -> Result<usize, Stop> {
        wire.withhold();
        match self.is_calm {
            true => self.run_calmly(wire, Goal::Write(data)),
            false => self.run(wire, Goal::Write(data), None),
        }
    }

    fn close(&mut self, wire: &mut Wire) -> Result<(), Stop> {
        wire.withhold();
        self.run(wire, Goal::Close, None).map(drop)
    }

    fn pending(&self) -> usize {
        self.rest.len()
    }

    fn resumable(&mut self, wire: &mut Wire) -> Option<Resumable> {
        let shared = self.resuming.as_mut().map(Resuming::share);
        self.ready_tickets(wire);
        shared
    }

    fn version(&self) -> Option<Version> {
        match self.conn.state().protocol_version()? {
            ProtocolVersion::TLSv1_2 => Some(Version::Tls1_2),
            ProtocolVersion::TLSv1_3 => Some(Version::Tls1_3),
            _ => None,
        }
    }

    fn cipher(&self) -> Option<String> {
        Some(names::suite(self.conn.state().negotiated_cipher_suite()?.suite()))
    }

    fn alpn(&self) -> Option<Vec<u8>> {
        self.conn.state().alpn_protocol().map(<[u8]>::to_vec)
    }

    fn server_name(&self) -> Option<String> {
        self.server_name.clone()
    }

    fn peer_certificate(&self) -> Option<Certificate> {
        self.peer_certificates()?.into_iter().next()
    }

    fn peer_certificates(&self) -> Option<Vec<Certificate>> {
        let chain = self.conn.state().peer_certificates()?;
        Some(chain.iter().map(|certificate| Certificate::from_library(certificate.to_vec())).collect())
    }

    fn verified_chain(&self) -> Option<Vec<Certificate>> {
        let chain = self.conn.state().peer_certificates()?;
        match self.is_resumed()? {
            true => None,
            false => self.verifier.as_ref()?.verified_chain(chain),
        }
    }

    fn group(&self) -> Option<String> {
        Some(names::group(self.conn.state().negotiated_key_exchange_group()?.name()))
    }

    fn ocsp_response(&self) -> Option<Vec<u8>> {
        self.ocsp_response.clone()
    }

    fn is_resumed(&self) -> Option<bool> {
        Some(self.conn.state().handshake_kind()? == HandshakeKind::Resumed)
    }

    fn has_extended_master_secret(&self) -> Option<bool> {
        Some(self.server_hello.facts()?.has_extended_master_secret)
    }

    fn tls_server_end_point(&self) -> Option<Vec<u8>> {
        match self.is_server {
            true => end_point(self.shown.as_deref()?),
            false => end_point(self.conn.state().peer_certificates()?.first()?),
        }
    }

    fn export_keying_material(&self, out: &mut [u8], label: &str, context: Option<&[u8]>) -> Result<(), Error> {
        match (self.conn.state().negotiated_cipher_suite(), &self.secret, self.server_hello.facts()) {
            (Some(suite), Some(secret), Some(server_hello)) => {
                export(suite, secret, &server_hello.random, out, label, context)
            }
            _ => Err(Error::new(ErrorKind::NotOpen, "the handshake is not done")),
        }
    }
}
