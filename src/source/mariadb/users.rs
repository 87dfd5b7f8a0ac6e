//! Users, roles and their rights, as a script in sections: one section makes one of them.

use std::collections::BTreeSet;

use super::MariaError;
use super::session::{Reach, ident};
use super::tools::Flavour;
use crate::source::capture::SourceError;

/// Those that belong to the server itself.
const SERVERS_OWN: [&str; 6] =
    ["mariadb.sys", "mysql.sys", "mysql.session", "mysql.infoschema", "PUBLIC", "mysql"];
const SECTION: &str = "-- user or role: ";
/// Marks a section's beginning in the server's answer.
const MARK: &str = "lifeboat-section";

/// A user (`name` and `host`) or role (`host` empty).
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Account {
    pub name: String,
    pub host: String,
}

impl Account {
    /// As SQL.
    fn sql(&self, flavour: Flavour) -> String {
        match self.host.as_str() {
            "" if flavour == Flavour::MariaDb => ident(&self.name),
            host => format!("{}@{}", ident(&self.name), ident(host)),
        }
    }

    /// With what it is.
    fn said(&self) -> String {
        format!("{} {}", if self.host.is_empty() { "role" } else { "user" }, self.shown())
    }

    /// For people.
    pub fn shown(&self) -> String {
        if self.host.is_empty() { self.name.clone() } else { format!("{}@{}", self.name, self.host) }
    }
}

/// What makes one account.
#[derive(Clone, Debug, Default)]
pub struct Section {
    pub account: Account,
    /// The first makes it, the others give it rights.
    pub statements: Vec<String>,
}

/// All accounts of a server.
///
/// # Errors
/// The server's: this user may not read them.
pub fn list(reach: &Reach) -> Result<Vec<Account>, SourceError> {
    let sql = match reach.flavour {
        Flavour::MariaDb => "SELECT 'a', User, IF(is_role = 'Y', '', Host) FROM mysql.user ORDER BY 2, 3",
        Flavour::MySql => "SELECT 'a', User, Host FROM mysql.user ORDER BY 2, 3",
    };
    let rows = reach.query("list the users", None, sql)?;
    let cell = |row: &Vec<String>, column: usize| row.get(column).cloned().unwrap_or_default();
    let accounts = rows.iter().map(|row| Account { name: cell(row, 1), host: cell(row, 2) });
    Ok(accounts.filter(|account| !SERVERS_OWN.contains(&account.name.as_str())).collect())
}

/// The SQL that shows one account, after a row that tells its number.
fn show(reach: &Reach, number: usize, account: &Account) -> String {
    let name = account.sql(reach.flavour);
    let mut sql = format!("SELECT '{MARK}', {number};\n");
    if !account.host.is_empty() {
        sql.push_str(&format!("SHOW CREATE USER {name};\n"));
    }
    sql + &format!("SHOW GRANTS FOR {name};\n")
}

/// Goes before what [`show`] says: hashes of passwords can be any bytes.
fn as_hex(reach: &Reach) -> &'static str {
    let is_asked = reach.flavour == Flavour::MySql && super::tools::release(&reach.version) >= Some((8, 0));
    if is_asked { "SET SESSION print_identified_with_as_hex = ON;\n" } else { "" }
}

/// The sections of all accounts. One that the server lists and does not know (as it does hosts by name when it
/// resolves none) is named in `warnings`.
///
/// # Errors
/// As [`list`].
pub fn capture(reach: &Reach, warnings: &mut Vec<String>) -> Result<Vec<Section>, SourceError> {
    let accounts = list(reach)?;
    let first = as_hex(reach);
    let each: Vec<String> =
        accounts.iter().enumerate().map(|(number, account)| show(reach, number, account)).collect();
    let rows = match reach.query("read the users", None, &format!("{first}{}", each.concat())) {
        Ok(rows) => rows,
        Err(cancelled @ SourceError::Cancelled(_)) => return Err(cancelled),
        Err(_) => {
            let mut rows = Vec::new();
            for (account, show) in accounts.iter().zip(&each) {
                match reach.query("read a user", None, &format!("{first}{show}")) {
                    Ok(more) => rows.extend(more),
                    Err(cancelled @ SourceError::Cancelled(_)) => return Err(cancelled),
                    Err(error) => {
                        let why = account_said(&error);
                        warnings.push(format!("user {} was not captured: {why}", account.shown()));
                    }
                }
            }
            rows
        }
    };
    Ok(sections(rows, &accounts))
}

