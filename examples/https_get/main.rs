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
use output::Place;
use part::Part;

const CHUNK: usize = 64 * 1024;

const MORE_HELP: &str = "\
Environment:
  https_proxy  an http: proxy to connect through, as http://user:password@proxy:3128
  no_proxy     hosts not to use it for: names (those below them too), addresses, networks as 10.0.0.0/8, or *

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
    /// How many redirects to follow.
    #[arg(long, value_name = "NUMBER", default_value_t = 10)]
    max_redirects: u32,
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
    let mut part = match &args.output {
        Some(path) if args.continued => match Place::of(Some(path)).map_err(Failure::output)? {
            Place::Regular(path) => Some(Part::open(path, &target.url)?),
            _ => return Err(Failure::new(USAGE, "--continue is for a file")),
        },
        _ => None,
    };
    for _ in 0..=args.max_redirects {
        let (response, input) = http::request(args, limits, &context, &target, part.as_ref())?;
        if let Some(next) = response.redirect(&target)? {
            target = next;
            continue;
        }
        let url = &target.url;
        return match (response.status, &mut part) {
            (206, Some(part)) if part.range().is_some() => {
                part.goes_on(&response)?;
                download::save(args, limits, &response, input, Some(part))
            }
            (206, _) => Err(Failure::new(HTTP, format!("{url}: a part of it, for which nobody asked"))),
            (416, Some(part)) if part.range().is_some() => Err(part.refused(&response)),
            (200..300, part) => {
                if let Some(part) = part {
                    part.begin(&response)?;
                }
                let part = part.as_mut().filter(|part| part.is_kept());
                download::save(args, limits, &response, input, part)
            }
            _ => Err(Failure::new(HTTP, format!("{url}: {} {}", response.status, response.reason))),
        };
    }
    Err(Failure::new(HTTP, format!("more than {} redirects, the last to {}", args.max_redirects, target.url)))
}
