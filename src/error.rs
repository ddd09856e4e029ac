use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;

/// The typed cause inside every [`io::Error`] that the crate makes.
///
/// The `io::Error` has a [`kind`](io::Error::kind) that code written for `TcpStream` understands; [`Error::of`] finds
/// the TLS side of the story inside it. Errors of the operating system (a refused connect, say) are passed on as they
/// are and have no `Error` inside; nor has a bare `WouldBlock`, which is no failure.
///
/// ```
/// use sslfile::{Context, Error, ErrorKind, SslFile};
/// # fn main() -> std::io::Result<()> {
/// let (here, there) = std::os::unix::net::UnixStream::pair()?;
/// drop(there);
/// let context = Context::builder().system_roots(false).build()?;
/// let error = std::io::Error::from(SslFile::client(here, &context, "example.com").unwrap_err());
/// assert_eq!(error.kind(), std::io::ErrorKind::BrokenPipe);
/// assert_eq!(Error::of(&error).unwrap().kind(), ErrorKind::Truncated);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Error(Arc<Story>);

#[derive(Clone)]
struct Story {
    kind: ErrorKind,
    io_kind: io::ErrorKind,
    text: String,
    source: Option<Arc<dyn StdError + Send + Sync>>,
    /// The alert we sent with it, where the kind does not say.
    alert: Option<u8>,
    /// The text says with whom: the peer's name, or its address.
    named: bool,
    /// In DER, what the peer had sent that was refused, its own certificate first.
    refused: Option<Arc<[Vec<u8>]>>,
}

/// What went wrong, and whose fault it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The peer's certificate is not acceptable.
    Certificate,
    /// It is, but for another name.
    HostnameMismatch,
    /// We ended the connection with this alert (RFC 8446, section 6).
    LocalAlert(u8),
    /// The peer ended the connection with this alert.
    PeerAlert(u8),
    /// The peer does not speak TLS.
    NotTls,
    /// The stream ended without close_notify.
    Truncated,
    /// A malformed or forged record.
    Protocol,
    /// A deadline passed.
    TimedOut,
    /// [`SslFile::interrupt`](crate::SslFile::interrupt) was called.
    Interrupted,
    /// We have ended this connection ourselves.
    NotOpen,
    /// The engine or the stream cannot do what was asked.
    Unsupported,
    /// Anything else: misuse, a bad key file, an error of the system.
    Other,
}

impl ErrorKind {
    /// The number of the alert, whoever sent it.
    pub fn alert(self) -> Option<u8> {
        match self {
            ErrorKind::LocalAlert(n) | ErrorKind::PeerAlert(n) => Some(n),
            _ => None,
        }
    }

    fn io_kind(self) -> io::ErrorKind {
        match self {
            ErrorKind::Certificate
            | ErrorKind::HostnameMismatch
            | ErrorKind::LocalAlert(_)
            | ErrorKind::PeerAlert(_)
            | ErrorKind::NotTls
            | ErrorKind::Protocol => io::ErrorKind::InvalidData,
            ErrorKind::Truncated => io::ErrorKind::BrokenPipe,
            ErrorKind::TimedOut => io::ErrorKind::TimedOut,
            ErrorKind::NotOpen => io::ErrorKind::NotConnected,
            ErrorKind::Unsupported => io::ErrorKind::Unsupported,
            ErrorKind::Interrupted | ErrorKind::Other => io::ErrorKind::Other,
        }
    }
}

impl Error {
    /// The `Error` inside `error`, if the crate made it.
    pub fn of(error: &io::Error) -> Option<&Error> {
        error.get_ref()?.downcast_ref()
    }

