//! Buckets given back: each beside under another name, filled shard by shard, counted, and only then shown.
//!
//! 1. a bucket is made as `NAME_lifeboat_new`, marked, without retention: else its server removes old shards before they
//!    are proven. Killed here, the mark says whose it is; the next restore with `--force` removes it.
//! 2. its shards are filled, its points counted.
//! 3. one that is there under the name is renamed away and stays; the new one gets name, description and retention in one
//!    request. Should that fail, the old one gets its name back. Killed between the two, the message of the next restore
//!    says which bucket is which.
//!
//! An error before 3 removes what was made.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::bucket::{Bucket, DESCRIPTION, Described, part_of};
use super::counts::{self, Counts};
use super::server::{Existing, Server};
use super::{Address, KEY, LABEL, refused, said};
use crate::source::capture::SourceError;
use crate::source::influx::World;
use crate::source::target::{Met, Returned, StoredPart, Target};

/// How often points are counted again that are fewer than they were, and the time between.
const TRIES: u32 = 20;
const PAUSE: Duration = Duration::from_millis(250);
/// Most bytes of a description.
const DESCRIPTION_LIMIT: u64 = 64 << 20;
/// The description of a bucket that is not proven.
pub const MARK: &str = "being restored by lifeboat; not whole yet";

/// One bucket on its way back.
struct Plan {
    /// Where its parts lie in the snapshot.
    folder: String,
    /// The name it gets.
    name: String,
    org: String,
    org_id: String,
    /// Shards that the snapshot holds.
    shards: BTreeSet<u64>,
    old: Option<Existing>,
    /// One that an earlier restore left, and that is ours to remove.
    left: Option<Existing>,
    bucket: Option<Bucket>,
    points: Option<Counts>,
    /// Shards went while it was captured, whose points were counted before.
    has_lost: bool,
    /// Made by us and not shown: its id, and the shards it has by their ids in the snapshot.
    made: Option<(String, BTreeMap<u64, u64>)>,
    filled: BTreeSet<u64>,
}

/// See the module.
pub struct Influx2Target {
    address: Address,
    world: World,
    force: bool,
    server: Option<Server>,
    until: String,
    plans: Vec<Plan>,
}

/// An error of a bucket that came after others were shown: it names those, before its hint.
fn after(error: SourceError, placed: &str) -> SourceError {
    match error {
        _ if placed.is_empty() => error,
        SourceError::Cancelled(_) => {
            tracing::warn!("interrupted between buckets:{placed}");
            error
        }
        error => said(with_placed(&error.to_string(), placed)),
    }
}

fn with_placed(text: &str, placed: &str) -> String {
    let (text, hint) = text.find("\nhint: ").map_or((text, ""), |at| text.split_at(at));
    format!("{text}{placed}{hint}")
}

fn beside(name: &str) -> String {
    format!("{name}_lifeboat_new")
}

impl Influx2Target {
    /// Connects to nothing yet.
    pub fn new(address: Address, world: World, force: bool) -> Self {
        Self { address, world, force, server: None, until: String::new(), plans: Vec::new() }
    }

    fn server(&self) -> Result<&Server, SourceError> {
        self.server.as_ref().ok_or_else(|| said("the server was not looked at: this is a bug"))
    }

    /// What the selected parts are, by folder.
    fn folders(parts: &[StoredPart]) -> Result<BTreeMap<String, BTreeSet<u64>>, SourceError> {
        let (mut folders, mut described) = (BTreeMap::<String, BTreeSet<u64>>::new(), BTreeSet::new());
        for (folder, shard) in parts.iter().filter_map(|part| part_of(&part.path)) {
            let shards = folders.entry(folder.to_owned()).or_default();
            match shard {
                Some(id) => shards.insert(id),
                None => described.insert(folder.to_owned()),
            };
        }
        match folders.keys().find(|folder| !described.contains(*folder)) {
            Some(folder) => refused(format!(
                "/{folder}/{DESCRIPTION} was not selected, and nothing of it goes back without it"
            )),
            None if folders.is_empty() => refused("no bucket was selected from the snapshot"),
            None => Ok(folders),
        }
    }

