//! Faults that a drill injects: on a view of the storage, never on the storage. Each has a declared outcome.
//!
//! The one outcome that is never acceptable is wrong data that nothing complains of.

mod copied;
mod inject;
mod loss;
mod witness;

use serde::{Deserialize, Serialize};

pub use copied::copy_broken;
pub use inject::{BareRun, Copy, Rescue, inject};
pub use witness::Witness;

use super::evidence::{Evidence, Verdict};

/// What is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FaultKind {
    BitFlips,
    TruncatedPack,
    MissingPack,
    MissingIndex,
    WrongKey,
    HalfGone,
    StorageErrors,
    StorageTimeouts,
    SlowStorage,
    PrimaryGone,
    NoLocalState,
}

impl FaultKind {
    pub const ALL: [Self; 11] = [
        Self::BitFlips,
        Self::TruncatedPack,
        Self::MissingPack,
        Self::MissingIndex,
        Self::WrongKey,
        Self::HalfGone,
        Self::StorageErrors,
        Self::StorageTimeouts,
        Self::SlowStorage,
        Self::PrimaryGone,
        Self::NoLocalState,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::BitFlips => "bit-flips",
            Self::TruncatedPack => "truncated-pack",
            Self::MissingPack => "missing-pack",
            Self::MissingIndex => "missing-index",
            Self::WrongKey => "wrong-key",
            Self::HalfGone => "half-gone",
            Self::StorageErrors => "storage-errors",
            Self::StorageTimeouts => "storage-timeouts",
            Self::SlowStorage => "slow-storage",
            Self::PrimaryGone => "primary-gone",
            Self::NoLocalState => "no-local-state",
        }
    }

    /// Whether stored data is lost by it, so that only another copy has it.
    fn loses_data(self) -> bool {
        use FaultKind::*;
        matches!(self, BitFlips | TruncatedPack | MissingPack | HalfGone | PrimaryGone)
    }
}

/// How a restore through a fault has to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Expect {
    /// It says that it cannot, and what it did bring back is right.
    FailsClosed,
    /// All of it comes back, and is right.
    Recovers,
    /// Not from here, but from a replica.
    RecoversFromReplica,
}

impl Expect {
    pub const ALL: [Self; 3] = [Self::FailsClosed, Self::Recovers, Self::RecoversFromReplica];

    pub fn name(self) -> &'static str {
        match self {
            Self::FailsClosed => "fails_closed",
            Self::Recovers => "recovers",
            Self::RecoversFromReplica => "recovers_from_replica",
        }
    }
}

/// How it did end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    FailsClosed,
    Recovers,
    RecoversFromReplica,
    /// Wrong data came back and nothing said so.
    SilentlyWrong,
    /// It could not be injected or tried. Never what was declared.
    NotRun,
}

impl Outcome {
    pub fn name(self) -> &'static str {
        match self {
            Self::FailsClosed => "fails_closed",
            Self::Recovers => "recovers",
            Self::RecoversFromReplica => "recovers_from_replica",
            Self::SilentlyWrong => "SILENTLY WRONG",
            Self::NotRun => "not run",
        }
    }
}

/// A fault as it is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FaultSpec {
    pub kind: FaultKind,
    /// `None`: what suits the kind and whether there is a replica.
    #[serde(rename = "expect")]
    pub declared: Option<Expect>,
}

impl FaultSpec {
    /// From names; what is not known names the nearest.
    ///
    /// # Errors
    /// There is no such kind or outcome, or they make no sense together.
    pub fn of(kind: &str, declared: Option<&str>) -> Result<Self, String> {
        let found = FaultKind::ALL.into_iter().find(|known| known.name() == kind);
        let found = found.ok_or_else(|| {
            let all = FaultKind::ALL.map(FaultKind::name).join(", ");
            format!("there is no fault {kind:?} (there are {all})")
        })?;
        let declared = declared.map(|name| {
            let wanted = name.replace('-', "_");
            let known = Expect::ALL.into_iter().find(|known| known.name() == wanted);
            let all = Expect::ALL.map(Expect::name).join(", ");
            known.ok_or_else(|| format!("{kind}: there is no outcome {name:?} (there are {all})"))
        });
        let declared = declared.transpose()?;
        match (found, declared) {
            (FaultKind::WrongKey, Some(Expect::RecoversFromReplica | Expect::Recovers)) => {
                Err("wrong-key: what a wrong key opens is never right: it can only be declared fails_closed"
                    .into())
            }
            _ => Ok(Self { kind: found, declared }),
        }
    }

    /// The outcome that counts as right.
    pub fn expected(self, has_replica: bool) -> Expect {
        self.declared.unwrap_or(match self.kind {
            kind if kind.loses_data() && has_replica => Expect::RecoversFromReplica,
            kind if kind.loses_data() => Expect::FailsClosed,
            FaultKind::WrongKey => Expect::FailsClosed,
            _ => Expect::Recovers,
        })
    }
}

impl std::str::FromStr for FaultSpec {
    type Err = String;
    /// `KIND` or `KIND=EXPECT`.
    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('=') {
            Some((kind, expect)) => Self::of(kind, Some(expect)),
            None => Self::of(text, None),
        }
    }
}

