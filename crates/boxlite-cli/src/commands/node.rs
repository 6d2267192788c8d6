//! `node`.

use boxlite::settings::Bytes;
use boxlite::{NodeCheck, Runtime, Verdict};
use clap::{Args, Subcommand};

use super::open;
use super::slurm::{self, SlurmArgs};
use crate::args::{FormatArgs, GlobalArgs, TimeoutArg};
use crate::environment::Environment;
use crate::node::probe::OwnProgram;
use crate::render::{TextTable, formatted, print, print_line};
use crate::report::{CommandFailure, Exit, Topic};

/// `node`.
#[derive(Debug, Subcommand)]
pub(crate) enum NodeCommand {
    /// Tell whether boxes should be placed on this host; exits with 0 when they may, 1 with a warning, 2 when not
    Check(CheckArgs),
    /// Print the line of gres.conf that says how much disk space boxes may fill here
    Gres(GresArgs),
    /// Be Slurm's `HealthCheckProgram`: drain this node while boxes cannot start, collect garbage, and resume it
    SlurmHealth(SlurmArgs),
    /// Be Slurm's Prolog: refuse a job that could start no box, so that Slurm puts it elsewhere
    SlurmProlog(SlurmArgs),
    /// Be Slurm's Epilog: remove the boxes that a job has left, and collect garbage where that is needed
    SlurmEpilog(SlurmArgs),
    /// Write the figures of a check, from this very process
    #[command(hide = true)]
    Probe,
}

/// `node check`.
#[derive(Debug, Args)]
pub(crate) struct CheckArgs {
    #[command(flatten)]
    limit: TimeoutArg,
    #[command(flatten)]
    format: FormatArgs,
}

/// `node gres`.
#[derive(Debug, Args)]
pub(crate) struct GresArgs {
    /// Name of the resource
    #[arg(long, default_value = "boxdisk")]
    name: String,
    /// Disk space that one of it stands for
    #[arg(long, value_name = "SIZE", default_value = "1g")]
    unit: Bytes,
    #[command(flatten)]
    limit: TimeoutArg,
}

impl NodeCommand {
    /// Runs it. None but the probe opens the home in this process, which must end even where that does not answer.
    pub(super) async fn run(
        self,
        global: &GlobalArgs,
        environment: &Environment,
        existing: impl FnOnce() -> Result<Runtime, CommandFailure>,
    ) -> Result<Exit, CommandFailure> {
        let program = OwnProgram::on(global.home.clone().or_else(|| environment.home()));
        match self {
            Self::Check(args) => check(&program, args).await,
            Self::Gres(args) => gres(&program, args).await,
            Self::SlurmHealth(args) => slurm::health(&program, environment, args).await,
            Self::SlurmProlog(args) => slurm::prolog(&program, environment, args).await,
            Self::SlurmEpilog(args) => slurm::epilog(&program, environment, args).await,
            Self::Probe => probe(global, environment, existing).await,
        }
    }
}

async fn check(program: &OwnProgram, args: CheckArgs) -> Result<Exit, CommandFailure> {
    let found = program.check(args.limit.timeout).await.map_err(CommandFailure::local)?;
    print(&formatted(args.format.format, &found, text)?)?;
    Ok(Exit::of_verdict(found.verdict))
}

async fn gres(program: &OwnProgram, args: GresArgs) -> Result<Exit, CommandFailure> {
    let found = program.check(args.limit.timeout).await.map_err(CommandFailure::local)?;
    let Some(space) = found.space else {
        let reason = found.reason.unwrap_or_else(|| "the free space is not known".to_owned());
        return Err(CommandFailure::local(reason));
    };
    let count = space.claimable() / args.unit.0.max(1);
    print_line(&format!("Name={} Count={count} Flags=CountOnly", args.name)).map(|()| Exit::OK)
}

/// Writes the figures as one line of JSON, and once more with what gc could free: for that the database is read, for which
/// the probe may have to wait.
async fn probe(
    global: &GlobalArgs,
    environment: &Environment,
    existing: impl FnOnce() -> Result<Runtime, CommandFailure>,
) -> Result<Exit, CommandFailure> {
    let write = |found: &NodeCheck| {
        let line = serde_json::to_string(found);
        print_line(&line.map_err(|error| CommandFailure::local(format!("writing JSON failed: {error}")))?)
    };
    // A server refuses the check below.
    if !open::names_server(global, environment)? {
        write(&open::node(global, environment)?)?;
    }
    let found = existing()?.check_node(true).await;
    write(&found.map_err(|error| CommandFailure::of(&error, Topic::Host))?).map(|()| Exit::OK)
}

fn text(check: &NodeCheck) -> String {
    let mut facts = TextTable::bare();
    let mut fact = |name: &str, value: String| facts.row([name.to_owned(), value]);
    let verdict = match check.verdict {
        Verdict::Ok => "ok",
        Verdict::Warn => "warn",
        Verdict::Reject => "reject",
    };
    fact("verdict", verdict.to_owned());
    if let Some(reason) = &check.reason {
        fact("reason", reason.clone());
    }
    fact("home", check.home.display().to_string());
    if let Some(space) = &check.space {
        fact("free", format!("{} of {}", Bytes(space.free.bytes), Bytes(space.free.bytes_total)));
        fact("claimed", Bytes(space.claimed).to_string());
        let inodes = match space.free.inodes_total {
            0 => "not counted".to_owned(),
            total => format!("{} of {total}", space.free.inodes),
        };
        fact("inodes", inodes);
    }
    if let Some(memory) = &check.memory {
        fact("memory", format!("{} of {} promised", Bytes(memory.promised), Bytes(memory.limit)));
    }
    let reclaimable = check.reclaimable.map_or("unknown".to_owned(), |found| Bytes(found.bytes).to_string());
    fact("gc could free", reclaimable);
    facts.text()
}
