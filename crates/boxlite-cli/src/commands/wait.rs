//! `wait`.

use std::time::Duration;

use boxlite::{BoxInfo, BoxState, Error, HealthStatus, Runtime};
use clap::{Args, ValueEnum};

use super::each::each;
use crate::report::{CommandFailure, Exit, Topic};
use crate::terminal::Interruptions;

/// How often to look whether a box is healthy.
const INTERVAL: Duration = Duration::from_millis(250);

/// `wait`.
#[derive(Debug, Args)]
pub(crate) struct WaitArgs {
    /// The condition to wait for: the end of the box, which prints its exit status, or its health
    #[arg(long, value_enum, value_name = "CONDITION", default_value_t)]
    condition: WaitCondition,
    /// Names, ids or unique beginnings of ids
    #[arg(required = true, value_name = "BOX")]
    boxes: Vec<String>,
}

/// `wait --condition`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
enum WaitCondition {
    /// The box has stopped
    #[value(alias = "exited")]
    #[default]
    Stopped,
    /// A check of the box's health has succeeded; fails once it is unhealthy or has stopped
    Healthy,
}

pub(super) async fn wait(runtime: &Runtime, args: WaitArgs) -> Result<Exit, CommandFailure> {
    match args.condition {
        WaitCondition::Stopped => {
            let stopped = async |id: &str| Ok(Some(runtime.wait(id).await?.code.to_string()));
            each(&args.boxes, Topic::Box, stopped).await
        }
        WaitCondition::Healthy => {
            let mut interruptions = Interruptions::watch()?;
            let all = each(&args.boxes, Topic::Box, async |id: &str| healthy(runtime, id).await);
            match interruptions.before(all).await {
                std::ops::ControlFlow::Continue(exit) => exit,
                std::ops::ControlFlow::Break(exit) => Ok(exit),
            }
        }
    }
}

/// Waits until the box is healthy, and returns the status.
async fn healthy(runtime: &Runtime, id: &str) -> boxlite::Result<Option<String>> {
    // Its name may be given to another box meanwhile.
    let id = runtime.inspect(id).await?.id;
    loop {
        let info = runtime.inspect(&id).await?;
        if is_healthy(&info)? {
            return Ok(Some(HealthStatus::Healthy.to_string()));
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

/// Whether the box is healthy; one that will not be is an error.
fn is_healthy(info: &BoxInfo) -> boxlite::Result<bool> {
    let name = &info.name;
    match (info.state, &info.health) {
        (BoxState::Paused | BoxState::Restarting, _) => Ok(false),
        (BoxState::Running, Some(health)) => match health.status {
            HealthStatus::Healthy => Ok(true),
            HealthStatus::Starting => Ok(false),
            HealthStatus::Unhealthy => {
                let words =
                    health.log.last().map(|probe| probe.output.trim()).filter(|words| !words.is_empty());
                let words = words.map(|words| format!("; the last probe said: {words}")).unwrap_or_default();
                Err(Error::conflict(format!("box {name} is unhealthy{words}")))
            }
        },
        (BoxState::Running, None) => Err(Error::invalid(format!(
            "nothing checks the health of box {name}: neither its image nor --health-cmd has a check"
        ))),
        (state, _) => Err(Error::conflict(format!("box {name} is not running, but {state}"))),
    }
}
