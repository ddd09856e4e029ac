//! What the `log` crate is told, with the feature of that name. A process has one logger: each test is a process of its own.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::{mpsc, Mutex, OnceLock};
use std::thread;
use std::time::Duration;

use ::log::{Level, LevelFilter, Log, Metadata, Record};
use sslfile::{Backend, Context, Engine, SslFile, SslListener};

use crate::authority::Authority;
use crate::common::{
    certs, client_builder, client_context, engines, passes_in_child, server_builder, server_context, tcp_pair, within,
    LONG, NAME,
};

const MARK: &str = "SSLFILE_TEST_LOG";

/// Keeps what it is told.
struct Collector {
    lines: Mutex<Vec<(Level, String)>>,
    /// Used by the logger itself: whoever logs holds no lock that this would wait for.
    file: Mutex<Option<SslFile>>,
}

fn collector() -> &'static Collector {
    static COLLECTOR: OnceLock<Collector> = OnceLock::new();
    COLLECTOR.get_or_init(|| Collector { lines: Mutex::default(), file: Mutex::default() })
}

impl Log for Collector {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.use_file();
        metadata.target() == "sslfile"
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            self.lines.lock().expect("lines").push((record.level(), record.args().to_string()));
            self.use_file();
        }
    }

    fn flush(&self) {}
}

impl Collector {
    fn use_file(&self) {
        // Another thread that has it uses the file.
        let Ok(file) = self.file.try_lock() else { return };
        if let Some(file) = &*file {
            let _ = (file.state(), file.unsent());
        }
    }
}

/// Runs the test in a process of its own, with the logger in it.
fn logged(name: &str, level: LevelFilter, test: impl FnOnce() + Send + 'static) {
    if std::env::var_os(MARK).is_none() {
        return passes_in_child(&format!("log::{name}"), &[(MARK, "1")]);
    }
    ::log::set_logger(collector()).expect("the only one");
    ::log::set_max_level(level);
    within(LONG, test);
}

fn take() -> Vec<(Level, String)> {
    std::mem::take(&mut *collector().lines.lock().expect("lines"))
}

/// The lines of this end, at this level, without its name.
fn lines_of(all: &[(Level, String)], end: &str, level: Level) -> Vec<String> {
    let mine = all.iter().filter(|(at, line)| *at == level && line.starts_with(end));
    mine.map(|(_, line)| line.split_once(": ").map_or(line.as_str(), |(_, what)| what).to_string()).collect()
}

const SECRET: &[u8] = b"correct horse battery staple";

/// A connection that does all there is to do: data both ways, close_notify both ways.
fn converse(client: &Context, server: &Context) -> SocketAddr {
    let (c, s) = tcp_pair();
    let addr = c.local_addr().expect("local_addr");
    thread::scope(|t| {
        t.spawn(|| {
            let mut file = SslFile::server(s, server).expect("server");
            let mut heard = vec![0; SECRET.len()];
            file.read_exact(&mut heard).expect("heard");
            file.write_all(&heard).expect("said");
            assert_eq!(file.read(&mut [0]).expect("the end"), 0);
            file.close().expect("close");
        });
        let mut file = SslFile::client(c, client, NAME).expect("client");
        *collector().file.lock().expect("file") = file.try_clone().ok();
        file.write_all(SECRET).expect("said");
        file.read_exact(&mut vec![0; SECRET.len()]).expect("heard");
        file.close().expect("close");
    });
    drop(collector().file.lock().expect("file").take());
    addr
}

#[test]
fn handshakes_alerts_and_ends_are_told_and_neither_data_nor_secrets() {
    logged("handshakes_alerts_and_ends_are_told_and_neither_data_nor_secrets", LevelFilter::Trace, || {
        for engine in engines() {
            let (keys, logged_keys) = mpsc::channel();
            let keys = Mutex::new(keys);
            let client = client_builder(engine).alpn(["talk/1"]);
            let client = match engine {
                Engine::Native => client,
                _ => client.key_log(move |line| {
                    let _ = keys.lock().expect("keys").send(line.to_string());
                }),
            };
            let client = client.build().expect("client context");
            let server = server_builder(engine).alpn(["talk/1"]).build().expect("server context");
            let addr = converse(&client, &server);
            let all = take();

            let client_lines = lines_of(&all, "client of localhost", Level::Debug);
            let [shaken, closed] = &client_lines[..] else { panic!("{all:?}") };
            let facts = match engine {
                Engine::Native => ", ALPN talk/1",
                _ => "s, TLSv1.3, TLS_",
            };
            assert!(shaken.starts_with("handshake done in ") && shaken.contains(facts), "{shaken}");
            assert!(shaken.contains("ALPN talk/1"), "{shaken}");
            assert!(closed.starts_with("closed; ") && closed.ends_with("handshake included"), "{closed}");
            let server_lines = lines_of(&all, &format!("server for {addr}"), Level::Debug);
            let [shaken, closed] = &server_lines[..] else { panic!("{all:?}") };
            assert!(engine == Engine::Native || shaken.contains(", asked for localhost"), "{shaken}");
            assert!(closed.starts_with("closed; "), "{closed}");
            for end in ["client of localhost", &format!("server for {addr}")] {
                let alerts = lines_of(&all, end, Level::Trace);
                let wanted = ["sent the alert close_notify (0)", "received the alert close_notify (0)"];
                assert!(
                    wanted.iter().all(|line| alerts.iter().any(|alert| alert == line)),
                    "{engine:?}, {end}: {alerts:?}"
                );
            }

            // Neither what was said nor what protects it, whole or in part, as text or as numbers.
            let text = all.iter().map(|(_, line)| line.as_str()).collect::<Vec<_>>().join("\n");
            let said = String::from_utf8_lossy(SECRET);
            let numbers = format!("{:?}", &SECRET[..8]);
            for secret in [&said[..7], numbers.trim_matches(['[', ']'])] {
                assert!(!text.contains(secret), "{text}");
            }
            for line in logged_keys.try_iter() {
                let secret = line.rsplit(' ').next().expect("a secret");
                assert!(secret.len() >= 64 && !text.contains(&secret[..16]), "{text}");
            }
            for line in certs().ecdsa.key.lines().filter(|line| !line.starts_with("-----")) {
                assert!(!text.contains(line), "{text}");
            }
        }
    });
}

