//! What is known of a server in the end.

use sslfile::Version;

use super::attempt::{Answer, Choice};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Accepted,
    Refused,
    Unknown,
}

impl State {
    pub fn name(self) -> &'static str {
        match self {
            State::Accepted => "accepted",
            State::Refused => "refused",
            State::Unknown => "unknown",
        }
    }
}

#[derive(Clone, Debug)]
pub struct Finding {
    pub name: String,
    pub state: State,
    pub why: Option<String>,
    /// It was asked, and nobody answered.
    pub is_unanswered: bool,
}

impl Finding {
    pub fn new(name: impl ToString, state: State) -> Finding {
        Finding { name: name.to_string(), state, why: None, is_unanswered: false }
    }

    /// The library can't ask for it.
    pub fn impossible(name: impl ToString, why: impl ToString) -> Finding {
        Finding { why: Some(why.to_string()), ..Finding::new(name, State::Unknown) }
    }

    /// What the server's choice says about it is the caller's to know.
    pub fn of(name: impl ToString, answer: Answer, read: impl FnOnce(Choice) -> Result<State, String>) -> Finding {
        match answer {
            Answer::Accepted(choice) => match read(choice) {
                Ok(state) => Finding::new(name, state),
                Err(why) => Finding { is_unanswered: true, ..Finding::impossible(name, why) },
            },
            Answer::Refused(alert) => Finding { why: Some(alert), ..Finding::new(name, State::Refused) },
            Answer::Unanswered(silence) => Finding { is_unanswered: true, ..Finding::impossible(name, silence.text) },
            Answer::Impossible(why) => Finding::impossible(name, why),
        }
    }
}

/// Who decides on the suite.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    Server,
    Client,
}

pub struct Ciphers {
    pub version: Version,
    pub order: Option<Order>,
    /// Those that are accepted first, as the server chose them one after the other.
    pub findings: Vec<Finding>,
}

pub struct Groups {
    pub version: Version,
    pub findings: Vec<Finding>,
}

#[derive(Default)]
pub struct Findings {
    pub address: Option<String>,
    pub versions: Vec<Finding>,
    pub ciphers: Vec<Ciphers>,
    pub groups: Vec<Groups>,
    pub alpn: Vec<Finding>,
    /// Connections that were made.
    pub attempts: usize,
}

impl Findings {
    pub fn all(&self) -> impl Iterator<Item = &Finding> {
        let ciphers = self.ciphers.iter().flat_map(|ciphers| &ciphers.findings);
        let groups = self.groups.iter().flat_map(|groups| &groups.findings);
        self.versions.iter().chain(ciphers).chain(groups).chain(&self.alpn)
    }
}
