use std::path::PathBuf;
use std::time::Duration;

use clap::ValueEnum;

/// Whom to speak with, and how TLS begins.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Connection")]
pub struct Connection {
    /// Listen, and serve the first connection.
    #[arg(short, long)]
    pub listen: bool,
    /// Connect to, or listen on, the Unix socket at this path. The server is known by --name. With -l the file is made, and removed
    /// at the end.
    #[arg(short = 'U', long, value_name = "PATH")]
    pub unix: Option<PathBuf>,
    /// Begin in plain text, and ask the server for TLS in the words of this protocol.
    #[arg(long, value_name = "PROTOCOL", conflicts_with = "listen")]
    pub starttls: Option<Protocol>,
    /// Give up connecting, asking for TLS, shaking hands, or waiting for anything to move after so long [default: 30, but for the
    /// last]. With -l, but not with --keep, also waiting for a connection.
    #[arg(short = 'w', long, value_name = "SECONDS", value_parser = seconds)]
    pub timeout: Option<Duration>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Protocol {
    Smtp,
    Imap,
    Pop3,
    Ftp,
    Lmtp,
    Sieve,
    Nntp,
    Irc,
    Xmpp,
    XmppServer,
    Ldap,
    Postgres,
    Mysql,
}

impl Connection {
    /// For each step up to the open connection.
    pub fn patience(&self) -> Duration {
        self.timeout.unwrap_or(Duration::from_secs(30))
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    let time = text.parse().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    let sensible = Duration::from_millis(1)..Duration::from_secs(1_000_000_000);
    time.filter(|time| sensible.contains(time)).ok_or("not a number of seconds, from 0.001".to_string())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::args::Args;

    #[test]
    fn what_leads_to_a_connection_is_bounded_without_an_option() {
        let patience =
            |args: &[&str]| Args::parse_from([&["sslcat", "localhost", "443"], args].concat()).connection.patience();
        assert_eq!(patience(&[]), Duration::from_secs(30));
        assert_eq!(patience(&["-w", "0.5"]), Duration::from_millis(500));
    }
}
