//! Precedence, and what each setting is when nobody says anything.

use std::path::Path;
use std::time::Duration;

use secrecy::ExposeSecret;

use super::*;
use crate::store::{HostKeyCheck, Location};

fn resolve(overrides: Overrides, variables: &[(&str, &str)], is_root: bool) -> Result<Settings, ConfigError> {
    Settings::resolve(&overrides, &Environment::of(variables, is_root))
}

fn flags() -> Overrides {
    Overrides::default()
}

#[test]
fn a_flag_beats_the_environment_and_both_remember_where_they_came_from() {
    let variables = [("LIFEBOAT_REPOSITORY", "/env"), ("RESTIC_REPOSITORY", "/restic")];
    let settings = resolve(flags(), &variables, false).unwrap();
    let found = settings.repository.unwrap();
    assert_eq!(
        (found.value, found.origin),
        (Location::local("/env"), Origin::Variable("LIFEBOAT_REPOSITORY"))
    );
    let overrides = Overrides { repository: Some("/flag".into()), ..flags() };
    let found = resolve(overrides, &variables, false).unwrap().repository.unwrap();
    assert_eq!((found.value, found.origin), (Location::local("/flag"), Origin::Flag("--repository")));
    let settings = resolve(flags(), &[("LIFEBOAT_REPOSITORY", ""), variables[1]], false).unwrap();
    assert!(settings.repository.is_none(), "an empty variable is unset, and RESTIC_* is not read");
}

#[test]
fn the_cache_is_the_systems_for_root_and_the_users_for_others() {
    let home = ("HOME", "/home/u");
    let xdg = ("XDG_CACHE_HOME", "/xdg");
    let own = ("LIFEBOAT_CACHE_DIR", "/own");
    type Row<'t> = (&'t [(&'t str, &'t str)], bool, Option<&'t str>);
    let table: [Row; 7] = [
        (&[home], false, Some("/home/u/.cache/lifeboat")),
        (&[home], true, Some("/var/cache/lifeboat")),
        (&[], true, Some("/var/cache/lifeboat")),
        (&[], false, None),
        (&[home, xdg], true, Some("/xdg/lifeboat")),
        (&[home, ("XDG_CACHE_HOME", "relative")], false, Some("/home/u/.cache/lifeboat")),
        (&[home, xdg, own], false, Some("/own")),
    ];
    for (variables, is_root, expected) in table {
        let settings = resolve(flags(), variables, is_root).unwrap();
        assert_eq!(settings.cache.value.as_deref(), expected.map(Path::new), "{variables:?} {is_root}");
    }
    let overrides = Overrides { no_cache: true, ..flags() };
    assert_eq!(resolve(overrides, &[own], false).unwrap().cache.value, None);
}

#[test]
fn two_passwords_of_one_precedence_are_refused() {
    let error = |overrides, variables: &[(&str, &str)]| match resolve(overrides, variables, false) {
        Err(error @ ConfigError::TwoPasswords { .. }) => error.to_string(),
        other => panic!("{:?}", other.map(|settings| settings.password.origin)),
    };
    let variables = [("LIFEBOAT_PASSWORD", "a"), ("LIFEBOAT_KEY_FILE", "/k")];
    assert!(error(flags(), &variables).contains("LIFEBOAT_PASSWORD and LIFEBOAT_KEY_FILE"));
    let both = Overrides { key_file: Some("/k".into()), password_file: Some("/p".into()), ..flags() };
    assert!(error(both, &[]).contains("--password-file and --key-file"));
    let one = Overrides { key_file: Some("/k".into()), ..flags() };
    assert_eq!(resolve(one, &variables, false).unwrap().password.origin, Origin::Flag("--key-file"));
}

#[test]
fn a_key_file_is_raw_or_hex_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("key");
    let read = |content: &[u8]| {
        std::fs::write(&path, content).unwrap();
        read_key_file(&path).map(|key| key.0)
    };
    assert_eq!(read(&[7; 32]).unwrap(), [7; 32]);
    assert_eq!(read("0a".repeat(32).as_bytes()).unwrap(), [10; 32]);
    assert_eq!(read(format!("{}\n", "FF".repeat(32)).as_bytes()).unwrap(), [255; 32]);
    for bad in [&b""[..], &[7; 31], &[7; 33], "0a".repeat(31).as_bytes(), "+a".repeat(32).as_bytes()] {
        assert!(matches!(read(bad), Err(ConfigError::NotAKeyFile { .. })), "{bad:?}");
    }
    assert!(matches!(read(&vec![7; 1 << 20]), Err(ConfigError::Unreadable { .. })));
}

#[test]
fn storage_options_and_credentials_reach_the_store() {
    let pairs =
        [("concurrency", "3"), ("retries", "0"), ("timeout", "1m30s"), ("ssh-host-key", "accept-new")];
    let storage = pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).to_vec();
    let variables = [("AWS_ACCESS_KEY_ID", "id"), ("AWS_SECRET_ACCESS_KEY", "secret"), ("AWS_REGION", "eu")];
    let repository = Some("s3://bucket/prefix".into());
    let settings = resolve(Overrides { storage, repository, ..flags() }, &variables, false).unwrap();
    let store = &settings.store;
    assert_eq!((store.max_concurrent, store.max_retries), (3, 0));
    assert_eq!((store.timeout, store.ssh_host_key_check), (Duration::from_secs(90), HostKeyCheck::AcceptNew));
    assert_eq!(store.credentials.s3_secret_access_key.as_ref().unwrap().expose_secret(), "secret");
    assert_eq!(settings.repository.unwrap().value.to_string(), "s3://bucket/prefix?region=eu");
    for (key, value) in [("concurrency", "0"), ("retries", "-1"), ("timeout", "soon"), ("speed", "9")] {
        let overrides = Overrides { storage: vec![(key.into(), value.into())], ..flags() };
        let error = resolve(overrides, &[], false).err().unwrap().to_string();
        assert!(error.contains(key), "{error}");
    }
}

#[test]
fn log_settings_follow_verbosity_unless_a_filter_is_set() {
    let verbose = |verbose| Overrides { verbose, ..flags() };
    assert_eq!(resolve(flags(), &[], false).unwrap().log.filter, "warn");
    assert_eq!(resolve(verbose(1), &[], false).unwrap().log.filter, "warn,lifeboat=info");
    let variables = [("LIFEBOAT_LOG", "trace"), ("LIFEBOAT_LOG_FORMAT", "json")];
    let log = resolve(verbose(1), &variables, false).unwrap().log;
    assert_eq!((log.filter.as_str(), log.format), ("trace", LogFormat::Json));
    assert!(resolve(flags(), &[("LIFEBOAT_LOG_FORMAT", "xml")], false).is_err());
}