    /// Looks what is there, and refuses what cannot end well.
    fn plan(
        &self,
        server: &Server,
        folder: String,
        shards: BTreeSet<u64>,
        fact: &Value,
    ) -> Result<Plan, SourceError> {
        let text = |key: &str| {
            let missing = || SourceError::Refused("the facts of the snapshot cannot be read".into());
            fact[key].as_str().map(str::to_owned).ok_or_else(missing)
        };
        let name = self.address.bucket.clone().map_or_else(|| text("bucket"), Ok)?;
        let org = self.address.org.clone().map_or_else(|| text("org"), Ok)?;
        let place = self.address.url();
        let Some(org_id) = server.org(&org)? else {
            let there = server.orgs()?;
            return refused(format!(
                "there is no organization {org:?} at {place}\nhint: ?org=NAME names another (there are {there:?}), or make it: \
                 influx org create --name NAME"
            ));
        };
        let (old, left) = (server.bucket(&org_id, &name)?, server.bucket(&org_id, &beside(&name))?);
        if old.is_some() && !self.force {
            return refused(format!(
                "bucket {name:?} exists at {place}\nhint: --force restores beside it, proves that, and renames both: what is there \
                 stays as {name}_before_TIME"
            ));
        }
        let beside = beside(&name);
        match &left {
            Some(left) if left.description != MARK => {
                return refused(format!(
                    "bucket {beside:?} exists at {place} and is not ours\nhint: the restore needs that name: rename or remove it"
                ));
            }
            Some(_) if !self.force => {
                return refused(format!(
                    "bucket {beside:?} exists at {place}: an earlier restore was killed, or one is under way\nhint: --force \
                     removes it first; if {name:?} is missing, look for {name}_before_TIME"
                ));
            }
            _ => {}
        }
        let has_lost = fact["shards_gone"].as_array().is_some_and(|gone| !gone.is_empty());
        let (bucket, points, made, filled) = (None, None, None, BTreeSet::new());
        Ok(Plan { folder, name, org, org_id, shards, old, left, bucket, points, has_lost, made, filled })
    }

    fn begin(&mut self, place: usize, content: &mut dyn Read) -> Result<(), SourceError> {
        let mut bytes = Vec::new();
        let read = content.take(DESCRIPTION_LIMIT).read_to_end(&mut bytes);
        read.map_err(|error| said(format!("cannot read the bucket's description: {error}")))?;
        let described = Described::read(&bytes).map_err(|error| said(error.to_string()))?;
        let server = self.server()?.clone();
        let Some(plan) = self.plans.get_mut(place) else { return Ok(()) };
        if let Some(left) = plan.left.take() {
            server.remove(&left.id)?;
        }
        let document = described.bucket.anew(&beside(&plan.name), &plan.org_id, MARK, &plan.shards);
        let made = server.make(&document)?;
        // What is made is removed when the rest fails: it must not be what was there.
        if plan.old.as_ref().is_some_and(|old| old.id == made.id) {
            return Err(said(format!(
                "the server took bucket {:?} instead of making one beside it",
                plan.name
            )));
        }
        let shards = made.shards.clone();
        plan.made = Some((made.id, made.shards));
        plan.bucket = Some(described.bucket);
        plan.points = described.points.filter(|_| !plan.has_lost);
        match plan.shards.iter().find(|id| !shards.contains_key(id)) {
            Some(id) => {
                Err(said(format!("the server made no shard for shard {id} of bucket {:?}", plan.name)))
            }
            None => Ok(()),
        }
    }

    /// The points of a bucket that was filled this moment.
    fn count(&self, plan: &Plan, expected: &Counts) -> Result<Counts, SourceError> {
        let Some((id, _)) = &plan.made else { return Err(said("a bucket was not made: this is a bug")) };
        let mut tried = 0;
        loop {
            let got = self.server()?.count(id, &plan.org_id, &self.until);
            let got = got.map_err(|error| match error {
                error @ SourceError::Cancelled(_) => error,
                error => said(format!(
                    "{error}\nhint: what was restored cannot be proven so, and is removed again; ?count=off restores without that"
                )),
            })?;
            let Some(missing) = counts::missing(expected, &got) else { return Ok(got) };
            if tried == TRIES {
                return Err(SourceError::Differs(format!(
                    "{missing}\nhint: what was restored is removed again; ?count=off restores without counting"
                )));
            }
            tried += 1;
            self.world.cancel.check()?;
            std::thread::sleep(PAUSE);
        }
    }

    /// Proves one bucket. What is said of it, and how many points it has.
    fn prove(&self, plan: &Plan, returned: &mut Returned) -> Result<Option<u64>, SourceError> {
        let name = &plan.name;
        if let Some(missing) = plan.shards.difference(&plan.filled).next() {
            return Err(SourceError::Differs(format!("shard {missing} of bucket {name:?} did not come")));
        }
        let shards = plan.filled.len();
        returned
            .proven
            .push(format!("bucket {name:?}: {shards} of {shards} shards were taken by the server"));
        let Some(expected) = plan.points.as_ref().filter(|_| self.address.counts) else {
            let why = if plan.has_lost { "cannot be compared" } else { "were not counted" };
            returned
                .warnings
                .push(format!("the points of bucket {name:?} {why}: nothing proves their number"));
            return Ok(None);
        };
        let got = counts::total(&self.count(plan, expected)?);
        returned.proven.push(match got - counts::total(expected).min(got) {
            0 => {
                format!("bucket {name:?}: {got} points are those that were counted, by measurement and field")
            }
            late => format!(
                "bucket {name:?}: {got} points came back, {late} of them written while the capture began"
            ),
        });
        Ok(Some(got))
    }

