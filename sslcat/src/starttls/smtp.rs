//! RFC 3207.

use std::io;

use super::dialogue::{not_offered, Dialogue};

pub fn begin(dialogue: &mut Dialogue) -> io::Result<()> {
    hello(dialogue, "EHLO")
}

/// The same in LMTP, but for this word.
pub fn hello(dialogue: &mut Dialogue, word: &str) -> io::Result<()> {
    dialogue.reply("220")?;
    let ip = dialogue.local_ip()?;
    dialogue.say(&format!("{word} [{}{ip}]", if ip.is_ipv6() { "IPv6:" } else { "" }))?;
    let offers = dialogue.reply("250")?;
    // Some say "STARTTLS REQUIRED".
    let mut words = offers.iter().filter_map(|offer| offer.split_whitespace().next());
    if !words.any(|word| word.eq_ignore_ascii_case("STARTTLS")) {
        return Err(not_offered());
    }
    dialogue.say("STARTTLS")?;
    dialogue.reply("220")?;
    Ok(())
}
