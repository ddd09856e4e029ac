//! What went over the wire in the clear: the ClientHello, to know what was asked, and the server's first words. All of it may be
//! cut, or forged.

/// The suites and groups of a ClientHello (RFC 8446, section 4.1.2), as it went out.
#[derive(Debug, Default, PartialEq)]
pub struct Offered {
    pub suites: Vec<u16>,
    pub groups: Vec<u16>,
}

/// A server's answer, as far as it came.
#[derive(Debug, Default, PartialEq)]
pub struct Heard {
    /// It was no TLS.
    pub is_other: bool,
    /// A fatal alert in the clear.
    pub alert: Option<u8>,
    pub hello: Option<Hello>,
    /// The group of a ServerKeyExchange, up to TLS 1.2.
    pub key_exchange: Option<u16>,
}

/// A ServerHello, or a HelloRetryRequest, which accepts as much.
#[derive(Debug, PartialEq)]
pub struct Hello {
    pub version: u16,
    pub suite: u16,
    /// Of TLS 1.3.
    pub group: Option<u16>,
    /// Up to TLS 1.2; later it is not in the clear.
    pub alpn: Option<Vec<u8>>,
}

const ALERT: u8 = 21;
const HANDSHAKE: u8 = 22;
const CLIENT_HELLO: u8 = 1;
const SERVER_HELLO: u8 = 2;
const SERVER_KEY_EXCHANGE: u8 = 12;
const SUPPORTED_GROUPS: u16 = 10;
const ALPN: u16 = 16;
const SUPPORTED_VERSIONS: u16 = 43;
const KEY_SHARE: u16 = 51;

pub fn offered(bytes: &[u8]) -> Option<Offered> {
    let messages = messages(bytes);
    let (_, body) = Part(&messages).message().filter(|(kind, _)| *kind == CLIENT_HELLO)?;
    let mut body = Part(body);
    body.take(2 + 32)?;
    body.vector(1)?;
    let suites = body.vector(2)?.numbers();
    body.vector(1)?;
    let mut groups = Vec::new();
    for (kind, mut data) in body.vector(2)?.extensions() {
        if kind == SUPPORTED_GROUPS {
            groups = data.vector(2)?.numbers();
        }
    }
    // What says "I can" in the place of a suite (RFC 5746, RFC 7507, RFC 8701) is none.
    let is_suite = |number: &u16| ![0x00ff, 0x5600].contains(number) && number & 0x0f0f != 0x0a0a;
    Some(Offered { suites: suites.into_iter().filter(is_suite).collect(), groups })
}

pub fn heard(bytes: &[u8]) -> Heard {
    let mut heard = Heard {
        is_other: bytes.first().is_some_and(|kind| !(20..=24).contains(kind))
            || bytes.get(1).is_some_and(|major| *major != 3),
        ..Heard::default()
    };
    if heard.is_other {
        return heard;
    }
    // A warning is no answer.
    heard.alert = records(bytes).find_map(|(kind, data)| match (kind, data) {
        (ALERT, [2, number]) => Some(*number),
        _ => None,
    });
    let messages = messages(bytes);
    let mut messages = Part(&messages);
    while let Some((kind, body)) = messages.message() {
        match kind {
            SERVER_HELLO if heard.hello.is_none() => heard.hello = hello(body),
            // A named curve (RFC 8422, section 5.4).
            SERVER_KEY_EXCHANGE if body.first() == Some(&3) => heard.key_exchange = Part(&body[1..]).number(2),
            _ => {}
        }
    }
    heard
}

fn hello(body: &[u8]) -> Option<Hello> {
    let mut body = Part(body);
    let mut hello = Hello { version: body.number(2)?, suite: 0, group: None, alpn: None };
    body.take(32)?;
    body.vector(1)?;
    hello.suite = body.number(2)?;
    body.take(1)?;
    // A server may have none.
    let Some(mut extensions) = body.vector(2) else { return Some(hello) };
    for (kind, mut data) in extensions.extensions() {
        match kind {
            SUPPORTED_VERSIONS => hello.version = data.number(2)?,
            KEY_SHARE => hello.group = data.number(2),
            ALPN => hello.alpn = data.vector(2).and_then(|mut list| Some(list.vector(1)?.0.to_vec())),
            _ => {}
        }
    }
    Some(hello)
}

/// The records that are there as a whole.
fn records(bytes: &[u8]) -> impl Iterator<Item = (u8, &[u8])> {
    let mut rest = Part(bytes);
    std::iter::from_fn(move || {
        let kind = *rest.take(1)?.first()?;
        rest.take(2)?;
        Some((kind, rest.vector(2)?.0))
    })
}

