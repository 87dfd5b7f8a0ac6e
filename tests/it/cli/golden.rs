//! The main verbs' words for people, whole: what is different every time (ids, times, sizes, rates) is masked.

use insta::assert_snapshot;

use super::Machine;

/// Words that differ from run to run, masked from the most to the least telling.
fn masked(machine: &Machine, text: &str) -> String {
    let text = text.replace(&machine.path("").display().to_string(), "$T/");
    text.lines()
        .map(|line| line.split(' ').map(mask).collect::<Vec<_>>().join(" "))
        .collect::<Vec<_>>()
        .join("\n")
}

fn mask(word: &str) -> String {
    let (start, rest) = word.split_at(word.len() - word.trim_start_matches('(').len());
    let core = rest.trim_end_matches([',', ';', ')', ':', '.', '…']);
    let end = &rest[core.len()..];
    let all = |test: fn(char) -> bool| !core.is_empty() && core.chars().all(test);
    let hex = all(|c| c.is_ascii_hexdigit()) && matches!(core.len(), 8 | 32 | 64);
    let time = all(|c| c.is_ascii_digit() || matches!(c, '-' | ':')) && core.len() >= 8;
    let decimal = all(|c| c.is_ascii_digit() || c == '.') && core.contains('.');
    let masked = match core {
        _ if hex => "x".repeat(core.len().min(8)),
        _ if time => "0".repeat(core.len()),
        _ if decimal => "N".to_owned(),
        // In a table the column's width goes with the number's.
        core => core.to_owned(),
    };
    format!("{start}{masked}{end}")
}

/// Numbers with a unit, and the spaces that line them up, as `N`.
fn without_sizes(text: &str) -> String {
    let mut out: Vec<String> = Vec::new();
    for line in text.lines() {
        let mut words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        let indent = line.len() - line.trim_start().len();
        for at in 1..words.len() {
            let word = words[at].clone();
            let unit = word.split([',', ';', ')', '/']).next().unwrap_or_default();
            let plain = match unit {
                "B" | "KiB" | "MiB" | "GiB" | "TiB" => "B",
                "ms" | "s" => "s",
                "×" => "×",
                _ => continue,
            };
            words[at - 1] = if words[at - 1].starts_with('(') { "(N" } else { "N" }.to_owned();
            words[at] = format!("{plain}{}", &word[unit.len()..]);
        }
        out.push(format!("{}{}", " ".repeat(indent), words.join(" ")));
    }
    out.join("\n")
}

/// A machine with two snapshots of a small tree, a month apart.
fn machine() -> Machine {
    let machine = Machine::with_repository();
    machine.file("data/conf/a.conf", "a = 1\n");
    machine.file("data/b", vec![7; 4000]);
    std::os::unix::fs::symlink("b", machine.path("data/link")).unwrap();
    for (day, content) in [("2026-03-01", "one"), ("2026-04-01", "other")] {
        machine.file("data/changing", content);
        // Beyond the clock's grain, so that what is unchanged is known to be.
        std::thread::sleep(std::time::Duration::from_millis(200));
        let time = format!("{day}T04:05:06Z");
        let arguments = ["backup", "data", "--job", "web", "--host", "box", "--tag", "t", "--time", &time];
        let said = machine.run(&arguments);
        assert_eq!(said.code, 0, "{}", said.stderr);
        machine.file("data/new", "new");
    }
    machine
}

/// What a verb says on both streams, masked.
fn told(machine: &Machine, arguments: &[&str]) -> String {
    let said = machine.run(arguments);
    let both = match said.stderr.is_empty() {
        true => said.stdout,
        false => format!("{}--- stderr\n{}", said.stdout, said.stderr),
    };
    format!("{}\n[{}]", without_sizes(&masked(machine, &both)), said.code)
}

