use std::path::PathBuf;

use crate::pin::Pin;

/// Whom we trust, and who we are.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Certificates")]
pub struct Certificates {
    /// Trust the certificates in this PEM file, and no others. With -l: demand a client certificate that one of them signed.
    #[arg(long, value_name = "FILE")]
    pub ca: Option<PathBuf>,
    /// Our certificate chain, PEM, our own first; or a PKCS#12 archive with the key. With -l and without it one is made on the
    /// spot.
    #[arg(long, value_name = "FILE")]
    pub cert: Option<PathBuf>,
    /// Its private key, PEM [default: in the --cert file].
    #[arg(long, value_name = "FILE", requires = "cert")]
    pub key: Option<PathBuf>,
    /// The password of the key, or of the PKCS#12 archive, is the first line of FILE [default: the terminal is asked].
    #[arg(long, value_name = "FILE", requires = "cert")]
    pub password_file: Option<PathBuf>,
    /// It is in this environment variable.
    #[arg(long, value_name = "VARIABLE", requires = "cert", conflicts_with = "password_file")]
    pub password_env: Option<String>,
    /// The name that the server's certificate must have [default: HOST]. With -l: a name for the certificate made on the spot.
    #[arg(long)]
    pub name: Option<String>,
    /// Accept only whose chain, as it was verified, has this public key: its SHA-256, as sha256//BASE64 or hexadecimal (-v
    /// shows it). This comes on top of the other checks; with -k only the peer's own key counts. May be given several times.
    #[arg(long, value_name = "SHA256")]
    pub pin: Vec<Pin>,
    /// Demand a stapled OCSP response that says that the certificate is good, is valid now, and is signed by its issuer.
    #[arg(long, conflicts_with_all = ["listen", "insecure", "scan"])]
    pub ocsp: bool,
    /// Accept any certificate of the server: whoever is on the line can read along.
    #[arg(short = 'k', long, conflicts_with = "listen")]
    pub insecure: bool,
}
