//! Log lines: what, in which form, and to whom is given; nothing here knows a terminal.

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

use super::AppError;
use crate::config::{LogFormat, LogSettings};

/// Sends log lines to `writer` from now on. A second call in one process changes nothing.
pub fn start_logging<W>(settings: &LogSettings, colour: bool, writer: W) -> Result<(), AppError>
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let filter = &settings.filter;
    let filter = EnvFilter::try_new(filter)
        .map_err(|error| AppError::LogFilter { filter: filter.clone(), cause: error.to_string() })?;
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer).with_ansi(colour);
    // Failing means that a subscriber is there already, which is the one wish here.
    let _ = match settings.format {
        LogFormat::Text => lines.without_time().with_target(false).try_init(),
        LogFormat::Json => lines.json().try_init(),
    };
    Ok(())
}
