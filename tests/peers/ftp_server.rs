//! FTP servers that take data connections only if they resume the session of their control connection.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::harness::{connect, free_port, Bench, Peer};

/// Where `.ci/install` unpacks them.
const UNPACKED: &str = "/usr/local/lib/ftp-servers";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Vsftpd,
    ProFtpd,
}

/// A program that serves FTP, and the root folder that it was installed under.
#[derive(Clone, Debug)]
pub struct Program {
    pub kind: Kind,
    path: PathBuf,
    root: PathBuf,
}

/// Both, or which of them is missing.
pub fn both() -> Result<[Program; 2], String> {
    Ok([find(Kind::Vsftpd)?, find(Kind::ProFtpd)?])
}

pub fn find(kind: Kind) -> Result<Program, String> {
    let name = match kind {
        Kind::Vsftpd => "vsftpd",
        Kind::ProFtpd => "proftpd",
    };
    let found = [UNPACKED, "/"].map(|root| Program {
        kind,
        path: Path::new(root).join("usr/sbin").join(name),
        root: root.into(),
    });
    found.into_iter().find(|program| program.path.is_file()).ok_or_else(|| format!("no {name}"))
}

/// A server that runs.
pub struct Server {
    pub port: u16,
    /// What it serves. It may be written to.
    pub files: PathBuf,
    pub user: &'static str,
    /// Nobody else knows it: who runs the tests may be root.
    pub password: String,
    _process: Peer,
}

impl Program {
    pub fn start(&self, bench: &Bench) -> Server {
        let port = free_port();
        let folder = bench.files.folder.path().join(format!("{:?}-{port}", self.kind));
        let files = folder.join("files");
        fs::create_dir_all(&files).expect("folder");
        let mut command = Command::new(&self.path);
        let (conf, passwords) = (folder.join("conf"), folder.join("passwords"));
        // The folder's name is different each time.
        let password = bench.files.folder.path().to_string_lossy().replace(|c: char| !c.is_ascii_alphanumeric(), "");
        let user = match self.kind {
            Kind::Vsftpd => {
                write(&conf, vsftpd(bench, port, &folder, &files));
                write(&passwords, format!("{password}\n"));
                command.arg(&conf);
                "anonymous"
            }
            Kind::ProFtpd => {
                write(&conf, self.proftpd(bench, port, &folder));
                let hash = says("openssl", &["passwd", "-5", &password]);
                let line = format!("user:{hash}:{}:{}::{}:/bin/sh\n", me("-u"), me("-g"), files.display());
                write(&passwords, line);
                command.arg("-n").arg("-c").arg(&conf);
                "user"
            }
        };
        let process = bench.spawn(&mut command);
        connect(&process, port).unwrap_or_else(|| panic!("{:?} has ended: {}", self.kind, process.said.so_far()));
        Server { port, files, user, password, _process: process }
    }

    fn proftpd(&self, bench: &Bench, port: u16, folder: &Path) -> String {
        let (user, group) = (me("-un"), me("-gn"));
        let (modules, folder) = (self.root.join("usr/lib/proftpd"), folder.display());
        // Debian 12 has some of them built in.
        let there = ["mod_ls", "mod_xfer", "mod_tls"]
            .into_iter()
            .filter(|name| modules.join(name).with_extension("so").exists());
        let load: String = there.map(|name| format!("LoadModule {name}.c\n")).collect();
        let (chain, key) = (bench.files.ecdsa.chain.display(), bench.files.ecdsa.key.display());
        format!(
            "ServerName test\nServerType standalone\nDefaultAddress 127.0.0.1\nPort {port}\nUseIPv6 off\n\
             UseReverseDNS off\nUser {user}\nGroup {group}\nModulePath {modules}\n{load}\
             PidFile {folder}/pid\nScoreboardFile none\nWtmpLog off\nTransferLog none\n\
             AuthOrder mod_auth_file.c\nAuthUserFile {folder}/passwords\nRequireValidShell off\nRootLogin on\n\
             AllowOverwrite on\nTLSEngine on\nTLSRequired on\n\
             TLSLog {folder}/tls.log\nTLSProtocol TLSv1.2 TLSv1.3\nTLSECCertificateFile {chain}\n\
             TLSECCertificateKeyFile {key}\nTLSVerifyClient off\n",
            modules = modules.display(),
        )
    }
}

fn vsftpd(bench: &Bench, port: u16, folder: &Path, files: &Path) -> String {
    let (chain, key) = (bench.files.ecdsa.chain.display(), bench.files.ecdsa.key.display());
    format!(
        "listen=YES\nlisten_address=127.0.0.1\nlisten_port={port}\nbackground=NO\nrun_as_launching_user=YES\n\
         anonymous_enable=YES\nlocal_enable=NO\nsecure_email_list_enable=YES\nftp_username={user}\n\
         email_password_file={folder}/passwords\nanon_root={files}\n\
         write_enable=YES\nanon_upload_enable=YES\nanon_other_write_enable=YES\nanon_umask=022\n\
         seccomp_sandbox=NO\nxferlog_enable=YES\nvsftpd_log_file={folder}/log\nssl_enable=YES\nallow_anon_ssl=YES\n\
         force_anon_logins_ssl=YES\nforce_anon_data_ssl=YES\nrequire_ssl_reuse=YES\nssl_ciphers=HIGH\n\
         rsa_cert_file={chain}\nrsa_private_key_file={key}\n",
        user = me("-un"),
        files = files.display(),
        folder = folder.display(),
    )
}

/// What `id` says of who runs the tests.
fn me(option: &str) -> String {
    says("id", &[option])
}

fn says(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output().unwrap_or_else(|e| panic!("{program}: {e}"));
    assert!(output.status.success(), "{program}: {output:?}");
    String::from_utf8(output.stdout).expect("text").trim().to_string()
}

fn write(path: &Path, text: String) {
    fs::write(path, text).expect("write");
    // ProFTPD refuses passwords that others may read.
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).expect("mode");
}
