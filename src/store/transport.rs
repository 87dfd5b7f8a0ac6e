//! Level 2: HTTP for the services behind opendal: one client per store, with bandwidth limits on both ways
//! and no way to hang: connecting, sending, waiting for the answer and every piece of it are bounded in time.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use futures::Stream;
use http::{Method, Request, Response, header};
use opendal::{Buffer, Error, ErrorKind, HttpBody, HttpTransport};
use tokio::time::{Instant, Sleep};

use super::pace::{PIECE_BYTES, Pace};
use super::{LARGEST_OBJECT_BYTES, StoreOptions, too_large};
use crate::base::causes::causes;

/// See the module's page.
pub(super) struct Transport {
    client: reqwest::Client,
    upload: Pace,
    download: Pace,
    options: StoreOptions,
}

impl Transport {
    pub(super) fn new(options: &StoreOptions) -> Result<Self, reqwest::Error> {
        // An error means a provider is installed already, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::builder()
            .user_agent(concat!("lifeboat/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(options.connect_timeout)
            // A peer that vanished in the middle of an upload: no acknowledgement for this long.
            .tcp_user_timeout(options.timeout)
            .tcp_keepalive(Duration::from_secs(30))
            .pool_idle_timeout(Duration::from_secs(60))
            .build()?;
        Ok(Self {
            client,
            upload: Pace::new(options.upload_limit_bytes_per_second),
            download: Pace::new(options.download_limit_bytes_per_second),
            options: options.clone(),
        })
    }
}

fn failed(message: &str, error: reqwest::Error) -> Error {
    // A connection that cannot be made or breaks may work later; a URL or TLS setup that is wrong may not.
    let temporary = !error.is_builder() && !error.is_redirect();
    // The URL is in the location and the object's name already; its query could hold a signature.
    let error = error.without_url();
    let text = format!("{message}: {}", causes(&error));
    Error::new(ErrorKind::Unexpected, text).with_temporary(temporary)
}

impl HttpTransport for Transport {
    async fn fetch(&self, request: Request<Buffer>) -> opendal::Result<Response<HttpBody>> {
        let (parts, body) = request.into_parts();
        let is_head = parts.method == Method::HEAD;
        let uri = parts.uri.clone();
        let url = reqwest::Url::parse(&uri.to_string())
            .map_err(|e| Error::new(ErrorKind::ConfigInvalid, "the address makes no URL").set_source(e))?;
        let mut builder =
            self.client.request(parts.method, url).headers(parts.headers).version(parts.version);
        let allowance = self.options.allowance(body.len() as u64);
        if !body.is_empty() {
            let pace = self.upload.clone();
            builder = builder.body(reqwest::Body::wrap(PacedBody { body, pace, pause: None }));
        }
        let answer = match tokio::time::timeout(allowance, builder.send()).await {
            Ok(answer) => answer.map_err(|e| failed("no answer", e))?,
            Err(_) => {
                let text = format!("no answer within {} s", allowance.as_secs());
                return Err(Error::new(ErrorKind::Unexpected, text).set_temporary());
            }
        };

        let encoded = answer.headers().contains_key(header::CONTENT_ENCODING);
        let length = answer.headers().get(header::CONTENT_LENGTH);
        let length = length.and_then(|v| v.to_str().ok()).and_then(|v| v.parse::<u64>().ok());
        let expected = length.filter(|_| !is_head && !encoded);
        if let Some(size_bytes) = expected.filter(|length| *length > LARGEST_OBJECT_BYTES) {
            return Err(Error::new(ErrorKind::Unexpected, too_large(size_bytes)));
        }

        let mut response =
            Response::builder().status(answer.status()).version(answer.version()).extension(uri);
        if let Some(headers) = response.headers_mut() {
            headers.clone_from(answer.headers());
        }
        let body = PacedStream {
            inner: Box::pin(answer.bytes_stream()),
            taken_bytes: 0,
            pace: self.download.clone(),
            pause: None,
            idle: self.options.timeout,
            give_up: Box::pin(tokio::time::sleep(self.options.timeout)),
        };
        response
            .body(HttpBody::new(body, expected))
            .map_err(|e| Error::new(ErrorKind::Unexpected, "malformed answer").set_source(e))
    }
}

type Pause = Option<Pin<Box<Sleep>>>;

/// Waits out a pause, if there is one.
fn poll_pause(pause: &mut Pause, cx: &mut Context<'_>) -> Poll<()> {
    if let Some(sleep) = pause {
        ready!(sleep.as_mut().poll(cx));
        *pause = None;
    }
    Poll::Ready(())
}

fn pause_until(instant: Option<Instant>) -> Pause {
    instant.map(|instant| Box::pin(tokio::time::sleep_until(instant)))
}

/// A request's body that leaves in pieces, each followed by the pause it costs.
struct PacedBody {
    body: Buffer,
    pace: Pace,
    pause: Pause,
}

impl http_body::Body for PacedBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, Infallible>>> {
        ready!(poll_pause(&mut self.pause, cx));
        if self.body.is_empty() {
            return Poll::Ready(None);
        }
        let piece = self.body.chunk().len().min(PIECE_BYTES);
        let bytes = self.body.copy_to_bytes(piece);
        self.pause = pause_until(self.pace.book(piece));
        Poll::Ready(Some(Ok(http_body::Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_empty()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        http_body::SizeHint::with_exact(self.body.len() as u64)
    }
}

/// A response's body: paced, and an error when nothing arrives for `idle`.
struct PacedStream {
    inner: Pin<Box<dyn Stream<Item = reqwest::Result<Bytes>> + Send + Sync>>,
    taken_bytes: u64,
    pace: Pace,
    pause: Pause,
    idle: Duration,
    give_up: Pin<Box<Sleep>>,
}

impl Stream for PacedStream {
    type Item = opendal::Result<Buffer>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.pause.is_some() {
            ready!(poll_pause(&mut self.pause, cx));
            let deadline = Instant::now() + self.idle;
            self.give_up.as_mut().reset(deadline);
        }
        loop {
            return match self.inner.as_mut().poll_next(cx) {
                Poll::Ready(Some(Ok(bytes))) if bytes.is_empty() => continue,
                Poll::Ready(Some(Ok(bytes))) => {
                    self.taken_bytes += bytes.len() as u64;
                    if self.taken_bytes > LARGEST_OBJECT_BYTES {
                        let error = Error::new(ErrorKind::Unexpected, too_large(self.taken_bytes));
                        return Poll::Ready(Some(Err(error)));
                    }
                    self.pause = pause_until(self.pace.book(bytes.len()));
                    let deadline = Instant::now() + self.idle;
                    self.give_up.as_mut().reset(deadline);
                    Poll::Ready(Some(Ok(Buffer::from(bytes))))
                }
                Poll::Ready(Some(Err(e))) => Poll::Ready(Some(Err(failed("the answer broke off", e)))),
                Poll::Ready(None) => Poll::Ready(None),
                Poll::Pending => {
                    ready!(self.give_up.as_mut().poll(cx));
                    let text = format!("nothing arrived for {} s", self.idle.as_secs());
                    Poll::Ready(Some(Err(Error::new(ErrorKind::Unexpected, text).set_temporary())))
                }
            };
        }
    }
}
