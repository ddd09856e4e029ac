//! Unix sockets. They are handed on as TCP streams: what is asked of those from here on is the same, but for an address.

#[cfg(unix)]
pub use there::*;

#[cfg(unix)]
mod there {
    use std::io;
    use std::net::TcpStream;
    use std::os::fd::OwnedFd;
    use std::os::unix::net::{UnixListener, UnixStream};
    use std::path::Path;
    use std::thread;
    use std::time::{Duration, Instant};

    use crate::dial::in_time;
    use crate::leftovers;

    pub fn connect(path: &Path, deadline: Instant) -> io::Result<TcpStream> {
        let path = path.to_path_buf();
        // It waits where the server's queue is full.
        in_time(deadline, move || UnixStream::connect(path)).map(as_tcp)
    }

    fn as_tcp(stream: UnixStream) -> TcpStream {
        OwnedFd::from(stream).into()
    }

    pub struct Listener(UnixListener);

    impl Listener {
        pub fn bind(path: &Path) -> io::Result<Listener> {
            let bound = leftovers::make_socket(path, || UnixListener::bind(path));
            let in_use = |error: io::Error| match error.kind() {
                // Only who knows whose it is may remove it.
                io::ErrorKind::AddrInUse if UnixStream::connect(path).is_err() => {
                    io::Error::new(error.kind(), "it exists, and nobody listens there: remove it first")
                }
                _ => error,
            };
            bound.map(Listener).map_err(in_use)
        }

        /// As that of `SslListener`, past errors that pass: of a connection that is gone already, and for want of descriptors.
        pub fn accept(&self) -> TcpStream {
            loop {
                match self.0.accept() {
                    Ok((stream, _)) => return as_tcp(stream),
                    Err(_) => thread::sleep(Duration::from_millis(100)),
                }
            }
        }
    }
}

#[cfg(not(unix))]
pub use nowhere::*;

#[cfg(not(unix))]
mod nowhere {
    use std::io;
    use std::net::TcpStream;
    use std::path::Path;
    use std::time::Instant;

    fn unsupported() -> io::Error {
        io::Error::new(io::ErrorKind::Unsupported, "no Unix sockets on this system")
    }

    pub fn connect(_: &Path, _: Instant) -> io::Result<TcpStream> {
        Err(unsupported())
    }

    pub enum Listener {}

    impl Listener {
        pub fn bind(_: &Path) -> io::Result<Listener> {
            Err(unsupported())
        }

        pub fn accept(&self) -> TcpStream {
            match *self {}
        }
    }
}
