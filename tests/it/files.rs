//! Files: the walk, what is read of each path, and what is put back, on a real file system and against tools that
//! are not ours.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use lifeboat::base::cancel::Cancel;
use lifeboat::format::entry::{Kind, XattrValue};
use lifeboat::source::files::exclude::ExcludeOptions;
use lifeboat::source::files::read::FileReader;
use lifeboat::source::files::walk::{Found, WalkOptions, WalkProblem, walk};
use lifeboat::source::files::{FileErrorKind, key_of_path, path_of_key};
use rustix::fs::{Mode, OFlags, mkdirat, openat};

fn walk_all<P: AsRef<Path>>(roots: &[P], options: WalkOptions) -> (Vec<Found>, Vec<WalkProblem>) {
    let mut found = Vec::new();
    let mut problems = Vec::new();
    for item in walk(roots, Path::new("/"), options, &Cancel::new()).unwrap().flatten() {
        match item {
            Ok(item) => found.push(item),
            Err(problem) => problems.push(problem),
        }
    }
    assert!(found.windows(2).all(|pair| pair[0].key < pair[1].key), "keys ascend strictly");
    (found, problems)
}

/// The paths below `base`, relative to it.
fn below(base: &Path, found: &[Found]) -> Vec<String> {
    let paths = found.iter().map(|item| path_of_key(&item.key));
    paths
        .filter_map(|path| path.strip_prefix(base).ok().map(|path| path.to_string_lossy().into_owned()))
        .filter(|path| !path.is_empty())
        .collect()
}

fn write(path: impl AsRef<Path>, bytes: &[u8]) {
    fs::create_dir_all(path.as_ref().parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
}

#[test]
fn walk_gives_each_path_once_with_a_directory_before_what_is_in_it() {
    let dir = tempfile::tempdir().unwrap();
    let base = dir.path().canonicalize().unwrap();
    for path in ["a/x", "a-b", "a/y/z", "a.c/q", "b"] {
        write(base.join(path), b"1");
    }
    let roots = [base.join("a"), base.clone(), base.join("a/y"), base.join("a")];
    let (found, problems) = walk_all(&roots, WalkOptions::default());
    assert!(problems.is_empty());
    assert_eq!(below(&base, &found), ["a", "a/x", "a/y", "a/y/z", "a-b", "a.c", "a.c/q", "b"]);
    let ancestors: Vec<_> = found.iter().take_while(|item| path_of_key(&item.key) != base).collect();
    assert_eq!(ancestors[0].key, b"");
    assert!(ancestors.iter().all(|item| item.stat.is_directory()));
    assert_eq!(ancestors.len(), base.components().count() - 1);
}

#[test]
fn walk_of_a_large_directory_is_complete_and_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let base = dir.path().canonicalize().unwrap();
    for index in 0..20_000 {
        if index % 100 == 0 {
            write(base.join(format!("{index}/inside")), b"");
        } else {
            fs::write(base.join(format!("{index}")), b"").unwrap();
        }
    }
    for threads in [1, 4] {
        let (found, problems) = walk_all(&[&base], WalkOptions { threads, ..WalkOptions::default() });
        assert!(problems.is_empty());
        assert_eq!(below(&base, &found).len(), 20_200);
    }
}

