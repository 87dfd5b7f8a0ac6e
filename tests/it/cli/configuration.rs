//! `lifeboat.toml`: five lines back up, objectives are held against it, and what is wrong in it is named.

use super::Machine;

fn configured(more: &str) -> Machine {
    let machine = Machine::with_repository();
    machine.file("data/a", "content");
    machine.file("pw", "right\n");
    let (repository, password, data) = (machine.path("repository"), machine.path("pw"), machine.path("data"));
    let text = format!(
        "[repository.main]\nurl = {repository:?}\npassword = {{ file = {password:?} }}\n\
         [job.data]\nsource = {data:?}\nschedule = \"0 */6 * * *\"\nexclude = [\"*.log\"]\n{more}"
    );
    machine.file("lifeboat.toml", text);
    machine
}

/// Only the file says where and with what.
const FILE_ONLY: [(&str, &str); 3] =
    [("LIFEBOAT_CONFIG", "lifeboat.toml"), ("LIFEBOAT_REPOSITORY", ""), ("LIFEBOAT_PASSWORD", "")];

#[test]
fn jobs_run_by_their_names_and_verbs_find_the_repository() {
    let machine = configured("[job.gone]\nsource = \"/nonexistent/gone\"\n");
    let run = |arguments: &[&str]| machine.run_with(&FILE_ONLY, arguments);
    let said = run(&["config", "check"]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    assert!(said.stdout.contains("lifeboat.toml: 1 repository, 2 jobs, all understood"), "{}", said.stdout);
    machine.file("data/b.log", "left out");
    let said = run(&["run", "data"]);
    assert_eq!(said.code, 0, "{}{}", said.stdout, said.stderr);
    let said = run(&["--json", "snapshots"]);
    assert_eq!(said.json()[0]["job"], "data", "{}{}", said.stdout, said.stderr);
    assert!(!run(&["ls", "--recursive", "latest"]).stdout.contains("b.log"));
    // One that fails stops no other, and the exit code says it.
    let said = run(&["run", "--all"]);
    assert_eq!(said.code, 1, "{}{}", said.stdout, said.stderr);
    assert!(said.stderr.contains("error: run gone: "), "{}", said.stderr);
    assert_eq!(run(&["--json", "snapshots"]).json().as_array().map(Vec::len), Some(2));
    let said = run(&["run", "dta"]);
    assert_eq!(said.code, 2);
    assert!(said.stderr.contains("there are data, gone"), "{}", said.stderr);
}

#[test]
fn what_is_wrong_in_the_file_is_named_with_its_line() {
    let machine = configured("[job.more]\nsource = \"/x\"\nscedule = \"0 2 * * *\"\n");
    let said = machine.run_with(&FILE_ONLY, &["config", "check"]);
    assert_eq!(said.code, 2, "{}", said.stdout);
    assert!(said.stderr.contains("lifeboat.toml:10: unknown field `scedule`"), "{}", said.stderr);
    assert!(said.stderr.contains("hint: did you mean schedule?"), "{}", said.stderr);
    let machine = configured("[drill.d]\nrestore = \"data@latest\"\nchecks = [{ sql = \"drop table a\" }]\n");
    let said = machine.run_with(&FILE_ONLY, &["config", "check"]);
    assert_eq!(said.code, 2, "{}", said.stdout);
    assert!(said.stderr.contains("drill d") && said.stderr.contains("is not a query"), "{}", said.stderr);
    // Whoever may write it, may run what he likes as us.
    use std::os::unix::fs::PermissionsExt as _;
    let path = machine.path("lifeboat.toml");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o666)).unwrap();
    let said = machine.run_with(&FILE_ONLY, &["config", "check"]);
    assert_eq!(said.code, 2);
    assert!(said.stderr.contains("may be written by others"), "{}", said.stderr);
}

