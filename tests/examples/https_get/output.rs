//! Where a body goes, and what is there after a signal.

use std::fs::{self, Permissions};
use std::io::{Read, Write};
use std::os::unix::fs::{chown, symlink, FileTypeExt, MetadataExt, PermissionsExt};
use std::path::Path;
use std::sync::{mpsc, Mutex};
use std::thread;

use rustix::process::{kill_process, Pid, Signal};

use super::site::{answer, fifo, https_get, listing, wait_until, Close, Cut, Site};
use crate::built::example;
use crate::tool::{Files, Tool};

const HELLO: &str = "HTTP/1.1 200 OK\r\nETag: \"1\"\r\nContent-Length: 5\r\n\r\nhello";

fn hello() -> Site {
    Site::of(&[("/", HELLO, Close), ("/cut", "HTTP/1.1 200 OK\r\nETag: \"1\"\r\nContent-Length: 10\r\n\r\nhello", Cut)])
}

/// Half of it, and the rest when the sender says so; without one, when it goes.
fn halting() -> (Site, mpsc::Sender<()>) {
    let (go, told) = mpsc::channel();
    let told = Mutex::new(told);
    let site = Site::start(move |request, mut file| match request.header("range") {
        None => {
            file.write_all(b"HTTP/1.1 200 OK\r\nETag: \"1\"\r\nContent-Length: 10\r\n\r\nhello")?;
            let _ = told.lock().unwrap().recv();
            answer(file, "world", Close)
        }
        Some(range) => {
            assert_eq!((range, request.header("if-range")), ("bytes=4-", Some("\"1\"")));
            let head = "HTTP/1.1 206 Partial Content\r\nETag: \"1\"\r\nContent-Range: bytes 4-9/10\r\nContent-Length: 6\r\n\r\n";
            answer(file, format!("{head}oworld"), Close)
        }
    });
    (site, go)
}

/// Waits until the half has come into a file beside the output.
fn wait_for_half(files: &Files) {
    let is_half =
        |path: &Path| path.extension().is_some_and(|e| e == "part") && fs::read(path).is_ok_and(|b| b == b"hello");
    wait_until("half of the body", || listing(files).iter().any(|path| is_half(path)));
}

fn signal(tool: &Tool, signal: Signal) {
    kill_process(Pid::from_raw(tool.id() as i32).expect("a process"), signal).expect("kill");
}

#[test]
fn https_get_keeps_mode_owner_links_and_attributes_of_a_file_that_is_there() {
    let (files, site) = (Files::new(), hello());
    let folder = files.dir.path();
    for args in [&[][..], &["--continue"]] {
        let output = files.write("output", "what was there before");
        let (other, link) = (folder.join("other"), folder.join("link"));
        let get = |path: &Path| {
            let before = listing(&files);
            let ended =
                https_get(&files, &site.url("/")).args(&["-o", path.to_str().unwrap()]).args(args).feed(b"").end();
            assert_eq!((ended.code, ended.stderr()), (0, ""), "{ended:?}");
            assert_eq!(fs::read(path).unwrap(), b"hello");
            assert_eq!(listing(&files), before);
            fs::metadata(path).unwrap()
        };
        fs::set_permissions(&output, Permissions::from_mode(0o751)).unwrap();
        let number = fs::metadata(&output).unwrap().ino();
        assert_eq!(get(Path::new(&output)).mode() & 0o7777, 0o751);
        assert_ne!(fs::metadata(&output).unwrap().ino(), number, "written in place");
        // Only root can give files away.
        if chown(&output, Some(4711), Some(4712)).is_ok() {
            let found = get(Path::new(&output));
            assert_eq!((found.uid(), found.gid()), (4711, 4712));
        }
        // Not every file system has them.
        #[cfg(target_os = "linux")]
        if rustix::fs::setxattr(&*output, "user.a", b"b", rustix::fs::XattrFlags::empty()).is_ok() {
            get(Path::new(&output));
            let mut value = [0; 10];
            assert_eq!(rustix::fs::getxattr(&*output, "user.a", &mut value[..]), Ok(1));
            rustix::fs::removexattr(&*output, "user.a").unwrap();
        }
        fs::write(&output, "what was there before").unwrap();
        fs::hard_link(&output, &other).unwrap();
        let found = get(&other);
        assert_eq!((found.nlink(), fs::read(&output).unwrap()), (2, b"hello".to_vec()));
        fs::remove_file(&other).unwrap();
        // One that leads to a file, and one that leads to where one may be.
        fs::create_dir(folder.join("below")).unwrap();
        for there in ["output", "below/new"] {
            symlink(there, &link).unwrap();
            if there == "output" {
                fs::write(&output, "what was there before").unwrap();
            }
            get(&link);
            assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
            assert_eq!(fs::read(folder.join(there)).unwrap(), b"hello");
            fs::remove_file(&link).unwrap();
        }
        fs::remove_dir_all(folder.join("below")).unwrap();
        fs::remove_file(&output).unwrap();
    }
}

#[test]
fn https_get_touches_no_file_before_all_has_come() {
    let (files, site) = (Files::new(), hello());
    let output = files.write("output", "what was there before");
    let link = files.dir.path().join("other");
    fs::hard_link(&output, &link).unwrap();
    let ended = https_get(&files, &site.url("/cut")).args(&["-o", &output]).feed(b"").end();
    assert_eq!(ended.code, 5, "{ended:?}");
    assert_eq!(fs::read(&output).unwrap(), b"what was there before");
}

