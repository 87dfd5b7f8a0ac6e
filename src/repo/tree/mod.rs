//! A snapshot's tree: a content-defined B-tree (prolly tree) over path keys.
//!
//! A page ends where a keyed hash of its last *key* says so, never its content: a changed time moves no boundary,
//! and unchanged ranges share pages between snapshots. So a diff costs what changed, a path is found in a few
//! reads, and a mark visits a shared page once. (Anchors: Noms' and Dolt's prolly trees.)

pub mod diff;
pub mod read;
pub mod write;

/// The key of an absolute path: its components joined by 0x00. `/` is the empty key.
pub fn key_of_path(path: &[u8]) -> Vec<u8> {
    let mut key = Vec::with_capacity(path.len());
    for component in path.split(|byte| *byte == b'/').filter(|component| !component.is_empty()) {
        if !key.is_empty() {
            key.push(0);
        }
        key.extend_from_slice(component);
    }
    key
}

/// The absolute path of a key.
pub fn path_of_key(key: &[u8]) -> Vec<u8> {
    let mut path = vec![b'/'];
    path.extend(key.iter().map(|byte| if *byte == 0 { b'/' } else { *byte }));
    path
}

/// Whether `key` is `top` or lies below it.
pub fn is_within(key: &[u8], top: &[u8]) -> bool {
    top.is_empty() || key.strip_prefix(top).is_some_and(|rest| rest.first().is_none_or(|byte| *byte == 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_keep_subtrees_together() {
        assert_eq!(key_of_path(b"/home//x/"), b"home\0x");
        assert_eq!(path_of_key(b"home\0x"), b"/home/x");
        assert_eq!(path_of_key(b""), b"/");
        assert!(is_within(b"a\0b", b"a") && is_within(b"a", b"a") && !is_within(b"a-b", b"a"));
        let mut keys = [key_of_path(b"/a-b"), key_of_path(b"/a/z"), key_of_path(b"/a")];
        keys.sort();
        assert_eq!(keys, [b"a".to_vec(), b"a\0z".to_vec(), b"a-b".to_vec()]);
    }
}
