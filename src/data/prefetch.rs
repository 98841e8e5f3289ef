//! One thread that prepares items ahead of the one who asks, through a bounded queue.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::JoinHandle;

use super::error::DataError;

/// How many finished items wait; one more is in the making.
const DEPTH: usize = 2;

/// A running thread and its queue. Dropping it ends the thread and waits for that, as long as the present image takes.
pub struct Prefetch<T> {
    queue: Option<Receiver<Result<T, DataError>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl<T: Send + 'static> Prefetch<T> {
    /// Calls `produce` until it answers `None` or an error; it should look at the flag often and return early once it is set.
    /// A panic in it becomes [`DataError::Worker`].
    pub fn start<F>(name: &str, mut produce: F) -> Result<Self, DataError>
    where
        F: FnMut(&AtomicBool) -> Option<Result<T, DataError>> + Send + 'static,
    {
        let (sender, queue) = sync_channel(DEPTH);
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let work = move || {
            while !stopped.load(Ordering::Relaxed) {
                let item = catch_unwind(AssertUnwindSafe(|| produce(&stopped)))
                    .unwrap_or_else(|panic| Some(Err(DataError::Worker(message(&*panic)))));
                let Some(item) = item else { break };
                let failed = item.is_err();
                if sender.send(item).is_err() || failed {
                    break;
                }
            }
        };
        let thread = std::thread::Builder::new().name(name.into()).spawn(work);
        let thread = thread.map_err(|error| DataError::Worker(format!("cannot start a thread: {error}")))?;
        Ok(Self { queue: Some(queue), stop, thread: Some(thread) })
    }

    /// Waits for the next item; `None` after the last.
    pub fn next(&self) -> Option<Result<T, DataError>> {
        self.queue.as_ref()?.recv().ok()
    }

    /// The same, and whether it had to be waited for.
    pub fn next_or_wait(&self) -> Option<(Result<T, DataError>, bool)> {
        let queue = self.queue.as_ref()?;
        match queue.try_recv() {
            Ok(item) => Some((item, false)),
            Err(_) => Some((queue.recv().ok()?, true)),
        }
    }
}

impl<T> Drop for Prefetch<T> {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.queue = None; // A thread that waits for room in the queue now fails to send.
        if let Some(thread) = self.thread.take() {
            let _ = thread.join(); // Its panics were caught and sent.
        }
    }
}

fn message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    text.unwrap_or("unknown reason").to_owned()
}

/// A pool of `workers` threads, at least one.
pub fn pool(workers: usize) -> Result<rayon::ThreadPool, DataError> {
    rayon::ThreadPoolBuilder::new()
        .num_threads(workers.max(1))
        .thread_name(|i| format!("data worker {i}"))
        .build()
        .map_err(|error| DataError::Worker(format!("cannot start threads: {error}")))
}
