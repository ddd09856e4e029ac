//! Rules of before, each of which was a fault. Put back one by one, to show that the world finds them.

#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct OldRules {
    /// A write callback is owed only while writing is possible, and a pause outlasts the stream's death.
    pub a: bool,
    /// A failure to send does not end the handshake.
    pub b: bool,
    /// An end that is under way takes in without bound.
    pub c: bool,
    /// Answers are not counted, and made after our end too.
    pub e: bool,
    /// The queue is loaded between the chunks of a write.
    pub f: bool,
    /// What comes is looked at before the time.
    pub i: bool,
}
