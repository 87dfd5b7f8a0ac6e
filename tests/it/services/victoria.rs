//! VictoriaMetrics servers that keep what they are given for good.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Server, program};

/// A running server.
pub struct Victoria {
    pub server: Server,
    storage: PathBuf,
}

/// Sends a request and returns the body, which must come with a good status.
pub fn request(port: u16, method: &str, path: &str, body: &str) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    let form = "Content-Type: application/x-www-form-urlencoded";
    let length = body.len();
    let head = format!("{method} {path} HTTP/1.0\r\nHost: h\r\n{form}\r\nContent-Length: {length}\r\n\r\n");
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(body.as_bytes()).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.split(' ').nth(1).is_some_and(|status| status.starts_with('2')), "{path}: {answer}");
    body.to_owned()
}

impl Victoria {
    pub fn start() -> Self {
        Self::start_with(None, &[])
    }

    /// Over files that are there, with these options beside the usual ones.
    pub fn start_with(storage: Option<&Path>, options: &[&str]) -> Self {
        let place = |folder: &Path| storage.map_or_else(|| folder.join("storage"), Path::to_owned);
        let server = Server::start("victoria-metrics", |folder, port| {
            let mut command = Command::new(program("victoria-metrics"));
            command.arg(format!("-storageDataPath={}", place(folder).display()));
            command.arg(format!("-httpListenAddr=127.0.0.1:{port}")).arg("-retentionPeriod=100y");
            command.args(["-memory.allowedBytes=64MB"]).args(options).current_dir(folder);
            command
        });
        let storage = place(server.dir.path());
        Self { server, storage }
    }

    pub fn port(&self) -> u16 {
        self.server.port
    }

    /// `victoria://127.0.0.1:port`
    pub fn address(&self) -> String {
        format!("victoria://127.0.0.1:{}", self.port())
    }

    pub fn storage(&self) -> &Path {
        &self.storage
    }

    /// Writes lines of InfluxDB's protocol.
    pub fn write(&self, lines: &str) {
        request(self.port(), "POST", "/write", lines);
    }

    /// Everything in it, sorted: neither lines nor points have an order.
    pub fn content(&self) -> String {
        content(self.port())
    }

    pub fn snapshots(&self) -> String {
        request(self.port(), "GET", "/snapshot/list", "")
    }
}

/// Everything in the server at a port.
pub fn content(port: u16) -> String {
    request(port, "GET", "/internal/force_flush", "");
    // Not as CSV, and series after series: this version mixes the points of series that it sends at once.
    let all = request(port, "POST", "/api/v1/export", "match[]={__name__!=\"\"}&start=0&reduce_mem_usage=1");
    let mut lines = Vec::new();
    for series in all.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()) {
        let (times, values) =
            (series["timestamps"].as_array().unwrap(), series["values"].as_array().unwrap());
        assert_eq!(times.len(), values.len());
        lines.extend(
            times.iter().zip(values).map(|(time, value)| format!("{},{time},{value}", series["metric"])),
        );
    }
    lines.sort_unstable();
    lines.join("\n")
}
