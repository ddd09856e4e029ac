//! A server that asks for the client's certificate when it has read what is wanted (RFC 8446, section 4.6.2): Python's.

use std::io::{self, Read, Write};
use std::path::Path;
use std::process::Command;

use sslfile::{ContextBuilder, ErrorKind, SslFile, Version};

use super::rig::{at, context, Server};
use crate::authority::{leaf_params, Authority};
use crate::common::{certs, client_builder, engines, kind_of, until_ready, NAME};
use crate::harness::{find, run, Bench};

/// Reads a word, asks, reads another one, and says whom it sees. Arguments: port, certificate, key, root, what is demanded.
const SERVER: &str = r#"
import os, socket, ssl, sys
port, cert, key, root, demand = sys.argv[1:]
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(cert, key)
context.load_verify_locations(root)
context.post_handshake_auth = True
context.verify_mode = getattr(ssl, demand)
listener = socket.create_server(("127.0.0.1", int(port)))
with context.wrap_socket(listener.accept()[0], server_side=True) as peer:
    try:
        assert peer.recv(5) == b"first"
        assert peer.version() == "TLSv1.2" or peer.getpeercert() is None
        peer.verify_client_post_handshake()
        peer.sendall(b"asked")
        assert peer.recv(6) == b"second"
        peer.sendall(repr((peer.getpeercert() or {}).get("subject")).encode())
        peer.unwrap()
    except ssl.SSLError as error:
        print(error.reason)
        # What is left unread would make a reset of the end, and the client might not see the alert.
        socket.socket.shutdown(peer, socket.SHUT_WR)
        while os.read(peer.fileno(), 4096): pass
"#;

struct Rig<'a> {
    bench: &'a Bench,
    python: &'a Path,
    root: std::path::PathBuf,
}

impl Rig<'_> {
    fn server(&self, demand: &str) -> Server {
        let own = &self.bench.files.ecdsa;
        Server::start(self.bench, |port| {
            let mut command = Command::new(self.python);
            command.args(["-c", SERVER, &port.to_string()]).args([&own.chain, &own.key, &self.root]).arg(demand);
            command
        })
    }
}

/// What the server says in the end.
fn talk(mut file: &SslFile, nonblocking: bool) -> io::Result<String> {
    file.set_nonblocking(nonblocking)?;
    let word = |word: &[u8]| until_ready(file, || (&*file).write(word)).map(|n| assert_eq!(n, word.len()));
    word(b"first")?;
    let mut asked = [0; 5];
    let mut heard = 0;
    while heard < asked.len() {
        match until_ready(file, || (&*file).read(&mut asked[heard..]))? {
            0 => return Ok("an end".to_string()),
            n => heard += n,
        }
    }
    assert_eq!(&asked, b"asked");
    word(b"second")?;
    file.set_nonblocking(false)?;
    let mut last = String::new();
    file.read_to_string(&mut last)?;
    Ok(last)
}

fn open(server: &Server, builder: ContextBuilder) -> SslFile {
    server.open(&builder.build().expect("context"), NAME).expect("open")
}

#[test]
fn a_client_shows_its_certificate_when_asked_after_the_handshake() {
    run(find(&["python3"]), |bench, python| {
        let authority = Authority::new("of the clients");
        let mut params = leaf_params();
        params.distinguished_name.push(rcgen::DnType::CommonName, "somebody");
        let somebody = authority.sign(params);
        let root = super::rig::write(bench, "clients.pem", &authority.pem);
        let rig = Rig { bench, python: &python, root };
        for engine in engines() {
            let builder = client_builder(engine).post_handshake_auth(true);
            if context(engine, "post_handshake_auth", builder.clone()).is_none() {
                continue;
            }
            for nonblocking in [false, true] {
                let server = rig.server("CERT_REQUIRED");
                let file = open(&server, builder.clone().identity(somebody.identity()));
                let said = talk(&file, nonblocking).unwrap_or_else(|e| panic!("{engine:?}: {e}"));
                assert!(said.contains("somebody"), "{engine:?}: {said}; {}", server.said());

                // One without a certificate says that it has none, and the server thinks what it likes of that.
                let server = rig.server("CERT_OPTIONAL");
                let said = talk(&open(&server, builder.clone()), nonblocking).expect("welcome all the same");
                assert_eq!(said, "None", "{engine:?}: {}", server.said());
                let server = rig.server("CERT_REQUIRED");
                let error = talk(&open(&server, builder.clone()), nonblocking).expect_err("one is required");
                assert_eq!(kind_of(&error), Some(ErrorKind::PeerAlert(116)), "{engine:?}: {error}; {}", server.said());
            }
        }
    });
}

/// By default, and in a version that does not know it: then the server may not ask.
#[test]
fn a_client_that_did_not_offer_it_is_not_asked() {
    run(find(&["python3"]), |bench, python| {
        let rig = Rig { bench, python: &python, root: bench.files.roots.clone() };
        for engine in engines() {
            let shy = client_builder(engine).identity(certs().client.identity());
            let old = at(Version::Tls1_2, shy.clone().post_handshake_auth(true));
            let builders = [(shy, "EXTENSION_NOT_RECEIVED"), (old, "WRONG_SSL_VERSION")];
            for (builder, reason) in builders {
                if builder.clone().build().is_err() {
                    continue;
                }
                let server = rig.server("CERT_REQUIRED");
                let file = open(&server, builder);
                let said = talk(&file, false);
                drop(file);
                let told = server.said();
                assert!(told.contains(reason), "{engine:?}: {said:?}, {told}");
            }
        }
    });
}

/// A file over a backend answers without being asked to do anything.
#[test]
fn a_file_on_a_backend_answers_by_itself() {
    run(find(&["python3"]), |bench, python| {
        let authority = Authority::new("of the clients");
        let root = super::rig::write(bench, "clients.pem", &authority.pem);
        let rig = Rig { bench, python: &python, root };
        let somebody = authority.sign(leaf_params());
        for engine in engines() {
            let builder = client_builder(engine).post_handshake_auth(true).identity(somebody.identity());
            let Some(context) = context(engine, "post_handshake_auth", builder) else { continue };
            let server = rig.server("CERT_REQUIRED");
            let backend = sslfile::Backend::new().expect("backend");
            let file = server.open_with(SslFile::options().client(NAME).backend(&backend), &context).expect("open");
            let heard = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
            let (notes, stop) = (heard.clone(), backend.clone());
            file.set_read_callback(move |file, data| {
                let mut heard = notes.lock().expect("lock");
                heard.extend_from_slice(data);
                if &**heard == b"asked" {
                    file.send(b"second").expect("send");
                }
            });
            file.set_close_callback(move |_, _| stop.stop());
            file.send(b"first").expect("send");
            backend.run().expect("run");
            let heard = String::from_utf8(heard.lock().expect("lock").clone()).expect("text");
            assert!(heard.starts_with("asked((") && heard.contains(NAME), "{heard}; {}", server.said());
        }
    });
}
