//! Volumes as users write them: `HOST:BOX[:OPTIONS]`.

use std::fmt;
use std::path::{Component, Path, PathBuf};

use boxlite_home::settings::Bytes;
use boxlite_proto::TmpfsMount;
use boxlite_types::{Error, ErrorCause, Result};

/// Volumes of a box: they fit on its virtio-mmio bus beside disk, channel and network card.
pub const MAX_VOLUMES: usize = 16;

/// Filesystems in memory that one box mounts.
pub const MAX_TMPFS: usize = 64;

/// A volume as written; [`super::resolve`] finds its directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeSpec {
    /// The directory or file on the host, absolute, or relative with a leading `.`.
    pub source: PathBuf,
    /// The absolute path in the box, without `.`, `..`, doubled or trailing slashes.
    pub target: String,
    /// Whether the box may not write.
    pub read_only: bool,
    /// As in [`boxlite_types::Volume::map_ids`].
    pub map_ids: bool,
    /// As in [`boxlite_types::Volume::size`].
    pub size: Option<u64>,
}

impl fmt::Display for VolumeSpec {
    /// Writes what [`parse_volume`] reads.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let access = if self.read_only { "ro" } else { "rw" };
        let ids = if self.map_ids { ",U" } else { "" };
        let size = self.size.map(|size| format!(",size={size}")).unwrap_or_default();
        write!(f, "{}:{}:{access}{ids}{size}", self.source.display(), self.target)
    }
}

/// Parses `HOST:BOX[:OPTIONS]`, where options are `ro` or `rw`, `U` and `size=`, with commas between them.
///
/// `HOST` is absolute or begins with `.`; a bare name is a named volume, which [`super::parse_named`] is for, and here
/// [`boxlite_types::ErrorKind::Unsupported`]. A path with a colon can't be written, as in Docker.
pub fn parse_volume(text: &str) -> Result<VolumeSpec> {
    parse(text).map_err(|error| error.while_doing(format_args!("volume {text:?}")).about(ErrorCause::Volume))
}

fn parse(text: &str) -> Result<VolumeSpec> {
    let fields: Vec<&str> = text.split(':').collect();
    let (source, target, options) = match fields[..] {
        [source, target] => (source, target, ""),
        [source, target, options] => (source, target, options),
        _ => return Err(Error::invalid("expected HOST:BOX[:ro][,U][,size=SIZE]")),
    };
    let (mut access, mut map_ids, mut size) = (None, false, None);
    let given = (fields.len() > 2).then(|| options.split(','));
    for option in given.into_iter().flatten() {
        match option {
            "ro" | "rw" if access.is_none() => access = Some(option),
            "ro" | "rw" => return Err(Error::invalid("ro and rw are said once, and not both")),
            "U" => map_ids = true,
            other => match other.strip_prefix("size=") {
                Some(_) if size.is_some() => return Err(Error::invalid("size= is said once")),
                Some(text) => size = Some(quota(text)?),
                None => {
                    return Err(Error::invalid(format!("option {other:?} is none of ro, rw, U and size=")));
                }
            },
        }
    }
    if text.contains('\0') {
        return Err(Error::invalid("a path can't contain a NUL byte"));
    }
    if source.is_empty() {
        return Err(Error::invalid("the host's directory or file is missing"));
    }
    let is_path = |text: &str| text.starts_with('/') || matches!(text, "." | "..") || text.starts_with("./");
    if !is_path(source) && !source.starts_with("../") {
        return Err(Error::unsupported(format!(
            "{source:?} is neither a path nor the name of a volume; for the directory of that name write ./{source}"
        )));
    }
    let read_only = access == Some("ro");
    if read_only && size.is_some() {
        return Err(Error::invalid("a read-only volume does not grow, so size= has no meaning with ro"));
    }
    Ok(VolumeSpec { source: source.into(), target: normal(target)?, read_only, map_ids, size })
}

fn quota(text: &str) -> Result<u64> {
    match text.parse::<Bytes>().map_err(|error| Error::invalid(error.to_string()))?.0 {
        0 => Err(Error::invalid("a size of 0 lets the box add nothing; ro says that")),
        bytes => Ok(bytes),
    }
}

