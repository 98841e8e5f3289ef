//! Carbon intensity now, from Electricity Maps (`GET /v3/carbon-intensity/latest`).
//!
//! Source: the service's reference, https://portal.electricitymaps.com/docs/api. Figures are lifecycle
//! emissions of the electricity consumed in a zone, in g CO₂-equivalent per kWh. The token travels in one header, to the
//! given host alone: redirects are not followed, and no error, debug output or file holds it. A call blocks, at worst
//! for three tries of five seconds and the waits between them: it belongs on the sampler's thread, behind [`Cached`].

mod cached;
#[cfg(test)]
mod tests;

use std::io::Read;
use std::sync::Once;
use std::time::Duration;
use std::{fmt, thread};

use chrono::DateTime;
use reqwest::blocking::{Client, Response};
use reqwest::header::HeaderValue;
use reqwest::{Url, redirect};

pub use self::cached::Cached;
use super::intensity::{Intensity, Origin, zone_name};
use super::units::GramsPerKwh;

const SERVICE: &str = "https://api.electricitymaps.com";
/// For one try, from connecting to the last byte.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Before the second and the third try.
const WAITS: [Duration; 2] = [Duration::from_millis(500), Duration::from_millis(1500)];
/// Longer than this the service is not waited for, whatever it asks.
const LONGEST_WAIT: Duration = Duration::from_secs(5);
const MOST_BYTES: u64 = 64 * 1024;
/// Coal at its worst is below 1500 g/kWh.
const MOST_GRAMS: f64 = 5000.0;

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LiveError {
    #[error("Electricity Maps: the token was refused: check ELECTRICITY_MAPS_TOKEN")]
    Refused,
    #[error(
        "Electricity Maps: the token may not read zone {zone}: check which zones the plan of ELECTRICITY_MAPS_TOKEN has"
    )]
    Forbidden { zone: String },
    #[error("Electricity Maps: it has no zone {zone}: expected a zone as its map shows it, such as NL or US-CAL-CISO")]
    UnknownZone { zone: String },
    #[error("zone: expected a zone of Electricity Maps, such as NL or US-CAL-CISO, got `{given}`")]
    NoZone { given: String },
    #[error("Electricity Maps: the service's address: expected https://… (http only on this machine), got `{given}`")]
    Address { given: String },
    #[error("Electricity Maps: too many requests for this token: ask less often, or share the cache between runs")]
    TooMany,
    #[error("Electricity Maps: the service is in trouble (status {status}): later it may answer")]
    Down { status: u16 },
    #[error("Electricity Maps: expected status 200, got {status}: is the service's address right?")]
    Status { status: u16 },
    #[error("Electricity Maps: no answer within {} s: is there a network?", .seconds)]
    Timeout { seconds: u64 },
    #[error("Electricity Maps: not reached: {why}")]
    Unreachable { why: String },
    #[error("Electricity Maps: the answer makes no sense: {what}")]
    Nonsense { what: String },
    #[error("{why} (asked again in {seconds} s)")]
    Waiting { why: Box<LiveError>, seconds: u64 },
}

/// The service, asked anew at each call. See [`Cached`].
#[derive(Clone)]
pub struct ElectricityMaps {
    token: String,
    base: String,
    timeout: Duration,
    waits: [Duration; 2],
}

impl fmt::Debug for ElectricityMaps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ElectricityMaps").field("base", &self.base).finish_non_exhaustive() // Never the token.
    }
}

/// A try that failed.
struct Failed {
    error: LiveError,
    again: Again,
}

#[derive(Clone, Copy)]
enum Again {
    Never,
    /// After the usual wait.
    Soon,
    /// After the wait that the service asks for.
    After(Duration),
}

impl ElectricityMaps {
    /// `base` is the service's address without the path, where it is not the public one.
    pub fn new(token: String, base: Option<String>) -> Self {
        let base = base.unwrap_or_else(|| SERVICE.into()).trim_end_matches('/').to_owned();
        Self { token: token.trim().to_owned(), base, timeout: TIMEOUT, waits: WAITS }
    }

    /// The latest figure of a zone, such as `NL`. Tries three times where trying again can help.
    ///
    /// Errors: what went wrong at the last try, and what to do about it.
    pub fn latest(&self, zone: &str) -> Result<Intensity, LiveError> {
        let zone = zone_name(zone).ok_or_else(|| LiveError::NoZone { given: zone.trim().into() })?;
        let url = self.url(&zone)?;
        let mut token = HeaderValue::from_str(&self.token).map_err(|_| LiveError::Refused)?;
        token.set_sensitive(true);
        let client = client(&url)?;
        let outcome = self.tries(&client, &url, &token, &zone);
        // A client ends when its last look-up of a name has, which can take half a minute where names are not resolved.
        let _ = thread::Builder::new().spawn(move || drop(client));
        outcome
    }

    fn tries(&self, client: &Client, url: &Url, token: &HeaderValue, zone: &str) -> Result<Intensity, LiveError> {
        let mut waits = self.waits.into_iter();
        loop {
            let failed = match self.ask(client, url.clone(), token.clone(), zone) {
                Ok(found) => return Ok(found),
                Err(failed) => failed,
            };
            let Some(usual) = waits.next() else { return Err(failed.error) };
            match failed.again {
                Again::Soon => thread::sleep(usual),
                Again::After(wait) if wait <= LONGEST_WAIT => thread::sleep(wait.max(usual)),
                Again::After(_) | Again::Never => return Err(failed.error),
            }
        }
    }

