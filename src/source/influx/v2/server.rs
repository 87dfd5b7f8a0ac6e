//! The server, asked over HTTP.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;

use reqwest::Method;
use serde_json::{Value, json};

use super::bucket::is_id;
use super::counts::{self, Counts};
use super::multipart::Parts;
use super::spool::{self, Metadata};
use super::{Address, Influx2Error, http_error, refused, said};
use crate::base::http::{Download, Http, HttpError};
use crate::base::secret::Secret;
use crate::base::url::encode;
use crate::source::capture::SourceError;
use crate::source::influx::{World, version};

/// See the module.
#[derive(Clone)]
pub struct Server {
    http: Http,
    pub version: String,
    /// What to know of this server.
    pub warnings: Vec<String>,
}

/// A bucket that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Existing {
    pub id: String,
    pub description: String,
}

/// A bucket that was made for a restore.
pub struct Made {
    pub id: String,
    /// The id in the backup, and on the server now.
    pub shards: BTreeMap<u64, u64>,
}

fn document(what: &str, answer: &[u8]) -> Result<Value, SourceError> {
    serde_json::from_slice(answer).map_err(|_| said(format!("cannot {what}: the answer is not InfluxDB's")))
}

fn checked_id(what: &str, id: &Value) -> Result<String, SourceError> {
    let id = id.as_str().filter(|id| is_id(id)).map(str::to_owned);
    id.ok_or_else(|| said(format!("cannot {what}: the answer has no id")))
}

/// Whether the server has no such thing.
fn is_missing(error: &HttpError) -> bool {
    matches!(error, HttpError::Failed { status: Some(404), .. })
}

impl Server {
    /// Asks the server what it is.
    ///
    /// # Errors
    /// Nobody answers, it is no InfluxDB 2.1 or later, or there is no token for it.
    pub fn connect(address: &Address, world: &World) -> Result<Self, SourceError> {
        let (place, patience) = (address.url(), address.no_progress);
        let http = Http::new(&place, None, patience, &world.runtime, &world.cancel).map_err(http_error)?;
        let version = version::ask(&http).map_err(http_error)?;
        let mut warnings = Vec::new();
        match version.numbers {
            Some((2, 1..)) => {}
            Some((2, 0)) => {
                return refused(format!(
                    "InfluxDB {} answers at {place}, whose backups nobody here reads\nhint: 2.1 and later are supported: upgrade the \
                     server first, which is a small step",
                    version.text
                ));
            }
            Some((1, _)) => {
                return refused(format!(
                    "InfluxDB {} answers at {place}, and influxdb2:// is for 2.x\nhint: influxdb://HOST:8086/DATABASE is for 1.x",
                    version.text
                ));
            }
            Some((3, _)) => return refused(version.refusal_of_3(&place)),
            Some(_) => {
                return refused(format!(
                    "InfluxDB {} answers at {place}, and influxdb2:// is for 2.x",
                    version.text
                ));
            }
            None if version.is_cloud => {
                return refused(format!(
                    "InfluxDB Cloud answers at {place}: it offers no backups over its API\nhint: its operator makes them"
                ));
            }
            None if version.text.is_empty() => {
                return refused(format!(
                    "what answers at {place} does not say that it is InfluxDB\nhint: is it the right port, and does what stands \
                     between pass /ping and /health on?"
                ));
            }
            None => warnings.push(format!(
                "the server calls its version {:?}: it is taken for one of 2.1 or later",
                version.text
            )),
        }
        let token = match &address.token_file {
            Some(path) => {
                let text = std::fs::read(path)
                    .map_err(|cause| said(format!("cannot read token-file {}: {cause}", path.display())))?;
                Some(Secret::from_line(text))
            }
            None => world.token.clone(),
        };
        let Some(token) = token.filter(|token| !token.is_empty()) else {
            return refused(format!(
                "there is no token for {place}\nhint: give an operator token in INFLUX_TOKEN or by ?token-file=FILE"
            ));
        };
        let http = http.authorized("Token", &token).map_err(http_error)?;
        Ok(Self { http, version: version.text, warnings })
    }

    /// One that works in a cancelled run, too.
    pub fn farewell(&self) -> Self {
        Self { http: self.http.farewell(), ..self.clone() }
    }

    /// What the server tells of itself and its buckets. `spool`: where its stores go, if they are wanted.
    ///
    /// # Errors
    /// The server's; the answer is not whole.
    pub fn metadata(&self, spool: Option<&Path>) -> Result<Metadata, SourceError> {
        let what = "read the metadata";
        let mut download =
            self.http.stream(what, Method::GET, "/api/v2/backup/metadata", &[]).map_err(http_error)?;
        plain(what, &download)?;
        let content_type = download.header("content-type").unwrap_or_default().to_owned();
        let read = move |buffer: &mut [u8]| download.read_some(buffer).map_err(http_error);
        spool::read(Parts::new(&content_type, read)?, spool)
    }

    /// A shard as it is now; `None` when the server has none with that id.
    ///
    /// # Errors
    /// The server's.
    pub fn shard(&self, id: u64) -> Result<Option<Download>, SourceError> {
        let what = format!("read shard {id}");
        match self.http.stream(&what, Method::GET, &format!("/api/v2/backup/shards/{id}"), &[]) {
            Err(error) if is_missing(&error) => Ok(None),
            Err(error) => Err(http_error(error)),
            Ok(download) => plain(&what, &download).map(|()| Some(download)),
        }
    }

