//! Lists in pages.

use boxlite::{Error, Result};
use serde::Deserialize;

/// How much of a list to show, and from where.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct PageQuery {
    #[serde(rename = "pageSize")]
    size: Option<usize>,
    #[serde(rename = "pageToken")]
    token: Option<String>,
    /// Only boxes of that status.
    pub(super) status: Option<String>,
}

/// The longest page, which is also the usual one: some clients ask for one page only.
const LONGEST: usize = 1000;

impl PageQuery {
    /// The page of `all`, in which each has an unchanging `key`, and the token of the next one.
    ///
    /// A token is the key of the last one shown, so that a page is right although others came or went before it.
    pub(super) fn of<T>(
        &self,
        mut all: Vec<T>,
        key: impl Fn(&T) -> &str,
    ) -> Result<(Vec<T>, Option<String>)> {
        let size = self.size.unwrap_or(LONGEST);
        if !(1..=LONGEST).contains(&size) {
            return Err(Error::invalid(format!("pageSize is from 1 to {LONGEST}, not {size}")));
        }
        if let Some(token) = &self.token {
            let last = all.iter().position(|one| key(one) == token);
            let last =
                last.ok_or_else(|| Error::invalid("pageToken is of no list that this server gave out"))?;
            all.drain(..=last);
        }
        let next = (all.len() > size).then(|| key(&all[size - 1]).to_owned());
        all.truncate(size);
        Ok((all, next))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_make_up_the_whole_list() {
        let all = || ["a", "b", "c", "d", "e"].map(str::to_owned).to_vec();
        let (mut seen, mut token) = (Vec::new(), None);
        loop {
            let query = PageQuery { size: Some(2), token, status: None };
            let (page, next) = query.of(all(), |key| key).unwrap();
            assert!(page.len() <= 2);
            seen.extend(page);
            match next {
                Some(next) => token = Some(next),
                None => break,
            }
        }
        assert_eq!(seen, all());
        for size in [0, LONGEST + 1] {
            assert!(PageQuery { size: Some(size), ..PageQuery::default() }.of(all(), |key| key).is_err());
        }
        let strange = PageQuery { token: Some("x".into()), ..PageQuery::default() };
        assert!(strange.of(all(), |key| key).is_err());
    }
}
