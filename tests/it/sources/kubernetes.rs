//! Kubernetes objects by the real `kubectl`, from and to a stand-in for an API server (see `services/kubernetes.rs`):
//! no cluster was asked.

use std::path::PathBuf;

use serde_json::{Value, json};

use super::conformance::{self, Subject};
use crate::cli::Machine;
use crate::services::kubernetes::Kubernetes;

struct Cluster {
    folder: tempfile::TempDir,
    source: Kubernetes,
    targets: Vec<Kubernetes>,
}

fn object(version: &str, kind: &str, name: &str, namespace: Option<&str>, more: Value) -> Value {
    let mut object = json!({ "apiVersion": version, "kind": kind, "metadata": { "name": name } });
    if let Some(namespace) = namespace {
        object["metadata"]["namespace"] = namespace.into();
    }
    object.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    object
}

impl Cluster {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let source = Kubernetes::start();
        source.kubeconfig(&folder.path().join("source"), "source");
        Self { folder, source, targets: Vec::new() }
    }
    fn config(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
    fn at(&self, name: &str, more: &str) -> String {
        format!("kubernetes:{name}{more}kubeconfig={}", self.config(name).display())
    }
    fn target(&self) -> &Kubernetes {
        self.targets.last().unwrap()
    }
}

impl Subject for Cluster {
    fn address(&self) -> String {
        self.at("source", "?secrets=yes&")
    }
    fn vacant(&mut self) -> String {
        let (target, name) = (Kubernetes::start(), format!("target{}", self.targets.len()));
        target.kubeconfig(&self.config(&name), &name);
        self.targets.push(target);
        self.at(&name, "?")
    }
    fn fill(&mut self) {
        let put = |version: &str, kind: &str, name: &str, namespace: Option<&str>, more: Value| {
            self.source.put(object(version, kind, name, namespace, more));
        };
        let shop = Some("shop");
        put("v1", "Namespace", "shop", None, json!({ "spec": { "finalizers": ["kubernetes"] } }));
        put("v1", "Namespace", "kube-system", None, json!({}));
        put("v1", "ConfigMap", "of-the-cluster", Some("kube-system"), json!({ "data": { "a": "b" } }));
        let text = "a line of a configuration\n".repeat(400);
        put("v1", "ConfigMap", "settings", shop, json!({ "data": { "shop.toml": text } }));
        put("v1", "Secret", "token", shop, json!({ "type": "Opaque", "data": { "t": "c2VjcmV0" } }));
        put("v1", "Service", "web", shop, json!({ "spec": { "ports": [{ "port": 80 }] } }));
        put("apps/v1", "Deployment", "web", shop, json!({ "spec": { "replicas": 2 } }));
        put("v1", "Event", "happened", shop, json!({}));
        let mut pod = object("v1", "Pod", "web-1", shop, json!({ "spec": { "nodeName": "n1" } }));
        pod["metadata"]["ownerReferences"] = json!([{ "kind": "ReplicaSet", "controller": true }]);
        self.source.put(pod);
        let names = json!({ "plural": "applications", "kind": "Application", "singular": "application" });
        let spec = json!({ "group": "argoproj.io", "scope": "Namespaced", "names": names, "versions": [{ "name": "v1alpha1" }] });
        put(
            "apiextensions.k8s.io/v1",
            "CustomResourceDefinition",
            "applications.argoproj.io",
            None,
            json!({ "spec": spec }),
        );
        let more = json!({ "spec": { "project": "default" }, "operation": { "sync": {} } });
        put("argoproj.io/v1alpha1", "Application", "shop", shop, more);
    }
    fn change(&mut self) {
        let more = json!({ "spec": { "replicas": 5 } });
        self.source.put(object("apps/v1", "Deployment", "web", Some("shop"), more));
    }
    fn content(&self, address: &str) -> String {
        let name = address.strip_prefix("kubernetes:").unwrap().split('?').next().unwrap();
        let server = match name.strip_prefix("target") {
            Some(number) => &self.targets[number.parse::<usize>().unwrap()],
            None => &self.source,
        };
        let mut lines = Vec::new();
        for (path, object) in server.objects() {
            if path.contains("kube-system") || path.contains("/pods/") || path.contains("/events/") {
                continue;
            }
            let mut spec = object["spec"].clone();
            if let Some(spec) = spec.as_object_mut() {
                ["clusterIP", "clusterIPs", "finalizers"].iter().for_each(|key| drop(spec.remove(*key)));
            }
            let spec = if spec == json!({}) { Value::Null } else { spec };
            lines.push(format!("{path} {spec} {}", object["data"]));
        }
        lines.join("\n")
    }
    fn nowhere(&self) -> String {
        self.at("missing", "?")
    }
}

