//! Grants: who holds the token of one may connect to one port of one box, without a key.
//!
//! The public API hands out a tunnel as a URL, and its clients connect to that URL's host with nothing but its user part.
//! So the user part is the token. Grants are in memory, end when they have not been used for [`UNUSED_FOR`], and the oldest
//! one of a caller goes when that has more than [`MAX_GRANTS_OF_ONE`]. One that a key of the keys file asked for ends with it.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use boxlite::Digest;
use uuid::Uuid;

/// How long a grant lasts after its last use.
const UNUSED_FOR: Duration = Duration::from_secs(3600);
/// Grants that there may be.
const MAX_GRANTS: usize = 16_384;
/// Grants that the holder of one key may have.
const MAX_GRANTS_OF_ONE: usize = 4096;

/// A grant and its last use, by token.
type Entry<'a> = (&'a String, &'a (Grant, Instant));

/// The access that a token grants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Grant {
    /// Id of the box.
    pub(crate) id: String,
    /// A port inside it.
    pub(crate) port: u16,
    /// The hash of the key of the keys file that asked for it, and with which it ends.
    pub(crate) to: Option<Digest>,
}

/// The grants of this server.
#[derive(Debug, Default)]
pub(crate) struct Grants(Mutex<HashMap<String, (Grant, Instant)>>);

impl Grants {
    /// Makes a grant and returns its token: hexadecimal digits, 244 bits of them random.
    pub(crate) fn issue(&self, grant: Grant, now: Instant) -> String {
        let token = format!("{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple());
        let mut grants = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        grants.retain(|_, (_, used)| now.saturating_duration_since(*used) < UNUSED_FOR);
        // A key never displaces another's: one with too many loses its own that was unused for longest.
        let own = || grants.iter().filter(|(_, (other, _))| other.to == grant.to);
        if grants.len() >= MAX_GRANTS || own().count() >= MAX_GRANTS_OF_ONE {
            let oldest = |of: &mut dyn Iterator<Item = Entry<'_>>| {
                of.min_by_key(|(_, (_, used))| *used).map(|(token, _)| token.clone())
            };
            let oldest = oldest(&mut own()).or_else(|| oldest(&mut grants.iter()));
            oldest.and_then(|token| grants.remove(&token));
        }
        grants.insert(token.clone(), (grant, now));
        token
    }

    /// Returns the access that the token grants, and takes note of its use.
    pub(crate) fn redeem(&self, token: &str, now: Instant) -> Option<Grant> {
        let mut grants = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (grant, used) = grants.get_mut(token)?;
        if now.saturating_duration_since(*used) >= UNUSED_FOR {
            grants.remove(token);
            return None;
        }
        *used = now;
        Some(grant.clone())
    }

    /// Ends all that grants this; connections that stand go on.
    pub(crate) fn revoke(&self, revoked: &Grant) {
        let mut grants = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        grants.retain(|_, (grant, _)| grant != revoked);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grant(port: u16) -> Grant {
        Grant { id: "box".into(), port, to: None }
    }

    #[test]
    fn a_grant_lasts_until_it_is_revoked_or_unused_for_long() {
        let (grants, start) = (Grants::default(), Instant::now());
        let token = grants.issue(grant(80), start);
        let other = grants.issue(grant(81), start);
        let almost = start + Duration::from_secs(UNUSED_FOR.as_secs() - 1);
        assert_eq!(grants.redeem(&token, almost), Some(grant(80)));
        assert_eq!(grants.redeem(&token, start + UNUSED_FOR), Some(grant(80)), "it was in use");
        assert_eq!(grants.redeem(&other, start + UNUSED_FOR), None);
        assert_eq!(grants.redeem("", start), None);
        grants.revoke(&grant(80));
        assert_eq!(grants.redeem(&token, start + UNUSED_FOR), None);
    }

    /// Mutation tried: without the removal of the oldest, a client can fill the server's memory.
    #[test]
    fn there_are_only_so_many_grants_and_the_own_one_unused_for_longest_goes() {
        let (grants, start) = (Grants::default(), Instant::now());
        let others = grants.issue(Grant { to: Some(Digest::of(b"other")), ..grant(1) }, start);
        let first = grants.issue(grant(1), start);
        for count in 0..MAX_GRANTS_OF_ONE as u64 {
            grants.issue(grant(2), start + Duration::from_millis(1 + count));
        }
        assert_eq!(grants.0.lock().unwrap().len(), MAX_GRANTS_OF_ONE + 1);
        assert_eq!(grants.redeem(&first, start), None);
        assert!(grants.redeem(&others, start).is_some(), "another's stays");
    }
}
