//! Versions, and the suites of each.

use sslfile::Version;

use super::attempt::{Answer, Offer};
use super::findings::{Ciphers, Finding, Order, State};
use super::panel::Panel;
use super::suites;

/// All that the library has for it.
fn offer(panel: &Panel, version: Version) -> Offer {
    let list = if version == Version::Tls1_3 { suites::NEW } else { suites::OLD };
    // Where a name that it does not know spoils the list, each is tried by itself.
    let all: Vec<&'static str> = list.iter().map(|(_, name)| *name).collect();
    let whole = Offer { version: Some(version), suites: all.clone(), ..Offer::default() };
    if panel.offered(&whole).is_some() {
        return whole;
    }
    let alone = |name: &&'static str| {
        let offer = Offer { suites: vec![*name], ..whole.clone() };
        panel.offered(&offer).is_some()
    };
    Offer { suites: all.into_iter().filter(alone).collect(), ..whole }
}

pub fn version(panel: &Panel, version: Version) -> Finding {
    Finding::of(version, panel.ask(&offer(panel, version)), |_| Ok(State::Accepted))
}

/// The server chooses from all, then from all but that, until it takes none of what is left.
pub fn of(panel: &Panel, version: Version) -> Ciphers {
    let whole = offer(panel, version);
    let list = if version == Version::Tls1_3 { suites::NEW } else { suites::OLD };
    let sent = panel.offered(&whole).map(|offered| offered.suites).unwrap_or_default();
    let (mut left, never): (Vec<_>, Vec<_>) = list.iter().copied().partition(|(number, _)| sent.contains(number));
    let mut accepted = Vec::new();
    let mut rest = Vec::new();
    while !left.is_empty() {
        let offer = Offer { suites: left.iter().map(|(_, name)| *name).collect(), ..whole.clone() };
        let answer = match panel.ask(&offer) {
            Answer::Accepted(choice) => match left.iter().position(|(number, _)| *number == choice.suite) {
                Some(at) => {
                    accepted.push(left.remove(at).1);
                    continue;
                }
                None => Err(format!("the server chose {}, which was not offered", suites::name(choice.suite))),
            },
            Answer::Refused(alert) => Ok(alert),
            Answer::Unanswered(silence) => Err(silence.text),
            Answer::Impossible(why) => {
                rest = left.iter().map(|(_, name)| Finding::impossible(name, &why)).collect();
                break;
            }
        };
        rest = left.iter().map(|(_, name)| answered(name, &answer)).collect();
        break;
    }
    let order = order(panel, &whole, &accepted);
    let impossible = never.iter().map(|(_, name)| Finding::impossible(name, "the library does not offer it"));
    let accepted = accepted.iter().map(|name| Finding::new(name, State::Accepted));
    Ciphers { version, order, findings: accepted.chain(rest).chain(impossible).collect() }
}

fn answered(name: &str, answer: &Result<String, String>) -> Finding {
    match answer {
        Ok(alert) => Finding { why: Some(alert.clone()), ..Finding::new(name, State::Refused) },
        Err(why) => Finding { is_unanswered: true, ..Finding::impossible(name, why) },
    }
}

/// Whether the server keeps to its choice when ours is the other way round.
fn order(panel: &Panel, whole: &Offer, accepted: &[&'static str]) -> Option<Order> {
    let (first, last) = (accepted.first()?, accepted.last()?);
    let suites: Vec<_> = accepted.iter().rev().copied().collect();
    let chosen = match panel.ask(&Offer { suites, ..whole.clone() }) {
        Answer::Accepted(choice) => suites::name(choice.suite),
        _ => return None,
    };
    match () {
        () if first == last => None,
        () if chosen == *first => Some(Order::Server),
        () if chosen == *last => Some(Order::Client),
        () => None,
    }
}
