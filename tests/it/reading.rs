//! The verbs that look without restoring: dump (against GNU tar), ls, find, diff, stats.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use lifeboat::base::cancel::Cancel;
use lifeboat::base::progress::NoProgress;
use lifeboat::engine::EngineError;
use lifeboat::engine::diff::{Difference, compare};
use lifeboat::engine::dump::{DumpOptions, Dumped, dump};
use lifeboat::engine::find::{FindOptions, find};
use lifeboat::engine::ls::list;
use lifeboat::engine::read::select::Selected;
use lifeboat::engine::stats::{of_repository, of_snapshots};
use lifeboat::repo::Repository;
use lifeboat::repo::tree::path_of_key;

use crate::bench::{back_up, damage, objects, random, reopen, repository, select};
use crate::files_target::{output, rich_tree, scratch, xattr};

async fn dumped(repo: &Repository, selected: &Selected) -> Result<(Vec<u8>, Dumped), EngineError> {
    let mut bytes = Vec::new();
    let options = DumpOptions::default();
    let counts = dump(repo, selected, &options, &mut bytes, Arc::new(NoProgress), &Cancel::new()).await?;
    Ok((bytes, counts))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dumped_file_is_the_file_and_damage_is_an_error() {
    let (_dir, base) = scratch();
    let (store, repo) = repository().await;
    // Repeats go back and forth between blocks.
    let mut content = Vec::new();
    for n in [0, 1, 2, 0, 1, 2, 3, 1] {
        content.extend(random(n, 3_000_000));
    }
    fs::write(base.join("f"), &content).unwrap();
    fs::write(base.join("empty"), b"").unwrap();
    let sparse = fs::File::create(base.join("sparse")).unwrap();
    sparse.set_len(5 << 20).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&sparse, b"data", 3 << 20).unwrap();
    back_up(&repo, "job", &base).await;
    for name in ["f", "empty", "sparse"] {
        let selected = select(&repo, "latest", &base.join(name)).await;
        let (bytes, counts) = dumped(&repo, &selected).await.unwrap();
        assert!(bytes == fs::read(base.join(name)).unwrap(), "{name}");
        assert_eq!((counts.files, counts.bytes, counts.is_tar), (1, bytes.len() as u64, false));
    }
    for name in objects(&store, "data").await {
        damage(&store, &name).await;
    }
    let repo = reopen(&store).await;
    let selected = select(&repo, "latest", &base.join("f")).await;
    assert!(matches!(dumped(&repo, &selected).await, Err(EngineError::Repo(error)) if error.is_damage()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dumped_folder_is_a_tar_that_gnu_tar_unpacks_to_the_same() {
    let (_dir, base) = scratch();
    let (source, copy) = (base.join("source"), base.join("copy"));
    fs::create_dir(&source).unwrap();
    fs::create_dir(&copy).unwrap();
    rich_tree(&source);
    fs::remove_file(source.join("socket")).unwrap();
    let deep = source.join(["n".repeat(120), "m".repeat(200), "o".repeat(250)].join("/"));
    fs::create_dir_all(&deep).unwrap();
    fs::write(deep.join("x".repeat(180)), random(5, 70_000)).unwrap();
    std::os::unix::fs::symlink("t".repeat(300), deep.join("long-link")).unwrap();
    xattr(&source.join("d/plain"), "user.tar", b"a=b\n\xff");
    let (_store, repo) = repository().await;
    back_up(&repo, "job", &source).await;
    let selected = select(&repo, "latest", &source).await;
    let (bytes, counts) = dumped(&repo, &selected).await.unwrap();
    assert!(counts.is_tar && counts.left_out == 0);
    let mut tar = Command::new("tar")
        .args(["-x", "-p", "-f", "-", "--xattrs", "--xattrs-include=*", "--numeric-owner", "-C"])
        .arg(&copy)
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    tar.stdin.take().unwrap().write_all(&bytes).unwrap();
    assert!(tar.wait().unwrap().success());
    let compared = output(
        Command::new("rsync")
            .args(["-aHn", "--checksum", "--itemize-changes", "--delete"])
            .arg(format!("{}/", source.display()))
            .arg(format!("{}/", copy.display())),
    );
    assert_eq!(compared, "");
    let attributes = |base: &Path| {
        let mut getfattr = Command::new("getfattr");
        output(getfattr.args(["-R", "-h", "-d", "-m", "^user", "-e", "hex", "."]).current_dir(base))
    };
    assert_eq!(attributes(&source), attributes(&copy));
    // A subtree alone: links whose first path is elsewhere become files.
    let selected = select(&repo, "latest", &source.join("d/sub")).await;
    let (bytes, _) = dumped(&repo, &selected).await.unwrap();
    let listed: Vec<String> = tar::Archive::new(bytes.as_slice())
        .entries()
        .unwrap()
        .map(|entry| entry.unwrap().path().unwrap().display().to_string())
        .collect();
    assert_eq!(listed, [".", "again", "empty"].map(|name| if name == "." { "./" } else { name }));
}

fn paths(found: &[(Vec<u8>, bool)], base: &Path) -> Vec<String> {
    let strip =
        |key: &Vec<u8>| String::from_utf8(path_of_key(key)).unwrap().replace(base.to_str().unwrap(), "");
    found.iter().map(|(key, _)| strip(key)).collect()
}

async fn listed(repo: &Repository, selected: &Selected, recursive: bool) -> Vec<(Vec<u8>, bool)> {
    let mut found = Vec::new();
    let mut visit = |key: &[u8], entry: &lifeboat::format::entry::Entry| {
        found.push((key.to_vec(), entry.is_directory()));
        Ok(())
    };
    list(repo, selected, recursive, &Cancel::new(), &mut visit).await.unwrap();
    found
}

#[tokio::test]
async fn ls_shows_one_level_or_all() {
    let (_dir, base) = scratch();
    // Enough below `a` that the walk skips it by descending anew.
    for n in 0..600 {
        let path = base.join(format!("a/b/{n:04}"));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, b"").unwrap();
    }
    for path in ["a-b", "a.c", "z"] {
        fs::write(base.join(path), b"x").unwrap();
    }
    let (_store, repo) = repository().await;
    back_up(&repo, "job", &base).await;
    let selected = select(&repo, "latest", &base).await;
    assert_eq!(paths(&listed(&repo, &selected, false).await, &base), ["/a", "/a-b", "/a.c", "/z"]);
    assert_eq!(listed(&repo, &selected, true).await.len(), 606);
    let selected = select(&repo, "latest", &base.join("z")).await;
    assert_eq!(paths(&listed(&repo, &selected, false).await, &base), ["/z"]);
}

#[tokio::test]
async fn find_reads_shared_pages_once_and_diff_and_stats_agree_with_the_changes() {
    let (_dir, base) = scratch();
    for n in 0..3000 {
        let path = base.join(format!("d{}/f{n:04}", n % 10));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, random(n, 50)).unwrap();
    }
    fs::write(base.join("needle.conf"), b"old").unwrap();
    let (_store, repo) = repository().await;
    back_up(&repo, "job", &base).await;
    fs::write(base.join("needle.conf"), b"newer").unwrap();
    fs::remove_file(base.join("d3/f0003")).unwrap();
    fs::write(base.join("d4/fresh"), b"fresh").unwrap();
    let mode = <fs::Permissions as std::os::unix::fs::PermissionsExt>::from_mode(0o600);
    fs::set_permissions(base.join("d5/f0005"), mode).unwrap();
    back_up(&repo, "job", &base).await;
    let snapshots = repo.snapshots().await.unwrap();
    let all: Vec<_> = snapshots.snapshots.iter().collect();

    let mut sizes = Vec::new();
    let options = FindOptions { patterns: vec!["*.conf".into()], ..FindOptions::default() };
    let mut visit = |_: &_, _: &[u8], entry: &lifeboat::format::entry::Entry| {
        sizes.push(entry.content().unwrap().size_bytes);
        Ok(())
    };
    let found = find(&repo, &all, &options, &NoProgress, &Cancel::new(), &mut visit).await.unwrap();
    assert_eq!(sizes, [3, 5]);
    assert!(found.pages_skipped > 0, "{found:?}");

    let (before, after) = (select(&repo, "latest~1", &base).await, select(&repo, "latest", &base).await);
    let mut changes = Vec::new();
    let mut visit = |difference: Difference, key: &[u8], _: Option<&_>, _: Option<&_>| {
        let path = String::from_utf8(path_of_key(key)).unwrap();
        changes.push((difference, path.replace(base.to_str().unwrap(), "")));
        Ok(())
    };
    let differences = compare(&repo, &before, &after, &Cancel::new(), &mut visit).await.unwrap();
    changes.retain(|(difference, path)| *difference != Difference::Metadata || path.contains('f'));
    let expected = [
        (Difference::Removed, "/d3/f0003"),
        (Difference::Added, "/d4/fresh"),
        (Difference::Metadata, "/d5/f0005"),
        (Difference::Content, "/needle.conf"),
    ];
    assert_eq!(changes, expected.map(|(difference, path)| (difference, path.to_owned())));
    assert_eq!((differences.added.files, differences.added.bytes, differences.removed.files), (1, 5, 1));

    let stats = of_snapshots(&repo, &all, &NoProgress, &Cancel::new()).await.unwrap();
    assert_eq!((stats.snapshots, stats.files, stats.missing), (2, 6002, 0));
    assert_eq!((stats.chunks, stats.unique_bytes), (3003, 3000 * 50 + 3 + 5 + 5));
    assert!(stats.stored_bytes > 3000 * 50 && stats.stored_bytes < 3000 * 60);
    let whole = of_repository(&repo, &Cancel::new()).await.unwrap();
    assert_eq!((whole.data_chunks, whole.data_raw_bytes), (3003, stats.unique_bytes));
    assert_eq!(whole.objects["snapshots"].count, 2);
}
