//! The values of a template: parts of a document, found by name, and what functions make of them.

use serde_json::Value;

use crate::report::visible;

/// A value, and where it is a whole document the same under Docker's names.
#[derive(Debug, Clone)]
pub(super) struct TemplateValue {
    pub(super) value: Value,
    docker: Value,
    /// Text that a function made: what it has of the document is escaped already.
    is_safe: bool,
}

impl TemplateValue {
    /// A value of the document.
    pub(super) fn of(value: Value) -> Self {
        Self { value, docker: Value::Null, is_safe: false }
    }

    /// A whole document, which `docker` has under Docker's names.
    pub(super) fn document(value: Value, docker: Value) -> Self {
        Self { docker, ..Self::of(value) }
    }

    /// Text whose control characters are meant.
    pub(super) fn text(text: String) -> Self {
        Self { value: Value::String(text), docker: Value::Null, is_safe: true }
    }

    /// Returns the value as it is written: no value is empty, and lists and objects are JSON.
    pub(super) fn shown(&self) -> String {
        match &self.value {
            Value::Null => String::new(),
            Value::String(text) if self.is_safe => text.clone(),
            Value::String(text) => visible(text),
            value => visible(&value.to_string()),
        }
    }

    /// Returns how many bytes it has, if it is text.
    pub(super) fn text_length(&self) -> Option<usize> {
        self.value.as_str().map(str::len)
    }

    /// Whether it counts as true: all but `false`, 0, and what is empty.
    pub(super) fn is_true(&self) -> bool {
        match &self.value {
            Value::Null => false,
            Value::Bool(value) => *value,
            Value::Number(number) => number.as_f64() != Some(0.0),
            Value::String(text) => !text.is_empty(),
            Value::Array(items) => !items.is_empty(),
            Value::Object(fields) => !fields.is_empty(),
        }
    }

    /// Returns the text changed by a function of that name.
    pub(super) fn changed(&self, name: &str, change: impl Fn(&str) -> String) -> Result<Self, String> {
        match &self.value {
            Value::String(text) => Ok(Self { value: Value::String(change(text)), ..self.clone() }),
            Value::Null => Ok(self.clone()),
            _ => Err(format!("{name} takes a text")),
        }
    }

    /// Finds a field: a plain value of ours, else what Docker calls so, else a list or an object of ours.
    pub(super) fn field(&self, path: &[String]) -> Result<Self, String> {
        let ours = found(&self.value, path, |field, name| plain(field) == plain(name));
        if let Ok(value) = ours
            && !value.is_object()
            && !value.is_array()
        {
            return Ok(Self::of(value.clone()));
        }
        let is_docker_s = path.first().is_some_and(|name| self.docker.get(name).is_some());
        if is_docker_s {
            match (found(&self.docker, path, |field, name| field == name), &ours) {
                (Ok(value), _) => return Ok(Self::of(value.clone())),
                (Err(problem), Err(_)) => return Err(problem),
                (Err(_), Ok(_)) => {}
            }
        }
        match (ours, self.docker.as_object(), path) {
            (Err(problem), Some(docker), [_]) => {
                let names: Vec<&str> = docker.keys().map(String::as_str).collect();
                Err(format!("{problem}, and of Docker's {}", names.join(", ")))
            }
            (ours, ..) => ours.map(|value| Self::of(value.clone())),
        }
    }

    /// Returns what a range goes through, each with its number or its name.
    pub(super) fn elements(self) -> Result<Vec<(Self, Self)>, String> {
        match self.value {
            Value::Null => Ok(Vec::new()),
            Value::Array(items) => Ok(items
                .into_iter()
                .enumerate()
                .map(|(at, item)| (Self::of(at.into()), Self::of(item)))
                .collect()),
            Value::Object(fields) => {
                Ok(fields.into_iter().map(|(name, item)| (Self::of(name.into()), Self::of(item))).collect())
            }
            _ => Err("range goes through lists and objects".to_owned()),
        }
    }
}

/// Fields of ours that are left out where there is nothing to say.
const MAY_BE_ABSENT: [&str; 7] =
    ["details", "health", "lastexit", "memberships", "name", "networkusage", "node"];

/// Objects whose fields are named by a user, or by the moment.
const OPEN: [&str; 7] = ["details", "labels", "label", "attributes", "networks", "ports", "containers"];

/// Finds a field of a document, whose names are compared by `is_same`. One that may be absent is `null` then.
fn found<'a>(
    document: &'a Value,
    path: &[String],
    is_same: impl Fn(&str, &str) -> bool,
) -> Result<&'a Value, String> {
    let mut value = document;
    let mut is_open = false;
    for (depth, name) in path.iter().enumerate() {
        let Value::Object(fields) = value else {
            return match value {
                Value::Null => Ok(value),
                _ => Err(format!("`{name}` is asked of a value that has no fields")),
            };
        };
        let known = plain(name);
        value = match fields.iter().find(|(field, _)| is_same(field, name)) {
            Some((_, value)) => value,
            None if is_open || (depth == 0 && MAY_BE_ABSENT.contains(&known.as_str())) => &Value::Null,
            None => {
                let names: Vec<&str> = fields.keys().map(String::as_str).collect();
                return Err(format!("there is no field `{name}`; there are {}", names.join(", ")));
            }
        };
        is_open = OPEN.contains(&known.as_str());
    }
    Ok(value)
}

/// A name without what may be left out.
fn plain(name: &str) -> String {
    name.chars().filter(|&c| c != '_').flat_map(char::to_lowercase).collect()
}
