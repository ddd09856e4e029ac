mod bounds;
mod input;

use std::fmt;
use std::io;

use crate::alert::Alert;
use crate::certificate::Certificate;
use crate::context::{Context, Resume};
use crate::engine::{Buffer, PlainText, Session, Stop, Wire};
use crate::error::{Error, ErrorKind};
use crate::role::Role;
use crate::version::{Bounds, Version};
use bounds::Spent;

/// A TLS connection without I/O, for those who bring their own: it knows no socket, no lock and no clock.
///
/// What the peer sent goes in with [`feed`](Connection::feed), what the peer is to get comes out with
/// [`output`](Connection::output); after any call there may be new output. Nothing here blocks: `WouldBlock` means that
/// more input is needed.
///
/// | state | `handshake` | `read` | `write` |
/// |---|---|---|---|
/// | handshaking | `WouldBlock` | `WouldBlock` | `WouldBlock` |
/// | open | `Ok` | data, or `WouldBlock` | accepts |
/// | the peer has said close_notify | `Ok` | what is left, then `Ok(0)` | accepts |
/// | the input ended without it | `Ok` | what is left, then `BrokenPipe` | accepts |
/// | after `close` | `Ok` | as before | `BrokenPipe` |
/// | failed | the failure | what is left, then the failure | the failure |
///
/// ```
/// use sslfile::{Connection, Context};
/// # fn main() -> std::io::Result<()> {
/// let context = Context::builder().system_roots(false).build()?;
/// let mut connection = Connection::client(&context, "example.com")?;
/// assert_eq!(connection.handshake().unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
/// let hello = connection.output().to_vec();
/// connection.consume_output(hello.len()); // sent to the server by some means
/// # assert!(!hello.is_empty());
/// # Ok(())
/// # }
/// ```
pub struct Connection {
    session: Box<dyn Session>,
    wire: Wire,
    /// Decrypted ahead of being read.
    plain: Buffer,
    role: Role,
    /// Whom we expect, on a client.
    expected: String,
    lenient_eof: bool,
    /// A user is told of clients without TLS and may answer them: an alert in front of that would spoil the answer.
    answers_plain: bool,
    handshake_done: bool,
    /// The handshake has been begun: the library has been called.
    begun: bool,
    /// The first bytes look like TLS.
    recognised: bool,
    /// Bytes that have come from the peer.
    received: u64,
    /// No TLS at all: bytes pass as they are.
    plain_text: bool,
    /// Nothing more will come, and why: the end of the stream, or an error of it.
    input_end: Option<Option<Error>>,
    /// Reading has come to its end.
    end: Option<End>,
    /// Both directions are over.
    failure: Option<Error>,
    close: CloseNotify,
    discarded: bool,
    /// The library can't encrypt before something more comes: it renegotiates.
    refuses_writes: bool,
    /// The most plaintext for one record.
    fragment: usize,
    alerts: Vec<Alert>,
    /// What the peer has cost without sending data.
    spent: Spent,
}

/// What has gone over a connection, in both directions: TLS records and the bytes in them, handshake included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Traffic {
    /// Bytes that have come from the peer.
    pub bytes_received: u64,
    /// Bytes made for the peer.
    pub bytes_sent: u64,
    /// Records that have come from the peer and have been looked at.
    pub records_received: u64,
    /// Records made for the peer.
    pub records_sent: u64,
}

/// How reading ended. Sticky.
#[derive(Clone)]
enum End {
    CloseNotify,
    /// The stream ended where that is no cut: before a client's first byte, or with `lenient_eof`.
    Bare,
    Failed(Error),
}

/// Our close_notify.
#[derive(Clone, Copy, PartialEq, Eq)]
enum CloseNotify {
    NotAsked,
    /// Waits for the end of the handshake.
    Asked,
    Queued,
}

