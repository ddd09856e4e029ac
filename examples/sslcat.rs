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

use std::fmt::Display;
use std::fs;
use std::io::{self, BufRead, BufReader, IsTerminal, Read, Seek, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpStream, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{mpsc, Arc};
use std::thread;
use std::time::{Duration, Instant};

use clap::{Parser, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use sslfile::{Certificate, ClientAuth, Context, Engine, Error, ErrorKind, Identity, SslFile, SslListener, Version};

const USAGE: u8 = 1;
const CONNECT: u8 = 2;
const HANDSHAKE: u8 = 3;
const CERTIFICATE: u8 = 4;
const TRANSFER: u8 = 5;
const LOCAL: u8 = 6;

const AFTER_HELP: &str = "\
The end:
  When stdin ends, the peer is told (close_notify) and may go on; when the peer ends, sslcat does.
  What stdin has to give at that moment is still sent, but a pause of a second, or a terminal, is
  not waited for.

Exit codes:
  0  both sides ended in order
  1  wrong usage, an unusable file, or a setting that the TLS library does not have
  2  no connection: no such host, refused, unreachable, timed out
  3  no TLS: STARTTLS refused, the peer does not speak TLS, no version in common, ...
  4  a certificate was refused: the peer's by us, or ours by the peer
  5  the transfer failed: cut without a word (data may be missing), reset, forged, timed out
  6  stdin or stdout failed (a closed pipe is not mentioned)";

/// Join stdin and stdout to a TLS connection.
#[derive(Parser)]
#[command(name = "sslcat", version, max_term_width = 100, after_help = AFTER_HELP, override_usage = "sslcat [OPTIONS] HOST PORT\n       sslcat [OPTIONS] -l [ADDR] PORT")]
struct Args {
    /// Where to connect, HOST:PORT or [IPV6]:PORT in one word as well; with -l where to listen.
    #[arg(value_name = "HOST")]
    address: String,
    /// Its number; with -l, 0 lets the system choose.
    #[arg(value_name = "PORT")]
    port: Option<u16>,
    /// Listen, and serve the first connection.
    #[arg(short, long)]
    listen: bool,
    /// Begin in plain text, and ask the server for TLS in the words of this protocol.
    #[arg(long, value_name = "PROTOCOL", conflicts_with = "listen")]
    starttls: Option<Protocol>,
    /// Trust the certificates in this PEM file, and no others. With -l: demand a client certificate that one of them signed.
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Our certificate chain, PEM, our own first. With -l and without it one is made on the spot.
    #[arg(long, value_name = "FILE")]
    cert: Option<PathBuf>,
    /// Its private key, PEM [default: in the --cert file].
    #[arg(long, value_name = "FILE", requires = "cert")]
    key: Option<PathBuf>,
    /// The name that the server's certificate must have [default: HOST]. With -l: a name for the certificate made on the spot.
    #[arg(long)]
    name: Option<String>,
    /// Accept any certificate of the server: whoever is on the line can read along.
    #[arg(short = 'k', long, conflicts_with = "listen")]
    insecure: bool,
    /// Protocols to offer or to choose from (ALPN), the best first.
    #[arg(long, value_name = "NAME,...", value_delimiter = ',')]
    alpn: Vec<String>,
    /// Speak TLS 1.2 and nothing else.
    #[arg(long = "tls1.2", conflicts_with = "tls13")]
    tls12: bool,
    /// Speak TLS 1.3 and nothing else.
    #[arg(long = "tls1.3")]
    tls13: bool,
    /// Give up connecting, shaking hands, or waiting for anything to move after so long [default: 30 for the handshake].
    #[arg(short = 'w', long, value_name = "SECONDS", value_parser = seconds)]
    timeout: Option<Duration>,
    /// Do not tell the peer when stdin ends (some servers hang up on who does).
    #[arg(long)]
    no_shutdown: bool,
    /// The TLS library.
    #[arg(long)]
    engine: Option<Library>,
    /// Say on stderr what was negotiated.
    #[arg(short, long)]
    verbose: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum Protocol {
    Smtp,
    Imap,
    Pop3,
    Ftp,
}

#[derive(Clone, Copy, ValueEnum)]
enum Library {
    Native,
    Openssl,
    Rustls,
}

fn seconds(text: &str) -> Result<Duration, String> {
    let time = text.parse().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    let sensible = Duration::from_millis(1)..Duration::from_secs(1_000_000_000);
    time.filter(|time| sensible.contains(time)).ok_or("not a number of seconds, from 0.001".to_string())
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

    /// An error of the TLS file. A refused certificate has its own code, whenever it is told: in TLS 1.3 a client hears only
    /// after the handshake, with its first read, what the server thinks of its certificate.
    fn tls(code: u8, error: io::Error) -> Failure {
        // RFC 8446, section 6.2: bad_certificate (42) to unknown_ca (48), and certificate_required (116).
        const ABOUT_CERTIFICATES: [u8; 7] = [42, 43, 44, 45, 46, 48, 116];
        let refused = match Error::of(&error).map(Error::kind) {
            Some(ErrorKind::Certificate | ErrorKind::HostnameMismatch) => true,
            Some(kind) => kind.alert().is_some_and(|alert| ABOUT_CERTIFICATES.contains(&alert)),
            None => false,
        };
        let code = match error.kind() {
            _ if refused => CERTIFICATE,
            // An impossible --name, or a setting that the library has not in this role.
            io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported => USAGE,
            _ => code,
        };
        Failure::new(code, error)
    }

    /// An error of stdin or stdout. When whoever reads our output has enough, as in `sslcat ... | head`, there is nothing to say.
    fn local(name: &str, error: io::Error) -> Failure {
        let text = if error.kind() == io::ErrorKind::BrokenPipe { String::new() } else { format!("{name}: {error}") };
        Failure { code: LOCAL, text }
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
    // To return from here ends the process, even with a thread waiting for stdin.
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
    let file = if args.listen { serve(args)? } else { connect(args)? };
    if args.verbose {
        report(args, &file);
    }
    // As no time-out of the file was set before, these are for the transfer alone.
    let set = file.set_read_timeout(args.timeout).and_then(|()| file.set_write_timeout(args.timeout));
    set.map_err(|error| Failure::tls(TRANSFER, error))?;
    converse(args, &file)
}

/// On stderr. Who asks for it with `2>&-` may do without.
fn tell(text: impl Display) {
    let _ = writeln!(io::stderr(), "sslcat: {text}");
}

// ---------------------------------------------------------------------------------------------------------------------
// Opening
// ---------------------------------------------------------------------------------------------------------------------

fn connect(args: &Args) -> Result<SslFile, Failure> {
    let (host, port) = host_and_port(args)?;
    let identity = match &args.cert {
        Some(cert) => Some(identity_from_files(args, cert)?),
        None => None,
    };
    let context = context(args, identity)?;

    let tcp = dial(&host, port, args.timeout)
        .map_err(|error| Failure::new(CONNECT, format!("cannot connect to {host} port {port}: {error}")))?;
    if args.verbose {
        tell(format!("connected to {}", tcp.peer_addr().map_or(host.clone(), |addr| addr.to_string())));
    }
    let already_read = match args.starttls {
        Some(protocol) => starttls(&tcp, protocol, args)
            .map_err(|error| Failure::new(HANDSHAKE, format!("STARTTLS with {host} port {port}: {error}")))?,
        None => Vec::new(),
    };
    SslFile::options()
        .client(args.name.as_deref().unwrap_or(&host))
        .handshake_timeout(args.timeout.or(Some(Duration::from_secs(30))))
        .already_read(already_read)
        .open(tcp, &context)
        .map_err(|error| Failure::tls(HANDSHAKE, error.into()))
}

/// As `TcpStream::connect`, within `timeout` for all addresses of the host together.
fn dial(host: &str, port: u16, timeout: Option<Duration>) -> io::Result<TcpStream> {
    let Some(timeout) = timeout else { return TcpStream::connect((host, port)) };
    let deadline = Instant::now() + timeout;
    let mut failed = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for addr in (host, port).to_socket_addrs()? {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        match TcpStream::connect_timeout(&addr, left) {
            Ok(tcp) => return Ok(tcp),
            Err(error) => failed = error,
        }
    }
    Err(failed)
}

fn serve(args: &Args) -> Result<SslFile, Failure> {
    let (host, port) = host_and_port(args)?;
    let (identity, made) = match &args.cert {
        Some(cert) => (identity_from_files(args, cert)?, None),
        None => {
            let (identity, made) = identity_made_now(args)?;
            (identity, Some(made))
        }
    };
    let context = context(args, Some(identity))?;

    // Without an address: all of them. An IPv6 socket serves IPv4 as well, where there is IPv6.
    let everywhere = [IpAddr::from(Ipv6Addr::UNSPECIFIED), IpAddr::from(Ipv4Addr::UNSPECIFIED)];
    let bound = match host.as_str() {
        "" => SslListener::bind(&everywhere.map(|ip| SocketAddr::new(ip, port))[..], &context),
        host => SslListener::bind((host, port), &context),
    };
    let place = if host.is_empty() { format!("port {port}") } else { format!("{host} port {port}") };
    let listener = bound.map_err(|error| Failure::new(CONNECT, format!("cannot listen on {place}: {error}")))?;
    if let Some(certificate) = made {
        tell("no --cert: made a certificate, to be trusted by --insecure, or by --ca as -v shows it");
        if args.verbose {
            let _ = io::stderr().write_all(certificate.as_bytes());
        }
    }
    listener.set_handshake_timeout(args.timeout.or(Some(Duration::from_secs(30))));
    if let Ok(addr) = listener.local_addr() {
        tell(format!("listening on {addr}"));
    }

    let (file, addr) = listener.accept().map_err(|error| Failure::new(CONNECT, error))?;
    if args.verbose {
        tell(format!("connection from {addr}"));
    }
    // `accept` leaves the handshake to the first use of the file.
    file.handshake().map_err(|error| Failure::tls(HANDSHAKE, error))?;
    Ok(file)
}

/// The host is empty for "-l PORT".
fn host_and_port(args: &Args) -> Result<(String, u16), Failure> {
    let address = args.address.as_str();
    let (host, port) = match args.port {
        Some(port) => (address, Some(port)),
        None => match address.rsplit_once(':') {
            Some((host, port)) => (host, port.parse().ok()),
            None if args.listen => ("", address.parse().ok()),
            None => return Err(Failure::new(USAGE, format!("which port of {address}? (sslcat {address} PORT)"))),
        },
    };
    let port = port.ok_or_else(|| Failure::new(USAGE, format!("no port number in {address:?}")))?;
    let host = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(bracketed) => bracketed,
        // "::1:443" may be meant in two ways.
        None if args.port.is_none() && host.contains(':') => {
            return Err(Failure::new(USAGE, format!("write {address:?} as [ADDRESS]:PORT")));
        }
        None => host,
    };
    if host.is_empty() && !args.listen {
        return Err(Failure::new(USAGE, format!("no host in {address:?}")));
    }
    Ok((host.to_string(), port))
}

fn context(args: &Args, identity: Option<Identity>) -> Result<Context, Failure> {
    let mut builder = Context::builder();
    if let Some(library) = args.engine {
        builder = builder.engine(match library {
            Library::Native => Engine::Native,
            Library::Openssl => Engine::OpenSsl,
            Library::Rustls => Engine::Rustls,
        });
    }
    if let Some(identity) = identity {
        builder = builder.identity(identity);
    }
    if let Some(path) = &args.ca {
        let unusable = |error| Failure::new(USAGE, format!("{}: {error}", path.display()));
        let roots = fs::read(path).and_then(|pem| Certificate::stack_from_pem(&pem)).map_err(unusable)?;
        builder = roots.into_iter().fold(builder.system_roots(false), |builder, root| builder.add_root(root));
        if args.listen {
            builder = builder.client_auth(ClientAuth::Require);
        }
    }
    if args.insecure {
        builder = builder.danger_accept_invalid_certs(true).danger_accept_invalid_hostnames(true);
    }
    if !args.alpn.is_empty() {
        builder = builder.alpn(&args.alpn);
    }
    if args.tls12 {
        builder = builder.min_version(Version::Tls1_2).max_version(Version::Tls1_2);
    }
    if args.tls13 {
        builder = builder.min_version(Version::Tls1_3).max_version(Version::Tls1_3);
    }
    builder.build().map_err(|error| Failure::new(USAGE, error))
}

fn identity_from_files(args: &Args, cert: &Path) -> Result<Identity, Failure> {
    let key = args.key.as_deref().unwrap_or(cert);
    Identity::from_pem_files(cert, key).map_err(|error| Failure::new(USAGE, error))
}

/// A self-signed certificate, which nobody trusts unless told to; and its PEM text.
fn identity_made_now(args: &Args) -> Result<(Identity, String), Failure> {
    let mut names = vec!["localhost".to_string(), "127.0.0.1".to_string(), "::1".to_string()];
    names.extend(args.name.clone());
    let made = rcgen::generate_simple_self_signed(names)
        .map_err(|error| Failure::new(USAGE, format!("no certificate can be made: {error}")))?;
    let (chain, key) = (made.cert.pem(), made.signing_key.serialize_pem());
    let identity = Identity::from_pem(chain.as_bytes(), key.as_bytes());
    Ok((identity.map_err(|error| Failure::new(USAGE, error))?, chain))
}

fn report(args: &Args, file: &SslFile) {
    let mut facts = vec![format!("{:?} engine", file.context().engine())];
    // Facts that the library does not tell are left out.
    facts.extend(file.version().map(|version| version.to_string()));
    facts.extend(file.cipher());
    facts.extend(file.alpn().map(|name| format!("ALPN {}", String::from_utf8_lossy(&name).escape_debug())));
    facts.extend(file.server_name().map(|name| format!("server name {name}")));
    facts.extend(file.is_resumed().filter(|&resumed| resumed).map(|_| "session resumed".to_string()));
    facts.push(match file.peer_certificate() {
        None => "no certificate from the peer".to_string(),
        Some(_) if args.insecure => "certificate NOT checked".to_string(),
        Some(_) => "certificate trusted".to_string(),
    });
    tell(facts.join(", "));
}

// ---------------------------------------------------------------------------------------------------------------------
// STARTTLS
// ---------------------------------------------------------------------------------------------------------------------

/// The plain part of the conversation, up to the server's consent. What was read behind that is returned: it is no TLS, and an
/// attacker may have put it there to have it taken for the server's first encrypted words (CVE-2011-0411). It must be neither
/// kept nor dropped in silence; given to `already_read` it fails the handshake.
fn starttls(tcp: &TcpStream, protocol: Protocol, args: &Args) -> io::Result<Vec<u8>> {
    let deadline = args.timeout.map(|timeout| Instant::now() + timeout);
    let mut dialogue = Dialogue { tcp, input: BufReader::new(tcp), heard: 0, deadline, verbose: args.verbose };
    match protocol {
        Protocol::Smtp => {
            dialogue.reply("220")?;
            let ip = tcp.local_addr()?.ip();
            dialogue.say(&format!("EHLO [{}{ip}]", if ip.is_ipv6() { "IPv6:" } else { "" }))?;
            let offers = dialogue.reply("250")?;
            if !offers.iter().any(|offer| offer.eq_ignore_ascii_case("STARTTLS")) {
                return Err(io::Error::other("the server does not offer it"));
            }
            dialogue.say("STARTTLS")?;
            dialogue.reply("220")?;
        }
        Protocol::Imap => {
            dialogue.expect("* OK")?;
            dialogue.say("a1 STARTTLS")?;
            dialogue.expect("a1 OK")?;
        }
        Protocol::Pop3 => {
            dialogue.expect("+OK")?;
            dialogue.say("STLS")?;
            dialogue.expect("+OK")?;
        }
        Protocol::Ftp => {
            dialogue.reply("220")?;
            dialogue.say("AUTH TLS")?;
            dialogue.reply("234")?;
        }
    }
    let behind = dialogue.input.buffer().to_vec();
    tcp.set_read_timeout(None)?;
    Ok(behind)
}

struct Dialogue<'a> {
    tcp: &'a TcpStream,
    input: BufReader<&'a TcpStream>,
    heard: usize,
    deadline: Option<Instant>,
    verbose: bool,
}

impl Dialogue<'_> {
    fn say(&mut self, line: &str) -> io::Result<()> {
        if self.verbose {
            tell(format!("> {line}"));
        }
        self.tcp.write_all(format!("{line}\r\n").as_bytes())
    }

    /// A reply of SMTP or FTP, without its codes: "250 text", or several lines from "250-text" to "250 text".
    fn reply(&mut self, code: &str) -> io::Result<Vec<String>> {
        let mut texts = Vec::new();
        loop {
            let line = self.hear()?;
            // Between its first and last line an FTP server may put lines without a code.
            let (mark, text) = match line.strip_prefix(code) {
                Some("") => (' ', ""),
                Some(rest) if rest.starts_with([' ', '-']) => (rest.as_bytes()[0] as char, &rest[1..]),
                _ if texts.is_empty() => return Err(refused(&line)),
                _ => ('-', line.as_str()),
            };
            texts.push(text.trim().to_string());
            if mark == ' ' {
                return Ok(texts);
            }
        }
    }

    /// A line of IMAP or POP3 that begins with `answer`; IMAP may say other things ("* ...") before.
    fn expect(&mut self, answer: &str) -> io::Result<()> {
        loop {
            let line = self.hear()?;
            match line.get(..answer.len()) {
                Some(start) if start.eq_ignore_ascii_case(answer) => return Ok(()),
                _ if line.starts_with("* ") && !answer.starts_with('*') => {}
                _ => return Err(refused(&line)),
            }
        }
    }

    /// The next line, within the deadline however slowly its bytes come.
    fn hear(&mut self) -> io::Result<String> {
        const LIMIT: usize = 64 * 1024;
        let mut line = Vec::new();
        while line.last() != Some(&b'\n') {
            if let Some(deadline) = self.deadline {
                let left = deadline.saturating_duration_since(Instant::now());
                self.tcp.set_read_timeout(Some(left.max(Duration::from_millis(1))))?;
            }
            let buffered = match self.input.fill_buf() {
                Ok([]) => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the server hung up")),
                Ok(buffered) => buffered,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Err(io::Error::new(io::ErrorKind::TimedOut, "the server did not answer in time"));
                }
                Err(error) => return Err(error),
            };
            let n = buffered.iter().position(|&byte| byte == b'\n').map_or(buffered.len(), |at| at + 1);
            line.extend_from_slice(&buffered[..n]);
            self.input.consume(n);
            self.heard += n;
            if self.heard > LIMIT {
                return Err(io::Error::other("the server talks without end"));
            }
        }
        // It may go to a terminal.
        let line = String::from_utf8_lossy(&line).trim_end().replace(char::is_control, "?");
        if self.verbose {
            tell(format!("< {line}"));
        }
        Ok(line)
    }
}

