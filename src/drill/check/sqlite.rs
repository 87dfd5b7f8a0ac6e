//! An SQLite database as it was captured: whole, and with as many rows in every table.

use super::{Answer, Broken, Restored, counted};
use crate::source::sqlite;

pub fn check(restored: &mut Restored<'_>) -> Result<Answer, Broken> {
    let path = restored.sandbox.path().ok_or("the sandbox holds no database")?;
    let Some(expected) = restored.facts.get("sqlite").and_then(|facts| facts.as_object()) else {
        return Ok(Answer::Skipped("the snapshot holds no counts".into()));
    };
    let found = sqlite::inspect(path, expected).map_err(|error| error.to_string())?;
    let (tables, rows) = (found.tables, found.rows);
    let proven =
        format!("{}, {} equal; whole", counted(tables, "table", "tables"), counted(rows, "row", "rows"));
    Ok(Answer::of(found.differences, proven))
}
