/// The way to the server.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Proxy")]
pub struct Proxy {
    /// Connect through this proxy: http://[USER:PASSWORD@]HOST[:PORT] (CONNECT), socks5://... or socks5h://... (the proxy looks up
    /// HOST too) [default: the environment's https_proxy or all_proxy, but not for what its no_proxy lists]. '' is as --no-proxy.
    #[arg(long, value_name = "URL", conflicts_with_all = ["listen", "unix"])]
    pub proxy: Option<String>,
    /// Connect directly, whatever the environment says.
    #[arg(long, conflicts_with = "proxy")]
    pub no_proxy: bool,
}
