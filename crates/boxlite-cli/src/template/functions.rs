//! The functions of templates: those of Go's templates and of Docker that people use.

use std::cmp::Ordering;

use serde_json::Value;

use super::value::TemplateValue;

macro_rules! functions {
    ($($variant:ident $name:literal)*) => {
        /// A function.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(super) enum TemplateFunction { $($variant),* }

        /// Finds a function by its name.
        pub(super) fn named(name: &str) -> Result<TemplateFunction, String> {
            match name {
                $($name => Ok(TemplateFunction::$variant),)*
                _ => Err(format!(
                    "`{name}` is not a function; there are {}; a field begins with a dot, as in {{{{.name}}}} and {{{{json .ports}}}}",
                    [$($name),*].join(", ")
                )),
            }
        }
    };
}

functions! {
    Json "json" Join "join" Split "split" Lower "lower" Upper "upper" Title "title" Truncate "truncate" Len "len" Index "index"
    Print "print" Println "println" Printf "printf" Equal "eq" Unequal "ne" Less "lt" LessEqual "le" Greater "gt" GreaterEqual "ge"
    And "and" Or "or" Not "not"
}

impl TemplateFunction {
    /// Returns the value for these arguments. The error says what they would have to be.
    pub(super) fn call(self, arguments: &[TemplateValue]) -> Result<TemplateValue, String> {
        use TemplateFunction as F;
        match (self, arguments) {
            (F::Json, [value]) => Ok(TemplateValue::text(json(&value.value))),
            (F::Join, [list, separator]) => match (&list.value, &separator.value) {
                (Value::Array(items), Value::String(separator)) => {
                    let items: Vec<String> =
                        items.iter().map(|item| TemplateValue::of(item.clone()).shown()).collect();
                    Ok(TemplateValue::text(items.join(separator)))
                }
                (Value::Null, Value::String(_)) => Ok(TemplateValue::text(String::new())),
                _ => Err("join takes a list and a text".to_owned()),
            },
            (F::Split, [text, separator]) => match (&text.value, &separator.value) {
                (Value::String(text), Value::String(separator)) => {
                    Ok(TemplateValue::of(text.split(separator.as_str()).map(Value::from).collect::<Value>()))
                }
                _ => Err("split takes two texts".to_owned()),
            },
            (F::Lower, [text]) => text.changed("lower", str::to_lowercase),
            (F::Upper, [text]) => text.changed("upper", str::to_uppercase),
            (F::Title, [text]) => text.changed("title", |text| {
                let mut letters = text.chars();
                letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
            }),
            (F::Truncate, [text, length]) => {
                let length = length.value.as_u64().ok_or("truncate takes a text and a length")?;
                text.changed("truncate", |text| {
                    text.chars().take(usize::try_from(length).unwrap_or(usize::MAX)).collect()
                })
            }
            (F::Len, [value]) => {
                let length = match &value.value {
                    Value::String(text) => text.len(),
                    Value::Array(items) => items.len(),
                    Value::Object(fields) => fields.len(),
                    Value::Null => 0,
                    _ => return Err("len takes a text or a list".to_owned()),
                };
                Ok(TemplateValue::of(length.into()))
            }
            (F::Index, [value, keys @ ..]) => {
                keys.iter().try_fold(value.clone(), |value, key| index(&value, key))
            }
            (F::Print, parts) => Ok(TemplateValue::text(joined(parts, ""))),
            (F::Println, parts) => Ok(TemplateValue::text(joined(parts, " ") + "\n")),
            (F::Printf, [format, parts @ ..]) => printf(format, parts),
            (F::Equal, [one, others @ ..]) if !others.is_empty() => {
                Ok(TemplateValue::of(others.iter().any(|other| is_equal(&one.value, &other.value)).into()))
            }
            (F::Unequal, [one, other]) => Ok(TemplateValue::of((!is_equal(&one.value, &other.value)).into())),
            (F::Less | F::LessEqual | F::Greater | F::GreaterEqual, [one, other]) => {
                let order = order(&one.value, &other.value).ok_or("two numbers or two texts are compared")?;
                Ok(TemplateValue::of(
                    match self {
                        F::Less => order == Ordering::Less,
                        F::LessEqual => order != Ordering::Greater,
                        F::Greater => order == Ordering::Greater,
                        _ => order != Ordering::Less,
                    }
                    .into(),
                ))
            }
            (F::And, [.., last]) => {
                Ok(arguments.iter().find(|value| !value.is_true()).unwrap_or(last).clone())
            }
            (F::Or, [.., last]) => Ok(arguments.iter().find(|value| value.is_true()).unwrap_or(last).clone()),
            (F::Not, [value]) => Ok(TemplateValue::of((!value.is_true()).into())),
            (_, arguments) => {
                Err(format!("the function takes another number of values than {}", arguments.len()))
            }
        }
    }
}

