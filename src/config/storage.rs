//! The storage's options: credentials from the environment, tunables from `--option key=value`.

use std::time::Duration;

use secrecy::SecretString;

use super::{ConfigError, Environment, Overrides};
use crate::format::parity::Share;
use crate::store::{Credentials, HostKeyCheck, Location, StoreOptions};

/// Most operations at once, and most retries: above it is a slip of the finger.
const COUNT_LIMIT: u32 = 1000;

pub(super) fn options(overrides: &Overrides, environment: &Environment) -> Result<StoreOptions, ConfigError> {
    let mut options = StoreOptions {
        credentials: credentials(environment)?,
        upload_limit_bytes_per_second: overrides.upload_limit_bytes_per_second,
        download_limit_bytes_per_second: overrides.download_limit_bytes_per_second,
        settle: overrides.settle,
        ..StoreOptions::default()
    };
    for (key, value) in &overrides.storage {
        set(&mut options, key, value)
            .map_err(|cause| ConfigError::StorageOption { key: key.clone(), cause })?;
    }
    Ok(options)
}

fn set(options: &mut StoreOptions, key: &str, value: &str) -> Result<(), String> {
    match key {
        "concurrency" => options.max_concurrent = count(value, 1)? as usize,
        "retries" => options.max_retries = count(value, 0)?,
        "retry-delay" => options.retry_delay = duration(value)?,
        "connect-timeout" => options.connect_timeout = duration(value)?,
        "parity" => {
            let share = Share::parse(value);
            options.parity = Some(share.ok_or("write a share from 0.1% to 100%")?);
        }
        "timeout" => options.timeout = duration(value)?,
        "ssh-key" => options.ssh_identity_file = Some(value.into()),
        "ssh-known-hosts" => options.ssh_known_hosts_file = Some(value.into()),
        "ssh-program" => options.ssh_program = value.into(),
        "ssh-host-key" => {
            options.ssh_host_key_check = match value {
                "strict" => HostKeyCheck::Strict,
                "accept-new" => HostKeyCheck::AcceptNew,
                _ => return Err("write strict or accept-new".into()),
            };
        }
        _ => {
            return Err("there is no such option; known are concurrency, retries, retry-delay, \
                connect-timeout, timeout, parity, ssh-key, ssh-known-hosts, ssh-program, ssh-host-key"
                .into());
        }
    }
    Ok(())
}

fn count(value: &str, least: u32) -> Result<u32, String> {
    let range = least..=COUNT_LIMIT;
    let number = value.parse().ok().filter(|number| range.contains(number));
    number.ok_or_else(|| format!("write a number from {least} to {COUNT_LIMIT}"))
}

/// A span of time such as `90s`, `1m30s` or `500ms`; nothing needs no unit.
pub fn duration(value: &str) -> Result<Duration, String> {
    if value == "0" {
        return Ok(Duration::ZERO);
    }
    let wanted = || "write a time such as 30s, 15m, 48h or 1h30m".to_owned();
    let span = value.parse::<jiff::SignedDuration>().map_err(|_| wanted())?;
    Duration::try_from(span).map_err(|_| wanted())
}

fn credentials(environment: &Environment) -> Result<Credentials, ConfigError> {
    let text = |names: &[&'static str]| environment.first_text(names);
    let secret = |names: &[&'static str]| Ok::<_, ConfigError>(text(names)?.map(SecretString::from));
    Ok(Credentials {
        s3_access_key_id: text(&["AWS_ACCESS_KEY_ID"])?,
        s3_secret_access_key: secret(&["AWS_SECRET_ACCESS_KEY"])?,
        s3_session_token: secret(&["AWS_SESSION_TOKEN"])?,
        b2_key_id: text(&["B2_APPLICATION_KEY_ID", "B2_ACCOUNT_ID"])?,
        b2_application_key: secret(&["B2_APPLICATION_KEY", "B2_ACCOUNT_KEY"])?,
        webdav_user: text(&["LIFEBOAT_WEBDAV_USER"])?,
        webdav_password: secret(&["LIFEBOAT_WEBDAV_PASSWORD"])?,
        webdav_token: secret(&["LIFEBOAT_WEBDAV_TOKEN"])?,
    })
}

/// Fills in what an address may leave to the environment.
pub(super) fn complete(location: Location, environment: &Environment) -> Result<Location, ConfigError> {
    Ok(match location {
        Location::S3 { bucket, prefix, endpoint, region, virtual_host } => {
            let region = match region {
                None => environment.first_text(&["AWS_REGION", "AWS_DEFAULT_REGION"])?,
                region => region,
            };
            let endpoint = match endpoint {
                None => environment.first_text(&["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"])?,
                endpoint => endpoint,
            };
            Location::S3 { bucket, prefix, endpoint, region, virtual_host }
        }
        other => other,
    })
}
