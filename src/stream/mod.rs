//! What can be wrapped. The trait users see is [`Stream`]; what the file needs of one is [`Transport`], which they
//! neither call nor implement.

mod descriptor;
mod duplex;
mod read_write;
mod socket;
mod wait;

use std::io;
use std::os::fd::RawFd;
use std::time::{Duration, Instant};

use crate::backend::Backend;

pub use duplex::Duplex;
pub use read_write::ReadWrite;

pub(crate) use wait::{after, spin, Sleeper, Wait};

/// A stream that can be wrapped. Its own methods are the crate's affair.
///
/// | stream | time-outs, non-blocking mode, `interrupt` |
/// |---|---|
/// | `TcpStream`, `UnixStream`, `socket2::Socket` | yes |
/// | [`SslFile`](crate::SslFile): TLS in TLS | as the stream inside it |
/// | [`Duplex`] of two halves that std makes with a descriptor (a child's pipes, say) | yes |
/// | [`Duplex`] of other halves, [`ReadWrite`] | no: `Unsupported` |
///
/// A socket lends its `SO_RCVTIMEO` to the file while it is wrapped: what was set there and in `SO_SNDTIMEO` becomes the
/// file's time-outs, and is put back when the stream is released. Use the file's own `set_read_timeout` meanwhile, not that
/// of `get_ref()`.
pub trait Stream: Transport {}

impl Stream for std::net::TcpStream {}
impl Stream for std::os::unix::net::UnixStream {}
impl Stream for socket2::Socket {}
impl<R: io::Read + Send + 'static, W: io::Write + Send + 'static> Stream for Duplex<R, W> {}
impl<T: io::Read + io::Write + Send + 'static> Stream for ReadWrite<T> {}

/// What a file needs of the stream it wraps. All of it takes `&self`: one thread may be in `recv` and another in `send`.
pub trait Transport: Send + Sync + 'static {
    /// Whether waiting can be bounded and broken off: there are descriptors to poll.
    fn is_polled(&self) -> bool;

    /// The file begins to use the stream: what it finds set there.
    fn take_over(&self) -> io::Result<Inherited>;

    /// The file has ended cleanly, or never began: puts back what `take_over` changed, and in front of the stream the
    /// bytes that were read too far. Returns them if the stream can't take them.
    fn give_back(&self, inherited: &Inherited, unread: Vec<u8>) -> Vec<u8>;

    /// Before the first `recv` that may block: sees to it that one that nobody bounds returns now and then.
    fn bound_receives(&self) -> io::Result<()> {
        Ok(())
    }

    /// The file goes, and the stream with it, unless others have handles on it.
    fn abandon(&self);

    /// Reads. `Ok(0)` is the stream's end. `Interrupted`: look whether you are still wanted, then call again.
    fn recv(&self, buf: &mut [u8], wait: Wait) -> io::Result<usize>;

    /// Writes. Errors as `recv`.
    fn send(&self, buf: &[u8], wait: Wait) -> io::Result<usize>;

    /// As `send`, for bytes that `half_close` follows at once.
    fn send_last(&self, buf: &[u8], wait: Wait) -> io::Result<usize> {
        self.send(buf, wait)
    }

    /// Passes on what a buffered writer holds.
    fn flush(&self) -> io::Result<()> {
        Ok(())
    }

    /// Ends our direction, if the stream has such a thing.
    fn half_close(&self) {}

    /// Ends both directions.
    fn end(&self) {}

    /// Waits until something can be written, or, if asked for, read; `Interrupted` as in `recv`. Only for streams that
    /// are polled.
    fn wait_writable(&self, or_readable: bool, deadline: Option<Instant>) -> io::Result<()>;

    /// The descriptors to watch for reading and for writing, open as long as the stream lives.
    fn descriptors(&self) -> Option<(RawFd, RawFd)>;

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

    /// Sends that on. Errors as `recv`.
    fn push(&self, _: Wait) -> io::Result<()> {
        Ok(())
    }

    /// Makes calls that wait in here return `Interrupted`, where they wait for more than a descriptor.
    fn wake(&self) {}

    /// Who is at the other end, for errors.
    fn peer(&self) -> Option<String> {
        None
    }
}

/// What a stream was set to when a file took it over.
#[derive(Default)]
pub struct Inherited {
    pub nonblocking: bool,
    pub read_timeout: Option<Duration>,
    pub write_timeout: Option<Duration>,
    pub backend: Option<Backend>,
    /// Of a file: whoever waits outermost spins, for all.
    pub busy_poll: Duration,
}
