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

/// What a statement makes or drops, and its name: (`TRIGGER`, `g`). Comments' marks are passed over, and so is what is
/// quoted before the word, such as a definer.
pub fn subject(text: &[u8]) -> Option<(String, String)> {
    const KINDS: [&str; 7] = ["TRIGGER", "VIEW", "TABLE", "PROCEDURE", "FUNCTION", "PACKAGE", "EVENT"];
    let text = text.split(|byte| *byte == b'\n').filter(|line| !line.starts_with(b"DELIMITER "));
    let text = text.collect::<Vec<_>>().join(&b'\n');
    let mut words = Words { rest: &text };
    let kind = loop {
        let word = words.next()?;
        let word = String::from_utf8_lossy(word).to_ascii_uppercase();
        if KINDS.contains(&word.as_str()) {
            break word;
        }
    };
    let mut kind = kind;
    loop {
        let word = words.next()?;
        let upper = word.to_ascii_uppercase();
        match upper.as_slice() {
            b"BODY" if kind == "PACKAGE" => kind.push_str(" BODY"),
            b"IF" | b"NOT" | b"EXISTS" => {}
            _ => {
                // A name may come with its database's.
                let word = match words.rest.strip_prefix(b".") {
                    Some(rest) => {
                        words.rest = rest;
                        words.next()?
                    }
                    None => word,
                };
                let found = match word.first()? {
                    b'`' => name(word)?,
                    quote @ b'"' => {
                        let inner = word.get(1..word.len() - 1)?;
                        String::from_utf8_lossy(&replaced(inner, &[*quote; 2], &[*quote])).into_owned()
                    }
                    _ => String::from_utf8_lossy(word).into_owned(),
                };
                return Some((kind, found));
            }
        }
    }
}

/// Words and quoted texts, one after the other; all else is passed over.
struct Words<'t> {
    rest: &'t [u8],
}

impl<'t> Iterator for Words<'t> {
    type Item = &'t [u8];

    fn next(&mut self) -> Option<&'t [u8]> {
        let is_word = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'$') || byte >= 0x80;
        let is_quote = |byte: u8| matches!(byte, b'`' | b'"' | b'\'');
        let start = self.rest.iter().position(|byte| is_word(*byte) || is_quote(*byte))?;
        let text = &self.rest[start..];
        let first = *text.first()?;
        let mut end = 1;
        if is_quote(first) {
            loop {
                match (text.get(end)?, text.get(end + 1)) {
                    (b'\\', Some(_)) if first != b'`' => end += 2,
                    (byte, Some(next)) if *byte == first && *next == first => end += 2,
                    (byte, _) if *byte == first => break,
                    _ => end += 1,
                }
            }
            end += 1;
        } else {
            end = text.iter().position(|byte| !is_word(*byte)).unwrap_or(text.len());
        }
        self.rest = &text[end..];
        Some(&text[..end])
    }
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
