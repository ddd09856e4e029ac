//! What holds after every step: checked in debug builds whenever the file's lock is given up, and in the simulated world.

use super::read::AHEAD_OF_CLEAN_CLOSE;
use super::send::After;
use super::state::{Drawn, End, OurEnd};
use super::Machine;

/// One receive, and the rest of a record that was there.
const ONE_RECEIVE: usize = 300 * 1024;
/// What TLS owes by itself at most, and the answers to one record more.
const ANSWERS: usize = 8 * 1024;

const AS_DRAWN: &str = "states follow each other as they are drawn";

type Invariant = (&'static str, fn(&Machine) -> bool);

const INVARIANTS: [Invariant; 16] = [
    ("input ahead is bounded", |m| {
        // What a clean close has kept stays to be read.
        let limit = if m.end.state == End::Not { m.limit_of_writers() } else { AHEAD_OF_CLEAN_CLOSE };
        m.tls.ahead() <= limit + ONE_RECEIVE
    }),
    ("answers are bounded", |m| m.tls.answers() <= ANSWERS),
    ("accepted bytes go, or are lost", |m| {
        let goes = m.has_output() || m.send.lent || m.send.current.is_some() || !m.settled();
        let goes = goes || m.tls.refuses_writes();
        m.unsent() == 0 || goes || m.tls.failure().is_some() || !m.tls.is_handshake_done()
    }),
    ("our end goes", |m| {
        let waits = !m.settled() || m.send.lent || m.send.current.is_some() || !m.send.queue.is_empty();
        let over = m.is_done() || m.outcome.send_failure.is_some() || m.is_clean_end_said();
        m.send.end != OurEnd::Asked || m.has_output() || waits || over || m.tls.refuses_writes()
    }),
    ("what a renegotiation waits for can come", |m| {
        !m.tls.refuses_writes() || m.expects_input() || m.receive.lent || m.is_done()
    }),
    ("a handshake is waited for, or fails in time", |m| {
        let goes = m.expects_input() || m.has_output() || m.send.lent || m.receive.lent;
        // A backend looks at it again at once.
        let held = m.end.held;
        m.settled() || goes || held || m.is_done() || m.handshake_deadline().is_some()
    }),
    ("an armed write callback is owed something, or due", |m| {
        let armed = m.deliver.installed.write && m.deliver.write_armed;
        let owed = m.unsent() > 0 || m.send.after == After::Push || !m.tls.is_handshake_done() || !m.settled();
        !armed || owed || m.is_write_due() || m.is_told() || m.is_over()
    }),
    ("the close callback is due, or the end is watched for", |m| {
        let owed = m.deliver.installed.close && !m.is_told();
        let coming = m.expects_input() || m.end.is_under_way() || !m.settled() || m.tls.ahead() > 0;
        let decrypting = m.tls.is_input_over() && !m.tls.has_ended();
        !owed || m.is_close_due() || coming || decrypting || m.lend.is_returned() || m.tls.plain_len() > 0
    }),
    ("the writer whose turn it is does not wait for it", |m| {
        m.send.current.is_none_or(|current| !m.send.tickets.contains(&current))
    }),
    ("what goes first is in the queue", |m| m.send.ahead <= m.send.queue.len()),
    ("no turn, nothing that goes first", |m| m.send.current.is_some() || m.send.ahead == 0),
    ("plaintext is counted where it is", |m| {
        let in_output = m.send.encrypted == 0 || m.tls.has_output();
        let in_flight = m.send.flight_plain == 0 || !m.send.flight.is_empty() || m.send.lent;
        in_output && in_flight
    }),
    ("what is calm has no deadline", |m| {
        !m.is_calm() || (m.handshake_deadline().is_none() && m.end_deadline().is_none())
    }),
    ("an end of ours shuts writing", |m| m.end.state == End::Not || m.send.is_shut() || m.end.is_aborted()),
    ("over, nothing is owed", |m| !matches!(m.end.state, End::Over { .. }) || m.send.lent || m.unsent() == 0),
    ("our end has come out somehow", |m| {
        !matches!(m.end.state, End::Over { .. } | End::Cleaned) || m.outcome.own.is_some()
    }),
];

impl Machine {
    /// The first of them that does not hold.
    pub fn broken_invariant(&self) -> Option<&'static str> {
        let (before, now) = (self.seen.replace(self.state()), self.state());
        if before != now && !before.leads_to(now) {
            return Some(AS_DRAWN);
        }
        INVARIANTS.iter().find(|(_, holds)| !holds(self)).map(|(what, _)| *what)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_modules_page_has_a_line_for_each() {
        let (_, table) = include_str!("mod.rs").split_once("//! | always | that is |\n").expect("the table");
        let rows = table.lines().skip(1).take_while(|line| line.starts_with("//! |"));
        let rows: Vec<_> = rows.map(|row| row.split('|').nth(1).expect("a column").trim()).collect();
        let checked: Vec<_> = [AS_DRAWN].into_iter().chain(INVARIANTS.map(|(what, _)| what)).collect();
        assert_eq!(rows, checked);
    }

    #[test]
    fn the_methods_of_the_modules_page_exist() {
        let page = include_str!("mod.rs");
        let (_, table) = page.split_once("//! | kind | methods |").expect("the table");
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/machine");
        let files = std::fs::read_dir(folder).expect("the sources").flatten();
        let sources: String = files.filter_map(|file| std::fs::read_to_string(file.path()).ok()).collect();
        let mut named = 0;
        for row in table.lines().skip(2).take_while(|line| line.starts_with("//! |")) {
            let methods = row.split('|').nth(2).expect("methods").split('`').skip(1).step_by(2);
            for method in methods.filter(|method| *method != "Done") {
                let is_there = ["(", "<"].iter().any(|open| sources.contains(&format!("pub fn {method}{open}")));
                assert!(is_there, "no method {method}");
                named += 1;
            }
        }
        assert!(named > 30, "{named} methods");
    }
}
