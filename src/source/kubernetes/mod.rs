//! Kubernetes' objects as manifests, Argo CD's and all other custom ones included, through `kubectl`.
//!
//! `objects` says what of an object is somebody's intention and what the server's bookkeeping; `capture` asks for
//! everything at once and keeps the former; `target` applies it in an order in which it can stand, and compares.

pub mod capture;
mod objects;
pub mod target;

use std::io::{self, Read as _, Write as _};
use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;

use crate::base::cancel::{Cancel, Cancelled};
use crate::base::process::{Process, ProcessError, ProcessOptions};
use crate::base::url::{decode, no_option, path_and_options};
use crate::source::capture::SourceError;

/// Most bytes of one answer.
const ANSWER_LIMIT_BYTES: u64 = 1 << 30;
const OPTIONS: [&str; 6] = ["dry-run", "exclude-kinds", "kinds", "kubeconfig", "secrets", "system"];

/// A cluster that cannot be captured or given back to.
#[derive(Debug, thiserror::Error)]
pub enum KubernetesError {
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
    #[error("{subject}: {cause}")]
    Tool { subject: String, cause: ProcessError },
    #[error("{0}")]
    Failed(String),
    #[error("{0}")]
    Refused(String),
}

impl From<KubernetesError> for SourceError {
    fn from(error: KubernetesError) -> Self {
        match error {
            KubernetesError::Cancelled(cancelled)
            | KubernetesError::Tool { cause: ProcessError::Cancelled(cancelled), .. } => cancelled.into(),
            KubernetesError::Refused(why) => Self::Refused(why),
            error => Self::Service(Box::new(error)),
        }
    }
}

/// Which cluster, and what of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Address {
    /// Of the kubeconfig.
    pub context: String,
    pub namespace: Option<String>,
    /// Empty: all that are somebody's intention.
    pub kinds: Vec<String>,
    pub exclude_kinds: Vec<String>,
    pub secrets: bool,
    /// Also what the cluster made for itself.
    pub system: bool,
    pub dry_run: bool,
    pub kubeconfig: Option<PathBuf>,
}

impl Address {
    /// Parses what follows the scheme.
    ///
    /// # Errors
    /// No context, an unknown option, a value that makes no sense.
    pub fn parse(text: &str) -> Result<Self, KubernetesError> {
        let refused = |why: String| KubernetesError::Refused(why);
        let bad = |error: crate::base::url::UrlError| refused(error.to_string());
        let place = text.split('?').next().unwrap_or_default();
        let (_, options) = path_and_options(text).map_err(bad)?;
        let (context, namespace) = place.split_once('/').unwrap_or((place, ""));
        let (context, namespace) = (decode(context).map_err(bad)?, decode(namespace).map_err(bad)?);
        if context.is_empty() {
            let hint = "kubernetes:CONTEXT or kubernetes:CONTEXT/NAMESPACE; `kubectl config get-contexts` lists them";
            return Err(refused(format!("the context is missing\nhint: {hint}")));
        }
        let is_name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if !namespace.chars().all(is_name) {
            let hint = "a / in a context's name is written %2F";
            return Err(refused(format!("{namespace:?} is no name of a namespace\nhint: {hint}")));
        }
        let namespace = Some(namespace).filter(|namespace| !namespace.is_empty());
        let mut address = Self { context, namespace, ..Self::default() };
        for (key, value) in options {
            let list = || value.split(',').filter(|kind| !kind.is_empty()).map(str::to_lowercase).collect();
            let yes = match value.as_str() {
                "" | "yes" | "true" => Ok(true),
                "no" | "false" => Ok(false),
                _ => Err(refused(format!("{key}={value} makes no sense\nhint: write yes or no"))),
            };
            match key.as_str() {
                "kinds" => address.kinds = list(),
                "exclude-kinds" => address.exclude_kinds = list(),
                "secrets" => address.secrets = yes?,
                "system" => address.system = yes?,
                "dry-run" => address.dry_run = yes?,
                "kubeconfig" => address.kubeconfig = Some(value.into()),
                _ => return Err(refused(no_option(&key, &OPTIONS))),
            }
        }
        Ok(address)
    }

    /// Without options.
    pub fn shown(&self) -> String {
        match &self.namespace {
            Some(namespace) => format!("kubernetes:{}/{namespace}", self.context),
            None => format!("kubernetes:{}", self.context),
        }
    }
}

/// The program, told which cluster is meant.
#[derive(Clone)]
pub struct Kubectl {
    pub context: String,
    pub kubeconfig: Option<PathBuf>,
    pub withheld: &'static [&'static str],
    pub cancel: Cancel,
}

impl Kubectl {
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("kubectl");
        command.arg(format!("--context={}", self.context));
        if let Some(path) = &self.kubeconfig {
            let mut argument = std::ffi::OsString::from("--kubeconfig=");
            argument.push(path);
            command.arg(argument);
        }
        command.args(arguments).env("LC_ALL", "C");
        command
    }

    /// Runs it, fed with `input`, to its good end, and returns what it printed.
    fn ask(&self, what: &str, arguments: &[&str], input: &[u8]) -> Result<Vec<u8>, KubernetesError> {
        let failed = |cause: ProcessError| match cause {
            ProcessError::Start { cause, .. } if cause.kind() == io::ErrorKind::NotFound => {
                KubernetesError::Failed(
                    "kubectl is not installed here\nhint: apt-get install kubernetes-client".into(),
                )
            }
            cause => KubernetesError::Tool { subject: format!("{what} {}", self.context), cause },
        };
        let options = ProcessOptions { withheld: self.withheld, ..ProcessOptions::default() };
        let (mut process, mut feed) =
            Process::start_fed(self.command(arguments), options, &self.cancel).map_err(failed)?;
        let mut answer = Vec::new();
        let read = std::thread::scope(|scope| {
            // It may have given up, and says why below.
            scope.spawn(move || feed.write_all(input).ok());
            (&mut process).take(ANSWER_LIMIT_BYTES).read_to_end(&mut answer)
        });
        process.finish().map_err(failed)?;
        read.map_err(|cause| KubernetesError::Failed(format!("{what} {}: {cause}", self.context)))?;
        Ok(answer)
    }

    fn json(&self, what: &str, arguments: &[&str], input: &[u8]) -> Result<Value, KubernetesError> {
        let answer = self.ask(what, arguments, input)?;
        if answer.iter().all(u8::is_ascii_whitespace) {
            return Ok(Value::Null);
        }
        serde_json::from_slice(&answer).map_err(|error| {
            KubernetesError::Failed(format!("{what} {}: kubectl printed no JSON: {error}", self.context))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_taken_apart_strictly() {
        let address = Address::parse("prod/shop?kinds=Deployments,services&secrets&dry-run=yes").unwrap();
        assert_eq!((address.context.as_str(), address.namespace.as_deref()), ("prod", Some("shop")));
        assert_eq!(address.kinds, ["deployments", "services"]);
        assert!(address.secrets && address.dry_run && !address.system);
        assert_eq!(address.shown(), "kubernetes:prod/shop");
        assert_eq!(Address::parse("arn:x%2Fy").unwrap().context, "arn:x/y");
        let why = |text: &str| Address::parse(text).unwrap_err().to_string();
        assert!(why("").contains("context is missing"));
        assert!(why("a/b/c").contains("%2F"), "{}", why("a/b/c"));
        assert!(why("a?secret=yes").contains("did you mean secrets?"));
        assert!(why("a?secrets=perhaps").contains("yes or no"));
    }
}
