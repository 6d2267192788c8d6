//! The additions of other parts of a box (its network, its volumes) to its QEMU: the one place where they meet it.

use std::ffi::OsString;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::process::Command;
use std::sync::Arc;

use boxlite_jail::{JailerAnswer, Launching, Profile};
use boxlite_types::{Doing, Error, ErrorKind, Result};
use futures::FutureExt;
use futures::future::BoxFuture;

use super::child::ChildSpawner;
use super::jail::{self, BoxJail};
use super::launch::LaunchSpec;
use crate::exit::ChildEnder;
use crate::net::{
    self, AllowList, Counts, Exchange, MacAddr, Mailbox, Network, Policy, ShimProgram, StackCommand,
    StackProcess, Wire, WireEnd, card_arguments, claim_ports, loopback_aliases, own_addresses,
};
use crate::volume::{self, Share, ShareDevice};

/// One part's additions.
#[derive(Default)]
pub(crate) struct DeviceBackend {
    /// QEMU arguments; descriptors are named by their own number.
    pub(crate) arguments: Vec<OsString>,
    /// Descriptors that QEMU inherits under their own numbers; the shim closes its copies once QEMU runs.
    pub(crate) descriptors: Vec<OwnedFd>,
    /// A share that is not among the arguments, since it is to be plugged into a guest that waits for its box.
    pub(crate) plug: Option<ShareDevice>,
    /// Whether the guest's memory must be one that a vhost-user device can map.
    pub(crate) shared_memory: bool,
    /// Resolves once the part can serve, awaited while QEMU comes up; an error fails the start.
    pub(crate) ready: Option<BoxFuture<'static, Result<()>>>,
    /// The process group of a program that serves the device, to be put into the box's control group.
    pub(crate) process_group: Option<u32>,
    /// A network that carries nothing yet.
    pub(crate) network: Option<ClosedNetwork>,
    /// The network's counts, once it is open.
    pub(crate) counts: Option<Arc<Counts>>,
    /// By what other boxes of its networks find the box: a matter of the shim's steward.
    pub(crate) mailboxes: Vec<Mailbox>,
    /// Runs in the shim beside the box until QEMU has ended, and is then dropped. An error is logged, and only
    /// costs the box this part, unless the guest cannot go on without it.
    pub(crate) task: Option<BoxFuture<'static, Result<()>>>,
    /// Names the part if the guest hangs without it, so that the box is to end when `task` has.
    pub(crate) vital: Option<String>,
}

/// A network that carries nothing, since the rules of a box are not in force: a guest that waits for its box has such a one.
pub(crate) struct ClosedNetwork {
    wire: Wire,
    /// The user-mode stack's end of the wire, until that is started; QEMU needs only the other.
    stack_end: Option<OwnedFd>,
    stack: Option<StackProcess>,
    /// Its way to the other boxes of its networks.
    exchange: Option<Exchange>,
}

/// Prepares every part of the box; called on the shim's main thread before QEMU starts.
///
/// Programs that a part needs are started with [`ChildSpawner::spawn`], so that they cannot outlive the shim.
pub(crate) fn backends(spec: &LaunchSpec, spawner: &ChildSpawner) -> Result<Vec<DeviceBackend>> {
    let mut backends = Vec::new();
    if let Some(network) = &spec.network {
        backends.push(network_backend(spec, network)?);
    }
    let shares = volume::start(&spec.shares, |command, keep| spawner.spawn_without_lock(command, keep))?;
    backends.extend(shares.into_iter().map(|share| share_backend(share, spec.plugs_shares())));
    Ok(backends)
}

/// Starts the user-mode stack of the network among `backends`, if there is one; called on the shim's main thread.
///
/// The stack is up sooner than QEMU, even if QEMU begins first, and so the guest waits for one jail and not for two.
pub(crate) fn begin_network(
    backends: &mut [DeviceBackend],
    spec: &LaunchSpec,
    jail: Option<&BoxJail>,
    spawner: &ChildSpawner,
) -> Result<()> {
    for backend in backends {
        if let (Some(closed), Some(network)) = (&mut backend.network, &spec.network) {
            backend.ready = begin_stack(closed, spec, network, jail, spawner)?;
        }
    }
    Ok(())
}

/// Puts the rules of the box of `spec` in force on the network among `backends`, if there is one, and lets it carry; its stack
/// is up.
pub(crate) fn open_network(backends: &mut [DeviceBackend], spec: &LaunchSpec) -> Result<()> {
    for backend in backends {
        if let (Some(network), Some(closed)) = (&spec.network, backend.network.take()) {
            let ClosedNetwork { mut wire, stack_end, stack, exchange } = closed;
            let allowed = match &network.allowed {
                Some(rules) => Some(AllowList::new(rules.clone(), own_addresses()?)),
                None => None,
            };
            let policy =
                Policy::new(&network.ports, loopback_aliases()?).with_host_ports(&network.host_ports);
            wire.govern(policy, allowed, network.max_connections);
            if let Some(exchange) = exchange {
                wire = wire.with_exchange(exchange);
            }
            backend.counts = Some(wire.counts());
            backend.task = Some(match stack {
                Some(stack) => carry(wire, stack).boxed(),
                None => carry_among_members(wire, stack_end).boxed(),
            });
        }
    }
    Ok(())
}

