//! Ports by the names of their services.

use std::fs;

/// Where the system has no list, or not this one.
const KNOWN: [(&str, u16); 28] = [
    ("ftp", 21),
    ("smtp", 25),
    ("domain-s", 853),
    ("http", 80),
    ("https", 443),
    ("imap", 143),
    ("imap2", 143),
    ("imaps", 993),
    ("irc", 6667),
    ("ircd", 6667),
    ("ircs-u", 6697),
    ("ldap", 389),
    ("ldaps", 636),
    ("lmtp", 24),
    ("mysql", 3306),
    ("nntp", 119),
    ("nntps", 563),
    ("pop3", 110),
    ("pop3s", 995),
    ("postgres", 5432),
    ("postgresql", 5432),
    ("sieve", 4190),
    ("smtps", 465),
    ("submission", 587),
    ("submissions", 465),
    ("xmpp", 5222),
    ("xmpp-client", 5222),
    ("xmpp-server", 5269),
];

/// A number, or a name that the system's list has for TCP (services(5)).
pub fn port(text: &str) -> Option<u16> {
    if let Ok(number) = text.parse() {
        return Some(number);
    }
    let list = fs::read_to_string("/etc/services").unwrap_or_default();
    in_list(&list, text).or_else(|| KNOWN.iter().find(|(name, _)| *name == text).map(|(_, port)| *port))
}

/// Lines as `https  443/tcp  alias ...  # comment`.
fn in_list(list: &str, wanted: &str) -> Option<u16> {
    list.lines().find_map(|line| {
        let mut words = line.split('#').next()?.split_whitespace();
        let (name, place) = (words.next()?, words.next()?);
        let number = place.strip_suffix("/tcp")?.parse().ok()?;
        (name == wanted || words.any(|alias| alias == wanted)).then_some(number)
    })
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum;

    use super::*;
    use crate::args::Protocol;

    #[test]
    fn each_protocol_of_starttls_is_a_service() {
        for protocol in Protocol::value_variants() {
            let name = protocol.to_possible_value().expect("none is hidden");
            assert!(KNOWN.iter().any(|(known, _)| *known == name.get_name()), "{name:?}");
        }
    }

    #[test]
    fn services_have_names_and_aliases() {
        let list = "# all\nwww\t80/udp\nhttp\t80/tcp www # w3\nodd line\nx 99999/tcp\nlast 7/tcp";
        assert_eq!(in_list(list, "http"), Some(80));
        assert_eq!(in_list(list, "www"), Some(80));
        assert_eq!(in_list(list, "last"), Some(7));
        for none in ["w3", "all", "odd", "x", "#", ""] {
            assert_eq!(in_list(list, none), None, "{none}");
        }
        assert_eq!((port("0"), port("https"), port("70000"), port("none")), (Some(0), Some(443), None, None));
    }
}
