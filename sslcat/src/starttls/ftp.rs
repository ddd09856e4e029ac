//! RFC 4217, section 4.

use std::io;

use super::dialogue::Dialogue;

pub fn begin(dialogue: &mut Dialogue) -> io::Result<()> {
    dialogue.reply("220")?;
    dialogue.say("AUTH TLS")?;
    dialogue.reply("234")?;
    Ok(())
}