/// What [`show`] answered for `accounts`.
fn sections(rows: Vec<Vec<String>>, accounts: &[Account]) -> Vec<Section> {
    let mut sections: Vec<Section> = Vec::new();
    for row in rows {
        match row.as_slice() {
            [mark, number] if mark == MARK => {
                let account = number.parse().ok().and_then(|number: usize| accounts.get(number)).cloned();
                let account = account.unwrap_or_default();
                let made = account.host.is_empty().then(|| format!("CREATE ROLE {}", ident(&account.name)));
                sections.push(Section { account, statements: made.into_iter().collect() });
            }
            row => {
                if let (Some(section), Some(statement)) = (sections.last_mut(), row.first()) {
                    section.statements.push(statement.clone());
                }
            }
        }
    }
    sections
}

/// The server's own line of an error.
pub fn server_said(error: &SourceError) -> String {
    let text = error.to_string();
    text.lines().find(|line| line.contains("ERROR")).unwrap_or(&text).trim().to_owned()
}

/// The same of a statement about an account, without the piece of it that a server repeats: hashes stand there.
fn account_said(error: &SourceError) -> String {
    let said = server_said(error);
    said.split(" near '").next().unwrap_or_default().to_owned()
}

/// The script.
pub fn write(sections: &[Section]) -> String {
    let mut text = String::new();
    for Section { account, statements } in sections {
        let name = serde_json::json!([account.name, account.host]);
        text.push_str(&format!("{SECTION}{name}\n"));
        for statement in statements {
            text.push_str(&format!("{statement};\n"));
        }
    }
    text.push_str("-- end of users and roles\n");
    text
}

/// Reads it back.
///
/// # Errors
/// It is none.
pub fn parse(text: &str) -> Result<Vec<Section>, MariaError> {
    let bad = || MariaError::Other("the users of the snapshot cannot be read".into());
    let mut sections: Vec<Section> = Vec::new();
    let mut open = String::new();
    for line in text.lines() {
        if let Some(name) = line.strip_prefix(SECTION).filter(|_| open.is_empty()) {
            let (name, host) = serde_json::from_str(name).map_err(|_| bad())?;
            sections.push(Section { account: Account { name, host }, statements: Vec::new() });
        } else if open.is_empty() && line.starts_with("-- ") {
            continue;
        } else {
            open.push_str(line);
            match open.strip_suffix(';') {
                Some(statement) => {
                    let section = sections.last_mut().ok_or_else(bad)?;
                    section.statements.push(statement.to_owned());
                    open.clear();
                }
                None => open.push('\n'),
            }
        }
    }
    if open.is_empty() { Ok(sections) } else { Err(bad()) }
}

/// A right given on database `from`, as one on `to`; `None` when it is of something else.
fn moved(statement: &str, from: &str, to: &str) -> Option<String> {
    let (rights, rest) = statement.split_once(" ON `")?;
    // Wildcards in a database's name are escaped in a right on all of it.
    let escaped = from.replace('_', "\\_").replace('%', "\\%");
    let rest = [from, &escaped]
        .iter()
        .find_map(|name| rest.strip_prefix(name.replace('`', "``").as_str())?.strip_prefix("`."))?;
    Some(format!("{rights} ON {}.{rest}", ident(to)))
}

/// What became of the accounts of a snapshot: names, for people.
#[derive(Debug, Default)]
pub struct Restored {
    pub made: Vec<String>,
    /// There already, and not touched.
    pub left: Vec<String>,
    /// What could not be done, and what that account is now; one line each.
    pub failed: Vec<String>,
    /// The run was cancelled, and an account could not be put back; the rest was not tried.
    pub lost: Option<String>,
}

