//! What the compiler says to who comes from `TcpStream` with something that names no server.

use std::process::Command;
use std::time::SystemTime;
use std::{env, fs, io};

const PROGRAM: &str = "
    use sslfile::SslFile;
    use std::net::{SocketAddr, ToSocketAddrs};

    pub fn slice(addrs: &[SocketAddr]) {
        let _ = SslFile::connect(addrs);
    }

    pub fn generic<A: ToSocketAddrs>(addr: A) {
        let _ = SslFile::connect(addr);
    }
";

#[test]
fn the_compiler_says_why_a_slice_or_a_generic_address_is_not_taken_and_what_to_write() {
    let Some(said) = compile(PROGRAM) else { return };
    let errors: Vec<&str> = said.split("error[E0277]: ").skip(1).collect();
    let [slice, generic] = errors[..] else { panic!("{said}") };
    for (error, what) in [(slice, "`[std::net::SocketAddr]`"), (generic, "`A`")] {
        let first = format!("{what} does not name one server, as whose the certificate could be checked\n");
        assert!(error.replace("[SocketAddr]", "[std::net::SocketAddr]").starts_with(&first), "{said}");
        for line in [
            "^ not the address of one server",
            "note: these do: \"host:port\", (\"host\", port), (IpAddr, port), a String, a SocketAddr",
            "`SslFile::client(TcpStream::connect(addrs)?, &Context::client()?, \"example.com\")`",
            "note: in a generic function write `A: ToServer` in place of `A: ToSocketAddrs`",
        ] {
            assert!(error.contains(line), "{line:?} is not in:\n{said}");
        }
    }
}

/// What is wrong with a program that uses the crate, as it was built for this test.
fn compile(program: &str) -> Option<String> {
    let folder = tempfile::tempdir().expect("folder");
    let source = folder.path().join("program.rs");
    fs::write(&source, program).expect("source");
    let built = env::current_exe().expect("current_exe").parent().expect("a folder").to_path_buf();
    let time = |path: &std::path::Path| fs::metadata(path).and_then(|m| m.modified()).unwrap_or(SystemTime::UNIX_EPOCH);
    let is_ours = |name: &str| name.starts_with("libsslfile-") && name.ends_with(".rlib");
    let files = fs::read_dir(&built).expect("what was built").filter_map(|entry| Some(entry.ok()?.path()));
    let mut ours: Vec<_> = files.filter(|f| f.file_name().and_then(|n| n.to_str()).is_some_and(is_ours)).collect();
    ours.sort_by_key(|path| std::cmp::Reverse(time(path)));
    let mut said = String::new();
    for library in ours {
        let mut rustc = Command::new(env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()));
        rustc.args(["--edition", "2021", "--crate-type", "lib", "--emit", "metadata", "--color", "never", "-o"]);
        rustc.arg(folder.path().join("program.rmeta")).arg("--extern");
        rustc.arg(format!("sslfile={}", library.display())).arg("-L").arg(format!("dependency={}", built.display()));
        match rustc.arg(&source).output() {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                assert!(env::var_os("SSLFILE_NO_SKIP").is_none_or(|value| value != "1"), "rustc is missing");
                eprintln!("skipped: rustc is missing");
                return None;
            }
            output => said = String::from_utf8_lossy(&output.expect("rustc").stderr).into_owned(),
        }
        // Of another compiler, or for another target: E0514, E0461, E0463.
        if said.contains("E0277") {
            break;
        }
    }
    Some(said)
}
