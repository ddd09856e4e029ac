//! Accepting, whatever passes by itself.

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};

use crate::sys::{is_nonblocking, passes, AsFd, Passes};

/// Until a connection has come. A listener that does not block waits for nothing else either.
pub(super) fn accept(
    listener: &TcpListener,
    check_open: impl Fn() -> io::Result<()>,
    rest: impl Fn(),
) -> io::Result<(TcpStream, SocketAddr)> {
    loop {
        check_open()?;
        let e = match listener.accept() {
            Ok(accepted) => return Ok(accepted),
            Err(e) => e,
        };
        check_open()?;
        match passes(&e) {
            Passes::AtOnce => {}
            Passes::Later if !is_nonblocking(listener.as_fd())? => rest(),
            _ => return Err(e),
        }
    }
}
