//! A lexer that is just good enough for the house rules: identifiers, punctuation and string contents with their
//! lines, without comments; and which of those tokens belong to test code.
//!
//! It never fails: what is not understood becomes punctuation. The compiler has the last word on Rust, not this.

#[derive(Clone, Debug, PartialEq)]
pub enum Kind {
    Word(String),
    Punct(char),
    /// A string literal's contents, escapes as written.
    Text(String),
}

#[derive(Clone, Debug)]
pub struct Token {
    pub kind: Kind,
    pub line: usize,
    /// Inside an item marked `#[test]` or `#[cfg(test)]`.
    pub is_test: bool,
}

impl Token {
    pub fn is(&self, punct: char) -> bool {
        self.kind == Kind::Punct(punct)
    }
    pub fn word(&self) -> Option<&str> {
        match &self.kind {
            Kind::Word(word) => Some(word),
            _ => None,
        }
    }
}

/// The tokens of a file, test code marked.
pub fn lex(text: &str) -> Vec<Token> {
    let chars: Vec<char> = text.chars().collect();
    let mut tokens = Vec::new();
    let (mut at, mut line) = (0, 1);
    while at < chars.len() {
        let (kind, end) = next(&chars, at);
        if let Some(kind) = kind {
            tokens.push(Token { kind, line, is_test: false });
        }
        line += chars[at..end].iter().filter(|&&c| c == '\n').count();
        at = end;
    }
    mark_tests(&mut tokens);
    tokens
}

fn next(chars: &[char], at: usize) -> (Option<Kind>, usize) {
    let peek = |ahead: usize| chars.get(at + ahead).copied().unwrap_or('\0');
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    match chars[at] {
        '/' if peek(1) == '/' => (None, find(chars, at, |c| c == '\n')),
        '/' if peek(1) == '*' => (None, block_comment(chars, at)),
        '"' => string(chars, at),
        // A character, or a lifetime when no quote closes it.
        '\'' if peek(1) == '\\' => (None, find(chars, at + 3, |c| c == '\'') + 1),
        '\'' if peek(2) == '\'' => (None, at + 3),
        '\'' => (None, find(chars, at + 1, |c| !is_word(c))),
        c if is_word(c) => {
            let end = find(chars, at, |c| !is_word(c));
            let word: String = chars[at..end].iter().collect();
            let follows = chars.get(end).copied().unwrap_or('\0');
            match (word.as_str(), follows) {
                ("b" | "c", '"') => string(chars, end),
                ("r" | "br" | "cr", '"' | '#') => raw(chars, end),
                ("b", '\'') => (None, next(chars, end).1),
                _ => (Some(Kind::Word(word)), end),
            }
        }
        c if c.is_whitespace() => (None, at + 1),
        c => (Some(Kind::Punct(c)), at + 1),
    }
}

fn find(chars: &[char], from: usize, stop: impl Fn(char) -> bool) -> usize {
    (from..chars.len()).find(|&at| stop(chars[at])).unwrap_or(chars.len())
}

fn block_comment(chars: &[char], start: usize) -> usize {
    let (mut at, mut depth) = (start, 0);
    while at < chars.len() {
        match (chars[at], chars.get(at + 1)) {
            ('/', Some('*')) => (depth, at) = (depth + 1, at + 2),
            ('*', Some('/')) => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            break;
        }
    }
    at.min(chars.len())
}

fn string(chars: &[char], quote: usize) -> (Option<Kind>, usize) {
    let mut at = quote + 1;
    while at < chars.len() && chars[at] != '"' {
        at += if chars[at] == '\\' { 2 } else { 1 };
    }
    let end = at.min(chars.len());
    (Some(Kind::Text(chars[quote + 1..end].iter().collect())), (end + 1).min(chars.len()))
}

/// A raw string from its hashes on, or a raw identifier's `#`.
fn raw(chars: &[char], start: usize) -> (Option<Kind>, usize) {
    let open = find(chars, start, |c| c != '#');
    if chars.get(open) != Some(&'"') {
        return (None, open);
    }
    let hashes = open - start;
    let closes = |at: usize| {
        chars[at] == '"' && chars[at + 1..].iter().take(hashes).filter(|&&c| c == '#').count() == hashes
    };
    let close = (open + 1..chars.len()).find(|&at| closes(at)).unwrap_or(chars.len());
    (Some(Kind::Text(chars[open + 1..close].iter().collect())), (close + 1 + hashes).min(chars.len()))
}

/// The index just after the bracket that closes the one at `open`.
pub fn after_close(tokens: &[Token], open: usize) -> usize {
    let mut depth = 0usize;
    for (at, token) in tokens.iter().enumerate().skip(open) {
        match token.kind {
            Kind::Punct('(' | '[' | '{') => depth += 1,
            Kind::Punct(')' | ']' | '}') => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth == 0 {
            return at + 1;
        }
    }
    tokens.len()
}

fn mark_tests(tokens: &mut [Token]) {
    let mut at = 0;
    while at < tokens.len() {
        let inner = tokens[at].is('#') && tokens.get(at + 1).is_some_and(|t| t.is('!'));
        let bracket = at + 1 + usize::from(inner);
        if !tokens[at].is('#') || !tokens.get(bracket).is_some_and(|t| t.is('[')) {
            at += 1;
            continue;
        }
        let close = after_close(tokens, bracket);
        if !is_test_attribute(&tokens[bracket + 1..close - 1]) {
            at = close;
            continue;
        }
        let end = if inner { tokens.len() } else { item_end(tokens, close) };
        tokens[at..end].iter_mut().for_each(|token| token.is_test = true);
        at = end;
    }
}

/// `test`, `tokio::test`, `cfg(test)`, `cfg(all(test, …))`; not `cfg(any(test, …))` or `cfg(not(test))`, which also
/// build outside tests.
fn is_test_attribute(attribute: &[Token]) -> bool {
    let words: Vec<&str> = attribute.iter().filter_map(Token::word).collect();
    match words.as_slice() {
        ["cfg", rest @ ..] => rest.contains(&"test") && !rest.contains(&"not") && !rest.contains(&"any"),
        ["test"] | ["tokio", "test", ..] => true,
        _ => false,
    }
}

/// The end of the item that starts at `start`: its `;` or the brace that closes its body.
fn item_end(tokens: &[Token], start: usize) -> usize {
    let mut at = start;
    while at < tokens.len() {
        match tokens[at].kind {
            Kind::Punct(';') => return at + 1,
            Kind::Punct('{') => return after_close(tokens, at),
            Kind::Punct('(' | '[') => at = after_close(tokens, at),
            _ => at += 1,
        }
    }
    at
}
