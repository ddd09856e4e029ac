//! `no_proxy`: hosts that are spoken to directly.

use std::net::IpAddr;

/// The list has commas or spaces between its entries: `*` for all, names for themselves and all below them, addresses, networks
/// (`10.0.0.0/8`); each may have a port.
pub fn is_in(list: &str, host: &str, port: u16) -> bool {
    list.split([',', ' ']).filter(|entry| !entry.is_empty()).any(|entry| is_under(entry, host, port))
}

fn is_under(entry: &str, host: &str, port: u16) -> bool {
    if entry == "*" {
        return true;
    }
    let (entry, only) = match entry.rsplit_once(':') {
        Some((name, number)) if !name.contains(':') || name.ends_with(']') => (name, Some(number)),
        _ => (entry, None),
    };
    if only.is_some_and(|number| number.parse() != Ok(port)) {
        return false;
    }
    match host.parse() {
        Ok(ip) => is_in_network(entry, ip),
        Err(_) => {
            let plain = |name: &str| name.trim_end_matches('.').to_ascii_lowercase();
            let (name, entry) = (plain(host), plain(entry.trim_start_matches("*.").trim_start_matches('.')));
            !entry.is_empty() && (name == entry || name.strip_suffix(&entry).is_some_and(|below| below.ends_with('.')))
        }
    }
}

fn is_in_network(entry: &str, ip: IpAddr) -> bool {
    let (network, bits) = entry.split_once('/').map_or((entry, None), |(network, bits)| (network, Some(bits)));
    let Ok(network) = network.trim_matches(['[', ']']).parse::<IpAddr>() else { return false };
    let (len, differ): (u32, u128) = match (ip, network) {
        (IpAddr::V4(ip), IpAddr::V4(network)) => (32, (ip.to_bits() ^ network.to_bits()).into()),
        (IpAddr::V6(ip), IpAddr::V6(network)) => (128, ip.to_bits() ^ network.to_bits()),
        _ => return false,
    };
    let bits = bits.map_or(Ok(len), str::parse::<u32>);
    // Those behind the network's are of no interest.
    bits.is_ok_and(|bits| bits <= len && differ.checked_shr(len - bits).unwrap_or(0) == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stand_for_all_below_them_and_networks_for_theirs() {
        let cases = [
            ("*", "any.example", true),
            ("example", "box.example", true),
            (".example", "box.example", true),
            ("*.example", "box.EXAMPLE.", true),
            ("example", "example", true),
            ("example", "myexample", false),
            ("other, box.example", "box.example", true),
            ("box.example:443", "box.example", true),
            ("box.example:80", "box.example", false),
            ("box.example:x", "box.example", false),
            ("10.0.0.0/8", "10.1.2.3", true),
            ("10.0.0.0/8", "11.1.2.3", false),
            ("10.0.0.0/x", "10.0.0.0", false),
            ("10.0.0.0/33", "10.0.0.0", false),
            ("0.0.0.0/0", "10.0.0.0", true),
            ("10.1.2.3:443", "10.1.2.3", true),
            ("::1", "::1", true),
            ("[::1]:443", "::1", true),
            ("[::1]:80", "::1", false),
            ("fd00::/8", "fd01::1", true),
            ("fd00::/8", "10.0.0.0", false),
            (". , .", "box.example", false),
            ("", "box.example", false),
        ];
        for (list, host, expected) in cases {
            assert_eq!(is_in(list, host, 443), expected, "{list:?} {host}");
        }
    }
}
