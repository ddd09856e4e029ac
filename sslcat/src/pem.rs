//! The textual encoding of certificates and sessions (RFC 7468).

use crate::pin::{from_base64, to_base64};

pub fn encode(label: &str, bytes: &[u8]) -> String {
    // 48 bytes are a line of 64 characters.
    let lines: String = bytes.chunks(48).map(|line| to_base64(line) + "\n").collect();
    format!("-----BEGIN {label}-----\n{lines}-----END {label}-----\n")
}

/// The first one with this label; what stands around it does not matter.
pub fn decode(label: &str, text: &str) -> Option<Vec<u8>> {
    let (_, rest) = text.split_once(&format!("-----BEGIN {label}-----"))?;
    let (body, _) = rest.split_once(&format!("-----END {label}-----"))?;
    from_base64(&body.split_whitespace().collect::<String>())
}
