//! Level 2: from a location to a store. The only place that knows every kind of store.

use std::sync::Arc;

use super::local::LocalStore;
use super::memory::MemoryStore;
use super::remote::RemoteStore;
use super::sftp::SftpStore;
use super::ssh::Server;
use super::{Location, Store, StoreError, StoreOptions};

/// Opens a store without writing anything. A service is first contacted by the first operation.
///
/// # Errors
/// [`super::StoreErrorKind::NotFound`] when a local folder does not exist, [`super::StoreErrorKind::Config`]
/// when the options do not fit the location.
pub fn open(location: &Location, options: &StoreOptions) -> Result<Arc<dyn Store>, StoreError> {
    open_or_create(location, options, false)
}

/// As [`open`], but a missing local folder is made. On a service, folders come with the first object.
///
/// # Errors
/// As [`open`].
pub fn create(location: &Location, options: &StoreOptions) -> Result<Arc<dyn Store>, StoreError> {
    open_or_create(location, options, true)
}

fn open_or_create(
    location: &Location,
    options: &StoreOptions,
    create: bool,
) -> Result<Arc<dyn Store>, StoreError> {
    let settle = options.settle.unwrap_or_default();
    Ok(match location {
        Location::Local { path } if create => {
            Arc::new(LocalStore::create(path, location.to_string(), settle)?)
        }
        Location::Local { path } => Arc::new(LocalStore::open(path, location.to_string(), settle)?),
        Location::Memory { name } => Arc::new(MemoryStore::named(name, settle)),
        Location::Sftp { user, host, port, path } => {
            let server = Server { user: user.clone(), host: host.clone(), port: *port };
            Arc::new(SftpStore::open(server, path, location.to_string(), options))
        }
        Location::S3 { .. } | Location::Webdav { .. } | Location::B2 { .. } => {
            Arc::new(RemoteStore::open(location, options)?)
        }
    })
}
