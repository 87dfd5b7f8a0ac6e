//! Trees that no backup makes: whoever holds a writer's key can sign them. Nothing gets out of the target, and what
//! is refused is named.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use lifeboat::engine::restore::{RestoreOptions, plan};
use lifeboat::format::entry::{ChunkRef, Content, Entry, Kind, Refs, Timestamp};
use lifeboat::format::header::ObjectKind;
use lifeboat::format::id::{ChunkId, ShortId};
use lifeboat::format::page::{Child, RecipePage};
use lifeboat::repo::Repository;
use lifeboat::repo::commit::Draft;
use lifeboat::repo::run::Run;
use lifeboat::repo::sink::Sink;
use lifeboat::repo::tree::write::TreeWriter;
use lifeboat::seal::block::Compression;

use crate::bench::{into, random, reopen, repository, restore_to, select, summary};
use crate::files_target::scratch;

fn entry(kind: Kind) -> Entry {
    Entry {
        kind,
        mode: 0o755,
        uid: 0,
        gid: 0,
        user: None,
        group: None,
        mtime: Timestamp { seconds: 1, nanoseconds: 0 },
        xattrs: vec![],
        hardlink_to: None,
    }
}

/// Commits a tree of these entries with these chunks and pages.
async fn commit(
    repo: &Repository,
    entries: Vec<(&[u8], Entry)>,
    data: Vec<(ChunkId, Vec<u8>)>,
    mut pages: Vec<(ChunkId, Vec<u8>)>,
) {
    let (run, _) = Run::begin(repo).await.unwrap();
    let mut sink = Sink::new(&run, Compression::Zstd(1)).unwrap();
    let mut tree = TreeWriter::new(repo.access.home()).unwrap();
    let mut keep = |id, page| {
        pages.push((id, page));
        Ok(())
    };
    let mut entries = entries;
    entries.sort_by(|a, b| a.0.cmp(b.0));
    for (key, entry) in entries {
        tree.add(key, &entry, &mut keep).unwrap();
    }
    let root = tree.finish(&mut keep).unwrap();
    for (id, bytes) in data {
        sink.add(ObjectKind::Data, id, &bytes, None).await.unwrap();
    }
    for (id, page) in pages {
        sink.add(ObjectKind::Meta, id, &page, None).await.unwrap();
    }
    sink.finish().await.unwrap();
    let pending = run
        .put_manifest(&Draft { summary: summary("hostile", Timestamp::default()), root, paths: vec![] })
        .await
        .unwrap();
    run.confirm(&pending).await.unwrap();
    run.end().await;
}

fn chunk(repo: &Repository, bytes: &[u8]) -> (ChunkRef, (ChunkId, Vec<u8>)) {
    let id = repo.access.home().data_id(bytes).unwrap();
    (ChunkRef { id: id.short(), length: bytes.len() as u32 }, (id, bytes.to_vec()))
}

fn file(size_bytes: u64, refs: Refs) -> Entry {
    entry(Kind::File(Content { size_bytes, holes: vec![], hash: None, refs }))
}

