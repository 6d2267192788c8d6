//! Signals by name or number, as users and images write them.

use crate::{BoxOptions, Error, ImageConfig, Result, runs_init_system};

const NAMES: [(&str, i32); 31] = [
    ("HUP", 1),
    ("INT", 2),
    ("QUIT", 3),
    ("ILL", 4),
    ("TRAP", 5),
    ("ABRT", 6),
    ("BUS", 7),
    ("FPE", 8),
    ("KILL", 9),
    ("USR1", 10),
    ("SEGV", 11),
    ("USR2", 12),
    ("PIPE", 13),
    ("ALRM", 14),
    ("TERM", 15),
    ("STKFLT", 16),
    ("CHLD", 17),
    ("CONT", 18),
    ("STOP", 19),
    ("TSTP", 20),
    ("TTIN", 21),
    ("TTOU", 22),
    ("URG", 23),
    ("XCPU", 24),
    ("XFSZ", 25),
    ("VTALRM", 26),
    ("PROF", 27),
    ("WINCH", 28),
    ("IO", 29),
    ("PWR", 30),
    ("SYS", 31),
];
const HIGHEST: i32 = 64;
const REALTIME_MIN: i32 = 34;

/// The number of `TERM`, `SIGTERM`, `sigterm`, `15` or `RTMIN+1`.
///
/// # Errors
/// `InvalidInput` for anything that is not a signal of Linux on x86-64.
pub fn parse_signal(text: &str) -> Result<i32> {
    let upper = text.trim().to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let number = match (name.parse::<i32>(), name.strip_prefix("RTMIN")) {
        (Ok(number), _) => Some(number),
        (_, Some("")) => Some(REALTIME_MIN),
        (_, Some(offset)) => {
            offset.strip_prefix('+').and_then(|n| n.parse::<i32>().ok()).map(|n| n + REALTIME_MIN)
        }
        (_, None) => NAMES.iter().find(|(known, _)| *known == name).map(|(_, number)| *number),
    };
    number.filter(|number| (1..=HIGHEST).contains(number)).ok_or_else(|| {
        Error::invalid(format!(
            "'{text}' is not a signal: use a name such as TERM or a number from 1 to {HIGHEST}"
        ))
    })
}

/// The signal that asks the box's main process to stop: TERM where nothing else is said, or what tells systemd to halt.
pub fn stop_signal(options: &BoxOptions, image: &ImageConfig) -> Result<i32> {
    let default = if runs_init_system(options, image) { REALTIME_MIN + 3 } else { 15 };
    options.stop_signal.as_deref().or(image.stop_signal.as_deref()).map_or(Ok(default), parse_signal)
}

#[cfg(test)]
mod tests {
    use super::parse_signal;

    #[test]
    fn names_and_numbers_are_understood() {
        for (text, number) in
            [("TERM", 15), ("SIGKILL", 9), ("sigint", 2), ("3", 3), ("RTMIN+3", 37), ("64", 64)]
        {
            assert_eq!(parse_signal(text).unwrap(), number, "{text}");
        }
        for bad in ["", "0", "65", "-9", "SIGNOPE", "RTMIN-1", "RTMIN+99"] {
            assert!(parse_signal(bad).is_err(), "{bad}");
        }
    }
}
