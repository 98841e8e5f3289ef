//! What a component has come to: energy by source, and what could not be read.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::sensor::{Kind, Polled, Sensor, Source};
use super::units::Joules;

/// A sensor that failed so often in a row, over a time that the channel is made with, is given up for the next one.
const MOST_FAILURES: u32 = 3;
/// Between two tries of a sensor that was given up.
const TRY_EVERY: Duration = Duration::from_secs(10);

/// A mean over time, in the making.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Mean {
    sum: f64,
    seconds: f64,
}

impl Mean {
    pub fn add(&mut self, value: f64, seconds: f64) {
        self.sum += value * seconds;
        self.seconds += seconds;
    }

    pub fn get(&self) -> Option<f64> {
        (self.seconds > 0.0).then(|| self.sum / self.seconds)
    }
}

/// Energy of training that one source accounts for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Part {
    pub source: String,
    pub measured: bool,
    pub joules: Joules,
}

/// One component's energy of training.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Account {
    pub parts: Vec<Part>,
    /// What the data center drew on top of it.
    #[serde(default)]
    pub overhead: Joules,
    /// Seconds of training whose energy is unknown: they are missing from the sum.
    #[serde(default)]
    pub gap_s: f64,
    /// Reads that failed; those between two good ones of a counter lose nothing.
    #[serde(default)]
    pub missed_reads: u64,
    /// Counters that began anew.
    #[serde(default)]
    pub resets: u64,
    /// What went wrong last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    /// How busy it was, in percent.
    #[serde(default)]
    pub utilization: Mean,
}

impl Account {
    /// Without the data center's overhead. `None` where no source has ever told any: not measured is not zero.
    pub fn joules(&self) -> Option<Joules> {
        (!self.parts.is_empty()).then(|| self.parts.iter().map(|part| part.joules).sum())
    }

    /// With the data center's overhead.
    pub fn with_overhead(&self) -> Option<Joules> {
        self.joules().map(|joules| joules + self.overhead)
    }

    /// The part of it that was read from sensors, without overhead.
    pub fn measured(&self) -> Joules {
        self.parts.iter().filter(|part| part.measured).map(|part| part.joules).sum()
    }

    fn add(&mut self, source: Source, joules: Joules) {
        match self.parts.iter_mut().find(|part| part.source == source.text) {
            Some(part) => part.joules += joules,
            None => {
                let measured = source.kind == Kind::Measured;
                self.parts.push(Part { source: source.text, measured, joules });
            }
        }
    }
}

/// A moment: time since the meter was made, and how much of it was training.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Moment {
    pub now: Duration,
    pub active: Duration,
}

/// One thing that draws power, read from the first of its sensors that answers.
pub struct Channel {
    sensors: Vec<Box<dyn Sensor>>,
    current: usize,
    /// When its energy was known last.
    since: Moment,
    /// Polls in a row that told no energy, and when the first of them was.
    failures: u32,
    failing_since: Duration,
    /// Whether the last of them was a read that failed, which the next may make up for.
    missing: bool,
    /// How long a sensor may fail before it is given up.
    patience: Duration,
    /// When the first sensor was tried again, after it had been given up.
    tried: Duration,
}

impl Channel {
    /// `sensors` in the order of preference; there is at least one. One that fails for `patience` is given up, and tried again
    /// now and then if it is the first.
    pub fn new(sensors: Vec<Box<dyn Sensor>>, patience: Duration) -> Self {
        Self {
            sensors,
            current: 0,
            since: Moment::default(),
            failures: 0,
            failing_since: Duration::ZERO,
            missing: false,
            patience,
            tried: Duration::ZERO,
        }
    }

    /// Polls, and writes into `account` the share of the energy since the last answer that training accounts for: time is
    /// what it is shared by. Returns that energy.
    pub fn poll(&mut self, moment: Moment, account: &mut Account) -> Joules {
        let (time, active) = self.span(moment);
        let Some(sensor) = self.sensors.get_mut(self.current) else { return Joules::ZERO };
        let used = match sensor.poll(moment.now) {
            Polled::Begins => {
                self.lose(moment, account);
                Joules::ZERO
            }
            Polled::Used(joules) => {
                let share = if time > 0.0 { active / time } else { 0.0 };
                let used = joules * share;
                account.add(sensor.source(), used);
                if let Some(percent) = sensor.utilization() {
                    account.utilization.add(percent, active);
                }
                (self.since, self.failures, self.missing) = (moment, 0, false);
                used
            }
            Polled::Reset(why) => {
                account.resets += 1;
                account.problem = Some(why);
                self.lose(moment, account);
                self.fail(moment);
                Joules::ZERO
            }
            Polled::Unknown(why) => {
                account.problem = Some(why);
                self.lose(moment, account);
                self.fail(moment);
                Joules::ZERO
            }
            Polled::Missed(why) => {
                account.missed_reads += 1;
                account.problem = Some(why);
                self.missing = true;
                self.fail(moment);
                Joules::ZERO
            }
        };
        if self.is_given_up(moment.now) && self.current + 1 < self.sensors.len() {
            self.current += 1;
            (self.failures, self.tried) = (0, moment.now);
            return self.poll(moment, account);
        }
        self.try_first(moment);
        used
    }

