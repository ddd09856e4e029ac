//! What a server may cost us, and gzip.

use std::fs;
use std::io::Write;
use std::thread;
use std::time::{Duration, Instant};

use flate2::write::GzEncoder;
use flate2::Compression;

use super::site::{answer, https_get, listing, Close, Site};
use crate::common::pattern;
use crate::tool::{Files, Server};

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn https_get_undoes_gzip_when_asked_to_and_takes_no_damaged_one() {
    let files = Files::new();
    // It does not get much shorter.
    let text = pattern(9, 100_000);
    let whole = gzip(&text);
    let mut flipped = whole.clone();
    flipped[50_000] ^= 1;
    let mut sum = whole.clone();
    let len = sum.len();
    sum[len - 6] ^= 1;
    let bodies = vec![
        ("/whole", whole.clone(), Some(text.clone())),
        ("/two", [gzip(b"one"), gzip(b"two")].concat(), Some(b"onetwo".to_vec())),
        ("/nothing", gzip(b""), Some(Vec::new())),
        // As for a length of zero.
        ("/empty", Vec::new(), Some(Vec::new())),
        ("/half", whole[..len / 2].to_vec(), None),
        ("/last", whole[..len - 1].to_vec(), None),
        ("/head", whole[..5].to_vec(), None),
        ("/flipped", flipped, None),
        ("/sum", sum, None),
        ("/behind", [&*whole, b"trailing words"].concat(), None),
        ("/plain", text.clone(), None),
    ];
    let served = bodies.clone();
    let site = Site::start(move |request, file| {
        let (path, coding) = request.path.split_once('?').unwrap();
        let (_, body, _) = served.iter().find(|(known, _, _)| *known == path).expect("a known path");
        let length = if coding == "chunked" {
            "Transfer-Encoding: chunked".into()
        } else {
            format!("Content-Length: {}", body.len())
        };
        let head = format!("HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n{length}\r\n\r\n");
        let chunk = |bytes: &[u8]| [format!("{:x}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat();
        let body = match coding {
            "chunked" => body.chunks(7000).map(chunk).chain([b"0\r\n\r\n".to_vec()]).flatten().collect(),
            _ => body.clone(),
        };
        answer(file, [head.as_bytes(), &body].concat(), Close)
    });
    let output = files.dir.path().join("output");
    let before = listing(&files);
    for (path, _, expected) in &bodies {
        for coding in ["length", "chunked"] {
            let url = site.url(&format!("{path}?{coding}"));
            let ended = https_get(&files, &url).args(&["--gzip", "-o", output.to_str().unwrap()]).feed(b"").end();
            assert_eq!(site.requests()[0].header("accept-encoding"), Some("gzip"));
            match expected {
                Some(expected) => {
                    assert_eq!((ended.code, ended.stderr()), (0, ""), "{url}: {ended:?}");
                    assert!(fs::read(&output).unwrap() == *expected, "{url}");
                    fs::remove_file(&output).unwrap();
                }
                None => assert!(ended.code == 5 && !ended.stderr.is_empty(), "{url}: {ended:?}"),
            }
            assert_eq!(listing(&files), before, "{url}");
        }
    }
    // Not asked for, it is what it is.
    let ended = https_get(&files, &site.url("/whole?length")).feed(b"").end();
    assert!(ended.code == 0 && ended.stdout == whole && ended.stderr().contains("gzip"), "{ended:?}");
    let site = Site::of(&[
        ("/br", "HTTP/1.1 200 OK\r\nContent-Encoding: br\r\nContent-Length: 5\r\n\r\nhello", Close),
        ("/none", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", Close),
    ]);
    assert_eq!(https_get(&files, &site.url("/br")).args(&["--gzip"]).feed(b"").end().code, 7);
    let ended = https_get(&files, &site.url("/none")).args(&["--gzip"]).feed(b"").end();
    assert_eq!((ended.code, ended.stdout()), (0, "hello"), "{ended:?}");
}

/// Something for ever, behind this head.
fn endless(head: &'static str, piece: &'static str) -> Site {
    Site::start(move |_, mut file| {
        file.write_all(head.as_bytes())?;
        let pieces = piece.repeat(4096 / piece.len());
        loop {
            file.write_all(pieces.as_bytes())?;
        }
    })
}

#[test]
fn https_get_says_which_lines_have_no_end() {
    let files = Files::new();
    let ok = "HTTP/1.1 200 OK\r\n";
    let chunks = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n";
    let cases = [
        (endless("", "x"), "headers"),
        (endless(ok, "x"), "headers"),
        (endless(ok, "A: b\r\n"), "headers"),
        (endless("", "HTTP/1.1 103 Early Hints\r\n\r\n"), "headers"),
        (endless(chunks, "x"), "trailers"),
        (endless(chunks, "A: b\r\n"), "trailers"),
        (endless("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "0"), "lines between chunks"),
        (endless("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;", "x"), "lines between chunks"),
    ];
    for (i, (site, what)) in cases.iter().enumerate() {
        let ended = https_get(&files, &site.url("/")).feed(b"").end();
        let said = format!("{what} have no end: more than 262144 bytes");
        assert!(ended.code == 7 && ended.stderr().contains(&said), "{i}: {ended:?}");
    }
    // More than fit into our table, though they end.
    let site = Site::start(|_, file| {
        answer(file, format!("HTTP/1.1 200 OK\r\n{}Content-Length: 0\r\n\r\n", "A: b\r\n".repeat(2000)), Close)
    });
    let ended = https_get(&files, &site.url("/")).feed(b"").end();
    assert!(ended.code == 7 && ended.stderr().contains("too many headers"), "{ended:?}");
}

#[test]
fn https_get_takes_long_lines_and_many() {
    let files = Files::new();
    let long = format!("A: {}\r\n", "x".repeat(64 * 1024));
    let many = "A: b\r\n".repeat(500);
    let heads = [long.clone(), long.repeat(3), many.clone()];
    for lines in heads {
        let (head, trailers) = (lines.clone(), lines);
        let site = Site::start(move |_, file| {
            let text =
                format!("HTTP/1.1 200 OK\r\n{head}Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n{trailers}\r\n");
            answer(file, text, Close)
        });
        let ended = https_get(&files, &site.url("/")).feed(b"").end();
        assert_eq!((ended.code, ended.stdout()), (0, "hello"), "{ended:?}");
    }
}

/// Something now and then, behind this head.
fn dripping(head: &'static str, piece: &'static str) -> Site {
    Site::start(move |_, mut file| {
        file.write_all(head.as_bytes())?;
        loop {
            file.write_all(piece.as_bytes())?;
            thread::sleep(Duration::from_millis(100));
        }
    })
}

const CHUNKS: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n";
const BODY: &str = "HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n";

#[test]
fn https_get_waits_for_no_head_and_no_trailers_however_they_drip() {
    let files = Files::new();
    let silent = || Site::start(|_, mut file| std::io::Read::read(&mut file, &mut [0]).map(drop));
    let cases = [
        silent(),
        dripping("HTTP/1.1 200 OK\r\n", "A: b\r\n"),
        dripping("HTTP/1.1 200", " "),
        dripping(CHUNKS, "A: b\r\n"),
    ];
    // A body that comes slowly may come for longer than that, one that does not may not.
    let slow = Site::start(|request, mut file| {
        file.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n")?;
        for letter in "hello".bytes() {
            file.write_all(&[letter])?;
            thread::sleep(Duration::from_secs(1));
            if request.path == "/stops" {
                return std::io::Read::read(&mut file, &mut [0]).map(drop);
            }
        }
        file.close()
    });
    let get = |url: String| https_get(&files, &url).args(&["-w", "3"]).feed(b"");
    let tools = cases.iter().map(|site| get(site.url("/"))).collect::<Vec<_>>();
    let (comes, stops) = (get(slow.url("/")), get(slow.url("/stops")));
    for (i, tool) in tools.into_iter().enumerate() {
        let ended = tool.end();
        assert!(ended.code == 5 && ended.stderr().contains(" has passed"), "{i}: {ended:?}");
    }
    let ended = comes.end();
    assert_eq!((ended.code, ended.stdout()), (0, "hello"), "{ended:?}");
    let ended = stops.end();
    assert!(ended.code == 5 && ended.stderr().contains("1 of 5 bytes: "), "{ended:?}");
}

#[test]
fn https_get_has_a_limit_for_all_of_it() {
    let files = Files::new();
    let before = listing(&files);
    let output = files.dir.path().join("output");
    let redirects = Site::start(|_, file| {
        thread::sleep(Duration::from_millis(300));
        answer(file, "HTTP/1.1 302 \r\nLocation: /\r\nContent-Length: 0\r\n\r\n", Close)
    });
    let cases =
        [dripping("HTTP/1.1 200 OK\r\n", "A: b\r\n"), dripping(BODY, "x"), dripping(CHUNKS, "A: b\r\n"), redirects];
    let began = Instant::now();
    let get = |(i, site): (usize, &Site)| {
        let output = format!("{}{i}", output.display());
        https_get(&files, &site.url("/")).args(&["--max-time", "2", "-o", &output]).feed(b"")
    };
    let tools = cases.iter().enumerate().map(get).collect::<Vec<_>>();
    for (i, tool) in tools.into_iter().enumerate() {
        let ended = tool.end();
        assert!(ended.code == 5 && ended.stderr().contains("--max-time"), "{i}: {ended:?}");
        assert!(began.elapsed() >= Duration::from_secs(2), "{i}");
        // The connection's deadline can say more than the clock that comes behind it.
        assert!(i != 1 || ended.stderr().contains(" of 100000 bytes"), "{ended:?}");
    }
    assert_eq!(listing(&files), before);
    // No TLS at all.
    let silent = Server::start(|mut tcp| drop(std::io::Read::read_to_end(&mut tcp, &mut Vec::new())));
    let url = format!("https://localhost:{}/", silent.port);
    let ended = https_get(&files, &url).args(&["--max-time", "1"]).feed(b"").end();
    assert!(ended.code == 5 && ended.stderr().contains("--max-time"), "{ended:?}");
    let ended = https_get(&files, &cases[1].url("/")).args(&["--max-time", "0"]).feed(b"").end();
    assert_eq!(ended.code, 1, "{ended:?}");
}

/// Where the connection's deadlines do not help: nobody reads the output.
#[test]
#[cfg(unix)]
fn https_get_has_a_limit_for_its_output_too() {
    let files = Files::new();
    let fifo = super::site::fifo(&files);
    let site = Site::start(|_, file| answer(file, [BODY.as_bytes(), &[b'x'; 100_000]].concat(), Close));
    // Nobody has opened it; and somebody has, who does not read.
    let reader = || fs::OpenOptions::new().read(true).write(true).open(&fifo).unwrap();
    for reads in [false, true] {
        let _reader = reads.then(reader);
        let args = ["--max-time", "1", "-o", fifo.to_str().unwrap()];
        let ended = https_get(&files, &site.url("/")).args(&args).feed(b"").end();
        assert!(ended.code == 5 && ended.stderr().contains("--max-time"), "{ended:?}");
    }
}
