//! A smoke test: an address that must answer with a status, perhaps with a text in it.
//!
//! It only ever gets, follows nothing, and waits a while for a service that is still starting.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::{Answer, Broken};
use crate::base::cancel::Cancel;
use crate::base::url::Url;
use crate::drill::DrillError;
use crate::source::difference::Difference;

const ANSWERS_WITHIN: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(250);
/// A longer answer is looked through no further.
const BODY_LIMIT_BYTES: usize = 1 << 20;

/// What is wanted of an address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HttpCheck {
    pub url: String,
    pub status: u16,
    /// Must stand in the answer.
    pub contains: Option<String>,
}

impl HttpCheck {
    /// Looks for what makes no sense.
    ///
    /// # Errors
    /// What it is.
    pub fn validate(&self) -> Result<(), DrillError> {
        let refused = |why: &str| Err(DrillError::Spec(format!("http check {:?}: {why}", self.url)));
        let Some(rest) = self.url.strip_prefix("http://").or_else(|| self.url.strip_prefix("https://"))
        else {
            return refused("write http://HOST/… or https://HOST/…");
        };
        match Url::parse(rest) {
            Ok(url) if url.host.is_empty() => refused("it names no host"),
            Ok(url) if url.password.is_some() => refused(
                "a password in an address is seen by everybody: let a command ask, with --check-command",
            ),
            Ok(_) if !(100..600).contains(&self.status) => refused("there is no such status"),
            Ok(_) => Ok(()),
            Err(error) => refused(&error.to_string()),
        }
    }

    /// The same at the place where a service of the sandbox answers, if the address names one.
    pub fn at(&self, place: impl Fn(&str) -> Option<IpAddr>) -> Self {
        let moved = || {
            let (scheme, rest) = self.url.split_once("://")?;
            let end = rest.find([':', '/', '?', '#']).unwrap_or(rest.len());
            let at = match place(&rest[..end])? {
                IpAddr::V4(at) => at.to_string(),
                IpAddr::V6(at) => format!("[{at}]"),
            };
            Some(format!("{scheme}://{at}{}", &rest[end..]))
        };
        Self { url: moved().unwrap_or_else(|| self.url.clone()), ..self.clone() }
    }
}

pub async fn check(wanted: &HttpCheck, cancel: &Cancel) -> Result<Answer, Broken> {
    let start = Instant::now();
    loop {
        if cancel.is_cancelled() {
            return Err("interrupted".into());
        }
        let difference = match ask(wanted).await {
            Ok(None) => return Ok(Answer::Proven(format!("GET answered {}", wanted.status))),
            Ok(Some(difference)) => difference,
            Err(error) => {
                Difference::new(wanted.url.clone(), wanted.status.to_string(), "no answer").because(error)
            }
        };
        if start.elapsed() > ANSWERS_WITHIN {
            return Ok(Answer::Differs(vec![difference]));
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// `None`: it answered as wanted.
///
/// # Errors
/// It did not answer.
async fn ask(wanted: &HttpCheck) -> Result<Option<Difference>, String> {
    // An error means a provider is installed already, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = reqwest::Client::builder()
        .user_agent(concat!("lifeboat-drill/", env!("CARGO_PKG_VERSION")))
        .redirect(reqwest::redirect::Policy::none())
        .timeout(ANSWERS_WITHIN)
        .no_proxy()
        .build()
        .map_err(innermost)?;
    let mut answer = client.get(&wanted.url).send().await.map_err(innermost)?;
    let status = answer.status().as_u16();
    if status != wanted.status {
        let found = format!("it answered {status}");
        return Ok(Some(Difference::new(wanted.url.clone(), wanted.status.to_string(), found)));
    }
    let Some(text) = &wanted.contains else { return Ok(None) };
    let mut body = Vec::new();
    while let Some(piece) = answer.chunk().await.map_err(innermost)? {
        body.extend_from_slice(&piece);
        if memchr::memmem::find(&body, text.as_bytes()).is_some() {
            return Ok(None);
        }
        if body.len() > BODY_LIMIT_BYTES {
            break;
        }
    }
    let found = format!("an answer of {} bytes without it", body.len());
    Ok(Some(Difference::new(wanted.url.clone(), format!("{text:?} in the answer"), found)))
}

/// What went wrong stands in the innermost cause.
fn innermost(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(&error);
    while let Some(inner) = cause {
        text = inner.to_string();
        cause = inner.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_of_the_sandbox_is_asked_where_it_answers() {
        let at = |url: &str| {
            let wanted = HttpCheck { url: url.into(), status: 200, contains: None };
            wanted.at(|host| (host == "web").then(|| IpAddr::from([10, 0, 0, 2]))).url
        };
        assert_eq!(at("http://web:8080/health?x=http://web"), "http://10.0.0.2:8080/health?x=http://web");
        assert_eq!(at("http://web"), "http://10.0.0.2");
        assert_eq!(at("http://website/"), "http://website/");
    }

    #[test]
    fn an_address_that_makes_no_sense_is_refused() {
        let validate = |url: &str, status| HttpCheck { url: url.into(), status, contains: None }.validate();
        assert!(validate("http://127.0.0.1:8080/health", 200).is_ok());
        assert!(validate("https://[::1]/", 204).is_ok());
        for (url, status) in [
            ("127.0.0.1", 200),
            ("ftp://h/", 200),
            ("http:///health", 200),
            ("http://h:http/", 200),
            ("http://h/", 42),
            ("http://u:p@h/", 200),
        ] {
            assert!(validate(url, status).is_err(), "{url} {status}");
        }
    }
}
