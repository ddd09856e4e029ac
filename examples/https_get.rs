//! `https_get`: fetches what is behind an `https:` URL.
//!
//! ```text
//! https_get https://www.rust-lang.org/ -o index.html
//! ```
//!
//! HTTP/1.1 with redirects, `Content-Length` and chunked bodies. What makes a download complete is known here for every kind
//! of body, the one that lasts until the connection ends included: `sslfile` reports an end only when the server said
//! close_notify, and a cut as an error. A file appears under its name only when all of it is there.

use std::fmt::Display;
use std::fs;
use std::io::{self, BufRead, BufReader, IsTerminal, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use sslfile::{Certificate, Context, ErrorKind, SslFile};
use tempfile::TempPath;
use url::{Host, Position, Url};

const USAGE: u8 = 1;
const CONNECT: u8 = 2;
const HANDSHAKE: u8 = 3;
const CERTIFICATE: u8 = 4;
const TRANSFER: u8 = 5;
const LOCAL: u8 = 6;
const HTTP: u8 = 7;

const CHUNK: usize = 64 * 1024;

const EXIT_CODES: &str = "\
Exit codes:
  0  all of it is there
  1  wrong usage, or an unusable file of certificates
  2  no connection: no such host, refused, unreachable, timed out
  3  no TLS: the server does not speak it, no version in common, ...
  4  the server's certificate is not trusted, or for another name
  5  the transfer failed: cut, incomplete, reset, forged, timed out
  6  the output cannot be written (a closed pipe is not mentioned)
  7  the answer is an error, no HTTP, or one redirect too many";

/// Fetch what is behind an https: URL.
#[derive(Parser)]
#[command(name = "https_get", version, max_term_width = 100, after_help = EXIT_CODES)]
struct Args {
    /// "https:" included.
    url: String,
    /// Where to put it [default: stdout].
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Trust the certificates in this PEM file, and no others.
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Accept any certificate: whoever is on the line can read along, and answer in the server's place.
    #[arg(short = 'k', long)]
    insecure: bool,
    /// How many redirects to follow.
    #[arg(long, value_name = "NUMBER", default_value_t = 10)]
    max_redirects: u32,
    /// Give up connecting, shaking hands, or waiting for more after so long.
    #[arg(short = 'w', long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=86400))]
    timeout: u64,
    /// Say on stderr what happens.
    #[arg(short, long)]
    verbose: bool,
}

/// Why we stop: an exit code for scripts, and a text for people.
struct Failure {
    code: u8,
    text: String,
}

impl Failure {
    fn new(code: u8, text: impl Display) -> Failure {
        Failure { code, text: text.to_string() }
    }

    /// When whoever reads our output has enough, as in `https_get ... | head`, there is nothing to say.
    fn output(error: io::Error) -> Failure {
        let quiet = error.kind() == io::ErrorKind::BrokenPipe;
        Failure { code: LOCAL, text: if quiet { String::new() } else { format!("cannot write the output: {error}") } }
    }
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
    match run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if !failure.text.is_empty() {
                tell(failure.text);
            }
            ExitCode::from(failure.code)
        }
    }
}

fn run(args: &Args) -> Result<(), Failure> {
    let mut url = Url::parse(&args.url).map_err(|error| Failure::new(USAGE, format!("{}: {error}", args.url)))?;
    if url.scheme() != "https" {
        return Err(Failure::new(USAGE, format!("{url}: not an https: URL")));
    }
    let context = context(args)?;
    for _ in 0..=args.max_redirects {
        let (response, input) = request(args, &context, &url)?;
        match response.redirect(&url)? {
            None if (200..300).contains(&response.status) => return save(args, &response, input),
            None => return Err(Failure::new(HTTP, format!("{url}: {} {}", response.status, response.reason))),
            Some(next) => url = next,
        }
    }
    Err(Failure::new(HTTP, format!("more than {} redirects, the last to {url}", args.max_redirects)))
}

/// On stderr. Who asks for it with `2>&-` may do without.
fn tell(text: impl Display) {
    let _ = writeln!(io::stderr(), "https_get: {text}");
}

