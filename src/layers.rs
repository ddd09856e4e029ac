//! The crate from top to bottom, and tests that keep it so.

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::path::{Path, PathBuf};

/// A module may use what stands below it, and nothing that stands above it.
const LAYERS: [(&str, &str); 23] = [
    ("socket", "SslSocket: one object for plain TCP and TLS, driven by a backend"),
    ("listener", "SslListener: TcpListener with TLS"),
    ("file", "SslFile and PlainFile, the two faces; how they are opened, wrapped and given back"),
    ("drive", "what makes threads and backends do what a machine says: the file's lock, the I/O, the waiting"),
    ("callbacks", "what users want to be called"),
    ("stream", "what can be wrapped. One that is a file has a backend, which whoever wraps it takes over"),
    ("backend", "the event loop. It knows descriptors, and neither TLS nor files"),
    ("sys", "what a platform must give"),
    ("sync", "locks, threads and the clock, or a model checker's"),
    ("machine", "a file without its stream, its locks, its threads and its clock: all rules are here"),
    ("connection", "TLS without I/O: bytes in, bytes out"),
    ("context", "settings and the library that was set up with them"),
    ("engine", "the TLS libraries, behind two traits"),
    ("settings", "what a context can be told"),
    ("alert", "what one end tells the other when something is wrong"),
    ("identity", "a certificate chain and its key"),
    ("certificate_info", "what a certificate says"),
    ("revocation", "lists of certificates that count no more"),
    ("certificate", "a certificate as bytes, and how it is read from files"),
    ("der", "the encoding of both"),
    ("role", "client or server"),
    ("version", "of TLS"),
    ("error", "what went wrong, and whose fault it was"),
];

/// These know neither streams nor locks, threads and the clock; the order above keeps `stream`, `sys` and `sync` from them.
const PURE: [&str; 2] = ["machine", "connection"];

/// What would make them impure, by the names it goes by.
const IMPURE: [&str; 9] =
    ["Instant::now", "SystemTime", "Mutex", "Condvar", "Atomic", "thread", "OwnedFd", "RawFd", "TcpStream"];

/// What gives a platform away.
const PLATFORM: [&str; 9] =
    ["target_os", "target_vendor", "(unix", "(windows", "any(windows", "os::fd", "os::unix", "os::windows", "rustix"];

/// Where else than in `sys` the platform may be known, and why.
const KNOW_THE_PLATFORM: [(&str, &str); 15] = [
    ("lib.rs", "says where the crate does not run"),
    ("backend/waiter.rs", "the poller: a port has another beside it"),
    ("stream/mod.rs", "UnixStream can be wrapped where there is one"),
    ("stream/socket.rs", "the same"),
    ("file/faces.rs", "AsFd and AsRawFd, or AsSocket and AsRawSocket, are what users expect of a file"),
    ("file/tcp.rs", "set_quickack is where std has it"),
    ("listener/mod.rs", "the same of a listener"),
    ("engine/mod.rs", "which libraries there are: native-tls is not OpenSSL everywhere"),
    ("engine/key_log.rs", "whose the file of secrets is"),
    ("engine/native.rs", "which libraries there are"),
    ("context/foreign.rs", "the same"),
    ("identity.rs", "the same"),
    ("identity/encrypted.rs", "the same"),
    ("identity/pkcs12.rs", "the same"),
    ("der.rs", "the same"),
];

/// A source file that is in the crate, without comments and tests.
struct Source {
    /// Below `src`.
    name: String,
    /// The module of the crate that it is or belongs to.
    module: String,
    lines: Vec<String>,
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let (mut found, mut wanted) = (Vec::new(), vec![PathBuf::from("lib.rs")]);
    while let Some(path) = wanted.pop() {
        let text = fs::read_to_string(root.join(&path)).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let lines = code(&text);
        let is_root = path.file_name().is_some_and(|name| name == "lib.rs" || name == "mod.rs");
        let folder = if is_root { path.with_file_name("") } else { path.with_extension("") };
        for line in &lines {
            let Some((_, name)) = line.split_once("mod ").filter(|_| line.ends_with(';')) else { continue };
            let name = name.trim_end_matches(';');
            let file = folder.join(name).with_extension("rs");
            wanted.push(if root.join(&file).exists() { file } else { folder.join(name).join("mod.rs") });
        }
        let name = path.to_string_lossy().replace('\\', "/");
        let module = name.split('/').next().unwrap_or_default().trim_end_matches(".rs").to_string();
        found.push(Source { name, module, lines });
    }
    assert!(found.len() > 80, "{} files found", found.len());
    found
}

