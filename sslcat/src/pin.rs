//! Pins: the SHA-256 of a public key (RFC 7469, section 2.4), as curl writes it and as openssl does.

use std::str::FromStr;

use ring::digest::{digest, SHA256};
use sslfile::CertificateInfo;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pin(pub [u8; 32]);

impl FromStr for Pin {
    type Err = String;

    fn from_str(text: &str) -> Result<Pin, String> {
        let bytes = match text.strip_prefix("sha256//") {
            Some(text) => from_base64(text),
            None => from_hex(text).or_else(|| from_base64(text)),
        };
        let bytes = bytes.and_then(|bytes| bytes.try_into().ok());
        bytes.map(Pin).ok_or_else(|| "not a SHA-256 in BASE64 (44 characters) or hexadecimal (64 digits)".to_string())
    }
}

/// That of this certificate's key.
pub fn of(info: &CertificateInfo) -> String {
    format!("sha256//{}", to_base64(digest(&SHA256, &info.public_key).as_ref()))
}

/// With colons or without.
fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digits: Vec<u8> = text.bytes().filter(|byte| *byte != b':').collect();
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let byte = |pair: &[u8]| u8::try_from(digit(pair[0])? << 4 | digit(*pair.get(1)?)?).ok();
    digits.chunks(2).map(byte).collect()
}

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// RFC 4648, section 4, on one line.
pub fn to_base64(bytes: &[u8]) -> String {
    let mut text = String::new();
    for group in bytes.chunks(3) {
        let bits = group.iter().fold(0, |bits, &byte| bits << 8 | usize::from(byte)) << (8 * (3 - group.len()));
        for place in 0..4 {
            let digit = char::from(ALPHABET[bits >> (18 - 6 * place) & 63]);
            text.push(if place <= group.len() { digit } else { '=' });
        }
    }
    text
}

pub fn from_base64(text: &str) -> Option<Vec<u8>> {
    let digits = text.trim_end_matches('=');
    let mut bytes = Vec::new();
    for group in digits.as_bytes().chunks(4) {
        let mut bits = 0;
        for place in 0..4 {
            let digit = group.get(place).map_or(Some(0), |digit| ALPHABET.iter().position(|known| known == digit));
            bits = bits << 6 | digit?;
        }
        bytes.extend([bits >> 16, bits >> 8, bits].iter().take(group.len() - 1).map(|byte| (byte & 0xff) as u8));
    }
    // Neither another padding nor bits that stand for nothing.
    (to_base64(&bytes) == text).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pins_are_read_as_they_are_shown() {
        let pin = Pin(std::array::from_fn(|at| at as u8 * 7));
        let base64 = to_base64(&pin.0);
        let hex: Vec<String> = pin.0.iter().map(|byte| format!("{byte:02x}")).collect();
        for text in [format!("sha256//{base64}"), base64.clone(), hex.join(""), hex.join(":").to_uppercase()] {
            assert_eq!(text.parse(), Ok(pin), "{text}");
        }
        let short = to_base64(&pin.0[1..]);
        let odd = hex.join("")[1..].to_string();
        for wrong in ["", "sha256//", "sha256//=", &short, &odd, base64.trim_end_matches('='), "é", &base64[1..]] {
            assert!(wrong.parse::<Pin>().is_err(), "{wrong}");
        }
    }
}
