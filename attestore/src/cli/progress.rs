//! A progress bar on a terminal, and Ctrl-C as a request to stop.

use std::io::IsTerminal as _;
use std::sync::Mutex;

use attestore::{Cancel, Context, Error, ErrorKind};
use indicatif::{ProgressBar, ProgressStyle};

/// Ends the process at once: asked a second time, a person does not want to wait. What is half-written is cleaned up
/// by the next run, as after a crash.
#[allow(clippy::exit, reason = "the only way out while another thread is stuck in the operating system")]
fn leave() {
    std::process::exit(i32::from(ErrorKind::Cancelled.exit_status()));
}

/// Makes the context of a run: a bar on standard error where that is a terminal, Ctrl-C and SIGTERM as cancellation.
///
/// # Errors
/// When the signal handler cannot be set.
pub(crate) fn context(quiet: bool) -> Result<Context, Error> {
    let cancel = Cancel::new();
    let flag = cancel.clone();
    ctrlc::set_handler(move || {
        if flag.is_cancelled() {
            leave();
        }
        flag.cancel();
    })
    .map_err(|error| {
        Error::new(ErrorKind::Unavailable, format!("cannot catch Ctrl-C: {error}"))
            .with_hint("give the process more file descriptors and threads (`ulimit -a`)")
    })?;
    let context = Context::new().with_cancel(cancel);
    if quiet || !std::io::stderr().is_terminal() {
        return Ok(context);
    }
    let bar = ProgressBar::new(0);
    let known = ProgressStyle::with_template("{prefix:>14} {wide_bar} {msg} {eta:>4}");
    let unknown = ProgressStyle::with_template("{prefix:>14} {spinner} {msg}");
    let (Ok(known), Ok(unknown)) = (known, unknown) else { return Ok(context) };
    let stage = Mutex::new(String::new());
    Ok(context.with_progress(move |progress| {
        let Ok(mut stage) = stage.lock() else { return };
        if *stage != progress.stage {
            progress.stage.clone_into(&mut stage);
            bar.set_prefix(progress.stage.to_owned());
            bar.set_style(if progress.total.is_some() { known.clone() } else { unknown.clone() });
        }
        if let Some(total) = progress.total {
            bar.set_length(total);
        }
        bar.set_position(progress.done);
        bar.set_message(if progress.unit == "bytes" {
            super::output::bytes(progress.done)
        } else {
            format!("{} {}", progress.done, progress.unit)
        });
        if progress.total == Some(progress.done) {
            bar.finish_and_clear();
            bar.reset();
        }
    }))
}
