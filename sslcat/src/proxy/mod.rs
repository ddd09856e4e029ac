//! Through a proxy: which one, if any, and the way to it. What is said to it stands in a file for each kind.

mod exempt;
mod http;
mod socks5;
mod talk;

use std::env;
use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::time::Instant;

use crate::args::Args;
use crate::dial::{dial, resolve};
use crate::exit::{self, Failure};
use talk::Talk;

pub struct Proxy {
    kind: Kind,
    host: String,
    port: u16,
    /// User and password.
    login: Option<(String, String)>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    /// CONNECT.
    Http,
    Socks5,
    /// The same, and the proxy looks up the names.
    Socks5h,
}

/// Whom it is to connect to.
enum Target<'a> {
    Name(&'a str, u16),
    Addr(SocketAddr),
}

/// Never with its password.
impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = match self.kind {
            Kind::Http => "http",
            Kind::Socks5 => "socks5",
            Kind::Socks5h => "socks5h",
        };
        write!(f, "{scheme}://{}", authority(&self.host, self.port))
    }
}

/// The one for this host, if there is one. --proxy holds for all; the environment has exceptions.
pub fn of(args: &Args, host: &str, port: u16) -> Result<Option<Proxy>, Failure> {
    if args.proxy.no_proxy || args.connection.unix.is_some() {
        return Ok(None);
    }
    let (source, text) = match &args.proxy.proxy {
        Some(text) => ("--proxy", text.clone()),
        None => {
            let names = ["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"];
            let set = names.into_iter().find_map(|name| Some((name, env::var_os(name)?)));
            let Some((name, value)) = set else { return Ok(None) };
            let list = ["no_proxy", "NO_PROXY"].into_iter().find_map(env::var_os).unwrap_or_default();
            if exempt::is_in(&list.to_string_lossy(), host, port) {
                return Ok(None);
            }
            (name, value.to_string_lossy().to_string())
        }
    };
    let unusable = |why| Failure::new(exit::USAGE, format!("{source}: {why}"));
    match text.trim() {
        "" => Ok(None),
        text => parse(text).map(Some).map_err(unusable),
    }
}

fn parse(text: &str) -> Result<Proxy, String> {
    let (scheme, rest) = text.split_once("://").unwrap_or(("http", text));
    let (kind, usual_port) = match scheme.to_ascii_lowercase().as_str() {
        "http" => (Kind::Http, 80),
        "socks5" => (Kind::Socks5, 1080),
        "socks5h" => (Kind::Socks5h, 1080),
        other => return Err(format!("no proxy of a kind that is known here (http, socks5, socks5h): {other:?}")),
    };
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    // A password may have an @ of its own, and stand there unescaped.
    let (login, place) = match rest.rsplit_once('@') {
        Some((login, place)) => (Some(login), place),
        None => (None, rest),
    };
    // What else is in it may be a secret.
    let wrong = |what: &str| format!("{what} (SCHEME://[USER:PASSWORD@]HOST[:PORT])");
    let (host, port) = match place.strip_prefix('[').map(|place| place.split_once(']')) {
        Some(None) => return Err(wrong("a bracket is missing")),
        Some(Some((host, port))) => (host, port.strip_prefix(':').or(Some("").filter(|_| port.is_empty()))),
        None if place.matches(':').count() > 1 => return Err(wrong("an IPv6 address stands in brackets")),
        None => place.split_once(':').map_or((place, Some("")), |(host, port)| (host, Some(port))),
    };
    let port = match port {
        Some("") => Some(usual_port),
        Some(port) => port.parse().ok().filter(|port| *port != 0),
        None => None,
    };
    let port = port.ok_or_else(|| wrong("no port number"))?;
    if host.is_empty() || host.contains(|c: char| c.is_whitespace() || c.is_control() || "/?#@".contains(c)) {
        return Err(wrong("no host"));
    }
    let login = login.map(|login| login.split_once(':').unwrap_or((login, "")));
    let login = login.map(|(user, password)| (unescaped(user), unescaped(password)));
    // RFC 1929, section 2.
    let fits = |text: &str| (1..=255).contains(&text.len());
    if kind != Kind::Http && login.as_ref().is_some_and(|(user, password)| !fits(user) || !fits(password)) {
        return Err("SOCKS5 has users and passwords of 1 to 255 bytes".to_string());
    }
    Ok(Proxy { kind, host: host.to_string(), port, login })
}

