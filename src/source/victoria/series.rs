//! Exported series, followed while they pass: one JSON object a line, `{"metric":{…},"values":[…],"timestamps":[…]}`.
//!
//! Points are summed modulo 2^128 by the first 16 bytes of their BLAKE3, so that neither lines nor points have an
//! order: once over series and time, once with the value. The server keeps values as decimals that share an
//! exponent with their neighbours, so a value may come back otherwise in its last digits (`super::rounding`); a
//! point may not.

use std::collections::HashSet;

use memchr::memmem;
use serde::{Deserialize, Serialize};

/// Most bytes of one line.
const LINE_LIMIT: usize = 256 << 20;

/// Text that is no export.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the export is not as expected near {0:?}")]
pub struct Malformed(String);

/// Everything in an export.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sum {
    pub series: u64,
    pub points: u64,
    /// Of series and times, 32 hexadecimal digits.
    pub times: String,
    /// With the values, 32 hexadecimal digits.
    pub values: String,
}

/// See the module. Feed it an export in any pieces.
#[derive(Default)]
pub struct Series {
    lines: Lines,
    known: HashSet<u128>,
    points: u64,
    times: u128,
    values: u128,
}

/// Whole lines out of pieces.
#[derive(Default)]
pub struct Lines(Vec<u8>);

impl Lines {
    /// Takes some bytes, and hands over every line that is whole.
    ///
    /// # Errors
    /// A line is too long; the caller's own.
    pub fn push(
        &mut self,
        mut bytes: &[u8],
        mut take: impl FnMut(&[u8]) -> Result<(), Malformed>,
    ) -> Result<(), Malformed> {
        while let Some(end) = memchr::memchr(b'\n', bytes) {
            self.0.extend_from_slice(&bytes[..end]);
            bytes = &bytes[end + 1..];
            let line = std::mem::take(&mut self.0);
            if !line.is_empty() {
                take(&line)?;
            }
        }
        self.0.extend_from_slice(bytes);
        if self.0.len() > LINE_LIMIT { Err(malformed(&self.0)) } else { Ok(()) }
    }

    /// # Errors
    /// The last line has no end.
    pub fn finish(self) -> Result<(), Malformed> {
        if self.0.is_empty() { Ok(()) } else { Err(malformed(&self.0)) }
    }
}

/// One line, taken apart.
pub struct Line<'a> {
    whole: &'a [u8],
    /// The labels as JSON.
    pub metric: &'a [u8],
    values: &'a [u8],
    times: &'a [u8],
}

impl<'a> Line<'a> {
    /// # Errors
    /// It is no export's.
    pub fn parse(whole: &'a [u8]) -> Result<Self, Malformed> {
        let bad = || malformed(whole);
        // Within the labels a quote would stand behind a backslash.
        let (end, values) = list(whole, b",\"values\":[").ok_or_else(bad)?;
        let (_, times) = list(whole, b",\"timestamps\":[").ok_or_else(bad)?;
        let metric = whole[..end].strip_prefix(b"{\"metric\":").ok_or_else(bad)?;
        Ok(Self { whole, metric, values, times })
    }

    /// Hands over each point: its time and its value, as they are written.
    ///
    /// # Errors
    /// There are not as many of the one as of the other.
    pub fn points(&self, mut point: impl FnMut(&[u8], &[u8])) -> Result<(), Malformed> {
        let split = |text: &'a [u8]| text.split(|byte| *byte == b',');
        let (mut values, mut times) = (split(self.values), split(self.times));
        loop {
            match (values.next(), times.next()) {
                (Some(value), Some(time)) if !time.is_empty() => point(time, value),
                (None, None) => return Ok(()),
                _ => return Err(malformed(self.whole)),
            }
        }
    }
}

/// The first half of a hash.
pub fn short(hash: &blake3::Hash) -> u128 {
    let mut first = [0; 16];
    first.copy_from_slice(&hash.as_bytes()[..16]);
    u128::from_le_bytes(first)
}

fn malformed(line: &[u8]) -> Malformed {
    Malformed(String::from_utf8_lossy(&line[..line.len().min(80)]).into_owned())
}

/// The text between `from` and the next `]`.
fn list<'a>(line: &'a [u8], from: &[u8]) -> Option<(usize, &'a [u8])> {
    let at = memmem::rfind(line, from)?;
    let rest = &line[at + from.len()..];
    Some((at, &rest[..memchr::memchr(b']', rest)?]))
}

impl Series {
    /// Takes some bytes.
    ///
    /// # Errors
    /// They are no export's.
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), Malformed> {
        let Self { lines, known, points, times, values } = self;
        lines.push(bytes, |line| {
            let line = Line::parse(line)?;
            let mut labels = blake3::Hasher::new();
            labels.update(line.metric);
            known.insert(short(&labels.finalize()));
            line.points(|time, value| {
                let mut point = labels.clone();
                point.update(b"\0").update(time);
                *times = times.wrapping_add(short(&point.finalize()));
                point.update(b"\0").update(value);
                *values = values.wrapping_add(short(&point.finalize()));
                *points += 1;
            })
        })
    }

    /// Everything came.
    ///
    /// # Errors
    /// The last line has no end.
    pub fn finish(self) -> Result<Sum, Malformed> {
        self.lines.finish()?;
        Ok(Sum {
            series: self.known.len() as u64,
            points: self.points,
            times: format!("{:032x}", self.times),
            values: format!("{:032x}", self.values),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sum(pieces: &[&[u8]]) -> Result<Sum, Malformed> {
        let mut series = Series::default();
        for piece in pieces {
            series.push(piece)?;
        }
        series.finish()
    }

    const A: &str =
        r#"{"metric":{"__name__":"a","l":",\"values\":["},"values":[1,2.5,null],"timestamps":[10,20,30]}"#;
    const B: &str = r#"{"metric":{"__name__":"b"},"values":["Infinity"],"timestamps":[10]}"#;

    #[test]
    fn points_are_the_same_in_any_order_and_pieces() {
        let text = format!("{A}\n{B}\n");
        let whole = sum(&[text.as_bytes()]).unwrap();
        assert_eq!((whole.series, whole.points), (2, 4));
        for cut in 0..text.len() {
            assert_eq!(sum(&[&text.as_bytes()[..cut], &text.as_bytes()[cut..]]).unwrap(), whole);
        }
        let split = A.replace("1,2.5,null", "1").replace("10,20,30", "10");
        let rest = A.replace("1,2.5,null", "null,2.5").replace("10,20,30", "30,20");
        assert_eq!(sum(&[format!("{B}\n{rest}\n{split}\n").as_bytes()]).unwrap(), whole);
        let other = sum(&[text.replace("2.5", "2.6").as_bytes()]).unwrap();
        assert_eq!(other.times, whole.times);
        assert_ne!(other.values, whole.values);
    }

    #[test]
    fn what_is_cut_or_no_export_is_an_error() {
        for text in [A, "<html>\n", "{\"metric\":{},\"values\":[1,2],\"timestamps\":[1]}\n", "{}\n"] {
            assert!(sum(&[text.as_bytes()]).is_err(), "{text}");
        }
        assert_eq!(sum(&[b""]).unwrap().points, 0);
    }
}
