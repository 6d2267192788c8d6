//! The jail's measures that this host has, found by building them.

use std::os::fd::AsRawFd;
use std::path::Path;
use std::process::{Command, Stdio};

use boxlite_home::Home;
use boxlite_jail::{
    CgroupSpec, Confinement, JailIdentity, JailReport, JailSpec, Measure, MeasureState, Seclusion,
};
use boxlite_types::{Doing, Error, Result};

use super::identity::BoxIdentity;
use super::{qemu_jail, stack_jail, unavailable};
use crate::net::{Network, ShimProgram, StackCommand};
use crate::shim::accel::Accelerator;
use crate::shim::child;
use crate::shim::confinement;
use crate::shim::launch::JailPolicy;

/// The prefix of the names of the measures around a user-mode network.
const OF_NETWORK: &str = "network process";

/// The prefix of the names of the measures of a shim.
const OF_SHIM: &str = "shim";

/// The prefix of those of its steward.
const OF_STEWARD: &str = "steward";

/// The measures that tell of a control group.
const OF_GROUP: [&str; 4] = ["memory limit", "task limit", "processor limit", "cgroup.kill"];

/// Jails a QEMU and a user-mode network that end at once, by the shim program at `shim`, and returns which measures were in
/// force, and which a shim of `home` takes.
///
/// Blocks for some tens of milliseconds.
///
/// # Errors
/// `Unsupported` when no jail can be built here, with the reason.
pub fn examine(
    home: &Home,
    shim: &Path,
    qemu: &Path,
    policy: &JailPolicy,
    accel: Accelerator,
) -> Result<JailReport> {
    let name = format!("probe-{}", std::process::id());
    let identity = BoxIdentity::take(policy, &name)?;
    let group = |jail| JailSpec { cgroup: Some(CgroupSpec::of_box(&name, 256 << 20, 1)), ..jail };
    let version = vec!["--version".into()];
    let qemu_jail = JailSpec { arguments: version, ..qemu_jail(policy, qemu, accel, identity.identity) };
    let mut report = try_out(shim, group(qemu_jail))?;
    report.measures.push(Measure {
        name: "templates".into(),
        state: MeasureState::InForce(
            "read-only: a box maps one through a descriptor that cannot write".into(),
        ),
    });
    let network = try_out(shim, group(trial_of_stack(shim, qemu, policy, identity.identity)))?;
    report.measures.extend(named(OF_NETWORK, network));
    let group = group_measure(&report);
    let seclusion = Seclusion { identity: identity.identity, children: Vec::new(), file_size: 0 };
    report.measures.extend(named(OF_SHIM, boxlite_jail::seclusion_measures(&seclusion)));
    report.measures.extend(named(OF_SHIM, JailReport { measures: vec![group] }));
    let foreign_files = confinement::foreign_files_of(home);
    let steward = Confinement { directories: Vec::new(), groups: Vec::new(), foreign_files };
    report.measures.extend(named(OF_STEWARD, boxlite_jail::confinement_measures(&steward)));
    Ok(report)
}

/// Whether the shim is in its box's control group, which is where that of QEMU is.
fn group_measure(of_qemu: &JailReport) -> Measure {
    let states = || OF_GROUP.into_iter().filter_map(|name| of_qemu.state(name));
    let is_in_force = |state: &&MeasureState| matches!(state, MeasureState::InForce(_));
    let state = match (states().find(is_in_force), states().next()) {
        (Some(_), _) => MeasureState::InForce("that of the box, with which it is limited and ended".into()),
        (None, Some(missing)) => missing.clone(),
        (None, None) => MeasureState::Missing("the box has none".into()),
    };
    Measure { name: "control group".into(), state }
}

/// The measures of `report`, with `of` in front of their names.
fn named(of: &str, report: JailReport) -> impl Iterator<Item = Measure> {
    report
        .measures
        .into_iter()
        .map(move |Measure { name, state }| Measure { name: format!("{of}: {name}"), state })
}

/// The jail of a user-mode network that ends at once.
fn trial_of_stack(shim: &Path, qemu: &Path, policy: &JailPolicy, identity: JailIdentity) -> JailSpec {
    let own = ShimProgram::of_shim(shim);
    let command = StackCommand::new(qemu, &policy.view.code, own, &[], 0).trial();
    let jail = stack_jail(policy, (&command.program, &command.code), &Network::default(), identity);
    JailSpec { arguments: command.arguments, ..jail }
}

/// Builds `jail` around a program that ends at once.
fn try_out(shim: &Path, mut jail: JailSpec) -> Result<JailReport> {
    let guard = rustix::fs::memfd_create("boxlite-guard", rustix::fs::MemfdFlags::CLOEXEC)
        .doing("creating", "a memory file")?;
    jail.guard = Some(guard.as_raw_fd());
    let mut jailer = Command::new(shim);
    jailer.env_clear().current_dir("/");
    jailer.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let jailed = boxlite_jail::launch(jailer, &jail, |mut command, keep| {
        child::inherit_only(&mut command, keep);
        command.spawn()
    });
    let mut jailed = jailed.map_err(unavailable)?;
    let status = jailed.jailer.wait().doing("waiting for the jailed", &jail.program)?;
    if !status.success() {
        return Err(
            Error::unsupported(format!("the jailed program did not run ({status})")).at(&jail.program)
        );
    }
    Ok(jailed.report)
}
