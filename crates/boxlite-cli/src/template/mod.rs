//! Templates of output: fields of a document between text, in the notation that Docker and Podman take from Go.
//!
//! # Names
//!
//! A template sees two documents: our own JSON, in which letters may be large or small and underscores left out, and the same
//! under the names that Docker gives it, spelled as Docker spells them. A name that stands for a plain value of ours means that;
//! any other is looked for among Docker's, and only then stands for a list or an object of ours. So `{{.State}}` is `running`,
//! and `{{.State.ExitCode}}` is the exit status.
//!
//! # Notation
//!
//! `{{if}}`, `{{range}}`, `{{with}}`, `{{else}}`, `{{end}}`, variables, pipes, parentheses, trimming by `{{-` and `-}}`, and the
//! functions in [`functions`]. Not Go's: `{{define}}`, `{{template}}`, `{{block}}`, `{{break}}` and `{{continue}}`.

mod evaluate;
mod functions;
mod lex;
mod parse;
mod value;

use std::str::FromStr;

use serde::Serialize;
use serde_json::Value;

use crate::report::CommandFailure;
use evaluate::TemplateScope;
use parse::TemplateNode;

/// A template: text, fields and what is done with them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Template {
    nodes: Vec<TemplateNode>,
    is_table: bool,
}

impl FromStr for Template {
    type Err = String;

    /// Reads a template. `\t` and `\n` in its text are a tab and a line feed, as in Docker; `table` before it asks for columns under
    /// headings, with tabs between them.
    fn from_str(text: &str) -> Result<Self, String> {
        let (text, is_table) = match text.strip_prefix("table") {
            Some(rest) if rest.starts_with([' ', '\t']) || rest.starts_with("\\t") => {
                (rest.trim_start(), true)
            }
            _ => (text, false),
        };
        Ok(Self { nodes: parse::nodes(text)?, is_table })
    }
}

impl Template {
    /// Returns the text for `value`, ending in a line feed. `docker` is the same under the names that Docker gives it. A field
    /// without a value is empty.
    ///
    /// # Errors
    /// `value` has no field of that name, or a function cannot do with what it is given.
    pub(crate) fn line<T: Serialize>(&self, value: &T, docker: Value) -> Result<String, CommandFailure> {
        let document = serde_json::to_value(value)
            .map_err(|error| CommandFailure::local(format!("writing JSON failed: {error}")))?;
        let mut line = String::new();
        TemplateScope::of(document, docker)
            .write(&self.nodes, &mut line)
            .map_err(|message| CommandFailure::local(format!("--format: {message}")))?;
        line.push('\n');
        Ok(line)
    }

    /// Returns the headings of a table, with tabs between them; `None` where no table is asked for.
    pub(crate) fn heading(&self) -> Option<String> {
        self.is_table.then(|| {
            let titles = self.nodes.iter().map(|node| match node {
                TemplateNode::Text(text) => text.clone(),
                TemplateNode::Value(value) => value.last_name().map(title).unwrap_or_default(),
                _ => String::new(),
            });
            titles.collect()
        })
    }
}

/// Writes the name of a field as a heading: `CreatedAt` and `created_at` as `CREATED AT`, and Docker's `MemPerc` as `MEM %`.
fn title(name: &str) -> String {
    if let Some(share) = name.strip_suffix("Perc") {
        return format!("{} %", title(share));
    }
    let mut title = String::new();
    let mut follows_small = false;
    for c in name.chars() {
        if (c.is_uppercase() && follows_small) || c == '_' {
            title.push(' ');
        }
        follows_small = c.is_lowercase();
        if c != '_' {
            title.extend(c.to_uppercase());
        }
    }
    title
}

#[cfg(test)]
mod tests;
