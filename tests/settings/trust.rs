//! Whom a client trusts: the system's authorities, mine, or both; from a file, from a directory, with broken ones among them.

use std::fs;
use std::path::Path;

use sslfile::{Context, ContextBuilder, Engine, ErrorKind};

use super::rig::{named, s_server, visit, with_openssl, write, Own};
use crate::authority::Authority;
use crate::common::{engines, test_in_child, NAME};
use crate::harness::Bench;

fn own(bench: &Bench, name: &str, authority: &Authority) -> Own {
    Own::new(bench, name, &named(authority, NAME))
}

#[track_caller]
fn assert_trusts(bench: &Bench, builder: &ContextBuilder, engine: Engine, server: &Own, trusted: bool) -> usize {
    let client = builder.clone().engine(engine).build().expect("context");
    let met = visit(bench, &client, |port| s_server(port, 1, server), |_| ());
    match trusted {
        true => drop(met.expect()),
        false => drop(met.refused(ErrorKind::Certificate, "alert number 48")),
    }
    client.broken_roots()
}

/// In a process of its own, whose system has an authority of ours.
#[test]
fn the_system_s_authorities_count_alone_and_beside_mine_and_not_at_all() {
    const CHILD: &str = "SSLFILE_TEST_TRUST";
    const TEST: &str = "settings::trust::the_system_s_authorities_count_alone_and_beside_mine_and_not_at_all";
    if let Some(folder) = std::env::var_os(CHILD) {
        let folder = Path::new(&folder).to_path_buf();
        return with_openssl(move |bench| with_a_system_of_ours(bench, &folder));
    }
    let folder = tempfile::tempdir().expect("folder");
    let (path, roots) = (folder.path().to_str().expect("path"), folder.path().join("system.pem"));
    let system = Authority::new("system");
    fs::write(&roots, &system.pem).expect("roots");
    let pair = named(&system, NAME);
    fs::write(folder.path().join("leaf.pem"), &pair.chain).expect("leaf");
    fs::write(folder.path().join("leaf.key"), &pair.key).expect("key");
    let roots = roots.to_str().expect("path");
    let nothing = format!("{path}/nothing");
    let mut child = test_in_child(TEST, &[(CHILD, path), ("SSL_CERT_FILE", roots), ("SSL_CERT_DIR", &nothing)]);
    let output = child.output().expect("child");
    let (told, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && told.contains("1 passed"), "{told}{errors}");
}

fn with_a_system_of_ours(bench: &Bench, folder: &Path) {
    let read = |name| fs::read_to_string(folder.join(name)).expect("file");
    let pair = crate::common::Pair { chain: read("leaf.pem"), key: read("leaf.key") };
    let of_system = Own::new(bench, "of-system", &pair);
    let authority = Authority::new("mine");
    let of_mine = own(bench, "of-mine", &authority);
    let mine = || Context::builder().add_root(authority.certificate());
    for engine in engines() {
        for (builder, system_counts, mine_counts) in [
            (Context::builder(), true, false),
            (Context::builder().system_roots(true), true, false),
            (mine(), true, true),
            (mine().system_roots(false), false, true),
            (Context::builder().system_roots(false), false, false),
        ] {
            assert_trusts(bench, &builder, engine, &of_system, system_counts);
            assert_trusts(bench, &builder, engine, &of_mine, mine_counts);
        }
    }
}

#[test]
fn a_bundle_and_a_directory_count_with_all_that_is_in_them() {
    with_openssl(|bench| {
        let [one, two, three] = ["one", "two", "three"].map(Authority::new);
        let servers = [("one", &one), ("two", &two), ("three", &three)].map(|(name, ca)| own(bench, name, ca));
        let bundle = write(bench, "bundle.pem", format!("{}some words\n{}", one.pem, two.pem));
        let folder = bench.files.folder.path().join("roots");
        fs::create_dir(&folder).expect("folder");
        fs::write(folder.join("one.pem"), &one.pem).expect("file");
        // As some have it: without armour.
        fs::write(folder.join("two.crt"), two.certificate().to_der()).expect("file");
        for engine in engines() {
            for path in [&bundle, &folder] {
                let builder = Context::builder().system_roots(false).add_roots_from(path);
                for (server, trusted) in servers.iter().zip([true, true, false]) {
                    let broken = assert_trusts(bench, &builder, engine, server, trusted);
                    assert_eq!(broken, 0, "{engine:?}");
                }
            }
        }
    });
}

#[test]
fn broken_ones_are_counted_and_do_no_harm_to_the_others() {
    with_openssl(|bench| {
        let [one, two] = ["one", "two"].map(Authority::new);
        let servers = [("one", &one), ("two", &two)].map(|(name, ca)| own(bench, name, ca));
        let no_base64 = "-----BEGIN CERTIFICATE-----\n!!!!\n-----END CERTIFICATE-----\n";
        // A sequence in a sequence, and no more of a certificate than that.
        let no_certificate = "-----BEGIN CERTIFICATE-----\nMAIwAA==\n-----END CERTIFICATE-----\n";
        let bundle = write(bench, "bundle.pem", format!("{}{no_base64}{no_certificate}{}", one.pem, two.pem));
        for engine in engines() {
            let builder = Context::builder().system_roots(false).add_roots_from(&bundle);
            for server in &servers {
                assert_eq!(assert_trusts(bench, &builder, engine, server, true), 2, "{engine:?}");
            }
        }
    });
}
