//! Reads shell text far enough to tell which commands it holds, and which variables it uses and sets.
//!
//! No shell: quotes, comments, substitutions, here-documents and redirections are understood, nothing is expanded.
//! What it cannot understand it reads as more commands rather than fewer, since rules are held against them.

use std::collections::BTreeSet;

/// A word as it was written, without its quotes; a substitution in it is `$(…)`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Word {
    pub text: String,
    /// Variables in it.
    pub uses: Vec<String>,
}

/// A simple command: assignments and reserved words before it are taken off.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Command {
    /// Counted from the text's first line, which is 0.
    pub line: usize,
    pub words: Vec<Word>,
    /// What it writes to by redirection.
    pub writes: Vec<Word>,
}

impl Command {
    /// The program's name without its folder.
    pub fn program(&self) -> &str {
        let first = self.words.first().map_or("", |word| word.text.as_str());
        first.rsplit('/').next().unwrap_or_default()
    }

    pub fn has(&self, wanted: &[&str]) -> bool {
        let is_it = |word: &Word| {
            let flag = word.text.split('=').next().unwrap_or_default();
            wanted.contains(&flag)
        };
        self.words.iter().skip(1).any(is_it)
    }

    /// The value of `--flag VALUE` or `--flag=VALUE`.
    pub fn value(&self, flags: &[&str]) -> Option<&str> {
        for (at, word) in self.words.iter().enumerate() {
            let text = word.text.as_str();
            if flags.contains(&text) {
                return self.words.get(at + 1).map(|word| word.text.as_str());
            }
            if let Some((flag, value)) = text.split_once('=')
                && flags.contains(&flag)
            {
                return Some(value);
            }
        }
        None
    }
}

/// What a text holds.
#[derive(Clone, Debug, Default)]
pub(super) struct Script {
    pub commands: Vec<Command>,
    /// Name and line.
    pub uses: Vec<(String, usize)>,
    pub sets: BTreeSet<String>,
    /// What is assigned to them, with the line.
    pub assigned: Vec<(String, usize)>,
}

/// Reads a text.
pub(super) fn read(text: &str) -> Script {
    let mut reader = Reader { text: text.chars().collect(), ..Reader::default() };
    reader.list(None);
    reader.script
}

/// Deeper ones are read as plain text: nobody writes them, and each costs stack.
const DEPTH_LIMIT: usize = 32;

const RESERVED: [&str; 18] = [
    "if", "then", "else", "elif", "fi", "do", "done", "while", "until", "!", "{", "}", "time", "exec",
    "command", "sudo", "nohup", "env",
];

#[derive(Default)]
struct Reader {
    text: Vec<char>,
    at: usize,
    line: usize,
    script: Script,
    /// Here-documents whose bodies begin behind this line: the end's word, and whether variables count in it.
    pending: Vec<(String, bool)>,
    /// How deep substitutions stand in each other.
    depth: usize,
}

impl Reader {
    fn peek(&self, ahead: usize) -> Option<char> {
        self.text.get(self.at + ahead).copied()
    }

    fn next(&mut self) -> Option<char> {
        let c = self.peek(0)?;
        self.at += 1;
        self.line += usize::from(c == '\n');
        Some(c)
    }

    /// Commands up to `end` or the text's end.
    fn list(&mut self, end: Option<char>) {
        let mut command = Command { line: self.line, ..Command::default() };
        while let Some(c) = self.peek(0) {
            match c {
                _ if Some(c) == end => break,
                '\n' => {
                    self.next();
                    self.finish(&mut command);
                    self.here_documents();
                }
                ';' | '&' | '|' | '(' | ')' => {
                    self.next();
                    self.finish(&mut command);
                }
                '#' => {
                    while self.peek(0).is_some_and(|c| c != '\n') {
                        self.next();
                    }
                }
                '\\' if self.peek(1) == Some('\n') => {
                    self.next();
                    self.next();
                }
                c if c.is_whitespace() => {
                    self.next();
                }
                '<' | '>' => self.redirection(&mut command),
                _ => {
                    if command.words.is_empty() {
                        command.line = self.line;
                    }
                    let word = self.word(end);
                    let is_number =
                        !word.text.is_empty() && word.text.bytes().all(|byte| byte.is_ascii_digit());
                    if !(is_number && matches!(self.peek(0), Some('<' | '>'))) {
                        command.words.push(word);
                    }
                }
            }
        }
        self.finish(&mut command);
    }

