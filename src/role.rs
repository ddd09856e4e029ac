/// Which end of the handshake a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// The end that speaks first.
    Client,
    /// The end that must have an [`Identity`](crate::Identity).
    Server,
}
