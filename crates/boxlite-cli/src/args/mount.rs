//! `--mount`: what `-v` and `--tmpfs` say with colons, said with names.

use std::str::FromStr;

/// One `--mount`, written as the option that means the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum MountArg {
    /// `-v HOST:BOX[:OPTIONS]`.
    Volume(String),
    /// `--tmpfs BOX[:OPTIONS]`.
    Tmpfs(String),
}

/// Options of `-v` that other tools have for security labels, caches and propagation, and that mean nothing between a virtual
/// machine and its host.
const MEANINGLESS: [&str; 7] = ["z", "Z", "cached", "delegated", "consistent", "private", "rprivate"];

/// Returns a `-v` without the options that mean nothing here.
pub(crate) fn volume(text: &str) -> Result<String, String> {
    let mut fields = text.splitn(3, ':');
    match (fields.next(), fields.next(), fields.next()) {
        (Some(source), Some(target), Some(options)) => {
            let meant = options.split(',').filter(|option| !MEANINGLESS.contains(option)).collect::<Vec<_>>();
            let colon = if meant.is_empty() { "" } else { ":" };
            Ok(format!("{source}:{target}{colon}{}", meant.join(",")))
        }
        (Some(path), None, None) if path.starts_with('/') => Err(format!(
            "a volume without a name would be a directory of the box: leave it out, or name a volume (-v data:{path}) or a \
             directory of the host (-v HOST:{path})"
        )),
        _ => Ok(text.to_owned()),
    }
}

/// The fields that the user has given.
#[derive(Debug, Default)]
struct MountFields<'a> {
    kind: Option<&'a str>,
    source: Option<&'a str>,
    target: Option<&'a str>,
    read_only: Option<bool>,
    map_ids: Option<bool>,
    size: Option<&'a str>,
    mode: Option<&'a str>,
    /// By how much the box may make the directory grow.
    growth: Option<&'a str>,
}

impl FromStr for MountArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let fields = fields(text)?;
        let target = fields.target.ok_or("target=PATH is missing, the path in the box")?;
        if let Some(path) =
            [Some(target), fields.source].into_iter().flatten().find(|path| path.contains(':'))
        {
            return Err(format!("the path {path:?} has a colon, which boxlite can't mount"));
        }
        match fields.kind {
            Some("bind") => fields.volume(target),
            Some("tmpfs") => fields.tmpfs(target),
            None | Some("volume") => fields.named(target),
            Some(other) => Err(format!("type={other} is none of volume, bind and tmpfs")),
        }
    }
}

impl MountFields<'_> {
    fn volume(&self, target: &str) -> Result<MountArg, String> {
        if self.size.is_some() || self.mode.is_some() {
            return Err("tmpfs-size and tmpfs-mode are for type=tmpfs".into());
        }
        let source = self.source.ok_or("source=PATH is missing, the directory on the host")?;
        if !source.starts_with(['/', '.']) {
            return Err(format!("source={source} is not a path; write an absolute one, or ./{source}"));
        }
        let access = if self.read_only == Some(true) { "ro" } else { "rw" };
        let ids = if self.map_ids == Some(true) { ",U" } else { "" };
        let size = self.growth.map(|size| format!(",size={size}")).unwrap_or_default();
        Ok(MountArg::Volume(format!("{source}:{target}:{access}{ids}{size}")))
    }

    fn named(&self, target: &str) -> Result<MountArg, String> {
        if self.size.is_some() || self.mode.is_some() {
            return Err("tmpfs-size and tmpfs-mode are for type=tmpfs".into());
        }
        if self.map_ids.is_some() {
            return Err("U is for type=bind".into());
        }
        if self.growth.is_some() {
            return Err(
                "size is for type=bind; a volume has its size from `boxlite volume create --size`".into()
            );
        }
        let source = self.source.ok_or("source=NAME is missing, the volume's name")?;
        if !boxlite::is_volume_name(source) {
            return Err(format!(
                "source={source} is not a name for a volume; type=bind shares a directory of the host"
            ));
        }
        let access = if self.read_only == Some(true) { "ro" } else { "rw" };
        Ok(MountArg::Volume(format!("{source}:{target}:{access}")))
    }

    fn tmpfs(&self, target: &str) -> Result<MountArg, String> {
        if self.source.is_some() {
            return Err("a tmpfs has no source".into());
        }
        if self.map_ids.is_some() {
            return Err("U is for type=bind".into());
        }
        if self.growth.is_some() {
            return Err("size is for type=bind; a tmpfs has tmpfs-size".into());
        }
        let access = if self.read_only == Some(true) { "ro" } else { "rw" };
        let size = self.size.map(|size| format!(",size={size}")).unwrap_or_default();
        let mode = self.mode.map(|mode| format!(",mode={mode}")).unwrap_or_default();
        Ok(MountArg::Tmpfs(format!("{target}:{access}{size}{mode}")))
    }
}

