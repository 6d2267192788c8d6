//! Whether a box that has ended is started again.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::Error;

/// When a box whose run has ended is started again. A stop by its user always ends it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum RestartPolicy {
    /// Never.
    #[default]
    No,
    /// After an exit status other than 0, and after a failure of the virtual machine.
    OnFailure {
        /// The most restarts after one start by the user; `None` for no limit.
        max: Option<u32>,
    },
    /// However it ended.
    Always,
    /// As `Always`: without a daemon there is no other start that the two could differ in.
    UnlessStopped,
}

impl FromStr for RestartPolicy {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let wrong = |why: &str| {
            Err(Error::invalid(format!(
                "'{text}' is not a restart policy{why}; there are no, on-failure[:N], always and unless-stopped"
            )))
        };
        match text.split_once(':') {
            None => match text {
                "no" => Ok(Self::No),
                "on-failure" => Ok(Self::OnFailure { max: None }),
                "always" => Ok(Self::Always),
                "unless-stopped" => Ok(Self::UnlessStopped),
                _ => wrong(""),
            },
            // Docker takes 0 for no limit.
            Some(("on-failure", count)) => match count.parse::<u32>() {
                Ok(max) => Ok(Self::OnFailure { max: (max > 0).then_some(max) }),
                Err(_) => wrong(": N is a number"),
            },
            Some(_) => wrong(": only on-failure takes a number"),
        }
    }
}

impl fmt::Display for RestartPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::No => f.write_str("no"),
            Self::OnFailure { max: None } => f.write_str("on-failure"),
            Self::OnFailure { max: Some(max) } => write!(f, "on-failure:{max}"),
            Self::Always => f.write_str("always"),
            Self::UnlessStopped => f.write_str("unless-stopped"),
        }
    }
}

impl TryFrom<String> for RestartPolicy {
    type Error = Error;

    fn try_from(text: String) -> Result<Self, Error> {
        text.parse()
    }
}

impl From<RestartPolicy> for String {
    fn from(policy: RestartPolicy) -> Self {
        policy.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies_are_written_as_docker_does() {
        for text in ["no", "on-failure", "on-failure:3", "always", "unless-stopped"] {
            let policy: RestartPolicy = text.parse().unwrap();
            assert_eq!(policy.to_string(), text);
            assert_eq!(serde_json::to_string(&policy).unwrap(), format!("\"{text}\""));
        }
        assert_eq!("on-failure:0".parse::<RestartPolicy>().unwrap(), RestartPolicy::OnFailure { max: None });
        for text in ["", "yes", "Always", "always:3", "on-failure:", "on-failure:-1", "on-failure:x", "no:1"]
        {
            assert!(text.parse::<RestartPolicy>().is_err(), "{text}");
            assert!(serde_json::from_value::<RestartPolicy>(text.into()).is_err(), "{text}");
        }
    }
}
