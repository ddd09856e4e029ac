use std::sync::Arc;

use super::Shared;
use crate::stream::Transport;
use crate::sync::Ordering;

/// A handle of a user, behind one of the two faces. Callbacks get one that is not counted: it is theirs for the call.
pub(crate) struct Handle<S: Transport, F: Face<S>> {
    pub shared: Arc<Shared<S, F>>,
    pub counted: bool,
}

/// What users see of a file: [`SslFile`](crate::SslFile) or [`PlainFile`](crate::PlainFile).
pub(crate) trait Face<S: Transport>: Sized + 'static {
    fn from_handle(handle: Handle<S, Self>) -> Self;
}

impl<S: Transport, F: Face<S>> Handle<S, F> {
    /// The handle a new file begins with.
    pub fn first(shared: Arc<Shared<S, F>>) -> Handle<S, F> {
        Handle { shared, counted: true }
    }
}

impl<S: Transport, F: Face<S>> Clone for Handle<S, F> {
    fn clone(&self) -> Self {
        self.shared.handles.fetch_add(1, Ordering::Relaxed);
        Handle { shared: self.shared.clone(), counted: true }
    }
}

impl<S: Transport, F: Face<S>> Drop for Handle<S, F> {
    fn drop(&mut self) {
        if self.counted && self.shared.handles.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.shared.last_handle_gone();
        }
    }
}
