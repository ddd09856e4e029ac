//! Servers of Debian that begin in plain text: how each is started.

use std::fs;
use std::io::Read;
use std::os::unix::fs::{chown, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::peers::harness::{connect, free_port, Bench, Peer};

/// Where `.ci/install` unpacks them.
const UNPACKED: &str = "/usr/local/lib/starttls-servers";

/// The protocols that it speaks, by their names for `--starttls`, each at the next port.
pub struct Program {
    pub protocols: &'static [&'static str],
    path: PathBuf,
    root: PathBuf,
    /// What it is started by.
    interpreter: &'static [&'static str],
    /// Its arguments, when all is in its place that they tell of.
    configure: fn(&Place) -> Vec<String>,
}

/// Starts what its arguments name for each connection, at the port that is the last of them: INN does not listen by itself but
/// for root.
const INETD: &str = "\
import socket, subprocess, sys
listener = socket.create_server(('127.0.0.1', int(sys.argv[-1])))
while True:
    connection, _ = listener.accept()
    subprocess.Popen(sys.argv[1:-1], stdin=connection, stdout=connection)
    connection.close()
";

/// A server that runs; at these ports, in the order of its protocols.
pub struct Server {
    pub ports: Vec<u16>,
    _process: Peer,
}

/// Where it runs: in a folder of its own, and nothing belongs to it but what is in there.
struct Place {
    root: String,
    folder: PathBuf,
    ports: Vec<u16>,
}

impl Place {
    fn write(&self, name: &str, text: &str) -> String {
        let path = self.path(name);
        fs::write(&path, text).expect("write");
        path
    }

    fn path(&self, name: &str) -> String {
        self.folder.join(name).to_str().expect("path in UTF-8").to_string()
    }
}

/// All of them, or which is missing.
pub fn all() -> Result<Vec<Program>, String> {
    type Row = (&'static [&'static str], &'static [&'static str], &'static str, fn(&Place) -> Vec<String>);
    let all: [Row; 7] = [
        (&["ldap"], &[], "usr/sbin/slapd", slapd),
        (&["mysql"], &[], "usr/sbin/mariadbd", mariadb),
        (&["postgres"], &[], "usr/lib/postgresql/*/bin/postgres", postgres),
        (&["nntp"], &["/usr/bin/python3", "-c", INETD], "usr/lib/news/bin/nnrpd", inn),
        (&["irc"], &[], "usr/sbin/inspircd", inspircd),
        (&["xmpp", "xmpp-server"], &["/usr/bin/lua5.4"], "usr/bin/prosody", prosody),
        (&["imap", "pop3", "smtp", "lmtp", "sieve"], &[], "usr/sbin/dovecot", dovecot),
    ];
    all.into_iter()
        .map(|(protocols, interpreter, path, configure)| {
            if let Some(missing) = interpreter.first().filter(|program| !Path::new(program).is_file()) {
                return Err(format!("no {missing}"));
            }
            let mut roots = [UNPACKED, "/"].into_iter().map(PathBuf::from);
            let found = roots.find_map(|root| Some((find(&root, path)?, root)));
            let (path, root) = found.ok_or_else(|| format!("no {path}"))?;
            Ok(Program { protocols, path, root, interpreter, configure })
        })
        .collect()
}

/// The file of this path; a `*` in it stands for any folder.
fn find(root: &Path, path: &str) -> Option<PathBuf> {
    let found = match path.split_once("/*/") {
        Some((above, below)) => {
            let folders = fs::read_dir(root.join(above)).ok()?.flatten();
            folders.map(|folder| folder.path().join(below)).find(|path| path.is_file())?
        }
        None => root.join(path),
    };
    found.is_file().then_some(found)
}

impl Program {
    pub fn start(&self, bench: &Bench) -> Server {
        let ports: Vec<_> = self.protocols.iter().map(|_| free_port()).collect();
        let folder = bench.files.folder.path().join(format!("server-{}", ports[0]));
        fs::create_dir(&folder).expect("folder");
        let root = self.root.to_str().expect("path in UTF-8").to_string();
        let place = Place { root, folder: folder.clone(), ports };
        place.write("chain", &bench.files.ecdsa.pair.chain);
        place.write("key", &bench.files.ecdsa.pair.key);
        let args = (self.configure)(&place);
        give_away(&folder);

        let mut command = as_nobody();
        command.current_dir(&folder).env("INNCONF", place.path("inn.conf"));
        let libraries = ["usr/lib/news", "usr/lib/x86_64-linux-gnu", "usr/lib/aarch64-linux-gnu"];
        command.env("LD_LIBRARY_PATH", libraries.map(|folder| format!("{}/{folder}", place.root)).join(":"));
        command.env("LUA_PATH", format!("{}/usr/lib/prosody/?.lua;;", place.root));
        command.env("LUA_CPATH", format!("{}/usr/lib/prosody/?.so;;", place.root));
        let mut process = bench.spawn(command.args(self.interpreter).arg(&self.path).args(args));
        for port in &place.ports {
            if connect(&process, *port).is_none() {
                let mut said = process.said.so_far();
                let _ = process.stdout.take().expect("a pipe").read_to_string(&mut said);
                panic!("{:?} has ended: {said}", self.path);
            }
        }
        if self.protocols == ["postgres"] {
            // It listens before it is.
            assert!(process.said.waits_for("ready to accept connections"), "{}", process.said.so_far());
        }
        Server { ports: place.ports, _process: process }
    }
}

fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|me| me.uid() == 0)
}

const NOBODY: u32 = 65534;

/// Some servers are none of root's. (`env` just starts what it is given.)
fn as_nobody() -> Command {
    let mut command = Command::new(if is_root() { "setpriv" } else { "env" });
    if is_root() {
        command.args(["--reuid", &NOBODY.to_string(), "--regid", &NOBODY.to_string(), "--clear-groups"]);
    }
    command
}

/// Whom they run as then, by a name of user or group that `id` has an option for.
fn name(option: &str, of_nobody: &str) -> String {
    if is_root() {
        return of_nobody.to_string();
    }
    let output = Command::new("id").arg(option).output().expect("id");
    String::from_utf8(output.stdout).expect("text").trim().to_string()
}

/// To whom the server runs as.
fn give_away(folder: &Path) {
    if is_root() {
        let above = folder.parent().expect("a folder above");
        fs::set_permissions(above, fs::Permissions::from_mode(0o755)).expect("mode");
        let inside = fs::read_dir(folder).expect("folder").flatten().map(|entry| entry.path());
        for path in inside.chain([folder.to_path_buf()]) {
            chown(path, Some(NOBODY), Some(NOBODY)).expect("owner");
        }
    }
    fs::set_permissions(folder.join("key"), fs::Permissions::from_mode(0o600)).expect("mode");
}

fn words(line: &str) -> Vec<String> {
    line.split_whitespace().map(String::from).collect()
}

fn slapd(place: &Place) -> Vec<String> {
    place.write("conf", "TLSCertificateFile chain\nTLSCertificateKeyFile key\n");
    words(&format!("-d 0 -f conf -h ldap://127.0.0.1:{}", place.ports[0]))
}

fn mariadb(place: &Place) -> Vec<String> {
    // It works without its own tables, as long as there is their folder.
    fs::create_dir_all(place.path("data")).expect("folder");
    fs::set_permissions(place.path("data"), fs::Permissions::from_mode(0o777)).expect("mode");
    words(&format!(
        "--no-defaults --datadir={} --lc-messages-dir={}/usr/share/mysql --skip-grant-tables --skip-innodb \
         --default-storage-engine=MyISAM --socket={} --pid-file={} --bind-address=127.0.0.1 --port={} \
         --ssl-cert={} --ssl-key={}",
        place.path("data"),
        place.root,
        place.path("socket"),
        place.path("pid"),
        place.ports[0],
        place.path("chain"),
        place.path("key"),
    ))
}

fn postgres(place: &Place) -> Vec<String> {
    let initdb = find(Path::new(&place.root), "usr/lib/postgresql/*/bin/initdb").expect("initdb");
    give_away(&place.folder);
    let mut command = as_nobody();
    command.arg(initdb).args(words("--pgdata=data --auth=trust --username=user --no-locale --encoding=UTF8 --no-sync"));
    let made = command.current_dir(&place.folder).stdin(Stdio::null()).output().expect("initdb");
    assert!(made.status.success(), "{made:?}");
    words(&format!(
        "-D data -p {} -c listen_addresses=127.0.0.1 -c unix_socket_directories= -c ssl=on -c ssl_cert_file={} \
         -c ssl_key_file={}",
        place.ports[0],
        place.path("chain"),
        place.path("key"),
    ))
}

