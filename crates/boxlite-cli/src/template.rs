//! Templates of output: fields of a document between text, in the notation that Docker and Podman take from Go.

use std::str::FromStr;

use serde::Serialize;
use serde_json::Value;

use crate::report::CommandFailure;

/// A template: text and fields.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Template(Vec<TemplatePart>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum TemplatePart {
    Text(String),
    Field { path: Vec<String>, json: bool },
}

impl FromStr for Template {
    type Err = String;

    /// Reads a template. Fields are `{{.name}}`, `{{.options.cpus}}` and `{{json .ports}}`; `\t` and `\n` are a tab and a
    /// line feed, as in Docker.
    fn from_str(text: &str) -> Result<Self, String> {
        let mut pieces = Vec::new();
        let mut rest = text;
        while let Some((before, behind)) = rest.split_once("{{") {
            let (inside, after) = behind
                .split_once("}}")
                .ok_or_else(|| format!("`{text}` has `{{{{` without a closing `}}}}`"))?;
            pieces.push(TemplatePart::Text(unescaped(before)));
            pieces.push(field(inside)?);
            rest = after;
        }
        pieces.push(TemplatePart::Text(unescaped(rest)));
        pieces.retain(|piece| !matches!(piece, TemplatePart::Text(text) if text.is_empty()));
        Ok(Self(pieces))
    }
}

fn unescaped(text: &str) -> String {
    text.replace("\\t", "\t").replace("\\n", "\n")
}

fn field(inside: &str) -> Result<TemplatePart, String> {
    let words: Vec<&str> = inside.split_whitespace().collect();
    let (path, json) = match words[..] {
        [path] => (path, false),
        ["json", path] => (path, true),
        _ => ("", false),
    };
    let refusal =
        || format!("`{{{{{inside}}}}}` is neither a field such as {{{{.name}}}} nor {{{{json .ports}}}}");
    let path = path.strip_prefix('.').ok_or_else(refusal)?;
    let path: Vec<String> = path.split('.').filter(|name| !name.is_empty()).map(str::to_owned).collect();
    Ok(TemplatePart::Field { path, json })
}

impl Template {
    /// Returns the text for `value`, ending in a line feed. A field that `value` has no value for is empty.
    ///
    /// # Errors
    /// `value` has no field of that name.
    pub(crate) fn line<T: Serialize>(&self, value: &T) -> Result<String, CommandFailure> {
        let document = serde_json::to_value(value)
            .map_err(|error| CommandFailure::local(format!("writing JSON failed: {error}")))?;
        let mut line = String::new();
        for piece in &self.0 {
            match piece {
                TemplatePart::Text(text) => line.push_str(text),
                TemplatePart::Field { path, json } => line.push_str(&shown(found(&document, path)?, *json)),
            }
        }
        line.push('\n');
        Ok(line)
    }
}

/// Finds a field. Letters may be large or small and underscores left out: `.ExitCode` is `exit_code`.
fn found<'a>(document: &'a Value, path: &[String]) -> Result<&'a Value, CommandFailure> {
    let mut value = document;
    for name in path {
        value = match value {
            Value::Null => return Ok(value),
            Value::Object(fields) => fields
                .iter()
                .find(|(field, _)| plain(field) == plain(name))
                .map(|(_, value)| value)
                .ok_or_else(|| {
                    let names: Vec<&str> = fields.keys().map(String::as_str).collect();
                    CommandFailure::local(format!(
                        "there is no field `{name}`; there are {}",
                        names.join(", ")
                    ))
                })?,
            _ => {
                return Err(CommandFailure::local(format!(
                    "`{name}` is asked of a value that has no fields"
                )));
            }
        };
    }
    Ok(value)
}

fn plain(name: &str) -> String {
    name.chars().filter(|&c| c != '_').flat_map(char::to_lowercase).collect()
}

fn shown(value: &Value, json: bool) -> String {
    match value {
        Value::Null if !json => String::new(),
        Value::String(text) if !json => crate::report::visible(text),
        _ => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn line(template: &str, value: &Value) -> Result<String, String> {
        template.parse::<Template>()?.line(value).map_err(|failure| failure.to_string())
    }

    #[test]
    fn fields_stand_between_text() {
        let value = json!({"name": "web", "exit_code": 3, "reason": null, "options": {"cpus": 2}, "ports": [{"host": 80}]});
        let text = |template| line(template, &value).unwrap();
        assert_eq!(text("{{.Name}}"), "web\n");
        assert_eq!(text("{{ .name }}\\t{{.ExitCode}} {{.exit_code}}"), "web\t3 3\n");
        assert_eq!(text("cpus={{.Options.CPUs}};{{.reason}};{{.reason.text}}"), "cpus=2;;\n");
        assert_eq!(text("{{json .ports}} {{json .name}}"), "[{\"host\":80}] \"web\"\n");
        assert_eq!(text("{{json .}}"), format!("{value}\n"));
        assert_eq!(text(""), "\n");
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        let value = json!({"name": "web"});
        assert!(line("{{.nam}}", &value).unwrap_err().contains("there are name"));
        for template in ["{{.name", "{{name}}", "{{range .x}}", "{{}}", "{{.name.first}}"] {
            assert!(line(template, &value).is_err(), "{template}");
        }
    }

    /// A name of a box's making could steer the terminal. Mutation tried: the string as it is.
    #[test]
    fn control_characters_are_escaped() {
        assert_eq!(line("{{.reason}}", &json!({"reason": "a\u{1b}[2Jb"})).unwrap(), "a\\u{1b}[2Jb\n");
    }
}
