//! A service's own HTTP: small requests, answers and bodies as streams, waited for on a thread that may.
//!
//! Invariants: a password is in no URL and no message; whatever waits ends when the run is cancelled.

use std::io::{self, Read};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;
use reqwest::header::{ACCEPT_ENCODING, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue};
use reqwest::{Method, Response};
use tokio::runtime::Handle;

use super::cancel::{Cancel, Cancelled};
use super::causes::causes;
use super::secret::Secret;

/// How often a wait looks whether the run was cancelled.
const SLICE: Duration = Duration::from_millis(50);
/// Most bytes of an answer that is taken whole.
const ANSWER_LIMIT: usize = 64 << 20;
/// Most characters of a refusal that are shown.
const SHOWN: usize = 400;
/// Pieces of an upload under way.
const PIECES: usize = 4;
const PIECE_BYTES: usize = 256 << 10;

/// A request that did not do what it should.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
    #[error("cannot {what} at {place}: {said}")]
    Failed { what: String, place: String, said: String, status: Option<u16> },
}

/// A service.
#[derive(Clone)]
pub struct Http {
    client: reqwest::Client,
    /// `http://host:port`, without a slash at its end.
    base: String,
    login: Option<(String, Secret)>,
    /// The whole of `Authorization`, where that is no user and password.
    authorization: Option<HeaderValue>,
    no_progress: Duration,
    runtime: Handle,
    cancel: Cancel,
}

/// Every cause on one line, without the URL: its query may be long, and says nothing the operation does not.
fn chain(error: reqwest::Error) -> String {
    causes(&error.without_url())
}

