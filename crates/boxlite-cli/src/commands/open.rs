//! The runtime that the global options name.

use boxlite::{Accel, Runtime, RuntimeOptions};

use crate::args::{Acceleration, GlobalArgs};
use crate::report::{Failure, Topic};

/// Opens the runtime on a home of this host.
pub(super) fn runtime(global: &GlobalArgs) -> Result<Runtime, Failure> {
    let accel = match global.accel {
        Acceleration::Auto => Accel::Auto,
        Acceleration::Kvm => Accel::Kvm,
        Acceleration::Tcg => Accel::Tcg,
    };
    let options = RuntimeOptions { home: global.home.clone(), accel, ..RuntimeOptions::default() };
    Runtime::local(options).map_err(|error| Failure::of(&error, Topic::Host))
}
