//! Named volumes: `NAME:BOX[:ro]`, and the disks that they are to QEMU and to the guest.

use std::path::PathBuf;

use boxlite_proto::{DiskMount, TmpfsMount};
use boxlite_types::{Error, ErrorCause, Result, VolumeMount, is_volume_name};
use serde::{Deserialize, Serialize};

use super::VolumeSpec;
use super::spec::{MAX_VOLUMES, normal};

/// A named volume in one run of a box. Its open file, on which the volume's lock is, travels beside this.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamedDisk {
    /// The volume and where it is mounted.
    pub mount: VolumeMount,
    /// Its file on the host, absolute.
    pub path: PathBuf,
}

/// Parses `NAME:BOX[:ro]`; `None` for what is not that of a named volume, which [`super::parse_volume`] is for.
///
/// # Errors
/// `InvalidInput` for a path in the box, or options, that cannot be.
pub fn parse_named(text: &str) -> Result<Option<VolumeMount>> {
    let mut fields = text.splitn(3, ':');
    let (Some(name), Some(target)) = (fields.next(), fields.next()) else { return Ok(None) };
    if !is_volume_name(name) {
        return Ok(None);
    }
    let mount = normal(target).and_then(|target| {
        let read_only = read_only(fields.next())?;
        Ok(VolumeMount { name: name.to_owned(), target, read_only })
    });
    mount
        .map(Some)
        .map_err(|error| error.while_doing(format_args!("volume {text:?}")).about(ErrorCause::Volume))
}

fn read_only(options: Option<&str>) -> Result<bool> {
    match options {
        None | Some("rw") => Ok(false),
        Some("ro") => Ok(true),
        Some(other) => Err(Error::invalid(format!(
            "option {other:?} is none of ro and rw; other options are for directories of the host"
        ))),
    }
}

/// Writes what [`parse_named`] reads.
pub fn named_text(mount: &VolumeMount) -> String {
    format!("{}:{}:{}", mount.name, mount.target, if mount.read_only { "ro" } else { "rw" })
}

/// Refuses what one box can't mount beside `specs` and `tmpfs`: two things at one path, one volume twice, or more volumes
/// of both kinds than [`MAX_VOLUMES`].
///
/// # Errors
/// `InvalidInput`, and `Unsupported` for too many.
pub fn check_named(named: &[VolumeMount], specs: &[VolumeSpec], tmpfs: &[TmpfsMount]) -> Result<()> {
    let count = named.len() + specs.len();
    if count > MAX_VOLUMES {
        return Err(Error::unsupported(format!(
            "a box can have {MAX_VOLUMES} volumes, and {count} were asked for"
        )));
    }
    for (at, mount) in named.iter().enumerate() {
        if named[..at].iter().any(|other| other.name == mount.name) {
            return Err(Error::invalid(format!(
                "volume '{}' is asked for twice; a box mounts a named volume once",
                mount.name
            )));
        }
        let others = specs.iter().map(|spec| &spec.target).chain(tmpfs.iter().map(|tmpfs| &tmpfs.target));
        let mut others = others.chain(named[..at].iter().map(|other| &other.target));
        if others.any(|target| *target == mount.target) {
            return Err(Error::invalid(format!(
                "volume '{}' and something else want to be mounted at {:?} in the box",
                mount.name, mount.target
            )));
        }
    }
    Ok(())
}

/// Returns the mounts that the guest agent is told to make.
pub fn disk_mounts(named: &[VolumeMount]) -> Vec<DiskMount> {
    let mount = |(index, mount): (usize, &VolumeMount)| DiskMount {
        serial: serial(index),
        name: mount.name.clone(),
        target: mount.target.clone(),
        read_only: mount.read_only,
    };
    named.iter().enumerate().map(mount).collect()
}

/// The serial number by which the guest tells a volume's disk from others; the root disk has none.
pub(crate) fn serial(index: usize) -> String {
    format!("volume{index}")
}

#[cfg(test)]
mod tests {
    use boxlite_types::ErrorKind;

    use super::*;
    use crate::volume::{parse_tmpfs, parse_volume};

    #[test]
    fn names_are_told_from_paths() {
        for (text, name, target, read_only) in [
            ("data:/x", "data", "/x", false),
            ("data:/x:rw", "data", "/x", false),
            ("a.b-c_1://x/./y/:ro", "a.b-c_1", "/x/y", true),
        ] {
            let mount = parse_named(text).unwrap().unwrap();
            let expected = VolumeMount { name: name.into(), target: target.into(), read_only };
            assert_eq!(mount, expected, "{text}");
            assert_eq!(parse_named(&named_text(&mount)).unwrap(), Some(mount));
        }
        for text in
            ["/a:/b", "./a:/b", ".:/b", "../a:/b", "~/a:/b", "a/b:/c", ".a:/b", "-a:/b", "", "data", ":/b"]
        {
            assert_eq!(parse_named(text).unwrap(), None, "{text}");
        }
        for text in [
            "data:x",
            "data:",
            "data:/",
            "data:/proc",
            "data:/a/../b",
            "data:/x:U",
            "data:/x:ro,rw",
            "data:/x:",
        ] {
            let error = parse_named(text).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{text}");
            assert!(error.chain().to_string().contains(&format!("{text:?}")), "{text}: {error}");
        }
    }

    #[test]
    fn a_box_mounts_one_thing_at_a_path_and_a_volume_once() {
        let named = |texts: &[&str]| -> Vec<VolumeMount> {
            texts.iter().map(|text| parse_named(text).unwrap().unwrap()).collect()
        };
        let path = [parse_volume("/h:/shared").unwrap()];
        let memory = [parse_tmpfs("/memory").unwrap()];
        check_named(&named(&["a:/a", "b:/a/b"]), &path, &memory).unwrap();
        for (volumes, says) in [
            (&["a:/x", "a:/y"][..], "asked for twice"),
            (&["a:/x", "b:/x"], "want to be mounted"),
            (&["a:/shared"], "want to be mounted"),
            (&["a:/memory/"], "want to be mounted"),
        ] {
            let error = check_named(&named(volumes), &path, &memory).unwrap_err();
            assert!(error.kind() == ErrorKind::InvalidInput && error.to_string().contains(says), "{error}");
        }
        let many: Vec<String> = (0..MAX_VOLUMES).map(|n| format!("v{n}:/{n}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        check_named(&named(&many), &[], &[]).unwrap();
        assert_eq!(check_named(&named(&many), &path, &[]).unwrap_err().kind(), ErrorKind::Unsupported);
    }
}