/// Returns the path in the box without what is doubled or superfluous; refuses those where nothing can be mounted.
pub(super) fn normal(target: &str) -> Result<String> {
    if !target.starts_with('/') {
        return Err(Error::invalid(format!("the path in the box, {target:?}, is not absolute")));
    }
    let mut out = String::new();
    for component in Path::new(target).components() {
        match component {
            Component::Normal(name) => {
                out.push('/');
                out.push_str(&name.to_string_lossy());
            }
            Component::ParentDir => {
                return Err(Error::invalid(format!("the path in the box, {target:?}, contains \"..\"")));
            }
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    // A mount there would take away what the agent and the box stand on.
    let reserved = ["", "/proc", "/sys", "/dev"];
    if reserved.contains(&out.as_str()) || reserved[1..].iter().any(|dir| out.starts_with(&format!("{dir}/")))
    {
        return Err(Error::invalid(format!("nothing can be mounted at {target:?} in the box")));
    }
    Ok(out)
}

/// Refuses what one box can't mount: two things at one path, more volumes than [`MAX_VOLUMES`], or more filesystems in
/// memory than [`MAX_TMPFS`].
pub fn check_set(specs: &[VolumeSpec], tmpfs: &[TmpfsMount]) -> Result<()> {
    if specs.len() > MAX_VOLUMES {
        return Err(Error::unsupported(format!(
            "a box can have {MAX_VOLUMES} volumes, and {} were asked for",
            specs.len()
        )));
    }
    if tmpfs.len() > MAX_TMPFS {
        return Err(Error::unsupported(format!(
            "a box can have {MAX_TMPFS} tmpfs, and {} were asked for",
            tmpfs.len()
        )));
    }
    let mut seen = std::collections::HashMap::new();
    let volumes = specs.iter().map(|spec| ("a volume", &spec.target));
    for (what, target) in volumes.chain(tmpfs.iter().map(|mount| ("a tmpfs", &mount.target))) {
        if let Some(other) = seen.insert(target, what) {
            return Err(Error::invalid(format!(
                "{other} and {what} want to be mounted at {target:?} in the box"
            )));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use boxlite_types::ErrorKind;

    #[test]
    fn every_form() {
        for (text, source, target, read_only) in [
            ("/data:/data", "/data", "/data", false),
            ("/data:/data:ro", "/data", "/data", true),
            ("/data:/data:rw", "/data", "/data", false),
            (".:/work", ".", "/work", false),
            ("..:/work", "..", "/work", false),
            ("./a b:/work", "./a b", "/work", false),
            ("../x:/work", "../x", "/work", false),
            ("/:/host:ro", "/", "/host", true),
            ("/d://srv/./x//", "/d", "/srv/x", false),
            ("/d:/devices", "/d", "/devices", false),
        ] {
            let (source, target) = (source.into(), target.into());
            let expected = VolumeSpec { source, target, read_only, map_ids: false, size: None };
            assert_eq!(parse_volume(text).unwrap(), expected, "{text}");
        }
        for (options, read_only) in [("U", false), ("rw,U", false), ("ro,U", true), ("U,ro", true)] {
            let spec = parse_volume(&format!("/a:/b:{options}")).unwrap();
            assert_eq!((spec.read_only, spec.map_ids), (read_only, true), "{options}");
        }
        for (options, bytes) in [("size=2g", 2 << 30), ("U,size=1MiB,rw", 1 << 20), ("size=4096", 4096)] {
            let spec = parse_volume(&format!("/a:/b:{options}")).unwrap();
            assert_eq!(spec.size, Some(bytes), "{options}");
            assert_eq!(parse_volume(&spec.to_string()).unwrap(), spec);
        }
    }

    #[test]
    fn what_is_malformed_says_what_and_names_the_text() {
        for (text, says) in [
            ("", "expected"),
            ("/data", "expected"),
            ("/a:/b:ro:x", "expected"),
            (":/b", "missing"),
            ("/a:", "not absolute"),
            ("/a:b", "not absolute"),
            ("/a:/b:", "none of ro, rw, U and size="),
            ("/a:/b:z", "none of ro, rw, U and size="),
            ("/a:/b:ro,", "none of ro, rw, U and size="),
            ("/a:/b:size=1g,size=1g", "said once"),
            ("/a:/b:size=", "size"),
            ("/a:/b:size=0", "a size of 0"),
            ("/a:/b:size=1g,ro", "no meaning with ro"),
            ("/a:/b:ro,rw", "not both"),
            ("/a:/b/../c", "\"..\""),
            ("/a:/", "nothing can be mounted"),
            ("/a:/.", "nothing can be mounted"),
            ("/a:/proc", "nothing can be mounted"),
            ("/a:/dev/shm", "nothing can be mounted"),
            ("/a\0:/b", "NUL"),
        ] {
            let error = parse_volume(text).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{text}: {error}");
            let message = error.chain().to_string();
            assert!(message.contains(says) && message.contains(&format!("{text:?}")), "{text}: {message}");
        }
        for text in ["data:/x", "~/x:/x", "a/b:/x", ".x:/x"] {
            assert_eq!(parse_volume(text).unwrap_err().kind(), ErrorKind::Unsupported, "{text}");
        }
    }

    #[test]
    fn one_target_is_mounted_once() {
        let specs = |targets: &[&str]| -> Vec<VolumeSpec> {
            targets.iter().map(|target| parse_volume(&format!("/x:{target}")).unwrap()).collect()
        };
        let tmpfs = |target: &str| crate::volume::parse_tmpfs(target).unwrap();
        check_set(&specs(&["/a", "/a/b", "/b"]), &[tmpfs("/c"), tmpfs("/a/c")]).unwrap();
        for (volumes, memory, says) in [
            (&["/a", "/b", "/a/"][..], &[][..], "a volume and a volume"),
            (&["/a"], &["/b", "/a/."], "a volume and a tmpfs"),
            (&[], &["/a", "//a"], "a tmpfs and a tmpfs"),
        ] {
            let memory: Vec<_> = memory.iter().map(|target| tmpfs(target)).collect();
            let error = check_set(&specs(volumes), &memory).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
            assert!(error.to_string().contains(says), "{error}");
        }
        let memory: Vec<_> = (0..=MAX_TMPFS).map(|n| tmpfs(&format!("/{n}"))).collect();
        check_set(&[], &memory[1..]).unwrap();
        assert_eq!(check_set(&[], &memory).unwrap_err().kind(), ErrorKind::Unsupported);
        let many: Vec<String> = (0..=MAX_VOLUMES).map(|n| format!("/{n}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        check_set(&specs(&many[1..]), &[]).unwrap();
        assert_eq!(check_set(&specs(&many), &[]).unwrap_err().kind(), ErrorKind::Unsupported);
    }

    proptest! {
        #[test]
        fn no_text_panics_and_targets_are_normal(text in "[./a:ro]{0,16}|\\PC{0,16}") {
            if let Ok(spec) = parse_volume(&text) {
                prop_assert!(spec.target.starts_with('/') && !spec.target.ends_with('/'), "{}", spec.target);
                prop_assert!(spec.target.split('/').skip(1).all(|part| !["", ".", ".."].contains(&part)));
            }
        }
    }
}
