//! CONNECT (RFC 9110, section 9.3.6).

use std::io;

use super::talk::Talk;
use super::{authority, Target};
use crate::pin::to_base64;

/// For all that comes before the server's first byte.
const LIMIT: usize = 64 * 1024;
const START: &[u8] = b"HTTP/";

pub fn connect(talk: &mut Talk, target: &Target, login: Option<&(String, String)>) -> io::Result<()> {
    let target = match target {
        Target::Name(host, port) => authority(host, *port),
        Target::Addr(addr) => addr.to_string(),
    };
    // A name of several lines would be a header of its own.
    if target.contains(|c: char| c.is_whitespace() || c.is_control()) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{target:?} is no host")));
    }
    let mut head = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n");
    head += concat!("User-Agent: sslcat/", env!("CARGO_PKG_VERSION"), "\r\n");
    if let Some((user, password)) = login {
        head += &format!("Proxy-Authorization: Basic {}\r\n", to_base64(format!("{user}:{password}").as_bytes()));
    }
    talk.say((head + "\r\n").as_bytes())?;

    let mut room = LIMIT;
    loop {
        let head = hear_head(talk, &mut room)?;
        let mut lines = head.lines();
        let line = lines.next().unwrap_or_default();
        match status(line).ok_or_else(|| garbled(line))? {
            // What it has to say on the way; 101 would be something else than what was asked for.
            100 | 102..=199 => {}
            // Whatever it says of a length: behind the header is the server (RFC 9110, section 9.3.6).
            200..=299 => return Ok(()),
            // tinyproxy has 401 for a login that is wrong.
            401 | 407 => {
                let asked = lines.find_map(|line| {
                    let (name, value) = line.split_once(':')?;
                    name.eq_ignore_ascii_case("proxy-authenticate").then(|| value.trim())
                });
                let asked = asked.map_or(String::new(), |asked| format!(" (it asks for {asked:?})"));
                let what = if login.is_some() { "it does not take this login" } else { "it wants a login" };
                let text = format!("{what}: SCHEME://USER:PASSWORD@HOST:PORT{asked}");
                return Err(io::Error::new(io::ErrorKind::PermissionDenied, text));
            }
            _ => return Err(io::Error::other(format!("it says {line:?}"))),
        }
    }
}

/// Up to its empty line, and not a byte more.
fn hear_head(talk: &mut Talk, room: &mut usize) -> io::Result<String> {
    let mut head = Vec::new();
    talk.hear_until(|byte| {
        if *room == 0 {
            return Err(io::Error::other("its answer has no end"));
        }
        *room -= 1;
        head.push(byte);
        // Something else might never have an empty line.
        if head.len() <= START.len() && !START.starts_with(&head) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "it does not speak HTTP"));
        }
        Ok(head.ends_with(b"\r\n\r\n") || head.ends_with(b"\n\n"))
    })?;
    Ok(String::from_utf8_lossy(&head).to_string())
}

/// Of `HTTP/1.1 200 Fine`.
fn status(line: &str) -> Option<u16> {
    let (version, rest) = line.split_once(' ')?;
    let code = rest.split(' ').next()?;
    let is_number = code.len() == 3 && code.bytes().all(|byte| byte.is_ascii_digit());
    (version.starts_with("HTTP/1.") && is_number).then(|| code.parse().ok())?
}

fn garbled(line: &str) -> io::Error {
    let start: String = line.chars().take(80).collect();
    io::Error::new(io::ErrorKind::InvalidData, format!("no answer of HTTP: {start:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_has_three_digits() {
        assert_eq!(status("HTTP/1.0 200 Connection established"), Some(200));
        assert_eq!(status("HTTP/1.1 407"), Some(407));
        for wrong in ["", "HTTP/1.1", "HTTP/1.1 ", "HTTP/1.1 20", "HTTP/1.1 +20 x", "HTTP/2 200", "ICY 200 OK"] {
            assert_eq!(status(wrong), None, "{wrong}");
        }
    }
}
