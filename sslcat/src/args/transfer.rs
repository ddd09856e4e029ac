/// What happens between the handshake and the end.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Transfer")]
pub struct Transfer {
    /// Do not tell the peer when stdin ends (some servers hang up on who does).
    #[arg(long)]
    pub no_shutdown: bool,
}
