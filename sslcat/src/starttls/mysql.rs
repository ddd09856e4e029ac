//! MySQL's client/server protocol, "Protocol::HandshakeV10" and "Protocol::SSLRequest".

use std::io;

use super::dialogue::{garbled, not_offered, refused, Dialogue};

/// Capabilities: the protocol since 4.1, with TLS and any password.
const CLIENT_PROTOCOL_41: u32 = 0x200;
const CLIENT_SSL: u32 = 0x800;
const CLIENT_SECURE_CONNECTION: u32 = 0x8000;

pub fn begin(dialogue: &mut Dialogue) -> io::Result<()> {
    let header = dialogue.hear_exactly(4)?;
    let length = u32::from_le_bytes([header[0], header[1], header[2], 0]);
    let greeting = dialogue.hear_exactly(length as usize)?;
    let greeting = match greeting.split_first() {
        Some((10, greeting)) if header[3] == 0 => greeting,
        // "Too many connections", or a host that is not allowed: a number, and the text.
        Some((0xff, error)) if error.len() > 2 => return Err(refused(&dialogue.heard(&error[2..]))),
        _ => return Err(garbled()),
    };
    // A version up to its zero, the connection's number and half of the challenge; a zero, and half of the capabilities.
    let version = greeting.split(|byte| *byte == 0).next().unwrap_or_default();
    dialogue.heard(version);
    let Some([low, high]) = greeting.get(version.len() + 14..version.len() + 16) else { return Err(garbled()) };
    if u32::from(u16::from_le_bytes([*low, *high])) & CLIENT_SSL == 0 {
        return Err(not_offered());
    }
    // Its length and number, the capabilities, the longest packet, UTF-8, and 23 zeros.
    let capabilities = CLIENT_PROTOCOL_41 | CLIENT_SSL | CLIENT_SECURE_CONNECTION;
    let mut request = vec![32, 0, 0, 1];
    request.extend(capabilities.to_le_bytes());
    request.extend((1_u32 << 24).to_le_bytes());
    request.push(33);
    request.resize(4 + 32, 0);
    // The server has no answer to that: it waits for TLS.
    dialogue.send("SSLRequest", &request)
}
