//! SeaweedFS as an S3 service, with two users and one bucket.

use std::process::Command;
use std::time::{Duration, Instant};

use bytes::Bytes;
use lifeboat::store::{Credentials, Location, StoreOptions, create};

use super::{Server, free_port, program};

pub const KEY_ID: &str = "lifeboat";
pub const SECRET: &str = "test-secret-of-the-tests";
/// Has no right to make buckets.
pub const PLAIN_KEY_ID: &str = "plain";
pub const BUCKET: &str = "backups";

pub struct Seaweed(pub Server);

impl Seaweed {
    pub async fn start() -> Self {
        let weed = program("weed");
        let identity = |name: &str, id: &str, actions: &str| {
            format!(
                r#"{{"name":"{name}","credentials":[{{"accessKey":"{id}","secretKey":"{SECRET}"}}],
                   "actions":[{actions}]}}"#
            )
        };
        let owner = identity("owner", KEY_ID, r#""Admin","Read","Write","List","Tagging""#);
        let plain = identity("plain", PLAIN_KEY_ID, r#""Read","Write","List""#);
        let config = format!(r#"{{"identities":[{owner},{plain}]}}"#);
        let server = Server::start("SeaweedFS", |dir, port| {
            let file = dir.join("s3.json");
            std::fs::write(&file, &config).unwrap();
            let data = dir.join("data");
            std::fs::create_dir_all(&data).unwrap();
            let mut command = Command::new(&weed);
            command.arg("server").arg(format!("-dir={}", data.display())).current_dir(dir);
            command.args(["-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-s3", "-filer", "-volume.max=0"]);
            command.args(["-master.volumeSizeLimitMB=64", "-volume.preStopSeconds=0", "-s3.port.iceberg=0"]);
            command.args(["-master.electionTimeout=1s", "-master.heartbeatInterval=100ms"]);
            command.args(["-master.telemetry=false"]);
            command.arg(format!("-s3.config={}", file.display())).arg(format!("-s3.port={port}"));
            for role in ["master", "volume", "filer", "s3"] {
                if role != "s3" {
                    command.arg(format!("-{role}.port={}", free_port()));
                }
                command.arg(format!("-{role}.port.grpc={}", free_port()));
            }
            command
        });
        let seaweed = Self(server);
        seaweed.ready().await;
        seaweed
    }

    /// Writes are refused until the first volume is there. The first one also makes the bucket.
    async fn ready(&self) {
        let options = StoreOptions { max_retries: 0, ..self.options() };
        let store = create(&self.location("ready"), &options).unwrap();
        let begin = Instant::now();
        while let Err(e) = store.put("ready", Bytes::from_static(b"ready")).await {
            assert!(begin.elapsed() < Duration::from_secs(60), "SeaweedFS is not ready: {e}: {}", e.cause);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    pub fn location(&self, prefix: &str) -> Location {
        let text = format!("s3://{BUCKET}/{prefix}?endpoint=http://127.0.0.1:{}", self.0.port);
        text.parse().unwrap()
    }

    pub fn options(&self) -> StoreOptions {
        let credentials = Credentials {
            s3_access_key_id: Some(KEY_ID.into()),
            s3_secret_access_key: Some(SECRET.to_owned().into()),
            ..Default::default()
        };
        StoreOptions { credentials, ..Default::default() }
    }
}