#[test]
fn walk_agrees_with_find_on_a_deep_and_odd_tree() {
    let dir = tempfile::tempdir().unwrap();
    let base = dir.path().canonicalize().unwrap();
    let odd: [&[u8]; 5] = [b"new\nline", b"\xff\xfe invalid", &[b'n'; 255], b"\x01", b"- leading"];
    for name in odd {
        write(base.join("odd").join(std::ffi::OsStr::from_bytes(name)), b"x");
    }
    let mut at = OwnedFd::from(fs::File::open(&base).unwrap());
    for index in 0..40 {
        let name = format!("d{index:0199}");
        mkdirat(&at, &name, Mode::RWXU).unwrap();
        let file = openat(&at, "f", OFlags::CREATE | OFlags::WRONLY, Mode::RUSR).unwrap();
        rustix::io::write(&file, format!("{index}\n").as_bytes()).unwrap();
        at = openat(&at, &name, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap();
    }
    let (found, problems) = walk_all(&[&base], WalkOptions::default());
    assert!(problems.is_empty(), "{problems:?}");
    let listed = std::process::Command::new("find").arg(&base).arg("-print0").output().unwrap();
    let mut listed: Vec<_> = listed.stdout.split(|&byte| byte == 0).filter(|path| !path.is_empty()).collect();
    listed.sort_by_key(|path| key_of_path(Path::new(std::ffi::OsStr::from_bytes(path)), Path::new("/")));
    let ours: Vec<_> =
        found.iter().map(|item| path_of_key(&item.key)).filter(|path| path.starts_with(&base)).collect();
    let ours: Vec<_> = ours.iter().map(|path| path.as_os_str().as_bytes()).collect();
    assert_eq!(ours, listed);
    let deepest = found.iter().max_by_key(|item| item.key.len()).unwrap();
    assert!(deepest.key.len() > 7800);
    let reader = FileReader::new(
        walk(&[&base], Path::new("/"), WalkOptions::default(), &Cancel::new()).unwrap().places(),
    );
    for item in found.iter().filter(|item| item.key.len() > 4096) {
        let captured = reader.metadata(&item.key, &item.stat).unwrap();
        assert!(captured.problems.is_empty());
        if item.stat.is_file() {
            let mut text = String::new();
            reader.open(&item.key).unwrap().read_to_string(&mut text).unwrap();
            assert!(text.ends_with('\n'));
        }
    }
}

#[test]
fn excludes_leave_out_what_they_name_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let base = dir.path().canonicalize().unwrap();
    for path in [
        "keep/a.log",
        "b.log",
        "cache/CACHEDIR.TAG",
        "cache/x",
        "fake/CACHEDIR.TAG",
        "fake/x",
        "no/.nobackup",
        "no/x/y",
        "UP/t",
    ] {
        write(base.join(path), b"not the signature");
    }
    write(base.join("cache/CACHEDIR.TAG"), b"Signature: 8a477f597d28d172789f06886806bc55\n# more");
    write(base.join("large"), &[0; 1001]);
    let exclude = ExcludeOptions {
        patterns: vec!["*.log".into(), "!keep/*.log".into()],
        patterns_any_case: vec!["up/".into()],
        caches: true,
        if_present: vec![".nobackup:not the".into()],
        larger_than_bytes: Some(1000),
        ..ExcludeOptions::default()
    };
    let (found, _) = walk_all(&[&base], WalkOptions { exclude: exclude.clone(), ..WalkOptions::default() });
    assert_eq!(
        below(&base, &found),
        [
            "cache",
            "cache/CACHEDIR.TAG",
            "fake",
            "fake/CACHEDIR.TAG",
            "fake/x",
            "keep",
            "keep/a.log",
            "no",
            "no/.nobackup"
        ]
    );
    // What the caller names is not excluded, even inside something that is.
    let roots = [base.clone(), base.join("no/x"), base.join("b.log")];
    let (found, _) = walk_all(&roots, WalkOptions { exclude, ..WalkOptions::default() });
    let paths = below(&base, &found);
    assert!(paths.contains(&"no/x/y".into()) && paths.contains(&"b.log".into()), "{paths:?}");
}

#[test]
fn a_root_that_is_a_link_is_a_link_unless_it_ends_in_a_slash() {
    let dir = tempfile::tempdir().unwrap();
    let base = dir.path().canonicalize().unwrap();
    write(base.join("real/sub/f"), b"1");
    symlink("real", base.join("link")).unwrap();
    let kinds = |roots: &[&str]| -> BTreeMap<String, bool> {
        let roots: Vec<String> = roots.iter().map(|root| format!("{}/{root}", base.display())).collect();
        let walk = walk(&roots, Path::new("/"), WalkOptions::default(), &Cancel::new()).unwrap();
        let reader = FileReader::new(walk.places());
        let found: Vec<Found> = walk.flatten().map(Result::unwrap).collect();
        for item in found.iter().filter(|item| item.stat.is_file()) {
            reader.open(&item.key).unwrap();
        }
        below(&base, &found)
            .into_iter()
            .zip(found.iter().skip_while(|i| path_of_key(&i.key) == base))
            .count();
        found
            .iter()
            .filter_map(|item| {
                let path = path_of_key(&item.key);
                let path = path.strip_prefix(&base).ok()?.to_string_lossy().into_owned();
                (!path.is_empty()).then(|| (path, item.stat.is_directory()))
            })
            .collect()
    };
    let expect = |pairs: &[(&str, bool)]| {
        pairs.iter().map(|(path, is)| (path.to_string(), *is)).collect::<BTreeMap<_, _>>()
    };
    assert_eq!(kinds(&["link"]), expect(&[("link", false)]));
    assert_eq!(kinds(&["link/"]), expect(&[("link", true), ("link/sub", true), ("link/sub/f", false)]));
    assert_eq!(kinds(&["link/sub/f"]), expect(&[("link", true), ("link/sub", true), ("link/sub/f", false)]));
    assert!(kinds(&["", "link/sub"])["link"]);
}

