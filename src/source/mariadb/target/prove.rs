//! What came back, dumped once more and compared with what was counted while it was captured.

use super::super::dump::{Dump, Followed};
use super::super::error::{self, MariaError};
use super::{MARK, MariaTarget};
use crate::base::process::{Process, ProcessOptions};
use crate::source::capture::SourceError;

const BUFFER_BYTES: usize = 256 << 10;
/// Names in one warning.
const NAMED: usize = 10;

impl MariaTarget {
    /// Follows a dump of a database, sequences named as if it were called `as_of`.
    pub(super) fn follow(&self, database: &str, as_of: &str, with: &[&str]) -> Result<Followed, SourceError> {
        let subject = format!("dump database {database:?}");
        let failed = |error| error::tool(subject.clone(), error);
        let broken = |cause| MariaError::Dump { subject: subject.clone(), cause };
        let mut with: Vec<String> = with.iter().map(|&text| text.to_owned()).collect();
        with.push(format!("--ignore-table={database}.{MARK}"));
        let options =
            ProcessOptions { no_progress: Some(self.address.no_progress), ..ProcessOptions::default() };
        let mut process = Process::start(self.reach()?.dump(database, &with), options, &self.world.cancel)
            .map_err(failed)?;
        let (mut dump, mut out) = (Dump::new(true).renaming(database, as_of), Vec::new());
        let mut buffer = vec![0; BUFFER_BYTES];
        loop {
            let length = process.read_some(&mut buffer).map_err(failed)?;
            if length == 0 {
                break;
            }
            dump.push(&buffer[..length], &mut out).map_err(broken)?;
            out.clear();
        }
        process.finish().map_err(failed)?;
        Ok(dump.finish().map_err(broken)?)
    }

    /// Compares tables, their rows and definitions.
    pub(super) fn prove(&mut self, place: usize) -> Result<(), SourceError> {
        let plan = &self.plans[place];
        let found = self.follow(&plan.work, &plan.from, &["--skip-triggers"])?;
        let reach = self.reach()?;
        // Another product or tool may write the same value in another way.
        let is_comparable = self.facts.tool_flavour == reach.tools.flavour.name()
            && self.facts.flavour == reach.flavour.name();
        let name = &plan.name;
        let differs = |what: String| Err(SourceError::Differs(format!("database {name:?}: {what}")));
        if let Some(extra) = found.tables.keys().find(|table| !plan.facts.tables.contains_key(*table)) {
            return differs(format!("table {extra} came back and was not captured"));
        }
        let (mut rows, mut other_rows, mut other_definitions) = (0, Vec::new(), Vec::new());
        for (table, expected) in &plan.facts.tables {
            let Some(got) = found.tables.get(table) else {
                return differs(format!("table {table} did not come back"));
            };
            if got.rows != expected.rows {
                return differs(format!("table {table} has {} rows, and had {}", got.rows, expected.rows));
            }
            if got.hash != expected.hash {
                if is_comparable {
                    return differs(format!("rows of table {table} are not those that were captured"));
                }
                other_rows.push(table.as_str());
            }
            if got.definition != expected.definition {
                other_definitions.push(table.as_str());
            }
            rows += got.rows;
        }
        if found.objects.sequences != plan.facts.objects.sequences {
            let (got, expected) = (found.objects.sequences, plan.facts.objects.sequences);
            return differs(format!("there are {got} sequences, and were {expected}"));
        }
        let tables = plan.facts.tables.len();
        let proven = match other_rows.is_empty() {
            true => format!("{name}: row hashes of {tables} tables are those of the snapshot ({rows} rows)"),
            false => format!("{name}: row counts of {tables} tables are those of the snapshot ({rows} rows)"),
        };
        let mut warnings = Vec::new();
        if !other_rows.is_empty() {
            warnings.push(format!(
                "{name}: written by another product's tools, rows of these tables read otherwise than they did: {}",
                some(&other_rows)
            ));
        }
        if !other_definitions.is_empty() {
            let of = some(&other_definitions);
            warnings
                .push(format!("{name}: this server words the definitions of these tables otherwise: {of}"));
        }
        self.proven.push(proven);
        self.warnings.extend(warnings);
        Ok(())
    }
}

fn some(names: &[&str]) -> String {
    let more = names.len().saturating_sub(NAMED);
    let shown = names[..names.len().min(NAMED)].join(", ");
    if more == 0 { shown } else { format!("{shown} and {more} more") }
}
