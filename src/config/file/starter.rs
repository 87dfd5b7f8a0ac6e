//! A first `lifeboat.toml` for a machine, from what was found on it: works as it stands, and says what more there is.

use std::fmt::Write as _;
use std::path::PathBuf;

/// What is known of the machine.
pub struct Around {
    /// Where backups go.
    pub repository: String,
    /// Where the password will be.
    pub password: PathBuf,
    /// Job's name and folder.
    pub job: (String, PathBuf),
    pub projects: Vec<Project>,
}

/// A Compose project's folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Project {
    pub name: String,
    pub folder: PathBuf,
    /// Name and image of services that hold data of their own.
    pub services: Vec<(String, String)>,
}

/// How databases are backed up that a project's image names.
const ENGINES: [(&[&str], &str, &str); 4] = [
    (&["postgres", "postgis", "timescaledb"], "postgres", "/*"),
    (&["mariadb", "mysql"], "mariadb", "/*"),
    (&["redis", "valkey"], "redis", ""),
    (&["influxdb"], "influxdb", "/DATABASE"),
];

impl Project {
    /// A project as Compose would call it: `folder`'s name, unless the file says another.
    pub fn read(folder: PathBuf, text: &str) -> Self {
        let last = folder.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let (mut name, mut services) = (last, Vec::new());
        let (mut is_within, mut indent, mut service) = (false, None, String::new());
        for line in text.lines().filter(|line| !line.trim_start().starts_with('#') && !line.trim().is_empty())
        {
            let (key, value) = line.split_once(':').unwrap_or((line, ""));
            let depth = line.len() - line.trim_start().len();
            let value = value.split(" #").next().unwrap_or_default().trim().trim_matches(['"', '\'']);
            match (depth, key.trim()) {
                (0, "name") if !value.is_empty() => name = value.to_owned(),
                (0, key) => is_within = key == "services",
                (_, key) if is_within && value.is_empty() && *indent.get_or_insert(depth) == depth => {
                    service = key.trim_matches(['"', '\'']).to_owned();
                }
                (_, "image") if is_within && engine(value).is_some() => {
                    services.push((service.clone(), value.to_owned()));
                }
                _ => {}
            }
        }
        // What Compose makes of a name.
        let name =
            name.to_lowercase().chars().filter(|c| c.is_ascii_alphanumeric() || "-_".contains(*c)).collect();
        Self { name, folder, services }
    }
}

/// Scheme and rest of the address of a server whose image is this.
fn engine(image: &str) -> Option<(&'static str, &'static str)> {
    let (name, tag) = image.rsplit('/').next()?.split_once([':', '@']).unwrap_or((image, ""));
    let name = name.rsplit('/').next()?;
    let (_, scheme, rest) = ENGINES.iter().find(|(names, ..)| names.contains(&name))?;
    match (*scheme, tag.as_bytes().first()) {
        ("influxdb", Some(b'2')) => Some(("influxdb2", "/*")),
        // Nothing here reads what it keeps.
        ("influxdb", Some(b'3')) => None,
        _ => Some((*scheme, *rest)),
    }
}

/// TOML's text for a string.
fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

/// The file's text.
pub fn starter(around: &Around) -> String {
    let (url, password) = (quoted(&around.repository), quoted(&around.password.to_string_lossy()));
    let (job, folder) = (&around.job.0, quoted(&around.job.1.to_string_lossy()));
    let mut text = format!(
        r#"# What Lifeboat backs up, where to, and what recovery has to be like. All keys are in docs/configuration.md.
#   lifeboat config check     reads it without reaching anything, and names a typo with its line
#   lifeboat config schema    for editors: lets them complete and check it

[repository.main]
url      = {url}            # better: another machine's. sftp://…, s3://…, webdavs://… and b2://… work, too
password = {{ file = {password} }}   # mode 600. Keep a copy elsewhere: nobody can reset it

# A second copy, made with:  lifeboat init -r ADDRESS --replica-of {plain_url}
# [repository.copy]
# url        = "sftp://user@host/./lifeboat"
# replica_of = "main"
# [defaults]
# copy_to = ["copy"]

# Jobs: `lifeboat run --all` runs them. Call it by cron or a timer; `schedule` says how often you do.
[job.{job}]
source   = {folder}
schedule = "0 3 * * *"
exclude-caches = true               # folders that mark themselves as caches (CACHEDIR.TAG)
"#,
        plain_url = around.repository,
    );
    for project in &around.projects {
        of_project(&mut text, project);
    }
    let _ = write!(
        text,
        r#"
# What must hold: `lifeboat plan` says whether it can, by schedules and what drills measured.
[stack.machine]
{job} = {{ rto = "1h", rpo = "26h" }}   # back within an hour; at most 26 hours lost

# A backup counts once it was restored: `lifeboat drill run --all`, every month.
[drill.{job}-monthly]
restore = "{job}@latest"
rto     = "1h"
rpo     = "26h"
checks  = ["files"]
"#
    );
    text
}

