//! What the two faces, [`SslFile`](crate::SslFile) and [`PlainFile`](crate::PlainFile), have in common.

use std::fmt;

use crate::drive::Shared;
use crate::stream::Transport;

/// For `Debug`, as std's `TcpStream` has it. A stream that was reset does not know its peer any more: that of the beginning
/// is shown. Takes no lock.
pub(super) fn show_addresses<S: Transport, F>(out: &mut fmt::DebugStruct<'_, '_>, shared: &Shared<S, F>) {
    if let Some(local) = shared.stream.local() {
        out.field("addr", &format_args!("{local}"));
    }
    let peer = shared.stream.peer();
    out.field("peer", &format_args!("{}", peer.as_ref().unwrap_or(&shared.peer)));
}

/// Modes, time-outs, queued writing, callbacks, `Read` and `Write` for one face.
macro_rules! events {
    ($file:ident) => {
        impl<S: crate::stream::Stream> $file<S> {
            /// Blocking or not, from now on, for all handles; in any state. A call that is waiting goes on waiting.
            ///
            /// With TLS, a client that has not begun its handshake begins it when it is made non-blocking: its first message is with the
            /// system when this returns, so that a poll for input alone will do with servers that speak first. How a handshake
            /// fails the next call tells.
            ///
            /// Errors: `Unsupported` for a stream without a descriptor; `ResourceBusy` while another file has this one.
            pub fn set_nonblocking(&self, nonblocking: bool) -> std::io::Result<()> {
                self.shared().set_nonblocking(nonblocking)
            }

            /// Whether calls return `WouldBlock` rather than wait.
            pub fn is_nonblocking(&self) -> bool {
                self.shared().ask().machine.nonblocking
            }

            /// Bounds each whole call that reads: `read`, `peek`, and with TLS `handshake` and `close_clean`. `None`: no
            /// bound, the default. After `TimedOut` nothing is half-done. A call that waits already goes on as it was.
            ///
            /// What std builds on `read` (`read_exact`, `read_to_end`, `lines`, `io::copy`) makes many calls, and each has this
            /// time for itself: [`set_read_deadline`](Self::set_read_deadline) bounds all of them together.
            ///
            /// With a read callback in a backend it is an idle time-out: the connection ends with `TimedOut` when
            /// nothing has been read for so long.
            ///
            /// Errors: `InvalidInput` for a zero time-out; `Unsupported` for a stream without a descriptor;
            /// `ResourceBusy` while another file has this one.
            pub fn set_read_timeout(&self, timeout: Option<std::time::Duration>) -> std::io::Result<()> {
                self.shared().set_timeout(timeout, |machine, time| machine.set_read_timeout(time, &crate::drive::Real))
            }

            /// Bounds each whole call that writes: `write`, `flush`. In a backend: the connection ends with `TimedOut`
            /// when nothing of what is unsent could be sent for so long. Otherwise as
            /// [`set_read_timeout`](Self::set_read_timeout).
            pub fn set_write_timeout(&self, timeout: Option<std::time::Duration>) -> std::io::Result<()> {
                self.shared().set_timeout(timeout, |machine, time| machine.set_write_timeout(time, &crate::drive::Real))
            }

            /// What was set.
            pub fn read_timeout(&self) -> std::io::Result<Option<std::time::Duration>> {
                Ok(self.shared().ask().machine.read_timeout())
            }

            /// What was set.
            pub fn write_timeout(&self) -> std::io::Result<Option<std::time::Duration>> {
                Ok(self.shared().ask().machine.write_timeout())
            }

            /// A point in time from which on reads (`peek`, and with TLS `handshake` and `close_clean`) that would have to
            /// wait give `TimedOut`: for what takes many calls, as `read_exact` and a whole answer do. It counts for calls
            /// that wait already, which then end, and for all handles, until another is set; one in the past counts at
            /// once, and `None`, the default, never. What is there is given even then, and nothing is half-done. Beside a
            /// time-out the earlier one counts. On a non-blocking file `TimedOut` takes the place of `WouldBlock`.
            ///
            /// With a read callback in a backend the connection ends then with `TimedOut`, unless reading has ended.
            ///
            /// Errors: `Unsupported` for a stream without a descriptor; `ResourceBusy` while another file has this one.
            ///
            /// Go's `net.Conn.SetReadDeadline`.
            pub fn set_read_deadline(&self, at: Option<std::time::Instant>) -> std::io::Result<()> {
                self.shared().set_deadline(at, |deadlines| &mut deadlines.read)
            }

            /// The same for `write` and `flush`. In a backend: the connection ends with `TimedOut` if something is unsent
            /// then.
            pub fn set_write_deadline(&self, at: Option<std::time::Instant>) -> std::io::Result<()> {
                self.shared().set_deadline(at, |deadlines| &mut deadlines.write)
            }

            /// How a call is told that its time-out or its deadline has passed: `TimedOut`, the default, or `WouldBlock`, as
            /// std's `TcpStream` has it on Unix, for code that looks for that. The cause inside is
            /// [`ErrorKind::TimedOut`](crate::ErrorKind) all the same. What ends the connection stays `TimedOut`: the
            /// handshake's time-out, and those of `close` and of a backend.
            ///
            /// Errors: `InvalidInput` for any other kind; `ResourceBusy` while another file has this one.
            pub fn set_timeout_kind(&self, kind: std::io::ErrorKind) -> std::io::Result<()> {
                self.shared().set_timeout_kind(kind)
            }

            /// As `read`, and the bytes stay to be read: here, and no longer in the stream, where a poller would see them.
            /// [`pending`](Self::pending) counts them.
            pub fn peek(&self, buf: &mut [u8]) -> std::io::Result<usize> {
                if buf.is_empty() {
                    return Ok(0);
                }
                self.shared().read(crate::drive::Caller::User, |connection| connection.peek(buf))
            }

            /// Bytes that can be read without touching the stream; not zero if there are any. Never waits.
            pub fn pending(&self) -> usize {
                self.shared().lock().machine.pending()
            }

            /// Queues all of `data` or nothing, in any mode and from the first moment, the time before a handshake
            /// included; sends what goes without waiting. What stays goes with the next call, or by the backend. Takes
            /// the data if nothing is unsent or if it fits under the send limit. Beside a `write` of another thread it goes
            /// behind that write, in one piece, and is sent by it.
            ///
            /// Errors: `WouldBlock` if it does not fit; those of a write. Never waits.
            pub fn send(&self, data: &[u8]) -> std::io::Result<()> {
                self.shared().send(data)
            }

            /// Bytes accepted by `write` and `send` and not yet handed to the stream.
            pub fn unsent(&self) -> usize {
                self.shared().ask().machine.unsent()
            }

            /// What to wait for, as things stand, before the next call can get further: `readable` while more can come,
            /// `writable` while something is unsent, so also after a `WouldBlock` from a write that found no room; and, on a
            /// file over a file, where the one inside has something for the next read already (who does not read is told of that
            /// again and again, as `poll` tells of a hang-up). Read until `WouldBlock`, or until [`pending`](Self::pending) is
            /// zero, before waiting. Never waits.
            pub fn interest(&self) -> crate::Interest {
                self.shared().interest()
            }

            /// Sets all callbacks in one step; those that are absent are removed. What has been waiting is delivered at
            /// the next turn of the backend.
            pub fn set_callbacks(&self, callbacks: crate::Callbacks<$file<S>>) {
                self.shared().set_callbacks(callbacks);
            }

            /// Takes all callbacks away. Inside a callback it takes the running one too: it is not put back, and not among
            /// those that are given out. From another thread it waits until the callback at hand has returned, and gives that
            /// one out too; when it has returned nothing is called any more. So a callback must not wait for a thread that
            /// does this; nor may two callbacks, in two backends, each take those of the other's file, or move it
            /// ([`set_backend`](Self::set_backend)): they would wait for each other.
            ///
            /// Callbacks need not be taken away to be freed: see [`Callbacks`](crate::Callbacks).
            pub fn take_callbacks(&self) -> crate::Callbacks<$file<S>> {
                self.shared().take_callbacks()
            }

            /// The backend that calls the callbacks from now on, and drives the handshake and the sending; `None`: none.
            /// In any state and from any thread. When this returns the old backend calls nothing for this file any more:
            /// it waits for a callback that another thread is running. Nobody keeps a file that is put into none
            /// ([`keep`](Self::keep)): it ends with its last handle.
            ///
            /// Errors: `Unsupported` for a stream without a descriptor; `ResourceBusy` while another file has this one.
            pub fn set_backend(&self, backend: Option<&crate::Backend>) -> std::io::Result<()> {
                self.shared().set_backend(backend)
            }

            /// The backend, while there is one.
            pub fn backend(&self) -> Option<crate::Backend> {
                self.shared().backend()
            }

            /// Stops the backend's reading and the read callback, or lets them go on; direct reads are not concerned. The
            /// peer is held by its window meanwhile. A reset, or a failure to send, is heard of at once all the same: the
            /// write callback is called, as nothing is unsent any more, and the close callback, as soon as the data before
            /// the end has been taken.
            pub fn pause_reading(&self, paused: bool) {
                self.shared().pause_reading(paused);
            }

            /// Gives this handle to the backend, which owns it until reading has ended, the close callback has been told
            /// and everything accepted is sent or has failed; then it is dropped. Without a backend the same as dropping
            /// it.
            pub fn keep(self) {
                let handle = self.handle;
                let shared = handle.shared.clone();
                shared.keep(handle);
            }

            /// The wrapped stream, for its settings and its address. Reading from it or writing to it breaks the
            /// connection; time-outs are the file's.
            pub fn get_ref(&self) -> &S {
                &self.shared().stream
            }

            fn read_ref(&self, buf: &mut [u8]) -> std::io::Result<usize> {
                if buf.is_empty() {
                    return Ok(0);
                }
                self.shared().read(crate::drive::Caller::User, |connection| connection.read(buf))
            }

            fn read_vectored_ref(&self, bufs: &mut [std::io::IoSliceMut<'_>]) -> std::io::Result<usize> {
                if bufs.iter().all(|buf| buf.is_empty()) {
                    return Ok(0);
                }
                self.shared().read(crate::drive::Caller::User, |connection| connection.read_vectored(bufs))
            }

            fn write_ref(&self, buf: &[u8]) -> std::io::Result<usize> {
                self.shared().write(crate::drive::Caller::User, buf)
            }

            fn write_vectored_ref(&self, bufs: &[std::io::IoSlice<'_>]) -> std::io::Result<usize> {
                self.shared().write_vectored(bufs)
            }
        }

        crate::file::faces::read_and_write!($file, $file<S>);
        crate::file::faces::read_and_write!($file, &$file<S>);

        // As `TcpStream`: what is behind the lock stays whole, as no code of a user runs under it.
        impl<S: crate::stream::Stream> std::panic::UnwindSafe for $file<S> {}
        impl<S: crate::stream::Stream> std::panic::RefUnwindSafe for $file<S> {}

        impl<S: crate::stream::Stream> Clone for $file<S> {
            fn clone(&self) -> Self {
                $file { handle: self.handle.clone() }
            }
        }

        impl<S: crate::stream::Stream> crate::drive::handle::Face<S> for $file<S> {
            fn from_handle(handle: crate::drive::handle::Handle<S, Self>) -> Self {
                $file { handle }
            }
        }

        #[cfg(unix)]
        impl<S: crate::stream::Stream + std::os::fd::AsFd> std::os::fd::AsFd for $file<S> {
            fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
                self.get_ref().as_fd()
            }
        }

        #[cfg(unix)]
        impl<S: crate::stream::Stream + std::os::fd::AsFd> std::os::fd::AsRawFd for $file<S> {
            fn as_raw_fd(&self) -> std::os::fd::RawFd {
                std::os::fd::AsRawFd::as_raw_fd(&std::os::fd::AsFd::as_fd(self))
            }
        }

        #[cfg(windows)]
        impl<S: crate::stream::Stream + std::os::windows::io::AsSocket> std::os::windows::io::AsSocket for $file<S> {
            fn as_socket(&self) -> std::os::windows::io::BorrowedSocket<'_> {
                self.get_ref().as_socket()
            }
        }

        #[cfg(windows)]
        impl<S: crate::stream::Stream + std::os::windows::io::AsSocket> std::os::windows::io::AsRawSocket for $file<S> {
            fn as_raw_socket(&self) -> std::os::windows::io::RawSocket {
                std::os::windows::io::AsRawSocket::as_raw_socket(&std::os::windows::io::AsSocket::as_socket(self))
            }
        }
    };
}

