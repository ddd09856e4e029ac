//! Both ends of a session, and an input that decides what each does and how far the bytes between them get.
//!
//! The input's first byte picks the pairing. Then two bytes make one step: what happens at which end, and a size.

use std::io::ErrorKind;

use sslfile::Connection;

use super::contexts::pairings;

/// The most one end writes.
const MOST: usize = 200_000;

/// Whatever the splits: what was written arrives, in order, once, and close_notify behind it. Says how much that was.
pub fn splits(input: &[u8]) -> usize {
    let Some((&which, steps)) = input.split_first() else { return 0 };
    let mut session = Session::new(which, false);
    for step in steps.chunks_exact(2) {
        session.step(step[0], step[1]);
    }
    session.finish();
    session.ends.iter().map(|end| end.read).sum()
}

/// The wire also turns bits over, drops, adds and cuts. What arrives is still what was written, as far as it gets, and its end is
/// clean only if all has arrived and the other end has closed. Says how much arrived.
pub fn tampering(input: &[u8]) -> usize {
    let Some((&which, steps)) = input.split_first() else { return 0 };
    let mut session = Session::new(which, true);
    for step in steps.chunks_exact(2) {
        session.step(step[0], step[1]);
    }
    session.give_up();
    session.ends.iter().map(|end| end.read).sum()
}

struct Session {
    ends: [End; 2],
    may_tamper: bool,
    tampered: bool,
}

struct End {
    connection: Connection,
    is_server: bool,
    written: usize,
    read: usize,
    closed: bool,
    /// Something has been fed to it.
    fed: bool,
    input_ended: bool,
}

impl Session {
    fn new(which: u8, may_tamper: bool) -> Session {
        let pairing = &pairings()[usize::from(which) % pairings().len()];
        let end = |connection, is_server| End {
            connection,
            is_server,
            written: 0,
            read: 0,
            closed: false,
            fed: false,
            input_ended: false,
        };
        Session { ends: [end(pairing.client(), false), end(pairing.server(), true)], may_tamper, tampered: false }
    }

    fn step(&mut self, what: u8, size: u8) {
        let at = usize::from(what & 1);
        let amount = match usize::from(size) {
            small @ 0..=127 => small,
            // Up to more than a record holds.
            large => (large - 127) * 137,
        };
        match what >> 1 & 31 {
            0..=9 => self.carry(at, amount, |_| {}),
            10..=14 => self.write(at, amount),
            15..=20 => drop(self.read(at, amount)),
            21 => self.handshake(at),
            22 => self.close(at),
            23 => self.carry(at, usize::MAX, |_| {}),
            24 => self.ask(at),
            _ if !self.may_tamper => {}
            25..=27 => {
                self.tampered = true;
                self.carry(at, amount, |bytes| bytes.iter_mut().take(1).for_each(|byte| *byte ^= 1 << (size % 8)));
            }
            28 => {
                self.tampered = true;
                self.carry(at, amount, Vec::clear);
            }
            29 | 30 => {
                self.tampered = true;
                self.carry(at, 0, |bytes| bytes.extend_from_slice(ADDED[usize::from(size) % ADDED.len()]));
            }
            _ => self.cut(at),
        }
    }

    /// From this end to the other.
    fn carry(&mut self, from: usize, amount: usize, tamper: impl Fn(&mut Vec<u8>)) {
        let output = self.ends[from].connection.output();
        let mut bytes = output[..amount.min(output.len())].to_vec();
        self.ends[from].connection.consume_output(bytes.len());
        tamper(&mut bytes);
        let to = &mut self.ends[1 - from];
        if !to.input_ended {
            to.connection.feed(&bytes);
            to.fed |= !bytes.is_empty();
        }
    }

    fn cut(&mut self, at: usize) {
        self.tampered = true;
        self.ends[at].connection.feed_eof();
        self.ends[at].input_ended = true;
    }

    fn write(&mut self, at: usize, amount: usize) {
        let end = &mut self.ends[at];
        let data: Vec<u8> = (end.written..MOST.min(end.written + amount)).map(|i| byte(end.is_server, i)).collect();
        match end.connection.write(&data) {
            Ok(n) => {
                assert!(n == data.len() && (n == 0 || !end.closed));
                end.written += n;
            }
            Err(e) if e.kind() == ErrorKind::WouldBlock => assert!(!end.connection.is_handshake_done()),
            Err(e) if e.kind() == ErrorKind::BrokenPipe && end.closed => {}
            Err(e) => assert!(self.tampered, "write: {e}"),
        }
    }

