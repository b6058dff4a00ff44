//! What benchmarks share: threads, libtorch's attention, and the memory that a computation takes.

// Every benchmark uses a part.
#![allow(dead_code)]

use std::fs;
use tch::Tensor;

/// Tells libtorch, and with it our kernels, to use `ZOO_THREADS` threads, or one.
pub fn set_threads() {
    let threads = std::env::var("ZOO_THREADS").ok();
    tch::set_num_threads(threads.and_then(|n| n.parse().ok()).unwrap_or(1));
}

/// libtorch's streaming attention of [B, heads, N, D].
pub fn streaming(q: &Tensor, k: &Tensor, v: &Tensor, scale: f64) -> Tensor {
    let mask = None::<&Tensor>;
    Tensor::scaled_dot_product_attention(q, k, v, mask, 0.0, false, scale, false)
}

unsafe extern "C" {
    fn malloc_trim(pad: usize) -> i32;
}

/// Prints what the process holds at most during `f` beyond what it held before; the second call of `f` counts.
pub fn print_memory(name: &str, f: impl Fn() -> Tensor) {
    match extra_memory(f) {
        Some(mb) => println!("{name}: {mb:.1} MB beyond the input"),
        None => println!("{name}: memory is not known here"),
    }
}

/// In MB; Linux only.
fn extra_memory(f: impl Fn() -> Tensor) -> Option<f64> {
    let field = |name: &str| {
        let status = fs::read_to_string("/proc/self/status").ok()?;
        let line = status.lines().find(|line| line.starts_with(name))?;
        line.split_whitespace().nth(1)?.parse::<f64>().ok()
    };
    drop(f());
    // What was freed is given back first, or it would count as held.
    // SAFETY: glibc's, from any thread at any time.
    unsafe { malloc_trim(0) };
    fs::write("/proc/self/clear_refs", "5").ok()?;
    let before = field("VmRSS")?;
    drop(f());
    Some((field("VmHWM")? - before).max(0.0) / 1e3)
}