/// Makes the accounts that are not there, or all with `replace`; their rights on the databases follow those to the
/// names they get.
///
/// Account by account: one that fails leaves the others alone, and one that was there is put back as it was.
///
/// # Errors
/// The accounts of the server cannot be listed, or the run was cancelled.
pub fn restore(
    reach: &Reach,
    sections: &[Section],
    names: &[(String, String)],
    replace: bool,
) -> Result<Restored, SourceError> {
    let there: BTreeSet<Account> = list(reach)?.into_iter().collect();
    let mut done = Restored::default();
    let mut wanted = Vec::new();
    // All that are missing are made before any gets its rights: those may be another's.
    for section in sections {
        let Section { account, statements } = section;
        let is_there = there.contains(account);
        // Whoever restores must stay able to.
        if is_there && (!replace || account.name == reach.server.user) {
            done.left.push(account.shown());
            continue;
        }
        let made = match (is_there, statements.first()) {
            (false, Some(make)) => reach.query(&format!("make {}", account.said()), None, make).map(drop),
            _ => Ok(()),
        };
        match made {
            Ok(()) => wanted.push((section, is_there)),
            Err(cancelled @ SourceError::Cancelled(_)) => return Err(cancelled),
            Err(error) => {
                done.failed.push(format!("{} was not made: {}", account.said(), account_said(&error)));
            }
        }
    }
    for (section, is_there) in wanted {
        let account = &section.account;
        let given = rights(section, names);
        let result = match is_there {
            true => exchange(reach, section, &given),
            false => {
                reach.query(&format!("give rights to {}", account.said()), None, &given).map_err(|error| {
                    let what = format!("{} was made, without all of its rights", account.said());
                    Broken { error, what, is_lost: false }
                })
            }
        };
        match result {
            Ok(_) => done.made.push(account.shown()),
            Err(Broken { error: cancelled @ SourceError::Cancelled(_), what, is_lost }) => {
                if is_lost {
                    done.lost = Some(format!("cancelled while users were made: {what}"));
                    return Ok(done);
                }
                return Err(cancelled);
            }
            Err(Broken { error, what, .. }) => done.failed.push(format!("{what}: {}", account_said(&error))),
        }
    }
    Ok(done)
}

/// The SQL that gives an account its rights, on databases under their new names too.
fn rights(section: &Section, names: &[(String, String)]) -> String {
    let mut sql = String::new();
    // A role is shown with what it has through others.
    let own = format!(" TO {}", ident(&section.account.name));
    let is_own = |text: &&String| !section.account.host.is_empty() || text.contains(&own);
    for statement in section.statements.iter().skip(1).filter(is_own) {
        sql.push_str(&format!("{statement};\n"));
        for (from, to) in names.iter().filter(|(from, to)| from != to) {
            if let Some(moved) = moved(statement, from, to) {
                sql.push_str(&format!("{moved};\n"));
            }
        }
    }
    sql
}

/// Why an account is not what the snapshot has, and what it is now.
struct Broken {
    error: SourceError,
    what: String,
    /// It is not what it was, either.
    is_lost: bool,
}

/// Makes an account that is there anew. If that fails, it is put back as it was, and the text says so.
fn exchange(reach: &Reach, section: &Section, given: &str) -> Result<Vec<Vec<String>>, Broken> {
    let account = &section.account;
    let (said, name) = (account.said(), account.sql(reach.flavour));
    let untouched = |error| Broken { error, what: format!("{said} was left as it is"), is_lost: false };
    let show = format!("{}{}", as_hex(reach), show(reach, 0, account));
    let rows = reach.query(&format!("look what {said} is"), None, &show).map_err(untouched)?;
    let old = sections(rows, std::slice::from_ref(account)).pop().unwrap_or_default();
    let make = |section: &Section, given: &str, has: &[String]| -> Result<String, SourceError> {
        let first = section.statements.first().cloned().unwrap_or_default();
        Ok(match account.host.is_empty() {
            // A role that is dropped is taken from everybody who has it.
            true => format!("{}{given}", bare(reach, account)?),
            // Never without the account: whoever is killed then would leave nobody who may log in.
            false if reach.flavour == Flavour::MySql => altered(&first, &name, has, given)?,
            false => match first.strip_prefix("CREATE USER ") {
                Some(rest) => format!("CREATE OR REPLACE USER {rest};\n{given}"),
                None => return Err(unknown(&said)),
            },
        })
    };
    let has = old.statements.get(1..).unwrap_or_default();
    let sql = make(section, given, has).map_err(untouched)?;
    let error = match reach.query(&format!("make {said} anew"), None, &sql) {
        Ok(rows) => return Ok(rows),
        Err(error) => error,
    };
    let back = make(&old, &rights(&old, &[]), &[])
        .and_then(|sql| reach.farewell(&format!("put {said} back"), None, &sql));
    Err(match back {
        Ok(_) => Broken {
            error,
            what: format!("{said} could not be made anew and is what it was"),
            is_lost: false,
        },
        Err(other) => {
            let why = account_said(&other);
            let what = format!("{said} is not what it was, for it could not be put back ({why})");
            Broken { error, what, is_lost: true }
        }
    })
}

fn unknown(said: &str) -> SourceError {
    MariaError::Other(format!("what makes {said} is not understood")).into()
}

