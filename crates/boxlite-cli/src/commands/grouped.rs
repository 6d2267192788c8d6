//! Docker's ways to write a command that boxlite writes otherwise: `container ls`, `image rm`, `help run`, `-v`.

use std::ffi::OsString;

/// Options of every command that take a value as their next word.
const WITH_VALUE: [&str; 4] = ["--home", "--accel", "--url", "--api-key-file"];

/// Commands that Docker has both alone and below `container`, and what is not alone there.
const OF_CONTAINERS: [&str; 23] = [
    "attach", "commit", "cp", "create", "diff", "exec", "export", "inspect", "kill", "logs", "pause", "port",
    "rename", "restart", "rm", "run", "start", "stats", "stop", "top", "unpause", "update", "wait",
];

/// The same below `image`. `image push` is boxlite's own, and sends something else.
const OF_IMAGES: [&str; 6] = ["history", "import", "load", "pull", "save", "tag"];

/// Returns the command line in boxlite's words. What Docker does not have, or means otherwise, stays as it is.
pub(crate) fn in_own_words(mut line: Vec<OsString>) -> Vec<OsString> {
    let Some(at) = command(&line) else { return line };
    let word = |at: usize| line.get(at).and_then(|word| word.to_str()).unwrap_or_default().to_owned();
    let own: &[&str] = match (word(at).as_str(), word(at + 1).as_str()) {
        ("container", "ls" | "list" | "ps") => &["ls"],
        ("image", "ls" | "list") => &["images"],
        ("image", "rm" | "remove") => &["rmi"],
        ("image", "inspect") => &["inspect", "--type", "image"],
        ("container", "inspect") => &["inspect", "--type", "box"],
        ("container", "remove") => &["rm"],
        ("system", "events") => &["events"],
        ("container", name) => match OF_CONTAINERS.iter().find(|known| **known == name) {
            Some(name) => &[*name],
            None => return line,
        },
        ("image", name) => match OF_IMAGES.iter().find(|known| **known == name) {
            Some(name) => &[*name],
            None => return line,
        },
        ("help", _) => {
            line.remove(at);
            line.push("--help".into());
            return line;
        }
        ("-v", "") => {
            line[at] = "--version".into();
            return line;
        }
        _ => return line,
    };
    line.splice(at..at + 2, own.iter().map(OsString::from));
    line
}

/// Returns where the command's name is: behind the options of every command.
fn command(line: &[OsString]) -> Option<usize> {
    let mut at = 1;
    loop {
        let word = line.get(at)?.to_str()?;
        at += match word {
            "-v" => return Some(at),
            word if WITH_VALUE.contains(&word) => 2,
            word if word.starts_with('-') => 1,
            _ => return Some(at),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own(line: &str) -> String {
        let words = line.split(' ').map(OsString::from).collect();
        let own: Vec<String> =
            in_own_words(words).into_iter().map(|word| word.into_string().unwrap_or_default()).collect();
        own.join(" ")
    }

    /// Mutations tried: the words after the command count; options of every command count as the command.
    #[test]
    fn groups_of_docker_lead_to_the_commands() {
        for (docker, ours) in [
            ("boxlite container ls -a", "boxlite ls -a"),
            ("boxlite --home /h container run --rm a image ls", "boxlite --home /h run --rm a image ls"),
            ("boxlite --url=u --debug image rm a", "boxlite --url=u --debug rmi a"),
            ("boxlite container inspect a", "boxlite inspect --type box a"),
            ("boxlite image inspect -f x a", "boxlite inspect --type image -f x a"),
            ("boxlite image save a", "boxlite save a"),
            ("boxlite system events --since 1m", "boxlite events --since 1m"),
            ("boxlite help run", "boxlite run --help"),
            ("boxlite help", "boxlite --help"),
            ("boxlite -v", "boxlite --version"),
        ] {
            assert_eq!(own(docker), ours);
        }
    }

    /// `container prune -f` asks nothing, and `rm --all -f` ends what runs: the two must not be taken for one another.
    #[test]
    fn what_means_something_else_stays() {
        for line in [
            "boxlite container prune -f",
            "boxlite image prune",
            "boxlite image push a",
            "boxlite image fetch a",
            "boxlite run container ls",
            "boxlite system df",
            "boxlite container",
            "boxlite",
            "boxlite --home",
            "boxlite run -v a:b i",
            "boxlite exec help run",
        ] {
            assert_eq!(own(line), line);
        }
    }
}
