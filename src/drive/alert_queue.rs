//! When users are told of alerts, and what the `log` crate is told: when the outermost call of a file in this thread has ended. By then it holds no lock and no
//! turn, of that file or of one that wraps it, so that who is told may use any file.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::Arc;

use crate::alert::Alert;
use crate::settings::OnAlert;

/// Who is told of a file's alerts.
pub(crate) struct AlertWatch {
    pub on_alert: OnAlert,
    pub peer: String,
}

struct Here {
    /// Calls of files that are under way in this thread, one inside the other.
    calls: Cell<usize>,
    /// Those who are being told in this thread, one by what the other has caused.
    told: Cell<usize>,
    /// Something waits.
    any: Cell<bool>,
}

enum News {
    Alert(Arc<AlertWatch>, Alert),
    #[cfg(feature = "log")]
    Line(::log::Level, String),
}

impl News {
    fn tell(self) {
        match self {
            News::Alert(watch, alert) => (watch.on_alert)(&alert),
            #[cfg(feature = "log")]
            News::Line(level, text) => ::log::log!(target: TARGET, level, "{text}"),
        }
    }
}

/// What all lines go by.
#[cfg(feature = "log")]
const TARGET: &str = "sslfile";

// Apart: what has nothing to be dropped is there without being asked for, and each call looks at it twice.
crate::sync::thread_local! {
    static HERE: Here = const { Here { calls: Cell::new(0), told: Cell::new(0), any: Cell::new(false) } };
    static WAITING: RefCell<VecDeque<News>> = const { RefCell::new(VecDeque::new()) };
}

/// A thread that is ending tells nobody any more.
fn put_all(news: impl Iterator<Item = News>) {
    let _ = WAITING.try_with(|waiting| waiting.borrow_mut().extend(news));
    let _ = HERE.try_with(|here| here.any.set(true));
}

fn next() -> Option<News> {
    let next = WAITING.try_with(|waiting| waiting.borrow_mut().pop_front()).ok().flatten();
    let _ = HERE.try_with(|here| here.any.set(next.is_some()));
    next
}

/// A call of a file, while it lives.
pub(crate) struct InCall(());

impl InCall {
    #[inline]
    pub fn begin() -> InCall {
        let _ = HERE.try_with(|here| here.calls.set(here.calls.get() + 1));
        InCall(())
    }
}

impl Drop for InCall {
    #[inline]
    fn drop(&mut self) {
        let left = HERE.try_with(|here| {
            here.calls.set(here.calls.get() - 1);
            here.calls.get() == 0 && here.any.get()
        });
        if left == Ok(true) {
            tell();
        }
    }
}

/// A user's code, called by a file that holds nothing: what it does is not inside the file's call.
pub(crate) fn in_callback<T>(f: impl FnOnce() -> T) -> T {
    struct Restored(usize);
    impl Drop for Restored {
        fn drop(&mut self) {
            let _ = HERE.try_with(|here| here.calls.set(self.0));
        }
    }
    let _restored = Restored(HERE.try_with(|here| here.calls.replace(0)).unwrap_or(0));
    f()
}

/// Whether a call is under way, which will tell when it ends.
pub(crate) fn is_in_call() -> bool {
    HERE.try_with(|here| here.calls.get() > 0).unwrap_or(false)
}

pub(crate) fn put(watch: &Arc<AlertWatch>, alerts: Vec<Alert>) {
    put_all(alerts.into_iter().map(|mut alert| {
        alert.peer.clone_from(&watch.peer);
        News::Alert(watch.clone(), alert)
    }));
}

/// So many are told of what the one before has caused before he is done.
const DEPTH: usize = 8;

/// Tells of all that is waiting. Who is told may cause more, and be told of that in between; of what goes too deep, when he is
/// done: who connects again whenever he is refused must not use up the stack.
pub(crate) fn tell() {
    struct Told;
    impl Drop for Told {
        fn drop(&mut self) {
            let _ = HERE.try_with(|here| here.told.set(here.told.get() - 1));
        }
    }
    if HERE.try_with(|here| here.told.replace(here.told.get() + 1)).is_err() {
        return;
    }
    let _told = Told;
    let is_too_deep = || HERE.try_with(|here| here.told.get() > DEPTH) != Ok(false);
    while let Some(news) = if is_too_deep() { None } else { next() } {
        // We are in the middle of things, in whichever thread.
        let _ = catch_unwind(AssertUnwindSafe(|| news.tell()));
    }
}

/// Whether somebody may want to hear of this. The logger, which is a user's, is not asked: a file's lock may be held here. It is
/// for it to pass over what it does not want when it is told (as `Log::log` has it).
#[cfg(feature = "log")]
#[inline]
pub(crate) fn is_logged(level: ::log::Level) -> bool {
    level <= ::log::STATIC_MAX_LEVEL && level <= ::log::max_level()
}

/// A line for the `log` crate, which will get it as users get alerts.
#[cfg(feature = "log")]
pub(crate) fn log(level: ::log::Level, line: impl FnOnce() -> String) {
    if !is_logged(level) {
        return;
    }
    put_all(std::iter::once(News::Line(level, line())));
}

#[cfg(feature = "log")]
#[inline]
pub(crate) fn has_more() -> bool {
    HERE.try_with(|here| here.any.get()).unwrap_or(false)
}

/// For who holds nothing, and may be in no call.
#[cfg(feature = "log")]
pub(crate) fn tell_if_outside() {
    if has_more() && !is_in_call() {
        tell();
    }
}
