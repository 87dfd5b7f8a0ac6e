//! `{step=restore timeout=45m destructive expect="all is well"}`: attributes behind a block's language.

use super::Fault;

/// One of them; without a value it is a flag.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Attribute {
    pub key: String,
    pub value: Option<String>,
}

/// Takes `{…}` apart.
pub(super) fn parse(text: &str, line: usize) -> Result<Vec<Attribute>, Fault> {
    let inside = text.strip_prefix('{').and_then(|text| text.strip_suffix('}'));
    let inside = inside.ok_or_else(|| Fault::new(line, "attributes stand in braces: {step=NAME …}"))?;
    let mut rest = inside.trim_start();
    let mut found: Vec<Attribute> = Vec::new();
    while !rest.is_empty() {
        let end = rest.find(|c: char| c.is_whitespace() || c == '=').unwrap_or(rest.len());
        let (key, after) = rest.split_at(end);
        if key.is_empty() {
            return Err(Fault::new(line, "an attribute has no name before its ="));
        }
        let (value, after) = match after.strip_prefix('=') {
            None => (None, after),
            Some(after) => {
                let (value, after) = value(after, key, line)?;
                (Some(value), after)
            }
        };
        if !after.is_empty() && !after.starts_with(char::is_whitespace) {
            return Err(Fault::new(line, format!("after {key} comes {after:?}: attributes stand apart")));
        }
        if found.iter().any(|other| other.key == key) {
            return Err(Fault::new(line, format!("{key} is given twice")));
        }
        found.push(Attribute { key: key.to_owned(), value });
        rest = after.trim_start();
    }
    Ok(found)
}

fn value<'t>(text: &'t str, key: &str, line: usize) -> Result<(String, &'t str), Fault> {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find(char::is_whitespace).unwrap_or(text.len());
        let (word, after) = text.split_at(end);
        if word.contains('"') {
            return Err(Fault::new(line, format!("{key}: a quote begins in the middle")));
        }
        return Ok((word.to_owned(), after));
    };
    let end = quoted.find('"').ok_or_else(|| Fault::new(line, format!("{key}: the quote does not end")))?;
    Ok((quoted[..end].to_owned(), &quoted[end + 1..]))
}
