use std::path::PathBuf;

use clap::builder::NonEmptyStringValueParser;
use clap::ValueEnum;
use sslfile::Version;

/// What to offer.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "TLS")]
pub struct Tls {
    /// Protocols to offer or to choose from (ALPN), the best first.
    #[arg(long, value_name = "NAME,...", value_delimiter = ',')]
    pub alpn: Vec<String>,
    /// The server's name to ask for (SNI), if it is not the one that its certificate must have.
    #[arg(long, value_name = "NAME", conflicts_with = "listen", value_parser = NonEmptyStringValueParser::new())]
    pub sni: Option<String>,
    /// Ask for no name.
    #[arg(long, conflicts_with_all = ["listen", "sni"])]
    pub no_sni: bool,
    /// Speak TLS 1.3 and nothing else.
    #[arg(long = "tls1.3", group = "one_version")]
    pub tls13: bool,
    /// Speak TLS 1.2 and nothing else.
    #[arg(long = "tls1.2", group = "one_version")]
    pub tls12: bool,
    /// Speak TLS 1.1 and nothing else. It is broken (RFC 8996), and so are the keys and hashes that are then let pass.
    #[arg(long = "tls1.1", group = "one_version")]
    pub tls11: bool,
    /// The same with TLS 1.0.
    #[arg(long = "tls1.0", group = "one_version")]
    pub tls10: bool,
    /// Cipher suites, the best first, by their names in OpenSSL. Those that begin with TLS_ are for TLS 1.3, the others for the
    /// versions before it; where none is named for a version it has its usual ones.
    #[arg(long, value_name = "NAME:...")]
    pub ciphers: Option<String>,
    /// Groups for the key exchange, the best first: x25519:secp256r1.
    #[arg(long, value_name = "NAME:...")]
    pub groups: Option<String>,
    /// Resume the session in this file, and put what can be resumed of the new one into it. It is as secret as a key, and good
    /// for the same server and the same options about its certificate only. For OpenSSL.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["listen", "scan"])]
    pub session: Option<PathBuf>,
    /// The TLS library.
    #[arg(long)]
    pub engine: Option<Library>,
}

impl Tls {
    /// The one version to speak, if it is one.
    pub fn version(&self) -> Option<Version> {
        let asked = [
            (self.tls10, Version::Tls1_0),
            (self.tls11, Version::Tls1_1),
            (self.tls12, Version::Tls1_2),
            (self.tls13, Version::Tls1_3),
        ];
        asked.into_iter().find_map(|(is_asked, version)| is_asked.then_some(version))
    }
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Library {
    Native,
    Openssl,
    Rustls,
}
