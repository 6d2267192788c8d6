//! Finds the program to execute and makes its environment. Pure.

/// The search path of an environment without `PATH`.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Makes the environment of a process: the defaults, then `asked`, which replaces entries of the same name.
pub(super) fn environment(asked: &[String], hostname: &str, home: &str, terminal: bool) -> Vec<String> {
    let mut all = vec![format!("PATH={DEFAULT_PATH}"), format!("HOSTNAME={hostname}")];
    if terminal {
        all.push("TERM=xterm".to_owned());
    }
    all.push(format!("HOME={home}"));
    for entry in asked {
        let name = entry.split('=').next().unwrap_or_default();
        let same = |known: &String| known.split('=').next() == Some(name);
        match all.iter_mut().find(|known| same(known)) {
            Some(known) => known.clone_from(entry),
            None => all.push(entry.clone()),
        }
    }
    all
}

/// Returns the paths to try for `program`, in order.
pub(super) fn candidates(program: &str, environment: &[String]) -> Vec<String> {
    if program.contains('/') {
        return vec![program.to_owned()];
    }
    let path = environment.iter().find_map(|entry| entry.strip_prefix("PATH=")).unwrap_or(DEFAULT_PATH);
    path.split(':')
        .map(
            |directory| {
                if directory.is_empty() { format!("./{program}") } else { format!("{directory}/{program}") }
            },
        )
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strings(list: &[&str]) -> Vec<String> {
        list.iter().map(|&s| s.to_owned()).collect()
    }

    #[test]
    fn what_was_asked_for_replaces_defaults() {
        let env = environment(&strings(&["A=1", "PATH=/x", "A=2=3", "HOME=/h"]), "box", "/root", true);
        assert_eq!(env, strings(&["PATH=/x", "HOSTNAME=box", "TERM=xterm", "HOME=/h", "A=2=3"]));
        assert!(!environment(&[], "box", "/", false).iter().any(|entry| entry.starts_with("TERM=")));
    }

    #[test]
    fn a_program_without_slash_is_looked_up() {
        let env = strings(&["PATH=/a::/b"]);
        assert_eq!(candidates("sh", &env), strings(&["/a/sh", "./sh", "/b/sh"]));
        assert_eq!(candidates("./sh", &env), strings(&["./sh"]));
        assert_eq!(candidates("sh", &[]).len(), 6);
    }
}
