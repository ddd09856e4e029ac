//! `ureq_agent`: with Python's HTTPS server, through tinyproxy, and with servers that do not answer.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use ureq::config::Config;
use ureq::{Agent, Error, Proxy, Timeout};

use super::rig::{files, free_port, is_here, rigs, Peer, PYTHON};
use crate::examples::ureq_agent::agent;

/// Says on which connection the request came, in the order of their coming, and repeats its body.
const SERVER: &str = "
import http.server, itertools, ssl, sys
count = itertools.count(1)
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'
    timeout = 60
    def setup(self):
        super().setup()
        self.number = next(count)
    def do_POST(self):
        body = b'%d ' % self.number + self.rfile.read(int(self.headers['Content-Length']))
        self.send_response(200)
        self.send_header('Content-Length', str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *_): pass
server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(sys.argv[1] + '/chain.pem', sys.argv[1] + '/key.pem')
server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
print(server.server_address[1])
server.serve_forever()
";

fn config() -> Config {
    // Whatever proxy the environment has.
    Agent::config_builder().proxy(None).timeout_global(Some(Duration::from_secs(60))).build()
}

fn post(agent: &Agent, port: u16, body: &[u8]) -> Result<Vec<u8>, Error> {
    let mut answer = agent.post(format!("https://localhost:{port}/")).send(body)?;
    answer.body_mut().with_config().limit(100_000_000).read_to_vec()
}

#[test]
fn ureq_keeps_its_connections() {
    if !is_here(PYTHON, &["-c", "import ssl"]) {
        return;
    }
    let folder = files();
    let (_server, port) = Peer::python(SERVER, &[folder.path().to_str().expect("path")]);
    for (number, rig) in rigs().enumerate() {
        let agent = agent(config(), &rig.client);
        let long = vec![b'x'; 3_000_000];
        for body in [b"one", &*long, b"three"] {
            let expected = [format!("{} ", number + 1).as_bytes(), body].concat();
            assert!(post(&agent, port, body).expect("an answer") == expected, "{:?}", rig.engine);
        }
    }
}

#[test]
fn ureq_goes_through_a_proxy() {
    if !is_here(PYTHON, &["-c", "import ssl"]) || !is_here("tinyproxy", &["-v"]) {
        return;
    }
    let folder = files();
    let (_server, target) = Peer::python(SERVER, &[folder.path().to_str().expect("path")]);
    let (port, _claim) = free_port();
    let settings = folder.path().join("tinyproxy.conf");
    let text = format!("Port {port}\nListen 127.0.0.1\nTimeout 60\nMaxClients 20\nLogLevel Error\n");
    std::fs::write(&settings, text).expect("write");
    let _proxy = Peer::start(Command::new("tinyproxy").arg("-d").arg("-c").arg(&settings));
    let deadline = Instant::now() + Duration::from_secs(60);
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(Instant::now() < deadline, "tinyproxy does not listen");
        thread::sleep(Duration::from_millis(10));
    }
    for rig in rigs() {
        let proxy = Proxy::new(&format!("http://127.0.0.1:{port}")).expect("proxy");
        let config = Agent::config_builder().proxy(Some(proxy)).timeout_global(Some(Duration::from_secs(60)));
        let agent = agent(config.build(), &rig.client);
        let long = vec![b'x'; 1_000_000];
        let answers =
            [post(&agent, target, b"one"), post(&agent, target, &long)].map(|answer| answer.expect("an answer"));
        // On one connection, too.
        let number = answers[0].strip_suffix(b"one").expect("the body");
        assert!(answers[1] == [number, &long].concat(), "{:?}", rig.engine);
    }
}

/// What it comes to when the server behaves so, and how long that took.
fn against(serve: fn(TcpStream), config: Config, client: &sslfile::Context) -> (Error, Duration) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("bind");
    let port = listener.local_addr().expect("address").port();
    thread::spawn(move || serve(listener.accept().expect("accept").0));
    let began = Instant::now();
    let error = post(&agent(config, client), port, b"?").expect_err("no answer");
    (error, began.elapsed())
}