/// Writes JSON in one line, in which characters that steer a terminal are escaped as JSON escapes them.
fn json(value: &Value) -> String {
    let mut text = String::new();
    for c in value.to_string().chars() {
        if crate::report::steers(c) {
            let mut units = [0; 2];
            text.extend(c.encode_utf16(&mut units).iter().map(|unit| format!("\\u{unit:04x}")));
        } else {
            text.push(c);
        }
    }
    text
}

fn joined(parts: &[TemplateValue], between: &str) -> String {
    parts.iter().map(TemplateValue::shown).collect::<Vec<_>>().join(between)
}

/// Looks an element up. As in Go, an object gives nothing for a name that it has not, and a list ends.
fn index(value: &TemplateValue, key: &TemplateValue) -> Result<TemplateValue, String> {
    let found = match (&value.value, &key.value) {
        (Value::Array(items), Value::Number(at)) => {
            let at = at.as_u64().and_then(|at| usize::try_from(at).ok());
            at.and_then(|at| items.get(at))
                .ok_or_else(|| format!("there is no element {}; there are {}", key.shown(), items.len()))?
                .clone()
        }
        (Value::Object(fields), Value::String(name)) => fields.get(name).cloned().unwrap_or(Value::Null),
        (Value::Null, _) => Value::Null,
        _ => return Err("index takes a list and a number, or an object and a name".to_owned()),
    };
    Ok(TemplateValue::of(found))
}

/// Fills in a format with `%s`, `%v`, `%d`, `%q`, `%t`, `%f` and widths such as `%-20s` and `%.2f`.
fn printf(format: &TemplateValue, parts: &[TemplateValue]) -> Result<TemplateValue, String> {
    if !format.value.is_string() {
        return Err("printf takes a text first".to_owned());
    }
    // One that is a value of the document is escaped as that is.
    let format = format.shown();
    let (mut text, mut parts, mut rest) = (String::new(), parts.iter(), &*format);
    while let Some((before, behind)) = rest.split_once('%') {
        text.push_str(before);
        let end = behind
            .find(|c: char| !(c.is_ascii_digit() || c == '-' || c == '.'))
            .ok_or("printf: `%` without a letter")?;
        let (size, verb) = (&behind[..end], behind[end..].chars().next().unwrap_or_default());
        rest = &behind[end + verb.len_utf8()..];
        if verb == '%' {
            text.push('%');
            continue;
        }
        let part = parts.next().ok_or("printf has fewer values than its format asks for")?;
        let (width, digits) = size.split_once('.').unwrap_or((size, ""));
        let word = match (verb, part.value.as_f64(), digits.parse::<usize>()) {
            ('f', Some(number), digits) => format!("{number:.*}", digits.unwrap_or(6).min(30)),
            ('q', ..) => json(&part.value),
            ('s' | 'v' | 'd' | 't', ..) => part.shown(),
            _ => return Err(format!("printf knows no `%{size}{verb}` of `{}`", part.shown())),
        };
        let width = width.parse::<i32>().unwrap_or(0);
        let padding =
            " ".repeat((width.unsigned_abs().min(1000) as usize).saturating_sub(word.chars().count()));
        let (before, after) = if width < 0 { ("", padding.as_str()) } else { (padding.as_str(), "") };
        text.extend([before, &word, after]);
    }
    text.push_str(rest);
    Ok(TemplateValue::text(text))
}

fn is_equal(one: &Value, other: &Value) -> bool {
    one == other || (one.is_number() && order(one, other) == Some(Ordering::Equal))
}

fn order(one: &Value, other: &Value) -> Option<Ordering> {
    match (one, other) {
        (Value::String(one), Value::String(other)) => Some(one.cmp(other)),
        _ => match (one.as_i64(), other.as_i64()) {
            (Some(one), Some(other)) => Some(one.cmp(&other)),
            _ => one.as_f64()?.partial_cmp(&other.as_f64()?),
        },
    }
}
