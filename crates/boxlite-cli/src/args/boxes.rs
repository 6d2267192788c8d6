//! The commands on boxes that exist.

use boxlite::{BoxFilter, ExecOptions, WindowSize};
use clap::Args;
use jiff::Timestamp;

use super::process::ProcessArgs;
use super::{Format, FormatArgs, filter, signal, since};
use crate::report::Failure;

/// `start`.
#[derive(Debug, Args)]
pub(crate) struct StartArgs {
    /// Connect to the main process and end with its exit status
    #[arg(short, long)]
    pub(crate) attach: bool,
    /// Pass standard input to the main process
    #[arg(short, long)]
    pub(crate) interactive: bool,
    /// Names, ids or unique beginnings of ids
    #[arg(required = true, value_name = "BOX")]
    pub(crate) boxes: Vec<String>,
}

/// `exec`.
#[derive(Debug, Args)]
pub(crate) struct ExecArgs {
    /// Do not wait for the command, and do not show its output
    #[arg(short, long)]
    pub(crate) detach: bool,
    #[command(flatten)]
    process: ProcessArgs,
    /// The box, then the command and its arguments
    #[arg(required = true, num_args = 2.., trailing_var_arg = true, value_names = ["BOX", "COMMAND"])]
    box_and_command: Vec<String>,
}

impl ExecArgs {
    /// The box and the library's options for these arguments.
    pub(crate) fn options(
        self,
        host: impl Fn(&str) -> Option<String>,
        size: WindowSize,
    ) -> Result<(String, ExecOptions), Failure> {
        let process = self.process;
        let mut words = self.box_and_command.into_iter();
        let id = words.next().unwrap_or_default();
        let options = ExecOptions {
            command: words.collect(),
            env: process.environment(host)?,
            workdir: process.workdir,
            user: process.user,
            tty: process.tty.then_some(size),
            stdin: process.interactive && !self.detach,
        };
        Ok((id, options))
    }
}

/// `attach`.
#[derive(Debug, Args)]
pub(crate) struct AttachArgs {
    /// Do not pass standard input on
    #[arg(long)]
    pub(crate) no_stdin: bool,
    /// Name, id or unique beginning of an id
    #[arg(value_name = "BOX")]
    pub(crate) id: String,
}

/// `clone`.
#[derive(Debug, Args)]
pub(crate) struct CloneArgs {
    /// Name of the clone [default: made up]
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// The box: name, id or unique beginning of its id; it must not run
    #[arg(value_name = "BOX")]
    pub(crate) source: String,
}

/// `stop` and `restart`.
#[derive(Debug, Args)]
pub(crate) struct StopArgs {
    /// Seconds between the stop signal and KILL [default: the box's own]
    #[arg(short, long, visible_alias = "time", value_name = "SECONDS")]
    pub(crate) timeout: Option<u32>,
    /// Names, ids or unique beginnings of ids
    #[arg(required = true, value_name = "BOX")]
    pub(crate) boxes: Vec<String>,
}

/// `kill`.
#[derive(Debug, Args)]
pub(crate) struct KillArgs {
    /// The signal, by name or number
    #[arg(short, long, default_value = "KILL", value_parser = signal::signal)]
    pub(crate) signal: i32,
    /// Names, ids or unique beginnings of ids
    #[arg(required = true, value_name = "BOX")]
    pub(crate) boxes: Vec<String>,
}

/// `rm`.
#[derive(Debug, Args)]
pub(crate) struct RemoveArgs {
    /// Kill a running box first
    #[arg(short, long)]
    pub(crate) force: bool,
    /// Names, ids or unique beginnings of ids
    #[arg(required = true, value_name = "BOX")]
    pub(crate) boxes: Vec<String>,
}

/// `ls`.
#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    /// Show those that are not running as well
    #[arg(short, long)]
    pub(crate) all: bool,
    /// Print ids only
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// Do not shorten ids and commands
    #[arg(long)]
    pub(crate) no_trunc: bool,
    /// Show the bytes allocated to each box's disk
    #[arg(short, long)]
    pub(crate) size: bool,
    /// Only boxes for which this holds: name, id, status, image (ancestor) or label
    #[arg(short, long = "filter", value_name = "KEY=VALUE", value_parser = filter::box_filter)]
    pub(crate) filters: Vec<BoxFilter>,
    #[command(flatten)]
    pub(crate) format: FormatArgs,
}

/// `inspect`.
#[derive(Debug, Args)]
pub(crate) struct InspectArgs {
    /// Names, ids or unique beginnings of ids
    #[arg(required = true, value_name = "NAME")]
    pub(crate) names: Vec<String>,
    /// Only JSON is to be had
    #[arg(long, value_enum, default_value = "json", hide = true)]
    pub(crate) format: Format,
}

/// `logs`.
#[derive(Debug, Args)]
pub(crate) struct LogsArgs {
    /// Go on until the box stops
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// Only the last so many lines, or all
    #[arg(short = 'n', long, value_name = "N", default_value = "all", value_parser = tail)]
    pub(crate) tail: Tail,
    /// Only what was written from then on: a time, or a duration before now such as 10m
    #[arg(long, value_name = "TIME", value_parser = since::moment)]
    pub(crate) since: Option<Timestamp>,
    /// Put the time before each line
    #[arg(short, long)]
    pub(crate) timestamps: bool,
    /// Show the guest's console instead
    #[arg(long)]
    pub(crate) console: bool,
    /// Name, id or unique beginning of an id
    #[arg(value_name = "BOX")]
    pub(crate) id: String,
}

/// `--tail`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tail(pub(crate) Option<usize>);

fn tail(text: &str) -> Result<Tail, String> {
    match text {
        "all" => Ok(Tail(None)),
        _ => {
            text.parse().map(|lines| Tail(Some(lines))).map_err(|_| "write a number of lines, or all".into())
        }
    }
}

/// `wait`.
#[derive(Debug, Args)]
pub(crate) struct WaitArgs {
    /// Names, ids or unique beginnings of ids
    #[arg(required = true, value_name = "BOX")]
    pub(crate) boxes: Vec<String>,
}

/// `cp`.
#[derive(Debug, Args)]
pub(crate) struct CopyArgs {
    /// Do not say what was copied
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// A path, BOX:PATH, or `-` for a tar stream on standard input
    #[arg(value_name = "SOURCE", allow_hyphen_values = true)]
    pub(crate) source: String,
    /// A path, BOX:PATH, or `-` for a tar stream on standard output
    #[arg(value_name = "DESTINATION", allow_hyphen_values = true)]
    pub(crate) destination: String,
}

impl CopyArgs {
    /// Appended to the command's help.
    pub(super) const RULES: &'static str = "\
A destination that is a directory receives the source under its own name; one that does not exist becomes the copy, \
unless it ends in `/`. A source directory that ends in `/.` stands for its contents. A local path with a colon \
is written as ./PATH. The box need not run: a guest is then brought up for its files alone, and the box stays as it is.";
}
