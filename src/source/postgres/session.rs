//! One connection, spoken to in SQL text and answered in text, so that anything that can run SQL can stand in.
//!
//! A connection is driven by the thread that waits for its answer, and by nobody else: rows of a `COPY` then cross no
//! thread, and what waits is woken once for many of them.
//!
//! Invariant: every name and value that goes into SQL goes through [`ident`] or [`literal`].

use std::cell::Cell;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::Duration;

use futures::StreamExt;
use tokio::runtime::{Builder, Runtime};
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

use super::PostgresError;
use super::address::{Server, SslMode};
use super::error::{said, with_hint};
use super::tls;
use crate::base::cancel::Cancel;
use crate::source::capture::SourceError;

/// How often a wait looks whether the run was cancelled.
const SLICE: Duration = Duration::from_millis(50);
/// How long the server has to take note of a cancelled query, or of a connection's end.
const FAREWELL: Duration = Duration::from_secs(2);
/// A server sends rows 8 KiB at a time, and waking somebody for each costs both sides more than the rows. After rows
/// came, this long is slept before anything is waited for, so that more of them lie ready.
const NAP: Duration = Duration::from_micros(150);

/// A row of text; `None` is NULL.
pub type Row = Vec<Option<String>>;

/// A connection to one database. Dropping it ends it.
pub trait Session: Send {
    /// Runs SQL, several statements perhaps, and returns the rows of all of them. `what` names it in an error:
    /// `list the databases`.
    ///
    /// # Errors
    /// The server's, or the run was cancelled.
    fn query(&mut self, what: &str, sql: &str) -> Result<Vec<Row>, SourceError>;

    /// Runs `COPY … TO STDOUT` and hands the bytes over.
    ///
    /// # Errors
    /// The server's, or the run was cancelled.
    fn copy_out(&mut self, what: &str, sql: &str, sink: &mut dyn FnMut(&[u8])) -> Result<(), SourceError>;

    /// The only value of the only row.
    ///
    /// # Errors
    /// As [`Self::query`]; also when there is none.
    fn value(&mut self, what: &str, sql: &str) -> Result<Option<String>, SourceError> {
        let rows = self.query(what, sql)?;
        Ok(rows.into_iter().next_back().and_then(|row| row.into_iter().next()).flatten())
    }

    /// From now on this flag ends what is under way, and not the one it was connected with.
    fn heed(&mut self, cancel: Cancel);

    /// A value that is JSON.
    ///
    /// # Errors
    /// As [`Self::query`]; also when it is none.
    fn json(&mut self, what: &str, sql: &str) -> Result<serde_json::Value, SourceError> {
        let text = self.value(what, sql)?.unwrap_or_else(|| "null".into());
        serde_json::from_str(&text).map_err(|error| {
            PostgresError::Query { operation: what.into(), said: error.to_string(), code: None }.into()
        })
    }
}

