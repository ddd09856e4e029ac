//! The tools: how each is started, and how it behaves where tools differ.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use sslfile::{Role, Version};

use super::harness::{find, Credentials, Files};
use crate::common::NAME;

#[derive(Clone)]
pub struct Tool {
    pub name: &'static str,
    pub program: PathBuf,
    /// The role it plays; ours is the other one.
    pub role: Role,
    pub versions: &'static [Version],
    pub talk: Talk,
    /// A server that takes any port says "port N"; others are given one.
    pub picks_port: bool,
    pub arguments: fn(&mut Command, &Setup),
    /// What it says when the connection is open, if it says anything.
    pub greeting: fn(&Setup) -> Option<String>,
    /// How the connection ended, by what it said. `None` for a tool that keeps it to itself.
    pub verdict: Option<fn(&str) -> Option<End>>,
    /// At the end of its input it says close_notify; else only after ours.
    pub ends_with_its_input: bool,
    pub after_our_end: AfterOurEnd,
    /// What it says when the peer refuses it with an alert.
    pub names_alert: fn(&str) -> bool,
    pub alerts: Alerts,
    pub mismatched_alpn: Alpn,
    /// As a client with a certificate the server's roots did not sign: it sends it all the same.
    pub offers_foreign_certificate: bool,
}

/// What happens between its connection and its standard input and output.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Talk {
    /// Input is sent, what arrives is output.
    Pipe,
    /// What arrives is sent back, line by line.
    EchoLines,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum End {
    Clean,
    Cut,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum AfterOurEnd {
    /// Ends without a close_notify of its own.
    Leaves,
    /// Answers with its own and ends.
    Answers,
    /// Goes on sending until its input ends.
    GoesOn,
    /// Answers with its own, and waits for the next connection.
    AnswersAndStays,
}

/// The alerts it sends (RFC 8446, section 6; RFC 5246, section 7.2).
#[derive(Clone, Copy)]
pub struct Alerts {
    /// To a server whose certificate comes from nobody it knows.
    pub unknown_ca: u8,
    /// To a server whose certificate is for another name.
    pub wrong_name: u8,
    /// To a client without a certificate, in TLS 1.2.
    pub no_certificate: u8,
    /// To a client whose certificate comes from nobody it knows.
    pub bad_client: u8,
}

/// What a server does when ALPN finds nothing in common.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Alpn {
    /// Alert 120.
    Refuses,
    /// Goes on without.
    GoesOn,
}

/// One start of a tool.
pub struct Setup<'a> {
    pub files: &'a Files,
    pub port: u16,
    pub version: Version,
    /// Its certificate.
    pub own: Option<&'a Credentials>,
    /// A server that demands a certificate.
    pub demands: bool,
    pub alpn: Option<&'a str>,
}

impl Setup<'_> {
    fn is_1_3(&self) -> bool {
        self.version == Version::Tls1_3
    }
}

pub const BOTH: &[Version] = &[Version::Tls1_2, Version::Tls1_3];

// ------------------------------------------------------------------------------------------------
// openssl s_client, s_server
// ------------------------------------------------------------------------------------------------

pub fn openssl_client() -> Result<Tool, String> {
    Ok(Tool {
        name: "openssl s_client",
        program: find(&["openssl"])?,
        role: Role::Client,
        versions: BOTH,
        talk: Talk::Pipe,
        picks_port: false,
        arguments: |command, setup| {
            command.args(["s_client", "-brief", "-nocommands", "-verify_return_error", "-servername", NAME]);
            command.args(["-verify_hostname", NAME, "-connect"]).arg(format!("127.0.0.1:{}", setup.port));
            command.arg("-CAfile").arg(&setup.files.roots);
            openssl_arguments(command, setup);
        },
        greeting: openssl_greeting,
        verdict: Some(openssl_verdict),
        ends_with_its_input: true,
        after_our_end: AfterOurEnd::Answers,
        names_alert: openssl_names_alert,
        alerts: OPENSSL_ALERTS,
        mismatched_alpn: Alpn::Refuses,
        offers_foreign_certificate: true,
    })
}

pub fn openssl_server() -> Result<Tool, String> {
    Ok(Tool {
        name: "openssl s_server",
        role: Role::Server,
        ends_with_its_input: false,
        arguments: |command, setup| {
            command.args(["s_server", "-brief", "-naccept", "1", "-accept"]).arg(format!("127.0.0.1:{}", setup.port));
            if setup.demands {
                command.args(["-Verify", "1", "-verify_return_error", "-CAfile"]).arg(&setup.files.roots);
            }
            openssl_arguments(command, setup);
        },
        ..openssl_client()?
    })
}

