//! A kit as the texts of QR codes: characters that the codes' dense alphanumeric mode holds, cut into parts that say
//! which they are of how many.
//!
//! ```text
//! LIFEBOAT-KIT:2:1/3:5D0E1F…:MFRGG…
//! ```
//!
//! Version, part of parts, the first eight bytes of the whole's BLAKE3 in hex, and a part of its base32 (RFC 4648,
//! without padding). The whole is the kit's text, compressed with zstd.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read as _;

use super::{Kit, KitError, LIMIT_BYTES, short_hash};

const MARK: &str = "LIFEBOAT-KIT:";
const VERSION: &str = "2";
const ALPHABET: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
/// Most parts a kit is read from.
const PARTS_LIMIT: usize = 64;
/// Room for everything in a code but its part of the whole.
const HEAD_CHARS: usize = 48;

/// The texts of the codes, each at most so many characters.
pub fn codes(kit: &Kit, most_chars: usize) -> Vec<String> {
    let text = kit.terse();
    let packed =
        zstd::bulk::compress(text.as_bytes(), 19).expect("a text in memory is compressed into memory");
    let whole = short_hash(&packed).to_ascii_uppercase();
    let letters = base32(&packed);
    // Evenly: codes of one size are read from one distance.
    let count = letters.len().div_ceil(most_chars.saturating_sub(HEAD_CHARS).max(64)).max(1);
    let parts: Vec<&[u8]> = letters.as_bytes().chunks(letters.len().div_ceil(count).max(1)).collect();
    let code = |(at, part): (usize, &&[u8])| {
        let part: String = part.iter().map(|letter| char::from(*letter)).collect();
        format!("{MARK}{VERSION}:{}/{}:{whole}:{part}", at + 1, parts.len())
    };
    parts.iter().enumerate().map(code).collect()
}

/// The kit's text, if there are codes in `text`: every code of one kit, in any order, whatever stands around them.
pub(super) fn gather(text: &str) -> Result<Option<String>, KitError> {
    // (hash, parts) → part → letters
    let mut found: BTreeMap<(&str, usize), BTreeMap<usize, &str>> = BTreeMap::new();
    for rest in text.split(MARK).skip(1) {
        let end = rest.find(|c: char| c.is_whitespace() || matches!(c, '<' | '"' | ',' | ';'));
        let Some((key, part, letters)) = code(&rest[..end.unwrap_or(rest.len())])? else { continue };
        found.entry(key).or_default().insert(part, letters);
    }
    let Some(((whole, of), parts)) =
        found.into_iter().max_by_key(|((_, of), parts)| (parts.len() == *of, parts.len()))
    else {
        return Ok(None);
    };
    let missing: BTreeSet<usize> = (1..=of).filter(|part| !parts.contains_key(part)).collect();
    if !missing.is_empty() {
        let missing = missing.iter().map(usize::to_string).collect::<Vec<_>>().join(", ");
        return Err(KitError::Codes { missing, of });
    }
    let scan = |why: &str| KitError::Scan(why.into());
    let letters: String = parts.into_values().collect();
    let packed = unbase32(&letters).ok_or_else(|| scan("a character is wrong"))?;
    if !short_hash(&packed).eq_ignore_ascii_case(whole) {
        return Err(scan("they do not match their checksum"));
    }
    let mut text = String::new();
    let decoder = zstd::Decoder::new(packed.as_slice()).map_err(|error| scan(&error.to_string()))?;
    decoder.take(LIMIT_BYTES).read_to_string(&mut text).map_err(|error| scan(&error.to_string()))?;
    Ok(Some(text))
}

type Code<'t> = ((&'t str, usize), usize, &'t str);

/// `None`: of no kit at all, such as the name in a sentence.
fn code(text: &str) -> Result<Option<Code<'_>>, KitError> {
    let mut fields = text.splitn(4, ':');
    let (Some(version), Some(place), Some(whole), Some(letters)) =
        (fields.next(), fields.next(), fields.next(), fields.next())
    else {
        return Ok(None);
    };
    if version != VERSION {
        return match version.parse() {
            Ok(version) if version > 2 => Err(KitError::Newer(version)),
            _ => Ok(None),
        };
    }
    let number = |text: &str| text.parse::<usize>().ok().filter(|number| (1..=PARTS_LIMIT).contains(number));
    let place = place.split_once('/').and_then(|(part, of)| Some((number(part)?, number(of)?)));
    let place = place.filter(|(part, of)| part <= of);
    let (part, of) = place.ok_or_else(|| KitError::Scan("a code does not say which it is".into()))?;
    Ok(Some(((whole, of), part, letters)))
}

fn base32(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 8 / 5 + 1);
    let (mut held, mut bits) = (0u32, 0);
    for byte in bytes {
        held = held << 8 | u32::from(*byte);
        bits += 8;
        while bits >= 5 {
            bits -= 5;
            text.push(char::from(ALPHABET[(held >> bits & 31) as usize]));
        }
    }
    if bits > 0 {
        text.push(char::from(ALPHABET[(held << (5 - bits) & 31) as usize]));
    }
    text
}

fn unbase32(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len() * 5 / 8);
    let (mut held, mut bits) = (0u32, 0);
    for letter in text.bytes() {
        let value = ALPHABET.iter().position(|known| *known == letter.to_ascii_uppercase())?;
        held = held << 5 | value as u32;
        bits += 5;
        if bits >= 8 {
            bits -= 8;
            bytes.push((held >> bits) as u8);
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base32_is_that_of_the_rfc() {
        for (bytes, text) in
            [("", ""), ("f", "MY"), ("fo", "MZXQ"), ("foob", "MZXW6YQ"), ("foobar", "MZXW6YTBOI")]
        {
            assert_eq!((base32(bytes.as_bytes()).as_str(), unbase32(text)), (text, Some(bytes.into())));
        }
        assert_eq!(unbase32("M1"), None);
    }
}
