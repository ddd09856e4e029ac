use std::error::Error as StdError;
use std::fmt;
use std::io;

use super::SslFile;
use crate::error::{Error, ErrorKind};
use crate::stream::Stream;

/// Opening failed; the stream is not lost.
///
/// Becomes an [`io::Error`] with `?`, which drops the stream.
pub struct OpenError<S> {
    error: io::Error,
    stream: S,
    unread: Vec<u8>,
}

impl<S> OpenError<S> {
    pub(crate) fn new(error: io::Error, stream: S, unread: Vec<u8>) -> OpenError<S> {
        OpenError { error, stream, unread }
    }

    /// Why.
    pub fn error(&self) -> &io::Error {
        &self.error
    }

    /// The typed cause; `ErrorKind::Other` if it is not ours.
    pub fn kind(&self) -> ErrorKind {
        Error::of(&self.error).map_or(ErrorKind::Other, Error::kind)
    }

    /// The stream.
    pub fn stream(&self) -> &S {
        &self.stream
    }

    /// The error, the stream, and the bytes read from it that TLS did not consume (all of them if the peer spoke no
    /// TLS).
    pub fn into_parts(self) -> (io::Error, S, Vec<u8>) {
        (self.error, self.stream, self.unread)
    }
}

impl<S> fmt::Debug for OpenError<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpenError").field("error", &self.error).finish_non_exhaustive()
    }
}

impl<S> fmt::Display for OpenError<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

impl<S> StdError for OpenError<S> {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.error.source()
    }
}

impl<S> From<OpenError<S>> for io::Error {
    fn from(e: OpenError<S>) -> io::Error {
        e.error
    }
}

/// The stream can't be had; the file is not lost.
///
/// Becomes an [`io::Error`] with `?`, which drops this handle.
pub struct ReleaseError<S: Stream> {
    error: io::Error,
    file: SslFile<S>,
}

impl<S: Stream> ReleaseError<S> {
    pub(crate) fn new(error: io::Error, file: SslFile<S>) -> ReleaseError<S> {
        ReleaseError { error, file }
    }

    /// Why.
    pub fn error(&self) -> &io::Error {
        &self.error
    }

    /// The file.
    pub fn file(&self) -> &SslFile<S> {
        &self.file
    }

    /// Both.
    pub fn into_parts(self) -> (io::Error, SslFile<S>) {
        (self.error, self.file)
    }
}

impl<S: Stream> fmt::Debug for ReleaseError<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReleaseError").field("error", &self.error).field("file", &self.file).finish()
    }
}

impl<S: Stream> fmt::Display for ReleaseError<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

impl<S: Stream> StdError for ReleaseError<S> {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.error.source()
    }
}

impl<S: Stream> From<ReleaseError<S>> for io::Error {
    fn from(e: ReleaseError<S>) -> io::Error {
        e.error
    }
}
