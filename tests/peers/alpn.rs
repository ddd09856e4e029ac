//! ALPN with nothing in common (RFC 7301, section 3.2). That it agrees is seen with the data.

use sslfile::{Engine, ErrorKind, Role};

use super::data::PROTOCOL;
use super::harness::Bench;
use super::ours::{cases, context, open, setup};
use super::tools::{Alpn, Setup, Tool};
use crate::common::kind_of;

const NO_APPLICATION_PROTOCOL: u8 = 120;

pub fn nothing_in_common(bench: &Bench, tool: Tool) {
    for case in cases(&tool) {
        let server = &bench.files.ecdsa;
        let context = context(bench, &tool, case.engine, server).alpn([PROTOCOL]).build().expect("context");
        let setup = Setup { alpn: Some("something/else"), ..setup(bench, &tool, case, server) };
        let (peer, file) = open(bench, &tool, case, setup, &context);
        let refused = match tool.role {
            Role::Client if case.engine == Engine::Native => None,
            Role::Client => Some(ErrorKind::LocalAlert(NO_APPLICATION_PROTOCOL)),
            Role::Server if tool.mismatched_alpn == Alpn::Refuses => {
                Some(ErrorKind::PeerAlert(NO_APPLICATION_PROTOCOL))
            }
            Role::Server => None,
        };
        match (file, refused) {
            (Ok(file), None) => assert_eq!(file.alpn(), None, "{case:?}"),
            (Err(e), Some(refused)) => {
                assert_eq!(kind_of(&e), Some(refused), "{case:?}: {e}");
                assert_eq!(e.kind(), std::io::ErrorKind::InvalidData, "{case:?}: {e}");
                if tool.role == Role::Client {
                    peer.exit();
                    let said = peer.said.to_the_end();
                    assert!((tool.names_alert)(&said), "{case:?}: {} said: {said}", tool.name);
                }
            }
            (Ok(file), Some(_)) => panic!("{case:?}: with {} it agreed on {:?}", tool.name, file.alpn()),
            (Err(e), None) => panic!("{case:?}: with {}: {e}; it said: {}", tool.name, peer.said.so_far()),
        }
    }
}