#[test]
fn making_and_listing() {
    let machine = machine();
    std::thread::sleep(std::time::Duration::from_millis(200));
    let data = format!("latest:{}", machine.path("data").display());
    assert_snapshot!(told(&machine, &["init", "-r", "second", "--argon-memory", "8M", "--argon-passes", "1"]), @r#"
    created repository xxxxxxxx
        at second

    Keep these away from this machine, or nothing can be restored when it is lost:
      - the address above
      - the password: nobody can reset it

    Next:
      lifeboat -r second backup FOLDER…
      lifeboat -r second snapshots
    [0]
    "#);
    assert_snapshot!(told(&machine, &["backup", "data", "--job", "web", "--host", "box"]), @r#"
    snapshot xxxxxxxx of web on box
      files 0 new, 1 changed, 3 unmodified, N B in all
      read N B in N s (N B/s)
      added N B to the repository for N B of new data
    [0]
    "#);
    assert_snapshot!(told(&machine, &["snapshots"]), @r#"
    web on box
      ID Time Files Size Added Tags Paths
      xxxxxxxx 0000000000 00000000 3 N B N B t $T/data
      xxxxxxxx 0000000000 00000000 4 N B N B t $T/data
      xxxxxxxx 0000000000 00000000 4 N B N B $T/data

    3 snapshots
    [0]
    "#);
    assert_snapshot!(told(&machine, &["ls", &data]), @r#"
    $T/data/b
    $T/data/changing
    $T/data/conf
    $T/data/link
    $T/data/new
    [0]
    "#);
    // The times of the folders above are the machine's affair.
    let diff = told(&machine, &["diff", "latest~2", "latest~1"]);
    assert_snapshot!(diff.split("\nmetadata ").next().unwrap(), @r#"
    M $T/data/changing
    + $T/data/new

    added 1 files, 0 folders, 0 others, N B
    removed 0 files, 0 folders, 0 others, N B
    content 1 files, 0 folders, 0 others, N B
    type 0 files, 0 folders, 0 others, N B
    "#);
    // How many folders lead to the data is the machine's affair.
    let stats = told(&machine, &["stats"]);
    assert_snapshot!(stats.split_once('\n').unwrap().1, @r#"

                      Size Smaller by
    restored N B
    deduplicated N B N ×
    stored N B N ×

    Objects Count Size
    config 1 N B
    confirms 3 N B
    data 2 N B
    index 3 N B
    keyring 1 N B
    meta 3 N B
    roster 1 N B
    slots 1 N B
    snapshots 3 N B
    all N B
    [0]
    "#);
    assert_snapshot!(told(&machine, &["key", "list"]), @r#"
    key role label domain created last snapshot snapshots opened by
    xxxxxxxx * owner owner 0 0000000000 00000000 0000000000 00000000 3 passphrase xxxxxxxx (owner)
    [0]
    "#);
}

#[test]
fn bringing_back_and_checking() {
    let machine = machine();
    let snapshot = format!("latest:{}", machine.path("data").display());
    machine.file("out/extra", "x");
    assert_snapshot!(told(&machine, &["restore", &snapshot, "--target", "out", "--delete", "--dry-run"]), @r#"
    would restore 4 files (N B) and 2 folders of snapshot xxxxxxxx into out
      new 4 files, N B
      compared 0 files, N B; 0 differ by size or mtime
      remove /extra
    [0]
    "#);
    assert_snapshot!(told(&machine, &["restore", &snapshot, "--target", "out", "--delete", "--yes"]), @r#"
    restored 4 files (N B) of snapshot xxxxxxxx into out in N s; 1 removed
    --- stderr
    to remove: /extra
    [0]
    "#);
    // Two threads may open the same block.
    let verified = told(&machine, &["verify", "--read-data"]);
    let stable = verified.lines().filter(|line| !line.starts_with("blocks opened "));
    assert_snapshot!(stable.collect::<Vec<_>>().join("\n"), @r#"
    snapshots 2
    small objects 10
    packs 4
    folder pages 2
    references 9
    packs read 4
    chunks hashed 7
    data read N B
    no damage found in what was tested
    [0]
    "#);
    assert_snapshot!(told(&machine, &["doctor"]), @r#"
    ok repository $T/repository, from LIFEBOAT_REPOSITORY
    ok password from LIFEBOAT_PASSWORD
    ok cache $T/cache, from LIFEBOAT_CACHE_DIR
    ok space N B of N B free
    ok storage N B of test data: write N s, read N s, list N s
    ok removal these credentials can delete (N s)
                         hint: whoever takes over this machine could too: give writers a key that cannot
    ok opening repository xxxxxxxx, opened as owner
    ok snapshots 2 confirmed, 0 unconfirmed, 0 damaged
    ok clock no snapshot is from the future
    [0]
    "#);
}

#[test]
fn letting_go() {
    let machine = machine();
    let last = ["forget", "--keep-last", "1"];
    assert_snapshot!(told(&machine, &[&last[..], &["--dry-run"]].concat()), @r#"
    web on box
      ID Time Reasons
      xxxxxxxx 0000000000 00000000 keep last snapshot
      xxxxxxxx 0000000000 00000000 forget
    --- stderr
    dry run: 1 would be forgotten
    [0]
    "#);
    assert_snapshot!(told(&machine, &last), @r#"
    web on box
      ID Time Reasons
      xxxxxxxx 0000000000 00000000 keep last snapshot
      xxxxxxxx 0000000000 00000000 forget
    --- stderr
    error: forget: to forget 1 snapshot, consent is needed
    hint: add --yes
    [2]
    "#);
    assert_snapshot!(told(&machine, &[&last[..], &["--yes"]].concat()), @r#"
    web on box
      ID Time Reasons
      xxxxxxxx 0000000000 00000000 keep last snapshot
      xxxxxxxx 0000000000 00000000 forget
    --- stderr
    forgot 1; `lifeboat prune` frees their space
    [0]
    "#);
    assert_snapshot!(told(&machine, &["prune", "--grace", "0s", "--dry-run"]), @r#"
                                 Packs Size
    all 4 N B
    unneeded 1 N B
    to rewrite 0 N B
    of runs at work, left alone 0 N B
    condemned, grace not over 0 N B
    condemned, to delete now 0 N B
    needed by 1 snapshot: N B; N B unneeded stay in packs that are not worth rewriting
    [0]
    "#);
    assert_snapshot!(told(&machine, &["prune", "--grace", "0s", "--yes"]), @r#"
                                 Packs Size
    all 4 N B
    unneeded 1 N B
    to rewrite 0 N B
    of runs at work, left alone 0 N B
    condemned, grace not over 0 N B
    condemned, to delete now 0 N B
    needed by 1 snapshot: N B; N B unneeded stay in packs that are not worth rewriting
    --- stderr
    deleted 1 pack, N B
    [0]
    "#);
}
