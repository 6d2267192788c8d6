//! `node slurm-health`, `node slurm-prolog` and `node slurm-epilog`: the programs that Slurm runs on each node.
//!
//! Slurm drains a node whose prolog or epilog fails, with a reason that is not ours, and nobody resumes it then. So they fail
//! only on purpose: the prolog, after it has drained the node itself, to have the job put elsewhere. Their own troubles
//! are told on standard error, and judged as a start judges them: a check that fails keeps no job from beginning.

use std::time::Duration;

use boxlite::{NodeCheck, Verdict};
use clap::Args;

use crate::args::TimeoutArg;
use crate::environment::Environment;
use crate::node::engine::Job;
use crate::node::health::{self, CollectGoal, HealthStep};
use crate::node::probe::OwnProgram;
use crate::node::slurm::SlurmNode;
use crate::report::{CommandFailure, Exit, note};

/// The time that a health check gives to gc; Slurm ends the check after 60 s.
const COLLECTION_TIMEOUT: Duration = Duration::from_secs(20);

/// The time that the removal of one job's boxes may take.
const REMOVAL_TIMEOUT: Duration = Duration::from_secs(60);

/// The arguments of the programs that Slurm runs.
#[derive(Debug, Args)]
pub(crate) struct SlurmArgs {
    /// Name of this node in Slurm [default: `$SLURMD_NODENAME`, else the host's name]
    #[arg(long, value_name = "NAME")]
    node: Option<String>,
    #[command(flatten)]
    limit: TimeoutArg,
}

impl SlurmArgs {
    fn node(&self, environment: &Environment) -> Result<SlurmNode, CommandFailure> {
        let host = || {
            let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
            name.split('.').next().map(str::to_owned)
        };
        let given = self.node.clone().or_else(|| environment.text("SLURMD_NODENAME"));
        let name = given.or_else(host).filter(|name| !name.is_empty());
        let name = name.ok_or_else(|| {
            CommandFailure::local("this node's name in Slurm is not known; name it with --node")
        })?;
        Ok(SlurmNode::new(name))
    }
}

/// Drains, collects, and resumes.
pub(super) async fn health(
    program: &OwnProgram,
    environment: &Environment,
    args: SlurmArgs,
) -> Result<Exit, CommandFailure> {
    let node = args.node(environment)?;
    let mut check = program.check(args.limit.timeout).await.map_err(CommandFailure::local)?;
    let mut collected = false;
    loop {
        let state = node.state().await.map_err(CommandFailure::local)?;
        let mut again = false;
        for step in health::steps(&state, &check) {
            match step {
                HealthStep::Drain(reason) => {
                    node.drain(&reason).await.map_err(CommandFailure::local)?;
                    note(&format!("drained: {reason}"));
                }
                HealthStep::Resume => {
                    node.resume().await.map_err(CommandFailure::local)?;
                    note("resumed");
                }
                HealthStep::Collect(_) if collected => {}
                HealthStep::Collect(goal) => {
                    collect(program, goal).await;
                    (collected, again) = (true, true);
                }
            }
        }
        if !again {
            return Ok(Exit::of_verdict(check.verdict));
        }
        check = program.check(args.limit.timeout).await.map_err(CommandFailure::local)?;
    }
}

/// Lets the job begin unless a box could not start even after gc; then the node is drained, and Slurm requeues the job.
pub(super) async fn prolog(
    program: &OwnProgram,
    environment: &Environment,
    args: SlurmArgs,
) -> Result<Exit, CommandFailure> {
    let Some(check) = checked_after_gc(program, args.limit.timeout).await else { return Ok(Exit::OK) };
    if check.verdict != Verdict::Reject {
        return Ok(Exit::OK);
    }
    let reason = health::reason(&check);
    note(&reason);
    // Ours comes first: Slurm keeps the reason of a node that is drained already.
    if let Err(trouble) = drain_unless_drained(&args.node(environment)?, &reason).await {
        note(&format!("boxlite: {trouble}"));
    }
    Ok(Exit::INCOMPLETE)
}

async fn drain_unless_drained(node: &SlurmNode, reason: &str) -> Result<(), String> {
    if node.state().await?.drains { Ok(()) } else { node.drain(reason).await }
}

/// Removes what the job has left.
pub(super) async fn epilog(
    program: &OwnProgram,
    environment: &Environment,
    args: SlurmArgs,
) -> Result<Exit, CommandFailure> {
    if let Some(job) = Job::of(environment)
        && let Err(trouble) = remove_boxes_of(program, &job).await
    {
        note(&format!("boxlite: {trouble}"));
    }
    checked_after_gc(program, args.limit.timeout).await;
    Ok(Exit::OK)
}

async fn remove_boxes_of(program: &OwnProgram, job: &Job) -> Result<(), String> {
    let (name, id) = job.label();
    let filter = format!("label={name}={id}");
    let listed = program.run(&["ls", "-aq", "--filter", &filter], REMOVAL_TIMEOUT).await?;
    let listed = listed.success("listing the job's boxes")?;
    let boxes: Vec<&str> = listed.split_whitespace().collect();
    if boxes.is_empty() {
        return Ok(());
    }
    note(&format!("boxlite: removing {} that the job has left", boxes.join(" ")));
    let words = [&["rm", "-f"], &boxes[..]].concat();
    program.run(&words, REMOVAL_TIMEOUT).await?.success("removing the job's boxes").map(drop)
}

/// Checks the node, and again after a collection where the floors are not kept; `None` where it could not be checked.
async fn checked_after_gc(program: &OwnProgram, limit: Duration) -> Option<NodeCheck> {
    let check = async || {
        let found = program.check(limit).await;
        found.inspect_err(|trouble| note(&format!("boxlite: {trouble}"))).ok()
    };
    let first = check().await?;
    let Some(goal) = health::shortage(&first) else { return Some(first) };
    collect(program, goal).await;
    check().await
}

/// Collects garbage: as much as is missing, or all that there is. What fails is told, and judged by the next check.
async fn collect(program: &OwnProgram, goal: CollectGoal) {
    let bytes = match goal {
        CollectGoal::Bytes(bytes) => Some(bytes.to_string()),
        CollectGoal::Everything => None,
    };
    let mut words = vec!["gc"];
    words.extend(bytes.iter().flat_map(|bytes| ["--free", bytes]));
    let collected = program.run(&words, COLLECTION_TIMEOUT).await;
    if let Err(trouble) = collected.and_then(|output| output.success("gc")) {
        note(&format!("boxlite: {trouble}"));
    }
}
