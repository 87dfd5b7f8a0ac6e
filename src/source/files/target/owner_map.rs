//! Whose a restored file is: by name where the name exists here, else by number, or as the caller maps it.

use crate::format::entry::Entry;
use crate::source::files::owner::Owners;

/// A rule that is not `[USER][:GROUP]=[USER][:GROUP]`.
#[derive(Debug, thiserror::Error)]
#[error("owner map {0:?} is not valid: write OLD=NEW, each USER, USER:GROUP or :GROUP, by name or number")]
pub struct OwnerMapError(String);

/// How owners in a snapshot become owners here.
#[derive(Clone, Debug, Default)]
pub struct OwnerMap {
    /// Use the numbers as they are, whatever names they had: right for volumes and chroots.
    pub numeric: bool,
    users: Vec<(String, String)>,
    groups: Vec<(String, String)>,
}

impl OwnerMap {
    /// Adds a rule `OLD=NEW`. Each side is `USER`, `USER:GROUP` or `:GROUP`, by name or number; both sides have the
    /// same form. The first rule that fits decides.
    ///
    /// # Errors
    /// Anything else.
    pub fn add(&mut self, rule: &str) -> Result<(), OwnerMapError> {
        let error = || OwnerMapError(rule.to_owned());
        let (old, new) = rule.split_once('=').ok_or_else(error)?;
        let split = |side: &str| {
            let (user, group) = side.split_once(':').unwrap_or((side, ""));
            (user.to_owned(), group.to_owned())
        };
        let ((old_user, old_group), (new_user, new_group)) = (split(old), split(new));
        let same_form =
            old_user.is_empty() == new_user.is_empty() && old_group.is_empty() == new_group.is_empty();
        if !same_form || (old_user.is_empty() && old_group.is_empty()) {
            return Err(error());
        }
        if !old_user.is_empty() {
            self.users.push((old_user, new_user));
        }
        if !old_group.is_empty() {
            self.groups.push((old_group, new_group));
        }
        Ok(())
    }

    /// User and group number for an entry.
    pub(super) fn owner_of(&self, entry: &Entry, owners: &Owners) -> (u32, u32) {
        let user = self.one(&self.users, entry.uid, entry.user.as_deref(), |name| owners.user_id(name));
        let group = self.one(&self.groups, entry.gid, entry.group.as_deref(), |name| owners.group_id(name));
        (user, group)
    }

    fn one(
        &self,
        rules: &[(String, String)],
        id: u32,
        name: Option<&[u8]>,
        find: impl Fn(&[u8]) -> Option<u32>,
    ) -> u32 {
        let fits = |old: &str| Some(old.as_bytes()) == name || old.parse() == Ok(id);
        if let Some((_, new)) = rules.iter().find(|(old, _)| fits(old)) {
            // A name that does not exist here leaves the number.
            return find(new.as_bytes()).or_else(|| new.parse().ok()).unwrap_or(id);
        }
        match name {
            Some(name) if !self.numeric => find(name).unwrap_or(id),
            _ => id,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::entry::{Kind, Timestamp};

    #[test]
    fn owners_are_mapped_by_name_then_number() {
        let entry = |uid, user: Option<&str>, gid, group: Option<&str>| Entry {
            kind: Kind::Directory,
            mode: 0,
            uid,
            gid,
            user: user.map(|name| name.as_bytes().to_vec()),
            group: group.map(|name| name.as_bytes().to_vec()),
            mtime: Timestamp::default(),
            xattrs: Vec::new(),
            hardlink_to: None,
        };
        let owners = Owners::default();
        let rules = |rules: &[&str]| {
            let mut map = OwnerMap::default();
            rules.iter().for_each(|rule| map.add(rule).unwrap());
            map
        };
        let root = entry(7, Some("root"), 8, Some("no such group"));
        assert_eq!(rules(&[]).owner_of(&root, &owners), (0, 8));
        let numeric = OwnerMap { numeric: true, ..OwnerMap::default() };
        assert_eq!(numeric.owner_of(&root, &owners), (7, 8));
        assert_eq!(rules(&["root=1000", ":8=:root"]).owner_of(&root, &owners), (1000, 0));
        assert_eq!(rules(&["7:8=70:80"]).owner_of(&root, &owners), (70, 80));
        assert_eq!(rules(&["other=1"]).owner_of(&entry(5, None, 6, None), &owners), (5, 6));
        for bad in ["", "a", "=", "a=", "a:b=c", ":g=u"] {
            assert!(OwnerMap::default().add(bad).is_err(), "{bad}");
        }
    }
}
