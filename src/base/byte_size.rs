//! Sizes as people write and read them: `2GiB`, `500M`, `1.5 MiB`.
//!
//! One meaning for one spelling: a bare letter and the `iB` forms are powers of 1024, as in most backup tools;
//! `kB`, `MB`, … are powers of 1000. Printing always uses the binary units and says so.

use std::fmt;

use bytesize::ByteSize;

/// Text that is not a size.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SizeError {
    /// Neither a whole number nor a decimal fraction, or a unit nobody knows.
    #[error("{0:?} is not a size: write a number and a unit, such as 500M, 2GiB or 1.5TB")]
    Invalid(String),
    /// More than 2⁶⁴ − 1 bytes.
    #[error("{0:?} is larger than any size this program can count")]
    TooLarge(String),
}

/// Fraction digits taken into account; more would be below one byte for every size in use.
const MAX_FRACTION_DIGITS: usize = 9;

/// Reads a size in bytes. A number without a unit is bytes; a fraction is rounded down to a whole byte.
pub fn parse(text: &str) -> Result<u64, SizeError> {
    let invalid = || SizeError::Invalid(text.to_owned());
    let trimmed = text.trim();
    let split = trimmed.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(trimmed.len());
    let (number, unit) = trimmed.split_at(split);
    let factor = u128::from(factor(unit.trim_start()).ok_or_else(invalid)?);
    let (whole, fraction) = match number.split_once('.') {
        Some((whole, fraction)) if !fraction.is_empty() => (whole, fraction),
        Some(_) => return Err(invalid()),
        None => (number, ""),
    };
    if whole.is_empty() || fraction.contains('.') || fraction.len() > MAX_FRACTION_DIGITS {
        return Err(invalid());
    }
    // `whole` is only digits, so the one way to fail is to be too long to count.
    let whole: u64 = whole.parse().map_err(|_| SizeError::TooLarge(text.to_owned()))?;
    let mut bytes = u128::from(whole) * factor;
    if !fraction.is_empty() {
        let digits: u128 = fraction.parse().map_err(|_| invalid())?;
        let scale = (0..fraction.len()).fold(1u128, |scale, _| scale * 10);
        bytes += digits * factor / scale;
    }
    u64::try_from(bytes).map_err(|_| SizeError::TooLarge(text.to_owned()))
}

fn factor(unit: &str) -> Option<u64> {
    Some(match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kib" => bytesize::KIB,
        "m" | "mib" => bytesize::MIB,
        "g" | "gib" => bytesize::GIB,
        "t" | "tib" => bytesize::TIB,
        "p" | "pib" => bytesize::PIB,
        "e" | "eib" => bytesize::EIB,
        "kb" => bytesize::KB,
        "mb" => bytesize::MB,
        "gb" => bytesize::GB,
        "tb" => bytesize::TB,
        "pb" => bytesize::PB,
        "eb" => bytesize::EB,
        _ => return None,
    })
}

/// Prints a number of bytes in binary units: `1.5 GiB`.
pub fn human(size_bytes: u64) -> impl fmt::Display {
    ByteSize(size_bytes).display().iec()
}

/// A number with its thousands apart: `12 345`.
pub fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(' ');
        }
        text.push(digit);
    }
    text
}

/// `1 run`, `7 runs`, `1 repository`, `2 repositories`.
pub fn plural(number: u64, one: &str) -> String {
    let many = match one.strip_suffix('y') {
        _ if number == 1 => one.to_owned(),
        Some(stem) if !stem.ends_with(['a', 'e', 'o', 'u']) => format!("{stem}ies"),
        _ if one.ends_with(['s', 'x']) || one.ends_with("ch") => format!("{one}es"),
        _ => format!("{one}s"),
    };
    format!("{} {many}", count(number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_spelling_has_one_meaning() {
        let table = [
            ("0", 0),
            ("7", 7),
            (" 7 b ", 7),
            ("500M", 500 << 20),
            ("500 MiB", 500 << 20),
            ("500MB", 500_000_000),
            ("2GiB", 2 << 30),
            ("2gib", 2 << 30),
            ("1.5k", 1536),
            ("0.1KiB", 102),
            ("1.000000001kB", 1000),
            ("15E", 15 << 60),
            ("18446744073709551615", u64::MAX),
        ];
        for (text, bytes) in table {
            assert_eq!(parse(text), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn what_is_not_a_size_is_refused() {
        for text in
            ["", " ", "GiB", "-1", "1.", ".5", "1.2.3", "1e3", "1 X", "1GiBs", "5%", "1.0000000001k", "١"]
        {
            assert_eq!(parse(text), Err(SizeError::Invalid(text.into())), "{text}");
        }
        for text in ["16E", "18446744073709551616", "99999999999999999999999999", "18446744073709551615.9k"] {
            assert_eq!(parse(text), Err(SizeError::TooLarge(text.into())), "{text}");
        }
    }

    #[test]
    fn people_read_binary_units() {
        for (bytes, text) in
            [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (32 << 20, "32.0 MiB"), (3 << 40, "3.0 TiB")]
        {
            assert_eq!(human(bytes).to_string(), text);
        }
    }

    #[test]
    fn one_is_not_many() {
        let said = [(1, "repository"), (2, "repository"), (0, "run"), (1234, "key"), (2, "match")];
        let said = said.map(|(number, one)| plural(number, one));
        assert_eq!(said, ["1 repository", "2 repositories", "0 runs", "1 234 keys", "2 matches"]);
    }
}
