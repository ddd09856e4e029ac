//! Trust is on by default: system roots, host name or address checked; each refusal is typed on both ends.

use std::io::ErrorKind;
use std::net::SocketAddr;

use sslfile::{Certificate, Context, ContextBuilder, Engine, ErrorKind as Kind, SslFile};

use super::{assert_says, shake};
use crate::authority::{leaf_params, Authority};
use crate::common::{
    ca, certs, client_builder, client_context, engines, kind_of, loopbacks, server_builder, server_context,
    tls_pair_with, within, Pair, LONG, NAME,
};

const UNKNOWN_CA: u8 = 48;
const CERTIFICATE_EXPIRED: u8 = 45;
const BAD_CERTIFICATE: u8 = 42;

/// Each engine as client against each as server, blocking and not.
fn for_each_pair(test: impl Fn(Engine, Engine, bool) + Send + Copy + 'static) {
    for client in engines() {
        for server in engines() {
            for nonblocking in [false, true] {
                within(LONG, move || test(client, server, nonblocking));
            }
        }
    }
}

fn serve(engine: Engine, pair: &Pair) -> Context {
    server_builder(engine).identity(pair.identity()).build().expect("server context")
}

/// The client refuses with this kind and the server hears of it by this alert.
#[track_caller]
fn assert_refused(client: &Context, name: &str, server: &Context, nonblocking: bool, kind: Kind, alert: u8) {
    let (ours, theirs) = shake(client, name, server, nonblocking).errors();
    assert_eq!(kind_of(&ours), Some(kind), "{ours}");
    assert_eq!(ours.kind(), ErrorKind::InvalidData, "{ours}");
    assert_says(&ours, &[name]);
    assert_eq!(kind_of(&theirs), Some(Kind::PeerAlert(alert)), "{theirs}");
    assert_eq!(theirs.kind(), ErrorKind::InvalidData, "{theirs}");
}

#[test]
fn right_name_is_accepted() {
    for_each_pair(|client, server, nonblocking| {
        let server = server_context(server);
        for name in [NAME, "127.0.0.1", "::1"] {
            shake(&client_context(client), name, &server, nonblocking).files();
        }
    });
}

#[test]
fn wrong_name_is_refused() {
    for_each_pair(|client, server, nonblocking| {
        let client = client_context(client);
        let right = server_context(server);
        for name in ["example.com", "localhost.example", "sub.localhost", "127.0.0.2", "::2"] {
            let kind = Kind::HostnameMismatch;
            assert_refused(&client, name, &right, nonblocking, kind, BAD_CERTIFICATE);
        }
        let other = serve(server, &certs().other_name);
        for name in [NAME, "127.0.0.1", "::1"] {
            let kind = Kind::HostnameMismatch;
            assert_refused(&client, name, &other, nonblocking, kind, BAD_CERTIFICATE);
        }
        shake(&client, "wrong.example", &other, nonblocking).files();
    });
}

/// An address must stand in the certificate as one: in the common name, or as a DNS name, it is worth nothing.
#[test]
fn address_as_text_is_no_address() {
    let authority = Authority::new("text addresses");
    let mut params = rcgen::CertificateParams::new(vec!["localhost".to_string()]).expect("names");
    params.distinguished_name.push(rcgen::DnType::CommonName, "127.0.0.1");
    let pair = authority.sign(params);
    for engine in engines() {
        let client = Context::builder()
            .engine(engine)
            .system_roots(false)
            .add_root(authority.certificate())
            .build()
            .expect("context");
        let server = serve(engine, &pair);
        let kind = Kind::HostnameMismatch;
        assert_refused(&client, "127.0.0.1", &server, false, kind, BAD_CERTIFICATE);
        shake(&client, "localhost", &server, false).files();
    }
}

