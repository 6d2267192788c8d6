//! The keys that detach from a box: ctrl-p, then ctrl-q, or others that the user has chosen.

use std::str::FromStr;

use clap::Args;

const MAX_KEYS: usize = 8;

/// `--detach-keys`.
#[derive(Debug, Clone, Copy, Default, Args)]
pub(crate) struct DetachArgs {
    /// Keys that detach from the command, which goes on: letters and ctrl-LETTER with commas between them; empty for none
    #[arg(long, value_name = "KEYS", default_value = "ctrl-p,ctrl-q", allow_hyphen_values = true)]
    pub(crate) detach_keys: DetachKeys,
}

/// Looks for the keys in typed bytes; holds the first keys back until the next byte tells what they meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DetachKeys {
    keys: [u8; MAX_KEYS],
    length: usize,
    /// How many of the keys were typed so far.
    typed: usize,
}

impl Default for DetachKeys {
    fn default() -> Self {
        Self::of(b"\x10\x11")
    }
}

impl FromStr for DetachKeys {
    type Err = String;

    /// Reads Docker's notation.
    fn from_str(text: &str) -> Result<Self, String> {
        let words = text.split(',').filter(|_| !text.is_empty());
        let keys = words.map(key).collect::<Result<Vec<u8>, String>>()?;
        if keys.len() > MAX_KEYS {
            return Err(format!("there are more than {MAX_KEYS} keys"));
        }
        Ok(Self::of(&keys))
    }
}

/// Reads `a` or `ctrl-a`: what a terminal sends for that key.
fn key(word: &str) -> Result<u8, String> {
    let control = word.strip_prefix("ctrl-");
    match (control, control.unwrap_or(word).as_bytes()) {
        (None, [letter]) if letter.is_ascii_graphic() => Ok(*letter),
        (Some(_), [letter]) if matches!(letter.to_ascii_uppercase(), b'@'..=b'_') => {
            Ok(letter.to_ascii_uppercase() & 0x1f)
        }
        _ => Err(format!("`{word}` is not a key; write a letter, or ctrl- with a letter or one of @[\\]^_")),
    }
}

impl DetachKeys {
    /// Nothing detaches.
    pub(super) const NONE: Self = Self { keys: [0; MAX_KEYS], length: 0, typed: 0 };

    fn of(wanted: &[u8]) -> Self {
        let mut keys = [0; MAX_KEYS];
        keys[..wanted.len()].copy_from_slice(wanted);
        Self { keys, length: wanted.len(), typed: 0 }
    }

    /// Returns the bytes to pass on, and whether the keys were typed; nothing after them is passed on.
    pub(super) fn feed(&mut self, typed: &[u8]) -> (Vec<u8>, bool) {
        let keys = &self.keys[..self.length];
        let mut held = keys[..self.typed].to_vec();
        let mut pass = Vec::with_capacity(held.len() + typed.len());
        for &byte in typed {
            held.push(byte);
            while !keys.starts_with(&held) {
                pass.push(held.remove(0));
            }
            if !keys.is_empty() && held.len() == keys.len() {
                return (pass, true);
            }
        }
        self.typed = held.len();
        (pass, false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_keys_detach_and_are_not_passed_on() {
        assert_eq!(DetachKeys::default().feed(b"ab\x10\x11cd"), (b"ab".to_vec(), true));
        let mut split = DetachKeys::default();
        assert_eq!(split.feed(b"a\x10"), (b"a".to_vec(), false));
        assert_eq!(split.feed(b"\x11"), (Vec::new(), true));
    }

    #[test]
    fn everything_else_is_passed_on_in_order() {
        let mut keys = DetachKeys::default();
        assert_eq!(keys.feed(b"\x10x\x11"), (b"\x10x\x11".to_vec(), false));
        assert_eq!(keys.feed(b"\x10\x10"), (b"\x10".to_vec(), false));
        assert_eq!(keys.feed(b"\x11"), (Vec::new(), true));
    }

    /// Mutation tried: what was held back is given up as a whole, so that `aab` is not found in `aaab`.
    #[test]
    fn a_user_may_choose_the_keys() {
        let keys = |text: &str| text.parse::<DetachKeys>().unwrap();
        assert_eq!(keys("ctrl-p,ctrl-q"), DetachKeys::default());
        assert_eq!(keys("ctrl-]").feed(b"a\x1db"), (b"a".to_vec(), true));
        assert_eq!(keys("a,a,b").feed(b"aaab"), (b"a".to_vec(), true));
        assert_eq!(keys("").feed(b"\x10\x11"), (b"\x10\x11".to_vec(), false));
        for wrong in ["ctrl-", "ctrl-1", "ab", "a,,b", "shift-a", "\u{e4}", "a,b,c,d,e,f,g,h,i"] {
            assert!(wrong.parse::<DetachKeys>().is_err(), "{wrong}");
        }
    }
}