    /// Counts the points of a bucket that are older than `until`, an instant as RFC 3339 has it.
    ///
    /// # Errors
    /// The server's.
    pub fn count(&self, bucket: &str, org: &str, until: &str) -> Result<Counts, SourceError> {
        let what = "count the points";
        let dialect = json!({ "header": true, "annotations": [], "delimiter": "," });
        let asked = json!({ "type": "flux", "query": counts::query(bucket, until), "dialect": dialect });
        let path = format!("/api/v2/query?orgID={}", encode(org, ""));
        let answer = self.http.tell(what, Method::POST, &path, &asked).map_err(http_error)?;
        counts::read(&answer).map_err(|error| said(format!("cannot {what}: {error}")))
    }

    /// The id of an organization.
    ///
    /// # Errors
    /// The server's.
    pub fn org(&self, name: &str) -> Result<Option<String>, SourceError> {
        let what = "look for the organization";
        let found = match self.http.ask(what, Method::GET, "/api/v2/orgs", &[("org", name)]) {
            Err(error) if is_missing(&error) => return Ok(None),
            found => document(what, &found.map_err(http_error)?)?,
        };
        let orgs = found["orgs"].as_array().into_iter().flatten();
        let found = orgs.into_iter().find(|org| org["name"] == name);
        found.map(|org| checked_id(what, &org["id"])).transpose()
    }

    /// Names of organizations, of at most a hundred.
    ///
    /// # Errors
    /// The server's.
    pub fn orgs(&self) -> Result<Vec<String>, SourceError> {
        let what = "list the organizations";
        let answer = self.http.ask(what, Method::GET, "/api/v2/orgs", &[("limit", "100")]);
        let found = document(what, &answer.map_err(http_error)?)?;
        let orgs = found["orgs"].as_array().into_iter().flatten();
        Ok(orgs.filter_map(|org| org["name"].as_str().map(str::to_owned)).collect())
    }

    /// A bucket by its name.
    ///
    /// # Errors
    /// The server's.
    pub fn bucket(&self, org: &str, name: &str) -> Result<Option<Existing>, SourceError> {
        let what = "look for the bucket";
        let form = [("orgID", org), ("name", name)];
        let found = match self.http.ask(what, Method::GET, "/api/v2/buckets", &form) {
            Err(error) if is_missing(&error) => return Ok(None),
            found => document(what, &found.map_err(http_error)?)?,
        };
        let mut buckets = found["buckets"].as_array().into_iter().flatten();
        let Some(found) = buckets.find(|bucket| bucket["name"] == name) else { return Ok(None) };
        let description = found["description"].as_str().unwrap_or_default().to_owned();
        Ok(Some(Existing { id: checked_id(what, &found["id"])?, description }))
    }

    /// Makes a bucket with empty shards, as [`super::bucket::Bucket::anew`] describes it.
    ///
    /// # Errors
    /// The server's.
    pub fn make(&self, description: &Value) -> Result<Made, SourceError> {
        let what = format!("make bucket {}", description["bucketName"]);
        let path = "/api/v2/restore/bucketMetadata";
        let answer = self.http.tell(&what, Method::POST, path, description).map_err(http_error)?;
        let answer = document(&what, &answer)?;
        let id = checked_id(&what, &answer["id"])?;
        let pairs = answer["shardMappings"].as_array().into_iter().flatten();
        let shards = pairs.filter_map(|pair| Some((pair["oldId"].as_u64()?, pair["newId"].as_u64()?)));
        Ok(Made { id, shards: shards.collect() })
    }

    /// Fills a shard. An error of `content` breaks the request: the server must not take half for all.
    ///
    /// # Errors
    /// The server's.
    pub fn fill(&self, shard: u64, content: &mut dyn Read) -> Result<(), SourceError> {
        let path = format!("/api/v2/restore/shards/{shard}");
        self.http.send(&format!("restore shard {shard}"), &path, content).map(drop).map_err(http_error)
    }

    /// Changes a bucket's name, description or retention.
    ///
    /// # Errors
    /// The server's.
    pub fn change(&self, what: &str, bucket: &str, document: &Value) -> Result<(), SourceError> {
        let path = format!("/api/v2/buckets/{bucket}");
        self.http.tell(what, Method::PATCH, &path, document).map(drop).map_err(http_error)
    }

    /// Removes a bucket and what is in it.
    ///
    /// # Errors
    /// The server's.
    pub fn remove(&self, bucket: &str) -> Result<(), SourceError> {
        let path = format!("/api/v2/buckets/{bucket}");
        self.http.ask("remove a bucket", Method::DELETE, &path, &[]).map(drop).map_err(http_error)
    }
}

/// What was asked for without compression must not come compressed.
fn plain(what: &str, download: &Download) -> Result<(), SourceError> {
    match download.header("content-encoding") {
        None | Some("" | "identity") => Ok(()),
        Some(encoding) => {
            let encoding: String = encoding.chars().take(40).collect();
            let text = format!("cannot {what}: it comes as {encoding}, and was asked for as it is");
            Err(Influx2Error::Said(format!("{text}\nhint: does something between us compress it?")).into())
        }
    }
}
