//! Git repositories: bundled, given back, refs and objects compared; what is not whole is refused.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::conformance::{self, Subject};
use crate::cli::Machine;

struct Git {
    folder: tempfile::TempDir,
    made: u32,
}

pub fn git(folder: &Path, arguments: &[&str]) -> String {
    let mut command = Command::new("git");
    command.args([
        "-c",
        "user.name=Ada",
        "-c",
        "user.email=ada@example.org",
        "-c",
        "init.defaultBranch=main",
    ]);
    command.args(["-c", "safe.directory=*", "-c", "protocol.file.allow=always"]);
    let output = command.arg("-C").arg(folder).args(arguments).output().unwrap();
    assert!(output.status.success(), "git {arguments:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// A commit of one file.
fn commit(folder: &Path, name: &str, content: &str) {
    std::fs::write(folder.join(name), content).unwrap();
    git(folder, &["add", "-A"]);
    git(folder, &["commit", "--quiet", "-m", &format!("{name} as told")]);
}

impl Git {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap(), made: 0 }
    }
    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
    fn source(&self) -> PathBuf {
        self.path("shop")
    }
}

impl Subject for Git {
    fn address(&self) -> String {
        format!("git:{}", self.source().display())
    }
    fn vacant(&mut self) -> String {
        self.made += 1;
        format!("git:{}", self.path(&format!("restored-{}", self.made)).display())
    }
    fn fill(&mut self) {
        let source = self.source();
        std::fs::create_dir(&source).unwrap();
        git(&source, &["init", "--quiet"]);
        for number in 0..20 {
            commit(&source, &format!("file {}", number % 5), &format!("line {number}\n").repeat(50));
        }
        git(&source, &["tag", "-a", "v1", "-m", "the first"]);
        git(&source, &["branch", "odd/ü-name"]);
        git(&source, &["symbolic-ref", "refs/heads/alias", "refs/heads/main"]);
        git(&source, &["notes", "add", "-m", "a note"]);
        let hook = source.join(".git/hooks/post-commit");
        std::fs::write(&hook, "#!/bin/sh\nexit 0\n").unwrap();
        git(&source, &["config", "shop.answer", "42"]);
    }
    fn change(&mut self) {
        commit(&self.source(), "more", "more\n");
        git(&self.source(), &["branch", "--delete", "--force", "odd/ü-name"]);
    }
    fn content(&self, address: &str) -> String {
        let path = PathBuf::from(address.strip_prefix("git:").unwrap());
        let refs = git(&path, &["for-each-ref", "--format=%(refname) %(objectname) %(symref)"]);
        let head = git(&path, &["symbolic-ref", "HEAD"]);
        let files = git(&path, &["status", "--porcelain"]);
        let answer = git(&path, &["config", "shop.answer"]);
        let hook = std::fs::read_to_string(path.join(".git/hooks/post-commit")).unwrap();
        let log = git(&path, &["log", "--all", "--format=%H %s"]);
        format!("{refs}{head}{files}{answer}{hook}{log}")
    }
    fn nowhere(&self) -> String {
        format!("git:{}", self.path("missing").display())
    }
}

#[test]
fn a_git_repository_is_captured_and_given_back() {
    conformance::captured_and_given_back(&mut Git::new());
}

#[test]
fn a_git_repository_that_is_not_there_gives_no_snapshot() {
    conformance::nothing_there(&Git::new());
}

#[test]
fn damage_in_the_repository_leaves_a_git_target_as_it_was() {
    conformance::damage_reaches_no_target(&mut Git::new());
}

