//! `--check`: a handshake, a report, and the end.

use std::io::Read;
use std::net::Shutdown;
use std::time::{Duration, SystemTime};

use sslfile::{Certificate, Error, SslFile};

use crate::args::Args;
use crate::exit::{self, Failure};
use crate::report::{self, Report};
use crate::{chain, connect, date, ocsp, session};

pub fn run(args: &Args) -> Result<(), Failure> {
    let opened = connect::connect(args);
    let checked = match &opened {
        Ok(file) => expiry(args, file).and_then(|()| ocsp::check(args, file)).and_then(|()| last_word(args, file)),
        Err(_) => Ok(()),
    };
    if let Ok(file) = &opened {
        session::keep(args, file);
    }
    let report = match &opened {
        Ok(file) => Report::of(args, file),
        Err(failure) => Report::of_failure(args, failure),
    };
    let failure = opened.err().or(checked.err());
    report::print(args, report, failure.as_ref())?;
    failure.map_or(Ok(()), Err)
}

/// Whether all that it is trusted for is valid for as long as is asked for.
fn expiry(args: &Args, file: &SslFile) -> Result<(), Failure> {
    let Some(wanted) = args.output.expires_in else { return Ok(()) };
    let relied_on: Vec<Certificate> = file.verified_chain().unwrap_or_else(|| chain::of(file));
    if relied_on.is_empty() {
        return Err(Failure::new(exit::CERTIFICATE, "no certificate whose date could be checked"));
    }
    for certificate in relied_on {
        let info = certificate.info().map_err(|error| Failure::new(exit::CERTIFICATE, error))?;
        if SystemTime::now() + wanted > info.not_after {
            let subject = info.subject.replace(char::is_control, "?");
            let (days, date) = (chain::days_left(&info), date::utc(info.not_after));
            let text = format!("the certificate of {subject} has {days} days left: it expires on {date}");
            return Err(Failure::new(exit::CERTIFICATE, text));
        }
    }
    Ok(())
}

/// In TLS 1.3 a server says only now what it thinks of our certificate. An end of any kind is one: many servers just cut when
/// they are told ours.
fn last_word(args: &Args, file: &SslFile) -> Result<(), Failure> {
    const PATIENCE: Duration = Duration::from_secs(1);
    let patience = args.connection.timeout.map_or(PATIENCE, |timeout| timeout.min(PATIENCE));
    let _ = file.set_read_timeout(Some(patience));
    let _ = file.shutdown(Shutdown::Write);
    match { file }.read(&mut [0; 1024]) {
        Err(error) if Error::of(&error).is_some_and(|error| error.kind().alert().is_some()) => {
            Err(Failure::tls(exit::HANDSHAKE, error))
        }
        _ => Ok(()),
    }
}
