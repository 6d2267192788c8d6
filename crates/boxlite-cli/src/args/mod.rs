//! Arguments that several commands share.

mod box_options;
mod container;
mod guest;
mod health;
mod mount;
mod network;
mod process;
mod registry;
mod values;

pub(crate) use box_options::BoxArgs;
pub(crate) use guest::Processors;
pub(crate) use mount::volume;
pub(crate) use network::{NetworkArg, networks};
pub(crate) use process::{HostVariables, ProcessArgs, variables};
pub(crate) use registry::RegistryArgs;
pub(crate) use values::{label, moment, signal};

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use boxlite::settings::parse_duration;
use clap::{Args, ValueEnum};

use crate::template::Template;

/// Options of every command.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Options of every command")]
pub(crate) struct GlobalArgs {
    /// Directory that holds images and boxes [default: `$BOXLITE_HOME`, or ~/.boxlite]
    #[arg(long, global = true, value_name = "DIR")]
    pub(crate) home: Option<PathBuf>,
    /// Accelerator of the guests' code [default: auto]
    #[arg(long, global = true, value_enum, value_name = "HOW")]
    pub(crate) accel: Option<AccelArg>,
    /// Work on the home of a server, `boxlite serve`, and not on one of this host; or on those of several, with commas between
    /// them or one a line in `@FILE` [default: `$BOXLITE_REST_URL`]
    #[arg(long, global = true, value_name = "URL")]
    pub(crate) url: Option<String>,
    /// File that holds the API key of that server, or lines of a server's URL and its key [default: the variable
    /// `BOXLITE_API_KEY`]; of `serve`: the key to ask for
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) api_key_file: Option<PathBuf>,
    /// Say on standard error what is being done (the variable `BOXLITE_LOG` takes a finer filter)
    #[arg(long, global = true)]
    pub(crate) debug: bool,
}

/// `--accel`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum AccelArg {
    /// Hardware virtualisation where it works, else emulation
    #[default]
    Auto,
    /// Hardware virtualisation or an error
    Kvm,
    /// Emulation
    Tcg,
}

/// `--timeout`, for the commands that check a node.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct TimeoutArg {
    /// Time within which the home's filesystem must answer
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, default_value = "2s")]
    pub(crate) timeout: Duration,
}

/// How output is laid out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum OutputFormat {
    /// For people; may change.
    #[default]
    Table,
    /// For programs; stable.
    Json,
}

/// `--format`, for the commands that print boxes and images: also a template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Layout {
    Whole(OutputFormat),
    Template(Template),
}

impl FromStr for Layout {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match OutputFormat::from_str(text, false) {
            Ok(format) => Ok(Self::Whole(format)),
            Err(_) if text.contains("{{") => text.parse().map(Self::Template),
            Err(_) => Err(format!("`{text}` is neither table, json nor a template such as '{{{{.name}}}}'")),
        }
    }
}

/// `--format`, for the commands that list things.
#[derive(Debug, Clone, Args)]
pub(crate) struct ListFormatArgs {
    /// Lay the output out as a table, as JSON that programs can rely on, or by a template such as '{{.name}}'
    #[arg(long, value_name = "table|json|TEMPLATE", default_value = "table")]
    pub(crate) format: Layout,
}

/// `--format`, for the commands that show one thing, or everything about several.
#[derive(Debug, Clone, Args)]
pub(crate) struct TemplateArgs {
    /// Print what a template such as '{{.name}}' says of each, or JSON
    #[arg(short, long, value_name = "json|TEMPLATE")]
    pub(crate) format: Option<Layout>,
}

/// `--format`, for the commands that print data.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct FormatArgs {
    /// Lay the output out as a table, or as JSON that programs can rely on
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: OutputFormat,
}
