//! Meters what a machine draws while training runs: sensors are found and polled on a thread of its own, which shares out the
//! energy between two polls by the time that was training.
//!
//! The training thread marks when it starts and pauses. It waits for sensors in [`Meter::start`] and [`Meter::reading`] alone, and
//! there for so long at most; what has not answered by then is a gap. A sensor that hangs holds up the sampler only.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::account::Moment;
use super::carbon::Carbon;
use super::config::Config;
use super::machine::Machine;
use super::reading::Reading;
use super::sampler::Sampler;

/// How long the start waits until sensors are found: a driver that has to wake up takes a second or two.
const START: Duration = Duration::from_secs(5);
/// How long a reading waits for the sensors, which take a millisecond.
const PATIENCE: Duration = Duration::from_millis(250);
/// How long the last reading waits.
const END: Duration = Duration::from_secs(5);

/// Training or not, over time.
#[derive(Clone, Copy, Debug, Default)]
struct Activity {
    /// Training up to the last change.
    before: Duration,
    /// When training began, if it runs.
    since: Option<Duration>,
}

impl Activity {
    fn moment(&self, now: Duration) -> Moment {
        let running = self.since.map_or(Duration::ZERO, |since| now.saturating_sub(since));
        Moment { now, active: self.before + running }
    }

    fn set(&mut self, now: Duration, active: bool) {
        match (self.since, active) {
            (None, true) => self.since = Some(now),
            (Some(since), false) => {
                self.before += now.saturating_sub(since);
                self.since = None;
            }
            _ => {}
        }
    }
}

/// What the two threads share.
struct Shared {
    activity: Activity,
    /// Polls asked for and answered.
    asked: u64,
    answered: u64,
    ended: bool,
    /// Of the poll that `reading` is from.
    polled: Moment,
    reading: Reading,
    /// Once the sampler has looked around.
    machine: Option<Arc<Machine>>,
}

struct Common {
    made: Instant,
    shared: Mutex<Shared>,
    changed: Condvar,
}

impl Common {
    /// A thread that panicked while it held the lock has left plain numbers behind.
    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits while `unfinished`, but no longer than `most`.
    fn wait<'a>(
        &self,
        shared: MutexGuard<'a, Shared>,
        most: Duration,
        unfinished: impl Fn(&Shared) -> bool,
    ) -> MutexGuard<'a, Shared> {
        let waited = self.changed.wait_timeout_while(shared, most, |shared| unfinished(shared));
        waited.unwrap_or_else(PoisonError::into_inner).0
    }
}

/// Made paused: [`Meter::resume`] starts it. Its thread ends with it.
pub struct Meter {
    common: Arc<Common>,
    config: Config,
    carbon: Carbon,
}

impl Meter {
    /// Looks for the sensors that `config` asks for. What cannot be read is said in [`Machine::problems`]; nothing fails.
    /// `before` is what a run that is carried on has come to.
    pub fn start(config: &Config, before: Option<Reading>) -> Self {
        let carbon = Carbon::start(config);
        let mut reading = before.unwrap_or_default();
        reading.pue = config.pue;
        let shared = Shared {
            activity: Activity::default(),
            asked: 0,
            answered: 0,
            ended: false,
            polled: Moment::default(),
            reading: reading.clone(),
            machine: None,
        };
        let common = Arc::new(Common { made: Instant::now(), shared: Mutex::new(shared), changed: Condvar::new() });
        let meter = Self { common: Arc::clone(&common), config: config.clone(), carbon: carbon.clone() };
        let config = config.clone();
        let work = move || {
            let (machine, gpus) = Machine::look(&config);
            let sampler = Sampler::new(&config, &machine, gpus, carbon, reading.totals);
            common.lock().machine = Some(Arc::new(machine));
            run(&common, sampler, config.interval);
        };
        if let Err(err) = thread::Builder::new().name("energy".into()).spawn(work) {
            let mut shared = meter.common.lock();
            shared.ended = true;
            shared.reading.problem = Some(format!("the sampler's thread did not start: {err}"));
        }
        // The first poll, after which the sources have names.
        meter.read(START);
        meter
    }

    /// What there is to meter; nothing, with a problem, where the sensors could not be found in time.
    pub fn machine(&self) -> Arc<Machine> {
        let found = self.common.lock().machine.clone();
        found.unwrap_or_else(|| Arc::new(Machine::silent()))
    }

    pub fn config(&self) -> &Config {
        &self.config
    }

    pub fn carbon(&self) -> &Carbon {
        &self.carbon
    }

    /// From here on it is training. Takes well under a microsecond.
    pub fn resume(&self) {
        self.set(true);
    }

    /// From here on it is not.
    pub fn pause(&self) {
        self.set(false);
    }

    fn set(&self, active: bool) {
        let mut shared = self.common.lock();
        let now = self.common.made.elapsed();
        shared.activity.set(now, active);
    }

    /// Asks for a poll without waiting for it: before and after what takes long and is not training, so that its energy is
    /// told from training's by the sensors and not by time alone.
    pub fn mark(&self) {
        self.common.lock().asked += 1;
        self.common.changed.notify_all();
    }

    /// What training has come to by now. Where the sensors do not answer within 250 ms, the time since they last did is a
    /// gap, and the reading says that it waits for them.
    pub fn reading(&self) -> Reading {
        self.read(PATIENCE)
    }

    /// Pauses, and gives slow sensors more time for the last word.
    pub fn stop(&self) -> Reading {
        self.pause();
        self.read(END)
    }

    fn read(&self, patience: Duration) -> Reading {
        let mut shared = self.common.lock();
        if shared.ended {
            return shared.reading.clone();
        }
        shared.asked += 1;
        let asked = shared.asked;
        self.common.changed.notify_all();
        let shared = self.common.wait(shared, patience, |shared| shared.answered < asked && !shared.ended);
        let mut reading = shared.reading.clone();
        if shared.answered < asked {
            let now = shared.activity.moment(self.common.made.elapsed());
            reading.uncovered(now.active.saturating_sub(shared.polled.active));
        }
        reading
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        // Not joined: a sensor that hangs would hold up the program's end.
        self.common.lock().ended = true;
        self.common.changed.notify_all();
    }
}

/// The sampler's thread: polls at once, then every `interval` and whenever it is asked.
fn run(common: &Common, mut sampler: Sampler, interval: Duration) {
    let mut shared = common.lock();
    while !shared.ended {
        let asked = shared.asked;
        let moment = shared.activity.moment(common.made.elapsed());
        drop(shared);
        sampler.poll(moment);
        let reading = sampler.reading();
        shared = common.lock();
        (shared.reading, shared.polled, shared.answered) = (reading, moment, asked);
        common.changed.notify_all();
        shared = common.wait(shared, interval, |shared| shared.asked == asked && !shared.ended);
    }
}
