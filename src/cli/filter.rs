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

impl From<FilterArgs> for Filter {
    fn from(args: FilterArgs) -> Self {
        Self { jobs: args.jobs, hosts: args.hosts, tags: args.tags, machine: String::new() }
    }
}
