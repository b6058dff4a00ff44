//! libtorch's errors surface in tch as panics; here they become values.

use std::any::Any;
use std::cell::Cell;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Once;

thread_local! {
    static GUARDED: Cell<bool> = const { Cell::new(false) };
}

/// Runs `f`; a panic inside becomes its message, and nothing is printed.
pub(crate) fn guarded<T>(f: impl FnOnce() -> T) -> Result<T, String> {
    install_hook();
    let before = GUARDED.replace(true);
    let result = panic::catch_unwind(AssertUnwindSafe(f));
    GUARDED.set(before);
    result.map_err(|payload| first_lines(&message(payload.as_ref())))
}

/// Silences the default report of panics that [`guarded`] turns into errors, and only those.
fn install_hook() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        let default = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if !GUARDED.get() {
                default(info);
            }
        }));
    });
}

fn message(payload: &(dyn Any + Send)) -> String {
    if let Some(text) = payload.downcast_ref::<String>() {
        text.clone()
    } else if let Some(text) = payload.downcast_ref::<&str>() {
        (*text).to_owned()
    } else {
        "libtorch failed without a message".to_owned()
    }
}

/// libtorch's message without tch's wrapping and the C++ stack trace.
fn first_lines(text: &str) -> String {
    let text = text.replace("\\n", "\n");
    let inner = text
        .split_once("Torch(\"")
        .map_or(text.as_str(), |(_, rest)| rest);
    let end = inner.find("Exception raised from").unwrap_or(inner.len());
    inner[..end].trim().trim_end_matches("\")").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::{Device, Kind, Tensor};

    #[test]
    fn libtorchs_message_is_kept() {
        let ones = |n| Tensor::ones([n], (Kind::Float, Device::Cpu));
        let error = guarded(|| ones(2).dot(&ones(3))).unwrap_err();
        assert!(error.contains("inconsistent tensor size"), "{error}");
        assert!(!error.contains("Exception raised"), "{error}");
        assert_eq!(guarded(|| 3), Ok(3));
    }
}