impl Connection {
    /// A client that expects the peer to be `server_name`: a DNS name or an IP address.
    ///
    /// Errors: `InvalidInput` for a name that is neither.
    pub fn client(context: &Context, server_name: &str) -> io::Result<Connection> {
        Ok(Connection::open(context, Role::Client, server_name, Bounds::default(), None)?)
    }

    /// A server.
    ///
    /// Errors: `InvalidInput` if the context has no identity.
    pub fn server(context: &Context) -> io::Result<Connection> {
        Ok(Connection::open(context, Role::Server, "", Bounds::default(), None)?)
    }

    pub(crate) fn open(
        context: &Context,
        role: Role,
        server_name: &str,
        versions: Bounds,
        resume: Option<&Resume>,
    ) -> Result<Connection, Error> {
        let expected = match role {
            Role::Client => canonical_name(server_name)?,
            Role::Server => String::new(),
        };
        Ok(Connection {
            session: context.open(role, &expected, versions, resume)?,
            wire: Wire::default(),
            plain: Buffer::for_plaintext(),
            role,
            expected,
            lenient_eof: context.lenient_eof(),
            answers_plain: role == Role::Server && context.on_alert().is_some(),
            handshake_done: false,
            begun: false,
            recognised: false,
            received: 0,
            plain_text: false,
            input_end: None,
            end: None,
            failure: None,
            close: CloseNotify::NotAsked,
            discarded: false,
            refuses_writes: false,
            fragment: context.max_fragment_size().unwrap_or(usize::MAX),
            alerts: Vec::new(),
            spent: Spent::default(),
        })
    }