/// The SQL that makes a user of MySQL who is there what `create` says. `has`: what was granted to it until now.
fn altered(create: &str, name: &str, has: &[String], given: &str) -> Result<String, SourceError> {
    let rest = create.strip_prefix("CREATE USER ").ok_or_else(|| unknown(name))?;
    // Default roles are a statement of their own here, and may be named once they are granted.
    let (rest, default) = match rest.split_once(" DEFAULT ROLE ") {
        None => (rest.to_owned(), String::new()),
        Some((head, tail)) => {
            let (roles, tail) = tail.split_once(" REQUIRE ").ok_or_else(|| unknown(name))?;
            (format!("{head} REQUIRE {tail}"), format!("ALTER USER {name} DEFAULT ROLE {roles};\n"))
        }
    };
    let mut sql = format!("ALTER USER {rest};\nREVOKE ALL PRIVILEGES, GRANT OPTION FROM {name};\n");
    // That takes no roles away.
    for granted in has.iter().filter(|granted| !granted.contains(" ON ")) {
        if let Some((roles, _)) = granted.strip_prefix("GRANT ").and_then(|rest| rest.split_once(" TO ")) {
            sql.push_str(&format!("REVOKE {roles} FROM {name};\n"));
        }
    }
    Ok(format!("{sql}{given}{default}"))
}

/// The SQL that takes everything from a role.
fn bare(reach: &Reach, role: &Account) -> Result<String, SourceError> {
    let name = role.sql(reach.flavour);
    let sql = format!(
        "SELECT 'r', Role FROM mysql.roles_mapping WHERE User = {} AND Host = ''",
        super::session::literal(&role.name)
    );
    let mut sql_of = String::new();
    // Roles first: with what it has through them, a server of 10.11 cannot take all from it.
    for row in reach.farewell("look what roles a role has", None, &sql)? {
        if let [_, has] = row.as_slice() {
            sql_of.push_str(&format!("REVOKE {} FROM {name};\n", ident(has)));
        }
    }
    Ok(format!("{sql_of}REVOKE ALL PRIVILEGES, GRANT OPTION FROM {name};\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let account = Account { name: "a\"\n;b".into(), host: "%".into() };
        let statements = vec!["CREATE USER x".to_owned(), "GRANT a ON b.*\nTO c".to_owned()];
        let sections = [Section { account: account.clone(), statements: statements.clone() }];
        let read = parse(&write(&sections)).unwrap();
        assert_eq!((&read[0].account, &read[0].statements), (&account, &statements));
        assert!(parse("GRANT x;\n").is_err());
        assert!(parse("-- user or role: [\"a\",\"b\"]\nGRANT x").is_err());
    }

    #[test]
    fn a_hash_that_a_server_repeats_is_not_said() {
        let text =
            "make user x\nERROR 1064 (42000) at line 1: You have an error near 'PASSWORD '*A1'' at line 1";
        let error = MariaError::Other(text.into()).into();
        assert_eq!(account_said(&error), "ERROR 1064 (42000) at line 1: You have an error");
    }

    #[test]
    fn a_user_of_mysql_is_altered_and_never_gone() {
        let create = "CREATE USER `a`@`%` IDENTIFIED WITH 'caching_sha2_password' AS 0x24 DEFAULT ROLE `r`@`%` REQUIRE NONE";
        let has = ["GRANT USAGE ON *.* TO `a`@`%`".to_owned(), "GRANT `old`@`%` TO `a`@`%`".to_owned()];
        let sql = altered(create, "`a`@`%`", &has, "GRANT `r`@`%` TO `a`@`%`;\n").unwrap();
        assert_eq!(
            sql,
            "ALTER USER `a`@`%` IDENTIFIED WITH 'caching_sha2_password' AS 0x24 REQUIRE NONE;\n\
             REVOKE ALL PRIVILEGES, GRANT OPTION FROM `a`@`%`;\nREVOKE `old`@`%` FROM `a`@`%`;\n\
             GRANT `r`@`%` TO `a`@`%`;\nALTER USER `a`@`%` DEFAULT ROLE `r`@`%`;\n"
        );
        assert!(altered("GRANT x", "a", &[], "").is_err());
    }

    #[test]
    fn a_right_on_a_database_follows_it_to_its_new_name() {
        let moved = |text: &str| moved(text, "my_shop", "new");
        assert_eq!(
            moved("GRANT SELECT ON `my\\_shop`.* TO `a`@`%`").unwrap(),
            "GRANT SELECT ON `new`.* TO `a`@`%`"
        );
        assert_eq!(
            moved("GRANT SELECT (`c`) ON `my_shop`.`t` TO `a`").unwrap(),
            "GRANT SELECT (`c`) ON `new`.`t` TO `a`"
        );
        assert_eq!(moved("GRANT SELECT ON `my_shop2`.* TO `a`"), None);
        assert_eq!(moved("GRANT USAGE ON *.* TO `a`"), None);
    }
}
