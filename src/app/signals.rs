//! Ctrl-C, SIGTERM and a terminal that goes away (SIGHUP): the first asks everything to stop at its next safe point, a
//! second Ctrl-C or SIGTERM stops at once.
//!
//! Invariant: a process that was started to outlive its terminal (`nohup`) does: SIGHUP that is ignored stays so.

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::AppError;
use crate::base::cancel::Cancel;

/// What the shell reports for an interrupted process.
const INTERRUPTED: i32 = 130;

/// Sets `cancel` on the first signal, after telling `first`. Must be called inside a runtime.
pub fn cancel_on_signals(cancel: Cancel, first: impl Fn() + Send + 'static) -> Result<(), AppError> {
    let listen = |kind| signal(kind).map_err(|cause| AppError::System { what: "signal handling", cause });
    let mut interrupt = listen(SignalKind::interrupt())?;
    let mut terminate = listen(SignalKind::terminate())?;
    let mut hang_up = if hang_up_is_ignored() { None } else { Some(listen(SignalKind::hangup())?) };
    tokio::spawn(async move {
        loop {
            let is_asked = tokio::select! {
                _ = interrupt.recv() => true,
                _ = terminate.recv() => true,
                // It comes twice when a session ends, from the system and from the shell: nobody asked for haste.
                () = next(&mut hang_up) => false,
            };
            if cancel.is_cancelled() && is_asked {
                // Whoever asks twice does not want to wait; every object on storage is whole or absent.
                std::process::exit(INTERRUPTED);
            }
            if !cancel.is_cancelled() {
                cancel.cancel();
                first();
            }
        }
    });
    Ok(())
}

async fn next(signal: &mut Option<Signal>) {
    match signal {
        Some(signal) => drop(signal.recv().await),
        None => std::future::pending().await,
    }
}

/// Whether whoever started us wants us to outlive the terminal.
fn hang_up_is_ignored() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let ignored = ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or_default();
    // The lowest bit stands for signal 1, SIGHUP.
    ignored & 1 == 1
}
