//! The findings, as a table and as JSON (README.md has its names).

use std::fmt::Write as _;
use std::io::{self, Write as _};

use serde_json::{json, Value};

use super::findings::{Finding, Findings, Order, State};
use crate::address::host_and_port;
use crate::args::Args;
use crate::exit::{self, Failure};
use crate::{report, settings};

pub fn print(args: &Args, findings: &Findings, failure: Option<&Failure>, is_verbose: bool) -> Result<(), Failure> {
    let text = match args.output.json {
        true if failure.is_some_and(|failure| failure.code == exit::USAGE) => String::new(),
        true => format!("{:#}\n", document(args, findings, failure)),
        false => table(findings, is_verbose),
    };
    let mut output = io::stdout().lock();
    let printed = output.write_all(text.as_bytes()).and_then(|()| output.flush());
    printed.map_err(|error| Failure::local("stdout", error))
}

fn table(findings: &Findings, is_verbose: bool) -> String {
    let mut text = String::new();
    if !findings.versions.is_empty() {
        text += "versions\n";
    }
    for found in &findings.versions {
        _ = writeln!(text, "  {:<9} {}", found.name, state(found));
    }
    for ciphers in &findings.ciphers {
        let order = match ciphers.order {
            Some(Order::Server) => ", in the server's order",
            Some(Order::Client) => ", in our order: the server has none",
            None => "",
        };
        list(&mut text, &format!("cipher suites of {}{order}", ciphers.version), &ciphers.findings, is_verbose);
    }
    for groups in &findings.groups {
        list(&mut text, &format!("groups of {}", groups.version), &groups.findings, is_verbose);
    }
    if !findings.alpn.is_empty() {
        list(&mut text, "protocols (ALPN)", &findings.alpn, is_verbose);
    }
    // Names that come from the command line may have what a terminal would obey.
    text.split('\n').map(|line| line.replace(char::is_control, "?")).collect::<Vec<_>>().join("\n")
}

/// What is accepted, what has no answer, and how many others there are.
fn list(text: &mut String, title: &str, findings: &[Finding], is_verbose: bool) {
    _ = writeln!(text, "{title}");
    let is_shown = |found: &&Finding| is_verbose || found.state == State::Accepted;
    for found in findings.iter().filter(is_shown) {
        match found.state {
            State::Accepted => _ = writeln!(text, "  {}", found.name),
            _ => _ = writeln!(text, "  {:<30} {}", found.name, state(found)),
        }
    }
    let count = |wanted: fn(&Finding) -> bool| findings.iter().filter(|found| wanted(found)).count();
    let refused = count(|found| found.state == State::Refused);
    let unanswered = count(|found| found.is_unanswered);
    let impossible = count(|found| found.state == State::Unknown) - unanswered;
    let mut rest = Vec::new();
    let others = [(refused, "refused"), (unanswered, "without an answer"), (impossible, "that can't be asked for")];
    rest.extend(others.iter().filter(|(number, _)| *number > 0).map(|(number, what)| format!("{number} {what}")));
    if !is_verbose && !rest.is_empty() {
        _ = writeln!(text, "  ({}; -v lists them)", rest.join(", "));
    }
}

fn state(found: &Finding) -> String {
    match &found.why {
        Some(why) => format!("{}: {why}", found.state.name()),
        None => found.state.name().to_string(),
    }
}

fn document(args: &Args, findings: &Findings, failure: Option<&Failure>) -> Value {
    let (host, port) = host_and_port(args).unwrap_or_default();
    let all = |findings: &[Finding]| -> Value { findings.iter().map(finding).collect() };
    let ciphers = findings.ciphers.iter().map(|ciphers| {
        let order = ciphers.order.map(|order| if order == Order::Server { "server" } else { "client" });
        json!({ "version": ciphers.version.to_string(), "order": order, "suites": all(&ciphers.findings) })
    });
    let groups = findings
        .groups
        .iter()
        .map(|groups| json!({ "version": groups.version.to_string(), "groups": all(&groups.findings) }));
    json!({
        "ok": failure.is_none(),
        "exit_code": failure.map_or(0, |failure| failure.code),
        "host": host,
        "port": port,
        "address": findings.address,
        "sni": settings::sni(args),
        "engine": format!("{:?}", settings::engine(args)),
        "versions": all(&findings.versions),
        "ciphers": ciphers.collect::<Value>(),
        "groups": groups.collect::<Value>(),
        "alpn": all(&findings.alpn),
        "connections": findings.attempts,
        "error": failure.map(|failure| report::error(args, failure)),
    })
}

fn finding(found: &Finding) -> Value {
    json!({ "name": found.name, "state": found.state.name(), "why": found.why })
}
