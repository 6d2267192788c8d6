//! Parameters of the guest's kernel that the box's options name.

use std::path::{Component, Path};

use boxlite_proto::Sysctl;

/// Sets each parameter.
///
/// # Errors
/// One sentence that names the first that cannot be set: what the command relies on must not be missing in silence.
pub(super) fn apply(sysctls: &[Sysctl]) -> Result<(), String> {
    for Sysctl { path, value } in sysctls {
        let failed =
            |why: String| format!("setting the kernel's parameter {path} to {value:?} failed: {why}");
        let relative = Path::new(path);
        if !relative.components().all(|part| matches!(part, Component::Normal(_))) {
            return Err(failed("it is not a path below /proc/sys".into()));
        }
        let file = Path::new("/proc/sys").join(relative);
        let written = std::fs::OpenOptions::new().write(true).open(file);
        written
            .and_then(|mut file| std::io::Write::write_all(&mut file, value.as_bytes()))
            .map_err(|error| failed(error.to_string()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_leads_out_of_proc_sys_and_what_is_missing_is_named() {
        for path in ["../self/comm", "/etc/x", "kernel/../../x", "no/such_parameter"] {
            let refused = apply(&[Sysctl { path: path.into(), value: "1".into() }]).unwrap_err();
            assert!(refused.contains(path), "{refused}");
        }
        apply(&[]).unwrap();
    }
}
