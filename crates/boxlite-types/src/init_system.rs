//! Whether a box's main process is an init system, which is run as a system's process 1 is.

use crate::{BoxOptions, ImageConfig, MainProcess};

/// Programs that are init systems wherever they are the main process.
const INIT_SYSTEMS: [&str; 5] =
    ["/sbin/init", "/usr/sbin/init", "/lib/systemd/systemd", "/usr/lib/systemd/systemd", "/bin/systemd"];

/// Returns whether the box's main process is to be process 1 of its own process namespace, by its options or else by its program.
pub fn runs_init_system(options: &BoxOptions, image: &ImageConfig) -> bool {
    options.init_system.unwrap_or_else(|| {
        main_program(options, image).is_some_and(|program| INIT_SYSTEMS.contains(&program))
    })
}

/// The first word of the main process's command, if it has one.
fn main_program<'a>(options: &'a BoxOptions, image: &'a ImageConfig) -> Option<&'a str> {
    let MainProcess::Image { entrypoint, command } = &options.main else { return None };
    // An entrypoint that is given drops the image's command.
    let default = if entrypoint.is_some() { &[][..] } else { &image.cmd[..] };
    let entrypoint = entrypoint.as_ref().unwrap_or(&image.entrypoint);
    entrypoint.iter().chain(command.as_deref().unwrap_or(default)).next().map(String::as_str)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stop_signal;

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn an_init_system_is_known_by_its_program_unless_the_options_say() {
        let image = ImageConfig { cmd: words("/sbin/init"), ..ImageConfig::default() };
        let of = |entrypoint: Option<&str>, command: Option<&str>, init_system| {
            let main = MainProcess::Image { entrypoint: entrypoint.map(words), command: command.map(words) };
            BoxOptions { main, init_system, ..BoxOptions::default() }
        };
        let runs = |options: &BoxOptions| runs_init_system(options, &image);
        assert!(runs(&of(None, None, None)));
        assert!(runs(&of(None, Some("/lib/systemd/systemd --unit=x"), None)));
        assert!(runs(&of(Some("/usr/sbin/init"), None, None)));
        assert!(runs(&of(None, Some("sh"), Some(true))));
        assert!(!runs(&of(None, None, Some(false))));
        assert!(!runs(&of(None, Some("sh /sbin/init"), None)));
        assert!(!runs(&of(Some("/entry"), None, None)));
        assert!(!runs(&BoxOptions { main: MainProcess::Idle, ..BoxOptions::default() }));

        assert_eq!(stop_signal(&of(None, None, None), &image).unwrap(), 37);
        assert_eq!(stop_signal(&of(None, None, Some(false)), &image).unwrap(), 15);
        let asked = BoxOptions { stop_signal: Some("INT".into()), ..of(None, None, None) };
        assert_eq!(stop_signal(&asked, &image).unwrap(), 2);
    }
}
