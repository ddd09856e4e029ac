use clap::ValueEnum;

/// What to offer.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "TLS")]
pub struct Tls {
    /// Protocols to offer or to choose from (ALPN), the best first.
    #[arg(long, value_name = "NAME,...", value_delimiter = ',')]
    pub alpn: Vec<String>,
    /// Speak TLS 1.2 and nothing else.
    #[arg(long = "tls1.2", conflicts_with = "tls13")]
    pub tls12: bool,
    /// Speak TLS 1.3 and nothing else.
    #[arg(long = "tls1.3")]
    pub tls13: bool,
    /// The TLS library.
    #[arg(long)]
    pub engine: Option<Library>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Library {
    Native,
    Openssl,
    Rustls,
}
