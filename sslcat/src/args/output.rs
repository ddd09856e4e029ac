use std::time::Duration;

use crate::date;

/// What is told beside the transfer.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Output")]
pub struct Output {
    /// Say on stderr what was negotiated, and show the peer's certificates. (Those that are refused are shown in any case.)
    #[arg(short, long)]
    pub verbose: bool,
    /// Show the peer's certificates as PEM too.
    #[arg(long)]
    pub show_certs: bool,
    /// Shake hands, report on stdout, and end: with 0, or with 4 and what is wrong with a certificate. Stdin is not read.
    #[arg(long, conflicts_with = "listen")]
    pub check: bool,
    /// With --check: a certificate that is not valid for so long is wrong (14d, 36h, 2w).
    #[arg(long, value_name = "SPAN", requires = "check", value_parser = date::span)]
    pub expires_in: Option<Duration>,
    /// Find out which versions, cipher suites, groups and protocols (ALPN) the server accepts, and end. Its certificate is not
    /// looked at. It takes some dozens of connections, each with the time of --timeout [default: 10]. With --tls1.N that version
    /// alone, with --alpn those protocols.
    #[arg(long, conflicts_with_all = ["listen", "check", "show_certs", "ciphers", "groups", "pin", "ca", "cert"])]
    pub scan: bool,
    /// With --scan: so many connections at a time.
    #[arg(long, value_name = "N", requires = "scan", default_value_t = 4, value_parser = connections)]
    pub scan_limit: usize,
    /// Report as JSON: with --check and --scan one document on stdout, else one line on stderr.
    #[arg(long)]
    pub json: bool,
}

fn connections(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|number| (1..=64).contains(number)).ok_or("not a number from 1 to 64".to_string())
}
