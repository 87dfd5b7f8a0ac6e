//! The front matter: what a runbook is for, what it needs to know, and how its last rehearsal went.
//!
//! A small part of YAML, so that forges show it as a table and nothing in it can mean two things: keys with plain or
//! quoted text, one list, two levels below.

use std::time::Duration;

use super::{Fault, duration};

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct Front {
    pub name: String,
    /// What of the stack it brings back.
    pub components: Vec<String>,
    pub rto: Duration,
    pub rpo: Option<Duration>,
    pub variables: Vec<Variable>,
    pub measured: Option<Measured>,
    /// Line behind its end.
    pub(super) end_line: usize,
}

/// What the steps need to know; in them it is `$NAME`.
#[derive(Clone, Debug)]
pub struct Variable {
    pub name: String,
    pub line: usize,
    pub about: String,
    pub default: Option<String>,
    /// Its value in a drill; `$SANDBOX`, `$POSTGRES` and `$REDIS` in it stand for what the drill makes.
    pub drill: Option<String>,
    /// Never shown or recorded.
    pub is_secret: bool,
    /// Steps only read from what it names, so a drill may use the real one.
    pub is_read_only: bool,
}

/// What the last rehearsal that was recorded in the document showed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Measured {
    pub line: usize,
    pub rto: Duration,
    /// `2026-11-22`
    pub date: String,
    /// Where: a recovery time is one machine's.
    pub machine: String,
    /// Hash of the steps that were timed.
    pub steps: String,
}

struct Line<'t> {
    number: usize,
    indent: usize,
    key: &'t str,
    value: Option<String>,
}

const TOP: [&str; 6] = ["name", "components", "rto", "rpo", "variables", "measured"];
const OF_VARIABLE: [&str; 5] = ["about", "default", "drill", "secret", "read-only"];
const OF_MEASURED: [&str; 4] = ["rto", "date", "machine", "steps"];

/// Reads the front matter of a document.
pub(super) fn parse(text: &str) -> Result<Front, Fault> {
    let mut lines = text.lines().enumerate().map(|(at, line)| (at + 1, line));
    if lines.next().is_none_or(|(_, line)| line.trim_end() != "---") {
        return Err(Fault::new(1, "a runbook begins with its front matter: a line of ---")
            .hint("name:, components:, rto:, variables: and a closing ---"));
    }
    let mut found = Vec::new();
    let mut end_line = None;
    for (number, line) in lines {
        if line.trim_end() == "---" {
            end_line = Some(number + 1);
            break;
        }
        if !line.trim().is_empty() && !line.trim_start().starts_with('#') {
            found.push(split(number, line)?);
        }
    }
    let end_line =
        end_line.ok_or_else(|| Fault::new(1, "the front matter does not end: a line of --- is missing"))?;
    let mut front = Front { end_line, ..Front::default() };
    let mut rest = found.as_slice();
    let mut seen: Vec<&str> = Vec::new();
    while let Some((line, after)) = rest.split_first() {
        if line.indent != 0 {
            return Err(Fault::new(line.number, format!("{} stands too far right", line.key)));
        }
        let below = after.iter().position(|line| line.indent == 0).unwrap_or(after.len());
        let (below, after) = after.split_at(below);
        if seen.contains(&line.key) {
            return Err(Fault::new(line.number, format!("{} is given twice", line.key)));
        }
        seen.push(line.key);
        set(&mut front, line, below)?;
        rest = after;
    }
    for needed in ["name", "components", "rto"] {
        if !seen.contains(&needed) {
            return Err(Fault::new(1, format!("the front matter does not say {needed}:")));
        }
    }
    Ok(front)
}

