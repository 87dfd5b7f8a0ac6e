//! Flags that every verb takes.

use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgAction, Args};

use super::json_to::{JsonTo, STDOUT};
use crate::base::byte_size;
use crate::config::{Overrides, parse_duration};

#[derive(Debug, Args)]
#[command(next_help_heading = "Global options")]
pub struct Globals {
    /// Where the repository is: a path or s3://, sftp://, webdavs://, b2://, or its name in the configuration file
    /// [env: LIFEBOAT_REPOSITORY]
    #[arg(short, long, global = true, value_name = "PATH|URL")]
    pub repository: Option<String>,
    /// Configuration file [default: the user's, then /etc/lifeboat/lifeboat.toml] [env: LIFEBOAT_CONFIG]
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// File whose content is the password [env: LIFEBOAT_PASSWORD_FILE]
    #[arg(long, global = true, value_name = "FILE")]
    pub password_file: Option<PathBuf>,
    /// Shell command that prints the password [env: LIFEBOAT_PASSWORD_COMMAND]
    #[arg(long, global = true, value_name = "COMMAND")]
    pub password_command: Option<String>,
    /// Key file to open the repository with, instead of a password [env: LIFEBOAT_KEY_FILE]
    #[arg(long, global = true, value_name = "FILE")]
    pub key_file: Option<PathBuf>,
    /// Recovery kit: leads to its repository where no -r does, and has the keys that the storage lost; the owner's
    /// password is still needed
    #[arg(long, global = true, value_name = "FILE", hide_short_help = true)]
    pub kit: Option<PathBuf>,
    /// Folder for the local cache [env: LIFEBOAT_CACHE_DIR]
    #[arg(long, global = true, value_name = "DIR", conflicts_with = "no_cache")]
    pub cache_dir: Option<PathBuf>,
    /// Keep nothing on this machine's disk
    #[arg(long, global = true)]
    pub no_cache: bool,
    /// Print data as JSON
    // A verb that also writes it into a file defines this anew, with a value: both must be of one type.
    #[arg(long, global = true, num_args = 0, default_missing_value = STDOUT, value_parser = JsonTo::parse)]
    pub json: Option<JsonTo>,
    /// No progress and no summary, only errors
    #[arg(short, long, global = true)]
    pub quiet: bool,
    /// Log more (-v what is done, -vv how, -vvv everything) [env: LIFEBOAT_LOG]
    #[arg(short, long, global = true, action = ArgAction::Count)]
    pub verbose: u8,
    /// Do not ask before removing or overwriting
    #[arg(short, long, global = true)]
    pub yes: bool,
    /// Most bytes sent a second, such as 5M
    #[arg(long, global = true, value_name = "SIZE", value_parser = rate)]
    pub limit_upload: Option<u64>,
    /// Most bytes received a second
    #[arg(long, global = true, value_name = "SIZE", value_parser = rate)]
    pub limit_download: Option<u64>,
    /// How long the storage may take to show a write to everybody; 0s on storage that is consistent at once
    #[arg(long, global = true, value_name = "TIME", value_parser = parse_duration, hide_short_help = true)]
    pub settle: Option<Duration>,
    /// Storage option, such as concurrency=4, retries=10, timeout=5m, parity=5%, ssh-key=FILE, ssh-host-key=accept-new
    #[arg(long = "option", global = true, value_name = "KEY=VALUE", value_parser = pair, hide_short_help = true)]
    pub options: Vec<(String, String)>,
}

impl Globals {
    /// Whether stdout gets JSON.
    pub fn is_json(&self) -> bool {
        self.json.as_ref().is_some_and(JsonTo::is_switch)
    }

    pub fn overrides(&self) -> Overrides {
        Overrides {
            config: self.config.clone(),
            repository: self.repository.clone(),
            password_file: self.password_file.clone(),
            password_command: self.password_command.clone(),
            key_file: self.key_file.clone(),
            kit: self.kit.clone(),
            cache_dir: self.cache_dir.clone(),
            no_cache: self.no_cache,
            upload_limit_bytes_per_second: self.limit_upload,
            download_limit_bytes_per_second: self.limit_download,
            settle: self.settle,
            storage: self.options.clone(),
            verbose: self.verbose,
        }
    }
}

fn rate(text: &str) -> Result<u64, String> {
    match byte_size::parse(text) {
        Ok(0) => Err("at 0 bytes a second nothing would ever end; leave the limit out".into()),
        Ok(rate) => Ok(rate),
        Err(error) => Err(error.to_string()),
    }
}

fn pair(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("write key=value")?;
    Ok((key.to_owned(), value.to_owned()))
}
