//! Paged lists.

use boxlite::{Error, Result};
use serde::Deserialize;

/// The part of a list that a client asks for.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct PageQuery {
    #[serde(rename = "pageSize")]
    size: Option<usize>,
    #[serde(rename = "pageToken")]
    token: Option<String>,
    /// Show only boxes of this status.
    pub(super) status: Option<String>,
}

/// The largest page, and the default: some clients ask for one page only.
const MAX_PAGE_SIZE: usize = 1000;

impl PageQuery {
    /// Returns one page of `all`, sorted by their unchanging `key`, and the token of the next page.
    ///
    /// A token is the key of the last item shown, so pages stay right while items come and go, that last one included.
    pub(super) fn of<T, P: PageKey>(
        &self,
        mut all: Vec<T>,
        key: impl Fn(&T) -> P,
    ) -> Result<(Vec<T>, Option<String>)> {
        let size = self.size.unwrap_or(MAX_PAGE_SIZE);
        if !(1..=MAX_PAGE_SIZE).contains(&size) {
            return Err(Error::invalid(format!("pageSize is from 1 to {MAX_PAGE_SIZE}, not {size}")));
        }
        all.sort_by_cached_key(&key);
        if let Some(token) = &self.token {
            let last = P::of_token(token)
                .ok_or_else(|| Error::invalid("pageToken is not one that this server gave out"))?;
            all.drain(..all.partition_point(|one| key(one) <= last));
        }
        let next = (all.len() > size).then(|| key(&all[size - 1]).token());
        all.truncate(size);
        Ok((all, next))
    }
}

/// The position of an item in a list; its token keeps that position even after the item is gone.
pub(super) trait PageKey: Ord {
    fn token(&self) -> String;
    fn of_token(token: &str) -> Option<Self>
    where
        Self: Sized;
}

/// By name.
impl PageKey for String {
    fn token(&self) -> String {
        self.clone()
    }

    fn of_token(token: &str) -> Option<Self> {
        Some(token.to_owned())
    }
}

/// By the millisecond of its creation, and by id.
impl PageKey for (i64, String) {
    fn token(&self) -> String {
        format!("{}.{}", self.0, self.1)
    }

    fn of_token(token: &str) -> Option<Self> {
        let (created, id) = token.split_once('.')?;
        Some((created.parse().ok()?, id.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Item = (i64, String);

    fn items() -> Vec<Item> {
        [(-1, "z"), (3, "b"), (3, "c"), (20, "a"), (100, "d")].map(|(at, id)| (at, id.to_owned())).to_vec()
    }

    fn page(all: &[Item], token: Option<String>) -> (Vec<Item>, Option<String>) {
        let query = PageQuery { size: Some(2), token, status: None };
        query.of(all.to_vec(), Item::clone).unwrap()
    }

    #[test]
    fn pages_make_up_the_whole_list() {
        let (mut seen, mut token) = (Vec::new(), None);
        loop {
            let (page, next) = page(&items(), token);
            assert!(page.len() <= 2);
            seen.extend(page);
            match next {
                Some(next) => token = Some(next),
                None => break,
            }
        }
        assert_eq!(seen, items());
        for size in [0, MAX_PAGE_SIZE + 1] {
            let query = PageQuery { size: Some(size), ..PageQuery::default() };
            assert!(query.of(items(), Item::clone).is_err());
        }
        for token in ["", "x", "3", "x.b"] {
            let strange = PageQuery { token: Some(token.into()), ..PageQuery::default() };
            assert!(strange.of(items(), Item::clone).is_err(), "{token}");
        }
    }

    /// Mutation tried: looking for the token's item in the list refuses the next page.
    #[test]
    fn a_list_goes_on_after_items_were_removed_meanwhile() {
        let mut all = items();
        let (first, token) = page(&all, None);
        all.retain(|item| !first.contains(item));
        all.insert(0, (0, "late".to_owned()));
        let (second, token) = page(&all, token);
        assert_eq!(second, items()[2..4]);
        all.retain(|item| !second.contains(item));
        assert_eq!(page(&all, token), (items()[4..].to_vec(), None));
        assert_eq!(page(&[], Some("7.x".into())), (Vec::new(), None));
        let names = PageQuery { token: Some("b".into()), ..PageQuery::default() };
        let left = ["d", "a", "c"].map(str::to_owned).to_vec();
        assert_eq!(names.of(left, String::clone).unwrap().0, ["c", "d"]);
    }
}
