use std::fmt;

/// A protocol version. Ordered, oldest first; `Display` gives the usual name, `TLSv1.3`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Version {
    /// SSL 3.0 (RFC 6101). No engine speaks it any more; asking for it is `Unsupported`.
    Ssl3,
    /// TLS 1.0 (RFC 2246).
    Tls1_0,
    /// TLS 1.1 (RFC 4346).
    Tls1_1,
    /// TLS 1.2 (RFC 5246).
    Tls1_2,
    /// TLS 1.3 (RFC 8446).
    Tls1_3,
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Version::Ssl3 => "SSLv3",
            Version::Tls1_0 => "TLSv1.0",
            Version::Tls1_1 => "TLSv1.1",
            Version::Tls1_2 => "TLSv1.2",
            Version::Tls1_3 => "TLSv1.3",
        })
    }
}

/// The versions a connection may use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Bounds {
    pub min: Option<Version>,
    pub max: Option<Version>,
}

impl Bounds {
    /// These bounds, with `other`'s where they say nothing.
    pub fn or(self, other: Bounds) -> Bounds {
        Bounds { min: self.min.or(other.min), max: self.max.or(other.max) }
    }

    /// The lowest version allowed: TLS 1.2 unless asked otherwise, or the highest if that is lower still.
    pub fn lowest(self) -> Version {
        let default = self.max.map_or(Version::Tls1_2, |max| max.min(Version::Tls1_2));
        self.min.unwrap_or(default)
    }

    pub fn are_empty(self) -> bool {
        self.max.is_some_and(|max| self.lowest() > max)
    }
}