    /// Shows a proven bucket under its name. With an error: whether what was made may be removed.
    fn exchange(&self, plan: &Plan, id: &str, finished: &Value) -> Result<(), (SourceError, bool)> {
        let server = self.server().map_err(|error| (error, true))?;
        let (name, kept) = (&plan.name, self.kept(&plan.name));
        let renamed = plan.old.as_ref().map_or(Ok(()), |old| {
            server.change("rename the bucket that is there", &old.id, &json!({ "name": kept }))
        });
        let shown = renamed.and_then(|()| server.change("show the restored bucket", id, finished));
        let looked = shown.and_then(|()| match server.bucket(&plan.org_id, name)? {
            Some(now) if now.id == id => Ok(()),
            _ => Err(said(format!("bucket {name:?} is not the restored one although the server renamed it"))),
        });
        let (Err(error), Some(old)) = (looked.as_ref(), &plan.old) else {
            return looked.map_err(|error| (error, true));
        };
        // Whatever was done and not heard of: the old one gets the name that it had.
        match server.farewell().change("undo", &old.id, &json!({ "name": name })) {
            Ok(()) if matches!(error, SourceError::Cancelled(_)) => looked.map_err(|error| (error, true)),
            Ok(()) => {
                Err((said(format!("{error}\nhint: nothing was replaced: {name:?} is the old bucket")), true))
            }
            Err(_) => {
                let text = format!(
                    "{error}\nhint: what was done cannot be undone now; the old bucket has id {}, the restored one {id}: influx \
                     bucket list, then influx bucket update --id ID --name {name:?}",
                    old.id
                );
                // It may be what is shown.
                Err((said(text), false))
            }
        }
    }

    /// Shows a proven bucket, and says what that changed.
    fn place(&mut self, place: usize, returned: &mut Returned) -> Result<(), SourceError> {
        let plan = &self.plans[place];
        let (Some((id, _)), Some(bucket)) = (&plan.made, &plan.bucket) else { return Ok(()) };
        let (name, kept) = (&plan.name, self.kept(&plan.name));
        let finished = bucket.finished(name, self.address.keeps_retention);
        if let Err((error, may_go)) = self.exchange(plan, id, &finished) {
            if !may_go {
                self.plans[place].made = None;
            }
            return Err(error);
        }
        if plan.old.is_some() {
            let proven = format!("what was in {name:?} is in {kept:?}: remove it when nobody needs it");
            returned.proven.push(proven);
            returned.warnings.push(format!(
                "{name:?} is another bucket now: tokens, v1 mappings and replications that name the old one by its id still \
                 mean {kept:?}"
            ));
        }
        let over = self.over(plan, bucket);
        if over > 0 && self.address.keeps_retention {
            returned.warnings.push(format!(
                "{over} of {} shards of {name:?} are older than its retention of {} h: the server removes them soon, as it \
                 would have; ?retention=off keeps them",
                plan.shards.len(),
                bucket.retention_seconds / 3600
            ));
        }
        self.plans[place].made = None;
        Ok(())
    }

    /// How many shards that came back are beyond their retention.
    fn over(&self, plan: &Plan, bucket: &Bucket) -> usize {
        let oldest = self.world.now.seconds.saturating_sub(bucket.retention_seconds);
        let is_over = |(id, end): &(&u64, &i64)| plan.shards.contains(id) && **end < oldest;
        if bucket.retention_seconds > 0 { bucket.shards.iter().filter(is_over).count() } else { 0 }
    }

    /// The name of what is replaced.
    fn kept(&self, name: &str) -> String {
        let stamp = jiff::Timestamp::from_second(self.world.now.seconds);
        let stamp = stamp.map(|at| at.strftime("%Y%m%dT%H%M%S").to_string()).unwrap_or_default();
        format!("{name}_before_{stamp}")
    }
}

