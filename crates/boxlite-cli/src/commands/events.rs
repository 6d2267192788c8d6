//! `events`.

use std::time::Duration;

use boxlite::{EventOptions, EventSubject, HomeEvent, Runtime};
use clap::Args;
use jiff::Timestamp;

use crate::args::moment;
use crate::render::{docker, print};
use crate::report::{CommandFailure, Exit, Topic};
use crate::template::Template;
use crate::terminal::Interruptions;

/// How often to look for more.
const INTERVAL: Duration = Duration::from_millis(500);

/// `events`.
#[derive(Debug, Args)]
pub(crate) struct EventsArgs {
    /// Begin with what has happened since then; a time, or a duration before now such as 10m [default: now]
    #[arg(long, value_name = "TIME", value_parser = moment)]
    since: Option<Timestamp>,
    /// End with what has happened by then
    #[arg(long, value_name = "TIME", value_parser = moment)]
    until: Option<Timestamp>,
    /// Only events for which this holds: box (a name or the beginning of an id), event or type; of several values of one key, any
    #[arg(short, long = "filter", value_name = "KEY=VALUE", value_parser = condition)]
    filters: Vec<EventCondition>,
    /// Write each event by a template such as '{{.at}} {{.action}}' instead of as a line of JSON
    #[arg(long, value_name = "json|TEMPLATE", value_parser = template)]
    format: Option<Template>,
}

/// One condition on events.
#[derive(Debug, Clone, PartialEq, Eq)]
enum EventCondition {
    Box(String),
    Action(String),
    Subject(EventSubject),
}

impl EventCondition {
    fn holds(&self, event: &HomeEvent) -> bool {
        match self {
            Self::Box(wanted) => {
                event.subject == EventSubject::Box
                    && (event.name.as_deref() == Some(wanted) || event.id.starts_with(wanted.as_str()))
            }
            Self::Action(wanted) => event.action.name() == wanted,
            Self::Subject(wanted) => event.subject == *wanted,
        }
    }
}

fn condition(text: &str) -> Result<EventCondition, String> {
    let (key, value) =
        text.split_once('=').ok_or_else(|| format!("`{text}` is not of the form KEY=VALUE"))?;
    match (key, value) {
        (_, "") => Err(format!("`{text}` names no value")),
        ("box" | "container", name) => Ok(EventCondition::Box(name.to_owned())),
        ("event", action) => Ok(EventCondition::Action(action.to_owned())),
        ("type", "box" | "container") => Ok(EventCondition::Subject(EventSubject::Box)),
        ("type", "image") => Ok(EventCondition::Subject(EventSubject::Image)),
        ("type", "volume") => Ok(EventCondition::Subject(EventSubject::Volume)),
        ("type", "network") => Ok(EventCondition::Subject(EventSubject::Network)),
        ("type", "home") => Ok(EventCondition::Subject(EventSubject::Home)),
        ("type", other) => {
            Err(format!("`{other}` is not a type of events; there are box, image, volume, network and home"))
        }
        _ => Err(format!("`{key}` is not a filter; there are box, event and type")),
    }
}

fn template(text: &str) -> Result<Template, String> {
    if text == "json" {
        "{{json .}}".parse()
    } else if text.contains("{{") {
        text.parse()
    } else {
        Err(format!("`{text}` is not a template such as '{{{{.action}}}}'"))
    }
}

/// Whether an event meets the conditions: one of each kind that is named.
fn is_wanted(event: &HomeEvent, conditions: &[EventCondition]) -> bool {
    let kind = std::mem::discriminant::<EventCondition>;
    conditions.iter().all(|condition| {
        conditions.iter().filter(|other| kind(other) == kind(condition)).any(|other| other.holds(event))
    })
}

pub(super) async fn events(runtime: &Runtime, args: EventsArgs) -> Result<Exit, CommandFailure> {
    let mut interruptions = Interruptions::watch()?;
    let failed = |error: boxlite::Error| CommandFailure::of(&error, Topic::Host);
    let since = args.since.unwrap_or_else(Timestamp::now);
    let mut options = EventOptions { since: Some(since), until: args.until, after: None };
    loop {
        let is_last = args.until.is_some_and(|until| Timestamp::now() >= until);
        let page = runtime.events(options.clone()).await.map_err(failed)?;
        for event in page.events.iter().filter(|event| is_wanted(event, &args.filters)) {
            print(&line(event, args.format.as_ref())?)?;
        }
        options.after = Some(page.position);
        if is_last || interruptions.before(tokio::time::sleep(INTERVAL)).await.is_break() {
            return Ok(Exit::OK);
        }
    }
}

fn line(event: &HomeEvent, format: Option<&Template>) -> Result<String, CommandFailure> {
    match format {
        Some(template) => template.line(event, docker::event(event)),
        None => serde_json::to_string(event)
            .map(|line| line + "\n")
            .map_err(|error| CommandFailure::local(format!("an event cannot be written as JSON: {error}"))),
    }
}

#[cfg(test)]
mod tests {
    use boxlite::EventAction;

    use super::*;

    #[test]
    fn conditions_of_one_kind_are_alternatives() {
        let event = HomeEvent::of_box(EventAction::Die, "abc123", Some("web"));
        let wanted = |texts: &[&str]| {
            let conditions: Vec<EventCondition> = texts.iter().map(|text| condition(text).unwrap()).collect();
            is_wanted(&event, &conditions)
        };
        assert!(wanted(&[]) && wanted(&["box=web"]) && wanted(&["container=abc"]) && wanted(&["type=box"]));
        assert!(wanted(&["event=start", "event=die", "box=web"]));
        assert!(!wanted(&["event=start", "box=web"]) && !wanted(&["box=other"]) && !wanted(&["type=image"]));
        for bad in ["web", "box=", "type=daemon", "colour=red"] {
            assert!(condition(bad).is_err(), "{bad}");
        }
    }
}
