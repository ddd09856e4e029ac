//! Through an http: proxy, which the environment names, to the server: by CONNECT (RFC 9110, section 9.3.6), so that it sees
//! nothing of what is said.

use std::env;
use std::io::{BufReader, Write};
use std::net::TcpStream;

use sslfile::PlainFile;
use url::{Host, Url};

use crate::connect::{authority, dial, unconnected, Limits};
use crate::failure::{tell, Failure, USAGE};
use crate::http::{Response, Target, MAX_HEAD};
use crate::Args;

pub struct Proxy(Target);

impl Proxy {
    /// The one for this URL, if there is one.
    pub fn of(url: &Url) -> Result<Option<Proxy>, Failure> {
        let Some(proxy) = variable("https_proxy").filter(|_| !is_exempt(url)) else { return Ok(None) };
        // What it is may stand there without "http:".
        let text = if proxy.contains("://") { proxy } else { format!("http://{proxy}") };
        let unusable = |why: &str| Failure::new(USAGE, format!("https_proxy: {why}"));
        let proxy = Url::parse(&text).map_err(|error| unusable(&error.to_string()))?;
        if proxy.scheme() != "http" {
            return Err(unusable(&format!("not an http: proxy but {}:", proxy.scheme())));
        }
        Ok(Some(Proxy(Target::of(proxy)?)))
    }

    /// The connection to the server, and what was read too far on it.
    pub fn connect(&self, args: &Args, limits: &Limits, url: &Url) -> Result<(TcpStream, Vec<u8>), Failure> {
        let Proxy(Target { url: proxy, authorization }) = self;
        let host = authority(proxy);
        let failed = |error: &dyn std::fmt::Display| unconnected(authority(url), format!("the proxy {host}: {error}"));
        let file = PlainFile::new(dial(proxy, limits).map_err(|error| failed(&error))?);
        let by = limits.by();
        file.set_read_deadline(by).and_then(|()| file.set_write_deadline(by)).map_err(|error| failed(&error))?;

        let server = format!("{}:{}", url.host_str().unwrap_or_default(), url.port_or_known_default().unwrap_or(443));
        let basic = authorization.iter().map(|basic| format!("Proxy-Authorization: {basic}\r\n")).collect::<String>();
        let head = format!("CONNECT {server} HTTP/1.1\r\nHost: {server}\r\nUser-Agent: https_get\r\n{basic}\r\n");
        (&file).write_all(head.as_bytes()).map_err(|error| failed(&error))?;
        let mut input = BufReader::new(&file);
        let response = Response::read(&mut input, &mut MAX_HEAD.clone()).map_err(|failure| failed(&failure))?;
        if args.verbose {
            tell(format!("the proxy {host}: {} {}", response.status, response.reason));
        }
        if !(200..300).contains(&response.status) {
            return Err(failed(&format!("{} {}", response.status, response.reason)));
        }
        let mut already_read = input.buffer().to_vec();
        let (tcp, rest) = file.into_stream().map_err(|_| failed(&"it is in use"))?;
        already_read.extend(rest);
        Ok((tcp, already_read))
    }
}

/// By its name in small letters, or in capitals. Empty is as if it was not there.
fn variable(name: &str) -> Option<String> {
    [name.to_string(), name.to_uppercase()]
        .iter()
        .find_map(|name| env::var(name).ok())
        .filter(|value| !value.is_empty())
}

/// Names stand for those below them too, addresses for themselves.
fn is_exempt(url: &Url) -> bool {
    let is_under = |entry: &str| match (url.host(), entry.trim_start_matches('.').trim_matches(['[', ']'])) {
        (_, "*") => true,
        (Some(Host::Ipv4(ip)), entry) => entry.parse() == Ok(ip),
        (Some(Host::Ipv6(ip)), entry) => entry.parse() == Ok(ip),
        // Names in a URL are in small letters already.
        (Some(Host::Domain(name)), entry) => {
            let (name, entry) = (name.trim_end_matches('.'), entry.to_lowercase());
            name.strip_suffix(&entry).is_some_and(|below| below.is_empty() || below.ends_with('.'))
        }
        (None, _) => false,
    };
    let list = variable("no_proxy").unwrap_or_default();
    list.split([',', ' ']).any(|entry| !entry.is_empty() && is_under(entry))
}
