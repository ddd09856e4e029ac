//! The states of a file, and the arrows between them. The pictures are read by a test: an arrow that is in one of them and not in
//! the list below it, or the other way round, fails it, and so does an arrow that no seed of the simulated world takes. A move
//! along no arrow panics in debug builds and in tests.

#[cfg(test)]
mod pictures;

use std::time::Instant;

/// Where a file is in its life.
///
/// ```text
///              Handshaking ────────────────▶ Open
///                   │                          │
///       ┌───────────┴─┬──────────────┬─────────┴────┐
///       ▼             ▼              ▼              ▼
///   PeerClosed     Failed ◀────── Closing ──────▶ Closed
///       │             │              ▲              ▲
///       └─────────────┴──────────────┴──────────────┘
/// ```
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
    /// We have ended the connection: by `close`, `close_clean` or `abort`.
    Closed,
    /// The handshake has failed, the peer has broken the protocol, or the connection was cut.
    Failed,
}

impl Drawn for State {
    const ARROWS: &'static [Arrow] = &[
        ("Handshaking", "Open"),
        ("Handshaking", "PeerClosed"),
        ("Handshaking", "Failed"),
        ("Handshaking", "Closing"),
        ("Handshaking", "Closed"),
        ("Open", "PeerClosed"),
        ("Open", "Failed"),
        ("Open", "Closing"),
        ("Open", "Closed"),
        ("PeerClosed", "Closing"),
        ("PeerClosed", "Closed"),
        ("Failed", "Closing"),
        ("Failed", "Closed"),
        ("Closing", "Failed"),
        ("Closing", "Closed"),
    ];

    fn name(self) -> &'static str {
        match self {
            State::Handshaking => "Handshaking",
            State::Open => "Open",
            State::PeerClosed => "PeerClosed",
            State::Closing => "Closing",
            State::Closed => "Closed",
            State::Failed => "Failed",
        }
    }
}

/// Where our own end of the connection stands.
///
/// ```text
///               close_clean            both ends are said
///    Not ─────────────────────▶ Clean ────────────────────▶ Cleaned
///    │ │                        │   │
///    │ │ close            close │   │
///    │ └──────────▶ Flush ◀─────┘   │
///    │              │   │           │
///    │              │   └─▶ Drain   │
///    │              │         │     │
///    └──────────────┴─────────┴─────┴─────▶ Over
/// ```
///
/// From `Flush` to `Drain` when all has been handed to the stream. To `Over`: by `abort` from anywhere; from `Flush` for a
/// failure, or when nothing was taken for the close time-out; from `Drain` at the peer's end, or after the close time-out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Not,
    /// `close_clean` is under way, or has been broken off.
    Clean {
        since: Instant,
    },
    /// The stream is open, plain, and not ours any more.
    Cleaned,
    /// `close`, or the last handle: what was accepted is being sent. `progress`: when the peer last took something.
    Flush {
        progress: Instant,
    },
    /// Our end is said; what the peer still sends is read away, or the system would answer it with a reset, which can cost
    /// the peer what it has not read yet.
    Drain {
        until: Instant,
    },
    Over {
        aborted: bool,
    },
}

impl Drawn for End {
    const ARROWS: &'static [Arrow] = &[
        ("Not", "Clean"),
        ("Not", "Flush"),
        ("Not", "Over"),
        ("Clean", "Cleaned"),
        ("Clean", "Flush"),
        ("Clean", "Over"),
        ("Flush", "Drain"),
        ("Flush", "Over"),
        ("Drain", "Over"),
    ];

    fn name(self) -> &'static str {
        match self {
            End::Not => "Not",
            End::Clean { .. } => "Clean",
            End::Cleaned => "Cleaned",
            End::Flush { .. } => "Flush",
            End::Drain { .. } => "Drain",
            End::Over { .. } => "Over",
        }
    }
}

/// Our direction of the stream.
///
/// ```text
///      shutdown(Write), or an         close_notify and the
///      end that implies it            half-close are with the stream
///    Open ────────────────▶ Asked ───────────────────▶ HalfClosed
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OurEnd {
    Open,
    /// close_notify and the half-close follow all accepted data.
    Asked,
    HalfClosed,
}

impl Drawn for OurEnd {
    const ARROWS: &'static [Arrow] = &[("Open", "Asked"), ("Asked", "HalfClosed")];

    fn name(self) -> &'static str {
        match self {
            OurEnd::Open => "Open",
            OurEnd::Asked => "Asked",
            OurEnd::HalfClosed => "HalfClosed",
        }
    }
}

/// From, to.
pub(crate) type Arrow = (&'static str, &'static str);

/// States with a picture.
pub(super) trait Drawn: Copy {
    const ARROWS: &'static [Arrow];

    fn name(self) -> &'static str;

    /// The one way into another state.
    #[inline]
    fn move_to(&mut self, next: Self) {
        if cfg!(any(test, debug_assertions)) {
            let arrow = (self.name(), next.name());
            assert!(arrow.0 == arrow.1 || Self::ARROWS.contains(&arrow), "no arrow is drawn: {arrow:?}");
            #[cfg(test)]
            pictures::note(arrow);
        }
        *self = next;
    }

    /// Whether arrows lead there: for a state that is not kept, but follows from others.
    #[cfg(any(test, debug_assertions))]
    fn leads_to(self, next: Self) -> bool {
        let (mut reached, mut looked_at) = (vec![self.name()], 0);
        while let Some(&at) = reached.get(looked_at) {
            looked_at += 1;
            if at == next.name() {
                return true;
            }
            for &(from, to) in Self::ARROWS {
                if from == at && !reached.contains(&to) {
                    reached.push(to);
                }
            }
        }
        false
    }
}

/// What to wait for on the stream's descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Interest {
    /// Until it can be read.
    pub readable: bool,
    /// Until it can be written.
    pub writable: bool,
}

impl Interest {
    pub(super) const NONE: Interest = Interest { readable: false, writable: false };

    /// Of the stream's descriptor, which is to be watched for this. What the stream, a file itself, has for the next call already is a
    /// wait that ends at once, as no descriptor tells of it.
    pub(crate) fn through(self, watched: Interest, has_something: bool) -> Interest {
        Interest { readable: watched.readable, writable: watched.writable || (self.readable && has_something) }
    }

    pub(super) fn is_more_than(self, other: Interest) -> bool {
        (self.readable && !other.readable) || (self.writable && !other.writable)
    }
}
