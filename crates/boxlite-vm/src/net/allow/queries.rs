//! Questions to the resolver that it has not answered: only their answers are believed.
//!
//! The stack's socket takes datagrams from everybody, and shows them as the resolver's. Each question therefore goes out
//! under a number that the guest does not know, so that no accomplice outside can answer it.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::super::dns::Question;

/// How long an answer is awaited; resolvers ask again before that.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// More questions than this push out all others.
const MAX_QUERIES: usize = 512;

/// The questions without an answer.
#[derive(Debug, Default)]
pub(super) struct Queries {
    open: HashMap<(u16, u16), Query>,
}

#[derive(Debug)]
struct Query {
    question: Question,
    number: u16,
    until: Instant,
}

impl Queries {
    /// Notes a question from the guest's port, to which the guest gave `number`, and returns the number it goes out under.
    pub(super) fn ask(&mut self, guest_port: u16, number: u16, question: Question, now: Instant) -> u16 {
        if self.open.len() >= MAX_QUERIES {
            self.open.retain(|_, query| query.until > now);
            if self.open.len() >= MAX_QUERIES {
                self.open.clear();
            }
        }
        let fresh = rand::random();
        self.open.insert((guest_port, fresh), Query { question, number, until: now + ANSWER_TIMEOUT });
        fresh
    }

    /// The guest's number of the question that came from its port and went out under `fresh`; `None` for another question.
    pub(super) fn answer(
        &mut self,
        guest_port: u16,
        fresh: u16,
        question: &Question,
        now: Instant,
    ) -> Option<u16> {
        let query = self.open.get(&(guest_port, fresh))?;
        let is_its = query.until > now && query.question.is_same(question);
        is_its.then(|| self.open.remove(&(guest_port, fresh)).map(|query| query.number)).flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::dns::question_of_query;
    use super::super::super::oracle::name_query;
    use super::*;

    fn question(name: &str) -> Question {
        question_of_query(&name_query(name)).unwrap()
    }

    // Mutations tried: `is_same` left out, `until` left out, the answered question kept.
    #[test]
    fn a_question_is_answered_once_and_under_its_number() {
        let (mut queries, now) = (Queries::default(), Instant::now());
        let fresh = queries.ask(7, 1, question("a.b"), now);
        assert_eq!(queries.answer(7, fresh.wrapping_add(1), &question("a.b"), now), None);
        assert_eq!(queries.answer(8, fresh, &question("a.b"), now), None);
        assert_eq!(queries.answer(7, fresh, &question("c.d"), now), None);
        assert_eq!(queries.answer(7, fresh, &question("A.b"), now), Some(1));
        assert_eq!(queries.answer(7, fresh, &question("a.b"), now), None, "answered");
        let late = queries.ask(7, 1, question("a.b"), now);
        assert_eq!(queries.answer(7, late, &question("a.b"), now + ANSWER_TIMEOUT), None);
    }

    // Mutation tried: the guest's own number.
    #[test]
    fn the_guest_does_not_choose_the_number() {
        let (mut queries, now) = (Queries::default(), Instant::now());
        let numbers: Vec<u16> = (0..20).map(|_| queries.ask(7, 1, question("a.b"), now)).collect();
        assert!(numbers.iter().any(|number| *number != numbers[0]), "{numbers:?}");
    }

    #[test]
    fn a_flood_of_questions_grows_no_further() {
        let (mut queries, now) = (Queries::default(), Instant::now());
        for port in 0..5000 {
            let fresh = queries.ask(port, 1, question("a.b"), now);
            assert!(queries.open.len() <= MAX_QUERIES);
            assert!(queries.open.contains_key(&(port, fresh)));
        }
    }
}
