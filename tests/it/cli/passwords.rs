//! Every way to say the password, and every way to say it wrongly.

use std::io::Read;
use std::os::unix::fs::PermissionsExt;

use super::{Machine, answer, on_terminal};

#[test]
fn every_source_of_the_password_opens_the_repository() {
    let machine = Machine::with_repository();
    machine.file("password", "right\n");
    let file = machine.path("password").display().to_string();
    let none = ("LIFEBOAT_PASSWORD", "");
    for (variables, arguments) in [
        (vec![("LIFEBOAT_PASSWORD", "right")], vec!["snapshots"]),
        (vec![none, ("LIFEBOAT_PASSWORD_FILE", file.as_str())], vec!["snapshots"]),
        (vec![none, ("LIFEBOAT_PASSWORD_COMMAND", "echo right")], vec!["snapshots"]),
        (vec![none], vec!["snapshots", "--password-command", "printf right"]),
        // A flag beats the environment.
        (vec![("LIFEBOAT_PASSWORD", "wrong")], vec!["snapshots", "--password-file", &file]),
    ] {
        let said = machine.run_with(&variables, &arguments);
        assert_eq!(said.code, 0, "{variables:?} {arguments:?}: {}", said.stderr);
    }
}

#[test]
fn a_key_file_is_made_by_init_for_its_owner_only_and_opens() {
    let machine = Machine::new();
    let key = machine.path("key").display().to_string();
    let none = [("LIFEBOAT_PASSWORD", ""), ("LIFEBOAT_KEY_FILE", key.as_str())];
    assert_eq!(machine.run_with(&none, &["init"]).code, 0);
    let metadata = std::fs::metadata(machine.path("key")).unwrap();
    assert_eq!(metadata.permissions().mode() & 0o777, 0o600);
    assert_eq!(machine.run_with(&none, &["snapshots"]).code, 0);
    assert_eq!(machine.run(&["snapshots"]).code, 12, "no password was ever set");
    std::fs::write(machine.path("key"), "short").unwrap();
    assert_eq!(machine.run_with(&none, &["snapshots"]).code, 2);
}

#[test]
fn senseless_passwords_are_usage_errors() {
    let machine = Machine::with_repository();
    machine.file("empty", "\n");
    let empty = machine.path("empty").display().to_string();
    let none = ("LIFEBOAT_PASSWORD", "");
    for (variables, expected) in [
        (vec![none], "no password was given"),
        (vec![none, ("LIFEBOAT_PASSWORD_FILE", empty.as_str())], "is empty"),
        (
            vec![none, ("LIFEBOAT_PASSWORD_FILE", "/nonexistent")],
            "cannot read the password file /nonexistent",
        ),
        (vec![none, ("LIFEBOAT_PASSWORD_COMMAND", "exit 7")], "exit status: 7"),
        (vec![("LIFEBOAT_PASSWORD_FILE", empty.as_str())], "both say how to open"),
    ] {
        let said = machine.run_with(&variables, &["snapshots"]);
        assert_eq!(said.code, 2, "{variables:?}: {}", said.stderr);
        assert!(said.stderr.contains(expected), "{variables:?}: {}", said.stderr);
    }
}

#[test]
fn a_wrong_password_is_told_with_where_it_came_from() {
    let machine = Machine::with_repository();
    let said = machine.run_with(&[("LIFEBOAT_PASSWORD", "wrong")], &["snapshots"]);
    assert_eq!(said.code, 12);
    insta::assert_snapshot!(said.stderr, @r"
    error: snapshots: wrong password or key for the repository at $T/repository
    hint: it came from LIFEBOAT_PASSWORD
    ");
}

#[test]
fn a_password_in_an_address_is_refused_and_not_repeated() {
    let machine = Machine::new();
    let said = machine.run(&["snapshots", "-r", "sftp://user:hunter2@host/./x"]);
    assert_eq!(said.code, 2);
    assert!(said.stderr.contains("hint: ") && !said.stderr.contains("hunter2"), "{}", said.stderr);
}

#[test]
fn on_a_terminal_init_asks_twice_and_others_once_without_showing_it() {
    let machine = Machine::new();
    let command = |arguments: &[&str]| {
        let mut command = machine.raw(arguments);
        command.env_remove("LIFEBOAT_PASSWORD");
        command
    };
    let mut child = on_terminal(&command(&["init", "--argon-memory", "8M", "--argon-passes", "1"]));
    answer(&mut child, "new password for", "typed-secret");
    let first = answer(&mut child, "the same again: ", "typed-secret");
    let mut rest = String::new();
    child.stdout.take().unwrap().read_to_string(&mut rest).unwrap();
    assert!(child.wait().unwrap().success(), "{rest}");
    assert!(!(first + &rest).contains("typed-secret"));

    let mut child = on_terminal(&command(&["snapshots"]));
    answer(&mut child, "password for", "typed-secret");
    assert!(child.wait().unwrap().success());

    let mut child = on_terminal(&command(&["snapshots"]));
    answer(&mut child, "password for", "another");
    assert_eq!(child.wait().unwrap().code(), Some(12));
}

#[test]
fn two_different_new_passwords_make_nothing() {
    let machine = Machine::new();
    let mut command = machine.raw(&["init"]);
    command.env_remove("LIFEBOAT_PASSWORD");
    let mut child = on_terminal(&command);
    answer(&mut child, "new password for", "one");
    answer(&mut child, "the same again: ", "two");
    assert_eq!(child.wait().unwrap().code(), Some(2));
    assert_eq!(machine.run(&["snapshots"]).code, 10);
}
