use std::fmt;
use std::io;

/// What to call. Absent ones are `None`.
///
/// Callbacks are called by [`Backend::turn`](crate::Backend::turn) only, with no lock of ours held, never two at once for
/// one file, and get the file as an argument, so that they need not own it. Inside one every method of the file may be
/// called; they may be replaced and removed there, the file closed, moved, and its last handle dropped.
///
/// | callback | called |
/// |---|---|
/// | accept | once in a file's life: when the handshake is done |
/// | read | with all plaintext that is there, in order |
/// | write | when the handshake is done and nothing accepted is left unsent, be it sent or lost; then again only after a write. So who pauses reading to wait for room always hears |
/// | close | exactly once in a file's life: when the connection has ended, after all data; or after our own `close` or `close_clean`, when that has finished or failed, or `abort` |
///
/// One that is set late is told what it missed: the data that waited, the handshake, the end.
///
/// Once close has been told and no write callback is owed, all callbacks of the file are dropped, with all they own: two files
/// whose callbacks own each other, as the two sides of a proxy do, are no leak. What owns its own file without a close
/// callback is one.
pub struct Callbacks<F> {
    pub(crate) accept: Option<Accept<F>>,
    pub(crate) read: Option<Read<F>>,
    pub(crate) write: Option<Write<F>>,
    pub(crate) close: Option<Close<F>>,
}

pub(crate) type Accept<F> = Box<dyn FnMut(&F) + Send>;
pub(crate) type Read<F> = Box<dyn FnMut(&F, &[u8]) + Send>;
pub(crate) type Write<F> = Box<dyn FnMut(&F) + Send>;
pub(crate) type Close<F> = Box<dyn FnMut(&F, io::Result<()>) + Send>;

impl<F> Default for Callbacks<F> {
    fn default() -> Self {
        Callbacks { accept: None, read: None, write: None, close: None }
    }
}

impl<F> Callbacks<F> {
    /// None is set.
    pub fn new() -> Self {
        Callbacks::default()
    }

    /// None is set.
    pub fn is_empty(&self) -> bool {
        self.accept.is_none() && self.read.is_none() && self.write.is_none() && self.close.is_none()
    }

    /// Called once, when the handshake is done.
    pub fn on_accept(mut self, f: impl FnMut(&F) + Send + 'static) -> Self {
        self.accept = Some(Box::new(f));
        self
    }

    /// Called with what has come.
    pub fn on_read(mut self, f: impl FnMut(&F, &[u8]) + Send + 'static) -> Self {
        self.read = Some(Box::new(f));
        self
    }

    /// Called when everything accepted has been sent.
    pub fn on_write(mut self, f: impl FnMut(&F) + Send + 'static) -> Self {
        self.write = Some(Box::new(f));
        self
    }

    /// Called once, at the end: `Ok` for the peer's close_notify (or a peer that ended before its first byte),
    /// `BrokenPipe` for a cut, `ConnectionReset` for a reset, else the error.
    pub fn on_close(mut self, f: impl FnMut(&F, io::Result<()>) + Send + 'static) -> Self {
        self.close = Some(Box::new(f));
        self
    }
}

impl<F> fmt::Debug for Callbacks<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Callbacks")
            .field("accept", &self.accept.is_some())
            .field("read", &self.read.is_some())
            .field("write", &self.write.is_some())
            .field("close", &self.close.is_some())
            .finish()
    }
}

/// One callback of a file. While it runs it is not in the slot; whoever sets or clears the slot meanwhile wins.
#[derive(Default)]
pub(crate) enum Slot<T> {
    #[default]
    Empty,
    Set(T),
    Running,
}

impl<T> Slot<T> {
    pub fn start(&mut self) -> Option<T> {
        match std::mem::replace(self, Slot::Running) {
            Slot::Set(callback) => Some(callback),
            other => {
                *self = other;
                None
            }
        }
    }

    /// Puts the callback back, or gives it up to be dropped.
    #[must_use]
    pub fn finish(&mut self, callback: T) -> Option<T> {
        match self {
            Slot::Running => {
                *self = Slot::Set(callback);
                None
            }
            _ => Some(callback),
        }
    }

    /// What was set, to be dropped or kept by the caller.
    pub fn set(&mut self, callback: Option<T>) -> Option<T> {
        let new = callback.map_or(Slot::Empty, Slot::Set);
        match std::mem::replace(self, new) {
            Slot::Set(old) => Some(old),
            _ => None,
        }
    }

    /// A panic has taken the callback.
    pub fn lost(&mut self) {
        if matches!(self, Slot::Running) {
            *self = Slot::Empty;
        }
    }

    pub fn is_set(&self) -> bool {
        !matches!(self, Slot::Empty)
    }
}

/// The callbacks of one file.
pub(crate) struct Slots<F> {
    pub accept: Slot<Accept<F>>,
    pub read: Slot<Read<F>>,
    pub write: Slot<Write<F>>,
    pub close: Slot<Close<F>>,
    /// Told instead of all others how the handshake went: a listener's.
    pub opened: Option<Opened<F>>,
}

pub(crate) type Opened<F> = Box<dyn FnOnce(&F, io::Result<()>) + Send>;

impl<F> Default for Slots<F> {
    fn default() -> Self {
        Slots { accept: Slot::Empty, read: Slot::Empty, write: Slot::Empty, close: Slot::Empty, opened: None }
    }
}