fn split(number: usize, line: &str) -> Result<Line<'_>, Fault> {
    let trimmed = line.trim_start_matches(' ');
    let indent = line.len() - trimmed.len();
    if trimmed.starts_with('\t') {
        return Err(Fault::new(number, "a tab: front matter is indented by spaces"));
    }
    let (key, value) = trimmed
        .split_once(':')
        .ok_or_else(|| Fault::new(number, format!("{trimmed:?}: write key: value")))?;
    let is_key = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if key.is_empty() || !key.chars().all(is_key) {
        return Err(Fault::new(number, format!("{key:?} is no key")));
    }
    if !value.is_empty() && !value.starts_with(' ') {
        return Err(Fault::new(number, format!("{key}: a space is missing behind the colon")));
    }
    Ok(Line { number, indent, key, value: scalar(number, value.trim())? })
}

/// Plain or quoted text. What YAML would read as something else must be quoted.
fn scalar(number: usize, text: &str) -> Result<Option<String>, Fault> {
    if text.is_empty() {
        return Ok(None);
    }
    if let Some(quoted) = text.strip_prefix('"') {
        let inside = quoted.strip_suffix('"').filter(|inside| !inside.contains(['"', '\\']));
        let inside =
            inside.ok_or_else(|| Fault::new(number, "a quoted text holds neither quotes nor backslashes"))?;
        return Ok(Some(inside.to_owned()));
    }
    let special = ['\'', '{', '}', '&', '*', '!', '|', '>', '%', '@', '`', '#', ']', ',', '?', '-'];
    let is_list = text.starts_with('[') && text.ends_with(']');
    let reads_otherwise = text.starts_with(special)
        || (text.starts_with('[') && !is_list)
        || text.contains(": ")
        || text.contains(" #")
        || text.ends_with(':');
    if reads_otherwise {
        return Err(Fault::new(number, format!("{text}: YAML would read this otherwise"))
            .hint("put it in double quotes"));
    }
    Ok(Some(text.to_owned()))
}

fn value(line: &Line) -> Result<String, Fault> {
    line.value.clone().ok_or_else(|| Fault::new(line.number, format!("{}: says nothing", line.key)))
}

fn yes(line: &Line) -> Result<bool, Fault> {
    match value(line)?.as_str() {
        "yes" | "true" => Ok(true),
        "no" | "false" => Ok(false),
        other => Err(Fault::new(line.number, format!("{}: {other:?} is neither yes nor no", line.key))),
    }
}

fn nothing_below(line: &Line, below: &[Line]) -> Result<(), Fault> {
    match below.first() {
        None => Ok(()),
        Some(first) => Err(Fault::new(first.number, format!("nothing belongs below {}:", line.key))),
    }
}

fn set(front: &mut Front, line: &Line, below: &[Line]) -> Result<(), Fault> {
    if !matches!(line.key, "variables" | "measured") {
        nothing_below(line, below)?;
    } else if line.value.is_some() {
        return Err(Fault::new(
            line.number,
            format!("{}: stands alone; its entries follow, indented", line.key),
        ));
    }
    match line.key {
        "name" => {
            front.name = value(line)?;
            // Records are kept in a folder of this name.
            let is_name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
            if !front.name.chars().all(is_name) {
                return Err(Fault::new(line.number, "name: is lower-case letters, digits and -"));
            }
        }
        "components" => {
            let text = value(line)?;
            let list = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(&text);
            front.components =
                list.split(',').map(|part| part.trim().to_owned()).filter(|part| !part.is_empty()).collect();
            if front.components.is_empty() {
                return Err(Fault::new(line.number, "components: names none"));
            }
        }
        "rto" => front.rto = duration(line.number, "rto", &value(line)?)?,
        "rpo" => front.rpo = Some(duration(line.number, "rpo", &value(line)?)?),
        "variables" => front.variables = variables(below)?,
        "measured" => front.measured = Some(measured(line.number, below)?),
        other => return Err(Fault::unknown(line.number, "key", other, &TOP)),
    }
    Ok(())
}

