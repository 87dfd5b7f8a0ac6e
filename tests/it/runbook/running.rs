//! Runs that do not go as they should: each ends with its code, leaves nothing running and can be gone on with.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process, test_kill_process};

use super::{book, data, drill, shop, transcript};
use crate::cli::{Machine, answer, on_terminal};

/// A runbook of these blocks.
fn write(machine: &Machine, name: &str, variables: &str, blocks: &str) -> PathBuf {
    let variables = if variables.is_empty() { String::new() } else { format!("variables:\n{variables}") };
    let text = format!("---\nname: {name}\ncomponents: files\nrto: 1h\n{variables}---\n# {name}\n\n{blocks}");
    machine.file(&format!("{name}.md"), text)
}

fn block(attributes: &str, text: &str) -> String {
    format!("```sh {{{attributes}}}\n{text}\n```\n\n")
}

fn wait_for(path: &Path) {
    let mut tries = 0;
    while !path.exists() {
        assert!(tries < 1200, "{} never came", path.display());
        std::thread::sleep(Duration::from_millis(50));
        tries += 1;
    }
}

fn pid_in(path: &Path) -> Pid {
    let mut text = String::new();
    while !text.ends_with('\n') {
        text = std::fs::read_to_string(path).unwrap_or_default();
    }
    Pid::from_raw(text.trim().parse().unwrap()).unwrap()
}

/// Whether a process goes away.
fn goes(pid: Pid) -> bool {
    (0..1000).any(|_| {
        std::thread::sleep(Duration::from_millis(10));
        test_kill_process(pid).is_err()
    })
}

#[test]
fn steps_run_in_order_and_everything_is_written_down() {
    let machine = Machine::new();
    let blocks = [
        block(
            "step=one phase=restore timeout=1m expect=\"hello there\"",
            "echo hello there; echo complaint >&2",
        ),
        block("step=two phase=verify timeout=1m", "test \"$WORD\" = 'a b'; echo \"secret is $CODE\""),
    ];
    let variables = "  WORD:\n    about: a word\n  CODE:\n    about: a code\n    secret: yes\n";
    write(&machine, "good", variables, &blocks.concat());
    let said = machine.run(&["runbook", "run", "good.md"]);
    assert_eq!(said.code, 2, "{}", said.stderr);
    assert!(said.stderr.contains("hint: --yes runs the ordinary steps"), "{}", said.stderr);
    let said = machine.run(&["--yes", "runbook", "run", "good.md", "--set", "WORD=a b"]);
    assert_eq!(said.code, 2, "{}", said.stderr);
    assert!(said.stderr.contains("the runbook needs to know CODE (a code)"), "{}", said.stderr);
    let run = ["--yes", "runbook", "run", "good.md", "--set", "WORD=a b", "--set", "CODE=hunter2222"];
    let said = machine.run(&run);
    assert_eq!(said.code, 0, "{}{}", said.stdout, said.stderr);
    assert!(said.stderr.contains("| hello there") && said.stderr.contains("| complaint"), "{}", said.stderr);
    let folder = machine.path("state/runbooks/good");
    let mut everything = said.stdout + &said.stderr;
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        everything += &std::fs::read_to_string(entry.path()).unwrap();
    }
    assert!(
        everything.contains("secret is [redacted]") && !everything.contains("hunter2222"),
        "{everything}"
    );
    let hash = blake3::hash(b"echo hello there; echo complaint >&2\n").to_hex();
    assert!(everything.contains("\"event\":\"start\"") && everything.contains(hash.as_str()), "{everything}");
    let transcript = transcript(&machine, "good");
    assert!(transcript.contains("**Completed**") && transcript.contains("| two | verify |"), "{transcript}");
    let said = machine.run(&["--yes", "runbook", "run", "good.md", "--resume"]);
    assert!(said.stderr.contains("was completed: there is nothing to resume"), "{}", said.stderr);
    let said = machine.run(&["runbook", "run", "good.md", "--set", "WROD=x"]);
    assert_eq!(said.code, 2);
}

