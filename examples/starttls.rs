//! A dialogue as in mail, both roles: plain, TLS from `STARTTLS` on, and plain again.
//!
//! What must go right here, and how: whatever has been read too far before TLS begins is put back (`unread`), so that it
//! goes into the handshake. Had somebody on the way put commands behind `STARTTLS`, the handshake would fail on them; they
//! are never taken for words that came under TLS.

use std::io::{self, BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;

use sslfile::{Certificate, Context, Identity, PlainFile, SslFile};

fn main() -> io::Result<()> {
    let made = rcgen::generate_simple_self_signed(["localhost".to_string()]).map_err(io::Error::other)?;
    let (chain, key) = (made.cert.pem(), made.signing_key.serialize_pem());
    let server = Context::server(Identity::from_pem(chain.as_bytes(), key.as_bytes())?)?;
    let root = Certificate::from_pem(chain.as_bytes())?;
    let client = Context::builder().system_roots(false).add_root(root).build()?;

    let listener = TcpListener::bind("127.0.0.1:0")?;
    let addr = listener.local_addr()?;
    thread::scope(|scope| {
        let served = scope.spawn(|| serve(PlainFile::new(listener.accept()?.0), &server));
        send_mail(PlainFile::new(TcpStream::connect(addr)?), &client)?;
        served.join().unwrap_or_else(|_| Err(io::Error::other("the server panicked")))
    })
}

fn send_mail(plain: PlainFile, context: &Context) -> io::Result<()> {
    ask(&plain, "EHLO me", "250")?;
    ask(&plain, "STARTTLS", "220")?;
    let tls = SslFile::client(plain, context, "localhost")?;
    ask(&tls, "AUTH PLAIN c2VjcmV0", "235")?;
    ask(&tls, "STOPTLS", "220")?;
    // Exchanges close_notify, and leaves TCP open.
    tls.close_clean()?;
    let (plain, _) = tls.release()?;
    ask(&plain, "QUIT", "221")
}

/// Sends a line, and reads one. Over plain files and TLS files alike.
fn ask<F>(file: &F, command: &str, expected: &str) -> io::Result<()>
where
    for<'a> &'a F: io::Read + io::Write,
{
    let _ = writeln!(io::stdout(), "client: {command}");
    let mut out = file;
    write!(out, "{command}\r\n")?;
    let mut answer = String::new();
    // The server says one line and waits for us, so that nothing can be read too far.
    BufReader::new(file).read_line(&mut answer)?;
    if answer.starts_with(expected) {
        Ok(())
    } else {
        Err(io::Error::other(format!("{command}: {answer:?}")))
    }
}

fn serve(plain: PlainFile, context: &Context) -> io::Result<()> {
    if talk(&plain, "plain")? == Then::Quit {
        return plain.close();
    }
    let tls = SslFile::server(plain, context)?;
    if talk(&tls, "TLS")? == Then::Quit {
        return tls.close();
    }
    // Waits for the client's close_notify, and answers it.
    tls.close_clean()?;
    let (plain, _) = tls.release()?;
    talk(&plain, "plain")?;
    plain.close()
}

#[derive(PartialEq)]
enum Then {
    Switch,
    Quit,
}

/// What has been read too far.
trait PutBack {
    fn put_back(&self, bytes: &[u8]) -> io::Result<()>;
}

impl PutBack for PlainFile {
    fn put_back(&self, bytes: &[u8]) -> io::Result<()> {
        self.unread(bytes);
        Ok(())
    }
}

impl PutBack for SslFile<PlainFile> {
    fn put_back(&self, bytes: &[u8]) -> io::Result<()> {
        match bytes.is_empty() {
            true => Ok(()),
            false => Err(io::Error::other("the client goes on under TLS behind STOPTLS")),
        }
    }
}

/// Answers commands until the client wants to leave, or to change over.
fn talk<F: PutBack>(file: &F, how: &str) -> io::Result<Then>
where
    for<'a> &'a F: io::Read + io::Write,
{
    let (mut input, mut out) = (BufReader::new(file), file);
    let mut line = String::new();
    while input.read_line(&mut line)? > 0 {
        let _ = writeln!(io::stdout(), "server ({how}): {}", line.trim_end());
        let (answer, then) = match line.trim_end() {
            "STARTTLS" | "STOPTLS" => ("220 go ahead", Some(Then::Switch)),
            "QUIT" => ("221 bye", Some(Then::Quit)),
            command if command.starts_with("AUTH") && how == "plain" => ("538 not without TLS", None),
            command if command.starts_with("AUTH") => ("235 welcome", None),
            _ => ("250 ok", None),
        };
        write!(out, "{answer}\r\n")?;
        if let Some(then) = then {
            file.put_back(input.buffer())?;
            return Ok(then);
        }
        line.clear();
    }
    Ok(Then::Quit)
}