    /// What went wrong.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    pub(crate) fn new(kind: ErrorKind, text: impl Into<String>) -> Error {
        let (io_kind, text) = (kind.io_kind(), text.into());
        Error(Arc::new(Story { kind, io_kind, text, source: None, alert: None, named: false, refused: None }))
    }

    /// Misuse: a value that can't be right.
    pub(crate) fn invalid_input(text: impl Into<String>) -> Error {
        Error::new(ErrorKind::Other, text).with_io_kind(io::ErrorKind::InvalidInput)
    }

    pub(crate) fn unsupported(text: impl Into<String>) -> Error {
        Error::new(ErrorKind::Unsupported, text)
    }

    /// The system's, about a file: `what` could not be done.
    pub(crate) fn of_file(what: &str, path: &Path, e: io::Error) -> Error {
        let text = format!("{what} {}: {e}", path.display());
        Error::new(ErrorKind::Other, text).with_io_kind(e.kind()).with_source(e)
    }

    pub(crate) fn would_block(text: &str) -> Error {
        Error::new(ErrorKind::Other, text).with_io_kind(io::ErrorKind::WouldBlock)
    }

    /// To be changed before others have it.
    fn story(&mut self) -> &mut Story {
        Arc::make_mut(&mut self.0)
    }

    pub(crate) fn with_io_kind(mut self, io_kind: io::ErrorKind) -> Error {
        self.story().io_kind = io_kind;
        self
    }

    pub(crate) fn with_source(mut self, source: impl StdError + Send + Sync + 'static) -> Error {
        self.story().source = Some(Arc::new(source));
        self
    }

    /// With the alert we sent because of it.
    pub(crate) fn with_alert(mut self, alert: Option<u8>) -> Error {
        self.story().alert = alert;
        self
    }

    /// With what the peer had sent that was refused.
    pub(crate) fn with_refused(mut self, chain: impl Iterator<Item = Vec<u8>>) -> Error {
        let chain: Arc<[Vec<u8>]> = chain.collect();
        self.story().refused = Some(chain).filter(|chain| !chain.is_empty());
        self
    }

    pub(crate) fn refused(&self) -> &[Vec<u8>] {
        self.0.refused.as_deref().unwrap_or_default()
    }

    /// The alert that went with it, and whether it was ours.
    pub(crate) fn alert(&self) -> Option<(u8, bool)> {
        match self.0.kind {
            ErrorKind::PeerAlert(alert) => Some((alert, false)),
            ErrorKind::LocalAlert(alert) => Some((alert, true)),
            _ => self.0.alert.map(|alert| (alert, true)),
        }
    }

    /// The same error, its text led by what was being done.
    pub(crate) fn during(mut self, what: &str) -> Error {
        self.story().text = format!("{what}: {self}");
        self
    }

    /// The same error, with more to say.
    pub(crate) fn adding(mut self, what: &str) -> Error {
        self.story().text.push_str(what);
        self
    }

    /// The same error, its text led by the peer's name, unless that stands there already.
    pub(crate) fn naming(self, peer: &str) -> Error {
        match self.0.named {
            true => self,
            false => self.during(peer).named(),
        }
    }

    /// The text names the peer already.
    pub(crate) fn named(mut self) -> Error {
        self.story().named = true;
        self
    }

    /// The text repeats that of `cause`, with the peer that it names: of a stream that is a file itself, say.
    pub(crate) fn named_as(mut self, cause: &(dyn StdError + 'static)) -> Error {
        self.story().named |= names_peer(cause);
        self
    }

    pub(crate) fn io_kind(&self) -> io::ErrorKind {
        self.0.io_kind
    }

    /// What the caller of a method gets; the error itself stays with the connection.
    pub(crate) fn to_io(&self) -> io::Error {
        io::Error::new(self.0.io_kind, self.clone())
    }
}

/// Whether it is an error of ours, bare, in an [`io::Error`] or as a source, whose text names the peer.
fn names_peer(error: &(dyn StdError + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        let inner = error.downcast_ref::<io::Error>().and_then(Error::of);
        if inner.or_else(|| error.downcast_ref()).is_some_and(|error| error.0.named) {
            return true;
        }
        // An `io::Error` gives the source of what it holds, not that itself.
        next = error.source();
    }
    false
}

/// OpenSSL's errors, as the `openssl` crate writes them, without code numbers and the names of functions and source files: the
/// reasons, and what is told beside them. Other texts stay as they are.
#[cfg(any(feature = "native-tls", feature = "openssl"))]
#[allow(dead_code, reason = "not wherever the feature is on the library is there")]
pub(crate) fn reasons(text: &str) -> String {
    // error:code:library:function:reason:file:line:data, error:…
    let reason = |entry: &str| {
        let mut fields = entry.splitn(7, ':').skip(3);
        let reason = fields.next()?.to_string();
        Some(match fields.nth(2).map(|data| data.trim_end_matches(", ").trim()).filter(|data| !data.is_empty()) {
            Some(data) if data.starts_with('(') => format!("{reason} {data}"),
            Some(data) => format!("{reason} ({data})"),
            None => reason,
        })
    };
    let is_start = |(at, _): &(usize, &str)| {
        text.get(at + 6..at + 15).is_some_and(|code| code.ends_with(':') && u32::from_str_radix(&code[..8], 16).is_ok())
    };
    let starts: Vec<usize> = text.match_indices("error:").filter(is_start).map(|(at, _)| at).collect();
    if starts.is_empty() {
        return text.to_string();
    }
    let ends = starts.iter().skip(1).copied().chain([text.len()]);
    let entries = starts.iter().zip(ends).map(|(start, end)| &text[start + 6..end]);
    // What encloses the part that cannot be read helps nobody.
    let told: Vec<_> = entries.filter_map(reason).filter(|reason| !reason.starts_with("nested asn1 error")).collect();
    told.join("; ")
}