impl Http {
    /// Connects to nothing yet.
    ///
    /// # Errors
    /// The system offers no TLS.
    pub fn new(
        base: &str,
        login: Option<(String, Secret)>,
        no_progress: Duration,
        runtime: &Handle,
        cancel: &Cancel,
    ) -> Result<Self, HttpError> {
        // An error means a provider is installed already, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let builder = reqwest::Client::builder()
            .user_agent(concat!("lifeboat/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(Duration::from_secs(15))
            .tcp_keepalive(Duration::from_secs(30));
        let client = builder.build().map_err(|error| HttpError::Failed {
            what: "make a client".into(),
            place: base.into(),
            said: chain(error),
            status: None,
        })?;
        let (runtime, cancel) = (runtime.clone(), cancel.clone());
        let base = base.to_owned();
        Ok(Self { client, base, login, authorization: None, no_progress, runtime, cancel })
    }

    /// Sends `SCHEME SECRET` as `Authorization`, as servers want it that know tokens.
    ///
    /// # Errors
    /// The secret has characters that no header may have.
    pub fn authorized(mut self, scheme: &str, secret: &Secret) -> Result<Self, HttpError> {
        let text = zeroize::Zeroizing::new([scheme.as_bytes(), b" ", secret.expose()].concat());
        let mut value = HeaderValue::from_bytes(&text)
            .map_err(|_| self.failed("log in", "the token has characters that no token has".into(), None))?;
        value.set_sensitive(true);
        self.authorization = Some(value);
        Ok(self)
    }

    /// One that works in a cancelled run, too: for cleaning up.
    #[must_use]
    pub fn farewell(&self) -> Self {
        Self { cancel: Cancel::new(), no_progress: Duration::from_secs(10), ..self.clone() }
    }

    fn failed(&self, what: &str, said: String, status: Option<u16>) -> HttpError {
        HttpError::Failed { what: what.into(), place: self.base.clone(), said, status }
    }

    async fn waited<T>(&self, what: &str, work: impl Future<Output = T>) -> Result<T, HttpError> {
        let cancelled = async {
            while !self.cancel.is_cancelled() {
                tokio::time::sleep(SLICE).await;
            }
        };
        tokio::select! {
            done = work => Ok(done),
            () = cancelled => Err(Cancelled.into()),
            () = tokio::time::sleep(self.no_progress) => {
                Err(self.failed(what, format!("nothing came for {} s", self.no_progress.as_secs()), None))
            }
        }
    }

    fn request(&self, method: Method, path: &str, form: &[(&str, &str)]) -> reqwest::RequestBuilder {
        let encoded: Vec<String> = form
            .iter()
            .map(|(key, value)| format!("{}={}", super::url::encode(key, ""), super::url::encode(value, "")))
            .collect();
        let url = format!("{}{path}", self.base);
        let mut request = match (&method, encoded.is_empty()) {
            (_, true) => self.client.request(method, url),
            (&Method::GET, _) => self.client.request(method, format!("{url}?{}", encoded.join("&"))),
            _ => self
                .client
                .request(method, url)
                .header("Content-Type", "application/x-www-form-urlencoded")
                .body(encoded.join("&")),
        };
        if let Some((user, password)) = &self.login {
            request = request.basic_auth(user, Some(String::from_utf8_lossy(password.expose())));
        }
        if let Some(authorization) = &self.authorization {
            request = request.header(AUTHORIZATION, authorization.clone());
        }
        // What is compressed on the way hides what has not changed.
        request.header(ACCEPT_ENCODING, "identity")
    }

    async fn answered(&self, what: &str, request: reqwest::RequestBuilder) -> Result<Response, HttpError> {
        let answer = self.waited(what, request.send()).await?;
        let answer = answer.map_err(|error| self.failed(what, chain(error), None))?;
        let status = answer.status();
        if status.is_success() {
            return Ok(answer);
        }
        let text = self.waited(what, answer.text()).await?.unwrap_or_default();
        let text: String = text.trim().chars().take(SHOWN).collect();
        Err(self.failed(what, format!("status {status}: {text}"), Some(status.as_u16())))
    }

    async fn whole(&self, what: &str, answer: Response) -> Result<Vec<u8>, HttpError> {
        let mut all = Vec::new();
        let mut pieces = answer.bytes_stream();
        while let Some(piece) = self.waited(what, pieces.next()).await? {
            all.extend_from_slice(&piece.map_err(|error| self.failed(what, chain(error), None))?);
            if all.len() > ANSWER_LIMIT {
                return Err(self.failed(what, "the answer is too large".into(), None));
            }
        }
        Ok(all)
    }

    /// Asks, with `form` in the query of a GET and in the body of any other; the answer whole.
    ///
    /// # Errors
    /// Nobody answers, the answer is no, the run was cancelled. `what` names it: `list the databases`.
    pub fn ask(
        &self,
        what: &str,
        method: Method,
        path: &str,
        form: &[(&str, &str)],
    ) -> Result<Vec<u8>, HttpError> {
        self.runtime.block_on(async {
            let answer = self.answered(what, self.request(method, path, form)).await?;
            self.whole(what, answer).await
        })
    }

    /// Sends a JSON document; the answer whole.
    ///
    /// # Errors
    /// As [`Self::ask`].
    pub fn tell(
        &self,
        what: &str,
        method: Method,
        path: &str,
        document: &serde_json::Value,
    ) -> Result<Vec<u8>, HttpError> {
        let request = self.request(method, path, &[]);
        let request = request.header(CONTENT_TYPE, "application/json").body(document.to_string());
        self.runtime.block_on(async {
            let answer = self.answered(what, request).await?;
            self.whole(what, answer).await
        })
    }

    /// Asks who is there: an answer of any status, which is one all the same.
    ///
    /// # Errors
    /// Nobody answers, the run was cancelled.
    pub fn look(&self, what: &str, path: &str) -> Result<Seen, HttpError> {
        self.runtime.block_on(async {
            let answer = self.waited(what, self.request(Method::GET, path, &[]).send()).await?;
            let answer = answer.map_err(|error| self.failed(what, chain(error), None))?;
            let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
            Ok(Seen { status, headers, body: self.whole(what, answer).await? })
        })
    }

    /// The same as [`Self::ask`] with the answer as a stream.
    ///
    /// # Errors
    /// As [`Self::ask`].
    pub fn stream(
        &self,
        what: &str,
        method: Method,
        path: &str,
        form: &[(&str, &str)],
    ) -> Result<Download, HttpError> {
        let answer = self.runtime.block_on(self.answered(what, self.request(method, path, form)))?;
        let headers = answer.headers().clone();
        let pieces = Box::pin(answer.bytes_stream());
        Ok(Download { http: self.clone(), what: what.into(), headers, pieces, rest: Bytes::new() })
    }

    /// Sends everything `content` gives; the answer whole.
    ///
    /// # Errors
    /// As [`Self::ask`]; `content` breaks.
    pub fn send(&self, what: &str, path: &str, content: &mut dyn Read) -> Result<Vec<u8>, HttpError> {
        let (sender, receiver) = tokio::sync::mpsc::channel::<io::Result<Bytes>>(PIECES);
        let pieces = futures::stream::unfold(receiver, |mut receiver| async move {
            receiver.recv().await.map(|piece| (piece, receiver))
        });
        let request = self.request(Method::POST, path, &[]).header(CONTENT_TYPE, "application/octet-stream");
        let request = request.body(reqwest::Body::wrap_stream(pieces));
        let (http, name) = (self.clone(), what.to_owned());
        let answer = self.runtime.spawn(async move {
            let answer = http.answered(&name, request).await?;
            http.whole(&name, answer).await
        });
        let broken = |error: io::Error| self.failed(what, error.to_string(), None);
        let mut failure = None;
        loop {
            let mut piece = vec![0; PIECE_BYTES];
            let read = self.cancel.check().map_err(io::Error::other).and_then(|()| content.read(&mut piece));
            let length = match read {
                Ok(0) => break,
                Ok(length) => length,
                Err(error) => {
                    // An error in the body breaks the request: the service must not take half for all.
                    let _ = sender.blocking_send(Err(io::Error::other("broken off")));
                    failure = Some(error);
                    break;
                }
            };
            piece.truncate(length);
            if sender.blocking_send(Ok(piece.into())).is_err() {
                break;
            }
        }
        drop(sender);
        let answer = self.runtime.block_on(answer);
        self.cancel.check()?;
        if let Some(error) = failure {
            return Err(broken(error));
        }
        answer.map_err(|_| self.failed(what, "the upload panicked: this is a bug".into(), None))?
    }
}

/// An answer to [`Http::look`].
pub struct Seen {
    pub status: u16,
    headers: HeaderMap,
    pub body: Vec<u8>,
}

impl Seen {
    /// A header's text, if it has any.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

/// An answer that is read as it comes. It ends well only where the service ended it.
pub struct Download {
    http: Http,
    what: String,
    headers: HeaderMap,
    pieces: std::pin::Pin<Box<dyn futures::Stream<Item = reqwest::Result<Bytes>> + Send>>,
    rest: Bytes,
}

impl Download {
    /// A header's text, if it has any.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// Reads some; 0 at the end.
    ///
    /// # Errors
    /// The answer broke off, nothing came for too long, the run was cancelled.
    pub fn read_some(&mut self, buffer: &mut [u8]) -> Result<usize, HttpError> {
        while self.rest.is_empty() {
            let next = self.http.waited(&self.what, self.pieces.next());
            match self.http.runtime.block_on(next)? {
                None => return Ok(0),
                Some(piece) => {
                    self.rest = piece.map_err(|error| self.http.failed(&self.what, chain(error), None))?;
                }
            }
        }
        let length = self.rest.len().min(buffer.len());
        buffer[..length].copy_from_slice(&self.rest.split_to(length));
        Ok(length)
    }
}
