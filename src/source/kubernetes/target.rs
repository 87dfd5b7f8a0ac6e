//! Objects on their way back: what others need first, by server-side apply, then compared with what was captured.
//!
//! A cluster knows no transaction: what was applied before a failure stays, and a rerun applies it again.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;

use serde_json::{Map, Value, json};

use super::capture::{count, items};
use super::{Address, Kubectl, KubernetesError, objects};
use crate::source::capture::SourceError;
use crate::source::target::{Returned, StoredPart, Target};

const OBJECT_LIMIT_BYTES: u64 = 16 << 20;
/// Objects named when several differ.
const SHOWN: usize = 10;
/// How long definitions of kinds have to become known.
const ESTABLISHED_WITHIN: &str = "--timeout=60s";

/// See the module.
pub struct KubernetesTarget {
    address: Address,
    kubectl: Kubectl,
    force: bool,
    /// The namespace the snapshot is of, when it is to be another one.
    renamed_from: Option<String>,
    objects: Vec<Value>,
    expected: usize,
}

impl KubernetesTarget {
    /// `force`: objects that are there and differ are changed.
    pub fn new(address: Address, kubectl: Kubectl, force: bool) -> Self {
        Self { address, kubectl, force, renamed_from: None, objects: Vec::new(), expected: 0 }
    }

    fn list(objects: &[&Value]) -> Vec<u8> {
        json!({ "apiVersion": "v1", "kind": "List", "items": objects }).to_string().into_bytes()
    }

    /// Kinds the cluster knows: `deployment.apps`.
    fn known_kinds(&self) -> Result<BTreeSet<String>, KubernetesError> {
        let arguments = ["api-resources", "--cached=false", "--no-headers"];
        let answer = self.kubectl.ask("the kinds of", &arguments, b"")?;
        let kind = |line: &str| {
            // NAME SHORTNAMES APIVERSION NAMESPACED KIND, of which the second may be missing.
            let words: Vec<&str> = line.split_whitespace().collect();
            let [.., version, _, kind] = words.as_slice() else { return None };
            Some(objects::kind(&json!({ "apiVersion": version, "kind": kind })))
        };
        Ok(String::from_utf8_lossy(&answer).lines().filter_map(kind).collect())
    }

    /// What of `wanted` is there, by path, without what is the server's.
    fn there(&self, wanted: &[&Value]) -> Result<BTreeMap<String, Value>, KubernetesError> {
        if wanted.is_empty() {
            return Ok(BTreeMap::new());
        }
        let arguments = ["get", "--filename=-", "--ignore-not-found", "--output=json"];
        let mut found = Vec::new();
        items(self.kubectl.json("the objects of", &arguments, &Self::list(wanted))?, &mut found);
        found.iter_mut().for_each(objects::strip);
        Ok(found.into_iter().filter_map(|object| Some((objects::path(&object)?, object))).collect())
    }

    fn apply(&self, round: &[&Value]) -> Result<(), KubernetesError> {
        // What the server drops or changes is found by the comparison.
        let mut arguments =
            vec!["apply", "--server-side", "--validate=false", "--field-manager=lifeboat", "--filename=-"];
        if self.force {
            arguments.push("--force-conflicts");
        }
        if self.address.dry_run {
            arguments.push("--dry-run=server");
        }
        self.kubectl.ask("apply to", &arguments, &Self::list(round))?;
        let definitions: Vec<String> = round
            .iter()
            .filter(|object| objects::kind(object).starts_with("customresourcedefinition."))
            .map(|object| format!("customresourcedefinition/{}", objects::name(object)))
            .collect();
        if !definitions.is_empty() && !self.address.dry_run {
            let mut arguments = vec!["wait", "--for=condition=Established", ESTABLISHED_WITHIN];
            arguments.extend(definitions.iter().map(String::as_str));
            self.kubectl.ask("new kinds of", &arguments, b"")?;
        }
        Ok(())
    }

    fn look(&self) -> Result<(), KubernetesError> {
        let kinds = self.known_kinds()?;
        let askable: Vec<&Value> =
            self.objects.iter().filter(|object| kinds.contains(&objects::kind(object))).collect();
        let there = self.there(&askable)?;
        let differs = |object: &&Value| {
            let found = objects::path(object).and_then(|path| there.get(&path));
            found.and_then(|found| objects::difference(object, found)).is_some()
        };
        let differing: Vec<String> = self.objects.iter().filter(differs).filter_map(objects::path).collect();
        if differing.is_empty() || self.force {
            return Ok(());
        }
        let some = differing[..differing.len().min(SHOWN)].join("\n  ");
        Err(KubernetesError::Refused(format!(
            "{} of {} objects are there already and differ:\n  {some}\nhint: --force changes them",
            differing.len(),
            self.objects.len()
        )))
    }

