//! Every path in a file that leads to another module of the crate, made absolute.
//!
//! Follows `use` trees with groups and renames, inline paths, `self`, `super`, `$crate`, the crate's own name and
//! modules written inline.

use super::lex::{Token, after_close};

/// A path from the crate root, as far as it was written; empty for the root itself.
#[derive(Debug, PartialEq)]
pub struct Import {
    pub path: Vec<String>,
    pub line: usize,
}

/// All imports of a file whose own module is `module`.
pub fn imports(tokens: &[Token], module: &[String]) -> Vec<Import> {
    let mut found = Vec::new();
    let mut here = module.to_vec();
    // Where each inline module ends.
    let mut ends: Vec<usize> = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        while ends.last() == Some(&at) {
            ends.pop();
            here.pop();
        }
        let word = tokens[at].word();
        let following = |ahead: usize| tokens.get(at + ahead);
        match word {
            Some("mod") if following(2).is_some_and(|t| t.is('{')) => {
                here.push(following(1).and_then(Token::word).unwrap_or("?").to_owned());
                ends.push(after_close(tokens, at + 2) - 1);
                at += 3;
            }
            // Not the `use<…>` of a captured lifetime.
            Some("use") if !following(1).is_some_and(|t| t.is('<')) => {
                at = tree(tokens, at + 1, &[], &here, &mut found);
            }
            Some("extern") if following(1).and_then(Token::word) == Some("crate") => {
                found.push(Import { path: Vec::new(), line: tokens[at].line });
                at += 2;
            }
            Some("crate" | "super" | "self" | "lifeboat") if starts_path(tokens, at) => {
                let mut path = Vec::new();
                let line = tokens[at].line;
                while let Some(word) = tokens.get(at).and_then(Token::word) {
                    path.push(word.to_owned());
                    at += 1;
                    match is_colons(tokens, at) {
                        true => at += 2,
                        false => break,
                    }
                }
                push(&path, &here, line, &mut found);
            }
            _ => at += 1,
        }
    }
    found
}

fn is_colons(tokens: &[Token], at: usize) -> bool {
    tokens.get(at).is_some_and(|t| t.is(':')) && tokens.get(at + 1).is_some_and(|t| t.is(':'))
}

/// Whether the word begins a path of at least two parts, rather than continuing one.
fn starts_path(tokens: &[Token], at: usize) -> bool {
    let continues =
        at >= 3 && is_colons(tokens, at - 2) && (tokens[at - 3].word().is_some() || tokens[at - 3].is('>'));
    !continues && is_colons(tokens, at + 1)
}

/// Reads one branch of a `use` tree and returns the index after it.
fn tree(
    tokens: &[Token],
    start: usize,
    prefix: &[String],
    here: &[String],
    found: &mut Vec<Import>,
) -> usize {
    let mut path = prefix.to_vec();
    let mut at = start;
    while let Some(token) = tokens.get(at) {
        if token.is('{') {
            let end = after_close(tokens, at);
            at += 1;
            while at < end - 1 {
                at = tree(tokens, at, &path, here, found) + 1;
            }
            return end;
        } else if token.is(',') || token.is('}') || token.is(';') {
            break;
        } else if token.is('*') {
            path.push("*".to_owned());
        } else if token.word() == Some("as") {
            at += 1;
        } else if let Some(word) = token.word()
            && (word != "self" || path.is_empty())
        {
            path.push(word.to_owned());
        }
        at += 1;
    }
    let line = tokens.get(start).map_or(0, |token| token.line);
    // A trailing comma leaves an empty branch.
    if at > start {
        push(&path, here, line, found);
    }
    at
}

fn push(path: &[String], here: &[String], line: usize, found: &mut Vec<Import>) {
    let mut absolute = match path.first().map(String::as_str) {
        Some("crate" | "lifeboat") => Vec::new(),
        Some("self" | "super") => here.to_vec(),
        // Another crate, or a name already in scope.
        _ => return,
    };
    for part in path.iter().skip(usize::from(path[0] != "super")) {
        match part.as_str() {
            "super" => drop(absolute.pop()),
            "self" => {}
            part => absolute.push(part.to_owned()),
        }
    }
    found.push(Import { path: absolute, line });
}