/// A name in SQL.
pub fn ident(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A text in SQL, whatever the server thinks of backslashes.
pub fn literal(text: &str) -> String {
    let quoted = text.replace('\'', "''");
    match quoted.contains('\\') {
        true => format!(" E'{}'", quoted.replace('\\', "\\\\")),
        false => format!("'{quoted}'"),
    }
}

/// What moves a connection's bytes.
struct Line {
    /// `None` only while it is dropped.
    runtime: Option<Runtime>,
    /// `None` once it ended; why is told to whoever queries.
    connection: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

impl Line {
    fn new() -> std::io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        Ok(Self { runtime: Some(runtime), connection: None })
    }

    /// Waits for `work`, moving bytes meanwhile, unless the run is cancelled. `passed` counts what came of rows.
    fn wait<T>(
        &mut self,
        work: impl Future<Output = T>,
        passed: &Cell<u64>,
        cancel: &Cancel,
    ) -> Result<T, SourceError> {
        let Some(runtime) = &self.runtime else {
            return Err(PostgresError::Other("the connection is closed".into()).into());
        };
        let connection = &mut self.connection;
        runtime.block_on(async {
            let mut work = pin!(work);
            let mut before = 0;
            let moving = poll_fn(|context| {
                let mut came = false;
                // The two hand rows over one answer at a time: until neither gets on.
                loop {
                    if connection.as_mut().is_some_and(|own| own.as_mut().poll(context).is_ready()) {
                        *connection = None;
                    }
                    let polled = work.as_mut().poll(context);
                    if polled.is_ready() {
                        return polled;
                    }
                    if passed.get() == before {
                        break;
                    }
                    before = passed.get();
                    came = true;
                }
                if came {
                    std::thread::sleep(NAP);
                }
                Poll::Pending
            });
            until_cancelled(moving, cancel).await
        })
    }
}

impl Drop for Line {
    /// The client is gone by now, so the connection says goodbye and ends.
    fn drop(&mut self) {
        let (Some(runtime), connection) = (self.runtime.take(), self.connection.take()) else { return };
        let end = || {
            if let Some(connection) = connection {
                runtime.block_on(async {
                    let _ = tokio::time::timeout(FAREWELL, connection).await;
                });
            }
            runtime.shutdown_background();
        };
        // Whoever drops it may be on another runtime's own thread, which may not wait.
        std::thread::scope(|scope| scope.spawn(end).join().ok());
    }
}

/// A connection of our own.
pub struct Wire {
    // Dropped first: the connection ends when its client is gone.
    client: Client,
    line: Line,
    tls: Option<tokio_postgres_rustls::MakeRustlsConnect>,
    cancel: Cancel,
    place: String,
}

impl Wire {
    /// Connects to `database` under the name `application`.
    ///
    /// # Errors
    /// Nobody answers, or the answer is no.
    pub fn connect(
        server: &Server,
        hosts: &[String],
        database: &str,
        application: &str,
        cancel: &Cancel,
    ) -> Result<Self, SourceError> {
        let place = format!("database {database:?} of {}", server.shown());
        let error = |said: String| SourceError::from(PostgresError::Connect { place: place.clone(), said });
        let mut config = tokio_postgres::Config::new();
        for host in hosts {
            match host.starts_with('/') {
                true => config.host_path(host),
                false => config.host(host),
            };
        }
        config.port(server.port).dbname(database).application_name(application);
        config.user(&server.user).connect_timeout(server.connect_timeout);
        config.keepalives_idle(Duration::from_secs(60));
        if let Some(password) = &server.password {
            config.password(password.expose());
        }
        config.ssl_mode(match server.ssl_mode {
            SslMode::Disable => tokio_postgres::config::SslMode::Disable,
            SslMode::Prefer => tokio_postgres::config::SslMode::Prefer,
            _ => tokio_postgres::config::SslMode::Require,
        });
        let over_socket = hosts.iter().all(|host| host.starts_with('/'));
        let protected = server.ssl_mode != SslMode::Disable && !over_socket;
        let tls = if protected { Some(tls::connector(server).map_err(error)?) } else { None };
        if over_socket {
            config.ssl_mode(tokio_postgres::config::SslMode::Disable);
        }
        // Errors of the connection reach whoever queries next.
        type Made = (Client, Pin<Box<dyn Future<Output = ()> + Send>>);
        let connecting = async {
            Ok::<Made, tokio_postgres::Error>(match tls.clone() {
                Some(tls) => {
                    let (client, connection) = config.connect(tls).await?;
                    (client, Box::pin(async { drop(connection.await) }))
                }
                None => {
                    let (client, connection) = config.connect(NoTls).await?;
                    (client, Box::pin(async { drop(connection.await) }))
                }
            })
        };
        let mut line = Line::new().map_err(|cause| error(cause.to_string()))?;
        let made = line.wait(connecting, &Cell::default(), cancel)?;
        let (client, connection) = made.map_err(|cause| error(with_hint(said(&cause))))?;
        line.connection = Some(connection);
        Ok(Self { client, line, tls, cancel: cancel.clone(), place })
    }

    fn failed(&self, what: &str, error: &tokio_postgres::Error) -> SourceError {
        let operation = format!("{what} in {}", self.place);
        let code = error.code().map(|code| code.code().to_owned());
        PostgresError::Query { operation, said: with_hint(said(error)), code }.into()
    }

    /// Tells the server that nobody waits for the answer any more.
    fn abandon(&self) {
        let token = self.client.cancel_token();
        let telling = async {
            let _ = match self.tls.clone() {
                Some(tls) => tokio::time::timeout(FAREWELL, token.cancel_query(tls)).await,
                None => tokio::time::timeout(FAREWELL, token.cancel_query(NoTls)).await,
            };
        };
        if let Some(runtime) = &self.line.runtime {
            runtime.block_on(telling);
        }
    }
}

/// Waits for `work` unless the run is cancelled.
async fn until_cancelled<T>(work: impl Future<Output = T>, cancel: &Cancel) -> Result<T, SourceError> {
    let cancelled = async {
        while !cancel.is_cancelled() {
            tokio::time::sleep(SLICE).await;
        }
    };
    tokio::select! {
        done = work => Ok(done),
        () = cancelled => Err(crate::base::cancel::Cancelled.into()),
    }
}

impl Session for Wire {
    fn heed(&mut self, cancel: Cancel) {
        self.cancel = cancel;
    }

    fn query(&mut self, what: &str, sql: &str) -> Result<Vec<Row>, SourceError> {
        let waited = self.line.wait(self.client.simple_query(sql), &Cell::default(), &self.cancel);
        let messages = match waited {
            Ok(result) => result.map_err(|error| self.failed(what, &error))?,
            Err(cancelled) => {
                self.abandon();
                return Err(cancelled);
            }
        };
        let mut rows = Vec::new();
        for message in messages {
            if let SimpleQueryMessage::Row(row) = message {
                let mut cells = Vec::with_capacity(row.len());
                for column in 0..row.len() {
                    let cell = row.try_get(column).map_err(|error| self.failed(what, &error))?;
                    cells.push(cell.map(str::to_owned));
                }
                rows.push(cells);
            }
        }
        Ok(rows)
    }

    fn copy_out(&mut self, what: &str, sql: &str, sink: &mut dyn FnMut(&[u8])) -> Result<(), SourceError> {
        let passed = Cell::default();
        let copying = async {
            let mut stream = pin!(self.client.copy_out(sql).await?);
            while let Some(bytes) = stream.next().await {
                let bytes = bytes?;
                passed.set(passed.get() + bytes.len() as u64);
                sink(&bytes);
            }
            Ok(())
        };
        match self.line.wait(copying, &passed, &self.cancel) {
            Ok(result) => result.map_err(|error| self.failed(what, &error)),
            Err(cancelled) => {
                self.abandon();
                Err(cancelled)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_texts_cannot_end_their_quotes() {
        assert_eq!(ident("a\"b"), "\"a\"\"b\"");
        assert_eq!(literal("it's"), "'it''s'");
        assert_eq!(literal("\\'"), " E'\\\\'''");
    }
}
