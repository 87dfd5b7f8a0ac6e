//! What of an object is kept, where it stands in a snapshot, and in which order objects can stand.
//!
//! Pure. Kept is what somebody meant; what a server or controller wrote into it belongs to the cluster it was in.

use serde_json::{Map, Value};

/// Set by servers, in `metadata`.
const OF_SERVER: [&str; 8] = [
    "creationTimestamp",
    "deletionGracePeriodSeconds",
    "deletionTimestamp",
    "generation",
    "managedFields",
    "resourceVersion",
    "selfLink",
    "uid",
];
/// Annotations written by tools about themselves.
const OF_TOOLS: [&str; 7] = [
    "argocd.argoproj.io/refresh",
    "autoscaling.alpha.kubernetes.io/conditions",
    "deployment.kubernetes.io/revision",
    "kubectl.kubernetes.io/last-applied-configuration",
    "kubernetes.io/service-account.uid",
    "pv.kubernetes.io/bind-completed",
    "pv.kubernetes.io/bound-by-controller",
];
/// Namespaces of the cluster itself.
const OF_CLUSTER: [&str; 3] = ["kube-node-lease", "kube-public", "kube-system"];
/// Kinds that only say how things are.
pub const TRANSIENT: [&str; 17] = [
    "apiservices.apiregistration.k8s.io",
    "bindings",
    "certificatesigningrequests.certificates.k8s.io",
    "componentstatuses",
    "csinodes.storage.k8s.io",
    "csistoragecapacities.storage.k8s.io",
    "endpoints",
    "endpointslices.discovery.k8s.io",
    "events",
    "events.events.k8s.io",
    "flowschemas.flowcontrol.apiserver.k8s.io",
    "leases.coordination.k8s.io",
    "nodes",
    "nodes.metrics.k8s.io",
    "pods.metrics.k8s.io",
    "prioritylevelconfigurations.flowcontrol.apiserver.k8s.io",
    "volumeattachments.storage.k8s.io",
];

/// An object's kind with its group: `deployment.apps`, `service`.
pub fn kind(object: &Value) -> String {
    let kind = object["kind"].as_str().unwrap_or_default().to_lowercase();
    match object["apiVersion"].as_str().unwrap_or_default().split_once('/') {
        Some((group, _)) => format!("{kind}.{group}"),
        None => kind,
    }
}

pub fn name(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap_or_default()
}

pub fn namespace(object: &Value) -> Option<&str> {
    object["metadata"]["namespace"].as_str()
}

/// Where an object stands in a snapshot; `None` when it cannot be named.
pub fn path(object: &Value) -> Option<String> {
    let (kind, name) = (kind(object), name(object));
    let is_part = |text: &str| !text.is_empty() && !text.contains(['/', '\0']) && text != "." && text != "..";
    let place = match namespace(object) {
        Some(namespace) => format!("namespaces/{namespace}"),
        None => "cluster".to_owned(),
    };
    let parts = [&kind, name, namespace(object).unwrap_or("cluster")];
    parts.into_iter().all(is_part).then(|| format!("/{place}/{kind}/{name}.json"))
}

/// Why an object is not kept: somebody else makes it.
pub fn left_out(object: &Value, with_system: bool) -> Option<&'static str> {
    let metadata = &object["metadata"];
    let owners = metadata["ownerReferences"].as_array();
    if owners.is_some_and(|owners| owners.iter().any(|owner| owner["controller"] == true)) {
        return Some("made by another object");
    }
    let kind = kind(object);
    if kind == "secret" && object["type"] == "kubernetes.io/service-account-token" {
        return Some("made by the cluster");
    }
    if with_system {
        return None;
    }
    let (name, namespace) = (name(object), namespace(object).unwrap_or_default());
    let labels = &metadata["labels"];
    let is_default = labels["kubernetes.io/bootstrapping"] == "rbac-defaults"
        || name.starts_with("system:")
        || (kind == "configmap" && name == "kube-root-ca.crt")
        || (kind == "service" && name == "kubernetes" && namespace == "default")
        || (kind == "priorityclass.scheduling.k8s.io" && name.starts_with("system-"))
        || OF_CLUSTER.contains(&namespace)
        || (kind == "namespace" && OF_CLUSTER.contains(&name));
    is_default.then_some("made by the cluster")
}

