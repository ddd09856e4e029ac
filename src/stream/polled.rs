use std::fmt;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::time::Instant;

use parking_lot::Mutex;
use socket2::SockRef;

use super::claimed::Claimed;
use super::{Inherited, Transport};
use crate::machine::Going;
use crate::sys::{self, AsFd, AsRawFd, Descriptor, Doorbell, Ready, Woken};

/// Any `Read + Write` with a descriptor that can be polled: a vsock, a serial line, a terminal, a socket type of another crate.
///
/// Over it a file has all that it has over a socket: time-outs and deadlines, both modes, `interrupt`, backends, and reads and
/// writes that do not wait for each other. The descriptor is set non-blocking (`O_NONBLOCK`) while a file has it, and put back
/// then. A socket is shut down as sockets are; what is none has no half-close: its peer is told of the end by close_notify alone.
///
/// The type must do no more than read from its descriptor and write to it: what it keeps in a buffer of its own nobody polls
/// for. It must give what the descriptor gives, `WouldBlock` too. Whether a write raises SIGPIPE when the peer has gone is its affair,
/// unless it is a socket of std or of `socket2` (on Apple's systems, any socket), to which none does: a program that was not started by
/// Rust's runtime must ignore that signal, as for a pipe.
///
/// ```no_run
/// use std::fs::File;
/// use sslfile::{Context, Polled, SslFile};
/// # fn main() -> std::io::Result<()> {
/// let line = File::options().read(true).write(true).open("/dev/ttyUSB0")?;
/// let file = SslFile::client(Polled::new(line), &Context::client()?, "meter.example.com")?;
/// # drop(file);
/// # Ok(())
/// # }
/// ```
pub struct Polled<T> {
    inner: Mutex<T>,
    /// While a file has it.
    claimed: Mutex<Option<Claimed>>,
}

impl<T: Read + Write + AsFd + Send + 'static> Polled<T> {
    /// Reads and writes go to `inner`.
    pub fn new(inner: T) -> Self {
        Polled { inner: Mutex::new(inner), claimed: Mutex::new(None) }
    }

    /// The stream again.
    pub fn into_inner(self) -> T {
        self.inner.into_inner()
    }

    fn shut(&self, how: Shutdown) {
        // What is no socket, or has gone, has nothing to be shut down.
        let _ = SockRef::from(&*self.inner.lock()).shutdown(how);
    }
}

impl<T> fmt::Debug for Polled<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Polled").finish_non_exhaustive()
    }
}

/// Under the lock nobody waits: what is non-blocking returns at once.
impl<T: Read + Write + AsFd + Send + 'static> Transport for Polled<T> {
    fn is_polled(&self) -> bool {
        true
    }

    fn take_over(&self) -> io::Result<Inherited> {
        let inner = self.inner.lock();
        let claimed = Claimed::of(inner.as_fd())?;
        claimed.set_nonblocking()?;
        // What is no socket can't be told.
        let _ = sys::claim(inner.as_fd());
        drop(inner);
        let nonblocking = claimed.was_nonblocking();
        *self.claimed.lock() = Some(claimed);
        Ok(Inherited { nonblocking, ..Inherited::default() })
    }

    fn give_back(&self, _: &Inherited, unread: Vec<u8>) -> Vec<u8> {
        if let Some(claimed) = self.claimed.lock().take() {
            claimed.restore();
        }
        unread
    }

    fn try_recv(&self, buf: &mut [u8]) -> io::Result<usize> {
        self.inner.lock().read(buf)
    }

    fn try_send(&self, buf: &[u8], _: Going) -> io::Result<usize> {
        sys::write_half(&mut *self.inner.lock(), buf)
    }

    fn flush(&self) -> io::Result<()> {
        self.inner.lock().flush()
    }

    fn half_close(&self) {
        self.shut(Shutdown::Write);
    }

    fn end(&self) {
        self.shut(Shutdown::Both);
    }

    fn wait(&self, wanted: Ready, bell: &Doorbell, until: Option<Instant>) -> Woken {
        let fd = self.claimed.lock().as_ref().map(|claimed| claimed.fd.clone());
        let Some(fd) = fd else { return bell.sleep(until) };
        sys::wait(&[(fd.as_fd(), wanted)], bell, until)
    }

    fn descriptors(&self) -> Option<(Descriptor, Descriptor)> {
        let fd = self.claimed.lock().as_ref()?.fd.as_raw_fd();
        Some((fd, fd))
    }

    fn unacknowledged(&self) -> usize {
        // Where nobody knows, something may be.
        sys::unacknowledged(self.inner.lock().as_fd()).unwrap_or(1)
    }

    fn peer(&self) -> Option<String> {
        Some(SockRef::from(&*self.inner.lock()).peer_addr().ok()?.as_socket()?.to_string())
    }

    fn local(&self) -> Option<String> {
        Some(SockRef::from(&*self.inner.lock()).local_addr().ok()?.as_socket()?.to_string())
    }
}
