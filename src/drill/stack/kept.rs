//! What the components of a stack share while it is rehearsed: sandboxes that stay until all is done, and the variables
//! by which a component's commands find those it needs.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};

use crate::drill::sandbox::{Sandbox, as_variable, for_programs};

type Variables = Vec<(String, String)>;

/// See the module.
#[derive(Default)]
pub struct Kept {
    sandboxes: Mutex<Vec<Box<dyn Sandbox>>>,
    /// By component: what everybody finds, and what client programs of those find that need it.
    variables: Mutex<BTreeMap<String, (Variables, Variables)>>,
}

impl Kept {
    pub fn keep(&self, name: &str, sandbox: Box<dyn Sandbox>) {
        let suffix = as_variable(name);
        let mut found = Vec::new();
        if let Some(path) = sandbox.path() {
            found.push((format!("LIFEBOAT_DRILL_PATH_{suffix}"), path.to_string_lossy().into_owned()));
        }
        if let Some(address) = for_programs(sandbox.as_ref()) {
            found.push((format!("LIFEBOAT_DRILL_ADDRESS_{suffix}"), address));
        }
        let of_clients = sandbox.environment();
        self.variables
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(name.to_owned(), (found, of_clients));
        self.sandboxes.lock().unwrap_or_else(PoisonError::into_inner).push(sandbox);
    }

    /// Of everything that is ready by now but `name` itself. What client programs look for (`PGHOST` and its like) comes
    /// from what it needs, as long as that is one server: of two, none is meant.
    pub fn variables(&self, name: &str, needs: &BTreeSet<String>) -> Variables {
        let all = self.variables.lock().unwrap_or_else(PoisonError::into_inner);
        let mut of_clients: BTreeMap<&String, BTreeSet<&String>> = BTreeMap::new();
        for (_, found) in needs.iter().filter(|needed| *needed != name).filter_map(|needed| all.get(needed)) {
            for (key, value) in found {
                of_clients.entry(key).or_default().insert(value);
            }
        }
        let one = of_clients.into_iter().filter(|(_, values)| values.len() == 1);
        let mut variables: Variables =
            one.filter_map(|(key, values)| Some((key.clone(), values.into_iter().next()?.clone()))).collect();
        let others = all.iter().filter(|(other, _)| *other != name);
        variables.extend(others.flat_map(|(_, (found, _))| found.clone()));
        variables
    }

    /// Removes all, the last first; what could not be removed.
    pub fn clean(&self) -> Vec<String> {
        let mut sandboxes =
            std::mem::take(&mut *self.sandboxes.lock().unwrap_or_else(PoisonError::into_inner));
        let mut failed = Vec::new();
        while let Some(sandbox) = sandboxes.pop() {
            failed.extend(sandbox.clean().err().map(|error| error.to_string()));
        }
        failed
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::sandbox::SandboxError;
    use super::*;

    struct Server(&'static str);

    impl Sandbox for Server {
        fn path(&self) -> Option<&std::path::Path> {
            None
        }
        fn address(&self) -> Option<String> {
            Some(format!("postgres:///*?host={}&tools=%2Fusr%2Flib", self.0))
        }
        fn describe(&self) -> String {
            String::new()
        }
        fn sql(&mut self, _: &str) -> Result<Option<String>, SandboxError> {
            Ok(None)
        }
        fn environment(&self) -> Variables {
            vec![("PGHOST".into(), self.0.into()), ("PGPORT".into(), "5432".into())]
        }
        fn not_tested(&self) -> Vec<String> {
            Vec::new()
        }
        fn clean(self: Box<Self>) -> Result<(), SandboxError> {
            Ok(())
        }
    }

    #[test]
    fn clients_find_the_server_that_is_needed_and_of_two_neither() {
        let kept = Kept::default();
        kept.keep("db", Box::new(Server("a")));
        kept.keep("my-db", Box::new(Server("b")));
        let find = |needs: &[&str], key: &str| {
            let needs = needs.iter().map(|name| (*name).to_owned()).collect();
            let found = kept.variables("app", &needs);
            found.into_iter().find(|(name, _)| name == key).map(|(_, value)| value)
        };
        assert_eq!(find(&["db"], "PGHOST"), Some("a".into()));
        assert_eq!(find(&[], "PGHOST"), None);
        assert_eq!(find(&["db", "my-db"], "PGHOST"), None);
        assert_eq!(find(&["db", "my-db"], "PGPORT"), Some("5432".into()));
        // Each is there by its address, as libpq takes it.
        assert_eq!(find(&[], "LIFEBOAT_DRILL_ADDRESS_MY_DB"), Some("postgres:///?host=b".into()));
        assert_eq!(find(&["db"], "LIFEBOAT_DRILL_ADDRESS_DB"), Some("postgres:///?host=a".into()));
    }
}
