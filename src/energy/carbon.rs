//! The intensity in force: given, live while the service answers, else the table's, else the world's average.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread;
use std::time::{Duration, SystemTime};

use super::config::Config;
use super::intensity::{self, Intensity, Origin};
use super::live::{Cached, ElectricityMaps};
use super::units::GramsPerKwh;

/// How often the live figure is looked at anew; the service is asked less often ([`Cached`]).
const LOOK_EVERY: Duration = Duration::from_secs(60);
/// A live figure older than this is given up for the table's, when the service has stopped answering.
const STALE: Duration = Duration::from_secs(2 * 3600);

/// What live figures need. The token is in no file and no message.
#[derive(Clone, PartialEq, Eq)]
pub struct Live {
    pub token: String,
    /// Another address of the service.
    pub base: Option<String>,
    pub zone: String,
    /// Where answers are kept for other runs.
    pub cache: Option<PathBuf>,
}

impl std::fmt::Debug for Live {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Live").field("zone", &self.zone).field("base", &self.base).finish_non_exhaustive()
    }
}

struct State {
    intensity: Intensity,
    /// Why there is no live figure although one is asked for.
    problem: Option<String>,
}

/// Shared: copies are the same intensity.
#[derive(Clone)]
pub struct Carbon {
    state: Arc<Mutex<State>>,
}

impl Carbon {
    /// Asks the service once before it returns, where live figures are wanted, and then goes on asking on a thread.
    pub fn start(config: &Config) -> Self {
        let table = config.place.as_ref().map_or_else(intensity::world, intensity::of);
        let fixed = config.given.map(|grams| Intensity { grams, origin: Origin::Given });
        let live = config.live.as_ref().filter(|_| fixed.is_none());
        let intensity = fixed.unwrap_or_else(|| table.clone());
        let carbon = Self { state: Arc::new(Mutex::new(State { intensity, problem: unused_zone(config) })) };
        if let Some(live) = live {
            let mut asked = Asked { cached: shared(live), zone: live.zone.clone(), table, last: None };
            asked.look(&carbon.state);
            let state = Arc::downgrade(&carbon.state);
            let spawned = thread::Builder::new().name("carbon".into()).spawn(move || refresh(asked, &state));
            if let Err(err) = spawned {
                carbon.lock().problem = Some(format!("the live intensity stays as it is: no thread ({err})"));
            }
        }
        carbon
    }

    pub fn now(&self) -> GramsPerKwh {
        self.lock().intensity.grams
    }

    /// Where the figure comes from.
    pub fn describe(&self) -> String {
        self.lock().intensity.origin.describe()
    }

    /// Why there is no live figure although one was asked for.
    pub fn problem(&self) -> Option<String> {
        self.lock().problem.clone()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A zone that only the service knows, and the service is not asked.
fn unused_zone(config: &Config) -> Option<String> {
    let place = config.place.as_ref().filter(|_| config.live.is_none() && config.given.is_none())?;
    let zone = place.zone.as_deref().filter(|zone| place.region.is_none() && *zone != place.country.iso2)?;
    Some(format!(
        "no table has the zone {zone}, so the figure of {} stands; --carbon-live asks for the zone",
        place.country.name
    ))
}

/// The service as this process knows it: what one run has learned, a failure included, the next need not ask.
fn shared(live: &Live) -> Arc<Mutex<Cached>> {
    static KNOWN: Mutex<Vec<(Live, Arc<Mutex<Cached>>)>> = Mutex::new(Vec::new());
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((_, cached)) = known.iter().find(|(other, _)| other == live) {
        return Arc::clone(cached);
    }
    let service = ElectricityMaps::new(live.token.clone(), live.base.clone());
    let cached = Arc::new(Mutex::new(Cached::new(service, live.cache.clone())));
    known.push((live.clone(), Arc::clone(&cached)));
    cached
}

/// The service, and what to do without it.
struct Asked {
    cached: Arc<Mutex<Cached>>,
    zone: String,
    table: Intensity,
    /// The last live figure and when it came.
    last: Option<(SystemTime, Intensity)>,
}

impl Asked {
    fn look(&mut self, state: &Mutex<State>) {
        let now = SystemTime::now();
        let answer = self.cached.lock().unwrap_or_else(PoisonError::into_inner).latest(&self.zone, now);
        let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
        match answer {
            Ok(live) => {
                self.last = Some((now, live.clone()));
                *state = State { intensity: live, problem: None };
            }
            Err(err) => {
                let fresh = |at: &SystemTime| now.duration_since(*at).is_ok_and(|age| age < STALE);
                let (intensity, instead) = match &self.last {
                    Some((at, live)) if fresh(at) => (live.clone(), "the last answer stands"),
                    _ => (self.table.clone(), "the table's figure stands"),
                };
                *state = State { intensity, problem: Some(format!("no live carbon intensity: {err}; {instead}")) };
            }
        }
    }
}

/// Until nobody holds the intensity any more.
fn refresh(mut asked: Asked, state: &Weak<Mutex<State>>) {
    loop {
        thread::sleep(LOOK_EVERY);
        let Some(state) = state.upgrade() else { return };
        asked.look(&state);
    }
}
