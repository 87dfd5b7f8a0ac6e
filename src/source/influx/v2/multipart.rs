//! A `multipart/mixed` answer taken apart as it comes ([RFC 2046], section 5.1).
//!
//! A server that fails in the middle has said 200 long before: only the closing delimiter tells a whole answer from
//! half of one. Lengths are bounded before anything is kept.
//!
//! [RFC 2046]: https://www.rfc-editor.org/rfc/rfc2046#section-5.1

use memchr::memmem::find;

use super::{Influx2Error, said_in};
use crate::source::capture::SourceError;

/// Longest boundary the standard allows.
const BOUNDARY_LIMIT: usize = 70;
/// Most bytes of the headers of one part.
const HEAD_LIMIT: usize = 16 << 10;
const READ_BYTES: usize = 64 << 10;
/// Bytes of an answer that broke off that are looked through for the server's reason.
const TAIL_BYTES: usize = 1024;

/// The parts of an answer, one after the other. `read` gives the answer's bytes; 0 at its end.
pub struct Parts<R> {
    read: R,
    /// What ends a part: a line's end, two dashes and the boundary.
    delimiter: Vec<u8>,
    /// Bytes that came and were not handed over.
    held: Vec<u8>,
    /// How much of `held` is handed over already.
    taken: usize,
    /// What messages call the part under way; `None` between parts.
    within: Option<String>,
    has_ended: bool,
}

fn broken(why: impl std::fmt::Display) -> SourceError {
    Influx2Error::Said(format!("cannot read the metadata: {why}")).into()
}

/// A parameter of a header: `name="value"` or `name=value`.
fn parameter(header: &str, name: &str) -> Option<String> {
    header.split(';').skip(1).find_map(|pair| {
        let (key, value) = pair.split_once('=')?;
        let value = value.trim();
        let bare = value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap_or(value);
        key.trim().eq_ignore_ascii_case(name).then(|| bare.to_owned())
    })
}

impl<R: FnMut(&mut [u8]) -> Result<usize, SourceError>> Parts<R> {
    /// `content_type`: the answer's.
    ///
    /// # Errors
    /// It is no multipart answer, or has no boundary that one may have.
    pub fn new(content_type: &str, read: R) -> Result<Self, SourceError> {
        let is_multipart =
            content_type.trim().get(..10).is_some_and(|kind| kind.eq_ignore_ascii_case("multipart/"));
        let boundary = parameter(content_type, "boundary").filter(|boundary| {
            is_multipart
                && (1..=BOUNDARY_LIMIT).contains(&boundary.len())
                && boundary.bytes().all(|byte| (b' '..=b'~').contains(&byte))
        });
        let Some(boundary) = boundary else {
            let shown: String = content_type.chars().take(100).collect();
            return Err(broken(format_args!("the answer is {shown:?}, and a multipart one was due")));
        };
        // The first delimiter has no line before it that would have to end.
        Ok(Self {
            read,
            delimiter: format!("\r\n--{boundary}").into_bytes(),
            held: b"\r\n".to_vec(),
            taken: 0,
            within: None,
            has_ended: false,
        })
    }

    /// Reads on; false at the answer's end.
    fn more(&mut self) -> Result<bool, SourceError> {
        // What was handed over last may hold the reason why nothing more comes.
        self.held.drain(..self.taken.saturating_sub(TAIL_BYTES));
        self.taken = self.taken.min(TAIL_BYTES);
        let before = self.held.len();
        self.held.resize(before + READ_BYTES, 0);
        let length = (self.read)(&mut self.held[before..])?;
        self.held.truncate(before + length);
        Ok(length > 0)
    }

    /// The answer ended where it must not.
    fn cut(&self) -> SourceError {
        let place = match &self.within {
            Some(name) => format!("in part {name:?}"),
            None => "between parts".into(),
        };
        let tail = &self.held[self.held.len().saturating_sub(TAIL_BYTES)..];
        match said_in(tail) {
            Some(said) => broken(format_args!("it breaks off {place}, where the server says: {said}")),
            None => broken(format_args!("it breaks off {place}")),
        }
    }

