//! The data of the page's curves: free space over a day, what gc reclaimed, and how the disks of boxes grew.
//!
//! All of it is in memory and bounded: a day of samples of the host, and an hour of every box that there is. A server
//! that restarts begins anew.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde::Serialize;

/// The time between two samples of the host.
pub(crate) const SAMPLE_INTERVAL: Duration = Duration::from_secs(30);
/// The samples of a day.
const MAX_SAMPLES: usize = 2880;
/// How many samples of the host there are to one of the boxes.
pub(crate) const SAMPLES_PER_DISKS: usize = 10;
/// The samples of boxes in an hour, the first and the last included.
const MAX_DISKS: usize = 13;

/// A sample of the host.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sample {
    /// Seconds since 1970.
    pub(crate) at: i64,
    /// Free bytes, where they could be measured.
    pub(crate) free: Option<u64>,
    /// Bytes that passes of gc, of any process, have reclaimed since the sample before.
    pub(crate) reclaimed: u64,
}

/// The samples, oldest first.
#[derive(Debug, Default)]
pub(crate) struct History(Mutex<HistorySamples>);

#[derive(Debug, Default)]
struct HistorySamples {
    host: VecDeque<Sample>,
    /// When the disks were measured, seconds since 1970.
    disks_at: VecDeque<i64>,
    /// Allocated bytes of each box's overlays at these times.
    disks: HashMap<String, VecDeque<Option<u64>>>,
}

/// The samples column by column.
#[derive(Debug, Default, PartialEq, Serialize)]
pub(crate) struct HistoryColumns {
    /// Seconds between two samples of the host.
    interval: u64,
    /// When, in seconds since 1970.
    at: Vec<i64>,
    /// Free bytes.
    free: Vec<Option<u64>>,
    /// Bytes reclaimed since the sample before.
    reclaimed: Vec<u64>,
    /// When the disks of boxes were measured.
    disks_at: Vec<i64>,
    /// Bytes of each box's overlays at these times, by id.
    disks: BTreeMap<String, Vec<Option<u64>>>,
}

impl History {
    /// The samples of the host after `after`, and all of the boxes.
    pub(crate) fn columns(&self, after: Option<i64>) -> HistoryColumns {
        let samples = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let newer = || samples.host.iter().filter(|sample| after.is_none_or(|after| sample.at > after));
        let disks = samples.disks.iter();
        HistoryColumns {
            interval: SAMPLE_INTERVAL.as_secs(),
            at: newer().map(|sample| sample.at).collect(),
            free: newer().map(|sample| sample.free).collect(),
            reclaimed: newer().map(|sample| sample.reclaimed).collect(),
            disks_at: samples.disks_at.iter().copied().collect(),
            disks: disks.map(|(id, bytes)| (id.clone(), bytes.iter().copied().collect())).collect(),
        }
    }

    /// Notes a sample, and forgets the one of a day before.
    pub(crate) fn note(&self, sample: Sample) {
        let mut samples = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if samples.host.len() == MAX_SAMPLES {
            samples.host.pop_front();
        }
        samples.host.push_back(sample);
    }

    /// Notes the disks of all boxes that there are, and forgets those of boxes that are gone.
    pub(crate) fn note_disks(&self, at: i64, disks: &[(String, Option<u64>)]) {
        let mut samples = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if samples.disks_at.len() == MAX_DISKS {
            samples.disks_at.pop_front();
        }
        let before = samples.disks_at.len();
        samples.disks_at.push_back(at);
        let mut known = std::mem::take(&mut samples.disks);
        for (id, bytes) in disks {
            let mut row = known.remove(id).unwrap_or_else(|| std::iter::repeat_n(None, before).collect());
            if row.len() == MAX_DISKS {
                row.pop_front();
            }
            row.push_back(*bytes);
            samples.disks.insert(id.clone(), row);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_past_is_bounded() {
        let history = History::default();
        for at in 0..MAX_SAMPLES as i64 + 5 {
            history.note(Sample { at, free: Some(1), reclaimed: 0 });
        }
        let columns = history.columns(None);
        assert_eq!((columns.at.len(), columns.at[0]), (MAX_SAMPLES, 5));
        assert_eq!(history.columns(Some(MAX_SAMPLES as i64 + 2)).at, [2883, 2884]);
        for at in 0..20 {
            let disks = [("old".to_owned(), Some(at as u64)), (format!("short-{at}"), None)];
            history.note_disks(at, &disks);
        }
        let columns = history.columns(None);
        assert_eq!((columns.disks_at.len(), columns.disks_at[0]), (MAX_DISKS, 7));
        assert_eq!(columns.disks.keys().collect::<Vec<_>>(), ["old", "short-19"]);
        assert_eq!((columns.disks["old"][0], columns.disks["old"].len()), (Some(7), MAX_DISKS));
        let new = &columns.disks["short-19"];
        assert_eq!((new.len(), new.iter().flatten().count()), (MAX_DISKS, 0), "as long as the times");
    }
}