    fn redirection(&mut self, command: &mut Command) {
        let is_write = self.peek(0) == Some('>');
        while matches!(self.peek(0), Some('<' | '>' | '|')) {
            self.next();
            if !is_write && self.peek(0) == Some('<') && self.peek(1) != Some('<') {
                self.next();
                let strip = self.peek(0) == Some('-');
                if strip {
                    self.next();
                }
                self.blanks();
                let is_quoted = matches!(self.peek(0), Some('\'' | '"' | '\\'));
                let uses = self.script.uses.len();
                let word = self.word(None);
                self.script.uses.truncate(uses);
                self.pending.push((word.text, !is_quoted));
                return;
            }
        }
        if self.peek(0) == Some('&') {
            self.next();
            self.word(None);
            return;
        }
        self.blanks();
        let word = self.word(None);
        if is_write {
            command.writes.push(word);
        }
    }

    fn blanks(&mut self) {
        while matches!(self.peek(0), Some(' ' | '\t')) {
            self.next();
        }
    }

    fn here_documents(&mut self) {
        for (end, counts) in std::mem::take(&mut self.pending) {
            loop {
                let (from, line) = (self.at, self.line);
                while self.peek(0).is_some_and(|c| c != '\n') {
                    self.next();
                }
                let text: String = self.text[from..self.at].iter().collect();
                let is_over = self.next().is_none() || text.trim_start_matches('\t') == end;
                if is_over {
                    break;
                }
                if counts {
                    let inside = read(&format!("\"{}\"", text.replace(['"', '\\'], " ")));
                    self.script.uses.extend(inside.uses.into_iter().map(|(name, _)| (name, line)));
                }
            }
        }
    }

    fn word(&mut self, end: Option<char>) -> Word {
        let mut word = Word::default();
        while let Some(c) = self.peek(0) {
            match c {
                '\'' => {
                    self.next();
                    while let Some(c) = self.next().filter(|c| *c != '\'') {
                        word.text.push(c);
                    }
                }
                '"' => {
                    self.next();
                    self.double_quoted(&mut word);
                }
                '\\' => {
                    self.next();
                    if let Some(c) = self.next().filter(|c| *c != '\n') {
                        word.text.push(c);
                    }
                }
                '$' => self.dollar(&mut word),
                '`' if end != Some('`') => self.substitution('`', &mut word),
                c if c.is_whitespace() || ";&|()<>".contains(c) || Some(c) == end => break,
                _ => {
                    self.next();
                    word.text.push(c);
                }
            }
        }
        word
    }

    fn double_quoted(&mut self, word: &mut Word) {
        while let Some(c) = self.peek(0) {
            match c {
                '"' => {
                    self.next();
                    return;
                }
                '\\' => {
                    self.next();
                    word.text.extend(self.next().filter(|c| *c != '\n'));
                }
                '$' => self.dollar(word),
                '`' => self.substitution('`', word),
                _ => {
                    self.next();
                    word.text.push(c);
                }
            }
        }
    }

    fn substitution(&mut self, end: char, word: &mut Word) {
        self.next();
        if self.depth == DEPTH_LIMIT {
            return;
        }
        self.depth += 1;
        let uses = self.script.uses.len();
        self.list(Some(end));
        self.depth -= 1;
        self.next();
        word.text.push_str("$(…)");
        word.uses.extend(self.script.uses[uses..].iter().map(|(name, _)| name.clone()));
    }

    fn dollar(&mut self, word: &mut Word) {
        match self.peek(1) {
            Some('(') => {
                self.next();
                self.substitution(')', word);
            }
            Some('{') => {
                self.next();
                self.next();
                if self.peek(0) == Some('#') {
                    self.next();
                }
                let name = self.name();
                self.uses(&name, word);
                // What follows the name may use others: ${A:-$B}.
                while let Some(c) = self.peek(0) {
                    match c {
                        '}' => {
                            self.next();
                            break;
                        }
                        '$' if self.depth < DEPTH_LIMIT => {
                            self.depth += 1;
                            self.dollar(&mut Word::default());
                            self.depth -= 1;
                        }
                        _ => {
                            self.next();
                        }
                    }
                }
            }
            Some(c) if c.is_ascii_alphabetic() || c == '_' => {
                self.next();
                let name = self.name();
                self.uses(&name, word);
            }
            Some(c) if c.is_ascii_digit() || "?!#@*$-".contains(c) => {
                self.next();
                self.next();
                word.text.push_str("$(…)");
            }
            _ => {
                self.next();
                word.text.push('$');
            }
        }
    }

