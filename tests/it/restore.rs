//! Restore through the real verbs: what was backed up comes back as rsync sees it, and damage costs only what it
//! must.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use lifeboat::base::cancel::Cancel;
use lifeboat::base::progress::{NoProgress, Progress};
use lifeboat::engine::EngineError;
use lifeboat::engine::read::filter::FilterOptions;
use lifeboat::engine::restore::{Overwrite, RestoreOptions, plan, restore};
use lifeboat::source::files::target::TargetOptions;

use crate::bench::{back_up, damage, into, objects, random, reopen, repository, restore_to, select};
use crate::files_target::{differences, rich_tree, scratch};

/// Many small files, some large ones, duplicates.
fn plain_tree(base: &Path) {
    for n in 0..300 {
        let path = base.join(format!("d{}/f{n:03}", n % 5));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, random(n % 100, n * 41)).unwrap();
    }
    fs::write(base.join("large"), random(1, 6_000_000)).unwrap();
    fs::write(base.join("twice"), [random(1, 3_000_000), random(1, 3_000_000)].concat()).unwrap();
}

/// What rsync sees beside the time of the folder that was restored into: one that exists keeps its own.
fn differences_below(source: &Path, copy: &Path) -> String {
    differences(source, copy).replacen(".d..t...... ./\n", "", 1)
}

