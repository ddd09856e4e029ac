//! An HTTP/1.1 server that keeps its connections: one request after the other on each, with bodies, and as many as the client
//! sends ahead. A thread for each client. It answers a GET with what was asked for, and a POST with its body.
//!
//! ```text
//! keep_alive                                              shows itself: three requests on one connection, then the end
//! keep_alive 127.0.0.1:8443 --cert server.pem             serves until it is killed
//! curl -v --cacert ca.pem https://localhost:8443/[1-3]    a client for it
//! ```

use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use clap::Parser;
use sslfile::{Certificate, Context, Identity, SslFile, SslListener};

const LONGEST_HEAD: usize = 16 * 1024;
const LONGEST_BODY: u64 = 16 * 1024 * 1024;
/// How long a client may say nothing between two requests, how long a request may take from its first byte to its last, and how
/// long an answer. A time-out would bound one `read`, and a request may take many.
const BETWEEN: Duration = Duration::from_secs(60);
const REQUEST: Duration = Duration::from_secs(20);
const ANSWER: Duration = Duration::from_secs(60);

/// Serve HTTP/1.1 over TLS, any number of requests on each connection.
#[derive(Parser)]
struct Args {
    /// Where to listen. Without it: serves a client of its own, and ends.
    #[arg(value_name = "ADDRESS:PORT")]
    listen: Option<SocketAddr>,
    /// Our certificate chain and private key, PEM. Without it one is made on the spot.
    #[arg(long, value_name = "FILE")]
    cert: Option<PathBuf>,
    /// The private key, PEM, if it is not in there.
    #[arg(long, value_name = "FILE", requires = "cert")]
    key: Option<PathBuf>,
}

fn main() -> io::Result<()> {
    let args = Args::parse();
    let (identity, root) = match &args.cert {
        Some(cert) => (Identity::from_pem_files(cert, args.key.as_ref().unwrap_or(cert))?, None),
        None => {
            let made = rcgen::generate_simple_self_signed(["localhost".to_string()]).map_err(io::Error::other)?;
            let (chain, key) = (made.cert.pem(), made.signing_key.serialize_pem());
            let root = Certificate::from_pem(chain.as_bytes())?;
            (Identity::from_pem(chain.as_bytes(), key.as_bytes())?, Some(root))
        }
    };
    // No HTTP/2.
    let context = Context::builder().identity(identity).alpn(["http/1.1", "http/1.0"]).build()?;
    let listen = args.listen.unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 0)));
    let listener = SslListener::bind(listen, &context)?;
    let addr = listener.local_addr()?;
    log(format_args!("listening on {addr}"));
    match (args.listen, root) {
        (None, Some(root)) => {
            thread::spawn(move || listen_on(&listener));
            show(addr, root)
        }
        _ => listen_on(&listener),
    }
}

fn listen_on(listener: &SslListener) -> io::Result<()> {
    for file in listener.incoming() {
        let file = file?;
        thread::spawn(move || {
            // A failed handshake among others. Dropped by an error, the file still says close_notify: each answer has a length.
            if let Err(error) = serve(&file) {
                let _ = writeln!(io::stderr(), "{error}");
            }
        });
    }
    Ok(())
}

fn serve(file: &SslFile) -> io::Result<()> {
    let mut input = Input { file, bytes: Vec::new() };
    loop {
        let request = match input.request() {
            Ok(Some(request)) => request,
            // The client has said its close_notify, or nothing for too long.
            Ok(None) => return file.close(),
            Err(Refused::Broken(error)) => return Err(error),
            Err(Refused::Bad(status)) => {
                answer(file, status, "close", b"", false)?;
                return file.close();
            }
        };
        let said = format!("You asked for {}\n", request.path);
        let body = if request.method == "POST" { &*request.body } else { said.as_bytes() };
        let keep = if request.keep { "keep-alive" } else { "close" };
        answer(file, "200 OK", keep, body, request.method == "HEAD")?;
        if !request.keep {
            return file.close();
        }
    }
}

/// With one write, so that it goes in as few segments as it can. Beside a time-out the earlier of the two would count.
fn answer(mut file: &SslFile, status: &str, connection: &str, body: &[u8], head_only: bool) -> io::Result<()> {
    let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: {connection}\r\n\r\n", body.len());
    let mut whole = head.into_bytes();
    if !head_only {
        whole.extend_from_slice(body);
    }
    file.set_write_deadline(Some(Instant::now() + ANSWER))?;
    file.write_all(&whole)
}

struct Request {
    method: String,
    path: String,
    body: Vec<u8>,
    keep: bool,
}

/// Why there is no request, and no further one either.
enum Refused {
    /// The connection is of no use any more.
    Broken(io::Error),
    /// The client is told this.
    Bad(&'static str),
}

impl From<io::Error> for Refused {
    fn from(error: io::Error) -> Refused {
        Refused::Broken(error)
    }
}

/// A request may come in any number of pieces, and the next ones with it.
struct Input<'a> {
    file: &'a SslFile,
    /// What has come and was not used yet.
    bytes: Vec<u8>,
}