    /// Whether a read has failed and may yet be made up for: the sum lacks energy that is not given up.
    pub fn is_waiting(&self, now: Duration) -> bool {
        self.missing && !self.is_given_up(now)
    }

    /// Seconds of training up to `moment` that no answer covers yet, because reads fail.
    pub fn open_gap(&self, moment: Moment) -> f64 {
        if self.missing { self.span(moment).1 } else { 0.0 }
    }

    fn is_given_up(&self, now: Duration) -> bool {
        self.failures >= MOST_FAILURES && now.saturating_sub(self.failing_since) >= self.patience
    }

    fn fail(&mut self, moment: Moment) {
        if self.failures == 0 {
            self.failing_since = moment.now;
        }
        self.failures += 1;
    }

    /// Goes back to the first sensor if it answers again. What it says of the time until now is left out: the one that stood in
    /// for it has just told that.
    fn try_first(&mut self, moment: Moment) {
        if self.current == 0 || moment.now.saturating_sub(self.tried) < TRY_EVERY {
            return;
        }
        self.tried = moment.now;
        if let Some(first) = self.sensors.first_mut()
            && !matches!(first.poll(moment.now), Polled::Missed(_))
        {
            (self.current, self.failures) = (0, 0);
        }
    }

    /// The time since the last answer is a gap.
    fn lose(&mut self, moment: Moment, account: &mut Account) {
        account.gap_s += self.span(moment).1;
        (self.since, self.missing) = (moment, false);
    }

