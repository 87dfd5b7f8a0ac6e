//! A stand-in for a Kubernetes API server: it answers as one was recorded to, and keeps what it is given, as far as
//! `kubectl get` and `kubectl apply --server-side` look. It is no cluster: nothing is validated, defaulted or run.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

/// Group and version, plural, kind, namespaced.
const KINDS: [(&str, &str, &str, bool); 14] = [
    ("v1", "namespaces", "Namespace", false),
    ("v1", "configmaps", "ConfigMap", true),
    ("v1", "secrets", "Secret", true),
    ("v1", "services", "Service", true),
    ("v1", "serviceaccounts", "ServiceAccount", true),
    ("v1", "pods", "Pod", true),
    ("v1", "events", "Event", true),
    ("v1", "nodes", "Node", false),
    ("apps/v1", "deployments", "Deployment", true),
    ("apps/v1", "replicasets", "ReplicaSet", true),
    ("batch/v1", "cronjobs", "CronJob", true),
    ("rbac.authorization.k8s.io/v1", "clusterroles", "ClusterRole", false),
    ("rbac.authorization.k8s.io/v1", "rolebindings", "RoleBinding", true),
    ("apiextensions.k8s.io/v1", "customresourcedefinitions", "CustomResourceDefinition", false),
];

#[derive(Default)]
struct State {
    kinds: Vec<(String, String, String, bool)>,
    /// By path of the API.
    objects: BTreeMap<String, Value>,
    version: u64,
    /// What was asked for, in order.
    asked: Vec<String>,
    /// Answers every request with this status.
    failing: Option<u16>,
}

pub struct Kubernetes {
    state: Arc<Mutex<State>>,
    port: u16,
}

impl Kubernetes {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let kinds = KINDS.map(|(version, plural, kind, namespaced)| {
            (version.to_owned(), plural.to_owned(), kind.to_owned(), namespaced)
        });
        let state = Arc::new(Mutex::new(State { kinds: kinds.into(), ..State::default() }));
        let shared = state.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let state = shared.clone();
                std::thread::spawn(move || serve(stream, &state));
            }
        });
        Self { state, port }
    }

    /// Writes a kubeconfig in which this is `context`.
    pub fn kubeconfig(&self, path: &Path, context: &str) {
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": context,
            "clusters": [{ "name": context, "cluster": { "server": format!("http://127.0.0.1:{}", self.port) } }],
            "users": [{ "name": context, "user": { "token": "the-token-of-the-cluster" } }],
            "contexts": [{ "name": context, "context": { "cluster": context, "user": context } }],
        });
        std::fs::write(path, config.to_string()).unwrap();
    }

    /// Puts an object there as somebody would, with what a server writes into it.
    pub fn put(&self, object: Value) {
        let mut state = self.state.lock().unwrap();
        let path = state.path_of(&object);
        state.store(path, object);
    }

    pub fn objects(&self) -> BTreeMap<String, Value> {
        self.state.lock().unwrap().objects.clone()
    }

    pub fn forget(&self, path: &str) {
        self.state.lock().unwrap().objects.remove(path).unwrap();
    }

    /// Requests that changed something, in order.
    pub fn changes(&self) -> Vec<String> {
        let state = self.state.lock().unwrap();
        state.asked.iter().filter(|asked| !asked.starts_with("GET ")).cloned().collect()
    }

    pub fn fail(&self, status: u16) {
        self.state.lock().unwrap().failing = Some(status);
    }
}

impl State {
    fn path_of(&self, object: &Value) -> String {
        let (version, kind) = (object["apiVersion"].as_str().unwrap(), object["kind"].as_str().unwrap());
        let found = self.kinds.iter().find(|known| known.0 == version && known.2 == kind);
        let (version, plural, _, _) = found.unwrap_or_else(|| panic!("unknown kind {kind}"));
        let name = object["metadata"]["name"].as_str().unwrap();
        let scope = object["metadata"]["namespace"].as_str();
        let scope = scope.map(|namespace| format!("/namespaces/{namespace}")).unwrap_or_default();
        format!("{}{scope}/{plural}/{name}", root(version))
    }

