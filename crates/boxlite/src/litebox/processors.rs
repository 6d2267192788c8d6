//! The processors of boxes: how many their guests have, and how much time of the host's they get.

use boxlite_home::admission::{ProcessBounds, online_processors};
use boxlite_types::{BoxOptions, Error, Result};
use boxlite_vm::shim;

/// The most that QEMU's machine has.
const MAX_CPUS: u32 = 255;
/// The smallest limit, in hundredths of one processor: with less, a guest takes minutes to come up.
const MIN_CPU_LIMIT: u32 = 5;

/// Checks the processors of a new box, or of one that is changed, against each other and this host's.
///
/// # Errors
/// `InvalidInput` with the figures.
pub(super) fn check(options: &BoxOptions) -> Result<()> {
    check_on(options, online_processors())
}

fn check_on(options: &BoxOptions, host: Option<u32>) -> Result<()> {
    let BoxOptions { cpus, cpu_limit, .. } = options;
    if *cpus == 0 || *cpus > MAX_CPUS {
        return Err(Error::invalid(format!("a box has 1 to {MAX_CPUS} processors, not {cpus}")));
    }
    if let Some(host) = host.filter(|host| cpus > host) {
        return Err(Error::invalid(format!(
            "a box with {cpus} processors would only wait for itself: this host has {host}; ask for {host} at most"
        )));
    }
    let most = cpus * 100;
    match cpu_limit {
        Some(limit) if *limit < MIN_CPU_LIMIT => Err(Error::invalid(format!(
            "{limit} % of one processor are too few: the guest would take minutes to come up; ask for at least \
             {MIN_CPU_LIMIT} %, which is --cpus 0.{MIN_CPU_LIMIT:02}"
        ))),
        Some(limit) if *limit > most => Err(Error::invalid(format!(
            "a limit of {limit} % of one processor is more than the {most} % of the box's {cpus}"
        ))),
        _ => Ok(()),
    }
}

/// Why the limit of a box's processor time would not hold; `None` where it does, or the box has none.
pub(super) fn limit_in_vain(options: &BoxOptions, has_jail: bool, stays_in_group: bool) -> Option<String> {
    let limit = options.cpu_limit?;
    let why = if stays_in_group {
        let bounds = ProcessBounds::measure().ok().and_then(|bounds| bounds.cpu_percent);
        if bounds.is_some_and(|bound| bound <= limit) {
            return None;
        }
        "it stays in the control group of its engine".to_owned()
    } else if has_jail {
        shim::bounds_processors().err()?
    } else {
        "the setting jail is off, and with it the box's control group".to_owned()
    };
    Some(format!(
        "the box may take more processor time than {limit} % of one processor: {why}; it has {} whole",
        match options.cpus {
            1 => "1 processor".to_owned(),
            cpus => format!("{cpus} processors"),
        }
    ))
}

/// Returns the control group's share of the host's processors, in hundredths of one.
pub(super) fn limit(options: &BoxOptions) -> u32 {
    options.cpu_limit.unwrap_or(options.cpus * 100)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_box_has_no_more_processors_than_its_host() {
        let check =
            |cpus, cpu_limit| check_on(&BoxOptions { cpus, cpu_limit, ..BoxOptions::default() }, Some(2));
        check(2, None).unwrap();
        check(1, Some(50)).unwrap();
        check(2, Some(200)).unwrap();
        let many = check(100, None).unwrap_err().to_string();
        assert!(many.contains("100 processors") && many.contains("this host has 2"), "{many}");
        assert!(check(0, None).is_err() && check(256, None).is_err());
        assert!(check(1, Some(101)).is_err() && check(1, Some(4)).is_err());
        let unknown = BoxOptions { cpus: 100, ..BoxOptions::default() };
        check_on(&unknown, None).unwrap();
    }
}
