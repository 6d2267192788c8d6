//! The job of a cluster that this process is part of, as its environment tells.

use crate::environment::Environment;

/// The label by which the boxes of a job are found again: its value is the job's id.
pub(crate) const JOB_LABEL: &str = "slurm.job";

/// The job of an engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Job {
    id: String,
}

impl Job {
    /// The job that the environment names: `SLURM_JOB_ID`, where it is a number.
    pub(crate) fn of(environment: &Environment) -> Option<Self> {
        Self::from_id(environment.text("SLURM_JOB_ID"))
    }

    fn from_id(id: Option<String>) -> Option<Self> {
        let id = id.filter(|id| !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_digit()))?;
        Some(Self { id })
    }

    /// The label that each of its boxes has, as name and value.
    pub(crate) fn label(&self) -> (String, String) {
        (JOB_LABEL.to_owned(), self.id.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_number_is_a_job() {
        let of = |id: &str| Job::from_id(Some(id.to_owned()));
        assert_eq!(of("17").unwrap().label(), ("slurm.job".to_owned(), "17".to_owned()));
        for other in ["", "17_2", "-1", "a"] {
            assert_eq!(of(other), None, "{other:?}");
        }
    }
}
