//! The last stage: the record says started, and a shim takes over.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use boxlite_home::admission::{Admission, Thresholds};
use boxlite_home::durable::fault;
use boxlite_home::lease::Leased;
use boxlite_proto::{BootConfig, ExecSpec, NetConfig};
use boxlite_storage::disk_image::ImageChain;
use boxlite_types::{
    BoxOptions, BoxRecord, Doing, Error, HealthPlan, ImageConfig, NetworkMode, Phase, Progress, Result,
    Volume,
};
use boxlite_vm::guest::{self, BootFiles, BootSources, GuestDevices};
use boxlite_vm::net::{self, MacAddr, Network};
use boxlite_vm::shim::{
    self, Accelerator, DiskFloors, DiskQuota, GuestOrigin, HandOver, LaunchSpec, LogCaps, PendingShim,
    Purpose, UserKernel, WaitingGuest, accel, template,
};
use boxlite_vm::volume::{self, Shares, VolumeFloors};
use jiff::Timestamp;

use super::disk::OverlaidBox;
use super::{MaintenanceBoot, StartContext, StartedBox};
use crate::assets::Assets;
use crate::context::LocalContext;
use crate::litebox::named_volumes::AttachedVolumes;
use crate::litebox::{BoxGuard, aftermath, create, kernel, memory, network, process, processors};

impl<'a> OverlaidBox<'a> {
    /// Spawns the shim with the box's lock and its claim, records the start durably while QEMU comes up, and only then lets
    /// the shim go on.
    ///
    /// A start that cannot be recorded ends the shim. A shim that fails leaves the box in the phase it had, and with the
    /// restarts that are recorded: its keeper must not take the start for a run.
    pub(super) fn launch(self) -> Result<StartedBox> {
        let (context, mut guard, launch) = self.prepare(Purpose::Run)?;
        let before = guard.record.phase.clone();
        // As recorded: the caller has already counted this run in the guard's record.
        let restarts = context.local.store.find_box(&guard.record.id)?.restarts;
        let run = launch.spec.run_id.clone();
        guard.record.restarts.run.clone_from(&run);
        guard.record.restarts.kept = launch.spec.keeper.is_some();
        let ports = launch.spec.network.iter().flat_map(|network| network.ports.iter().copied()).collect();
        let (launch, trial) = launch.begin()?;
        fault::point("start.unrecorded").doing("starting", guard.paths.root())?;
        guard.enter(context.local, Phase::Started { at: Timestamp::now(), run, ports })?;
        fault::point("start.recorded").doing("starting", guard.paths.root())?;
        launch.shim.proceed().map(drop).or_else(|error| {
            guard.record.restarts = restarts;
            guard.enter(context.local, before)?;
            Err(error)
        })?;
        context.local.starters.end(&guard.record.id);
        Ok(StartedBox { trial })
    }

    /// Spawns a shim only for the box's files, and records nothing.
    pub(super) fn boot_for_maintenance(self) -> Result<MaintenanceBoot> {
        let (_, guard, launch) = self.prepare(Purpose::Maintenance)?;
        let run = launch.spec.run_id.clone();
        launch.begin()?.0.shim.proceed()?;
        Ok(MaintenanceBoot { guard, run })
    }

