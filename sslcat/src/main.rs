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
mod broadcast;
mod chain;
mod check;
mod connect;
mod crlf;
mod date;
mod dial;
mod exec;
mod exit;
mod identity;
mod keep;
mod leftovers;
mod listen;
mod manual;
mod name;
mod ocsp;
mod password;
mod pem;
mod pin;
mod progress;
mod proxy;
mod report;
mod scan;
mod services;
mod session;
mod settings;
mod starttls;
#[cfg(all(unix, feature = "line-editing"))]
mod terminal;
mod transfer;
mod unix_socket;

use std::fmt::Display;
use std::io::{self, Write};
use std::process::ExitCode;

use clap::Parser;

use args::Args;
use exit::Failure;

fn main() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => {
            // Help and version come this way too, and are no error.
            let code = if error.use_stderr() { exit::USAGE } else { 0 };
            let _ = error.print();
            return ExitCode::from(code);
        }
    };
    // For threads that nobody waits for.
    let args = Box::leak(Box::new(args));
    let scanned = args.output.scan.then(|| scan::run(args));
    let args: &'static Args = args;
    let done = scanned.unwrap_or_else(|| run(args));
    leftovers::end();
    // To return from here ends the process, even with a thread waiting for stdin.
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if !failure.text.is_empty() {
                tell(&failure.text);
                advice::on(&failure, args).iter().for_each(|advice| tell(format!("advice: {advice}")));
            }
            ExitCode::from(failure.code)
        }
    }
}

fn run(args: &'static Args) -> Result<(), Failure> {
    if manual::print(&args.manual)? {
        return Ok(());
    }
    if args.output.check {
        return check::run(args);
    }
    if args.listening.exec.is_some() {
        leftovers::clean_up_at_signals().map_err(|error| Failure::new(exit::LOCAL, error))?;
    }
    if args.listening.keep {
        return keep::serve(args);
    }
    let opened = if args.connection.listen { listen::serve(args) } else { connect::connect(args) };
    let file = opened.inspect_err(|failure| report::failed(args, failure))?;
    let demanded = if args.certificates.ocsp { ocsp::check(args, &file) } else { Ok(()) };
    report::negotiated(args, &file, demanded.as_ref().err());
    demanded?;
    let done = match &args.listening.exec {
        Some(command) => exec::converse(args, &file, command),
        None => transfer::converse(args, &file),
    };
    session::keep(args, &file);
    done
}

/// On stderr. Who asks for it with `2>&-` may do without.
fn tell(text: impl Display) {
    let _ = writeln!(io::stderr(), "sslcat: {text}");
}
