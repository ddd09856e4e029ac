//! What somebody at a terminal sees, and what the peer hears.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::sync::mpsc::{self, Receiver};

use sslfile::SslFile;

use crate::common::{engines, server_context, LONG};
use crate::tool::{is_here, on_a_terminal, Files, Server, Tool};
use crate::SSLCAT;

/// A server that says what it is told to, until it is told no more; and passes on the lines that it hears.
struct Peer {
    server: Server<()>,
    heard: Receiver<String>,
    say: mpsc::Sender<String>,
}

impl Peer {
    fn start() -> Peer {
        let context = server_context(engines()[0]);
        let (say, to_say) = mpsc::channel::<String>();
        let (hear, heard) = mpsc::channel();
        let server = Server::start(move |tcp| {
            let file = SslFile::server(tcp, &context).unwrap();
            let hearing = file.try_clone().unwrap();
            std::thread::spawn(move || {
                for line in BufReader::new(&hearing).split(b'\n').map_while(Result::ok) {
                    let _ = hear.send(String::from_utf8(line).unwrap());
                }
            });
            for text in to_say {
                (&file).write_all(text.as_bytes()).unwrap();
            }
            file.close().unwrap();
        });
        Peer { server, heard, say }
    }

    fn says(&self, text: &str) {
        self.say.send(text.to_string()).unwrap();
    }

    fn hears(&self) -> String {
        self.heard.recv_timeout(LONG).expect("a line")
    }

    fn ends(self) {
        drop(self.say);
        self.server.join();
    }

    fn command(&self, files: &Files, options: &str) -> String {
        format!("{SSLCAT} localhost {} --ca {} {options}", self.server.port, files.ca)
    }
}

/// What stands on a terminal of so many columns and any height, beneath the command, when all this has gone there.
fn screen(shown: &str) -> Vec<String> {
    const WIDTH: usize = 80;
    let (mut lines, mut row, mut column) = (vec![vec![' '; WIDTH]; 2], 1, 0);
    let mut input = shown.chars();
    while let Some(c) = input.next() {
        match c {
            '\r' => column = 0,
            '\n' => row += 1,
            '\x08' => column -= 1,
            '\x07' => {}
            '\x1b' => {
                assert_eq!(input.next(), Some('['), "{shown:?}");
                let mut number = String::new();
                let command = input.find(|c| {
                    if c.is_alphabetic() {
                        true
                    } else {
                        number.push(*c);
                        false
                    }
                });
                let n = number.parse().unwrap_or(1);
                match command.expect("a whole sequence") {
                    'A' => row -= n,
                    'B' => row += n,
                    'C' => column += n,
                    'D' => column -= n,
                    'K' => lines[row][column..].fill(' '),
                    'h' | 'l' if number.starts_with('?') => {}
                    other => panic!("{number}{other} in {shown:?}"),
                }
            }
            c => {
                if column == WIDTH {
                    (row, column) = (row + 1, 0);
                }
                if row == lines.len() {
                    lines.push(vec![' '; WIDTH]);
                }
                lines[row][column] = c;
                column += 1;
            }
        }
        if row == lines.len() {
            lines.push(vec![' '; WIDTH]);
        }
    }
    let mut lines: Vec<_> =
        lines[1..].iter().map(|line| line.iter().collect::<String>().trim_end().to_string()).collect();
    while lines.last().is_some_and(String::is_empty) {
        lines.pop();
    }
    lines
}

impl Tool {
    /// Waits for this screen.
    fn shows(&self, wanted: &[&str]) {
        self.stdout.wait_for_what(&format!("{wanted:?}"), |shown| screen(shown) == wanted);
    }
}

fn has_script() -> bool {
    is_here("script", &["--version"])
}

fn at_a_prompt(options: &str) -> Option<(Files, Peer, Tool)> {
    if !has_script() {
        return None;
    }
    let (files, peer) = (Files::new(), Peer::start());
    let tool = on_a_terminal(&peer.command(&files, options)).open();
    tool.shows(&[">"]);
    Some((files, peer, tool))
}

#[test]
fn lines_are_edited_and_come_back() {
    let Some((_files, peer, mut tool)) = at_a_prompt("--crlf") else { return };
    // Backspace, and to the left.
    tool.say(b"hallo\x7f\x7f\x7f\x7fello\x1b[D\x1b[DLL\r");
    assert_eq!(peer.hears(), "helLLlo\r");
    tool.shows(&["> helLLlo", ">"]);
    tool.say("grüße\r".as_bytes());
    assert_eq!(peer.hears(), "grüße\r");
    tool.shows(&["> helLLlo", "> grüße", ">"]);
    // Up, twice.
    tool.say(b"\x1b[A\x1b[A\r");
    assert_eq!(peer.hears(), "helLLlo\r");
    tool.shows(&["> helLLlo", "> grüße", "> helLLlo", ">"]);
    peer.ends();
    assert_eq!(tool.end().code, 0);
}

#[test]
fn what_the_peer_says_stands_above_the_line_that_is_edited() {
    let Some((_files, peer, mut tool)) = at_a_prompt("") else { return };
    tool.say(b"half");
    tool.shows(&["> half"]);
    peer.says("one\r\ntwo\n");
    tool.shows(&["one", "two", "> half"]);
    // A prompt of the peer's is shown, too; and a line that comes in pieces is one.
    peer.says("login: ");
    tool.shows(&["one", "two", "login:", "> half"]);
    peer.says("th");
    peer.says("ree\n");
    tool.shows(&["one", "two", "login:", "three", "> half"]);
    tool.say(b" a line\r");
    assert_eq!(peer.hears(), "half a line");
    // One that takes two lines of the screen.
    tool.shows(&["one", "two", "login:", "three", "> half a line", ">"]);
    let long = "x".repeat(100);
    tool.say(long.as_bytes());
    let (first, second) = (format!("> {}", &long[..78]), &long[78..]);
    tool.shows(&["one", "two", "login:", "three", "> half a line", &first, second]);
    peer.says("four\n");
    tool.shows(&["one", "two", "login:", "three", "> half a line", "four", &first, second]);
    peer.ends();
    assert_eq!(tool.end().code, 0);
}

