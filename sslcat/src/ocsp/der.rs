//! As much of DER (ITU-T X.690) as certificates and OCSP responses take. What is cut or too long is none.

pub const BIT_STRING: u8 = 0x03;
pub const OCTET_STRING: u8 = 0x04;
pub const OBJECT_IDENTIFIER: u8 = 0x06;
pub const ENUMERATED: u8 = 0x0a;
pub const GENERALIZED_TIME: u8 = 0x18;
pub const INTEGER: u8 = 0x02;
pub const SEQUENCE: u8 = 0x30;

/// A value, and the bytes that it stands in.
#[derive(Clone, Copy, Debug)]
pub struct Element<'a> {
    pub tag: u8,
    pub body: &'a [u8],
    pub whole: &'a [u8],
}

/// One after the other.
#[derive(Clone, Copy, Debug)]
pub struct Elements<'a>(pub &'a [u8]);

impl<'a> Iterator for Elements<'a> {
    type Item = Element<'a>;

    fn next(&mut self) -> Option<Element<'a>> {
        let (&[tag, first], rest) = self.0.split_first_chunk()?;
        let (length, rest) = match first {
            0..=0x7f => (usize::from(first), rest),
            // Longer ones are no certificates; 0x80 is not DER.
            0x81..=0x83 => {
                let (bytes, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
                (bytes.iter().fold(0, |length, byte| length << 8 | usize::from(*byte)), rest)
            }
            _ => return None,
        };
        let (body, rest) = rest.split_at_checked(length)?;
        let whole = &self.0[..self.0.len() - rest.len()];
        self.0 = rest;
        Some(Element { tag, body, whole })
    }
}

impl<'a> Elements<'a> {
    /// The next one, if it has this tag.
    pub fn tagged(&mut self, tag: u8) -> Option<Element<'a>> {
        let mut rest = *self;
        let found = rest.next().filter(|element| element.tag == tag)?;
        *self = rest;
        Some(found)
    }
}

impl<'a> Element<'a> {
    pub fn parts(&self) -> Elements<'a> {
        Elements(self.body)
    }

    /// Of a BIT STRING with whole bytes.
    pub fn bits(&self) -> Option<&'a [u8]> {
        self.body.strip_prefix(&[0]).filter(|_| self.tag == BIT_STRING)
    }
}