#[test]
fn a_step_that_fails_stops_the_run_and_it_is_gone_on_with() {
    let machine = Machine::new();
    let blocks = [
        block("step=one phase=restore timeout=1m", "echo one >> ran"),
        block("step=two phase=restore timeout=1m", "test -e mended; echo two >> ran"),
        block("step=three phase=verify timeout=1m expect=\"three\"", "echo three; echo three >> ran"),
    ];
    write(&machine, "stops", "", &blocks.concat());
    let run = |more: &[&str]| machine.run(&[&["--yes", "runbook", "run", "stops.md"], more].concat());
    let said = run(&[]);
    assert_eq!(said.code, 1, "{}", said.stderr);
    assert!(said.stdout.contains("step two: it ended with exit status 1"), "{}", said.stdout);
    machine.file("mended", "");
    let said = run(&["--resume"]);
    assert_eq!(said.code, 0, "{}{}", said.stdout, said.stderr);
    assert_eq!(std::fs::read_to_string(machine.path("ran")).unwrap(), "one\ntwo\nthree\n");
    // From a step on, whatever was done before.
    assert_eq!(run(&["--from", "three"]).code, 0);
    assert_eq!(std::fs::read_to_string(machine.path("ran")).unwrap(), "one\ntwo\nthree\nthree\n");
    assert!(run(&["--from", "four"]).stderr.contains("hint: there are one, two, three"));
    // What a step says instead of what was expected is a failure of the proof.
    let text = std::fs::read_to_string(machine.path("stops.md")).unwrap();
    machine.file("stops.md", text.replace("expect=\"three\"", "expect=\"four\""));
    let said = run(&[]);
    assert_eq!(said.code, 20, "{}", said.stdout);
    assert!(said.stdout.contains("does not contain \"four\""), "{}", said.stdout);
}

#[test]
fn nothing_is_destroyed_without_its_name_being_said() {
    let machine = Machine::new();
    let blocks = block(
        "step=clear phase=restore timeout=1m destructive confirm=PLACE rollback=\"it is in the backup\"",
        "rm -r \"$PLACE\"",
    ) + &block("step=proof phase=verify timeout=1m", "test ! -e \"$PLACE\"");
    write(&machine, "clears", "  PLACE:\n    about: what goes\n    drill: $SANDBOX/place\n", &blocks);
    machine.file("place/a", "");
    let place = machine.path("place").to_str().unwrap().to_owned();
    let set = format!("PLACE={place}");
    let run = |more: &[&str]| {
        machine.run(&[&["--yes", "runbook", "run", "clears.md", "--set", &set], more].concat())
    };
    let said = run(&[]);
    assert_eq!(said.code, 1, "{}", said.stderr);
    assert!(said.stderr.contains("--confirm $T/place does"), "{}", said.stderr);
    assert_eq!(run(&["--confirm", "/other"]).code, 1);
    assert!(machine.path("place/a").exists());
    // On a terminal it is typed; a slip is none.
    let mut child = on_terminal(&machine.raw(&["runbook", "run", "clears.md", "--set", &set]));
    answer(&mut child, "q to stop: ", "yes");
    answer(&mut child, "that is not it", "");
    assert!(machine.path("place/a").exists());
    answer(&mut child, "q to stop: ", &place);
    answer(&mut child, ", q stops: ", "");
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert!(!machine.path("place").exists());
    // In a drill the value is the sandbox's, and nobody can say otherwise.
    let said = machine.run(&["runbook", "run", "clears.md", "--drill", "--set", &set]);
    assert_eq!(said.code, 2, "{}", said.stderr);
    assert!(said.stderr.contains("a drill makes this value"), "{}", said.stderr);
}

