//! What a template writes for a document.

use serde_json::Value;

use super::functions::TemplateFunction;
use super::parse::{Expression, TemplateNode};
use super::value::TemplateValue;

/// The longest text that a function may make: functions of functions could double it without end.
const LONGEST_TEXT: usize = 16 << 20;

/// The dot and the variables at one place of a template.
pub(super) struct TemplateScope {
    dot: TemplateValue,
    /// The latest last.
    variables: Vec<(String, TemplateValue)>,
}

impl TemplateScope {
    /// The beginning of a template for a document, which `docker` has under Docker's names.
    pub(super) fn of(document: Value, docker: Value) -> Self {
        let dot = TemplateValue::document(document, docker);
        Self { variables: vec![(String::new(), dot.clone())], dot }
    }

    /// Writes the nodes.
    pub(super) fn write(&mut self, nodes: &[TemplateNode], out: &mut String) -> Result<(), String> {
        let outer = self.variables.len();
        for node in nodes {
            match node {
                TemplateNode::Text(text) => out.push_str(text),
                TemplateNode::Value(value) => out.push_str(&self.value(value)?.shown()),
                TemplateNode::Assign { name, value } => {
                    let value = self.value(value)?;
                    // One of a surrounding part is changed there.
                    match self.variables.iter_mut().rev().find(|(known, _)| known == name) {
                        Some((_, known)) => *known = value,
                        None => self.variables.push((name.clone(), value)),
                    }
                }
                TemplateNode::If { condition, part, otherwise } => {
                    let holds = self.value(condition)?.is_true();
                    self.write(if holds { part } else { otherwise }, out)?;
                }
                TemplateNode::With { value, variable, part, otherwise } => {
                    let value = self.value(value)?;
                    if value.is_true() {
                        let named = variable.iter().map(|name| (name.clone(), value.clone())).collect();
                        self.within(value, named, part, out)?;
                    } else {
                        self.write(otherwise, out)?;
                    }
                }
                TemplateNode::Range { list, variables, part, otherwise } => {
                    let elements = self.value(list)?.elements()?;
                    if elements.is_empty() {
                        self.write(otherwise, out)?;
                    }
                    for (key, element) in elements {
                        let mut values = vec![element.clone(), key];
                        let named = variables.iter().rev().cloned().zip(values.drain(..)).collect();
                        self.within(element, named, part, out)?;
                    }
                }
            }
        }
        self.variables.truncate(outer);
        Ok(())
    }

    /// Writes a part with another dot and more variables.
    fn within(
        &mut self,
        dot: TemplateValue,
        variables: Vec<(String, TemplateValue)>,
        part: &[TemplateNode],
        out: &mut String,
    ) -> Result<(), String> {
        let outer = self.variables.len();
        self.variables.extend(variables);
        let outer_dot = std::mem::replace(&mut self.dot, dot);
        self.write(part, out)?;
        self.dot = outer_dot;
        self.variables.truncate(outer);
        Ok(())
    }

    fn value(&self, expression: &Expression) -> Result<TemplateValue, String> {
        match expression {
            Expression::Literal(Value::String(text)) => Ok(TemplateValue::text(text.clone())),
            Expression::Literal(value) => Ok(TemplateValue::of(value.clone())),
            Expression::Variable(None) => Ok(self.dot.clone()),
            Expression::Variable(Some(name)) => {
                let known = self.variables.iter().rev().find(|(known, _)| known == name);
                known.map(|(_, value)| value.clone()).ok_or_else(|| format!("`${name}` is not set"))
            }
            Expression::Path { of, names } => self.value(of)?.field(names),
            Expression::Call {
                function: function @ (TemplateFunction::And | TemplateFunction::Or),
                arguments,
            } => self.until_decided(*function, arguments),
            Expression::Call { function, arguments } => {
                let arguments = arguments
                    .iter()
                    .map(|argument| self.value(argument))
                    .collect::<Result<Vec<_>, String>>()?;
                let value = function.call(&arguments)?;
                match value.text_length() {
                    Some(length) if length > LONGEST_TEXT => {
                        Err(format!("a text is longer than {LONGEST_TEXT} bytes"))
                    }
                    _ => Ok(value),
                }
            }
        }
    }

    /// As in Go, what does not matter any more is not looked up.
    fn until_decided(
        &self,
        function: TemplateFunction,
        arguments: &[Expression],
    ) -> Result<TemplateValue, String> {
        let mut values = Vec::new();
        for argument in arguments {
            let value = self.value(argument)?;
            let decides = value.is_true() == (function == TemplateFunction::Or);
            values.push(value);
            if decides {
                break;
            }
        }
        function.call(&values)
    }
}
