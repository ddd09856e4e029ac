//! The TLS file: a [`Connection`](crate::Connection) behind a short lock, and the stream beside it.

mod error;
mod faces;
mod options;
mod plain;
mod server_address;
mod tcp;
mod wrapped;

use std::fmt;
use std::io;
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::Ordering;
use std::sync::Arc;
use std::time::Duration;

pub use error::{OpenError, ReleaseError};
pub use options::{Handshake, SslOptions};
pub use plain::PlainFile;
pub(crate) use server_address::without_scope;
pub use server_address::ToServer;

use crate::certificate::Certificate;
use crate::connection::Traffic;
use crate::context::{Context, Resume};
use crate::drive::handle::Handle;
use crate::drive::Shared;
use crate::error::Error;
use crate::machine::State;
use crate::role::Role;
use crate::stream::Stream;
use crate::version::Version;

/// A TLS connection that behaves like a file, or like `std::net::TcpStream`. A handle; clones are handles on the same
/// connection.
///
/// Any thread may read and any thread may write, at the same time: `Read` and `Write` are implemented for `SslFile` and
/// for `&SslFile`, and a thread blocked in a read never delays a write. Several readers (or writers) take turns.
///
/// What one call writes or [sends](SslFile::send) is in one piece at the peer. Small ones beside the big write of another
/// thread do not wait for it: they are queued behind it, whole, as far as the send limit allows, and never inside it.
///
/// The stream stays inside, its descriptor open, until the last handle is dropped or [released](SslFile::release).
///
/// # What the calls give
///
#[doc = include_str!("../machine/calls.md")]
///
/// The ends are sticky: each later call says the same. [`Error::of`] finds the cause inside an error. A stream whose own code
/// panics has failed in that direction: the panic goes on in the call that met it, and each later call, of other threads
/// too, gives an error that says so. A process without descriptors, or memory for a wake-up, ends no connection: calls that
/// wait go on waiting, in slices of 20 ms.
///
/// # How it ends
///
/// | | what it does | waits |
/// |---|---|---|
/// | [`shutdown(Write)`](SslFile::shutdown) | close_notify behind what was accepted; reading goes on | never |
/// | [`close`](SslFile::close) | the same, and the whole connection ends; loses nothing to a peer that reads | for the peer to take it, then for its end: the close time-out each |
/// | [`close_clean`](SslFile::close_clean) | both ends say close_notify, and the stream goes on in plain | for the peer's close_notify |
/// | [`abort`](SslFile::abort) | a cut: no close_notify, and what is unsent is lost | never |
/// | dropping the last handle | as `close`, in the background | never |
///
/// A drop sends what goes at once, says close_notify, half-closes, and reads away what has come. If something may still be on
/// its way then (something is unsent, or the system says that the peer has not acknowledged all of it), the stream lingers:
/// its backend, or else one thread of the process, which is started for the first such stream and ends with the last, sends
/// the rest and reads away what comes, until the peer's end, or until the peer has taken nothing for the close time-out.
/// 1,024 streams linger at the most; the oldest goes first. What is on its way when the process ends is the system's, and
/// is told to nobody: to be sure, and to hear of a failure, `close`.
///
/// With a backend it is the backend that lingers, so it has to be turned (or to go, which leaves its streams to the thread).
/// Dropped while its thread unwinds from a panic, a file ends as by `abort`: nobody must take half an answer for a whole
/// one. A forked child that drops a file says nothing on it: the connection is its parent's, who alone may use it, as the state
/// of TLS is in memory and there would be two of it. A drop calls no callback, and `process::exit` drops nothing: that is a cut.
///
/// What a peer can make a file cost has [bounds](crate::guide::bounds).
///
/// # Example
///
/// ```no_run
/// use std::io::{Read, Write};
/// use std::net::TcpStream;
/// use sslfile::{Context, SslFile};
/// # fn main() -> std::io::Result<()> {
/// let tcp = TcpStream::connect(("example.com", 443))?;
/// let mut file = SslFile::client(tcp, &Context::client()?, "example.com")?;
/// file.write_all(b"GET / HTTP/1.0\r\nHost: example.com\r\n\r\n")?;
/// let mut answer = Vec::new();
/// file.read_to_end(&mut answer)?; // an error if the connection is cut
/// # Ok(())
/// # }
/// ```
pub struct SslFile<S: Stream = TcpStream> {
    handle: Handle<S, SslFile<S>>,
}

