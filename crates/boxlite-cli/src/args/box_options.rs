//! The arguments of a new box, which `run` and `create` share.

use std::path::PathBuf;

use boxlite::settings::Bytes;
use boxlite::{Allotment, BoxOptions, MainProcess, PullPolicy, RestartPolicy, Runtime};
use clap::{ArgAction, Args, ValueEnum};

use super::container::ContainerArgs;
use super::guest::{GuestArgs, Processors};
use super::health::HealthArgs;
use super::mount::MountArg;
use super::network::NetworkArgs;
use super::process::{HostVariables, ProcessArgs};
use super::registry::RegistryArgs;
use super::values::{AutoOr, label, seconds, signal_name};
use crate::environment::Environment;
use crate::node::engine::Job;
use crate::report::{CommandFailure, Topic};

/// The new box.
#[derive(Debug, Args)]
#[command(disable_help_flag = true)]
pub(crate) struct BoxArgs {
    /// Print help
    #[arg(long, action = ArgAction::Help)]
    help: Option<bool>,
    /// Remove the box when it stops
    #[arg(long)]
    pub(crate) rm: bool,
    #[command(flatten)]
    process: ProcessArgs,
    /// Run this instead of the image's entrypoint; an empty string clears it
    #[arg(long, value_name = "PROGRAM")]
    entrypoint: Option<String>,
    /// Name the box
    #[arg(long)]
    name: Option<String>,
    /// Host name in the box [default: its short id]
    #[arg(short = 'h', long, value_name = "NAME")]
    hostname: Option<String>,
    /// Label the box
    #[arg(short, long = "label", value_name = "NAME[=VALUE]", value_parser = label)]
    labels: Vec<(String, String)>,
    /// Virtual processors; of a fraction, such as 0.5 or 1.5, the box has so much time; auto: all that this process may use
    #[arg(long, value_name = "N|auto", default_value = "1")]
    cpus: AutoOr<Processors>,
    /// Memory of the box; auto: what this process's control group allows, 256m where that sets no limit
    #[arg(short, long, value_name = "SIZE|auto", default_value = "256m")]
    memory: AutoOr<Bytes>,
    /// Let the box run virtual machines of its own, which shows it more of the host's kernel to attack
    #[arg(long)]
    nested: bool,
    /// Kernel of the guest, or a directory with vmlinuz and modules; tried first [default: boxlite's own]
    #[arg(long, value_name = "PATH")]
    kernel: Option<PathBuf>,
    /// Virtual size of the root disk [default: the settings', 10g at first]
    #[arg(long, value_name = "SIZE")]
    disk_size: Option<Bytes>,
    /// Disk space of the host at which the box is paused until this is raised by `update`; below the virtual size
    #[arg(long, value_name = "SIZE")]
    disk_quota: Option<Bytes>,
    /// Bytes per second that the box may read from and write to its disk, together [default: no bound]
    #[arg(long, value_name = "SIZE")]
    disk_io: Option<Bytes>,
    /// Disk space that a start of this box reserves on the host [default: the settings']
    #[arg(long, value_name = "SIZE")]
    claim: Option<Bytes>,
    /// Mount a named volume, or share a directory or file of the host; options are ro and, of what is shared, U to map the ids
    /// of its files and size= to bound its growth
    #[arg(short, long = "volume", value_name = "NAME|HOST:BOX[:OPTIONS]", value_parser = super::mount::volume)]
    volumes: Vec<String>,
    /// Mount an empty filesystem in the box's memory; options are size, mode, uid, gid, ro, exec, suid and dev
    #[arg(long, value_name = "BOX[:OPTIONS]")]
    tmpfs: Vec<String>,
    /// As -v or --tmpfs, in words: type=volume|bind|tmpfs, source, target, readonly, and size, U, tmpfs-size, tmpfs-mode
    #[arg(long = "mount", value_name = "KEY=VALUE,...")]
    mounts: Vec<MountArg>,
    /// Make the root disk read-only; volumes, --tmpfs, /dev and /dev/shm stay as they are
    #[arg(long)]
    read_only: bool,
    /// Most that /dev/shm may hold [default: half the memory]
    #[arg(long, value_name = "SIZE")]
    shm_size: Option<Bytes>,
    /// Forward a port of the host to the box
    #[arg(short, long = "publish", value_name = "[IP:]HOST[:BOX][/tcp|udp]")]
    ports: Vec<String>,
    #[command(flatten)]
    network: NetworkArgs,
    /// Let the box reach this and nothing else; `*.NAME` stands for all names below NAME
    #[arg(long = "allow-net", value_name = "HOST|CIDR[:PORT]")]
    allow_net: Vec<String>,
    /// Start the box again after it has ended: no, on-failure, on-failure:N, always or unless-stopped
    #[arg(long, value_name = "POLICY", default_value_t)]
    pub(crate) restart: RestartPolicy,
    /// Stop the box when nobody has used it for so long: no session, no network traffic, next to no processor time
    #[arg(long, value_name = "DURATION", value_parser = seconds)]
    idle_timeout: Option<u64>,
    /// Remove the box so long after it has stopped
    #[arg(long, value_name = "DURATION", value_parser = seconds)]
    ttl: Option<u64>,
    /// Run the main process as a system's process 1 [default: where it is /sbin/init or systemd]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    init_system: Option<bool>,
    /// Signal that asks the main process to stop [default: the image's, or TERM]
    #[arg(long, value_name = "SIGNAL", value_parser = signal_name)]
    stop_signal: Option<String>,
    /// Seconds between that signal and KILL
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    stop_timeout: u32,
    /// When to ask the image's source for it
    #[arg(long, value_enum, default_value_t)]
    pull: PullArg,
    #[command(flatten)]
    registry: RegistryArgs,
    /// Write the box's id to a file that does not exist yet
    #[arg(long, value_name = "FILE")]
    pub(crate) cidfile: Option<PathBuf>,
    #[command(flatten)]
    health: HealthArgs,
    #[command(flatten)]
    pub(crate) guest: GuestArgs,
    #[command(flatten)]
    pub(crate) container: ContainerArgs,
    /// The image, then what to run in it instead of its own command
    ///
    /// One list: options end at the image, and everything after it belongs to the box.
    #[arg(required = true, num_args = 1.., trailing_var_arg = true, value_names = ["IMAGE", "COMMAND"])]
    image_and_command: Vec<String>,
}

