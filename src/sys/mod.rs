//! What the crate needs of a platform, and all that it uses of one to wait and to move bytes. A port is a module
//! beside `unix` and `windows` that gives the same names; nothing outside of `sys` knows which one it is. `rustix` names a
//! socket of Windows as it does a descriptor and has `poll` there, so [`wait`] is one for both.
//!
//! | name | what it must do | Unix | Windows |
//! |---|---|---|---|
//! | [`Descriptor`] | name a stream that outlives its use | a file descriptor | a socket |
//! | [`wait`] | see below | `poll` | `WSAPoll` |
//! | `BROKEN` | what tells a [`wait`] that a send will fail | hang-ups, errors | errors: a hang-up may be a half-close |
//! | `Bell` | a descriptor that ends a `wait` | eventfd, or a pair of Unix sockets | a UDP socket connected to itself |
//! | [`try_recv`], [`try_send`] | never wait: `WouldBlock`; no SIGPIPE | `MSG_DONTWAIT`, `MSG_NOSIGNAL` | no such flags: see `claim` |
//! | [`bound_receives`], [`recv_for_slice`] | a receive that ends within [`SLICE`], data or not; a short cut for a `wait` and a `try_recv`, which a platform may also do instead | `SO_RCVTIMEO` | the two calls |
//! | [`is_nonblocking`] | what a stream was set to | `fcntl` | nobody can ask: `false` |
//! | [`claim`], [`unclaim`], [`MUST_BE_CLAIMED`] | what the others need of a socket while a file has it | Apple's `SO_NOSIGPIPE`, else nothing | non-blocking mode |
//! | [`timeouts`], [`restore_timeout`], [`take_error`] | options of the socket | socket2 | socket2 |
//! | [`unacknowledged`] | a number if it can be had, else `None` | Linux: `SIOCOUTQ` | `None` |
//! | [`Flags`], [`descriptor_of`], [`duplicate`] | halves that are not sockets | `fcntl` | pipes can't be polled: `descriptor_of` is `None` |
//! | [`silence_half`], [`write_half`] | the same for a half that may be a socket; else `write` | `MSG_NOSIGNAL` | nothing, `write` |
//! | [`is_in_progress`], [`passes`] | what an error of `connect` or `accept` means | errno | other numbers |
//! | [`arrives`], [`has_said_something`] | a look at a listener, and at a connection that was just made | `poll`, `MSG_PEEK` | the same |
//! | [`admit_no_more`], [`lift`] | see `listener::queue`; `false`: can't be done | Linux: a packet filter | `SO_PAUSE_ACCEPT` |
//! | [`stop_listening`], [`SHUTDOWN_WAKES`] | the end of a listener, and whether it ends an `accept` under way | `shutdown` | the same pause; no |
//!
//! What a `wait` must keep:
//!
//! - It fails for nothing. What the system lacks (descriptors, memory) makes it slower: it then looks at the bell, or
//!   lets its caller try, every [`SLICE`]. That is never an error of the stream.
//! - A ring before it or during it ends it. It may end without a reason; never earlier than `until` with `TimedOut`.
//! - `Ready` says that trying is worth it, not that it will succeed: an end or an error of the stream counts as ready.
//! - It takes no descriptor for each file, and at most one (or a pair) for each thread, close-on-exec.

mod doorbell;
#[cfg(test)]
mod tests;
#[cfg(unix)]
mod unix;
mod wait;
#[cfg(windows)]
mod windows;

use std::hint;
use std::io;
use std::time::{Duration, Instant};

use socket2::SockRef;

use crate::sync::{now, thread};

pub use doorbell::Doorbell;
pub(crate) use rustix::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
#[cfg(unix)]
pub(crate) use unix::*;
pub(crate) use wait::wait;
#[cfg(windows)]
pub(crate) use windows::*;

/// How long a blocked receive may last, so that one that nobody bounds can be broken off; and how long a thread that
/// nothing can wake sleeps until it looks.
pub(crate) const SLICE: Duration = Duration::from_millis(20);

/// What Nagle's algorithm would keep until what went before is acknowledged. What is no TCP has no such thing.
fn without_delay<T>(fd: BorrowedFd<'_>, send: impl FnOnce() -> T) -> T {
    let socket = SockRef::from(&fd);
    if !matches!(socket.tcp_nodelay(), Ok(false)) {
        return send();
    }
    let _ = socket.set_tcp_nodelay(true);
    let sent = send();
    let _ = socket.set_tcp_nodelay(false);
    sent
}

/// What is wanted of a descriptor, or what has come of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ready {
    pub readable: bool,
    pub writable: bool,
}

impl Ready {
    pub const READABLE: Ready = Ready { readable: true, writable: false };
    pub const WRITABLE: Ready = Ready { readable: false, writable: true };

    pub fn is_empty(self) -> bool {
        self == Ready::default()
    }

    fn or(self, other: Ready) -> Ready {
        Ready { readable: self.readable || other.readable, writable: self.writable || other.writable }
    }
}

/// How a wait has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Woken {
    /// It is worth trying this.
    Ready(Ready),
    /// The doorbell, or a signal.
    Rung,
    TimedOut,
}

/// What to do about an error of `accept`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Passes {
    /// It was about one connection, which is gone.
    AtOnce,
    /// The system is out of something: try again in a while.
    Later,
    /// It is about the listener.
    Never,
}

/// Tries again and again, without sleeping, an operation that gives `WouldBlock` by itself. `None`: the time is over,
/// or the bell has been rung. It still is then, so that the wait which follows returns at once.
pub(crate) fn spin<T>(
    bell: &Doorbell,
    until: Option<Instant>,
    mut operation: impl FnMut() -> io::Result<T>,
) -> Option<io::Result<T>> {
    // The peer's thread may have landed on this processor, and others want to run, too.
    const YIELD: u32 = 16;
    let mut round = 0u32;
    loop {
        match operation() {
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
            result => return Some(result),
        }
        if bell.is_rung() || until.is_some_and(|until| now() >= until) {
            return None;
        }
        round = round.wrapping_add(1);
        match round % YIELD {
            0 => thread::yield_now(),
            _ => hint::spin_loop(),
        }
    }
}