#[test]
fn timeout_and_interruption_end_everything_a_step_started() {
    let machine = Machine::new();
    let sleeper = "sleep 1000 & echo $! > pid; wait";
    write(&machine, "late", "", &block("step=wait phase=verify timeout=1s", sleeper));
    let said = machine.run(&["--yes", "runbook", "run", "late.md"]);
    assert_eq!(said.code, 20, "{}", said.stderr);
    assert!(said.stdout.contains("it took longer than 1 s and was ended"), "{}", said.stdout);
    assert!(goes(pid_in(&machine.path("pid"))));
    std::fs::remove_file(machine.path("pid")).unwrap();

    write(&machine, "long", "", &block("step=wait phase=verify timeout=10m", sleeper));
    let run = || {
        machine
            .raw(&["--yes", "runbook", "run", "long.md"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap()
    };
    let mut child = run();
    wait_for(&machine.path("pid"));
    let pid = pid_in(&machine.path("pid"));
    // Two at once would step on each other's feet.
    assert_eq!(machine.run(&["--yes", "runbook", "run", "long.md"]).code, 11);
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert!(goes(pid));
    assert!(transcript(&machine, "long").contains("**Interrupted**"));
    std::fs::remove_file(machine.path("pid")).unwrap();

    // Killed, it leaves a record; what it left running is not started twice.
    let mut child = run();
    wait_for(&machine.path("pid"));
    let pid = pid_in(&machine.path("pid"));
    kill_process(Pid::from_child(&child), Signal::KILL).unwrap();
    child.wait().unwrap();
    let said = machine.run(&["--yes", "runbook", "run", "long.md", "--resume"]);
    assert_eq!(said.code, 11, "{}", said.stderr);
    assert!(said.stderr.contains("step wait of a run that was killed still works"), "{}", said.stderr);
    let group = said.stderr.split("process group ").nth(1).unwrap().split(')').next().unwrap();
    let group = Pid::from_raw(group.parse().unwrap()).unwrap();
    rustix::process::kill_process_group(group, Signal::KILL).unwrap();
    assert!(goes(pid));
    let text = std::fs::read_to_string(machine.path("long.md")).unwrap();
    machine.file("long.md", text.replace(sleeper, "true"));
    let said = machine.run(&["--yes", "runbook", "run", "long.md", "--resume"]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    assert!(said.stderr.contains("was begun and nobody saw its end"), "{}", said.stderr);
}

#[test]
fn a_drill_that_was_stopped_leaves_nothing_that_stays() {
    let machine = Machine::new();
    write(
        &machine,
        "held",
        "",
        &block("step=wait phase=verify timeout=10m", "sleep 1000 & echo $! > pid; wait"),
    );
    std::fs::create_dir(machine.path("scratch")).unwrap();
    let run = ["runbook", "run", "held.md", "--drill", "--scratch", "scratch"];
    let begin = || {
        let child = machine.raw(&run).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let pid = loop {
            let mut made = std::fs::read_dir(machine.path("scratch")).unwrap().flatten();
            let pid = made
                .find_map(|entry| Some(entry.path().join("restored/work/pid")).filter(|path| path.exists()));
            match pid {
                Some(path) => break pid_in(&path),
                None => std::thread::sleep(Duration::from_millis(20)),
            }
        };
        (child, pid)
    };
    let (mut child, pid) = begin();
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert!(goes(pid));
    assert_eq!(std::fs::read_dir(machine.path("scratch")).unwrap().count(), 0);
    // Its evidence says so.
    let evidence = std::fs::read_to_string(machine.path("state/runbooks/held/evidence.json")).unwrap();
    assert!(evidence.contains("\"verdict\": \"interrupted\""), "{evidence}");
    // Killed, it cannot clean up: the next one does, processes included.
    let (mut child, pid) = begin();
    kill_process(Pid::from_child(&child), Signal::KILL).unwrap();
    child.wait().unwrap();
    write(&machine, "held", "", &block("step=wait phase=verify timeout=10m", "true"));
    let said = machine.run(&run);
    assert_eq!(said.code, 0, "{}", said.stderr);
    assert!(said.stderr.contains("removed what an earlier drill left behind"), "{}", said.stderr);
    assert!(goes(pid));
    assert_eq!(std::fs::read_dir(machine.path("scratch")).unwrap().count(), 0);
}

#[test]
fn what_a_step_of_a_drill_prints_is_kept_nowhere_with_its_secrets() {
    let mut machine = Machine::with_repository();
    machine.file("pw", "right\n");
    machine.set("LIFEBOAT_PASSWORD", "");
    machine.set("LIFEBOAT_PASSWORD_FILE", machine.path("pw").to_str().unwrap());
    machine.set("SHOP_TOKEN", "hunter33");
    let talks = "printenv LIFEBOAT_PASSWORD_FILE | xargs cat
redis-cli -u \"$CACHE\" ping; printenv REDISCLI_AUTH | tee \"$MARK\" | sed 's,^,redis with ,'
printenv SHOP_TOKEN; echo czNjcjN0 | base64 -d | sed 's,^,app: secret=,'; mkdir -p \"$AT\"";
    let blocks = block("step=talk phase=restore timeout=1m", talks)
        + &block("step=proof phase=verify timeout=1m", "test -d \"$AT\"");
    let variables = "  AT:\n    about: a folder\n    drill: $SANDBOX/at\n  CACHE:\n    about: a cache\n    drill: $REDIS\n  \
                     MARK:\n    about: where to tell the test\n    read-only: yes\n";
    write(&machine, "talks", variables, &blocks);
    let mark = format!("MARK={}", machine.path("mark").display());
    let run = ["--json", "runbook", "run", "talks.md", "--drill", "--set", &mark, "--transcript", "t.md"];
    let said = machine.run(&run);
    assert_eq!(said.code, 0, "{}{}", said.stdout, said.stderr);
    let made = std::fs::read_to_string(machine.path("mark")).unwrap();
    let mut all = said.stdout + &said.stderr + &std::fs::read_to_string(machine.path("t.md")).unwrap();
    for entry in std::fs::read_dir(machine.path("state/runbooks/talks")).unwrap().flatten() {
        all += &std::fs::read_to_string(entry.path()).unwrap();
    }
    all += &machine.run(&["drill", "show", "talks"]).stdout;
    assert!(all.contains("redis with [redacted]"), "{all}");
    for secret in [made.trim(), "hunter33", "s3cr3t", "\nright\n", "\"right"] {
        assert!(secret.len() > 5 && !all.contains(secret), "{secret:?}: {all}");
    }
}

#[test]
fn a_rehearsal_that_cannot_follow_the_last_one_is_no_evidence_and_a_killed_one_is_listed() {
    let machine = Machine::with_repository();
    write(&machine, "held", "", &block("step=proof phase=verify timeout=10m", "true"));
    let drill = ["--json", "runbook", "run", "held.md", "--drill"];
    let number = |said: &crate::cli::Said| said.json()["evidence"]["number"].as_u64().unwrap();
    let said = machine.run(&drill);
    assert_eq!((said.code, number(&said)), (0, 1), "{}", said.stderr);
    // Killed while it runs; the next one of the name does not run beside it.
    let proof = std::fs::read_to_string(machine.path("held.md")).unwrap();
    machine.file("held.md", proof.replace("true", "sleep 1000"));
    let begin = || machine.raw(&drill).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let under_way = || {
        let mut files = std::fs::read_dir(machine.path("state/drills")).unwrap().flatten();
        files.any(|entry| entry.metadata().unwrap().len() > 0)
    };
    let mut child = begin();
    while !under_way() {
        std::thread::sleep(Duration::from_millis(20));
    }
    let said = machine.run(&drill);
    assert_eq!(said.code, 11, "{}", said.stderr);
    assert!(said.stderr.contains("drill held is under way on this machine: process"), "{}", said.stderr);
    kill_process(Pid::from_child(&child), Signal::KILL).unwrap();
    child.wait().unwrap();
    machine.file("held.md", &proof);
    let said = machine.run(&drill);
    assert_eq!((said.code, number(&said)), (0, 3), "{}", said.stderr);
    let said = machine.run(&["drill", "show", "held#2"]);
    assert!(said.stdout.contains("INTERRUPTED") && said.stdout.contains("without a word"), "{}", said.stdout);
    // The last record is lost: what would follow it begins no history of its own.
    let packs = crate::drill::packs(&machine);
    packs.iter().for_each(|pack| std::fs::remove_file(pack).unwrap());
    let said = machine.run(&[&["--no-cache"], &drill[..]].concat());
    assert_eq!(said.code, 1, "{}{}", said.stdout, said.stderr);
    assert_eq!(said.json()["evidence"]["verdict"], "could_not_run");
    assert!(said.stderr.contains("run #3 of the drill cannot be read back"), "{}", said.stderr);
}

#[test]
fn a_transcript_that_cannot_be_written_costs_no_evidence() {
    let machine = Machine::with_repository();
    let drill = ["runbook", "run", "mute.md", "--drill", "--transcript", "no/such/folder/t.md"];
    for (command, code) in [("false", 20), ("true", 1)] {
        write(&machine, "mute", "", &block("step=proof phase=verify timeout=1m", command));
        let said = machine.run(&drill);
        assert_eq!(said.code, code, "{}{}", said.stdout, said.stderr);
        assert!(said.stderr.contains("no/such/folder/t.md"), "{}", said.stderr);
    }
    let said = machine.run(&["--json", "drill", "list"]);
    let list = said.json();
    let verdict = |at: usize| list[at]["evidence"]["verdict"].clone();
    assert_eq!((verdict(0), verdict(1)), ("data_wrong".into(), "met".into()), "{list}");
}

#[test]
fn what_others_may_write_is_not_run() {
    let machine = Machine::new();
    let path = write(&machine, "open", "", &block("step=a phase=verify timeout=1m", "touch ran"));
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o666)).unwrap();
    for more in [&["--yes"][..], &[]] {
        let mut arguments = [more, &["runbook", "run", "open.md"][..]].concat();
        arguments.extend(more.is_empty().then_some("--drill"));
        let said = machine.run(&arguments);
        assert_eq!(said.code, 2, "{}", said.stderr);
        assert!(said.stderr.contains("may be written by others"), "{}", said.stderr);
    }
    assert!(!machine.path("ran").exists());
}

/// The sabotage that matters: everything was restored, and something of it is wrong.
#[test]
fn restored_data_that_is_wrong_fails_the_drill() {
    let machine = shop();
    let text = std::fs::read_to_string(book("data-volume-corrupted")).unwrap();
    let text = text
        .replace("](", "](https://example.org/")
        .replace("name: data-volume-corrupted", "name: sabotaged");
    let before_proof = "## 6. Prove it";
    assert!(text.contains(before_proof));
    let sabotages = [
        (
            "one byte, size and time as before",
            "touch -r \"$LIVE/config/app.toml\" \"$ASIDE.ref\"\nprintf W | dd of=\"$LIVE/config/app.toml\" conv=notrunc status=none\ntouch -r \"$ASIDE.ref\" \"$LIVE/config/app.toml\"",
        ),
        ("a file is missing", "rm \"$LIVE/uploads/deep/er/note\""),
        ("a mode changed", "chmod 666 \"$LIVE/config/app.toml\"\n: rm"),
        ("a link points elsewhere", "ln -sfn nowhere \"$LIVE/uploads/latest\""),
    ];
    for (what, script) in sabotages {
        let attributes = "step=sabotage phase=restore timeout=1m destructive confirm=LIVE rollback=put-back";
        let sabotage = block(attributes, script) + before_proof;
        let file = machine.file("sabotaged.md", text.replace(before_proof, &sabotage));
        let said = drill(&machine, &file, &[("DATA", &data(&machine))]);
        assert_eq!(said.code, 20, "{what}: {}{}", said.stdout, said.stderr);
        let evidence = &said.json()["evidence"];
        assert_eq!(evidence["verdict"], "data_wrong", "{what}");
        assert!(evidence["reason"].as_str().unwrap().contains("step compare"), "{what}: {evidence}");
    }
}

#[test]
fn a_drill_that_takes_too_long_or_passes_is_recorded_honestly() {
    let machine = shop();
    let text = std::fs::read_to_string(book("data-volume-corrupted")).unwrap();
    let (head, tail) = text.split_once("measured:").unwrap();
    let tail = &tail[tail.find("---").unwrap()..];
    let file = machine
        .file("data-volume-corrupted.md", format!("{head}{tail}").replace("](", "](https://example.org/"));
    let run = |more: &[&str]| {
        let set = format!("DATA={}", data(&machine));
        machine
            .run(&[&["runbook", "run", "data-volume-corrupted.md", "--drill", "--set", &set], more].concat())
    };
    let said = run(&["--record", "--no-keep"]);
    assert_eq!(said.code, 0, "{}{}", said.stdout, said.stderr);
    let recorded = std::fs::read_to_string(&file).unwrap();
    assert!(recorded.contains("measured:\n  rto: "), "{recorded}");
    // Recorded again it is replaced, and the rest stays as it was.
    assert_eq!(run(&["--record", "--no-keep"]).code, 0);
    let again = std::fs::read_to_string(&file).unwrap();
    assert_eq!(again.matches("measured:").count(), 1);
    assert_eq!(again.split("# A data").nth(1), recorded.split("# A data").nth(1));
    let said = machine.run(&["runbook", "check", "data-volume-corrupted.md"]);
    assert!(said.stdout.contains("0 problems, 0 notes"), "{}", said.stdout);
    // Steps that changed were not timed.
    machine.file("data-volume-corrupted.md", again.replace("df -h \"$LIVE\"", "df \"$LIVE\""));
    let said = machine.run(&["runbook", "check", "data-volume-corrupted.md"]);
    assert!(said.stdout.contains("the steps changed since they were timed"), "{}", said.stdout);
    // People take longer than the objective allows: missed, whatever the machine did.
    machine.file(
        "data-volume-corrupted.md",
        again.replace("rto: 2h", "rto: 90m").replace("takes=5m", "takes=3h"),
    );
    let said = run(&["--no-keep"]);
    assert_eq!(said.code, 22, "{}{}", said.stdout, said.stderr);
}

#[test]
fn a_drill_of_the_configuration_file_may_be_a_runbook() {
    let machine = shop();
    let folder = machine.path("dr-runbooks");
    std::fs::create_dir_all(&folder).unwrap();
    for entry in std::fs::read_dir(book("x").parent().unwrap()).unwrap().flatten() {
        std::fs::copy(entry.path(), folder.join(entry.file_name())).unwrap();
    }
    let config = |runbook: &str, more: &str| {
        let repository = machine.path("repository");
        let text = format!(
            "[repository.main]\nurl = {:?}\n[drill.volume]\nrunbook = {runbook:?}\n{more}\n[drill.volume.set]\nDATA = {:?}\n",
            repository.to_str().unwrap(),
            data(&machine)
        );
        machine.file("lifeboat.toml", text)
    };
    let file = config("dr-runbooks/data-volume-corrupted.md", "");
    let named = ["--config", file.to_str().unwrap()];
    let said = machine.run(&[&named[..], &["config", "check"]].concat());
    assert_eq!(said.code, 0, "{}", said.stderr);
    let run = [&named[..], &["drill", "run", "volume", "--html", "e.html"]].concat();
    let said = machine.run_with(&[("LIFEBOAT_REPOSITORY", "")], &run);
    assert_eq!(said.code, 0, "{}{}", said.stdout, said.stderr);
    assert!(said.stdout.contains("Drill volume #1") && said.stdout.contains("✓ compare"), "{}", said.stdout);
    assert!(std::fs::read_to_string(machine.path("e.html")).unwrap().contains("<svg"));
    config("dr-runbooks/missing.md", "");
    let said = machine.run(&[&named[..], &["config", "check"]].concat());
    assert_eq!(said.code, 2, "{}", said.stdout);
    config("dr-runbooks/data-volume-corrupted.md", "rto = \"1h\"");
    let said = machine.run(&[&named[..], &["config", "check"]].concat());
    assert!(
        said.stderr.contains("objectives, checks and sandbox stand in the runbook itself"),
        "{}",
        said.stderr
    );
}
