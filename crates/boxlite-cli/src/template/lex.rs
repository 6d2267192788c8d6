//! The pieces of a template: its text, and the tokens of each action between `{{` and `}}`.

/// A piece of a template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum TemplatePiece {
    Text(String),
    Action { source: String, tokens: Vec<TemplateToken> },
}

/// A word of an action.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum TemplateToken {
    /// `.` alone.
    Dot,
    /// `.a.b`; with `joined`, right behind a variable, a word or a parenthesis.
    Names {
        names: Vec<String>,
        joined: bool,
    },
    /// `$` and `$name`, without the sign.
    Variable(String),
    /// A keyword or the name of a function.
    Word(String),
    Text(String),
    Number(serde_json::Number),
    /// `(`, `)`, `|`, `,`, `=` or `:` (for `:=`).
    Sign(char),
}

/// Cuts a template into its pieces. White space beside `{{- ` and ` -}}` is left out, and so are comments.
pub(super) fn pieces(text: &str) -> Result<Vec<TemplatePiece>, String> {
    let mut pieces = Vec::new();
    let mut rest = text;
    let mut trims_start = false;
    while let Some((before, behind)) = rest.split_once("{{") {
        let length =
            closing(behind).ok_or_else(|| format!("`{text}` has `{{{{` without a closing `}}}}`"))?;
        let (inside, after) = (&behind[..length], &behind[length + 2..]);
        let trimmed_before = inside.strip_prefix('-').filter(|rest| rest.starts_with(char::is_whitespace));
        let inside = trimmed_before.unwrap_or(inside);
        let trimmed_after = inside.strip_suffix('-').filter(|rest| rest.ends_with(char::is_whitespace));
        let action = trimmed_after.unwrap_or(inside).trim();
        push_text(&mut pieces, before, trims_start, trimmed_before.is_some());
        if !(action.starts_with("/*") && action.ends_with("*/")) {
            let source = format!("{{{{{action}}}}}");
            let tokens = tokens(action).map_err(|problem| format!("`{source}`: {problem}"))?;
            pieces.push(TemplatePiece::Action { source, tokens });
        }
        trims_start = trimmed_after.is_some();
        rest = after;
    }
    push_text(&mut pieces, rest, trims_start, false);
    Ok(pieces)
}

fn push_text(pieces: &mut Vec<TemplatePiece>, text: &str, trims_start: bool, trims_end: bool) {
    let text = text.replace("\\t", "\t").replace("\\n", "\n");
    let text = if trims_start { text.trim_start() } else { &text };
    let text = if trims_end { text.trim_end() } else { text };
    if !text.is_empty() {
        pieces.push(TemplatePiece::Text(text.to_owned()));
    }
}

/// Returns where the action ends: at the first `}}` outside of its texts.
fn closing(text: &str) -> Option<usize> {
    let mut quote = None;
    let mut escaped = false;
    for (at, c) in text.char_indices() {
        match quote {
            Some('"') if escaped => escaped = false,
            Some('"') if c == '\\' => escaped = true,
            Some(open) if c == open => quote = None,
            None if matches!(c, '"' | '`') => quote = Some(c),
            None if text[at..].starts_with("}}") => return Some(at),
            _ => {}
        }
    }
    None
}

fn tokens(action: &str) -> Result<Vec<TemplateToken>, String> {
    let mut tokens = Vec::new();
    let mut rest = action;
    let mut joined = false;
    while let Some(first) = rest.chars().next() {
        let before = rest.len();
        match first {
            ' ' | '\t' | '\n' | '\r' => rest = rest.trim_start(),
            '.' => {
                let mut names = Vec::new();
                while let Some(name) = rest.strip_prefix('.').map(word).filter(|name| !name.is_empty()) {
                    names.push(name.to_owned());
                    rest = &rest[1 + name.len()..];
                }
                if names.is_empty() {
                    rest = &rest[1..];
                    tokens.push(TemplateToken::Dot);
                } else {
                    tokens.push(TemplateToken::Names { names, joined });
                }
            }
            '$' => {
                let name = word(&rest[1..]);
                rest = &rest[1 + name.len()..];
                tokens.push(TemplateToken::Variable(name.to_owned()));
            }
            '"' | '`' => {
                let (text, after) = quoted(rest, first)?;
                tokens.push(TemplateToken::Text(text));
                rest = after;
            }
            '(' | ')' | '|' | ',' | '=' => {
                tokens.push(TemplateToken::Sign(first));
                rest = &rest[1..];
            }
            ':' if rest.starts_with(":=") => {
                tokens.push(TemplateToken::Sign(':'));
                rest = &rest[2..];
            }
            '-' | '0'..='9' => {
                let end = rest[1..]
                    .find(|c: char| !(c.is_ascii_digit() || c == '.'))
                    .map_or(rest.len(), |at| at + 1);
                let number =
                    rest[..end].parse().map_err(|_| format!("`{}` is not a number", &rest[..end]))?;
                tokens.push(TemplateToken::Number(number));
                rest = &rest[end..];
            }
            _ => {
                let word = word(rest);
                if word.is_empty() {
                    return Err(format!("`{first}` means nothing here"));
                }
                tokens.push(TemplateToken::Word(word.to_owned()));
                rest = &rest[word.len()..];
            }
        }
        debug_assert!(rest.len() < before, "each turn takes something");
        let may_have_fields = matches!(
            tokens.last(),
            Some(TemplateToken::Variable(_) | TemplateToken::Word(_) | TemplateToken::Sign(')'))
        );
        joined = may_have_fields && !first.is_whitespace();
    }
    Ok(tokens)
}

/// Returns the letters, digits and underscores at the beginning.
fn word(text: &str) -> &str {
    let end = text.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(text.len());
    &text[..end]
}

/// Reads a text in quotation marks, with Go's escapes between `"`, and returns what follows.
fn quoted(text: &str, quote: char) -> Result<(String, &str), String> {
    let inside = &text[1..];
    if quote == '`' {
        let (raw, after) = inside.split_once('`').ok_or("a text has no end")?;
        return Ok((raw.to_owned(), after));
    }
    let mut value = String::new();
    let mut characters = inside.char_indices();
    while let Some((at, c)) = characters.next() {
        match c {
            '"' => return Ok((value, &inside[at + 1..])),
            '\\' => match characters.next().map(|(_, c)| c) {
                Some('n') => value.push('\n'),
                Some('t') => value.push('\t'),
                Some(c @ ('"' | '\\')) => value.push(c),
                _ => return Err("of the escapes there are \\n, \\t, \\\" and \\\\".to_owned()),
            },
            c => value.push(c),
        }
    }
    Err("a text has no end".to_owned())
}
