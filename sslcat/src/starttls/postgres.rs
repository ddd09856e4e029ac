//! PostgreSQL's frontend/backend protocol, "SSL Session Encryption".

use std::io;

use super::dialogue::{garbled, not_offered, refused, Dialogue};

pub fn begin(dialogue: &mut Dialogue) -> io::Result<()> {
    // Its length, and the number that stands for it in the place of a version.
    let request = [8, 80_877_103_u32].map(u32::to_be_bytes).concat();
    dialogue.send("SSLRequest", &request)?;
    let answer = dialogue.hear_exactly(1)?;
    match (answer[0], dialogue.heard(&answer)) {
        (b'S', _) => Ok(()),
        (b'N', _) => Err(not_offered()),
        // What comes behind it is text of somebody who has not proven who he is.
        (b'E', _) => Err(refused("E: an error, as from one that is overloaded, or very old")),
        _ => Err(garbled()),
    }
}