/// The lines that are compiled when there is no test: as rustfmt writes them, an item ends where its indentation does.
fn code(text: &str) -> Vec<String> {
    let mut lines = text.lines().filter(|line| !line.trim_start().starts_with("//"));
    let mut code = Vec::new();
    while let Some(line) = lines.next() {
        if !line.trim_start().starts_with("#[cfg(test)]") && !line.trim_start().starts_with("#[cfg(all(test") {
            code.push(line.to_string());
            continue;
        }
        let mut item = lines.next().unwrap_or_default();
        while item.trim_start().starts_with("#[") || !item.ends_with([';', ',', '{']) {
            item = lines.next().expect("an attribute has an item");
        }
        if item.ends_with('{') {
            let end = format!("{}}}", &item[..item.len() - item.trim_start().len()]);
            lines.find(|line| line.starts_with(&end)).expect("an item ends");
        }
    }
    code
}

/// The modules that the public names are in.
fn public_names(lib: &Source) -> HashMap<String, String> {
    let text = lib.lines.join(" ");
    let uses = text.split("pub use ").skip(1).filter_map(|rest| rest.split_once(';')?.0.split_once("::"));
    let names = uses.flat_map(|(module, names)| {
        let names = names.trim_matches(['{', '}', ' ']).split(',');
        names.map(|name| (name.trim().to_string(), module.to_string())).collect::<Vec<_>>()
    });
    names.collect()
}

/// What stands behind `crate::` in this line.
fn used(line: &str) -> impl Iterator<Item = &str> {
    line.split("crate::")
        .skip(1)
        .map(|rest| rest.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or_default())
}

#[test]
fn arrows_between_modules_point_down() {
    let sources = sources();
    let lib = sources.iter().find(|source| source.name == "lib.rs").expect("lib.rs");
    let public = public_names(lib);
    assert_eq!(public.get("SslFile").map(String::as_str), Some("file"), "{public:?}");
    let depth = |module: &str| LAYERS.iter().position(|(layer, _)| *layer == module);
    let mut wrong = Vec::new();
    let mut arrows = BTreeSet::new();
    for Source { name, module, lines } in sources.iter().filter(|source| source.name != "lib.rs") {
        let Some(from) = depth(module) else {
            wrong.push(format!("{name}: {module} is not among the layers"));
            continue;
        };
        let file_depth = name.trim_end_matches("/mod.rs").split('/').count();
        let mut inline = 0;
        for line in lines {
            match line.as_str() {
                "}" => inline = 0,
                line if line.ends_with('{') && !line.starts_with(' ') && line.contains("mod ") => inline = 1,
                _ => {}
            }
            let ups = (1..).take_while(|n| line.contains(&"super::".repeat(*n))).count();
            assert!(ups < file_depth + inline, "{name}: says `super` for the crate: {line}");
            assert!(!line.contains("crate::{"), "{name}: one path at a time, or it hides what it points to: {line}");
            for word in used(line) {
                let to = public.get(word).map_or(word, String::as_str);
                match depth(to) {
                    Some(to) if to < from => wrong.push(format!("{name} points up: {}", line.trim())),
                    Some(_) => drop(arrows.insert((module.as_str(), to.to_string()))),
                    None => wrong.push(format!("{name}: {to} is not among the layers: {}", line.trim())),
                }
            }
        }
    }
    assert!(arrows.len() > 60, "{} arrows found: {arrows:?}", arrows.len());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_machine_and_the_connection_know_no_stream_no_lock_no_thread_and_no_clock() {
    for source in sources().iter().filter(|source| PURE.contains(&source.module.as_str())) {
        for line in &source.lines {
            for word in IMPURE {
                assert!(!line.contains(word), "{}: {word} in `{}`", source.name, line.trim());
            }
        }
    }
}

#[test]
fn only_sys_knows_the_platform() {
    let mut known = BTreeSet::new();
    let mut wrong = Vec::new();
    for Source { name, module, lines } in sources().iter().filter(|source| source.module != "sys") {
        for line in lines.iter().filter(|line| PLATFORM.iter().any(|word| line.contains(word))) {
            match KNOW_THE_PLATFORM.iter().find(|(file, _)| file == name) {
                Some((file, _)) => drop(known.insert(*file)),
                None => wrong.push(format!("{name} ({module}): {}", line.trim())),
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let all: BTreeSet<_> = KNOW_THE_PLATFORM.iter().map(|(file, _)| *file).collect();
    assert_eq!(known, all, "the list names files that do not know the platform");
}