#[test]
fn kubernetes_objects_are_captured_and_given_back() {
    conformance::captured_and_given_back(&mut Cluster::new());
}

#[test]
fn a_cluster_that_is_not_there_gives_no_snapshot() {
    conformance::nothing_there(&Cluster::new());
}

#[test]
fn objects_are_applied_in_an_order_in_which_they_can_stand() {
    let mut cluster = Cluster::new();
    cluster.fill();
    let machine = Machine::with_repository();
    let said = machine.run(&["--json", "backup", &cluster.address()]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    let listed = machine.run(&["ls", "latest"]);
    let expected = [
        "/cluster/customresourcedefinition.apiextensions.k8s.io/applications.argoproj.io.json",
        "/cluster/namespace/shop.json",
        "/namespaces/shop/application.argoproj.io/shop.json",
        "/namespaces/shop/configmap/settings.json",
        "/namespaces/shop/deployment.apps/web.json",
        "/namespaces/shop/secret/token.json",
        "/namespaces/shop/service/web.json",
    ];
    assert_eq!(listed.stdout.lines().collect::<Vec<_>>(), expected);
    let kept = machine.run(&["dump", "latest:/namespaces/shop/application.argoproj.io/shop.json"]);
    assert_eq!(
        serde_json::from_str::<Value>(&kept.stdout).unwrap(),
        object(
            "argoproj.io/v1alpha1",
            "Application",
            "shop",
            Some("shop"),
            json!({ "spec": { "project": "default" } })
        )
    );

    let target = cluster.vacant();
    let dry = format!("{target}&dry-run=yes");
    let said = machine.run(&["restore", "latest", "--to", &dry]);
    // An old kubectl wants a schema in a form that the stand-in has not.
    let is_old = said.stderr.contains("failed to download openapi");
    assert!(is_old || said.code == 0, "{}{}", said.stdout, said.stderr);
    assert!(
        is_old || said.stdout.contains("dry run: the cluster would take 2 of 7 objects"),
        "{}",
        said.stdout
    );
    assert!(cluster.target().objects().is_empty());

    let said = machine.run(&["restore", "latest", "--to", &target]);
    assert_eq!(said.code, 0, "{}{}", said.stdout, said.stderr);
    assert!(
        said.stdout.contains("7 of 7 objects are in kubernetes:target0 as they were captured"),
        "{}",
        said.stdout
    );
    let changes = cluster.target().changes();
    let at = |what: &str| changes.iter().rposition(|change| change.contains(what)).unwrap();
    assert!(at("/namespaces/shop?") < at("/secrets/token"), "{changes:?}");
    assert!(at("/customresourcedefinitions/") < at("/applications/shop"), "{changes:?}");
    assert!(at("/configmaps/settings") < at("/deployments/web"), "{changes:?}");
}

#[test]
fn secrets_are_left_out_unless_asked_for_and_a_namespace_takes_another_name() {
    let mut cluster = Cluster::new();
    cluster.fill();
    let machine = Machine::with_repository();
    let said = machine.run(&["backup", &cluster.at("source", "/shop?")]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    assert!(said.stderr.contains("secrets are not in the snapshot"), "{}", said.stderr);
    let listed = machine.run(&["ls", "latest"]);
    assert!(!listed.stdout.contains("secret"), "{}", listed.stdout);
    // Custom kinds are the target's own business when one namespace is captured.
    cluster.vacant();
    let definition =
        cluster.source.objects().into_values().find(|object| object["kind"] == "CustomResourceDefinition");
    cluster.target().put(definition.unwrap());
    let to = cluster.at("target0", "/shop-copy?");
    let said = machine.run(&["restore", "latest", "--to", &to]);
    assert_eq!(said.code, 0, "{}{}", said.stdout, said.stderr);
    let there = cluster.target().objects();
    assert!(there.contains_key("/api/v1/namespaces/shop-copy"), "{there:?}");
    assert_eq!(there["/apis/apps/v1/namespaces/shop-copy/deployments/web"]["spec"]["replicas"], 2);
    let said = machine.run(&["backup", &cluster.at("source", "/nothing?")]);
    assert_eq!(said.code, 1, "{}", said.stderr);
    assert!(said.stderr.contains("there is no namespace nothing"), "{}", said.stderr);
}

#[test]
fn a_server_that_says_no_gives_no_snapshot() {
    let mut cluster = Cluster::new();
    cluster.fill();
    cluster.source.fail(403);
    let machine = Machine::with_repository();
    let said = machine.run(&["backup", &cluster.address()]);
    assert_eq!(said.code, 1, "{}", said.stderr);
    assert!(!said.stderr.contains("the-token-of-the-cluster"), "{}", said.stderr);
    let listed = machine.run(&["--json", "snapshots"]);
    assert_eq!(listed.json().as_array().map(Vec::len), Some(0));
}
