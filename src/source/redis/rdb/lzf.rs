//! LZF, as RDB compresses strings: read only, into a buffer of the size that was announced.

/// The longest string that is unpacked: a key, or a name; Redis itself takes no longer ones by default.
const LONGEST_BYTES: u64 = 512 << 20;

/// `packed` unpacked; `None` when it is not `length` bytes of LZF.
pub fn unpack(packed: &[u8], length: u64) -> Option<Vec<u8>> {
    // LZF shrinks 264 bytes to three at best, so more than that is a lie about the length.
    if length > LONGEST_BYTES || length > packed.len() as u64 * 88 + 32 {
        return None;
    }
    let length = usize::try_from(length).ok()?;
    let mut out: Vec<u8> = Vec::with_capacity(length);
    let mut rest = packed;
    while let Some((&control, tail)) = rest.split_first() {
        rest = tail;
        if control < 32 {
            let literal = usize::from(control) + 1;
            let (bytes, tail) = rest.split_at_checked(literal)?;
            out.extend_from_slice(bytes);
            rest = tail;
        } else {
            let mut count = usize::from(control >> 5);
            if count == 7 {
                let (&more, tail) = rest.split_first()?;
                count += usize::from(more);
                rest = tail;
            }
            let (&low, tail) = rest.split_first()?;
            rest = tail;
            let back = (usize::from(control & 31) << 8 | usize::from(low)) + 1;
            let from = out.len().checked_sub(back)?;
            for place in from..from + count + 2 {
                out.push(*out.get(place)?);
            }
        }
        if out.len() > length {
            return None;
        }
    }
    (out.len() == length).then_some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literals_and_repeats_unpack_and_lies_do_not() {
        // Two literals, then "ab" over and over: nine bytes from two back.
        let packed = [1, b'a', b'b', 0xe0, 0, 1];
        assert_eq!(unpack(&packed, 11).as_deref(), Some(b"abababababa".as_slice()));
        assert_eq!(unpack(&packed, 10), None);
        assert_eq!(unpack(&packed, u64::MAX), None);
        assert_eq!(unpack(&packed[..5], 11), None);
        assert_eq!(unpack(&[0x20, 9], 3), None, "from before the beginning");
        assert_eq!(unpack(&[], 0).as_deref(), Some([].as_slice()));
    }
}
