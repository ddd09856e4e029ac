//! TCP without TLS: the ceiling.

use std::io;
use std::net::{Shutdown, TcpStream};

use crate::peer::{End, Library, Reader, Role, Writer};

pub fn library() -> io::Result<Library> {
    Ok(Library { client: Box::new(Plain), server: Box::new(Plain), resuming: None })
}

struct Plain;

impl Role for Plain {
    fn open(&self, tcp: TcpStream) -> io::Result<Box<dyn End>> {
        Ok(Box::new(tcp))
    }

    fn open_both_ways(&self, tcp: TcpStream) -> io::Result<(Reader, Writer)> {
        Ok((Box::new(tcp.try_clone()?), Box::new(tcp)))
    }
}

impl End for TcpStream {
    fn negotiated(&self) -> String {
        "no TLS".to_string()
    }

    fn is_resumed(&self) -> Option<bool> {
        None
    }

    fn finish(self: Box<Self>) -> io::Result<()> {
        self.shutdown(Shutdown::Write)
    }
}
