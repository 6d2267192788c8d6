//! A running QEMU with everything that it needs on the host's side.

use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;
use std::sync::Arc;

use boxlite_home::lease::Leased;
use boxlite_proto::{Frame, Op, ToGuest};
use boxlite_types::{Doing, Error, Result};
use tokio::sync::mpsc::UnboundedReceiver;

use super::backend::{self, DeviceBackend};
use super::child::ChildSpawner;
use super::groups;
use super::jail::BoxJail;
use super::launch::LaunchSpec;
use super::template;
use super::vmm::process::{self, OpenFiles, RootDisk, Vm};
use super::vmm::qmp::{Qmp, QmpEvent};
use super::vmm::share_port;
use crate::volume::ShareDevice;

/// A running QEMU and what belongs to it; dropping it releases the boot files.
pub(super) struct Machine {
    pub(super) vm: Vm,
    pub(super) backends: Vec<DeviceBackend>,
    pub(super) qmp: Arc<Qmp>,
    pub(super) qmp_events: UnboundedReceiver<QmpEvent>,
    /// The shares that are to be plugged in once the guest waits for its box.
    pub(super) shares: Vec<ShareDevice>,
    /// The template that the guest was restored from.
    pub(super) template: Option<Leased>,
    pub(super) _boot_files: [Leased; 2],
    /// The user that its processes are, taken for as long as they may run.
    pub(super) jail: Option<BoxJail>,
}

impl Machine {
    /// Starts QEMU with the open disks of named `volumes` and, where there is a template, restores the guest from it.
    ///
    /// One whose root disk comes later is the box of nobody until [`Machine::take_box`].
    pub(super) async fn start(
        spec: &LaunchSpec,
        template: Option<&Leased>,
        volumes: &[File],
        root_disk: RootDisk,
        spawner: &ChildSpawner,
    ) -> Result<Self> {
        let boot_files = lease_boot_files(spec)?;
        let jail = BoxJail::prepare(spec)?;
        let mut backends = backend::backends(spec, spawner)?;
        let mut vm = process::start(
            spec,
            &OpenFiles { boot: &boot_files, template, volumes },
            root_disk,
            jail.as_ref(),
            spawner,
            &mut backends,
        )?;
        let mut shares: Vec<_> = backends.iter_mut().filter_map(|backend| backend.plug.take()).collect();
        let connected = tokio::try_join!(Self::connect(&mut vm, spec, &mut shares), ready(&mut backends));
        let connected = connected.map(|(connected, ())| connected);
        let connected = connected.and_then(|connected| match root_disk {
            RootDisk::AtStart => backend::open_network(&mut backends, spec).map(|()| connected),
            RootDisk::Later { .. } => Ok(connected),
        });
        let (qmp, qmp_events) = connected.map_err(|error| abandon(&mut vm, error))?;
        if spec.jail.is_some() {
            groups::gather(spec.group(), backends.iter().filter_map(|backend| backend.process_group));
        }
        Ok(Self { vm, backends, qmp, qmp_events, shares, template: None, _boot_files: boot_files, jail })
    }

    /// Has the guest, which waits for its box, rehearse what it will do for that; it is told of its box meanwhile or afterwards.
    pub(super) fn rehearse(&mut self) {
        let frame = Frame::control(&ToGuest::Op(Op::Ping { id: 0 }));
        // Nothing else was written yet, so it fits; and no box needs it.
        let _ = frame.map(|frame| (&self.vm.agent).write_all(&frame.to_bytes()));
    }

    /// Gives the guest, which waits for it, the box of `spec`: its disk, and the rules of its network.
    pub(super) async fn take_box(&mut self, spec: &LaunchSpec) -> Result<()> {
        self.vm.overlay = Some(process::give_root_disk(&self.qmp, spec).await?);
        limit_disk(&self.qmp, spec).await?;
        backend::open_network(&mut self.backends, spec)
    }

    async fn connect(
        vm: &mut Vm,
        spec: &LaunchSpec,
        shares: &mut Vec<ShareDevice>,
    ) -> Result<(Arc<Qmp>, UnboundedReceiver<QmpEvent>)> {
        let doing = "attaching to QEMU of";
        let socket =
            vm.qmp.try_clone().and_then(tokio::net::UnixStream::from_std).doing(doing, &spec.box_dir)?;
        let (qmp, mut events) = Qmp::start(socket).await.doing(doing, &spec.box_dir)?;
        if let Some(state) = vm.state {
            template::restore(&qmp, &mut events, state).await?;
            share_port::plug(&qmp, &std::mem::take(shares)).await?;
        } else if !shares.is_empty() {
            share_port::require(&qmp).await?;
        }
        limit_disk(&qmp, spec).await?;
        Ok((qmp, events))
    }
}

async fn limit_disk(qmp: &Qmp, spec: &LaunchSpec) -> Result<()> {
    let Some(rate) = spec.disk_io else { return Ok(()) };
    let limited = qmp.limit_disk(Some(rate)).await;
    limited.map_err(|error| Error::unsupported("the disk's rate cannot be bounded").because(error))
}

/// Waits until every part can serve; they came up while QEMU did.
async fn ready(backends: &mut [DeviceBackend]) -> Result<()> {
    for ready in backends.iter_mut().filter_map(|backend| backend.ready.take()) {
        ready.await?;
    }
    Ok(())
}

/// Kills a QEMU that failed to come up, and adds its own words to `error`.
fn abandon(vm: &mut Vm, error: Error) -> Error {
    let _ = vm.process.end();
    let mut words = String::new();
    let _ = vm.process.stderr.by_ref().take(1024).read_to_string(&mut words);
    match words.trim() {
        "" => error,
        words => error.while_doing(format_args!("QEMU said {words:?}")),
    }
}

/// QEMU maps its kernel and initramfs for as long as it lives, so their removal would free nothing before.
fn lease_boot_files(spec: &LaunchSpec) -> Result<[Leased; 2]> {
    let lease = |path: &Path| {
        let gone = || Error::not_found(format!("the boot file {} has vanished", path.display())).at(path);
        Leased::acquire(path)?.ok_or_else(gone)
    };
    Ok([lease(&spec.kernel)?, lease(&spec.initrd)?])
}
