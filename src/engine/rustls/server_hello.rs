//! What a server's first message says, as it goes by: rustls keeps to itself what is needed of it below TLS 1.3.

/// The message, as far as it has come, or what it said.
pub(super) enum ServerHello {
    Coming(Vec<u8>),
    Known(Facts),
}

#[derive(Clone, Copy)]
pub(super) struct Facts {
    pub random: [u8; 32],
    /// RFC 7627, section 5.2.
    pub has_extended_master_secret: bool,
}

impl ServerHello {
    pub const NEW: ServerHello = ServerHello::Coming(Vec::new());

    pub fn facts(&self) -> Option<Facts> {
        match self {
            ServerHello::Known(facts) => Some(*facts),
            ServerHello::Coming(_) => None,
        }
    }

    /// The next record of the server: the message is the first that it says, in the clear, in one record or in several. (In TLS
    /// 1.3 that may be another message of this type; there nobody asks.)
    pub fn note(&mut self, record: &[u8]) {
        const HANDSHAKE: u8 = 22;
        let (ServerHello::Coming(message), [HANDSHAKE, _, _, _, _, body @ ..]) = (&mut *self, record) else { return };
        message.extend(body);
        let [_type, a, b, c, rest @ ..] = &message[..] else { return };
        let length = u32::from_be_bytes([0, *a, *b, *c]) as usize;
        if rest.len() >= length {
            // One that can't be read rustls refuses.
            if let Some(facts) = read(&rest[..length]) {
                *self = ServerHello::Known(facts);
            }
        }
    }
}

/// RFC 5246, section 7.4.1.3.
fn read(message: &[u8]) -> Option<Facts> {
    const EXTENDED_MASTER_SECRET: [u8; 2] = [0, 23];
    let (_version, rest) = message.split_at_checked(2)?;
    let (random, rest) = rest.split_first_chunk()?;
    let (session_id_length, rest) = rest.split_first()?;
    let (_session_id, rest) = rest.split_at_checked(usize::from(*session_id_length))?;
    let (_suite_and_compression, rest) = rest.split_at_checked(3)?;
    // Without any there is no length, either.
    let mut extensions = rest.get(2..).unwrap_or_default();
    let mut has_extended_master_secret = false;
    while let Some(([high, low, length @ ..], rest)) = extensions.split_first_chunk::<4>() {
        has_extended_master_secret |= [*high, *low] == EXTENDED_MASTER_SECRET;
        extensions = rest.get(usize::from(u16::from_be_bytes(*length))..)?;
    }
    Some(Facts { random: *random, has_extended_master_secret })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(extensions: &[u8]) -> Vec<u8> {
        let fields = [&[3, 3][..], &[9; 32], &[2, 1, 1], &[0xc0, 0x2b, 0], extensions].concat();
        [&[2, 0, 0, fields.len() as u8][..], &fields].concat()
    }

    fn record(body: &[u8]) -> Vec<u8> {
        [&[22, 3, 3, 0, body.len() as u8][..], body].concat()
    }

    #[test]
    fn it_is_read_in_pieces_of_any_size() {
        let none = [0xff, 1, 0, 1, 0];
        let both = [0xff, 1, 0, 1, 0, 0, 23, 0, 0];
        let with = |extensions: &[u8]| message(&[&[0, extensions.len() as u8][..], extensions].concat());
        for (message, expected) in [(message(&[]), false), (with(&none), false), (with(&both), true)] {
            for size in 1..=message.len() {
                let mut hello = ServerHello::NEW;
                for piece in message.chunks(size) {
                    assert!(hello.facts().is_none());
                    hello.note(&record(piece));
                }
                // What comes behind it is something else.
                hello.note(&record(&[2, 0, 0, 1, 1]));
                let facts = hello.facts().expect("it is whole");
                assert_eq!((facts.random, facts.has_extended_master_secret), ([9; 32], expected), "{size}");
            }
        }
    }

    #[test]
    fn a_broken_one_says_nothing() {
        let whole = message(&[0, 4, 0, 23, 0, 0]);
        for length in 0..whole.len() - 4 {
            let mut hello = ServerHello::NEW;
            hello.note(&record(&[&[2, 0, 0, length as u8][..], &whole[4..4 + length]].concat()));
            if let Some(facts) = hello.facts() {
                assert!(!facts.has_extended_master_secret, "{length}");
            }
        }
        let mut hello = ServerHello::NEW;
        hello.note(&record(&message(&[0, 4, 0, 23, 0xff, 0xff])));
        assert!(hello.facts().is_none());
    }
}
