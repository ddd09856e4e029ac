//! A body. Its end is told only when all of it is there.

use std::io::{self, BufReader, Read};

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
    bar: ProgressBar,
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

    /// To the bytes of the next chunk, or behind the last, which is empty.
    fn next_chunk(&mut self) -> Result<(), Failure> {
        const WHAT: &str = "lines between chunks";
        let (mut line, mut left) = (Vec::new(), MAX_HEAD);
        if self.in_chunk {
            read_line(&mut self.input, &mut line, &mut left, WHAT)?;
            if !is_empty(&line) {
                return Err(Failure::not_http("a chunk longer than its size"));
            }
            line.clear();
        }
        read_line(&mut self.input, &mut line, &mut left, WHAT)?;
        let Ok(httparse::Status::Complete((_, size))) = httparse::parse_chunk_size(&line) else {
            return Err(Failure::not_http("no chunk size where one belongs"));
        };
        (self.in_chunk, self.left, self.ended) = (true, size, size == 0);
        if self.ended {
            // The trailers. They end with an empty line, and have the time that headers have.
            let file = self.input.get_ref();
            file.set_read_deadline(self.limits.by()).map_err(Failure::transfer)?;
            left = MAX_HEAD;
            while !is_empty(&line) {
                line.clear();
                read_line(&mut self.input, &mut line, &mut left, "trailers")?;
            }
        }
        Ok(())
    }
}

fn is_empty(line: &[u8]) -> bool {
    line == b"\r\n" || line == b"\n"
}

impl Read for Body<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 && !self.ended {
            match self.framing {
                Framing::Chunked => self.next_chunk()?,
                _ => self.ended = true,
            }
        }
        if self.ended {
            return Ok(0);
        }
        let n = self.input.by_ref().take(self.left).read(buf)?;
        match (n, &self.framing) {
            // `sslfile` has seen the server's close_notify.
            (0, Framing::UntilEnd) => self.ended = true,
            (0, _) => return Err(Failure::new(TRANSFER, "the server ended the connection").into()),
            _ => {}
        }
        self.left -= n as u64;
        self.bar.inc(n as u64);
        Ok(n)
    }
}
