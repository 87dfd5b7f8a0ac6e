//! Statements of a dump, as far as their words are understood. Pure.

use super::DumpError;

pub fn malformed(text: &[u8]) -> DumpError {
    DumpError::Malformed(String::from_utf8_lossy(&text[..text.len().min(80)]).into_owned())
}

/// The name in backticks at the start of `text`.
pub fn name(text: &[u8]) -> Option<String> {
    let mut bytes = text.strip_prefix(b"`")?.iter().peekable();
    let mut name = Vec::new();
    while let Some(byte) = bytes.next() {
        match byte {
            b'`' if bytes.peek() == Some(&&b'`') => {
                bytes.next();
                name.push(b'`');
            }
            b'`' => return Some(String::from_utf8_lossy(&name).into_owned()),
            byte => name.push(*byte),
        }
    }
    None
}

/// What stands behind the columns: engine, counter, partitions.
fn behind_columns(text: &[u8]) -> usize {
    memchr::memmem::rfind(text, b"\n) ENGINE=").unwrap_or(text.len())
}

/// A definition without the number the next row would get: that moves while nothing else does.
pub fn without_counter(text: &[u8]) -> Vec<u8> {
    const COUNTER: &[u8] = b" AUTO_INCREMENT=";
    let behind = behind_columns(text);
    let Some(at) = memchr::memmem::find(&text[behind..], COUNTER).map(|at| behind + at) else {
        return text.to_vec();
    };
    let rest = &text[at + COUNTER.len()..];
    let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    [&text[..at], &rest[digits..]].concat()
}

pub fn engine(text: &[u8]) -> String {
    let word = text[behind_columns(text)..].iter().skip(b"\n) ENGINE=".len());
    let word = word.take_while(|byte| byte.is_ascii_alphanumeric() || **byte == b'_');
    word.map(|byte| char::from(*byte)).collect()
}

pub fn replaced(text: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    let (mut out, mut rest) = (Vec::with_capacity(text.len()), text);
    while let Some(at) = memchr::memmem::find(rest, from) {
        out.extend_from_slice(&rest[..at]);
        out.extend_from_slice(to);
        rest = &rest[at + from.len()..];
    }
    out.extend_from_slice(rest);
    out
}

pub fn contains(text: &[u8], part: &[u8]) -> bool {
    memchr::memmem::find(text, part).is_some()
}

/// `ALTER DATABASE name …` without the name: then it is of the database that is current.
pub fn of_current(text: &[u8]) -> Result<Vec<u8>, DumpError> {
    const ALTER: &[u8] = b"ALTER DATABASE ";
    let rest = &text[ALTER.len()..];
    let mut at = 1;
    loop {
        match rest.get(at) {
            Some(b'`') if rest.get(at + 1) == Some(&b'`') => at += 2,
            Some(b'`') => break,
            Some(_) => at += 1,
            None => return Err(malformed(text)),
        }
    }
    if !rest.starts_with(b"`") {
        return Err(malformed(text));
    }
    Ok([ALTER, rest[at + 1..].trim_ascii_start()].concat())
}
