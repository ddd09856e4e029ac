//! What is done with a body: shown, uncompressed, written.

use std::io::{self, BufRead, BufReader};

use flate2::bufread::MultiGzDecoder;
use indicatif::{ProgressBar, ProgressStyle};
use sslfile::SslFile;

use crate::body::Body;
use crate::connect::Limits;
use crate::failure::{tell, Failure, TRANSFER};
use crate::http::{Framing, Response};
use crate::output::Output;
use crate::{Args, CHUNK};

pub fn save(
    args: &Args,
    limits: &Limits,
    response: &Response,
    input: BufReader<SslFile>,
    mut output: Output,
) -> Result<(), Failure> {
    let framing = response.framing()?;
    let gzip = is_gzip(args, response)?;
    let (first, whole) = output.part().map_or((0, None), |part| (part.first, part.whole));
    // `indicatif` draws on stderr, and not at all where that is no terminal. Where the body goes there is no place for it.
    const KNOWN: &str = "{wide_bar} {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec} {eta}";
    let (bar, template) = match (&framing, whole) {
        _ if output.is_terminal() => (ProgressBar::hidden(), ""),
        (_, Some(all)) => (ProgressBar::new(all), KNOWN),
        (Framing::Length(all), None) => (ProgressBar::new(*all), KNOWN),
        _ => (ProgressBar::no_length(), "{spinner} {binary_bytes} {binary_bytes_per_sec} {elapsed}"),
    };
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    let bar = bar.with_style(style).with_position(first);
    let mut body = BufReader::with_capacity(CHUNK, Body::new(input, framing, limits, bar.clone()));
    // Nothing in gzip is still nothing.
    let copied = body.fill_buf().map(|got| gzip && !got.is_empty()).and_then(|gzip| match gzip {
        // It reads to the body's end, and takes nothing there but more of the kind.
        true => io::copy(&mut BufReader::with_capacity(CHUNK, MultiGzDecoder::new(body)), &mut output),
        false => io::copy(&mut body, &mut output),
    });
    bar.abandon();
    // However the body is framed, and whatever the server says is its length: a part must reach to the end of the whole.
    let complete = copied.map_err(Failure::transfer).and_then(|_| match whole {
        Some(whole) if whole != bar.position() => {
            Err(Failure::new(TRANSFER, format!("the server's answer does not end at {whole}")))
        }
        _ => Ok(()),
    });
    let progress =
        format!("{}{} bytes", bar.position(), bar.length().map_or(String::new(), |all| format!(" of {all}")));
    complete.map_err(|failure| match failure.code {
        TRANSFER => {
            let kept = output.part().filter(|part| part.is_kept());
            let kept = kept.map_or(String::new(), |part| format!("; --continue goes on with {}", part.name.display()));
            Failure::new(TRANSFER, format!("incomplete, {progress}: {}{kept}", failure.text))
        }
        _ => failure,
    })?;
    output.finish().map_err(Failure::output)?;
    if args.verbose {
        tell(progress);
    }
    Ok(())
}

/// Whether it is to be undone.
fn is_gzip(args: &Args, response: &Response) -> Result<bool, Failure> {
    let coding = response.header("content-encoding").unwrap_or_default().to_lowercase();
    match &*coding {
        "" | "identity" => Ok(false),
        "gzip" | "x-gzip" if args.gzip => Ok(true),
        _ if args.gzip => Err(Failure::not_http(format!("content coding {coding:?}, for which nobody asked"))),
        // As with a .tar.gz, which some servers describe so.
        _ => {
            tell(format!("it is in {coding}, and left so"));
            Ok(false)
        }
    }
}