// ---------------------------------------------------------------------------------------------------------------------
// The connection
// ---------------------------------------------------------------------------------------------------------------------

/// One for all connections: to load the system's certificates takes its time.
fn context(args: &Args) -> Result<Context, Failure> {
    let mut builder = Context::builder().alpn(["http/1.1"]);
    if let Some(path) = &args.ca {
        let unusable = |error| Failure::new(USAGE, format!("{}: {error}", path.display()));
        let roots = fs::read(path).and_then(|pem| Certificate::stack_from_pem(&pem)).map_err(unusable)?;
        builder = roots.into_iter().fold(builder.system_roots(false), |builder, root| builder.add_root(root));
    }
    if args.insecure {
        builder = builder.danger_accept_invalid_certs(true).danger_accept_invalid_hostnames(true);
    }
    builder.build().map_err(|error| Failure::new(USAGE, error))
}

fn connect(args: &Args, context: &Context, url: &Url) -> Result<SslFile, Failure> {
    let timeout = Some(Duration::from_secs(args.timeout));
    let unconnected = |error| Failure::new(CONNECT, format!("cannot connect to {}: {error}", authority(url)));
    let tcp = dial(url, Duration::from_secs(args.timeout)).map_err(unconnected)?;
    // The name in the certificate: an IPv6 address has its brackets in the URL only.
    let name = match url.host() {
        Some(Host::Domain(name)) => name.to_string(),
        Some(Host::Ipv4(ip)) => ip.to_string(),
        Some(Host::Ipv6(ip)) => ip.to_string(),
        None => String::new(),
    };
    let opened = SslFile::options().client(&name).handshake_timeout(timeout).open(tcp, context);
    let file = opened.map_err(|error| {
        let refused = matches!(error.kind(), ErrorKind::Certificate | ErrorKind::HostnameMismatch);
        Failure::new(if refused { CERTIFICATE } else { HANDSHAKE }, error.error())
    })?;
    // For each call: a server that sends something now and then may take as long as it likes.
    let set = file.set_read_timeout(timeout).and_then(|()| file.set_write_timeout(timeout));
    set.map_err(transfer)?;
    if args.verbose {
        let version = file.version().map_or("TLS".to_string(), |version| version.to_string());
        let cipher = file.cipher().map_or(String::new(), |cipher| format!(", {cipher}"));
        tell(format!("connected to {}: {version}{cipher}", authority(url)));
    }
    Ok(file)
}

fn dial(url: &Url, timeout: Duration) -> io::Result<TcpStream> {
    let mut failed = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for addr in url.socket_addrs(|| None)? {
        match TcpStream::connect_timeout(&addr, timeout) {
            Ok(tcp) => return Ok(tcp),
            Err(error) => failed = error,
        }
    }
    Err(failed)
}

/// "host" or "host:port", as the Host header has it.
fn authority(url: &Url) -> &str {
    &url[Position::BeforeHost..Position::AfterPort]
}

// ---------------------------------------------------------------------------------------------------------------------
// Request and response
// ---------------------------------------------------------------------------------------------------------------------

/// Sends the request, and reads the response as far as its body.
fn request(args: &Args, context: &Context, url: &Url) -> Result<(Response, BufReader<SslFile>), Failure> {
    let mut file = connect(args, context, url)?;
    let host = authority(url);
    let target = &url[Position::BeforePath..Position::AfterQuery];
    let head = format!(
        "GET {target} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: https_get\r\nAccept: */*\r\n\
         Accept-Encoding: identity\r\nConnection: close\r\n\r\n"
    );
    // No `shutdown(Write)` behind it: many servers take that for a client that has lost interest.
    file.write_all(head.as_bytes()).map_err(transfer)?;
    let mut input = BufReader::with_capacity(CHUNK, file);
    loop {
        let response = Response::read(&mut input)?;
        if args.verbose {
            tell(format!("{url}: {} {}", response.status, response.reason));
        }
        // 100 (Continue) and its like announce the response.
        if response.status >= 200 {
            return Ok((response, input));
        }
    }
}