fn of_project(text: &mut String, project: &Project) {
    let (name, folder) = (&project.name, quoted(&project.folder.to_string_lossy()));
    let _ = write!(
        text,
        r#"
# Found: the Compose project {name}.
[job.{name}-files]
source   = {folder}
schedule = "10 3 * * *"

# Its volumes and how it is put together, through the Docker daemon (docs/sources/docker.md):
# [job.{name}]
# source   = "docker-project:{name}"
# schedule = "20 3 * * *"
"#
    );
    for (service, image) in &project.services {
        let Some((scheme, rest)) = engine(image) else { continue };
        let (page, place) = match scheme.starts_with("influxdb") {
            // It is not looked for in containers.
            true => ("influxdb", "HOST:8086".to_owned()),
            false => (scheme, format!("{service}@{name}")),
        };
        let _ = write!(
            text,
            r#"# Its service {service} ({image}), captured consistently (docs/sources/{page}.md):
# [job.{name}-{service}]
# source   = "{scheme}://{place}{rest}"
# schedule = "0 */6 * * *"
"#,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMPOSE: &str = "# name: not-this\nname: \"Web Shop\"\nservices:\n  db:\n    image: postgres:16 # the data\n    \
                           environment:\n      POSTGRES_DB: shop\n  web:\n    image: nginx\n  'cache':\n    image: \
                           \"docker.io/library/redis@sha256:ab\"\nvolumes:\n  image: {}\n";

    #[test]
    fn a_compose_project_is_read_as_far_as_its_data_goes() {
        let found = Project::read("/opt/shop".into(), COMPOSE);
        assert_eq!(found.name, "webshop");
        let services = [("db", "postgres:16"), ("cache", "docker.io/library/redis@sha256:ab")];
        assert_eq!(found.services, services.map(|(name, image)| (name.to_owned(), image.to_owned())));
        assert_eq!(Project::read("/opt/My App".into(), "services:\n").name, "myapp");
        assert_eq!(engine("ghcr.io/x/timescaledb:2-pg16"), Some(("postgres", "/*")));
        assert_eq!(engine("registry:5000/postgres-exporter"), None);
        assert_eq!(engine("influxdb:2.7-alpine"), Some(("influxdb2", "/*")));
        assert_eq!(engine("docker.io/library/influxdb"), Some(("influxdb", "/DATABASE")));
        assert_eq!(engine("influxdb:3-core"), None);
    }

    #[test]
    fn what_it_writes_is_understood_and_so_is_what_stands_in_its_comments() {
        let around = Around {
            repository: "/srv/my \"backups\"".into(),
            password: "/etc/lifeboat/password".into(),
            job: ("etc".into(), "/etc".into()),
            projects: vec![Project::read("/opt/shop".into(), COMPOSE)],
        };
        let text = starter(&around);
        let file = super::super::parse("c.toml".as_ref(), &text)
            .unwrap_or_else(|error| panic!("{error}\n{text}"))
            .file;
        assert_eq!(file.repository["main"].url, "/srv/my \"backups\"");
        assert_eq!(file.job.keys().collect::<Vec<_>>(), ["etc", "webshop-files"]);
        assert!(file.impossible(jiff::Timestamp::now()).is_empty());
        // Nobody should uncomment something that is refused.
        let is_toml = |line: &&str| {
            line.starts_with("# [")
                || line.split_once(" = ").is_some_and(|(key, _)| {
                    key.strip_prefix("# ")
                        .is_some_and(|key| key.trim().chars().all(|c| c.is_ascii_lowercase() || c == '_'))
                })
        };
        let all: String = text
            .lines()
            .map(|line| if is_toml(&line) { line.trim_start_matches("# ") } else { line })
            .collect::<Vec<_>>()
            .join("\n");
        let file = super::super::parse("c.toml".as_ref(), &all)
            .unwrap_or_else(|error| panic!("{error}\n{all}"))
            .file;
        assert_eq!(file.job.len(), 5);
        assert_eq!(file.defaults.copy_to, ["copy"]);
        assert_eq!(file.job["webshop-db"].source.all(), ["postgres://db@webshop/*"]);
    }
}
