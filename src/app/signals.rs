//! Ctrl-C and SIGTERM: the first asks everything to stop at its next safe point, the second stops at once.

use tokio::signal::unix::{SignalKind, signal};

use super::AppError;
use crate::base::cancel::Cancel;

/// What the shell reports for an interrupted process.
const INTERRUPTED: i32 = 130;

/// Sets `cancel` on the first signal, after telling `first`. Must be called inside a runtime.
pub fn cancel_on_signals(cancel: Cancel, first: impl Fn() + Send + 'static) -> Result<(), AppError> {
    let listen = |kind| signal(kind).map_err(|cause| AppError::System { what: "signal handling", cause });
    let mut interrupt = listen(SignalKind::interrupt())?;
    let mut terminate = listen(SignalKind::terminate())?;
    tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            if cancel.is_cancelled() {
                // Whoever asks twice does not want to wait; every object on storage is whole or absent.
                std::process::exit(INTERRUPTED);
            }
            cancel.cancel();
            first();
        }
    });
    Ok(())
}
