use std::fmt;
use std::io;
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::Ordering;
use std::sync::Arc;
use std::time::Duration;

use super::faces;
use crate::connection::Connection;
use crate::drive::handle::Handle;
use crate::drive::Shared;
use crate::machine::{own, Machine, Setup, CLOSE_TIMEOUT};
use crate::stream::{Inherited, Stream};

/// A stream with callbacks and a backend, and no TLS: Pike's `Stdio.File`. A handle; clones are handles on the same
/// stream.
///
/// It has the promises of [`SslFile`](crate::SslFile) that need no TLS: any thread may read and any write, deadlines,
/// blocking or not at any time, callbacks. And it can be wrapped by an `SslFile` and come back: its callbacks, backend,
/// blocking mode and unread bytes are laid aside meanwhile, and put back by a clean close, a release or a failed
/// handshake. While it is wrapped, its own handles refuse I/O and mode changes with `ResourceBusy`; callbacks set on
/// them are kept for later.
///
/// ```no_run
/// use std::io::{BufRead, BufReader, Write};
/// use std::net::TcpStream;
/// use sslfile::{Context, PlainFile, SslFile};
/// # fn main() -> std::io::Result<()> {
/// let plain = PlainFile::new(TcpStream::connect("mail.example.com:25")?);
/// (&plain).write_all(b"STARTTLS\r\n")?;
/// let mut answer = [0; 512];
/// let n = plain.peek(&mut answer)?; // ... and read the line when it is whole
/// # let _ = n;
/// let tls = SslFile::client(plain, &Context::client()?, "mail.example.com")?;
/// tls.close_clean()?;
/// let (plain, _) = tls.release()?;
/// (&plain).write_all(b"QUIT\r\n")?;
/// # Ok(())
/// # }
/// ```
pub struct PlainFile<S: Stream = TcpStream> {
    handle: Handle<S, PlainFile<S>>,
}

/// As an `SslFile`'s default.
const SEND_LIMIT: usize = 256 * 1024;

impl<S: Stream> PlainFile<S> {
    /// Over a stream. Blocking or not as the stream is, and with its time-outs.
    ///
    /// A stream that another file has taken over, or that the system refuses to tell about, makes a file whose calls give
    /// that error.
    pub fn new(stream: S) -> PlainFile<S> {
        let mut connection = Connection::without_tls();
        let inherited = stream.take_over().unwrap_or_else(|e| {
            connection.fail(own(&e));
            Inherited::default()
        });
        PlainFile::open(stream, inherited, connection)
    }

    fn open(stream: S, mut inherited: Inherited, connection: Connection) -> PlainFile<S> {
        let backend = inherited.backend.take();
        let setup = Setup {
            handshake_timeout: Some(None),
            ..Setup::of(&stream, &inherited, inherited.nonblocking, CLOSE_TIMEOUT, SEND_LIMIT)
        };
        let peer = stream.peer().unwrap_or_else(|| "the peer".to_string());
        let machine = Machine::new(connection, &setup);
        let shared = Arc::new(Shared::new(stream, None, inherited, peer, machine, Duration::ZERO));
        let file = PlainFile { handle: Handle::first(shared) };
        if backend.is_some() {
            let _ = file.set_backend(backend.as_ref());
        }
        file
    }

    pub(crate) fn shared(&self) -> &Arc<Shared<S, PlainFile<S>>> {
        &self.handle.shared
    }

    /// Another handle on the same stream. Never fails and never waits.
    pub fn try_clone(&self) -> io::Result<PlainFile<S>> {
        Ok(self.clone())
    }

    /// Ends one direction or both, for all handles. Never waits. `Write`: a half-close behind all accepted data. `Read`:
    /// local, reads give `Ok(0)`.
    pub fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        self.shared().shutdown(how)
    }

    /// Sends what was accepted and ends the connection, for all handles. As [`SslFile::close`](crate::SslFile::close),
    /// without close_notify.
    pub fn close(&self) -> io::Result<()> {
        self.shared().close()
    }

    /// Whether data can still be read. Looks, without waiting, whether the end is already there.
    pub fn is_open(&self) -> bool {
        self.shared().is_open()
    }

    /// Puts bytes back in front of what will be read next; while another file has the stream: of what will be read after
    /// that.
    pub fn unread(&self, bytes: &[u8]) {
        self.shared().lock().machine.unread(bytes);
    }

    /// The stream and what was read from it and not consumed. Gives the handle back while there are others, while
    /// another file has the stream, and while accepted data is unsent.
    pub fn into_stream(self) -> Result<(S, Vec<u8>), PlainFile<S>> {
        let shared = self.shared().clone();
        let is_last = shared.handles.load(Ordering::Acquire) == 1;
        let is_free = shared.ask().machine.is_free();
        if !is_last || !is_free {
            return Err(self);
        }
        let backend = shared.leave_backend();
        let PlainFile { mut handle } = self;
        handle.counted = false;
        drop(handle);
        match Arc::try_unwrap(shared) {
            Ok(shared) => Ok(shared.into_stream()),
            Err(shared) => {
                let file = PlainFile { handle: Handle::first(shared) };
                let _ = file.set_backend(backend.as_ref());
                Err(file)
            }
        }
    }
}

faces::events!(PlainFile);

impl<S: Stream> fmt::Debug for PlainFile<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_struct("PlainFile");
        faces::show_addresses(&mut out, self.shared());
        out.finish_non_exhaustive()
    }
}
