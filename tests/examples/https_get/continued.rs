//! `--continue`.

use std::fs;
use std::os::unix::fs::symlink;

use rustix::process::{kill_process, Pid, Signal};

use super::site::{answer, https_get, listing, nginx, wait_until, Close, Cut, Site};
use crate::common::pattern;
use crate::tool::{Ended, Files};

/// "hello", and a cut; then what the path says.
const BEGUN: &str = "HTTP/1.1 200 OK\r\nETag: \"1\"\r\nContent-Length: 10\r\n\r\nhello";

fn go_on(files: &Files, url: &str) -> Ended {
    let output = files.dir.path().join("output");
    https_get(files, url).args(&["--continue", "-o", output.to_str().unwrap()]).feed(b"").end()
}

fn read(files: &Files, name: &str) -> String {
    fs::read_to_string(files.dir.path().join(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
}

/// Cuts the first answer, and gives these, by path, to who asks for the rest, as parts of the same version.
fn cutting(answers: &'static [(&'static str, &'static str)]) -> Site {
    Site::start(move |request, file| match request.header("range") {
        None => answer(file, BEGUN, Cut),
        Some(_) => {
            let (_, text) = answers.iter().find(|(path, _)| *path == request.path).expect("a known path");
            let text = text.replace("206 \r\n", "206 Partial Content\r\nETag: \"1\"\r\n");
            answer(file, format!("HTTP/1.1 {text}"), Close)
        }
    })
}

#[test]
fn https_get_goes_on_as_often_as_it_takes() {
    let files = Files::new();
    let before = listing(&files).len();
    // Four bytes each time, the last of those that are there among them.
    let site = Site::start(|request, file| {
        let range = request.header("range").map(|range| range["bytes=".len()..].trim_end_matches('-').parse().unwrap());
        let first: usize = range.unwrap_or(0);
        assert_eq!(request.header("if-range").is_some(), first > 0);
        let head = match first {
            0 => "200 OK".to_string(),
            _ => format!("206 Partial Content\r\nContent-Range: bytes {first}-9/10"),
        };
        let (length, body) = (10 - first, &"helloworld"[first..10.min(first + 4)]);
        answer(file, format!("HTTP/1.1 {head}\r\nETag: \"1\"\r\nContent-Length: {length}\r\n\r\n{body}"), Cut)
    });
    for there in ["hell", "hellowo"] {
        let ended = go_on(&files, &site.url("/"));
        assert!(ended.code == 5 && ended.stderr().contains("--continue goes on with"), "{ended:?}");
        assert_eq!(read(&files, "output.part"), there);
        assert!(!files.dir.path().join("output").exists());
    }
    let ended = go_on(&files, &site.url("/"));
    assert_eq!((ended.code, ended.stderr()), (0, ""), "{ended:?}");
    assert_eq!(read(&files, "output"), "helloworld");
    assert_eq!(listing(&files).len(), before + 1, "{:?}", listing(&files));
}

#[test]
fn https_get_goes_on_with_each_kind_of_body_that_ends_where_it_must() {
    let files = Files::new();
    let site = cutting(&[
        ("/length", "206 \r\nContent-Range: bytes 4-9/10\r\nContent-Length: 6\r\n\r\noworld"),
        (
            "/chunked",
            "206 \r\nContent-Range: bytes 4-9/10\r\nTransfer-Encoding: chunked\r\n\r\n6\r\noworld\r\n0\r\n\r\n",
        ),
        ("/until-end", "206 \r\nContent-Range: bytes 4-9/10\r\n\r\noworld"),
        // It has another version.
        ("/anew", "200 OK\r\nETag: \"2\"\r\nContent-Length: 10\r\n\r\nhelloworld"),
    ]);
    for (path, said) in [("/length", ""), ("/chunked", ""), ("/until-end", ""), ("/anew", "begun anew")] {
        assert_eq!(go_on(&files, &site.url(path)).code, 5);
        let ended = go_on(&files, &site.url(path));
        assert!(ended.code == 0 && ended.stderr().contains(said), "{path}: {ended:?}");
        assert_eq!(read(&files, "output"), "helloworld", "{path}");
        fs::remove_file(files.dir.path().join("output")).unwrap();
    }
    let site = cutting(&[
        ("/short", "206 \r\nContent-Range: bytes 4-9/10\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nowor\r\n0\r\n\r\n"),
        ("/long", "206 \r\nContent-Range: bytes 4-9/10\r\n\r\noworldwide"),
        ("/length", "206 \r\nContent-Range: bytes 4-9/10\r\nContent-Length: 4\r\n\r\nowor"),
    ]);
    for path in ["/short", "/long", "/length"] {
        assert_eq!(go_on(&files, &site.url(path)).code, 5);
        let ended = go_on(&files, &site.url(path));
        assert!(ended.code == 5 && ended.stderr().contains("does not end at 10"), "{path}: {ended:?}");
        assert!(!files.dir.path().join("output").exists());
        fs::remove_file(files.dir.path().join("output.part")).unwrap();
    }
}

#[test]
fn https_get_takes_no_other_part_than_it_asked_for() {
    const CASES: &[(&str, &str)] = &[
        ("/first", "206 \r\nContent-Range: bytes 5-9/10\r\nContent-Length: 5\r\n\r\nworld"),
        ("/last", "206 \r\nContent-Range: bytes 4-8/10\r\nContent-Length: 5\r\n\r\noworl"),
        ("/none", "206 \r\nContent-Length: 6\r\n\r\noworld"),
        ("/words", "206 \r\nContent-Range: bytes four-nine/ten\r\nContent-Length: 6\r\n\r\noworld"),
        ("/unknown", "206 \r\nContent-Range: bytes 4-9/*\r\nContent-Length: 6\r\n\r\noworld"),
        ("/back", "206 \r\nContent-Range: bytes 4-3/4\r\nContent-Length: 0\r\n\r\n"),
        ("/huge", "206 \r\nContent-Range: bytes 4-18446744073709551615/18446744073709551616\r\n\r\noworld"),
        ("/end", "206 \r\nContent-Range: bytes 4-18446744073709551615/0\r\n\r\noworld"),
        ("/version", "206 OK\r\nETag: \"2\"\r\nContent-Range: bytes 4-9/10\r\n\r\nOWORLD"),
        ("/no-version", "206 OK\r\nContent-Range: bytes 4-9/10\r\n\r\nOWORLD"),
        ("/416", "416 Range Not Satisfiable\r\nContent-Range: bytes */4\r\nContent-Length: 0\r\n\r\n"),
        ("/404", "404 Not Found\r\nContent-Length: 0\r\n\r\n"),
    ];
    let said = |path| match path {
        "/first" | "/last" | "/end" => "another part",
        "/version" | "/no-version" => "another version",
        "/416" => "output.part to begin anew",
        "/404" => "404 Not Found",
        _ => "which is not said",
    };
    let (files, site) = (Files::new(), cutting(CASES));
    for (path, _) in CASES {
        assert_eq!(go_on(&files, &site.url(path)).code, 5);
        let ended = go_on(&files, &site.url(path));
        assert!(ended.code == 7 && ended.stderr().contains(said(path)), "{path}: {ended:?}");
        assert!(!files.dir.path().join("output").exists());
        // It may be all right the next time.
        assert_eq!(read(&files, "output.part"), "hello", "{path}");
        fs::remove_file(files.dir.path().join("output.part")).unwrap();
    }
    // A part for which nobody asked, were it all.
    let site =
        Site::of(&[("/", "HTTP/1.1 206 \r\nContent-Range: bytes 0-4/5\r\nContent-Length: 5\r\n\r\nhello", Close)]);
    assert_eq!(go_on(&files, &site.url("/")).code, 7);
    assert!(!files.dir.path().join("output.part").exists());
    assert_eq!(https_get(&files, &site.url("/")).feed(b"").end().code, 7);
}

#[test]
fn https_get_goes_on_with_nothing_of_which_it_does_not_know_what_it_is() {
    let (files, site) = (Files::new(), cutting(&[]));
    let part = files.dir.path().join("output.part");
    // Of another URL.
    assert_eq!(go_on(&files, &site.url("/one")).code, 5);
    let ended = go_on(&files, &site.url("/two"));
    assert!(ended.code == 6 && ended.stderr().contains("/one; remove it"), "{ended:?}");
    // Somebody else's.
    fs::remove_file(files.dir.path().join("output.part.from")).unwrap();
    let ended = go_on(&files, &site.url("/one"));
    assert!(ended.code == 6 && ended.stderr().contains("nothing says what this is"), "{ended:?}");
    assert_eq!(read(&files, "output.part"), "hello");
    // In a folder that others write too it may be a trap.
    fs::remove_file(&part).unwrap();
    let victim = files.write("victim", "of great value");
    symlink(&victim, &part).unwrap();
    let from = files.write("output.part.from", &format!("{}\n\"1\"\n", site.url("/one")));
    assert_eq!(go_on(&files, &site.url("/one")).code, 6);
    assert_eq!(read(&files, "victim"), "of great value");
    fs::remove_file(&part).unwrap();
    fs::remove_file(&from).unwrap();
    // Whose version the server does not say, or only whether it means about the same, or when it was made, in whole seconds.
    let site = Site::of(&[
        ("/none", "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello", Cut),
        ("/weak", "HTTP/1.1 200 OK\r\nETag: W/\"1\"\r\nContent-Length: 10\r\n\r\nhello", Cut),
        (
            "/date",
            "HTTP/1.1 200 OK\r\nLast-Modified: Mon, 30 Nov 2026 08:00:00 GMT\r\n\
             Content-Length: 10\r\n\r\nhello",
            Cut,
        ),
    ]);
    let before = listing(&files);
    for path in ["/none", "/weak", "/date"] {
        let ended = go_on(&files, &site.url(path));
        assert!(ended.code == 5 && ended.stderr().contains("it cannot be continued"), "{path}: {ended:?}");
        assert_eq!(listing(&files), before, "{path}");
    }
    // Nor is there anything left of a version that it does know.
    let site = Site::start(|request, file| match request.header("range") {
        None => answer(file, BEGUN, Cut),
        Some(_) => answer(file, "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello", Cut),
    });
    assert_eq!(go_on(&files, &site.url("/none")).code, 5);
    assert!(part.exists());
    assert_eq!(go_on(&files, &site.url("/none")).code, 5);
    assert_eq!(listing(&files), before);
    let ended = https_get(&files, &site.url("/none")).args(&["--continue", "-o", "/dev/stdout"]).feed(b"").end();
    assert!(ended.code == 1 && ended.stderr().contains("--continue is for a file"), "{ended:?}");
}

#[test]
fn https_get_asks_for_the_last_byte_of_what_may_be_complete() {
    let files = Files::new();
    let site = Site::start(|request, file| match request.header("range") {
        // All of it is there, but its end is not: chunks.
        None => answer(file, "HTTP/1.1 200 OK\r\nETag: \"1\"\r\nContent-Length: 10\r\n\r\nhello", Cut),
        Some("bytes=9-") => answer(
            file,
            "HTTP/1.1 206 \r\nETag: \"1\"\r\nContent-Range: bytes 9-9/10\r\nContent-Length: 1\r\n\r\nd",
            Close,
        ),
        other => panic!("{other:?}"),
    });
    assert_eq!(go_on(&files, &site.url("/")).code, 5);
    fs::write(files.dir.path().join("output.part"), "helloworld").unwrap();
    assert_eq!(go_on(&files, &site.url("/")).code, 0);
    assert_eq!(read(&files, "output"), "helloworld");
}

#[test]
fn https_get_goes_on_with_what_it_has_of_a_file_of_nginx() {
    let files = Files::new();
    let content = pattern(8, 1 << 20);
    fs::create_dir(files.dir.path().join("www")).unwrap();
    fs::write(files.dir.path().join("www/file"), &content).unwrap();
    // In a hurry for those who have waited once only.
    let slowly = "set $limit_rate 100k; if ($http_range) { set $limit_rate 0; }";
    let Some((_nginx, port)) = nginx(&files, slowly) else { return };
    let before = listing(&files).len();
    let (output, part) = (files.dir.path().join("output"), files.dir.path().join("output.part"));
    let url = format!("https://localhost:{port}/file");
    let get = || https_get(&files, &url).args(&["-v", "--continue", "-o", output.to_str().unwrap()]).open();
    let tool = get();
    wait_until("something", || fs::metadata(&part).is_ok_and(|part| part.len() > 0));
    kill_process(Pid::from_raw(tool.id() as i32).unwrap(), Signal::INT).unwrap();
    assert_eq!(tool.end().code, -2);
    assert!(fs::metadata(&part).unwrap().len() < content.len() as u64);
    let ended = get().end();
    assert!(ended.code == 0 && ended.stderr().contains("206 Partial Content"), "{ended:?}");
    assert!(fs::read(&output).unwrap() == content, "wrong bytes in the file");
    assert_eq!(listing(&files).len(), before + 1, "{:?}", listing(&files));

    // What has changed meanwhile is begun anew.
    let tool = get();
    wait_until("something", || fs::metadata(&part).is_ok_and(|part| part.len() > 0));
    kill_process(Pid::from_raw(tool.id() as i32).unwrap(), Signal::INT).unwrap();
    assert_eq!(tool.end().code, -2);
    fs::write(files.dir.path().join("www/file"), "something else").unwrap();
    let ended = get().end();
    assert!(ended.code == 0 && ended.stderr().contains("begun anew"), "{ended:?}");
    assert_eq!(read(&files, "output"), "something else");
}