impl<S: Stream> fmt::Debug for SslFile<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_struct("SslFile");
        out.field("role", &self.role()).field("state", &self.state());
        faces::show_addresses(&mut out, self.shared());
        out.field("server_name", &self.server_name()).finish_non_exhaustive()
    }
}

impl<S: Stream> SslFile<S> {
    /// A client that expects the peer to be `server_name`, a DNS name or an IP address. Shakes hands: blocks until that
    /// is done, at most 30 s (unless the stream is non-blocking: then the handshake has begun).
    ///
    /// Errors: `InvalidInput` for a name that can't be one; those of [`handshake`](SslFile::handshake). The stream is
    /// in the error.
    pub fn client(stream: S, context: &Context, server_name: &str) -> Result<SslFile<S>, OpenError<S>> {
        SslFile::options().client(server_name).open(stream, context)
    }

    /// A server. Shakes hands, as [`client`](SslFile::client).
    ///
    /// Errors: `InvalidInput` if the context has no identity; those of [`handshake`](SslFile::handshake). The stream is
    /// in the error.
    pub fn server(stream: S, context: &Context) -> Result<SslFile<S>, OpenError<S>> {
        SslFile::options().server().open(stream, context)
    }

    /// Its session, for others.
    fn resumable(&self) -> Resume {
        let context = self.context();
        self.shared().lock().machine.tls.resumable(context)
    }

    fn shared(&self) -> &Arc<Shared<S, SslFile<S>>> {
        &self.handle.shared
    }

    /// Shakes hands, if that has not been done; any number of threads may ask, it is done once. Other calls do it by
    /// themselves. Blocks as a read does, and at most the handshake time-out.
    ///
    /// Errors: `InvalidData`: a bad certificate, an alert, a peer that speaks no TLS (the cause is in [`Error`]);
    /// `BrokenPipe`: the peer closed; `TimedOut` of the handshake time-out: all these are final, and each later call
    /// says the same. `TimedOut` of the read time-out and `WouldBlock`: try again.
    pub fn handshake(&self) -> io::Result<()> {
        self.shared().handshake()
    }

    /// Whether the handshake is done. Never waits.
    pub fn is_handshake_done(&self) -> bool {
        self.shared().ask().machine.tls.is_handshake_done()
    }

    /// Whether data can still be read. Looks, without waiting, whether the peer's end is already there.
    pub fn is_open(&self) -> bool {
        self.shared().is_open()
    }

    /// Where the file is in its life, as far as is known without looking at the stream. Never waits.
    pub fn state(&self) -> State {
        self.shared().ask().machine.state()
    }

    /// Client or server.
    pub fn role(&self) -> Role {
        self.shared().ask().machine.tls.role()
    }

    /// The error that ended the connection, if one did. Never waits.
    pub fn last_error(&self) -> Option<io::Error> {
        let error = self.shared().ask().machine.last_error().cloned();
        error.map(|error| self.shared().told(error))
    }

    /// Whether a call on some handle is waiting. Never waits itself.
    pub fn is_busy(&self) -> bool {
        self.shared().ask().machine.is_busy()
    }

    /// The context it was opened with.
    pub fn context(&self) -> Context {
        match &self.shared().context {
            Some(context) => context.clone(),
            None => unreachable!("files with TLS are made with a context"),
        }
    }

    /// Ends the connection, for all handles, and nothing accepted is lost: sends all that was accepted and close_notify,
    /// half-closes the stream, and then reads away what comes until the peer's end. Again: `Ok`.
    ///
    /// Waits for the sending as long as the peer takes something, at most the close time-out (default 1 s) without that,
    /// whatever the peer sends meanwhile; then for the peer's end, at most the close time-out (zero: not at all). That the
    /// peer stays silent is no error. On a stream without a
    /// descriptor it waits for the sending, however long, and does not read. Waiting calls of other threads return
    /// `NotConnected`. While a peer stays silent and a handle lives, only our direction of the stream is ended: the system
    /// would answer what comes late (session tickets, say) with a reset, which can cost the peer data.
    ///
    /// Errors: `TimedOut`: something accepted was lost, as the peer takes nothing; `BrokenPipe`, `ConnectionReset`: the
    /// same, as the peer has gone. The connection is ended all the same. Non-blocking, with a backend: `Ok` at once; what goes
    /// without waiting has gone, `state` is `Closing`, the backend does the rest and tells the close callback. Without one:
    /// `WouldBlock` until a later call finds it done.
    ///
    /// After Pike's `close`, which loses what was not sent.
    pub fn close(&self) -> io::Result<()> {
        self.shared().close()
    }

