//! Which box is meant, and which server is to have a new one. Pure decisions.

use std::cmp::Reverse;

use boxlite_types::wire::ServerReadiness;
use boxlite_types::{Error, Result};

/// The share of a box of the usual kind in a server, for comparing disk with memory.
const USUAL_DISK: u128 = 1 << 30;
const USUAL_MEMORY: u128 = 512 << 20;

/// A box that a server knows by what was asked for.
#[derive(Debug, Clone, Copy)]
pub(super) struct BoxCandidate<'a> {
    pub(super) node: &'a str,
    pub(super) id: &'a str,
    pub(super) name: &'a str,
}

/// The position of the box that `wanted` means: the one of that id, else of that name, else whose id begins so; `None`
/// where there is none. With `heard_all` unset, a server is silent that may have a box of that name, so no beginning of
/// an id counts.
///
/// # Errors
/// `InvalidInput` when several servers have such a box, naming them.
pub(super) fn choose_box(
    wanted: &str,
    candidates: &[BoxCandidate<'_>],
    heard_all: bool,
) -> Result<Option<usize>> {
    let rank = |it: &BoxCandidate<'_>| {
        if it.id == wanted {
            0
        } else if it.name == wanted {
            1
        } else {
            2
        }
    };
    let Some(best) = candidates.iter().map(rank).min().filter(|rank| heard_all || *rank < 2) else {
        return Ok(None);
    };
    let mut meant = (0..candidates.len()).filter(|position| rank(&candidates[*position]) == best);
    if let (first, None) = (meant.next(), meant.next()) {
        return Ok(first);
    }
    let of_rank = candidates.iter().filter(|it| rank(it) == best);
    let places: Vec<String> = of_rank.map(|it| format!("{} ({})", it.node, it.id)).collect();
    Err(Error::invalid(format!(
        "'{wanted}' is ambiguous: there is such a box on {}; give its id",
        places.join(" and on ")
    )))
}

/// The positions of the servers that answered, the one with most room first: first those that would admit a start, by
/// how many usual boxes fit into disk and memory both; those that do not say how much room they have come last of these.
pub(super) fn by_room(answers: &[Option<ServerReadiness>]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..answers.len()).filter(|position| answers[*position].is_some()).collect();
    order.sort_by_key(|position| {
        let answer = answers[*position].as_ref();
        Reverse((answer.is_some_and(ServerReadiness::is_ready), answer.and_then(fitting)))
    });
    order
}

/// How many usual boxes fit, in thousandths.
fn fitting(answer: &ServerReadiness) -> Option<u128> {
    let room = answer.room?;
    let disk = room.disk.map(|bytes| u128::from(bytes) * 1000 / USUAL_DISK);
    let memory = room.memory.map(|bytes| u128::from(bytes) * 1000 / USUAL_MEMORY);
    match (disk, memory) {
        (Some(disk), Some(memory)) => Some(disk.min(memory)),
        (one, other) => one.or(other),
    }
}

#[cfg(test)]
mod tests {
    use boxlite_types::wire::Room;

    use super::*;

    #[test]
    fn a_box_is_meant_by_its_id_then_its_name_then_the_beginning_of_its_id() {
        let candidate = |node, id, name| BoxCandidate { node, id, name };
        let (a, b) = (candidate("http://a", "abc1", "web"), candidate("http://b", "def2", "abc"));
        let c = candidate("http://c", "abcdef", "other");
        assert_eq!(choose_box("abc", &[], true).unwrap(), None);
        assert_eq!(choose_box("abc", &[a, b, c], true).unwrap(), Some(1), "the name before two beginnings");
        assert_eq!(choose_box("abc1", &[a, candidate("http://b", "9", "abc1")], true).unwrap(), Some(0));
        assert_eq!(choose_box("abcd", &[c], true).unwrap(), Some(0));
        assert_eq!(
            choose_box("abcd", &[c], false).unwrap(),
            None,
            "a box of a silent server may be called so"
        );
        let error = choose_box("abc", &[a, c], true).unwrap_err().to_string();
        assert!(error.contains("http://a (abc1) and on http://c (abcdef)"), "{error}");
        let twice = choose_box("web", &[a, candidate("http://b", "1", "web")], true).unwrap_err().to_string();
        assert!(twice.contains("http://a") && twice.contains("http://b"), "{twice}");
    }

    fn answer(ready: bool, disk: Option<u64>, memory: Option<u64>) -> ServerReadiness {
        let full = || ServerReadiness::not_ready("full".to_owned());
        let answer = if ready { ServerReadiness::ready() } else { full() };
        answer.with_room(Some(Room { disk, memory }))
    }

    #[test]
    fn the_server_with_most_room_comes_first() {
        const G: u64 = 1 << 30;
        let much_disk = Some(answer(true, Some(900 * G), Some(G)));
        let balanced = Some(answer(true, Some(20 * G), Some(20 * G)));
        let full = Some(answer(false, Some(0), Some(500 * G)));
        let silent = Some(answer(true, None, None));
        let old = Some(ServerReadiness::ready());
        let order = by_room(&[full.clone(), much_disk.clone(), None, balanced.clone(), old.clone(), silent]);
        assert_eq!(order, [3, 1, 4, 5, 0]);
        assert_eq!(by_room(&[5, 6].map(|disk| Some(answer(true, Some(disk * G), None)))), [1, 0]);
        assert_eq!(by_room(&[balanced.clone(), balanced]), [0, 1], "as they are named");
        assert_eq!(by_room(&[None]), [0_usize; 0]);
    }
}
