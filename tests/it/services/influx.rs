//! InfluxDB 1.x servers.

use std::process::Command;

use super::victoria::request;
use super::{Server, free_port, program};

/// A running server.
pub struct Influx {
    pub server: Server,
    pub backup_port: u16,
}

fn encode(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

impl Influx {
    pub fn start() -> Self {
        let backup = std::cell::Cell::new(0);
        let server = Server::start("influxd", |folder, port| {
            backup.set(free_port());
            let place = folder.display();
            let text = format!(
                "reporting-disabled = true\nbind-address = \"127.0.0.1:{}\"\n[meta]\ndir = \"{place}/meta\"\n[data]\n\
                 dir = \"{place}/data\"\nwal-dir = \"{place}/wal\"\n[http]\nbind-address = \"127.0.0.1:{port}\"\n\
                 log-enabled = false\n",
                backup.get()
            );
            let path = folder.join("influxdb.conf");
            std::fs::write(&path, text).unwrap();
            let mut command = Command::new(program("influxd"));
            command.arg("-config").arg(path);
            command
        });
        Self { server, backup_port: backup.get() }
    }

    pub fn port(&self) -> u16 {
        self.server.port
    }

    pub fn address(&self, database: &str) -> String {
        format!("influxdb://127.0.0.1:{}/{database}?backup=127.0.0.1:{}", self.port(), self.backup_port)
    }

    pub fn query(&self, query: &str) -> String {
        let said = request(self.port(), "POST", "/query", &format!("epoch=ns&q={}", encode(query)));
        said.trim_end().to_owned()
    }

    /// Lines of the server's protocol, into a retention policy of a database.
    pub fn write(&self, database: &str, policy: &str, lines: &str) {
        request(self.port(), "POST", &format!("/write?db={database}&rp={policy}"), lines);
    }

    /// Every point of a database, and its retention policies. Shards that are not open yet are waited for.
    pub fn content(&self, database: &str) -> String {
        loop {
            let said = self.query(&format!("SELECT * FROM \"{database}\".\"autogen\"./.*/"))
                + &self.query(&format!("SELECT * FROM \"{database}\".\"long\"./.*/"));
            if !said.contains("error") {
                return said + &self.query(&format!("SHOW RETENTION POLICIES ON \"{database}\""));
            }
        }
    }
}
