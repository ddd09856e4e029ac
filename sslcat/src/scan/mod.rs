//! `--scan`: what a server accepts. Each question is a connection that offers one thing, or all that is left; what nobody has
//! answered is unknown, and never taken for a no.

mod attempt;
mod ciphers;
mod findings;
mod groups;
mod panel;
mod report;
mod suites;
mod wire;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Mutex;
use std::thread;
use std::time::Duration;

use sslfile::{Engine, Version};

use crate::address::host_and_port;
use crate::args::Args;
use crate::exit::{self, Failure};
use crate::{connect, settings};
use attempt::{Offer, Server};
use findings::{Ciphers, Finding, Findings, Groups, State};
use panel::Panel;

/// For each question, unless said.
const PATIENCE: Duration = Duration::from_secs(10);

const VERSIONS: [Version; 4] = [Version::Tls1_0, Version::Tls1_1, Version::Tls1_2, Version::Tls1_3];

/// Those in the registry of IANA that stand above TCP and are of a server's.
const PROTOCOLS: [&str; 18] = [
    "h2",
    "http/1.1",
    "http/1.0",
    "spdy/3",
    "acme-tls/1",
    "imap",
    "pop3",
    "managesieve",
    "ftp",
    "nntp",
    "irc",
    "xmpp-client",
    "xmpp-server",
    "mqtt",
    "dot",
    "ntske/1",
    "stun.turn",
    "postgresql",
];

pub fn run(args: &mut Args) -> Result<(), Failure> {
    args.connection.timeout.get_or_insert(PATIENCE);
    // It is about the table; a line for each connection would bury it.
    let is_verbose = std::mem::take(&mut args.output.verbose);
    let args = &*args;
    let (host, port) = host_and_port(args)?;
    if settings::engine(args) == Engine::Native {
        let text = "--scan takes a library that can be told what to offer: --engine openssl or rustls";
        return Err(Failure::new(exit::USAGE, text));
    }
    let address = connect::reach(args, &host, port).map(|(tcp, _)| tcp.peer_addr().ok().map(|addr| addr.to_string()));
    let mut findings = Findings::default();
    let failure = match address {
        Err(failure) => Some(failure),
        Ok(address) => {
            findings.address = address;
            let panel = Panel::new(Server { args, host, port });
            look(&panel, args, &mut findings);
            findings.attempts = panel.attempts() + 1;
            failure(&panel, &findings)
        }
    };
    report::print(args, &findings, failure.as_ref(), is_verbose)?;
    failure.map_or(Ok(()), Err)
}

/// What makes the findings less than whole.
fn failure(panel: &Panel, findings: &Findings) -> Option<Failure> {
    let accepts = |finding: &Finding| finding.state == State::Accepted;
    let refuses = |finding: &Finding| finding.state == State::Refused;
    if findings.versions.iter().any(refuses) && !findings.versions.iter().any(|one| accepts(one) || one.is_unanswered) {
        let text = "the server refuses whatever is offered. Is it the right name (--sni)?";
        return Some(Failure::new(exit::HANDSHAKE, text));
    }
    let unanswered: Vec<&Finding> = findings.all().filter(|finding| finding.is_unanswered).collect();
    let first = unanswered.first()?;
    // Or the answer was none to the question.
    let silence = panel.first_silence();
    let code = silence.as_ref().map_or(exit::HANDSHAKE, |silence| silence.code);
    let why = silence.as_ref().map_or(first.why.as_deref(), |silence| Some(&silence.text)).unwrap_or_default();
    let text = format!("{} of {} questions have no answer: {why}", unanswered.len(), findings.all().count());
    Some(Failure { kind: silence.and_then(|silence| silence.kind), ..Failure::new(code, text) })
}

/// What is asked after the versions.
enum Question {
    Ciphers(Version),
    Group(Version, &'static str),
    Protocol(Version, String),
}

enum Reply {
    Ciphers(Ciphers),
    Group(Finding),
    Protocol(Finding),
}

fn look(panel: &Panel, args: &Args, findings: &mut Findings) {
    let limit = args.output.scan_limit;
    let versions: Vec<Version> = match args.tls.version() {
        Some(version) => vec![version],
        None => VERSIONS.to_vec(),
    };
    let asked = in_parallel(limit, versions.clone(), |version| ciphers::version(panel, version));
    let accepted = |version: &Version| {
        let at = versions.iter().position(|one| one == version);
        at.is_some_and(|at| asked[at].state == State::Accepted)
    };
    let (old, new) = (Version::Tls1_2, Version::Tls1_3);
    let mut questions: Vec<Question> = versions.iter().copied().filter(accepted).map(Question::Ciphers).collect();
    if accepted(&new) {
        questions.extend(groups::ALL.iter().map(|(_, name)| Question::Group(new, name)));
    }
    if let Some(best) = versions.iter().rev().copied().find(accepted) {
        let protocols = match args.tls.alpn.is_empty() {
            true => PROTOCOLS.iter().map(ToString::to_string).collect(),
            false => args.tls.alpn.clone(),
        };
        questions.extend(protocols.into_iter().map(|name| Question::Protocol(best, name)));
    }
    findings.versions = asked;
    let replies = in_parallel(limit, questions, |question| match question {
        Question::Ciphers(version) => Reply::Ciphers(ciphers::of(panel, version)),
        Question::Group(version, name) => Reply::Group(groups::alone(panel, version, name, &[])),
        Question::Protocol(version, name) => Reply::Protocol(protocol(panel, version, name)),
    });
    let mut of_new = Vec::new();
    for reply in replies {
        match reply {
            Reply::Ciphers(ciphers) => findings.ciphers.push(ciphers),
            Reply::Group(finding) => of_new.push(finding),
            Reply::Protocol(finding) => findings.alpn.push(finding),
        }
    }
    if !of_new.is_empty() {
        findings.groups.push(Groups { version: new, findings: of_new });
    }
    if let Some(ciphers) = findings.ciphers.iter().find(|ciphers| ciphers.version == old) {
        findings.groups.extend(groups::before_tls13(panel, ciphers, limit));
    }
}

fn protocol(panel: &Panel, version: Version, name: String) -> Finding {
    let offer = Offer { version: Some(version), alpn: Some(name.clone()), to_the_end: true, ..Offer::default() };
    Finding::of(name.clone(), panel.ask(&offer), |choice| match choice.alpn {
        Some(Some(chosen)) if chosen == name.as_bytes() => Ok(State::Accepted),
        Some(None) => Ok(State::Refused),
        _ => Err("the handshake did not come to it".to_string()),
    })
}

/// So many at a time, the results in order.
fn in_parallel<T: Send, R: Send>(limit: usize, items: Vec<T>, ask: impl Fn(T) -> R + Sync) -> Vec<R> {
    let items: Vec<_> = items.into_iter().map(|item| Mutex::new((Some(item), None))).collect();
    let next = AtomicUsize::new(0);
    let work = || {
        while let Some(slot) = items.get(next.fetch_add(1, Ordering::Relaxed)) {
            let item = panel::lock(slot).0.take();
            let result = item.map(&ask);
            panel::lock(slot).1 = result;
        }
    };
    thread::scope(|scope| {
        // This thread is one of them: where no other can be had it goes on alone.
        for _ in 1..limit.min(items.len()) {
            let _ = thread::Builder::new().spawn_scoped(scope, work);
        }
        work();
    });
    items.into_iter().filter_map(|slot| slot.into_inner().unwrap_or_else(|e| e.into_inner()).1).collect()
}
