//! The guest's network card as arguments of its QEMU.

use std::os::fd::{AsRawFd, OwnedFd};

use super::MacAddr;

/// Arguments for a virtio-mmio network card whose frames pass through `card`: all of the network that a box's QEMU has.
pub fn card_arguments(mac: MacAddr, card: &OwnedFd) -> Vec<String> {
    [
        "-netdev".to_owned(),
        format!("stream,id=card,addr.type=fd,addr.str={}", card.as_raw_fd()),
        "-device".to_owned(),
        format!("virtio-net-device,netdev=card,mac={mac}"),
    ]
    .into()
}