fn refused(line: &str) -> io::Error {
    io::Error::other(format!("the server says {line:?}"))
}

// ---------------------------------------------------------------------------------------------------------------------
// Transfer
// ---------------------------------------------------------------------------------------------------------------------

const CHUNK: usize = 64 * 1024;

/// Full duplex: stdin to the peer in a thread, the peer to stdout in this one.
fn converse(args: &Args, file: &SslFile) -> Result<(), Failure> {
    let progress = Arc::new(Progress::new());
    let (done, sent) = mpsc::channel();
    let sender = file.try_clone().map_err(|error| Failure::new(TRANSFER, error))?;
    {
        let (progress, shutdown) = (progress.clone(), !args.no_shutdown);
        thread::spawn(move || done.send(send(&sender, &progress, shutdown)));
    }

    let received = receive(file, &progress);
    let sent = match &received {
        Ok(()) => rest_of_stdin(&sent, &progress),
        // The connection is gone, and the sender either knows or waits for stdin.
        Err(_) => sent.try_recv().unwrap_or(Ok(())),
    };
    progress.bar.abandon();
    match (received, sent) {
        (Ok(()), Ok(())) => {
            // All was handed over, both ways: what could fail from here on matters to nobody.
            let _ = file.close();
            Ok(())
        }
        // It cut the connection, so that the receiver failed too.
        (_, Err(failure)) if failure.code == LOCAL => Err(failure),
        (received, sent) => received.and(sent),
    }
}