    fn store(&mut self, path: String, mut object: Value) -> Value {
        self.version += 1;
        let old = self.objects.get(&path).cloned().unwrap_or_default();
        merge(&mut object, &old);
        let metadata = &mut object["metadata"];
        metadata["uid"] = format!("uid-{path}").into();
        metadata["resourceVersion"] = self.version.to_string().into();
        metadata["creationTimestamp"] = "2026-11-22T06:00:00Z".into();
        metadata["managedFields"] = json!([{ "manager": "test", "operation": "Apply" }]);
        if object["kind"] == "Service" && object["spec"]["clusterIP"].is_null() {
            object["spec"]["clusterIP"] = format!("10.0.0.{}", self.version).into();
            object["spec"]["clusterIPs"] = json!([format!("10.0.0.{}", self.version)]);
        }
        object["status"] = json!({ "conditions": [{ "type": "Established", "status": "True" }] });
        if object["kind"] == "CustomResourceDefinition" {
            let spec = &object["spec"];
            let word = |value: &Value| value.as_str().unwrap().to_owned();
            let version = format!("{}/{}", word(&spec["group"]), word(&spec["versions"][0]["name"]));
            let names = &spec["names"];
            let kind = (version, word(&names["plural"]), word(&names["kind"]), spec["scope"] == "Namespaced");
            if !self.kinds.contains(&kind) {
                self.kinds.push(kind);
            }
        }
        self.objects.insert(path, object.clone());
        object
    }

    fn answer(&mut self, method: &str, target: &str, body: &[u8]) -> (u16, Value) {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        if let Some(status) = self.failing {
            return (status, refusal(status, "the server says no"));
        }
        if let Some(answer) = self.discover(path) {
            return (200, answer);
        }
        let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
        let versions: Vec<String> = self.kinds.iter().map(|known| known.0.clone()).collect();
        let Some(version) = versions.iter().find(|version| path.starts_with(&format!("{}/", root(version))))
        else {
            return (404, refusal(404, "no such path"));
        };
        let rest = &parts[root(version).trim_matches('/').split('/').count()..];
        let (namespace, rest) = match rest {
            ["namespaces", namespace, rest @ ..] if !rest.is_empty() => (Some(*namespace), rest),
            rest => (None, rest),
        };
        let known =
            rest.first().and_then(|plural| self.kinds.iter().find(|k| k.0 == *version && k.1 == *plural));
        let Some((_, plural, kind, _)) = known.cloned() else { return (404, refusal(404, "no such kind")) };
        match (method, rest) {
            ("GET", [_]) => (200, self.list(version, &plural, &kind, namespace, query)),
            ("GET", _) => match self.objects.get(path) {
                Some(object) => (200, object.clone()),
                None => (404, refusal(404, "not found")),
            },
            ("PATCH", [_, _]) => {
                let space = namespace.map(|namespace| format!("/api/v1/namespaces/{namespace}"));
                if space.is_some_and(|space| !self.objects.contains_key(&space)) {
                    return (404, refusal(404, "there is no such namespace"));
                }
                let object: Value = serde_json::from_slice(body).expect("kubectl sends JSON");
                if query.contains("dryRun=All") {
                    return (200, object);
                }
                (200, self.store(path.to_owned(), object))
            }
            _ => (405, refusal(405, "not recorded")),
        }
    }

    fn list(&self, version: &str, plural: &str, kind: &str, namespace: Option<&str>, query: &str) -> Value {
        let wanted = |path: &String, object: &Value| {
            let own = path.rsplit('/').nth(1) == Some(plural) && object["apiVersion"] == version;
            let here = namespace.is_none_or(|namespace| object["metadata"]["namespace"] == namespace);
            let name =
                query.split("metadata.name%3D").nth(1).map(|rest| rest.split('&').next().unwrap_or_default());
            own && here && name.is_none_or(|name| object["metadata"]["name"] == name)
        };
        let items: Vec<&Value> = self
            .objects
            .iter()
            .filter(|(path, object)| wanted(path, object))
            .map(|(_, object)| object)
            .collect();
        json!({ "kind": format!("{kind}List"), "apiVersion": version, "metadata": { "resourceVersion": "1" },
            "items": items })
    }

