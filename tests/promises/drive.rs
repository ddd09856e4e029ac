//! The same steps in blocking and in non-blocking mode, and a peer that is nothing but a `Connection`.

use std::io::{self, ErrorKind, Read, Write};
use std::thread;
use std::time::Duration;

use sslfile::{Connection, Engine, SslFile, SslOptions, Stream};

use super::wires::{Mode, Raw, Wire};
use crate::common::{client_context, server_context, NAME};

/// Between two tries. Not every stream here has a descriptor to wait on.
pub fn pause() {
    thread::sleep(Duration::from_micros(200));
}

/// In non-blocking mode again until it gives something else than `WouldBlock`; in blocking mode that is an answer like another.
pub fn again<T>(mode: Mode, mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(e) if mode == Mode::Nonblocking && e.kind() == ErrorKind::WouldBlock => pause(),
            other => return other,
        }
    }
}

pub fn would_block<T>(result: &io::Result<T>) -> bool {
    matches!(result, Err(e) if e.kind() == ErrorKind::WouldBlock)
}

/// Writes it all and hands it to the stream.
pub fn put<S: Stream>(file: &SslFile<S>, mode: Mode, data: &[u8]) -> io::Result<()> {
    let mut done = 0;
    while done < data.len() {
        done += again(mode, || (&*file).write(&data[done..]))?;
    }
    again(mode, || (&*file).flush())
}

/// Reads exactly `len` bytes; an end before that is a failure.
pub fn get<S: Stream>(file: &SslFile<S>, mode: Mode, len: usize) -> io::Result<Vec<u8>> {
    let mut data = vec![0; len];
    let mut done = 0;
    while done < len {
        match again(mode, || (&*file).read(&mut data[done..]))? {
            0 => panic!("the end after {done} of {len} bytes"),
            n => done += n,
        }
    }
    Ok(data)
}

/// Reads to the end, which is `Ok` for a clean one.
pub fn drain<S: Stream>(file: &SslFile<S>, mode: Mode) -> (Vec<u8>, io::Result<()>) {
    let mut all = Vec::new();
    let mut buf = vec![0; 64 << 10];
    loop {
        match again(mode, || (&*file).read(&mut buf)) {
            Ok(0) => return (all, Ok(())),
            Ok(n) => all.extend_from_slice(&buf[..n]),
            Err(e) => return (all, Err(e)),
        }
    }
}

/// Long enough to tell a drop that waits for it from one that does not wait at all.
pub const CLOSE_TIMEOUT: Duration = Duration::from_secs(20);

pub fn options(mode: Mode) -> SslOptions {
    SslFile::options().nonblocking(mode == Mode::Nonblocking).close_timeout(CLOSE_TIMEOUT)
}

/// Two files, hands shaken: (client, server).
pub fn files<W: Wire>(engine: Engine, mode: Mode) -> (SslFile<W::End>, SslFile<W::End>) {
    let (c, s) = W::pair(engine, mode);
    thread::scope(|t| {
        let server = t.spawn(|| {
            let file = options(mode).server().open(s, &server_context(engine)).expect("server");
            again(mode, || file.handshake()).expect("server handshake");
            file
        });
        let client = options(mode).client(NAME).open(c, &client_context(engine)).expect("client");
        again(mode, || client.handshake()).expect("client handshake");
        (client, server.join().expect("server thread"))
    })
}

/// A client file and the bare server it talks to.
pub fn client_file<W: Wire>(engine: Engine, mode: Mode) -> (SslFile<W::End>, Peer) {
    let (end, raw) = W::raw(engine, mode);
    thread::scope(|t| {
        let peer = t.spawn(move || Peer::server(engine, raw).shaken());
        let file = options(mode).client(NAME).open(end, &client_context(engine)).expect("client");
        again(mode, || file.handshake()).expect("client handshake");
        settled(file, peer.join().expect("peer"), mode)
    })
}

/// A server file and the bare client that talks to it.
pub fn server_file<W: Wire>(engine: Engine, mode: Mode) -> (SslFile<W::End>, Peer) {
    let (end, raw) = W::raw(engine, mode);
    thread::scope(|t| {
        let peer = t.spawn(move || Peer::client(engine, raw).shaken());
        let file = options(mode).server().open(end, &server_context(engine)).expect("server");
        again(mode, || file.handshake()).expect("server handshake");
        settled(file, peer.join().expect("peer"), mode)
    })
}

/// What follows a handshake (session tickets) has been read: ending the bare stream now is no reset.
fn settled<S: Stream>(file: SslFile<S>, mut peer: Peer, mode: Mode) -> (SslFile<S>, Peer) {
    put(&file, mode, b"?").expect("write");
    peer.hear(1);
    peer.say(b"!");
    assert_eq!(get(&file, mode, 1).expect("read"), b"!");
    (file, peer)
}

/// The other end with every byte of the wire in the test's hands. Blocking.
pub struct Peer {
    pub tls: Connection,
    pub raw: Raw,
}

impl Peer {
    pub fn client(engine: Engine, raw: Raw) -> Peer {
        Peer { tls: Connection::client(&client_context(engine), NAME).expect("peer"), raw }
    }

    pub fn server(engine: Engine, raw: Raw) -> Peer {
        Peer { tls: Connection::server(&server_context(engine)).expect("peer"), raw }
    }

    pub fn shaken(mut self) -> Peer {
        loop {
            let step = self.tls.handshake();
            self.send_output();
            match step {
                Ok(()) => return self,
                Err(e) if e.kind() == ErrorKind::WouldBlock => self.receive(),
                Err(e) => panic!("the peer's handshake: {e}"),
            }
        }
    }

    /// What TLS wants on the wire now, taken off it instead.
    pub fn take_output(&mut self) -> Vec<u8> {
        let bytes = self.tls.output().to_vec();
        self.tls.consume_output(bytes.len());
        bytes
    }

    pub fn send_output(&mut self) {
        let bytes = self.take_output();
        self.raw.writer.write_all(&bytes).expect("the peer writes");
        self.raw.writer.flush().expect("the peer flushes");
    }

    fn receive(&mut self) {
        let mut buf = [0; 16 << 10];
        match self.raw.reader.read(&mut buf) {
            Ok(0) => self.tls.feed_eof(),
            Ok(n) => self.tls.feed(&buf[..n]),
            Err(e) => panic!("the peer reads: {e}"),
        }
    }

    /// Encrypts, and keeps the records off the wire.
    pub fn seal(&mut self, data: &[u8]) -> Vec<u8> {
        let mut done = 0;
        while done < data.len() {
            done += self.tls.write(&data[done..]).expect("the peer encrypts");
        }
        self.take_output()
    }

    pub fn say(&mut self, data: &[u8]) {
        let records = self.seal(data);
        self.raw.writer.write_all(&records).expect("the peer writes");
        self.raw.writer.flush().expect("the peer flushes");
    }

    /// `Ok(0)` is the file's close_notify.
    pub fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.tls.read(buf) {
                Err(e) if e.kind() == ErrorKind::WouldBlock => self.receive(),
                other => return other,
            }
        }
    }

    pub fn hear(&mut self, len: usize) -> Vec<u8> {
        let mut data = vec![0; len];
        let mut done = 0;
        while done < len {
            match self.read(&mut data[done..]).expect("the peer decrypts") {
                0 => panic!("the end after {done} of {len} bytes"),
                n => done += n,
            }
        }
        data
    }

    /// close_notify as records, kept off the wire.
    pub fn seal_close(&mut self) -> Vec<u8> {
        self.tls.close().expect("close_notify");
        self.take_output()
    }
}