/// The peer has said its last word. It may still listen, so what stdin has to give is sent; for how long, see --help.
fn rest_of_stdin(sent: &mpsc::Receiver<Result<(), Failure>>, progress: &Progress) -> Result<(), Failure> {
    const PAUSE: Duration = Duration::from_secs(1);
    loop {
        if io::stdin().is_terminal() && !progress.is_sending() {
            return Ok(());
        }
        let before = progress.bytes();
        match sent.recv_timeout(PAUSE) {
            Ok(result) => return result,
            Err(mpsc::RecvTimeoutError::Disconnected) => return Err(Failure::new(LOCAL, "the sending thread is gone")),
            Err(mpsc::RecvTimeoutError::Timeout) if progress.bytes() != before || progress.is_sending() => {}
            Err(mpsc::RecvTimeoutError::Timeout) => return Ok(()),
        }
    }
}

fn send(mut file: &SslFile, progress: &Progress, shutdown: bool) -> Result<(), Failure> {
    let mut input = io::stdin().lock();
    let mut buf = vec![0; CHUNK];
    loop {
        let n = match input.read(&mut buf) {
            Ok(0) => break,
            Ok(n) => n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => {
                // Not all was sent. A close_notify would say so; the peer shall see a cut.
                let _ = file.get_ref().shutdown(Shutdown::Both);
                return Err(Failure::local("stdin", error));
            }
        };
        progress.sending.store(true, Ordering::Relaxed);
        file.write_all(&buf[..n]).map_err(|error| Failure::tls(TRANSFER, error))?;
        progress.sending.store(false, Ordering::Relaxed);
        progress.add(Direction::Sent, n);
    }
    if shutdown {
        // Ends our direction only, and does not wait; `flush` does.
        let ended = file.shutdown(Shutdown::Write).and_then(|()| file.flush());
        ended.map_err(|error| Failure::tls(TRANSFER, error))?;
    }
    Ok(())
}

