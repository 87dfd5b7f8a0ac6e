//! Roles and tablespaces as `pg_dumpall --globals-only` writes them, taken apart into statements.
//!
//! Pure. Lines of psql (a backslash first, such as `\restrict`) and comments are left out; quotes are followed, so
//! that a semicolon in a password ends nothing.

/// What a statement is about; names are decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum About {
    MakeRole(String),
    /// Rights, password, settings, comment.
    Role(String),
    Membership {
        role: String,
        member: String,
    },
    MakeTablespace(String),
    Tablespace(String),
    /// Sets up the session that runs the rest.
    Session,
    Other,
}

/// One statement, without its semicolon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statement {
    pub sql: String,
    pub about: About,
}

/// All statements, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Globals(pub Vec<Statement>);

impl Globals {
    fn named(&self, name: impl Fn(&About) -> Option<&String>) -> Vec<String> {
        self.0.iter().filter_map(|statement| name(&statement.about).cloned()).collect()
    }

    pub fn roles(&self) -> Vec<String> {
        self.named(|about| match about {
            About::MakeRole(name) => Some(name),
            _ => None,
        })
    }

    pub fn tablespaces(&self) -> Vec<String> {
        self.named(|about| match about {
            About::MakeTablespace(name) => Some(name),
            _ => None,
        })
    }
}

/// `dbname='…'` for the tools that take a database only as an argument.
pub fn connection_string(database: &str) -> String {
    format!("dbname='{}'", database.replace('\\', "\\\\").replace('\'', "\\'"))
}

/// Takes the script apart. Whatever it holds, there is an answer; what is not understood is [`About::Other`].
pub fn parse(script: &[u8]) -> Globals {
    let script = String::from_utf8_lossy(script);
    let statements = split(&script);
    let about = |sql: String| Statement { about: about(&words(&sql)), sql };
    Globals(statements.into_iter().map(about).collect())
}

fn split(script: &str) -> Vec<String> {
    let (mut statements, mut current) = (Vec::new(), String::new());
    // The quote that is open, and whether backslashes escape in it.
    let mut quote: Option<(char, bool)> = None;
    let mut rest = script;
    let mut at_line_start = true;
    while let Some(first) = rest.chars().next() {
        if quote.is_none() && ((at_line_start && first == '\\') || rest.starts_with("--")) {
            rest = rest.find('\n').map_or("", |end| &rest[end..]);
            continue;
        }
        rest = &rest[first.len_utf8()..];
        at_line_start = first == '\n';
        match quote {
            Some((_, true)) if first == '\\' => {
                current.push(first);
                if let Some(next) = rest.chars().next() {
                    current.push(next);
                    rest = &rest[next.len_utf8()..];
                }
                continue;
            }
            // A doubled quote closes and opens again, which comes to the same.
            Some((open, _)) if first == open => quote = None,
            Some(_) => {}
            None if first == '\'' => quote = Some(('\'', current.ends_with(['E', 'e']))),
            None if first == '"' => quote = Some(('"', false)),
            None if first == ';' => {
                finish(&mut statements, &mut current);
                continue;
            }
            None => {}
        }
        current.push(first);
    }
    finish(&mut statements, &mut current);
    statements
}

fn finish(statements: &mut Vec<String>, current: &mut String) {
    let statement = std::mem::take(current);
    if !statement.trim().is_empty() {
        statements.push(statement.trim().to_owned());
    }
}

/// The first words; a quoted name is one, decoded.
fn words(sql: &str) -> Vec<String> {
    const ENOUGH: usize = 12;
    let mut words = Vec::new();
    let mut rest = sql.trim_start();
    while !rest.is_empty() && words.len() < ENOUGH {
        if let Some(quoted) = rest.strip_prefix('"') {
            let mut word = String::new();
            let mut characters = quoted.char_indices().peekable();
            let mut end = quoted.len();
            while let Some((at, character)) = characters.next() {
                if character != '"' {
                    word.push(character);
                } else if characters.next_if(|(_, next)| *next == '"').is_some() {
                    word.push('"');
                } else {
                    end = at + 1;
                    break;
                }
            }
            words.push(word);
            rest = quoted[end..].trim_start();
        } else {
            let end = rest.find(char::is_whitespace).unwrap_or(rest.len());
            words.push(rest[..end].trim_end_matches(',').to_owned());
            rest = rest[end..].trim_start();
        }
    }
    words
}

fn about(words: &[String]) -> About {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["CREATE", "ROLE", name, ..] => About::MakeRole((*name).into()),
        ["ALTER", "ROLE", name, ..] | ["COMMENT", "ON", "ROLE", name, ..] => About::Role((*name).into()),
        ["SECURITY", "LABEL", "FOR", _, "ON", "ROLE", name, ..] => About::Role((*name).into()),
        ["GRANT", role, "TO", member, ..] => {
            About::Membership { role: (*role).into(), member: (*member).into() }
        }
        ["CREATE", "TABLESPACE", name, ..] => About::MakeTablespace((*name).into()),
        ["ALTER", "TABLESPACE", name, ..] | ["COMMENT", "ON", "TABLESPACE", name, ..] => {
            About::Tablespace((*name).into())
        }
        [verb @ ("GRANT" | "REVOKE"), .., "ON", "TABLESPACE", name, _, _] if !verb.is_empty() => {
            About::Tablespace((*name).into())
        }
        [verb @ ("GRANT" | "REVOKE"), _, "ON", "TABLESPACE", name, ..] if !verb.is_empty() => {
            About::Tablespace((*name).into())
        }
        ["SET", ..] => About::Session,
        _ => About::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_is_taken_apart() {
        let script = r#"--
-- PostgreSQL database cluster dump
--
\restrict abc;def
SET client_encoding = 'UTF8';
CREATE ROLE "odd ""; name";
ALTER ROLE "odd ""; name" WITH LOGIN PASSWORD 'md5;''x--';
ALTER ROLE a SET search_path TO E'back\'\\slash;', 'b';
GRANT a TO "odd ""; name" WITH ADMIN OPTION GRANTED BY postgres;
CREATE TABLESPACE fast OWNER a LOCATION '/fast';
GRANT ALL ON TABLESPACE fast TO b;
\unrestrict abc
"#;
        let odd = || "odd \"; name".to_owned();
        let found = parse(script.as_bytes());
        let about: Vec<_> = found.0.iter().map(|statement| statement.about.clone()).collect();
        assert_eq!(
            about,
            [
                About::Session,
                About::MakeRole(odd()),
                About::Role(odd()),
                About::Role("a".into()),
                About::Membership { role: "a".into(), member: odd() },
                About::MakeTablespace("fast".into()),
                About::Tablespace("fast".into()),
            ]
        );
        assert!(found.0[2].sql.ends_with("'md5;''x--'"), "{}", found.0[2].sql);
        assert_eq!((found.roles(), found.tablespaces()), (vec![odd()], vec!["fast".to_owned()]));
    }

    #[test]
    fn a_script_that_breaks_off_is_no_panic() {
        for script in ["CREATE ROLE \"a", "ALTER ROLE a PASSWORD 'x", "E'\\", "\\", "--", ";;"] {
            parse(script.as_bytes());
        }
    }
}
