//! Keeps a script from taking the machine's memory: nothing a script does may end in an abort or in the kernel's killer.
//!
//! A text that is appended to itself doubles with every operation, so counting operations does not bound it, and Rhai's
//! own size limits measure growing values anew at every push. Instead a thread looks at what is left every 50 ms: when it
//! is little and this process has taken much of it, the script ends at its next operation; when it is next to nothing,
//! the process ends with a message. A single request that the system refuses ends it in the same way.

use std::fs::read_to_string;
use std::sync::Once;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use super::errors::Kind;
use super::say::say;
use crate::libtorch;
use crate::libtorch::memory::kibibytes;

const EVERY: Duration = Duration::from_millis(50);
/// Left on the machine when a script is stopped, and when the process is; smaller machines get a share of what they have.
const LOW_BYTES: u64 = 1 << 30;
const LOW_SHARE: u64 = 20;
const LAST_BYTES: u64 = 400 << 20;
const LAST_SHARE: u64 = 50;

static LOW: AtomicBool = AtomicBool::new(false);

/// Whether memory is nearly used up, and by this process.
pub fn is_low() -> bool {
    LOW.load(Ordering::Relaxed)
}

/// Starts looking, once.
pub fn watch() {
    static STARTED: Once = Once::new();
    STARTED.call_once(|| {
        // Without a thread there is no guard, which is how it is on systems without /proc.
        let _ = thread::Builder::new().name("memory".into()).spawn(|| {
            while let Some(Memory { total, free, own }) = Memory::read() {
                let culprit = own > total / 4;
                if culprit && free < LAST_BYTES.min(total / LAST_SHARE) {
                    say(&format!("error: the machine's memory is used up; {} MiB of it by this process", own >> 20));
                    libtorch::exit_now(Kind::Machine.exit_code());
                }
                LOW.store(culprit && free < LOW_BYTES.min(total / LOW_SHARE), Ordering::Relaxed);
                thread::sleep(EVERY);
            }
        });
    });
}

/// Bytes that this process may still take; `None` where the system does not say.
pub fn available() -> Option<u64> {
    Memory::read().map(|memory| memory.free)
}

/// Bytes of memory: of the machine or of the group this process may use, whichever is tighter; and of this process.
pub struct Memory {
    pub total: u64,
    pub free: u64,
    pub own: u64,
}

impl Memory {
    /// `None` where the system does not say.
    pub fn read() -> Option<Self> {
        let machine = read_to_string("/proc/meminfo").ok()?;
        let (mut total, mut free) = (kibibytes(&machine, "MemTotal:")?, kibibytes(&machine, "MemAvailable:")?);
        let own = kibibytes(&read_to_string("/proc/self/status").ok()?, "VmRSS:")?;
        if let Some((limit, used)) = group() {
            total = total.min(limit);
            free = free.min(limit.saturating_sub(used));
        }
        Some(Self { total, free, own })
    }
}

/// Limit and use of the control group, without the file cache, which gives way.
fn group() -> Option<(u64, u64)> {
    let number = |path: &str| read_to_string(path).ok()?.trim().parse::<u64>().ok();
    let limit = number("/sys/fs/cgroup/memory.max")?;
    let used = number("/sys/fs/cgroup/memory.current")?;
    let statistics = read_to_string("/sys/fs/cgroup/memory.stat").ok()?;
    let cache = statistics.lines().find_map(|line| line.strip_prefix("inactive_file ")?.parse::<u64>().ok())?;
    Some((limit, used.saturating_sub(cache)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_where_there_is_proc() {
        if std::path::Path::new("/proc/meminfo").exists() {
            let memory = Memory::read().unwrap();
            assert!(memory.own > 0 && memory.free <= memory.total);
        }
    }
}