/// Takes away what belongs to the cluster.
pub fn strip(object: &mut Value) {
    let kind = kind(object);
    let Some(whole) = object.as_object_mut() else { return };
    whole.remove("status");
    if kind == "application.argoproj.io" {
        // A run under way, not what is wanted.
        whole.remove("operation");
    }
    if kind == "serviceaccount" {
        whole.remove("secrets");
    }
    if let Some(metadata) = whole.get_mut("metadata").and_then(Value::as_object_mut) {
        OF_SERVER.iter().for_each(|key| drop(metadata.remove(*key)));
        if let Some(notes) = metadata.get_mut("annotations").and_then(Value::as_object_mut) {
            OF_TOOLS.iter().for_each(|key| drop(notes.remove(*key)));
        }
        if metadata.get("annotations").and_then(Value::as_object).is_some_and(Map::is_empty) {
            metadata.remove("annotations");
        }
        if kind == "namespace"
            && let Some(labels) = metadata.get_mut("labels").and_then(Value::as_object_mut)
        {
            labels.remove("kubernetes.io/metadata.name");
        }
    }
    let Some(spec) = whole.get_mut("spec").and_then(Value::as_object_mut) else { return };
    match kind.as_str() {
        "service" if spec.get("clusterIP").is_some_and(|address| address != "None") => {
            ["clusterIP", "clusterIPs", "healthCheckNodePort"].iter().for_each(|key| drop(spec.remove(*key)));
        }
        "namespace" => {
            spec.remove("finalizers");
        }
        "pod" => {
            spec.remove("nodeName");
        }
        "persistentvolume" => {
            if let Some(claim) = spec.get_mut("claimRef").and_then(Value::as_object_mut) {
                ["uid", "resourceVersion"].iter().for_each(|key| drop(claim.remove(*key)));
            }
        }
        "job.batch" if spec.get("manualSelector") != Some(&Value::Bool(true)) => {
            spec.remove("selector");
            if let Some(labels) =
                spec.get_mut("template").and_then(|template| template.pointer_mut("/metadata/labels"))
            {
                let labels = labels.as_object_mut();
                let made = ["controller-uid", "batch.kubernetes.io/controller-uid", "job-name"];
                labels.into_iter().for_each(|labels| made.iter().for_each(|key| drop(labels.remove(*key))));
            }
        }
        _ => {}
    }
}

/// In which round an object is applied: what others need, first.
pub fn round(object: &Value) -> usize {
    let kind = kind(object);
    let (kind, group) = kind.split_once('.').unwrap_or((&kind, ""));
    match (kind, group) {
        ("namespace", "") => 0,
        ("customresourcedefinition", _) => 1,
        ("priorityclass" | "storageclass" | "runtimeclass" | "ingressclass", _) => 2,
        (
            "serviceaccount" | "secret" | "configmap" | "limitrange" | "resourcequota" | "role"
            | "rolebinding" | "clusterrole" | "clusterrolebinding" | "networkpolicy",
            _,
        ) => 3,
        ("persistentvolume" | "persistentvolumeclaim", "") => 4,
        ("service", "") => 5,
        // They may refuse everything that comes after them.
        ("mutatingwebhookconfiguration" | "validatingwebhookconfiguration", _) => LAST,
        (_, "" | "apps" | "batch" | "autoscaling" | "policy") => 6,
        (_, group) if group.ends_with(".k8s.io") => 6,
        _ => 7,
    }
}

/// The last round.
pub const LAST: usize = 8;

/// The first place where `found` lacks or changes something of `wanted`; what it has besides does not count.
pub fn difference(wanted: &Value, found: &Value) -> Option<String> {
    match (wanted, found) {
        (Value::Object(wanted), Value::Object(found)) => wanted.iter().find_map(|(key, value)| {
            let below = difference(value, found.get(key).unwrap_or(&Value::Null))?;
            Some(if below.is_empty() { key.clone() } else { format!("{key}.{below}") })
        }),
        (Value::Array(wanted), Value::Array(found)) if wanted.len() == found.len() => {
            wanted.iter().zip(found).enumerate().find_map(|(place, (wanted, found))| {
                let below = difference(wanted, found)?;
                Some(if below.is_empty() { place.to_string() } else { format!("{place}.{below}") })
            })
        }
        _ if wanted == found => None,
        // What is empty and what is not there mean the same.
        (Value::Object(wanted), Value::Null) if wanted.is_empty() => None,
        (Value::Array(wanted), Value::Null) if wanted.is_empty() => None,
        _ => Some(String::new()),
    }
}

