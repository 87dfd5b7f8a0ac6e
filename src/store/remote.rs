//! Level 2: objects on an HTTP service (S3, WebDAV, B2) through opendal.
//!
//! opendal speaks the protocols; retries, time limits, the cap on operations and bandwidth are ours
//! ([`super::retry`], [`super::transport`]), so that they are the same for every service. Whole objects are
//! written in one request. WebDAV servers differ in what an aborted PUT leaves: there an object is written
//! under a temporary name, its size is checked, and it is moved to its name.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use opendal::{ErrorKind, HttpTransporter, OperationContext, Operator, services};
use secrecy::{ExposeSecret, SecretString};

use super::retry::Tries;
use super::transport::Transport;
use super::{
    LARGEST_OBJECT_BYTES, Listed, Location, Store, StoreError, StoreErrorKind, StoreOptions, name, temp,
};

/// See the module's page.
pub(super) struct RemoteStore {
    operator: Operator,
    location: String,
    settle: Duration,
    tries: Tries,
    /// Writes go to a temporary name first.
    move_into_place: bool,
    swept: AtomicBool,
}

impl RemoteStore {
    pub(super) fn open(location: &Location, options: &StoreOptions) -> Result<Self, StoreError> {
        let shown = location.to_string();
        let refuse = |cause: String| StoreError::new(StoreErrorKind::Config, "open", "", &shown, cause);
        let operator = operator(location, options).map_err(&refuse)?;
        let transport = Transport::new(options).map_err(|e| refuse(e.to_string()))?;
        let transport = HttpTransporter::new(transport);
        let context = OperationContext::new().with_http_transport(transport);
        Ok(Self {
            operator: operator.with_context(context),
            settle: options.settle.unwrap_or_default(),
            tries: Tries::new(shown.clone(), options, options.max_concurrent),
            location: shown,
            move_into_place: matches!(location, Location::Webdav { .. }),
            swept: AtomicBool::new(false),
        })
    }

    fn error(&self, operation: &'static str, subject: &str, error: opendal::Error) -> StoreError {
        let (kind, cause) = classify(&error, operation);
        StoreError::new(kind, operation, subject, &self.location, cause)
    }

    /// Runs one opendal call under the policy.
    async fn run<T, F>(
        &self,
        operation: &'static str,
        subject: &str,
        bytes: u64,
        call: impl Fn() -> F,
    ) -> Result<T, StoreError>
    where
        F: Future<Output = opendal::Result<T>>,
    {
        let attempt = || async { call().await.map_err(|e| self.error(operation, subject, e)) };
        self.tries.run(operation, subject, bytes, attempt).await
    }

    async fn write(&self, name: &str, bytes: Bytes, replaces: bool) -> Result<(), StoreError> {
        name::check("write", name, &self.location)?;
        let size = bytes.len() as u64;
        if self.move_into_place {
            self.sweep().await;
            return self.run("write", name, size, || self.put_and_move(name, &bytes, replaces)).await;
        }
        self.run("write", name, size, || async { self.operator.write(name, bytes.clone()).await.map(|_| ()) })
            .await
    }

    /// Temporary name, size check, move. A failure leaves at most a temporary object.
    ///
    /// An object that exists is not written again: a server may carry out a replacing MOVE as a delete and a
    /// rename, and one that dies between the two would lose an object long acknowledged.
    async fn put_and_move(&self, name: &str, bytes: &Bytes, replaces: bool) -> opendal::Result<()> {
        match self.operator.stat(name).await {
            Ok(_) if replaces => {}
            Ok(_) if self.operator.read(name).await?.to_bytes() == *bytes => return Ok(()),
            Ok(_) => return Err(opendal::Error::new(ErrorKind::AlreadyExists, "exists with other bytes")),
            Err(e) if e.kind() == ErrorKind::NotFound => {}
            Err(e) => return Err(e),
        }
        let leaf = temp::leaf().map_err(|e| opendal::Error::new(ErrorKind::Unexpected, e.to_string()))?;
        let path = format!("{}/{leaf}", temp::FOLDER);
        let moved = async {
            self.operator.write(&path, bytes.clone()).await?;
            let there = self.operator.stat(&path).await?.content_length();
            if there != bytes.len() as u64 {
                let text = format!("the service kept {there} of {} bytes", bytes.len());
                return Err(opendal::Error::new(ErrorKind::Unexpected, text).set_temporary());
            }
            match self.operator.rename(&path, name).await {
                // The same place took the write a moment ago, so this is no lack of rights: Apache answers so when
                // two moves to one name meet.
                Err(e) if e.kind() == ErrorKind::PermissionDenied => {
                    let text = "the service refused to move what it had just taken";
                    Err(opendal::Error::new(ErrorKind::Unexpected, text).set_temporary())
                }
                other => other,
            }
        };
        let result = moved.await;
        if result.is_err() && !replaces {
            // Where another object was to give way, this may be the only one left. Best effort; what stays is swept a week later.
            let _ = self.operator.delete(&path).await;
        }
        result
    }