#[test]
fn refused_peers_are_told_with_the_cause_and_the_alert() {
    logged("refused_peers_are_told_with_the_cause_and_the_alert", LevelFilter::Debug, || {
        let stranger = Authority::new("nobody's friend");
        let pair = stranger.expired();
        for engine in engines() {
            let server = server_builder(engine).identity(pair.identity()).build().expect("server context");
            let (c, s) = tcp_pair();
            let addr = c.local_addr().expect("local_addr");
            let client = client_context(engine);
            thread::scope(|t| {
                t.spawn(|| SslFile::server(s, &server).map(|file| read_away(&file)));
                SslFile::client(c, &client, NAME).expect_err("a stranger");
            });
            let all = take();
            let client_lines = lines_of(&all, "client of localhost", Level::Debug);
            let refused = client_lines.iter().any(|line| {
                line.starts_with("TLS handshake: the peer's certificate is not acceptable: ")
                    && line.contains("bytes have come")
            });
            assert!(refused, "{all:?}");
            let server_lines = lines_of(&all, &format!("server for {addr}"), Level::Debug);
            assert!(server_lines.iter().any(|line| line.starts_with("received the alert ")), "{engine:?}: {all:?}");
            assert!(all.iter().all(|(level, _)| *level == Level::Debug), "{all:?}");
        }
    });
}

fn read_away(mut file: &SslFile) {
    let _ = file.read_to_end(&mut Vec::new());
}

/// A cut, a drop, a client that speaks no TLS: of what that has sent nothing is told.
#[test]
fn bad_ends_are_told() {
    logged("bad_ends_are_told", LevelFilter::Debug, || {
        for engine in engines() {
            let (c, s) = tcp_pair();
            let addr = c.local_addr().expect("local_addr");
            let (client, server) = (client_context(engine), server_context(engine));
            thread::scope(|t| {
                t.spawn(|| {
                    let file = SslFile::server(s, &server).expect("server");
                    file.get_ref().shutdown(std::net::Shutdown::Both).expect("cut");
                });
                let file = SslFile::client(c, &client, NAME).expect("client");
                read_away(&file);
            });
            let all = take();
            let ends = lines_of(&all, "client of localhost", Level::Debug);
            assert!(ends.iter().any(|line| line.starts_with("ended: ")), "{all:?}");
            let ends = lines_of(&all, &format!("server for {addr}"), Level::Debug);
            assert_eq!(ends.iter().filter(|line| line.contains("handshake included")).count(), 1, "{all:?}");

            let (mut c, s) = tcp_pair();
            let addr = c.local_addr().expect("local_addr");
            c.write_all(b"GET /?token=geheim HTTP/1.0\r\n\r\n").expect("a request");
            SslFile::server(s, &server).expect_err("no TLS");
            let all = take();
            let ends = lines_of(&all, &format!("server for {addr}"), Level::Debug);
            assert!(ends.iter().any(|line| line.contains("does not speak TLS")), "{all:?}");
            assert!(all.iter().all(|(_, line)| !line.contains("geheim") && !line.contains("GET")), "{all:?}");
        }
    });
}

/// In callback mode nobody else may hear of them.
#[test]
fn a_listener_tells_whom_it_gives_up_and_what_it_cannot_do() {
    logged("a_listener_tells_whom_it_gives_up_and_what_it_cannot_do", LevelFilter::Debug, || {
        let engine = engines()[0];
        let listener = SslListener::bind("127.0.0.1:0", &server_context(engine)).expect("bind");
        let addr = listener.local_addr().expect("local_addr");
        let backend = Backend::new().expect("backend");
        listener.set_pending_limit(1);
        listener.set_accept_callback(&backend, |_, _| {}).expect("callback");
        let silent = TcpStream::connect(addr).expect("connect");
        let named = format!("listener on {addr}, client {}: ", silent.local_addr().expect("local_addr"));
        let mut heard = Vec::new();
        let mut others = Vec::new();
        while !heard.iter().any(|(_, line): &(Level, String)| line.starts_with(&named)) {
            // There is no room for it until the silent one has been given up.
            if others.is_empty() {
                others.push(TcpStream::connect(addr).expect("connect"));
            }
            backend.turn(Some(Duration::from_millis(100))).expect("turn");
            heard.extend(take());
        }
        listener.close();
        assert_eq!(listener.accept().expect_err("closed").kind(), ErrorKind::NotConnected);
        let own = format!("listener on {addr}: ");
        assert_eq!(lines_of(&take(), &own, Level::Debug), ["the listener has been closed"]);
    });
}

/// What nobody wants to hear costs nothing and is not told.
#[test]
fn at_info_nothing_is_told() {
    logged("at_info_nothing_is_told", LevelFilter::Info, || {
        for engine in engines() {
            converse(&client_context(engine), &server_context(engine));
            assert_eq!(take(), []);
        }
    });
}