/// Bare ones, one of SHA-256, an empty one, one with a detached HEAD that no branch holds, one below a folder.
#[test]
fn a_folder_of_repositories_comes_back_each_as_it_was() {
    let git_subject = Git::new();
    let served = git_subject.path("served");
    let work = git_subject.path("work");
    std::fs::create_dir_all(served.join("team")).unwrap();
    std::fs::create_dir(&work).unwrap();
    git(&work, &["init", "--quiet", "--object-format=sha256"]);
    commit(&work, "a", "a\n");
    git(&served, &["clone", "--quiet", "--bare", work.to_str().unwrap(), "team/new.git"]);
    git(&served, &["init", "--quiet", "--bare", "empty.git"]);
    git(&served, &["init", "--quiet", "detached"]);
    let detached = served.join("detached");
    commit(&detached, "a", "a\n");
    git(&detached, &["checkout", "--quiet", "--detach"]);
    commit(&detached, "b", "only HEAD holds this\n");
    let lonely = git(&detached, &["rev-parse", "HEAD"]);

    let machine = Machine::with_repository();
    let said = machine.run(&["backup", &format!("git:{}", served.display())]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    let back = git_subject.path("back");
    let to = format!("git:{}", back.display());
    let said = machine.run(&["restore", "latest", "--to", &to]);
    assert_eq!(said.code, 0, "{}{}", said.stdout, said.stderr);
    assert!(said.stdout.contains("proven  empty.git: an empty repository, as it was"), "{}", said.stdout);
    assert_eq!(git(&back.join("detached"), &["rev-parse", "HEAD"]), lonely);
    assert_eq!(std::fs::read_to_string(back.join("detached/b")).unwrap(), "only HEAD holds this\n");
    assert_eq!(git(&back.join("team/new.git"), &["rev-parse", "main"]), git(&work, &["rev-parse", "main"]));
    assert_eq!(git(&back.join("team/new.git"), &["rev-parse", "--is-bare-repository"]), "true\n");
    assert_eq!(git(&back.join("empty.git"), &["for-each-ref"]), "");

    // One of them by its path, with files although it was bare.
    let one = format!("git:{}?worktree=yes", git_subject.path("one").display());
    let said = machine.run(&["restore", "latest:/team/new.git", "--to", &one]);
    assert_eq!(said.code, 0, "{}{}", said.stdout, said.stderr);
    assert_eq!(std::fs::read_to_string(git_subject.path("one/a")).unwrap(), "a\n");
}

#[test]
fn damaged_shallow_and_linked_repositories_are_refused_by_name() {
    let mut subject = Git::new();
    subject.fill();
    let machine = Machine::with_repository();
    let source = subject.source();
    git(&source, &["worktree", "add", "--quiet", "../linked", "-b", "linked"]);
    let said = machine.run(&["backup", &format!("git:{}", subject.path("linked").display())]);
    assert_eq!(said.code, 2, "{}", said.stderr);
    assert!(said.stderr.contains("is a worktree of another repository"), "{}", said.stderr);
    assert!(said.stderr.contains("shop/.git"), "{}", said.stderr);

    let url = format!("file://{}", source.display());
    git(subject.folder.path(), &["clone", "--quiet", "--depth=1", &url, "short"]);
    let said = machine.run(&["backup", &format!("git:{}", subject.path("short").display())]);
    assert_eq!(said.code, 2, "{}", said.stderr);
    assert!(said.stderr.contains("repository short is shallow"), "{}", said.stderr);
    assert!(said.stderr.contains("--unshallow"), "{}", said.stderr);

    // A blob that no longer is what its name says.
    let blob = git(&source, &["rev-parse", "HEAD:file 0"]);
    let (first, rest) = blob.trim().split_at(2);
    let object = source.join(".git/objects").join(first).join(rest);
    std::fs::remove_file(&object).unwrap();
    std::fs::write(&object, "nothing of git's").unwrap();
    let said = machine.run(&["backup", &subject.address()]);
    assert_eq!(said.code, 1, "{}", said.stderr);
    assert!(said.stderr.contains("repository shop is damaged"), "{}", said.stderr);
    assert!(said.stderr.contains(blob.trim()), "{}", said.stderr);
    let listed = machine.run(&["--json", "snapshots"]);
    assert_eq!(listed.json().as_array().map(Vec::len), Some(0));
}

/// Whatever a repository is configured to run is not run by a backup or a restore.
#[test]
fn nothing_that_a_repository_says_is_run() {
    let mut subject = Git::new();
    subject.fill();
    let source = subject.source();
    let mark = subject.path("was-run");
    let run = format!("touch {}", mark.display());
    for key in ["core.fsmonitor", "core.pager", "core.sshCommand", "filter.x.smudge", "filter.x.clean"] {
        git(&source, &["config", key, &run]);
    }
    std::fs::remove_file(&mark).ok();
    std::fs::write(source.join(".git/info/attributes"), "* filter=x\n").unwrap();
    for hook in ["post-checkout", "post-index-change", "reference-transaction", "pre-auto-gc"] {
        let path = source.join(".git/hooks").join(hook);
        std::fs::write(&path, format!("#!/bin/sh\n{run}\n")).unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(&path, mode).unwrap();
    }
    let machine = Machine::with_repository();
    let said = machine.run(&["backup", &subject.address()]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    let target = subject.vacant();
    let said = machine.run(&["restore", "latest", "--to", &target]);
    assert_eq!(said.code, 0, "{}{}", said.stdout, said.stderr);
    assert!(!mark.exists(), "something of the repository's was run");
    assert!(subject.path("restored-1/.git/hooks/post-checkout").exists());
}

/// A day's commits add little: the old objects come in the same bytes.
#[test]
fn a_second_bundle_adds_little() {
    let mut subject = Git::new();
    subject.fill();
    let machine = Machine::with_repository();
    // What does not compress, so that its bytes can be counted.
    let mut state = 88_172_645_463_325_252_u64;
    let mut noise = |length: usize| -> Vec<u8> {
        let next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state as u8
        };
        std::iter::repeat_with(next).take(length).collect()
    };
    for number in 0..8 {
        let bytes = noise(500_000);
        std::fs::write(subject.source().join(format!("picture-{number}")), bytes).unwrap();
    }
    git(&subject.source(), &["add", "-A"]);
    git(&subject.source(), &["commit", "--quiet", "-m", "pictures"]);
    let added = |machine: &Machine| {
        let said = machine.run(&["--json", "backup", &subject.address()]);
        assert_eq!(said.code, 0, "{}", said.stderr);
        said.json()["statistics"]["added_bytes"].as_u64().unwrap()
    };
    let first = added(&machine);
    assert!(first > 4_000_000, "{first}");
    for number in 0..5 {
        commit(&subject.source(), "diary", &format!("day {number}\n"));
    }
    let second = added(&machine);
    assert!(second < first / 20, "{second} of {first} bytes");
}
