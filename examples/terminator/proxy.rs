//! The PROXY protocol, versions 1 and 2: what one proxy tells the next about the client.

use std::io;
use std::net::{IpAddr, SocketAddr};

use proxy_header::{Error, ParseConfig, ProxiedAddress, ProxyHeader, Tlv};
use sslfile::SslFile;

/// Who speaks with whom.
#[derive(Clone, Copy)]
pub struct Ends {
    pub client: SocketAddr,
    pub server: SocketAddr,
}

impl Ends {
    /// What the target is told first. Version 2 has room for the protocol agreed on and the name that was asked for.
    pub fn header(&self, version: &str, client: &SslFile) -> io::Result<Vec<u8>> {
        let ips = [self.client, self.server].map(|end| end.ip().to_canonical());
        // Both must be of one kind.
        let ips = ips.map(|ip| match ip {
            IpAddr::V4(v4) if ips.iter().any(IpAddr::is_ipv6) => v4.to_ipv6_mapped().into(),
            ip => ip,
        });
        let ends = [(ips[0], self.client.port()), (ips[1], self.server.port())].map(SocketAddr::from);
        let mut header = ProxyHeader::with_address(ProxiedAddress::stream(ends[0], ends[1]));
        let mut bytes = Vec::new();
        let encoded = if version == "v1" {
            header.encode_v1(&mut bytes)
        } else {
            client.alpn().into_iter().for_each(|protocol| header.append_tlv(Tlv::Alpn(protocol.into())));
            client.server_name().into_iter().for_each(|name| header.append_tlv(Tlv::Authority(name.into())));
            header.encode_v2(&mut bytes)
        };
        encoded.map(|()| bytes).map_err(io::Error::other)
    }

    /// What another proxy tells us: how long that is, and the ends, if it knows them. (It may just be looking whether we live.)
    /// `None`: more is to come.
    pub fn read(bytes: &[u8]) -> Result<Option<(usize, Option<Ends>)>, &'static str> {
        match ProxyHeader::parse(bytes, ParseConfig::default()) {
            Ok((header, length)) => {
                let known = header.proxied_address();
                Ok(Some((length, known.map(|known| Ends { client: known.source, server: known.destination }))))
            }
            // With all that version 2 may tell it is no longer.
            Err(Error::BufferTooShort) if bytes.len() < 4096 => Ok(None),
            Err(_) => Err("no PROXY header, or a bad one"),
        }
    }
}
