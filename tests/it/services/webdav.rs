//! WebDAV twice: Apache's mod_dav, which is strict, and rclone, which is loose.

use std::process::Command;

use lifeboat::store::{Credentials, Location, StoreOptions};

use super::{Server, program};

pub const USER: &str = "lifeboat";
pub const PASSWORD: &str = "test-password";

fn location(server: &Server, path: &str) -> Location {
    format!("webdav://{USER}@127.0.0.1:{}/{path}", server.port).parse().unwrap()
}

pub fn options() -> StoreOptions {
    let credentials = Credentials { webdav_password: Some(PASSWORD.to_owned().into()), ..Default::default() };
    StoreOptions { credentials, ..Default::default() }
}

pub struct Apache(pub Server);

impl Apache {
    pub fn start() -> Self {
        let apache = program("apache2");
        let server = Server::start("Apache", |dir, port| {
            let root = dir.join("root");
            std::fs::create_dir_all(root.join("dav")).unwrap();
            let hash = Command::new(program("openssl")).args(["passwd", "-apr1", PASSWORD]).output().unwrap();
            let hash = String::from_utf8(hash.stdout).unwrap();
            std::fs::write(dir.join("passwords"), format!("{USER}:{hash}")).unwrap();
            // Started as root, it serves as www-data.
            for path in [dir.to_path_buf(), root.clone(), root.join("dav")] {
                std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
            }
            let shown = dir.display();
            let modules = [
                "mpm_event",
                "dav",
                "dav_fs",
                "auth_basic",
                "authn_core",
                "authn_file",
                "authz_core",
                "authz_user",
            ];
            let load = |module: &&str| {
                format!("LoadModule {module}_module /usr/lib/apache2/modules/mod_{module}.so\n")
            };
            let modules: String = modules.iter().map(load).collect();
            let config = format!(
                "{modules}ServerName localhost\nServerRoot {shown}\nDefaultRuntimeDir {shown}\nPidFile {shown}/pid\n\
                 ErrorLog {shown}/error.log\nListen 127.0.0.1:{port}\nUser www-data\nGroup www-data\n\
                 DocumentRoot {shown}/root\nDavLockDB {shown}/locks\nLimitRequestBody 0\n\
                 <Directory {shown}/root>\nDav On\nAuthType Basic\nAuthName test\nAuthUserFile {shown}/passwords\n\
                 Require valid-user\n</Directory>\n"
            );
            std::fs::write(dir.join("httpd.conf"), config).unwrap();
            let mut command = Command::new(&apache);
            command.arg("-X").arg("-f").arg(dir.join("httpd.conf"));
            command
        });
        Self(server)
    }

    pub fn location(&self, path: &str) -> Location {
        location(&self.0, &format!("dav/{path}"))
    }
}

pub struct Rclone(pub Server);

impl Rclone {
    pub fn start() -> Self {
        let rclone = program("rclone");
        let server = Server::start("rclone", |dir, port| {
            let root = dir.join("root");
            std::fs::create_dir_all(&root).unwrap();
            let mut command = Command::new(&rclone);
            command.args(["serve", "webdav", "--config=", "--user", USER, "--pass", PASSWORD]);
            command.arg(format!("--addr=127.0.0.1:{port}")).arg(root).env("HOME", dir);
            command
        });
        Self(server)
    }

    pub fn location(&self, path: &str) -> Location {
        location(&self.0, path)
    }
}
