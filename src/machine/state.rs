/// Where a file is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum State {
    /// The handshake has not been done yet, or not to its end.
    Handshaking,
    /// Data can flow both ways.
    Open,
    /// The peer has said close_notify: nothing more will come, but we may go on writing.
    PeerClosed,
    /// `close` or `close_clean` has begun.
    Closing,
    /// We have ended the connection.
    Closed,
    /// The handshake has failed, the peer has broken the protocol, or the connection was cut.
    Failed,
}

/// What to wait for on the stream's descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Interest {
    /// Until it can be read.
    pub readable: bool,
    /// Until it can be written.
    pub writable: bool,
}