#[test]
fn ureqs_time_outs_bound_the_handshake_and_the_answer() {
    let bounds = Duration::from_millis(300)..Duration::from_secs(20);
    for rig in rigs() {
        // It begins a record of 4096 bytes, and never gets there: each `read` of the system gets something.
        let drips_in_a_record = |mut tcp: TcpStream| {
            let _ = tcp.read(&mut [0; 4096]);
            let _ = tcp.write_all(&[22, 3, 3, 16, 0, 2, 0, 15, 252]);
            while tcp.write_all(&[0]).is_ok() {
                thread::sleep(Duration::from_millis(50));
            }
        };
        let silent = |mut tcp: TcpStream| drop(tcp.read_to_end(&mut Vec::new()));
        for serve in [silent as fn(TcpStream), drips_in_a_record] {
            let config = Agent::config_builder().proxy(None).timeout_connect(Some(Duration::from_millis(300))).build();
            let (error, took) = against(serve, config, &rig.client);
            assert!(matches!(error, Error::Timeout(Timeout::Connect)), "{:?}: {error:?}", rig.engine);
            assert!(bounds.contains(&took), "{:?}: {took:?}", rig.engine);
        }

        // A handshake, and then an answer that drips.
        let (listener, port) = rig.listen();
        let (ended, end) = mpsc::channel();
        thread::spawn(move || {
            let (mut file, _) = listener.accept().expect("accept");
            let _ = file.read(&mut [0; 4096]);
            let _ = file.write_all(b"HTTP/1.1 200 OK\r\nX: ");
            while file.write_all(b"x").is_ok() {
                thread::sleep(Duration::from_millis(50));
            }
            let _ = ended.send(());
        });
        let config =
            Agent::config_builder().proxy(None).timeout_recv_response(Some(Duration::from_millis(300))).build();
        let agent = agent(config, &rig.client);
        let began = Instant::now();
        let error = post(&agent, port, b"?").expect_err("no answer");
        assert!(matches!(error, Error::Timeout(Timeout::RecvResponse)), "{:?}: {error:?}", rig.engine);
        assert!(bounds.contains(&began.elapsed()), "{:?}", began.elapsed());
        // The connection has gone, with its pool.
        end.recv_timeout(Duration::from_secs(60)).expect("an end");
    }
}

#[test]
fn ureq_takes_a_cut_for_an_error_and_refuses_who_is_unknown() {
    for rig in rigs() {
        let (listener, port) = rig.listen();
        thread::spawn(move || {
            let (mut file, _) = listener.accept().expect("accept");
            let _ = file.read(&mut [0; 4096]);
            // Without a length: the end says that this was all.
            let _ = file.write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhalf of ");
            let _ = file.flush();
            file.abort();
        });
        let error = post(&agent(config(), &rig.client), port, b"?").expect_err("half an answer");
        assert!(
            matches!(&error, Error::Io(e) if e.kind() == std::io::ErrorKind::BrokenPipe),
            "{:?}: {error:?}",
            rig.engine
        );

        let (listener, port) = rig.listen();
        thread::spawn(move || listener.accept().map(|(file, _)| file.handshake()));
        let stranger = sslfile::Context::builder().engine(rig.engine).system_roots(false);
        let other = rcgen::generate_simple_self_signed(["localhost".to_string()]).expect("certificate");
        let stranger = stranger.add_root(sslfile::Certificate::from_pem(other.cert.pem().as_bytes()).expect("root"));
        let error = post(&agent(config(), &stranger.build().expect("context")), port, b"?").expect_err("unknown");
        let Error::Io(error) = error else { panic!("{error:?}") };
        assert_eq!(
            sslfile::Error::of(&error).map(sslfile::Error::kind),
            Some(sslfile::ErrorKind::Certificate),
            "{error}"
        );
    }
}
