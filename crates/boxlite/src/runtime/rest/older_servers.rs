//! Options that an older server does not know.
//!
//! Such a server ignores an unknown field, and a box would lack what its user asked for: with `allow_net` left out it
//! reaches the whole network. The server answers with the options that it keeps, so a comparison shows what it ignored.

use boxlite_types::{BoxOptions, Error, Result, UpdateOptions};
use serde_json::{Map, Value};

/// Fields that say how to create a box; a server need not keep them.
const OF_THE_REQUEST: [&str; 3] = ["pull", "insecure", "insecure_credentials"];

/// Refuses what was created where the server has ignored an option that is not at its default.
pub(super) fn check_created(sent: &BoxOptions, kept: &BoxOptions) -> Result<()> {
    let (sent, kept, defaults) = (fields(sent)?, fields(kept)?, fields(&BoxOptions::default())?);
    let is_default = |field: &str, of: &Map<String, Value>| of.get(field) == defaults.get(field);
    refuse(sent.keys().filter(|&field| {
        !OF_THE_REQUEST.contains(&field.as_str()) && !is_default(field, &sent) && is_default(field, &kept)
    }))
}

/// Refuses what was updated where the server has ignored a change.
pub(super) fn check_updated(update: &UpdateOptions, kept: &BoxOptions) -> Result<()> {
    let (wanted, kept) = (fields(&update.applied_to(kept.clone()))?, fields(kept)?);
    refuse(wanted.keys().filter(|&field| field != "env" && wanted.get(field) != kept.get(field)))
}

fn fields(options: &BoxOptions) -> Result<Map<String, Value>> {
    let fields = serde_json::to_value(options).and_then(serde_json::from_value);
    fields.map_err(|source| Error::bug("the options are not an object of JSON").because(source))
}

fn refuse<'a>(ignored: impl Iterator<Item = &'a String>) -> Result<()> {
    let ignored: Vec<&str> = ignored.map(String::as_str).collect();
    if ignored.is_empty() {
        return Ok(());
    }
    Err(Error::unsupported(format!(
        "the server is too old for the option{} {}, which it ignored; update boxlite on that host",
        if ignored.len() == 1 { "" } else { "s" },
        ignored.join(", ")
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Mutation tried: the fields of the request compared, too.
    #[test]
    fn an_option_that_a_server_ignored_is_named() {
        let sent = BoxOptions {
            image: "alpine".into(),
            pull: boxlite_types::PullPolicy::Always,
            allow_net: vec!["example.org:443".into()],
            memory: 1 << 30,
            ..BoxOptions::default()
        };
        let kept =
            BoxOptions { name: Some("made-up".into()), pull: BoxOptions::default().pull, ..sent.clone() };
        check_created(&sent, &kept).unwrap();
        let ignoring = BoxOptions { allow_net: Vec::new(), ..kept.clone() };
        let refusal = check_created(&sent, &ignoring).unwrap_err();
        assert_eq!(refusal.kind(), boxlite_types::ErrorKind::Unsupported);
        assert!(refusal.to_string().contains("the option allow_net, which"), "{refusal}");
        let update = UpdateOptions { allow_net: Some(vec!["a.example".into()]), ..UpdateOptions::default() };
        check_updated(&update, &update.applied_to(kept.clone())).unwrap();
        assert!(check_updated(&update, &kept).is_err());
    }
}
