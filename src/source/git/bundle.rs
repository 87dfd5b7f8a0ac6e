//! The head of a bundle: which refs it brings, in which object format, and how many objects follow.
//!
//! Pure. The format is that of git's own documentation, gitformat-bundle: version 2 and 3, without prerequisites,
//! for a backup stands alone.

/// Most bytes before the pack.
const HEAD_LIMIT_BYTES: usize = 512 << 20;
const PACK_HEAD_BYTES: usize = 12;

/// What a bundle says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Head {
    pub is_sha256: bool,
    /// Object id and name, in the bundle's order; names are bytes.
    pub refs: Vec<(String, Vec<u8>)>,
    pub objects: u32,
}

/// Finds the head in a bundle that comes in pieces.
#[derive(Default)]
pub struct HeadReader {
    bytes: Vec<u8>,
    /// Where the pack begins.
    pack_at: Option<usize>,
    searched: usize,
    head: Option<Head>,
}

impl HeadReader {
    /// Takes the next bytes. Returns those of the pack that came with the head, once.
    ///
    /// # Errors
    /// It is no bundle that stands alone.
    pub fn push(&mut self, bytes: &[u8]) -> Result<Option<Vec<u8>>, String> {
        self.bytes.extend_from_slice(bytes);
        if self.bytes.len() > HEAD_LIMIT_BYTES {
            return Err("its list of refs has no end".into());
        }
        if self.pack_at.is_none() {
            let from = self.searched.saturating_sub(1);
            self.pack_at = memchr::memmem::find(&self.bytes[from..], b"\n\n").map(|at| from + at + 2);
            self.searched = self.bytes.len();
        }
        let Some(at) = self.pack_at.filter(|at| self.bytes.len() >= at + PACK_HEAD_BYTES) else {
            return Ok(None);
        };
        let mut head = parse(&self.bytes[..at - 1])?;
        let pack = self.bytes.split_off(at);
        if &pack[..4] != b"PACK" {
            return Err("no pack follows its refs".into());
        }
        head.objects = u32::from_be_bytes([pack[8], pack[9], pack[10], pack[11]]);
        self.bytes = Vec::new();
        self.head = Some(head);
        Ok(Some(pack))
    }

    /// The head; `None` while it has not all come.
    pub fn head(&self) -> Option<&Head> {
        self.head.as_ref()
    }
}

fn parse(text: &[u8]) -> Result<Head, String> {
    let mut head = Head::default();
    let mut lines = text.split(|byte| *byte == b'\n');
    let version = lines.next().unwrap_or_default();
    if version != b"# v2 git bundle" && version != b"# v3 git bundle" {
        return Err("it is no git bundle".into());
    }
    for line in lines.filter(|line| !line.is_empty()) {
        match line {
            b"@object-format=sha256" => head.is_sha256 = true,
            b"@object-format=sha1" => {}
            [b'@', ..] => return Err(format!("it wants {}", String::from_utf8_lossy(line))),
            [b'-', ..] => return Err("it builds on another repository".into()),
            _ => {
                let space = memchr::memchr(b' ', line).ok_or("a ref without a name")?;
                let (id, name) = (&line[..space], &line[space + 1..]);
                let length = if head.is_sha256 { 64 } else { 40 };
                if id.len() != length || !id.iter().all(u8::is_ascii_hexdigit) || name.is_empty() {
                    return Err("a ref without an object".into());
                }
                head.refs.push((String::from_utf8_lossy(id).into_owned(), name.to_vec()));
            }
        }
    }
    Ok(head)
}

/// A hash over refs that is the same in any order; `HEAD` is not one of them.
pub fn refs_hash<'r>(refs: impl IntoIterator<Item = (&'r str, &'r [u8])>) -> String {
    let mut lines: Vec<(&[u8], &str)> =
        refs.into_iter().filter(|(_, name)| *name != b"HEAD").map(|(id, name)| (name, id)).collect();
    lines.sort_unstable();
    let mut hasher = blake3::Hasher::new();
    for (name, id) in lines {
        hasher.update(id.as_bytes()).update(b" ").update(name).update(b"\n");
    }
    hasher.finalize().to_hex().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8], piece: usize) -> Result<Option<(Head, Vec<u8>)>, String> {
        let (mut reader, mut pack) = (HeadReader::default(), Vec::new());
        for some in bytes.chunks(piece) {
            match reader.head() {
                Some(_) => pack.extend_from_slice(some),
                None => pack.extend(reader.push(some)?.unwrap_or_default()),
            }
        }
        Ok(reader.head().cloned().map(|head| (head, pack)))
    }

    #[test]
    fn a_head_is_read_in_any_pieces_and_the_pack_is_left_whole() {
        let id = "0123456789abcdef0123456789abcdef01234567";
        let text =
            format!("# v2 git bundle\n{id} refs/heads/main\n{id} HEAD\n\nPACK\0\0\0\x02\0\0\x01\x02rest\n\n");
        for piece in 1..text.len() {
            let (head, pack) = read(text.as_bytes(), piece).unwrap().unwrap();
            assert_eq!((head.refs.len(), head.objects, head.is_sha256), (2, 258, false), "{piece}");
            assert_eq!(pack, b"PACK\0\0\0\x02\0\0\x01\x02rest\n\n");
        }
    }

    #[test]
    fn what_does_not_stand_alone_is_refused() {
        let id = "0123456789abcdef0123456789abcdef01234567";
        let why = |text: &str| read(format!("{text}\n\nPACK00000000").as_bytes(), 7).unwrap_err();
        assert!(why(&format!("# v2 git bundle\n-{id} before")).contains("another repository"));
        assert!(why("# v4 git bundle").contains("no git bundle"));
        assert!(why("# v3 git bundle\n@filter=blob:none").contains("@filter"));
        assert!(why("# v2 git bundle\nabc refs/x").contains("without an object"));
        assert!(why("# v2 git bundle\nabc").contains("without a name"));
        assert!(read(b"# v2 git bundle\n\nKCAP00000000", 5).is_err());
        assert_eq!(read(b"# v2 git bun", 5).unwrap(), None);
    }

    #[test]
    fn the_hash_of_refs_knows_no_order_and_no_head() {
        let refs = [("a", b"refs/x".as_slice()), ("b", b"refs/y")];
        assert_eq!(refs_hash(refs), refs_hash([refs[1], ("c", b"HEAD"), refs[0]]));
        assert_ne!(refs_hash(refs), refs_hash([("b", b"refs/x".as_slice()), ("a", b"refs/y")]));
    }
}