    /// Ends the connection at once, for every handle, without close_notify: the peer sees a cut, and takes nothing that was
    /// sent for a whole. For programs that must not finish what they began. What was not sent is lost, and what has come is
    /// not to be had any more; later calls, and those of other threads that wait, give `NotConnected`. Never waits.
    ///
    /// A file that is dropped while its thread unwinds from a panic ends so by itself. On a file that another one wraps it
    /// does nothing.
    pub fn abort(&self) {
        self.shared().abort();
    }

    /// Exchanges close_notify with the peer, whoever says it first, and leaves the stream open and plain, for
    /// [`release`](SslFile::release). Plaintext that still comes can be read: reads beside it, and after it, give what is
    /// left and then `Ok(0)`. At most 16 MiB are kept for them; beyond that the peer is held by its window, and the call
    /// waits for readers.
    ///
    /// Waits as a read does, at most the read time-out. Errors: `TimedOut`: may be called again. `WouldBlock`: non-blocking,
    /// call again when the stream is ready; or 16 MiB wait to be read first. `BrokenPipe`: cut before the peer's
    /// close_notify. With a backend, non-blocking: `Ok` at once, and the close callback is told what came of it.
    ///
    /// Pike's `close(0, 1)`.
    pub fn close_clean(&self) -> io::Result<()> {
        self.shared().close_clean()
    }

    /// The stream, and what was read from it behind the peer's close_notify. Needs the last handle.
    ///
    /// After a successful `close_clean` the stream can go on in plain. On an open file this drops TLS abruptly, and the
    /// bytes are the ciphertext not yet decrypted. After a failed handshake they are what TLS did not consume: all of
    /// them if the peer spoke no TLS. Never waits.
    ///
    /// Errors, with the file in them: `ResourceBusy` while there are other handles; `WouldBlock` while accepted data or
    /// our close_notify is unsent; `BrokenPipe` after `close` and after a `close_clean` that did not succeed.
    ///
    /// Pike's `shutdown`.
    pub fn release(self) -> Result<(S, Vec<u8>), ReleaseError<S>> {
        let refuse = |file, error: Error| Err(ReleaseError::new(error.into(), file));
        let shared = self.shared().clone();
        if let Some(error) = shared.ask().machine.release_error() {
            return refuse(self, error);
        }
        if shared.handles.load(Ordering::Acquire) != 1 {
            let error = Error::new(crate::ErrorKind::Other, "there are other handles on this file");
            return refuse(self, error.with_io_kind(io::ErrorKind::ResourceBusy));
        }
        let backend = shared.leave_backend();
        let SslFile { mut handle } = self;
        handle.counted = false;
        drop(handle);
        match Arc::try_unwrap(shared) {
            Ok(shared) => Ok(shared.into_stream()),
            Err(shared) => {
                // Inside a callback of this very file, which the backend has in hand.
                let file = SslFile { handle: Handle::first(shared) };
                let error = Error::new(crate::ErrorKind::Other, "a callback of the file is running");
                let _ = file.set_backend(backend.as_ref());
                refuse(file, error.with_io_kind(io::ErrorKind::ResourceBusy))
            }
        }
    }

