//! Exit codes: what a script or a timer learns from a run without reading its output.
//!
//! The numbers are an interface and never change their meaning.

use std::process::ExitCode;

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Everything asked for was done.
    Ok = 0,
    /// It was not done; the message says why.
    Failed = 1,
    /// The command line or the configuration makes no sense; nothing was tried.
    Usage = 2,
    /// A snapshot was made, but something could not be read and is missing from it; or a restore that brought the data
    /// back could not make something beside it.
    Partial = 3,
    /// There is no repository at the location.
    NoRepository = 10,
    /// Something is already there, or somebody else changed it meanwhile.
    Conflict = 11,
    /// The password or key opens nothing here.
    WrongKey = 12,
    /// Stored data is damaged or missing, or restored data is not what was backed up.
    Damage = 20,
    /// A drill restored everything, but one of its checks failed.
    DrillCheckFailed = 21,
    /// A drill passed, but recovery took longer, or lost more, than the objective allows.
    ObjectiveMissed = 22,
    /// Forgetting was refused because it would remove too much.
    RetentionGuard = 23,
    /// Stopped by Ctrl-C or SIGTERM.
    Interrupted = 130,
}

impl Exit {
    /// The worst first. Damage outranks everything, since it does not go away by trying again. The failures with
    /// a code of their own rank with 1, just before it, because they say more. An interruption stands behind
    /// what was found out before it, but before whatever still looks like an answer.
    const WORST_FIRST: [Exit; 12] = [
        Exit::Damage,
        Exit::DrillCheckFailed,
        Exit::Interrupted,
        Exit::WrongKey,
        Exit::NoRepository,
        Exit::Conflict,
        Exit::Usage,
        Exit::Failed,
        Exit::ObjectiveMissed,
        Exit::RetentionGuard,
        Exit::Partial,
        Exit::Ok,
    ];

    /// The number the process ends with.
    pub fn code(self) -> u8 {
        self as u8
    }

    /// What a process of ours ended with.
    pub fn of_code(code: u8) -> Option<Exit> {
        Self::WORST_FIRST.into_iter().find(|exit| exit.code() == code)
    }

    /// One code for several jobs: the worst of theirs; [`Exit::Ok`] for none.
    pub fn worst_of(exits: impl IntoIterator<Item = Exit>) -> Exit {
        let rank = |exit: &Exit| Self::WORST_FIRST.iter().position(|other| other == exit);
        exits.into_iter().min_by_key(rank).unwrap_or(Exit::Ok)
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        ExitCode::from(exit.code())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_jobs_end_with_the_worst() {
        use Exit::*;
        let documented = [Damage, DrillCheckFailed, Failed, ObjectiveMissed, RetentionGuard, Partial, Ok];
        for pair in documented.windows(2) {
            assert_eq!(Exit::worst_of([pair[1], pair[0], pair[1]]), pair[0], "{pair:?}");
        }
        assert_eq!(Exit::worst_of([WrongKey, Failed]), WrongKey);
        assert_eq!(Exit::worst_of([]), Ok);
    }

    #[test]
    fn every_code_has_its_rank_and_its_number() {
        let mut codes = Exit::WORST_FIRST.map(Exit::code);
        codes.sort();
        assert_eq!(codes, [0, 1, 2, 3, 10, 11, 12, 20, 21, 22, 23, 130]);
    }
}
