//! The PCI ports into which the shares of a box are plugged while its guest waits for it.
//!
//! QEMU neither keeps nor restores the state of a guest that has a share, and a microvm's own buses take no further device. So a
//! guest that is kept as a template, and every one that is restored from that, has empty ports instead. The shares are plugged into
//! them before the guest hears of its box, as the functions of one PCI device for each port. Nothing announces them: the agent has
//! its kernel look for them, which saves the waits of the kernel's own protocol for cards that people push into slots.

use std::os::fd::AsFd;

use boxlite_types::{Error, ErrorKind, Result};
use serde_json::json;

use super::qemu::SHARES_PER_PORT;
use super::qmp::{Qmp, QmpError};
use crate::volume::ShareDevice;

/// QEMU's device of a share behind a port.
const DEVICE: &str = "vhost-user-fs-pci";

/// Finds out whether the QEMU behind `qmp` can have shares plugged in.
///
/// # Errors
/// `Unsupported` when it cannot.
pub(crate) async fn require(qmp: &Qmp) -> Result<()> {
    let known = qmp.execute("device-list-properties", json!({ "typename": DEVICE })).await;
    known.map(drop).map_err(|error| {
        Error::unsupported("folders of the host cannot be plugged into a guest of this QEMU").because(error)
    })
}

/// Plugs `shares` into the guest of the QEMU behind `qmp`, which waits for its box.
///
/// # Errors
/// `Io` when QEMU does not take one.
pub(crate) async fn plug(qmp: &Qmp, shares: &[ShareDevice]) -> Result<()> {
    // A device is there for the guest once it has its first function, which is therefore the last to come.
    for share in shares.iter().rev() {
        plug_one(qmp, share).await.map_err(|error| {
            Error::new(ErrorKind::Io, "QEMU does not take a folder of the host").because(error)
        })?;
    }
    Ok(())
}

async fn plug_one(qmp: &Qmp, share: &ShareDevice) -> std::result::Result<(), QmpError> {
    let name = format!("share{}", share.index());
    qmp.give(&name, share.descriptor.as_fd()).await?;
    let address = json!({ "type": "fd", "data": { "str": name } });
    let backend = json!({ "type": "socket", "data": { "addr": address, "server": false } });
    qmp.execute("chardev-add", json!({ "id": name, "backend": backend })).await?;
    let (port, function) = (share.index() / SHARES_PER_PORT, share.index() % SHARES_PER_PORT);
    let device = json!({
        "driver": DEVICE,
        "chardev": name,
        "tag": share.tag(),
        "bus": format!("port{port}"),
        "addr": format!("0.{function}"),
        "multifunction": true,
    });
    qmp.execute("device_add", device).await.map(drop)
}
