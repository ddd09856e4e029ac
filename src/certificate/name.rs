//! Distinguished names as text: the string form of RFC 4514, which can be read in one way only.

use crate::der;

const SET: u8 = 0x31;
const T61_STRING: u8 = 0x14;
const BMP_STRING: u8 = 0x1e;
const UNIVERSAL_STRING: u8 = 0x1c;
/// UTF8String, PrintableString, IA5String, NumericString, VisibleString.
const STRINGS: [u8; 5] = [0x0c, 0x13, 0x16, 0x12, 0x1a];

/// The name in this DER, the most specific part first. What cannot be read is left out.
pub(crate) fn name_text(name: &[u8]) -> String {
    let Some((der::SEQUENCE, parts, _)) = der::element(name) else { return String::new() };
    let part = |part: &[u8]| reversed(der::elements(part).filter_map(|(_, pair, _)| attribute_text(pair)), "+");
    reversed(der::elements(parts).filter(|(tag, ..)| *tag == SET).map(|(_, body, _)| part(body)), ",")
}

fn reversed(parts: impl Iterator<Item = String>, separator: &str) -> String {
    let mut parts: Vec<String> = parts.collect();
    parts.reverse();
    parts.join(separator)
}

/// Of a pair of an OID and a value.
fn attribute_text(pair: &[u8]) -> Option<String> {
    let (der::OBJECT_IDENTIFIER, oid, value) = der::element(pair)? else { return None };
    let (tag, body, _) = der::element(value)?;
    let name = match oid {
        // RFC 4514, section 3
        [0x55, 4, 3] => "CN",
        [0x55, 4, 7] => "L",
        [0x55, 4, 8] => "ST",
        [0x55, 4, 10] => "O",
        [0x55, 4, 11] => "OU",
        [0x55, 4, 6] => "C",
        [0x55, 4, 9] => "STREET",
        // 0.9.2342.19200300.100.1.25 and .1
        [0x09, 0x92, 0x26, 0x89, 0x93, 0xf2, 0x2c, 0x64, 1, 25] => "DC",
        [0x09, 0x92, 0x26, 0x89, 0x93, 0xf2, 0x2c, 0x64, 1, 1] => "UID",
        // Others that people put into certificates, as the registry for LDAP has them (RFC 4519, RFC 2985).
        [0x55, 4, 4] => "sn",
        [0x55, 4, 5] => "serialNumber",
        [0x55, 4, 12] => "title",
        [0x55, 4, 42] => "givenName",
        // 1.2.840.113549.1.9.1
        [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 9, 1] => "emailAddress",
        // What has no name has no known syntax.
        _ => return Some(format!("{}={}", dotted(oid)?, hex_value(value))),
    };
    Some(match text(tag, body) {
        Some(text) => format!("{name}={}", escape(&text)),
        None => format!("{name}={}", hex_value(value)),
    })
}

/// A string of any of the kinds that names may have, by the tag it has in DER.
pub(crate) fn text(tag: u8, body: &[u8]) -> Option<String> {
    match tag {
        _ if STRINGS.contains(&tag) => std::str::from_utf8(body).ok().map(str::to_string),
        // What T.61 really is nobody uses; Latin-1 is meant.
        T61_STRING => Some(body.iter().map(|b| char::from(*b)).collect()),
        BMP_STRING if body.len() % 2 == 0 => {
            let units = body.chunks_exact(2).map(|b| u16::from_be_bytes([b[0], b[1]]));
            char::decode_utf16(units).collect::<Result<_, _>>().ok()
        }
        UNIVERSAL_STRING if body.len() % 4 == 0 => {
            let units = body.chunks_exact(4).map(|b| u32::from_be_bytes([b[0], b[1], b[2], b[3]]));
            units.map(char::from_u32).collect()
        }
        _ => None,
    }
}

/// Whether a terminal that shows it does something else, as it does with those that turn the direction of the text around them.
fn misleads(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// RFC 4514, section 2.4; what would mislead is escaped as well.
fn escape(text: &str) -> String {
    let last = text.chars().count().saturating_sub(1);
    let mut out = String::with_capacity(text.len());
    for (at, c) in text.chars().enumerate() {
        match c {
            '"' | '+' | ',' | ';' | '<' | '>' | '\\' => out.extend(['\\', c]),
            ' ' if at == 0 || at == last => out.push_str("\\ "),
            '#' if at == 0 => out.push_str("\\#"),
            c if misleads(c) => {
                let mut utf8 = [0; 4];
                c.encode_utf8(&mut utf8).bytes().for_each(|b| out.push_str(&format!("\\{b:02X}")));
            }
            c => out.push(c),
        }
    }
    out
}

/// `#` and the DER of the value.
fn hex_value(value: &[u8]) -> String {
    let value = der::whole(value).map_or(value, |(whole, _)| whole);
    std::iter::once("#".to_string()).chain(value.iter().map(|b| format!("{b:02X}"))).collect()
}

/// An OID in dotted form (X.690, section 8.19).
fn dotted(oid: &[u8]) -> Option<String> {
    let mut numbers = Vec::new();
    let mut number: u64 = 0;
    for byte in oid {
        number = number.checked_mul(128)? | u64::from(byte & 0x7f);
        if byte & 0x80 == 0 {
            numbers.push(number);
            number = 0;
        }
    }
    let first = *numbers.first()?;
    let root = (first / 40).min(2);
    let rest = numbers[1..].iter().map(u64::to_string);
    Some([root.to_string(), (first - root * 40).to_string()].into_iter().chain(rest).collect::<Vec<_>>().join("."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_turn_the_text_around_is_escaped() {
        assert_eq!(escape("moc.elgoog\u{202e} \u{2066}a\u{2028}b\n"), r"moc.elgoog\E2\80\AE \E2\81\A6a\E2\80\A8b\0A");
        assert_eq!(escape("مثال हिन्दी 北 🦀"), "مثال हिन्दी 北 🦀");
    }
}