    /// Once per store, removes what runs that died long ago left under the temporary folder.
    async fn sweep(&self) {
        if self.swept.swap(true, Ordering::Relaxed) {
            return;
        }
        let folder = format!("{}/", temp::FOLDER);
        let Ok(entries) = self.operator.list(&folder).await else { return };
        for entry in entries {
            if temp::is_stale(entry.name()) {
                let _ = self.operator.delete(entry.path()).await;
            }
        }
    }
}

fn secret(secret: Option<&SecretString>) -> &str {
    secret.map_or("", ExposeSecret::expose_secret)
}

fn operator(location: &Location, options: &StoreOptions) -> Result<Operator, String> {
    let credentials = &options.credentials;
    let built = match location {
        Location::S3 { bucket, prefix, endpoint, region, virtual_host } => {
            let (Some(id), Some(key)) = (&credentials.s3_access_key_id, &credentials.s3_secret_access_key)
            else {
                return Err("no keys for S3\nhint: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY".into());
            };
            let region = region.as_deref().unwrap_or("us-east-1");
            let amazon = format!("https://s3.{region}.amazonaws.com");
            let mut s3 = services::S3::default()
                .bucket(bucket)
                .root(&format!("/{prefix}"))
                .region(region)
                .endpoint(endpoint.as_deref().unwrap_or(&amazon))
                .access_key_id(id)
                .secret_access_key(key.expose_secret())
                // Neither the environment nor the machine's metadata service is asked: keys are given.
                .disable_config_load()
                // The service checks what arrived against what was sent.
                .checksum_algorithm("crc32c");
            if let Some(token) = &credentials.s3_session_token {
                s3 = s3.session_token(token.expose_secret());
            }
            if *virtual_host {
                s3 = s3.enable_virtual_host_style();
            }
            Operator::new(s3)
        }
        Location::Webdav { tls, user, authority, prefix } => {
            let scheme = if *tls { "https" } else { "http" };
            let user = user.as_deref().or(credentials.webdav_user.as_deref()).unwrap_or_default();
            let mut webdav = services::Webdav::default()
                .endpoint(&format!("{scheme}://{authority}"))
                .root(&format!("/{prefix}"));
            match &credentials.webdav_token {
                Some(token) => webdav = webdav.token(token.expose_secret()),
                None => {
                    webdav = webdav.username(user).password(secret(credentials.webdav_password.as_ref()));
                }
            }
            Operator::new(webdav)
        }
        Location::B2 { bucket, bucket_id, prefix } => {
            let (Some(id), Some(key)) = (&credentials.b2_key_id, &credentials.b2_application_key) else {
                return Err("no key for B2\nhint: set B2_APPLICATION_KEY_ID and B2_APPLICATION_KEY".into());
            };
            let b2 = services::B2::default()
                .bucket(bucket)
                .bucket_id(bucket_id)
                .root(&format!("/{prefix}"))
                .application_key_id(id)
                .application_key(key.expose_secret());
            Operator::new(b2)
        }
        Location::Local { .. } | Location::Memory { .. } | Location::Sftp { .. } => {
            return Err("not an HTTP service".into());
        }
    };
    built.map_err(|e| e.to_string())
}

