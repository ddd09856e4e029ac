//! What the peers of the world do, bad things mostly.

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Manners {
    /// Reads, sends now and then, answers a close.
    Good,
    /// Reads nothing, ever.
    Deaf,
    Flooding,
    DeafFlooding,
    /// Asks for answers without end.
    Updating,
    DeafUpdating,
    /// Reads and sends a few bytes at a time.
    Dripping,
    HelloThenReset,
    /// Takes what we send, and says nothing at all.
    Silent,
    /// A FIN without close_notify.
    Cutting,
    Resetting,
    ClosingWell,
    Garbage,
    /// Records without data: empty ones, tickets, warnings.
    Barren,
    /// Asks us to renegotiate, and answers in its own time.
    Renegotiating,
    /// The same, and does not answer.
    HalfRenegotiating,
}

pub(super) const ALL: [Manners; 16] = [
    Manners::Good,
    Manners::Deaf,
    Manners::Flooding,
    Manners::DeafFlooding,
    Manners::Updating,
    Manners::DeafUpdating,
    Manners::Dripping,
    Manners::HelloThenReset,
    Manners::Silent,
    Manners::Cutting,
    Manners::Resetting,
    Manners::ClosingWell,
    Manners::Garbage,
    Manners::Barren,
    Manners::Renegotiating,
    Manners::HalfRenegotiating,
];

/// Those that need no records of their own making.
pub(super) const REAL: [Manners; 9] = [
    Manners::Good,
    Manners::Deaf,
    Manners::Flooding,
    Manners::DeafFlooding,
    Manners::Dripping,
    Manners::HelloThenReset,
    Manners::Cutting,
    Manners::Resetting,
    Manners::ClosingWell,
];

impl Manners {
    pub fn reads(self) -> bool {
        !matches!(self, Manners::Deaf | Manners::DeafFlooding | Manners::DeafUpdating)
    }

    pub fn floods(self) -> bool {
        matches!(self, Manners::Flooding | Manners::DeafFlooding)
    }

    /// Nothing it does costs us data that we have sent.
    pub fn is_kind(self) -> bool {
        matches!(
            self,
            Manners::Good | Manners::Dripping | Manners::ClosingWell | Manners::Flooding | Manners::Renegotiating
        )
    }
}
