use clap_complete::Shell;

/// What is made from the command line itself. Each stands alone.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Output")]
pub struct Manual {
    /// Print the manual page: `sslcat --man > sslcat.1`.
    #[arg(long, exclusive = true)]
    pub man: bool,
    /// Print completions for this shell.
    #[arg(long, value_name = "SHELL", exclusive = true)]
    pub completions: Option<Shell>,
}
