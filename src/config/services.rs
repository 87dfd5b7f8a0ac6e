//! What the environment says to the engines that talk to services: where programs are, whose passwords these are.

use std::path::PathBuf;

use super::Environment;
use crate::base::secret::Secret;
use crate::store::StoreOptions;

/// See the module. Holds secrets, so it does not print.
#[derive(Clone, Default)]
pub struct ServiceSettings {
    /// Folders of `PATH`.
    pub path: Vec<PathBuf>,
    /// `PGPASSWORD`
    pub postgres_password: Option<Secret>,
    /// `PGPASSFILE`, else `.pgpass` in the home folder.
    pub postgres_pass_file: Option<PathBuf>,
    /// `REDISCLI_AUTH`
    pub redis_password: Option<Secret>,
    /// `MYSQL_PWD`
    pub mysql_password: Option<Secret>,
    /// `INFLUX_PASSWORD`
    pub influx_password: Option<Secret>,
    /// `INFLUX_TOKEN`
    pub influx_token: Option<Secret>,
    /// `.my.cnf` in the home folder.
    pub mysql_options: Option<PathBuf>,
    /// `DOCKER_HOST`: where the Docker daemon listens, when not at the usual place.
    pub docker_host: Option<String>,
    /// How a state in a bucket is reached: as the repository's storage is.
    pub store: StoreOptions,
    /// `AWS_REGION`, for buckets whose address names none.
    pub s3_region: Option<String>,
    /// `AWS_ENDPOINT_URL`, likewise.
    pub s3_endpoint: Option<String>,
}

impl ServiceSettings {
    /// Reads the variables, no files.
    pub fn of(environment: &Environment, store: &StoreOptions) -> Self {
        let path = environment.bytes("PATH").unwrap_or_default();
        let path = <std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(&path);
        let home = || Some(environment.home()?.join(".pgpass"));
        let text = |names: &[&'static str]| environment.first_text(names).ok().flatten();
        Self {
            path: std::env::split_paths(path).collect(),
            postgres_password: environment.bytes("PGPASSWORD").map(Secret::from_bytes),
            postgres_pass_file: environment.path("PGPASSFILE").or_else(home),
            redis_password: environment.bytes("REDISCLI_AUTH").map(Secret::from_bytes),
            mysql_password: environment.bytes("MYSQL_PWD").map(Secret::from_bytes),
            influx_password: environment.bytes("INFLUX_PASSWORD").map(Secret::from_bytes),
            influx_token: environment.bytes("INFLUX_TOKEN").map(Secret::from_bytes),
            mysql_options: environment.home().map(|home| home.join(".my.cnf")),
            docker_host: environment.path("DOCKER_HOST").map(|host| host.to_string_lossy().into_owned()),
            store: store.clone(),
            s3_region: text(&["AWS_REGION", "AWS_DEFAULT_REGION"]),
            s3_endpoint: text(&["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"]),
        }
    }
}
