/// What is told beside the transfer.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Output")]
pub struct Output {
    /// Say on stderr what was negotiated.
    #[arg(short, long)]
    pub verbose: bool,
}
