//! `sslcat`: standard input and output, joined to a TLS connection.
//!
//! ```text
//! sslcat example.com 443                                    a client
//! sslcat --starttls smtp mail.example.com 25                a client that begins in plain text
//! sslcat -l 8443 --cert server.pem > received               a server, for one connection
//! sslcat --ca ca.pem localhost:8443 < file                  sends a file, with a progress bar
//! ```
//!
//! Both directions move at the same time, each in a thread of its own. `sslcat --help` lists the exit codes.

mod address;
mod advice;
mod args;
mod chain;
mod check;
mod connect;
mod crlf;
mod date;
mod exit;
mod identity;
mod listen;
mod manual;
mod name;
mod ocsp;
mod password;
mod pin;
mod progress;
mod report;
mod scan;
mod services;
mod settings;
mod starttls;
#[cfg(all(unix, feature = "line-editing"))]
mod terminal;
mod transfer;

use std::fmt::Display;
use std::io::{self, Write};
use std::process::ExitCode;

use clap::Parser;

use args::Args;
use exit::Failure;

fn main() -> ExitCode {
    let mut args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => {
            // Help and version come this way too, and are no error.
            let code = if error.use_stderr() { exit::USAGE } else { 0 };
            let _ = error.print();
            return ExitCode::from(code);
        }
    };
    // To return from here ends the process, even with a thread waiting for stdin.
    match run(&mut args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if !failure.text.is_empty() {
                tell(&failure.text);
                advice::on(&failure, &args).iter().for_each(|advice| tell(format!("advice: {advice}")));
            }
            ExitCode::from(failure.code)
        }
    }
}

fn run(args: &mut Args) -> Result<(), Failure> {
    if manual::print(&args.manual)? {
        return Ok(());
    }
    if args.output.scan {
        return scan::run(args);
    }
    let args = &*args;
    if args.output.check {
        return check::run(args);
    }
    let opened = if args.connection.listen { listen::serve(args) } else { connect::connect(args) };
    let file = opened.inspect_err(|failure| report::failed(args, failure))?;
    let demanded = if args.certificates.ocsp { ocsp::check(args, &file) } else { Ok(()) };
    report::negotiated(args, &file, demanded.as_ref().err());
    demanded?;
    transfer::converse(args, &file)
}

/// On stderr. Who asks for it with `2>&-` may do without.
fn tell(text: impl Display) {
    let _ = writeln!(io::stderr(), "sslcat: {text}");
}