#[test]
fn wildcard_stands_for_one_label() {
    let authority = Authority::new("wildcards");
    let params = rcgen::CertificateParams::new(vec!["*.example.com".to_string()]).expect("names");
    let pair = authority.sign(params);
    for engine in engines() {
        let client = Context::builder()
            .engine(engine)
            .system_roots(false)
            .add_root(authority.certificate())
            .build()
            .expect("context");
        let server = serve(engine, &pair);
        shake(&client, "www.example.com", &server, false).files();
        shake(&client, "WWW.Example.COM", &server, false).files();
        for name in ["example.com", "a.b.example.com"] {
            let kind = Kind::HostnameMismatch;
            assert_refused(&client, name, &server, false, kind, BAD_CERTIFICATE);
        }
    }
}

/// `SslFile::connect` checks the host of the address it is given, IPv4 and IPv6.
#[test]
fn connect_checks_the_host_of_the_address() {
    for engine in engines() {
        for addr in loopbacks().into_iter().map(|ip| SocketAddr::from((ip, 0))) {
            within(LONG, move || {
                let context = client_context(engine);
                for (pair, good) in [(&certs().ecdsa, true), (&certs().other_name, false)] {
                    let listener = sslfile::SslListener::bind(addr, &serve(engine, pair)).expect("bind");
                    let addr = listener.local_addr().expect("addr");
                    std::thread::scope(|t| {
                        let server = t.spawn(|| listener.accept().expect("accept").0.handshake());
                        let client = SslFile::options().connect(addr, &context);
                        assert_eq!(server.join().expect("server").is_ok(), good);
                        match client {
                            Ok(_) => assert!(good),
                            Err(e) => {
                                assert_eq!(kind_of(&e), Some(Kind::HostnameMismatch), "{e}");
                                assert_says(&e, &[&addr.ip().to_string()]);
                            }
                        }
                    });
                }
            });
        }
    }
}

#[test]
fn unknown_authority_is_refused() {
    let authority = Authority::new("nobody's friend");
    let pair = authority.sign(leaf_params());
    let with_root = Pair { chain: pair.chain.clone() + &authority.pem, key: pair.key.clone() };
    let pairs = leak([pair, with_root]);
    for_each_pair(move |client, server, nonblocking| {
        let client = client_context(client);
        for pair in pairs {
            let server = serve(server, pair);
            assert_refused(&client, NAME, &server, nonblocking, Kind::Certificate, UNKNOWN_CA);
        }
    });
}

/// For the threads of the watchdog.
fn leak<T>(value: T) -> &'static T {
    Box::leak(Box::new(value))
}

#[test]
fn self_signed_is_refused_and_can_be_a_root_itself() {
    for_each_pair(|client, server, nonblocking| {
        let pair = &certs().self_signed;
        let server = serve(server, pair);
        let (c, kind) = (client_context(client), Kind::Certificate);
        assert_refused(&c, NAME, &server, nonblocking, kind, UNKNOWN_CA);

        let itself = Certificate::from_pem(pair.chain.as_bytes()).expect("certificate");
        let trusting = client_builder(client).add_root(itself).build().expect("context");
        shake(&trusting, NAME, &server, nonblocking).files();
        // Trusted is not the same as right for every name.
        let kind = Kind::HostnameMismatch;
        assert_refused(&trusting, "example.com", &server, nonblocking, kind, BAD_CERTIFICATE);
    });
}

fn trusting(engine: Engine, root: &str) -> ContextBuilder {
    let root = Certificate::from_pem(root.as_bytes()).expect("root");
    Context::builder().engine(engine).system_roots(false).add_root(root)
}

#[test]
fn out_of_date_is_refused() {
    let authority = Authority::new("out of date");
    let cases = leak((authority.pem.clone(), authority.expired(), authority.not_yet_valid()));
    for_each_pair(move |client, server, nonblocking| {
        let (root, expired, early) = cases;
        // RFC 8446, section 6.2: certificate_expired is for those that are not valid yet, too; OpenSSL takes another.
        let too_early = if client == Engine::Rustls { CERTIFICATE_EXPIRED } else { BAD_CERTIFICATE };
        let client = trusting(client, root).build().expect("context");
        let (kind, old) = (Kind::Certificate, serve(server, expired));
        assert_refused(&client, NAME, &old, nonblocking, kind, CERTIFICATE_EXPIRED);
        let (ours, _) = shake(&client, NAME, &old, nonblocking).errors();
        assert_says(&ours, &["expired"]);
        assert_refused(&client, NAME, &serve(server, early), nonblocking, kind, too_early);
    });
}

