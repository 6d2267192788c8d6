//! `ls`.

use std::fmt::Write as _;

use boxlite::{BoxInfo, ListOptions, Runtime};
use jiff::Timestamp;

use crate::args::{Format, ListArgs};
use crate::render::{BoxColumns, box_table, json, print};
use crate::report::{Exit, Failure, Topic};

pub(super) async fn ls(runtime: &Runtime, args: ListArgs) -> Result<Exit, Failure> {
    // A condition on the state is meant for all boxes, as with Docker.
    let by_state = args.filters.iter().any(|filter| matches!(filter, boxlite::BoxFilter::State(_)));
    let options = ListOptions { all: args.all || by_state, filters: args.filters };
    let boxes = runtime.list(options).await.map_err(|error| Failure::of(&error, Topic::Host))?;
    let text = match args.format.format {
        _ if args.quiet => ids(&boxes, args.no_trunc),
        Format::Json => json(&boxes)?,
        Format::Table => {
            let columns = BoxColumns { whole: args.no_trunc, size: args.size };
            // The newest first, as people look for what they just made.
            let newest: Vec<BoxInfo> = boxes.into_iter().rev().collect();
            box_table(&newest, columns, Timestamp::now())
        }
    };
    print(&text).map(|()| Exit::OK)
}

fn ids(boxes: &[BoxInfo], whole: bool) -> String {
    boxes.iter().rev().fold(String::new(), |mut text, info| {
        let id = if whole { info.id.as_str() } else { info.short_id() };
        // Writing to a string can't fail.
        let _ = writeln!(text, "{id}");
        text
    })
}