    /// Does everything that precedes the record.
    fn prepare(self, purpose: Purpose) -> Result<(StartContext<'a>, BoxGuard, PreparedLaunch)> {
        let Self { context, guard, room, memory, volumes, image, between } = self;
        let assets = context.local.assets.find()?;
        let shim = assets.shim.clone();
        let own_kernel = kernel::chosen(context.local, &guard.record).map(Path::to_owned);
        let boot = boot_files(context, &guard, &assets, own_kernel.as_deref())?;
        let mut spec = specification(context, &guard, image.as_ref(), between, &boot, assets, purpose)?;
        let mut trial = None;
        // A kernel of the user's need not find shares that are plugged in.
        let is_restorable = own_kernel.is_none() || spec.shares.volumes.is_empty();
        if let Some(path) = own_kernel {
            let kernel = UserKernel::of(&context.local.home, &spec, &path)?;
            trial = kernel.prepare(&mut spec)?.then_some(kernel);
        }
        let template = if trial.is_some() {
            spec.boot_reason = Some("its kernel is tried for the first time".into());
            None
        } else if is_restorable {
            origin(context, &room, &mut spec)
        } else {
            spec.boot_reason = Some("a kernel of the user's may not find shares that are plugged in".into());
            None
        };
        let hand_over = HandOver {
            lock: guard.shim_lock()?,
            claim: Some(room.into_claim()),
            memory: Some(memory.into_claim()),
            tie: tie(context.local, purpose)?,
            volumes: volumes.hand_over()?,
        };
        let may_take = trial.is_none() && hand_over.tie.is_none();
        let waiting = if may_take { context.local.pool.take(&mut spec, &shim) } else { None };
        let leases = (image, boot, template);
        Ok((context, guard, PreparedLaunch { spec, shim, waiting, hand_over, leases, trial }))
    }
}

/// A shim about to be spawned; its files are leased until it has leases of its own.
struct PreparedLaunch {
    spec: LaunchSpec,
    shim: PathBuf,
    /// The guest that gets the box; without one, a shim brings up another.
    waiting: Option<WaitingGuest>,
    hand_over: HandOver,
    leases: (Option<ImageChain>, BootFiles, Option<Leased>),
    trial: Option<UserKernel>,
}

impl PreparedLaunch {
    fn begin(self) -> Result<(BegunLaunch, Option<UserKernel>)> {
        let Self { mut spec, shim, waiting, hand_over, leases, trial } = self;
        let assigned = waiting.and_then(|guest| match guest.assign(&spec, &hand_over) {
            Ok(shim) => Some(shim),
            Err(error) => {
                tracing::warn!(error = %error.chain(), "a waiting guest did not take the box, and another is made");
                None
            }
        });
        let shim = if let Some(shim) = assigned {
            shim
        } else {
            // The waiting guest's control group ends with it, so the box gets one of its own.
            spec.group = None;
            shim::begin(&spec, &shim, hand_over)?
        };
        Ok((BegunLaunch { shim, _leases: leases }, trial))
    }
}

/// This process, with which the box is to end; `None` for a box that outlives its starter.
fn tie(local: &LocalContext, purpose: Purpose) -> Result<Option<OwnedFd>> {
    if !local.tied || purpose != Purpose::Run {
        return Ok(None);
    }
    shim::own_process().map(Some)
}

/// A shim that waits to be let go on; dropping it calls the start off.
struct BegunLaunch {
    shim: PendingShim,
    /// Held until the shim has answered.
    _leases: (Option<ImageChain>, BootFiles, Option<Leased>),
}

/// Decides how the guest comes up. A template is made only where the box was admitted without a warning, and never at
/// the cost of the soft floor.
fn origin(context: StartContext<'_>, room: &Admission, spec: &mut LaunchSpec) -> Option<Leased> {
    let settings = &context.local.settings;
    if !settings.templates.value {
        spec.boot_reason = Some("the setting templates is off".into());
        return None;
    }
    let ample = Thresholds { hard_floor: settings.soft_floor.value.0, ..Thresholds::of(settings) };
    let room = room.notices().is_empty().then_some(ample);
    match template::origin(spec, &context.local.home, room) {
        Ok((origin, lease)) => {
            spec.boot_reason = boot_reason(&origin, room.is_some()).map(Into::into);
            spec.origin = origin;
            lease
        }
        Err(error) => {
            tracing::warn!(error = %error.chain(), "templates could not be looked for; the guest boots without one");
            spec.boot_reason = Some(format!("templates could not be looked for: {}", error.chain()));
            None
        }
    }
}