    /// Takes ciphertext from the peer.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.received += bytes.len() as u64;
        self.refuses_writes = false;
        self.wire.incoming.append(bytes);
    }

    /// The peer's stream has ended.
    pub fn feed_eof(&mut self) {
        self.refuses_writes = false;
        self.input_end.get_or_insert(None);
    }

    /// Ciphertext for the peer.
    pub fn output(&self) -> &[u8] {
        self.wire.outgoing.as_slice()
    }

    /// The first `n` bytes of the output are on their way.
    pub fn consume_output(&mut self, n: usize) {
        self.wire.outgoing.consume(n);
        self.spent.handed_on(&self.wire);
    }

    /// Goes on with the handshake as far as the input allows.
    ///
    /// Errors: `WouldBlock`: needs more input. Else the handshake has failed for good: `InvalidData` with the cause in
    /// [`Error`], `BrokenPipe` if the input ended; there may be an alert to send.
    pub fn handshake(&mut self) -> io::Result<()> {
        self.advance();
        match (&self.failure, self.handshake_done) {
            (Some(failure), _) => Err(failure.to_io()),
            (None, true) => Ok(()),
            (None, false) => Err(needs_input()),
        }
    }

    /// Whether application data can flow.
    #[inline]
    pub fn is_handshake_done(&self) -> bool {
        self.handshake_done
    }

    /// Decrypts what is there, up to the buffer. `Ok(0)`: the peer's close_notify, or, on a server, an input that
    /// ended before its first byte, or an empty buffer.
    ///
    /// Errors: `WouldBlock`: needs more input. `BrokenPipe`: the input ended without close_notify. Else as
    /// [`handshake`](Connection::handshake). All are given after the data that came before, and again on each call.
    pub fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if buf.is_empty() {
            return Ok(0);
        }
        let mut n = if self.plain.is_empty() { 0 } else { self.plain.read_into(buf) };
        while n < buf.len() {
            // There is something to give, and nothing that could add to it.
            if n > 0 && self.wire.incoming.is_empty() && self.session.pending() == 0 {
                break;
            }
            match self.decrypt(&mut buf[n..]) {
                Some(more) => n += more,
                None => break,
            }
        }
        if n > 0 {
            return Ok(n);
        }
        match &self.end {
            None => Err(needs_input()),
            Some(End::CloseNotify | End::Bare) => Ok(0),
            Some(End::Failed(error)) => Err(error.to_io()),
        }
    }

    /// Encrypts all of `data`, for the output.
    ///
    /// Errors: `WouldBlock` before the handshake is done, and while a renegotiation waits for the peer (`Native` only);
    /// `BrokenPipe` after `close`; the failure, if there was one.
    pub fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        if data.is_empty() {
            return Ok(0);
        }
        let is_open = self.handshake_done && self.failure.is_none() && self.close == CloseNotify::NotAsked;
        if !is_open || self.refuses_writes {
            self.advance();
            if let Some(error) = self.write_error() {
                return Err(error.to_io());
            }
            if !self.handshake_done || self.refuses_writes {
                return Err(needs_input());
            }
        }
        let mut n = 0;
        while n < data.len() {
            let next = &data[n..];
            match self.session.write(&mut self.wire, &next[..next.len().min(self.fragment)]) {
                Ok(0) => break,
                Ok(more) => n += more,
                Err(Stop::NeedsInput) if n == 0 && self.catch_up() => {}
                Err(Stop::NeedsInput) => break,
                Err(Stop::Failed(error)) => {
                    self.fail(error.during("writing"));
                    break;
                }
            }
        }
        match (n, &self.failure) {
            (0, Some(failure)) => Err(failure.to_io()),
            (0, None) => Err(needs_input()),
            _ => Ok(n),
        }
    }

    /// Queues close_notify, behind all that was written; before the end of a handshake: as soon as it is done.
    /// Reading goes on. Again: nothing.
    ///
    /// Errors: the failure, if there was one.
    pub fn close(&mut self) -> io::Result<()> {
        if let Some(failure) = &self.failure {
            return Err(failure.to_io());
        }
        if self.close == CloseNotify::NotAsked {
            self.close = CloseNotify::Asked;
        }
        self.queue_close_notify();
        Ok(())
    }

    /// The peer's close_notify has been read.
    pub fn is_peer_closed(&self) -> bool {
        matches!(self.end, Some(End::CloseNotify))
    }

    /// Input behind the peer's close_notify; after a failure, the input that TLS did not consume. Empty before.
    pub fn take_unread(&mut self) -> Vec<u8> {
        if self.end.is_none() && self.failure.is_none() {
            return Vec::new();
        }
        self.wire.take_input()
    }

    /// The alerts (RFC 8446, section 6) sent and received since the last call.
    pub fn take_alerts(&mut self) -> Vec<Alert> {
        std::mem::take(&mut self.alerts)
    }

    /// What has gone over the connection so far.
    pub fn traffic(&self) -> Traffic {
        Traffic {
            bytes_received: self.received,
            bytes_sent: self.wire.bytes_sent(),
            records_received: self.wire.records_received,
            records_sent: self.wire.records_sent(),
        }
    }

    /// The version agreed on, if the engine knows it.
    pub fn version(&self) -> Option<Version> {
        self.session.version().filter(|_| self.handshake_done)
    }

    /// The cipher suite agreed on, by OpenSSL's name for it, if the engine knows it.
    pub fn cipher(&self) -> Option<String> {
        self.session.cipher().filter(|_| self.handshake_done)
    }

    /// The group of the key exchange, by its name in the registry of IANA ("x25519", "secp256r1", "X25519MLKEM768"), if the
    /// engine knows it.
    pub fn group(&self) -> Option<String> {
        self.session.group().filter(|_| self.handshake_done)
    }

    /// The protocol agreed on with ALPN.
    pub fn alpn(&self) -> Option<Vec<u8>> {
        self.session.alpn().filter(|_| self.handshake_done)
    }

    /// On a client the name it expects; on a server the name the client asked for (SNI), if the engine knows it.
    pub fn server_name(&self) -> Option<String> {
        match self.role {
            Role::Client => Some(self.expected.clone()),
            Role::Server => self.session.server_name(),
        }
    }

    /// The peer's own certificate.
    pub fn peer_certificate(&self) -> Option<Certificate> {
        self.session.peer_certificate()
    }

    /// Key material bound to this connection (RFC 5705; RFC 8446, section 7.5), the same on both ends.
    ///
    /// Errors: `Unsupported` if the engine has none; `NotConnected` before the end of the handshake.
    pub fn export_keying_material(&self, out: &mut [u8], label: &str, context: Option<&[u8]>) -> io::Result<()> {
        if !self.handshake_done {
            return Err(Error::new(ErrorKind::NotOpen, "the handshake is not done").into());
        }
        Ok(self.session.export_keying_material(out, label, context)?)
    }
}