#[test]
fn what_is_missing_or_unreadable_is_a_problem_with_its_name() {
    let dir = tempfile::tempdir().unwrap();
    let base = dir.path().canonicalize().unwrap();
    write(base.join("f"), b"1");
    let (found, problems) =
        walk_all(&[base.join("gone/deeper"), base.join("f/below"), base.join("f")], WalkOptions::default());
    assert_eq!(below(&base, &found), ["f"]);
    assert_eq!(problems.len(), 2);
    assert!(problems.iter().all(|problem| problem.root));
    assert_eq!(problems[1].error.path, base.join("gone/deeper"));
    assert!(problems.iter().all(|problem| problem.error.kind() == FileErrorKind::Vanished));
}

#[test]
fn metadata_and_bytes_are_read_as_they_are() {
    let dir = tempfile::tempdir().unwrap();
    let base = dir.path().canonicalize().unwrap();
    let path = base.join("f");
    write(&path, b"hello");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o4751)).unwrap();
    rustix::fs::setxattr(&path, "user.short", b"v", rustix::fs::XattrFlags::empty()).unwrap();
    let long = vec![7u8; 3000];
    rustix::fs::setxattr(&path, "user.long", &long, rustix::fs::XattrFlags::empty()).unwrap();
    symlink("some\nwhere", base.join("l")).unwrap();
    let walk = walk(&[&base], Path::new("/"), WalkOptions::default(), &Cancel::new()).unwrap();
    let reader = FileReader::new(walk.places());
    let found: Vec<Found> = walk.flatten().map(Result::unwrap).collect();
    let file = found.iter().find(|item| item.key.ends_with(b"\0f")).unwrap();
    let mut open = reader.open(&file.key).unwrap();
    let captured = reader.describe(&open);
    assert_eq!(captured.entry.mode, 0o4751);
    assert_eq!(captured.entry.user.as_deref(), Some(&b"root"[..]));
    assert_eq!(
        captured.entry.xattrs,
        [
            (b"user.long".to_vec(), XattrValue::Inline(long)),
            (b"user.short".to_vec(), XattrValue::Inline(b"v".to_vec()))
        ]
    );
    let mut text = String::new();
    open.read_to_string(&mut text).unwrap();
    assert_eq!(text, "hello");
    assert!(!open.changed_while_reading().unwrap());
    fs::write(&path, b"longer now").unwrap();
    assert!(open.finish().unwrap().changed);
    let link = found.iter().find(|item| item.key.ends_with(b"\0l")).unwrap();
    assert_eq!(
        reader.metadata(&link.key, &link.stat).unwrap().entry.kind,
        Kind::Symlink(b"some\nwhere".to_vec())
    );
    fs::remove_file(&path).unwrap();
    symlink("/etc/passwd", &path).unwrap();
    assert_eq!(reader.open(&file.key).unwrap_err().kind(), FileErrorKind::Vanished);
}

#[test]
fn holes_are_found_and_only_data_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let base = dir.path().canonicalize().unwrap();
    let path = base.join("sparse");
    let file = fs::File::create(&path).unwrap();
    file.set_len(10 << 20).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, &[1; 4096], 1 << 20).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, &[2; 4096], 5 << 20).unwrap();
    let walk = walk(&[&base], Path::new("/"), WalkOptions::default(), &Cancel::new()).unwrap();
    let reader = FileReader::new(walk.places());
    let mut open = reader.open(&key_of_path(&path, Path::new("/"))).unwrap();
    assert_eq!(open.holes()[0], (0, 1 << 20));
    assert_eq!(open.data_bytes(), 8192);
    let mut bytes = Vec::new();
    open.read_to_end(&mut bytes).unwrap();
    assert_eq!(bytes, [[1; 4096], [2; 4096]].concat());
    // Cut short behind our back: the outcome says what was read, and that it is no state to trust.
    let mut open = reader.open(&key_of_path(&path, Path::new("/"))).unwrap();
    file.set_len(2 << 20).unwrap();
    bytes.clear();
    open.read_to_end(&mut bytes).unwrap();
    let outcome = open.finish().unwrap();
    let holes: u64 = outcome.holes.iter().map(|(_, length)| length).sum();
    assert!(outcome.changed);
    assert_eq!(outcome.size_bytes, holes + bytes.len() as u64);
}
