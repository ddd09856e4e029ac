//! What was negotiated, for people.

use sslfile::SslFile;

use crate::args::Args;
use crate::tell;

pub fn negotiated(args: &Args, file: &SslFile) {
    let mut facts = vec![format!("{:?} engine", file.context().engine())];
    // Facts that the library does not tell are left out.
    facts.extend(file.version().map(|version| version.to_string()));
    facts.extend(file.cipher());
    facts.extend(file.alpn().map(|name| format!("ALPN {}", String::from_utf8_lossy(&name).escape_debug())));
    facts.extend(file.server_name().map(|name| format!("server name {name}")));
    facts.extend(file.is_resumed().filter(|&resumed| resumed).map(|_| "session resumed".to_string()));
    facts.push(match file.peer_certificate() {
        None => "no certificate from the peer".to_string(),
        Some(_) if args.certificates.insecure => "certificate NOT checked".to_string(),
        Some(_) => "certificate trusted".to_string(),
    });
    tell(facts.join(", "));
}
