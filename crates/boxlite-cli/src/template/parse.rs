//! What a template says: text, values, and the parts that depend on values.

use serde_json::Value;

use super::functions::{self, TemplateFunction};
use super::lex::{TemplatePiece, TemplateToken, pieces};

/// How deeply parts may stand in each other, and how many pipes and parentheses one action may have. Reading and evaluating
/// both call themselves for each.
const DEEPEST: usize = 100;

/// A part of a template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum TemplateNode {
    Text(String),
    Value(Expression),
    /// Sets a variable and writes nothing.
    Assign {
        name: String,
        value: Expression,
    },
    /// `part` where the condition holds, else `otherwise`.
    If {
        condition: Expression,
        part: Vec<Self>,
        otherwise: Vec<Self>,
    },
    /// `part` with the value as its dot, unless that is empty.
    With {
        value: Expression,
        variable: Option<String>,
        part: Vec<Self>,
        otherwise: Vec<Self>,
    },
    /// `part` for each element.
    Range {
        list: Expression,
        variables: Vec<String>,
        part: Vec<Self>,
        otherwise: Vec<Self>,
    },
}

/// What has a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Expression {
    Literal(Value),
    /// The dot, or with a name that variable; `$` is the variable without a name.
    Variable(Option<String>),
    Path {
        of: Box<Self>,
        names: Vec<String>,
    },
    Call {
        function: TemplateFunction,
        arguments: Vec<Self>,
    },
}

impl Expression {
    /// Returns the field that the expression is about: the last one of its first path.
    pub(super) fn last_name(&self) -> Option<&str> {
        match self {
            Self::Path { names, .. } => names.last().map(String::as_str),
            Self::Call { arguments, .. } => arguments.iter().find_map(Self::last_name),
            Self::Literal(_) | Self::Variable(_) => None,
        }
    }
}

/// Reads a template.
pub(super) fn nodes(text: &str) -> Result<Vec<TemplateNode>, String> {
    let mut parser = TemplateParser { pieces: pieces(text)?.into_iter(), depth: 0 };
    match parser.part()? {
        (nodes, None) => Ok(nodes),
        (_, Some(PartEnd { source, .. })) => Err(format!("`{source}` belongs to no if, range or with")),
    }
}

struct TemplateParser {
    pieces: std::vec::IntoIter<TemplatePiece>,
    /// Parts around the one that is read.
    depth: usize,
}

/// The action that ended a part: `{{end}}`, `{{else}}` or `{{else if …}}`.
struct PartEnd {
    source: String,
    /// What follows `else`; `None` for `end`.
    otherwise: Option<ActionWords>,
}

impl TemplateParser {
    /// Reads up to an `end` or `else`, or to the end of the template.
    fn part(&mut self) -> Result<(Vec<TemplateNode>, Option<PartEnd>), String> {
        let mut nodes = Vec::new();
        while let Some(piece) = self.pieces.next() {
            let (source, tokens) = match piece {
                TemplatePiece::Text(text) => {
                    nodes.push(TemplateNode::Text(text));
                    continue;
                }
                TemplatePiece::Action { source, tokens } => (source, tokens),
            };
            let mut words = ActionWords { tokens: tokens.into_iter().peekable(), levels: 0 };
            nodes.push(match words.keyword() {
                Some("end") => return Ok((nodes, Some(PartEnd { source, otherwise: None }))),
                Some("else") => return Ok((nodes, Some(PartEnd { source, otherwise: Some(words) }))),
                Some(keyword) => self.block(keyword, words, &source)?,
                None => words.value().map_err(|problem| format!("`{source}`: {problem}"))?,
            });
        }
        Ok((nodes, None))
    }

    /// Reads the rest of an if, a range or a with, up to its end.
    fn block(&mut self, keyword: &str, words: ActionWords, source: &str) -> Result<TemplateNode, String> {
        let wrong = |problem: String| format!("`{source}`: {problem}");
        let (mut variables, value) = words.assignment().map_err(wrong)?;
        self.depth += 1;
        if self.depth > DEEPEST {
            return Err(format!("more than {DEEPEST} parts stand in each other"));
        }
        let (part, end) = self.part()?;
        let end = end.ok_or_else(|| format!("`{source}` has no `{{{{end}}}}`"))?;
        let otherwise = match end.otherwise {
            None => Vec::new(),
            Some(words) => self.otherwise(words, &end.source, source)?,
        };
        self.depth -= 1;
        match keyword {
            "range" if variables.len() <= 2 => {
                Ok(TemplateNode::Range { list: value, variables, part, otherwise })
            }
            "with" if variables.len() <= 1 => {
                Ok(TemplateNode::With { value, variable: variables.pop(), part, otherwise })
            }
            "if" if variables.is_empty() => Ok(TemplateNode::If { condition: value, part, otherwise }),
            _ => Err(wrong("there are too many variables".to_owned())),
        }
    }

    /// Reads what follows an `else` of the block `source`, up to its end; `{{else if …}}` is a block that shares that end.
    fn otherwise(
        &mut self,
        mut words: ActionWords,
        own_source: &str,
        source: &str,
    ) -> Result<Vec<TemplateNode>, String> {
        if let Some(keyword @ ("if" | "with")) = words.keyword() {
            return Ok(vec![self.block(keyword, words, own_source)?]);
        }
        words.finish().map_err(|problem| format!("`{own_source}`: {problem}"))?;
        match self.part()? {
            (otherwise, Some(PartEnd { otherwise: None, .. })) => Ok(otherwise),
            _ => Err(format!("`{source}` has no `{{{{end}}}}` after its `{{{{else}}}}`")),
        }
    }
}