/// The messages of the handshake that are in the clear, in one piece.
fn messages(bytes: &[u8]) -> Vec<u8> {
    let clear = records(bytes).take_while(|(kind, _)| *kind == HANDSHAKE || *kind == ALERT);
    clear.filter(|(kind, _)| *kind == HANDSHAKE).flat_map(|(_, data)| data).copied().collect()
}

/// What is not yet read.
struct Part<'a>(&'a [u8]);

impl<'a> Part<'a> {
    fn take(&mut self, n: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(n)?;
        self.0 = rest;
        Some(taken)
    }

    fn length(&mut self, bytes: usize) -> Option<usize> {
        Some(self.take(bytes)?.iter().fold(0, |length, byte| length << 8 | usize::from(*byte)))
    }

    fn number(&mut self, bytes: usize) -> Option<u16> {
        u16::try_from(self.length(bytes)?).ok()
    }

    /// What has its length in front, in so many bytes.
    fn vector(&mut self, bytes: usize) -> Option<Part<'a>> {
        let length = self.length(bytes)?;
        self.take(length).map(Part)
    }

    fn message(&mut self) -> Option<(u8, &'a [u8])> {
        let kind = *self.take(1)?.first()?;
        Some((kind, self.vector(3)?.0))
    }

    fn extensions(&mut self) -> impl Iterator<Item = (u16, Part<'a>)> + '_ {
        std::iter::from_fn(|| Some((self.number(2)?, self.vector(2)?)))
    }

    fn numbers(&mut self) -> Vec<u16> {
        std::iter::from_fn(|| self.number(2)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(kind: u8, data: &[u8]) -> Vec<u8> {
        [&[kind, 3, 3, (data.len() >> 8) as u8, data.len() as u8], data].concat()
    }

    fn message(kind: u8, body: &[u8]) -> Vec<u8> {
        [&[kind, 0, (body.len() >> 8) as u8, body.len() as u8], body].concat()
    }

    fn server_hello() -> Vec<u8> {
        let extensions = [0, 43, 0, 2, 3, 4, 0, 51, 0, 2, 0, 29, 0, 16, 0, 5, 0, 3, 2, b'h', b'2'];
        let body = [&[3, 3][..], &[7; 32], &[0, 0x13, 0x01, 0, 0, extensions.len() as u8], &extensions].concat();
        message(SERVER_HELLO, &body)
    }

    #[test]
    fn a_servers_first_words_are_understood_in_any_pieces() {
        let said = [server_hello(), message(SERVER_KEY_EXCHANGE, &[3, 0, 23, 1, 4])].concat();
        let hello = Hello { version: 0x0304, suite: 0x1301, group: Some(29), alpn: Some(b"h2".to_vec()) };
        let whole = Heard { hello: Some(hello), key_exchange: Some(23), ..Heard::default() };
        assert_eq!(heard(&record(HANDSHAKE, &said)), whole);
        let pieces: Vec<u8> = said.chunks(7).flat_map(|piece| record(HANDSHAKE, piece)).collect();
        assert_eq!(heard(&pieces), whole);
        // What is cut says less, and never something else.
        for end in 0..pieces.len() {
            let part = heard(&pieces[..end]);
            assert!(!part.is_other && part.alert.is_none(), "{end}");
            assert!(part.hello.is_none() || part.hello == whole.hello, "{end}");
        }
    }

    #[test]
    fn alerts_count_when_they_are_fatal_and_no_noise_is_an_answer() {
        let warning = record(ALERT, &[1, 112]);
        assert_eq!(heard(&warning), Heard::default());
        let fatal = [warning.clone(), record(ALERT, &[2, 40])].concat();
        assert_eq!(heard(&fatal).alert, Some(40));
        let hello = [warning, record(HANDSHAKE, &server_hello())].concat();
        assert!(heard(&hello).hello.is_some());
        for noise in [&b"HTTP/1.1 400"[..], b"SSH-2.0", &[0; 40], &[22, 2, 0, 0, 0]] {
            assert_eq!(heard(noise), Heard { is_other: true, ..Heard::default() });
        }
        // Lengths that lie.
        let mut noise = 1_u32;
        for _ in 0..20_000 {
            let mut bytes = record(HANDSHAKE, &server_hello());
            for _ in 0..3 {
                noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                let at = noise as usize % bytes.len();
                bytes[at] = (noise >> 24) as u8;
            }
            let _ = (heard(&bytes), offered(&bytes));
        }
    }
}
