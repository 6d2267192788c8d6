//! Options of container tools that mean little or nothing in a virtual machine, accepted so that scripts keep working.

use clap::Args;

/// Options that every tool for containers has.
#[derive(Debug, Args)]
pub(crate) struct ContainerArgs {
    /// A box has an init of its own
    #[arg(long, hide = true)]
    init: bool,
    /// Root of a box has every capability of its machine
    #[arg(long, hide = true)]
    privileged: bool,
    /// As for `privileged`
    #[arg(long, hide = true, value_name = "CAPABILITY")]
    cap_add: Vec<String>,
    /// Has no effect
    #[arg(long, hide = true, value_name = "CAPABILITY")]
    cap_drop: Vec<String>,
    /// Has no effect
    #[arg(long, hide = true, value_name = "OPTION")]
    security_opt: Vec<String>,
    /// Only the host's own platform is to be had
    #[arg(long, hide = true, value_name = "OS/ARCH", value_parser = own_platform)]
    platform: Option<String>,
}

impl ContainerArgs {
    /// Returns what to say of options that take nothing away from a box although they should; `None` where none is given.
    pub(crate) fn note(&self) -> Option<String> {
        let without_effect =
            [("--cap-drop", self.cap_drop.is_empty()), ("--security-opt", self.security_opt.is_empty())];
        let given: Vec<&str> =
            without_effect.iter().filter(|(_, absent)| !absent).map(|&(option, _)| option).collect();
        (!given.is_empty()).then(|| {
            let (given, has) = (given.join(" and "), if given.len() == 1 { "has" } else { "have" });
            format!(
                "boxlite: note: {given} {has} no effect: a box's bounds are those of its virtual machine, \
                 and its root has every capability inside"
            )
        })
    }
}

/// Reads `linux/amd64` on a host of that architecture, and refuses every other platform.
fn own_platform(text: &str) -> Result<String, String> {
    let own = match std::env::consts::ARCH {
        "x86_64" => "linux/amd64",
        "aarch64" => "linux/arm64",
        other => other,
    };
    let is_variant = |rest: &str| rest.is_empty() || rest.starts_with('/');
    match text.strip_prefix(own) {
        Some(rest) if is_variant(rest) => Ok(text.to_owned()),
        _ => Err(format!("boxes run on the host's own processors, which are {own}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_host_s_platform_is_to_be_had() {
        #[cfg(target_arch = "x86_64")]
        let (own, other) = ("linux/amd64", "linux/arm64");
        #[cfg(target_arch = "aarch64")]
        let (own, other) = ("linux/arm64", "linux/amd64");
        assert!(own_platform(own).is_ok() && own_platform(&format!("{own}/v2")).is_ok());
        assert!(own_platform(other).is_err() && own_platform(&format!("{own}x")).is_err());
        assert!(own_platform("windows/amd64").is_err());
    }
}