/// The words of an action that are not read yet.
struct ActionWords {
    tokens: std::iter::Peekable<std::vec::IntoIter<TemplateToken>>,
    /// Pipes and parentheses that were read.
    levels: usize,
}

impl ActionWords {
    /// Takes a keyword, if one comes next.
    fn keyword(&mut self) -> Option<&'static str> {
        let TemplateToken::Word(word) = self.tokens.peek()? else { return None };
        let keyword = ["end", "else", "if", "with", "range"].into_iter().find(|keyword| keyword == word)?;
        self.tokens.next();
        Some(keyword)
    }

    /// Reads a pipeline, and the variables that it is assigned to.
    fn assignment(mut self) -> Result<(Vec<String>, Expression), String> {
        let variables = self.variables()?;
        let value = self.pipeline()?;
        self.finish()?;
        Ok((variables, value))
    }

    /// Reads `$x := …`, `$x = …` or a pipeline.
    fn value(self) -> Result<TemplateNode, String> {
        let (mut variables, value) = self.assignment()?;
        Ok(match (variables.pop(), variables.is_empty()) {
            (None, _) => TemplateNode::Value(value),
            (Some(name), true) => TemplateNode::Assign { name, value },
            (Some(_), false) => return Err("one variable is set at a time".to_owned()),
        })
    }

    /// Reads the variables that are set, with the sign after them.
    fn variables(&mut self) -> Result<Vec<String>, String> {
        let mut variables = Vec::new();
        if !self.tokens.clone().any(|token| matches!(token, TemplateToken::Sign(':' | '='))) {
            return Ok(variables);
        }
        loop {
            match (self.tokens.next(), self.tokens.next()) {
                (
                    Some(TemplateToken::Variable(name)),
                    Some(TemplateToken::Sign(sign @ (',' | ':' | '='))),
                ) => {
                    variables.push(name);
                    if sign != ',' {
                        return Ok(variables);
                    }
                }
                _ => return Err("variables are set as in $x := .name".to_owned()),
            }
        }
    }

    /// Reads commands with `|` between them, each of which has the value before it as its last argument.
    fn pipeline(&mut self) -> Result<Expression, String> {
        let mut value = self.command(None)?;
        while self.tokens.next_if_eq(&TemplateToken::Sign('|')).is_some() {
            self.go_deeper()?;
            value = self.command(Some(value))?;
        }
        Ok(value)
    }

    /// Reads a function and its arguments, or one value. A field with values after it is looked up in, as in `.Label "tier"`.
    fn command(&mut self, piped: Option<Expression>) -> Result<Expression, String> {
        let function = match self.tokens.peek() {
            Some(TemplateToken::Word(word)) if !matches!(word.as_str(), "true" | "false" | "nil") => {
                let function = functions::named(word)?;
                self.tokens.next();
                Some(function)
            }
            _ => None,
        };
        let mut arguments = Vec::new();
        while let Some(argument) = self.operand()? {
            arguments.push(argument);
        }
        let is_piped = piped.is_some();
        arguments.extend(piped);
        match (function, arguments.len()) {
            (None, _) if is_piped => Err("behind `|` comes a function".to_owned()),
            (Some(function), _) => Ok(Expression::Call { function, arguments }),
            (None, 0) => Err("a field such as {{.name}} or {{json .ports}} is missing".to_owned()),
            (None, 1) => Ok(arguments.remove(0)),
            (None, _) => match arguments[0] {
                Expression::Path { .. } => {
                    Ok(Expression::Call { function: TemplateFunction::Index, arguments })
                }
                _ => Err("only functions and fields take arguments".to_owned()),
            },
        }
    }

    /// Reads one value; `None` where none comes next.
    fn operand(&mut self) -> Result<Option<Expression>, String> {
        let Some(token) =
            self.tokens.next_if(|token| !matches!(token, TemplateToken::Sign(sign) if *sign != '('))
        else {
            return Ok(None);
        };
        let value = match token {
            TemplateToken::Dot => Expression::Variable(None),
            TemplateToken::Names { names, joined: false } => {
                Expression::Path { of: Box::new(Expression::Variable(None)), names }
            }
            TemplateToken::Names { joined: true, .. } => return Err("a space is missing".to_owned()),
            TemplateToken::Variable(name) => Expression::Variable(Some(name)),
            TemplateToken::Text(text) => Expression::Literal(Value::String(text)),
            TemplateToken::Number(number) => Expression::Literal(Value::Number(number)),
            TemplateToken::Word(word) => match word.as_str() {
                "true" => Expression::Literal(Value::Bool(true)),
                "false" => Expression::Literal(Value::Bool(false)),
                "nil" => Expression::Literal(Value::Null),
                _ => return Err(format!("the function `{word}` as an argument needs parentheses")),
            },
            TemplateToken::Sign(_) => {
                self.go_deeper()?;
                let value = self.pipeline()?;
                self.tokens.next_if_eq(&TemplateToken::Sign(')')).ok_or("a parenthesis is not closed")?;
                value
            }
        };
        let joined = |token: &TemplateToken| matches!(token, TemplateToken::Names { joined: true, .. });
        Ok(Some(match self.tokens.next_if(joined) {
            Some(TemplateToken::Names { names, .. }) => Expression::Path { of: Box::new(value), names },
            _ => value,
        }))
    }

    fn go_deeper(&mut self) -> Result<(), String> {
        self.levels += 1;
        if self.levels <= DEEPEST {
            return Ok(());
        }
        Err(format!("there are more than {DEEPEST} pipes and parentheses"))
    }

    fn finish(mut self) -> Result<(), String> {
        match self.tokens.next() {
            None => Ok(()),
            Some(_) => Err("there is something after its end".to_owned()),
        }
    }
}