/// Why a guest with `origin` boots; a start that is admitted with a warning makes no template.
fn boot_reason(origin: &GuestOrigin, may_keep: bool) -> Option<&'static str> {
    match origin {
        GuestOrigin::Template(_) => None,
        GuestOrigin::BootAndKeep(_) => Some("it was to be kept as the template of its hardware"),
        GuestOrigin::Boot if may_keep => Some("its hardware has no template yet"),
        GuestOrigin::Boot => {
            Some("its hardware has no template, and a start that warns of the host's disk makes none")
        }
    }
}

/// The leased kernel and initramfs for the box's devices; of `kernel`, where it is not boxlite's own.
fn boot_files(
    context: StartContext<'_>,
    guard: &BoxGuard,
    assets: &Assets,
    kernel: Option<&Path>,
) -> Result<BootFiles> {
    let home = &context.local.home;
    let kernel = kernel.unwrap_or(&assets.kernel);
    let sources = BootSources { kernel_dir: kernel.to_owned(), agent: assets.guest.clone() };
    let network = guard.record.options.network == NetworkMode::User;
    let devices = GuestDevices { network, shares: !guard.record.volumes.is_empty(), pci: false };
    guest::boot_files(&sources, devices, &home.vm(), &home.tmp())
}

/// The image of the kernel's modules; a box does without where there is none and none can be made.
fn modules(kernel: &Path) -> Option<PathBuf> {
    guest::module_image(kernel).unwrap_or_else(|error| {
        tracing::warn!(error = %error.chain(), "the box starts without the kernel's modules");
        None
    })
}

fn specification(
    context: StartContext<'_>,
    guard: &BoxGuard,
    image: Option<&ImageChain>,
    between: Vec<PathBuf>,
    boot: &BootFiles,
    assets: Assets,
    purpose: Purpose,
) -> Result<LaunchSpec> {
    let (local, record, options) = (context.local, &guard.record, &guard.record.options);
    // A guest that only reads frees nothing: paused because others fill the disk, it would never end.
    let emergency = if context.reads_only { 0 } else { local.settings.emergency_floor.value.0 };
    let networked = options.network == NetworkMode::User;
    let accelerator = accelerator(context, &assets.qemu)?;
    let jail = local.jail_policy(&assets.qemu)?;
    let stays_in_group = purpose == Purpose::Run && memory::stays_in_group(local);
    report_missing_bounds(context, options, jail.is_some(), stays_in_group);
    // A maintenance boot is what its caller wants of the box, and not what the box does.
    let run = (purpose == Purpose::Run).then_some(options);
    // A kernel of the user's comes with its own modules.
    let is_own_kernel = kernel::chosen(local, record).is_some();
    let network = network_of(local, record, purpose)?;
    let guest_network = network.as_ref().map(|network| guest_network(record, network));
    let modules = if is_own_kernel { None } else { modules(&assets.kernel) };
    let has_modules = modules.is_some();
    let health = match run {
        Some(run) => HealthPlan::of(run.health.as_ref(), record.image_config.healthcheck.as_ref())?,
        None => None,
    };
    Ok(LaunchSpec {
        box_id: record.id.clone(),
        group: None,
        run_id: uuid::Uuid::new_v4().simple().to_string(),
        purpose,
        box_dir: guard.paths.root().to_owned(),
        overlay: guard.paths.overlay(),
        bases: between,
        backing: image.map(|image| image.disk_image().path().to_owned()),
        qemu: assets.qemu,
        kernel: boot.kernel.clone(),
        initrd: boot.initramfs.clone(),
        modules,
        kernel_arguments: Vec::new(),
        boot_timeout_ms: None,
        accel: accelerator,
        cpus: options.cpus,
        cpu_percent: processors::limit(options),
        stays_in_group,
        memory_bytes: shim::guest_memory(options.memory),
        nested: options.nested,
        network,
        shares: shares(local, guard, assets.virtiofsd.as_deref())?,
        disks: AttachedVolumes::described(local, record),
        origin: GuestOrigin::Boot,
        boot_reason: None,
        boot: BootConfig {
            modules: has_modules,
            health: health.as_ref().map(|plan| process::health_probe(plan, record)),
            network: guest_network,
            ..boot_config(record, networked, purpose)?
        },
        health_retries: health.map_or(0, |plan| plan.retries),
        main: match run {
            Some(run) => main_process(record, run)?,
            None => None,
        },
        // Data of a volume that is still in the guest's memory must reach the host.
        discard: run.is_some_and(|run| run.auto_remove)
            && record.volumes.is_empty()
            && record.named_volumes.is_empty(),
        auto_remove: run.is_some_and(|run| run.auto_remove),
        keeper: match run {
            Some(run) => aftermath::keeper(local, run)?,
            None => None,
        },
        stop_signal: boxlite_types::stop_signal(options, &record.image_config)?,
        stop_timeout_ms: u64::from(options.stop_timeout) * 1000,
        logs: LogCaps {
            console: local.settings.console_log_max.value.0 / 2,
            main: local.settings.main_log_max.value.0 / 2,
        },
        floors: DiskFloors { pause_below: emergency, resume_at: emergency / 2 * 3 },
        jail,
        // A copy that waited for its box's quota would keep the box from being given another.
        disk_quota: run.and_then(|run| run.disk_quota).map(DiskQuota),
        idle_timeout_ms: run.and_then(|run| run.idle_timeout).map(|seconds| seconds.saturating_mul(1000)),
        disk_io: run.and_then(|run| run.disk_io),
    })
}

