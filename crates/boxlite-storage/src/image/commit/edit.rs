//! Changes of an image's configuration, written as lines of a Dockerfile.

use boxlite_types::{Error, Result, parse_signal};
use serde_json::{Map, Value, json};

use super::healthcheck;

/// One change of a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::image) enum ConfigEdit {
    Cmd(Vec<String>),
    Entrypoint(Vec<String>),
    Env(Vec<(String, String)>),
    Expose(Vec<String>),
    Label(Vec<(String, String)>),
    Healthcheck(Value),
    StopSignal(String),
    User(String),
    Volume(Vec<String>),
    Workdir(String),
}

impl ConfigEdit {
    /// Reads one line.
    ///
    /// # Errors
    /// `InvalidInput`, saying what is wrong.
    pub(in crate::image) fn parse(line: &str) -> Result<Self> {
        let wrong = |why: &str| Error::invalid(format!("the change '{line}' cannot be made: {why}"));
        let (word, rest) = line.trim().split_once(char::is_whitespace).unwrap_or((line.trim(), ""));
        let rest = rest.trim();
        let one = || if rest.is_empty() { Err(wrong("it says nothing")) } else { Ok(rest.to_owned()) };
        Ok(match word.to_ascii_uppercase().as_str() {
            "CMD" => Self::Cmd(command(rest).map_err(|why| wrong(&why))?),
            "ENTRYPOINT" => Self::Entrypoint(command(rest).map_err(|why| wrong(&why))?),
            "ENV" => Self::Env(pairs(rest).map_err(|why| wrong(&why))?),
            "LABEL" => Self::Label(pairs(rest).map_err(|why| wrong(&why))?),
            "EXPOSE" => {
                let ports: Vec<String> = one()?.split_whitespace().map(str::to_owned).collect();
                match ports.iter().find(|port| !is_port(port)) {
                    Some(port) => return Err(wrong(&format!("'{port}' is not PORT[/tcp|/udp]"))),
                    None => Self::Expose(ports.into_iter().map(with_protocol).collect()),
                }
            }
            "HEALTHCHECK" => Self::Healthcheck(healthcheck::parse(rest).map_err(|why| wrong(&why))?),
            "STOPSIGNAL" => {
                let signal = one()?;
                parse_signal(&signal).map_err(|error| wrong(&error.to_string()))?;
                Self::StopSignal(signal)
            }
            "USER" => Self::User(one()?),
            "VOLUME" => Self::Volume(list(&one()?).map_err(|why| wrong(&why))?),
            "WORKDIR" if rest.starts_with('/') => Self::Workdir(rest.to_owned()),
            "WORKDIR" => return Err(wrong("a working directory is an absolute path")),
            _ => {
                return Err(wrong(
                    "it begins with none of CMD, ENTRYPOINT, ENV, EXPOSE, HEALTHCHECK, LABEL, STOPSIGNAL, USER, VOLUME and WORKDIR",
                ));
            }
        })
    }

    /// Makes the change in the `config` part of an image's config.
    pub(super) fn apply(&self, config: &mut Map<String, Value>) {
        match self {
            Self::Cmd(words) => drop(config.insert("Cmd".into(), json!(words))),
            Self::Entrypoint(words) => {
                config.insert("Entrypoint".into(), json!(words));
            }
            Self::Env(pairs) => {
                let mut all: Vec<String> = config
                    .get("Env")
                    .and_then(Value::as_array)
                    .map(|list| list.iter().filter_map(Value::as_str).map(str::to_owned).collect())
                    .unwrap_or_default();
                for (name, value) in pairs {
                    let known = all.iter_mut().find(|entry| entry.split('=').next() == Some(name));
                    match known {
                        Some(entry) => *entry = format!("{name}={value}"),
                        None => all.push(format!("{name}={value}")),
                    }
                }
                config.insert("Env".into(), json!(all));
            }
            Self::Label(pairs) => {
                let labels = object(config, "Labels");
                for (name, value) in pairs {
                    labels.insert(name.clone(), json!(value));
                }
            }
            Self::Expose(ports) => {
                let exposed = object(config, "ExposedPorts");
                exposed.extend(ports.iter().map(|port| (port.clone(), json!({}))));
            }
            Self::Volume(paths) => {
                let volumes = object(config, "Volumes");
                volumes.extend(paths.iter().map(|path| (path.clone(), json!({}))));
            }
            Self::Healthcheck(check) => drop(config.insert("Healthcheck".into(), check.clone())),
            Self::StopSignal(signal) => drop(config.insert("StopSignal".into(), json!(signal))),
            Self::User(user) => drop(config.insert("User".into(), json!(user))),
            Self::Workdir(path) => drop(config.insert("WorkingDir".into(), json!(path))),
        }
    }
}

/// The object `key`, made where there is none.
pub(super) fn object<'a>(config: &'a mut Map<String, Value>, key: &str) -> &'a mut Map<String, Value> {
    let entry = config.entry(key).or_insert_with(|| json!({}));
    if !entry.is_object() {
        *entry = json!({});
    }
    entry.as_object_mut().expect("it was made one")
}

