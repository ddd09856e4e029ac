//! What an engine cannot do it refuses at `build`, with the names of both; what it can it takes.

use std::time::Duration;

use sslfile::{ClientAuth, ContextBuilder};

use super::rig::{context, refused};
use crate::common::{ca, certs, client_builder, engines, server_builder};

#[test]
fn each_option_is_honoured_or_refused_by_name() {
    let folder = tempfile::tempdir().expect("folder");
    for engine in engines() {
        let log = folder.path().join(format!("{engine:?}.keys"));
        let (client, server) = (|| client_builder(engine), || server_builder(engine));
        let options: Vec<(&str, ContextBuilder)> = vec![
            ("add_identity", server().add_identity("one.example", certs().rsa.identity())),
            ("choose_identity", server().choose_identity(|_| None)),
            ("client_auth", server().add_root(ca()).client_auth(ClientAuth::Request)),
            ("groups", client().groups("secp256r1")),
            ("key_log", client().key_log(|_| ())),
            ("key_log_file", client().key_log_file(&log)),
            ("max_fragment_size", client().max_fragment_size(1024)),
            ("ocsp_stapling", client().ocsp_stapling(true)),
            ("on_alert", client().on_alert(|_| ())),
            ("pin", client().pin([0; 32])),
            ("prefer_server_order", server().prefer_server_order(false)),
            ("prefer_server_order", server().prefer_server_order(true)),
            ("session_cache_size", client().session_cache_size(1)),
            ("session_lifetime", client().session_lifetime(Duration::from_secs(1))),
            ("session_resumption", client().session_resumption(true)),
            ("signature_algorithms", client().signature_algorithms("ecdsa_secp256r1_sha256")),
            ("tickets", server().tickets(1)),
            ("verify", client().verify(|_| Ok(()))),
        ];
        for (option, builder) in options {
            context(engine, option, builder);
        }
        assert_eq!(log.exists(), !refused(engine).contains(&"key_log_file"), "{engine:?}");
    }
}