/// What an opendal error means here. Only a service's plain "no such object" is an absence; whatever is not
/// understood stays [`StoreErrorKind::Other`].
fn classify(error: &opendal::Error, operation: &'static str) -> (StoreErrorKind, String) {
    let full = error.to_string();
    let status = |code: &str| full.contains(&format!("status: {code}"));
    let kind = match error.kind() {
        // Writing has no absence: another writer of the same name was between its delete and its rename.
        ErrorKind::NotFound if operation == "write" => StoreErrorKind::Temporary,
        ErrorKind::NotFound if operation == "read" => StoreErrorKind::NotFound,
        ErrorKind::NotFound => StoreErrorKind::Config,
        ErrorKind::PermissionDenied => StoreErrorKind::Denied,
        ErrorKind::AlreadyExists => StoreErrorKind::Conflict,
        ErrorKind::ConfigInvalid => StoreErrorKind::Config,
        ErrorKind::RateLimited => StoreErrorKind::Temporary,
        ErrorKind::RangeNotSatisfied => StoreErrorKind::Truncated,
        _ if status("401") || status("403") => StoreErrorKind::Denied,
        _ if status("507") || full.contains("QuotaExceeded") => StoreErrorKind::Full,
        _ if status("416") => StoreErrorKind::Truncated,
        // A whole answer, but shorter than the range: the object ends before it. (One that broke off is temporary.)
        _ if full.contains("reader got too little data") => StoreErrorKind::Truncated,
        // Locked, or two writers making one folder.
        _ if status("409") || status("423") || status("429") => StoreErrorKind::Temporary,
        _ if error.is_temporary() => StoreErrorKind::Temporary,
        _ => StoreErrorKind::Other,
    };
    (kind, shorten(&full))
}

/// opendal prints every response header; what the service said stands after them.
fn shorten(full: &str) -> String {
    match (full.split_once(", context: {"), full.rsplit_once(" } => ")) {
        (Some((head, context)), tail) => {
            let status =
                context.split_once("status: ").map(|(_, after)| after.split(',').next().unwrap_or(""));
            let status = status.map(|code| format!(", status {code}")).unwrap_or_default();
            let tail = tail.map(|(_, tail)| format!(": {tail}")).unwrap_or_default();
            format!("{head}{status}{tail}")
        }
        (None, _) => full.to_owned(),
    }
}

impl fmt::Debug for RemoteStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RemoteStore").field("location", &self.location).finish_non_exhaustive()
    }
}

#[async_trait]
impl Store for RemoteStore {
    fn location(&self) -> String {
        self.location.clone()
    }

    fn settle(&self) -> Duration {
        self.settle
    }

    async fn put(&self, name: &str, bytes: Bytes) -> Result<(), StoreError> {
        self.write(name, bytes, false).await
    }

    async fn replace(&self, name: &str, bytes: Bytes) -> Result<(), StoreError> {
        self.write(name, bytes, true).await
    }

    async fn get(&self, name: &str) -> Result<Bytes, StoreError> {
        name::check("read", name, &self.location)?;
        let read = || async { self.operator.read(name).await.map(|buffer| buffer.to_bytes()) };
        self.run("read", name, LARGEST_OBJECT_BYTES, read).await
    }

    async fn get_range(&self, name: &str, offset: u64, length: u64) -> Result<Bytes, StoreError> {
        if length == 0 {
            return Ok(Bytes::new());
        }
        name::check("read", name, &self.location)?;
        let truncated =
            |cause: String| StoreError::new(StoreErrorKind::Truncated, "read", name, &self.location, cause);
        let Some(end) = offset.checked_add(length) else {
            return Err(truncated(format!("{length} bytes from {offset} end beyond any object")));
        };
        let read = || async { self.operator.read_with(name).range(offset..end).await };
        let got = self.run("read", name, length, read).await?.to_bytes();
        if got.len() as u64 == length {
            return Ok(got);
        }
        Err(truncated(format!("wanted {length} bytes from {offset}, got {}", got.len())))
    }

    async fn list(&self, folder: &str) -> Result<Vec<Listed>, StoreError> {
        name::check_folder(folder, &self.location)?;
        let path = format!("{folder}/");
        // Pages of many thousand objects: given the time of a large object.
        let entries = self.run("list", folder, LARGEST_OBJECT_BYTES, || self.operator.list(&path)).await?;
        let objects = entries.into_iter().filter(|entry| entry.metadata().is_file());
        let named = objects.filter_map(|entry| {
            let size_bytes = entry.metadata().content_length();
            name::join(folder, entry.name()).map(|name| Listed { name, size_bytes })
        });
        let mut listed: Vec<_> = named.collect();
        listed.sort_unstable();
        listed.dedup();
        Ok(listed)
    }

    async fn delete(&self, name: &str) -> Result<(), StoreError> {
        name::check("delete", name, &self.location)?;
        self.run("delete", name, 0, || self.operator.delete(name)).await
    }
}
