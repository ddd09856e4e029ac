//! What the two faces, [`SslFile`](crate::SslFile) and [`PlainFile`](crate::PlainFile), have in common.

/// Modes, time-outs, queued writing, callbacks, `Read` and `Write` for one face.
macro_rules! events {
    ($file:ident) => {
        impl<S: crate::stream::Stream> $file<S> {
            /// Blocking or not, from now on, for all handles; in any state. A call that is waiting goes on waiting.
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
            /// bound, the default. After `TimedOut` nothing is half-done.
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

            /// As `read`, and the bytes stay to be read.
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
            /// the data if nothing is unsent or if it fits under the send limit.
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
            /// `writable` while something is unsent, so also after a `WouldBlock` from a write that found no room. Read
            /// until `WouldBlock`, or until [`pending`](Self::pending) is zero, before waiting. Never waits.
            pub fn interest(&self) -> crate::Interest {
                self.shared().interest()
            }

            /// Sets all callbacks in one step; those that are absent are removed. What has been waiting is delivered at
            /// the next turn of the backend.
            pub fn set_callbacks(&self, callbacks: crate::Callbacks<$file<S>>) {
                self.shared().set_callbacks(callbacks);
            }

            /// Takes all callbacks away. Inside a callback it takes the running one too: it is not put back.
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
            /// peer is held by its window meanwhile.
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

        impl<S: crate::stream::Stream + std::os::fd::AsFd> std::os::fd::AsFd for $file<S> {
            fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
                self.get_ref().as_fd()
            }
        }

        impl<S: crate::stream::Stream + std::os::fd::AsFd> std::os::fd::AsRawFd for $file<S> {
            fn as_raw_fd(&self) -> std::os::fd::RawFd {
                std::os::fd::AsRawFd::as_raw_fd(&std::os::fd::AsFd::as_fd(self))
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
            fn write(&mut self, buf: &[u8]) -> std::io::Result<usize> {
                self.write_ref(buf)
            }

            fn write_vectored(&mut self, bufs: &[std::io::IoSlice<'_>]) -> std::io::Result<usize> {
                self.write_vectored_ref(bufs)
            }

            /// Waits until all that was accepted is handed to the stream, the close_notify of a `shutdown(Write)`
            /// included.
            fn flush(&mut self) -> std::io::Result<()> {
                self.shared().flush(crate::drive::Caller::User)
            }
        }
    };
}

pub(crate) use {events, read_and_write};
