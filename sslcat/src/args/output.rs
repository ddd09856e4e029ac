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
    /// Report as JSON: with --check one document on stdout, else one line on stderr.
    #[arg(long)]
    pub json: bool,
}