/// For the file, which has locks and a stream around this.
impl Connection {
    /// One without TLS, for files without: what goes in comes out.
    pub(crate) fn without_tls() -> Connection {
        Connection {
            session: Box::new(PlainText),
            wire: Wire::default(),
            plain: Buffer::default(),
            role: Role::Client,
            expected: String::new(),
            lenient_eof: true,
            answers_plain: false,
            handshake_done: true,
            begun: true,
            recognised: true,
            received: 0,
            plain_text: true,
            input_end: None,
            end: None,
            failure: None,
            close: CloseNotify::NotAsked,
            discarded: false,
            refuses_writes: false,
            fragment: usize::MAX,
            alerts: Vec::new(),
            spent: Spent::default(),
        }
    }

    /// One whose session is a test's.
    #[cfg(test)]
    pub(crate) fn with_session(session: Box<dyn Session>, role: Role) -> Connection {
        Connection {
            session,
            role,
            lenient_eof: false,
            handshake_done: false,
            begun: false,
            recognised: false,
            plain_text: false,
            ..Connection::without_tls()
        }
    }

    pub(crate) fn is_plain_text(&self) -> bool {
        self.plain_text
    }

    /// Nothing more will come: what is still to be decrypted is all there is.
    #[inline]
    pub(crate) fn is_input_over(&self) -> bool {
        self.end.is_some() || self.input_end.is_some()
    }

    /// Bytes that have come and have not been read, decrypted or not.
    pub(crate) fn ahead(&self) -> usize {
        self.plain.len() + self.wire.incoming.len()
    }

    /// Whether a read would look at something: data, input, an end.
    #[inline]
    pub(crate) fn has_news(&mut self) -> bool {
        if self.wire.incoming.is_empty() && self.handshake_done && self.session.pending() == 0 {
            return !self.plain.is_empty() || self.end.is_some() || self.input_end.is_some();
        }
        !self.plain.is_empty() || self.end.is_some() || self.input_end.is_some() || self.has_input()
    }

    /// The same, or a record of which a part has come.
    #[inline]
    pub(crate) fn may_have_news(&self) -> bool {
        !self.wire.incoming.is_empty()
            || !self.plain.is_empty()
            || self.end.is_some()
            || self.input_end.is_some()
            || self.session.pending() > 0
    }

    /// Whether a read might give data at once.
    pub(crate) fn may_give_data(&mut self) -> bool {
        !self.plain.is_empty() || (self.handshake_done && self.end.is_none() && self.has_input())
    }

    /// A client that has yet to say its first words.
    pub(crate) fn is_to_speak_first(&self) -> bool {
        !self.begun && self.role == Role::Client
    }

    pub(crate) fn role(&self) -> Role {
        self.role
    }

    /// As `feed`, without copying.
    #[inline(always)]
    pub(crate) fn feed_buffer(&mut self, bytes: Buffer) {
        self.received += bytes.len() as u64;
        self.refuses_writes = false;
        self.wire.incoming.append_buffer(bytes);
    }

    /// The peer's stream has failed.
    pub(crate) fn feed_error(&mut self, error: Error) {
        self.refuses_writes = false;
        self.input_end.get_or_insert(Some(error));
    }

    #[inline]
    pub(crate) fn has_output(&self) -> bool {
        !self.wire.outgoing.is_empty()
    }

    #[inline]
    pub(crate) fn take_output(&mut self) -> Buffer {
        self.spent.taken();
        std::mem::take(&mut self.wire.outgoing)
    }

