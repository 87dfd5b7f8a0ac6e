//! Owners by name and number: looked up once each through the system's name service.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, PoisonError};

use nix::unistd::{Gid, Group, Uid, User};

/// Answers already given, shared between threads.
#[derive(Debug)]
struct Cache<K, V>(Mutex<HashMap<K, Option<V>>>);

impl<K, V> Default for Cache<K, V> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Eq + Hash, V: Clone> Cache<K, V> {
    fn get(&self, key: K, look_up: impl FnOnce(&K) -> Option<V>) -> Option<V> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(value) = known.get(&key) {
            return value.clone();
        }
        let value = look_up(&key);
        known.insert(key, value.clone());
        value
    }
}

/// The system's users and groups. A lookup that fails is remembered as "no such name".
#[derive(Debug, Default)]
pub struct Owners {
    users: Cache<u32, Vec<u8>>,
    groups: Cache<u32, Vec<u8>>,
    user_ids: Cache<Vec<u8>, u32>,
    group_ids: Cache<Vec<u8>, u32>,
}

impl Owners {
    /// The name of a user number.
    pub fn user(&self, uid: u32) -> Option<Vec<u8>> {
        self.users.get(uid, |uid| {
            let user = User::from_uid(Uid::from_raw(*uid)).ok().flatten()?;
            Some(user.name.into_bytes()).filter(|name| !name.is_empty() && name.len() <= 256)
        })
    }

    /// The name of a group number.
    pub fn group(&self, gid: u32) -> Option<Vec<u8>> {
        self.groups.get(gid, |gid| {
            let group = Group::from_gid(Gid::from_raw(*gid)).ok().flatten()?;
            Some(group.name.into_bytes()).filter(|name| !name.is_empty() && name.len() <= 256)
        })
    }

    /// The number of a user name.
    pub fn user_id(&self, name: &[u8]) -> Option<u32> {
        self.user_ids.get(name.to_vec(), |name| {
            let user = User::from_name(std::str::from_utf8(name).ok()?).ok().flatten()?;
            Some(user.uid.as_raw())
        })
    }

    /// The number of a group name.
    pub fn group_id(&self, name: &[u8]) -> Option<u32> {
        self.group_ids.get(name.to_vec(), |name| {
            let group = Group::from_name(std::str::from_utf8(name).ok()?).ok().flatten()?;
            Some(group.gid.as_raw())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_find_each_other() {
        let owners = Owners::default();
        assert_eq!(owners.user(0).as_deref(), Some(&b"root"[..]));
        assert_eq!(owners.user_id(b"root"), Some(0));
        assert_eq!(owners.group_id(b"root"), Some(0));
        assert_eq!(owners.user(3_999_999_999), None);
        assert_eq!(owners.user_id(b"no such user, ever"), None);
        assert_eq!(owners.user_id(b"no\0name"), None);
    }
}
