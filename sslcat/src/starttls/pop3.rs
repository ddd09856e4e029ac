//! RFC 2595, section 4.

use std::io;

use super::dialogue::Dialogue;

pub fn begin(dialogue: &mut Dialogue) -> io::Result<()> {
    dialogue.expect("+OK")?;
    dialogue.say("STLS")?;
    dialogue.expect("+OK")
}