    fn discover(&self, path: &str) -> Option<Value> {
        let groups = || {
            let mut versions: Vec<&str> = self.kinds.iter().map(|known| known.0.as_str()).collect();
            versions.retain(|version| version.contains('/'));
            versions.sort_unstable();
            versions.dedup();
            let group = |version: &&str| {
                let (group, short) = version.split_once('/').unwrap();
                let one = json!({ "groupVersion": version, "version": short });
                json!({ "name": group, "versions": [one], "preferredVersion": one })
            };
            versions.iter().map(group).collect::<Vec<_>>()
        };
        Some(match path {
            "/version" => json!({ "major": "1", "minor": "30", "gitVersion": "v1.30.0-recorded" }),
            "/api" => json!({ "kind": "APIVersions", "versions": ["v1"] }),
            "/apis" => json!({ "kind": "APIGroupList", "apiVersion": "v1", "groups": groups() }),
            "/openapi/v3" => {
                let versions =
                    self.kinds.iter().map(|known| root(&known.0).trim_start_matches('/').to_owned());
                let paths: BTreeMap<String, Value> = versions
                    .map(|path| (path.clone(), json!({ "serverRelativeURL": format!("/openapi/v3/{path}") })))
                    .collect();
                json!({ "paths": paths })
            }
            _ if path.starts_with("/openapi/v3/") => self.schema(path.strip_prefix("/openapi/v3")?),
            _ => {
                let own: Vec<_> = self.kinds.iter().filter(|known| root(&known.0) == path).collect();
                let version = &own.first()?.0;
                let resource = |known: &&(String, String, String, bool)| {
                    let verbs = ["create", "delete", "get", "list", "patch", "update", "watch"];
                    json!({ "name": known.1, "singularName": known.2.to_lowercase(), "kind": known.2,
                        "namespaced": known.3, "verbs": verbs })
                };
                json!({ "kind": "APIResourceList", "groupVersion": version,
                    "resources": own.iter().map(resource).collect::<Vec<_>>() })
            }
        })
    }

    /// Just enough for kubectl to see that dry runs are known.
    fn schema(&self, path: &str) -> Value {
        let own = self.kinds.iter().filter(|known| root(&known.0) == path);
        let operation = |known: &(String, String, String, bool)| {
            let (group, version) = known.0.split_once('/').unwrap_or(("", &known.0));
            let parameter =
                |name: &str| json!({ "name": name, "in": "query", "schema": { "type": "string" } });
            let patch = json!({ "patch": {
                "parameters": [parameter("dryRun"), parameter("fieldValidation")],
                "responses": {},
                "x-kubernetes-group-version-kind": { "group": group, "version": version, "kind": known.2 } } });
            (format!("{path}/{}/{{name}}", known.1), patch)
        };
        let paths: BTreeMap<String, Value> = own.map(operation).collect();
        json!({ "openapi": "3.0.0", "info": { "title": "recorded", "version": "1" }, "paths": paths })
    }
}

fn root(version: &str) -> String {
    if version.contains('/') { format!("/apis/{version}") } else { format!("/api/{version}") }
}

fn refusal(code: u16, message: &str) -> Value {
    let reason = match code {
        403 => "Forbidden",
        404 => "NotFound",
        _ => "InternalError",
    };
    json!({ "kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason, "code": code, "message": message })
}

/// What an apply does not name stays.
fn merge(into: &mut Value, old: &Value) {
    let (Some(into), Some(old)) = (into.as_object_mut(), old.as_object()) else { return };
    for (key, value) in old {
        match into.get_mut(key) {
            Some(fresh) => merge(fresh, value),
            None => drop(into.insert(key.clone(), value.clone())),
        }
    }
}

fn serve(stream: TcpStream, state: &Mutex<State>) {
    let mut reader = BufReader::new(stream);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).unwrap_or(0) == 0 {
            return;
        }
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        let [method, target, ..] = words.as_slice() else { return };
        let mut length = 0;
        loop {
            let mut header = String::new();
            if reader.read_line(&mut header).unwrap_or(0) == 0 {
                return;
            }
            let header = header.trim().to_ascii_lowercase();
            if header.is_empty() {
                break;
            }
            if let Some(value) = header.strip_prefix("content-length:") {
                length = value.trim().parse().unwrap();
            }
        }
        let mut body = vec![0; length];
        if reader.read_exact(&mut body).is_err() {
            return;
        }
        let (status, answer) = {
            let mut state = state.lock().unwrap();
            state.asked.push(format!("{method} {target}"));
            state.answer(method, target, &body)
        };
        let answer = answer.to_string();
        let head = format!(
            "HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            answer.len()
        );
        let stream = reader.get_mut();
        if stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(answer.as_bytes())).is_err() {
            return;
        }
    }
}
