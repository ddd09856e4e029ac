//! The PROXY protocol, versions 1 and 2: what one proxy tells the next about the client.
//! <https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt>

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use sslfile::SslFile;

/// What begins version 2, and nothing else.
const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// Of version 1, with the line's end; of version 2, with what else it tells.
const LONGEST: [usize; 2] = [107, 4096];
const BAD: &str = "no PROXY header, or a bad one";

/// Who speaks with whom.
#[derive(Clone, Copy)]
pub struct Ends {
    pub client: SocketAddr,
    pub server: SocketAddr,
}

impl Ends {
    /// What the target is told first. Version 2 has room for the protocol agreed on and the name that was asked for.
    pub fn header(&self, version: &str, client: &SslFile) -> Vec<u8> {
        let (from, to) = (self.client.ip().to_canonical(), self.server.ip().to_canonical());
        let (from_port, to_port) = (self.client.port(), self.server.port());
        let (line, family, addrs) = match (from, to) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                (format!("TCP4 {from} {to}"), 0x11, [from.octets(), to.octets()].concat())
            }
            (from, to) => {
                (format!("TCP6 {} {}", v6(from), v6(to)), 0x21, [v6(from).octets(), v6(to).octets()].concat())
            }
        };
        if version == "v1" {
            return format!("PROXY {line} {from_port} {to_port}\r\n").into_bytes();
        }
        let mut rest = [&addrs[..], &from_port.to_be_bytes(), &to_port.to_be_bytes()].concat();
        // PP2_TYPE_ALPN and PP2_TYPE_AUTHORITY. Both are shorter than 256 bytes.
        for (kind, value) in [(1, client.alpn()), (2, client.server_name().map(String::into_bytes))] {
            value.iter().for_each(|value| rest.extend([&[kind, 0, value.len() as u8], &value[..]].concat()));
        }
        [SIGNATURE, &[0x21, family], &(rest.len() as u16).to_be_bytes(), &rest].concat()
    }

    /// What another proxy tells us: how long that is, and the ends, if it knows them. (It may just be looking whether we live.)
    /// `None`: more is to come.
    pub fn read(bytes: &[u8]) -> Result<Option<(usize, Option<Ends>)>, &'static str> {
        let begins = |with: &[u8]| bytes.starts_with(with) || with.starts_with(bytes);
        match () {
            () if begins(b"PROXY ") => Ends::read_line(bytes),
            () if begins(SIGNATURE) => Ends::read_binary(bytes),
            () => Err(BAD),
        }
    }

    fn read_line(bytes: &[u8]) -> Result<Option<(usize, Option<Ends>)>, &'static str> {
        let Some(end) = bytes.iter().take(LONGEST[0]).position(|byte| *byte == b'\n') else {
            return if bytes.len() < LONGEST[0] { Ok(None) } else { Err(BAD) };
        };
        let line = std::str::from_utf8(&bytes[..end]).ok().and_then(|line| line.strip_suffix('\r')).ok_or(BAD)?;
        let ends = match line.split(' ').collect::<Vec<_>>()[..] {
            ["PROXY", "UNKNOWN", ..] => None,
            ["PROXY", family @ ("TCP4" | "TCP6"), from, to, from_port, to_port] => {
                let addr = |ip: &str, port: &str| {
                    let ip = ip.parse().ok().filter(|ip: &IpAddr| ip.is_ipv4() == (family == "TCP4"))?;
                    Some(SocketAddr::new(ip, port.parse().ok()?))
                };
                Some(Ends { client: addr(from, from_port).ok_or(BAD)?, server: addr(to, to_port).ok_or(BAD)? })
            }
            _ => return Err(BAD),
        };
        Ok(Some((end + 1, ends)))
    }

    fn read_binary(bytes: &[u8]) -> Result<Option<(usize, Option<Ends>)>, &'static str> {
        let Some(&[command, family, high, low]) = bytes.get(12..16) else { return Ok(None) };
        let end = 16 + usize::from(u16::from_be_bytes([high, low]));
        if !(0x20..=0x21).contains(&command) || end > LONGEST[1] {
            return Err(BAD);
        }
        let Some(rest) = bytes.get(16..end) else { return Ok(None) };
        let size = match (command, family) {
            (0x21, 0x11) => 4,
            (0x21, 0x21) => 16,
            // LOCAL, and what is not TCP over IP.
            _ => return Ok(Some((end, None))),
        };
        let addr = |ip: usize, port: usize| {
            let (ip, port) = (rest.get(ip..ip + size)?, rest.get(port..port + 2)?);
            let v4 = || <[u8; 4]>::try_from(ip).map(IpAddr::from);
            let ip = <[u8; 16]>::try_from(ip).map(IpAddr::from).or_else(|_| v4()).ok()?;
            Some(SocketAddr::new(ip, u16::from_be_bytes([port[0], port[1]])))
        };
        let (client, server) = (addr(0, 2 * size).ok_or(BAD)?, addr(size, 2 * size + 2).ok_or(BAD)?);
        Ok(Some((end, Some(Ends { client, server }))))
    }
}

fn v6(ip: IpAddr) -> Ipv6Addr {
    match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    }
}