fn receive(mut file: &SslFile, progress: &Progress) -> Result<(), Failure> {
    let mut output = io::stdout().lock();
    let terminal = output.is_terminal();
    let mut buf = vec![0; CHUNK];
    loop {
        let before = progress.bytes();
        let n = match file.read(&mut buf) {
            // The peer's close_notify: an end that nobody can forge.
            Ok(0) => return Ok(()),
            Ok(n) => n,
            // Nothing came, but something went.
            Err(error) if error.kind() == io::ErrorKind::TimedOut && progress.bytes() != before => continue,
            Err(error) => return Err(Failure::tls(TRANSFER, error)),
        };
        let mut write = || output.write_all(&buf[..n]).and_then(|()| output.flush());
        // On a terminal, text and bar must not run into each other.
        let written = if terminal { progress.bar.suspend(write) } else { write() };
        written.map_err(|error| Failure::local("stdout", error))?;
        progress.add(Direction::Received, n);
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// Progress
// ---------------------------------------------------------------------------------------------------------------------

#[derive(Clone, Copy, PartialEq)]
enum Direction {
    Sent,
    Received,
}

/// How the two directions know of each other, and how the user does.
struct Progress {
    /// Both ways.
    bytes: AtomicU64,
    /// Something read from stdin is not yet written.
    sending: AtomicBool,
    bar: ProgressBar,
    /// What the bar is about.
    shown: Direction,
}

impl Progress {
    /// The bar is for the file that goes out or else comes in. `indicatif` draws on stderr, if that is a terminal.
    fn new() -> Progress {
        let to_send = file_behind(&io::stdin()).and_then(|mut file| {
            let length = file.metadata().ok()?.len();
            Some(length.saturating_sub(file.stream_position().ok()?))
        });
        let (bar, shown, template) = match to_send {
            Some(length) => {
                let template = "{wide_bar} {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec} {eta}";
                (ProgressBar::new(length), Direction::Sent, template)
            }
            None if file_behind(&io::stdout()).is_some() => {
                let template = "{spinner} {binary_bytes} {binary_bytes_per_sec} {elapsed}";
                (ProgressBar::no_length(), Direction::Received, template)
            }
            None => (ProgressBar::hidden(), Direction::Sent, ""),
        };
        let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
        let (bytes, sending) = (AtomicU64::new(0), AtomicBool::new(false));
        Progress { bytes, sending, bar: bar.with_style(style), shown }
    }

    fn add(&self, direction: Direction, n: usize) {
        self.bytes.fetch_add(n as u64, Ordering::Relaxed);
        if direction == self.shown {
            self.bar.inc(n as u64);
        }
    }

    fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    fn is_sending(&self) -> bool {
        self.sending.load(Ordering::Relaxed)
    }
}

/// The regular file that one of the standard streams was redirected to.
#[cfg(unix)]
fn file_behind(stream: &impl std::os::fd::AsFd) -> Option<fs::File> {
    let file = fs::File::from(stream.as_fd().try_clone_to_owned().ok()?);
    file.metadata().ok()?.is_file().then_some(file)
}

#[cfg(windows)]
fn file_behind(stream: &impl std::os::windows::io::AsHandle) -> Option<fs::File> {
    let file = fs::File::from(stream.as_handle().try_clone_to_owned().ok()?);
    file.metadata().ok()?.is_file().then_some(file)
}
