//! Writes a snapshot's tree from entries in ascending key order.
//!
//! Whoever stores a finished page decodes it first ([`check_tree_page`]): bad memory or a bug must not become a bad
//! backup. A page that is stored already is not looked at again.

use super::super::RepoError;
use super::super::recipe::PageSink;
use crate::format::FormatError;
use crate::format::codec::Encoder;
use crate::format::entry::{ChunkRef, Entry};
use crate::format::page::{Child, PAGE_MAX_BYTES, PAGE_MIN_BYTES, TreePage, TreeRoot, put_key};
use crate::seal::access::Domain;

/// Whether a page that was just encoded is one that readers accept.
pub fn check_tree_page(page: &[u8]) -> Result<(), RepoError> {
    TreePage::decode(page).map(drop).map_err(|error| RepoError::object("new tree page")(error.into()))
}

/// One in this many keys ends a page that is long enough: pages average about 16 KiB plus 256 entries.
const BOUNDARY_ODDS: u8 = 0;

#[derive(Default)]
struct Level {
    body: Encoder,
    items: u64,
    last_key: Vec<u8>,
    count: u64,
    bytes: u64,
    pages: u64,
}

/// See the module. Errors name nothing: the caller's sink does.
pub struct TreeWriter<'d> {
    domain: &'d Domain,
    boundary: blake3::Hasher,
    levels: Vec<Level>,
    scratch: Encoder,
    any: bool,
}

impl<'d> TreeWriter<'d> {
    pub fn new(domain: &'d Domain) -> Result<Self, RepoError> {
        let boundary = blake3::Hasher::new_keyed(domain.boundary_key()?);
        let levels = vec![Level::default()];
        Ok(Self { domain, boundary, levels, scratch: Encoder::new(), any: false })
    }

    fn ends_page(&mut self, level: usize, key: &[u8]) -> bool {
        self.boundary.reset();
        self.boundary.update(&[level as u8]);
        self.boundary.update(key);
        self.boundary.finalize().as_bytes()[0] == BOUNDARY_ODDS
    }

    /// Adds an entry; `key` must be above the last.
    pub fn add(&mut self, key: &[u8], entry: &Entry, sink: &mut PageSink<'_>) -> Result<(), RepoError> {
        let mut encoded = std::mem::take(&mut self.scratch);
        encoded.clear();
        entry.encode(&mut encoded);
        let bytes = entry.content().map_or(0, |content| content.size_bytes);
        let result = self.add_encoded(key, encoded.as_slice(), bytes, sink);
        self.scratch = encoded;
        result
    }

    /// Adds an entry in its canonical encoding; `content_bytes` is the length of its content.
    pub fn add_encoded(
        &mut self,
        key: &[u8],
        entry: &[u8],
        content_bytes: u64,
        sink: &mut PageSink<'_>,
    ) -> Result<(), RepoError> {
        // In every build: a page out of order would be sealed, stored, and found broken by the first reader.
        if self.any && key <= self.levels[0].last_key.as_slice() {
            return Err(RepoError::object("new tree page")(FormatError::Invalid("order of keys").into()));
        }
        self.any = true;
        self.push(0, key, entry, 1, content_bytes, sink)
    }

    fn push(
        &mut self,
        level: usize,
        key: &[u8],
        item: &[u8],
        count: u64,
        bytes: u64,
        sink: &mut PageSink<'_>,
    ) -> Result<(), RepoError> {
        let current = &self.levels[level];
        if current.items > 0 && current.body.len() + key.len() + item.len() + 16 > PAGE_MAX_BYTES {
            self.end_page(level, sink)?;
        }
        let current = &mut self.levels[level];
        // Each page's first key is whole: a page means the same wherever it stands.
        let previous: &[u8] = if current.items == 0 { &[] } else { &current.last_key };
        put_key(&mut current.body, previous, key);
        current.body.raw(item);
        current.items += 1;
        current.last_key.clear();
        current.last_key.extend_from_slice(key);
        current.count += count;
        current.bytes += bytes;
        if current.body.len() >= PAGE_MIN_BYTES && self.ends_page(level, key) {
            self.end_page(level, sink)?;
        }
        Ok(())
    }

    fn end_page(&mut self, level: usize, sink: &mut PageSink<'_>) -> Result<(), RepoError> {
        let current = &mut self.levels[level];
        let mut page = Encoder::with_capacity(current.body.len() + 8);
        page.u8(level as u8);
        page.varint(current.items);
        page.raw(current.body.as_slice());
        let page = page.finish();
        let (key, count, bytes) = (current.last_key.clone(), current.count, current.bytes);
        current.body.clear();
        (current.items, current.count, current.bytes) = (0, 0, 0);
        current.pages += 1;
        let id = self.domain.meta_id(&page)?;
        let child = Child { page: ChunkRef { id: id.short(), length: page.len() as u32 }, count, bytes };
        sink(id, page)?;
        if self.levels.len() == level + 1 {
            self.levels.push(Level::default());
        }
        let mut item = Encoder::new();
        child.encode(&mut item);
        self.push(level + 1, &key, item.as_slice(), child.count, child.bytes, sink)
    }

    /// Ends every open page; returns the root.
    pub fn finish(mut self, sink: &mut PageSink<'_>) -> Result<TreeRoot, RepoError> {
        if !self.any {
            let page = TreePage::Leaf(Vec::new()).encode();
            let id = self.domain.meta_id(&page)?;
            let length = page.len() as u32;
            sink(id, page)?;
            return Ok(TreeRoot { page: id.short(), length, level: 0 });
        }
        let mut level = 0;
        loop {
            // A level above that holds nothing but one finished page's item is not needed: that page is the root.
            let top = level + 1 >= self.levels.len();
            let current = &self.levels[level];
            if level > 0 && top && current.pages == 0 && current.items == 1 {
                let child = Child::decode_only(current.body.as_slice())
                    .map_err(|error| RepoError::object("new tree page")(error.into()))?;
                let (page, length) = (child.page.id, child.page.length);
                return Ok(TreeRoot { page, length, level: level as u8 - 1 });
            }
            if current.items > 0 {
                self.end_page(level, sink)?;
            }
            level += 1;
        }
    }
}
