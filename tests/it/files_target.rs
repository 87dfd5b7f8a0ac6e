//! Files put back: every attribute compared by rsync, getfacl and getfattr, and a target nobody gets out of.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use lifeboat::base::cancel::Cancel;
use lifeboat::format::entry::{Content, Entry, Kind, Timestamp, XattrValue};
use lifeboat::source::files::key_of_path;
use lifeboat::source::files::read::FileReader;
use lifeboat::source::files::target::{Target, TargetError, TargetOptions};
use lifeboat::source::files::walk::{WalkOptions, walk};
use rustix::fs::{CWD, FileType, Mode, OFlags, Timespec, Timestamps, mkdirat, mknodat, openat};

/// What a snapshot would hold of one path: key below the source, entry with whole attributes, bytes outside holes.
type Kept = (Vec<u8>, Entry, Vec<u8>);

fn capture(base: &Path) -> Vec<Kept> {
    let walk = walk(&[base], Path::new("/"), WalkOptions::default(), &Cancel::new()).unwrap();
    let reader = FileReader::new(walk.places());
    let prefix = key_of_path(base, Path::new("/"));
    let mut leaders: HashMap<(u64, u64), Vec<u8>> = HashMap::new();
    let mut kept = Vec::new();
    for found in walk.flatten().map(Result::unwrap) {
        let Some(key) = found.key.strip_prefix(prefix.as_slice()) else { continue };
        let key = key.strip_prefix(b"\0").unwrap_or(key).to_vec();
        let mut bytes = Vec::new();
        let mut captured;
        if found.stat.is_file() {
            let mut open = reader.open(&found.key).unwrap();
            captured = reader.describe(&open);
            open.read_to_end(&mut bytes).unwrap();
            let outcome = open.finish().unwrap();
            assert!(!outcome.changed);
            let content =
                Content { size_bytes: outcome.size_bytes, holes: outcome.holes, ..Content::empty() };
            captured.entry.kind = Kind::File(content);
        } else {
            captured = reader.metadata(&found.key, &found.stat).unwrap();
        }
        assert!(captured.problems.is_empty(), "{:?}", captured.problems);
        let mut entry = captured.entry;
        entry
            .xattrs
            .extend(captured.long_xattrs.into_iter().map(|(name, value)| (name, XattrValue::Inline(value))));
        entry.xattrs.sort_by(|a, b| a.0.cmp(&b.0));
        if found.stat.links > 1 && !found.stat.is_directory() {
            let leader = leaders.entry((found.stat.device, found.stat.inode)).or_insert_with(|| key.clone());
            entry.hardlink_to = (*leader != key).then(|| leader.clone());
        }
        kept.push((key, entry, bytes));
    }
    kept
}

/// Puts everything back; how many attributes could not be set.
fn restore(target: &Arc<Target>, kept: &[Kept], in_place: bool) -> usize {
    let mut problems = 0;
    for (key, entry, bytes) in kept {
        if let Some(leader) = &entry.hardlink_to {
            target.make_hardlink(key, leader).unwrap();
            continue;
        }
        match &entry.kind {
            Kind::Directory => drop(target.make_directory(key).unwrap()),
            Kind::File(content) => {
                let update =
                    if in_place { target.update_file(key, content.size_bytes).unwrap() } else { None };
                let dense = content.holes.is_empty();
                let file =
                    update.unwrap_or_else(|| target.create_file(key, content.size_bytes, dense).unwrap());
                let (mut at, mut from) = (0, 0);
                for &(offset, length) in content.holes.iter().chain([&(content.size_bytes, 0)]) {
                    let data = (offset - at) as usize;
                    file.write_at(at, &bytes[from..from + data]).unwrap();
                    file.zero_at(offset, length).unwrap();
                    (at, from) = (offset + length, from + data);
                }
                problems += file.finish(entry).unwrap().len();
            }
            kind => {
                target.make_special(key, kind).unwrap();
                problems += target.finish_metadata(key, entry).unwrap().len();
            }
        }
    }
    for (key, entry, _) in kept.iter().rev().filter(|(_, entry, _)| entry.is_directory()) {
        problems += target.finish_metadata(key, entry).unwrap().len();
    }
    problems
}