async fn backed_up(
    fill: impl FnOnce(&Path),
) -> (tempfile::TempDir, PathBuf, PathBuf, Arc<lifeboat::store::memory::MemoryStore>) {
    let (dir, base) = scratch();
    let (source, copy) = (base.join("source"), base.join("copy"));
    fs::create_dir(&source).unwrap();
    fill(&source);
    let (store, repo) = repository().await;
    back_up(&repo, "job", &source).await;
    (dir, source, copy, store)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_comes_back_as_rsync_sees_it() {
    let (_dir, source, copy, store) = backed_up(|base| {
        rich_tree(base);
        plain_tree(&base.join("d"));
    })
    .await;
    let repo = reopen(&store).await;
    let selected = select(&repo, "latest", &source).await;
    let options = RestoreOptions { verify: true, ..into(&copy) };
    let outcome = restore_to(&repo, &selected, &options).await.unwrap();
    assert_eq!(
        (outcome.damaged.count, outcome.failed.count, outcome.attributes.count),
        (0, 0, 0),
        "{outcome:?}"
    );
    assert_eq!(differences(&source, &copy), "");
    assert_eq!(outcome.hardlinks, 2);
    assert_eq!(outcome.verified, outcome.files);
    assert!(fs::metadata(copy.join("sparse")).unwrap().blocks() < 100);
    // Again over what is there: nothing is fetched.
    let outcome = restore_to(&repo, &selected, &options).await.unwrap();
    assert_eq!(differences_below(&source, &copy), "");
    assert!(outcome.fetched_bytes < 100_000, "{outcome:?}");
}

#[tokio::test]
async fn one_thread_and_one_runtime_worker_are_enough() {
    let (_dir, source, copy, store) = backed_up(plain_tree).await;
    let repo = reopen(&store).await;
    let selected = select(&repo, "latest", &source).await;
    let mut options = into(&copy);
    options.fetch.threads = 1;
    options.fetch.in_flight_bytes = 1;
    restore_to(&repo, &selected, &options).await.unwrap();
    assert_eq!(differences(&source, &copy), "");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_chunks_that_differ_are_fetched() {
    let (_dir, source, copy, store) = backed_up(plain_tree).await;
    let repo = reopen(&store).await;
    let selected = select(&repo, "latest", &source).await;
    for in_place in [false, true] {
        restore_to(&repo, &selected, &into(&copy)).await.unwrap();
        let times = fs::metadata(copy.join("large")).unwrap();
        let mut bytes = fs::read(copy.join("large")).unwrap();
        bytes[3_000_000..3_000_010].fill(0);
        fs::write(copy.join("large"), &bytes).unwrap();
        // A longer, a shorter, a missing and a misplaced one.
        fs::write(copy.join("d1/f001"), vec![7; 100_000]).unwrap();
        let half = fs::read(copy.join("twice")).unwrap()[..2_500_000].to_vec();
        fs::write(copy.join("twice"), half).unwrap();
        fs::remove_file(copy.join("d2/f002")).unwrap();
        fs::remove_file(copy.join("d3/f003")).unwrap();
        fs::create_dir(copy.join("d3/f003")).unwrap();
        let outcome =
            restore_to(&repo, &selected, &RestoreOptions { in_place, ..into(&copy) }).await.unwrap();
        assert_eq!(differences_below(&source, &copy), "", "in place: {in_place}");
        assert_eq!(outcome.failed.count, 0);
        assert!((10..5_500_000).contains(&outcome.fetched_bytes), "{}", outcome.fetched_bytes);
        let same_file = fs::metadata(copy.join("large")).unwrap().ino() == times.ino();
        assert_eq!(same_file, in_place);
    }
}

#[tokio::test]
async fn overwrite_modes_decide_what_existing_files_become() {
    let (_dir, source, copy, store) = backed_up(|base| {
        fs::write(base.join("a"), b"content").unwrap();
        fs::write(base.join("b"), b"content").unwrap();
    })
    .await;
    let repo = reopen(&store).await;
    let selected = select(&repo, "latest", &source).await;
    restore_to(&repo, &selected, &into(&copy)).await.unwrap();
    let spoil = || {
        // The same length and time, so only content tells.
        let times = fs::metadata(copy.join("a")).unwrap().modified().unwrap();
        fs::write(copy.join("a"), b"CONTENT").unwrap();
        fs::File::options().write(true).open(copy.join("a")).unwrap().set_modified(times).unwrap();
        fs::write(copy.join("b"), b"other").unwrap();
    };
    let read = || [fs::read(copy.join("a")).unwrap(), fs::read(copy.join("b")).unwrap()];
    let with = |overwrite| RestoreOptions { overwrite, ..into(&copy) };
    spoil();
    let outcome = restore_to(&repo, &selected, &with(Overwrite::Never)).await.unwrap();
    assert_eq!((read(), outcome.skipped), ([b"CONTENT".to_vec(), b"other".to_vec()], 2));
    let outcome = restore_to(&repo, &selected, &with(Overwrite::IfChanged)).await.unwrap();
    assert_eq!((read(), outcome.skipped), ([b"CONTENT".to_vec(), b"content".to_vec()], 1));
    let options = RestoreOptions { verify: true, ..with(Overwrite::IfChanged) };
    let outcome = restore_to(&repo, &selected, &options).await.unwrap();
    assert_eq!(outcome.failed.named[0].key, b"a", "verify sees what mtime and size hide");
    restore_to(&repo, &selected, &with(Overwrite::Always)).await.unwrap();
    assert_eq!(read(), [b"content".to_vec(), b"content".to_vec()]);
}

#[tokio::test]
async fn includes_and_excludes_choose_paths() {
    let (_dir, source, copy, store) = backed_up(|base| {
        for path in ["a/keep.conf", "a/drop.txt", "b/c/keep.conf", "b/secret/keep.conf", "e/x"] {
            fs::create_dir_all(base.join(path).parent().unwrap()).unwrap();
            fs::write(base.join(path), path).unwrap();
        }
    })
    .await;
    let repo = reopen(&store).await;
    let selected = select(&repo, "latest", &source).await;
    let filter =
        FilterOptions { include: vec!["*.conf".into()], exclude: vec!["secret".into()], any_case: false };
    restore_to(&repo, &selected, &RestoreOptions { filter, ..into(&copy) }).await.unwrap();
    assert!(copy.join("a/keep.conf").exists() && copy.join("b/c/keep.conf").exists());
    assert!(!copy.join("a/drop.txt").exists() && !copy.join("b/secret").exists() && !copy.join("e").exists());
    let mode = |path: &Path| fs::metadata(path).unwrap().mode();
    assert_eq!(mode(&copy.join("b/c")), mode(&source.join("b/c")), "folders on the way get their mode");
}

#[tokio::test]
async fn delete_removes_what_its_plan_listed_and_no_more() {
    let (_dir, source, copy, store) = backed_up(|base| {
        fs::create_dir(base.join("d")).unwrap();
        fs::write(base.join("d/a"), b"a").unwrap();
    })
    .await;
    let repo = reopen(&store).await;
    let selected = select(&repo, "latest", &source).await;
    restore_to(&repo, &selected, &into(&copy)).await.unwrap();
    fs::create_dir_all(copy.join("extra/deep")).unwrap();
    fs::write(copy.join("d/extra"), b"x").unwrap();
    fs::write(copy.join("kept.log"), b"x").unwrap();
    let outside = copy.parent().unwrap().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("precious"), b"x").unwrap();
    std::os::unix::fs::symlink(&outside, copy.join("link")).unwrap();
    let filter = FilterOptions { exclude: vec!["*.log".into()], ..FilterOptions::default() };
    let options = RestoreOptions { delete: true, filter, ..into(&copy) };
    let made = plan(&repo, &selected, &options, &NoProgress, &Cancel::new()).await.unwrap();
    assert_eq!(made.delete, [b"d\0extra".to_vec(), b"extra".to_vec(), b"link".to_vec()]);
    assert_eq!((made.files, made.existing_files, made.new_files), (1, 1, 0));
    assert!(copy.join("extra/deep").exists(), "a plan changes nothing");
    fs::write(copy.join("d/later"), b"x").unwrap();
    let outcome =
        restore(&repo, &selected, &options, Some(&made), Arc::new(NoProgress), &Cancel::new()).await.unwrap();
    assert_eq!(outcome.deleted, 3);
    assert!(!copy.join("extra").exists() && !copy.join("d/extra").exists() && !copy.join("link").exists());
    assert!(copy.join("kept.log").exists() && copy.join("d/later").exists());
    assert!(outside.join("precious").exists());
    for options in [
        RestoreOptions { target: "/".into(), ..options.clone() },
        RestoreOptions { overwrite: Overwrite::Never, ..options.clone() },
    ] {
        let refused = plan(&repo, &selected, &options, &NoProgress, &Cancel::new()).await;
        assert!(matches!(refused, Err(EngineError::Refused(_))));
    }
}

#[tokio::test]
async fn a_single_file_is_put_into_the_target_and_missing_paths_are_refused() {
    let (_dir, source, copy, store) = backed_up(|base| fs::write(base.join("f"), b"x").unwrap()).await;
    let repo = reopen(&store).await;
    let selected = select(&repo, "latest", &source.join("f")).await;
    restore_to(&repo, &selected, &into(&copy)).await.unwrap();
    assert_eq!(fs::read(copy.join("f")).unwrap(), b"x");
    let text = [b"latest:".as_slice(), source.as_os_str().as_bytes(), b"/none"].concat();
    let path =
        lifeboat::engine::read::select::SnapshotPath::parse(std::ffi::OsStr::from_bytes(&text)).unwrap();
    let missing = path.select(&repo, &lifeboat::repo::snapshots::Filter::default()).await;
    assert!(matches!(missing, Err(EngineError::Refused(_))));
}

#[tokio::test]
async fn latest_with_a_path_means_the_newest_snapshot_that_has_it() {
    let (_dir, base) = scratch();
    let (_store, repo) = repository().await;
    for job in ["one", "two"] {
        fs::create_dir(base.join(job)).unwrap();
        fs::write(base.join(job).join("f"), job).unwrap();
        fs::write(base.join(job).join("stays"), job).unwrap();
        back_up(&repo, job, &base.join(job)).await;
    }
    fs::remove_file(base.join("one/f")).unwrap();
    back_up(&repo, "one", &base.join("one")).await;
    for job in ["one", "two"] {
        let selected = select(&repo, "latest", &base.join(job).join("f")).await;
        assert_eq!(selected.snapshot.summary.job, job);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_or_missing_pack_costs_only_the_files_that_need_it() {
    let (_dir, base) = scratch();
    let (source, copy) = (base.join("source"), base.join("copy"));
    fs::create_dir(&source).unwrap();
    fs::write(source.join("first"), random(1, 500_000)).unwrap();
    let (store, repo) = repository().await;
    back_up(&repo, "job", &source).await;
    let old = objects(&store, "data").await;
    fs::write(source.join("second"), random(2, 500_000)).unwrap();
    fs::write(source.join("third"), [random(2, 500_000), random(3, 10)].concat()).unwrap();
    back_up(&repo, "job", &source).await;
    let new: Vec<String> =
        objects(&store, "data").await.into_iter().filter(|name| !old.contains(name)).collect();
    let whole = store.snapshot();
    for missing in [false, true] {
        let store = Arc::new(lifeboat::store::memory::MemoryStore::from_snapshot(whole.clone()));
        let repo = reopen(&store).await;
        for name in &new {
            if missing {
                lifeboat::store::Store::delete(store.as_ref(), name).await.unwrap();
            } else {
                damage(&store, name).await;
            }
        }
        let selected = select(&repo, "latest", &source).await;
        let outcome = restore_to(&repo, &selected, &into(&copy)).await.unwrap();
        assert!(outcome.is_damaged());
        let lost: Vec<&[u8]> = outcome.damaged.named.iter().map(|problem| problem.key.as_slice()).collect();
        assert_eq!(fs::read(copy.join("first")).unwrap(), random(1, 500_000));
        for name in ["second", "third"] {
            let absent = !copy.join(name).exists();
            assert_eq!(lost.contains(&name.as_bytes()), absent, "{name}");
            assert!(absent || fs::read(copy.join(name)).unwrap() == fs::read(source.join(name)).unwrap());
        }
        assert!(!lost.is_empty() && (!missing || lost.len() == 2), "{lost:?}");
        assert_eq!(fs::read_dir(&copy).unwrap().count(), 3 - lost.len(), "no leftovers");
        fs::remove_dir_all(&copy).unwrap();
    }
}

/// Cancels after so many bytes.
struct CancelAt {
    left: AtomicU64,
    cancel: Cancel,
}

impl Progress for CancelAt {
    fn phase(&self, _name: &'static str) {}
    fn add_total(&self, _bytes: u64, _files: u64) {}
    fn add_done(&self, bytes: u64, _files: u64) {
        if self
            .left
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(bytes))
            .is_err()
        {
            self.cancel.cancel();
        }
    }
    fn current(&self, _item: &str) {}
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cancelling_leaves_no_half_written_file() {
    let (_dir, source, copy, store) = backed_up(plain_tree).await;
    let repo = reopen(&store).await;
    let selected = select(&repo, "latest", &source).await;
    for left in [0, 1_000_000, 5_000_000, 9_000_000] {
        let cancel = Cancel::new();
        let progress = Arc::new(CancelAt { left: left.into(), cancel: cancel.clone() });
        let result = restore(&repo, &selected, &into(&copy), None, progress, &cancel).await;
        assert!(matches!(result, Err(EngineError::Cancelled(_))));
        let mut stack = vec![copy.clone()];
        while let Some(folder) = stack.pop() {
            for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
                if entry.file_type().unwrap().is_dir() {
                    stack.push(entry.path());
                } else {
                    let original = source.join(entry.path().strip_prefix(&copy).unwrap());
                    assert_eq!(fs::read(entry.path()).unwrap(), fs::read(original).unwrap());
                }
            }
        }
    }
    restore_to(&repo, &selected, &into(&copy)).await.unwrap();
    assert_eq!(differences_below(&source, &copy), "");
}

#[tokio::test]
async fn names_can_be_mapped_and_zeros_left_as_holes() {
    let (_dir, source, copy, store) = backed_up(|base| {
        fs::write(base.join("zeros"), vec![0; 4 << 20]).unwrap();
    })
    .await;
    let repo = reopen(&store).await;
    let selected = select(&repo, "latest", &source).await;
    let mut files = TargetOptions { sparse: true, ..TargetOptions::default() };
    files.owners.add("0:0=1234:2345").unwrap();
    restore_to(&repo, &selected, &RestoreOptions { files, ..into(&copy) }).await.unwrap();
    let stat = fs::metadata(copy.join("zeros")).unwrap();
    assert_eq!((stat.len(), stat.uid(), stat.gid()), (4 << 20, 1234, 2345));
    assert!(stat.blocks() < 16);
}
