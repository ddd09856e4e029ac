/// What happens between the handshake and the end.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Transfer")]
pub struct Transfer {
    /// Do not tell the peer when stdin ends (some servers hang up on who does).
    #[arg(long)]
    pub no_shutdown: bool,
    /// Send each LF of stdin as CRLF. (One that is CRLF already stays.)
    #[arg(long)]
    pub crlf: bool,
    /// On a terminal: keep the lines that are typed for the next time, but for those that begin with a space, in
    /// $XDG_STATE_HOME/sslcat/history, or else in ~/.local/state.
    #[cfg(all(unix, feature = "line-editing"))]
    #[arg(long)]
    pub history: bool,
}