pub fn output(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// What rsync, getfacl and getfattr see that differs.
pub fn differences(a: &Path, b: &Path) -> String {
    let mut report = output(
        Command::new("rsync")
            .args(["-aHAXn", "--checksum", "--itemize-changes", "--delete"])
            .arg(format!("{}/", a.display()))
            .arg(format!("{}/", b.display())),
    );
    for tool in [&["getfacl", "-R", "-p", "-n"][..], &["getfattr", "-R", "-h", "-d", "-m", "-", "-e", "hex"]]
    {
        let run = |base: &Path| output(Command::new(tool[0]).args(&tool[1..]).arg(".").current_dir(base));
        if run(a) != run(b) {
            report.push_str(&format!("{} differs\n", tool[0]));
        }
    }
    report
}

fn set_mtime(path: &Path, seconds: i64, nanoseconds: i64) {
    let time = Timespec { tv_sec: seconds, tv_nsec: nanoseconds };
    let times = Timestamps { last_access: time, last_modification: time };
    rustix::fs::utimensat(CWD, path, &times, rustix::fs::AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

pub fn xattr(path: &Path, name: &str, value: &[u8]) {
    rustix::fs::lsetxattr(path, name, value, rustix::fs::XattrFlags::empty()).unwrap();
}

/// A tree with everything a file system keeps. Needs root.
pub fn rich_tree(base: &Path) {
    let at = |name: &str| base.join(name);
    fs::create_dir_all(at("d/sub")).unwrap();
    fs::write(at("d/plain"), b"plain").unwrap();
    fs::write(at("d/sub/empty"), b"").unwrap();
    fs::write(at("d/large"), vec![5; 3_000_000]).unwrap();
    for name in [&b"new\nline"[..], b"\xff\xfe", &[b'n'; 255], b" ", b"*?["] {
        fs::write(at("d").join(OsStr::from_bytes(name)), b"odd").unwrap();
    }
    fs::hard_link(at("d/plain"), at("d/sub/again")).unwrap();
    fs::hard_link(at("d/plain"), at("z-again")).unwrap();
    symlink("d/plain", at("link")).unwrap();
    symlink(OsStr::from_bytes(b"/nowhere/\xff\n"), at("dangling")).unwrap();
    set_mtime(&at("link"), 1_234_567_890, 5);
    std::os::unix::fs::lchown(at("dangling"), Some(7), Some(8)).unwrap();
    let mode = Mode::from_raw_mode(0o640);
    mknodat(CWD, at("fifo"), FileType::Fifo, mode, 0).unwrap();
    mknodat(CWD, at("socket"), FileType::Socket, mode, 0).unwrap();
    mknodat(CWD, at("null"), FileType::CharacterDevice, mode, rustix::fs::makedev(1, 3)).unwrap();
    mknodat(CWD, at("block"), FileType::BlockDevice, mode, rustix::fs::makedev(259, 70_000)).unwrap();
    set_mtime(&at("fifo"), -5, 999_999_999);
    let sparse = fs::File::create(at("sparse")).unwrap();
    sparse.set_len(20 << 20).unwrap();
    sparse.write_all_at(b"in the middle", 10 << 20).unwrap();
    for (name, owner, mode) in
        [("suid", 1, 0o4755), ("sgid", 2, 0o2751), ("secret", 3, 0o000), ("sticky", 4, 0o1666)]
    {
        fs::write(at(name), name).unwrap();
        std::os::unix::fs::chown(at(name), Some(owner), Some(owner + 100_000)).unwrap();
        fs::set_permissions(at(name), fs::Permissions::from_mode(mode)).unwrap();
    }
    set_mtime(&at("suid"), -1_000_000_000, 123_456_789);
    set_mtime(&at("secret"), 4_000_000_000, 1);
    xattr(&at("d/large"), "user.empty", b"");
    xattr(&at("d/large"), "user.long", &[b'l'; 3000]);
    xattr(&at("d/large"), "trusted.t", b"\0\x01");
    xattr(&at("link"), "trusted.on-link", b"v");
    xattr(&at("d"), "user.dir", b"v");
    let capability = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    xattr(&at("suid"), "security.capability", &capability);
    output(Command::new("setfacl").args(["-m", "u:1234:rw,g:5:r,m::rw"]).arg(at("sgid")));
    output(Command::new("setfacl").args(["-d", "-m", "u:1234:rwx"]).arg(at("d/sub")));
    fs::create_dir(at("closed")).unwrap();
    fs::write(at("closed/inside"), b"x").unwrap();
    fs::set_permissions(at("closed"), fs::Permissions::from_mode(0o2511)).unwrap();
    set_mtime(&at("closed"), 1_000, 7);
    set_mtime(&at("d"), 2_000, 8);
    set_mtime(base, 3_000, 9);
}

pub fn scratch() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let base = dir.path().canonicalize().unwrap();
    (dir, base)
}

#[test]
fn everything_comes_back_as_rsync_getfacl_and_getfattr_see_it() {
    let (_dir, base) = scratch();
    let (source, copy) = (base.join("source"), base.join("copy"));
    fs::create_dir(&source).unwrap();
    rich_tree(&source);
    let kept = capture(&source);
    let target = Target::open(&copy, TargetOptions::default()).unwrap();
    assert_eq!(restore(&target, &kept, false), 0);
    assert_eq!(differences(&source, &copy), "");
    assert!(fs::metadata(copy.join("sparse")).unwrap().blocks() < 100);
    // Once more over what is there, in place and not; then with every kind of thing under the wrong name.
    assert_eq!(restore(&target, &kept, true), 0);
    assert_eq!(differences(&source, &copy), "");
    fs::write(copy.join("sparse"), vec![1; 30 << 20]).unwrap();
    xattr(&copy.join("d/plain"), "user.extra", b"");
    fs::remove_file(copy.join("fifo")).unwrap();
    fs::create_dir(copy.join("fifo")).unwrap();
    fs::remove_file(copy.join("suid")).unwrap();
    symlink("/etc/passwd", copy.join("suid")).unwrap();
    fs::remove_dir_all(copy.join("closed")).unwrap();
    fs::write(copy.join("closed"), b"").unwrap();
    output(Command::new("setfacl").args(["-m", "u:9:r"]).arg(copy.join("d/plain")));
    assert_eq!(restore(&target, &kept, true), 0);
    assert_eq!(differences(&source, &copy), "");
    assert_eq!(restore(&target, &kept, false), 0);
    assert_eq!(differences(&source, &copy), "");
}

#[test]
fn new_files_do_not_keep_an_acl_they_inherit() {
    let (_dir, base) = scratch();
    let (source, copy) = (base.join("source"), base.join("copy"));
    fs::create_dir_all(source.join("d")).unwrap();
    fs::write(source.join("d/f"), b"x").unwrap();
    fs::create_dir(&copy).unwrap();
    output(Command::new("setfacl").args(["-d", "-m", "u:1234:rwx"]).arg(&copy));
    let target = Target::open(&copy, TargetOptions::default()).unwrap();
    assert_eq!(restore(&target, &capture(&source), false), 0);
    assert_eq!(differences(&source, &copy), "");
}

#[test]
fn paths_longer_than_a_system_call_takes_come_back() {
    let (_dir, base) = scratch();
    let (source, copy) = (base.join("source"), base.join("copy"));
    fs::create_dir(&source).unwrap();
    let mut at = std::os::fd::OwnedFd::from(fs::File::open(&source).unwrap());
    for index in 0..30 {
        let name = format!("d{index:0199}");
        mkdirat(&at, &name, Mode::RWXU).unwrap();
        at = openat(&at, &name, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap();
        let file = openat(&at, "f", OFlags::CREATE | OFlags::WRONLY, Mode::RUSR).unwrap();
        rustix::io::write(&file, format!("{index}").as_bytes()).unwrap();
        rustix::fs::symlinkat("f", &at, "l").unwrap();
        mknodat(&at, "p", FileType::Fifo, Mode::RUSR, 0).unwrap();
    }
    let kept = capture(&source);
    let target = Target::open(&copy, TargetOptions::default()).unwrap();
    assert_eq!(restore(&target, &kept, false), 0);
    let again = capture(&copy);
    assert!(again == kept);
    let name = format!("d{:0199}", 0);
    assert_eq!(target.remove(name.as_bytes()).unwrap(), 30 * 4);
    assert_eq!(fs::read_dir(&copy).unwrap().count(), 0);
}

fn plain_file() -> Entry {
    Entry {
        kind: Kind::File(Content::empty()),
        mode: 0o644,
        uid: 0,
        gid: 0,
        user: None,
        group: None,
        mtime: Timestamp { seconds: 1, nanoseconds: 2 },
        xattrs: Vec::new(),
        hardlink_to: None,
    }
}

#[test]
fn nothing_is_written_outside_the_target() {
    let (_dir, base) = scratch();
    let (outside, copy) = (base.join("outside"), base.join("copy"));
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("victim"), b"untouched").unwrap();
    fs::create_dir(&copy).unwrap();
    let target = Target::open(&copy, TargetOptions::default()).unwrap();
    for key in [&b"..\0outside\0new"[..], b"/tmp/x", b"a/../../x", b"", b"a\0\0b", b"."] {
        assert!(target.create_file(key, 1, true).is_err());
        assert!(target.make_special(key, &Kind::Fifo).is_err());
        assert!(target.update_file(key, 1).map_or(true, |file| file.is_none()));
    }
    // Links planted where directories and files must be.
    symlink(&outside, copy.join("d")).unwrap();
    symlink(outside.join("victim"), copy.join("f")).unwrap();
    assert_eq!(target.existing(b"d\0victim").unwrap(), None);
    assert!(target.remove(b"d\0victim").is_err());
    assert!(target.make_hardlink(b"h", b"d\0victim").is_err());
    assert!(target.update_file(b"f", 0).unwrap().is_none());
    assert!(target.finish_metadata(b"f", &plain_file()).is_err());
    assert!(target.names(b"d").unwrap().is_empty());
    for key in [&b"f"[..], b"d\0victim", b"d\0deep\0er"] {
        let file = target.create_file(key, 3, true).unwrap();
        file.write_at(0, b"new").unwrap();
        file.finish(&plain_file()).unwrap();
    }
    assert!(!copy.join("d").is_symlink() && !copy.join("f").is_symlink());
    assert_eq!(fs::read(copy.join("d/victim")).unwrap(), b"new");
    // A directory already open here and then swapped for a link.
    fs::rename(copy.join("d"), copy.join("moved")).unwrap();
    symlink(&outside, copy.join("d")).unwrap();
    let file = target.create_file(b"d\0swapped", 0, true).unwrap();
    file.finish(&plain_file()).unwrap();
    // A tree to remove that holds a link out.
    symlink(&outside, copy.join("moved/out")).unwrap();
    target.remove(b"moved").unwrap();
    assert_eq!(fs::read(outside.join("victim")).unwrap(), b"untouched");
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 1);
}

#[test]
fn a_file_has_its_name_only_when_it_is_whole() {
    let (_dir, base) = scratch();
    let target = Target::open(&base, TargetOptions::default()).unwrap();
    fs::write(base.join("f"), b"before").unwrap();
    let file = target.create_file(b"f", 5, true).unwrap();
    file.write_at(2, b"cde").unwrap();
    assert_eq!(fs::read(base.join("f")).unwrap(), b"before");
    let beside = target.extra(b"", |name| name == b"f").unwrap();
    assert!(beside[0].starts_with(b".lifeboat-restore-"));
    std::mem::forget(file);
    // The run after one that was killed takes the leftover away.
    let file = target.create_file(b"f", 5, true).unwrap();
    file.write_at(2, b"cde").unwrap();
    file.write_at(0, b"ab").unwrap();
    file.finish(&plain_file()).unwrap();
    assert_eq!(fs::read(base.join("f")).unwrap(), b"abcde");
    assert!(target.extra(b"", |name| name == b"f").unwrap().is_empty());
    drop(target.create_file(b"g", 5, true).unwrap());
    assert!(!base.join("g").exists() && target.names(b"").unwrap() == [b"f"]);
}

#[test]
fn an_update_in_place_leaves_other_names_of_the_file_alone() {
    let (_dir, base) = scratch();
    let target = Target::open(&base, TargetOptions::default()).unwrap();
    fs::write(base.join("f"), b"0123456789").unwrap();
    let file = target.update_file(b"f", 4).unwrap().unwrap();
    let mut bytes = [0; 20];
    assert_eq!(file.read_at(0, &mut bytes).unwrap(), 10);
    file.write_at(1, b"x").unwrap();
    file.finish(&plain_file()).unwrap();
    assert_eq!(fs::read(base.join("f")).unwrap(), b"0x23");
    fs::hard_link(base.join("f"), base.join("other")).unwrap();
    assert!(target.update_file(b"f", 4).unwrap().is_none());
    assert!(target.update_file(b"none", 4).unwrap().is_none());
}

#[test]
fn zero_runs_become_holes_where_asked() {
    let (_dir, base) = scratch();
    let target = Target::open(&base, TargetOptions { sparse: true, ..TargetOptions::default() }).unwrap();
    let mut bytes = vec![0; 4 << 20];
    bytes[5000] = 1;
    bytes[(2 << 20) + 17] = 2;
    let file = target.create_file(b"f", bytes.len() as u64, true).unwrap();
    for (index, part) in bytes.chunks(70_001).enumerate() {
        file.write_at(index as u64 * 70_001, part).unwrap();
    }
    file.finish(&plain_file()).unwrap();
    assert!(fs::read(base.join("f")).unwrap() == bytes);
    assert!(fs::metadata(base.join("f")).unwrap().blocks() <= 64);
}

#[test]
fn a_directory_with_content_is_replaced_only_where_asked() {
    let (_dir, base) = scratch();
    fs::create_dir_all(base.join("a/b/c")).unwrap();
    fs::write(base.join("a/b/f"), b"").unwrap();
    let target = Target::open(&base, TargetOptions::default()).unwrap();
    assert!(matches!(target.make_special(b"a", &Kind::Fifo), Err(TargetError::InTheWay(_))));
    assert!(matches!(Target::open(&base, TargetOptions::default()), Err(TargetError::Busy(_))));
    assert_eq!(target.names(b"").unwrap(), [b"a"]);
    drop(target);
    let options = TargetOptions { replace_directories: true, ..TargetOptions::default() };
    let target = Target::open(&base, options).unwrap();
    target.make_special(b"a", &Kind::Symlink(b"x".to_vec())).unwrap();
    assert_eq!(target.read_link(b"a").unwrap(), b"x");
    assert_eq!(target.names(b"").unwrap(), [b"a"]);
}

#[test]
fn a_full_disk_names_the_file() {
    let (_dir, base) = scratch();
    let mount = base.join("small");
    fs::create_dir(&mount).unwrap();
    if !Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=2m", "none"])
        .arg(&mount)
        .status()
        .unwrap()
        .success()
    {
        return;
    }
    let target = Target::open(&mount, TargetOptions::default()).unwrap();
    let early = target.create_file(b"d\0large", 5 << 20, true).unwrap_err();
    let file = target.create_file(b"d\0small", 5 << 20, false).unwrap();
    let late = (0..5).find_map(|part| file.write_at(part << 20, &[1; 1 << 20]).err());
    drop(file);
    let left = target.names(b"d").unwrap();
    drop(target);
    output(Command::new("umount").arg("-l").arg(&mount));
    assert!(early.to_string().contains("d/large"), "{early}");
    assert_eq!(late.unwrap().kind(), lifeboat::source::files::FileErrorKind::Full);
    assert!(left.is_empty());
}

/// Runs one test of this program again as user `nobody`, who finds `base` in its environment.
fn as_nobody(test: &str, base: &Path) {
    let program = base.join("test-program");
    fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    fs::set_permissions(base, fs::Permissions::from_mode(0o755)).unwrap();
    output(
        Command::new("setpriv")
            .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
            .arg(&program)
            .args(["--exact", &format!("files_target::{test}")])
            .env("LIFEBOAT_TEST_BASE", base)
            .current_dir(base),
    );
}

#[test]
fn without_root_what_is_closed_is_named_and_the_rest_comes_back() {
    if let Some(base) = std::env::var_os("LIFEBOAT_TEST_BASE") {
        return nobody_reads_and_restores(Path::new(&base));
    }
    let (_dir, base) = scratch();
    fs::create_dir_all(base.join("source/closed")).unwrap();
    fs::write(base.join("source/closed/in"), b"x").unwrap();
    fs::write(base.join("source/open"), b"x").unwrap();
    fs::write(base.join("source/secret"), b"x").unwrap();
    fs::set_permissions(base.join("source/closed"), fs::Permissions::from_mode(0o700)).unwrap();
    fs::set_permissions(base.join("source/secret"), fs::Permissions::from_mode(0o600)).unwrap();
    fs::set_permissions(base.join("source/open"), fs::Permissions::from_mode(0o4755)).unwrap();
    fs::create_dir(base.join("copy")).unwrap();
    std::os::unix::fs::chown(base.join("copy"), Some(65534), Some(65534)).unwrap();
    as_nobody("without_root_what_is_closed_is_named_and_the_rest_comes_back", &base);
    let restored = fs::metadata(base.join("copy/open")).unwrap();
    assert_eq!((restored.uid(), restored.gid()), (65534, 65534));
    assert_eq!(restored.mode() & 0o7777, 0o755, "no set-id bit for the wrong owner");
    assert_eq!(fs::metadata(base.join("copy/dir")).unwrap().mode() & 0o777, 0o555);
    assert_eq!(fs::read(base.join("copy/dir/f")).unwrap(), b"two");
}

fn nobody_reads_and_restores(base: &Path) {
    let walk = walk(&[base.join("source")], Path::new("/"), WalkOptions::default(), &Cancel::new()).unwrap();
    let reader = FileReader::new(walk.places());
    let (mut opened, mut closed) = (Vec::new(), Vec::new());
    for item in walk.flatten() {
        match item {
            Ok(found) if found.stat.is_file() => match reader.open(&found.key) {
                Ok(file) => opened.push(reader.describe(&file).entry),
                Err(error) => closed.push(error),
            },
            Ok(_) => {}
            Err(problem) => closed.push(problem.error),
        }
    }
    let paths: Vec<_> =
        closed.iter().map(|error| error.path.strip_prefix(base.join("source")).unwrap()).collect();
    assert_eq!(paths, [Path::new("closed"), Path::new("secret")]);
    assert!(closed.iter().all(|error| error.kind() == lifeboat::source::files::FileErrorKind::Denied));
    let target = Target::open(&base.join("copy"), TargetOptions::default()).unwrap();
    let problems = target.create_file(b"open", 0, true).unwrap().finish(&opened[0]).unwrap();
    assert_eq!(problems.len(), 1, "{problems:?}");
    // A directory that is read-only from the first restore takes the second one.
    let directory = Entry { kind: Kind::Directory, mode: 0o555, uid: 65534, gid: 65534, ..plain_file() };
    let entry = Entry { uid: 65534, gid: 65534, mode: 0o444, ..plain_file() };
    for bytes in [b"one", b"two"] {
        target.make_directory(b"dir").unwrap();
        assert!(target.update_file(b"dir\0f", 3).unwrap().is_none());
        let file = target.create_file(b"dir\0f", 3, true).unwrap();
        file.write_at(0, bytes).unwrap();
        assert!(file.finish(&entry).unwrap().is_empty());
        assert!(target.finish_metadata(b"dir", &directory).unwrap().is_empty());
    }
    assert!(target.make_special(b"device", &Kind::CharDevice { major: 1, minor: 3 }).is_err());
}
