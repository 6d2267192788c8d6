//! The addresses that allowed names stand for, as the box's own resolver told.

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

/// How long an address is remembered at least: programs connect later than their record says.
const MIN_PIN: Duration = Duration::from_secs(600);
/// How long at most.
const MAX_PIN: Duration = Duration::from_secs(24 * 3600);
/// Pairs of a name and an address; more push out those that would be forgotten first.
const MAX_PINS: usize = 4096;

/// Names by address, bounded in number and in time.
#[derive(Debug, Default)]
pub(super) struct Pins {
    until: HashMap<Ipv4Addr, HashMap<String, Instant>>,
    count: usize,
}

impl Pins {
    /// Remembers that `name` stands for `address`, by a record that holds for `seconds`.
    pub(super) fn pin(&mut self, name: &str, address: Ipv4Addr, seconds: u32, now: Instant) {
        if self.count >= MAX_PINS {
            self.make_room(now);
        }
        let until = now + Duration::from_secs(seconds.into()).clamp(MIN_PIN, MAX_PIN);
        if self.until.entry(address).or_default().insert(name.to_owned(), until).is_none() {
            self.count += 1;
        }
    }

    /// Whether `name` stands for `address`.
    pub(super) fn holds(&self, address: Ipv4Addr, name: &str, now: Instant) -> bool {
        self.names(address, now).any(|own| own == name)
    }

    /// The names that stand for `address`.
    pub(super) fn names(&self, address: Ipv4Addr, now: Instant) -> impl Iterator<Item = &str> {
        let names = self.until.get(&address).into_iter().flatten();
        names.filter(move |(_, until)| **until > now).map(|(name, _)| name.as_str())
    }

    /// Forgets what is over, and of what is not over the half that would be forgotten first.
    fn make_room(&mut self, now: Instant) {
        self.keep_beyond(now);
        if self.count >= MAX_PINS {
            let mut ends: Vec<Instant> = self.until.values().flat_map(HashMap::values).copied().collect();
            let (_, middle, _) = ends.select_nth_unstable(MAX_PINS / 2);
            let middle = *middle;
            self.keep_beyond(middle);
        }
    }

    fn keep_beyond(&mut self, end: Instant) {
        for names in self.until.values_mut() {
            names.retain(|_, until| *until > end);
        }
        self.until.retain(|_, names| !names.is_empty());
        self.count = self.until.values().map(HashMap::len).sum();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Mutations tried: `clamp` without its floor, and without its ceiling.
    #[test]
    fn an_address_is_remembered_for_its_name_and_its_time() {
        let (mut pins, now) = (Pins::default(), Instant::now());
        let (address, second) = (Ipv4Addr::new(1, 2, 3, 4), Duration::from_secs(1));
        pins.pin("a.b", address, 0, now);
        assert!(pins.holds(address, "a.b", now + MIN_PIN.saturating_sub(second)));
        assert!(!pins.holds(address, "c.d", now) && !pins.holds(Ipv4Addr::new(1, 2, 3, 5), "a.b", now));
        assert!(!pins.holds(address, "a.b", now + MIN_PIN));
        pins.pin("a.b", address, u32::MAX, now);
        assert!(pins.holds(address, "a.b", now + MIN_PIN) && !pins.holds(address, "a.b", now + MAX_PIN));
    }

    // Mutation tried: `count` that is not taken anew in `keep_beyond` refuses all further room, and fails here.
    #[test]
    fn a_flood_of_answers_grows_no_further_and_the_latest_stay() {
        let (mut pins, now) = (Pins::default(), Instant::now());
        for number in 0..20_000 {
            let (name, then) = (format!("n{}", number % 7), now + Duration::from_millis(number.into()));
            pins.pin(&name, Ipv4Addr::from_bits(number / 3), 0, then);
            assert!(pins.count <= MAX_PINS);
            assert!(pins.holds(Ipv4Addr::from_bits(number / 3), &name, then));
        }
        assert_eq!(pins.count, pins.until.values().map(HashMap::len).sum::<usize>());
        assert!(pins.holds(Ipv4Addr::from_bits(19_000 / 3), &format!("n{}", 19_000 % 7), now));
    }

    #[test]
    fn pins_that_all_end_at_once_still_make_room() {
        let (mut pins, now) = (Pins::default(), Instant::now());
        for number in 0..10_000 {
            pins.pin("a.b", Ipv4Addr::from_bits(number), 0, now);
            assert!(pins.count <= MAX_PINS && pins.holds(Ipv4Addr::from_bits(number), "a.b", now));
        }
    }
}
