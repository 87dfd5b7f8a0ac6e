//! The caller's roots as one tree of names, so that overlapping and repeated roots merge and every root hangs
//! from `/`.

use std::collections::BTreeMap;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;
use std::sync::Arc;

use super::{key_of_path, path_of_key, push_component};

/// A name on the way to a root, or a root.
#[derive(Clone, Debug, Default)]
pub(super) struct Node {
    /// The caller named it: everything below belongs to the walk.
    pub root: bool,
    /// It was named with a slash at its end: when it is a link, the directory behind it is meant.
    pub through_link: bool,
    pub children: BTreeMap<Vec<u8>, Arc<Node>>,
}

impl Node {
    /// All roots, made absolute against `cwd`.
    pub fn tree<P: AsRef<Path>>(roots: &[P], cwd: &Path) -> Arc<Self> {
        let mut top = Self::default();
        for root in roots {
            let root = root.as_ref();
            let bytes = root.as_os_str().as_bytes();
            let mut node = &mut top;
            for name in key_of_path(root, cwd).split(|&byte| byte == 0).filter(|name| !name.is_empty()) {
                // Nobody else holds these Arcs yet, so nothing is copied.
                node = Arc::make_mut(node.children.entry(name.to_vec()).or_default());
            }
            node.root = true;
            node.through_link |= bytes.ends_with(b"/") || bytes.ends_with(b"/.") || bytes == b".";
        }
        Arc::new(top)
    }

    /// Whether a link of this name stands for the directory behind it: a root is below, or it was asked for.
    pub fn goes_through_links(&self) -> bool {
        self.through_link || !self.children.is_empty()
    }

    /// The keys of the roots below this node, whose own key is `key`.
    pub fn roots_below(&self, key: &[u8]) -> Vec<Vec<u8>> {
        let mut found = Vec::new();
        for (name, child) in &self.children {
            let mut key = key.to_vec();
            push_component(&mut key, name);
            let below = child.roots_below(&key);
            if child.root {
                found.push(key);
            }
            found.extend(below);
        }
        found
    }

    /// The keys that are links and must be gone through, with the real path (no leading slash) of each.
    pub fn followed_links(&self) -> Vec<(Vec<u8>, Vec<u8>)> {
        let mut found = Vec::new();
        self.collect_links(&mut Vec::new(), &mut found);
        found
    }

    fn collect_links(&self, key: &mut Vec<u8>, found: &mut Vec<(Vec<u8>, Vec<u8>)>) {
        for (name, child) in &self.children {
            if !child.goes_through_links() {
                continue;
            }
            let length = key.len();
            push_component(key, name);
            let path = path_of_key(key);
            // What cannot be resolved now is reported by the walk when it gets there.
            if path.is_symlink()
                && let Ok(real) = path.canonicalize()
            {
                found.push((key.clone(), real.into_os_string().into_vec()[1..].to_vec()));
            }
            child.collect_links(key, found);
            key.truncate(length);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roots_merge_into_one_tree() {
        let top = Node::tree(&["/a/b/", "c", "/a/b", "/a"], Path::new("/a/x"));
        assert!(!top.root);
        let a = &top.children[&b"a"[..]];
        assert!(a.root && !a.through_link && a.goes_through_links());
        assert!(a.children[&b"b"[..]].through_link);
        assert!(a.children[&b"x"[..]].children[&b"c"[..]].root);
        assert!(Node::tree(&["/"], Path::new("/")).root);
    }
}