#[tokio::test]
async fn nothing_gets_out_of_the_target() {
    let (_dir, base) = scratch();
    let (outside, copy) = (base.join("outside"), base.join("copy"));
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("precious"), b"precious").unwrap();
    let (store, repo) = repository().await;
    let (reference, stored) = chunk(&repo, b"evil");
    let evil = || file(4, Refs::Inline(vec![reference]));
    let link = |to: &Path| entry(Kind::Symlink(to.as_os_str().as_encoded_bytes().to_vec()));
    let mut linked = evil();
    linked.hardlink_to = Some(b"..\0outside\0precious".to_vec());
    let entries: Vec<(&[u8], Entry)> = vec![
        (b"..", entry(Kind::Directory)),
        (b"..\0outside\0precious", evil()),
        (b".\0x", evil()),
        (b"a/../../outside/precious", evil()),
        (b"/etc\0x", evil()),
        (b"link", link(&outside)),
        (b"link\0precious", evil()),
        (b"link\0new", evil()),
        (b"file", evil()),
        (b"file\0below", evil()),
        (b"hard", linked),
        (b"good", evil()),
    ];
    commit(&repo, entries, vec![stored], vec![]).await;
    let repo = reopen(&store).await;
    let selected = select(&repo, "latest", Path::new("/")).await;
    for in_place in [false, true] {
        let options = RestoreOptions { in_place, ..into(&copy) };
        let outcome = restore_to(&repo, &selected, &options).await.unwrap();
        assert!(outcome.damaged.count >= 4, "{outcome:?}");
        assert_eq!(fs::read(copy.join("good")).unwrap(), b"evil");
        assert_eq!(fs::read(outside.join("precious")).unwrap(), b"precious");
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 1);
        let mut names: Vec<_> = fs::read_dir(&base).unwrap().map(|e| e.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["copy", "outside"]);
    }
    let made = plan(
        &repo,
        &selected,
        &into(&copy),
        &lifeboat::base::progress::NoProgress,
        &lifeboat::base::cancel::Cancel::new(),
    )
    .await
    .unwrap();
    assert!(made.unsafe_paths >= 4);
}

/// A recipe of `levels` inner pages over one leaf.
fn recipe(repo: &Repository, levels: u8, leaf: Vec<ChunkRef>) -> (Refs, Vec<(ChunkId, Vec<u8>)>) {
    let bytes = leaf.iter().map(|reference| u64::from(reference.length)).sum();
    let count = leaf.len() as u64;
    let mut page = RecipePage::Leaf(leaf).encode();
    let mut pages = Vec::new();
    for level in 1..=levels {
        let id = repo.access.home().meta_id(&page).unwrap();
        let child = Child { page: ChunkRef { id: id.short(), length: page.len() as u32 }, count, bytes };
        pages.push((id, page));
        page = RecipePage::Inner { level, children: vec![child] }.encode();
    }
    let id = repo.access.home().meta_id(&page).unwrap();
    pages.push((id, page));
    (Refs::Recipe { root: id.short(), level: levels }, pages)
}

#[tokio::test]
async fn recipes_of_every_depth_and_lie_are_read_or_refused() {
    let (_dir, base) = scratch();
    let copy = base.join("copy");
    let (store, repo) = repository().await;
    let (reference, stored) = chunk(&repo, &random(1, 5000));
    let (deepest, mut pages) = recipe(&repo, 32, vec![reference; 3]);
    let (too_deep, more) = recipe(&repo, 33, vec![reference; 3]);
    pages.extend(more);
    let (shorter, more) = recipe(&repo, 0, vec![reference; 2]);
    pages.extend(more);
    let missing = ChunkRef { id: ShortId([9; 16]), length: 10 };
    let wrong_length = ChunkRef { length: 4999, ..reference };
    let entries: Vec<(&[u8], Entry)> = vec![
        (b"deepest", file(15_000, deepest)),
        (b"too-deep", file(15_000, too_deep)),
        (b"too-short", file(15_000, shorter.clone())),
        (b"too-long", file(7_000, shorter)),
        (b"missing", file(10, Refs::Inline(vec![missing]))),
        (b"wrong-length", file(4999, Refs::Inline(vec![wrong_length]))),
        (b"no-recipe", file(10, Refs::Recipe { root: ShortId([8; 16]), level: 0 })),
    ];
    commit(&repo, entries, vec![stored], pages).await;
    let repo = Arc::new(reopen(&store).await);
    let selected = select(&repo, "latest", Path::new("/")).await;
    let outcome = restore_to(&repo, &selected, &into(&copy)).await.unwrap();
    let lost: Vec<_> = outcome.damaged.named.iter().map(|problem| problem.key.as_slice()).collect();
    let expected: [&[u8]; 6] =
        [b"missing", b"no-recipe", b"too-deep", b"too-long", b"too-short", b"wrong-length"];
    assert_eq!(lost, expected, "{outcome:?}");
    assert_eq!(fs::read(copy.join("deepest")).unwrap(), random(1, 5000).repeat(3));
    assert_eq!(fs::read_dir(&copy).unwrap().count(), 1);
}
