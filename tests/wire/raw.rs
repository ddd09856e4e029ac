//! A far end on a real socket that decides byte by byte what it sends: a `Connection` and a `TcpStream`, blocking.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};

use sslfile::Connection;

pub struct RawPeer {
    pub conn: Connection,
    pub tcp: TcpStream,
    /// Ciphertext that may still be sent; then the stream is half-closed.
    allowance: usize,
    /// Ciphertext that came out of the connection, sent or not.
    made: usize,
    cut: bool,
}

impl RawPeer {
    pub fn new(conn: Connection, tcp: TcpStream) -> RawPeer {
        // Small pieces must not wait for each other.
        tcp.set_nodelay(true).expect("nodelay");
        RawPeer { conn, tcp, allowance: usize::MAX, made: 0, cut: false }
    }

    /// Sends `allowance` bytes of ciphertext, then ends the stream and only reads.
    pub fn cut_after(mut self, allowance: usize) -> RawPeer {
        self.allowance = allowance;
        self
    }

    pub fn made(&self) -> usize {
        self.made
    }

    /// Sends what the connection has to say.
    pub fn send_output(&mut self) -> io::Result<()> {
        let n = self.conn.output().len();
        let pass = n.min(self.allowance);
        self.tcp.write_all(&self.conn.output()[..pass])?;
        self.conn.consume_output(n);
        self.allowance -= pass;
        self.made += n;
        if self.allowance == 0 && !self.cut {
            self.cut = true;
            self.tcp.shutdown(Shutdown::Write)?;
        }
        Ok(())
    }

    /// Waits for ciphertext; false at the end of the stream.
    pub fn receive(&mut self) -> io::Result<bool> {
        let mut buf = [0; 16_384];
        let n = self.tcp.read(&mut buf)?;
        if n == 0 {
            self.conn.feed_eof();
        } else {
            self.conn.feed(&buf[..n]);
        }
        Ok(n > 0)
    }

    fn drive<T>(&mut self, mut step: impl FnMut(&mut Connection) -> io::Result<T>) -> io::Result<T> {
        loop {
            let done = step(&mut self.conn);
            self.send_output()?;
            match done {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => self.receive()?,
                done => return done,
            };
        }
    }

    pub fn handshake(&mut self) -> io::Result<()> {
        self.drive(|conn| conn.handshake())
    }

    pub fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.drive(|conn| conn.read(buf))
    }

    pub fn read_to_end(&mut self) -> io::Result<Vec<u8>> {
        let mut all = Vec::new();
        let mut buf = [0; 16_384];
        loop {
            match self.read(&mut buf)? {
                0 => return Ok(all),
                n => all.extend_from_slice(&buf[..n]),
            }
        }
    }

    pub fn write_all(&mut self, mut data: &[u8]) -> io::Result<()> {
        while !data.is_empty() {
            let n = self.drive(|conn| conn.write(data))?;
            data = &data[n..];
        }
        Ok(())
    }

    /// Sends close_notify, as far as the allowance goes.
    pub fn close_with_nothing(&mut self) -> io::Result<()> {
        self.conn.close()?;
        self.send_output()
    }

    /// Sends close_notify and `plain` behind it, in one piece.
    pub fn close_with(&mut self, plain: &[u8]) -> io::Result<()> {
        self.conn.close()?;
        let mut piece = self.conn.output().to_vec();
        self.conn.consume_output(piece.len());
        self.made += piece.len();
        piece.extend_from_slice(plain);
        self.tcp.write_all(&piece)
    }
}