/// Reports that nothing confines the box, or that its limit of processor time cannot hold.
fn report_missing_bounds(
    context: StartContext<'_>,
    options: &BoxOptions,
    is_jailed: bool,
    stays_in_group: bool,
) {
    if !is_jailed {
        let message = "the box starts without a jail, because the setting jail is off: a guest that takes over QEMU has the rights of this user";
        context.progress.report(Progress::Notice { message: message.into() });
    }
    if let Some(message) = processors::limit_in_vain(options, is_jailed, stays_in_group) {
        context.progress.report(Progress::Notice { message });
    }
}

/// The folders of the host that the box mounts, and what serves them.
fn shares(local: &LocalContext, guard: &BoxGuard, daemon: Option<&Path>) -> Result<Shares> {
    let (record, settings) = (&guard.record, &local.settings);
    Ok(Shares {
        volumes: record.volumes.iter().map(|volume| bounded(volume, local)).collect(),
        virtiofsd: virtiofsd(daemon, record)?,
        off_limits: create::off_limits(local),
        floors: VolumeFloors { bytes: settings.hard_floor.value.0, inodes: settings.inode_floor.value },
        ledgers: guard.paths.ledgers(),
    })
}

/// The main process of a run; `None` for a box that idles.
fn main_process(record: &BoxRecord, options: &BoxOptions) -> Result<Option<ExecSpec>> {
    let mut main = process::main_process(options, &record.image_config)?;
    if let Some(main) = &mut main {
        process::tell_init_system(main, &record.id);
    }
    Ok(main)
}

/// Chooses the accelerator, and reports emulation that the user did not ask for.
///
/// # Errors
/// `Unsupported` where it would be emulation and the settings rule that out.
fn accelerator(context: StartContext<'_>, qemu: &Path) -> Result<Accelerator> {
    let local = context.local;
    let choice = accel::choose(&local.home, qemu, local.accel)?;
    if choice.accelerator != Accelerator::Kvm && local.settings.require_kvm.value {
        return Err(Error::unsupported(format!(
            "the box would be emulated ({}), which the setting require_kvm = true ({}) refuses",
            choice.reason, local.settings.require_kvm.origin
        )));
    }
    if let Some(message) = accel::news(&local.home, local.accel, &choice) {
        context.progress.report(Progress::Notice { message });
    }
    Ok(choice.accelerator)
}

