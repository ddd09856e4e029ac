//! What was negotiated, and with whom: for people, and as JSON (README.md has its names).

use std::io::{self, Write};

use serde_json::{json, Value};
use sslfile::{Certificate, ErrorKind, SslFile};

use crate::address::host_and_port;
use crate::args::Args;
use crate::exit::{self, Failure};
use crate::ocsp::{self, Stapled};
use crate::{advice, chain, date, pin, settings, tell};

/// Facts that the library does not tell are left out.
#[derive(Default)]
pub struct Report {
    address: Option<String>,
    engine: Option<String>,
    version: Option<String>,
    cipher: Option<String>,
    group: Option<String>,
    alpn: Option<String>,
    server_name: Option<String>,
    sni: Option<String>,
    resumed: Option<bool>,
    handshake_ms: Option<f64>,
    /// None: not looked at, as -k has it, or as there is none.
    trusted: Option<bool>,
    ocsp: Option<Stapled>,
    chain: Vec<Certificate>,
}

impl Report {
    pub fn of(args: &Args, file: &SslFile) -> Report {
        let chain = chain::of(file);
        Report {
            address: file.peer_addr().ok().map(|addr| addr.to_string()),
            engine: Some(format!("{:?}", file.context().engine())),
            version: file.version().map(|version| version.to_string()),
            cipher: file.cipher(),
            group: file.group(),
            alpn: file.alpn().map(|name| String::from_utf8_lossy(&name).escape_debug().to_string()),
            server_name: expected_name(args).or_else(|| file.server_name()),
            sni: if args.connection.listen { file.server_name() } else { settings::sni(args) },
            resumed: file.is_resumed(),
            handshake_ms: file.handshake_time().map(|time| (time.as_secs_f64() * 1e6).round() / 1e3),
            ocsp: ocsp::of(file),
            trusted: (!chain.is_empty() && !args.certificates.insecure).then_some(true),
            chain,
        }
    }

    pub fn of_failure(args: &Args, failure: &Failure) -> Report {
        let is_peers = matches!(failure.kind, Some(ErrorKind::Certificate | ErrorKind::HostnameMismatch));
        Report {
            address: failure.address.clone(),
            server_name: expected_name(args),
            sni: settings::sni(args),
            trusted: is_peers.then_some(false),
            chain: failure.chain.clone(),
            ..Report::default()
        }
    }

    /// One line.
    fn summary(&self) -> Option<String> {
        let mut facts = vec![format!("{} engine", self.engine.as_ref()?)];
        facts.extend(self.version.clone());
        facts.extend(self.cipher.clone());
        facts.extend(self.group.clone());
        facts.extend(self.alpn.as_ref().map(|name| format!("ALPN {name}")));
        facts.extend(self.server_name.as_ref().map(|name| format!("server name {name}")));
        facts.extend(
            self.sni.as_ref().filter(|sni| Some(*sni) != self.server_name.as_ref()).map(|sni| format!("SNI {sni}")),
        );
        facts.extend(self.resumed.filter(|&resumed| resumed).map(|_| "session resumed".to_string()));
        let judged = match (self.chain.is_empty(), self.trusted) {
            (true, _) => "no certificate from the peer",
            (false, None) => "certificate NOT checked",
            (false, Some(true)) => "certificate trusted",
            (false, Some(false)) => "certificate REFUSED",
        };
        facts.push(judged.to_string());
        Some(facts.join(", "))
    }

    /// Lines behind it.
    fn details(&self, args: &Args) -> String {
        let stapled = self.ocsp.as_ref().map(|stapled| stapled.line() + "\n").unwrap_or_default();
        stapled + &chain::describe(&self.chain, args.output.show_certs)
    }

    fn json(&self, args: &Args, failure: Option<&Failure>) -> Value {
        let (host, port) = host_and_port(args).unwrap_or_default();
        let error = failure.map(|failure| error(args, failure));
        let certificates: Vec<Value> = self.chain.iter().map(|one| certificate(args, one)).collect();
        json!({
            "ok": failure.is_none(),
            "exit_code": failure.map_or(0, |failure| failure.code),
            "host": host,
            "port": port,
            "address": self.address,
            "server_name": self.server_name,
            "sni": self.sni,
            "engine": self.engine,
            "version": self.version,
            "cipher": self.cipher,
            "group": self.group,
            "alpn": self.alpn,
            "resumed": self.resumed,
            "handshake_ms": self.handshake_ms,
            "trusted": self.trusted,
            "ocsp": self.ocsp.as_ref().map(Stapled::json),
            "certificates": certificates,
            "error": error,
        })
    }
}