    /// Begins the next part, and returns its name; `None` after the closing delimiter. The rest of the part before is
    /// passed over.
    ///
    /// # Errors
    /// The answer breaks off, or is not what the standard describes.
    pub fn next(&mut self) -> Result<Option<String>, SourceError> {
        if self.has_ended {
            return Ok(None);
        }
        let mut nothing = [0; 8 << 10];
        let is_first = self.within.is_none();
        while self.read(&mut nothing)? > 0 {
            if is_first {
                return Err(broken("it does not begin with a part"));
            }
        }
        self.within = None;
        self.taken += self.delimiter.len();
        let head = loop {
            let rest = &self.held[self.taken..];
            if rest.starts_with(b"--") {
                return self.end();
            }
            // A part without any header has its empty line at once.
            if let Some(at) = find(rest, b"\r\n\r\n") {
                break at;
            }
            if rest.len() > HEAD_LIMIT {
                return Err(broken("the headers of a part are too long"));
            }
            if !self.more()? {
                return Err(self.cut());
            }
        };
        let text = String::from_utf8_lossy(&self.held[self.taken..self.taken + head]).into_owned();
        self.taken += head + 4;
        let disposition = text.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.trim().eq_ignore_ascii_case("content-disposition").then_some(value)
        });
        let name = disposition.and_then(|value| parameter(value, "name"));
        let name = name.ok_or_else(|| broken("a part has no name"))?;
        self.within = Some(name.clone());
        Ok(Some(name))
    }

    /// What follows the closing delimiter means nothing, but has to end as an answer ends.
    fn end(&mut self) -> Result<Option<String>, SourceError> {
        self.has_ended = true;
        let (mut rest, mut passed) = ([0; 1024], 0);
        loop {
            match (self.read)(&mut rest)? {
                0 => return Ok(None),
                length => passed += length,
            }
            if passed > HEAD_LIMIT {
                return Err(broken("it goes on behind its end"));
            }
        }
    }

    /// Reads some of the part; 0 at its end.
    ///
    /// # Errors
    /// The answer breaks off before the part ends.
    pub fn read(&mut self, buffer: &mut [u8]) -> Result<usize, SourceError> {
        loop {
            let rest = &self.held[self.taken..];
            let ready = match find(rest, &self.delimiter) {
                Some(0) => return Ok(0),
                Some(at) => at,
                // What may be the beginning of a delimiter is kept.
                None => (rest.len() + 1).saturating_sub(self.delimiter.len()),
            };
            if ready > 0 {
                let length = ready.min(buffer.len());
                buffer[..length].copy_from_slice(&rest[..length]);
                self.taken += length;
                return Ok(length);
            }
            if !self.more()? {
                return Err(self.cut());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every part with its content, when the answer comes in pieces of so many bytes.
    fn taken_apart(
        content_type: &str,
        answer: &[u8],
        piece: usize,
    ) -> Result<Vec<(String, Vec<u8>)>, String> {
        let mut rest = answer;
        let read = |buffer: &mut [u8]| {
            let length = rest.len().min(piece).min(buffer.len());
            buffer[..length].copy_from_slice(&rest[..length]);
            rest = &rest[length..];
            Ok(length)
        };
        let text = |error: SourceError| error.to_string();
        let (mut parts, mut found) = (Parts::new(content_type, read).map_err(text)?, Vec::new());
        while let Some(name) = parts.next().map_err(text)? {
            let (mut content, mut buffer) = (Vec::new(), [0; 7]);
            loop {
                match parts.read(&mut buffer).map_err(text)? {
                    0 => break,
                    length => content.extend_from_slice(&buffer[..length]),
                }
            }
            found.push((name, content));
        }
        Ok(found)
    }

    const TYPE: &str = "multipart/mixed; boundary=b0";
    const WHOLE: &[u8] =
        b"--b0\r\nContent-Disposition: attachment; name=\"kv\"\r\n\r\none\r\n--b\r\n-- b0\r\n--b0\r\n\
        content-disposition: attachment; name=sql\r\nX: y\r\n\r\n\r\n--b0--\r\n";

    #[test]
    fn parts_are_the_same_in_pieces_of_any_size() {
        for piece in 1..WHOLE.len() + 1 {
            let found = taken_apart(TYPE, WHOLE, piece).unwrap();
            assert_eq!(found, [("kv".into(), b"one\r\n--b\r\n-- b0".to_vec()), ("sql".into(), Vec::new())]);
        }
    }

    #[test]
    fn an_answer_that_is_cut_anywhere_is_never_whole() {
        let closing = WHOLE.len() - 2;
        for length in 0..closing {
            assert!(taken_apart(TYPE, &WHOLE[..length], 11).is_err(), "{length}");
        }
        assert!(taken_apart(TYPE, &WHOLE[..closing], 11).is_ok());
    }

    #[test]
    fn what_a_server_says_in_the_middle_is_told() {
        let answer =
            [&WHOLE[..60], b"{\"code\":\"internal error\",\"message\":\"disk \\\"a\\\" is gone\"}"].concat();
        let said = taken_apart(TYPE, &answer, 5).unwrap_err();
        assert!(said.contains("in part \"kv\", where the server says: disk \"a\" is gone"), "{said}");
    }

    #[test]
    fn hostile_answers_are_refused() {
        for content_type in ["text/html", "multipart/mixed", "multipart/mixed; boundary=", ""] {
            assert!(taken_apart(content_type, WHOLE, 9).unwrap_err().contains("a multipart one was due"));
        }
        let long = format!("multipart/mixed; boundary={}", "x".repeat(71));
        assert!(taken_apart(&long, WHOLE, 9).is_err());
        let endless = [b"--b0\r\n".to_vec(), vec![b'x'; 1 << 20]].concat();
        assert!(taken_apart(TYPE, &endless, 999).unwrap_err().contains("too long"));
        assert!(taken_apart(TYPE, b"hello\r\n--b0--", 9).unwrap_err().contains("does not begin"));
        assert!(taken_apart(TYPE, b"--b0\r\nX: y\r\n\r\nz\r\n--b0--", 9).unwrap_err().contains("no name"));
    }
}
