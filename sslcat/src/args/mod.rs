//! The command line. What belongs to one topic stands in a file of its own; the manual page and the completions are made from all
//! of it.

mod certificates;
mod connection;
mod listening;
mod manual;
mod output;
mod proxy;
mod tls;
mod transfer;

use clap::Parser;

pub use certificates::Certificates;
pub use connection::{Connection, Protocol};
pub use listening::Listening;
pub use manual::Manual;
pub use output::Output;
pub use proxy::Proxy;
pub use tls::{Library, Tls};
pub use transfer::Transfer;

const AFTER_HELP: &str = "\
The end:
  When stdin ends, the peer is told (close_notify) and may go on; when the peer ends, sslcat does.
  What stdin has to give at that moment is still sent, but a pause of a second, or a terminal, is
  not waited for. A peer that just cuts when it is told of our end has not failed, if nothing was
  sent and nothing came: so `sslcat HOST PORT </dev/null` asks whether there is TLS.

Environment:
  SSLKEYLOGFILE  a file for the secrets of each connection, for Wireshark: who has it can read along

Exit codes:
  0  both sides ended in order
  1  wrong usage, an unusable file, or a setting that the TLS library does not have
  2  no connection: no such host, refused, unreachable, timed out
  3  no TLS: STARTTLS refused, the peer does not speak TLS, no version in common, ...; with --scan
     also a server that has not answered everything
  4  a certificate was refused: the peer's by us, or ours by the peer
  5  the transfer failed: cut without a word (data may be missing), reset, forged, timed out
  6  stdin or stdout failed (a closed pipe is not mentioned), or the process of --exec
With --keep only 1, 2 and 6 are left, and a signal; what becomes of a connection is told on stderr.";

/// Join stdin and stdout to a TLS connection.
#[derive(Debug, Parser)]
#[command(
    name = "sslcat",
    version,
    max_term_width = 100,
    after_help = AFTER_HELP,
    override_usage = "sslcat [OPTIONS] HOST PORT\n       sslcat [OPTIONS] -l [ADDR] PORT\n       sslcat [OPTIONS] [-l] -U PATH"
)]
pub struct Args {
    /// Where to connect, HOST:PORT or [IPV6]:PORT in one word as well; with -l where to listen.
    // Required, but for what `Manual` asks for; clap then has it so.
    #[arg(value_name = "HOST", required_unless_present = "unix", conflicts_with = "unix")]
    address: Option<String>,
    /// Its number, or its service's name; with -l, 0 lets the system choose.
    #[arg(value_name = "PORT")]
    pub port: Option<String>,
    #[command(flatten)]
    pub connection: Connection,
    #[command(flatten)]
    pub proxy: Proxy,
    #[command(flatten)]
    pub listening: Listening,
    #[command(flatten)]
    pub certificates: Certificates,
    #[command(flatten)]
    pub tls: Tls,
    #[command(flatten)]
    pub transfer: Transfer,
    #[command(flatten)]
    pub output: Output,
    #[command(flatten)]
    pub manual: Manual,
}

impl Args {
    pub fn address(&self) -> &str {
        self.address.as_deref().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_does_not_contradict_itself() {
        Args::command().debug_assert();
    }
}
