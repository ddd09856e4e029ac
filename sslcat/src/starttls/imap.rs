//! RFC 9051, section 6.2.1.

use std::io;

use super::dialogue::Dialogue;

pub fn begin(dialogue: &mut Dialogue) -> io::Result<()> {
    dialogue.expect("* OK")?;
    dialogue.say("a1 STARTTLS")?;
    dialogue.expect("a1 OK")
}
