//! Which snapshots a verb means, as flags.

use crate::repo::snapshots::Filter;

/// Flags that narrow the snapshots down.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct FilterArgs {
    /// Only snapshots of this job (may be repeated: any of them)
    #[arg(long = "job", value_name = "NAME")]
    jobs: Vec<String>,
    /// Only snapshots of this machine (may be repeated: any of them)
    #[arg(long = "host", value_name = "NAME")]
    hosts: Vec<String>,
    /// Only snapshots with this tag (may be repeated: all of them)
    #[arg(long = "tag", value_name = "TAG")]
    tags: Vec<String>,
}

impl FilterArgs {
    /// The same again, for a run that goes on.
    pub fn again(&self) -> Vec<String> {
        let all = [("--job", &self.jobs), ("--host", &self.hosts), ("--tag", &self.tags)];
        let flags = all.into_iter().flat_map(|(flag, names)| names.iter().map(move |name| (flag, name)));
        flags.flat_map(|(flag, name)| [flag.to_owned(), name.clone()]).collect()
    }
}

impl From<FilterArgs> for Filter {
    fn from(args: FilterArgs) -> Self {
        Self { jobs: args.jobs, hosts: args.hosts, tags: args.tags, machine: String::new() }
    }
}