/// Up to the body.
struct Response {
    status: u16,
    reason: String,
    headers: Vec<(String, String)>,
}

/// Where the body ends.
enum Framing {
    Length(u64),
    Chunked,
    UntilEnd,
}

impl Response {
    fn read(input: &mut impl BufRead) -> Result<Response, Failure> {
        let mut bytes = Vec::new();
        while !bytes.ends_with(b"\r\n\r\n") && !bytes.ends_with(b"\n\n") {
            read_line(input, &mut bytes)?;
            if bytes.len() > CHUNK {
                return Err(not_http("endless headers"));
            }
        }
        let mut headers = [httparse::EMPTY_HEADER; 128];
        let mut response = httparse::Response::new(&mut headers);
        response.parse(&bytes).map_err(not_http)?;
        // They may go to a terminal.
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().replace(char::is_control, "?");
        Ok(Response {
            status: response.code.ok_or_else(|| not_http("no status"))?,
            reason: text(response.reason.unwrap_or_default().as_bytes()),
            headers: response.headers.iter().map(|header| (header.name.to_string(), text(header.value))).collect(),
        })
    }

    /// The values of all headers of this name, as one list.
    fn header(&self, name: &str) -> Option<String> {
        let named = self.headers.iter().filter(|(key, _)| key.eq_ignore_ascii_case(name));
        let values: Vec<&str> = named.map(|(_, value)| value.as_str()).collect();
        (!values.is_empty()).then(|| values.join(", "))
    }

    fn redirect(&self, from: &Url) -> Result<Option<Url>, Failure> {
        if !matches!(self.status, 301 | 302 | 303 | 307 | 308) {
            return Ok(None);
        }
        let Some(location) = self.header("location") else {
            return Err(Failure::new(HTTP, format!("{from}: {} without a location", self.status)));
        };
        // Relative to where we are, as a link in a page.
        let next = from.join(&location);
        let next = next.map_err(|error| Failure::new(HTTP, format!("{from}: redirected to {location:?}: {error}")))?;
        if next.scheme() != "https" {
            return Err(Failure::new(HTTP, format!("{from}: redirected to {next}, which is not https:")));
        }
        Ok(Some(next))
    }

    /// RFC 9112, section 6.3.
    fn framing(&self) -> Result<Framing, Failure> {
        match (self.header("transfer-encoding"), self.header("content-length")) {
            _ if self.status == 204 => Ok(Framing::Length(0)),
            (Some(coding), _) if coding.eq_ignore_ascii_case("chunked") => Ok(Framing::Chunked),
            (Some(coding), _) => Err(not_http(format!("unknown transfer coding {coding:?}"))),
            (None, Some(length)) => {
                let number = length.parse().map_err(|_| not_http(format!("content length {length:?}")))?;
                Ok(Framing::Length(number))
            }
            (None, None) => Ok(Framing::UntilEnd),
        }
    }
}

/// Appends the next line, with its end.
fn read_line(input: &mut impl BufRead, bytes: &mut Vec<u8>) -> Result<(), Failure> {
    input.take(CHUNK as u64).read_until(b'\n', bytes).map_err(transfer)?;
    if bytes.last() == Some(&b'\n') {
        return Ok(());
    }
    Err(Failure::new(TRANSFER, "the server ended the connection before its answer was complete"))
}

fn transfer(error: io::Error) -> Failure {
    Failure::new(TRANSFER, error)
}

fn not_http(why: impl Display) -> Failure {
    Failure::new(HTTP, format!("the server's answer is not HTTP/1.1: {why}"))
}

// ---------------------------------------------------------------------------------------------------------------------
// Download
// ---------------------------------------------------------------------------------------------------------------------