macro_rules! read_and_write {
    ($name:ident, $file:ty) => {
        impl<S: crate::stream::Stream> std::io::Read for $file {
            fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
                self.read_ref(buf)
            }

            fn read_vectored(&mut self, bufs: &mut [std::io::IoSliceMut<'_>]) -> std::io::Result<usize> {
                self.read_vectored_ref(bufs)
            }
        }

        impl<S: crate::stream::Stream> std::io::Write for $file {
            /// Blocking: takes all of `buf`, in one piece, and returns when it has been handed to the stream; less only where
            /// a time-out, an interrupt or a failure came in the middle. Non-blocking: takes what the stream takes, and
            /// up to the send limit more. `Ok(n)` is n bytes, once; `WouldBlock` and `TimedOut` are none, and the next call
            /// may bring other data.
            ///
            /// Beside a write of another thread: queued behind it, whole, and `Ok` at once if it fits under the send limit;
            /// else it waits for its turn, in order of asking. What counts of the other write is the chunk it has in hand.
            /// While it waits it reads ahead, up to 1 MiB, if nobody reads, so that two ends that answer each other with
            /// big writes get on.
            fn write(&mut self, buf: &[u8]) -> std::io::Result<usize> {
                self.write_ref(buf)
            }

            fn write_vectored(&mut self, bufs: &[std::io::IoSlice<'_>]) -> std::io::Result<usize> {
                self.write_vectored_ref(bufs)
            }

            /// Waits until all that was accepted when it was called is handed to the stream: what other threads have
            /// queued, and the close_notify of a `shutdown(Write)`, included.
            ///
            /// Errors: those of a write; `TimedOut` of the write time-out and `WouldBlock` leave what is unsent where it is.
            fn flush(&mut self) -> std::io::Result<()> {
                self.shared().flush(crate::drive::Caller::User)
            }
        }
    };
}

pub(crate) use {events, read_and_write};
