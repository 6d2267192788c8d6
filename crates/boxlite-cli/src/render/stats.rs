//! The figures of `stats`.

use boxlite::settings::Bytes;
use boxlite::{BoxState, Consumption};
use serde::Serialize;

use super::TextTable;

/// The consumption of a box; an unknown figure is `None`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct BoxFigures {
    id: String,
    name: String,
    state: BoxState,
    /// Processor time since the last measurement, of one processor.
    cpu_percent: Option<f64>,
    memory_used: Option<u64>,
    memory_limit: u64,
    memory_percent: Option<f64>,
    /// Bytes allocated to its disk, and those since the first measurement.
    disk_allocated: Option<u64>,
    disk_grown: Option<u64>,
    network_sent: Option<u64>,
    network_received: Option<u64>,
    processes: Option<u32>,
}

impl BoxFigures {
    /// The figures of `now` since the measurement `before`, of a box whose disk had `first_disk` bytes.
    pub(crate) fn of(now: &Consumption, before: Option<&Consumption>, first_disk: u64) -> Self {
        let guest = now.guest.as_ref();
        let cpu_percent =
            before.and_then(|before| before.guest.as_ref()).zip(guest).and_then(|(before, guest)| {
                // A guest that was started again has an earlier time, and a hostile one any.
                let elapsed = guest.uptime_ms.checked_sub(before.uptime_ms).filter(|&elapsed| elapsed > 0)?;
                let busy = guest.cpu_busy_ms.checked_sub(before.cpu_busy_ms)?;
                Some(percent(busy, elapsed))
            });
        let memory_used = guest.map(|guest| guest.memory_total.saturating_sub(guest.memory_available));
        Self {
            id: now.id.clone(),
            name: now.name.clone(),
            state: now.state,
            cpu_percent,
            memory_used,
            memory_limit: now.memory_limit,
            memory_percent: memory_used
                .filter(|_| now.memory_limit > 0)
                .map(|used| percent(used, now.memory_limit)),
            disk_allocated: now.disk_allocated,
            disk_grown: now.disk_allocated.map(|bytes| bytes.saturating_sub(first_disk)),
            network_sent: now.network.as_ref().map(|network| network.sent_bytes),
            network_received: now.network.as_ref().map(|network| network.received_bytes),
            processes: guest.map(|guest| guest.processes),
        }
    }

    /// The figures as they are shown, in the order of the table's columns.
    pub(super) fn cells(&self) -> [String; 8] {
        let bytes =
            |figure: Option<u64>| figure.map_or_else(|| "--".to_owned(), |bytes| Bytes(bytes).to_string());
        let share =
            |figure: Option<f64>| figure.map_or_else(|| "--".to_owned(), |percent| format!("{percent:.2}%"));
        [
            self.id.get(..12).unwrap_or(&self.id).to_owned(),
            self.name.clone(),
            share(self.cpu_percent),
            format!("{} / {}", bytes(self.memory_used), Bytes(self.memory_limit)),
            share(self.memory_percent),
            format!("{} (+{})", bytes(self.disk_allocated), bytes(self.disk_grown)),
            format!("{} / {}", bytes(self.network_sent), bytes(self.network_received)),
            self.processes.map_or_else(|| "--".to_owned(), |count| count.to_string()),
        ]
    }
}

/// Two digits after the point.
fn percent(part: u64, whole: u64) -> f64 {
    (part as f64 / whole as f64 * 10_000.0).round() / 100.0
}

/// Returns the figures as a table for a terminal of so many columns.
pub(crate) fn stats_table(all: &[BoxFigures], width: Option<usize>) -> String {
    let mut table = TextTable::new(&[
        "BOX ID",
        "NAME",
        "CPU %",
        "MEM USED / LIMIT",
        "MEM %",
        "DISK (GROWN)",
        "NET OUT / IN",
        "PIDS",
    ]);
    for figures in all {
        table.row(figures.cells());
    }
    table.text_within(width)
}

#[cfg(test)]
mod tests {
    use boxlite::GuestMetrics;

    use super::*;

    fn measured(uptime_ms: u64, cpu_busy_ms: u64) -> Consumption {
        Consumption {
            id: "0123456789abcdef".into(),
            name: "web".into(),
            state: BoxState::Running,
            memory_limit: 256 << 20,
            network: None,
            disk_allocated: Some(5 << 20),
            start: None,
            guest: Some(GuestMetrics {
                uptime_ms,
                cpu_busy_ms,
                cpus: 2,
                memory_total: 240 << 20,
                memory_available: 176 << 20,
                processes: 4,
                root_total: 0,
                root_used: 0,
            }),
        }
    }

    /// Mutation tried: subtraction that does not look at restarts.
    #[test]
    fn processor_time_is_a_share_of_the_time_between_two_measurements() {
        let share = |before: Option<&Consumption>, now| BoxFigures::of(&now, before, 0).cpu_percent;
        let before = measured(1000, 100);
        assert_eq!(share(Some(&before), measured(2000, 350)), Some(25.0));
        assert_eq!(share(Some(&before), measured(3000, 3100)), Some(150.0));
        assert_eq!(share(None, measured(2000, 350)), None);
        assert_eq!(share(Some(&before), measured(1000, 350)), None);
        assert_eq!(share(Some(&before), measured(500, 20)), None, "started again");
    }

    #[test]
    fn what_is_not_known_is_said_so() {
        let known = BoxFigures::of(&measured(2000, 350), Some(&measured(1000, 100)), 1 << 20);
        let unknown =
            Consumption { guest: None, disk_allocated: None, state: BoxState::Paused, ..measured(0, 0) };
        let text = stats_table(&[known, BoxFigures::of(&unknown, None, 0)], None);
        let line =
            |index: usize| text.lines().nth(index).unwrap().split_whitespace().collect::<Vec<_>>().join(" ");
        assert_eq!(line(1), "0123456789ab web 25.00% 64 MiB / 256 MiB 25.00% 5 MiB (+4 MiB) -- / -- 4");
        assert_eq!(line(2), "0123456789ab web -- -- / 256 MiB -- -- (+--) -- / -- --");
    }
}
