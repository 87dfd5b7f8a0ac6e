//! Stores of series by their address: InfluxDB and VictoriaMetrics.

use super::AppError;
use super::services::{OpenCapture, Surroundings};
use crate::config::SECRET_VARIABLES;
use crate::source::influx::v2::{self, Influx2Capture, Influx2Target};
use crate::source::influx::{self, InfluxCapture, InfluxTarget};
use crate::source::target::Target;
use crate::source::victoria::{self, VictoriaCapture, VictoriaTarget};

/// Starts a capture of what follows `scheme`; `None` when the scheme is none of these.
///
/// # Errors
/// As [`super::services::capture`].
pub fn capture(scheme: &str, rest: &str, around: &Surroundings) -> Result<Option<OpenCapture>, AppError> {
    Ok(Some(match scheme {
        "influxdb://" => {
            let address = influx_address(rest)?;
            let job = address.shown();
            let capture = Box::new(InfluxCapture::start(address, &influx_world(around))?);
            OpenCapture { capture, kind: "influxdb", job }
        }
        "influxdb2://" => {
            let address = influx2_address(rest)?;
            let job = address.shown();
            let capture = Box::new(Influx2Capture::start(address, &influx_world(around))?);
            OpenCapture { capture, kind: "influxdb2", job }
        }
        "victoria://" => {
            let address = victoria_address(rest)?;
            let job = address.shown();
            let capture = Box::new(VictoriaCapture::start(address, &victoria_world(around))?);
            OpenCapture { capture, kind: "victoria", job }
        }
        _ => return Ok(None),
    }))
}

/// Opens a target; `None` when the scheme is none of these.
///
/// # Errors
/// As [`super::services::target`].
pub fn target(
    scheme: &str,
    rest: &str,
    force: bool,
    around: &Surroundings,
) -> Result<Option<Box<dyn Target>>, AppError> {
    Ok(Some(match scheme {
        "influxdb://" => Box::new(InfluxTarget::new(influx_address(rest)?, influx_world(around), force)),
        "influxdb2://" => Box::new(Influx2Target::new(influx2_address(rest)?, influx_world(around), force)),
        "victoria://" => {
            Box::new(VictoriaTarget::new(victoria_address(rest)?, victoria_world(around), force))
        }
        _ => return Ok(None),
    }))
}

/// The address without its secrets, if it is one of these.
pub fn shown(scheme: &str, rest: &str) -> Option<String> {
    match scheme {
        "influxdb://" => {
            Some(influx_address(rest).map_or_else(|_| format!("{scheme}…"), |found| found.shown()))
        }
        "influxdb2://" => {
            Some(influx2_address(rest).map_or_else(|_| format!("{scheme}…"), |found| found.shown()))
        }
        "victoria://" => {
            Some(victoria_address(rest).map_or_else(|_| format!("{scheme}…"), |found| found.shown()))
        }
        _ => None,
    }
}

fn influx_address(rest: &str) -> Result<influx::Address, AppError> {
    influx::Address::parse(rest).map_err(|error| AppError::Refused(error.to_string()))
}

fn influx2_address(rest: &str) -> Result<v2::Address, AppError> {
    v2::Address::parse(rest).map_err(|error| AppError::Refused(error.to_string()))
}

fn victoria_address(rest: &str) -> Result<victoria::Address, AppError> {
    victoria::Address::parse(rest).map_err(|error| AppError::Refused(error.to_string()))
}

fn influx_world(around: &Surroundings) -> influx::World {
    influx::World {
        cancel: around.cancel.clone(),
        now: around.now,
        spool: around.spool.clone(),
        runtime: around.runtime.clone(),
        path: around.settings.path.clone(),
        password: around.settings.influx_password.clone(),
        token: around.settings.influx_token.clone(),
        withheld: SECRET_VARIABLES,
    }
}

fn victoria_world(around: &Surroundings) -> victoria::World {
    let (cancel, spool, runtime) = (around.cancel.clone(), around.spool.clone(), around.runtime.clone());
    victoria::World { cancel, now: around.now, spool, runtime }
}
