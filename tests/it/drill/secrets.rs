//! What programs, services and containers print is told, and secrets in it are not: in no form of the evidence.

use crate::cli::{Machine, Said};
use crate::services::dockerd::{Containers, IMAGE, engine};
use crate::sources::docker::{machine as with_docker, unique};

const REPORTS: [&str; 8] = ["--json", "e.json", "--junit", "e.xml", "--markdown", "e.md", "--html", "e.html"];

/// Everything that a run left for others to read.
fn left(machine: &Machine, said: &Said) -> String {
    let shown =
        machine.run(&["--json", "drill", "report"]).stdout + &machine.run(&["drill", "show", "drill"]).stdout;
    let files = ["e.json", "e.xml", "e.md", "e.html"].map(|name| {
        let text = std::fs::read_to_string(machine.path(name)).unwrap_or_default();
        let _ = std::fs::remove_file(machine.path(name));
        text
    });
    said.stdout.clone() + &said.stderr + &shown + &files.concat()
}

#[test]
fn what_a_check_or_step_prints_is_kept_without_secrets() {
    let mut machine = super::with_files();
    machine.set("SHOP_DB_PASSWORD", "hunter22");
    machine.file("pw", "correct horse\n");
    machine.set("LIFEBOAT_PASSWORD_FILE", machine.path("pw").to_str().unwrap());
    machine.set("LIFEBOAT_PASSWORD", "");
    let said = machine.run_with(
        &[("LIFEBOAT_PASSWORD", "right"), ("LIFEBOAT_PASSWORD_FILE", "")],
        &["key", "add", "--role", "owner", "--new-password-file", "pw"],
    );
    assert_eq!(said.code, 0, "{}", said.stderr);
    // Behind 195 letters, so that what is cut off at 200 would leave half of it.
    let long = "printf '%0195d%s\\n' 0 \"$SHOP_DB_PASSWORD\"";
    for (what, arguments, code) in [
        ("a check that passes", ["--check-command", "echo connected with hunter22"], 0),
        ("a long line", ["--check-command", long], 0),
        ("a check that fails", ["--check-command", "echo bad login app:$SHOP_DB_PASSWORD >&2; exit 3"], 21),
        ("a step", ["--step", "echo rotated hunter22 to password=s3cr3t"], 0),
        ("a step that fails", ["--step", "cat pw >&2; exit 1"], 21),
        ("the repository's password", ["--check-command", "cat pw"], 0),
        ("an address", ["--check-command", "echo postgres://app:s3cr3t@db/shop"], 0),
        ("the check itself", ["--check-command", "PGPASSWORD=s3cr3t true"], 0),
        ("a token", ["--check-command", "echo '{\"token\": \"s3cr3t\"}'; false"], 21),
    ] {
        let said = machine.run(&[&["drill", "run"][..], &arguments, &REPORTS].concat());
        assert_eq!(said.code, code, "{what}: {}{}", said.stdout, said.stderr);
        let all = left(&machine, &said);
        // Nor half of one, where a long line was cut.
        for secret in ["hunte", "s3cr3t", "correct horse"] {
            assert!(!all.contains(secret), "{what} leaves {secret}: {all}");
        }
        assert!(what == "a long line" || all.matches("[redacted]").count() >= 6, "{what}: {all}");
    }
}

#[test]
fn the_password_of_a_server_that_was_made_for_the_drill_is_told_nobody() {
    let machine = Machine::with_repository();
    let source = crate::services::redis::start(&[]);
    source.ask(&["SET", "a", "b"]);
    assert_eq!(machine.run(&["backup", &source.address()]).code, 0);
    let check = "echo \"$REDISCLI_AUTH\" | tee made; echo \"login with $REDISCLI_AUTH failed\" >&2; exit 1";
    let said = machine.run(&[&["drill", "run", "--check-command", check][..], &REPORTS].concat());
    assert_eq!(said.code, 21, "{}{}", said.stdout, said.stderr);
    let made = std::fs::read_to_string(machine.path("made")).unwrap();
    let all = left(&machine, &said);
    assert!(made.trim().len() > 8 && !all.contains(made.trim()), "{all}");
    assert!(all.contains("login with [redacted] failed"), "{all}");
}

#[test]
fn what_a_container_wrote_before_it_ended_is_told_without_secrets() {
    let (engine, machine, project) = (engine(), with_docker(), unique("drill-leak"));
    let containers = Containers(project.clone());
    let name = format!("{project}-app-1");
    let label = format!("com.docker.compose.project={project}");
    let script =
        "[ -e /host ] || { echo no login for app:$DB_PASSWORD, nor hunter33 >&2; exit 3; }; sleep 600";
    engine.docker(&[
        "run",
        "-d",
        "--name",
        &name,
        "--network",
        "none",
        "--label",
        &label,
        "--label",
        "com.docker.compose.service=app",
        "-v",
        "/etc/hostname:/host:ro",
        "-e",
        "DB_PASSWORD=hunter22",
        "-e",
        "SMTP_TOKEN=hunter33",
        IMAGE,
        "sh",
        "-c",
        script,
    ]);
    assert_eq!(machine.run(&["backup", "--job", "shop", &format!("docker-project:{project}")]).code, 0);
    let repository = machine.path("repository").display().to_string();
    machine.file(
        "lifeboat.toml",
        format!("[repository.main]\nurl = \"{repository}\"\n[drill.drill]\nrestore = \"shop@latest\"\nsecrets = [\"DB_PASSWORD\"]\n\
                 checks = [{{ command = \"true\" }}]\n"),
    );
    let said = machine.run(&[&["--config", "lifeboat.toml", "drill", "run", "drill"][..], &REPORTS].concat());
    drop(containers);
    assert_eq!(said.code, 21, "{}{}", said.stdout, said.stderr);
    assert!(said.stdout.contains("it said: no login for app:[redacted], nor [redacted]"), "{}", said.stdout);
    let all = left(&machine, &said);
    assert!(!all.contains("hunter22") && !all.contains("hunter33"), "{all}");
}
