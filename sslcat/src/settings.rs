//! What to speak, and with what.

use std::fs;
use std::io;
use std::net::IpAddr;

use sslfile::{Certificate, ClientAuth, Context, ContextBuilder, Engine, Identity, PeerCertificates};

use crate::address::host_and_port;
use crate::args::{Args, Library};
use crate::exit::{self, Failure};
use crate::name;

pub fn context(args: &Args, identity: Option<Identity>) -> Result<Context, Failure> {
    // Whoever sets it in a user's environment can run as the user in other ways too.
    let mut builder = Context::builder().engine(engine(args)).key_log_from_env();
    if let Some(identity) = identity {
        builder = builder.identity(identity);
    }
    if let Some(path) = &args.certificates.ca {
        let unusable = |error| Failure::new(exit::USAGE, format!("{}: {error}", path.display()));
        let roots = fs::read(path).and_then(|pem| Certificate::stack_from_pem(&pem)).map_err(unusable)?;
        builder = roots.into_iter().fold(builder.system_roots(false), |builder, root| builder.add_root(root));
        if args.connection.listen {
            builder = builder.client_auth(ClientAuth::Require);
        }
    }
    if args.certificates.insecure {
        // Nobody is asked who is trusted, and to read the system's roots takes longer than all the rest.
        builder = builder.system_roots(false).danger_accept_invalid_certs(true).danger_accept_invalid_hostnames(true);
    }
    if !args.tls.alpn.is_empty() {
        builder = builder.alpn(&args.tls.alpn);
    }
    if let Some(version) = args.tls.version() {
        builder = builder.min_version(version).max_version(version);
    }
    builder = suites(builder, args)?;
    if let Some(groups) = &args.tls.groups {
        builder = builder.groups(groups);
    }
    if args.connection.listen && args.certificates.ca.is_none() && !args.certificates.pin.is_empty() {
        return Err(Failure::new(exit::USAGE, "--pin with -l is about client certificates: it needs --ca"));
    }
    builder = args.certificates.pin.iter().fold(builder, |builder, pin| builder.pin(pin.0));
    let is_asked = args.output.check || args.output.verbose || args.output.json;
    // Where it is only for the report it may be missing.
    if args.certificates.ocsp || is_asked && !args.connection.listen && engine(args) != Engine::Native {
        builder = builder.ocsp_stapling(true);
    }
    builder = name_to_ask_for(builder, args)?;
    builder.build().map_err(|error| Failure::new(exit::USAGE, in_our_words(&error.to_string())))
}

/// The library names its settings. Whoever gave an option is told which it is.
fn in_our_words(error: &str) -> String {
    let options = [
        ("cipher_list", "--ciphers"),
        ("ciphersuites", "--ciphers"),
        ("groups", "--groups"),
        ("pin", "--pin"),
        ("verify", "--sni, if it is not whom the certificate is for: with -k it can"),
        ("ocsp_stapling", "--ocsp"),
        ("key_log_file", "SSLKEYLOGFILE"),
        ("client_auth", "--ca with -l"),
    ];
    // Or which option has something that the library does not know.
    let setting = error.split_once(" cannot honour ").map_or(error, |(_, setting)| setting);
    let option = options.iter().find(|(name, _)| setting.starts_with(name));
    option.map_or(error.to_string(), |(_, option)| format!("{error} ({option})"))
}

pub fn engine(args: &Args) -> Engine {
    match args.tls.engine {
        Some(Library::Native) => Engine::Native,
        Some(Library::Openssl) => Engine::OpenSsl,
        Some(Library::Rustls) => Engine::Rustls,
        // There is one: the package does not build without.
        None => Engine::available().first().copied().unwrap_or(Engine::Native),
    }
}

/// A list of names for all versions, as it stands on the command line. OpenSSL passes over what it does not know, if there is
/// something that it does; so each is tried alone.
fn suites(builder: ContextBuilder, args: &Args) -> Result<ContextBuilder, Failure> {
    let unusable = |error: io::Error| Failure::new(exit::USAGE, in_our_words(&error.to_string()));
    let list = args.tls.ciphers.iter().flat_map(|list| list.split([':', ',', ';', ' ']));
    let (new, old): (Vec<_>, Vec<_>) = list.partition(|name| name.starts_with("TLS_"));
    // Where certificates count, those without are left out.
    let alone = Context::builder().engine(engine(args)).system_roots(false).danger_accept_invalid_certs(true);
    for name in &new {
        alone.clone().ciphersuites(name).build().map_err(unusable)?;
    }
    // What takes away, or is about the whole list, can't stand alone.
    for name in old.iter().filter(|name| !name.starts_with(['!', '-', '+', '@'])) {
        alone.clone().cipher_list(name).build().map_err(unusable)?;
    }
    let builder = if old.is_empty() { builder } else { builder.cipher_list(&old.join(":")) };
    Ok(if new.is_empty() { builder } else { builder.ciphersuites(&new.join(":")) })
}

/// The library asks for the name that it expects. Where they differ the second is looked at here.
fn name_to_ask_for(builder: ContextBuilder, args: &Args) -> Result<ContextBuilder, Failure> {
    if args.tls.no_sni {
        return Ok(builder.sni(false));
    }
    if args.tls.sni.is_none() || args.certificates.insecure {
        return Ok(builder);
    }
    let expected = expected_name(args, &host_and_port(args)?.0).to_string();
    let judge =
        move |peer: &PeerCertificates<'_>| name::check(&peer.leaf().info().map_err(|e| e.to_string())?, &expected);
    Ok(builder.danger_accept_invalid_hostnames(true).verify(judge))
}

/// The name that the server's certificate must have.
pub fn expected_name<'a>(args: &'a Args, host: &'a str) -> &'a str {
    args.certificates.name.as_deref().unwrap_or(host)
}

/// The name that a client asks for, if it does: an address is none (RFC 6066, section 3).
pub fn sni(args: &Args) -> Option<String> {
    let (host, _) = host_and_port(args).ok()?;
    let name = server_name(args, &host);
    let asks = !args.connection.listen && !args.tls.no_sni && name.parse::<IpAddr>().is_err();
    asks.then(|| name.to_string())
}

/// The name that the library is told.
pub fn server_name<'a>(args: &'a Args, host: &'a str) -> &'a str {
    args.tls.sni.as_deref().unwrap_or_else(|| expected_name(args, host))
}
