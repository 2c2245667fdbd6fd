//! Turns a defect of this program into an error like any other: exit status 70, and JSON where that was asked for.
//!
//! Called by [`super::main`] around each verb. What was half-made is cleaned up on the way out as after any error; what is
//! left is cleaned up by the next run, as after a crash.

use std::panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind, set_hook, take_hook};
use std::sync::{Arc, Mutex};

use attestore::{Error, ErrorKind};

/// Runs `work`; a panic in it, or in a thread that it waits for, becomes [`ErrorKind::Internal`] with the place.
///
/// # Errors
/// Those of `work`.
pub(crate) fn guarded<T>(work: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
    let said = Arc::new(Mutex::new(None));
    let first = Arc::clone(&said);
    let before = take_hook();
    // The first panic tells; those that it causes in other threads do not.
    set_hook(Box::new(move |info| {
        if let Ok(mut first) = first.lock() {
            first.get_or_insert_with(|| describe(info));
        }
    }));
    let result = catch_unwind(AssertUnwindSafe(work));
    set_hook(before);
    result.unwrap_or_else(|_| {
        let what = said.lock().ok().and_then(|mut said| said.take());
        Err(Error::new(
            ErrorKind::Internal,
            format!("a defect of this program: {}", what.as_deref().unwrap_or("a panic")),
        ))
    })
}

/// Says what a panic says, and where it was.
fn describe(info: &PanicHookInfo<'_>) -> String {
    let what = info.payload();
    let what = what
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| what.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "a panic".to_owned());
    match info.location() {
        Some(at) => format!("{what} ({}:{})", at.file(), at.line()),
        None => what,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_an_internal_error_with_its_place() {
        let error = guarded::<()>(|| panic!("one and one is {}", 3)).unwrap_err();
        assert_eq!((error.kind(), error.kind().exit_status()), (ErrorKind::Internal, 70));
        let text = error.to_string();
        assert!(text.contains("one and one is 3 (") && text.contains("guard.rs:"), "{text}");
        assert_eq!(guarded(|| Ok(7)).unwrap(), 7);
        assert!(guarded::<()>(|| Err(Error::Cancelled)).unwrap_err().kind() == ErrorKind::Cancelled);
    }
}
