//! Names that people give and that storage gives back: what may be one, and how any is shown.
//!
//! Invariant: what is shown is one line that steers no terminal, whatever the name holds.

use std::fmt::Write as _;

/// Whether a character changes what stands around it rather than standing there: controls, and marks of direction.
pub fn steers(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// A name as one harmless line: what is not UTF-8, or could steer a terminal, is escaped.
pub fn shown(name: &[u8]) -> String {
    let mut text = String::with_capacity(name.len());
    for chunk in name.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '\\' => text.push_str("\\\\"),
                '\n' => text.push_str("\\n"),
                '\t' => text.push_str("\\t"),
                c if steers(c) => drop(write!(text, "{}", c.escape_unicode())),
                c => text.push(c),
            }
        }
        for byte in chunk.invalid() {
            let _ = write!(text, "\\x{byte:02x}");
        }
    }
    text
}

/// A text for people, of several lines perhaps, that steers nothing: whatever names stand in it.
pub fn plain(text: &str) -> std::borrow::Cow<'_, str> {
    let is_plain = |c: char| matches!(c, '\n' | '\t') || !steers(c);
    if text.chars().all(is_plain) {
        return text.into();
    }
    let mut made = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        match is_plain(c) {
            true => made.push(c),
            false => drop(write!(made, "{}", c.escape_unicode())),
        }
    }
    made.into()
}

/// Errors unless a job, machine or the like may be called so.
///
/// # Errors
/// Why it may not, in words: `… has a control character`.
pub fn check(name: &str, limit_bytes: usize) -> Result<(), String> {
    let shown = || shown(name.as_bytes());
    if name.is_empty() {
        return Err("a name cannot be empty".into());
    }
    if name.len() > limit_bytes {
        return Err(format!("a name has at most {limit_bytes} bytes"));
    }
    if name.chars().any(steers) {
        return Err(format!("\"{}\" has a line break or another control character, as no name may", shown()));
    }
    match name.trim() == name {
        true => Ok(()),
        false => Err(format!("\"{}\" begins or ends with a space", shown())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_on_one_line_and_cannot_steer() {
        assert_eq!(shown("a\u{61c}b".as_bytes()), "a\\u{61c}b");
        assert_eq!(shown(b"a\nb\x1b[2J\xff\\"), "a\\nb\\u{1b}[2J\\xff\\\\");
        assert_eq!(shown("für".as_bytes()), "für");
        assert_eq!(plain("a\n\tb\x1b[2J\u{202e}"), "a\n\tb\\u{1b}[2J\\u{202e}");
        assert_eq!(shown("a\u{202e}b\u{2028}".as_bytes()), "a\\u{202e}b\\u{2028}");
    }

    #[test]
    fn what_would_have_to_be_escaped_is_no_name() {
        for name in ["", "a\nb", "a\x1b[31m", "a\u{202e}b", " a", "a\r", "toolong!"] {
            assert!(check(name, 7).is_err(), "{name:?}");
        }
        for name in ["a", "für", "a b", "a\\b"] {
            assert_eq!(check(name, 7), Ok(()), "{name:?}");
        }
        assert!(check("a\nb", 7).unwrap_err().contains("\"a\\nb\""));
    }
}