/// `--pull`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum PullArg {
    /// Only when it is not here
    #[default]
    Missing,
    /// Each time
    Always,
    /// Never
    Never,
}

impl From<PullArg> for PullPolicy {
    fn from(pull: PullArg) -> Self {
        match pull {
            PullArg::Missing => Self::Missing,
            PullArg::Always => Self::Always,
            PullArg::Never => Self::Never,
        }
    }
}

impl BoxArgs {
    /// Returns the library's options for these arguments, which `host` and what this process may use on it complete.
    ///
    /// The box of a job is labelled with it, so that it is found again when the job has ended.
    pub(crate) async fn options(
        self,
        runtime: &Runtime,
        host: &Environment,
    ) -> Result<BoxOptions, CommandFailure> {
        let wants_all = self.cpus == AutoOr::Auto || self.memory == AutoOr::Auto;
        let allotment = if wants_all {
            runtime.allotment().await.map_err(|error| CommandFailure::of(&error, Topic::NewBox))?
        } else {
            Allotment::of_processors(1, None)
        };
        let mut options = self.options_within(&allotment, host)?;
        if let Some((name, id)) = Job::of(host).map(|job| job.label()) {
            options.labels.entry(name).or_insert(id);
        }
        Ok(options)
    }

    /// The same for a process that may use `allotment`, and without the label of its job.
    pub(crate) fn options_within(
        self,
        allotment: &Allotment,
        host: &impl HostVariables,
    ) -> Result<BoxOptions, CommandFailure> {
        let processors = match self.cpus {
            AutoOr::Given(processors) => processors,
            AutoOr::Auto => Processors { count: allotment.cpus, limit: allotment.cpu_limit },
        };
        let memory = match self.memory {
            AutoOr::Given(Bytes(bytes)) => bytes,
            AutoOr::Auto => allotment.memory.unwrap_or(BoxOptions::default().memory),
        };
        let process = self.process;
        let mut words = self.image_and_command.into_iter();
        let image = words.next().unwrap_or_default();
        let command: Vec<String> = words.collect();
        let (mut volumes, mut tmpfs) = (self.volumes, self.tmpfs);
        for mount in self.mounts {
            match mount {
                MountArg::Volume(text) => volumes.push(text),
                MountArg::Tmpfs(text) => tmpfs.push(text),
            }
        }
        let entrypoint = self.entrypoint.map(|program| match program.as_str() {
            "" => Vec::new(),
            _ => vec![program],
        });
        let options = BoxOptions {
            image,
            pull: self.pull.into(),
            insecure: self.registry.insecure,
            insecure_credentials: self.registry.insecure_credentials,
            name: self.name,
            main: MainProcess::Image { entrypoint, command: (!command.is_empty()).then_some(command) },
            env: process.environment(host)?,
            workdir: process.workdir,
            user: process.user,
            tty: process.tty,
            stdin: process.interactive,
            hostname: self.hostname,
            cpus: processors.count,
            cpu_limit: processors.limit,
            memory,
            nested: self.nested,
            kernel: self.kernel,
            disk_size: self.disk_size.map(|bytes| bytes.0),
            disk_quota: self.disk_quota.map(|bytes| bytes.0),
            disk_io: self.disk_io.map(|bytes| bytes.0),
            volumes,
            tmpfs,
            shm_size: self.shm_size.map(|bytes| bytes.0),
            read_only: self.read_only,
            ports: self.ports,
            allow_net: self.allow_net,
            auto_remove: self.rm,
            restart: self.restart,
            idle_timeout: self.idle_timeout,
            ttl: self.ttl,
            labels: self.labels.into_iter().collect(),
            health: self.health.check(),
            init_system: self.init_system,
            stop_signal: self.stop_signal,
            stop_timeout: self.stop_timeout,
            claim: self.claim.map(|bytes| bytes.0),
            ..BoxOptions::default()
        };
        Ok(self.guest.applied_to(self.network.applied_to(options)?))
    }
}
