//! IRCv3, `tls`: https://ircv3.net/specs/extensions/tls-3.1

use std::io;

use super::dialogue::{refused, Dialogue};

const STARTTLS_SUCCESSFUL: &str = "670";
/// With other words for the same: it does not know the command, or wants to know us first.
const ANSWERS_THAT_REFUSE: [&str; 4] = ["421", "451", "691", "ERROR"];

pub fn begin(dialogue: &mut Dialogue) -> io::Result<()> {
    // A server may wait for us to speak first.
    dialogue.say("STARTTLS")?;
    loop {
        // ":server 670 nick :text". Notices may come before it.
        let line = dialogue.hear()?;
        let mut words = line.split_whitespace().skip_while(|word| word.starts_with(':'));
        match words.next() {
            Some(STARTTLS_SUCCESSFUL) => return Ok(()),
            Some(word) if ANSWERS_THAT_REFUSE.contains(&word) => return Err(refused(&line)),
            _ => {}
        }
    }
}
