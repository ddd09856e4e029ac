//! `--crlf`: the ends of lines as most protocols in text have them.

use std::borrow::Cow;

/// Each LF becomes CRLF; one that is there stays as it is, also where its halves come apart.
#[derive(Debug, Default)]
pub struct Crlf {
    wanted: bool,
    /// What came last was a CR.
    after_cr: bool,
}

impl Crlf {
    pub fn new(wanted: bool) -> Crlf {
        Crlf { wanted, after_cr: false }
    }

    pub fn ends<'a>(&mut self, bytes: &'a [u8]) -> Cow<'a, [u8]> {
        if !self.wanted {
            return bytes.into();
        }
        let mut converted = Vec::with_capacity(bytes.len() + bytes.len() / 16);
        for &byte in bytes {
            if byte == b'\n' && !self.after_cr {
                converted.push(b'\r');
            }
            converted.push(byte);
            self.after_cr = byte == b'\r';
        }
        converted.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_end_alike_however_they_are_cut() {
        let (given, wanted) = (b"a\n\nb\r\n\r\r\n\rc\n\r", b"a\r\n\r\nb\r\n\r\r\n\rc\r\n\r");
        for first in 0..=given.len() {
            for second in first..=given.len() {
                let pieces = [&given[..first], &given[first..second], &given[second..]];
                let mut crlf = Crlf::new(true);
                let converted: Vec<u8> = pieces.iter().flat_map(|piece| crlf.ends(piece).into_owned()).collect();
                assert_eq!(converted.escape_ascii().to_string(), wanted.escape_ascii().to_string(), "{pieces:?}");
            }
        }
        assert_eq!(*Crlf::new(false).ends(given), *given);
    }
}
