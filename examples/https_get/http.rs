//! Requests, and answers up to their bodies.

use std::io::{BufRead, BufReader, Read, Write};

use base64::prelude::{Engine, BASE64_STANDARD};
use percent_encoding::percent_decode_str;
use sslfile::{Context, SslFile};
use url::{Position, Url};

use crate::connect::{authority, connect, Limits};
use crate::failure::{tell, Failure, HTTP, TRANSFER, USAGE};
use crate::part::Part;
use crate::{Args, CHUNK};

/// How much there may be of headers, 100 (Continue) and its like included, and of trailers. Servers send a few hundred bytes.
pub const MAX_HEAD: usize = 256 * 1024;
const MAX_HEADERS: usize = 1024;

/// A URL, and who we are there.
pub struct Target {
    /// Without who we are: it is sent, and shown.
    pub url: Url,
    /// As the header has it.
    pub authorization: Option<String>,
}

impl Target {
    pub fn parse(text: &str) -> Result<Target, Failure> {
        let url = Url::parse(text).map_err(|error| Failure::new(USAGE, format!("{text}: {error}")))?;
        let target = Target::of(url)?;
        match target.url.scheme() {
            "https" => Ok(target),
            _ => Err(Failure::new(USAGE, format!("{}: not an https: URL", target.url))),
        }
    }

    pub fn of(mut url: Url) -> Result<Target, Failure> {
        let decode = |text: &str| percent_decode_str(text).collect::<Vec<u8>>();
        let (user, password) = (decode(url.username()), decode(url.password().unwrap_or_default()));
        let is_named = !url.username().is_empty() || url.password().is_some();
        // They fail for URLs without a host only, in which there is nobody either.
        let _ = (url.set_username(""), url.set_password(None));
        if user.contains(&b':') {
            return Err(Failure::new(USAGE, format!("{url}: no colon can be sent in a user's name (RFC 7617)")));
        }
        let basic = || format!("Basic {}", BASE64_STANDARD.encode([&user[..], b":", &password].concat()));
        Ok(Target { authorization: is_named.then(basic), url })
    }
}

/// Sends the request, and reads the response as far as its body.
pub fn request(
    args: &Args,
    limits: &Limits,
    context: &Context,
    target: &Target,
    part: Option<&mut Part>,
) -> Result<(Response, BufReader<SslFile>), Failure> {
    let url = &target.url;
    let mut file = connect(args, limits, context, url)?;
    let mut head = format!(
        "GET {} HTTP/1.1\r\nHost: {}\r\nUser-Agent: https_get\r\nAccept: */*\r\nAccept-Encoding: {}\r\nConnection: close\r\n",
        &url[Position::BeforePath..Position::AfterQuery],
        authority(url),
        if args.gzip { "gzip" } else { "identity" },
    );
    if let Some(basic) = &target.authorization {
        head += &format!("Authorization: {basic}\r\n");
    }
    if let Some((first, validator)) = part.as_deref().and_then(Part::range) {
        head += &format!("Range: bytes={first}-\r\nIf-Range: {validator}\r\n");
    }
    head += "\r\n";
    // No `shutdown(Write)` behind it: many servers take that for a client that has lost interest.
    file.write_all(head.as_bytes()).map_err(Failure::transfer)?;
    // However it drips.
    file.set_read_deadline(limits.by()).map_err(Failure::transfer)?;
    let mut input = BufReader::with_capacity(CHUNK, file);
    let mut left = MAX_HEAD;
    loop {
        let response = Response::read(&mut input, &mut left)?;
        if args.verbose {
            tell(format!("{url}: {} {}", response.status, response.reason));
        }
        // 100 (Continue) and its like announce the response.
        if response.status >= 200 {
            input.get_ref().set_read_deadline(limits.end).map_err(Failure::transfer)?;
            return Ok((response, input));
        }
    }
}

/// Up to the body.
pub struct Response {
    pub status: u16,
    pub reason: String,
    headers: Vec<(String, String)>,
}