impl From<Error> for io::Error {
    fn from(error: Error) -> io::Error {
        error.to_io()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.text)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Error").field("kind", &self.0.kind).field("text", &self.0.text).finish()
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_ref().map(|s| s.as_ref() as &(dyn StdError + 'static))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_peer_is_named_once() {
        let error = Error::new(ErrorKind::Truncated, "the stream has ended");
        let named = error.during("reading").naming("example.com:443");
        assert_eq!(named.to_string(), "example.com:443: reading: the stream has ended");
        assert_eq!((named.kind(), named.io_kind()), (ErrorKind::Truncated, io::ErrorKind::BrokenPipe));
        // By somebody else, behind other words, and on its way through an `io::Error`.
        let again = named.naming("example.com:443").during("TLS handshake").naming("192.0.2.1:443");
        assert_eq!(again.to_string(), "TLS handshake: example.com:443: reading: the stream has ended");
        let passed_on = Error::of(&again.to_io()).expect("ours").clone().naming("x");
        assert_eq!(passed_on.to_string(), again.to_string());
    }

    #[cfg(any(feature = "native-tls", feature = "openssl"))]
    #[test]
    fn reasons_of_openssl_go_without_its_files() {
        let one = "error:0A000086:SSL routines:tls_post_process_server_certificate:certificate verify failed:\
                   ../ssl/statem/statem_clnt.c:1889:";
        assert_eq!(reasons(one), "certificate verify failed");
        assert_eq!(reasons(&format!("{one} (hostname mismatch)")), "certificate verify failed (hostname mismatch)");
        let data =
            "error:0308010C:digital envelope routines:inner_evp_generic_fetch:unsupported:../crypto/evp_fetch.c:386:\
                    Global default library context, Algorithm (RC2-40-CBC : 0), Properties ()";
        let both = format!("{one}, {data}");
        let told = "unsupported (Global default library context, Algorithm (RC2-40-CBC : 0), Properties ())";
        assert_eq!(reasons(&both), format!("certificate verify failed; {told}"));
        let nested = "error:068000A8:asn1 encoding routines:asn1_check_tlen:wrong tag:../crypto/asn1/tasn_dec.c:1225:, \
                      error:0688010A:asn1 encoding routines:asn1_item_embed_d2i:nested asn1 error:tasn_dec.c:375:Type=X509";
        assert_eq!(reasons(nested), "wrong tag");
        for other in ["unexpected error: EOF", "error: none", "error:", ""] {
            assert_eq!(reasons(other), other);
        }
    }

    #[test]
    fn who_repeats_an_error_that_names_the_peer_names_it_too() {
        let outer = |cause: &(dyn StdError + 'static)| {
            Error::new(ErrorKind::Truncated, format!("sending: {cause}")).named_as(cause).naming("outer").to_string()
        };
        let inner = Error::new(ErrorKind::Truncated, "cut");
        assert_eq!(outer(&inner), "outer: sending: cut");
        let inner = inner.naming("inner");
        assert_eq!(outer(&inner), "sending: inner: cut");
        assert_eq!(outer(&inner.to_io()), "sending: inner: cut");
        // TLS in TLS in TLS; and inside an error of a stream of the user's.
        let middle = Error::new(ErrorKind::Truncated, format!("sending: {inner}")).with_source(inner.to_io());
        assert_eq!(outer(&middle), "sending: sending: inner: cut");
        assert_eq!(outer(&io::Error::other(middle)), "sending: sending: inner: cut");
        assert_eq!(outer(&io::Error::other("inner")), "outer: sending: inner");
    }
}
