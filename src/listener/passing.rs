//! Accepting, whatever passes by itself.

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};

use crate::sys::{passes, Passes, SHUTDOWN_WAKES};

/// Until a connection has come. A listener that does not block waits for nothing else either.
pub(super) fn accept(
    listener: &TcpListener,
    check_open: impl Fn() -> io::Result<()>,
    is_nonblocking: impl Fn() -> io::Result<bool>,
    wait: impl Fn(),
    rest: impl Fn(&io::Error),
) -> io::Result<(TcpStream, SocketAddr)> {
    loop {
        check_open()?;
        let e = match listener.accept() {
            Ok(accepted) => return Ok(accepted),
            Err(e) => e,
        };
        check_open()?;
        if !SHUTDOWN_WAKES && e.kind() == io::ErrorKind::WouldBlock && !is_nonblocking()? {
            wait();
            continue;
        }
        match passes(&e) {
            Passes::AtOnce => {}
            Passes::Later if !is_nonblocking()? => rest(&e),
            _ => return Err(e),
        }
    }
}