fn network_backend(spec: &LaunchSpec, network: &Network) -> Result<DeviceBackend> {
    let mac = MacAddr::of_box(&spec.box_id);
    let (wire, ends) = Wire::new(Policy::new(&[], []), None, network.max_connections)?;
    let (exchange, mailboxes) = if network.member_of.is_empty() {
        (None, Vec::new())
    } else {
        net::join(&network.member_of, mac, network.has_stack())
            .map(|(exchange, mailboxes)| (Some(exchange), mailboxes))?
    };
    Ok(DeviceBackend {
        arguments: card_arguments(mac, &ends.card).into_iter().map(OsString::from).collect(),
        descriptors: vec![ends.card],
        network: Some(ClosedNetwork { wire, stack_end: Some(ends.stack), stack: None, exchange }),
        mailboxes,
        ..DeviceBackend::default()
    })
}

fn begin_stack(
    closed: &mut ClosedNetwork,
    spec: &LaunchSpec,
    network: &Network,
    jail: Option<&BoxJail>,
    spawner: &ChildSpawner,
) -> Result<Option<BoxFuture<'static, Result<()>>>> {
    if !network.has_stack() {
        return Ok(None);
    }
    let Some(stack_end) = closed.stack_end.take() else { return Ok(None) };
    // The stack binds the ports itself, an instant later; taking them first tells which one is in use.
    let ports = claim_ports(&network.ports)?.release();
    let code = jail.map_or(&[][..], BoxJail::code);
    let own = std::env::current_exe().ok().and_then(|program| ShimProgram::of_shim(&program));
    let command = StackCommand::new(&spec.qemu, code, own, &ports, stack_end.as_raw_fd());
    let (stack, jailed) = start_stack(command, &stack_end, network, jail, spawner)?;
    let serves = closed.wire.readiness(&stack, MacAddr::of_box(&spec.box_id))?;
    let ready = async move {
        jailed.map_or(Ok(()), |answer| jail::finish(answer, Profile::Stack))?;
        serves.await
    };
    closed.stack = Some(stack);
    Ok(Some(ready.boxed()))
}

/// Carries frames on `wire` until QEMU or the `stack` at its other end has gone.
async fn carry(wire: Wire, stack: StackProcess) -> Result<()> {
    let counted = wire.counts();
    let doing = "watching the user-mode network";
    let ender = stack.ender().doing(doing, "of the box")?;
    let mut ended = std::pin::pin!(stack.watch());
    let result = tokio::select! {
        ended = &mut ended => Err(ended),
        carried = wire.carry() => match carried {
            // The box ends: its network goes while QEMU does, and not after it.
            Ok(WireEnd::Card) => {
                ender.end().doing(doing, "of the box")?;
                ended.await;
                Ok(())
            }
            // If it was QEMU that has gone, this task is dropped; else the stack will say why.
            Ok(WireEnd::Stack | WireEnd::Unknown) => Err(ended.await),
            Err(error) => {
                Err(Error::new(ErrorKind::Io, "the box's network wire broke").because(error))
            }
        },
    };
    tracing::info!(?counted, "the network's wire has ended");
    result
}

/// Carries frames of a box without a user-mode stack. Nothing is sent to the stack's end, and nothing comes from it; it stays
/// open as long as the wire carries.
async fn carry_among_members(wire: Wire, _stack_end: Option<OwnedFd>) -> Result<()> {
    wire.carry()
        .await
        .map(drop)
        .map_err(|error| Error::new(ErrorKind::Io, "the box's network wire broke").because(error))
}

/// Starts the user-mode network behind `wire`: in a jail of its own, where the box has jails, which answers when that is built.
fn start_stack(
    command: StackCommand,
    wire: &OwnedFd,
    network: &Network,
    jail: Option<&BoxJail>,
    spawner: &ChildSpawner,
) -> Result<(StackProcess, Option<JailerAnswer>)> {
    let program = command.program.clone();
    let doing = "starting the user-mode network with";
    if let Some(jail) = jail {
        let Launching { jailer, answer } = jail::begin(jail.network(network, command), spawner)?;
        let ender = ChildEnder::of_jail(&jailer).doing(doing, &program)?;
        return Ok((StackProcess::new(program, jailer, ender), Some(answer)));
    }
    let mut unjailed = Command::new(&program);
    unjailed.args(command.arguments);
    jail::prepare(&mut unjailed);
    unjailed.env("LC_ALL", "C");
    let child = spawner.spawn(unjailed, &[wire.as_fd()]).doing(doing, &program)?;
    let ender = ChildEnder::of(&child).doing(doing, &program)?;
    Ok((StackProcess::new(program, child, ender), None))
}

fn share_backend(share: Share, plugged: bool) -> DeviceBackend {
    let Share { device, daemon } = share;
    let served = DeviceBackend {
        process_group: Some(daemon.pid()),
        vital: Some(daemon.to_string()),
        task: Some(daemon.watch().boxed()),
        ..DeviceBackend::default()
    };
    if plugged {
        return DeviceBackend { plug: Some(device), ..served };
    }
    DeviceBackend {
        arguments: device.arguments().into_iter().map(OsString::from).collect(),
        descriptors: vec![device.descriptor],
        shared_memory: true,
        ..served
    }
}
