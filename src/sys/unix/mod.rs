//! Linux, and the other Unix systems.

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
use socket::send_as_set;
pub(crate) use socket::{
    bound_receives, claim, is_nonblocking, recv_for_slice, restore_timeout, take_error, timeouts, try_recv, try_send,
    unacknowledged, unclaim, MUST_BE_CLAIMED,
};

/// Of a stream that outlives its use; borrowed while it is waited for.
pub type Descriptor = std::os::fd::RawFd;

pub(crate) fn descriptor(stream: &impl std::os::fd::AsRawFd) -> Descriptor {
    stream.as_raw_fd()
}

/// What `poll` says of a connection that takes nothing more.
pub(super) const BROKEN: rustix::event::PollFlags = rustix::event::PollFlags::HUP.union(rustix::event::PollFlags::ERR);
