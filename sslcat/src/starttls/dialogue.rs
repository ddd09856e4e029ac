//! Lines of plain text, each way, within a time and a length.

use std::io::{self, BufRead, BufReader, Write};
use std::net::{IpAddr, TcpStream};
use std::time::{Duration, Instant};

use crate::tell;

/// With a server that speaks in lines.
pub struct Dialogue<'a> {
    tcp: &'a TcpStream,
    input: BufReader<&'a TcpStream>,
    heard: usize,
    deadline: Option<Instant>,
    verbose: bool,
}

impl<'a> Dialogue<'a> {
    pub fn new(tcp: &'a TcpStream, deadline: Option<Instant>, verbose: bool) -> Dialogue<'a> {
        Dialogue { tcp, input: BufReader::new(tcp), heard: 0, deadline, verbose }
    }

    /// TLS may begin; what was read too far for that.
    pub fn end(self) -> io::Result<Vec<u8>> {
        self.tcp.set_read_timeout(None)?;
        Ok(self.input.buffer().to_vec())
    }

    /// Our address, which some protocols want to be told.
    pub fn local_ip(&self) -> io::Result<IpAddr> {
        Ok(self.tcp.local_addr()?.ip())
    }

    pub fn say(&mut self, line: &str) -> io::Result<()> {
        if self.verbose {
            tell(format!("> {line}"));
        }
        self.tcp.write_all(format!("{line}\r\n").as_bytes())
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
