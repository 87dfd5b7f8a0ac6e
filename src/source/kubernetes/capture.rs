//! The capture: all objects in one answer of `kubectl`, one file each.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::objects::{self, TRANSIENT};
use super::{Address, Kubectl, KubernetesError};
use crate::format::entry::Timestamp;
use crate::source::capture::{Captured, Held, SourceError};

/// Paths named when several are wrong.
const SHOWN: usize = 5;

/// Captures a cluster, or one namespace. `now`: the instant before.
///
/// # Errors
/// The cluster cannot be reached or does not show what was asked for.
pub fn capture(address: &Address, kubectl: &Kubectl, now: Timestamp) -> Result<Held, SourceError> {
    Ok(collect(address, kubectl, now)?)
}

fn collect(address: &Address, kubectl: &Kubectl, now: Timestamp) -> Result<Held, KubernetesError> {
    let shown = address.shown();
    let version = kubectl.json("the version of", &["version", "-o", "json"], b"")?;
    let kinds = kinds(address, kubectl)?;
    let mut listed = Vec::new();
    let scope = match &address.namespace {
        Some(namespace) => format!("--namespace={namespace}"),
        None => "--all-namespaces".to_owned(),
    };
    let joined = kinds.join(",");
    let arguments = ["get", &joined, &scope, "--output=json", "--ignore-not-found", "--chunk-size=500"];
    items(kubectl.json("the objects of", &arguments, b"")?, &mut listed);
    if let Some(namespace) = &address.namespace {
        let arguments = ["get", "namespace", namespace, "--output=json", "--ignore-not-found"];
        let found = kubectl.json("the namespace of", &arguments, b"")?;
        if found.is_null() {
            return Err(KubernetesError::Failed(format!(
                "there is no namespace {namespace} in {}",
                address.context
            )));
        }
        items(found, &mut listed);
    }
    let (mut parts, mut counts, mut left_out) =
        (Vec::new(), BTreeMap::<String, u64>::new(), BTreeMap::<&str, u64>::new());
    let (mut unnamed, mut claims) = (Vec::new(), 0);
    for mut object in listed {
        if let Some(why) = objects::left_out(&object, address.system) {
            *left_out.entry(why).or_default() += 1;
            continue;
        }
        let Some(path) = objects::path(&object) else {
            unnamed.push(format!("{} {:?}", objects::kind(&object), objects::name(&object)));
            continue;
        };
        objects::strip(&mut object);
        let kind = objects::kind(&object);
        claims += u64::from(kind == "persistentvolumeclaim");
        *counts.entry(kind).or_default() += 1;
        let mut text = serde_json::to_vec_pretty(&object)
            .map_err(|error| KubernetesError::Failed(format!("{path} cannot be written: {error}")))?;
        text.push(b'\n');
        parts.push((path, text));
    }
    if !unnamed.is_empty() {
        let some = unnamed[..unnamed.len().min(SHOWN)].join(", ");
        return Err(KubernetesError::Failed(format!("{shown} has objects whose names are no names: {some}")));
    }
    if parts.is_empty() {
        return Err(KubernetesError::Failed(format!("{shown} holds nothing of the kinds asked for")));
    }
    let mut captured = Captured { consistent: now, ..Captured::default() };
    if !address.secrets && !kinds.iter().any(|kind| kind == "secrets") {
        captured.warnings.push("secrets are not in the snapshot: ?secrets=yes includes them".into());
    }
    if claims > 0 {
        let text = format!("{claims} volume claims are in the snapshot, what their volumes hold is not");
        captured.warnings.push(text);
    }
    captured.facts.insert(
        "kubernetes".into(),
        json!({
            "context": address.context, "namespace": address.namespace, "server": version["serverVersion"]["gitVersion"],
            "client": version["clientVersion"]["gitVersion"], "objects": counts, "left_out": left_out,
            "secrets": counts.contains_key("secret"),
        }),
    );
    Ok(Held::new(parts, now, captured))
}

/// The objects of an answer: one, or those of a list.
pub fn items(answer: Value, into: &mut Vec<Value>) {
    match answer {
        Value::Object(mut list) if list.get("items").is_some_and(Value::is_array) => {
            into.extend(list.remove("items").and_then(|items| items.as_array().cloned()).unwrap_or_default());
        }
        Value::Object(one) if !one.is_empty() => into.push(Value::Object(one)),
        _ => {}
    }
}

/// The kinds to ask for.
fn kinds(address: &Address, kubectl: &Kubectl) -> Result<Vec<String>, KubernetesError> {
    let mut kinds = address.kinds.clone();
    if kinds.is_empty() {
        let mut arguments = vec!["api-resources", "--verbs=list,get", "--output=name", "--cached=false"];
        if address.namespace.is_some() {
            arguments.push("--namespaced=true");
        }
        let answer = kubectl.ask("the kinds of", &arguments, b"")?;
        kinds = String::from_utf8_lossy(&answer).lines().map(str::to_owned).collect();
        kinds.retain(|kind| !TRANSIENT.contains(&kind.as_str()) && (address.secrets || kind != "secrets"));
    }
    kinds.retain(|kind| !address.exclude_kinds.contains(kind));
    if kinds.is_empty() {
        return Err(KubernetesError::Failed(format!("{} knows no kind that is asked for", address.shown())));
    }
    Ok(kinds)
}

/// How many objects a snapshot's facts speak of.
pub fn count(facts: &Map<String, Value>) -> Option<u64> {
    let counts = facts.get("kubernetes")?["objects"].as_object()?;
    Some(counts.values().filter_map(Value::as_u64).sum())
}
