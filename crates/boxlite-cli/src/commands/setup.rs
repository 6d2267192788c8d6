//! `setup`: fetches the guest kernel, which no package of boxlite brings, and makes the image of its modules.

use std::path::Path;
use std::process::Command;

use boxlite_vm::guest::module_image;

use crate::environment::Environment;
use crate::render::print;
use crate::report::{CommandFailure, Exit};

/// The program that fetches, which packages install; Debian's tools do the work.
const FETCH: &str = "fetch-kernel";

pub(super) fn setup(environment: &Environment) -> Result<Exit, CommandFailure> {
    let assets = environment.assets();
    if let Some(kernel) = assets.kernel() {
        let modules = make_modules(&kernel)?;
        return print(&format!("the guest kernel is there: {}\n{modules}", kernel.display()))
            .map(|()| Exit::OK);
    }
    let fetch = assets.program(FETCH).ok_or_else(|| {
        CommandFailure::local(format!("this installation has no {FETCH}"))
            .hint("scripts/setup of boxlite's source fetches the kernel, and BOXLITE_ASSETS names another place with one")
    })?;
    let target = environment.fetched_assets(rustix::process::geteuid().is_root()).ok_or_else(|| {
        CommandFailure::local("neither HOME nor XDG_DATA_HOME is set, so there is no place for the kernel")
    })?;
    let failed = |why: String| CommandFailure::local(format!("fetching the guest kernel failed: {why}"));
    let status = Command::new(&fetch)
        .arg(&target)
        .status()
        .map_err(|error| failed(format!("{}: {error}", fetch.display())))?;
    if !status.success() {
        return Err(failed(status.to_string()));
    }
    let kernel = target.join("kernel");
    let modules = make_modules(&kernel)?;
    print(&format!("the guest kernel is in {}\n{modules}", kernel.display())).map(|()| Exit::OK)
}

/// Makes the image of the kernel's modules. Returns what there is to say.
fn make_modules(kernel: &Path) -> Result<String, CommandFailure> {
    match module_image(kernel) {
        Ok(Some(path)) => Ok(format!("the kernel's modules are in {}\n", path.display())),
        Ok(None) => Ok(format!(
            "there is no image of the kernel's modules: {} cannot be written to, or has less than 1 GiB to spare\n",
            kernel.display()
        )),
        Err(error) => Err(CommandFailure::local(format!(
            "making the image of the kernel's modules failed: {}",
            error.chain()
        ))),
    }
}
