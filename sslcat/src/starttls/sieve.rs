//! ManageSieve: RFC 5804, sections 1.7 and 2.2.

use std::io;

use super::dialogue::{not_offered, refused, Dialogue};

pub fn begin(dialogue: &mut Dialogue) -> io::Result<()> {
    let mut offered = false;
    // Its capabilities, each a string in quotes, up to "OK".
    loop {
        let line = dialogue.hear()?;
        match line.strip_prefix('"') {
            Some(name) => offered |= name.to_ascii_uppercase().starts_with("STARTTLS\""),
            None if is_ok(&line) => break,
            None => return Err(refused(&line)),
        }
    }
    if !offered {
        return Err(not_offered());
    }
    dialogue.say("STARTTLS")?;
    let line = dialogue.hear()?;
    if is_ok(&line) {
        Ok(())
    } else {
        Err(refused(&line))
    }
}

fn is_ok(line: &str) -> bool {
    line.split_whitespace().next().is_some_and(|word| word.eq_ignore_ascii_case("OK"))
}
