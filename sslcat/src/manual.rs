//! The manual page and the completions, made from the command line.

use std::io::{self, Write};

use clap::CommandFactory;

use crate::args::{Args, Manual};
use crate::exit::Failure;

/// Prints what was asked for; false if nothing was.
pub fn print(asked: &Manual) -> Result<bool, Failure> {
    let mut text = Vec::new();
    if let Some(shell) = asked.completions {
        clap_complete::generate(shell, &mut Args::command(), "sslcat", &mut text);
    } else if asked.man {
        clap_mangen::Man::new(Args::command()).render(&mut text).map_err(|error| Failure::local("stdout", error))?;
    } else {
        return Ok(false);
    }
    let mut output = io::stdout().lock();
    let printed = output.write_all(&text).and_then(|()| output.flush());
    printed.map_err(|error| Failure::local("stdout", error))?;
    Ok(true)
}