    /// Ends one direction or both, for all handles. Never waits, in any state: what can't go now goes with the next call.
    ///
    /// `Write`: later writes fail with `BrokenPipe`; close_notify follows all accepted data (and our part of the
    /// handshake), then a TCP half-close if the stream has one (and [`SslOptions::half_close`] leaves it). Reading goes on. `Read`: blocked readers wake with
    /// `Ok(0)`, as do all later reads; the peer is not told, and the stream is left alone: a poller of your own is to be woken by
    /// its own means.
    ///
    /// Errors: `NotConnected` after `close` and `close_clean`.
    pub fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        self.shared().shutdown(how)
    }

    /// Makes calls that are waiting, on any handle, return `Other` with [`ErrorKind::Interrupted`](crate::ErrorKind) as
    /// the cause: never `Interrupted`, which std's loops retry. Nothing is lost and the file can be used as before; a write that
    /// has had some of its data accepted says how much instead. With nobody waiting it does nothing. Never waits;
    /// a call that has just begun to wait may take some 20 ms to return, as does any where the process has no descriptors. Streams without a descriptor can't be
    /// interrupted while they block.
    pub fn interrupt(&self) {
        self.shared().interrupt();
    }

    /// Another handle on the same connection. Never fails and never waits.
    pub fn try_clone(&self) -> io::Result<SslFile<S>> {
        Ok(self.clone())
    }

    /// The version agreed on; `None` before the handshake is done, and with engines that can't tell.
    pub fn version(&self) -> Option<Version> {
        self.shared().ask().machine.tls.version()
    }

    /// The cipher suite agreed on, by OpenSSL's name for it, on every engine; `None` as for `version`.
    pub fn cipher(&self) -> Option<String> {
        self.shared().ask().machine.tls.cipher()
    }

    /// The protocol agreed on with ALPN.
    pub fn alpn(&self) -> Option<Vec<u8>> {
        self.shared().ask().machine.tls.alpn()
    }

    /// On a client the name it expects, on a server the name the client asked for (SNI), if it did and the engine can
    /// tell.
    pub fn server_name(&self) -> Option<String> {
        self.shared().ask().machine.tls.server_name()
    }

    /// The peer's own certificate, once it has been received.
    pub fn peer_certificate(&self) -> Option<Certificate> {
        self.shared().ask().machine.tls.peer_certificate()
    }

    /// The chain the peer sent, its own certificate first; `None` with engines that can't tell.
    pub fn peer_certificates(&self) -> Option<Vec<Certificate>> {
        self.shared().ask().machine.tls.session().peer_certificates()
    }

    /// The chain the peer was trusted for, from its own certificate to the root; `None` on a resumed session, where nothing
    /// was verified, and with engines that can't tell.
    pub fn verified_chain(&self) -> Option<Vec<Certificate>> {
        self.shared().ask().machine.tls.session().verified_chain()
    }

    /// The group of the key exchange, by its name in the registry of IANA ("x25519", "secp256r1", "X25519MLKEM768"); `None` as
    /// for `version`, and on a session of TLS 1.2 that was resumed.
    pub fn group(&self) -> Option<String> {
        self.shared().ask().machine.tls.group()
    }

    /// The OCSP response that the server stapled to its certificate, in DER, if it was asked for
    /// ([`ContextBuilder::ocsp_stapling`](crate::ContextBuilder::ocsp_stapling)) and there was one. Nobody has judged it.
    pub fn ocsp_response(&self) -> Option<Vec<u8>> {
        self.shared().ask().machine.tls.session().ocsp_response()
    }

    /// How long the handshake took, from its first step to its last on this end; `None` before.
    pub fn handshake_time(&self) -> Option<Duration> {
        self.shared().ask().machine.handshake_time()
    }

    /// What has gone over the connection so far, in both directions.
    pub fn traffic(&self) -> Traffic {
        self.shared().ask().machine.tls.traffic()
    }

    /// Whether an earlier session was resumed; `None` before the handshake is done, and with engines that can't tell.
    pub fn is_resumed(&self) -> Option<bool> {
        let core = self.shared().ask();
        core.machine.tls.session().is_resumed().filter(|_| core.machine.tls.is_handshake_done())
    }

    /// A client's session as bytes, for [`SslOptions::session`] in this process or another. They are as secret as the connection:
    /// who has them can read it, if somebody has recorded it without forward secrecy, and be the client or the server of the next.
    ///
    /// `None` on a server, before there is one that can be resumed (in TLS 1.3 it comes behind the handshake, with the first
    /// read), when the connection has failed, and with engines other than [`Engine::OpenSsl`](crate::Engine::OpenSsl).
    ///
    /// ```no_run
    /// use sslfile::{Context, SslFile};
    /// use std::io::{Read, Write};
    /// # fn main() -> std::io::Result<()> {
    /// let context = Context::client()?;
    /// let first = SslFile::options().connect("example.com:443", &context)?;
    /// (&first).write_all(b"HEAD / HTTP/1.0\r\n\r\n")?;
    /// (&first).read_to_end(&mut Vec::new())?;
    /// if let Some(session) = first.session() {
    ///     let second = SslFile::options().session(&session).connect("example.com:443", &context)?;
    ///     println!("resumed: {:?}", second.is_resumed());
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn session(&self) -> Option<Vec<u8>> {
        self.shared().ask().machine.tls.session().kept()
    }

    /// Whether the connection's keys are bound to its handshake by the extended master secret (RFC 7627), as they always are in TLS
    /// 1.3 (RFC 8446, appendix D). Where they are not, a server that a client trusts can give another connection the same
    /// keys, and what is [exported](SslFile::export_keying_material) names neither. `None` before the handshake is done, and with
    /// engines that can't tell.
    pub fn has_extended_master_secret(&self) -> Option<bool> {
        let core = self.shared().ask();
        let session = core.machine.tls.session();
        let has = match session.version() {
            Some(Version::Tls1_3) => Some(true),
            _ => session.has_extended_master_secret(),
        };
        has.filter(|_| core.machine.tls.is_handshake_done())
    }

    /// The channel binding `tls-server-end-point` (RFC 5929, section 4): the hash of the server's certificate, by the hash
    /// function of its signature. `None` where that has no single one (Ed25519, say), and before the handshake is done.
    pub fn tls_server_end_point(&self) -> Option<Vec<u8>> {
        let core = self.shared().ask();
        core.machine.tls.session().tls_server_end_point().filter(|_| core.machine.tls.is_handshake_done())
    }

    /// The channel binding `tls-exporter` (RFC 9266): 32 bytes that both ends of this connection know, and nobody else. `None`
    /// without the [extended master secret](SslFile::has_extended_master_secret), where it must not be used (section 4.2); before
    /// the handshake is done; and with engines that can't export.
    pub fn tls_exporter(&self) -> Option<Vec<u8>> {
        if self.has_extended_master_secret() != Some(true) {
            return None;
        }
        let mut out = [0; 32];
        let made = self.export_keying_material(&mut out, "EXPORTER-Channel-Binding", Some(&[]));
        made.is_ok().then(|| out.to_vec())
    }

    /// Key material bound to this connection (RFC 5705; RFC 8446, section 7.5), the same on both ends. Below TLS 1.3 it is bound to
    /// it only [where there is an extended master secret](SslFile::has_extended_master_secret).
    ///
    /// Errors: `NotConnected` before the handshake is done; `Unsupported` with engines that have none.
    pub fn export_keying_material(&self, out: &mut [u8], label: &str, context: Option<&[u8]>) -> io::Result<()> {
        self.shared().ask().machine.tls.export_keying_material(out, label, context)
    }
}