impl Target for Influx2Target {
    fn prepare(
        &mut self,
        parts: &[StoredPart],
        facts: &Map<String, Value>,
    ) -> Result<Vec<usize>, SourceError> {
        let Some(facts) = facts.get(KEY) else {
            return refused(match facts.contains_key("influx") {
                true => {
                    "the snapshot is of InfluxDB 1.x, whose files 2.x does not read\nhint: restore it into a server of 1.x: \
                     influxdb://HOST:8086/DATABASE"
                }
                false => "the snapshot is not of InfluxDB 2.x",
            });
        };
        let folders = Self::folders(parts)?;
        if self.address.bucket.is_some() && folders.len() > 1 {
            let first = folders.keys().next().map_or("", String::as_str);
            return refused(format!(
                "{} buckets were selected, and one is named to restore into\nhint: select one: SNAPSHOT:/{first}; or leave the \
                 bucket out of the address, and each goes back under its own name",
                folders.len()
            ));
        }
        let unreadable = || SourceError::Refused("the facts of the snapshot cannot be read".into());
        self.until = facts["counted_until"].as_str().ok_or_else(unreadable)?.to_owned();
        self.until.parse::<jiff::Timestamp>().map_err(|_| unreadable())?;
        let server = Server::connect(&self.address, &self.world)?;
        for (folder, shards) in folders {
            let mut known = facts["buckets"].as_array().into_iter().flatten();
            let fact = known.find(|bucket| bucket["folder"] == *folder).ok_or_else(unreadable)?;
            let plan = self.plan(&server, folder, shards, fact)?;
            self.plans.push(plan);
        }
        let names: BTreeSet<_> = self.plans.iter().map(|plan| (&plan.org_id, &plan.name)).collect();
        if names.len() < self.plans.len() {
            return refused(
                "several organizations have a bucket of one name\nhint: select one organization: SNAPSHOT:/influxdb2/orgs/ORG",
            );
        }
        self.server = Some(server);
        // A bucket's description comes before its shards.
        let mut wanted: Vec<_> =
            (0..parts.len()).filter(|place| part_of(&parts[*place].path).is_some()).collect();
        wanted.sort_by_key(|place| part_of(&parts[*place].path));
        Ok(wanted)
    }

    fn met(&self) -> Option<Met> {
        let renamed = |plan: &Plan| {
            plan.old
                .is_some()
                .then(|| format!("bucket {:?}, which is kept as {}_before_TIME", plan.name, plan.name))
        };
        let left = |plan: &Plan| {
            let name = beside(&plan.name);
            plan.left.is_some().then(|| format!("bucket {name:?}, left by a restore that was killed"))
        };
        let replaced = self.plans.iter().flat_map(|plan| [renamed(plan), left(plan)]).flatten().collect();
        Some(Met { replaced, warnings: vec![LABEL.to_owned()], ..Met::default() })
    }

    fn put(&mut self, part: &StoredPart, content: &mut dyn Read) -> Result<(), SourceError> {
        let unwanted = || said(format!("{} was not asked for: this is a bug", part.path));
        let (folder, shard) = part_of(&part.path).ok_or_else(unwanted)?;
        let place = self.plans.iter().position(|plan| plan.folder == folder).ok_or_else(unwanted)?;
        let Some(id) = shard else { return self.begin(place, content) };
        let made = self.plans[place].made.as_ref().and_then(|(_, shards)| shards.get(&id));
        let shard = *made.ok_or_else(unwanted)?;
        self.server()?.fill(shard, content)?;
        self.plans[place].filled.insert(id);
        Ok(())
    }

    fn finish(mut self: Box<Self>) -> Result<Returned, SourceError> {
        let mut returned = Returned { warnings: vec![LABEL.to_owned()], ..Returned::default() };
        returned.warnings.extend(self.server()?.warnings.iter().cloned());
        let mut facts = Vec::new();
        for plan in &self.plans {
            let points = self.prove(plan, &mut returned)?;
            facts.push(json!({ "org": plan.org, "bucket": plan.name, "points": points }));
        }
        let mut placed = String::new();
        for place in 0..self.plans.len() {
            let is_exchanged = self.plans[place].old.is_some();
            self.place(place, &mut returned).map_err(|error| after(error, &placed))?;
            let name = &self.plans[place].name;
            placed.push_str(&match is_exchanged {
                true => format!(
                    "\nbucket {name:?} is the restored one already; the old one is {:?}",
                    self.kept(name)
                ),
                false => format!("\nbucket {name:?} is restored already"),
            });
        }
        returned.facts = Map::from_iter([(KEY.to_owned(), json!({ "buckets": facts }))]);
        Ok(returned)
    }
}

impl Drop for Influx2Target {
    fn drop(&mut self) {
        let Some(server) = self.server.take().map(|server| server.farewell()) else { return };
        let made: Vec<String> =
            self.plans.iter().filter_map(|plan| Some(plan.made.as_ref()?.0.clone())).collect();
        let remove = || {
            for id in &made {
                if let Err(error) = server.remove(id) {
                    tracing::warn!("a bucket that was being restored stays: {error}");
                }
            }
        };
        // Whoever drops it may be on the runtime's own thread, which may not wait for its own work.
        std::thread::scope(|scope| scope.spawn(remove).join().ok());
    }
}
