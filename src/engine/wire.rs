use std::io::{self, Read, Write};

use super::Buffer;

/// The "socket" of a session: ciphertext that has come, ciphertext that is to go.
///
/// Reading it never gives an end of file, writing it never fails; both only move memory.
#[derive(Default)]
pub(crate) struct Wire {
    pub incoming: Buffer,
    pub outgoing: Buffer,
    /// How much of `incoming` the library may take.
    admitted: usize,
    /// The last alert that went out in the clear, which not every library tells us of.
    pub alert_sent: Option<u8>,
}

/// The header of a record (RFC 8446, section 5.1): type, version, length.
const HEADER: usize = 5;
/// More than this no record may hold (RFC 8446, section 5.2; RFC 5246, section 6.2.3).
const LONGEST: usize = 16 * 1024 + 2048;
const ALERT: u8 = 21;

impl Wire {
    /// Lets the library have the next record, if it is there as a whole, or what comes instead of one. Says whether
    /// there is something to be had.
    ///
    /// The library never takes part of a record, so that `incoming` always starts with a record, or with what the peer
    /// sent after TLS; and it is not called for nothing.
    pub fn admit_record(&mut self) -> bool {
        self.admitted = match *self.incoming.as_slice() {
            [kind, _, _, high, low, ..] => {
                let length = usize::from(u16::from_be_bytes([high, low]));
                let is_record = (20..=24).contains(&kind) && length <= LONGEST;
                match is_record {
                    true if self.incoming.len() < HEADER + length => 0,
                    true => HEADER + length,
                    false => self.incoming.len(),
                }
            }
            _ => 0,
        };
        self.admitted > 0
    }
}

impl Read for Wire {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.admitted == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let room = buf.len().min(self.admitted);
        let n = self.incoming.read_into(&mut buf[..room]);
        self.admitted -= n;
        Ok(n)
    }
}

impl Write for Wire {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        if let [ALERT, _, _, 0, 2, _level, alert] = *buf {
            self.alert_sent = Some(alert);
        }
        self.outgoing.append(buf);
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