#[test]
fn the_end_by_the_peer_leaves_a_terminal_as_it_was() {
    if !has_script() {
        return;
    }
    for typed in ["", "half a line"] {
        let (files, peer) = (Files::new(), Peer::start());
        let line = peer.command(&files, "");
        let mut tool = on_a_terminal(&format!("stty -a; {line}; echo code $?; stty -a")).open();
        tool.stdout.wait_for("> ");
        tool.say(typed.as_bytes());
        tool.stdout.wait_for(typed);
        peer.says("the last words");
        peer.ends();
        let ended = tool.end();
        let shown = screen(ended.stdout());
        let at = shown.iter().position(|line| line.starts_with("the last words")).expect("the last words");
        assert_eq!(shown[at + 1], "code 0", "{ended:?}");
        let modes: Vec<_> = shown.iter().filter(|line| line.contains("icanon")).collect();
        assert_eq!(modes.len(), 2, "{ended:?}");
        assert_eq!(modes[0], modes[1], "{typed:?}");
    }
}

#[test]
fn lines_that_are_pasted_all_arrive_and_so_do_their_answers() {
    let Some((_files, peer, mut tool)) = at_a_prompt("") else { return };
    let lines: Vec<_> = (0..100).map(|n| format!("line {n}")).collect();
    tool.say((lines.join("\r") + "\r").as_bytes());
    for line in &lines {
        assert_eq!(peer.hears(), *line);
        peer.says(&format!("you said {line}\n"));
    }
    // What is typed stays after the answers; ^D is the end.
    tool.stdout.wait_for("you said line 99");
    tool.say(b"\x04");
    assert!(peer.heard.recv_timeout(LONG).is_err(), "the end");
    peer.says("that was all");
    peer.ends();
    let ended = tool.end();
    assert_eq!(ended.code, 0, "{ended:?}");
    let shown = screen(ended.stdout());
    let answers: Vec<_> = shown.iter().filter_map(|line| line.strip_prefix("you said ")).collect();
    assert_eq!(answers, lines);
    assert_eq!(shown.last().map(String::as_str), Some("that was all"), "{shown:?}");
}

#[test]
fn a_flood_is_shown_to_its_end() {
    const LINES: usize = 20_000;
    let Some((_files, peer, mut tool)) = at_a_prompt("") else { return };
    tool.say(b"half");
    tool.shows(&["> half"]);
    peer.says(&(0..LINES).map(|n| format!("this is line {n}\n")).collect::<String>());
    peer.ends();
    let ended = tool.end();
    assert_eq!(ended.code, 0);
    let shown = screen(ended.stdout());
    for (n, line) in shown.iter().take(LINES).enumerate() {
        assert_eq!(*line, format!("this is line {n}"));
    }
    assert_eq!(shown[LINES..], [""; 0]);
}

#[test]
fn control_c_ends_it() {
    let Some((_files, peer, mut tool)) = at_a_prompt("") else { return };
    tool.say(b"half");
    tool.shows(&["> half"]);
    tool.say(b"\x03");
    assert_eq!(tool.end().code, 128 + 2);
    drop(peer.say);
}

#[test]
fn there_is_no_prompt_where_either_end_is_a_pipe_or_the_terminal_is_dumb() {
    if !has_script() {
        return;
    }
    let files = Files::new();
    for (before, after) in [("echo typed | ", ""), ("", " | cat"), ("TERM=dumb ", "")] {
        let peer = Peer::start();
        let command = peer.command(&files, "");
        let mut tool = on_a_terminal(&format!("{before}{command}{after}")).open();
        if !before.starts_with("echo") {
            tool.say(b"typed\r");
        }
        assert_eq!(peer.hears(), "typed");
        peer.says("heard");
        peer.ends();
        let ended = tool.end();
        let shown = ended.stdout().replace("typed\r\n", "");
        assert_eq!((ended.code, shown.as_str()), (0, "heard"), "{before} {after}");
    }
}

#[test]
fn a_history_is_kept_when_it_is_asked_for() {
    if !has_script() {
        return;
    }
    let files = Files::new();
    let state = files.dir.path().join("state");
    let run = |options: &str, typed: &[u8]| {
        let peer = Peer::start();
        let command = peer.command(&files, options);
        let mut tool = on_a_terminal(&format!("XDG_STATE_HOME={} {command}", state.display())).open();
        tool.say(typed);
        let heard = peer.hears();
        peer.ends();
        let ended = tool.end();
        assert_eq!(ended.code, 0, "{ended:?}");
        (heard, ended)
    };
    run("", b"nobody asked\r");
    assert!(!state.exists());

    run("--history", b"first\r");
    run("--history", b" PASS secret\r");
    let (heard, _) = run("--history", b"\x1b[A\r");
    assert_eq!(heard, "first");
    let file = state.join("sslcat/history");
    let kept = fs::read_to_string(&file).unwrap();
    assert!(kept.contains("first") && !kept.contains("secret") && !kept.contains("nobody"), "{kept}");
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o77, 0);

    fs::remove_dir_all(&state).unwrap();
    fs::write(&state, "no folder").unwrap();
    let (_, ended) = run("--history", b"still works\r");
    assert!(ended.stdout().contains("no history is kept"), "{ended:?}");
}
