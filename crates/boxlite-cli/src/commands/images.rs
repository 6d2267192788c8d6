//! `images`.

use boxlite::{Image, Reference, Runtime};
use clap::Args;
use jiff::Timestamp;

use crate::args::{Layout, ListFormatArgs};
use crate::render::{docker, image_table, laid_out, print, template_lines};
use crate::report::{CommandFailure, Exit, Topic};
use crate::terminal::output_width;

/// `images`.
#[derive(Debug, Args)]
pub(crate) struct ImagesArgs {
    /// Print ids only
    #[arg(short, long)]
    quiet: bool,
    /// Do not shorten ids
    #[arg(long)]
    no_trunc: bool,
    #[command(flatten)]
    format: ListFormatArgs,
    /// Only images for which this holds: dangling (true for those without a name), reference (as NAME) or label
    #[arg(short, long = "filter", value_name = "KEY=VALUE", value_parser = image_filter)]
    filters: Vec<ImageFilter>,
    /// Accepted because Docker has it: there are no hidden images
    #[arg(short, long, hide = true)]
    all: bool,
    /// Only the image of that name, or without a tag all of that name
    #[arg(value_name = "NAME[:TAG]")]
    name: Option<String>,
}

pub(super) async fn images(runtime: &Runtime, args: ImagesArgs) -> Result<Exit, CommandFailure> {
    let mut images = runtime.images().await.map_err(|error| CommandFailure::of(&error, Topic::Host))?;
    if let Some(name) = &args.name {
        for image in &mut images {
            image.references.retain(|reference| is_called(reference, name));
        }
        images.retain(|image| !image.references.is_empty());
    }
    images.retain(|image| args.filters.iter().all(|filter| filter.holds(image)));
    let text = match &args.format.format {
        _ if args.quiet => images
            .iter()
            .map(|image| if args.no_trunc { image.digest.to_string() } else { image.short_id() } + "\n")
            .collect(),
        // A line for each name, as the table has it.
        Layout::Template(template) => {
            let now = Timestamp::now();
            let named = |image: &Image| docker::listed_images(image, now);
            let lines =
                images.iter().flat_map(|image| named(image).into_iter().map(move |names| (image, names)));
            template_lines(template, lines)?
        }
        layout @ Layout::Whole(_) => {
            let table = |images: &[Image]| {
                let width = output_width().filter(|_| !args.no_trunc);
                image_table(images, args.no_trunc, Timestamp::now(), width)
            };
            laid_out(layout, &images, table, |_| serde_json::Value::Null)?
        }
    };
    print(&text).map(|()| Exit::OK)
}

/// A condition on images.
#[derive(Debug, Clone, PartialEq, Eq)]
enum ImageFilter {
    Dangling(bool),
    Reference(String),
    Label(String, Option<String>),
}

impl ImageFilter {
    fn holds(&self, image: &Image) -> bool {
        match self {
            Self::Dangling(wanted) => image.references.is_empty() == *wanted,
            Self::Reference(name) => image.references.iter().any(|reference| is_called(reference, name)),
            Self::Label(name, wanted) => {
                let found = image.config.labels.get(name);
                found.is_some_and(|value| wanted.as_ref().is_none_or(|wanted| wanted == value))
            }
        }
    }
}

fn image_filter(text: &str) -> Result<ImageFilter, String> {
    let (key, value) =
        text.split_once('=').ok_or_else(|| format!("`{text}` is not of the form KEY=VALUE"))?;
    match (key, value) {
        (_, "") => Err(format!("`{text}` names no value")),
        ("dangling", "true" | "1") => Ok(ImageFilter::Dangling(true)),
        ("dangling", "false" | "0") => Ok(ImageFilter::Dangling(false)),
        ("reference", name) if !name.contains(['*', '?', '[']) => Ok(ImageFilter::Reference(name.to_owned())),
        ("reference", _) => Err(format!("`{value}` is a pattern; name an image, or all of its tags")),
        ("label", value) => Ok(match value.split_once('=') {
            Some((name, value)) => ImageFilter::Label(name.to_owned(), Some(value.to_owned())),
            None => ImageFilter::Label(value.to_owned(), None),
        }),
        _ => Err(format!(
            "`{text}` is not a filter; there are dangling=true, dangling=false, reference and label"
        )),
    }
}

/// Whether `reference` is `name`, or has that name and any tag.
fn is_called(reference: &str, name: &str) -> bool {
    let same = |text: &str| text.parse::<Reference>().is_ok_and(|wanted| wanted.to_string() == reference);
    let without_tag = reference.rsplit_once(':').map(|(before, tag)| (before, tag.contains('/')));
    let of_any_tag = || {
        let is_whole = name.parse::<Reference>().is_ok_and(|wanted| {
            let wanted = wanted.to_string();
            wanted.strip_suffix(":latest").is_some_and(|bare| without_tag == Some((bare, false)))
        });
        is_whole && !name.ends_with(":latest")
    };
    same(name) || of_any_tag()
}

#[cfg(test)]
mod tests {
    use super::{image_filter, is_called};

    #[test]
    fn filters_are_those_that_images_have() {
        for known in ["dangling=true", "dangling=0", "reference=alpine:3", "label=a", "label=a=b"] {
            assert!(image_filter(known).is_ok(), "{known}");
        }
        for unknown in ["dangling", "dangling=maybe", "reference=al*", "before=a", "label="] {
            assert!(image_filter(unknown).is_err(), "{unknown}");
        }
    }

    /// Mutation tried: a name without a tag means `latest` alone.
    #[test]
    fn a_name_without_a_tag_is_all_of_that_name() {
        let hub = "docker.io/library/alpine:3.20";
        assert!(
            is_called(hub, "alpine")
                && is_called(hub, "alpine:3.20")
                && is_called(hub, "docker.io/library/alpine")
        );
        assert!(
            is_called("docker.io/library/alpine:latest", "alpine")
                && is_called("localhost:5000/a:1", "localhost:5000/a")
        );
        for other in ["alpine:latest", "alpin", "alpine:3", "library", "localhost:5000/alpine", "a b"] {
            assert!(!is_called(hub, other), "{other}");
        }
        assert!(is_called("oci:/x:mini", "oci:/x:mini") && !is_called("oci:/x:mini", "oci:/x:min"));
    }
}