fn openssl_arguments(command: &mut Command, setup: &Setup) {
    command.arg(if setup.is_1_3() { "-tls1_3" } else { "-tls1_2" });
    if let Some(own) = setup.own {
        command.arg("-cert").arg(&own.chain).arg("-key").arg(&own.key);
    }
    if let Some(alpn) = setup.alpn {
        command.args(["-alpn", alpn]);
    }
}

fn openssl_greeting(setup: &Setup) -> Option<String> {
    Some(format!("Protocol version: {}", setup.version))
}

fn openssl_verdict(said: &str) -> Option<End> {
    Some(if said.contains("unexpected eof while reading") { End::Cut } else { End::Clean })
}

fn openssl_names_alert(said: &str) -> bool {
    said.contains("SSL alert number") || said.contains(":tlsv1 alert") || said.contains(":sslv3 alert")
}

const OPENSSL_ALERTS: Alerts = Alerts { unknown_ca: 48, wrong_name: 42, no_certificate: 40, bad_client: 48 };

// ------------------------------------------------------------------------------------------------
// gnutls-cli, gnutls-serv
// ------------------------------------------------------------------------------------------------

pub fn gnutls_client() -> Result<Tool, String> {
    Ok(Tool {
        name: "gnutls-cli",
        program: find(&["gnutls-cli"])?,
        role: Role::Client,
        versions: BOTH,
        talk: Talk::Pipe,
        picks_port: false,
        arguments: |command, setup| {
            // Its messages would mix with the data on standard output.
            command.args(["--logfile", "/dev/stderr", "--sni-hostname", NAME, "--verify-hostname", NAME]);
            command.arg("--x509cafile").arg(&setup.files.roots);
            gnutls_arguments(command, setup);
            command.arg("127.0.0.1");
        },
        greeting: |setup| Some(if setup.is_1_3() { "(TLS1.3" } else { "(TLS1.2" }.to_string()),
        verdict: Some(|said| {
            let cut = said.contains("The TLS connection was non-properly terminated");
            let clean = said.contains("Peer has closed the GnuTLS connection");
            cut.then_some(End::Cut).or(clean.then_some(End::Clean))
        }),
        ends_with_its_input: true,
        after_our_end: AfterOurEnd::Leaves,
        names_alert: |said| said.contains("fatal alert has been received"),
        alerts: Alerts { unknown_ca: 42, wrong_name: 42, no_certificate: 50, bad_client: 49 },
        mismatched_alpn: Alpn::Refuses,
        offers_foreign_certificate: false,
    })
}

pub fn gnutls_server() -> Result<Tool, String> {
    Ok(Tool {
        name: "gnutls-serv",
        program: find(&["gnutls-serv"])?,
        role: Role::Server,
        talk: Talk::EchoLines,
        arguments: |command, setup| {
            command.args(["--echo", "--quiet", "--alpn-fatal"]);
            if setup.demands {
                command.args(["--require-client-cert", "--verify-client-cert", "--x509cafile"]);
                command.arg(&setup.files.roots);
            } else {
                command.arg("--disable-client-cert");
            }
            gnutls_arguments(command, setup);
        },
        greeting: |_| None,
        verdict: None,
        ends_with_its_input: false,
        after_our_end: AfterOurEnd::AnswersAndStays,
        // In TLS 1.3 OpenSSL's client sends this alert before it turns encryption on, which GnuTLS does not expect.
        names_alert: |said| said.contains("fatal alert has been received") || said.contains("Decryption has failed"),
        ..gnutls_client()?
    })
}

fn gnutls_arguments(command: &mut Command, setup: &Setup) {
    command.arg("--port").arg(setup.port.to_string());
    command.args([
        "--priority",
        if setup.is_1_3() { "NORMAL:-VERS-ALL:+VERS-TLS1.3" } else { "NORMAL:-VERS-ALL:+VERS-TLS1.2" },
    ]);
    if let Some(own) = setup.own {
        command.arg("--x509certfile").arg(&own.chain).arg("--x509keyfile").arg(&own.key);
    }
    if let Some(alpn) = setup.alpn {
        command.args(["--alpn", alpn]);
    }
}