impl SslFile {
    /// For a listener: to be told, instead of all callbacks, how the handshake went. `UnexpectedEof` for a peer that
    /// ended before its first byte.
    pub(crate) fn set_opened(&self, opened: impl FnOnce(io::Result<()>) + Send + 'static) {
        self.shared().set_opened(Box::new(move |_, result| opened(result)));
    }
}

/// Single callbacks. Setting one replaces it; what has been waiting for it is delivered at the next turn of the backend.
impl<S: Stream> SslFile<S> {
    /// As [`Callbacks::on_read`](crate::Callbacks::on_read).
    pub fn set_read_callback(&self, f: impl FnMut(&SslFile<S>, &[u8]) + Send + 'static) {
        self.shared().set_slot(false, |slots| slots.read.set(Some(Box::new(f))));
    }

    /// As [`Callbacks::on_write`](crate::Callbacks::on_write).
    pub fn set_write_callback(&self, f: impl FnMut(&SslFile<S>) + Send + 'static) {
        self.shared().set_slot(true, |slots| slots.write.set(Some(Box::new(f))));
    }

    /// As [`Callbacks::on_close`](crate::Callbacks::on_close).
    pub fn set_close_callback(&self, f: impl FnMut(&SslFile<S>, io::Result<()>) + Send + 'static) {
        self.shared().set_slot(false, |slots| slots.close.set(Some(Box::new(f))));
    }

    /// As [`Callbacks::on_accept`](crate::Callbacks::on_accept).
    pub fn set_accept_callback(&self, f: impl FnMut(&SslFile<S>) + Send + 'static) {
        self.shared().set_slot(false, |slots| slots.accept.set(Some(Box::new(f))));
    }

    /// Removes it.
    pub fn clear_read_callback(&self) {
        self.shared().set_slot(false, |slots| slots.read.set(None));
    }

    /// Removes it.
    pub fn clear_write_callback(&self) {
        self.shared().set_slot(false, |slots| slots.write.set(None));
    }

    /// Removes it.
    pub fn clear_close_callback(&self) {
        self.shared().set_slot(false, |slots| slots.close.set(None));
    }

    /// Removes it.
    pub fn clear_accept_callback(&self) {
        self.shared().set_slot(false, |slots| slots.accept.set(None));
    }
}

faces::events!(SslFile);

impl SslFile {
    /// How to open a file, in the manner of `fs::OpenOptions`.
    pub fn options() -> SslOptions {
        SslOptions::new()
    }
}
