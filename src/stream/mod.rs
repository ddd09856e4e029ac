//! What can be wrapped. The trait users see is [`Stream`]; what the file needs of one is [`Transport`], which they
//! neither call nor implement.

mod claimed;
mod duplex;
#[cfg(unix)]
mod polled;
mod read_write;
mod socket;

use std::io;
use std::time::{Duration, Instant};

use crate::backend::Backend;
use crate::machine::{Deadlines, Going, Interest};
use crate::sys::{Descriptor, Doorbell, Ready, Woken};

pub use duplex::Duplex;
#[cfg(unix)]
pub use polled::Polled;
pub use read_write::ReadWrite;

/// A stream that can be wrapped. Its own methods are the crate's affair.
///
/// | stream | time-outs, non-blocking mode, `interrupt` |
/// |---|---|
/// | `TcpStream`, `UnixStream`, `socket2::Socket` | yes |
/// | [`SslFile`](crate::SslFile): TLS in TLS | as the stream inside it |
/// | [`Duplex`] of two halves that std makes with a descriptor (a child's pipes, say) | yes |
/// | `Polled` (on Unix): any `Read + Write` with a descriptor | yes |
/// | [`Duplex`] of other halves, [`ReadWrite`] | no: `Unsupported` |
///
/// A socket lends its `SO_RCVTIMEO` to the file while it is wrapped: what was set there and in `SO_SNDTIMEO` becomes the
/// file's time-outs, and is put back when the stream is released. Use the file's own `set_read_timeout` meanwhile, not that
/// of `get_ref()`.
pub trait Stream: Transport {}

impl Stream for std::net::TcpStream {}
#[cfg(unix)]
impl Stream for std::os::unix::net::UnixStream {}
impl Stream for socket2::Socket {}
impl<R: io::Read + Send + 'static, W: io::Write + Send + 'static> Stream for Duplex<R, W> {}
impl<T: io::Read + io::Write + Send + 'static> Stream for ReadWrite<T> {}
#[cfg(unix)]
impl<T: io::Read + io::Write + crate::sys::AsFd + Send + 'static> Stream for Polled<T> {}

impl From<Interest> for Ready {
    fn from(interest: Interest) -> Ready {
        Ready { readable: interest.readable, writable: interest.writable }
    }
}

/// What a file needs of the stream it wraps. All of it takes `&self`: one thread may receive while another sends.
///
/// A stream that is polled, or gives `WouldBlock` by itself, is never waited for in here but in `wait`.
pub trait Transport: Send + Sync + 'static {
    /// Whether waiting can be bounded and broken off: there are descriptors to poll.
    fn is_polled(&self) -> bool;

    /// The file begins to use the stream: what it finds set there.
    fn take_over(&self) -> io::Result<Inherited>;

    /// The file has ended cleanly, or never began: puts back what `take_over` changed, and in front of the stream the
    /// bytes that were read too far. Returns them if the stream can't take them.
    fn give_back(&self, inherited: &Inherited, unread: Vec<u8>) -> Vec<u8>;

    /// The file goes, and the stream with it, unless others have handles on it.
    fn abandon(&self) {}

    /// Receives. `Ok(0)` is the stream's end. Where the stream is not polled this may wait, however long.
    fn try_recv(&self, buf: &mut [u8]) -> io::Result<usize>;

    /// The same, and waits for data for a short while, if that is cheaper than a `wait`.
    fn recv_for_slice(&self, buf: &mut [u8]) -> io::Result<usize> {
        self.try_recv(buf)
    }

    /// Before the first `recv_for_slice`.
    fn bound_receives(&self) -> io::Result<()> {
        Ok(())
    }

    /// Sends.
    fn try_send(&self, buf: &[u8], going: Going) -> io::Result<usize>;

    /// It is a socket that keeps small sends back (Nagle's algorithm), unless they go `Promptly`.
    fn has_delay(&self) -> bool {
        false
    }

    /// Passes on what a buffered writer holds.
    fn flush(&self) -> io::Result<()> {
        Ok(())
    }

    /// Who sends does not wait for who receives.
    fn is_duplex(&self) -> bool {
        true
    }

    /// Ends our direction, if the stream has such a thing.
    fn half_close(&self) {}

    /// Ends both directions.
    fn end(&self) {}

    /// Waits for this of the descriptors, as `watched` has it. Only for streams that are polled.
    fn wait(&self, watched: Ready, bell: &Doorbell, until: Option<Instant>) -> Woken;

    /// The descriptors to watch for reading and for writing, open as long as the stream lives.
    fn descriptors(&self) -> Option<(Descriptor, Descriptor)>;

    /// What to watch these for, if this is wanted of the stream.
    fn watched(&self, wanted: Ready) -> Ready {
        wanted
    }

    /// When something is due in the stream by time alone.
    fn deadline(&self) -> Option<Instant> {
        None
    }

    /// Something can be read that no descriptor tells of.
    fn is_ready(&self) -> bool {
        false
    }

    /// The stream is a file itself, on which others may have handles.
    fn is_file(&self) -> bool {
        false
    }

    /// The stream, a file itself, still has something that it took.
    fn holds_back(&self) -> bool {
        false
    }

    /// Sends that on.
    fn push(&self) -> io::Result<()> {
        Ok(())
    }

    /// How much of what was sent the peer's system has not acknowledged, as far as anybody knows.
    fn unacknowledged(&self) -> usize {
        0
    }

    /// The error that the system holds for the stream, which is gone from there then.
    fn take_error(&self) -> Option<io::Error> {
        None
    }

    /// Who is at the other end, and who we are.
    fn peer(&self) -> Option<String> {
        None
    }
    fn local(&self) -> Option<String> {
        None
    }
}

/// What a stream was set to when a file took it over.
#[derive(Default)]
pub struct Inherited {
    pub nonblocking: bool,
    pub read_timeout: Option<Duration>,
    pub write_timeout: Option<Duration>,
    pub deadlines: Deadlines,
    /// As `SslOptions::timeout_kind`.
    pub tells_would_block: bool,
    pub backend: Option<Backend>,
    /// Of a file: whoever waits outermost spins, for all.
    pub busy_poll: Duration,
}
