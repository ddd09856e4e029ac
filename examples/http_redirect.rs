//! A web server that says hello over HTTPS, and to whoever speaks plain HTTP on the same port where to find that. A thread for
//! each client.
//!
//! ```text
//! http_redirect                                            shows itself: a client of each kind, then the end
//! http_redirect 127.0.0.1:8443 --cert server.pem           serves until it is killed
//! curl -L --cacert ca.pem http://localhost:8443/greeting   a client for it
//! ```

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use clap::Parser;
use sslfile::{Certificate, Context, ErrorKind, Identity, SslFile};

/// More than this is no request.
const LONGEST: usize = 16 * 1024;
const PATIENCE: Duration = Duration::from_secs(10);

/// Say hello over HTTPS, and redirect plain HTTP on the same port to it.
#[derive(Parser)]
struct Args {
    /// Where to listen. Without it: serves two clients of its own, and ends.
    #[arg(value_name = "ADDRESS:PORT")]
    listen: Option<SocketAddr>,
    /// Our certificate chain and, unless --key is given, the private key, PEM. Without it one is made on the spot.
    #[arg(long, value_name = "FILE")]
    cert: Option<PathBuf>,
    /// The private key, PEM.
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
    // Because of the hook a client without TLS is not sent an alert, which would spoil our answer.
    let context = Context::builder().identity(identity).on_alert(|alert| {
        if let Some(bytes) = alert.not_tls() {
            let begin = String::from_utf8_lossy(&bytes[..bytes.len().min(20)]);
            log(format_args!("{}: no TLS, but {begin:?}…", alert.peer()));
        }
    });
    let context = context.build()?;
    let listen = args.listen.unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 0)));
    let listener = TcpListener::bind(listen)?;
    let addr = listener.local_addr()?;
    log(format_args!("listening on {addr}"));

    match (args.listen, root) {
        (None, Some(root)) => {
            thread::spawn(move || listen_on(&listener, &context));
            try_out(addr, root)
        }
        _ => listen_on(&listener, &context),
    }
}

fn listen_on(listener: &TcpListener, context: &Context) -> io::Result<()> {
    for tcp in listener.incoming() {
        let (tcp, context) = (tcp?, context.clone());
        thread::spawn(move || {
            if let Err(e) = serve(tcp, &context) {
                let _ = writeln!(io::stderr(), "{e}");
            }
        });
    }
    Ok(())
}

fn serve(tcp: TcpStream, context: &Context) -> io::Result<()> {
    let port = tcp.local_addr()?.port();
    tcp.set_read_timeout(Some(PATIENCE))?;
    match SslFile::server(tcp, context) {
        Ok(file) => {
            let request = Request::read(&file, Vec::new())?;
            let body = format!("Hello, and thank you for {}\n", request.path);
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
            (&file).write_all((head + &body).as_bytes())?;
            file.close()
        }
        Err(refused) if refused.kind() == ErrorKind::NotTls => {
            let (_, tcp, so_far) = refused.into_parts();
            redirect(tcp, so_far, port)
        }
        Err(refused) => Err(refused.into()),
    }
}

/// On the stream that TLS has given back, after the bytes that have come already.
fn redirect(mut tcp: TcpStream, so_far: Vec<u8>, port: u16) -> io::Result<()> {
    let answer = match Request::read(&tcp, so_far) {
        Ok(Request { host: Some(host), path }) => {
            let name = host.rsplit_once(':').filter(|(_, port)| !port.contains(']')).map_or(&*host, |(name, _)| name);
            log(format_args!("redirected: {host}{path}"));
            format!("HTTP/1.1 301 Moved Permanently\r\nLocation: https://{name}:{port}{path}\r\n")
        }
        // Who does not say whom it wants cannot be told where that is.
        _ => "HTTP/1.1 400 Bad Request\r\n".to_string(),
    };
    tcp.write_all(format!("{answer}Content-Length: 0\r\nConnection: close\r\n\r\n").as_bytes())?;
    tcp.shutdown(Shutdown::Write)?;
    // What is left unread would make the system answer with a reset, which can cost the client our answer.
    io::copy(&mut tcp.take(LONGEST as u64), &mut io::sink()).map(drop)
}

struct Request {
    host: Option<String>,
    path: String,
}

impl Request {
    /// Reads to the end of the head, from either kind of stream.
    fn read(mut stream: impl Read, mut head: Vec<u8>) -> io::Result<Request> {
        let bad = |why: &str| io::Error::new(io::ErrorKind::InvalidData, format!("bad request: {why}"));
        loop {
            let mut headers = [httparse::EMPTY_HEADER; 64];
            let mut request = httparse::Request::new(&mut headers);
            let parsed = request.parse(&head).map_err(|e| bad(&e.to_string()))?;
            if parsed.is_complete() {
                let host = request.headers.iter().find(|header| header.name.eq_ignore_ascii_case("host"));
                let host = host.map(|header| String::from_utf8_lossy(header.value).to_string());
                // What goes into our answer must not be able to end its line.
                let host = host.filter(|host| host.bytes().all(|b| b.is_ascii_graphic()));
                return Ok(Request { host, path: request.path.unwrap_or("/").to_string() });
            }
            let mut buf = [0; 2048];
            match stream.read(&mut buf)? {
                0 => return Err(bad("it has no end")),
                n if head.len() + n > LONGEST => return Err(bad(&format!("{n} bytes too many"))),
                n => head.extend_from_slice(&buf[..n]),
            }
        }
    }
}

/// A line of the log. Whoever reads it may have gone: `println!` would panic then, and the client would go without its answer.
fn log(line: impl std::fmt::Display) {
    let _ = writeln!(io::stdout(), "{line}");
}

/// A client that knows no better, and follows.
fn try_out(addr: SocketAddr, root: Certificate) -> io::Result<()> {
    let request = format!("GET /greeting HTTP/1.1\r\nHost: localhost:{}\r\n\r\n", addr.port());
    let mut answer = String::new();
    let mut plain = TcpStream::connect(addr)?;
    plain.write_all(request.as_bytes())?;
    plain.read_to_string(&mut answer)?;
    let expected = format!("Location: https://localhost:{}/greeting\r\n", addr.port());
    if !answer.starts_with("HTTP/1.1 301 ") || !answer.contains(&expected) {
        return Err(io::Error::other(format!("no redirection: {answer:?}")));
    }

    let context = Context::builder().system_roots(false).add_root(root).build()?;
    let file = SslFile::client(TcpStream::connect(addr)?, &context, "localhost")?;
    (&file).write_all(request.as_bytes())?;
    answer.clear();
    (&file).read_to_string(&mut answer)?;
    let (_, body) = answer.split_once("\r\n\r\n").ok_or_else(|| io::Error::other("no answer"))?;
    io::stdout().write_all(body.as_bytes())?;
    match body == "Hello, and thank you for /greeting\n" {
        true => Ok(()),
        false => Err(io::Error::other("another answer")),
    }
}
