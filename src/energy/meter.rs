//! Meters what a machine draws while training runs: sensors are polled on a thread of its own, which shares out the energy
//! between two polls by the time that was training.
//!
//! The training thread marks when it starts and pauses and never waits for a sensor, but for [`Meter::reading`], which asks
//! for a poll and takes the one before if none comes in time. A sensor that hangs holds up the sampler alone.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::account::Moment;
use super::carbon::Carbon;
use super::config::Config;
use super::machine::Machine;
use super::reading::Reading;
use super::sampler::Sampler;

/// How long a reading waits for the sensors. They take a millisecond; one that hangs must not hold up training.
const PATIENCE: Duration = Duration::from_millis(250);

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
}

/// Made paused: [`Meter::resume`] starts it. Its thread ends with it.
pub struct Meter {
    common: Arc<Common>,
    machine: Machine,
    config: Config,
    carbon: Carbon,
}

impl Meter {
    /// Looks for the sensors that `config` asks for. What cannot be read is said in [`Machine::problems`]; nothing fails.
    /// `before` is what a run that is carried on has come to.
    pub fn start(config: &Config, before: Option<Reading>) -> Self {
        let (machine, gpus) = Machine::look(config);
        let carbon = Carbon::start(config);
        let mut sampler = Sampler::new(config, &machine, gpus, carbon.clone());
        sampler.restore(before);
        // The first poll is made here, so that the sensors' names are known at once.
        sampler.poll(Moment::default());
        let shared = Shared {
            activity: Activity::default(),
            asked: 0,
            answered: 0,
            ended: false,
            polled: Moment::default(),
            reading: sampler.reading(),
        };
        let common = Arc::new(Common { made: Instant::now(), shared: Mutex::new(shared), changed: Condvar::new() });
        let meter = Self { common: Arc::clone(&common), machine, config: config.clone(), carbon };
        let interval = config.interval;
        let spawned = thread::Builder::new().name("energy".into()).spawn(move || run(&common, sampler, interval));
        if let Err(err) = spawned {
            let mut shared = meter.common.lock();
            shared.ended = true;
            shared.reading.problem = Some(format!("the sampler's thread did not start: {err}"));
        }
        meter
    }

    pub fn machine(&self) -> &Machine {
        &self.machine
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

    /// What training has come to by now; the figures of the poll before where the sensors do not answer within 250 ms.
    pub fn reading(&self) -> Reading {
        let mut shared = self.common.lock();
        if !shared.ended {
            shared.asked += 1;
            let asked = shared.asked;
            self.common.changed.notify_all();
            let fresh = self.common.changed.wait_timeout_while(shared, PATIENCE, |s| s.answered < asked && !s.ended);
            shared = fresh.unwrap_or_else(PoisonError::into_inner).0;
        }
        let mut reading = shared.reading.clone();
        let late = shared.activity.moment(self.common.made.elapsed()).active.saturating_sub(shared.polled.active);
        drop(shared);
        if late > 2 * self.config.interval + PATIENCE {
            reading.uncovered(late);
        }
        reading
    }

    /// Polls a last time and ends the sampler.
    pub fn stop(&self) -> Reading {
        self.pause();
        let reading = self.reading();
        self.common.lock().ended = true;
        self.common.changed.notify_all();
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

/// The sampler's thread.
fn run(common: &Common, mut sampler: Sampler, interval: Duration) {
    let mut shared = common.lock();
    loop {
        let answered = shared.answered;
        let waited = common.changed.wait_timeout_while(shared, interval, |s| s.asked == answered && !s.ended);
        shared = waited.unwrap_or_else(PoisonError::into_inner).0;
        if shared.ended {
            return;
        }
        let asked = shared.asked;
        let moment = shared.activity.moment(common.made.elapsed());
        drop(shared);
        sampler.poll(moment);
        let reading = sampler.reading();
        shared = common.lock();
        shared.reading = reading;
        shared.polled = moment;
        shared.answered = asked;
        common.changed.notify_all();
    }
}
