use std::any::Any;
use std::os::fd::{AsFd, BorrowedFd};

/// The descriptor of a half, if it is one of std's types that have one and hold no buffer of their own.
///
/// `Duplex` takes any `Read` and any `Write`, so this can only be found out at run time. Standard input and output are
/// left out: making them non-blocking would change them for every process on the terminal.
pub(crate) fn descriptor_of<T: Any>(half: &T) -> Option<BorrowedFd<'_>> {
    fn as_fd<T: AsFd + Any>(half: &dyn Any) -> Option<BorrowedFd<'_>> {
        half.downcast_ref::<T>().map(AsFd::as_fd)
    }
    let half: &dyn Any = half;
    as_fd::<std::process::ChildStdout>(half)
        .or_else(|| as_fd::<std::process::ChildStdin>(half))
        .or_else(|| as_fd::<std::process::ChildStderr>(half))
        .or_else(|| as_fd::<std::io::PipeReader>(half))
        .or_else(|| as_fd::<std::io::PipeWriter>(half))
        .or_else(|| as_fd::<std::fs::File>(half))
        .or_else(|| as_fd::<std::net::TcpStream>(half))
        .or_else(|| as_fd::<std::os::unix::net::UnixStream>(half))
        .or_else(|| as_fd::<socket2::Socket>(half))
}