    /// Whether there may be more.
    fn read(&mut self, at: usize, amount: usize) -> bool {
        let (written, closed) = (self.ends[1 - at].written, self.ends[1 - at].closed);
        let end = &mut self.ends[at];
        let mut buf = vec![0; amount];
        match end.connection.read(&mut buf) {
            Ok(0) if amount == 0 => false,
            Ok(0) => {
                let said_nothing = end.is_server && !end.fed;
                assert!(end.connection.is_peer_closed() || said_nothing, "a clean end out of nothing");
                assert!((closed && end.read == written) || said_nothing, "an end before the end");
                false
            }
            Ok(n) => {
                for got in &buf[..n] {
                    assert_eq!(*got, byte(!end.is_server, end.read), "byte {}", end.read);
                    end.read += 1;
                }
                assert!(end.read <= written, "more than was written");
                true
            }
            Err(e) => {
                assert!(e.kind() == ErrorKind::WouldBlock || self.tampered, "read: {e}");
                false
            }
        }
    }

    fn handshake(&mut self, at: usize) {
        if let Err(e) = self.ends[at].connection.handshake() {
            assert!(e.kind() == ErrorKind::WouldBlock || self.tampered, "handshake: {e}");
        }
    }

    fn close(&mut self, at: usize) {
        let end = &mut self.ends[at];
        match end.connection.close() {
            Ok(()) => end.closed = true,
            Err(e) => assert!(self.tampered, "close: {e}"),
        }
    }

    /// Questions may be asked at any time.
    fn ask(&mut self, at: usize) {
        let connection = &self.ends[at].connection;
        let done = connection.is_handshake_done();
        assert!(done || (connection.version().is_none() && connection.cipher().is_none()));
        assert!(done || connection.export_keying_material(&mut [0; 8], "EXPERIMENTAL label", None).is_err());
        drop((connection.alpn(), connection.server_name(), connection.peer_certificate(), format!("{connection:?}")));
    }

    /// Lets everything through until nothing moves.
    fn settle(&mut self) {
        loop {
            for at in 0..2 {
                self.handshake(at);
                while self.read(at, 10_000) {}
            }
            if self.ends.iter().all(|end| end.connection.output().is_empty()) {
                return;
            }
            self.carry(0, usize::MAX, |_| {});
            self.carry(1, usize::MAX, |_| {});
        }
    }

    fn finish(&mut self) {
        self.close(0);
        self.close(1);
        self.settle();
        for at in 0..2 {
            let written = self.ends[1 - at].written;
            let end = &mut self.ends[at];
            assert!(end.connection.is_handshake_done());
            assert_eq!(end.read, written, "what was written has arrived");
            for _ in 0..2 {
                assert_eq!(end.connection.read(&mut [0; 10]).expect("close_notify"), 0);
            }
            assert!(end.connection.is_peer_closed());
            assert_eq!(end.connection.take_unread(), b"", "nothing was sent behind close_notify");
        }
    }

    fn give_up(&mut self) {
        self.settle();
        for at in 0..2 {
            self.cut(at);
            while self.read(at, 10_000) {}
            if let Err(e) = self.ends[at].connection.read(&mut [0; 10]) {
                assert_ne!(e.kind(), ErrorKind::WouldBlock, "after the end of the input");
            }
            self.ends[at].connection.take_unread();
        }
    }
}

/// What the wire adds: alerts (close_notify among them), a change of cipher spec, application data, a handshake message, and what is
/// no record at all.
const ADDED: [&[u8]; 8] = [
    &[21, 3, 3, 0, 2, 1, 0],
    &[21, 3, 3, 0, 2, 2, 0],
    &[21, 3, 3, 0, 2, 1, 90],
    &[20, 3, 3, 0, 1, 1],
    &[23, 3, 3, 0, 1, 0],
    &[23, 3, 3, 0, 0],
    &[22, 3, 3, 0, 4, 0, 0, 0, 0],
    b"GET / HTTP/1.0\r\n\r\n",
];

/// What this end writes there: loss, doubling and disorder all show.
fn byte(is_server: bool, at: usize) -> u8 {
    ((at as u32).wrapping_mul(2_654_435_761) >> 13) as u8 ^ u8::from(is_server)
}
