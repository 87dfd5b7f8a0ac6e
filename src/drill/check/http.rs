//! A smoke test: an address that must answer with a status, perhaps with a text in it.
//!
//! It only ever gets, follows nothing, and waits a while for a service that is still starting. What answers proves a
//! recovery only if it is a service of the sandbox, found by its name; this machine's own loopback may be asked and
//! proves nothing, and nobody else is asked at all: production answers whether anything was restored or not.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::{Answer, Broken};
use crate::base::cancel::Cancel;
use crate::base::url::Url;
use crate::drill::DrillError;
use crate::drill::sandbox::Sandbox;
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

    /// What stands between `://` and the path, without a port.
    fn host(&self) -> &str {
        let rest = self.url.split_once("://").map_or("", |(_, rest)| rest);
        let place = &rest[..rest.find(['/', '?', '#']).unwrap_or(rest.len())];
        let place = place.rsplit_once('@').map_or(place, |(_, place)| place);
        match place.strip_prefix('[').and_then(|place| place.split_once(']')) {
            Some((inner, _)) => inner,
            None => place.split(':').next().unwrap_or_default(),
        }
    }

    /// Whether it asks this machine itself.
    pub fn is_of_this_machine(&self) -> bool {
        let host = self.host();
        host == "localhost" || host.parse::<IpAddr>().is_ok_and(|at| at.is_loopback())
    }

    /// Why it is not asked: there is nothing in the sandbox that it could mean.
    pub fn outside(&self) -> String {
        format!(
            "{} is outside the sandbox: what answers there proves no recovery, and a drill asks nobody else\nhint: an \
             http check names a service of a Docker project, as in http://web:8080/; let a command ask what a step \
             started",
            self.host()
        )
    }

    /// The same at the place where a service of the sandbox answers, if the address names one.
    pub fn at(&self, place: impl Fn(&str) -> Option<IpAddr>) -> Option<Self> {
        let (scheme, rest) = self.url.split_once("://")?;
        let end = rest.find([':', '/', '?', '#']).unwrap_or(rest.len());
        let at = match place(&rest[..end])? {
            IpAddr::V4(at) => at.to_string(),
            IpAddr::V6(at) => format!("[{at}]"),
        };
        Some(Self { url: format!("{scheme}://{at}{}", &rest[end..]), ..self.clone() })
    }
}

/// Asks a service of the sandbox, or this machine; true if the answer is the sandbox's own.
pub async fn check(
    wanted: &HttpCheck,
    sandbox: &dyn Sandbox,
    cancel: &Cancel,
) -> (Result<Answer, Broken>, bool) {
    if let Some(inside) = wanted.at(|host| sandbox.host_of(host)) {
        return (answer(&inside, "", cancel).await, true);
    }
    match wanted.is_of_this_machine() {
        true => (answer(wanted, "; not of the sandbox: proves nothing", cancel).await, false),
        false => (Err(format!("no service {} runs in the sandbox", wanted.host())), false),
    }
}

async fn answer(wanted: &HttpCheck, about: &str, cancel: &Cancel) -> Result<Answer, Broken> {
    let start = Instant::now();
    loop {
        if cancel.is_cancelled() {
            return Err("interrupted".into());
        }
        let difference = match ask(wanted).await {
            Ok(None) => return Ok(Answer::Proven(format!("GET answered {}{about}", wanted.status))),
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
            wanted.at(|host| (host == "web").then(|| IpAddr::from([10, 0, 0, 2]))).map(|wanted| wanted.url)
        };
        let moved = |url: &str| Some(url.to_owned());
        assert_eq!(
            at("http://web:8080/health?x=http://web"),
            moved("http://10.0.0.2:8080/health?x=http://web")
        );
        assert_eq!(at("http://web"), moved("http://10.0.0.2"));
        assert_eq!(at("http://website/"), None);
    }

    #[test]
    fn this_machine_is_told_from_the_world() {
        let is_here =
            |url: &str| HttpCheck { url: url.into(), status: 200, contains: None }.is_of_this_machine();
        for url in ["http://127.0.0.1:1/x", "http://localhost", "https://[::1]:8/", "http://127.9.9.9?x=y"] {
            assert!(is_here(url), "{url}");
        }
        for url in
            ["http://10.0.0.1/", "http://localhost.example.org/", "http://x@h/127.0.0.1", "http://[::2]/"]
        {
            assert!(!is_here(url), "{url}");
        }
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
