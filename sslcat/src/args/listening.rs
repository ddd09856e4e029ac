/// Who is served, and by whom.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Serving")]
pub struct Listening {
    /// With -l: serve connections for ever, beside each other. Without --exec each is sent what comes from stdin while it lasts, and
    /// what comes from all goes to stdout as it comes.
    #[arg(long, requires = "listen")]
    pub keep: bool,
    /// With --keep: serve so many at once; others wait until one has ended.
    #[arg(
        long,
        value_name = "N",
        requires = "keep",
        default_value_t = 100,
        value_parser = clap::value_parser!(u16).range(1..)
    )]
    pub max_conns: u16,
    /// Start this command of the shell for the connection, for each with --keep, and join its stdin and stdout to it in place of ours.
    /// Its environment has SSLCAT_REMOTE_ADDR, _REMOTE_PORT, _LOCAL_ADDR, _LOCAL_PORT, and _PEER_SUBJECT if the peer has shown a
    /// certificate.
    #[arg(long, value_name = "COMMAND", conflicts_with_all = ["check", "scan", "crlf"])]
    pub exec: Option<String>,
}
