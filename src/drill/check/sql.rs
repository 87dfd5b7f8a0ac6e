//! A query whose first value must be true, or a number other than 0.
//!
//! A check asks and changes nothing: one that reads like more is refused before the drill starts, and what slips
//! through meets a session that only reads.

use super::{Answer, Broken, Restored};
use crate::drill::DrillError;
use crate::source::difference::Difference;

/// How a query begins.
const QUERIES: [&str; 4] = ["select", "with", "values", "table"];
/// What a `WITH` may hide.
const CHANGES: [&str; 4] = ["insert", "update", "delete", "merge"];

pub fn check(query: &str, restored: &mut Restored<'_>) -> Result<Answer, Broken> {
    let value = restored.sandbox.sql(query);
    let value = value.map_err(|error| restored.redactor.clean(&error.to_string()))?;
    let value = value.ok_or("the query returned no row")?;
    let is_true = match value.as_str() {
        "t" | "true" | "TRUE" => true,
        number => number.parse::<f64>().is_ok_and(|number| number != 0.0),
    };
    if is_true {
        return Ok(Answer::Proven(format!("answered {value}")));
    }
    let (value, (_, asked)) = (restored.redactor.clean(&value), database_and_query(query));
    let difference =
        Difference::new(asked.trim(), "true, or a number other than 0", format!("answered {value:?}"));
    Ok(Answer::Differs(vec![difference]))
}

/// `shop: select …` asks one of several databases.
pub fn database_and_query(text: &str) -> (Option<&str>, &str) {
    let named = text.split_once(':').filter(|(name, rest)| {
        let name = name.trim();
        !name.is_empty()
            && !name.contains(|c: char| c.is_whitespace() || "'\"(".contains(c))
            && !rest.starts_with(':')
    });
    match named {
        Some((name, query)) => (Some(name.trim()), query),
        None => (None, text),
    }
}

/// Refuses what is not one query.
///
/// # Errors
/// What else it is.
pub fn validate(text: &str) -> Result<(), DrillError> {
    let refused = |why: &str| Err(DrillError::Spec(format!("{text:?} {why}")));
    let (_, query) = database_and_query(text);
    let Some(words) = words(query) else {
        return refused("is not a query: a quote or comment in it has no end");
    };
    let mut begins = words.iter().skip_while(|word| *word == "(");
    if !begins.next().is_some_and(|word| QUERIES.contains(&word.as_str())) {
        return refused("is not a query: a check only asks");
    }
    let end = words.iter().rposition(|word| word != ";").unwrap_or(0);
    if words[..end].iter().any(|word| word == ";") {
        return refused("is several statements: a check is one query");
    }
    // `WITH gone AS (DELETE …` and `SELECT … INTO t` change something, however they begin.
    if words.windows(2).any(|pair| pair[0] == "(" && CHANGES.contains(&pair[1].as_str())) {
        return refused("is not a query: it changes what it should check");
    }
    if words.iter().any(|word| word == "into") {
        return refused("is not a query: it makes a table");
    }
    Ok(())
}

/// The words of SQL in lower case, each sign by itself, without what is quoted or commented; `None` where a quote
/// has no end.
fn words(sql: &str) -> Option<Vec<String>> {
    let mut words = Vec::new();
    let mut rest = sql;
    while let Some(first) = rest.chars().next() {
        let after = &rest[first.len_utf8()..];
        rest = match first {
            '\'' | '"' | '`' => {
                words.push("quoted".into());
                &after[after.find(first)? + 1..]
            }
            '-' if after.starts_with('-') => &after[after.find('\n').unwrap_or(after.len())..],
            '/' if after.starts_with('*') => &after[after.find("*/")? + 2..],
            '$' => match dollar_quote(rest) {
                Some(tag) => {
                    words.push("quoted".into());
                    let inside = &rest[tag.len()..];
                    &inside[inside.find(tag)? + tag.len()..]
                }
                None => after,
            },
            letter if letter.is_alphanumeric() || letter == '_' => {
                let end = rest.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(rest.len());
                words.push(rest[..end].to_lowercase());
                &rest[end..]
            }
            space if space.is_whitespace() => after,
            sign => {
                words.push(sign.to_string());
                after
            }
        };
    }
    Some(words)
}

/// `$$` or `$name$` at the beginning.
fn dollar_quote(text: &str) -> Option<&str> {
    let end = text[1..].find('$')? + 2;
    let name = &text[1..end - 1];
    let is_tag = name.chars().all(|c| c.is_alphanumeric() || c == '_') && !name.starts_with(char::is_numeric);
    is_tag.then_some(&text[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(query: &str) -> String {
        validate(query).map_or_else(|error| error.to_string(), |()| String::new())
    }

    #[test]
    fn one_query_is_a_check() {
        for query in [
            "select 1",
            "  (WITH a AS (SELECT 1) TABLE a)",
            "shop: select 1",
            "select 1;",
            "select count(*) from t where note = 'a; delete from t'",
            "select ';' || $q$;delete$q$ -- ; drop table t",
            "/* first */ values (true)",
            "select updated_at::date = now()::date from \"into\"",
            "select a.update from a",
        ] {
            assert_eq!(refusal(query), "", "{query}");
        }
    }

    #[test]
    fn what_changes_something_is_no_check() {
        for (query, why) in [
            ("shop: delete from a", "is not a query"),
            ("delete from a", "is not a query"),
            ("", "is not a query"),
            ("update a set b = 1", "is not a query"),
            ("select 1; delete from a", "several statements"),
            ("select 1;;select 2;", "several statements"),
            ("select $$;$$; drop table a", "several statements"),
            ("with gone as (delete from a returning 1) select count(*) from gone", "changes what"),
            ("with gone as materialized ( /* x */ update a set b = 1) select 1", "changes what"),
            ("select * into b from a", "makes a table"),
            ("explain analyze delete from a", "is not a query"),
            ("select 'a", "has no end"),
        ] {
            assert!(refusal(query).contains(why), "{query}: {}", refusal(query));
        }
    }

    #[test]
    fn a_database_is_named_before_a_colon_and_a_cast_is_none() {
        assert_eq!(database_and_query("shop: select 1"), (Some("shop"), " select 1"));
        assert_eq!(database_and_query("select 1::int"), (None, "select 1::int"));
        assert_eq!(database_and_query("values(1::int)"), (None, "values(1::int)"));
    }
}
