//! What is done with a body: shown, uncompressed, written.

use std::io::{BufRead, BufReader};

use flate2::bufread::MultiGzDecoder;
use indicatif::{ProgressBar, ProgressStyle};
use sslfile::SslFile;

use crate::body::Body;
use crate::connect::Limits;
use crate::failure::{tell, Failure, TRANSFER};
use crate::http::{Framing, Response};
use crate::output::{Output, Place};
use crate::part::Part;
use crate::{Args, CHUNK};

pub fn save(
    args: &Args,
    limits: &Limits,
    response: &Response,
    input: BufReader<SslFile>,
    part: Option<&mut Part>,
) -> Result<(), Failure> {
    let framing = response.framing()?;
    let gzip = is_gzip(args, response)?;
    let (first, whole) = part.as_ref().map_or((0, None), |part| (part.first, part.whole));
    let output = match part {
        Some(part) => part.output(),
        None => Place::of(args.output.as_deref()).and_then(Output::create),
    };
    let mut output = output.map_err(Failure::output)?;
    // `indicatif` draws on stderr, and not at all where that is no terminal. Where the body goes there is no place for it.
    let (bar, template) = match (&framing, whole) {
        _ if output.is_terminal() => (ProgressBar::hidden(), ""),
        (Framing::Length(_), _) | (_, Some(_)) => {
            let length = if let Framing::Length(length) = framing { first.saturating_add(length) } else { 0 };
            let template = "{wide_bar} {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec} {eta}";
            (ProgressBar::new(whole.unwrap_or(length)), template)
        }
        _ => (ProgressBar::no_length(), "{spinner} {binary_bytes} {binary_bytes_per_sec} {elapsed}"),
    };
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    let mut body = Body::new(input, framing, limits, bar.with_style(style).with_position(first));
    let mut result = if gzip { uncompress(&mut body, &mut output) } else { copy(&mut body, &mut output) };
    // However the body is framed, and whatever the server says is its length: a part must reach to the end of the whole.
    if let (Ok(()), Some(whole)) = (&result, whole.filter(|whole| *whole != body.bar.position())) {
        result = Err(Failure::new(TRANSFER, format!("the server's answer does not end at {whole}")));
    }
    body.bar.abandon();
    let kept = output.kept().map_or(String::new(), |name| format!("; --continue goes on with {}", name.display()));
    result.map_err(|failure| match failure.code {
        TRANSFER => Failure::new(TRANSFER, format!("incomplete, {}: {}{kept}", body.progress(), failure.text)),
        _ => failure,
    })?;
    output.finish().map_err(Failure::output)?;
    if args.verbose {
        tell(body.progress());
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

fn uncompress(body: &mut Body, to: &mut Output) -> Result<(), Failure> {
    // Nothing in gzip is still nothing.
    if body.fill_buf().map_err(Failure::transfer)?.is_empty() {
        return Ok(());
    }
    // It reads to the body's end, and takes nothing there but more of the kind.
    copy(&mut BufReader::with_capacity(CHUNK, MultiGzDecoder::new(body)), to)
}

fn copy(from: &mut impl BufRead, to: &mut Output) -> Result<(), Failure> {
    loop {
        let got = from.fill_buf().map_err(Failure::transfer)?;
        if got.is_empty() {
            return Ok(());
        }
        to.write(got).map_err(Failure::output)?;
        let n = got.len();
        from.consume(n);
    }
}
