//! RFC 4511, section 4.14, in the few bytes of BER that it takes.

use std::io;

use super::dialogue::{garbled, refused, Dialogue};

const STARTTLS: &[u8] = b"1.3.6.1.4.1.1466.20037";

/// Tags (RFC 4511, section 4.1 and 4.12).
const SEQUENCE: u8 = 0x30;
const INTEGER: u8 = 0x02;
const OCTET_STRING: u8 = 0x04;
const ENUMERATED: u8 = 0x0a;
const EXTENDED_REQUEST: u8 = 0x77;
const REQUEST_NAME: u8 = 0x80;
const EXTENDED_RESPONSE: u8 = 0x78;

pub fn begin(dialogue: &mut Dialogue) -> io::Result<()> {
    let request = element(EXTENDED_REQUEST, &element(REQUEST_NAME, STARTTLS));
    let message = element(SEQUENCE, &[&element(INTEGER, &[1])[..], &request].concat());
    dialogue.send("StartTLS", &message)?;

    let mut header = dialogue.hear_exactly(2)?;
    if header[0] != SEQUENCE {
        return Err(garbled());
    }
    // A length of 128 and more stands in the bytes behind it.
    if header[1] > 0x80 {
        header.extend(dialogue.hear_exactly(usize::from(header[1] & 0x7f))?);
    }
    let message = dialogue.hear_exactly(length(&header[1..]).ok_or_else(garbled)?.0)?;
    let (code, text) = result(&message).ok_or_else(garbled)?;
    let said = dialogue.heard(format!("result {code} {}", String::from_utf8_lossy(text)).as_bytes());
    if code == 0 {
        Ok(())
    } else {
        Err(refused(&said))
    }
}

/// Its resultCode and diagnosticMessage. To a number other than ours a server says only that it ends the connection.
fn result(message: &[u8]) -> Option<(u8, &[u8])> {
    let (number, message) = take(INTEGER, message)?;
    let (response, _) = take(EXTENDED_RESPONSE, message)?;
    let (code, rest) = take(ENUMERATED, response)?;
    let (_matched, rest) = take(OCTET_STRING, rest)?;
    let (text, _) = take(OCTET_STRING, rest)?;
    let &[code] = code else { return None };
    (number == [1] || code != 0).then_some((code, text))
}

/// One that is shorter than 128 bytes.
fn element(tag: u8, content: &[u8]) -> Vec<u8> {
    [&[tag, content.len() as u8], content].concat()
}

/// The content of the first element, which must have this tag, and what is behind it.
fn take(tag: u8, bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (first, rest) = bytes.split_first()?;
    let (length, size) = length(rest)?;
    let content = rest.get(size..size.checked_add(length)?)?;
    (*first == tag).then_some((content, &rest[size + length..]))
}

/// A definite length, and how many bytes say it.
fn length(bytes: &[u8]) -> Option<(usize, usize)> {
    let (&first, rest) = bytes.split_first()?;
    let more = usize::from(first & 0x7f);
    match first {
        ..=0x7f => Some((more, 1)),
        0x81..=0x84 => {
            let length = rest.get(..more)?.iter().fold(0, |length: u64, byte| length << 8 | u64::from(*byte));
            Some((usize::try_from(length).ok()?, 1 + more))
        }
        _ => None,
    }
}
