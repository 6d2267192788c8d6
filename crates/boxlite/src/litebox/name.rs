//! Ids and names of boxes.

use boxlite_types::{Error, Result};
use rand::seq::IndexedRandom;

const ADJECTIVES: [&str; 32] = [
    "amber", "brave", "brisk", "calm", "clever", "cosmic", "crisp", "deft", "eager", "fancy", "fleet",
    "gentle", "golden", "happy", "jolly", "keen", "lively", "lucid", "mellow", "merry", "nimble", "noble",
    "patient", "proud", "quiet", "rapid", "sharp", "silent", "steady", "sunny", "swift", "witty",
];
const NOUNS: [&str; 32] = [
    "badger", "beacon", "birch", "cedar", "comet", "coral", "crane", "delta", "ember", "falcon", "fjord",
    "gecko", "harbor", "heron", "ibis", "juniper", "kestrel", "lagoon", "lark", "lynx", "maple", "meadow",
    "otter", "owl", "pebble", "pine", "quartz", "raven", "reef", "sparrow", "tundra", "willow",
];

/// A fresh id: 32 lower-case hex digits.
pub(crate) fn new_id() -> String {
    uuid::Uuid::new_v4().simple().to_string()
}

/// A name for a box whose creator gave none; unlikely, but not certain, to be free.
pub(crate) fn made_up() -> String {
    let mut rng = rand::rng();
    let pick =
        |words: &[&'static str; 32], rng: &mut rand::rngs::ThreadRng| *words.choose(rng).unwrap_or(&"box");
    let (adjective, noun) = (pick(&ADJECTIVES, &mut rng), pick(&NOUNS, &mut rng));
    format!("{adjective}-{noun}-{:04x}", rand::random::<u16>())
}

/// Checks a name that a user chose: `[A-Za-z0-9][A-Za-z0-9_.-]*`, at most 63 characters, as for containers.
pub(crate) fn check(name: &str) -> Result<()> {
    let first = name.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
    let rest = name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'));
    if name.len() == 32 && name.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err(Error::invalid(format!("'{name}' looks like the id of a box; choose another name")));
    }
    if first && rest && name.len() <= 63 {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "'{name}' is not a name for a box: use 1 to 63 of A-Z a-z 0-9 _ . - and begin with a letter or digit"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_rule_for_containers() {
        for good in ["a", "web-1", "A.b_c", &"x".repeat(63), &made_up()] {
            assert!(check(good).is_ok(), "{good}");
        }
        for bad in ["", "-a", ".a", "a/b", "a b", "ä", &"x".repeat(64), &new_id()] {
            assert!(check(bad).is_err(), "{bad}");
        }
    }
}