// ------------------------------------------------------------------------------------------------
// Python
// ------------------------------------------------------------------------------------------------

pub fn debian_python() -> Result<PathBuf, String> {
    let path = PathBuf::from("/usr/bin/python3");
    python_with_tls(if path.is_file() { Ok(path) } else { Err("no /usr/bin/python3".to_string()) })
}

pub fn python_in_path() -> Result<PathBuf, String> {
    python_with_tls(find(&["python3"]))
}

fn python_with_tls(found: Result<PathBuf, String>) -> Result<PathBuf, String> {
    let path = found?;
    let mut command = Command::new(&path);
    let status = command.args(["-c", "import ssl"]).stdin(Stdio::null()).stderr(Stdio::null()).status();
    match status {
        Ok(status) if status.success() => Ok(path),
        _ => Err(format!("no module ssl in {}", path.display())),
    }
}

pub fn python_client(found: Result<PathBuf, String>) -> Result<Tool, String> {
    Ok(Tool {
        name: "Python client",
        program: found?,
        role: Role::Client,
        versions: BOTH,
        talk: Talk::Pipe,
        picks_port: true,
        arguments: |command, setup| {
            command.arg(script("peer.py")).arg("client").arg("--ca").arg(&setup.files.roots);
            script_arguments(command, setup);
        },
        greeting: script_greeting,
        verdict: Some(script_verdict),
        ends_with_its_input: true,
        after_our_end: AfterOurEnd::GoesOn,
        names_alert: |said| said.to_lowercase().contains("alert"),
        alerts: OPENSSL_ALERTS,
        mismatched_alpn: Alpn::GoesOn,
        offers_foreign_certificate: true,
    })
}

pub fn python_server(found: Result<PathBuf, String>) -> Result<Tool, String> {
    Ok(Tool {
        name: "Python server",
        role: Role::Server,
        arguments: |command, setup| {
            command.arg(script("peer.py")).arg("server");
            if setup.demands {
                command.arg("--ca").arg(&setup.files.roots);
            }
            script_arguments(command, setup);
        },
        ..python_client(found)?
    })
}

// ------------------------------------------------------------------------------------------------
// Pike
// ------------------------------------------------------------------------------------------------

pub fn pike_client() -> Result<Tool, String> {
    Ok(Tool {
        name: "Pike client",
        program: find(&["pike8.0", "pike"])?,
        role: Role::Client,
        versions: &[Version::Tls1_2],
        talk: Talk::Pipe,
        picks_port: true,
        arguments: |command, setup| {
            command.arg(script("peer.pike")).arg("client").arg("--ca").arg(&setup.files.roots);
            script_arguments(command, setup);
        },
        greeting: script_greeting,
        verdict: Some(script_verdict),
        ends_with_its_input: true,
        after_our_end: AfterOurEnd::Answers,
        names_alert: |said| said.contains("alert"),
        alerts: Alerts { unknown_ca: 42, wrong_name: 42, no_certificate: 42, bad_client: 42 },
        mismatched_alpn: Alpn::Refuses,
        offers_foreign_certificate: false,
    })
}

pub fn pike_server() -> Result<Tool, String> {
    Ok(Tool {
        name: "Pike server",
        role: Role::Server,
        arguments: |command, setup| {
            command.arg(script("peer.pike")).arg("server");
            if setup.demands {
                command.arg("--ca").arg(&setup.files.roots);
            }
            script_arguments(command, setup);
        },
        ..pike_client()?
    })
}

// ------------------------------------------------------------------------------------------------
// What the two scripts share
// ------------------------------------------------------------------------------------------------

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/peers").join(name)
}

fn script_arguments(command: &mut Command, setup: &Setup) {
    command.arg("--port").arg(setup.port.to_string());
    command.args(["--tls", if setup.is_1_3() { "1.3" } else { "1.2" }, "--name", NAME]);
    if let Some(own) = setup.own {
        command.arg("--chain").arg(&own.chain).arg("--key").arg(&own.key);
    }
    if let Some(alpn) = setup.alpn {
        command.args(["--alpn", alpn]);
    }
}

fn script_greeting(setup: &Setup) -> Option<String> {
    Some(format!("open {} {}", setup.version, setup.alpn.unwrap_or("None")))
}

fn script_verdict(said: &str) -> Option<End> {
    let clean = said.contains("end close_notify");
    clean.then_some(End::Clean).or(said.contains("end cut").then_some(End::Cut))
}
