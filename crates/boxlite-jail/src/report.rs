//! A report on a jail for people: each measure in force, or why it is missing.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Everything that was done about one program.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct JailReport {
    /// In the order in which they were taken.
    pub measures: Vec<Measure>,
}

/// One measure.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Measure {
    /// Its description, in a few words.
    pub name: String,
    /// Whether it is in force.
    pub state: MeasureState,
}

/// Whether a measure is in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MeasureState {
    /// It is, and how.
    InForce(String),
    /// It is not, and why.
    Missing(String),
}

impl JailReport {
    /// The measures that are not in force.
    pub fn missing(&self) -> impl Iterator<Item = &Measure> {
        self.measures.iter().filter(|measure| matches!(measure.state, MeasureState::Missing(_)))
    }

    /// The state of the measure `name`, if it was considered.
    pub fn state(&self, name: &str) -> Option<&MeasureState> {
        self.measures.iter().find(|measure| measure.name == name).map(|measure| &measure.state)
    }

    pub(crate) fn in_force(&mut self, name: &str, how: impl Into<String>) {
        self.measures.push(Measure { name: name.into(), state: MeasureState::InForce(how.into()) });
    }

    pub(crate) fn missing_because(&mut self, name: &str, why: impl Into<String>) {
        self.measures.push(Measure { name: name.into(), state: MeasureState::Missing(why.into()) });
    }
}

impl fmt::Display for Measure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.state {
            MeasureState::InForce(how) => write!(f, "{}: {how}", self.name),
            MeasureState::Missing(why) => write!(f, "{}: missing, {why}", self.name),
        }
    }
}
