//! Where the disks of boxes lie.

use std::path::PathBuf;

use crate::home::Home;

/// The overlay of the box `name`.
pub(crate) fn overlay(home: &Home, name: &str) -> PathBuf {
    let id = home.run(&["inspect", name]).json()[0]["id"].as_str().unwrap().to_owned();
    home.path().join("boxes").join(id).join("disks/root.qcow2")
}
