//! Whether values that came back otherwise are the same but for a server's rounding.
//!
//! VictoriaMetrics keeps values as decimals of twelve digits at least, which share an exponent with their neighbours, and
//! after an import a value has other neighbours. So of each series three things are kept, in memory that does not grow
//! with its points: a sum of the values, a sum of their magnitudes, and what is no number. In the sums every value has a
//! weight that its time decides, so that values that changed places are seen too. Two sums may differ by what rounding
//! every value would explain, no more: a single value that is off by less than that share of *all* values of its series
//! is not told from rounding.
//!
//! Invariant: whatever is no finite number must be the same, digit for digit.

use std::collections::HashMap;

use super::series::{Line, Lines, Malformed, short};

/// How far rounding moves a value at most, as a share of it. Seen: one in 10^12, with server 1.79.
const STEP: f64 = 4e-12;

/// One series.
#[derive(Clone, Debug, Default, PartialEq)]
struct Shape {
    points: u64,
    magnitude: f64,
    sum: f64,
    /// What rounding took from `sum` while it was added up.
    lost: f64,
    /// Times and texts of what is no finite number.
    others: u128,
}

/// See the module. Feed it an export in any pieces.
#[derive(Default)]
pub struct Values {
    lines: Lines,
    series: HashMap<u128, Shape>,
}

/// How two exports differ.
#[derive(Clone, Debug, PartialEq)]
pub enum Difference {
    /// As a server rounds.
    Rounded,
    /// Otherwise: in so many series. `worst` is the hash of the labels of one of them.
    Changed { series: u64, worst: u128 },
}

/// From a half up to one and a half, by the time.
fn weight(time: &[u8]) -> f64 {
    let hash = short(&blake3::hash(time)) as u32;
    0.5 + f64::from(hash) / f64::from(u32::MAX)
}

/// What a series is known by.
pub fn key(metric: &[u8]) -> u128 {
    short(&blake3::hash(metric))
}

impl Shape {
    fn add(&mut self, time: &[u8], text: &[u8]) {
        self.points += 1;
        let number = std::str::from_utf8(text).ok().and_then(|text| text.parse::<f64>().ok());
        let Some(number) = number.filter(|number| number.is_finite()) else {
            let mut hash = blake3::Hasher::new();
            hash.update(time).update(b"\0").update(text);
            self.others = self.others.wrapping_add(short(&hash.finalize()));
            return;
        };
        let term = number * weight(time);
        self.magnitude += term.abs();
        let next = self.sum + term;
        // What is lost of the smaller of the two.
        self.lost +=
            if self.sum.abs() >= term.abs() { (self.sum - next) + term } else { (term - next) + self.sum };
        self.sum = next;
    }

    /// By how much of what is allowed it differs: up to one it is rounding.
    fn off(&self, other: &Self) -> f64 {
        if (self.points, self.others) != (other.points, other.others) {
            return f64::INFINITY;
        }
        let magnitude = self.magnitude.max(other.magnitude);
        let difference = ((self.sum - other.sum) + (self.lost - other.lost)).abs();
        match difference == 0.0 {
            true => 0.0,
            // Sums of the largest numbers there are have no difference that could be told.
            false if !difference.is_finite() => f64::INFINITY,
            false => difference / (STEP * magnitude),
        }
    }
}

impl Values {
    /// Takes some bytes.
    ///
    /// # Errors
    /// They are no export's.
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), Malformed> {
        let Self { lines, series } = self;
        lines.push(bytes, |line| {
            let line = Line::parse(line)?;
            let shape = series.entry(key(line.metric)).or_default();
            line.points(|time, value| shape.add(time, value))
        })
    }

    /// How `got` differs.
    pub fn against(&self, got: &Self) -> Difference {
        let keys = self.series.keys().chain(got.series.keys().filter(|key| !self.series.contains_key(key)));
        let (mut changed, mut worst) = (0, (1.0, 0));
        for key in keys {
            let shape = |of: &Self| of.series.get(key).cloned().unwrap_or_default();
            let off = shape(self).off(&shape(got));
            if off > 1.0 {
                changed += 1;
                if off > worst.0 {
                    worst = (off, *key);
                }
            }
        }
        if changed == 0 {
            Difference::Rounded
        } else {
            Difference::Changed { series: changed, worst: worst.1 }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(of: &[(&str, &[(u64, &str)])]) -> Values {
        let mut values = Values::default();
        for (name, points) in of {
            let list = |texts: Vec<String>| texts.join(",");
            let line = format!(
                "{{\"metric\":{{\"__name__\":\"{name}\"}},\"values\":[{}],\"timestamps\":[{}]}}\n",
                list(points.iter().map(|(_, value)| (*value).to_owned()).collect()),
                list(points.iter().map(|(time, _)| time.to_string()).collect())
            );
            values.push(line.as_bytes()).unwrap();
        }
        values
    }

    #[test]
    fn rounding_is_told_from_change() {
        let old = values(&[("a", &[(1, "1000000000"), (2, "0.5"), (3, "null")]), ("b", &[(1, "7")])]);
        let rounded =
            values(&[("b", &[(1, "7")]), ("a", &[(3, "null"), (1, "1000000000.0001"), (2, "0.5001")])]);
        assert_eq!(old.against(&rounded), Difference::Rounded);
        assert_eq!(old.against(&old), Difference::Rounded);
        let worst = key(b"{\"__name__\":\"a\"}");
        for (one, two, three) in [
            // By more than rounding explains; changed places; a number where there was none; another kind of none.
            ("1000000000", "0.6", "null"),
            ("0.5", "1000000000", "null"),
            ("1000000000", "0.5", "0"),
            ("1000000000", "0.5", "\"Infinity\""),
        ] {
            let new = values(&[("a", &[(1, one), (2, two), (3, three)]), ("b", &[(1, "7")])]);
            assert_eq!(old.against(&new), Difference::Changed { series: 1, worst }, "{one} {two} {three}");
        }
        let renamed = values(&[("a", &[(1, "1000000000"), (2, "0.5"), (3, "null")]), ("c", &[(1, "7")])]);
        assert!(matches!(old.against(&renamed), Difference::Changed { series: 2, .. }));
    }
}