/// `%40` is an @ (RFC 3986, section 2.1).
fn unescaped(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let [first, others @ ..] = rest {
        let digits = if *first == b'%' { others.get(..2).and_then(|two| std::str::from_utf8(two).ok()) } else { None };
        let digits = digits.filter(|two| two.bytes().all(|byte| byte.is_ascii_hexdigit()));
        match digits.and_then(|two| u8::from_str_radix(two, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &others[2..];
            }
            None => {
                bytes.push(*first);
                rest = others;
            }
        }
    }
    String::from_utf8_lossy(&bytes).to_string()
}

/// With the brackets of IPv6.
fn authority(host: &str, port: u16) -> String {
    if host.contains(':') {
        format!("[{host}]:{port}")
    } else {
        format!("{host}:{port}")
    }
}

impl Proxy {
    /// A connection to the host, of which nothing is read yet that comes from there.
    pub fn connect(&self, host: &str, port: u16, deadline: Instant) -> io::Result<TcpStream> {
        let target = match host.parse() {
            Ok(ip) => Target::Addr(SocketAddr::new(ip, port)),
            Err(_) => Target::Name(host, port),
        };
        match (self.kind, target) {
            // Here, as the proxy is not to know the name. Each address has a connection of its own.
            (Kind::Socks5, Target::Name(..)) => {
                let mut failed = io::Error::from(io::ErrorKind::AddrNotAvailable);
                for addr in resolve(host, port, deadline)? {
                    match self.ask(&Target::Addr(addr), deadline) {
                        Ok(tcp) => return Ok(tcp),
                        Err(error) if Instant::now() >= deadline => return Err(error),
                        Err(error) => failed = error,
                    }
                }
                Err(failed)
            }
            (_, target) => self.ask(&target, deadline),
        }
    }

    fn ask(&self, target: &Target, deadline: Instant) -> io::Result<TcpStream> {
        let asked = || {
            let mut talk = Talk::new(dial(&self.host, self.port, deadline)?, deadline);
            match self.kind {
                Kind::Http => http::connect(&mut talk, target, self.login.as_ref())?,
                Kind::Socks5 | Kind::Socks5h => socks5::connect(&mut talk, target, self.login.as_ref())?,
            }
            talk.end()
        };
        asked().map_err(|error: io::Error| io::Error::new(error.kind(), format!("the proxy {self}: {error}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proxies_are_urls_with_and_without_their_parts() {
        let cases = [
            ("http://proxy:3128", "http://proxy:3128", None),
            ("proxy:3128", "http://proxy:3128", None),
            ("proxy", "http://proxy:80", None),
            ("HTTP://proxy/", "http://proxy:80", None),
            ("socks5://[::1]:99", "socks5://[::1]:99", None),
            ("socks5h://[::1]", "socks5h://[::1]:1080", None),
            ("http://user:pass@proxy:1", "http://proxy:1", Some(("user", "pass"))),
            ("http://user@proxy:1", "http://proxy:1", Some(("user", ""))),
            ("http://a%40b:p@ss%3a%zz%@proxy:1", "http://proxy:1", Some(("a@b", "p@ss:%zz%"))),
        ];
        for (text, shown, login) in cases {
            let proxy = parse(text).unwrap();
            let found = proxy.login.as_ref().map(|(user, password)| (user.as_str(), password.as_str()));
            assert_eq!((proxy.to_string().as_str(), found), (shown, login), "{text}");
        }
        for wrong in [
            "https://proxy:1",
            "socks4://proxy",
            "http://",
            "http://:1",
            "http://proxy:0",
            "http://proxy:x",
            "http://::1:80",
            "http://[::1",
            "http://[::1]x",
            "http://proxy/path",
            "http://pro xy",
            "socks5://user@proxy",
        ] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
