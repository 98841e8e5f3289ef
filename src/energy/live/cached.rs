//! Electricity Maps asked seldom: an answer serves for 15 minutes, across runs; after a failure the service has a rest.
//!
//! The service's figures are hourly, and its plans count requests. Answers are kept in memory and in `carbon-ZONE.json`
//! in a folder of the user's cache, written aside and renamed, so that runs side by side share them. The file is a
//! convenience: what cannot be read, is too old or makes no sense is passed over, and a folder that cannot be written is
//! no error. Time is an argument; the module reads no clock.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use std::{fs, process};

use serde::{Deserialize, Serialize};

use super::{ElectricityMaps, LiveError, checked};
use crate::energy::intensity::{Intensity, Origin, zone_name};

/// An answer serves this long.
const FRESH: Duration = Duration::from_secs(15 * 60);
/// The rest after the first failure; it doubles with each further one.
const FIRST_REST: Duration = Duration::from_secs(30);
const LONGEST_REST: Duration = Duration::from_secs(3600);

/// [`ElectricityMaps`] with a memory.
#[derive(Debug)]
pub struct Cached {
    service: ElectricityMaps,
    /// Where the files lie; `None` keeps nothing beyond this run.
    folder: Option<PathBuf>,
    zones: HashMap<String, Zone>,
}

#[derive(Debug, Default)]
struct Zone {
    answer: Option<(SystemTime, Intensity)>,
    failure: Option<Failure>,
}

#[derive(Debug)]
struct Failure {
    at: SystemTime,
    rest: Duration,
    why: LiveError,
}

/// What a file holds.
#[derive(Serialize, Deserialize)]
struct Kept {
    /// The zone that was asked for; `zone` is what the service calls it.
    asked: String,
    asked_at_unix: u64,
    g_per_kwh: f64,
    zone: String,
    datetime: String,
    estimated: bool,
}

impl Cached {
    pub fn new(service: ElectricityMaps, folder: Option<PathBuf>) -> Self {
        Self { service, folder, zones: HashMap::new() }
    }

    /// The figure of a zone, not older than 15 minutes by when it was asked for; asks the service if there is none.
    ///
    /// Errors: the service's, and [`LiveError::Waiting`] without asking while it has a rest.
    pub fn latest(&mut self, zone: &str, now: SystemTime) -> Result<Intensity, LiveError> {
        let name = zone_name(zone).ok_or_else(|| LiveError::NoZone { given: zone.trim().into() })?;
        let state = self.zones.entry(name.clone()).or_default();
        if let Some((_, answer)) = state.answer.as_ref().filter(|(at, _)| is_fresh(*at, now)) {
            return Ok(answer.clone());
        }
        let file = self.folder.as_ref().map(|folder| folder.join(format!("carbon-{name}.json")));
        // Another run may have asked since.
        if let Some(kept) = file.as_deref().and_then(|file| read(file, &name)).filter(|(at, _)| is_fresh(*at, now)) {
            *state = Zone { answer: Some(kept.clone()), failure: None };
            return Ok(kept.1);
        }
        if let Some(Failure { at, rest, why }) = &state.failure
            && let Ok(since) = now.duration_since(*at) // A clock that was set back ends the rest.
            && since < *rest
        {
            return Err(LiveError::Waiting { why: Box::new(why.clone()), seconds: (*rest - since).as_secs().max(1) });
        }
        match self.service.latest(&name) {
            Ok(answer) => {
                *state = Zone { answer: Some((now, answer.clone())), failure: None };
                if let Some(file) = file {
                    write(&file, name, now, &answer);
                }
                Ok(answer)
            }
            Err(why) => {
                let before = state.failure.take().map(|failure| failure.rest);
                let rest = before.map_or(FIRST_REST, |rest| (rest * 2).min(LONGEST_REST));
                state.failure = Some(Failure { at: now, rest, why: why.clone() });
                Err(why)
            }
        }
    }
}

/// An answer from the future is none: one of the clocks was wrong.
fn is_fresh(at: SystemTime, now: SystemTime) -> bool {
    now.duration_since(at).is_ok_and(|age| age < FRESH)
}

fn read(file: &Path, asked: &str) -> Option<(SystemTime, Intensity)> {
    let kept: Kept = serde_json::from_slice(&fs::read(file).ok()?).ok()?;
    let at = UNIX_EPOCH.checked_add(Duration::from_secs(kept.asked_at_unix))?;
    let zone = zone_name(&kept.zone).filter(|_| kept.asked == asked)?;
    Some((at, checked(kept.g_per_kwh, zone, &kept.datetime, kept.estimated).ok()?))
}

/// Aside and renamed, so that a run beside this one never reads half a file.
fn write(file: &Path, asked: String, now: SystemTime, answer: &Intensity) {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let Origin::Live { zone, at, estimated } = &answer.origin else { return };
    let asked_at_unix = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let (zone, datetime, g_per_kwh) = (zone.clone(), at.clone(), answer.grams.0);
    let kept = Kept { asked, asked_at_unix, g_per_kwh, zone, datetime, estimated: *estimated };
    let (Ok(text), Some(folder)) = (serde_json::to_vec(&kept), file.parent()) else { return };
    let aside = file.with_extension(format!("{}-{}.aside", process::id(), COUNT.fetch_add(1, Ordering::Relaxed)));
    let written = fs::create_dir_all(folder).and_then(|()| fs::write(&aside, text));
    if written.and_then(|()| fs::rename(&aside, file)).is_err() {
        let _ = fs::remove_file(&aside);
    }
}