/// A command as a JSON list, or as a line for the shell.
fn command(text: &str) -> Result<Vec<String>, String> {
    if text.starts_with('[') {
        return json_list(text);
    }
    Ok(if text.is_empty() { Vec::new() } else { vec!["/bin/sh".into(), "-c".into(), text.to_owned()] })
}

fn list(text: &str) -> Result<Vec<String>, String> {
    if text.starts_with('[') {
        return json_list(text);
    }
    Ok(text.split_whitespace().map(str::to_owned).collect())
}

fn json_list(text: &str) -> Result<Vec<String>, String> {
    serde_json::from_str(text).map_err(|_| format!("{text} is not a list such as [\"sh\", \"-c\", \"true\"]"))
}

fn is_port(text: &str) -> bool {
    let (port, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    port.parse::<u16>().is_ok_and(|port| port > 0) && matches!(protocol, "tcp" | "udp" | "sctp")
}

fn with_protocol(port: String) -> String {
    if port.contains('/') { port } else { format!("{port}/tcp") }
}

/// `NAME=VALUE …`, where values may be quoted, or `NAME VALUE`.
fn pairs(text: &str) -> Result<Vec<(String, String)>, String> {
    let first = text.split_whitespace().next().unwrap_or_default();
    if !first.is_empty() && !first.contains('=') {
        let value = text[first.len()..].trim();
        return if value.is_empty() {
            Err(format!("{first} has no value"))
        } else {
            Ok(vec![(first.into(), value.into())])
        };
    }
    let mut found = Vec::new();
    for word in words(text)? {
        let (name, value) = word.split_once('=').ok_or_else(|| format!("'{word}' is not NAME=VALUE"))?;
        if name.is_empty() {
            return Err(format!("'{word}' has no name"));
        }
        found.push((name.to_owned(), value.to_owned()));
    }
    if found.is_empty() { Err("it says nothing".to_owned()) } else { Ok(found) }
}

/// Splits at white space outside of quotes, which are taken away.
fn words(text: &str) -> Result<Vec<String>, String> {
    let (mut all, mut word, mut quote, mut begun) = (Vec::new(), String::new(), None, false);
    let mut characters = text.chars();
    while let Some(c) = characters.next() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (Some('"') | None, '\\') => word.extend(characters.next()),
            (None, '"' | '\'') => {
                quote = Some(c);
                begun = true;
            }
            (None, c) if c.is_whitespace() => {
                if begun {
                    all.push(std::mem::take(&mut word));
                }
                begun = false;
            }
            (_, c) => {
                word.push(c);
                begun = true;
            }
        }
    }
    if quote.is_some() {
        return Err("a quote is not closed".to_owned());
    }
    if begun {
        all.push(word);
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edited(lines: &[&str]) -> Value {
        let mut config = json!({"Cmd": ["old"], "Env": ["PATH=/bin", "A=1"], "Labels": null});
        for line in lines {
            ConfigEdit::parse(line).unwrap().apply(config.as_object_mut().unwrap());
        }
        config
    }

    #[test]
    fn changes_are_made_as_a_dockerfile_would_make_them() {
        assert_eq!(edited(&["CMD [\"a\", \"b c\"]"])["Cmd"], json!(["a", "b c"]));
        assert_eq!(edited(&["cmd echo $A"])["Cmd"], json!(["/bin/sh", "-c", "echo $A"]));
        assert_eq!(edited(&["CMD []", "ENTRYPOINT [\"x\"]"])["Cmd"], json!([]));
        let env = edited(&["ENV A=2 B=\"two words\" C=a\\ b", "ENV D all of it", "ENV E="]);
        assert_eq!(env["Env"], json!(["PATH=/bin", "A=2", "B=two words", "C=a b", "D=all of it", "E="]));
        let rest = edited(&[
            "LABEL a.b=c",
            "EXPOSE 80 53/udp",
            "VOLUME [\"/data\"]",
            "VOLUME /x",
            "USER me",
            "WORKDIR /srv",
        ]);
        assert_eq!(rest["Labels"], json!({"a.b": "c"}));
        assert_eq!(rest["ExposedPorts"], json!({"80/tcp": {}, "53/udp": {}}));
        assert_eq!(rest["Volumes"], json!({"/data": {}, "/x": {}}));
        assert_eq!((&rest["User"], &rest["WorkingDir"]), (&json!("me"), &json!("/srv")));
    }

    #[test]
    fn what_is_no_change_is_refused() {
        for line in [
            "",
            "FROM x",
            "RUN true",
            "CMD [\"a\"",
            "ENV",
            "ENV A",
            "ENV =1",
            "ENV A=\"1",
            "ENV A=1 B",
            "EXPOSE 0",
            "EXPOSE 80/http",
            "EXPOSE",
            "WORKDIR srv",
            "USER",
            "STOPSIGNAL NONE",
            "VOLUME [1]",
        ] {
            assert_eq!(
                ConfigEdit::parse(line).unwrap_err().kind(),
                boxlite_types::ErrorKind::InvalidInput,
                "{line}"
            );
        }
    }
}
