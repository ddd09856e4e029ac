//! On a terminal: lines can be edited, and what the peer says meanwhile appears above them.

use std::collections::VecDeque;
use std::env;
use std::fs::{self, DirBuilder};
use std::io::{self, IsTerminal, Read, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustix::process::{getpid, kill_process, Signal};
use rustix::termios::{tcgetattr, tcsetattr, OptionalActions, Termios};
use rustyline::error::ReadlineError;
use rustyline::{Config, DefaultEditor, ExternalPrinter, Prompt};

use crate::args::Args;
use crate::tell;

/// Both ends of the user's side; none where stdin or stdout is something else, or the terminal cannot move its cursor.
pub fn open(args: &Args) -> Option<(Lines, Screen)> {
    if !io::stdin().is_terminal() || !io::stdout().is_terminal() {
        return None;
    }
    let modes = tcgetattr(io::stdin()).ok()?;
    // What is pasted comes line by line, as what is typed.
    let config = Config::builder().bracketed_paste(false).history_ignore_space(true).build();
    let mut editor = DefaultEditor::with_config(config).ok()?;
    let printer = editor.create_external_printer().ok()?;
    let history = args
        .transfer
        .history
        .then(history_file)
        .and_then(|file| file.inspect_err(|error| tell(format!("no history is kept: {error}"))).ok());
    if let Some(file) = &history {
        let _ = editor.load_history(file);
    }

    let turn = Arc::new(Turn::default());
    let (sender, received) = mpsc::sync_channel(0);
    let (wake, woken) = mpsc::sync_channel(1);
    // It may wait for a line to be edited, while the other must not: a peer that is not read from does not read.
    thread::spawn(move || wake_all(&woken, printer));
    let shower = {
        let turn = turn.clone();
        let wake = wake.clone();
        thread::spawn(move || show_all(&received, &wake, &turn))
    };
    let screen = Screen { sender: Some(sender), shower: Some(shower), wake, turn: turn.clone(), modes };
    Some((Lines { editor, history, turn, rest: VecDeque::new() }, screen))
}

/// Where the XDG base directory specification has such things; its folder is made.
fn history_file() -> io::Result<PathBuf> {
    let absolute = |name: &str| env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let state = absolute("XDG_STATE_HOME").or_else(|| Some(absolute("HOME")?.join(".local/state")));
    let folder = state.ok_or_else(|| io::Error::other("there is no home folder"))?.join("sslcat");
    DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
    let file = folder.join("history");
    fs::OpenOptions::new().append(true).create(true).open(&file)?;
    Ok(file)
}

/// What is to be shown while a line is edited waits for the thread that edits: none else knows where the cursor is.
#[derive(Default)]
struct Turn {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// A line is being edited.
    editing: bool,
    /// No further line will be.
    over: bool,
    /// The line was wiped away for the last time.
    wiped: bool,
    pending: String,
}

impl Turn {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// At the begin of a line of the screen, or in a line that will be drawn anew.
    fn show_pending(&self, mut state: MutexGuard<'_, State>) {
        if !state.pending.is_empty() || state.wiped {
            show(&format!("\r\x1b[K{}", state.pending));
            state.pending.clear();
        }
        drop(state);
        self.changed.notify_all();
    }
}

fn show(text: &str) {
    let mut output = io::stdout().lock();
    // A terminal that has gone ends us by its signal.
    let _ = output.write_all(text.as_bytes()).and_then(|()| output.flush());
}

/// It is asked for when the line was wiped away, and will be drawn beneath what stands there then.
impl Prompt for Turn {
    fn raw(&self) -> &str {
        let mut state = self.state();
        state.wiped = state.over;
        let wiped = state.wiped;
        self.show_pending(state);
        if wiped {
            stay();
        }
        "> "
    }
}

/// With the program's end: nothing may be drawn any more.
fn stay() -> ! {
    loop {
        thread::park();
    }
}

/// What is typed.
pub struct Lines {
    editor: DefaultEditor,
    history: Option<PathBuf>,
    turn: Arc<Turn>,
    rest: VecDeque<u8>,
}

impl Read for Lines {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.rest.is_empty() {
            let mut state = self.turn.state();
            if state.over {
                drop(state);
                stay();
            }
            state.editing = true;
            drop(state);
            let line = self.editor.readline(&*self.turn);
            let mut state = self.turn.state();
            (state.editing, state.over) = (false, line.is_err());
            self.turn.show_pending(state);
            match line {
                Ok(line) => self.take(&line),
                Err(ReadlineError::Eof) => return Ok(0),
                // ^C, for which there was no signal.
                Err(ReadlineError::Interrupted) => {
                    kill_process(getpid(), Signal::INT)?;
                    return Err(io::Error::other("interrupted"));
                }
                Err(ReadlineError::Io(error)) => return Err(error),
                Err(error) => return Err(io::Error::other(error)),
            }
        }
        self.rest.read(buf)
    }
}

