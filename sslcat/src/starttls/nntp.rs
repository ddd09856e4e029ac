//! RFC 4642.

use std::io;

use super::dialogue::Dialogue;

pub fn begin(dialogue: &mut Dialogue) -> io::Result<()> {
    // 201 does not allow to post.
    dialogue.expect("20")?;
    dialogue.say("STARTTLS")?;
    dialogue.expect("382")
}