/// What an injected fault led to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FaultResult {
    pub kind: FaultKind,
    /// Of a stack: whose restore it was injected into.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub component: Option<String>,
    /// What exactly was broken.
    pub injected: String,
    pub expected: Expect,
    pub outcome: Outcome,
    /// What the restore said, or showed.
    pub detail: String,
    pub seconds: f64,
}

impl FaultResult {
    /// One that could not be injected.
    pub fn not_run(kind: FaultKind, expected: Expect, why: impl Into<String>) -> Self {
        Self {
            kind,
            component: None,
            injected: "nothing".into(),
            expected,
            outcome: Outcome::NotRun,
            detail: why.into(),
            seconds: 0.0,
        }
    }

    /// `missing-pack`, or `db: missing-pack`.
    pub fn title(&self) -> String {
        match &self.component {
            Some(component) => format!("{component}: {}", self.kind.name()),
            None => self.kind.name().into(),
        }
    }

    pub fn is_as_declared(&self) -> bool {
        self.outcome.name() == self.expected.name()
    }

    /// For people, in one line.
    pub fn words(&self) -> String {
        let declared = match self.is_as_declared() {
            true => "as declared".to_owned(),
            false => format!("declared {}", self.expected.name()),
        };
        format!("{}, {declared}", self.outcome.name())
    }
}

/// Lets faults have their say in the verdict: wrong data outranks all, an outcome that was not declared is a failed
/// check.
pub fn conclude(evidence: &mut Evidence) {
    let say = |fault: &FaultResult| Some(format!("{}: {}: {}", fault.title(), fault.words(), fault.detail));
    let is_silent = |fault: &&FaultResult| fault.outcome == Outcome::SilentlyWrong;
    if let Some(fault) = evidence.faults.iter().find(is_silent) {
        (evidence.verdict, evidence.reason) = (Verdict::DataWrong, say(fault));
        return;
    }
    let unexpected = evidence.faults.iter().find(|fault| !fault.is_as_declared());
    if let (Verdict::Met | Verdict::ObjectiveMissed, Some(fault)) = (evidence.verdict, unexpected) {
        (evidence.verdict, evidence.reason) = (Verdict::CheckFailed, say(fault));
    }
}

#[cfg(test)]
mod tests {
    use super::super::evidence::tests::sample;
    use super::*;

    fn result(expected: Expect, outcome: Outcome) -> FaultResult {
        FaultResult {
            kind: FaultKind::MissingPack,
            component: None,
            injected: "data/00 is missing".into(),
            expected,
            outcome,
            detail: "so".into(),
            seconds: 1.0,
        }
    }

    #[test]
    fn names_are_read_and_typos_told() {
        let read = |text: &str| text.parse::<FaultSpec>();
        assert_eq!(read("missing-pack"), Ok(FaultSpec { kind: FaultKind::MissingPack, declared: None }));
        let declared = Some(Expect::RecoversFromReplica);
        assert_eq!(
            read("half-gone=recovers_from_replica"),
            Ok(FaultSpec { kind: FaultKind::HalfGone, declared })
        );
        assert_eq!(read("half-gone=recovers-from-replica").map(|fault| fault.declared), Ok(declared));
        assert!(read("missing").unwrap_err().contains("there are bit-flips, "));
        assert!(read("missing-pack=works").unwrap_err().contains("there are fails_closed, "));
        assert!(read("wrong-key=recovers").unwrap_err().contains("never right"));
        for kind in FaultKind::ALL {
            assert_eq!(serde_json::to_string(&kind).unwrap(), format!("{:?}", kind.name()));
        }
    }

    #[test]
    fn wrong_data_outranks_everything_and_an_undeclared_outcome_fails() {
        let judged = |verdict, faults: Vec<FaultResult>| {
            let mut evidence = sample();
            (evidence.verdict, evidence.faults) = (verdict, faults);
            conclude(&mut evidence);
            evidence.verdict
        };
        let good = || result(Expect::FailsClosed, Outcome::FailsClosed);
        let lucky = || result(Expect::FailsClosed, Outcome::Recovers);
        let silent = || result(Expect::FailsClosed, Outcome::SilentlyWrong);
        let not_run = || result(Expect::FailsClosed, Outcome::NotRun);
        assert_eq!(judged(Verdict::Met, vec![good()]), Verdict::Met);
        assert_eq!(judged(Verdict::Met, vec![good(), lucky()]), Verdict::CheckFailed);
        assert_eq!(judged(Verdict::Met, vec![not_run()]), Verdict::CheckFailed);
        assert_eq!(judged(Verdict::ObjectiveMissed, vec![good()]), Verdict::ObjectiveMissed);
        assert_eq!(judged(Verdict::ObjectiveMissed, vec![lucky()]), Verdict::CheckFailed);
        assert_eq!(judged(Verdict::Met, vec![lucky(), silent()]), Verdict::DataWrong);
        assert_eq!(judged(Verdict::CouldNotRun, vec![not_run()]), Verdict::CouldNotRun);
    }
}
