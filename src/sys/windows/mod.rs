//! Windows. The platform's calls come through `rustix`, `socket2` and std, which name a socket as Unix does a descriptor.

mod bell;
mod connections;
mod descriptor;
mod socket;
#[cfg(test)]
mod tests;

pub(super) use bell::Bell;
pub(crate) use connections::{
    admit_no_more, arrives, has_said_something, is_in_progress, lift, passes, stop_listening, SHUTDOWN_WAKES,
};
pub(crate) use descriptor::{descriptor_of, duplicate, silence_half, write_half, Flags};
pub(crate) use socket::{
    bound_receives, claim, is_nonblocking, recv_for_slice, restore_timeout, take_error, timeouts, try_recv, try_send,
    unacknowledged, unclaim, MUST_BE_CLAIMED,
};

/// Of a stream that outlives its use; borrowed while it is waited for.
pub type Descriptor = std::os::windows::io::RawSocket;

pub(crate) fn descriptor(stream: &impl std::os::windows::io::AsRawSocket) -> Descriptor {
    stream.as_raw_socket()
}

/// What `poll` says of a connection that takes nothing more. A hang-up may be the peer's half-close alone.
pub(super) const BROKEN: rustix::event::PollFlags = rustix::event::PollFlags::ERR;
