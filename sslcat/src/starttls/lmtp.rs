//! RFC 2033, section 4.1; else as SMTP.

use std::io;

use super::dialogue::Dialogue;
use super::smtp;

pub fn begin(dialogue: &mut Dialogue) -> io::Result<()> {
    smtp::hello(dialogue, "LHLO")
}
