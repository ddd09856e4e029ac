//! `https_get`: fetches what is behind an `https:` URL.
//!
//! ```text
//! https_get https://www.rust-lang.org/ -o index.html
//! ```
//!
//! HTTP/1.1 with redirects, `Content-Length` and chunked bodies. What makes a download complete is known here for every kind
//! of body, the one that lasts until the connection ends included: `sslfile` reports an end only when the server said
//! close_notify, and a cut as an error. A file appears under its name only when all of it is there.
//!
//! From here, by topic: `connect` (TCP, TLS and how long all of it may take), `proxy`, `http` (requests, and answers up to
//! their bodies), `body` (where a body ends), `download` (what is done with it), `output` (where it goes), `part` (what
//! `--continue` goes on with) and `unfinished` (what must not stay behind).

mod body;
mod connect;
mod download;
mod failure;
mod http;
mod output;
mod part;
mod proxy;
mod unfinished;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;

use connect::{context, Limits};
use failure::{tell, Failure, HTTP, LOCAL, USAGE};
use http::Target;
use output::Output;

const CHUNK: usize = 64 * 1024;
const MAX_REDIRECTS: u32 = 10;

const MORE_HELP: &str = "\
Environment:
  https_proxy  an http: proxy to connect through, as http://user:password@proxy:3128
  no_proxy     hosts not to use it for: names (those below them too), addresses, or *

Signals: what ^C or SIGTERM interrupts leaves nothing behind, or with --continue what that goes on with.

Exit codes:
  0  all of it is there
  1  wrong usage, or an unusable file of certificates or proxy
  2  no connection: no such host, refused, unreachable, timed out, refused by the proxy
  3  no TLS: the server does not speak it, no version in common, ...
  4  the server's certificate is not trusted, or for another name
  5  the transfer failed: cut, incomplete, reset, forged, timed out
  6  the output cannot be written (a closed pipe is not mentioned)
  7  the answer is an error, no HTTP, or one redirect too many

It fetches one thing and knows when that is whole. What it leaves to curl: http: and other protocols, HTTP/2, \
other methods and headers, uploads, cookies, .netrc, client certificates, retries, several URLs, other proxies and \
other codings than gzip.";

/// Fetch what is behind an https: URL.
#[derive(Parser)]
#[command(name = "https_get", version, max_term_width = 100, after_help = MORE_HELP)]
struct Args {
    /// "https:" included. What stands before an "@" in it is sent as Basic authorization.
    url: String,
    /// Where to put it [default: stdout, as "-"]. A regular file is touched only when all of it has come, and keeps its
    /// mode, owner and links; a pipe or a device is written as it comes.
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Keep what has come in FILE.part when the transfer ends early, and go on from there the next time, if the server
    /// says that it still has the same.
    #[arg(short, long = "continue", requires = "output", conflicts_with = "gzip")]
    continued: bool,
    /// Ask for it in gzip, and undo that.
    #[arg(long, visible_alias = "compressed")]
    gzip: bool,
    /// Trust the certificates in this PEM file, and no others.
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Accept any certificate: whoever is on the line can read along, and answer in the server's place.
    #[arg(short = 'k', long)]
    insecure: bool,
    /// Give up connecting, shaking hands, waiting for the head of the answer, or for more of its body after so long.
    #[arg(short = 'w', long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=86400))]
    timeout: u64,
    /// Give up all of it after so long [default: never].
    #[arg(short, long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=31_536_000))]
    max_time: Option<u64>,
    /// Say on stderr what happens.
    #[arg(short, long)]
    verbose: bool,
}

fn main() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => {
            // Help and version come this way too, and are no error.
            let code = if error.use_stderr() { USAGE } else { 0 };
            let _ = error.print();
            return ExitCode::from(code);
        }
    };
    let limits = Limits::new(&args);
    match run(&args, &limits).map_err(|failure| limits.judge(failure)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            drop(unfinished::remove());
            if !failure.text.is_empty() {
                tell(failure.text);
            }
            ExitCode::from(failure.code)
        }
    }
}

fn run(args: &Args, limits: &Limits) -> Result<(), Failure> {
    let mut target = Target::parse(&args.url)?;
    unfinished::watch(limits.end).map_err(|error| Failure::new(LOCAL, format!("cannot wait for signals: {error}")))?;
    let context = context(args)?;
    let output = Output::open(args.output.as_deref(), args.continued.then_some(&target.url));
    let mut output = output.map_err(Failure::output)?;
    if args.continued && output.part().is_none() {
        return Err(Failure::new(USAGE, "--continue is for a file"));
    }
    for _ in 0..=MAX_REDIRECTS {
        let (response, input) = http::request(args, limits, &context, &target, output.part())?;
        if let Some(next) = response.redirect(&target)? {
            target = next;
            continue;
        }
        let failed = |why: String| Err(Failure::new(HTTP, format!("{}: {why}", target.url)));
        match (response.status, output.part()) {
            (206, Some(part)) if part.range().is_some() => part.goes_on(&response)?,
            (416, Some(part)) if part.range().is_some() => {
                let (first, name) = (part.first, part.name.display());
                return failed(format!("416: nothing from byte {first} on; remove {name} to begin anew"));
            }
            (206, _) => return failed("a part of it, for which nobody asked".to_string()),
            (200..300, Some(part)) => part.begin(&response)?,
            (200..300, None) => {}
            _ => return failed(format!("{} {}", response.status, response.reason)),
        }
        return download::save(args, limits, &response, input, output);
    }
    Err(Failure::new(HTTP, format!("more than {MAX_REDIRECTS} redirects, the last to {}", target.url)))
}