#[test]
fn a_file_that_cannot_be_obeyed_is_told_once_by_whatever_needs_it() {
    let machine = configured("[job.more]\nsource = \"/x\"\nscedule = \"0 2 * * *\"\n");
    for arguments in [&["snapshots"][..], &["run", "data"], &["plan"], &["drill", "run"], &["backup", "data"]]
    {
        let said = machine.run_with(&FILE_ONLY, arguments);
        assert_eq!(said.code, 2, "{arguments:?}: {}", said.stdout);
        let told = said.stderr;
        assert_eq!(told.matches("scedule").count(), 1, "{arguments:?}: {told}");
        assert!(
            told.starts_with(&format!("error: {}: ", arguments[0])) && told.contains("lifeboat.toml:10: "),
            "{told}"
        );
        assert!(told.ends_with("\nhint: did you mean schedule?\n") && told.lines().count() == 2, "{told}");
    }
    let said = machine.run_with(&FILE_ONLY, &["doctor"]);
    assert_eq!(said.code, 2, "{}", said.stdout);
    assert!(
        said.stdout.contains("FAILED   repository") && said.stdout.contains("`scedule`"),
        "{}",
        said.stdout
    );
    // What needs no file does without, and what names its repository, too.
    assert_eq!(machine.run_with(&FILE_ONLY, &["version"]).code, 0);
    assert_eq!(machine.run_with(&FILE_ONLY[..1], &["snapshots"]).code, 0);

    // Two of them, and none is the default.
    let machine = configured("repository = \"main\"\n[repository.other]\nurl = \"/other\"\n");
    let said = machine.run_with(&FILE_ONLY, &["snapshots"]);
    assert_eq!(said.code, 2, "{}", said.stdout);
    assert!(said.stderr.contains("lifeboat.toml has several\nhint: "), "{}", said.stderr);
    assert!(said.stderr.contains("[defaults] repository = one of main, other"), "{}", said.stderr);
    // A secret that is not there costs no verb that needs none.
    let machine = configured(
        "repository = \"main\"\n[repository.other]\nurl = \"/other\"\n\
                              password = { credential = \"x\" }\n[defaults]\nrepository = \"other\"\n",
    );
    let said = machine.run_with(&FILE_ONLY, &["snapshots"]);
    assert_eq!(said.code, 2, "{}", said.stdout);
    assert!(
        said.stderr.contains("repository other: password: credential \"x\": systemd gives none"),
        "{}",
        said.stderr
    );
    assert_eq!(machine.run_with(&FILE_ONLY, &["version"]).code, 0);
    assert_eq!(machine.run_with(&FILE_ONLY, &["run", "data"]).code, 0);
}

#[test]
fn where_a_setting_came_from_is_named_as_it_is() {
    let machine = configured("");
    let said = machine.run_with(&FILE_ONLY, &["doctor"]);
    assert_eq!(said.code, 0, "{}", said.stdout);
    for line in
        ["repository  $T/repository, from the configuration file", "$T/pw, from the configuration file"]
    {
        assert!(said.stdout.contains(line), "{line}: {}", said.stdout);
    }
    let said = machine.run_with(
        &FILE_ONLY,
        &["doctor", "-r", machine.path("repository").to_str().unwrap(), "--password-file", "pw"],
    );
    assert!(said.stdout.contains("repository  $T/repository, from --repository"), "{}", said.stdout);
}

#[test]
fn production_is_restored_into_only_by_its_word() {
    let machine = configured("");
    let database = |name: &str| rusqlite::Connection::open(machine.path(name)).unwrap();
    database("app.db")
        .execute_batch("CREATE TABLE orders (id INTEGER); INSERT INTO orders VALUES (1)")
        .unwrap();
    let source = format!("sqlite:{}", machine.path("app.db").display());
    let text = std::fs::read_to_string(machine.path("lifeboat.toml")).unwrap();
    machine.file(
        "lifeboat.toml",
        format!("environment = \"production\"\n{text}[job.db]\nsource = {source:?}\n"),
    );
    assert_eq!(machine.run_with(&FILE_ONLY, &["run", "db"]).code, 0);
    database("app.db").execute_batch("DELETE FROM orders").unwrap();
    let orders = |name: &str| -> i64 {
        database(name).query_row("SELECT count(*) FROM orders", [], |row| row.get(0)).unwrap()
    };
    let restore = |variables: &[(&str, &str)], to: &str, more: &[&str]| {
        let restore = [&["--yes", "restore", "db@latest", "--to", to][..], more].concat();
        machine.run_with(&[&FILE_ONLY[..], variables].concat(), &restore)
    };
    for (variables, more) in [
        (&[][..], &["--force"][..]),
        (&[], &["--force", "--confirm", "staging"]),
        (&[("LIFEBOAT_CONFIRM", "yes")], &["--force"]),
    ] {
        let said = restore(variables, &source, more);
        assert_eq!(said.code, 2, "{more:?}: {}{}", said.stdout, said.stderr);
        assert!(
            said.stderr.contains("app.db, which is production\nhint: --confirm production says"),
            "{}",
            said.stderr
        );
        assert_eq!(orders("app.db"), 0, "{more:?}");
    }
    // What is not production is not asked about, and looking asks nobody and changes nothing.
    let elsewhere = format!("sqlite:{}", machine.path("other.db").display());
    let said = restore(&[], &elsewhere, &["--dry-run"]);
    assert_eq!(said.code, 0, "{}{}", said.stdout, said.stderr);
    assert!(
        said.stdout.contains("would restore 1 part ") && !machine.path("other.db").exists(),
        "{}",
        said.stdout
    );
    let said = restore(&[], &source, &["--dry-run"]);
    assert_eq!(said.code, 2, "{}{}", said.stdout, said.stderr);
    assert!(said.stderr.contains("--force"), "{}", said.stderr);
    assert_eq!(restore(&[], &source, &["--dry-run", "--force"]).code, 0);
    assert_eq!(orders("app.db"), 0, "a dry run restored");
    assert_eq!(restore(&[], &elsewhere, &[]).code, 0);
    assert_eq!(restore(&[], &source, &["--force", "--confirm", "production"]).code, 0);
    assert_eq!((orders("app.db"), orders("other.db")), (1, 1));
    let said = restore(&[("LIFEBOAT_CONFIRM", "production")], &source, &["--force"]);
    assert_eq!(said.code, 0, "{}{}", said.stdout, said.stderr);
}