/// Of a client's server.
fn expected_name(args: &Args) -> Option<String> {
    let (host, _) = host_and_port(args).ok()?;
    (!args.connection.listen).then(|| settings::expected_name(args, &host).to_string())
}

fn certificate(args: &Args, certificate: &Certificate) -> Value {
    let mut value = match certificate.info() {
        Ok(info) => {
            let name = |name| {
                let (kind, value) = chain::name_text(name);
                json!({ "type": kind, "value": value })
            };
            let names: Vec<Value> = info.subject_alt_names.iter().map(name).collect();
            json!({
                "subject": info.subject,
                "names": names,
                "issuer": info.issuer,
                "serial": info.serial_hex(),
                "not_before": date::iso(info.not_before),
                "not_after": date::iso(info.not_after),
                "days_left": chain::days_left(&info),
                "key": { "type": info.key_type.to_string(), "bits": info.key_bits },
                "signature_algorithm": info.signature_algorithm,
                "is_ca": info.is_ca,
                "sha256": chain::hex(&info.fingerprint),
                "pin": pin::of(&info),
            })
        }
        Err(error) => json!({ "unreadable": error.to_string() }),
    };
    if args.output.show_certs {
        value["pem"] = chain::pem(certificate).into();
    }
    value
}

pub fn error(args: &Args, failure: &Failure) -> Value {
    let advice = advice::on(failure, args);
    json!({ "kind": failure.kind.map(kind_name), "text": failure.text, "advice": advice })
}

fn kind_name(kind: ErrorKind) -> String {
    match kind {
        ErrorKind::Certificate => "certificate".to_string(),
        ErrorKind::HostnameMismatch => "hostname_mismatch".to_string(),
        ErrorKind::LocalAlert(alert) => format!("local_alert_{alert}"),
        ErrorKind::PeerAlert(alert) => format!("peer_alert_{alert}"),
        ErrorKind::NotTls => "not_tls".to_string(),
        ErrorKind::Truncated => "truncated".to_string(),
        ErrorKind::Protocol => "protocol".to_string(),
        ErrorKind::TimedOut => "timed_out".to_string(),
        ErrorKind::Unsupported => "unsupported".to_string(),
        _ => "other".to_string(),
    }
}

/// Of `--check`: on stdout.
pub fn print(args: &Args, report: Report, failure: Option<&Failure>) -> Result<(), Failure> {
    let text = match args.output.json {
        // A wrong command line is no finding.
        true if failure.is_some_and(|failure| failure.code == exit::USAGE) => String::new(),
        true => format!("{:#}\n", report.json(args, failure)),
        false => {
            let summary = report.summary().map(|line| line + "\n").unwrap_or_default();
            summary + &report.details(args)
        }
    };
    let mut output = io::stdout().lock();
    let printed = output.write_all(text.as_bytes()).and_then(|()| output.flush());
    printed.map_err(|error| Failure::local("stdout", error))
}

/// Beside a transfer: on stderr, if it was asked for.
pub fn negotiated(args: &Args, file: &SslFile, failure: Option<&Failure>) {
    let report = Report::of(args, file);
    if args.output.json {
        tell_document(&report.json(args, failure));
    } else if args.output.verbose || args.output.show_certs {
        tell(report.summary().unwrap_or_default());
        tell_text(&report.details(args));
    }
}

/// No connection came of it. Who was refused is shown in any case.
pub fn failed(args: &Args, failure: &Failure) {
    let report = Report::of_failure(args, failure);
    match args.output.json {
        true if failure.code == exit::USAGE => {}
        true => tell_document(&report.json(args, Some(failure))),
        false => tell_text(&chain::describe(&report.chain, args.output.show_certs)),
    }
}

/// A document is one line here, among others.
fn tell_document(document: &Value) {
    tell_text(&format!("{document}\n"));
}

fn tell_text(text: &str) {
    let _ = io::stderr().write_all(text.as_bytes());
}
