//! How to get an image back that this home has lost.

use std::path::Path;

use boxlite_storage::reference::Reference;

/// Says what brings the layers of the image `reference` back into the home.
pub(super) fn way_back(reference: &str) -> String {
    let parsed = reference.parse::<Reference>().ok();
    let gone = parsed.as_ref().and_then(Reference::path).filter(|path| !path.exists());
    let absent = |path: &Path| format!("{} has gone as well: put it back first, and then ", path.display());
    let first = gone.map(absent).unwrap_or_default();
    format!("{first}`boxlite pull {reference}` brings its layers back")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pull_from_what_has_gone_is_not_all_that_is_advised() {
        let directory = tempfile::tempdir().unwrap();
        let here = format!("oci:{}:mini", directory.path().display());
        for there in ["alpine:3.20", &here] {
            assert_eq!(way_back(there), format!("`boxlite pull {there}` brings its layers back"));
        }
        let gone = format!("oci-archive:{}/gone.tar", directory.path().display());
        let text = way_back(&gone);
        assert!(text.contains("gone.tar has gone as well: put it back") && text.contains(&gone), "{text}");
    }
}
