//! The threads of our own kernels: those of libtorch.
//!
//! A second pool beside libtorch's would fight with it: its threads look for work for milliseconds after every operator, on the
//! processors that the kernel needs then. libtorch's are GNU OpenMP's, which `GOMP_parallel` calls in; where the process has
//! none (another OpenMP, other systems), rayon's serve.

use rayon::ThreadPool;
use std::any::Any;
use std::ffi::c_void;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

/// Portions for each thread, so that one that was held up leaves work for the others.
const PORTIONS: usize = 4;

/// Calls `task` once with every number below `count`, on as many threads as libtorch's operators use
/// (`tch::set_num_threads`), each with a scratch of its own.
///
/// A thread takes up to `together` numbers in a row where that leaves enough for all.
pub(crate) fn for_each<S>(
    count: usize,
    together: usize,
    scratch: impl Fn() -> S + Sync,
    task: impl Fn(&mut S, usize) + Sync,
) {
    let threads = usize::try_from(tch::get_num_threads()).unwrap_or(1).max(1);
    let portion = together.min(count / (threads * PORTIONS)).max(1);
    let threads = threads.min(count.div_ceil(portion));
    let next = AtomicUsize::new(0);
    let take = || {
        let mut own = None;
        loop {
            let first = next.fetch_add(portion, Ordering::Relaxed);
            if first >= count {
                return;
            }
            let own = own.get_or_insert_with(&scratch);
            (first..count.min(first + portion)).for_each(|i| task(own, i));
        }
    };
    match threads {
        0 => {}
        1 => take(),
        _ => everywhere(threads, &take),
    }
}

/// `f` of every number below `count`, on the same threads.
pub(crate) fn map<T: Send + Sync>(count: usize, f: impl Fn(usize) -> T + Sync) -> Vec<T> {
    let slots: Vec<OnceLock<T>> = (0..count).map(|_| OnceLock::new()).collect();
    for_each(
        count,
        1,
        || (),
        |(), i| {
            let _ = slots[i].set(f(i));
        },
    );
    let done = slots.into_iter().map(OnceLock::into_inner);
    done.map(|slot| slot.expect("every number was taken"))
        .collect()
}

/// Runs `work` once on each of up to `threads` threads, this one among them, and waits for all.
fn everywhere(threads: usize, work: &(dyn Fn() + Sync)) {
    let Some(parallel) = openmp() else {
        return match pool(threads) {
            Some(pool) => drop(pool.broadcast(|_| work())),
            None => work(),
        };
    };
    let call = Call {
        work,
        panic: Mutex::new(None),
    };
    let threads = u32::try_from(threads).unwrap_or(u32::MAX);
    // SAFETY: `enter` gets a `Call` that outlives the call, which returns when all threads are done.
    unsafe { parallel(enter, (&raw const call).cast_mut().cast(), threads, 0) };
    let panic = call
        .panic
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner);
    if let Some(panic) = panic {
        resume_unwind(panic);
    }
}

/// `GOMP_parallel(function, data, threads, flags)`.
type Parallel = unsafe extern "C" fn(unsafe extern "C" fn(*mut c_void), *mut c_void, u32, u32);

/// The one of the OpenMP that libtorch uses, where it is GNU's or speaks like it.
fn openmp() -> Option<Parallel> {
    static FOUND: OnceLock<Option<Parallel>> = OnceLock::new();
    *FOUND.get_or_init(find_openmp)
}

#[cfg(target_os = "linux")]
fn find_openmp() -> Option<Parallel> {
    let process = libloading::os::unix::Library::this();
    // SAFETY: the symbol's type is that of GCC's libgomp since 4.9, which LLVM's OpenMP provides, too.
    unsafe { process.get::<Parallel>(b"GOMP_parallel\0") }
        .ok()
        .map(|symbol| *symbol)
}

#[cfg(not(target_os = "linux"))]
fn find_openmp() -> Option<Parallel> {
    None
}

struct Call<'a> {
    work: &'a (dyn Fn() + Sync),
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

/// # Safety
/// `call` is a [`Call`] that lives until this returns.
unsafe extern "C" fn enter(call: *mut c_void) {
    // SAFETY: by this function's contract; it is only read.
    let call = unsafe { &*call.cast::<Call>().cast_const() };
    // Nothing may unwind through C.
    if let Err(panic) = catch_unwind(AssertUnwindSafe(call.work)) {
        *call.panic.lock().unwrap_or_else(PoisonError::into_inner) = Some(panic);
    }
}

/// Rayon's threads for [`everywhere`]; `None` when the system refuses them.
fn pool(threads: usize) -> Option<Arc<ThreadPool>> {
    static POOL: Mutex<Option<Arc<ThreadPool>>> = Mutex::new(None);
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;
    use std::thread::{ThreadId, current};

    /// Which threads took part, and how often each number was taken.
    fn run(threads: usize, count: usize) -> (HashSet<ThreadId>, Vec<usize>) {
        let taken: Vec<AtomicUsize> = (0..count).map(|_| AtomicUsize::new(0)).collect();
        let next = AtomicUsize::new(0);
        let seen = Mutex::new(HashSet::new());
        everywhere(threads, &|| {
            seen.lock().unwrap().insert(current().id());
            loop {
                let i = next.fetch_add(1, Ordering::Relaxed);
                let Some(taken) = taken.get(i) else { break };
                taken.fetch_add(1, Ordering::Relaxed);
            }
        });
        let taken = taken.into_iter().map(AtomicUsize::into_inner).collect();
        (seen.into_inner().unwrap(), taken)
    }

    #[test]
    fn all_threads_take_part() {
        let (seen, taken) = run(3, 1000);
        assert_eq!(seen.len(), 3);
        assert!(seen.contains(&current().id()) || openmp().is_none());
        assert!(taken.iter().all(|n| *n == 1));
    }

    #[test]
    fn every_number_is_taken_once_with_a_scratch() {
        for (count, together) in [(0, 1), (1, 8), (7, 3), (1000, 16)] {
            let sum = AtomicUsize::new(0);
            let scratch = || Vec::<usize>::new();
            for_each(count, together, scratch, |seen, i| {
                assert!(!seen.contains(&i));
                seen.push(i);
                sum.fetch_add(i + 1, Ordering::Relaxed);
            });
            assert_eq!(sum.into_inner(), count * (count + 1) / 2);
            let squares: Vec<usize> = (0..count).map(|i| i * i).collect();
            assert_eq!(map(count, |i| i * i), squares);
        }
    }

    #[test]
    fn a_panic_arrives_where_the_work_was_asked_for() {
        let panics = || everywhere(2, &|| panic!("on purpose"));
        let caught = catch_unwind(AssertUnwindSafe(panics)).unwrap_err();
        assert_eq!(caught.downcast_ref::<&str>(), Some(&"on purpose"));
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn libtorch_s_own_threads_are_found() {
        // The libtorch of scripts/setup comes with GNU's OpenMP.
        assert!(openmp().is_some());
    }
}
