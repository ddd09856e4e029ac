//! RFC 3207.

use std::io;

use super::dialogue::Dialogue;

pub fn begin(dialogue: &mut Dialogue) -> io::Result<()> {
    dialogue.reply("220")?;
    let ip = dialogue.local_ip()?;
    dialogue.say(&format!("EHLO [{}{ip}]", if ip.is_ipv6() { "IPv6:" } else { "" }))?;
    let offers = dialogue.reply("250")?;
    if !offers.iter().any(|offer| offer.eq_ignore_ascii_case("STARTTLS")) {
        return Err(io::Error::other("the server does not offer it"));
    }
    dialogue.say("STARTTLS")?;
    dialogue.reply("220")?;
    Ok(())
}