impl Lines {
    fn take(&mut self, line: &str) {
        let kept = self.editor.add_history_entry(line);
        if let (Ok(true), Some(file)) = (kept, &self.history) {
            let _ = self.editor.append_history(file);
        }
        self.rest.extend(line.as_bytes());
        self.rest.push_back(b'\n');
    }
}

/// What the peer says. When it goes, all was shown, no prompt is left, and the terminal is as it was.
pub struct Screen {
    sender: Option<SyncSender<Vec<u8>>>,
    shower: Option<JoinHandle<()>>,
    wake: SyncSender<()>,
    turn: Arc<Turn>,
    modes: Termios,
}

impl Write for Screen {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let sent = self.sender.as_ref().is_some_and(|sender| sender.send(bytes.to_vec()).is_ok());
        if sent {
            Ok(bytes.len())
        } else {
            Err(io::ErrorKind::BrokenPipe.into())
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        const PATIENCE: Duration = Duration::from_secs(1);
        self.sender = None;
        if let Some(shower) = self.shower.take() {
            let _ = shower.join();
        }
        let mut state = self.turn.state();
        state.over = true;
        if state.editing {
            let _ = self.wake.try_send(());
            let waits = |state: &mut State| state.editing && !state.wiped;
            let waited = self.turn.changed.wait_timeout_while(state, PATIENCE, waits);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        if !state.wiped {
            if state.editing {
                show("\n");
            }
            self.turn.show_pending(state);
        }
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, &self.modes);
    }
}

/// A line is shown when it is whole, too long, or when nothing more of it comes for a moment.
fn show_all(received: &Receiver<Vec<u8>>, wake: &SyncSender<()>, turn: &Turn) {
    const PAUSE: Duration = Duration::from_millis(50);
    const LIMIT: usize = 64 * 1024;
    let mut held = Vec::new();
    loop {
        let more = if held.is_empty() {
            received.recv().map_err(|_| RecvTimeoutError::Disconnected)
        } else {
            received.recv_timeout(PAUSE)
        };
        let whole = match &more {
            Ok(bytes) => {
                held.extend_from_slice(bytes);
                let end = held.iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1);
                if held.len() - end > LIMIT {
                    held.len()
                } else {
                    end
                }
            }
            Err(_) => held.len(),
        };
        let rest = held.split_off(whole);
        if !held.is_empty() {
            show_one(&String::from_utf8_lossy(&held), wake, turn);
        }
        held = rest;
        if more == Err(RecvTimeoutError::Disconnected) {
            return;
        }
    }
}

fn show_one(text: &str, wake: &SyncSender<()>, turn: &Turn) {
    /// A peer that says more than the terminal takes has to wait.
    const LIMIT: usize = 256 * 1024;
    let mut state = turn.state();
    // The next prompt begins a line.
    let end = if state.over || text.ends_with('\n') { "" } else { "\n" };
    if !state.editing {
        // Under the lock, or a line might begin to be edited.
        return show(&format!("{text}{end}"));
    }
    state.pending += text;
    state.pending += end;
    drop(state);
    // If it is full, it is about to be taken.
    let _ = wake.try_send(());
    drop(turn.changed.wait_while(turn.state(), |state| state.pending.len() > LIMIT));
}

/// Has the thread that edits wipe its line and draw it anew.
fn wake_all(woken: &Receiver<()>, mut printer: impl ExternalPrinter) {
    /// What is printed must end a line, or it is made to. This does, and leaves the cursor where it is.
    const NOTHING: &str = "\x1b[A\n";
    while woken.recv().is_ok() && printer.print(NOTHING.to_string()).is_ok() {}
}
