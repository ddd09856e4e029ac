//! What is said with a proxy: bounded in time, and not a byte is read that was not asked for, as it may be the server's.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::Instant;

use crate::dial::left;

pub struct Talk {
    tcp: TcpStream,
    deadline: Instant,
}

impl Talk {
    pub fn new(tcp: TcpStream, deadline: Instant) -> Talk {
        Talk { tcp, deadline }
    }

    pub fn say(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.tcp.set_write_timeout(Some(left(self.deadline)))?;
        self.tcp.write_all(bytes).map_err(in_words)
    }

    /// All of it, however slowly it comes.
    pub fn hear(&mut self, mut buf: &mut [u8]) -> io::Result<()> {
        while !buf.is_empty() {
            let n = self.receive(|mut tcp| tcp.read(buf))?;
            buf = &mut buf[n..];
        }
        Ok(())
    }

    /// At least one byte.
    fn receive(&self, mut receive: impl FnMut(&TcpStream) -> io::Result<usize>) -> io::Result<usize> {
        loop {
            if Instant::now() >= self.deadline {
                return Err(late());
            }
            self.tcp.set_read_timeout(Some(left(self.deadline)))?;
            match receive(&self.tcp) {
                Ok(0) => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it hung up")),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => return result.map_err(in_words),
            }
        }
    }

    /// Byte by byte, until this has had enough.
    pub fn hear_until(&mut self, mut is_enough: impl FnMut(u8) -> io::Result<bool>) -> io::Result<()> {
        let mut buf = [0; 1024];
        loop {
            let there = self.receive(|tcp| tcp.peek(&mut buf))?;
            let mut wanted = 0;
            let mut enough = false;
            while wanted < there && !enough {
                enough = is_enough(buf[wanted])?;
                wanted += 1;
            }
            self.hear(&mut buf[..wanted])?;
            if enough {
                return Ok(());
            }
        }
    }

    pub fn end(self) -> io::Result<TcpStream> {
        self.tcp.set_read_timeout(None)?;
        self.tcp.set_write_timeout(None)?;
        Ok(self.tcp)
    }
}

fn late() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "it did not answer in time")
}

/// A time-out of the socket has another kind on each system.
fn in_words(error: io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => late(),
        _ => error,
    }
}
