//! What is said in plain text, each way, within a time and a length.

use std::io::{self, BufRead, BufReader, Write};
use std::net::{IpAddr, TcpStream};
use std::time::Instant;

use crate::tell;

/// Of all that is heard.
const LIMIT: usize = 64 * 1024;

/// With a server that speaks in lines, or in what else its protocol has.
pub struct Dialogue<'a> {
    tcp: &'a TcpStream,
    input: BufReader<&'a TcpStream>,
    heard: usize,
    deadline: Instant,
    verbose: bool,
}

impl<'a> Dialogue<'a> {
    pub fn new(tcp: &'a TcpStream, deadline: Instant, verbose: bool) -> Dialogue<'a> {
        Dialogue { tcp, input: BufReader::new(tcp), heard: 0, deadline, verbose }
    }

    /// TLS may begin; what was read too far for that.
    pub fn end(self) -> io::Result<Vec<u8>> {
        self.tcp.set_read_timeout(None)?;
        Ok(self.input.buffer().to_vec())
    }

    /// Our address, which some protocols want to be told.
    pub fn local_ip(&self) -> io::Result<IpAddr> {
        // A Unix socket has none, and is on this machine.
        Ok(self.tcp.local_addr().map_or(std::net::Ipv4Addr::LOCALHOST.into(), |addr| addr.ip()))
    }

    pub fn say(&mut self, line: &str) -> io::Result<()> {
        self.send(line, format!("{line}\r\n").as_bytes())
    }

    /// These bytes, of which people are told so.
    pub fn send(&mut self, told: &str, bytes: &[u8]) -> io::Result<()> {
        if self.verbose {
            tell(format!("> {told}"));
        }
        self.tcp.write_all(bytes)
    }

    /// A reply of SMTP or FTP, without its codes: "250 text", or several lines from "250-text" to "250 text".
    pub fn reply(&mut self, code: &str) -> io::Result<Vec<String>> {
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
    pub fn expect(&mut self, answer: &str) -> io::Result<()> {
        loop {
            let line = self.hear()?;
            match line.get(..answer.len()) {
                Some(start) if start.eq_ignore_ascii_case(answer) => return Ok(()),
                _ if line.starts_with("* ") && !answer.starts_with('*') => {}
                _ => return Err(refused(&line)),
            }
        }
    }

    /// The next line.
    pub fn hear(&mut self) -> io::Result<String> {
        let line = self.hear_to(b'\n')?;
        Ok(self.heard(&line))
    }

    /// What comes, up to this byte and with it.
    pub fn hear_to(&mut self, last: u8) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        while bytes.last() != Some(&last) {
            bytes.push(self.byte()?);
        }
        Ok(bytes)
    }

    /// The next so many bytes. None is waited for behind them.
    pub fn hear_exactly(&mut self, length: usize) -> io::Result<Vec<u8>> {
        if length > LIMIT {
            return Err(without_end());
        }
        (0..length).map(|_| self.byte()).collect()
    }

    /// Tells people what the server has said, as they can read it.
    pub fn heard(&self, text: &[u8]) -> String {
        // It may go to a terminal.
        let text = String::from_utf8_lossy(text).trim_end().replace(char::is_control, "?");
        if self.verbose {
            tell(format!("< {text}"));
        }
        text
    }

    /// The next byte, within the deadline however slowly they come.
    pub fn byte(&mut self) -> io::Result<u8> {
        if self.heard == LIMIT {
            return Err(without_end());
        }
        let byte = loop {
            if self.input.buffer().is_empty() {
                let left = self.deadline.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    return Err(too_late());
                }
                self.tcp.set_read_timeout(Some(left))?;
            }
            match self.input.fill_buf() {
                Ok([byte, ..]) => break *byte,
                Ok([]) => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the server hung up")),
                // As after ^Z and `fg`.
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                    return Err(too_late());
                }
                Err(error) => return Err(error),
            }
        };
        self.input.consume(1);
        self.heard += 1;
        Ok(byte)
    }
}

pub fn refused(line: &str) -> io::Error {
    io::Error::other(format!("the server says {line:?}"))
}

pub fn not_offered() -> io::Error {
    io::Error::other("the server does not offer it")
}

/// For a protocol in bytes: what came is none of it.
pub fn garbled() -> io::Error {
    io::Error::other("the server does not speak that protocol")
}

fn too_late() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "the server did not answer in time")
}

fn without_end() -> io::Error {
    io::Error::other("the server talks without end")
}
