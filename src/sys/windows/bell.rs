use std::io;
use std::net::{Ipv4Addr, UdpSocket};
use std::os::windows::io::{AsSocket, BorrowedSocket};

/// A socket that can be read from when somebody has rung: it is connected to itself, so that it hears nobody else. Not
/// inherited by children, and non-blocking.
pub(crate) struct Bell(UdpSocket);

impl Bell {
    pub fn new() -> io::Result<Bell> {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
        socket.connect(socket.local_addr()?)?;
        socket.set_nonblocking(true)?;
        Ok(Bell(socket))
    }

    /// One that is full already has been rung.
    pub fn ring(&self) {
        let _ = self.0.send(&[1]);
    }

    /// Silent again.
    pub fn drain(&self) {
        while self.0.recv(&mut [0; 8]).is_ok() {}
    }
}

impl AsSocket for Bell {
    fn as_socket(&self) -> BorrowedSocket<'_> {
        self.0.as_socket()
    }
}
