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

/// The sections of all accounts. One that the server lists and does not know (as it does hosts by name when it
/// resolves none) is named in `warnings`.
///
/// # Errors
/// As [`list`].
pub fn capture(reach: &Reach, warnings: &mut Vec<String>) -> Result<Vec<Section>, SourceError> {
    let accounts = list(reach)?;
    // Hashes of passwords can be any bytes.
    let as_hex = reach.flavour == Flavour::MySql && super::tools::release(&reach.version) >= Some((8, 0));
    let first = if as_hex { "SET SESSION print_identified_with_as_hex = ON;\n" } else { "" };
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
                        let why = server_said(&error);
                        warnings.push(format!("user {} was not captured: {why}", account.shown()));
                    }
                }
            }
            rows
        }
    };
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
    Ok(sections)
}

/// The server's own line of an error.
pub fn server_said(error: &SourceError) -> String {
    let text = error.to_string();
    text.lines().find(|line| line.contains("ERROR")).unwrap_or(&text).trim().to_owned()
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

/// Makes the accounts that are not there, or all with `replace`; their rights on the databases follow those to the
/// names they get. Returns the names made, and the names left alone.
///
/// # Errors
/// The server's.
pub fn restore(
    reach: &Reach,
    sections: &[Section],
    names: &[(String, String)],
    replace: bool,
) -> Result<(Vec<String>, Vec<String>), SourceError> {
    let there: BTreeSet<Account> = list(reach)?.into_iter().collect();
    let (mut made, mut left) = (Vec::new(), Vec::new());
    let (mut makes, mut gives) = (String::new(), String::new());
    for Section { account, statements } in sections {
        let is_there = there.contains(account);
        // Whoever restores must stay able to.
        let is_us = account.name == reach.server.user;
        if is_there && (!replace || is_us) {
            left.push(account.shown());
            continue;
        }
        made.push(account.shown());
        if is_there {
            let what = if account.host.is_empty() { "ROLE" } else { "USER" };
            makes.push_str(&format!("DROP {what} {};\n", account.sql(reach.flavour)));
        }
        for (number, statement) in statements.iter().enumerate() {
            let text = if number == 0 { &mut makes } else { &mut gives };
            text.push_str(&format!("{statement};\n"));
            for (from, to) in names.iter().filter(|(from, to)| from != to && number > 0) {
                if let Some(moved) = moved(statement, from, to) {
                    gives.push_str(&format!("{moved};\n"));
                }
            }
        }
    }
    if !made.is_empty() {
        reach.query("make the users", None, &format!("{makes}{gives}"))?;
    }
    Ok((made, left))
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