#[test]
fn objectives_are_held_against_the_schedule_and_what_drills_measured() {
    let stack = "[stack.shop]\ndata = { rto = \"1h\", rpo = \"6h\" }\napp = { rto = \"2h\", needs = [\"data\"] }\n\
                 [drill.weekly]\nrestore = \"data@latest\"\nrto = \"1h\"\nrpo = \"12h\"\n\
                 checks = [{ command = \"test -e $LIFEBOAT_DRILL_PATH\" }]\n";
    let machine = configured(stack);
    let run = |arguments: &[&str]| machine.run_with(&FILE_ONLY, arguments);
    assert_eq!(run(&["run", "--all"]).code, 0);
    let said = run(&["plan"]);
    assert_eq!(said.code, 22, "{}{}", said.stdout, said.stderr);
    assert!(said.stdout.contains("runs up to 6h00 apart cannot keep an RPO of 6h00"), "{}", said.stdout);
    assert!(said.stdout.contains("or less would do"), "{}", said.stdout);
    assert!(said.stdout.contains("data: recovery was never measured"), "{}", said.stdout);
    assert!(
        said.stdout.contains("app: it has no job, so only a drill of the stack measures it"),
        "{}",
        said.stdout
    );
    let said = run(&["drill", "run", "--all"]);
    assert_eq!(said.code, 0, "{}{}", said.stdout, said.stderr);
    assert!(said.stdout.contains("Drill weekly #1"), "{}", said.stdout);
    let said = run(&["drill", "run", "weekly"]);
    assert!(said.stdout.contains("Drill weekly #2"), "{}{}", said.stdout, said.stderr);
    // What the file tells is not half overruled, and a misspelt name is no drill without checks.
    let said = run(&["drill", "run", "weekly", "--rto", "1ms"]);
    assert_eq!(said.code, 2, "{}{}", said.stdout, said.stderr);
    let said = run(&["drill", "run", "wekly"]);
    assert_eq!(said.code, 2, "{}{}", said.stdout, said.stderr);
    assert!(said.stderr.contains("there are weekly"), "{}", said.stderr);
    let plan = run(&["--json", "plan"]).json();
    let data = plan["components"].as_array().unwrap().iter().find(|row| row["component"] == "data").unwrap();
    assert_eq!(data["rto"], "met", "{plan}");
    assert_eq!(data["rpo"], "impossible", "{plan}");
}

