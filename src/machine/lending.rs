//! Whose the stream is.

use super::Machine;
use crate::error::Error;

#[derive(Debug)]
pub(super) enum Lending {
    Own,
    /// A file that wraps this one has it. What was put back meanwhile is for later.
    Lent {
        unread: Vec<u8>,
    },
    /// It has been given back to who had it before this file, though it is still in here. What it could not take back.
    Returned {
        leftover: Vec<u8>,
    },
}

impl Lending {
    #[inline]
    pub fn is_own(&self) -> bool {
        matches!(self, Lending::Own)
    }

    #[inline]
    pub fn is_returned(&self) -> bool {
        matches!(self, Lending::Returned { .. })
    }

    pub fn later(&mut self) -> Option<&mut Vec<u8>> {
        match self {
            Lending::Lent { unread } => Some(unread),
            _ => None,
        }
    }

    pub fn returned(&mut self, leftover: Vec<u8>) {
        *self = Lending::Returned { leftover };
    }
}

impl Machine {
    #[inline]
    pub fn is_lent(&self) -> bool {
        matches!(self.lend, Lending::Lent { .. })
    }

    pub fn is_returned(&self) -> bool {
        self.lend.is_returned()
    }

    /// Nothing is owed to anybody, and nobody else has the stream.
    pub fn is_free(&self) -> bool {
        self.lend.is_own() && self.unsent() == 0 && self.end.is_calm()
    }

    /// The stream is about to be used by another file, which wraps this one.
    pub fn lend(&mut self) -> Result<(), Error> {
        match self.lend {
            Lending::Own => {
                self.lend = Lending::Lent { unread: Vec::new() };
                self.stir.state = true;
                Ok(())
            }
            Lending::Lent { .. } => Err(super::taken()),
            Lending::Returned { .. } => Err(super::not_open()),
        }
    }

    /// The stream is ours again, and these bytes come first.
    pub fn take_home(&mut self, bytes: &[u8]) {
        if let Lending::Lent { unread } = std::mem::replace(&mut self.lend, Lending::Own) {
            self.tls.unread(&unread);
            self.tls.unread(bytes);
        }
        (self.stir.state, self.stir.input) = (true, true);
    }

    /// When nobody has the file any more: what was read from the stream and not consumed; `None`: it is all with the stream.
    pub fn into_unread(mut self) -> Result<Vec<u8>, Vec<u8>> {
        match self.lend {
            Lending::Returned { leftover } => Ok(leftover),
            _ => Err(self.tls.take_input()),
        }
    }
}
