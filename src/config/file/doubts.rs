//! What may stand in the file and is hardly meant: told by `config check`, and no reason to refuse it.

use std::path::{Component, Path};

use super::model::File;
use crate::base::url::nearest;

impl File {
    /// In words, each naming where it stands.
    pub fn doubts(&self) -> Vec<String> {
        let mut doubts = Vec::new();
        for (name, repository) in &self.repository {
            doubts.extend(of_path(&format!("repository {name}: url"), &repository.url));
        }
        for (name, job) in &self.job {
            for source in job.source.all() {
                doubts.extend(of_path(&format!("job {name}: source"), source));
            }
        }
        for (name, drill) in &self.drill {
            if let Some(what) = &drill.restore {
                doubts.extend(self.of_selector(what).map(|doubt| format!("drill {name}: restore: {doubt}")));
            }
        }
        doubts
    }

    /// A job of another machine may well be restored; one that nobody defines is more often a typo.
    fn of_selector(&self, what: &str) -> Option<String> {
        let (job, _) = what.rsplit_once('@')?;
        // What is no word was made from paths or an address, by nobody's file.
        if self.job.contains_key(job) || job.contains(['*', ':', '/']) {
            return None;
        }
        let known: Vec<&str> = self.job.keys().map(String::as_str).collect();
        let near = nearest(job, &known).filter(|near| strsim::jaro_winkler(job, near) > 0.7);
        let near = near.map(|near| format!("; did you mean {near}?")).unwrap_or_default();
        Some(format!("no job {job:?} is defined here{near}"))
    }
}

/// `what`: where it stands. Addresses are read by those who know them.
fn of_path(what: &str, text: &str) -> Option<String> {
    let path = Path::new(text);
    if path.components().any(|part| part == Component::ParentDir) && !text.contains("://") {
        return Some(format!("{what}: {text:?} goes back by \"..\": write the path that it means"));
    }
    let is_address = text.split('/').next().is_some_and(|head| head.contains(':'));
    (path.is_relative() && !is_address).then(|| {
        format!(
            "{what}: {text:?} is relative, so it means another place in every folder: write the whole path"
        )
    })
}

#[cfg(test)]
mod tests {
    #[test]
    fn what_is_hardly_meant_is_named_where_it_stands() {
        let text = "[repository.main]\nurl = \"backups\"\n[job.db]\nsource = [\"/srv/a/../b\", \"/etc\"]\n\
                    [job.pg]\nsource = \"postgres://u@h/../x\"\n[job.v]\nsource = \"docker-volume:a\"\n\
                    [drill.d]\nrestore = \"bd@latest\"\n[drill.e]\nrestore = \"files:/etc@latest\"\n\
                    [drill.f]\nrestore = \"db@latest\"\n[drill.g]\nrestore = \"latest\"\n";
        let file = super::super::parse("c.toml".as_ref(), text).unwrap().file;
        let doubts = file.doubts();
        assert_eq!(doubts.len(), 3, "{doubts:#?}");
        assert!(doubts[0].starts_with("repository main: url: \"backups\" is relative"), "{doubts:?}");
        assert!(doubts[1].starts_with("job db: source: \"/srv/a/../b\" goes back"), "{doubts:?}");
        assert!(doubts[2].starts_with("drill d: restore: no job \"bd\" is defined here"), "{doubts:?}");
    }
}