    fn end(&mut self) -> Result<Returned, KubernetesError> {
        if self.objects.len() != self.expected {
            return Err(KubernetesError::Failed("not every object came: this is a bug".into()));
        }
        self.look()?;
        let mut returned = Returned::default();
        let total = self.objects.len();
        if self.address.dry_run {
            let (possible, waiting) = self.possible()?;
            self.apply_rounds(&possible)?;
            returned
                .proven
                .push(format!("dry run: the cluster would take {} of {total} objects", possible.len()));
            if waiting > 0 {
                let text = format!(
                    "{waiting} objects were not tried: they need a namespace or kind that comes with them"
                );
                returned.warnings.push(text);
            }
            return Ok(returned);
        }
        let all: Vec<&Value> = self.objects.iter().collect();
        self.apply_rounds(&all)?;
        let there = self.there(&all)?;
        let mut same = 0;
        for object in &self.objects {
            let Some(path) = objects::path(object) else { continue };
            match there.get(&path).map(|found| objects::difference(object, found)) {
                Some(None) => same += 1,
                Some(Some(place)) => returned.not_done.push(format!("{path}: the cluster changed {place}")),
                None => returned.not_done.push(format!("{path} is not there")),
            }
        }
        returned
            .proven
            .push(format!("{same} of {total} objects are in {} as they were captured", self.address.shown()));
        let fact = json!({ "objects": total, "same": same });
        returned.facts.insert("kubernetes".into(), fact);
        Ok(returned)
    }

    fn apply_rounds(&self, all: &[&Value]) -> Result<(), KubernetesError> {
        for round in 0..=objects::LAST {
            self.kubectl.cancel.check()?;
            let some: Vec<&Value> =
                all.iter().copied().filter(|object| objects::round(object) == round).collect();
            if !some.is_empty() {
                self.apply(&some)?;
            }
        }
        Ok(())
    }

    /// Objects that can be tried without any other being there, and how many cannot.
    fn possible(&self) -> Result<(Vec<&Value>, usize), KubernetesError> {
        let kinds = self.known_kinds()?;
        let answer = self.kubectl.ask("the namespaces of", &["get", "namespaces", "--output=name"], b"")?;
        let answer = String::from_utf8_lossy(&answer).into_owned();
        let namespaces: BTreeSet<&str> =
            answer.lines().filter_map(|line| line.strip_prefix("namespace/")).collect();
        let is_possible = |object: &&Value| {
            kinds.contains(&objects::kind(object))
                && objects::namespace(object).is_none_or(|namespace| namespaces.contains(namespace))
        };
        let possible: Vec<&Value> = self.objects.iter().filter(is_possible).collect();
        let waiting = self.objects.len() - possible.len();
        Ok((possible, waiting))
    }
}

impl Target for KubernetesTarget {
    fn prepare(
        &mut self,
        parts: &[StoredPart],
        facts: &Map<String, Value>,
    ) -> Result<Vec<usize>, SourceError> {
        if count(facts).is_none() {
            return Err(SourceError::Refused("the snapshot is not of Kubernetes objects".into()));
        }
        let was = facts["kubernetes"]["namespace"].as_str();
        if let Some(namespace) = &self.address.namespace {
            let Some(was) = was else {
                let hint = "leave the namespace out, or select one: SNAP:/namespaces/NAME";
                let why = format!(
                    "the snapshot is of a whole cluster, and {} is one namespace\nhint: {hint}",
                    self.address.shown()
                );
                return Err(SourceError::Refused(why));
            };
            self.renamed_from = (was != namespace).then(|| was.to_owned());
        }
        let wanted: Vec<usize> =
            (0..parts.len()).filter(|place| parts[*place].path.ends_with(".json")).collect();
        if wanted.is_empty() {
            return Err(SourceError::Refused("the snapshot holds no object at that path".into()));
        }
        self.expected = wanted.len();
        Ok(wanted)
    }

    fn put(&mut self, part: &StoredPart, content: &mut dyn Read) -> Result<(), SourceError> {
        let mut bytes = Vec::new();
        let failed = |why: String| KubernetesError::Failed(format!("{}: {why}", part.path));
        let read = content.take(OBJECT_LIMIT_BYTES).read_to_end(&mut bytes);
        read.map_err(|cause| failed(cause.to_string()))?;
        let mut object: Value = serde_json::from_slice(&bytes).map_err(|error| failed(error.to_string()))?;
        if let (Some(from), Some(to)) = (&self.renamed_from, &self.address.namespace) {
            objects::rename(&mut object, from, to);
        }
        self.objects.push(object);
        Ok(())
    }

    fn finish(mut self: Box<Self>) -> Result<Returned, SourceError> {
        Ok(self.end()?)
    }
}