    /// Seconds since the last answer, and how many of them were training.
    fn span(&self, moment: Moment) -> (f64, f64) {
        let time = moment.now.saturating_sub(self.since.now);
        (time.as_secs_f64(), moment.active.saturating_sub(self.since.active).as_secs_f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(2);

    /// Answers what it was told to.
    struct Told {
        text: &'static str,
        answers: std::vec::IntoIter<Polled>,
    }

    impl Sensor for Told {
        fn source(&self) -> Source {
            Source { kind: Kind::Measured, text: self.text.into() }
        }
        fn poll(&mut self, _: Duration) -> Polled {
            self.answers.next().unwrap_or_else(|| Polled::Missed("told nothing".into()))
        }
    }

    fn told(text: &'static str, answers: Vec<Polled>) -> Box<dyn Sensor> {
        Box::new(Told { text, answers: answers.into_iter() })
    }

    fn at(now: u64, active: u64) -> Moment {
        Moment { now: Duration::from_secs(now), active: Duration::from_secs(active) }
    }

    fn used(joules: f64) -> Polled {
        Polled::Used(Joules(joules))
    }

    fn missed() -> Polled {
        Polled::Missed("no answer".into())
    }

    #[test]
    fn energy_is_shared_by_the_time_of_training() {
        let mut account = Account::default();
        let mut channel = Channel::new(vec![told("a", vec![Polled::Begins, used(100.0), used(50.0)])], PATIENCE);
        assert_eq!(account.joules(), None);
        channel.poll(at(0, 0), &mut account);
        assert_eq!(account.joules(), None, "nothing is known yet");
        assert_eq!(channel.poll(at(10, 4), &mut account), Joules(40.0));
        assert_eq!(channel.poll(at(20, 4), &mut account), Joules(0.0), "nothing was trained");
        assert_eq!((account.joules(), account.measured()), (Some(Joules(40.0)), Joules(40.0)));
    }

    #[test]
    fn a_missed_read_waits_and_loses_nothing() {
        let mut account = Account::default();
        let mut channel = Channel::new(vec![told("a", vec![Polled::Begins, missed(), used(60.0)])], PATIENCE);
        channel.poll(at(0, 0), &mut account);
        channel.poll(at(1, 1), &mut account);
        assert!(channel.is_waiting(Duration::from_secs(1)));
        assert_eq!(channel.open_gap(at(1, 1)), 1.0);
        assert_eq!(channel.poll(at(2, 2), &mut account), Joules(60.0));
        assert!(!channel.is_waiting(Duration::from_secs(2)));
        assert_eq!((account.gap_s, account.missed_reads, account.problem.as_deref()), (0.0, 1, Some("no answer")));
    }

    #[test]
    fn a_reset_is_a_gap_and_not_a_jump() {
        let mut account = Account::default();
        let answers = vec![Polled::Begins, used(10.0), Polled::Reset("it fell".into()), used(10.0)];
        let mut channel = Channel::new(vec![told("a", answers)], PATIENCE);
        for second in 0..4 {
            channel.poll(at(second, second), &mut account);
        }
        assert_eq!((account.joules(), account.gap_s, account.resets), (Some(Joules(20.0)), 1.0, 1));
    }

    #[test]
    fn the_next_sensor_takes_over_from_one_that_is_gone() {
        let mut account = Account::default();
        let gone = vec![Polled::Begins, used(5.0), missed(), missed(), missed()];
        let sensors = vec![told("a", gone), told("b", vec![Polled::Begins, used(7.0)])];
        let mut channel = Channel::new(sensors, PATIENCE);
        for second in 0..6 {
            channel.poll(at(second, second), &mut account);
        }
        let parts: Vec<(&str, f64)> = account.parts.iter().map(|part| (part.source.as_str(), part.joules.0)).collect();
        assert_eq!(parts, [("a", 5.0), ("b", 7.0)]);
        assert_eq!((account.gap_s, account.missed_reads), (3.0, 3));
    }

    #[test]
    fn a_counter_that_never_makes_sense_is_given_up_and_claims_nothing() {
        let mut account = Account::default();
        let senseless = || Polled::Unknown("it wraps unseen".into());
        let first = told("a", vec![Polled::Begins, senseless(), senseless(), senseless()]);
        let mut channel = Channel::new(vec![first, told("b", vec![Polled::Begins, used(7.0)])], PATIENCE);
        for second in 0..5 {
            channel.poll(at(second, second), &mut account);
        }
        let parts: Vec<&str> = account.parts.iter().map(|part| part.source.as_str()).collect();
        assert_eq!((parts, account.gap_s, account.missed_reads), (vec!["b"], 3.0, 0));
    }

    #[test]
    fn a_sensor_that_comes_back_is_taken_again_and_nothing_counts_twice() {
        let mut account = Account::default();
        let first = vec![Polled::Begins, missed(), missed(), missed(), missed(), used(900.0), used(5.0)];
        let mut second = vec![Polled::Begins];
        second.extend((0..40).map(|_| used(1.0)));
        let mut channel = Channel::new(vec![told("a", first), told("b", second)], PATIENCE);
        for second in 0..26 {
            channel.poll(at(second, second), &mut account);
        }
        // Given up at 3 s, tried in vain at 13 s, back at 23 s; the 900 J are those that the other has told by then.
        let parts: Vec<(&str, f64)> = account.parts.iter().map(|part| (part.source.as_str(), part.joules.0)).collect();
        assert_eq!(parts, [("b", 20.0), ("a", 5.0)]);
        assert_eq!(account.gap_s, 3.0);
    }

    #[test]
    fn failures_within_an_instant_give_nothing_up() {
        let mut account = Account::default();
        let answers = vec![Polled::Begins, missed(), missed(), missed(), missed(), used(9.0)];
        let mut channel = Channel::new(vec![told("a", answers), told("b", vec![])], PATIENCE);
        channel.poll(at(0, 0), &mut account);
        for _ in 0..4 {
            channel.poll(at(1, 1), &mut account);
            assert!(channel.is_waiting(Duration::from_secs(1)));
        }
        assert_eq!(channel.poll(at(2, 2), &mut account), Joules(9.0));
        assert_eq!((account.parts.len(), account.gap_s), (1, 0.0));
    }

    #[test]
    fn with_nothing_to_take_over_the_gap_stays_open() {
        let mut account = Account::default();
        let mut channel = Channel::new(vec![told("a", vec![Polled::Begins, used(5.0)])], PATIENCE);
        for second in 0..8 {
            channel.poll(at(second, second), &mut account);
        }
        assert_eq!(
            (account.joules(), channel.open_gap(at(8, 8)), channel.is_waiting(Duration::from_secs(8))),
            (Some(Joules(5.0)), 7.0, false)
        );
    }
}