/// The box's network, its host ports chosen now so that they are known while it runs. A maintenance boot has the box's
/// hardware, and publishes nothing.
fn network_of(local: &LocalContext, record: &BoxRecord, purpose: Purpose) -> Result<Option<Network>> {
    let options = &record.options;
    if options.network == NetworkMode::None {
        return Ok(None);
    }
    let ports = match purpose {
        Purpose::Run => net::claim_ports(&network::ports(options, &record.image_config)?)?.release(),
        Purpose::Maintenance => Vec::new(),
    };
    let host_ports = match purpose {
        Purpose::Run => options.allow_host.clone(),
        Purpose::Maintenance => Vec::new(),
    };
    let member_of = match purpose {
        Purpose::Run => network::member_of(&local.home, record)?,
        Purpose::Maintenance => Vec::new(),
    };
    Ok(Some(Network {
        ports,
        allowed: network::allowed(options)?,
        host_ports,
        member_of,
        ..Network::default()
    }))
}

/// Returns the guest's settings of its card.
fn guest_network(record: &BoxRecord, network: &Network) -> NetConfig {
    let config = net::guest_config(MacAddr::of_box(&record.id));
    NetConfig {
        gateway: config.gateway.filter(|_| network.has_stack()),
        members: network.member_of.iter().map(|it| (it.own.address, it.subnet.prefix())).collect(),
        ..config
    }
}

/// The volume with the size that the settings give to those that have none.
fn bounded(volume: &Volume, local: &LocalContext) -> Volume {
    let size = volume.size.or(local.settings.volume_quota.value.0).filter(|_| !volume.read_only);
    Volume { size, ..volume.clone() }
}

fn virtiofsd(found: Option<&Path>, record: &BoxRecord) -> Result<PathBuf> {
    match found {
        None if !record.volumes.is_empty() => Err(Error::unsupported(
            "this host has no boxlite-virtiofsd, which a box with volumes needs; put it beside boxlite",
        )),
        found => Ok(found.map(Path::to_owned).unwrap_or_default()),
    }
}

/// The image's volumes that can be directories of the box.
fn volume_paths(image: &ImageConfig) -> Vec<String> {
    image.volumes.iter().filter(|path| path.starts_with('/')).cloned().collect()
}

fn boot_config(record: &BoxRecord, networked: bool, purpose: Purpose) -> Result<BootConfig> {
    let options = &record.options;
    let own = network::name_servers(options)?;
    let servers = if own.is_empty() { vec![net::RESOLVER] } else { own };
    Ok(BootConfig {
        hostname: options.hostname.clone().unwrap_or_else(|| record.id[..12].to_owned()),
        dns_servers: if networked { servers.iter().map(ToString::to_string).collect() } else { Vec::new() },
        dns_search: boxlite_types::parse_search_domains(&options.dns_search)?,
        extra_hosts: network::hosts(options)?,
        ulimits: boxlite_types::parse_ulimits(&options.ulimits)?,
        // A parameter that cannot be set keeps processes from running, and must not keep their files from being read.
        sysctls: match purpose {
            Purpose::Run => boxlite_types::parse_sysctls(&options.sysctls)?,
            Purpose::Maintenance => Vec::new(),
        },
        mounts: volume::mounts(&record.volumes),
        disks: volume::disk_mounts(&record.named_volumes),
        tmpfs: match purpose {
            Purpose::Run => create::tmpfs(&record.options)?,
            // Files copied into a stopped box stay only on its disk.
            Purpose::Maintenance => Vec::new(),
        },
        volume_paths: match purpose {
            Purpose::Run => volume_paths(&record.image_config),
            Purpose::Maintenance => Vec::new(),
        },
        shm_size: record.options.shm_size,
        read_only_root: record.options.read_only,
        // Most guests are spared the check.
        grow_root: record.options.disk_size.is_some_and(|wanted| wanted > record.disk_image_size),
        ..BootConfig::default()
    })
}