/// Moves an object of one namespace into another.
pub fn rename(object: &mut Value, from: &str, to: &str) {
    if kind(object) == "namespace" {
        if name(object) == from {
            object["metadata"]["name"] = to.into();
        }
        return;
    }
    if namespace(object) == Some(from) {
        object["metadata"]["namespace"] = to.into();
    }
    for subject in object.get_mut("subjects").and_then(Value::as_array_mut).into_iter().flatten() {
        if subject["namespace"] == from {
            subject["namespace"] = to.into();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_the_server_wrote_goes_and_what_somebody_meant_stays() {
        let mut service = json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": { "name": "web", "namespace": "shop", "uid": "u", "resourceVersion": "7",
                "labels": { "app": "web" }, "finalizers": ["keep.example/it"],
                "annotations": { "kubectl.kubernetes.io/last-applied-configuration": "{}" } },
            "spec": { "clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.1"], "ports": [{ "port": 80 }] },
            "status": { "loadBalancer": {} },
        });
        strip(&mut service);
        assert_eq!(
            service,
            json!({ "apiVersion": "v1", "kind": "Service",
                "metadata": { "name": "web", "namespace": "shop", "labels": { "app": "web" },
                    "finalizers": ["keep.example/it"] },
                "spec": { "ports": [{ "port": 80 }] } })
        );
        let mut headless = json!({ "apiVersion": "v1", "kind": "Service", "spec": { "clusterIP": "None" } });
        strip(&mut headless);
        assert_eq!(headless["spec"]["clusterIP"], "None");
        let mut application = json!({ "apiVersion": "argoproj.io/v1alpha1", "kind": "Application",
            "metadata": { "name": "shop", "annotations": { "argocd.argoproj.io/refresh": "hard", "team": "a" } },
            "operation": { "sync": {} }, "spec": { "project": "default" }, "status": {} });
        strip(&mut application);
        assert_eq!(application["metadata"]["annotations"], json!({ "team": "a" }));
        assert!(application.get("operation").is_none() && application.get("status").is_none());
    }

    #[test]
    fn what_something_else_makes_is_left_out() {
        let object = |kind: &str, more: Value| {
            let mut object =
                json!({ "apiVersion": "v1", "kind": kind, "metadata": { "name": "x", "namespace": "n" } });
            object["metadata"].as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            object
        };
        let owned = json!({ "ownerReferences": [{ "kind": "ReplicaSet", "controller": true }] });
        assert!(left_out(&object("Pod", owned), true).is_some());
        assert!(left_out(&object("Pod", json!({})), false).is_none());
        let of_cluster = object("ConfigMap", json!({ "namespace": "kube-system" }));
        assert!(left_out(&of_cluster, false).is_some() && left_out(&of_cluster, true).is_none());
        assert!(left_out(&object("ClusterRole", json!({ "name": "system:node" })), false).is_some());
    }

    #[test]
    fn differences_are_named_and_additions_are_none() {
        let wanted = json!({ "a": { "b": [1, { "c": 2 }] }, "e": {} });
        assert_eq!(difference(&wanted, &json!({ "a": { "b": [1, { "c": 2, "d": 3 }] }, "more": 1 })), None);
        assert_eq!(difference(&wanted, &json!({ "a": { "b": [1, { "c": 9 }] } })), Some("a.b.1.c".into()));
        assert_eq!(difference(&wanted, &json!({ "a": { "b": [1] } })), Some("a.b".into()));
    }

    #[test]
    fn paths_name_objects_and_nothing_leaves_the_snapshot() {
        let object = |name: &str| json!({ "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": name, "namespace": "shop" } });
        assert_eq!(path(&object("web")).unwrap(), "/namespaces/shop/deployment.apps/web.json");
        assert_eq!(path(&object("../web")), None);
        assert_eq!(path(&object("")), None);
        let crd = json!({ "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
            "metadata": { "name": "applications.argoproj.io" } });
        assert!(path(&crd).unwrap().starts_with("/cluster/customresourcedefinition.apiextensions.k8s.io/"));
        assert_eq!((round(&crd), round(&object("web"))), (1, 6));
        let mut moved = object("web");
        rename(&mut moved, "shop", "shop2");
        assert_eq!(namespace(&moved), Some("shop2"));
    }
}
