//! The process that owns one box's virtual machine; started by boxlite, never by hand.

use std::process::ExitCode;
use std::sync::{Arc, Mutex};

use boxlite::{ErrorKind, MissingHome, Runtime, RuntimeOptions, SettingsVariables};
use boxlite_vm::net::serve_stack;
use boxlite_vm::shim::{CollectGarbage, Detached, EndedBox, Keeper, ShimLaunch, detach, jailer};
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    // The shim starts itself anew to jail its QEMU, and in a jail as the box's network.
    let arguments = || std::env::args_os().skip(1);
    match jailer(arguments()) {
        Some(Ok(ended)) => return ended,
        Some(Err(error)) => return fail(&error),
        None => {}
    }
    match serve_stack(arguments()) {
        Some(Ok(())) => return ExitCode::SUCCESS,
        Some(Err(error)) => return fail(&error.chain()),
        None => {}
    }
    let mut launch = match detach(std::env::args_os().skip(1)) {
        Ok(Detached::Starter) => return ExitCode::SUCCESS,
        Ok(Detached::Shim(launch)) => launch,
        Ok(Detached::Keeper(keeper)) => return keep(&keeper),
        Err(error) => return fail(&error.chain()),
    };
    if let Ok(log) = launch.log() {
        let filter = EnvFilter::try_from_env("BOXLITE_SHIM_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
        tracing_subscriber::fmt()
            .with_ansi(false)
            .with_env_filter(filter)
            .with_writer(Mutex::new(log))
            .init();
    }
    let collect = collector(&launch);
    match launch.run(collect) {
        Ok(None) => ExitCode::SUCCESS,
        Ok(Some(ended)) => match remove(&ended) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                tracing::error!(error = %error.chain(), "the ended box is left to the next command");
                ExitCode::from(125)
            }
            _ => ExitCode::SUCCESS,
        },
        Err(error) => {
            tracing::error!(error = %error.chain(), "the shim failed");
            ExitCode::from(125)
        }
    }
}

/// Says on standard error why the program ends without having done anything.
fn fail(error: &dyn std::fmt::Display) -> ExitCode {
    eprintln!("boxlite-shim: {error}");
    ExitCode::from(125)
}

/// Waits for the end of the shim's run, and looks after its box.
fn keep(keeper: &Keeper) -> ExitCode {
    let ended = || {
        // A box that has gone has no log.
        if let Ok(log) = keeper.log() {
            let filter =
                EnvFilter::try_from_env("BOXLITE_SHIM_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
            tracing_subscriber::fmt()
                .with_ansi(false)
                .with_env_filter(filter)
                .with_writer(Mutex::new(log))
                .init();
        }
    };
    let variables = SettingsVariables::from_lookup(|name| std::env::var_os(name));
    match boxlite::keep(keeper, variables, ended) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            tracing::error!(error = %error.chain(), "the box is left as it is");
            ExitCode::from(125)
        }
        _ => ExitCode::SUCCESS,
    }
}

/// Returns the collector of garbage in the home of the box, under the settings of the user who started it.
fn collector(launch: &ShimLaunch) -> CollectGarbage {
    let variables = SettingsVariables::from_lookup(|name| std::env::var_os(name));
    let home = launch.home_root();
    Arc::new(move |wanted| {
        let options = RuntimeOptions { variables: variables.clone(), ..RuntimeOptions::new(&home) };
        boxlite::relieve(&options, wanted)
    })
}

/// Removes a box whose run has ended. The steward holds nothing of it any more and is a caller like any other.
fn remove(ended: &EndedBox) -> boxlite::Result<()> {
    let options =
        RuntimeOptions { missing_home: MissingHome::Refuse, ..RuntimeOptions::new(ended.home.clone()) };
    let runtime = Runtime::local(options)?;
    // Without signals, and so without I/O: where they arrive is the shim's, of which this process is a fork.
    let tokio = tokio::runtime::Builder::new_current_thread().enable_time().build();
    let tokio = tokio.map_err(|error| boxlite::Error::io("starting the runtime for", &ended.home, error))?;
    tokio.block_on(runtime.remove_ended(&ended.id))
}