fn fields(text: &str) -> Result<MountFields<'_>, String> {
    let mut fields = MountFields::default();
    for field in text.split(',') {
        let (name, value) = field.split_once('=').map_or((field, None), |(name, value)| (name, Some(value)));
        match name {
            "type" => once(&mut fields.kind, name, word(name, value)?)?,
            "source" | "src" => once(&mut fields.source, name, word(name, value)?)?,
            "target" | "destination" | "dst" => once(&mut fields.target, name, word(name, value)?)?,
            "readonly" | "ro" => once(&mut fields.read_only, name, switch(name, value)?)?,
            "U" => once(&mut fields.map_ids, name, switch(name, value)?)?,
            "size" => once(&mut fields.growth, name, word(name, value)?)?,
            "tmpfs-size" => once(&mut fields.size, name, word(name, value)?)?,
            "tmpfs-mode" => once(&mut fields.mode, name, word(name, value)?)?,
            // As for `-v`.
            "consistency" | "bind-propagation" if value.is_some_and(|value| MEANINGLESS.contains(&value)) => {
            }
            "volume-driver" if value == Some("local") => {}
            _ => {
                return Err(format!(
                    "{field:?} is none of type, source, target, readonly, U, size, tmpfs-size and tmpfs-mode"
                ));
            }
        }
    }
    Ok(fields)
}

fn once<T>(slot: &mut Option<T>, name: &str, value: T) -> Result<(), String> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(format!("{name} is said a second time, perhaps by another of its names")),
    }
}

fn word<'a>(name: &str, value: Option<&'a str>) -> Result<&'a str, String> {
    value.filter(|value| !value.is_empty()).ok_or_else(|| format!("{name} has no value"))
}

fn switch(name: &str, value: Option<&str>) -> Result<bool, String> {
    match value {
        None | Some("true" | "1") => Ok(true),
        Some("false" | "0") => Ok(false),
        Some(other) => Err(format!("{name}={other} is neither true nor false")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_is_another_option_s() {
        let volume = |text: &str| Ok(MountArg::Volume(text.into()));
        let tmpfs = |text: &str| Ok(MountArg::Tmpfs(text.into()));
        assert_eq!("type=bind,source=/a,target=/b".parse(), volume("/a:/b:rw"));
        assert_eq!("ro,dst=/b,src=./a,type=bind".parse(), volume("./a:/b:ro"));
        assert_eq!("type=bind,src=/a,dst=/b,size=2g,U".parse(), volume("/a:/b:rw,U,size=2g"));
        assert_eq!("type=bind,src=/a,destination=/b,readonly=false,U".parse(), volume("/a:/b:rw,U"));
        assert_eq!("type=volume,src=data,dst=/b,readonly".parse(), volume("data:/b:ro"));
        assert_eq!("src=data,dst=/b".parse(), volume("data:/b:rw"));
        assert_eq!("src=data,dst=/b,volume-driver=local".parse(), volume("data:/b:rw"));
        assert_eq!(
            "type=bind,src=/a,dst=/b,bind-propagation=rprivate,consistency=cached".parse(),
            volume("/a:/b:rw")
        );
        assert_eq!("type=tmpfs,dst=/t".parse(), tmpfs("/t:rw"));
        assert_eq!(
            "type=tmpfs,dst=/t,tmpfs-size=64m,tmpfs-mode=0700,ro".parse(),
            tmpfs("/t:ro,size=64m,mode=0700")
        );
    }

    /// Mutation tried: nothing is left out, which the library refuses.
    #[test]
    fn options_of_other_tools_are_left_out() {
        let read = |text: &str| volume(text).unwrap();
        for (text, meant) in [
            ("/a:/b:z", "/a:/b"),
            ("/a:/b:ro,Z", "/a:/b:ro"),
            ("/a:/b:delegated,rw,size=1g", "/a:/b:rw,size=1g"),
            ("data:/b:ro", "data:/b:ro"),
            ("/a:/b:zz", "/a:/b:zz"),
            ("data", "data"),
            ("a:b:c:d", "a:b:c:d"),
        ] {
            assert_eq!(read(text), meant);
        }
        assert!(volume("/cache").unwrap_err().contains("-v data:/cache"));
    }

    #[test]
    fn what_is_malformed_says_what() {
        for (text, part) in [
            ("", "is none of type"),
            ("type=bind", "target=PATH is missing"),
            ("type=bind,dst=/b", "source=PATH is missing"),
            ("type=bind,src=data,dst=/b", "./data"),
            ("type=bind,src=/a:b,dst=/b", "colon"),
            ("type=bind,src=/a,dst=/b:U", "colon"),
            ("type=bind,src=,dst=/b", "src has no value"),
            ("type=bind,src=/a,source=/c,dst=/b", "second time"),
            ("type=bind,src=/a,dst=/b,tmpfs-size=1m", "for type=tmpfs"),
            ("type=bind,src=/a,dst=/b,size=", "size has no value"),
            ("type=tmpfs,dst=/b,size=1m", "tmpfs-size"),
            ("type=volume,src=a,dst=/b,size=1g", "volume create --size"),
            ("type=bind,src=/a,dst=/b,ro=maybe", "neither true nor false"),
            ("type=bind,src=/a,dst=/b,bind-propagation=shared", "is none of type"),
            ("type=tmpfs,src=/a,dst=/b", "no source"),
            ("type=tmpfs,dst=/b,U", "for type=bind"),
            ("type=volume,dst=/b", "source=NAME is missing"),
            ("src=./data,dst=/b", "not a name for a volume"),
            ("type=volume,src=data,dst=/b,U", "for type=bind"),
            ("type=volume,src=data,dst=/b,tmpfs-size=1m", "for type=tmpfs"),
            ("type=npipe,src=a,dst=/b", "none of volume, bind and tmpfs"),
        ] {
            let error = text.parse::<MountArg>().unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