impl Input<'_> {
    fn request(&mut self) -> Result<Option<Request>, Refused> {
        if self.bytes.is_empty() {
            self.file.set_read_deadline(Some(Instant::now() + BETWEEN))?;
            match self.more() {
                Ok(0) => return Ok(None),
                // Not in the middle of a request: this is how a kept connection ends.
                Err(e) if e.kind() == io::ErrorKind::TimedOut => return Ok(None),
                other => other?,
            };
        }
        self.file.set_read_deadline(Some(Instant::now() + REQUEST))?;
        let (mut request, length, expects, used) = loop {
            match parse(&self.bytes)? {
                Some(parsed) => break parsed,
                None if self.bytes.len() > LONGEST_HEAD => {
                    return Err(Refused::Bad("431 Request Header Fields Too Large"))
                }
                None => self.must_have_more()?,
            }
        };
        self.bytes.drain(..used);
        if expects && self.bytes.is_empty() && length > 0 {
            let mut file = self.file;
            file.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
        }
        while self.bytes.len() < length {
            self.must_have_more()?;
        }
        request.body = self.bytes.drain(..length).collect();
        Ok(Some(request))
    }

    fn more(&mut self) -> io::Result<usize> {
        let (mut file, mut buf) = (self.file, [0; 16 * 1024]);
        let n = file.read(&mut buf)?;
        self.bytes.extend_from_slice(&buf[..n]);
        Ok(n)
    }

    fn must_have_more(&mut self) -> io::Result<()> {
        match self.more()? {
            0 => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "an end in the middle of a request")),
            _ => Ok(()),
        }
    }
}

/// The request without its body, the body's length, whether the client waits to be told to send it, and the length of the head.
fn parse(bytes: &[u8]) -> Result<Option<(Request, usize, bool, usize)>, Refused> {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut parsed = httparse::Request::new(&mut headers);
    let used = match parsed.parse(bytes) {
        Ok(httparse::Status::Complete(used)) => used,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(_) => return Err(Refused::Bad("400 Bad Request")),
    };
    let newer = parsed.version == Some(1);
    let (mut length, mut keep, mut expects) = (None, newer, false);
    for header in parsed.headers.iter() {
        let value = std::str::from_utf8(header.value).unwrap_or_default();
        match &*header.name.to_ascii_lowercase() {
            // Two that differ would let somebody before us see other requests than we do (RFC 9112, section 6.3).
            "content-length" => match value.parse::<u64>() {
                Ok(n) if value.bytes().all(|b| b.is_ascii_digit()) && length.is_none_or(|length| length == n) => {
                    length = Some(n);
                }
                _ => return Err(Refused::Bad("400 Bad Request")),
            },
            "transfer-encoding" => return Err(Refused::Bad("411 Length Required")),
            "connection" if value.eq_ignore_ascii_case("close") => keep = false,
            "connection" if value.eq_ignore_ascii_case("keep-alive") => keep = true,
            "expect" => expects = newer && value.eq_ignore_ascii_case("100-continue"),
            _ => {}
        }
    }
    let length = length.unwrap_or(0);
    if length > LONGEST_BODY {
        return Err(Refused::Bad("413 Content Too Large"));
    }
    let (method, path) = (parsed.method.unwrap_or_default().to_string(), parsed.path.unwrap_or_default().to_string());
    Ok(Some((Request { method, path, body: Vec::new(), keep }, length as usize, expects, used)))
}

/// A line of the log. Whoever reads it may have gone: `println!` would panic then.
fn log(line: impl std::fmt::Display) {
    let _ = writeln!(io::stdout(), "{line}");
}

/// A client that sends three requests ahead, the last with a body, and reads until the end.
fn show(addr: SocketAddr, root: Certificate) -> io::Result<()> {
    let context = Context::builder().system_roots(false).add_root(root).build()?;
    let mut file = SslFile::options().client("localhost").connect(addr, &context)?;
    let request = |line: &str, rest: &str| format!("{line} HTTP/1.1\r\nHost: localhost\r\n{rest}");
    let all = request("GET /first", "\r\n")
        + &request("GET /second", "\r\n")
        + &request("POST /third", "Connection: close\r\nContent-Length: 5\r\n\r\nthree");
    file.write_all(all.as_bytes())?;
    let mut answers = String::new();
    file.read_to_string(&mut answers)?;
    io::stdout().write_all(answers.as_bytes())?;
    match answers.matches("HTTP/1.1 200 OK\r\n").count() == 3 && answers.ends_with("\r\n\r\nthree") {
        true => Ok(()),
        false => Err(io::Error::other("other answers")),
    }
}