    /// The stream takes nothing more: nothing more is made for it.
    pub(crate) fn mute(&mut self) {
        self.wire.mute();
    }

    /// Reading has come to its end and all data has been taken.
    pub(crate) fn is_read_to_end(&self) -> bool {
        self.end.is_some() && self.plain.is_empty()
    }

    /// Why reading ended, if not cleanly.
    pub(crate) fn read_error(&self) -> Option<&Error> {
        match &self.end {
            Some(End::Failed(error)) => Some(error),
            _ => None,
        }
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.end.is_some()
    }

    /// Reading has ended, and not with an error.
    pub(crate) fn has_ended_well(&self) -> bool {
        matches!(self.end, Some(End::CloseNotify | End::Bare))
    }

    #[inline]
    pub(crate) fn failure(&self) -> Option<&Error> {
        self.failure.as_ref()
    }

    /// Why nothing more may be written.
    pub(crate) fn write_error(&self) -> Option<Error> {
        match (&self.failure, self.close) {
            (Some(failure), _) => Some(failure.clone()),
            (None, CloseNotify::NotAsked) => None,
            (None, _) => Some(write_shut_down()),
        }
    }

    /// The alert the peer may wait for before it goes on: all of the handshake's output but a server's tickets.
    pub(crate) fn output_is_optional(&self) -> bool {
        self.handshake_done && self.role == Role::Server && self.session.version() == Some(Version::Tls1_3)
    }

    /// As `read`, into our own buffer: up to `limit` bytes in all. Says whether reading would give something at once:
    /// data, or the end.
    pub(crate) fn read_ahead(&mut self, limit: usize) -> bool {
        while self.plain.len() < limit {
            self.advance();
            let may_have_data = self.handshake_done && self.end.is_none() && self.has_input();
            if !may_have_data {
                self.look_for_end();
                break;
            }
            // Moved out while in use, as `decrypt` has us whole.
            let mut plain = std::mem::take(&mut self.plain);
            let got = self.decrypt(&mut plain.space(16 * 1024)[..16 * 1024]);
            plain.filled(got.unwrap_or(0));
            self.plain = plain;
            if got.is_none() {
                break;
            }
        }
        !self.plain.is_empty() || self.end.is_some()
    }