    /// Errors: an address that would send the token in the clear over a network, or is none.
    fn url(&self, zone: &str) -> Result<Url, LiveError> {
        let bad = || LiveError::Address { given: self.base.clone() };
        let mut url = Url::parse(&format!("{}/v3/carbon-intensity/latest", self.base)).map_err(|_| bad())?;
        url.query_pairs_mut().append_pair("zone", zone);
        if url.scheme() == "https" || (url.scheme() == "http" && is_loopback(&url)) { Ok(url) } else { Err(bad()) }
    }

    fn ask(&self, client: &Client, url: Url, token: HeaderValue, zone: &str) -> Result<Intensity, Failed> {
        let sent = client.get(url).header("auth-token", token).timeout(self.timeout).send();
        let response = sent.map_err(|error| self.failed(&error.without_url()))?;
        let (status, zone) = (response.status().as_u16(), zone.to_owned());
        let (error, again) = match status {
            200 => {
                let body = self.body(response)?;
                return figure(&body, &zone)
                    .map_err(|what| Failed { error: LiveError::Nonsense { what }, again: Again::Never });
            }
            401 => (LiveError::Refused, Again::Never),
            403 => (LiveError::Forbidden { zone }, Again::Never),
            404 => (LiveError::UnknownZone { zone }, Again::Never),
            429 => (LiveError::TooMany, retry_after(&response)),
            500..=599 => (LiveError::Down { status }, retry_after(&response)),
            _ => (LiveError::Status { status }, Again::Never),
        };
        Err(Failed { error, again })
    }

    fn body(&self, response: Response) -> Result<Vec<u8>, Failed> {
        let mut body = Vec::new();
        if let Err(error) = response.take(MOST_BYTES + 1).read_to_end(&mut body) {
            let cause = error.get_ref().and_then(|cause| cause.downcast_ref::<reqwest::Error>());
            return Err(cause.map_or_else(|| not_reached(&error), |cause| self.failed(cause)));
        }
        if body.len() as u64 > MOST_BYTES {
            let what = format!("expected a few hundred bytes, got more than {} KiB", MOST_BYTES / 1024);
            return Err(Failed { error: LiveError::Nonsense { what }, again: Again::Never });
        }
        Ok(body)
    }

    fn failed(&self, error: &reqwest::Error) -> Failed {
        if error.is_timeout() {
            return Failed { error: LiveError::Timeout { seconds: self.timeout.as_secs() }, again: Again::Soon };
        }
        not_reached(error)
    }
}

/// The innermost cause says most: `connection refused`.
fn not_reached(error: &(dyn std::error::Error + 'static)) -> Failed {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    Failed { error: LiveError::Unreachable { why: cause.to_string() }, again: Again::Soon }
}

fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<std::net::IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

/// A client for one question: it lives as long as its tries, so that no thread and no connection waits for the next.
fn client(url: &Url) -> Result<Client, LiveError> {
    static PROVIDER: Once = Once::new();
    // Fails only where the program has chosen one before, which serves as well.
    PROVIDER.call_once(|| drop(rustls::crypto::ring::default_provider().install_default()));
    let mut builder = Client::builder().redirect(redirect::Policy::none()).user_agent(concat!(
        env!("CARGO_PKG_NAME"),
        "/",
        env!("CARGO_PKG_VERSION")
    ));
    if url.scheme() == "http" {
        // On this machine: neither a proxy nor certificates are needed.
        builder = builder.no_proxy().tls_certs_only([]);
    }
    builder.build().map_err(|error| not_reached(&error).error)
}

/// `Retry-After` in seconds; its other form, a date, is taken for no word.
fn retry_after(response: &Response) -> Again {
    let header = response.headers().get("retry-after").and_then(|value| value.to_str().ok());
    match header.and_then(|value| value.trim().parse().ok()) {
        Some(seconds) => Again::After(Duration::from_secs(seconds)),
        None => Again::Soon,
    }
}

/// The figure of an answer, or what is wrong with it. Nothing of the answer's text is repeated: it could hold the token.
fn figure(body: &[u8], asked: &str) -> Result<Intensity, String> {
    let answer: serde_json::Value = serde_json::from_slice(body).map_err(|_| "expected JSON".to_owned())?;
    let grams = answer.get("carbonIntensity").and_then(serde_json::Value::as_f64);
    let grams = grams.ok_or("expected a number in `carbonIntensity`")?;
    let at = answer.get("datetime").and_then(serde_json::Value::as_str).unwrap_or_default();
    let estimated = answer.get("isEstimated").and_then(serde_json::Value::as_bool).unwrap_or(false);
    // The service answers for a renamed zone under its new name.
    let zone = answer.get("zone").and_then(serde_json::Value::as_str).and_then(zone_name);
    checked(grams, zone.unwrap_or_else(|| asked.into()), at, estimated)
}

/// A live figure whose parts make sense.
fn checked(grams: f64, zone: String, at: &str, estimated: bool) -> Result<Intensity, String> {
    if !(0.0..=MOST_GRAMS).contains(&grams) {
        return Err(format!("expected 0 to {MOST_GRAMS} g/kWh, got {grams}"));
    }
    if DateTime::parse_from_rfc3339(at).is_err() {
        return Err("expected a time in `datetime`".into());
    }
    Ok(Intensity { grams: GramsPerKwh(grams), origin: Origin::Live { zone, at: at.into(), estimated } })
}
