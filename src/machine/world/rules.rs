//! Rules of before, each of which was a fault (the letters are those of the list that led to the machine). Put back one by
//! one, to show that the world finds them.

use crate::machine::Machine;

#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct OldRules {
    /// A write callback is owed only while writing is possible, and a pause outlasts the stream's death.
    pub a: bool,
    /// A failure to send does not end the handshake, and nothing is waited for then.
    pub b: bool,
    /// An end that is under way takes in without bound.
    pub c: bool,
    /// Answers are not counted.
    pub e: bool,
    /// The queue is loaded between the chunks of a write.
    pub f: bool,
    /// While something comes, nobody looks at the deadline of a close.
    pub i: bool,
}

impl Machine {
    /// Of `a` and `b`: nobody waits for the stream.
    pub(in crate::machine) fn is_left_by_old_rules(&self) -> bool {
        let is_held = self.old_rules.a && self.deliver.paused && !self.end.is_under_way() && !self.receive.shut;
        let is_left = self.old_rules.b && self.outcome.send_failure.is_some() && !self.tls.is_handshake_done();
        (is_held && self.settled()) || is_left
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::world::{run, How};

    const MOST: u64 = 10_000;

    fn is_found(name: &str, rules: OldRules) {
        let found = (1..=MOST).find_map(|seed| Some((seed, run(seed, How { rules, ..How::default() }).err()?)));
        let (seed, what) = found.unwrap_or_else(|| panic!("rule {name}: not found by {MOST} seeds"));
        println!("rule {name}: seed {seed}: {what}");
        // It is the rule that is found.
        assert!(run(seed, How::default()).is_ok(), "seed {seed} fails without the rule, too");
    }

    #[test]
    fn a_write_callback_that_is_lost_with_the_stream_is_found() {
        is_found("a", OldRules { a: true, ..OldRules::default() });
    }

    #[test]
    fn b_a_handshake_that_does_not_hear_of_a_reset_is_found() {
        is_found("b", OldRules { b: true, ..OldRules::default() });
    }

    #[test]
    fn c_an_end_that_takes_in_without_bound_is_found() {
        is_found("c", OldRules { c: true, ..OldRules::default() });
    }

    #[test]
    fn e_answers_without_bound_are_found() {
        is_found("e", OldRules { e: true, ..OldRules::default() });
    }

    #[test]
    fn f_a_send_inside_a_write_is_found() {
        is_found("f", OldRules { f: true, ..OldRules::default() });
    }

    #[test]
    fn i_a_close_that_outlasts_its_bound_is_found() {
        is_found("i", OldRules { i: true, ..OldRules::default() });
    }
}