fn save(args: &Args, response: &Response, input: BufReader<SslFile>) -> Result<(), Failure> {
    let framing = response.framing()?;
    let output = Output::create(args.output.as_deref()).map_err(Failure::output)?;
    let (bar, template) = match framing {
        _ if args.output.is_none() && io::stdout().is_terminal() => (ProgressBar::hidden(), ""),
        Framing::Length(length) => {
            let template = "{wide_bar} {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec} {eta}";
            (ProgressBar::new(length), template)
        }
        _ => (ProgressBar::no_length(), "{spinner} {binary_bytes} {binary_bytes_per_sec} {elapsed}"),
    };
    // `indicatif` draws on stderr, and not at all where that is no terminal.
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    let mut download = Download { input, output, bar: bar.with_style(style) };
    let result = download.body(framing);
    download.bar.abandon();
    result.map_err(|failure| match failure.code {
        TRANSFER => Failure::new(TRANSFER, format!("incomplete, {}: {}", download.progress(), failure.text)),
        _ => failure,
    })?;
    download.output.finish().map_err(Failure::output)?;
    if args.verbose {
        tell(download.progress());
    }
    Ok(())
}

struct Download {
    input: BufReader<SslFile>,
    output: Output,
    bar: ProgressBar,
}

impl Download {
    fn body(&mut self, framing: Framing) -> Result<(), Failure> {
        match framing {
            Framing::Length(length) => self.copy(Some(length)),
            Framing::UntilEnd => self.copy(None),
            Framing::Chunked => loop {
                let mut line = Vec::new();
                read_line(&mut self.input, &mut line)?;
                let size = match httparse::parse_chunk_size(&line) {
                    Ok(httparse::Status::Complete((_, size))) => size,
                    _ => return Err(not_http("no chunk size where one belongs")),
                };
                self.copy(Some(size))?;
                // An empty line ends the chunk. Behind the last, which is empty, trailers may come first.
                loop {
                    line.clear();
                    read_line(&mut self.input, &mut line)?;
                    if line == b"\r\n" || line == b"\n" {
                        break;
                    }
                    if size > 0 {
                        return Err(not_http("a chunk longer than its size"));
                    }
                }
                if size == 0 {
                    return Ok(());
                }
            },
        }
    }

    fn progress(&self) -> String {
        let of = self.bar.length().map_or(String::new(), |length| format!(" of {length}"));
        format!("{}{of} bytes", self.bar.position())
    }

    /// So many bytes, or all until the server says that it is done.
    fn copy(&mut self, length: Option<u64>) -> Result<(), Failure> {
        let mut left = length.unwrap_or(u64::MAX);
        while left > 0 {
            let got = self.input.fill_buf().map_err(transfer)?;
            if got.is_empty() {
                return match length {
                    Some(_) => Err(Failure::new(TRANSFER, "the server ended the connection")),
                    None => Ok(()),
                };
            }
            let n = got.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            self.output.writer.write_all(&got[..n]).map_err(Failure::output)?;
            self.input.consume(n);
            self.bar.inc(n as u64);
            left -= n as u64;
        }
        Ok(())
    }
}

/// A regular file gets its name only when all of it is there; until then its bytes are in another one beside it.
struct Output {
    writer: Box<dyn Write>,
    unfinished: Option<(TempPath, PathBuf)>,
}

impl Output {
    fn create(path: Option<&Path>) -> io::Result<Output> {
        let Some(path) = path else { return Ok(Output { writer: Box::new(io::stdout().lock()), unfinished: None }) };
        // What a link leads to, not the link, is to be replaced, and no device or pipe at all.
        let path = path.canonicalize().unwrap_or(path.to_path_buf());
        if path.exists() && !path.is_file() {
            return Ok(Output { writer: Box::new(fs::File::create(&path)?), unfinished: None });
        }
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let mut prefix = path.file_name().unwrap_or_default().to_os_string();
        prefix.push(".");
        let mut builder = tempfile::Builder::new();
        builder.prefix(&prefix).suffix(".part");
        // As for any new file: what the umask leaves of it.
        #[cfg(unix)]
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
        let (file, unfinished) = builder.tempfile_in(folder)?.into_parts();
        Ok(Output { writer: Box::new(file), unfinished: Some((unfinished, path)) })
    }

    fn finish(&mut self) -> io::Result<()> {
        self.writer.flush()?;
        match self.unfinished.take() {
            Some((unfinished, path)) => Ok(unfinished.persist(path)?),
            None => Ok(()),
        }
    }
}
