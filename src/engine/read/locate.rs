//! Which block holds a chunk, and where in it.
//!
//! Chunks are mostly wanted in the order they were stored, so the next one is looked for behind the last before
//! the index is asked.

use std::sync::Arc;

use crate::format::entry::ChunkRef;
use crate::format::header::ObjectKind;
use crate::pack::PackError;
use crate::pack::index::{BlockInfo, IndexMap};

/// Where a chunk is.
pub struct Located {
    pub info: Arc<BlockInfo>,
    /// Which of the block's chunks it is.
    pub at: usize,
    /// Offset in the block's plaintext, in bytes.
    pub offset: u32,
}

/// Finds data chunks of one domain.
pub struct Locator {
    index: Arc<IndexMap>,
    domain: u32,
    last: Option<Place>,
}

struct Place {
    info: Arc<BlockInfo>,
    next: usize,
    offset: u32,
}

impl Locator {
    pub fn new(index: Arc<IndexMap>, domain: u32) -> Self {
        Self { index, domain, last: None }
    }

    /// A block that should hold the chunk. `None`: in no pack.
    ///
    /// # Errors
    /// The local index cannot be read.
    pub fn locate(&mut self, wanted: &ChunkRef) -> Result<Option<Located>, PackError> {
        if let Some(last) = &mut self.last
            && last.info.chunks.get(last.next) == Some(&(wanted.id, wanted.length))
        {
            let located = Located { info: last.info.clone(), at: last.next, offset: last.offset };
            last.next += 1;
            last.offset += wanted.length;
            return Ok(Some(located));
        }
        let found = match self.index.find(self.domain, ObjectKind::Data, &wanted.id)? {
            Some(info) => Some(info),
            // What stands under a tombstone may still be read.
            None => self.index.locations(self.domain, ObjectKind::Data, &wanted.id)?.into_iter().next(),
        };
        let Some(info) = found else { return Ok(None) };
        let mut offset = 0u32;
        for (at, (id, length)) in info.chunks.iter().enumerate() {
            if *id == wanted.id && *length == wanted.length {
                self.last = Some(Place { info: info.clone(), next: at + 1, offset: offset + length });
                return Ok(Some(Located { info, at, offset }));
            }
            offset = offset.saturating_add(*length);
        }
        Ok(None)
    }
}