fn variables(lines: &[Line]) -> Result<Vec<Variable>, Fault> {
    let mut all: Vec<Variable> = Vec::new();
    for line in lines {
        match line.indent {
            2 => {
                let is_name = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
                if !line.key.chars().all(is_name) || line.key.starts_with(|c: char| c.is_ascii_digit()) {
                    return Err(Fault::new(
                        line.number,
                        format!("{}: variables are named in CAPITALS", line.key),
                    ));
                }
                if all.iter().any(|variable| variable.name == line.key) {
                    return Err(Fault::new(line.number, format!("{} is given twice", line.key)));
                }
                if line.value.is_some() {
                    let why = format!("{}: stands alone; about: follows, indented", line.key);
                    return Err(Fault::new(line.number, why));
                }
                all.push(Variable {
                    name: line.key.to_owned(),
                    line: line.number,
                    about: String::new(),
                    default: None,
                    drill: None,
                    is_secret: false,
                    is_read_only: false,
                });
            }
            4 => of_variable(all.last_mut(), line)?,
            _ => {
                return Err(Fault::new(
                    line.number,
                    "variables are indented by two spaces, what is said of them by four",
                ));
            }
        }
    }
    match all.iter().find(|variable| variable.about.is_empty()) {
        Some(variable) => Err(Fault::new(variable.line, format!("{}: about: is missing", variable.name))),
        None => Ok(all),
    }
}

fn of_variable(variable: Option<&mut Variable>, line: &Line) -> Result<(), Fault> {
    let variable = variable.ok_or_else(|| Fault::new(line.number, "no variable stands above this"))?;
    match line.key {
        "about" => variable.about = value(line)?,
        "default" => variable.default = Some(value(line)?),
        "drill" => variable.drill = Some(value(line)?),
        "secret" => variable.is_secret = yes(line)?,
        "read-only" => variable.is_read_only = yes(line)?,
        other => return Err(Fault::unknown(line.number, "key", other, &OF_VARIABLE)),
    }
    Ok(())
}

fn measured(at: usize, lines: &[Line]) -> Result<Measured, Fault> {
    let mut found = [const { None }; 4];
    for line in lines {
        let place = OF_MEASURED.iter().position(|key| *key == line.key);
        let place = place.ok_or_else(|| Fault::unknown(line.number, "key", line.key, &OF_MEASURED))?;
        found[place] = Some((line.number, value(line)?));
    }
    let [Some((line, rto)), Some((_, date)), Some((_, machine)), Some((_, steps))] = found else {
        return Err(Fault::new(at, format!("measured: wants {}", OF_MEASURED.join(", "))));
    };
    Ok(Measured { line: at, rto: duration(line, "rto", &rto)?, date, machine, steps })
}

/// The document with another measurement in its front matter.
pub(super) fn with_measured(text: &str, measured: &Measured) -> String {
    let Measured { rto, date, machine, steps, .. } = measured;
    let machine = machine.replace(['"', '\\'], "'");
    let block = format!(
        "measured:\n  rto: {}\n  date: {date}\n  machine: \"{machine}\"\n  steps: \"{steps}\"\n",
        written(*rto)
    );
    let mut new = String::with_capacity(text.len() + block.len());
    let (mut inside, mut is_old) = (false, false);
    for line in text.split_inclusive('\n') {
        let is_fence = line.trim_end() == "---";
        if is_fence && inside {
            new.push_str(&block);
            is_old = false;
            inside = false;
        } else if is_fence && new.is_empty() {
            inside = true;
        } else if inside && !line.starts_with(' ') {
            is_old = line.trim_end() == "measured:";
        }
        if !is_old {
            new.push_str(line);
        }
    }
    new
}

/// `4.2s`, `12m05s`
fn written(time: Duration) -> String {
    match time.as_secs() {
        0..60 => format!("{:.1}s", time.as_secs_f64()),
        seconds => format!("{}m{:02}s", seconds / 60, seconds % 60),
    }
}
