//! A body. Its end is told only when all of it is there.

use std::io::{self, BufRead, BufReader, Read};

use indicatif::ProgressBar;
use sslfile::SslFile;

use crate::connect::Limits;
use crate::failure::{Failure, TRANSFER};
use crate::http::{read_line, Framing, MAX_HEAD};

pub struct Body<'a> {
    input: BufReader<SslFile>,
    framing: Framing,
    /// Until the next chunk's size, or the end.
    left: u64,
    /// A chunk has begun.
    in_chunk: bool,
    ended: bool,
    limits: &'a Limits,
    /// Counts what comes of it.
    pub bar: ProgressBar,
}

impl Body<'_> {
    pub fn new(input: BufReader<SslFile>, framing: Framing, limits: &Limits, bar: ProgressBar) -> Body<'_> {
        let left = match framing {
            Framing::Length(length) => length,
            Framing::Chunked => 0,
            Framing::UntilEnd => u64::MAX,
        };
        Body { input, framing, left, in_chunk: false, ended: false, limits, bar }
    }

    pub fn progress(&self) -> String {
        let of = self.bar.length().map_or(String::new(), |length| format!(" of {length}"));
        format!("{}{of} bytes", self.bar.position())
    }

    /// To the bytes of the next chunk, or behind the last, which is empty.
    fn next_chunk(&mut self) -> Result<(), Failure> {
        let mut line = Vec::new();
        if self.in_chunk {
            self.line(&mut line, &mut MAX_HEAD.clone())?;
            if !is_empty(&line) {
                return Err(Failure::not_http("a chunk longer than its size"));
            }
            line.clear();
        }
        self.line(&mut line, &mut MAX_HEAD.clone())?;
        let size = match httparse::parse_chunk_size(&line) {
            Ok(httparse::Status::Complete((_, size))) => size,
            _ => return Err(Failure::not_http("no chunk size where one belongs")),
        };
        (self.in_chunk, self.left) = (true, size);
        if size == 0 {
            self.trailers()?;
            self.ended = true;
        }
        Ok(())
    }

    /// They end with an empty line, and have the time that headers have.
    fn trailers(&mut self) -> Result<(), Failure> {
        let file = self.input.get_ref();
        file.set_read_deadline(self.limits.by()).map_err(Failure::transfer)?;
        let (mut line, mut left) = (Vec::new(), MAX_HEAD);
        loop {
            line.clear();
            read_line(&mut self.input, &mut line, &mut left, "trailers")?;
            if is_empty(&line) {
                return Ok(());
            }
        }
    }

    fn line(&mut self, line: &mut Vec<u8>, left: &mut usize) -> Result<(), Failure> {
        read_line(&mut self.input, line, left, "lines between chunks")
    }
}

fn is_empty(line: &[u8]) -> bool {
    line == b"\r\n" || line == b"\n"
}

impl BufRead for Body<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.left == 0 && !self.ended {
            match self.framing {
                Framing::Chunked => self.next_chunk()?,
                _ => self.ended = true,
            }
        }
        if self.ended {
            return Ok(&[]);
        }
        let got = self.input.fill_buf()?;
        if got.is_empty() {
            match self.framing {
                // `sslfile` has seen the server's close_notify.
                Framing::UntilEnd => self.ended = true,
                _ => return Err(Failure::new(TRANSFER, "the server ended the connection").into()),
            }
        }
        Ok(&got[..got.len().min(usize::try_from(self.left).unwrap_or(usize::MAX))])
    }

    fn consume(&mut self, n: usize) {
        self.input.consume(n);
        self.left -= n as u64;
        self.bar.inc(n as u64);
    }
}

/// For what takes a `Read` only.
impl Read for Body<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.fill_buf()?.read(buf)?;
        self.consume(n);
        Ok(n)
    }
}
