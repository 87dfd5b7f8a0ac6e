//! Series given back: spooled and compared with the facts, imported, exported once more and compared again.
//!
//! A server has no place beside: with `--force` what is there is deleted before the import, and cannot come back from
//! there. So nothing is deleted before everything to be imported lies here, whole.

use std::io::{Read, Seek as _, Write as _};
use std::time::Duration;

use reqwest::Method;
use serde_json::{Map, Value, json};

use super::capture::SERIES;
use super::rounding::{self, Difference, Values};
use super::series::{Line, Lines, Malformed, Series, Sum};
use super::{ALL, Address, KEY, VictoriaError, World, connect, flush, http_error};
use crate::base::http::Http;
use crate::source::capture::SourceError;
use crate::source::target::{Returned, StoredPart, Target};

const BUFFER_BYTES: usize = 256 << 10;
/// How often a server is asked again that does not show yet what it took, and how long between.
const TRIES: u32 = 50;
const PAUSE: Duration = Duration::from_millis(100);

/// See the module.
pub struct VictoriaTarget {
    address: Address,
    world: World,
    force: bool,
    http: Option<Http>,
    expected: Sum,
    has_some: bool,
    spool: Option<std::fs::File>,
}

fn refused<T>(why: impl Into<String>) -> Result<T, SourceError> {
    Err(SourceError::Refused(why.into()))
}

fn other(error: Malformed) -> VictoriaError {
    VictoriaError::Other(error.to_string())
}

/// Hands over everything a server shows now.
fn export(http: &Http, mut take: impl FnMut(&[u8]) -> Result<(), Malformed>) -> Result<(), SourceError> {
    let form = [("match[]", ALL), ("start", "0"), ("reduce_mem_usage", "1")];
    let mut download = http.stream("export", Method::POST, "/api/v1/export", &form).map_err(http_error)?;
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let length = download.read_some(&mut buffer).map_err(http_error)?;
        if length == 0 {
            return Ok(());
        }
        take(&buffer[..length]).map_err(other)?;
    }
}

fn sum(http: &Http) -> Result<Sum, SourceError> {
    let mut series = Series::default();
    export(http, |bytes| series.push(bytes))?;
    Ok(series.finish().map_err(other)?)
}

fn local(operation: &str) -> impl FnOnce(std::io::Error) -> VictoriaError + use<> {
    let operation = operation.to_owned();
    move |cause| VictoriaError::Local { operation, cause }
}

/// Whether there is any point at all.
fn has_some(http: &Http) -> Result<bool, SourceError> {
    let form = [("match[]", ALL), ("start", "0"), ("reduce_mem_usage", "1")];
    let mut download =
        http.stream("look what is there", Method::POST, "/api/v1/export", &form).map_err(http_error)?;
    let mut byte = [0; 1];
    Ok(download.read_some(&mut byte).map_err(http_error)? > 0)
}

impl VictoriaTarget {
    /// Connects to nothing yet.
    pub fn new(address: Address, world: World, force: bool) -> Self {
        Self { address, world, force, http: None, expected: Sum::default(), has_some: false, spool: None }
    }

    fn http(&self) -> Result<&Http, SourceError> {
        let unready = || VictoriaError::Other("the server was not looked at: this is a bug".into());
        Ok(self.http.as_ref().ok_or_else(unready)?)
    }

    fn until(&self, done: impl Fn(&Http) -> Result<bool, SourceError>) -> Result<bool, SourceError> {
        let http = self.http()?;
        for _ in 0..TRIES {
            flush(http)?;
            if done(http)? {
                return Ok(true);
            }
            self.world.cancel.check()?;
            std::thread::sleep(PAUSE);
        }
        Ok(false)
    }
}

impl VictoriaTarget {
    /// Some values are not the same text. Are they the same numbers, as far as a server keeps them?
    fn compare(&self, spool: &mut std::fs::File) -> Result<(), SourceError> {
        let (mut were, mut are) = (Values::default(), Values::default());
        each(spool, |bytes| were.push(bytes))?;
        export(self.http()?, |bytes| are.push(bytes))?;
        let Difference::Changed { series, worst } = were.against(&are) else { return Ok(()) };
        let (mut lines, mut name) = (Lines::default(), None);
        each(spool, |bytes| {
            lines.push(bytes, |line| {
                let metric = Line::parse(line)?.metric;
                if name.is_none() && rounding::key(metric) == worst {
                    name = Some(String::from_utf8_lossy(metric).into_owned());
                }
                Ok(())
            })
        })?;
        let name = name.unwrap_or_else(|| "one that was not there".into());
        Err(SourceError::Differs(format!(
            "values of {series} series at {} are others than rounding explains, most of all {name}\nhint: a server that was \
             started with -precisionBits, or that others write to, keeps others",
            self.address.shown()
        )))
    }
}

