//! Filesystems in a box's memory as users write them: `BOX[:OPTIONS]`, as for Docker's `--tmpfs`.

use boxlite_home::settings::Bytes;
use boxlite_proto::TmpfsMount;
use boxlite_types::{Error, ErrorCause, Result};

use super::spec::normal;

/// Parses `BOX[:OPTIONS]`, options with commas between them: `size=`, `mode=` (octal), `uid=`, `gid=`, `ro` or `rw`, `exec`
/// or `noexec`, `suid` or `nosuid`, `dev` or `nodev`.
///
/// As in Docker, the default is `rw,noexec,nosuid,nodev,mode=1777`, owned by root.
pub fn parse_tmpfs(text: &str) -> Result<TmpfsMount> {
    parse(text).map_err(|error| error.while_doing(format_args!("tmpfs {text:?}")).about(ErrorCause::Tmpfs))
}

fn parse(text: &str) -> Result<TmpfsMount> {
    if text.contains('\0') {
        return Err(Error::invalid("a path can't contain a NUL byte"));
    }
    let (target, options) = text.split_once(':').map_or((text, None), |(path, rest)| (path, Some(rest)));
    if target.trim_end_matches('/') == "/dev/shm" {
        return Err(Error::invalid("/dev/shm is a tmpfs already; --shm-size bounds it"));
    }
    let mut mount = TmpfsMount {
        target: normal(target)?,
        size: None,
        mode: 0o1777,
        uid: 0,
        gid: 0,
        read_only: false,
        exec: false,
        suid: false,
        dev: false,
    };
    let mut seen = Vec::new();
    for option in options.into_iter().flat_map(|options| options.split(',')) {
        let (name, value) =
            option.split_once('=').map_or((option, None), |(name, value)| (name, Some(value)));
        let subject = match name {
            "ro" | "rw" => "rw",
            other => other.strip_prefix("no").unwrap_or(other),
        };
        if seen.contains(&subject) {
            return Err(Error::invalid(format!("option {option:?} says a second time what was said before")));
        }
        seen.push(subject);
        match (name, value) {
            ("ro" | "rw", None) => mount.read_only = name == "ro",
            ("exec" | "noexec", None) => mount.exec = name == "exec",
            ("suid" | "nosuid", None) => mount.suid = name == "suid",
            ("dev" | "nodev", None) => mount.dev = name == "dev",
            ("size", Some(value)) => mount.size = Some(size(value)?),
            ("mode", Some(value)) => mount.mode = mode(value)?,
            ("uid", Some(value)) => mount.uid = id(value)?,
            ("gid", Some(value)) => mount.gid = id(value)?,
            _ => {
                return Err(Error::invalid(format!(
                    "option {option:?} is none of size=, mode=, uid=, gid=, ro, rw, exec, noexec, suid, nosuid, dev \
                     and nodev"
                )));
            }
        }
    }
    Ok(mount)
}

/// The kernel takes 0 for no bound at all, which is never what somebody means who writes a size.
fn size(text: &str) -> Result<u64> {
    let bytes = text.parse::<Bytes>().map_err(|error| Error::invalid(error.to_string()))?.0;
    if bytes == 0 {
        return Err(Error::invalid("a size of 0 would be no bound; leave it out, or say how much"));
    }
    Ok(bytes)
}

fn mode(text: &str) -> Result<u32> {
    let octal =
        text.len() <= 5 && !text.is_empty() && text.bytes().all(|digit| (b'0'..=b'7').contains(&digit));
    match u32::from_str_radix(text, 8) {
        Ok(mode) if octal && mode <= 0o7777 => Ok(mode),
        _ => Err(Error::invalid(format!("mode {text:?} is not an octal number such as 1777"))),
    }
}

fn id(text: &str) -> Result<u32> {
    text.parse().ok().filter(|&id| id != u32::MAX).ok_or_else(|| {
        Error::invalid(format!("{text:?} is not the number of a user or group; names are not looked up here"))
    })
}

#[cfg(test)]
mod tests {
    use boxlite_types::ErrorKind;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn defaults_are_docker_s_and_every_option_counts() {
        let plain = TmpfsMount {
            target: "/run".into(),
            size: None,
            mode: 0o1777,
            uid: 0,
            gid: 0,
            read_only: false,
            exec: false,
            suid: false,
            dev: false,
        };
        assert_eq!(parse_tmpfs("/run").unwrap(), plain);
        assert_eq!(parse_tmpfs("//run/.:rw,noexec,nosuid,nodev").unwrap(), plain);
        let all = parse_tmpfs("/run:size=64m,mode=0750,uid=7,gid=8,ro,exec,suid,dev").unwrap();
        let expected = TmpfsMount {
            size: Some(64 << 20),
            mode: 0o750,
            uid: 7,
            gid: 8,
            read_only: true,
            exec: true,
            suid: true,
            dev: true,
            ..plain
        };
        assert_eq!(all, expected);
    }

    #[test]
    fn what_is_malformed_says_what_and_names_the_text() {
        for (text, says) in [
            ("", "not absolute"),
            ("run", "not absolute"),
            ("/", "nothing can be mounted"),
            ("/proc", "nothing can be mounted"),
            ("/dev/shm:size=1g", "--shm-size"),
            ("/a/../b", "\"..\""),
            ("/a:", "is none of size="),
            ("/a:size", "is none of size="),
            ("/a:ro=1", "is none of size="),
            ("/a:size=0", "no bound"),
            ("/a:size=much", "512MiB"),
            ("/a:size=50%", "512MiB"),
            ("/a:mode=8", "octal"),
            ("/a:mode=", "octal"),
            ("/a:mode=+77", "octal"),
            ("/a:mode=10000", "octal"),
            ("/a:uid=app", "number of a user"),
            ("/a:gid=4294967295", "number of a user"),
            ("/a:ro,rw", "a second time"),
            ("/a:exec,noexec", "a second time"),
            ("/a:size=1m,size=2m", "a second time"),
            ("/a\0", "NUL"),
        ] {
            let error = parse_tmpfs(text).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{text}: {error}");
            let message = error.chain().to_string();
            assert!(message.contains(says) && message.contains(&format!("{text:?}")), "{text}: {message}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics_and_targets_are_normal(text in "[./a:=,ros]{0,16}|\\PC{0,16}") {
            if let Ok(mount) = parse_tmpfs(&text) {
                prop_assert!(mount.target.starts_with('/') && !mount.target.ends_with('/'), "{}", mount.target);
            }
        }
    }
}
