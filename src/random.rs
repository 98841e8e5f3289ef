//! Counter-based randomness: every draw is a pure function of its key (seed, stream, step, micro-batch, index).
//!
//! Nothing has to be stored or replayed to resume a run, any number of threads draws the same numbers, and switching one
//! use of randomness off leaves every other stream as it was. The generator is Philox 4×32-10 (Salmon et al., "Parallel
//! random numbers: as easy as 1, 2, 3", SC 2011), keyed by (seed, stream); its counter's upper half is a hash of
//! (step, micro-batch, index) and its lower half counts the blocks of one draw.

use std::f64::consts::TAU;

/// What a draw is for. The numbers are part of what makes runs repeatable: never reuse or renumber one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stream {
    /// Initial weights; the index is a hash of the parameter's name.
    Init = 1,
    /// The order of files; the step is the epoch.
    Order = 2,
    /// Crops and flips.
    Augment = 3,
    /// Which patches a masked autoencoder removes.
    Mask = 4,
    /// Which rows the decorrelation update sees.
    Decor = 5,
    /// Dropout and stochastic depth.
    Dropout = 6,
    /// Draws a script asks for.
    Script = 7,
    /// Generated images; the index is the image's.
    Generate = 8,
    /// Which files a subset or a split takes.
    Split = 9,
}

/// The address of one sequence of random numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    pub seed: u64,
    pub stream: Stream,
    pub step: u64,
    pub micro: u64,
    pub index: u64,
}

impl Key {
    pub fn new(seed: u64, stream: Stream) -> Self {
        Self { seed, stream, step: 0, micro: 0, index: 0 }
    }

    pub fn step(self, step: u64) -> Self {
        Self { step, ..self }
    }

    pub fn micro(self, micro: u64) -> Self {
        Self { micro, ..self }
    }

    pub fn index(self, index: u64) -> Self {
        Self { index, ..self }
    }

    /// The sequence at this key, from its start.
    pub fn rng(self) -> Rng {
        let key = mix(mix(self.seed) ^ self.stream as u64);
        let counter = mix(mix(mix(self.step) ^ self.micro) ^ self.index);
        Rng {
            key: [key as u32, (key >> 32) as u32],
            counter: [0, 0, counter as u32, (counter >> 32) as u32],
            block: [0; 4],
            used: 4,
        }
    }
}

/// A stable 64-bit hash of a name, for keys that are not numbers (FNV-1a).
pub fn hash_name(name: &str) -> u64 {
    name.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3))
}

/// SplitMix64's finalizer (Steele et al. 2014), offset so that 0 does not map to 0.
fn mix(value: u64) -> u64 {
    let z = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// One sequence of random numbers; made by [`Key::rng`].
#[derive(Clone, Debug)]
pub struct Rng {
    key: [u32; 2],
    counter: [u32; 4],
    block: [u32; 4],
    used: usize,
}

impl Rng {
    pub fn next_u32(&mut self) -> u32 {
        if self.used == 4 {
            self.block = philox(self.counter, self.key);
            let (low, carry) = self.counter[0].overflowing_add(1);
            self.counter[0] = low;
            self.counter[1] = self.counter[1].wrapping_add(u32::from(carry));
            self.used = 0;
        }
        self.used += 1;
        self.block[self.used - 1]
    }

    pub fn next_u64(&mut self) -> u64 {
        u64::from(self.next_u32()) | (u64::from(self.next_u32()) << 32)
    }

    /// Uniform in [0, 1), with 24 random bits: every value is exact in `f32`.
    pub fn uniform(&mut self) -> f32 {
        (self.next_u32() >> 8) as f32 * (1.0 / 16_777_216.0)
    }

    /// Uniform in [0, 1), with 53 random bits.
    pub fn uniform_f64(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 * (1.0 / 9_007_199_254_740_992.0)
    }

    /// Uniform in [low, high).
    pub fn range(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.uniform_f64()
    }

    /// Uniform in 0..n without bias (Lemire 2019); 0 for n = 0.
    pub fn below(&mut self, n: u64) -> u64 {
        loop {
            let wide = u128::from(self.next_u64()) * u128::from(n);
            if wide as u64 >= n.wrapping_neg().checked_rem(n).unwrap_or(0) {
                return (wide >> 64) as u64;
            }
        }
    }

    /// Standard normal, by Box and Muller's transform.
    pub fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.uniform_f64()).ln()).sqrt();
        radius * (TAU * self.uniform_f64()).cos()
    }

    /// Puts `items` into a uniformly random order (Fisher and Yates).
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            items.swap(i, self.below(i as u64 + 1) as usize);
        }
    }

    /// `k` different numbers of 0..n in random order; all of them if `k >= n`.
    pub fn sample(&mut self, n: usize, k: usize) -> Vec<i64> {
        let mut all: Vec<i64> = (0..n as i64).collect();
        let k = k.min(n);
        for i in 0..k {
            all.swap(i, i + self.below((n - i) as u64) as usize);
        }
        all.truncate(k);
        all
    }
}

fn philox(mut counter: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    for _ in 0..10 {
        let a = u64::from(counter[0]) * 0xd251_1f53;
        let b = u64::from(counter[2]) * 0xcd9e_8d57;
        counter = [(b >> 32) as u32 ^ counter[1] ^ key[0], b as u32, (a >> 32) as u32 ^ counter[3] ^ key[1], a as u32];
        key = [key[0].wrapping_add(0x9e37_79b9), key[1].wrapping_add(0xbb67_ae85)];
    }
    counter
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Known answers of the authors' Random123 distribution (`kat_vectors`, philox4x32 10).
    #[test]
    fn philox_matches_random123() {
        assert_eq!(philox([0; 4], [0; 2]), [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
        assert_eq!(philox([u32::MAX; 4], [u32::MAX; 2]), [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]);
    }

    #[test]
    fn every_part_of_the_key_matters() {
        let base = Key::new(7, Stream::Mask);
        let keys =
            [base, base.step(1), base.micro(1), base.index(1), Key::new(8, Stream::Mask), Key::new(7, Stream::Decor)];
        let first: std::collections::HashSet<u64> = keys.iter().map(|key| key.rng().next_u64()).collect();
        assert_eq!(first.len(), keys.len());
        assert_eq!(base.rng().next_u64(), base.rng().next_u64());
    }

    #[test]
    fn draws_have_their_moments() {
        let mut rng = Key::new(0, Stream::Script).rng();
        let n = 200_000;
        let (mut sum, mut squares, mut uniform) = (0.0, 0.0, 0.0);
        for _ in 0..n {
            let x = rng.normal();
            sum += x;
            squares += x * x;
            uniform += f64::from(rng.uniform());
        }
        assert!((sum / n as f64).abs() < 0.01);
        assert!((squares / n as f64 - 1.0).abs() < 0.02);
        assert!((uniform / n as f64 - 0.5).abs() < 0.005);
    }

    #[test]
    fn sample_is_without_replacement() {
        let mut drawn = Key::new(3, Stream::Decor).rng().sample(100, 40);
        assert_eq!(drawn.len(), 40);
        drawn.sort_unstable();
        drawn.dedup();
        assert_eq!(drawn.len(), 40);
        assert_eq!(Key::new(3, Stream::Decor).rng().sample(3, 9).len(), 3);
    }
}