    /// As `read`, into one buffer after the other.
    pub(crate) fn read_vectored(&mut self, bufs: &mut [io::IoSliceMut<'_>]) -> io::Result<usize> {
        let mut n = 0;
        for buf in bufs.iter_mut().filter(|buf| !buf.is_empty()) {
            match self.read(buf) {
                Ok(0) => break,
                Ok(more) => n += more,
                Err(e) if n == 0 => return Err(e),
                Err(_) => break,
            }
        }
        Ok(n)
    }

    pub(crate) fn peek(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.read_ahead(buf.len());
        let ready = self.plain.as_slice();
        if ready.is_empty() {
            return self.read(buf);
        }
        let n = ready.len().min(buf.len());
        buf[..n].copy_from_slice(&ready[..n]);
        Ok(n)
    }

    /// Decrypted bytes that can be read at once; at least one if there are any.
    pub(crate) fn pending(&mut self) -> usize {
        if self.plain.is_empty() && self.session.pending() == 0 {
            self.read_ahead(1);
        }
        self.plain.len() + if self.handshake_done { self.session.pending() } else { 0 }
    }

    /// Decrypts what has come and throws it away, what was decrypted before excepted. Says whether reading has ended.
    pub(crate) fn discard_input(&mut self) -> bool {
        // Who has not shaken hands does not begin to, only to throw away what comes of it.
        if !self.handshake_done {
            self.wire.clear_input();
        } else if self.end.is_none() && self.has_input() {
            let mut away = [0; 4096];
            while self.decrypt(&mut away).is_some() {
                self.discarded = true;
            }
        }
        self.look_for_end();
        self.end.is_some()
    }

    /// The same, and what was decrypted before.
    pub(crate) fn discard_all(&mut self) {
        self.plain.clear();
        self.discard_input();
    }

    /// Data has been discarded: the peer was still sending when we closed.
    pub(crate) fn has_discarded(&self) -> bool {
        self.discarded
    }

    /// Puts plaintext back in front of what will be read next.
    pub(crate) fn unread(&mut self, bytes: &[u8]) {
        let later = std::mem::replace(&mut self.plain, Buffer::for_plaintext());
        self.plain.append(bytes);
        self.plain.append_buffer(later);
    }

    /// Bytes decrypted ahead.
    pub(crate) fn plain_len(&self) -> usize {
        self.plain.len()
    }

    /// Input that TLS has not consumed, whatever the state.
    pub(crate) fn take_input(&mut self) -> Vec<u8> {
        if self.plain_text {
            // What was decrypted, so to speak, comes first.
            self.plain.append(self.wire.incoming.as_slice());
            self.wire.incoming.clear();
            return self.plain.take_vec();
        }
        self.wire.take_input()
    }

    /// Gives back memory that an idle connection does not need.
    pub(crate) fn trim(&mut self) {
        self.wire.incoming.shrink();
    }

    pub(crate) fn session(&self) -> &dyn Session {
        self.session.as_ref()
    }

    /// For others of this context, its own, to resume.
    pub(crate) fn resumable(&mut self, context: Context) -> Resume {
        Resume::Of { context, role: self.role, session: self.session.resumable(&mut self.wire) }
    }

    /// Ends the connection with an error of ours; what was decrypted can still be read.
    pub(crate) fn fail(&mut self, error: Error) {
        self.refuses_writes = false;
        if self.failure.is_none() {
            self.failure = Some(error.clone());
            if let Some((number, is_ours)) = error.alert() {
                self.note_alert(number, is_ours);
            }
        }
        self.end.get_or_insert(End::Failed(error));
    }

    fn note_alert(&mut self, number: u8, is_ours: bool) {
        self.alerts.push(Alert { number, is_ours, role: self.role, peer: String::new(), not_tls: None });
    }

    /// Those that have not been taken yet.
    #[cfg(feature = "log")]
    pub(crate) fn alerts(&self) -> &[Alert] {
        &self.alerts
    }

    #[inline]
    pub(crate) fn has_alerts(&self) -> bool {
        !self.alerts.is_empty()
    }

    /// Whether the library has something to work on.
    #[inline(always)]
    fn has_input(&mut self) -> bool {
        match self.plain_text {
            true => !self.wire.incoming.is_empty(),
            false => (self.handshake_done && self.session.pending() > 0) || self.wire.admit_record(),
        }
    }

    /// The handshake, as far as the input goes.
    #[inline]
    fn advance(&mut self) {
        if !self.handshake_done {
            self.shake_hands();
        }
    }

    fn shake_hands(&mut self) {
        while !self.handshake_done && self.failure.is_none() {
            if !self.recognise() {
                return;
            }
            let speaks_first = !self.begun && self.role == Role::Client;
            if !speaks_first && !self.has_input() {
                return self.look_for_end();
            }
            self.begun = true;
            let before = self.wire.unseen();
            match self.session.handshake(&mut self.wire) {
                Ok(()) => {
                    self.handshake_done = true;
                    self.queue_close_notify();
                }
                Err(Stop::NeedsInput) if speaks_first || self.wire.unseen() < before => {}
                Err(Stop::NeedsInput) => return self.look_for_end(),
                Err(Stop::Failed(error)) => return self.fail(error.during("TLS handshake")),
            }
        }
    }

    /// One record's worth. `None`: there is no more, for now or for ever.
    #[inline(always)]
    fn decrypt(&mut self, buf: &mut [u8]) -> Option<usize> {
        self.advance();
        while self.handshake_done && self.end.is_none() {
            if !self.has_input() {
                self.look_for_end();
                return None;
            }
            let (unseen, sent) = (self.wire.unseen(), self.wire.bytes_sent());
            match self.session.read(&mut self.wire, buf) {
                Ok(0) => {
                    self.end = Some(End::CloseNotify);
                    self.note_alert(CLOSE_NOTIFY, false);
                }
                Ok(n) => {
                    self.spent.on_data();
                    return Some(n);
                }
                // A record without data for us: a ticket, a key update.
                Err(Stop::NeedsInput) if self.wire.unseen() < unseen => self.account(unseen, sent),
                Err(Stop::NeedsInput) => {
                    self.look_for_end();
                    return None;
                }
                Err(Stop::Failed(error)) => self.fail_reading(error, sent),
            }
        }
        None
    }

    fn queue_close_notify(&mut self) {
        if self.close != CloseNotify::Asked || !self.handshake_done || self.failure.is_some() || self.refuses_writes {
            return;
        }
        let mut closed = self.session.close(&mut self.wire);
        while matches!(closed, Err(Stop::NeedsInput)) {
            if !self.catch_up() {
                return;
            }
            closed = self.session.close(&mut self.wire);
        }
        self.close = CloseNotify::Queued;
        match closed {
            Err(Stop::Failed(error)) => self.fail(error.during("closing")),
            _ if self.plain_text => {}
            _ => {
                self.note_alert(CLOSE_NOTIFY, true);
                // Nothing goes behind it: no answer to a key update, no alert (RFC 8446, section 6.1).
                self.wire.mute();
            }
        }
    }
}

impl Connection {
    /// The library encrypts nothing for now, as it waits for the peer's part of a renegotiation. Reads what has come of that;
    /// says whether anything has.
    fn catch_up(&mut self) -> bool {
        let before = self.wire.unseen();
        self.read_ahead(usize::MAX);
        if self.end.is_some() {
            let text = "the connection has ended in the middle of a renegotiation";
            self.fail(Error::new(ErrorKind::Truncated, text));
        }
        self.refuses_writes = self.failure.is_none() && self.wire.unseen() == before;
        self.failure.is_none() && !self.refuses_writes
    }

