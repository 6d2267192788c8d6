//! The source and destination arguments of `cp`.

/// One end of a copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Endpoint {
    /// A path on the host, as it was written.
    Host(String),
    /// An absolute path in a box.
    Box {
        /// Name, id or unique prefix.
        id: String,
        /// Absolute; a trailing `/` or `/.` is kept because it has a meaning.
        path: String,
    },
    /// A tar stream on standard input or output.
    Stream,
}

impl Endpoint {
    /// Reads an argument as Docker does: a path with a colon is in a box unless it begins with `/` or `.`.
    pub(crate) fn parse(text: &str) -> Self {
        if text == "-" {
            return Self::Stream;
        }
        match text.split_once(':') {
            Some((id, path)) if !id.is_empty() && !text.starts_with(['/', '.']) => {
                let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
                Self::Box { id: id.to_owned(), path }
            }
            _ => Self::Host(text.to_owned()),
        }
    }
}

/// Tells whether a path stands for the contents of a directory instead of the directory.
pub(super) fn means_contents(path: &str) -> bool {
    path == "." || path.ends_with("/.")
}

/// Returns the name that a copy of a box's path gets; `None` for the contents of a directory and for the root.
pub(crate) fn copied_name(path: &str) -> Option<&str> {
    if means_contents(path) {
        return None;
    }
    let name = path.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
    (!matches!(name, "" | "." | "..")).then_some(name)
}