#[test]
fn https_get_writes_streams_and_replaces_none() {
    let (files, site) = (Files::new(), hello());
    let folder = files.dir.path();
    let before = listing(&files);
    let mut tool = https_get(&files, &site.url("/")).args(&["-o", "-"]);
    tool.command.current_dir(folder);
    let ended = tool.feed(b"").end();
    assert_eq!((ended.code, ended.stdout()), (0, "hello"), "{ended:?}");
    assert_eq!(listing(&files), before);

    // What has come is out before the rest has, though it has no end of line.
    let (halts, go) = halting();
    let tool = https_get(&files, &halts.url("/")).open();
    tool.stdout.wait_for("hello");
    go.send(()).unwrap();
    assert_eq!(tool.end().stdout(), "helloworld");

    let log = folder.join("log");
    let lines = [
        // Opened again, it would be written from the beginning, or put in the place of what is there.
        "echo before > log; \"$0\" \"$@\" -o /dev/stdout >> log",
        "{ echo before; \"$0\" \"$@\" -o /dev/stdout; } > log",
        "echo before > log; \"$0\" \"$@\" -o log >> log",
        "echo before > log; \"$0\" \"$@\" -o /dev/fd/7 7>> log",
        "echo before > log; \"$0\" \"$@\" -o /proc/self/fd/2 2>> log",
    ];
    for line in lines {
        let mut tool = Tool::new(Path::new("/bin/sh")).args(&["-c", line, example("https_get").to_str().unwrap()]);
        tool.command.current_dir(folder);
        let ended = tool.args(&["--ca", &files.ca, &site.url("/")]).feed(b"").end();
        assert_eq!(ended.code, 0, "{line}: {ended:?}");
        assert_eq!(fs::read_to_string(&log).unwrap(), "before\nhello", "{line}");
    }

    let fifo = fifo(&files);
    let tool = https_get(&files, &site.url("/")).args(&["-o", fifo.to_str().unwrap()]).feed(b"");
    let mut got = String::new();
    fs::File::open(&fifo).unwrap().read_to_string(&mut got).unwrap();
    assert_eq!((tool.end().code, &*got), (0, "hello"));
    assert!(fs::metadata(&fifo).unwrap().file_type().is_fifo());
}

#[test]
fn https_get_leaves_nothing_when_a_signal_ends_it() {
    let (files, (site, _go)) = (Files::new(), halting());
    let output = files.write("output", "what was there before");
    let before = listing(&files);
    for sent in [Signal::INT, Signal::TERM, Signal::HUP] {
        let tool = https_get(&files, &site.url("/")).args(&["-o", &output]).open();
        wait_for_half(&files);
        signal(&tool, sent);
        // Whoever waits for it sees what ended it.
        assert_eq!(tool.end().code, -sent.as_raw(), "{sent:?}");
        assert_eq!(listing(&files), before, "{sent:?}");
        assert_eq!(fs::read(&output).unwrap(), b"what was there before");
    }
}

#[test]
fn https_get_goes_on_with_what_a_signal_left_when_it_is_told_to() {
    let (files, (site, _go)) = (Files::new(), halting());
    let output = files.dir.path().join("output");
    let get = || https_get(&files, &site.url("/")).args(&["--continue", "-o", output.to_str().unwrap()]).open();
    let before = listing(&files);
    let tool = get();
    wait_for_half(&files);
    signal(&tool, Signal::INT);
    assert_eq!(tool.end().code, -2);
    assert!(!output.exists());
    let ended = get().end();
    assert_eq!((ended.code, ended.stderr()), (0, ""), "{ended:?}");
    assert_eq!(fs::read(&output).unwrap(), b"helloworld");
    assert_eq!(listing(&files).len(), before.len() + 1, "{:?}", listing(&files));
}

#[test]
fn https_get_lives_on_when_signals_were_ignored_before_it_began() {
    let (files, (site, go)) = (Files::new(), halting());
    let output = files.dir.path().join("output");
    let line = "trap '' INT HUP; exec \"$0\" \"$@\"";
    let tool = Tool::new(Path::new("/bin/sh")).args(&["-c", line, example("https_get").to_str().unwrap()]);
    let tool = tool.args(&["--ca", &files.ca, &site.url("/"), "-o", output.to_str().unwrap()]).open();
    wait_for_half(&files);
    signal(&tool, Signal::INT);
    signal(&tool, Signal::HUP);
    go.send(()).unwrap();
    assert_eq!(tool.end().code, 0);
    assert_eq!(fs::read(&output).unwrap(), b"helloworld");
}

#[test]
fn https_get_lets_only_one_at_a_time_go_on_with_a_file() {
    let (files, (site, go)) = (Files::new(), halting());
    let output = files.dir.path().join("output");
    let get = || https_get(&files, &site.url("/")).args(&["--continue", "-o", output.to_str().unwrap()]);
    let first = get().open();
    wait_for_half(&files);
    let second = get().feed(b"").end();
    assert!(second.code == 6 && second.stderr().contains("somebody else"), "{second:?}");
    go.send(()).unwrap();
    let first = first.end();
    assert_eq!((first.code, first.stderr()), (0, ""), "{first:?}");
    assert_eq!(fs::read(&output).unwrap(), b"helloworld");
}

#[test]
fn https_get_makes_a_file_whole_whoever_else_writes_it() {
    let (files, site) = (Files::new(), hello());
    let output = files.dir.path().join("output");
    let before = listing(&files).len();
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let ended = https_get(&files, &site.url("/")).args(&["-o", output.to_str().unwrap()]).feed(b"").end();
                assert_eq!((ended.code, ended.stderr()), (0, ""), "{ended:?}");
            });
        }
    });
    assert_eq!(fs::read(&output).unwrap(), b"hello");
    assert_eq!(listing(&files).len(), before + 1);
}