/// Hands over everything in the spool file.
fn each(
    spool: &mut std::fs::File,
    mut take: impl FnMut(&[u8]) -> Result<(), Malformed>,
) -> Result<(), SourceError> {
    spool.rewind().map_err(local("read the spool file"))?;
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let length = spool.read(&mut buffer).map_err(local("read the spool file"))?;
        if length == 0 {
            return Ok(());
        }
        take(&buffer[..length]).map_err(other)?;
    }
}

impl Target for VictoriaTarget {
    fn prepare(
        &mut self,
        parts: &[StoredPart],
        facts: &Map<String, Value>,
    ) -> Result<Vec<usize>, SourceError> {
        let Some(facts) = facts.get(KEY) else {
            return refused("the snapshot is not of VictoriaMetrics");
        };
        if facts["way"] == "files" {
            return refused(
                "the snapshot holds the server's files, which go back as files\nhint: stop the server, then: lifeboat restore \
                 SNAPSHOT:/victoria --target FOLDER, which is to be its -storageDataPath",
            );
        }
        let bad = || SourceError::Refused("the facts of the snapshot cannot be read".into());
        self.expected = serde_json::from_value(facts["sum"].clone()).map_err(|_| bad())?;
        let wanted = parts.iter().position(|part| part.path.trim_start_matches('/') == SERIES);
        let Some(wanted) = wanted else {
            return refused(format!("/{SERIES} was not selected from the snapshot"));
        };
        let http = connect(&self.address, &self.world)?;
        flush(&http)?;
        self.has_some = has_some(&http)?;
        if self.has_some && !self.force {
            return refused(format!(
                "{} holds series\nhint: --force deletes all of them, once everything to be restored was fetched",
                self.address.shown()
            ));
        }
        self.http = Some(http);
        Ok(vec![wanted])
    }

    fn put(&mut self, _: &StoredPart, content: &mut dyn Read) -> Result<(), SourceError> {
        let mut spool = tempfile::tempfile_in(&self.world.spool).map_err(local("make a spool file"))?;
        let (mut series, mut buffer) = (Series::default(), vec![0; BUFFER_BYTES]);
        loop {
            self.world.cancel.check()?;
            let length = content.read(&mut buffer).map_err(local("read the series"))?;
            if length == 0 {
                break;
            }
            series.push(&buffer[..length]).map_err(other)?;
            spool.write_all(&buffer[..length]).map_err(local("write the spool file"))?;
        }
        let came = series.finish().map_err(other)?;
        if came != self.expected {
            return Err(SourceError::Differs("the stored series are not those that were counted".into()));
        }
        spool.rewind().map_err(local("read the spool file"))?;
        self.spool = Some(spool);
        Ok(())
    }

    fn finish(mut self: Box<Self>) -> Result<Returned, SourceError> {
        let Some(mut spool) = self.spool.take() else {
            return Err(SourceError::Differs("nothing came".into()));
        };
        let mut proven = Vec::new();
        if self.has_some {
            let form = [("match[]", ALL)];
            self.http()?
                .ask("delete what is there", Method::POST, "/api/v1/admin/tsdb/delete_series", &form)
                .map_err(http_error)?;
            if !self.until(|http| Ok(!has_some(http)?))? {
                let why = format!("{} still shows series after they were deleted", self.address.shown());
                return Err(VictoriaError::Other(why).into());
            }
            proven.push("what was there was deleted".to_owned());
        }
        self.http()?.send("import", "/api/v1/import", &mut spool).map_err(http_error)?;
        let expected = self.expected.clone();
        // It takes a moment until everything is seen.
        self.until(|http| Ok(sum(http)?.points >= expected.points))?;
        let got = sum(self.http()?)?;
        if (&got.times, got.points) != (&expected.times, expected.points) {
            return Err(SourceError::Differs(format!(
                "there are {} points of {} series, and there were {} of {}; a server drops points that are older than its \
                 -retentionPeriod",
                got.points, got.series, expected.points, expected.series
            )));
        }
        proven.push(format!("{} points of {} series are those of the snapshot", got.points, got.series));
        if got.values == expected.values {
            proven.push("their values are the same, digit for digit".into());
        } else {
            self.compare(&mut spool)?;
            proven.push("their values are the same, but for the rounding of the server".into());
        }
        let facts = json!({ "series": got.series, "points": got.points });
        let facts = Map::from_iter([(KEY.to_owned(), facts)]);
        Ok(Returned { proven, facts, ..Returned::default() })
    }
}