#[test]
fn chain_is_sent_and_a_hole_in_it_is_refused() {
    let root = Authority::new("root");
    let middle = root.intermediate("intermediate");
    let leaf = middle.sign(leaf_params());
    for engine in engines() {
        let client = trusting(engine, &root.pem).build().expect("context");
        let whole = Pair { chain: leaf.chain.clone() + &middle.pem, key: leaf.key.clone() };
        let (client_file, _server_file) = shake(&client, NAME, &serve(engine, &whole), false).files();
        if engine != Engine::Native {
            let chain = client_file.peer_certificates().expect("chain");
            let sent = Certificate::stack_from_pem(whole.chain.as_bytes()).expect("chain");
            assert_eq!(chain, sent);
        }
        assert_refused(&client, NAME, &serve(engine, &leaf), false, Kind::Certificate, UNKNOWN_CA);
        // An intermediate may be a root for those who say so; the `native-tls` crate goes up to a self-signed one.
        let client = trusting(engine, &middle.pem).build().expect("context");
        match engine {
            Engine::OpenSsl | Engine::Rustls => drop(shake(&client, NAME, &serve(engine, &whole), false).files()),
            _ => {
                let (ours, _) = shake(&client, NAME, &serve(engine, &whole), false).errors();
                assert_eq!(kind_of(&ours), Some(Kind::Certificate), "{ours}");
            }
        }
    }
}

#[test]
fn danger_accept_invalid_hostnames_lets_names_pass_and_nothing_else() {
    for_each_pair(|client, server, nonblocking| {
        let lax = client_builder(client).danger_accept_invalid_hostnames(true).build().expect("context");
        let other = serve(server, &certs().other_name);
        for name in [NAME, "127.0.0.1"] {
            shake(&lax, name, &other, nonblocking).files();
        }
        let own = serve(server, &certs().self_signed);
        assert_refused(&lax, NAME, &own, nonblocking, Kind::Certificate, UNKNOWN_CA);
    });
}

#[test]
fn danger_accept_invalid_certs_lets_everything_pass() {
    let old = leak(Authority::new("old").expired());
    for_each_pair(move |client, server, nonblocking| {
        let lax = client_builder(client).danger_accept_invalid_certs(true).build().expect("context");
        for pair in [&certs().self_signed, &certs().other_name, old] {
            shake(&lax, NAME, &serve(server, pair), nonblocking).files();
        }
        // And only if asked to: false is the default.
        let strict = client_builder(client)
            .danger_accept_invalid_certs(false)
            .danger_accept_invalid_hostnames(false)
            .build()
            .expect("context");
        let own = serve(server, &certs().self_signed);
        assert_refused(&strict, NAME, &own, nonblocking, Kind::Certificate, UNKNOWN_CA);
    });
}

/// Trust is not the server's business unless it asks: a client's identity does it no harm.
#[test]
fn identity_of_a_client_nobody_asked_for_is_kept_back() {
    for_each_pair(|client, server, nonblocking| {
        let client = client_builder(client).identity(certs().client.identity()).build().expect("context");
        let (_client, server) = shake(&client, NAME, &server_context(server), nonblocking).files();
        assert!(server.peer_certificate().is_none());
    });
}

#[cfg(all(unix, not(target_vendor = "apple")))]
const CHILD: &str = "SSLFILE_TEST_SYSTEM_ROOTS";