fn inn(place: &Place) -> Vec<String> {
    let here = place.folder.display();
    let paths: String =
        ["news", "db", "etc", "run", "log", "tmp", "overview"].map(|path| format!("path{path}: {here}\n")).concat();
    place.write(
        "inn.conf",
        &format!(
            "{paths}pathhost: localhost\ndomain: localhost\nmta: /bin/false\nhismethod: hisv6\nenableoverview: true\n\
             ovmethod: tradindexed\ntlscapath: /etc/ssl/certs\ntlscertfile: {here}/chain\ntlskeyfile: {here}/key\n"
        ),
    );
    place.write("readers.conf", "auth all { hosts: * default: <x> }\naccess all { users: * newsgroups: * }\n");
    place.write("storage.conf", "method trash {\n newsgroups: *\n class: 0\n}\n");
    for empty in ["active", "history", "group.index"] {
        place.write(empty, "");
    }
    vec![place.ports[0].to_string()]
}

fn inspircd(place: &Place) -> Vec<String> {
    let (here, root, port) = (place.folder.display(), &place.root, place.ports[0]);
    let conf = format!(
        "<server name=\"irc.localhost\" description=\"test\" network=\"test\">\n\
         <admin name=\"a\" nick=\"a\" email=\"a@localhost\">\n\
         <path moduledir=\"{root}/usr/lib/inspircd/modules\" configdir=\"{here}\" datadir=\"{here}\" logdir=\"{here}\">\n\
         <bind address=\"127.0.0.1\" port=\"{port}\" type=\"clients\">\n\
         <connect allow=\"*\" timeout=\"60\" localmax=\"100\" globalmax=\"100\">\n\
         <module name=\"ssl_gnutls\">\n<module name=\"starttls\">\n<pid file=\"{here}/pid\">\n\
         <sslprofile name=\"s\" provider=\"gnutls\" certfile=\"{here}/chain\" keyfile=\"{here}/key\">\n"
    );
    let conf = place.write("conf", &conf);
    words(&format!("--nofork --config={conf}"))
}

fn prosody(place: &Place) -> Vec<String> {
    let (here, root) = (place.folder.display(), &place.root);
    let conf = format!(
        "pidfile = \"{here}/pid\"\ndata_path = \"{here}\"\nplugin_paths = {{ \"{root}/usr/lib/prosody/modules\" }}\n\
         interfaces = {{ \"127.0.0.1\" }}\nc2s_ports = {{ {} }}\n\
         s2s_ports = {{ {} }}\nmodules_enabled = {{ \"c2s\", \"s2s\", \"saslauth\", \"tls\" }}\n\
         log = {{ {{ levels = {{ min = \"error\" }}, to = \"console\" }} }}\nVirtualHost \"localhost\"\n\
         ssl = {{ certificate = \"{here}/chain\"; key = \"{here}/key\" }}\n",
        place.ports[0], place.ports[1]
    );
    let conf = place.write("conf.lua", &conf);
    words(&format!("-F --config {conf}"))
}

fn dovecot(place: &Place) -> Vec<String> {
    let (here, root) = (place.folder.display(), &place.root);
    let version = Command::new(format!("{root}/usr/sbin/dovecot")).arg("--version").output().expect("dovecot");
    // Debian 12 has 2.3, Debian 13 has 2.4.
    let of_version = if version.stdout.starts_with(b"2.3.") {
        format!(
            "ssl_cert = <{here}/chain\nssl_key = <{here}/key\npassdb {{\n driver = static\n args = password=x\n}}\n"
        )
    } else {
        format!(
            "dovecot_config_version = 2.4.0\ndovecot_storage_version = 2.4.0\nssl_server_cert_file = {here}/chain\n\
             ssl_server_key_file = {here}/key\npassdb static {{\n password = x\n}}\n"
        )
    };
    let mut conf = format!(
        "{of_version}base_dir = {here}\nstate_dir = {here}\nlibexec_dir = {root}/usr/lib/dovecot\n\
         mail_plugin_dir = {root}/usr/lib/dovecot/modules\nlog_path = /dev/stderr\nlisten = 127.0.0.1\nssl = yes\n\
         default_internal_user = {user}\ndefault_internal_group = {group}\ndefault_login_user = {user}\n\
         protocols = imap pop3 submission lmtp sieve\nservice anvil {{\n chroot =\n}}\n",
        user = name("-un", "nobody"),
        group = name("-gn", "nogroup"),
    );
    let listeners = ["imap-login imap", "pop3-login pop3", "submission-login submission", "lmtp lmtp"];
    for (names, port) in listeners.iter().chain(&["managesieve-login sieve"]).zip(&place.ports) {
        let (service, listener) = names.split_once(' ').expect("two words");
        // Nothing at the ports that begin with TLS.
        conf += &format!(
            "service {service} {{\n chroot =\n inet_listener {listener} {{\n  port = {port}\n }}\n \
             inet_listener {listener}s {{\n  port = 0\n }}\n}}\n"
        );
    }
    words(&format!("-F -c {}", place.write("conf", &conf)))
}