/// Where the body ends.
pub enum Framing {
    Length(u64),
    Chunked,
    UntilEnd,
}

impl Response {
    pub fn read(input: &mut impl BufRead, left: &mut usize) -> Result<Response, Failure> {
        let mut bytes = Vec::new();
        while !bytes.ends_with(b"\r\n\r\n") && !bytes.ends_with(b"\n\n") {
            read_line(input, &mut bytes, left, "headers")?;
        }
        let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
        let mut response = httparse::Response::new(&mut headers);
        response.parse(&bytes).map_err(Failure::not_http)?;
        // They may go to a terminal.
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().replace(char::is_control, "?");
        Ok(Response {
            status: response.code.ok_or_else(|| Failure::not_http("no status"))?,
            reason: text(response.reason.unwrap_or_default().as_bytes()),
            headers: response.headers.iter().map(|header| (header.name.to_string(), text(header.value))).collect(),
        })
    }

    /// The values of all headers of this name, as one list.
    pub fn header(&self, name: &str) -> Option<String> {
        let named = self.headers.iter().filter(|(key, _)| key.eq_ignore_ascii_case(name));
        let values: Vec<&str> = named.map(|(_, value)| value.as_str()).collect();
        (!values.is_empty()).then(|| values.join(", "))
    }

    pub fn redirect(&self, from: &Target) -> Result<Option<Target>, Failure> {
        if !matches!(self.status, 301 | 302 | 303 | 307 | 308) {
            return Ok(None);
        }
        let failed = |why: String| Failure::new(HTTP, format!("{}: {why}", from.url));
        let location = self.header("location").ok_or_else(|| failed(format!("{} without a location", self.status)))?;
        // Relative to where we are, as a link in a page.
        let next = from.url.join(&location);
        let next = next.map_err(|error| failed(format!("redirected to {location:?}: {error}")))?;
        let mut next = Target::of(next).map_err(|failure| failed(format!("redirected to {}", failure.text)))?;
        if next.url.scheme() != "https" {
            return Err(failed(format!("redirected to {}, which is not https:", next.url)));
        }
        // Who we are is for this server, and not for any other.
        if next.authorization.is_none() && next.url.origin() == from.url.origin() {
            next.authorization = from.authorization.clone();
        }
        Ok(Some(next))
    }

    /// RFC 9112, section 6.3.
    pub fn framing(&self) -> Result<Framing, Failure> {
        match (self.header("transfer-encoding"), self.header("content-length")) {
            _ if self.status == 204 => Ok(Framing::Length(0)),
            (Some(coding), _) if coding.eq_ignore_ascii_case("chunked") => Ok(Framing::Chunked),
            (Some(coding), _) => Err(Failure::not_http(format!("unknown transfer coding {coding:?}"))),
            (None, Some(length)) => {
                let number = number(&length).ok_or_else(|| Failure::not_http(format!("content length {length:?}")))?;
                Ok(Framing::Length(number))
            }
            (None, None) => Ok(Framing::UntilEnd),
        }
    }
}

/// Digits, and nothing else: `parse` takes a "+" before them.
pub fn number(text: &str) -> Option<u64> {
    text.parse().ok().filter(|_| text.bytes().all(|byte| byte.is_ascii_digit()))
}

/// Appends the next line, with its end, of `what`, of which only so much may be left.
pub fn read_line(input: &mut impl BufRead, bytes: &mut Vec<u8>, left: &mut usize, what: &str) -> Result<(), Failure> {
    let got = input.take(*left as u64).read_until(b'\n', bytes).map_err(Failure::transfer)?;
    *left -= got;
    match bytes.last() {
        Some(b'\n') if got > 0 => Ok(()),
        _ if *left == 0 => Err(Failure::not_http(format!("its {what} have no end: more than {MAX_HEAD} bytes"))),
        _ => Err(Failure::new(TRANSFER, "the server ended the connection before its answer was complete")),
    }
}