    /// Nothing can be encrypted before something more comes.
    #[inline]
    pub(crate) fn refuses_writes(&self) -> bool {
        self.refuses_writes
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("role", &self.role)
            .field("server_name", &self.server_name())
            .field("handshake_done", &self.handshake_done)
            .field("peer_closed", &self.is_peer_closed())
            .field("failure", &self.failure)
            .finish_non_exhaustive()
    }
}

const CLOSE_NOTIFY: u8 = 0;

/// Made for every read that finds nothing: without allocation.
fn needs_input() -> io::Error {
    io::ErrorKind::WouldBlock.into()
}

pub(crate) fn write_shut_down() -> Error {
    Error::new(ErrorKind::NotOpen, "writing has been shut down").with_io_kind(io::ErrorKind::BrokenPipe)
}

/// The name as certificates have it: no brackets around an IPv6 address, no dot at the end.
fn canonical_name(name: &str) -> Result<String, Error> {
    let bare = name.strip_prefix('[').and_then(|n| n.strip_suffix(']')).unwrap_or(name);
    if bare.parse::<std::net::IpAddr>().is_ok() {
        return Ok(bare.to_string());
    }
    let bare = name.strip_suffix('.').unwrap_or(name);
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let why = match bare {
        "" => "it is empty",
        _ if bare.contains('\0') => "it has a NUL in it",
        _ if !bare.is_ascii() => "it is not ASCII: give the name in punycode (xn--…)",
        _ if bare.len() > 253 => "it is longer than 253 bytes",
        _ if !bare.chars().all(fits) => "it is neither a DNS name nor an IP address",
        _ if bare.split('.').any(|label| label.is_empty() || label.len() > 63) => "it has a label of wrong length",
        _ => return Ok(bare.to_string()),
    };
    Err(Error::invalid_input(format!("{name:?} cannot be a server's name: {why}")))
}