#[test]
fn what_names_nothing_is_led_back_to_its_line_and_the_nearest_name() {
    let said = |more: &str| {
        let said = configured(more).run_with(&FILE_ONLY, &["config", "check"]);
        assert_eq!(said.code, 2, "{}", said.stdout);
        said.stderr
    };
    let stack = "[stack.shop]\ndata = { rto = \"1h\" }\n";
    for (more, expected) in [
        (
            format!("{stack}app = {{ needs = [\"dta\"] }}\n"),
            [":10: stack shop: app needs dta", "did you mean data?"],
        ),
        (
            format!("{stack}dat = {{ rto = \"1h\" }}\n"),
            [":10: stack shop: dat is no job and needs nothing", "did you mean data?"],
        ),
        (
            format!("{stack}a = {{ needs = [\"b\"] }}\nb = {{ needs = [\"a\"] }}\n"),
            [":8: stack shop: these need each other in a circle", "a, b"],
        ),
        ("[stack.shop]\ndata = { rto = \"0s\" }\n".into(), [":9: stack shop: data: an RTO of nothing", ""]),
        (
            "[stack.shop]\ndata = { rpo = \"6h\" }\n".into(),
            ["cannot keep an RPO of 360 min", "lifeboat plan"],
        ),
        (
            format!("{stack}[drill.d]\nstack = \"shp\"\n"),
            [":10: drill d: there is no stack \"shp\"", "did you mean shop?"],
        ),
        (
            format!("{stack}[drill.d]\nstack = \"shop\"\ncomponent.daat.checks = []\n"),
            ["drill d: there is no component \"daat\"", "did you mean data?"],
        ),
        (
            "[repository.box]\nurl = \"/x\"\nreplica_of = \"mian\"\n".into(),
            [":8: repository box: ", "did you mean main?"],
        ),
    ] {
        let text = said(&more);
        for expected in expected {
            assert!(text.contains(expected), "{expected:?} is not in {text}");
        }
    }
}

#[test]
fn a_run_copies_to_replicas_and_leaves_out_what_is_no_duty_of_the_machine() {
    let machine = Machine::with_repository();
    machine.file("data/a", "content");
    machine.file("pw", "right\n");
    let said =
        machine.run(&["init", "--replica-of", machine.path("repository").to_str().unwrap(), "-r", "box"]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    let folder = machine.path("");
    let text = format!(
        "[machine.vps]\nduties = [\"backup\", \"copy\"]\n[machine.quiet]\nduties = [\"backup\"]\n\
         [machine.ops]\nkey = {{ file = \"{0}pw\" }}\nduties = [\"drill\"]\n\
         [repository.main]\nurl = \"{0}nowhere\"\nvia.vps = \"{0}repository\"\nvia.ops = \"{0}repository\"\n\
         via.quiet = \"{0}repository\"\npassword = {{ file = \"{0}pw\" }}\n\
         [repository.box]\nreplica_of = \"main\"\nurl = \"{0}box\"\n[defaults]\ncopy_to = [\"box\"]\n\
         [job.data]\nsource = \"{0}data\"\n",
        folder.display()
    );
    machine.file("lifeboat.toml", text);
    let run = |name: &str, arguments: &[&str]| {
        machine.run_with(&[FILE_ONLY.as_slice(), &[("LIFEBOAT_MACHINE", name)]].concat(), arguments)
    };
    let said = run("vps", &["run", "--all"]);
    assert_eq!(said.code, 0, "{}{}", said.stdout, said.stderr);
    assert!(said.stdout.contains("1 copied"), "{}{}", said.stdout, said.stderr);
    // It is filed under the machine's name, and the replica opens with the password of its source.
    let said = machine.run(&["--json", "-r", "box", "snapshots"]);
    assert_eq!(said.json()[0]["host"], "vps", "{}{}", said.stdout, said.stderr);
    let said = run("quiet", &["run", "data"]);
    assert_eq!(said.code, 0, "{}{}", said.stdout, said.stderr);
    assert!(
        said.stderr.contains("data was not copied to box: copy is no duty of machine quiet"),
        "{}",
        said.stderr
    );
    let said = run("ops", &["run", "data"]);
    assert_eq!(said.code, 0, "{}{}", said.stdout, said.stderr);
    assert!(
        said.stderr.contains("nothing was backed up: backup is no duty of machine ops (it has: drill)"),
        "{}",
        said.stderr
    );
    let said = run("vps", &["drill", "run", "--all"]);
    assert_eq!(said.code, 0, "{}{}", said.stdout, said.stderr);
    assert!(said.stderr.contains("drill is no duty of machine vps"), "{}", said.stderr);
    let said = run("stranger", &["run", "data"]);
    assert_eq!(said.code, 2, "{}{}", said.stdout, said.stderr);
    assert!(
        said.stderr.contains("hint: LIFEBOAT_MACHINE says which of these this is: ops, quiet, vps"),
        "{}",
        said.stderr
    );
    assert_eq!(run("vps", &["--json", "snapshots"]).json().as_array().map(Vec::len), Some(2));
}