    fn name(&mut self) -> String {
        let mut name = String::new();
        while let Some(c) = self.peek(0).filter(|c| c.is_ascii_alphanumeric() || *c == '_') {
            self.next();
            name.push(c);
        }
        name
    }

    fn uses(&mut self, name: &str, word: &mut Word) {
        if name.is_empty() {
            return;
        }
        word.text.push('$');
        word.text.push_str(name);
        word.uses.push(name.to_owned());
        self.script.uses.push((name.to_owned(), self.line));
    }

    fn finish(&mut self, command: &mut Command) {
        let mut done = std::mem::replace(command, Command { line: self.line, ..Command::default() });
        let is_loop = done.words.first().is_some_and(|word| word.text == "for");
        if let (true, Some(name)) = (is_loop, done.words.get(1)) {
            self.script.sets.insert(name.text.clone());
            return;
        }
        while let Some(first) = done.words.first() {
            let assigned = first.text.split_once('=').map(|(name, _)| name).filter(|name| is_name(name));
            if let Some(name) = assigned {
                self.script.sets.insert(name.to_owned());
                self.script.assigned.push((first.text[name.len() + 1..].to_owned(), done.line));
            } else if !RESERVED.contains(&first.text.as_str()) {
                break;
            }
            done.words.remove(0);
        }
        if matches!(done.program(), "export" | "local" | "readonly" | "read") {
            let names = done.words.iter().skip(1).map(|word| word.text.split('=').next().unwrap_or_default());
            self.script.sets.extend(names.filter(|name| is_name(name)).map(str::to_owned));
        }
        if !done.words.is_empty() || !done.writes.is_empty() {
            self.script.commands.push(done);
        }
    }
}

fn is_name(text: &str) -> bool {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    !text.is_empty() && text.chars().all(is_part) && !text.starts_with(|c: char| c.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn commands(text: &str) -> Vec<String> {
        let words = |command: &Command| {
            let words: Vec<&str> = command.words.iter().map(|word| word.text.as_str()).collect();
            words.join(" ")
        };
        read(text).commands.iter().map(words).collect()
    }

    #[test]
    fn commands_are_found_wherever_they_stand() {
        let table: [(&str, &[&str]); 9] = [
            ("a b; c && d || e | f", &["a b", "c", "d", "e", "f"]),
            ("if ! a 'b c'; then d \"$X/y\"; fi", &["a b c", "d $X/y"]),
            ("X=1 sudo lifeboat ls # note; rm", &["lifeboat ls"]),
            ("a \\\n  b\nc", &["a b", "c"]),
            ("n=$(wc -l < f)\necho \"$(date; id)\"", &["wc -l", "date", "id", "echo $(…)"]),
            ("cat <<'END' > out\nrm -rf $X\nEND\nls", &["cat", "ls"]),
            ("for f in $A; do rm $f; done", &["rm $f"]),
            ("a 2>&1 >/dev/null 3<x", &["a"]),
            ("(cd x && ls) & `id`", &["cd x", "ls", "id", "$(…)"]),
        ];
        for (text, expected) in table {
            assert_eq!(commands(text), expected, "{text}");
        }
    }

    #[test]
    fn variables_are_told_from_text() {
        let names = |text: &str| {
            let script = read(text);
            script
                .uses
                .into_iter()
                .map(|(name, _)| name)
                .filter(|name| !script.sets.contains(name))
                .collect::<Vec<_>>()
        };
        assert_eq!(names("echo \"$A ${B:?} ${C:-$D}\" '$E' \\$F $1 $? $$"), ["A", "B", "C", "D"]);
        assert_eq!(names("n=1; echo $n; read -r a b; echo $a $b"), Vec::<String>::new());
        assert_eq!(names("cat <<END\n$A\nEND\ncat <<'END'\n$B\nEND"), ["A"]);
    }

    #[test]
    fn lines_are_counted_and_ends_are_survived() {
        let script = read("a\n\nb \\\n c\n$(");
        assert_eq!(script.commands.iter().map(|command| command.line).collect::<Vec<_>>(), [0, 2, 4]);
        read(&"$(".repeat(200_000));
        read(&"${a:-".repeat(200_000));
        for text in ["'", "\"", "`", "${", "$((", "<<", "a <<X\nb", "\\", "$(a `b"] {
            read(text);
        }
    }
}
