//! The keys that detach from a box: ctrl-p, then ctrl-q.

const CTRL_P: u8 = 0x10;
const CTRL_Q: u8 = 0x11;

/// Looks for the keys in typed bytes; holds the first key back until the next byte tells what it meant.
#[derive(Debug, Default)]
pub(super) struct DetachKeys {
    pending: bool,
}

impl DetachKeys {
    /// Returns the bytes to pass on, and whether the keys were typed; nothing after them is passed on.
    pub(super) fn feed(&mut self, typed: &[u8]) -> (Vec<u8>, bool) {
        let mut pass = Vec::with_capacity(typed.len() + 1);
        for &byte in typed {
            match (self.pending, byte) {
                (true, CTRL_Q) => return (pass, true),
                (true, CTRL_P) => pass.push(CTRL_P),
                (true, _) => {
                    self.pending = false;
                    pass.extend([CTRL_P, byte]);
                }
                (false, CTRL_P) => self.pending = true,
                (false, _) => pass.push(byte),
            }
        }
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
}
