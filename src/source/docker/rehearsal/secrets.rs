//! Production's secrets, kept out of a rehearsal: each is replaced by a value made up for it, everywhere it stands, so
//! that services which share one still agree.
//!
//! Pure but for the made-up values. What looks like a secret is judged by the variable's name, and by an address that
//! holds a password; what is listed keeps its value.

use std::collections::{BTreeMap, BTreeSet};

use crate::base::secret::Secret;

/// Parts of names that secrets have.
const SIGNS: [&str; 11] = [
    "PASSWORD",
    "PASSWD",
    "PASSPHRASE",
    "SECRET",
    "TOKEN",
    "CREDENTIAL",
    "API_KEY",
    "APIKEY",
    "ACCESS_KEY",
    "PRIVATE_KEY",
    "_PASS",
];
/// Shorter values are no secrets, and replacing them elsewhere would change what means something.
const SHORTEST: usize = 4;

/// Values to replace, and what by.
#[derive(Debug, Default)]
pub struct Secrets {
    values: BTreeMap<String, String>,
    /// Variables whose values are replaced.
    pub replaced: BTreeSet<String>,
    /// Variables that look like secrets and were listed.
    pub kept: BTreeSet<String>,
    /// Every value that looked like one, kept or not.
    seen: BTreeSet<String>,
}

fn looks_secret(name: &str) -> bool {
    let name = name.to_ascii_uppercase();
    // The path of a file holds no secret.
    !name.ends_with("_FILE") && (SIGNS.iter().any(|sign| name.contains(sign)) || name.ends_with("_KEY"))
}

/// The password in `scheme://user:password@host…`.
fn password_in(value: &str) -> Option<&str> {
    let (_, rest) = value.split_once("://")?;
    let place = rest.split(['/', '?', '#']).next()?;
    let (user, _) = place.rsplit_once('@')?;
    user.split_once(':').map(|(_, password)| password)
}

impl Secrets {
    /// Looks at one container's variables (`NAME=value`). `make` makes a value up.
    pub fn look(&mut self, variables: &[String], listed: &[String], make: impl Fn() -> String) {
        for (name, value) in variables.iter().filter_map(|pair| pair.split_once('=')) {
            let secret = if looks_secret(name) { Some(value) } else { password_in(value) };
            let Some(secret) = secret.filter(|secret| secret.len() >= SHORTEST) else { continue };
            self.seen.insert(secret.to_owned());
            if listed.iter().any(|known| known == name) {
                self.kept.insert(name.to_owned());
                continue;
            }
            self.replaced.insert(name.to_owned());
            self.values.entry(secret.to_owned()).or_insert_with(&make);
        }
    }

    /// After every container was looked at: what is listed under one name keeps its value under all.
    pub fn settle(&mut self, variables: &[String]) {
        for (name, value) in variables.iter().filter_map(|pair| pair.split_once('=')) {
            if self.kept.contains(name) {
                self.values.remove(value);
                if let Some(password) = password_in(value) {
                    self.values.remove(password);
                }
            }
        }
    }

    /// What must not be shown: production's values, and those made up for them.
    pub fn all(&self) -> Vec<Secret> {
        self.seen.iter().chain(self.values.values()).cloned().map(Secret::from_text).collect()
    }

    /// The text with every secret replaced; the longest first, for one may hold another.
    pub fn hide(&self, text: &str) -> String {
        let mut by_length: Vec<(&String, &String)> = self.values.iter().collect();
        by_length.sort_by_key(|(secret, _)| std::cmp::Reverse(secret.len()));
        by_length
            .into_iter()
            .fold(text.to_owned(), |text, (secret, instead)| text.replace(secret.as_str(), instead))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_replaced_alike_everywhere_and_the_rest_stays() {
        let db = [
            "POSTGRES_PASSWORD=hunter22".to_owned(),
            "POSTGRES_DB=shop".into(),
            "PASSWORD_FILE=/run/x".into(),
        ];
        let app = [
            "DATABASE_URL=postgres://app:hunter22@db/shop".to_owned(),
            "SMTP_PASSWORD=live-mail".into(),
            "STRIPE_KEY=sk_live_1".into(),
            "PATH=/bin".into(),
        ];
        let listed = ["STRIPE_KEY".to_owned()];
        let number = std::cell::Cell::new(0);
        let make = || {
            number.set(number.get() + 1);
            format!("made-up-{}", number.get())
        };
        let mut secrets = Secrets::default();
        for variables in [db.as_slice(), &app] {
            secrets.look(variables, &listed, make);
        }
        for variables in [db.as_slice(), &app] {
            secrets.settle(variables);
        }
        assert_eq!(secrets.hide(&db[0]), "POSTGRES_PASSWORD=made-up-1");
        assert_eq!(secrets.hide(&app[0]), "DATABASE_URL=postgres://app:made-up-1@db/shop");
        assert_eq!(secrets.hide(&app[1]), "SMTP_PASSWORD=made-up-2");
        for same in [&db[1], &db[2], &app[2], &app[3]] {
            assert_eq!(secrets.hide(same), *same);
        }
        assert_eq!(
            secrets.replaced.iter().collect::<Vec<_>>(),
            ["DATABASE_URL", "POSTGRES_PASSWORD", "SMTP_PASSWORD"]
        );
        assert_eq!(secrets.kept.iter().collect::<Vec<_>>(), ["STRIPE_KEY"]);
        let all = secrets.all();
        for known in ["hunter22", "live-mail", "sk_live_1", "made-up-1", "made-up-2"] {
            assert!(all.iter().any(|secret| secret.expose() == known.as_bytes()), "{known}");
        }
    }
}
