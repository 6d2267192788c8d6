//! Slurm: what it says of a node, and what it is told, both through `scontrol`.

use std::ffi::OsString;
use std::time::Duration;

use super::bounded::{self, ProgramLimit};

/// How long `scontrol` may take; a controller that is away is asked again at the next health check.
const SCONTROL_TIMEOUT: Duration = Duration::from_secs(15);

/// The beginning of the reason of every drain that is ours.
pub(crate) const PREFIX: &str = "boxlite: ";

/// The state of a node by Slurm's account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NodeState {
    /// Whether no further job begins there.
    pub(crate) drains: bool,
    /// Why, as whoever drained it said.
    pub(crate) reason: Option<String>,
}

impl NodeState {
    /// Reads the line that `scontrol --oneliner show node` prints; `None` where it names no state.
    fn parse(line: &str) -> Option<Self> {
        let state = line.split_whitespace().find_map(|field| field.strip_prefix("State="))?;
        let drains =
            state.split('+').any(|flag| flag.trim_end_matches(['*', '$', '~', '#']).starts_with("DRAIN"));
        // A reason may hold anything, white space and `=` too; Slurm appends who gave it and when.
        let reason = line.split_once(" Reason=").map(|(_, rest)| {
            let end = rest.rfind(" [").unwrap_or(rest.len());
            rest[..end].trim_end().to_owned()
        });
        Some(Self { drains, reason })
    }

    /// Tells whether it was drained by a health check or a prolog of ours.
    pub(crate) fn is_drained_by_us(&self) -> bool {
        self.drains && self.reason.as_deref().is_some_and(|reason| reason.starts_with(PREFIX))
    }
}

/// A node of a Slurm cluster.
#[derive(Debug, Clone)]
pub(crate) struct SlurmNode {
    name: String,
}

impl SlurmNode {
    /// The node with this name.
    pub(crate) fn new(name: String) -> Self {
        Self { name }
    }

    /// Asks Slurm for its state.
    ///
    /// # Errors
    /// A sentence: there is no `scontrol`, the controller does not answer, or it does not know the node.
    pub(crate) async fn state(&self) -> Result<NodeState, String> {
        let text = scontrol(&["--oneliner", "show", "node", &self.name]).await?;
        NodeState::parse(&text).ok_or_else(|| format!("scontrol names no state of node {}", self.name))
    }

    /// Lets no further job begin on it.
    ///
    /// # Errors
    /// A sentence.
    pub(crate) async fn drain(&self, reason: &str) -> Result<(), String> {
        let reason = format!("Reason={reason}");
        scontrol(&["update", &format!("NodeName={}", self.name), "State=DRAIN", &reason]).await.map(drop)
    }

    /// Lets jobs begin on it again.
    ///
    /// # Errors
    /// A sentence.
    pub(crate) async fn resume(&self) -> Result<(), String> {
        scontrol(&["update", &format!("NodeName={}", self.name), "State=RESUME"]).await.map(drop)
    }
}

async fn scontrol(words: &[&str]) -> Result<String, String> {
    let arguments: Vec<OsString> = words.iter().map(Into::into).collect();
    bounded::run("scontrol", &arguments, ProgramLimit::of(SCONTROL_TIMEOUT)).await?.success("scontrol")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> NodeState {
        NodeState::parse(line).unwrap()
    }

    #[test]
    fn a_drain_is_ours_by_its_reason_alone() {
        let ours = parse(
            "NodeName=n1 Arch=x86_64 State=MIXED+DRAIN ThreadsPerCore=1 Partitions=main \
             Reason=boxlite: 1 GiB of 4 GiB free; starts need = 1 GiB [root@2026-11-27T11:00:00]",
        );
        assert!(ours.is_drained_by_us());
        assert_eq!(ours.reason.unwrap(), "boxlite: 1 GiB of 4 GiB free; starts need = 1 GiB");
        assert!(!parse("State=IDLE+DRAIN Reason=not boxlite: x [root@t]").is_drained_by_us());
        assert!(!parse("State=IDLE+DRAIN Reason=Prolog error [slurm@t]").is_drained_by_us());
        // Slurm keeps the reason of a drain that has ended in some states.
        assert!(!parse("State=IDLE Reason=boxlite: x [root@t]").is_drained_by_us());
    }

    #[test]
    fn states_come_with_marks() {
        for (state, drains) in [
            ("IDLE", false),
            ("DOWN*", false),
            ("IDLE*+DRAIN", true),
            ("ALLOCATED+DRAIN*", true),
            ("DRAINING", true),
            ("IDLE+CLOUD", false),
        ] {
            assert_eq!(parse(&format!("NodeName=n State={state} X=1")).drains, drains, "{state}");
        }
        assert_eq!(NodeState::parse("Node n not found"), None);
    }
}
