//! The threads of our own kernels: as many as libtorch is told to use.

use rayon::ThreadPool;
use std::sync::{Arc, Mutex, PoisonError};

static POOL: Mutex<Option<Arc<ThreadPool>>> = Mutex::new(None);

/// Runs `f` where rayon's parallel iterators use as many threads as libtorch's operators (`tch::set_num_threads`).
pub(crate) fn install<T: Send>(f: impl FnOnce() -> T + Send) -> T {
    let threads = usize::try_from(tch::get_num_threads()).unwrap_or(1).max(1);
    match pool(threads) {
        Some(pool) => pool.install(f),
        None => f(),
    }
}

/// `None` when the system refuses threads: then rayon's global pool serves.
fn pool(threads: usize) -> Option<Arc<ThreadPool>> {
    let mut kept = POOL.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(pool) = kept.as_ref().filter(|p| p.current_num_threads() == threads) {
        return Some(pool.clone());
    }
    let builder = rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .thread_name(|i| format!("zoo-ops-{i}"));
    let pool = Arc::new(builder.build().ok()?);
    *kept = Some(pool.clone());
    Some(pool)
}