/// OpenSSL looks for the system's roots where `SSL_CERT_FILE` says: in a process of its own, this test again, it must find ours.
#[cfg(all(unix, not(target_vendor = "apple")))]
#[test]
fn system_roots_are_the_default() {
    if let Ok(expected) = std::env::var(CHILD) {
        return with_the_roots_of_the_environment(expected == "trusted");
    }
    let folder = tempfile::tempdir().expect("folder");
    let stranger = Authority::new("a stranger");
    for (pem, expected) in [(&certs().ca_pem, "trusted"), (&stranger.pem, "refused")] {
        let file = folder.path().join("roots.pem");
        std::fs::write(&file, pem).expect("roots");
        let pair = &certs().ecdsa;
        std::fs::write(folder.path().join("chain.pem"), &pair.chain).expect("chain");
        std::fs::write(folder.path().join("key.pem"), &pair.key).expect("key");
        let child = std::process::Command::new(std::env::current_exe().expect("this program"))
            .args(["--exact", "trust::verdicts::system_roots_are_the_default", "--nocapture"])
            .env(CHILD, expected)
            .env("SSL_CERT_FILE", &file)
            .env("SSL_CERT_DIR", folder.path().join("nothing-here"))
            .env("SSLFILE_TEST_PAIR", folder.path())
            .output()
            .expect("child");
        let told = String::from_utf8_lossy(&child.stdout);
        assert!(
            child.status.success() && told.contains("1 passed"),
            "{expected}: {told}{}",
            String::from_utf8_lossy(&child.stderr)
        );
    }
}

#[cfg(all(unix, not(target_vendor = "apple")))]
fn with_the_roots_of_the_environment(trusted: bool) {
    let folder = std::path::PathBuf::from(std::env::var_os("SSLFILE_TEST_PAIR").expect("folder"));
    let identity =
        sslfile::Identity::from_pem_files(folder.join("chain.pem"), folder.join("key.pem")).expect("identity");
    let roots = std::fs::read(std::env::var_os("SSL_CERT_FILE").expect("roots")).expect("roots");
    for engine in engines() {
        let server = Context::builder().engine(engine).identity(identity.clone()).build().expect("context");
        let mut system = vec![Context::builder().engine(engine).build().expect("context")];
        if engine == engines()[0] {
            system.push(Context::client().expect("context"));
        }
        // Mine come on top of the system's.
        system.push(Context::builder().engine(engine).add_root(other_root()).build().expect("context"));
        for context in system {
            if trusted {
                shake(&context, NAME, &server, false).files();
            } else {
                assert_refused(&context, NAME, &server, false, Kind::Certificate, UNKNOWN_CA);
            }
        }
        // Mine only.
        let mine = Context::builder().engine(engine).system_roots(false).add_root(other_root()).build();
        assert_refused(&mine.expect("context"), NAME, &server, false, Kind::Certificate, UNKNOWN_CA);
        let none = Context::builder().engine(engine).system_roots(false).build().expect("context");
        assert_refused(&none, NAME, &server, false, Kind::Certificate, UNKNOWN_CA);
        let named = Certificate::from_pem(&roots).expect("root");
        let mine = Context::builder().engine(engine).system_roots(false).add_root(named).build();
        assert_eq!(shake(&mine.expect("context"), NAME, &server, false).client.is_ok(), trusted);
    }
}

#[cfg(all(unix, not(target_vendor = "apple")))]
fn other_root() -> Certificate {
    Authority::new("of no use here").certificate()
}

/// One context, many files, many threads: each file is checked against its own name.
#[test]
fn names_are_checked_per_file() {
    for engine in engines() {
        within(LONG, move || {
            let (client, server) = (client_context(engine), server_context(engine));
            std::thread::scope(|t| {
                for i in 0..8 {
                    let (client, server) = (&client, &server);
                    t.spawn(move || {
                        for _ in 0..5 {
                            let name = if i % 2 == 0 { NAME } else { "example.com" };
                            let outcome = shake(client, name, server, false);
                            assert_eq!(outcome.client.is_ok(), i % 2 == 0);
                        }
                    });
                }
            });
        });
    }
}

#[test]
fn peer_certificate_is_the_one_shown() {
    for engine in engines() {
        let (client, server) =
            tls_pair_with(SslFile::options(), &client_context(engine), SslFile::options(), &server_context(engine));
        let leaf = Certificate::from_pem(certs().ecdsa.chain.as_bytes()).expect("leaf");
        assert_eq!(client.peer_certificate(), Some(leaf.clone()));
        assert_eq!(server.peer_certificate(), None);
        match engine {
            Engine::OpenSsl | Engine::Rustls => assert_eq!(client.peer_certificates(), Some(vec![leaf, ca()])),
            _ => assert_eq!(client.peer_certificates(), None, "not known to this engine"),
        }
    }
}
